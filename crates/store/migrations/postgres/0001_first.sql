-- Ids are uuids, wall times Unix milliseconds, running times and versions unsigned numbers kept bit for bit in bigint.
-- Enums are the small numbers of `src/codes.rs`. Texts that may hold a zero byte are escaped (`src/postgres/text.rs`).
-- What a caller sent and a device answered may hold secrets, so it is sealed (`src/seal.rs`) under a key of its command.
-- Texts sort by their bytes, whatever the database's own order is.

-- 'key_check': which master key.
CREATE TABLE meta (
    name  text PRIMARY KEY,
    value bytea NOT NULL
);

-- 'registry': rises with every change of tenants, credentials or devices. 'request_rules': of rules.
CREATE TABLE generations (
    name text PRIMARY KEY,
    n    bigint NOT NULL
) WITH (fillfactor = 50);
INSERT INTO generations VALUES ('registry', 0), ('request_rules', 0);

-- The latest wall time on record, by writer: one row for all would make all writers wait for each other's disk.
CREATE TABLE clocks (
    writer uuid PRIMARY KEY,
    newest bigint NOT NULL
) WITH (fillfactor = 50);

-- In the order of acceptance, over all servers: a command that was accepted before another's acceptance began has the
-- smaller number.
CREATE SEQUENCE commands_in_order;

-- Commands, lives and timeline lie in partitions by the time in the command's id, a week each, so that old ones are
-- dropped whole and one command is looked for in one of them (`src/postgres/partitions.rs`).
CREATE TABLE commands (
    id              uuid NOT NULL,
    seq             bigint NOT NULL DEFAULT nextval('commands_in_order'),
    tenant          uuid NOT NULL,
    accepted_for    text NOT NULL,
    request_id      text NOT NULL,
    idempotency_key text NOT NULL,
    fingerprint     bytea NOT NULL,
    device          text COLLATE "C" NOT NULL,
    gateway         text COLLATE "C" NOT NULL,
    aircraft        text COLLATE "C",
    method          text NOT NULL,
    channel         smallint NOT NULL,
    completes_by    smallint NOT NULL,
    risk            smallint NOT NULL,
    if_offline      smallint NOT NULL,
    complete_on     smallint NOT NULL,
    starts_motion   boolean NOT NULL,
    status_optional boolean NOT NULL,
    bid             uuid NOT NULL,
    job_ref         text,
    timeout_ms      bigint NOT NULL,
    silence_wait_ms bigint NOT NULL,
    deadline_boot   uuid NOT NULL,
    deadline_mono   bigint NOT NULL,
    deadline_wall   bigint NOT NULL,
    accepted_at     bigint NOT NULL,
    payload         bytea NOT NULL, -- sealed
    PRIMARY KEY (id)
) PARTITION BY RANGE (id);
ALTER TABLE commands ALTER COLUMN payload SET STORAGE EXTERNAL;
CREATE INDEX commands_by_tenant ON commands (tenant, id);
CREATE INDEX commands_by_device ON commands (tenant, device, id);
-- By a hash: a caller chooses how long a job's name is, and an index row has a limit.
CREATE INDEX commands_by_job ON commands (gateway, hashtextextended(job_ref, 0)) WHERE job_ref IS NOT NULL;
CREATE INDEX commands_emergencies ON commands (gateway, seq) WHERE risk = 1;
CREATE INDEX commands_emergencies_of_aircraft ON commands (aircraft, seq) WHERE risk = 1;

-- How a command stands: written over and over, so the rows are kept apart from the wide ones that never change.
CREATE TABLE lives (
    id                   uuid NOT NULL,
    version              bigint NOT NULL,
    due_boot             uuid,
    due_mono             bigint,
    due_wall             bigint,
    delivered_at         bigint,
    response_received_at bigint,
    completed_at         bigint,
    updated_at           bigint NOT NULL,
    execution_updated_at bigint,
    entries              integer NOT NULL, -- lines of its timeline
    evidence             integer NOT NULL, -- those of them that changed no state
    phase                smallint NOT NULL,
    failure              smallint,
    execution_percent    smallint,
    execution_open       boolean,
    holds_motion         boolean NOT NULL,
    needs_care           boolean NOT NULL,
    response_code        text,             -- where it is a number
    response_data        bytea,            -- sealed; there is a response when this is not null
    execution_ext        bytea,            -- sealed
    texts                bytea,            -- sealed
    PRIMARY KEY (id)
) PARTITION BY RANGE (id);
ALTER TABLE lives ALTER COLUMN response_data SET STORAGE EXTERNAL;
ALTER TABLE lives ALTER COLUMN execution_ext SET STORAGE EXTERNAL;
ALTER TABLE lives ALTER COLUMN texts SET STORAGE EXTERNAL;
CREATE INDEX lives_in_care ON lives (id) WHERE needs_care;

CREATE TABLE timeline (
    command     uuid NOT NULL,
    n           integer NOT NULL,
    status_from smallint NOT NULL,
    status_to   smallint NOT NULL,
    at          bigint NOT NULL,
    proof       bytea NOT NULL, -- sealed
    PRIMARY KEY (command, n)
) PARTITION BY RANGE (command);
ALTER TABLE timeline ALTER COLUMN proof SET STORAGE EXTERNAL;

-- The caller's keys, 16 bytes each (`src/idempotency.rs`). Not partitioned: a key is unique over all time that commands
-- are kept. Retention deletes the keys of the commands it drops.
CREATE TABLE idempotency (
    key     uuid PRIMARY KEY,
    command uuid NOT NULL
);
CREATE INDEX idempotency_by_command ON idempotency USING brin (command);

-- Movements that stand in the way of others.
CREATE TABLE motions (
    command  uuid PRIMARY KEY,
    tenant   uuid NOT NULL,
    gateway  text COLLATE "C" NOT NULL,
    aircraft text COLLATE "C",
    method   text NOT NULL
);
CREATE INDEX motions_by_aircraft ON motions (tenant, aircraft);
CREATE INDEX motions_by_gateway ON motions (tenant, gateway);

CREATE TABLE nonces (
    key        uuid PRIMARY KEY,
    expires_at bigint NOT NULL
);
CREATE INDEX nonces_by_expiry ON nonces (expires_at);

-- `tenant` is all ones where the gateway is not known.
CREATE TABLE unmatched (
    tenant      uuid NOT NULL,
    id          uuid NOT NULL,
    gateway     text,
    topic       text NOT NULL,
    tid         text,
    method      text,
    reason      text NOT NULL,
    received_at bigint NOT NULL,
    raw         bytea NOT NULL, -- sealed
    PRIMARY KEY (tenant, id)
);
ALTER TABLE unmatched ALTER COLUMN raw SET STORAGE EXTERNAL;

CREATE TABLE tenants (
    id         uuid PRIMARY KEY,
    name       text COLLATE "C" NOT NULL UNIQUE,
    created_at bigint NOT NULL
);

CREATE TABLE credentials (
    api_id             text COLLATE "C" PRIMARY KEY,
    tenant             uuid NOT NULL,
    name               text NOT NULL,
    status             smallint NOT NULL,
    permissions        text NOT NULL,  -- JSON array of names
    clock_skew_ms      bigint NOT NULL,
    replay_window_ms   bigint NOT NULL,
    expires_at         bigint,
    ip_allow           text NOT NULL,  -- JSON array of CIDR ranges
    devices            text,           -- JSON array of serial numbers; null = all
    complete_on        smallint NOT NULL,
    created_at         bigint NOT NULL
);

-- AES-256-GCM under a key derived from the master key; bound to api_id and slot, so that no row can stand for another.
CREATE TABLE credential_secrets (
    api_id      text COLLATE "C" NOT NULL,
    slot        smallint NOT NULL,
    key_id      bytea NOT NULL,
    nonce       bytea NOT NULL,
    sealed      bytea NOT NULL,
    valid_until bigint,
    PRIMARY KEY (api_id, slot)
);

CREATE TABLE devices (
    sn               text COLLATE "C" PRIMARY KEY,
    tenant           uuid NOT NULL,
    kind             smallint NOT NULL,
    model_key        text,
    label            text NOT NULL,
    tags             text NOT NULL,    -- JSON array of strings
    simulated        boolean NOT NULL,
    mqtt_secret_hash bytea,
    created_at       bigint NOT NULL
);

CREATE TABLE topologies (
    gateway text COLLATE "C" PRIMARY KEY,
    subs    text NOT NULL  -- JSON array of {sn, model_key, index}
);

CREATE TABLE sightings (
    sn            text COLLATE "C" PRIMARY KEY,
    first_seen_at bigint NOT NULL,
    last_seen_at  bigint NOT NULL,
    firmware      text,
    model_key     text,
    online        boolean NOT NULL
) WITH (fillfactor = 70);

CREATE TABLE binding_codes (
    id         uuid PRIMARY KEY,
    tenant     uuid NOT NULL,
    label      text NOT NULL,
    hash       bytea NOT NULL,
    uses_max   bigint NOT NULL,
    uses       bigint NOT NULL,
    created_at bigint NOT NULL,
    created_by text NOT NULL,
    expires_at bigint NOT NULL,
    revoked_at bigint
);

CREATE TABLE device_records (
    n             bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    sn            text COLLATE "C" NOT NULL,
    at            bigint NOT NULL,
    what          smallint NOT NULL,
    tenant_before uuid,
    tenant_after  uuid,
    who           text NOT NULL
);
CREATE INDEX device_records_by_device ON device_records (sn, n);
