//! The statements of a writer, each for a whole batch, prepared once for each connection.
//!
//! Every parameter is an array with one element for each row: of rows where they are wide ([`super::records`]).

use tokio_postgres::{Client, Statement};

macro_rules! statements {
    ($($(#[$doc:meta])* $name:ident = $sql:expr;)*) => {
        pub(super) struct Statements {
            $($(#[$doc])* pub(super) $name: Statement,)*
        }

        impl Statements {
            /// Prepares all of them, one behind the other on the wire.
            pub(super) async fn prepare(client: &Client) -> Result<Self, tokio_postgres::Error> {
                $(let $name = client.prepare($sql);)*
                let ($($name,)*) = tokio::try_join!($($name,)*)?;
                Ok(Self { $($name,)* })
            }
        }
    };
}

statements! {
    /// Lets nobody take shards from this member until the transaction ends.
    lock_self = "SELECT pg_advisory_xact_lock_shared($1)";
    /// Those of a member, each with whether commands wait there to be taken in; none of a server that is none any more.
    own_shards = "
        SELECT s.shard, EXISTS (SELECT FROM handed h WHERE h.shard = s.shard AND NOT h.urgent)
        FROM shards s WHERE s.replica = $1 AND EXISTS (SELECT FROM replicas r WHERE r.id = $1)";
    /// With the first emergency that was accepted after a movement, by its gateway or its aircraft.
    claims = "
        SELECT c.id, c.gateway, c.risk, CASE WHEN c.risk = 2 THEN coalesce(
            (SELECT e.id FROM commands e WHERE e.risk = 1 AND e.gateway = c.gateway AND e.tenant = c.tenant
                 AND e.seq > c.seq ORDER BY e.seq LIMIT 1),
            (SELECT e.id FROM commands e WHERE e.risk = 1 AND e.aircraft = c.aircraft AND e.tenant = c.tenant
                 AND e.seq > c.seq ORDER BY e.seq LIMIT 1)) END
        FROM unnest($1::uuid[]) AS u (id) JOIN commands c ON c.id = u.id";
    /// Answers those that were new.
    spend_nonces = "
        INSERT INTO nonces (key, expires_at) SELECT * FROM unnest($1::uuid[], $2::bigint[])
        ON CONFLICT DO NOTHING RETURNING key";
    /// Answers those that were free.
    claim_keys = "
        INSERT INTO idempotency (key, command) SELECT * FROM unnest($1::uuid[], $2::uuid[])
        ON CONFLICT DO NOTHING RETURNING key, command";
    free_keys = "DELETE FROM idempotency WHERE key = ANY ($1::uuid[])";
    correct_keys = "
        UPDATE idempotency i SET command = u.command FROM unnest($1::uuid[], $2::uuid[]) AS u (key, command)
        WHERE i.key = u.key";
    keys_before = "
        SELECT i.key, i.command, c.id, c.tenant, c.idempotency_key, c.fingerprint, c.accepted_at, l.phase, l.failure
        FROM unnest($1::uuid[]) AS u (key) JOIN idempotency i ON i.key = u.key
        LEFT JOIN commands c ON c.id = i.command LEFT JOIN lives l ON l.id = i.command";
    lock_ways = "SELECT pg_advisory_xact_lock(k) FROM unnest($1::bigint[]) AS u (k)";
    motions = "
        SELECT m.command, m.tenant, m.gateway, m.aircraft, m.method
        FROM unnest($1::uuid[], $2::text[]) AS u (tenant, gateway)
        JOIN motions m ON m.tenant = u.tenant AND m.gateway = u.gateway
        UNION
        SELECT m.command, m.tenant, m.gateway, m.aircraft, m.method
        FROM unnest($1::uuid[], $3::text[]) AS u (tenant, aircraft)
        JOIN motions m ON m.tenant = u.tenant AND m.aircraft = u.aircraft";
    standing = "
        SELECT l.id, l.version, l.holds_motion, l.entries, l.evidence
        FROM unnest($1::uuid[]) AS u (id) JOIN lives l ON l.id = u.id FOR UPDATE OF l";
    insert_commands = "
        INSERT INTO commands (id, tenant, accepted_for, request_id, idempotency_key, fingerprint, device, gateway, aircraft,
            method, channel, completes_by, risk, if_offline, complete_on, starts_motion, status_optional, bid, job_ref,
            timeout_ms, silence_wait_ms, deadline_boot, deadline_mono, deadline_wall, accepted_at, payload, accepted_by)
        SELECT * FROM unnest($1::new_command[])";
    insert_lives = "
        INSERT INTO lives (id, version, due_boot, due_mono, due_wall, delivered_at, response_received_at, completed_at,
            updated_at, execution_updated_at, entries, evidence, phase, failure, execution_percent, execution_open,
            holds_motion, needs_care, response_code, response_data, execution_ext, texts)
        SELECT * FROM unnest($1::life[])";
    update_lives = "
        UPDATE lives l SET version = u.version, due_boot = u.due_boot, due_mono = u.due_mono, due_wall = u.due_wall,
            delivered_at = u.delivered_at, response_received_at = u.response_received_at, completed_at = u.completed_at,
            updated_at = u.updated_at, execution_updated_at = u.execution_updated_at, entries = u.entries,
            evidence = u.evidence, phase = u.phase, failure = u.failure, execution_percent = u.execution_percent,
            execution_open = u.execution_open, holds_motion = u.holds_motion, needs_care = u.needs_care,
            response_code = u.response_code, response_data = u.response_data, execution_ext = u.execution_ext,
            texts = u.texts, rare_of = CASE WHEN u.phase IN (4, 6, 7, 8)
                THEN (SELECT c.tenant FROM commands c WHERE c.id = u.id) ELSE l.rare_of END
        FROM unnest($1::life[]) AS u WHERE l.id = u.id";
    /// Of commands that were accepted as such; `update_lives` does it of those that came to it.
    mark_rare_ends = "
        UPDATE lives l SET rare_of = c.tenant FROM commands c WHERE c.id = l.id AND l.id = ANY ($1::uuid[])";
    lengthen_lives = "
        UPDATE lives l SET entries = u.entries, evidence = u.evidence
        FROM unnest($1::uuid[], $2::integer[], $3::integer[]) AS u (id, entries, evidence) WHERE l.id = u.id";
    insert_lines = "
        INSERT INTO timeline (command, n, status_from, status_to, at, proof)
        SELECT * FROM unnest($1::timeline_line[])";
    insert_handed = "
        INSERT INTO handed (command, shard, urgent) SELECT * FROM unnest($1::uuid[], $2::smallint[], $3::boolean[])";
    insert_motions = "
        INSERT INTO motions (command, tenant, gateway, aircraft, method)
        SELECT * FROM unnest($1::uuid[], $2::uuid[], $3::text[], $4::text[], $5::text[])";
    hold_motions = "
        INSERT INTO motions (command, tenant, gateway, aircraft, method)
        SELECT c.id, c.tenant, c.gateway, c.aircraft, c.method
        FROM unnest($1::uuid[]) AS u (id) JOIN commands c ON c.id = u.id ON CONFLICT DO NOTHING";
    release_motions = "DELETE FROM motions WHERE command = ANY ($1::uuid[])";
    note_time = "
        INSERT INTO clocks AS c (writer, newest) VALUES ($1, $2)
        ON CONFLICT (writer) DO UPDATE SET newest = greatest(c.newest, excluded.newest)";
}
