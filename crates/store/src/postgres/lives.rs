//! How commands stand, column by column, for one statement.

use tokio_postgres::types::ToSql;
use utmos_core::{command::Life, time::Timestamp};
use uuid::Uuid;

use crate::{
    codes::phase_codes,
    life::{SealedLife, clear_code},
};

#[derive(Default)]
pub(super) struct Lives<'j> {
    ids: Vec<Uuid>,
    versions: Vec<i64>,
    due_boots: Vec<Option<Uuid>>,
    due_monos: Vec<Option<i64>>,
    due_walls: Vec<Option<i64>>,
    delivered_at: Vec<Option<i64>>,
    response_received_at: Vec<Option<i64>>,
    completed_at: Vec<Option<i64>>,
    updated_at: Vec<i64>,
    execution_updated_at: Vec<Option<i64>>,
    entries: Vec<i32>,
    evidence: Vec<i32>,
    phases: Vec<i16>,
    failures: Vec<Option<i16>>,
    execution_percents: Vec<Option<i16>>,
    execution_open: Vec<Option<bool>>,
    holds_motion: Vec<bool>,
    needs_care: Vec<bool>,
    response_codes: Vec<Option<&'j str>>,
    response_data: Vec<Option<&'j [u8]>>,
    execution_ext: Vec<Option<&'j [u8]>>,
    texts: Vec<Option<&'j [u8]>>,
}

impl<'j> Lives<'j> {
    pub(super) fn push(
        &mut self,
        id: Uuid,
        life: &'j Life,
        sealed: &'j SealedLife,
        entries: i32,
        evidence: i32,
    ) {
        // Codes are small.
        let small = |code: i64| i16::try_from(code).unwrap_or(i16::MAX);
        let (phase, failure) = phase_codes(life.phase);
        let due = life.due.as_ref();
        let at = |at: Option<Timestamp>| at.map(Timestamp::as_millis);
        let execution = life.execution.as_ref();
        self.ids.push(id);
        self.versions.push(life.version.0.cast_signed());
        self.due_boots.push(due.map(|due| Uuid::from_bytes(due.boot.0)));
        self.due_monos.push(due.map(|due| due.mono.as_millis().cast_signed()));
        self.due_walls.push(due.map(|due| due.wall.as_millis()));
        self.delivered_at.push(at(life.delivered_at));
        self.response_received_at.push(at(life.response_received_at));
        self.completed_at.push(at(life.completed_at));
        self.updated_at.push(life.updated_at.as_millis());
        self.execution_updated_at.push(execution.map(|it| it.updated_at.as_millis()));
        self.entries.push(entries);
        self.evidence.push(evidence);
        self.phases.push(small(phase));
        self.failures.push(failure.map(small));
        self.execution_percents.push(execution.and_then(|it| it.percent).map(i16::from));
        self.execution_open.push(execution.map(|it| it.open));
        self.holds_motion.push(life.holds_motion);
        self.needs_care.push(life.needs_care());
        self.response_codes.push(clear_code(life));
        self.response_data.push(sealed.response.as_deref());
        self.execution_ext.push(sealed.execution.as_deref());
        self.texts.push(sealed.texts.as_deref());
    }

    pub(super) fn params(&self) -> [&(dyn ToSql + Sync); 22] {
        [
            &self.ids,
            &self.versions,
            &self.due_boots,
            &self.due_monos,
            &self.due_walls,
            &self.delivered_at,
            &self.response_received_at,
            &self.completed_at,
            &self.updated_at,
            &self.execution_updated_at,
            &self.entries,
            &self.evidence,
            &self.phases,
            &self.failures,
            &self.execution_percents,
            &self.execution_open,
            &self.holds_motion,
            &self.needs_care,
            &self.response_codes,
            &self.response_data,
            &self.execution_ext,
            &self.texts,
        ]
    }
}
