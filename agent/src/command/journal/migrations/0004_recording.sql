-- Why the endpoint takes no more of the command's recording.
ALTER TABLE command ADD COLUMN unrecorded TEXT;
-- Hash of the last record of the part of the recording that ended with a reboot.
ALTER TABLE command ADD COLUMN last_part TEXT;
