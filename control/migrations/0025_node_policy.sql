-- What a node says of its owner's policy: a hash, none, or unusable. NULL: it says nothing, as a stock agent.
ALTER TABLE node ADD COLUMN policy TEXT;
