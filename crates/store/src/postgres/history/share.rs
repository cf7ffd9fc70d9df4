//! What is too much is taken from whoever holds most: of the tenants, then of that one's devices, then of what that device
//! told and what happened at it. So nobody who talks much pushes out what others have. Everything a device has here is
//! charged to it, and may go: last of all what it told last, and its alarms.

use std::collections::BTreeMap;

use deadpool_postgres::{ClientWrapper, Transaction};
use tokio_postgres::Row;
use uuid::Uuid;

use super::{
    events::delete_oldest,
    held::{Changes, PIECE_BYTES, TELEMETRY},
    spans::Table,
};
use crate::postgres::{
    fault::Fault,
    rare::{execute, select},
};

/// Rows that are taken from one before it is looked again who holds most.
const TAKEN: i64 = 50;

/// Bytes of everything: of telemetry and events as they were counted when they came.
pub(super) const USED: &str = "
    SELECT ((SELECT coalesce(sum(bytes), 0) FROM history_held)
          + (SELECT coalesce(sum(octet_length(body) + 200), 0) FROM history_latest)
          + (SELECT coalesce(sum(octet_length(entry) + 200), 0) FROM history_alarms))::bigint";

/// What each device holds of what.
const HOLDINGS: &str = "
    SELECT tenant, device, sum(t)::bigint, sum(e)::bigint, sum(l)::bigint, sum(a)::bigint FROM (
        SELECT tenant, device, CASE WHEN what = 0 THEN bytes ELSE 0 END AS t, CASE WHEN what = 0 THEN 0 ELSE bytes END AS e,
            0 AS l, 0 AS a FROM history_held
        UNION ALL SELECT tenant, device, 0, 0, octet_length(body) + 200, 0 FROM history_latest
        UNION ALL SELECT tenant, device, 0, 0, 0, octet_length(entry) + 200 FROM history_alarms) AS x
    GROUP BY tenant, device";

/// What a device holds.
#[derive(Debug, Clone, Copy, Default)]
struct Holding {
    telemetry: i64,
    events: i64,
    latest: i64,
    alarms: i64,
}

impl Holding {
    fn sum(&self) -> i64 {
        self.telemetry + self.events + self.latest + self.alarms
    }
}

/// Who holds what.
struct Holdings(BTreeMap<Uuid, BTreeMap<String, Holding>>);

impl Holdings {
    fn read(rows: &[Row]) -> Result<Self, tokio_postgres::Error> {
        let mut all: BTreeMap<Uuid, BTreeMap<String, Holding>> = BTreeMap::new();
        for row in rows {
            let holding = Holding {
                telemetry: row.try_get(2)?,
                events: row.try_get(3)?,
                latest: row.try_get(4)?,
                alarms: row.try_get(5)?,
            };
            all.entry(row.try_get(0)?).or_default().insert(row.try_get(1)?, holding);
        }
        Ok(Self(all))
    }

    fn sum(&self) -> i64 {
        self.0.values().flat_map(BTreeMap::values).map(Holding::sum).sum()
    }

    /// The device that holds most of the tenant that holds most. Equals by their ids.
    fn most(&self) -> Option<(Uuid, String)> {
        let of_tenant = |devices: &BTreeMap<String, Holding>| -> i64 {
            devices.values().map(Holding::sum).sum()
        };
        let (tenant, devices) = self.0.iter().rev().max_by_key(|(_, it)| of_tenant(it))?;
        let (device, _) = devices.iter().rev().max_by_key(|(_, it)| it.sum())?;
        Some((*tenant, device.clone()))
    }

    fn of(&mut self, tenant: Uuid, device: &str) -> Option<&mut Holding> {
        self.0.get_mut(&tenant)?.get_mut(device)
    }
}

/// Removes up to so many rows while more bytes are in use than may be; answers how many.
pub(super) async fn level(
    client: &mut ClientWrapper,
    bytes_max: u64,
    rows_max: i64,
) -> Result<i64, Fault> {
    let bytes_max = i64::try_from(bytes_max).unwrap_or(i64::MAX);
    let statement = client.prepare_cached(USED).await?;
    if client.query_one(&statement, &[]).await?.try_get::<_, i64>(0)? <= bytes_max {
        return Ok(0);
    }
    let statement = client.prepare_cached(HOLDINGS).await?;
    let mut holdings = Holdings::read(&client.query(&statement, &[]).await?)?;
    let mut removed = 0;
    let tx = client.transaction().await?;
    while removed < rows_max
        && bytes_max < holdings.sum()
        && let Some((tenant, device)) = holdings.most()
        && let Some(holding) = holdings.of(tenant, &device)
    {
        let left = TAKEN.min(rows_max - removed);
        removed += take_from(&tx, tenant, &device, holding, left).await?;
    }
    tx.commit().await?;
    Ok(removed)
}

/// Removes so many rows of what goes first.
async fn take_from(
    tx: &Transaction<'_>,
    tenant: Uuid,
    device: &str,
    holding: &mut Holding,
    rows: i64,
) -> Result<i64, Fault> {
    let held = if holding.events > holding.telemetry {
        let (count, bytes) = delete_oldest(tx, tenant, device, None, rows).await?;
        // Where nothing is left, nothing is held, whatever was counted.
        holding.events = if count == 0 { 0 } else { holding.events - bytes };
        return Ok(i64::try_from(count).unwrap_or(i64::MAX));
    } else if holding.telemetry > 0 {
        return take_telemetry(tx, tenant, device, holding, rows).await;
    } else if holding.latest > 0 {
        holding.latest = 0;
        "DELETE FROM history_latest WHERE tenant = $1 AND device = $2"
    } else {
        holding.alarms = 0;
        holding.events = 0;
        holding.telemetry = 0;
        "DELETE FROM history_alarms WHERE device = $2 AND tenant = $1"
    };
    let count = execute(tx, held, &[&tenant, &device]).await?;
    Ok(i64::try_from(count).unwrap_or(i64::MAX))
}

async fn take_telemetry(
    tx: &Transaction<'_>,
    tenant: Uuid,
    device: &str,
    holding: &mut Holding,
    rows: i64,
) -> Result<i64, Fault> {
    let sql = "SELECT span FROM history_held WHERE tenant = $1 AND device = $2 AND what = $3 ORDER BY span LIMIT 1";
    let oldest = select(tx, sql, &[&tenant, &device, &TELEMETRY]).await?;
    let Some(row) = oldest.first() else {
        holding.telemetry = 0;
        return Ok(0);
    };
    let day = Table::Telemetry.numbered(row.try_get(0)?);
    let part = day.part();
    let sql = format!(
        "DELETE FROM {part} WHERE ctid = ANY (ARRAY(
             SELECT ctid FROM {part} WHERE tenant = $1 AND device = $2 ORDER BY first_ms, id LIMIT $3))
         RETURNING octet_length(body)::bigint"
    );
    let gone = tx.query(&sql, &[&tenant, &device, &rows]).await?;
    let mut held = Changes::default();
    for row in &gone {
        let bytes = row.try_get::<_, i64>(0)? + PIECE_BYTES;
        held.go(tenant, device, TELEMETRY, day, bytes);
        holding.telemetry -= bytes;
    }
    if gone.is_empty() {
        // Counted, and not there: what stands in the way of the next day goes.
        let sql = "DELETE FROM history_held WHERE tenant = $1 AND device = $2 AND what = $3 AND span = $4";
        execute(tx, sql, &[&tenant, &device, &TELEMETRY, &day.number()]).await?;
    }
    held.write(tx).await?;
    Ok(i64::try_from(gone.len()).unwrap_or(i64::MAX))
}
