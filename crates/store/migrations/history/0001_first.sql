-- What devices reported: much, and none of it needed to command them. Apart from the commands' database, so that neither
-- its size nor its writes are in their way.

CREATE TABLE meta (
    name  TEXT PRIMARY KEY,
    value ANY NOT NULL
) STRICT, WITHOUT ROWID;
