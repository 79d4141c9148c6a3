-- Ends of commands by their nodes' word that the audit log may not have yet.
CREATE TABLE untold_end (
    command_id  TEXT NOT NULL,
    instance_id TEXT NOT NULL,
    -- The status details that it ended with.
    details     TEXT NOT NULL,
    ended_at    BIGINT NOT NULL,
    -- The audit log's line of it, if there is one, stands in this segment or behind. NULL: there is none yet.
    segment     BIGINT,
    PRIMARY KEY (command_id, instance_id)
);
