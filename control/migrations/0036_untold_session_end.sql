-- The session has ended, and the audit log may not have that yet.
ALTER TABLE session ADD COLUMN is_end_untold INTEGER NOT NULL DEFAULT 0;
CREATE INDEX session_end_untold ON session (ended_at) WHERE is_end_untold = 1;
