//! Saving a change of a command: a compare-and-set on its version, and lines on its timeline.

use std::sync::Arc;

use rusqlite::{OptionalExtension, params};
use utmos_core::{
    planted,
    ports::{Advance, Advanced, StoreError},
};

use super::{
    accept::hold_motion,
    batch::Batch,
    fault::Fault,
    limits::EVIDENCE_PER_COMMAND_MAX,
    rows::execute_with_life,
    timeline::{self, End},
};
use crate::{codes::is_rare_end, entry::EntryRow, life::SealedLife, seal::Sealer};

/// A change ready to be written.
pub(super) struct Change {
    advance: Advance,
    life: SealedLife,
    entries: Vec<EntryRow>,
    sealer: Arc<Sealer>,
    /// Only a fault that is planted leaves the version out.
    is_compared: bool,
}

/// What is on record and decides about the change.
struct Standing {
    row: i64,
    version: i64,
    needs_care: bool,
    holds_motion: bool,
    end: End,
    evidence: i64,
}

impl Change {
    pub(super) fn new(advance: Advance, sealer: &Arc<Sealer>) -> Result<Self, StoreError> {
        let key = sealer.data_key(advance.id);
        let life = SealedLife::new(&advance.life, &key)?;
        let entries = EntryRow::all(&advance.entries, &key)?;
        let is_compared = !planted::is_planted(planted::Fault::VersionNotCompared);
        Ok(Self { advance, life, entries, sealer: sealer.clone(), is_compared })
    }

    pub(super) fn write(&self, batch: &mut Batch<'_>) -> Result<Advanced, Fault> {
        let Some(standing) = self.standing(batch)? else { return Ok(Advanced::Lost) };
        let moves = self.advance.life.version != self.advance.seen;
        let is_overtaken = standing.version.cast_unsigned() != self.advance.seen.0;
        if is_overtaken && self.is_compared {
            return Ok(Advanced::Lost);
        }
        let (end, evidence) = self.append(batch, &standing)?;
        if moves {
            self.update(batch, &standing, end, evidence)?;
        } else if end.lines != standing.end.lines {
            let sql = "UPDATE lives SET entries = ?2, evidence = ?3, last_line = ?4 WHERE row = ?1";
            batch.execute(sql, params![standing.row, end.lines, evidence, end.last])?;
        }
        Ok(Advanced::Yes)
    }

    fn standing(&self, batch: &mut Batch<'_>) -> Result<Option<Standing>, Fault> {
        let select = batch.statement(SELECT_STANDING)?;
        let found = select.query_row(params![self.advance.id.uuid().as_bytes()], |row| {
            Ok(Standing {
                row: row.get(0)?,
                version: row.get(1)?,
                needs_care: row.get(2)?,
                holds_motion: row.get(3)?,
                end: End { lines: row.get(4)?, last: row.get(6)? },
                evidence: row.get(5)?,
            })
        });
        match found.optional() {
            Ok(found) => Ok(found),
            Err(err) if err.sqlite_error_code().is_none() => {
                Err(StoreError::Damaged(format!("lives {}: {err}", self.advance.id)).into())
            }
            Err(err) => Err(err.into()),
        }
    }

    /// Answers where the timeline ends then, and how many of its lines changed no state.
    fn append(&self, batch: &mut Batch<'_>, standing: &Standing) -> Result<(End, i64), Fault> {
        let (mut end, mut evidence) = (standing.end, standing.evidence);
        let most = i64::from(EVIDENCE_PER_COMMAND_MAX);
        let more: i64 = self.entries.iter().map(|row| i64::from(row.evidence)).sum();
        let apart;
        let rows = if more > 0 && evidence + more > most {
            let key = self.sealer.data_key(self.advance.id);
            apart = EntryRow::each(&self.advance.entries, &key)?;
            &apart
        } else {
            &self.entries
        };
        for row in rows {
            if row.evidence > 0 && evidence + i64::from(row.evidence) > most {
                tracing::debug!(command.id = %self.advance.id, "the timeline is full; evidence was dropped");
                continue;
            }
            evidence += i64::from(row.evidence);
            timeline::append(batch, standing.row, &mut end, row)?;
        }
        Ok((end, evidence))
    }

    fn update(
        &self,
        batch: &mut Batch<'_>,
        standing: &Standing,
        end: End,
        evidence: i64,
    ) -> Result<(), Fault> {
        let life = &self.advance.life;
        // Most changes leave `needs_care` alone, and a statement that does not name it leaves its index alone.
        let sql = match life.needs_care() == standing.needs_care {
            _ if is_rare_end(life.phase) => UPDATE_LIFE_TO_RARE_END,
            true => UPDATE_LIFE,
            false => UPDATE_LIFE_AND_CARE,
        };
        execute_with_life(
            &mut *batch.statement(sql)?,
            standing.row,
            self.advance.id,
            life,
            &self.life,
            end,
            evidence,
        )?;
        if life.holds_motion && !standing.holds_motion {
            hold_motion(batch, standing.row)?;
        }
        if !life.holds_motion && standing.holds_motion {
            batch.execute("DELETE FROM motions WHERE row = ?1", params![standing.row])?;
        }
        batch.record_time(life.updated_at.as_millis());
        Ok(())
    }
}

pub(super) const SELECT_STANDING: &str = "SELECT row, version, needs_care, holds_motion, entries, evidence, last_line FROM lives WHERE id = ?1";

macro_rules! update_life {
    ($more:literal) => {
        concat!(
            "UPDATE lives SET phase = ?2, failure = ?3, version = ?4, due_boot = ?5, due_mono = ?6, due_wall = ?7,
                delivered_at = ?8, response_received_at = ?9, completed_at = ?10, updated_at = ?11, response_code = ?12,
                response_message = ?13, response_data = ?14, failure_reason = ?15, execution_state = ?16,
                execution_open = ?17, execution_step = ?18, execution_percent = ?19, execution_updated_at = ?20,
                execution_ext = ?21, holds_motion = ?22, ",
            $more,
            "entries = ?24, evidence = ?25, texts = ?27, last_line = ?28 WHERE row = ?1 AND id = ?26"
        )
    };
}
pub(super) const UPDATE_LIFE: &str = update_life!("");
pub(super) const UPDATE_LIFE_AND_CARE: &str = update_life!("needs_care = ?23, ");
/// Also has lists of what few commands come to find this one.
pub(super) const UPDATE_LIFE_TO_RARE_END: &str =
    update_life!("needs_care = ?23, rare_of = (SELECT tenant FROM commands WHERE row = ?1), ");
