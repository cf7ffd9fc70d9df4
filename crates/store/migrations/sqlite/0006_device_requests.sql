-- What devices asked, and how it was answered. `sealed` columns are encrypted under a key of the request.
CREATE TABLE device_requests (
    row             INTEGER PRIMARY KEY,
    id              BLOB NOT NULL,
    tenant          BLOB NOT NULL,
    gateway         TEXT NOT NULL,
    request_type    TEXT,
    tid             TEXT,
    bid             TEXT,
    asked_on        INTEGER NOT NULL,
    repeat_key      BLOB,              -- null where the tid does not tell it from others
    payload         BLOB NOT NULL,     -- sealed
    payload_is_cut  INTEGER NOT NULL,
    received_at     INTEGER NOT NULL,
    deadline_boot   BLOB NOT NULL,
    deadline_mono   INTEGER NOT NULL,
    deadline_wall   INTEGER NOT NULL,
    reply_wait_ms   INTEGER NOT NULL,
    auto_after_ms   INTEGER,
    state           INTEGER NOT NULL,
    reply           BLOB,              -- sealed JSON of code, message, source, data, at
    sending         INTEGER NOT NULL,
    sent_at         INTEGER,
    version         INTEGER NOT NULL,
    needs_care      INTEGER NOT NULL
) STRICT;
CREATE UNIQUE INDEX device_requests_by_tenant ON device_requests (tenant, id);
CREATE INDEX device_requests_by_gateway ON device_requests (tenant, gateway, id);
CREATE UNIQUE INDEX device_requests_repeated ON device_requests (repeat_key) WHERE repeat_key IS NOT NULL;
CREATE INDEX device_requests_in_care ON device_requests (id) WHERE needs_care = 1;
CREATE INDEX device_requests_done ON device_requests (tenant, id) WHERE needs_care = 0;
CREATE INDEX device_requests_by_id ON device_requests (id);
CREATE TABLE device_request_counts (
    tenant BLOB PRIMARY KEY,
    n      INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- `device` is empty where the rule is for all of the tenant's. Their generation is `request_rules` in `meta`.
CREATE TABLE device_request_rules (
    tenant        BLOB NOT NULL,
    request_type  TEXT NOT NULL,
    device        TEXT NOT NULL,
    mode          INTEGER NOT NULL,
    after_ms      INTEGER,
    reply_wait_ms INTEGER NOT NULL,
    updated_at    INTEGER NOT NULL,
    PRIMARY KEY (tenant, request_type, device)
) STRICT, WITHOUT ROWID;

-- Finds what was sent for a task, so that a dock that asks for its file gets it.
CREATE INDEX commands_by_job ON commands (gateway, job_ref) WHERE job_ref IS NOT NULL;
