-- Where a private key is. One in a PKCS#11 token has nothing in `wrapped`.
ALTER TABLE private_key
    ADD COLUMN store TEXT NOT NULL DEFAULT 'ledger' CHECK (store IN ('ledger', 'token'));
