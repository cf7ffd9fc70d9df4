-- Samples in pieces: those of one device that were told in a few seconds, packed. Whose the device was at that time is part of
-- the key, so that nobody who has it later sees what it told before.
CREATE TABLE telemetry (
    id       INTEGER PRIMARY KEY,
    tenant   BLOB NOT NULL,
    device   TEXT NOT NULL,
    kind     INTEGER NOT NULL,
    merged   INTEGER NOT NULL,
    first_ms INTEGER NOT NULL,
    last_ms  INTEGER NOT NULL,
    samples  INTEGER NOT NULL,
    bytes    INTEGER NOT NULL,
    body     BLOB NOT NULL
) STRICT;
CREATE INDEX telemetry_of_device ON telemetry (tenant, device, first_ms);
CREATE INDEX telemetry_by_age ON telemetry (kind, merged, last_ms);

-- What each device told last, so that it is there after a restart.
CREATE TABLE telemetry_latest (
    tenant BLOB NOT NULL,
    device TEXT NOT NULL,
    kind   INTEGER NOT NULL,
    at_ms  INTEGER NOT NULL,
    bytes  INTEGER NOT NULL,
    body   BLOB NOT NULL,
    PRIMARY KEY (tenant, device)
) STRICT;
CREATE INDEX telemetry_latest_by_age ON telemetry_latest (kind, at_ms);
