-- Commands: one request to run a document, with the roll-up of its invocations.
CREATE TABLE command (
    command_id          TEXT PRIMARY KEY NOT NULL,
    requested_at        BIGINT NOT NULL,
    requester           TEXT NOT NULL,
    document_name       TEXT NOT NULL,
    -- JSON list: the names of the document's steps, in order.
    step_names          TEXT NOT NULL,
    -- Not sent after this time; steps may then take execution_millis.
    delivery_deadline   BIGINT NOT NULL,
    execution_millis    BIGINT NOT NULL,
    max_errors          TEXT NOT NULL,
    status              TEXT NOT NULL,
    status_details      TEXT NOT NULL,
    started             INTEGER NOT NULL,
    cancel_requested    INTEGER NOT NULL,
    targets             BIGINT NOT NULL,
    succeeded           BIGINT NOT NULL,
    failed              BIGINT NOT NULL,
    execution_timed_out BIGINT NOT NULL,
    delivery_timed_out  BIGINT NOT NULL,
    cancelled           BIGINT NOT NULL,
    impossible          BIGINT NOT NULL,
    -- The request as it was accepted, JSON: what the lists echo.
    request             TEXT NOT NULL,
    -- The content of the job that nodes get, JSON: a later change of the document does not reach it.
    job_content         TEXT NOT NULL
);
CREATE INDEX command_by_request ON command (requested_at, command_id);

-- Invocations: a command on one node.
CREATE TABLE invocation (
    command_id          TEXT NOT NULL REFERENCES command (command_id) ON DELETE CASCADE,
    instance_id         TEXT NOT NULL,
    instance_name       TEXT NOT NULL,
    requested_at        BIGINT NOT NULL,
    document_name       TEXT NOT NULL,
    -- Pending, Delayed, InProgress, Settling, Ended; the last two with an outcome.
    stage               TEXT NOT NULL,
    outcome             TEXT,
    -- Status as the API shows it, for its filters.
    status              TEXT NOT NULL,
    -- Unsent, Sent, Refused, Taken.
    delivery            TEXT NOT NULL,
    sent_message_id     TEXT,
    next_send_at        BIGINT,
    cancel_requested    INTEGER NOT NULL,
    cancel_id           TEXT,
    cancel_next_send_at BIGINT,
    deadline_at         BIGINT,
    ended_at            BIGINT,
    trace               TEXT NOT NULL,
    PRIMARY KEY (command_id, instance_id)
);
CREATE INDEX invocation_by_request ON invocation (requested_at, command_id, instance_id);
CREATE INDEX invocation_by_node ON invocation (instance_id, requested_at);
CREATE INDEX invocation_to_send ON invocation (instance_id, next_send_at) WHERE next_send_at IS NOT NULL;
CREATE INDEX invocation_to_cancel ON invocation (instance_id, cancel_next_send_at)
    WHERE cancel_next_send_at IS NOT NULL;
CREATE INDEX invocation_by_send_time ON invocation (next_send_at) WHERE next_send_at IS NOT NULL;
CREATE INDEX invocation_by_cancel_time ON invocation (cancel_next_send_at)
    WHERE cancel_next_send_at IS NOT NULL;
CREATE INDEX invocation_by_deadline ON invocation (deadline_at) WHERE deadline_at IS NOT NULL;
CREATE INDEX invocation_by_cancel_id ON invocation (cancel_id, instance_id) WHERE cancel_id IS NOT NULL;

-- Results of steps, as nodes report them.
CREATE TABLE step_result (
    command_id            TEXT NOT NULL,
    instance_id           TEXT NOT NULL,
    name                  TEXT NOT NULL,
    is_final              INTEGER NOT NULL,
    -- By the node's clock.
    made_at               BIGINT NOT NULL,
    status                TEXT NOT NULL,
    code                  BIGINT NOT NULL,
    action                TEXT NOT NULL,
    started_at            TEXT NOT NULL,
    ended_at              TEXT NOT NULL,
    output_s3_bucket_name TEXT NOT NULL,
    output_s3_key_prefix  TEXT NOT NULL,
    output                TEXT NOT NULL,
    standard_output       TEXT NOT NULL,
    standard_error        TEXT NOT NULL,
    PRIMARY KEY (command_id, instance_id, name),
    FOREIGN KEY (command_id, instance_id) REFERENCES invocation (command_id, instance_id) ON DELETE CASCADE
);
