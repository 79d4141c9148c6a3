-- Why the endpoint takes no more of the command's recording.
ALTER TABLE command ADD COLUMN unrecorded TEXT;
