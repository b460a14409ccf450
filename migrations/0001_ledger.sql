-- The ledger. The same text runs on SQLite and PostgreSQL: times are unix seconds, DER and digests
-- are BYTEA, and rows get their ids from ledger_head, the one row that every writing transaction
-- locks first.

CREATE TABLE ledger_head (
    id BIGINT PRIMARY KEY CHECK (id = 1),
    last_id BIGINT NOT NULL,            -- the highest id given to any row
    snapshot_version BIGINT NOT NULL,   -- grows with every change of a Factory
    audit_number BIGINT NOT NULL,       -- the number of the last audit row
    audit_hash BYTEA NOT NULL,          -- and its hash
    key_check BYTEA                     -- tells whether a key-encryption key is this ledger's
);

CREATE TABLE factory (
    id BIGINT PRIMARY KEY,
    name TEXT NOT NULL UNIQUE,
    est_host TEXT NOT NULL UNIQUE,
    gateway_host TEXT NOT NULL,
    any_organizational_unit BIGINT NOT NULL,
    root BYTEA,
    created_at BIGINT NOT NULL
);

-- Keys made here. One without a certificate is waiting for the root's signature.
CREATE TABLE private_key (
    public_key_sha256 BYTEA PRIMARY KEY,
    factory_id BIGINT NOT NULL REFERENCES factory (id),
    purpose TEXT NOT NULL CHECK (purpose IN ('est-tls', 'tls', 'device-ca')),
    wrapped BYTEA NOT NULL,
    request BYTEA NOT NULL,             -- the PKCS#10 for the root
    installed BIGINT NOT NULL,          -- 1 once its certificate is here
    created_at BIGINT NOT NULL
);

-- The latest of a purpose is the one in use.
CREATE TABLE server_certificate (
    id BIGINT PRIMARY KEY,
    factory_id BIGINT NOT NULL REFERENCES factory (id),
    purpose TEXT NOT NULL CHECK (purpose IN ('est-tls', 'tls')),
    public_key_sha256 BYTEA NOT NULL REFERENCES private_key (public_key_sha256),
    certificate BYTEA NOT NULL,
    installed_at BIGINT NOT NULL
);

CREATE TABLE device_ca (
    id BIGINT PRIMARY KEY,
    factory_id BIGINT NOT NULL REFERENCES factory (id),
    kind TEXT NOT NULL CHECK (kind IN ('online', 'local')),
    state TEXT NOT NULL CHECK (state IN ('enabled', 'disabled', 'revoked')),
    public_key_sha256 BYTEA NOT NULL UNIQUE,
    certificate BYTEA NOT NULL,
    added_at BIGINT NOT NULL
);

CREATE TABLE device (
    id BIGINT PRIMARY KEY,
    factory_id BIGINT NOT NULL REFERENCES factory (id),
    name TEXT NOT NULL,
    allowed_once BIGINT NOT NULL,
    registered_at BIGINT NOT NULL,
    last_seen_at BIGINT,
    UNIQUE (factory_id, name)
);

CREATE TABLE credential (
    id BIGINT PRIMARY KEY,
    device_id BIGINT NOT NULL REFERENCES device (id),
    device_ca_id BIGINT NOT NULL REFERENCES device_ca (id),
    state TEXT NOT NULL CHECK (state IN ('pending', 'current', 'superseded', 'denied')),
    sha256 BYTEA NOT NULL,
    public_key_sha256 BYTEA NOT NULL,
    certificate BYTEA NOT NULL,
    recorded_at BIGINT NOT NULL,
    first_used_at BIGINT,
    UNIQUE (device_id, sha256)
);

-- One issuance. The constraint is rule I12's.
CREATE TABLE enrolment (
    id BIGINT PRIMARY KEY,
    credential_id BIGINT NOT NULL REFERENCES credential (id),
    serial BYTEA NOT NULL UNIQUE,
    operation TEXT NOT NULL,
    label TEXT,
    presented_sha256 BYTEA NOT NULL,    -- the certificate that asked
    address TEXT NOT NULL,
    at BIGINT NOT NULL
);
CREATE INDEX enrolment_credential ON enrolment (credential_id);

-- A request under a profile that wants a person's approval (RFC 7030 §4.2.3, status 202).
CREATE TABLE held_request (
    id BIGINT PRIMARY KEY,
    factory_id BIGINT NOT NULL REFERENCES factory (id),
    device TEXT NOT NULL,
    request_sha256 BYTEA NOT NULL,
    operation TEXT NOT NULL,
    key_algorithm TEXT NOT NULL,
    state TEXT NOT NULL CHECK (state IN ('waiting', 'approved', 'rejected')),
    asked_at BIGINT NOT NULL,
    decided_at BIGINT,
    UNIQUE (factory_id, device, request_sha256)
);

CREATE TABLE audit (
    number BIGINT PRIMARY KEY,
    at BIGINT NOT NULL,
    factory_id BIGINT,
    actor TEXT NOT NULL,
    action TEXT NOT NULL,
    subject TEXT NOT NULL,
    outcome TEXT NOT NULL,
    code TEXT NOT NULL,
    detail TEXT NOT NULL,
    hash BYTEA NOT NULL
);
CREATE INDEX audit_subject ON audit (factory_id, subject);
