-- Rotations: campaigns that re-issue the certificates of many devices.

CREATE TABLE rotation (
    id BIGINT PRIMARY KEY,
    factory_id BIGINT NOT NULL REFERENCES factory (id),
    name TEXT NOT NULL,                 -- the ROTATIONID
    state TEXT NOT NULL CHECK (state IN ('preparing', 'running', 'paused', 'finished', 'aborted')),
    state_reason TEXT NOT NULL,
    state_since BIGINT NOT NULL,
    plan TEXT NOT NULL,                 -- what was asked for, JSON
    target_ca_id BIGINT REFERENCES device_ca (id),
    leaving_ca_id BIGINT REFERENCES device_ca (id),
    request_key TEXT,                   -- the Idempotency-Key that started it, and
    request_sha256 BYTEA,               -- what came with it
    created_by TEXT NOT NULL,
    created_at BIGINT NOT NULL,
    prepared_to BIGINT NOT NULL,        -- the last row of device that was looked at
    credit_at BIGINT NOT NULL,          -- up to when slots were given out, in milliseconds
    canaries_left BIGINT NOT NULL,
    outcomes TEXT NOT NULL,             -- of the last devices: . went well, x failed
    waiting BIGINT NOT NULL,            -- how many devices are in which state
    offered BIGINT NOT NULL,
    issued BIGINT NOT NULL,
    confirmed BIGINT NOT NULL,
    failed BIGINT NOT NULL,
    skipped BIGINT NOT NULL,
    UNIQUE (factory_id, name),
    UNIQUE (factory_id, request_key)
);
CREATE INDEX rotation_active ON rotation (id) WHERE state IN ('preparing', 'running', 'paused');

CREATE TABLE rotation_device (
    rotation_id BIGINT NOT NULL REFERENCES rotation (id),
    device_id BIGINT NOT NULL REFERENCES device (id),
    ordinal BIGINT NOT NULL,            -- in which order slots come
    state TEXT NOT NULL
        CHECK (state IN ('waiting', 'offered', 'issued', 'confirmed', 'failed', 'skipped')),
    since BIGINT NOT NULL,
    reason TEXT,                        -- why it failed or is left out
    detail TEXT,
    credential_before BIGINT,           -- what it used when the rotation began
    offered_at BIGINT,                  -- when its slot came
    failures BIGINT NOT NULL DEFAULT 0, -- how often it has failed
    PRIMARY KEY (rotation_id, device_id)
);
CREATE INDEX rotation_device_device ON rotation_device (device_id, rotation_id);
CREATE INDEX rotation_device_order ON rotation_device (rotation_id, state, ordinal);
CREATE INDEX rotation_device_since ON rotation_device (rotation_id, state, since);

-- Devices of a Factory in the order of their registration.
CREATE INDEX device_order ON device (factory_id, id);
-- And of a group, by name.
CREATE INDEX device_of_group ON device (factory_id, device_group, name)
    WHERE device_group IS NOT NULL;
