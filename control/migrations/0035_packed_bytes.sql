-- What a packed recording takes of this disk. NULL: it was packed before this was noted.
ALTER TABLE transcript ADD COLUMN packed_bytes BIGINT;
CREATE INDEX transcript_packed ON transcript (instance_id, packed_bytes) WHERE place = 'packed';
