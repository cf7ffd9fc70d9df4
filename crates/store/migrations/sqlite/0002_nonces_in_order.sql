-- Nonces in the order they came, so that those of a moment share a page; they are looked up in memory.
CREATE TABLE nonces_in_order (
    n          INTEGER PRIMARY KEY,
    key        BLOB NOT NULL,
    expires_at INTEGER NOT NULL
) STRICT;
INSERT INTO nonces_in_order (key, expires_at) SELECT key, expires_at FROM nonces ORDER BY expires_at;
DROP TABLE nonces;
ALTER TABLE nonces_in_order RENAME TO nonces;
CREATE INDEX nonces_by_expiry ON nonces (expires_at);
