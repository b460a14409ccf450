-- What people look devices up by. Rows of before are filled in when the ledger is opened.

ALTER TABLE credential ADD COLUMN key_algorithm TEXT;

CREATE INDEX credential_expiry ON credential (not_after) WHERE state = 'current';
CREATE INDEX credential_unread ON credential (id) WHERE key_algorithm IS NULL;
