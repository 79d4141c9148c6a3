-- A step asked for a reboot: the command waits for it, and goes on in the next boot.
ALTER TABLE command ADD COLUMN is_rebooting INTEGER NOT NULL DEFAULT 0;
-- How often steps have asked for one.
ALTER TABLE command ADD COLUMN reboots INTEGER NOT NULL DEFAULT 0;
-- With the status all that the steps behind it depend on.
ALTER TABLE step ADD COLUMN code INTEGER;
