-- Webhooks. What they are told of is in the audit log, which is numbered and written in the same
-- transaction as what it tells; so each needs no more than the number that it has come to.

CREATE TABLE webhook (
    id BIGINT PRIMARY KEY,
    factory_id BIGINT REFERENCES factory (id),  -- NULL: every Factory
    name TEXT NOT NULL UNIQUE,
    url TEXT NOT NULL,
    events TEXT NOT NULL,               -- kinds, separated by spaces; empty: all
    secret BYTEA NOT NULL,              -- wrapped, as private keys are
    created_at BIGINT NOT NULL,
    created_by TEXT NOT NULL,
    done_to BIGINT NOT NULL,            -- it has nothing to do with audit rows up to this any more
    attempts BIGINT NOT NULL,           -- that failed, at the first event after that
    next_attempt_at BIGINT NOT NULL,
    last_error TEXT,                    -- of the latest attempt, if that failed
    delivered_at BIGINT,
    leased_until BIGINT NOT NULL        -- one server delivers at a time
);

-- Events that nobody took.
CREATE TABLE webhook_dead_letter (
    webhook_id BIGINT NOT NULL REFERENCES webhook (id),
    number BIGINT NOT NULL,             -- of the audit row
    error TEXT NOT NULL,
    given_up_at BIGINT NOT NULL,
    again BIGINT NOT NULL,              -- 1: an operator wants it to be delivered again
    PRIMARY KEY (webhook_id, number)
);

CREATE INDEX audit_event ON audit (number) WHERE (outcome = 'alarm' OR (outcome = 'done' AND
    action IN ('confirm', 'adopt', 'readmit', 'start-rotation', 'pause-rotation',
    'resume-rotation', 'abort-rotation', 'retry-rotation', 'finish-rotation', 'add-device-ca',
    'disable-device-ca', 'enable-device-ca', 'revoke-device-ca', 'readmit-device-ca')));
