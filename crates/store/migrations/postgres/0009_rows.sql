-- Rows as the servers send them: one array of rows is read faster than an array for each column. The order of the fields is that of
-- the statements which take them.

CREATE TYPE new_command AS (
    id uuid, tenant uuid, accepted_for text, request_id text, idempotency_key text, fingerprint bytea, device text, gateway text,
    aircraft text, method text, channel smallint, completes_by smallint, risk smallint, if_offline smallint, complete_on smallint,
    starts_motion boolean, status_optional boolean, bid uuid, job_ref text, timeout_ms bigint, silence_wait_ms bigint,
    deadline_boot uuid, deadline_mono bigint, deadline_wall bigint, accepted_at bigint, payload bytea, accepted_by uuid
);

CREATE TYPE life AS (
    id uuid, version bigint, due_boot uuid, due_mono bigint, due_wall bigint, delivered_at bigint, response_received_at bigint,
    completed_at bigint, updated_at bigint, execution_updated_at bigint, entries integer, evidence integer, phase smallint,
    failure smallint, execution_percent smallint, execution_open boolean, holds_motion boolean, needs_care boolean,
    response_code text, response_data bytea, execution_ext bytea, texts bytea
);

CREATE TYPE timeline_line AS (
    command uuid, n integer, status_from smallint, status_to smallint, at bigint, proof bytea
);
