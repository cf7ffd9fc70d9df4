-- Nonces that came together and are remembered as long share a row: there are two for each command.
CREATE TABLE nonces_together (
    n          INTEGER PRIMARY KEY,
    expires_at INTEGER NOT NULL,
    keys       BLOB NOT NULL  -- 16 bytes each
) STRICT;
INSERT INTO nonces_together (n, expires_at, keys) SELECT n, expires_at, key FROM nonces ORDER BY n;
DROP TABLE nonces;
ALTER TABLE nonces_together RENAME TO nonces;
CREATE INDEX nonces_by_expiry ON nonces (expires_at);
