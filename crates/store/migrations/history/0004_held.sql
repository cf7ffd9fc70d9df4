-- How much each device holds in each tenant's time with it, so that what is too much is taken from whoever holds most. About
-- as many bytes as a row takes in the file with its indexes.
CREATE TABLE held (
    tenant    BLOB NOT NULL,
    device    TEXT NOT NULL,
    telemetry INTEGER NOT NULL DEFAULT 0,
    events    INTEGER NOT NULL DEFAULT 0,
    PRIMARY KEY (tenant, device)
) STRICT, WITHOUT ROWID;

CREATE TRIGGER telemetry_comes AFTER INSERT ON telemetry BEGIN
    INSERT INTO held (tenant, device, telemetry) VALUES (new.tenant, new.device, length(new.body) + 150)
    ON CONFLICT (tenant, device) DO UPDATE SET telemetry = telemetry + length(new.body) + 150;
END;

CREATE TRIGGER telemetry_goes AFTER DELETE ON telemetry BEGIN
    UPDATE held SET telemetry = telemetry - length(old.body) - 150 WHERE tenant = old.tenant AND device = old.device;
    DELETE FROM held WHERE tenant = old.tenant AND device = old.device AND telemetry <= 0 AND events <= 0;
END;

-- The events that a device had in another tenant's time are no part of what it has now, and are not pushed out by it.
DROP TRIGGER events_come;
DROP TRIGGER events_go;
DROP TABLE event_counts;
CREATE TABLE event_counts (
    tenant  BLOB NOT NULL,
    device  TEXT NOT NULL,
    lasting INTEGER NOT NULL,
    n       INTEGER NOT NULL,
    PRIMARY KEY (tenant, device, lasting)
) STRICT, WITHOUT ROWID;

DROP INDEX events_once;
CREATE UNIQUE INDEX events_once ON events (tenant, device, tid, kind, method) WHERE tid IS NOT NULL;

CREATE TRIGGER events_come AFTER INSERT ON events BEGIN
    INSERT INTO event_counts (tenant, device, lasting, n) VALUES (new.tenant, new.device, new.lasting, 1)
    ON CONFLICT (tenant, device, lasting) DO UPDATE SET n = n + 1;
    INSERT INTO held (tenant, device, events) VALUES (new.tenant, new.device, length(CAST(new.data AS BLOB)) + 250)
    ON CONFLICT (tenant, device) DO UPDATE SET events = events + length(CAST(new.data AS BLOB)) + 250;
END;

CREATE TRIGGER events_go AFTER DELETE ON events BEGIN
    UPDATE event_counts SET n = n - 1 WHERE tenant = old.tenant AND device = old.device AND lasting = old.lasting;
    DELETE FROM event_counts
    WHERE tenant = old.tenant AND device = old.device AND lasting = old.lasting AND n <= 0;
    UPDATE held SET events = events - length(CAST(old.data AS BLOB)) - 250
    WHERE tenant = old.tenant AND device = old.device;
    DELETE FROM held WHERE tenant = old.tenant AND device = old.device AND telemetry <= 0 AND events <= 0;
END;

-- What is there already.
INSERT INTO event_counts (tenant, device, lasting, n)
SELECT tenant, device, lasting, COUNT(*) FROM events GROUP BY tenant, device, lasting;
INSERT INTO held (tenant, device, telemetry)
SELECT tenant, device, SUM(length(body) + 150) FROM telemetry GROUP BY tenant, device;
INSERT INTO held (tenant, device, events)
SELECT tenant, device, SUM(length(CAST(data AS BLOB)) + 250) FROM events WHERE true GROUP BY tenant, device
ON CONFLICT (tenant, device) DO UPDATE SET events = excluded.events;
