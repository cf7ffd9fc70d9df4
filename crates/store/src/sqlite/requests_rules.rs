//! Rules by which device requests are answered, and what the answers are made of: the commands sent for a task.

use rusqlite::{Connection, OptionalExtension, params};
use utmos_core::{
    device_request::{Mode, Rule, Scope, SetRule},
    id::{DeviceSn, GatewaySn, TenantId},
    ports::{RuleSet, StoreError, TaskState},
};

use super::{
    batch::Batch,
    cells::{Cells, millis},
    fault::{Fault, to_store_error},
    limits::RULES_PER_TENANT_MAX,
    rows::{self, SELECT_COMMAND},
};
use crate::{codes::may_have_left, seal::Sealer};

const AUTO: i64 = 1;
const MANUAL: i64 = 2;
const AUTO_AFTER: i64 = 3;

pub(super) fn generation(conn: &Connection) -> Result<u64, StoreError> {
    let kept: Option<i64> = conn
        .prepare_cached("SELECT value FROM meta WHERE name = 'request_rules'")
        .and_then(|mut select| select.query_row([], |row| row.get(0)).optional())
        .map_err(|err| to_store_error(&err))?;
    Ok(kept.unwrap_or(0).cast_unsigned())
}

pub(super) fn every(conn: &Connection) -> Result<Vec<SetRule>, StoreError> {
    let fault = |err| to_store_error(&err);
    let sql = "SELECT tenant, request_type, device, mode, after_ms, reply_wait_ms, updated_at FROM device_request_rules
               ORDER BY tenant, request_type, device";
    let mut select = conn.prepare_cached(sql).map_err(fault)?;
    let mut found = select.query([]).map_err(fault)?;
    let mut rules = Vec::new();
    while let Some(row) = found.next().map_err(fault)? {
        let mut cells = Cells::new(row, "device_request_rules");
        let tenant = TenantId::new(cells.uuid("tenant")?);
        let request_type: String = cells.get("request_type")?;
        cells.name(&request_type);
        let device: String = cells.get("device")?;
        let device = match device.as_str() {
            "" => None,
            text => Some(DeviceSn::parse(text).map_err(|err| cells.damaged("device", err))?),
        };
        let (mode, after) = (cells.get::<i64>("mode")?, cells.maybe_duration("after_ms")?);
        let mode = match (mode, after) {
            (AUTO, _) => Mode::Auto,
            (MANUAL, _) => Mode::Manual,
            (AUTO_AFTER, Some(after)) => Mode::AutoAfter(after),
            (mode, _) => return Err(cells.damaged("mode", format!("no such mode: {mode}"))),
        };
        let rule = Rule { mode, reply_wait: cells.duration("reply_wait_ms")? };
        let scope = Scope { tenant, request_type, device };
        rules.push(SetRule { scope, rule, updated_at: cells.at("updated_at")? });
    }
    Ok(rules)
}

pub(super) fn put(batch: &mut Batch<'_>, set: &SetRule) -> Result<RuleSet, Fault> {
    let SetRule { scope, rule, updated_at } = set;
    let tenant = *scope.tenant.uuid().as_bytes();
    let device = scope.device.as_ref().map_or("", |device| device.as_str());
    let sql = "SELECT count(*) FROM device_request_rules WHERE tenant = ?1 AND NOT (request_type = ?2 AND device = ?3)";
    let others: u32 = batch
        .statement(sql)?
        .query_row(params![tenant, scope.request_type, device], |row| row.get(0))?;
    if others >= RULES_PER_TENANT_MAX {
        return Ok(RuleSet::TooMany);
    }
    let (mode, after) = match rule.mode {
        Mode::Auto => (AUTO, None),
        Mode::Manual => (MANUAL, None),
        Mode::AutoAfter(after) => (AUTO_AFTER, Some(millis(after))),
    };
    batch.execute(
        "INSERT INTO device_request_rules (tenant, request_type, device, mode, after_ms, reply_wait_ms, updated_at)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)
         ON CONFLICT (tenant, request_type, device) DO UPDATE SET mode = excluded.mode, after_ms = excluded.after_ms,
            reply_wait_ms = excluded.reply_wait_ms, updated_at = excluded.updated_at",
        params![
            tenant,
            scope.request_type,
            device,
            mode,
            after,
            millis(rule.reply_wait),
            updated_at.as_millis()
        ],
    )?;
    raise(batch)?;
    Ok(RuleSet::Yes)
}

pub(super) fn remove(batch: &mut Batch<'_>, scope: &Scope) -> Result<bool, Fault> {
    let device = scope.device.as_ref().map_or("", |device| device.as_str());
    let gone = batch.execute(
        "DELETE FROM device_request_rules WHERE tenant = ?1 AND request_type = ?2 AND device = ?3",
        params![scope.tenant.uuid().as_bytes(), scope.request_type, device],
    )?;
    if gone > 0 {
        raise(batch)?;
    }
    Ok(gone > 0)
}

fn raise(batch: &mut Batch<'_>) -> Result<(), Fault> {
    let sql = "INSERT INTO meta (name, value) VALUES ('request_rules', 1)
               ON CONFLICT (name) DO UPDATE SET value = value + 1";
    batch.execute(sql, [])?;
    Ok(())
}

pub(super) fn of_task_sql() -> String {
    format!(
        "{SELECT_COMMAND} FROM commands c INDEXED BY commands_by_job CROSS JOIN lives l ON l.row = c.row
         WHERE c.gateway = ?1 AND c.job_ref = ?2 AND c.tenant = ?3 AND c.method = ?4 ORDER BY c.row DESC"
    )
}

/// What a command for a task was about, and how that task stands.
pub(super) struct OfTask {
    pub(super) tenant: TenantId,
    pub(super) gateway: GatewaySn,
    pub(super) method: String,
    pub(super) task: String,
}

impl OfTask {
    /// The newest of them that was sent, as far as anybody knows.
    pub(super) fn find(
        &self,
        conn: &Connection,
        sealer: &Sealer,
    ) -> Result<Option<utmos_core::command::Command>, StoreError> {
        let fault = |err| to_store_error(&err);
        let sql = of_task_sql();
        let mut select = conn.prepare_cached(&sql).map_err(fault)?;
        let tenant = self.tenant.uuid();
        let params = params![self.gateway.as_str(), self.task, tenant.as_bytes(), self.method];
        let mut found = select.query(params).map_err(fault)?;
        while let Some(row) = found.next().map_err(fault)? {
            let command = rows::command(row, sealer)?;
            if may_have_left(command.life.phase) {
                return Ok(Some(command));
            }
        }
        Ok(None)
    }

    pub(super) fn state(
        &self,
        conn: &Connection,
        sealer: &Sealer,
    ) -> Result<Option<TaskState>, StoreError> {
        let found = self.find(conn, sealer)?.and_then(|command| command.life.execution.clone());
        Ok(found.map(|execution| TaskState {
            status: execution.state,
            report: execution.ext,
            percent: execution.percent,
        }))
    }
}
