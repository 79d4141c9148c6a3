-- Versions of documents; what does not change from one version to the next stays in document.
CREATE TABLE document_version (
    name            TEXT NOT NULL REFERENCES document (name) ON DELETE CASCADE,
    version         BIGINT NOT NULL,
    document_format TEXT NOT NULL,
    schema_version  TEXT NOT NULL,
    display_name    TEXT,
    version_name    TEXT,
    target_type     TEXT,
    description     TEXT,
    content         TEXT NOT NULL,
    sha256          TEXT NOT NULL,
    created_at      BIGINT NOT NULL,
    PRIMARY KEY (name, version)
);
CREATE UNIQUE INDEX document_version_by_name ON document_version (name, version_name);

-- What was there before versions is the first one.
INSERT INTO document_version (name, version, document_format, schema_version, display_name, version_name, target_type,
                              description, content, sha256, created_at)
SELECT name, 1, document_format, schema_version, display_name, version_name, target_type,
       description, content, sha256, created_at
FROM document;

ALTER TABLE document ADD COLUMN default_version BIGINT NOT NULL DEFAULT 1;
-- The highest number that was given to a version: none is given twice, though versions are deleted.
ALTER TABLE document ADD COLUMN last_version BIGINT NOT NULL DEFAULT 1;
ALTER TABLE document DROP COLUMN document_version;
ALTER TABLE document DROP COLUMN document_format;
ALTER TABLE document DROP COLUMN schema_version;
ALTER TABLE document DROP COLUMN display_name;
ALTER TABLE document DROP COLUMN version_name;
ALTER TABLE document DROP COLUMN target_type;
ALTER TABLE document DROP COLUMN description;
ALTER TABLE document DROP COLUMN content;
ALTER TABLE document DROP COLUMN sha256;
ALTER TABLE document DROP COLUMN created_at;
