-- Who may use the API. Of a token only its hash is here. A revoked one keeps its row, and with it
-- its name: the audit log tells people apart by it.
CREATE TABLE token (
    id BIGINT PRIMARY KEY,
    factory_id BIGINT REFERENCES factory (id),  -- NULL: every Factory
    name TEXT NOT NULL UNIQUE,
    role TEXT NOT NULL CHECK (role IN ('viewer', 'operator', 'admin')),
    sha256 BYTEA NOT NULL UNIQUE,
    created_at BIGINT NOT NULL,
    created_by TEXT NOT NULL,
    expires_at BIGINT,
    revoked_at BIGINT
);

-- The audit log of one Factory, newest first. It takes the place of an index that nothing read.
CREATE INDEX audit_factory ON audit (factory_id, number);
DROP INDEX audit_subject;
