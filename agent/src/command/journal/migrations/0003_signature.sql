-- Signed commands that have begun, each of which may run only once: what makes a replay harmless. Kept until nobody
-- accepts the signature any more.
CREATE TABLE spent_signature (
    nonce      TEXT PRIMARY KEY,
    command_id TEXT NOT NULL,
    -- Seconds since the Unix epoch.
    expires_at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
