//! Device events, each once whichever server heard it, and the alarms that are raised now.

use std::collections::{BTreeMap, BTreeSet};

use deadpool_postgres::Transaction;
use sha2::{Digest, Sha256};
use tokio_postgres::{Row, types::ToSql};
use utmos_core::{
    device_event::{Alarm, DeviceEvent, EventKind},
    id::{CommandId, DeviceSn, TenantId},
    ports::{EventBatch, EventFilter, StoreError},
    time::Timestamp,
};
use uuid::Uuid;

use super::{
    PostgresHistory,
    held::{Changes, EVENT_BYTES, of_events},
    spans::{Span, Table},
};
use crate::postgres::{
    cells::{Cells, code},
    fault::Fault,
    rare::{execute, select},
    reads::{Query, rows_max},
    text::kept,
};

const COLUMNS: &str = "id, tenant, device, gateway, kind, method, tid, data, is_cut, received_at, device_time, \
    need_reply, command";

/// A device keeps up to this part more than it may, so that not every event has one deleted.
const SLACK_DIVISOR: usize = 10;

fn hash_of(parts: &[&[u8]]) -> Uuid {
    let mut hash = Sha256::new();
    for part in parts {
        hash.update((part.len() as u64).to_be_bytes());
        hash.update(part);
    }
    let mut key = [0; 16];
    key.iter_mut().zip(hash.finalize()).for_each(|(to, from)| *to = from);
    Uuid::from_bytes(key)
}

/// What is there once: by its exchange, else by the device's own time and what it said then. Nothing where there is neither.
fn once(event: &DeviceEvent) -> Option<Uuid> {
    let millis = event.device_time.map(|at| at.as_millis().to_be_bytes());
    let (said, at): (&str, &[u8]) = match (&event.tid, &millis) {
        (Some(tid), _) => (tid, &[]),
        (None, Some(at)) => (&event.data, at),
        (None, None) => return None,
    };
    let (tenant, kind) = (event.tenant.uuid(), event.kind.as_str());
    let method = event.method.as_deref().unwrap_or_default();
    Some(hash_of(&[
        tenant.as_bytes(),
        event.device.as_str().as_bytes(),
        kind.as_bytes(),
        method.as_bytes(),
        said.as_bytes(),
        at,
    ]))
}

fn week_of(event: &DeviceEvent) -> Span {
    Table::Events.at(event.received_at)
}

pub(super) fn weeks_of(batch: &EventBatch) -> BTreeSet<Span> {
    batch.events.iter().map(week_of).collect()
}

/// Keeps a batch; answers how many events were new.
pub(super) async fn write(tx: &Transaction<'_>, batch: &EventBatch) -> Result<usize, Fault> {
    let fresh = claim(tx, &batch.events).await?;
    let new = insert(tx, &fresh).await?;
    let mut held = Changes::default();
    let mut touched = BTreeSet::new();
    for event in &new {
        let (what, lasting) = (of_events(event.kind.is_lasting()), event.kind.is_lasting());
        let bytes = i64::try_from(kept(&event.data).len()).unwrap_or(0) + EVENT_BYTES;
        held.come(event.tenant, event.device.as_str(), what, week_of(event), bytes);
        touched.insert((event.tenant.uuid(), event.device.as_str(), lasting));
    }
    held.write(tx).await?;
    cut(tx, &touched, batch.per_device_max).await?;
    put_alarms(tx, &batch.alarms).await?;
    Ok(new.len())
}

/// Those that are not there already, each once.
async fn claim<'e>(
    tx: &Transaction<'_>,
    events: &'e [DeviceEvent],
) -> Result<Vec<(&'e DeviceEvent, Option<Uuid>)>, Fault> {
    let mut wanted: BTreeMap<Uuid, i64> = BTreeMap::new();
    for event in events {
        if let Some(key) = once(event) {
            wanted.entry(key).or_insert(week_of(event).number());
        }
    }
    let mut free = BTreeSet::new();
    if !wanted.is_empty() {
        let (keys, weeks): (Vec<Uuid>, Vec<i64>) = wanted.into_iter().unzip();
        let sql = "
            INSERT INTO history_events_once (key, week) SELECT * FROM unnest($1::uuid[], $2::bigint[])
            ON CONFLICT DO NOTHING RETURNING key";
        for row in select(tx, sql, &[&keys, &weeks]).await? {
            free.insert(row.try_get::<_, Uuid>(0)?);
        }
    }
    let with_key = events.iter().map(|event| (event, once(event)));
    Ok(with_key.filter(|(_, key)| key.is_none_or(|key| free.remove(&key))).collect())
}

/// One that is there under its id is passed over: a batch whose answer was lost comes again. Answers those that were new.
async fn insert<'e>(
    tx: &Transaction<'_>,
    events: &[(&'e DeviceEvent, Option<Uuid>)],
) -> Result<Vec<&'e DeviceEvent>, Fault> {
    if events.is_empty() {
        return Ok(Vec::new());
    }
    let all = || events.iter().map(|(event, _)| *event);
    let ids: Vec<Uuid> = all().map(|event| event.id).collect();
    let tenants: Vec<Uuid> = all().map(|event| event.tenant.uuid()).collect();
    let devices: Vec<&str> = all().map(|event| event.device.as_str()).collect();
    let gateways: Vec<&str> = all().map(|event| event.gateway.as_str()).collect();
    let kinds: Vec<i16> = all().map(|event| code(event.kind)).collect();
    let lasting: Vec<bool> = all().map(|event| event.kind.is_lasting()).collect();
    let methods: Vec<_> =
        all().map(|event| kept(event.method.as_deref().unwrap_or_default())).collect();
    let methods: Vec<&str> = methods.iter().map(|method| &**method).collect();
    let tids: Vec<_> = all().map(|event| event.tid.as_deref().map(kept)).collect();
    let tids: Vec<Option<&str>> = tids.iter().map(|tid| tid.as_deref()).collect();
    let data: Vec<_> = all().map(|event| kept(&event.data)).collect();
    let data: Vec<&str> = data.iter().map(|data| &**data).collect();
    let is_cut: Vec<bool> = all().map(|event| event.is_cut).collect();
    let received: Vec<i64> = all().map(|event| event.received_at.as_millis()).collect();
    let device_times: Vec<Option<i64>> =
        all().map(|event| event.device_time.map(Timestamp::as_millis)).collect();
    let need_reply: Vec<bool> = all().map(|event| event.need_reply).collect();
    let commands: Vec<Option<Uuid>> =
        all().map(|event| event.command.map(|id| id.uuid())).collect();
    let keys: Vec<Option<Uuid>> = events.iter().map(|(_, key)| *key).collect();
    let sql = "
        INSERT INTO history_events (id, tenant, device, gateway, kind, lasting, method, tid, data, is_cut, received_at,
            device_time, need_reply, command, once)
        SELECT * FROM unnest($1::uuid[], $2::uuid[], $3::text[], $4::text[], $5::smallint[], $6::boolean[], $7::text[],
            $8::text[], $9::text[], $10::boolean[], $11::bigint[], $12::bigint[], $13::boolean[], $14::uuid[], $15::uuid[])
        ON CONFLICT DO NOTHING RETURNING id, device";
    let params: [&(dyn ToSql + Sync); 15] = [
        &ids,
        &tenants,
        &devices,
        &gateways,
        &kinds,
        &lasting,
        &methods,
        &tids,
        &data,
        &is_cut,
        &received,
        &device_times,
        &need_reply,
        &commands,
        &keys,
    ];
    let mut came = BTreeSet::new();
    for row in select(tx, sql, &params).await? {
        came.insert((row.try_get::<_, Uuid>(0)?, row.try_get::<_, String>(1)?));
    }
    Ok(all().filter(|event| came.remove(&(event.id, event.device.to_string()))).collect())
}

/// Deletes what a device has too much of in a tenant's time with it, oldest first: by the order they came in, for a clock that
/// was set back must not make what comes now the oldest.
async fn cut(
    tx: &Transaction<'_>,
    touched: &BTreeSet<(Uuid, &str, bool)>,
    max: usize,
) -> Result<(), Fault> {
    if touched.is_empty() {
        return Ok(());
    }
    let tenants: Vec<Uuid> = touched.iter().map(|it| it.0).collect();
    let devices: Vec<&str> = touched.iter().map(|it| it.1).collect();
    let whats: Vec<i16> = touched.iter().map(|it| of_events(it.2)).collect();
    let sql = "
        SELECT u.nth, sum(h.n)::bigint
        FROM unnest($1::uuid[], $2::text[], $3::smallint[]) WITH ORDINALITY AS u (tenant, device, what, nth)
        JOIN history_held h ON h.tenant = u.tenant AND h.device = u.device AND h.what = u.what
        GROUP BY u.nth HAVING sum(h.n) > $4::bigint";
    let most = rows_max(max.saturating_add(max / SLACK_DIVISOR));
    for row in select(tx, sql, &[&tenants, &devices, &whats, &most]).await? {
        let (nth, count): (i64, i64) = (row.try_get(0)?, row.try_get(1)?);
        let nth = usize::try_from(nth - 1).unwrap_or(usize::MAX);
        if let Some((tenant, device, lasting)) = touched.iter().nth(nth) {
            let excess = count.saturating_sub(rows_max(max));
            delete_oldest(tx, *tenant, device, Some(*lasting), excess).await?;
        }
    }
    Ok(())
}

/// Deletes so many events of a device, those that came first first; without `lasting` what is rare and lasting goes after the
/// rest. Answers how many went and what they held.
pub(super) async fn delete_oldest(
    tx: &Transaction<'_>,
    tenant: Uuid,
    device: &str,
    lasting: Option<bool>,
    limit: i64,
) -> Result<(usize, i64), Fault> {
    let sql = "
        WITH gone AS (
            SELECT id, received_at FROM history_events
            WHERE tenant = $1 AND device = $2 AND ($3::boolean IS NULL OR lasting = $3)
            ORDER BY lasting, seq LIMIT $4)
        DELETE FROM history_events e USING gone
        WHERE e.tenant = $1 AND e.device = $2 AND e.id = gone.id AND e.received_at = gone.received_at
        RETURNING e.received_at, e.lasting, octet_length(e.data)::bigint, e.once";
    let rows = select(tx, sql, &[&tenant, &device, &lasting, &limit]).await?;
    let (mut held, mut keys, mut bytes) = (Changes::default(), Vec::new(), 0);
    for row in &rows {
        let week = Table::Events.at(Timestamp::from_millis(row.try_get(0)?));
        let size = row.try_get::<_, i64>(2)? + EVENT_BYTES;
        held.go(tenant, device, of_events(row.try_get(1)?), week, size);
        keys.extend(row.try_get::<_, Option<Uuid>>(3)?);
        bytes += size;
    }
    execute(tx, "DELETE FROM history_events_once WHERE key = ANY ($1)", &[&keys]).await?;
    held.write(tx).await?;
    Ok((rows.len(), bytes))
}

/// All that are raised at these devices take the place of what was there of them.
async fn put_alarms(tx: &Transaction<'_>, alarms: &[(DeviceSn, Vec<Alarm>)]) -> Result<(), Fault> {
    if alarms.is_empty() {
        return Ok(());
    }
    // The last word on a device counts, and always in one order.
    let by_device: BTreeMap<&str, &Vec<Alarm>> =
        alarms.iter().map(|(device, alarms)| (device.as_str(), alarms)).collect();
    let named: Vec<&str> = by_device.keys().copied().collect();
    execute(tx, "DELETE FROM history_alarms WHERE device = ANY ($1)", &[&named]).await?;
    let rows: Vec<(&str, &Alarm)> = by_device
        .iter()
        .flat_map(|(device, alarms)| alarms.iter().map(move |alarm| (*device, alarm)))
        .collect();
    if rows.is_empty() {
        return Ok(());
    }
    let devices: Vec<&str> = rows.iter().map(|(device, _)| *device).collect();
    let hashes: Vec<Uuid> =
        rows.iter().map(|(_, alarm)| hash_of(&[alarm.key.as_bytes()])).collect();
    let keys: Vec<_> = rows.iter().map(|(_, alarm)| kept(&alarm.key)).collect();
    let keys: Vec<&str> = keys.iter().map(|key| &**key).collect();
    let tenants: Vec<Uuid> = rows.iter().map(|(_, alarm)| alarm.tenant.uuid()).collect();
    let gateways: Vec<&str> = rows.iter().map(|(_, alarm)| alarm.gateway.as_str()).collect();
    let entries: Vec<_> = rows.iter().map(|(_, alarm)| kept(&alarm.entry)).collect();
    let entries: Vec<&str> = entries.iter().map(|entry| &**entry).collect();
    let since: Vec<i64> = rows.iter().map(|(_, alarm)| alarm.since.as_millis()).collect();
    let sql = "
        INSERT INTO history_alarms (device, hash, key, tenant, gateway, entry, since)
        SELECT * FROM unnest($1::text[], $2::uuid[], $3::text[], $4::uuid[], $5::text[], $6::text[], $7::bigint[])
        ON CONFLICT DO NOTHING";
    let params: [&(dyn ToSql + Sync); 7] =
        [&devices, &hashes, &keys, &tenants, &gateways, &entries, &since];
    execute(tx, sql, &params).await?;
    Ok(())
}

impl PostgresHistory {
    pub(super) async fn page_of_events(
        &self,
        tenant: TenantId,
        device: &DeviceSn,
        filter: &EventFilter,
        before: Option<Uuid>,
        limit: usize,
    ) -> Result<Vec<DeviceEvent>, StoreError> {
        let mut query = Query::default();
        query.and("tenant = ", tenant.uuid());
        query.and("device = ", device.to_string());
        if let Some(before) = before {
            query.and("id < ", before);
        }
        if let Some(method) = &filter.method {
            query.and("method = ", kept(method).into_owned());
        }
        // In the statement itself, so that no other week is locked.
        if let Some(from) = filter.from {
            query.tests.push_str(&format!(" AND received_at >= {}", from.as_millis()));
        }
        if let Some(to) = filter.to {
            query.tests.push_str(&format!(" AND received_at < {}", to.as_millis()));
        }
        if !filter.kinds.is_empty() {
            let kinds: Vec<i16> = filter.kinds.iter().map(|kind| code(*kind)).collect();
            let kinds = query.param(kinds);
            query.tests.push_str(&format!(" AND kind = ANY ({kinds})"));
        }
        let tests = query.tests.clone();
        let limit = query.param(rows_max(limit));
        let sql = format!(
            "SELECT {COLUMNS} FROM history_events WHERE true{tests} ORDER BY id DESC LIMIT {limit}"
        );
        let params: Vec<&(dyn ToSql + Sync)> =
            query.params.iter().map(|it| &**it as &(dyn ToSql + Sync)).collect();
        self.rows_once(&sql, &params).await?.iter().map(event).collect()
    }

    pub(super) async fn every_alarm(&self) -> Result<Vec<Alarm>, StoreError> {
        let sql = "SELECT key, tenant, device, gateway, entry, since FROM history_alarms ORDER BY device, key";
        self.rows(sql, &[]).await?.iter().map(alarm).collect()
    }
}

fn event(row: &Row) -> Result<DeviceEvent, StoreError> {
    let mut cells = Cells::new(row, "history_events");
    let id = cells.uuid("id")?;
    cells.name(id);
    Ok(DeviceEvent {
        id,
        tenant: cells.tenant("tenant")?,
        device: cells.device("device")?,
        gateway: cells.gateway("gateway")?,
        kind: cells.coded::<EventKind>("kind")?,
        method: Some(cells.text("method")?).filter(|method| !method.is_empty()),
        tid: cells.maybe_text("tid")?,
        data: cells.text("data")?.into(),
        is_cut: cells.get("is_cut")?,
        received_at: cells.at("received_at")?,
        device_time: cells.maybe_at("device_time")?,
        need_reply: cells.get("need_reply")?,
        command: cells.get::<Option<Uuid>>("command")?.map(CommandId::new),
    })
}

fn alarm(row: &Row) -> Result<Alarm, StoreError> {
    let mut cells = Cells::new(row, "history_alarms");
    let key = cells.text("key")?;
    cells.name(&key);
    Ok(Alarm {
        key,
        tenant: cells.tenant("tenant")?,
        device: cells.device("device")?,
        gateway: cells.gateway("gateway")?,
        entry: cells.text("entry")?.into(),
        since: cells.at("since")?,
    })
}
