-- What devices reported: much, and none of it needed to command them. Nothing here stands in a transaction with a command.
-- Telemetry lies in partitions of a day, events in partitions of a week, by when they came (`src/postgres/history/spans.rs`).

CREATE SEQUENCE history_in_order;

-- Samples in pieces: those of one device that were told in a few seconds, packed. Whose the device was at that time is part of
-- the key, so that nobody who has it later sees what it told before.
CREATE TABLE history_telemetry (
    id       bigint NOT NULL DEFAULT nextval('history_in_order'),
    tenant   uuid NOT NULL,
    device   text COLLATE "C" NOT NULL,
    kind     smallint NOT NULL,
    merged   boolean NOT NULL,
    first_ms bigint NOT NULL,
    last_ms  bigint NOT NULL,
    samples  bigint NOT NULL,
    bytes    bigint NOT NULL,
    body     bytea NOT NULL,
    PRIMARY KEY (tenant, device, first_ms, id)
) PARTITION BY RANGE (first_ms);
ALTER TABLE history_telemetry ALTER COLUMN body SET STORAGE EXTERNAL;
CREATE INDEX history_telemetry_by_age ON history_telemetry (kind, merged, last_ms);

-- What each device told last, written over and over.
CREATE TABLE history_latest (
    tenant uuid NOT NULL,
    device text COLLATE "C" NOT NULL,
    kind   smallint NOT NULL,
    at_ms  bigint NOT NULL,
    bytes  bigint NOT NULL,
    body   bytea NOT NULL,
    PRIMARY KEY (tenant, device)
) WITH (fillfactor = 50);
ALTER TABLE history_latest ALTER COLUMN body SET STORAGE EXTERNAL;

CREATE TABLE history_events (
    id          uuid NOT NULL,
    -- In the order they came, which is not that of their times where a clock jumped.
    seq         bigint NOT NULL DEFAULT nextval('history_in_order'),
    tenant      uuid NOT NULL,
    device      text COLLATE "C" NOT NULL,
    gateway     text COLLATE "C" NOT NULL,
    kind        smallint NOT NULL,
    -- Rare, and with room of its own.
    lasting     boolean NOT NULL,
    -- Empty where the device named none.
    method      text NOT NULL,
    tid         text,
    data        text NOT NULL,
    is_cut      boolean NOT NULL,
    received_at bigint NOT NULL,
    device_time bigint,
    need_reply  boolean NOT NULL,
    command     uuid,
    -- Its key in history_events_once.
    once        uuid,
    PRIMARY KEY (tenant, device, id, received_at)
) PARTITION BY RANGE (received_at);
CREATE INDEX history_events_in_order ON history_events (tenant, device, lasting, seq);

-- Devices send an event again until it is answered, to whichever server: a hash of tenant, device, kind, method and tid,
-- or of the device's time and words. No partition can see what is in the others.
CREATE TABLE history_events_once (
    key  uuid PRIMARY KEY,
    week bigint NOT NULL
);
CREATE INDEX history_events_once_by_week ON history_events_once (week);

-- Alarms that are raised now.
CREATE TABLE history_alarms (
    device  text COLLATE "C" NOT NULL,
    -- By a hash: a device chooses how long its key is, and an index row has a limit.
    hash    uuid NOT NULL,
    key     text COLLATE "C" NOT NULL,
    tenant  uuid NOT NULL,
    gateway text COLLATE "C" NOT NULL,
    entry   text NOT NULL,
    since   bigint NOT NULL,
    PRIMARY KEY (device, hash)
);

-- How much each device holds in each tenant's time with it, by day of telemetry (what = 0) and by week of events (1, and 2 of the
-- lasting ones): about as many bytes as a row takes with its indexes. So nothing is counted by reading it.
CREATE TABLE history_held (
    tenant uuid NOT NULL,
    device text COLLATE "C" NOT NULL,
    what   smallint NOT NULL,
    span   bigint NOT NULL,
    n      bigint NOT NULL,
    bytes  bigint NOT NULL,
    PRIMARY KEY (tenant, device, what, span)
) WITH (fillfactor = 50);
CREATE INDEX history_held_by_span ON history_held (what, span);
