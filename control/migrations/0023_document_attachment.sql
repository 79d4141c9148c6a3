-- Files that belong to a version of a document; the bytes are in files that have the SHA-256 as their name.
CREATE TABLE document_attachment (
    name      TEXT NOT NULL,
    version   BIGINT NOT NULL,
    file_name TEXT NOT NULL,
    -- Lower-case hex.
    sha256    TEXT NOT NULL,
    size      BIGINT NOT NULL,
    PRIMARY KEY (name, version, file_name),
    FOREIGN KEY (name, version) REFERENCES document_version (name, version) ON DELETE CASCADE
);
CREATE INDEX document_attachment_by_sha256 ON document_attachment (sha256);
