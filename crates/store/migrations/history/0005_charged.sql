-- What a device told last and its alarms count as what it holds, too.
ALTER TABLE held ADD COLUMN latest INTEGER NOT NULL DEFAULT 0;
ALTER TABLE held ADD COLUMN alarms INTEGER NOT NULL DEFAULT 0;

DROP TRIGGER telemetry_goes;
CREATE TRIGGER telemetry_goes AFTER DELETE ON telemetry BEGIN
    UPDATE held SET telemetry = telemetry - length(old.body) - 150 WHERE tenant = old.tenant AND device = old.device;
    DELETE FROM held WHERE tenant = old.tenant AND device = old.device
        AND telemetry <= 0 AND events <= 0 AND latest <= 0 AND alarms <= 0;
END;

DROP TRIGGER events_go;
CREATE TRIGGER events_go AFTER DELETE ON events BEGIN
    UPDATE event_counts SET n = n - 1 WHERE tenant = old.tenant AND device = old.device AND lasting = old.lasting;
    DELETE FROM event_counts
    WHERE tenant = old.tenant AND device = old.device AND lasting = old.lasting AND n <= 0;
    UPDATE held SET events = events - length(CAST(old.data AS BLOB)) - 250
    WHERE tenant = old.tenant AND device = old.device;
    DELETE FROM held WHERE tenant = old.tenant AND device = old.device
        AND telemetry <= 0 AND events <= 0 AND latest <= 0 AND alarms <= 0;
END;

CREATE TRIGGER latest_comes AFTER INSERT ON telemetry_latest BEGIN
    INSERT INTO held (tenant, device, latest) VALUES (new.tenant, new.device, length(new.body) + 150)
    ON CONFLICT (tenant, device) DO UPDATE SET latest = latest + length(new.body) + 150;
END;

CREATE TRIGGER latest_changes AFTER UPDATE OF body ON telemetry_latest
WHEN length(new.body) <> length(old.body) BEGIN
    UPDATE held SET latest = latest + length(new.body) - length(old.body)
    WHERE tenant = new.tenant AND device = new.device;
END;

CREATE TRIGGER latest_goes AFTER DELETE ON telemetry_latest BEGIN
    UPDATE held SET latest = latest - length(old.body) - 150 WHERE tenant = old.tenant AND device = old.device;
    DELETE FROM held WHERE tenant = old.tenant AND device = old.device
        AND telemetry <= 0 AND events <= 0 AND latest <= 0 AND alarms <= 0;
END;

CREATE TRIGGER alarms_come AFTER INSERT ON alarms BEGIN
    INSERT INTO held (tenant, device, alarms) VALUES (new.tenant, new.device, length(CAST(new.entry AS BLOB)) + 150)
    ON CONFLICT (tenant, device) DO UPDATE SET alarms = alarms + length(CAST(new.entry AS BLOB)) + 150;
END;

CREATE TRIGGER alarms_go AFTER DELETE ON alarms BEGIN
    UPDATE held SET alarms = alarms - length(CAST(old.entry AS BLOB)) - 150
    WHERE tenant = old.tenant AND device = old.device;
    DELETE FROM held WHERE tenant = old.tenant AND device = old.device
        AND telemetry <= 0 AND events <= 0 AND latest <= 0 AND alarms <= 0;
END;

-- What is there already.
INSERT INTO held (tenant, device, latest)
SELECT tenant, device, length(body) + 150 FROM telemetry_latest WHERE true
ON CONFLICT (tenant, device) DO UPDATE SET latest = excluded.latest;
INSERT INTO held (tenant, device, alarms)
SELECT tenant, device, SUM(length(CAST(entry AS BLOB)) + 150) FROM alarms WHERE true GROUP BY tenant, device
ON CONFLICT (tenant, device) DO UPDATE SET alarms = excluded.alarms;

-- Rows stand in the order they came, which is not that of their times where a clock jumped.
CREATE INDEX events_by_age ON events (received_at);
