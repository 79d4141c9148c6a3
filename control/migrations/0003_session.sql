-- Sessions. A session that has ended has ended_at; nothing after that changes its status.
CREATE TABLE session (
    session_id         TEXT PRIMARY KEY NOT NULL,
    instance_id        TEXT NOT NULL,
    owner              TEXT NOT NULL,
    document_name      TEXT NOT NULL,
    session_type       TEXT NOT NULL,
    reason             TEXT,
    -- Content of interactive_shell, as JSON.
    start_content      TEXT NOT NULL,
    status             TEXT NOT NULL,
    -- Why it ended; shown to the client.
    details            TEXT NOT NULL,
    exit_code          BIGINT,
    -- ClientId of the process that holds the client side; numbers of another one would not fit.
    client_id          TEXT,
    -- The node opened its data channel once.
    agent_attached     INTEGER NOT NULL,
    -- The node said that its side is over, or needs no more telling.
    agent_done         INTEGER NOT NULL,
    -- Status that the node reported its end with; details and exit_code are then its own, and the session ends so.
    agent_status       TEXT,
    idle_timeout_ms    BIGINT NOT NULL,
    max_duration_ms    BIGINT,
    started_at         BIGINT NOT NULL,
    last_activity_at   BIGINT NOT NULL,
    ended_at           BIGINT
);
CREATE INDEX session_by_start ON session (started_at, session_id);
CREATE INDEX session_by_node ON session (instance_id, agent_done);
CREATE INDEX session_by_end ON session (ended_at);

-- Recorded transcripts; the recording itself is a file, whose length is the file's.
CREATE TABLE transcript (
    session_id   TEXT PRIMARY KEY NOT NULL,
    instance_id  TEXT NOT NULL,
    started_at   BIGINT NOT NULL,
    -- When the node said that nothing follows.
    completed_at BIGINT
);
CREATE INDEX transcript_by_start ON transcript (started_at, session_id);
