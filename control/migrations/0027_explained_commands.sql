-- When what happened to an invocation, for those who ask why.
ALTER TABLE invocation ADD COLUMN released_at BIGINT;
ALTER TABLE invocation ADD COLUMN sent_at BIGINT;
ALTER TABLE invocation ADD COLUMN taken_at BIGINT;
ALTER TABLE invocation ADD COLUMN cancel_requested_at BIGINT;
-- The last run of a document on a node.
CREATE INDEX invocation_by_document ON invocation (instance_id, document_name, requested_at);
