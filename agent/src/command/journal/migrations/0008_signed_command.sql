-- A command is remembered for as long as its signature.
CREATE INDEX spent_signature_of_command ON spent_signature (command_id);
