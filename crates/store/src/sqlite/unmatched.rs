//! Messages of devices that belong to no command: the newest of each tenant.

use rusqlite::{Connection, params};
use utmos_core::{
    id::TenantId,
    ports::{StoreError, Unmatched},
};
use uuid::Uuid;

use super::{
    batch::Batch,
    cells::Cells,
    fault::{Fault, to_store_error},
    limits::UNMATCHED_PER_TENANT_MAX,
    reads::{before_bytes, rows_max},
};
use crate::seal::{Sealer, Slot};

pub(super) const SELECT_UNMATCHED: &str = "
    SELECT id, gateway, topic, tid, method, reason, raw, received_at FROM unmatched
    WHERE tenant = ?1 AND id < ?2 ORDER BY id DESC LIMIT ?3";

pub(super) const DELETE_OLDEST: &str = "
    DELETE FROM unmatched WHERE row IN (SELECT row FROM unmatched WHERE tenant = ?1 ORDER BY id LIMIT ?2)";

/// The raw text as it is kept.
pub(super) fn seal(unmatched: &Unmatched, sealer: &Sealer) -> Result<Vec<u8>, StoreError> {
    sealer.data_key_of(unmatched.id.as_bytes()).seal(Slot::Unmatched, &unmatched.raw)
}

pub(super) fn keep(batch: &mut Batch<'_>, unmatched: &Unmatched, raw: &[u8]) -> Result<(), Fault> {
    let tenant = tenant_bytes(unmatched.tenant);
    let added = batch.execute(
        "INSERT OR IGNORE INTO unmatched (id, tenant, gateway, topic, tid, method, reason, raw, received_at)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)",
        params![
            unmatched.id.as_bytes(),
            tenant,
            unmatched.gateway.as_ref().map(|gateway| gateway.as_str()),
            unmatched.topic,
            unmatched.tid,
            unmatched.method,
            unmatched.reason,
            raw,
            unmatched.received_at.as_millis(),
        ],
    )?;
    if added == 0 {
        return Ok(());
    }
    batch.record_time(unmatched.received_at.as_millis());
    let sql = "INSERT INTO unmatched_counts (tenant, n) VALUES (?1, 1) ON CONFLICT (tenant) DO UPDATE SET n = n + 1";
    batch.execute(sql, params![tenant])?;
    let sql = "SELECT n FROM unmatched_counts WHERE tenant = ?1";
    let count: i64 = batch.statement(sql)?.query_row(params![tenant], |row| row.get(0))?;
    let too_many = count - i64::from(UNMATCHED_PER_TENANT_MAX);
    if too_many > 0 {
        let gone = batch.execute(DELETE_OLDEST, params![tenant, too_many])?;
        let left = count - i64::try_from(gone).unwrap_or(0);
        batch.execute(
            "UPDATE unmatched_counts SET n = ?2 WHERE tenant = ?1",
            params![tenant, left],
        )?;
    }
    Ok(())
}

pub(super) fn read(
    conn: &Connection,
    sealer: &Sealer,
    tenant: Option<TenantId>,
    before: Option<Uuid>,
    limit: usize,
) -> Result<Vec<Unmatched>, StoreError> {
    let sql = |err| to_store_error(&err);
    let mut select = conn.prepare_cached(SELECT_UNMATCHED).map_err(sql)?;
    let params = params![tenant_bytes(tenant), before_bytes(before), rows_max(limit)];
    let mut found = select.query(params).map_err(sql)?;
    let mut all = Vec::new();
    while let Some(row) = found.next().map_err(sql)? {
        let mut cells = Cells::new(row, "unmatched");
        let id = cells.uuid("id")?;
        cells.name(id);
        let gateway = match cells.text("gateway")? {
            Some(text) => Some(
                utmos_core::id::GatewaySn::parse(&text)
                    .map_err(|err| cells.damaged("gateway", err))?,
            ),
            None => None,
        };
        all.push(Unmatched {
            id,
            tenant,
            gateway,
            topic: cells.get("topic")?,
            tid: cells.get("tid")?,
            method: cells.get("method")?,
            reason: cells.get("reason")?,
            raw: cells
                .sealed("raw", &sealer.data_key_of(id.as_bytes()), Slot::Unmatched)?
                .to_string(),
            received_at: cells.at("received_at")?,
        });
    }
    Ok(all)
}

fn tenant_bytes(tenant: Option<TenantId>) -> Vec<u8> {
    tenant.map_or(Vec::new(), |tenant| tenant.uuid().as_bytes().to_vec())
}
