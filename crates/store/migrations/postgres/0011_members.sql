-- What a server is that is at work here. Nobody is while this runs. None of these has a default: a server of an older version, which
-- knows nothing of them, does not become a member any more.
DELETE FROM replicas;
UPDATE shards SET replica = NULL WHERE replica IS NOT NULL;
ALTER TABLE replicas
    ADD COLUMN version   text NOT NULL, -- of its program
    ADD COLUMN client_id text;          -- under which it is known to the broker, where one was chosen for it
