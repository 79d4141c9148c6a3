-- Parameter Store. A row of parameter is the parameter; what it holds is in its versions.
CREATE TABLE parameter (
    name           TEXT PRIMARY KEY NOT NULL,
    parameter_type TEXT NOT NULL,
    tier           TEXT NOT NULL,
    latest_version BIGINT NOT NULL,
    -- Not given out from then on.
    expires_at     BIGINT
);
CREATE INDEX parameter_by_expiry ON parameter (expires_at) WHERE expires_at IS NOT NULL;

CREATE TABLE parameter_version (
    name            TEXT NOT NULL REFERENCES parameter (name) ON DELETE CASCADE,
    version         BIGINT NOT NULL,
    -- Of a SecureString: sealed for its ARN and version with a key that is not in this database, base64.
    value           TEXT NOT NULL,
    key_id          TEXT,
    description     TEXT,
    allowed_pattern TEXT,
    data_type       TEXT NOT NULL,
    tier            TEXT NOT NULL,
    modified_at     BIGINT NOT NULL,
    modified_by     TEXT NOT NULL,
    PRIMARY KEY (name, version)
);

-- A label names one version of a parameter.
CREATE TABLE parameter_label (
    name    TEXT NOT NULL,
    label   TEXT NOT NULL,
    version BIGINT NOT NULL,
    PRIMARY KEY (name, label),
    FOREIGN KEY (name, version) REFERENCES parameter_version (name, version) ON DELETE CASCADE
);
CREATE INDEX parameter_label_by_version ON parameter_label (name, version);

-- Policies of a parameter, in the order given. due_at: when there is something to do; is_done: it was.
CREATE TABLE parameter_policy (
    name        TEXT NOT NULL REFERENCES parameter (name) ON DELETE CASCADE,
    position    BIGINT NOT NULL,
    policy_type TEXT NOT NULL,
    policy_text TEXT NOT NULL,
    due_at      BIGINT NOT NULL,
    is_done     BIGINT NOT NULL DEFAULT 0,
    PRIMARY KEY (name, position)
);
CREATE INDEX parameter_policy_due ON parameter_policy (due_at) WHERE is_done = 0;

-- What commands took from the Parameter Store: the version that was put in, or 0 where the node reads a SecureString.
CREATE TABLE command_parameter (
    command_id TEXT NOT NULL REFERENCES command (command_id) ON DELETE CASCADE,
    name       TEXT NOT NULL,
    version    BIGINT NOT NULL,
    PRIMARY KEY (command_id, name, version)
);
