-- Commands are recorded, too. Of such a recording session_id is COMMAND-ID.NODE-ID, with a number behind it if it goes
-- on after a reboot.
ALTER TABLE transcript ADD COLUMN command_id TEXT;
CREATE INDEX transcript_by_command ON transcript (command_id);
