-- What is read of a device does not grow with what it once had; whom a bootstrap certificate
-- introduced; and which certificate an operator lets come back.

CREATE INDEX credential_of_device ON credential (device_id) WHERE state IN ('current', 'pending');
CREATE INDEX credential_key ON credential (device_id, public_key_sha256);

ALTER TABLE device ADD COLUMN introduced_by BYTEA;      -- SHA-256 of the bootstrap certificate's key
ALTER TABLE device ADD COLUMN allowed_sha256 BYTEA;     -- NULL: whatever certificate it presents
ALTER TABLE held_request ADD COLUMN label TEXT;
