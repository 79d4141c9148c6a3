-- The reboot that a command waits for has been arranged. Where it has not, the worker was killed before it could ask.
ALTER TABLE command ADD COLUMN reboot_is_arranged INTEGER NOT NULL DEFAULT 0;
