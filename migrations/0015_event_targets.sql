-- What a device's event is about, as the device says it: for fioctl.

ALTER TABLE device_event ADD COLUMN target TEXT NOT NULL DEFAULT '';
ALTER TABLE device_event ADD COLUMN version TEXT NOT NULL DEFAULT '';
