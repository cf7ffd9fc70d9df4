-- Servers that share this database (`src/postgres/replicas.rs`). Whoever is no row here holds nothing.
CREATE TABLE replicas (
    id       uuid PRIMARY KEY,     -- one run of a server
    instance uuid NOT NULL UNIQUE, -- the server
    name     text NOT NULL,
    alone    boolean NOT NULL,     -- it has a broker of its own
    beats    bigint NOT NULL       -- its signs of life
) WITH (fillfactor = 50);

-- Who sends to the gateways of each shard. The rows stay; only their holders change.
CREATE TABLE shards (
    shard   smallint PRIMARY KEY,
    replica uuid
) WITH (fillfactor = 50);
INSERT INTO shards SELECT generate_series(0, 63);

-- The server that accepted it, where it was a member; it looks after its emergencies as long as it is there.
ALTER TABLE commands ADD COLUMN accepted_by uuid;

-- What one server accepted for a gateway of another's, until that one has taken it in.
CREATE TABLE handed (
    command uuid PRIMARY KEY,
    shard   smallint NOT NULL,
    urgent  boolean NOT NULL
);
CREATE INDEX handed_by_shard ON handed (shard, urgent);
