//! A command as a row of `commands` and a row of `lives`.

use std::sync::Arc;

use rusqlite::Row;
use utmos_core::{
    command::{Command, Execution, Life, Phase, Response, Spec, StatusVersion},
    evidence::Entry,
    id::{ApiId, Bid, CommandId, TenantId},
    ports::StoreError,
    time::Timestamp,
};

use super::{cells::Cells, timeline::End};
use crate::{
    codes::{phase_codes, phase_from},
    entry::{entries_from, slot_of},
    life::{SealedLife, Texts, clear_code},
    seal::{DataKey, Sealer, Slot},
};

/// Selects whole commands, for [`command`].
pub(super) const SELECT_COMMAND: &str = "
    SELECT c.id, c.tenant, c.accepted_for, c.request_id, c.idempotency_key, c.fingerprint, c.device, c.gateway, c.aircraft, c.method,
           c.channel, c.completes_by, c.risk, c.starts_motion, c.status_optional, c.if_offline, c.complete_on, c.bid,
           c.job_ref, c.timeout_ms, c.silence_wait_ms, c.deadline_boot, c.deadline_mono, c.deadline_wall, c.accepted_at,
           c.payload,
           l.texts, l.response_message, l.failure_reason, l.execution_state, l.execution_step,
           l.phase, l.failure, l.version, l.due_boot, l.due_mono, l.due_wall, l.delivered_at, l.response_received_at,
           l.completed_at, l.updated_at, l.response_code, l.response_data, l.execution_open, l.execution_percent,
           l.execution_updated_at, l.execution_ext, l.holds_motion ";

/// Reads a row of [`SELECT_COMMAND`].
pub(super) fn command(row: &Row<'_>, sealer: &Sealer) -> Result<Command, StoreError> {
    let mut cells = Cells::new(row, "commands");
    let id = CommandId::new(cells.uuid("id")?);
    cells.name(id);
    let key = sealer.data_key(id);
    let spec = spec(&mut cells, id, &key)?;
    let life = life(&mut cells, &key)?;
    Ok(Command { spec: Arc::new(spec), life: Arc::new(life) })
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

/// The sealed texts; those of a row from before they were sealed stand in columns of their own.
fn texts(cells: &mut Cells<'_>, key: &DataKey) -> Result<Texts, StoreError> {
    let sealed = cells.maybe_sealed("texts", key, Slot::Texts)?;
    let clear = Texts {
        response_code: None,
        response_message: cells.get("response_message")?,
        failure_reason: cells.get("failure_reason")?,
        execution_state: cells.get("execution_state")?,
        execution_step: cells.get("execution_step")?,
    };
    match sealed {
        Some(text) => serde_json::from_str(&text).map_err(|error| cells.damaged("texts", error)),
        None => Ok(clear),
    }
}

fn life(cells: &mut Cells<'_>, key: &DataKey) -> Result<Life, StoreError> {
    let texts = texts(cells, key)?;
    Ok(Life {
        phase: phase(cells)?,
        version: StatusVersion(cells.get::<i64>("version")?.cast_unsigned()),
        due: cells.maybe_deadline("due")?,
        delivered_at: cells.maybe_at("delivered_at")?,
        response_received_at: cells.maybe_at("response_received_at")?,
        completed_at: cells.maybe_at("completed_at")?,
        updated_at: cells.at("updated_at")?,
        response: response(cells, key, texts.response_code, texts.response_message)?,
        failure_reason: texts.failure_reason,
        execution: execution(cells, key, texts.execution_state, texts.execution_step)?,
        holds_motion: cells.get("holds_motion")?,
    })
}

fn response(
    cells: &mut Cells<'_>,
    key: &DataKey,
    code: Option<String>,
    message: Option<String>,
) -> Result<Option<Response>, StoreError> {
    let code = code.or(cells.get("response_code")?);
    let data = cells.maybe_sealed("response_data", key, Slot::Response)?;
    Ok(data.map(|data| Response { code, message, data }))
}

fn execution(
    cells: &mut Cells<'_>,
    key: &DataKey,
    state: Option<String>,
    step: Option<String>,
) -> Result<Option<Execution>, StoreError> {
    let open: Option<bool> = cells.get("execution_open")?;
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

/// Reads `lines, at, status_from, status_to, proof`.
pub(super) fn entries(
    row: &Row<'_>,
    id: CommandId,
    key: &DataKey,
) -> Result<Vec<Entry>, StoreError> {
    let mut cells = Cells::new(row, "timeline");
    cells.name(id);
    let lines = cells.get::<i64>("lines")?;
    let place = (cells.at("at")?, cells.coded("status_from")?, cells.coded("status_to")?);
    let text = cells.sealed("proof", key, slot_of(lines))?;
    entries_from(lines, place, &text).map_err(|why| cells.damaged("proof", why))
}

/// Runs a statement whose parameters are the row, then the columns of a life from `phase` to `holds_motion`, then
/// `needs_care`, `entries`, `evidence`, then the id, then `texts` and `last_line`. The columns of the texts themselves are emptied.
pub(super) fn execute_with_life(
    statement: &mut rusqlite::Statement<'_>,
    row: i64,
    id: CommandId,
    life: &Life,
    sealed: &SealedLife,
    end: End,
    evidence: i64,
) -> rusqlite::Result<usize> {
    let (phase, failure) = phase_codes(life.phase);
    let due = life.due.as_ref();
    let at = |at: Option<Timestamp>| at.map(Timestamp::as_millis);
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
        clear_code(life),
        None::<&str>,
        sealed.response.as_deref(),
        None::<&str>,
        None::<&str>,
        execution.map(|execution| execution.open),
        None::<&str>,
        execution.and_then(|execution| execution.percent),
        execution.map(|execution| execution.updated_at.as_millis()),
        sealed.execution.as_deref(),
        life.holds_motion,
        life.needs_care(),
        end.lines,
        evidence,
        id.uuid().as_bytes(),
        sealed.texts.as_deref(),
        end.last,
    ])
}
