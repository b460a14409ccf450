-- Denied devices, what a Device CA still carries, and the CRLs of online Device CAs.

ALTER TABLE device ADD COLUMN denied_at BIGINT;

ALTER TABLE credential ADD COLUMN not_after BIGINT;     -- NULL in rows of before this migration
ALTER TABLE credential ADD COLUMN state_since BIGINT;   -- likewise

-- Who depends on a Device CA (rule I8), and what its CRL names.
CREATE INDEX credential_accepted ON credential (device_ca_id, device_id)
    WHERE state IN ('current', 'pending');
CREATE INDEX credential_refused ON credential (device_ca_id)
    WHERE state IN ('superseded', 'denied');

-- The latest CRL of each online Device CA.
CREATE TABLE revocation_list (
    device_ca_id BIGINT PRIMARY KEY REFERENCES device_ca (id),
    number BIGINT NOT NULL,
    entries_sha256 BYTEA NOT NULL,      -- tells whether a new one would say anything new
    der BYTEA NOT NULL,
    made_at BIGINT NOT NULL
);
