//! A command as a row of `commands` and a row of `lives`.

use std::sync::Arc;

use tokio_postgres::Row;
use utmos_core::{
    command::{Command, Execution, Life, Phase, Response, Spec, StatusVersion},
    evidence::Entry,
    id::{ApiId, Bid, CommandId},
    ports::StoreError,
};
use uuid::Uuid;

use super::cells::Cells;
use crate::{
    codes::phase_from,
    entry::{entries_from, slot_of},
    idempotency::Before,
    life::Texts,
    seal::{DataKey, Sealer, Slot},
};

/// The columns of a whole command, for [`command`].
pub(super) const COMMAND: &str = "
    c.id, c.tenant, c.accepted_for, c.request_id, c.idempotency_key, c.fingerprint, c.device, c.gateway, c.aircraft, c.method,
    c.channel, c.completes_by, c.risk, c.starts_motion, c.status_optional, c.if_offline, c.complete_on, c.bid,
    c.job_ref, c.timeout_ms, c.silence_wait_ms, c.deadline_boot, c.deadline_mono, c.deadline_wall, c.accepted_at,
    c.payload,
    l.texts, l.phase, l.failure, l.version, l.due_boot, l.due_mono, l.due_wall, l.delivered_at, l.response_received_at,
    l.completed_at, l.updated_at, l.response_code, l.response_data, l.execution_open, l.execution_percent,
    l.execution_updated_at, l.execution_ext, l.holds_motion ";

/// How many these are.
pub(super) const COMMAND_COLUMNS: usize = 44;

/// Reads a row of [`COMMAND`].
pub(super) fn command(row: &Row, sealer: &Sealer) -> Result<Command, StoreError> {
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
        tenant: cells.tenant("tenant")?,
        accepted_for: ApiId::new(cells.text("accepted_for")?),
        request_id: cells.text("request_id")?,
        idempotency_key: cells.text("idempotency_key")?,
        fingerprint: cells.bytes("fingerprint")?,
        device: cells.device("device")?,
        gateway: cells.gateway("gateway")?,
        aircraft: cells.maybe_device("aircraft")?,
        method: cells.text("method")?,
        channel: cells.coded("channel")?,
        completes_by: cells.coded("completes_by")?,
        risk: cells.coded("risk")?,
        starts_motion: cells.get("starts_motion")?,
        reply_without_status_is_final: cells.get("status_optional")?,
        if_offline: cells.coded("if_offline")?,
        complete_on: cells.coded("complete_on")?,
        bid: Bid::new(cells.uuid("bid")?),
        job_ref: cells.maybe_text("job_ref")?,
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
    let (phase, failure): (i16, Option<i16>) = (cells.get("phase")?, cells.get("failure")?);
    phase_from(phase.into(), failure.map(i64::from)).ok_or_else(|| {
        cells.damaged("phase", format!("no such phase: {phase} with failure {failure:?}"))
    })
}

fn life(cells: &mut Cells<'_>, key: &DataKey) -> Result<Life, StoreError> {
    let texts: Texts = match cells.maybe_sealed("texts", key, Slot::Texts)? {
        Some(text) => serde_json::from_str(&text).map_err(|err| cells.damaged("texts", err))?,
        None => Texts::default(),
    };
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
    let percent: Option<i16> = cells.get("execution_percent")?;
    let percent = percent
        .map(|percent| u8::try_from(percent).map_err(|err| cells.damaged("execution_percent", err)))
        .transpose()?;
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
pub(super) fn entries(row: &Row, id: CommandId, key: &DataKey) -> Result<Vec<Entry>, StoreError> {
    let mut cells = Cells::new(row, "timeline");
    cells.name(id);
    let lines = i64::from(cells.get::<i16>("lines")?);
    let place = (cells.at("at")?, cells.coded("status_from")?, cells.coded("status_to")?);
    let text = cells.sealed("proof", key, slot_of(lines))?;
    entries_from(lines, place, &text).map_err(|why| cells.damaged("proof", why))
}

/// Reads `key, command`, then `id, tenant, idempotency_key, fingerprint, accepted_at, phase, failure` of that command.
pub(super) fn before(row: &Row) -> Result<(Uuid, Before), StoreError> {
    let mut cells = Cells::new(row, "idempotency");
    let key = cells.uuid("key")?;
    cells.name(key);
    let command = cells.uuid("command")?;
    let Some(id) = cells.get::<Option<Uuid>>("id")? else {
        return Err(cells.damaged("command", format!("there is no command {command}")));
    };
    let before = Before {
        id: CommandId::new(id),
        tenant: cells.tenant("tenant")?,
        key: cells.text("idempotency_key")?,
        fingerprint: cells.bytes("fingerprint")?,
        accepted_at: cells.at("accepted_at")?,
        phase: phase(&mut cells)?,
    };
    Ok((key, before))
}
