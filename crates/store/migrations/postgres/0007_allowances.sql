-- What callers have asked of all servers: when nothing will be missing of it, in microseconds since 1970. Not logged, so that it
-- costs no sync: after a crash everybody has a whole allowance once.
CREATE UNLOGGED TABLE allowances (
    name text PRIMARY KEY,
    whole_at bigint NOT NULL,
    -- How much may be missing at most.
    most bigint NOT NULL
) WITH (fillfactor = 50);
