-- What a batch of a writer asks (`src/postgres/batch.rs`), in two functions: one round of messages for each, where a dozen
-- statements were. Each statement in them is one as if it had been sent alone: in READ COMMITTED it sees what was committed when it
-- began. What there is none of is not looked for.

-- Takes the locks of a batch, in the order in which all batches take them, and answers what it has to know.
CREATE FUNCTION learn_batch(
    -- The member it is written for and the key of its lock (`src/postgres/fence.rs`); null where nothing is accepted or claimed.
    for_member uuid, member_key bigint,
    -- Commands that it has taken in, though `handed` may not say so yet.
    taken_in uuid[],
    want_nonces uuid[], nonce_ends bigint[],
    want_keys uuid[], key_commands uuid[],
    want_ways bigint[],
    -- Commands that change, and those of them whose sending is to begin.
    want_changes uuid[], want_claims uuid[],
    -- The member's, and those of them where commands wait to be taken in; none of a server that is no member any more.
    OUT shards smallint[], OUT handed_shards smallint[],
    -- Nonces and keys that were new, and for which commands these are.
    OUT spent uuid[], OUT free_keys uuid[], OUT free_for uuid[],
    OUT changed uuid[], OUT versions bigint[], OUT motion_holders boolean[], OUT entry_counts integer[], OUT evidence_counts integer[],
    -- With the first emergency that was accepted after a movement, by its gateway or its aircraft.
    OUT claimed uuid[], OUT claim_gateways text[], OUT claim_risks smallint[], OUT claim_emergencies uuid[]
) LANGUAGE plpgsql VOLATILE AS $$
BEGIN
    IF for_member IS NOT NULL THEN
        -- Lets nobody take shards from this member until the transaction ends.
        PERFORM pg_advisory_xact_lock_shared(member_key);
        SELECT array_agg(s.shard),
            ARRAY(SELECT DISTINCT h.shard FROM handed h WHERE NOT h.urgent AND h.command <> ALL (taken_in))
        INTO shards, handed_shards
        FROM shards s WHERE s.replica = for_member AND EXISTS (SELECT FROM replicas r WHERE r.id = for_member);
    END IF;
    IF cardinality(want_nonces) > 0 THEN
        WITH added AS (
            INSERT INTO nonces (key, expires_at) SELECT * FROM unnest(want_nonces, nonce_ends)
            ON CONFLICT DO NOTHING RETURNING key)
        SELECT array_agg(added.key) INTO spent FROM added;
    END IF;
    IF cardinality(want_keys) > 0 THEN
        WITH added AS (
            INSERT INTO idempotency (key, command) SELECT * FROM unnest(want_keys, key_commands)
            ON CONFLICT DO NOTHING RETURNING key, command)
        SELECT array_agg(added.key), array_agg(added.command) INTO free_keys, free_for FROM added;
    END IF;
    IF cardinality(want_ways) > 0 THEN
        PERFORM pg_advisory_xact_lock(u.way) FROM unnest(want_ways) AS u (way);
    END IF;
    IF cardinality(want_changes) > 0 THEN
        SELECT array_agg(found.id), array_agg(found.version), array_agg(found.holds_motion), array_agg(found.entries),
            array_agg(found.evidence)
        INTO changed, versions, motion_holders, entry_counts, evidence_counts
        FROM (
            SELECT l.id, l.version, l.holds_motion, l.entries, l.evidence
            FROM unnest(want_changes) AS u (id) JOIN lives l ON l.id = u.id FOR UPDATE OF l) AS found;
    END IF;
    IF cardinality(want_claims) > 0 THEN
        SELECT array_agg(c.id), array_agg(c.gateway), array_agg(c.risk), array_agg(CASE WHEN c.risk = 2 THEN coalesce(
            (SELECT e.id FROM commands e WHERE e.risk = 1 AND e.gateway = c.gateway AND e.tenant = c.tenant
                 AND e.seq > c.seq ORDER BY e.seq LIMIT 1),
            (SELECT e.id FROM commands e WHERE e.risk = 1 AND e.aircraft = c.aircraft AND e.tenant = c.tenant
                 AND e.seq > c.seq ORDER BY e.seq LIMIT 1)) END)
        INTO claimed, claim_gateways, claim_risks, claim_emergencies
        FROM unnest(want_claims) AS u (id) JOIN commands c ON c.id = u.id;
    END IF;
END $$;

-- Writes what was decided on that.
CREATE FUNCTION write_batch(
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
        INSERT INTO timeline (command, n, status_from, status_to, at, proof) SELECT * FROM unnest(new_lines);
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
