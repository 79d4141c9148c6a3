-- A node asks which of its recordings are open, each time that it starts.
CREATE INDEX transcript_open ON transcript (instance_id) WHERE completed_at IS NULL;
