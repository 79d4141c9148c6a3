-- Ends of commands of this machine itself, whose results are to be written.
CREATE INDEX reply_of_local_end ON reply (reply_id) WHERE is_final AND command_id GLOB 'drop+*';
