//! Messages of devices that belong to no command: the newest of each tenant.

use deadpool_postgres::Transaction;
use tokio_postgres::Row;
use utmos_core::{
    id::{GatewaySn, TenantId},
    ports::{StoreError, Unmatched},
};
use uuid::Uuid;

use super::{
    PostgresStore, cells::Cells, fault::Fault, rare::execute, reads::rows_max, text::kept,
};
use crate::{
    seal::{Sealer, Slot},
    sqlite::limits::UNMATCHED_PER_TENANT_MAX,
};

/// The raw text as it is kept.
pub(super) fn seal(unmatched: &Unmatched, sealer: &Sealer) -> Result<Vec<u8>, StoreError> {
    sealer.data_key_of(unmatched.id.as_bytes()).seal(Slot::Unmatched, &unmatched.raw)
}

pub(super) async fn keep(
    tx: &Transaction<'_>,
    unmatched: &Unmatched,
    raw: &[u8],
    writer: Uuid,
) -> Result<(), Fault> {
    let tenant = tenant_key(unmatched.tenant);
    let added = execute(
        tx,
        "INSERT INTO unmatched (id, tenant, gateway, topic, tid, method, reason, raw, received_at)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9) ON CONFLICT DO NOTHING",
        &[
            &unmatched.id,
            &tenant,
            &unmatched.gateway.as_ref().map(|gateway| gateway.as_str()),
            &kept(&unmatched.topic),
            &unmatched.tid.as_deref().map(kept),
            &unmatched.method.as_deref().map(kept),
            &kept(&unmatched.reason),
            &raw,
            &unmatched.received_at.as_millis(),
        ],
    )
    .await?;
    if added == 0 {
        return Ok(());
    }
    let sql = "
        DELETE FROM unmatched WHERE tenant = $1 AND id IN (
            SELECT id FROM unmatched WHERE tenant = $1 AND id <= (
                SELECT id FROM unmatched WHERE tenant = $1 ORDER BY id DESC OFFSET $2 LIMIT 1)
            ORDER BY id FOR UPDATE SKIP LOCKED)";
    execute(tx, sql, &[&tenant, &i64::from(UNMATCHED_PER_TENANT_MAX)]).await?;
    let sql = "
        INSERT INTO clocks AS c (writer, newest) VALUES ($1, $2)
        ON CONFLICT (writer) DO UPDATE SET newest = greatest(c.newest, excluded.newest)";
    execute(tx, sql, &[&writer, &unmatched.received_at.as_millis()]).await?;
    Ok(())
}

pub(super) async fn read(
    store: &PostgresStore,
    tenant: Option<TenantId>,
    before: Option<Uuid>,
    limit: usize,
) -> Result<Vec<Unmatched>, StoreError> {
    let sql = "
        SELECT id, gateway, topic, tid, method, reason, raw, received_at FROM unmatched
        WHERE tenant = $1 AND id < $2 ORDER BY id DESC LIMIT $3";
    let before = before.unwrap_or(Uuid::max());
    let rows = store.read(sql, &[&tenant_key(tenant), &before, &rows_max(limit)]).await?;
    rows.iter().map(|row| read_one(row, &store.sealer, tenant)).collect()
}

fn read_one(row: &Row, sealer: &Sealer, tenant: Option<TenantId>) -> Result<Unmatched, StoreError> {
    let mut cells = Cells::new(row, "unmatched");
    let id = cells.uuid("id")?;
    cells.name(id);
    let gateway: Option<&str> = cells.get("gateway")?;
    let gateway = gateway
        .map(|text| GatewaySn::parse(text).map_err(|err| cells.damaged("gateway", err)))
        .transpose()?;
    Ok(Unmatched {
        id,
        tenant,
        gateway,
        topic: cells.text("topic")?,
        tid: cells.maybe_text("tid")?,
        method: cells.maybe_text("method")?,
        reason: cells.text("reason")?,
        raw: cells.sealed("raw", &sealer.data_key_of(id.as_bytes()), Slot::Unmatched)?.to_string(),
        received_at: cells.at("received_at")?,
    })
}

/// No tenant has the id of ones.
fn tenant_key(tenant: Option<TenantId>) -> Uuid {
    tenant.map_or(Uuid::max(), |tenant| tenant.uuid())
}
