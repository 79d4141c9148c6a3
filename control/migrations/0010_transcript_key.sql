-- Keys that nodes seal their transcripts with. They outlive their node, and so do its transcripts.
CREATE TABLE transcript_key (
    instance_id   TEXT NOT NULL,
    key_id        TEXT NOT NULL,
    -- 32 bytes
    public_key    BLOB NOT NULL,
    registered_at BIGINT NOT NULL,
    PRIMARY KEY (instance_id, key_id)
);

-- What the chain of a recording says: 'open', 'plain' (of an agent that does not seal), 'complete' or 'cut'.
ALTER TABLE transcript ADD COLUMN chain TEXT NOT NULL DEFAULT 'open';
