-- Ids are 16-byte blobs, wall times Unix milliseconds, running times and versions unsigned numbers kept bit for bit in
-- the signed integer. Enums are the small numbers of `src/codes.rs`; JSON is text.
-- What a caller sent and a device answered may hold secrets, so it is sealed (`src/seal.rs`) under a key of its command.

-- 'key_check' (which master key), 'generation' (of the registry), 'newest_record' (latest wall time on record).
CREATE TABLE meta (
    name  TEXT PRIMARY KEY,
    value ANY NOT NULL
) STRICT, WITHOUT ROWID;

-- What was asked for: written once. `row` counts up, so that every write of a new command goes to the end of its trees.
CREATE TABLE commands (
    row             INTEGER PRIMARY KEY,
    id              BLOB NOT NULL,
    tenant          BLOB NOT NULL,
    accepted_for    TEXT NOT NULL,
    request_id      TEXT NOT NULL,
    idempotency_key TEXT NOT NULL,
    fingerprint     BLOB NOT NULL,
    device          TEXT NOT NULL,
    gateway         TEXT NOT NULL,
    aircraft        TEXT,
    method          TEXT NOT NULL,
    channel         INTEGER NOT NULL,
    completes_by    INTEGER NOT NULL,
    risk            INTEGER NOT NULL,
    starts_motion   INTEGER NOT NULL,
    status_optional INTEGER NOT NULL,
    if_offline      INTEGER NOT NULL,
    complete_on     INTEGER NOT NULL,
    bid             BLOB NOT NULL,
    job_ref         TEXT,
    timeout_ms      INTEGER NOT NULL,
    silence_wait_ms INTEGER NOT NULL,
    deadline_boot   BLOB NOT NULL,
    deadline_mono   INTEGER NOT NULL,
    deadline_wall   INTEGER NOT NULL,
    accepted_at     INTEGER NOT NULL,
    payload         BLOB NOT NULL  -- sealed
) STRICT;
CREATE INDEX commands_by_tenant ON commands (tenant, id);
CREATE INDEX commands_by_device ON commands (tenant, device, id);

-- How it stands: written over and over, so the rows are kept apart from the wide ones that never change.
CREATE TABLE lives (
    row                  INTEGER PRIMARY KEY,
    id                   BLOB NOT NULL UNIQUE,
    phase                INTEGER NOT NULL,
    failure              INTEGER,
    version              INTEGER NOT NULL,
    due_boot             BLOB,
    due_mono             INTEGER,
    due_wall             INTEGER,
    delivered_at         INTEGER,
    response_received_at INTEGER,
    completed_at         INTEGER,
    updated_at           INTEGER NOT NULL,
    response_code        TEXT,
    response_message     TEXT,
    response_data        BLOB,     -- sealed; there is a response when this is not null
    failure_reason       TEXT,
    execution_state      TEXT,     -- there is an execution when this is not null
    execution_open       INTEGER,
    execution_step       TEXT,
    execution_percent    INTEGER,
    execution_updated_at INTEGER,
    execution_ext        BLOB,     -- sealed
    holds_motion         INTEGER NOT NULL,
    needs_care           INTEGER NOT NULL,
    entries              INTEGER NOT NULL,  -- number of the next line of the timeline
    evidence             INTEGER NOT NULL   -- lines so far that changed no state
) STRICT;
CREATE INDEX lives_in_care ON lives (id) WHERE needs_care = 1;

-- Commands that stand in the way of other movements: a row for every life with holds_motion, and no other.
CREATE TABLE motions (
    row      INTEGER PRIMARY KEY,
    tenant   BLOB NOT NULL,
    gateway  TEXT NOT NULL,
    aircraft TEXT
) STRICT;
CREATE INDEX motions_by_aircraft ON motions (tenant, aircraft);
CREATE INDEX motions_by_gateway ON motions (tenant, gateway);

-- The caller's keys, 16 bytes each (`src/idempotency.rs`), apart from the commands so that the tree stays small.
CREATE TABLE idempotency (
    key BLOB PRIMARY KEY,
    row INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE timeline (
    row         INTEGER NOT NULL,
    n           INTEGER NOT NULL,
    at          INTEGER NOT NULL,
    status_from INTEGER NOT NULL,
    status_to   INTEGER NOT NULL,
    proof       BLOB NOT NULL,  -- sealed
    PRIMARY KEY (row, n)
) STRICT, WITHOUT ROWID;

CREATE TABLE nonces (
    key        BLOB PRIMARY KEY,
    expires_at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX nonces_by_expiry ON nonces (expires_at);

-- `tenant` is an empty blob where the gateway is not known.
CREATE TABLE unmatched (
    row         INTEGER PRIMARY KEY,
    id          BLOB NOT NULL,
    tenant      BLOB NOT NULL,
    gateway     TEXT,
    topic       TEXT NOT NULL,
    tid         TEXT,
    method      TEXT,
    reason      TEXT NOT NULL,
    raw         BLOB NOT NULL,  -- sealed
    received_at INTEGER NOT NULL
) STRICT;
CREATE UNIQUE INDEX unmatched_by_tenant ON unmatched (tenant, id);
CREATE TABLE unmatched_counts (
    tenant BLOB PRIMARY KEY,
    n      INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE tenants (
    id         BLOB PRIMARY KEY,
    name       TEXT NOT NULL UNIQUE,
    created_at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE credentials (
    api_id             TEXT PRIMARY KEY,
    tenant             BLOB NOT NULL,
    name               TEXT NOT NULL,
    status             INTEGER NOT NULL,
    permissions        TEXT NOT NULL,  -- JSON array of names
    clock_skew_ms      INTEGER NOT NULL,
    replay_window_ms   INTEGER NOT NULL,
    expires_at         INTEGER,
    ip_allow           TEXT NOT NULL,  -- JSON array of CIDR ranges
    devices            TEXT,           -- JSON array of serial numbers; null = all
    complete_on        INTEGER NOT NULL,
    created_at         INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- AES-256-GCM under a key derived from the master key; bound to api_id and slot, so that no row can stand for another.
CREATE TABLE credential_secrets (
    api_id      TEXT NOT NULL,
    slot        INTEGER NOT NULL,
    key_id      BLOB NOT NULL,
    nonce       BLOB NOT NULL,
    sealed      BLOB NOT NULL,
    valid_until INTEGER,
    PRIMARY KEY (api_id, slot)
) STRICT, WITHOUT ROWID;

CREATE TABLE devices (
    sn               TEXT PRIMARY KEY,
    tenant           BLOB NOT NULL,
    kind             INTEGER NOT NULL,
    model_key        TEXT,
    label            TEXT NOT NULL,
    simulated        INTEGER NOT NULL,
    mqtt_secret_hash BLOB,
    created_at       INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE topologies (
    gateway TEXT PRIMARY KEY,
    subs    TEXT NOT NULL  -- JSON array of {sn, model_key, index}
) STRICT, WITHOUT ROWID;
