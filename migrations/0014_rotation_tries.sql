-- How often a device of a rotation was made to wait for a slot once more: agents take a rotation that
-- they have been through for another only by another id.
ALTER TABLE rotation_device ADD COLUMN tries BIGINT NOT NULL DEFAULT 0;
