-- Device events, newest at the end.
CREATE TABLE events (
    row         INTEGER PRIMARY KEY,
    id          BLOB NOT NULL,
    tenant      BLOB NOT NULL,
    device      TEXT NOT NULL,
    gateway     TEXT NOT NULL,
    kind        INTEGER NOT NULL,
    -- 1: rare, and with room of its own.
    lasting     INTEGER NOT NULL,
    -- Empty where the device named none.
    method      TEXT NOT NULL,
    -- Null where it tells no exchange from others.
    tid         TEXT,
    data        TEXT NOT NULL,
    is_cut      INTEGER NOT NULL,
    received_at INTEGER NOT NULL,
    device_time INTEGER,
    need_reply  INTEGER NOT NULL,
    command     BLOB
) STRICT;

CREATE UNIQUE INDEX events_of_device ON events (device, id);
-- Devices send an event again until it is answered: with the same tid.
CREATE UNIQUE INDEX events_once ON events (device, tid, kind, method) WHERE tid IS NOT NULL;

-- How many each device has, so that what is too much is found without counting.
CREATE TABLE event_counts (
    device  TEXT NOT NULL,
    lasting INTEGER NOT NULL,
    n       INTEGER NOT NULL,
    PRIMARY KEY (device, lasting)
) STRICT, WITHOUT ROWID;

CREATE TRIGGER events_come AFTER INSERT ON events BEGIN
    INSERT INTO event_counts (device, lasting, n) VALUES (new.device, new.lasting, 1)
    ON CONFLICT (device, lasting) DO UPDATE SET n = n + 1;
END;

CREATE TRIGGER events_go AFTER DELETE ON events BEGIN
    UPDATE event_counts SET n = n - 1 WHERE device = old.device AND lasting = old.lasting;
    DELETE FROM event_counts WHERE device = old.device AND lasting = old.lasting AND n <= 0;
END;

-- Alarms that are raised now.
CREATE TABLE alarms (
    device  TEXT NOT NULL,
    key     TEXT NOT NULL,
    tenant  BLOB NOT NULL,
    gateway TEXT NOT NULL,
    entry   TEXT NOT NULL,
    since   INTEGER NOT NULL,
    PRIMARY KEY (device, key)
) STRICT, WITHOUT ROWID;
