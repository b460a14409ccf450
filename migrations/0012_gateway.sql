-- What devices tell the gateway: the key that they will use next, and their events.

ALTER TABLE device ADD COLUMN next_key BYTEA;       -- SHA-256; until it is seen in use
ALTER TABLE device ADD COLUMN next_key_at BIGINT;

CREATE TABLE device_event (
    device_id BIGINT NOT NULL REFERENCES device (id),
    id TEXT NOT NULL,                   -- the device's own
    number BIGINT NOT NULL,             -- in which order they came
    at BIGINT NOT NULL,
    device_time TEXT NOT NULL,
    rotation TEXT NOT NULL,             -- the correlation id that it names
    step TEXT NOT NULL,
    success BIGINT,
    details TEXT NOT NULL,
    PRIMARY KEY (device_id, id)
);
CREATE INDEX device_event_order ON device_event (device_id, number);
