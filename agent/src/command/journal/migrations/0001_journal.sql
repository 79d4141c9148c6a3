-- One row per command that was ever accepted, until 48 hours after its end: what makes a second delivery harmless.
CREATE TABLE command (
    command_id         TEXT PRIMARY KEY,
    job_id             TEXT NOT NULL,
    -- What to run. Removed when the command has finished, since parameters may be secrets.
    content            TEXT,
    state              TEXT NOT NULL CHECK (state IN ('accepted', 'started', 'finished')),
    cancel_requested   INTEGER NOT NULL DEFAULT 0,
    accepted_at        INTEGER NOT NULL,
    -- The one worker that runs it. The boot's id makes pid and start time unambiguous over a reboot.
    boot_id            TEXT,
    worker_pid         INTEGER,
    worker_start_ticks INTEGER,
    status             TEXT,
    finished_at        INTEGER
) STRICT;

CREATE INDEX command_unfinished ON command (accepted_at) WHERE state <> 'finished';
CREATE INDEX command_finished ON command (finished_at) WHERE state = 'finished';

-- The steps of a started command; removed when it has finished.
CREATE TABLE step (
    command_id TEXT NOT NULL,
    position   INTEGER NOT NULL,
    action     TEXT NOT NULL,
    name       TEXT NOT NULL,
    status     TEXT,
    PRIMARY KEY (command_id, position)
) STRICT, WITHOUT ROWID;

-- Replies that the endpoint has not acknowledged. AUTOINCREMENT: a number is never given twice, so "newer than the
-- last one seen" misses none.
CREATE TABLE reply (
    reply_id   INTEGER PRIMARY KEY AUTOINCREMENT,
    message_id TEXT NOT NULL UNIQUE,
    command_id TEXT NOT NULL,
    is_final   INTEGER NOT NULL,
    payload    TEXT NOT NULL,
    created_at INTEGER NOT NULL
) STRICT;
