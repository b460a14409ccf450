-- CAs outside a Factory's PKI whose certificates introduce new devices (RFC 7030 §3.3.2): kept apart
-- from the Device CAs, which nothing here refers to.

CREATE TABLE bootstrap_ca (
    id BIGINT PRIMARY KEY,
    factory_id BIGINT NOT NULL REFERENCES factory (id),
    public_key_sha256 BYTEA NOT NULL UNIQUE,
    certificate BYTEA NOT NULL,
    added_at BIGINT NOT NULL
);
