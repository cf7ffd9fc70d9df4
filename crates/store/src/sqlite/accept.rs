//! Accepting a command: nonce, idempotency key, one motion at a time, and only then the command itself.

use rusqlite::{Connection, OptionalExtension, Row, params};
use utmos_core::{
    id::{CommandId, TenantId},
    ports::{Accepted, NewCommand, Nonce, StoreError},
    signing::NonceUse,
};
use uuid::Uuid;

use super::{
    batch::Batch,
    cells::{Cells, millis},
    fault::Fault,
    rows::{self, execute_with_life},
    statements::Statements,
    timeline::{self, End},
};
use crate::{
    codes::{Coded, is_rare_end},
    entry::EntryRow,
    idempotency::{Before, lookup_key, needs_free_way},
    life::SealedLife,
    seal::{Sealer, Slot},
};

/// A command ready to be written.
pub(super) struct Acceptance {
    nonce: Option<NonceUse>,
    new: NewCommand,
    payload: Vec<u8>,
    life: SealedLife,
    entries: Vec<EntryRow>,
    lookup: [u8; 16],
}

impl Acceptance {
    pub(super) fn new(
        nonce: Option<NonceUse>,
        new: NewCommand,
        sealer: &Sealer,
    ) -> Result<Self, StoreError> {
        let key = sealer.data_key(new.spec.id);
        let payload = key.seal(Slot::Payload, &new.spec.payload)?;
        let life = SealedLife::new(&new.life, &key)?;
        let entries = EntryRow::all(&new.entries, &key)?;
        let lookup = lookup_key(new.spec.tenant, &new.spec.idempotency_key);
        Ok(Self { nonce, new, payload, life, entries, lookup })
    }

    pub(super) fn write(&self, batch: &mut Batch<'_>) -> Result<Accepted, Fault> {
        if let Some(nonce) = self.nonce
            && batch.nonces.spend(batch.conn, nonce)? == Nonce::Replayed
        {
            return Ok(Accepted::NonceReplayed);
        }
        if let Some(refusal) =
            (Question { new: &self.new, lookup: self.lookup }).ask(&mut batch.statements)?
        {
            return Ok(refusal);
        }
        self.insert(batch)?;
        Ok(Accepted::New)
    }

    fn insert(&self, batch: &mut Batch<'_>) -> Result<(), Fault> {
        let (spec, life) = (&self.new.spec, &self.new.life);
        let row = batch.new_row()?;
        let aircraft = spec.aircraft.as_ref().map(|aircraft| aircraft.as_str());
        let id = spec.id.uuid();
        batch.execute(
            INSERT_COMMAND,
            params![
                row,
                id.as_bytes(),
                spec.tenant.uuid().as_bytes(),
                spec.accepted_for.as_str(),
                spec.request_id,
                spec.idempotency_key,
                spec.fingerprint,
                spec.device.as_str(),
                spec.gateway.as_str(),
                aircraft,
                spec.method,
                spec.channel.code(),
                spec.completes_by.code(),
                spec.risk.code(),
                spec.starts_motion,
                spec.reply_without_status_is_final,
                spec.if_offline.code(),
                spec.complete_on.code(),
                spec.bid.uuid().as_bytes(),
                spec.job_ref,
                millis(spec.timeout),
                millis(spec.silence_wait),
                spec.deadline.boot.0,
                spec.deadline.mono.as_millis().cast_signed(),
                spec.deadline.wall.as_millis(),
                spec.accepted_at.as_millis(),
                self.payload,
            ],
        )?;
        let mut end = End::default();
        for entry in &self.entries {
            timeline::append(batch, row, &mut end, entry)?;
        }
        let evidence: u32 = self.entries.iter().map(|row| row.evidence).sum();
        execute_with_life(
            &mut *batch.statement(INSERT_LIFE)?,
            row,
            spec.id,
            life,
            &self.life,
            end,
            evidence.into(),
        )?;
        batch.execute(
            "INSERT INTO idempotency (key, row) VALUES (?1, ?2)",
            params![self.lookup, row],
        )?;
        if life.holds_motion {
            hold_motion(batch, row)?;
        }
        if is_rare_end(life.phase) {
            let sql = "UPDATE lives SET rare_of = (SELECT tenant FROM commands WHERE row = ?1) WHERE row = ?1";
            batch.execute(sql, params![row])?;
        }
        batch.record_time(spec.accepted_at.as_millis().max(life.updated_at.as_millis()));
        Ok(())
    }
}

/// Whether anything on record speaks against a command.
struct Question<'a> {
    new: &'a NewCommand,
    lookup: [u8; 16],
}

impl Question<'_> {
    fn ask(&self, statements: &mut Statements<'_>) -> Result<Option<Accepted>, Fault> {
        match self.used_before(statements)? {
            Some(before) => Ok(Some(before)),
            None => self.motion_in_the_way(statements),
        }
    }

    fn used_before(&self, statements: &mut Statements<'_>) -> Result<Option<Accepted>, Fault> {
        let found = statements
            .get(SELECT_KEY)?
            .query_row(params![self.lookup], |row| row.get::<_, i64>(0))
            .optional()?;
        found.map(|row| self.compare(statements, row)).transpose()
    }

    /// Compares the request with the command in `row`, which came under the same key.
    fn compare(&self, statements: &mut Statements<'_>, row: i64) -> Result<Accepted, Fault> {
        let found = statements
            .get(SELECT_BEFORE)?
            .query_row(params![row], |row| Ok(read_before(row)))
            .optional()?;
        let damaged =
            |why: String| StoreError::Damaged(format!("idempotency, of row {row}: {why}"));
        let before = found.ok_or_else(|| damaged("there is no such command".to_owned()))??;
        Ok(before.answer(&self.new.spec).map_err(damaged)?)
    }

    /// Where either of two commands does not know its aircraft, the same gateway counts as the same aircraft.
    fn motion_in_the_way(
        &self,
        statements: &mut Statements<'_>,
    ) -> Result<Option<Accepted>, Fault> {
        let spec = &self.new.spec;
        if !needs_free_way(self.new) {
            return Ok(None);
        }
        let (tenant, gateway) = (spec.tenant.uuid(), spec.gateway.as_str());
        let read = |row: &Row<'_>| {
            Ok(Accepted::Busy {
                id: CommandId::new(Uuid::from_bytes(row.get(0)?)),
                method: row.get(1)?,
            })
        };
        let found = match &spec.aircraft {
            Some(aircraft) => statements
                .get(MOTION_OF_AIRCRAFT)?
                .query_row(params![tenant.as_bytes(), aircraft.as_str(), gateway], read),
            None => statements
                .get(MOTION_OF_GATEWAY)?
                .query_row(params![tenant.as_bytes(), gateway], read),
        };
        Ok(found.optional()?)
    }
}

/// What would become of a command that were accepted now.
pub(super) fn foresee(conn: &Connection, new: &NewCommand) -> Result<Accepted, StoreError> {
    let lookup = lookup_key(new.spec.tenant, &new.spec.idempotency_key);
    let refusal = (Question { new, lookup }).ask(&mut Statements::of(conn));
    Ok(refusal.map_err(Fault::into_error)?.unwrap_or(Accepted::New))
}

fn read_before(row: &Row<'_>) -> Result<Before, StoreError> {
    let mut cells = Cells::new(row, "commands");
    let id = cells.uuid("id")?;
    cells.name(id);
    Ok(Before {
        id: CommandId::new(id),
        tenant: TenantId::new(cells.uuid("tenant")?),
        key: cells.get("idempotency_key")?,
        fingerprint: cells.get("fingerprint")?,
        accepted_at: cells.at("accepted_at")?,
        phase: rows::phase(&mut cells)?,
    })
}

pub(super) const SELECT_KEY: &str = "SELECT row FROM idempotency WHERE key = ?1";
pub(super) const SELECT_BEFORE: &str = "
    SELECT c.id, c.tenant, c.idempotency_key, c.fingerprint, c.accepted_at, l.phase, l.failure
    FROM commands c JOIN lives l ON l.row = c.row WHERE c.row = ?1";

pub(super) const MOTION_OF_AIRCRAFT: &str = "
    SELECT c.id, c.method FROM commands c WHERE c.row IN (
        SELECT m.row FROM motions m WHERE m.tenant = ?1 AND m.aircraft = ?2
        UNION ALL SELECT m.row FROM motions m WHERE m.tenant = ?1 AND m.gateway = ?3 AND m.aircraft IS NULL)
    ORDER BY c.row LIMIT 1";
pub(super) const MOTION_OF_GATEWAY: &str = "
    SELECT c.id, c.method FROM commands c WHERE c.row IN (
        SELECT m.row FROM motions m WHERE m.tenant = ?1 AND m.gateway = ?2)
    ORDER BY c.row LIMIT 1";

const INSERT_COMMAND: &str = "
    INSERT INTO commands (row, id, tenant, accepted_for, request_id, idempotency_key, fingerprint, device, gateway,
        aircraft, method, channel, completes_by, risk, starts_motion, status_optional, if_offline, complete_on, bid,
        job_ref, timeout_ms, silence_wait_ms, deadline_boot, deadline_mono, deadline_wall, accepted_at, payload)
    VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17, ?18, ?19, ?20, ?21, ?22, ?23,
        ?24, ?25, ?26, ?27)";

const INSERT_LIFE: &str = "
    INSERT INTO lives (row, phase, failure, version, due_boot, due_mono, due_wall, delivered_at, response_received_at,
        completed_at, updated_at, response_code, response_message, response_data, failure_reason, execution_state,
        execution_open, execution_step, execution_percent, execution_updated_at, execution_ext, holds_motion, needs_care,
        entries, evidence, id, texts, last_line)
    VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17, ?18, ?19, ?20, ?21, ?22, ?23,
        ?24, ?25, ?26, ?27, ?28)";

/// Makes a command stand in the way of other movements.
pub(super) fn hold_motion(batch: &mut Batch<'_>, row: i64) -> Result<(), Fault> {
    let sql = "INSERT OR IGNORE INTO motions (row, tenant, gateway, aircraft)
               SELECT row, tenant, gateway, aircraft FROM commands WHERE row = ?1";
    batch.execute(sql, params![row])?;
    Ok(())
}
