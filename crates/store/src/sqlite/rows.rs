//! A command as a row of `commands` and a row of `lives`.

use std::sync::Arc;

use rusqlite::Row;
use utmos_core::{
    command::{Command, Execution, Life, Phase, Response, Spec, StatusVersion},
    evidence::{Entry, Proof},
    id::{ApiId, Bid, CommandId, TenantId},
    ports::StoreError,
    time::Timestamp,
};

use super::cells::Cells;
use crate::{
    codes::{phase_codes, phase_from},
    seal::{DataKey, Sealer, Slot},
};

/// Selects whole commands, for [`command`].
pub(super) const SELECT_COMMAND: &str = "
    SELECT c.id, c.tenant, c.accepted_for, c.request_id, c.idempotency_key, c.fingerprint, c.device, c.gateway, c.aircraft, c.method,
           c.channel, c.completes_by, c.risk, c.starts_motion, c.status_optional, c.if_offline, c.complete_on, c.bid,
           c.job_ref, c.timeout_ms, c.silence_wait_ms, c.deadline_boot, c.deadline_mono, c.deadline_wall, c.accepted_at,
           c.payload,
           l.phase, l.failure, l.version, l.due_boot, l.due_mono, l.due_wall, l.delivered_at, l.response_received_at,
           l.completed_at, l.updated_at, l.response_code, l.response_message, l.response_data, l.failure_reason,
           l.execution_state, l.execution_open, l.execution_step, l.execution_percent, l.execution_updated_at,
           l.execution_ext, l.holds_motion ";

/// Reads a row of [`SELECT_COMMAND`].
pub(super) fn command(row: &Row<'_>, sealer: &Sealer) -> Result<Command, StoreError> {
    let mut cells = Cells::new(row, "commands");
    let id = CommandId::new(cells.uuid("id")?);
    cells.name(id);
    let key = sealer.data_key(id);
    let spec = spec(&mut cells, id, &key)?;
    let life = life(&mut cells, &key)?;
    Ok(Command { spec: Arc::new(spec), life })
}

fn spec(cells: &mut Cells<'_>, id: CommandId, key: &DataKey) -> Result<Spec, StoreError> {
    Ok(Spec {
        id,
        tenant: TenantId::new(cells.uuid("tenant")?),
        accepted_for: ApiId::new(cells.get::<String>("accepted_for")?),
        request_id: cells.get("request_id")?,
        idempotency_key: cells.get("idempotency_key")?,
        fingerprint: cells.get("fingerprint")?,
        device: cells.device("device")?,
        gateway: cells.gateway("gateway")?,
        aircraft: cells.maybe_device("aircraft")?,
        method: cells.get("method")?,
        channel: cells.coded("channel")?,
        completes_by: cells.coded("completes_by")?,
        risk: cells.coded("risk")?,
        starts_motion: cells.get("starts_motion")?,
        reply_without_status_is_final: cells.get("status_optional")?,
        if_offline: cells.coded("if_offline")?,
        complete_on: cells.coded("complete_on")?,
        bid: Bid::new(cells.uuid("bid")?),
        job_ref: cells.get("job_ref")?,
        timeout: cells.duration("timeout_ms")?,
        silence_wait: cells.duration("silence_wait_ms")?,
        deadline: cells
            .maybe_deadline("deadline")?
            .ok_or_else(|| cells.damaged("deadline", "there is none"))?,
        accepted_at: cells.at("accepted_at")?,
        payload: cells.sealed("payload", key, Slot::Payload)?,
    })
}

/// Reads `phase, failure`.
pub(super) fn phase(cells: &mut Cells<'_>) -> Result<Phase, StoreError> {
    let (phase, failure): (i64, Option<i64>) = (cells.get("phase")?, cells.get("failure")?);
    phase_from(phase, failure).ok_or_else(|| {
        cells.damaged("phase", format!("no such phase: {phase} with failure {failure:?}"))
    })
}

fn life(cells: &mut Cells<'_>, key: &DataKey) -> Result<Life, StoreError> {
    Ok(Life {
        phase: phase(cells)?,
        version: StatusVersion(cells.get::<i64>("version")?.cast_unsigned()),
        due: cells.maybe_deadline("due")?,
        delivered_at: cells.maybe_at("delivered_at")?,
        response_received_at: cells.maybe_at("response_received_at")?,
        completed_at: cells.maybe_at("completed_at")?,
        updated_at: cells.at("updated_at")?,
        response: response(cells, key)?,
        failure_reason: cells.get("failure_reason")?,
        execution: execution(cells, key)?,
        holds_motion: cells.get("holds_motion")?,
    })
}

fn response(cells: &mut Cells<'_>, key: &DataKey) -> Result<Option<Response>, StoreError> {
    let (code, message) = (cells.get("response_code")?, cells.get("response_message")?);
    let data = cells.maybe_sealed("response_data", key, Slot::Response)?;
    Ok(data.map(|data| Response { code, message, data }))
}

fn execution(cells: &mut Cells<'_>, key: &DataKey) -> Result<Option<Execution>, StoreError> {
    let state: Option<String> = cells.get("execution_state")?;
    let open: Option<bool> = cells.get("execution_open")?;
    let step = cells.get("execution_step")?;
    let percent = cells.get("execution_percent")?;
    let updated_at = cells.maybe_at("execution_updated_at")?;
    let ext = cells.maybe_sealed("execution_ext", key, Slot::Execution)?;
    match (state, open, updated_at) {
        (Some(state), Some(open), Some(updated_at)) => {
            Ok(Some(Execution { state, open, step, percent, updated_at, ext }))
        }
        (None, None, None) => Ok(None),
        _ => Err(cells.damaged("execution", "only a part of it is there")),
    }
}

/// Reads `at, status_from, status_to, proof`.
pub(super) fn entry(row: &Row<'_>, id: CommandId, key: &DataKey) -> Result<Entry, StoreError> {
    let mut cells = Cells::new(row, "timeline");
    cells.name(id);
    let at: Timestamp = cells.at("at")?;
    let (from, to) = (cells.coded("status_from")?, cells.coded("status_to")?);
    let text = cells.sealed("proof", key, Slot::Proof)?;
    let proof: Proof = serde_json::from_str(&text).map_err(|err| cells.damaged("proof", err))?;
    Ok(Entry { at, from, to, proof })
}

/// The texts of a life as they are kept. Sealed before they are queued, so that the writer only writes.
pub(super) struct SealedLife {
    response: Option<Vec<u8>>,
    execution: Option<Vec<u8>>,
}

impl SealedLife {
    pub(super) fn new(life: &Life, key: &DataKey) -> Result<Self, StoreError> {
        let response = life.response.as_ref().map(|response| &response.data);
        let execution = life.execution.as_ref().and_then(|execution| execution.ext.as_ref());
        Ok(Self {
            response: response.map(|data| key.seal(Slot::Response, data)).transpose()?,
            execution: execution.map(|data| key.seal(Slot::Execution, data)).transpose()?,
        })
    }
}

/// Runs a statement whose parameters are the row, then the columns of a life from `phase` to `holds_motion`, then
/// `needs_care`, `entries`, `evidence`, then the id.
pub(super) fn execute_with_life(
    statement: &mut rusqlite::Statement<'_>,
    row: i64,
    id: CommandId,
    life: &Life,
    sealed: &SealedLife,
    entries: i64,
    evidence: i64,
) -> rusqlite::Result<usize> {
    let (phase, failure) = phase_codes(life.phase);
    let due = life.due.as_ref();
    let at = |at: Option<Timestamp>| at.map(Timestamp::as_millis);
    let response = life.response.as_ref();
    let execution = life.execution.as_ref();
    statement.execute(rusqlite::params![
        row,
        phase,
        failure,
        life.version.0.cast_signed(),
        due.map(|due| due.boot.0),
        due.map(|due| due.mono.as_millis().cast_signed()),
        due.map(|due| due.wall.as_millis()),
        at(life.delivered_at),
        at(life.response_received_at),
        at(life.completed_at),
        life.updated_at.as_millis(),
        response.and_then(|response| response.code.as_deref()),
        response.and_then(|response| response.message.as_deref()),
        sealed.response.as_deref(),
        life.failure_reason.as_deref(),
        execution.map(|execution| execution.state.as_str()),
        execution.map(|execution| execution.open),
        execution.and_then(|execution| execution.step.as_deref()),
        execution.and_then(|execution| execution.percent),
        execution.map(|execution| execution.updated_at.as_millis()),
        sealed.execution.as_deref(),
        life.holds_motion,
        life.needs_care(),
        entries,
        evidence,
        id.uuid().as_bytes(),
    ])
}
