-- What devices asked, and how it was answered. `sealed` columns are encrypted under a key of the request.
CREATE TABLE device_requests (
    id              uuid PRIMARY KEY,
    tenant          uuid NOT NULL,
    gateway         text COLLATE "C" NOT NULL,
    request_type    text,
    tid             text,
    bid             text,
    asked_on        smallint NOT NULL,
    repeat_key      uuid,              -- null where the tid does not tell it from others
    payload         bytea NOT NULL,    -- sealed
    payload_is_cut  boolean NOT NULL,
    received_at     bigint NOT NULL,
    deadline_boot   uuid NOT NULL,
    deadline_mono   bigint NOT NULL,
    deadline_wall   bigint NOT NULL,
    reply_wait_ms   bigint NOT NULL,
    auto_after_ms   bigint,
    state           smallint NOT NULL,
    reply           bytea,             -- sealed JSON of code, message, source, data, at
    sending         smallint NOT NULL,
    sent_at         bigint,
    version         bigint NOT NULL,
    needs_care      boolean NOT NULL
);
ALTER TABLE device_requests ALTER COLUMN payload SET STORAGE EXTERNAL;
ALTER TABLE device_requests ALTER COLUMN reply SET STORAGE EXTERNAL;
CREATE INDEX device_requests_by_tenant ON device_requests (tenant, id);
CREATE INDEX device_requests_by_gateway ON device_requests (tenant, gateway, id);
CREATE UNIQUE INDEX device_requests_repeated ON device_requests (repeat_key) WHERE repeat_key IS NOT NULL;
CREATE INDEX device_requests_in_care ON device_requests (id) WHERE needs_care;
CREATE INDEX device_requests_done ON device_requests (tenant, id) WHERE NOT needs_care;

CREATE TABLE device_request_counts (
    tenant uuid PRIMARY KEY,
    n      bigint NOT NULL
) WITH (fillfactor = 50);

-- `device` is empty where the rule is for all of the tenant's. Their generation is `request_rules`.
CREATE TABLE device_request_rules (
    tenant        uuid NOT NULL,
    request_type  text COLLATE "C" NOT NULL,
    device        text COLLATE "C" NOT NULL,
    mode          smallint NOT NULL,
    after_ms      bigint,
    reply_wait_ms bigint NOT NULL,
    updated_at    bigint NOT NULL,
    PRIMARY KEY (tenant, request_type, device)
);
