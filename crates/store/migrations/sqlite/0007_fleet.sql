ALTER TABLE devices ADD COLUMN tags TEXT NOT NULL DEFAULT '[]'; -- JSON array of strings

CREATE TABLE sightings (
    sn            TEXT PRIMARY KEY,
    first_seen_at INTEGER NOT NULL,
    last_seen_at  INTEGER NOT NULL,
    firmware      TEXT,
    model_key     TEXT,
    online        INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE binding_codes (
    id         BLOB PRIMARY KEY,
    tenant     BLOB NOT NULL,
    label      TEXT NOT NULL,
    hash       BLOB NOT NULL,
    uses_max   INTEGER NOT NULL,
    uses       INTEGER NOT NULL,
    created_at INTEGER NOT NULL,
    created_by TEXT NOT NULL,
    expires_at INTEGER NOT NULL,
    revoked_at INTEGER
) STRICT, WITHOUT ROWID;

CREATE TABLE device_records (
    row    INTEGER PRIMARY KEY,
    sn     TEXT NOT NULL,
    at     INTEGER NOT NULL,
    what   INTEGER NOT NULL,
    tenant_before BLOB,
    tenant_after  BLOB,
    who    TEXT NOT NULL
) STRICT;
CREATE INDEX device_records_by_device ON device_records (sn, row);
