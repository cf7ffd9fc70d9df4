//! Rules by which device requests are answered, and what the answers are made of: the commands sent for a task.
//!
//! The row of the rules' generation is locked first, so that two servers together set no more than a tenant may have.

use deadpool_postgres::Transaction;
use tokio_postgres::Row;
use utmos_core::{
    command::Command,
    device_request::{Mode, Rule, Scope, SetRule},
    id::{DeviceSn, GatewaySn, TenantId},
    ports::{RuleSet, StoreError},
};

use super::{
    PostgresStore,
    cells::{Cells, millis},
    fault::Fault,
    rare::{execute, select},
    rows::{self, COMMAND},
    text::kept,
};
use crate::{codes::may_have_left, sqlite::limits::RULES_PER_TENANT_MAX};

const AUTO: i16 = 1;
const MANUAL: i16 = 2;
const AUTO_AFTER: i16 = 3;

pub(super) async fn generation(store: &PostgresStore) -> Result<u64, StoreError> {
    let sql = "SELECT n FROM generations WHERE name = 'request_rules'";
    let rows = store.read(sql, &[]).await?;
    let row = rows
        .first()
        .ok_or_else(|| StoreError::Damaged("generations: there is none of the rules".to_owned()))?;
    Ok(Cells::new(row, "generations").get::<i64>("n")?.cast_unsigned())
}

pub(super) async fn every(store: &PostgresStore) -> Result<Vec<SetRule>, StoreError> {
    let sql = "SELECT tenant, request_type, device, mode, after_ms, reply_wait_ms, updated_at FROM device_request_rules
               ORDER BY tenant, request_type, device";
    store.read(sql, &[]).await?.iter().map(read).collect()
}

fn read(row: &Row) -> Result<SetRule, StoreError> {
    let mut cells = Cells::new(row, "device_request_rules");
    let tenant = cells.tenant("tenant")?;
    let request_type = cells.text("request_type")?;
    cells.name(&request_type);
    let device: String = cells.get("device")?;
    let device = match device.as_str() {
        "" => None,
        text => Some(DeviceSn::parse(text).map_err(|err| cells.damaged("device", err))?),
    };
    let (mode, after) = (cells.get::<i16>("mode")?, cells.maybe_duration("after_ms")?);
    let mode = match (mode, after) {
        (AUTO, _) => Mode::Auto,
        (MANUAL, _) => Mode::Manual,
        (AUTO_AFTER, Some(after)) => Mode::AutoAfter(after),
        (mode, _) => return Err(cells.damaged("mode", format!("no such mode: {mode}"))),
    };
    let rule = Rule { mode, reply_wait: cells.duration("reply_wait_ms")? };
    let scope = Scope { tenant, request_type, device };
    Ok(SetRule { scope, rule, updated_at: cells.at("updated_at")? })
}

async fn lock(tx: &Transaction<'_>) -> Result<(), Fault> {
    select(tx, "SELECT n FROM generations WHERE name = 'request_rules' FOR UPDATE", &[]).await?;
    Ok(())
}

async fn raise(tx: &Transaction<'_>) -> Result<(), Fault> {
    execute(tx, "UPDATE generations SET n = n + 1 WHERE name = 'request_rules'", &[]).await?;
    Ok(())
}

pub(super) async fn put(tx: &Transaction<'_>, set: &SetRule) -> Result<RuleSet, Fault> {
    lock(tx).await?;
    let SetRule { scope, rule, updated_at } = set;
    let (tenant, request_type) = (scope.tenant.uuid(), kept(&scope.request_type));
    let device = scope.device.as_ref().map_or("", |device| device.as_str());
    let sql = "SELECT count(*) FROM device_request_rules WHERE tenant = $1 AND NOT (request_type = $2 AND device = $3)";
    let rows = select(tx, sql, &[&tenant, &request_type, &device]).await?;
    let others: i64 = match rows.first() {
        Some(row) => Cells::new(row, "device_request_rules").get("count")?,
        None => 0,
    };
    if others >= i64::from(RULES_PER_TENANT_MAX) {
        return Ok(RuleSet::TooMany);
    }
    let (mode, after) = match rule.mode {
        Mode::Auto => (AUTO, None),
        Mode::Manual => (MANUAL, None),
        Mode::AutoAfter(after) => (AUTO_AFTER, Some(millis(after))),
    };
    execute(
        tx,
        "INSERT INTO device_request_rules (tenant, request_type, device, mode, after_ms, reply_wait_ms, updated_at)
         VALUES ($1, $2, $3, $4, $5, $6, $7)
         ON CONFLICT (tenant, request_type, device) DO UPDATE SET mode = excluded.mode, after_ms = excluded.after_ms,
            reply_wait_ms = excluded.reply_wait_ms, updated_at = excluded.updated_at",
        &[
            &tenant,
            &request_type,
            &device,
            &mode,
            &after,
            &millis(rule.reply_wait),
            &updated_at.as_millis(),
        ],
    )
    .await?;
    raise(tx).await?;
    Ok(RuleSet::Yes)
}

pub(super) async fn remove(tx: &Transaction<'_>, scope: &Scope) -> Result<bool, Fault> {
    lock(tx).await?;
    let device = scope.device.as_ref().map_or("", |device| device.as_str());
    let sql =
        "DELETE FROM device_request_rules WHERE tenant = $1 AND request_type = $2 AND device = $3";
    let params: super::rare::Params<'_> =
        &[&scope.tenant.uuid(), &kept(&scope.request_type), &device];
    let gone = execute(tx, sql, params).await?;
    if gone > 0 {
        raise(tx).await?;
    }
    Ok(gone > 0)
}

/// What a command for a task was about, and how that task stands.
pub(super) struct OfTask<'a> {
    pub(super) tenant: TenantId,
    pub(super) gateway: &'a GatewaySn,
    pub(super) method: &'a str,
    pub(super) task: &'a str,
}

impl OfTask<'_> {
    /// The newest of them that was sent, as far as anybody knows.
    pub(super) async fn find(&self, store: &PostgresStore) -> Result<Option<Command>, StoreError> {
        let sql = format!(
            "SELECT {COMMAND} FROM commands c JOIN lives l ON l.id = c.id
             WHERE c.gateway = $1 AND hashtextextended(c.job_ref, 0) = hashtextextended($2, 0)
                 AND c.job_ref = $2 AND c.tenant = $3 AND c.method = $4 ORDER BY c.seq DESC"
        );
        let (task, method) = (kept(self.task), kept(self.method));
        let params: super::rare::Params<'_> =
            &[&self.gateway.as_str(), &task, &self.tenant.uuid(), &method];
        for row in store.read(&sql, params).await? {
            let command = rows::command(&row, &store.sealer)?;
            if may_have_left(command.life.phase) {
                return Ok(Some(command));
            }
        }
        Ok(None)
    }
}
