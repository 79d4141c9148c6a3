-- Accounts that a document is shared with; 'all' is everyone.
CREATE TABLE document_permission (
    name       TEXT NOT NULL REFERENCES document (name) ON DELETE CASCADE,
    account_id TEXT NOT NULL,
    -- The version that is shared; NULL: the default one.
    version    TEXT,
    PRIMARY KEY (name, account_id)
);
