-- Configuration files that operators set for devices: of a Factory, of a group, of a device. A file
-- that was removed leaves its row, so that devices learn of it.

CREATE TABLE config_file (
    factory_id BIGINT NOT NULL REFERENCES factory (id),
    scope TEXT NOT NULL CHECK (scope IN ('factory', 'group', 'device')),
    owner TEXT NOT NULL,                -- the group or the device; of a Factory nothing
    name TEXT NOT NULL,
    value TEXT,                         -- NULL: removed
    on_changed TEXT NOT NULL,           -- what a device runs then, a JSON list
    unencrypted BIGINT NOT NULL,
    changed_at BIGINT NOT NULL,
    PRIMARY KEY (factory_id, scope, owner, name)
);
