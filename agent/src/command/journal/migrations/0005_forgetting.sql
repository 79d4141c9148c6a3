-- What is forgotten is found without a look at all that is not.
CREATE INDEX reply_age ON reply (is_final, created_at);
CREATE INDEX reply_of_command ON reply (command_id);
CREATE INDEX spent_signature_end ON spent_signature (expires_at);

-- Replies that a command still has here. Kept by the file itself, since workers of the last release may still write.
ALTER TABLE command ADD COLUMN waiting_replies INTEGER NOT NULL DEFAULT 0;
UPDATE command SET waiting_replies = (SELECT count(*) FROM reply WHERE reply.command_id = command.command_id);
CREATE TRIGGER reply_made AFTER INSERT ON reply BEGIN
    UPDATE command SET waiting_replies = waiting_replies + 1 WHERE command_id = new.command_id;
END;
CREATE TRIGGER reply_gone AFTER DELETE ON reply BEGIN
    UPDATE command SET waiting_replies = waiting_replies - 1 WHERE command_id = old.command_id;
END;
DROP INDEX command_finished;
CREATE INDEX command_told ON command (finished_at) WHERE state = 'finished' AND waiting_replies = 0;
