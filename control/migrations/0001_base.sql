-- Who may ask: operators' access keys. Secrets are sealed with a key derived from the endpoint's master key.
CREATE TABLE access_key (
    access_key_id TEXT PRIMARY KEY NOT NULL,
    user_name     TEXT NOT NULL,
    sealed_secret TEXT NOT NULL,
    created_at    BIGINT NOT NULL
);

-- Hybrid activations. Of the code only a keyed hash is kept.
CREATE TABLE activation (
    activation_id         TEXT PRIMARY KEY NOT NULL,
    code_hash             TEXT NOT NULL,
    iam_role              TEXT NOT NULL,
    description           TEXT,
    default_instance_name TEXT,
    registration_limit    BIGINT NOT NULL,
    registrations_count   BIGINT NOT NULL,
    created_at            BIGINT NOT NULL,
    expires_at            BIGINT NOT NULL
);
CREATE INDEX activation_by_creation ON activation (created_at, activation_id);

-- Managed nodes. A deregistered node has no row, so its keys and credentials open nothing.
CREATE TABLE node (
    instance_id                TEXT PRIMARY KEY NOT NULL,
    activation_id              TEXT NOT NULL,
    iam_role                   TEXT NOT NULL,
    name                       TEXT,
    fingerprint                TEXT NOT NULL,
    public_key                 TEXT NOT NULL,
    -- The key before a rotation: good until the new one was seen once.
    previous_public_key        TEXT,
    -- Role credentials carry the generation they were made in; raising it ends them all.
    credential_generation      BIGINT NOT NULL,
    registered_at              BIGINT NOT NULL,
    registered_from            TEXT,
    agent_name                 TEXT,
    agent_status               TEXT,
    agent_version              TEXT,
    computer_name              TEXT,
    ip_address                 TEXT,
    platform_name              TEXT,
    platform_type              TEXT,
    platform_version           TEXT,
    connection_channel         TEXT,
    last_ping_at               BIGINT,
    -- Signs that a second machine uses this registration.
    copied_key_count           BIGINT NOT NULL,
    copied_key_seen_at         BIGINT,
    fingerprint_mismatch_count BIGINT NOT NULL,
    fingerprint_mismatch_at    BIGINT
);
CREATE INDEX node_by_registration ON node (registered_at, instance_id);
CREATE INDEX node_by_activation ON node (activation_id);
-- A key registers one node: both columns are looked into at each registration and rotation.
CREATE INDEX node_by_public_key ON node (public_key);
CREATE INDEX node_by_previous_public_key ON node (previous_public_key);

-- resource_type as on the wire: ManagedInstance, Document, Activation.
CREATE TABLE tag (
    resource_type TEXT NOT NULL,
    resource_id   TEXT NOT NULL,
    key           TEXT NOT NULL,
    value         TEXT NOT NULL,
    PRIMARY KEY (resource_type, resource_id, key)
);
CREATE INDEX tag_by_key ON tag (resource_type, key, value);

-- Documents of operators, and the built-in ones (owner Moorline), which every start brings up to date.
CREATE TABLE document (
    name             TEXT PRIMARY KEY NOT NULL,
    document_version TEXT NOT NULL,
    document_type    TEXT NOT NULL,
    document_format  TEXT NOT NULL,
    schema_version   TEXT NOT NULL,
    owner            TEXT NOT NULL,
    display_name     TEXT,
    version_name     TEXT,
    target_type      TEXT,
    description      TEXT,
    content          TEXT NOT NULL,
    sha256           TEXT NOT NULL,
    created_at       BIGINT NOT NULL
);
