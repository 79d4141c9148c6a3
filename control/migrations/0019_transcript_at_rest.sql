-- Transcripts outlive their sessions, so what a list shows of a session is kept with its transcript.
ALTER TABLE transcript ADD COLUMN owner TEXT;
ALTER TABLE transcript ADD COLUMN document_name TEXT;
ALTER TABLE transcript ADD COLUMN session_ended_at BIGINT;
UPDATE transcript SET
    owner = (SELECT s.owner FROM session s WHERE s.session_id = transcript.session_id),
    document_name = (SELECT s.document_name FROM session s WHERE s.session_id = transcript.session_id);
-- Of an endpoint that did not verify yet.
UPDATE transcript SET chain = 'plain' WHERE completed_at IS NOT NULL AND chain = 'open';

-- Where the recording is: 'file' as it came, 'packed' (compressed in the state directory), 'store' (an object store),
-- 'gone' (deleted, and removed).
ALTER TABLE transcript ADD COLUMN place TEXT NOT NULL DEFAULT 'file';
-- Bytes and SHA-256 of the recording, once it is packed; they stay when it is deleted.
ALTER TABLE transcript ADD COLUMN length BIGINT;
ALTER TABLE transcript ADD COLUMN sha256 TEXT;

-- Whoever holds it; nobody and nothing deletes it until that is released.
ALTER TABLE transcript ADD COLUMN held_at BIGINT;
ALTER TABLE transcript ADD COLUMN held_by TEXT;
ALTER TABLE transcript ADD COLUMN hold_reason TEXT;

-- A row with deleted_at is a tombstone.
ALTER TABLE transcript ADD COLUMN deleted_at BIGINT;
ALTER TABLE transcript ADD COLUMN deleted_by TEXT;
ALTER TABLE transcript ADD COLUMN delete_reason TEXT;

CREATE INDEX transcript_by_place ON transcript (place, session_id);
CREATE INDEX transcript_by_completion ON transcript (completed_at);
