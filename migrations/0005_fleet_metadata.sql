-- What people call a device, and who last changed a Factory's PKI.

ALTER TABLE device ADD COLUMN alias TEXT;           -- the name for people; its name is the subject's
ALTER TABLE device ADD COLUMN device_group TEXT;
ALTER TABLE device ADD COLUMN hardware_id TEXT;

CREATE UNIQUE INDEX device_alias ON device (factory_id, alias) WHERE alias IS NOT NULL;

CREATE INDEX audit_pki ON audit (factory_id, number) WHERE action IN ('set-root',
    'install-server-certificate', 'add-device-ca', 'disable-device-ca', 'enable-device-ca',
    'revoke-device-ca', 'readmit-device-ca');
