-- Output of a command on a node that is to be brought to a bucket (OutputS3BucketName of SendCommand).
CREATE TABLE output_upload (
    command_id  TEXT NOT NULL,
    instance_id TEXT NOT NULL,
    -- 'waiting', 'done' or 'failed'
    state       TEXT NOT NULL,
    -- How often the bucket did not take it.
    attempts    BIGINT NOT NULL DEFAULT 0,
    -- When it is looked at; NULL once it is over.
    next_at     BIGINT,
    -- What operators are told of it; may be empty.
    note        TEXT NOT NULL DEFAULT '',
    PRIMARY KEY (command_id, instance_id),
    FOREIGN KEY (command_id, instance_id) REFERENCES invocation (command_id, instance_id) ON DELETE CASCADE
);
CREATE INDEX output_upload_due ON output_upload (next_at) WHERE next_at IS NOT NULL;

-- One stream of a step, as an object.
CREATE TABLE output_object (
    command_id  TEXT NOT NULL,
    instance_id TEXT NOT NULL,
    step        TEXT NOT NULL,
    -- 'stdout' or 'stderr'
    stream      TEXT NOT NULL,
    object_key  TEXT NOT NULL,
    -- Where it is, once it is whole; before that it is empty.
    url         TEXT NOT NULL DEFAULT '',
    -- An upload in parts that is under way, and the entity tags of its parts as a JSON list.
    upload_id   TEXT,
    parts       TEXT NOT NULL DEFAULT '[]',
    PRIMARY KEY (command_id, instance_id, step, stream),
    FOREIGN KEY (command_id, instance_id) REFERENCES invocation (command_id, instance_id) ON DELETE CASCADE
);
