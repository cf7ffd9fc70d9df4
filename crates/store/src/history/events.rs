//! Device events, and the alarms that are raised now.

use std::collections::BTreeSet;

use async_trait::async_trait;
use rusqlite::{Connection, Row, ToSql, Transaction, params, params_from_iter, types::Value};
use utmos_core::{
    device_event::{Alarm, DeviceEvent, EventKind},
    id::{CommandId, DeviceSn, TenantId},
    ports::{EventBatch, EventFilter, EventStore, KeptEdge, StoreError},
    time::Timestamp,
};
use uuid::Uuid;

use super::HistoryFile;
use crate::{
    codes::Coded,
    sqlite::{cells::Cells, fault::to_store_error},
};

const COLUMNS: &str = "id, tenant, device, gateway, kind, method, tid, data, is_cut, received_at, device_time, \
    need_reply, command";

/// A device keeps up to this part more than it may, so that not every event has one deleted.
const SLACK_DIVISOR: usize = 10;

#[async_trait]
impl EventStore for HistoryFile {
    async fn keep_events(&self, batch: EventBatch) -> Result<usize, StoreError> {
        self.write(move |tx| keep(tx, &batch)).await
    }

    async fn events_of(
        &self,
        tenant: TenantId,
        device: DeviceSn,
        filter: EventFilter,
        before: Option<Uuid>,
        limit: usize,
    ) -> Result<Vec<DeviceEvent>, StoreError> {
        self.read(move |conn| page(conn, tenant, &device, &filter, before, limit)).await
    }

    async fn newest_edges(&self) -> Result<Vec<KeptEdge>, StoreError> {
        self.read(newest_edges).await
    }

    async fn alarms(&self) -> Result<Vec<Alarm>, StoreError> {
        self.read(alarms).await
    }

    async fn forget_events(&self, before: Timestamp, limit: usize) -> Result<usize, StoreError> {
        self.write(move |tx| forget(tx, before, limit)).await
    }
}

/// A fleet that goes all at once and comes back, and something beside.
const EDGES_LOOKED_THROUGH: i64 = 30_000;

fn newest_edges(conn: &Connection) -> Result<Vec<KeptEdge>, StoreError> {
    let fault = |err| to_store_error(&err);
    let sql = "SELECT tenant, device, kind, received_at FROM events
               WHERE row > (SELECT coalesce(max(row), 0) FROM events) - ?1 AND kind IN (?2, ?3) ORDER BY row";
    let mut select = conn.prepare_cached(sql).map_err(fault)?;
    let kinds = [EventKind::Online, EventKind::Offline].map(Coded::code);
    let mut rows =
        select.query(params![EDGES_LOOKED_THROUGH, kinds[0], kinds[1]]).map_err(fault)?;
    let mut edges = Vec::new();
    while let Some(row) = rows.next().map_err(fault)? {
        let (tenant, device): ([u8; 16], String) =
            (row.get(0).map_err(fault)?, row.get(1).map_err(fault)?);
        let (kind, at): (i64, i64) = (row.get(2).map_err(fault)?, row.get(3).map_err(fault)?);
        // One that cannot be read says nothing of the others.
        let Ok(device) = DeviceSn::parse(&device) else { continue };
        edges.push(KeptEdge {
            tenant: TenantId::new(Uuid::from_bytes(tenant)),
            device,
            online: kind == kinds[0],
            at: Timestamp::from_millis(at),
        });
    }
    Ok(edges)
}

fn keep(tx: &Transaction<'_>, batch: &EventBatch) -> rusqlite::Result<usize> {
    let mut new = 0;
    let mut touched: BTreeSet<(TenantId, &str, bool)> = BTreeSet::new();
    let mut insert = tx.prepare_cached(
        "INSERT OR IGNORE INTO events (id, tenant, device, gateway, kind, lasting, method, tid, data, is_cut,
             received_at, device_time, need_reply, command)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14)",
    )?;
    for event in &batch.events {
        let added = insert.execute(params![
            event.id.as_bytes(),
            event.tenant.uuid().as_bytes(),
            event.device.as_str(),
            event.gateway.as_str(),
            event.kind.code(),
            event.kind.is_lasting(),
            event.method.as_deref().unwrap_or_default(),
            event.tid,
            &*event.data,
            event.is_cut,
            event.received_at.as_millis(),
            event.device_time.map(Timestamp::as_millis),
            event.need_reply,
            event.command.map(|id| id.uuid().into_bytes()),
        ])?;
        if added > 0 {
            new += 1;
            touched.insert((event.tenant, event.device.as_str(), event.kind.is_lasting()));
        }
    }
    for (tenant, device, lasting) in touched {
        cut(tx, tenant, device, lasting, batch.per_device_max)?;
    }
    for (device, alarms) in &batch.alarms {
        tx.prepare_cached("DELETE FROM alarms WHERE device = ?1")?
            .execute(params![device.as_str()])?;
        let mut insert = tx.prepare_cached(
            "INSERT OR IGNORE INTO alarms (device, key, tenant, gateway, entry, since)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
        )?;
        for alarm in alarms {
            insert.execute(params![
                device.as_str(),
                alarm.key,
                alarm.tenant.uuid().as_bytes(),
                alarm.gateway.as_str(),
                &*alarm.entry,
                alarm.since.as_millis(),
            ])?;
        }
    }
    Ok(new)
}

/// Deletes what a device has too much of in a tenant's time with it, oldest first. By rows, not by ids: a clock that was set
/// back must not make what comes now the oldest.
fn cut(
    tx: &Transaction<'_>,
    tenant: TenantId,
    device: &str,
    lasting: bool,
    max: usize,
) -> rusqlite::Result<()> {
    let tenant = tenant.uuid();
    let mut count = tx.prepare_cached(
        "SELECT n FROM event_counts WHERE tenant = ?1 AND device = ?2 AND lasting = ?3",
    )?;
    let count: i64 =
        count.query_row(params![tenant.as_bytes(), device, lasting], |row| row.get(0))?;
    let to_i64 = |count: usize| i64::try_from(count).unwrap_or(i64::MAX);
    if count <= to_i64(max.saturating_add(max / SLACK_DIVISOR)) {
        return Ok(());
    }
    tx.prepare_cached(
        "DELETE FROM events WHERE row IN
             (SELECT row FROM events INDEXED BY events_of_device
              WHERE device = ?2 AND tenant = ?1 AND lasting = ?3 ORDER BY row LIMIT ?4)",
    )?
    .execute(params![tenant.as_bytes(), device, lasting, count - to_i64(max)])?;
    Ok(())
}

/// By age, not by row: what came while the clock was ahead must not hide what is old.
fn forget(tx: &Transaction<'_>, before: Timestamp, limit: usize) -> rusqlite::Result<usize> {
    tx.prepare_cached(
        "DELETE FROM events WHERE row IN
             (SELECT row FROM events INDEXED BY events_by_age WHERE received_at < ?1 ORDER BY received_at LIMIT ?2)",
    )?
    .execute(params![before.as_millis(), i64::try_from(limit).unwrap_or(i64::MAX)])
}

fn page(
    conn: &Connection,
    tenant: TenantId,
    device: &DeviceSn,
    filter: &EventFilter,
    before: Option<Uuid>,
    limit: usize,
) -> Result<Vec<DeviceEvent>, StoreError> {
    let sql = |err: rusqlite::Error| to_store_error(&err);
    let mut wanted = vec!["device = ?", "tenant = ?"];
    let mut values: Vec<Value> =
        vec![device.as_str().to_owned().into(), tenant.uuid().as_bytes().to_vec().into()];
    let mut want = |condition: &'static str, value: Option<Value>| {
        if let Some(value) = value {
            wanted.push(condition);
            values.push(value);
        }
    };
    want("id < ?", before.map(|id| id.as_bytes().to_vec().into()));
    want("method = ?", filter.method.clone().map(Value::from));
    want("received_at >= ?", filter.from.map(|at| at.as_millis().into()));
    want("received_at < ?", filter.to.map(|at| at.as_millis().into()));
    let mut conditions = wanted.join(" AND ");
    if !filter.kinds.is_empty() {
        let places = vec!["?"; filter.kinds.len()].join(", ");
        conditions.push_str(&format!(" AND kind IN ({places})"));
        values.extend(filter.kinds.iter().map(|kind| Value::from(kind.code())));
    }
    values.push(i64::try_from(limit).unwrap_or(i64::MAX).into());
    let text = format!(
        "SELECT {COLUMNS} FROM events INDEXED BY events_of_device WHERE {conditions} ORDER BY id DESC LIMIT ?"
    );
    let mut select = conn.prepare_cached(&text).map_err(sql)?;
    let values = values.iter().map(|value| value as &dyn ToSql);
    let mut rows = select.query(params_from_iter(values)).map_err(sql)?;
    let mut all = Vec::new();
    while let Some(row) = rows.next().map_err(sql)? {
        all.push(event(row)?);
    }
    Ok(all)
}

fn event(row: &Row<'_>) -> Result<DeviceEvent, StoreError> {
    let mut cells = Cells::new(row, "events");
    let id = cells.uuid("id")?;
    cells.name(id);
    Ok(DeviceEvent {
        id,
        tenant: TenantId::new(cells.uuid("tenant")?),
        device: cells.device("device")?,
        gateway: cells.gateway("gateway")?,
        kind: cells.coded::<EventKind>("kind")?,
        method: Some(cells.get::<String>("method")?).filter(|method| !method.is_empty()),
        tid: cells.get("tid")?,
        data: cells.some_text("data")?,
        is_cut: cells.get("is_cut")?,
        received_at: cells.at("received_at")?,
        device_time: cells.maybe_at("device_time")?,
        need_reply: cells.get("need_reply")?,
        command: cells
            .get::<Option<[u8; 16]>>("command")?
            .map(|bytes| CommandId::new(Uuid::from_bytes(bytes))),
    })
}

fn alarms(conn: &Connection) -> Result<Vec<Alarm>, StoreError> {
    let sql = |err: rusqlite::Error| to_store_error(&err);
    let mut select = conn
        .prepare_cached(
            "SELECT key, tenant, device, gateway, entry, since FROM alarms ORDER BY device, key",
        )
        .map_err(sql)?;
    let mut rows = select.query([]).map_err(sql)?;
    let mut all = Vec::new();
    while let Some(row) = rows.next().map_err(sql)? {
        let mut cells = Cells::new(row, "alarms");
        let key: String = cells.get("key")?;
        cells.name(&key);
        all.push(Alarm {
            key,
            tenant: TenantId::new(cells.uuid("tenant")?),
            device: cells.device("device")?,
            gateway: cells.gateway("gateway")?,
            entry: cells.some_text("entry")?,
            since: cells.at("since")?,
        });
    }
    Ok(all)
}
