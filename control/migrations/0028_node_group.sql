-- Named groups of nodes: a query over tags, answered when it is used.
CREATE TABLE node_group (
    name       TEXT PRIMARY KEY NOT NULL,
    -- JSON: what a node must meet, as in Targets of a command.
    targets    TEXT NOT NULL,
    updated_at BIGINT NOT NULL
);
