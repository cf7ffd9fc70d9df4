-- Lines of one change share a row: `n` is the number of the first, `at` and `status_from` are its, `status_to` is the last's.
ALTER TABLE timeline ADD COLUMN lines smallint NOT NULL DEFAULT 1;
ALTER TYPE timeline_line ADD ATTRIBUTE lines smallint;

-- Writes what was decided on that.
CREATE OR REPLACE FUNCTION write_batch(
    of_writer uuid, newest_time bigint,
    new_commands new_command[], new_lives life[], moved_lives life[],
    -- Of commands that were accepted as such an end; moved ones are seen to with the rest of them.
    rare_ends uuid[],
    long_lives uuid[], long_entries integer[], long_evidence integer[],
    new_lines timeline_line[],
    new_handed uuid[], handed_shards smallint[], handed_urgent boolean[],
    freed_keys uuid[], corrected_keys uuid[], key_commands uuid[],
    new_motions uuid[], motion_tenants uuid[], motion_gateways text[], motion_aircraft text[], motion_methods text[],
    held_motions uuid[], released_motions uuid[],
    -- What a member has taken in, and who it is.
    taken_in uuid[], for_member uuid
) RETURNS void LANGUAGE plpgsql VOLATILE AS $$
BEGIN
    IF cardinality(new_commands) > 0 THEN
        INSERT INTO commands (id, tenant, accepted_for, request_id, idempotency_key, fingerprint, device, gateway, aircraft,
            method, channel, completes_by, risk, if_offline, complete_on, starts_motion, status_optional, bid, job_ref,
            timeout_ms, silence_wait_ms, deadline_boot, deadline_mono, deadline_wall, accepted_at, payload, accepted_by)
        SELECT * FROM unnest(new_commands);
        INSERT INTO lives (id, version, due_boot, due_mono, due_wall, delivered_at, response_received_at, completed_at,
            updated_at, execution_updated_at, entries, evidence, phase, failure, execution_percent, execution_open,
            holds_motion, needs_care, response_code, response_data, execution_ext, texts)
        SELECT * FROM unnest(new_lives);
    END IF;
    IF cardinality(moved_lives) > 0 THEN
        UPDATE lives l SET version = u.version, due_boot = u.due_boot, due_mono = u.due_mono, due_wall = u.due_wall,
            delivered_at = u.delivered_at, response_received_at = u.response_received_at, completed_at = u.completed_at,
            updated_at = u.updated_at, execution_updated_at = u.execution_updated_at, entries = u.entries,
            evidence = u.evidence, phase = u.phase, failure = u.failure, execution_percent = u.execution_percent,
            execution_open = u.execution_open, holds_motion = u.holds_motion, needs_care = u.needs_care,
            response_code = u.response_code, response_data = u.response_data, execution_ext = u.execution_ext,
            texts = u.texts, rare_of = CASE WHEN u.phase IN (4, 6, 7, 8)
                THEN (SELECT c.tenant FROM commands c WHERE c.id = u.id) ELSE l.rare_of END
        FROM unnest(moved_lives) AS u WHERE l.id = u.id;
    END IF;
    IF cardinality(rare_ends) > 0 THEN
        UPDATE lives l SET rare_of = c.tenant FROM commands c WHERE c.id = l.id AND l.id = ANY (rare_ends);
    END IF;
    IF cardinality(long_lives) > 0 THEN
        UPDATE lives l SET entries = u.entries, evidence = u.evidence
        FROM unnest(long_lives, long_entries, long_evidence) AS u (id, entries, evidence) WHERE l.id = u.id;
    END IF;
    IF cardinality(new_lines) > 0 THEN
        INSERT INTO timeline (command, n, status_from, status_to, at, proof, lines) SELECT * FROM unnest(new_lines);
    END IF;
    IF cardinality(new_handed) > 0 THEN
        INSERT INTO handed (command, shard, urgent) SELECT * FROM unnest(new_handed, handed_shards, handed_urgent);
    END IF;
    IF cardinality(taken_in) > 0 THEN
        -- One whose shard went to another server meanwhile stays for that one, which may have looked at what was open before
        -- this one was.
        DELETE FROM handed h WHERE h.command = ANY (taken_in) AND EXISTS (
            SELECT FROM shards s JOIN replicas r ON r.id = s.replica WHERE s.shard = h.shard AND s.replica = for_member);
    END IF;
    IF cardinality(freed_keys) > 0 THEN
        DELETE FROM idempotency WHERE key = ANY (freed_keys);
    END IF;
    IF cardinality(corrected_keys) > 0 THEN
        UPDATE idempotency i SET command = u.command FROM unnest(corrected_keys, key_commands) AS u (key, command)
        WHERE i.key = u.key;
    END IF;
    IF cardinality(new_motions) > 0 THEN
        INSERT INTO motions (command, tenant, gateway, aircraft, method)
        SELECT * FROM unnest(new_motions, motion_tenants, motion_gateways, motion_aircraft, motion_methods);
    END IF;
    IF cardinality(held_motions) > 0 THEN
        INSERT INTO motions (command, tenant, gateway, aircraft, method)
        SELECT c.id, c.tenant, c.gateway, c.aircraft, c.method
        FROM unnest(held_motions) AS u (id) JOIN commands c ON c.id = u.id ON CONFLICT DO NOTHING;
    END IF;
    IF cardinality(released_motions) > 0 THEN
        DELETE FROM motions WHERE command = ANY (released_motions);
    END IF;
    IF newest_time IS NOT NULL THEN
        UPDATE clocks SET newest = greatest(newest, newest_time) WHERE writer = of_writer;
        IF NOT FOUND THEN
            INSERT INTO clocks AS c (writer, newest) VALUES (of_writer, newest_time)
            ON CONFLICT (writer) DO UPDATE SET newest = greatest(c.newest, excluded.newest);
        END IF;
    END IF;
END $$;
