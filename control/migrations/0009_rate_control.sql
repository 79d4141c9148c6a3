-- Rate control. A held invocation (delivery 'Held') waits until others of its command have ended; how long it may then
-- take to be delivered is a duration.
ALTER TABLE command ADD COLUMN max_concurrency TEXT NOT NULL DEFAULT '50';
ALTER TABLE command ADD COLUMN delivery_millis BIGINT NOT NULL DEFAULT 3600000;
-- Ended while they were held, since the command had more errors than it may have.
ALTER TABLE command ADD COLUMN terminated BIGINT NOT NULL DEFAULT 0;
CREATE INDEX invocation_held ON invocation (command_id, instance_id) WHERE delivery = 'Held';
