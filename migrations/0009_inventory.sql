-- What people look devices up by, and what a device asks for its renewal window by. Rows of before
-- are filled in when the ledger is opened.

ALTER TABLE credential ADD COLUMN key_algorithm TEXT;
ALTER TABLE credential ADD COLUMN serial BYTEA;

CREATE INDEX credential_expiry ON credential (not_after) WHERE state = 'current';
CREATE INDEX credential_serial ON credential (serial) WHERE state IN ('current', 'pending');
CREATE INDEX credential_unread ON credential (id) WHERE key_algorithm IS NULL;
