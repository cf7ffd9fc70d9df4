//! How the database is: whether what was written last was written, and why not.

use std::{
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::time::Instant;
use utmos_core::ports::StoreError;

use super::{
    flow::{Flow, Owed},
    limits::SILENCE_WAIT,
};

/// What was sent on a connection that was given up.
pub(super) const UNHEARD: &str = "PostgreSQL answers, and does nothing for what was sent to it on the connection that writes; look at the network between";

pub(super) struct Condition {
    database: String,
    commits: AtomicU64,
    /// Why the last batch could not be written.
    unwritable: Mutex<Option<String>>,
    /// The connections of the two writers. What waits for a standby has no end of PostgreSQL's own.
    normal: Flow,
    urgent: Flow,
    /// Since when every sign of life was answered.
    beats_since: Mutex<Option<Instant>>,
}

/// A writer waits for PostgreSQL as long as this lives.
pub(super) struct UnderWay<'c>(&'c Flow);

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        self.0.end();
    }
}

impl Condition {
    pub(super) fn new(database: String) -> Self {
        let commits = AtomicU64::new(0);
        Self {
            database,
            commits,
            unwritable: Mutex::default(),
            normal: Flow::default(),
            urgent: Flow::default(),
            beats_since: Mutex::default(),
        }
    }

    /// Something was written.
    pub(super) fn written(&self) {
        self.commits.fetch_add(1, Ordering::Relaxed);
        if self.lock().take().is_some() {
            tracing::warn!(database = %self.database, "the database can be written again");
        }
    }

    /// How many batches were written.
    pub(super) fn commits(&self) -> u64 {
        self.commits.load(Ordering::Relaxed)
    }

    /// Nothing can be written. Told once for each cause: it is tried again and again.
    pub(super) fn not_written(&self, error: &StoreError) {
        let (StoreError::Unavailable(text) | StoreError::Damaged(text)) = error;
        let before = self.lock().replace(text.clone());
        if before.as_ref() != Some(text) {
            tracing::error!(database = %self.database, "the database cannot be written: {text}");
        }
    }

    /// Why new commands cannot be stored; `None` when all is well.
    pub(super) fn trouble(&self) -> Option<String> {
        self.unwritable().or_else(|| self.silence())
    }

    /// Why the last batch could not be written.
    pub(super) fn unwritable(&self) -> Option<String> {
        self.lock().clone()
    }

    /// The connection of the writer for emergencies, or of the other.
    pub(super) fn flow(&self, is_urgent: bool) -> &Flow {
        if is_urgent { &self.urgent } else { &self.normal }
    }

    /// A batch of the writer for emergencies, or of the other, begins.
    pub(super) fn begin(&self, is_urgent: bool) -> UnderWay<'_> {
        let flow = self.flow(is_urgent);
        flow.begin();
        UnderWay(flow)
    }

    /// That PostgreSQL has been silent for too long about a batch.
    pub(super) fn silence(&self) -> Option<String> {
        if self.normal.is_lost() {
            return Some(UNHEARD.to_owned());
        }
        let longest: Duration = self.flows().filter_map(|(_, flow)| flow.silence()).max()?;
        (longest > SILENCE_WAIT).then(|| {
            format!(
                "PostgreSQL has not answered a write for {} s; look at pg_stat_activity: a standby that must confirm commits may be gone",
                longest.as_secs()
            )
        })
    }

    fn flows(&self) -> impl Iterator<Item = (bool, &Flow)> {
        [(false, &self.normal), (true, &self.urgent)].into_iter()
    }

    /// A sign of life was answered, or was not.
    pub(super) fn beaten(&self, is_answered: bool) {
        let mut since = self.beats_since.lock().unwrap_or_else(PoisonError::into_inner);
        *since = since.or_else(|| Some(Instant::now())).filter(|_| is_answered);
    }

    /// What has waited for its answer for so long that PostgreSQL is to be asked about it on another connection.
    pub(super) fn owed(&self) -> Vec<Owed> {
        self.flows().filter_map(|(is_urgent, flow)| flow.owed(is_urgent)).collect()
    }

    /// Takes note of whether PostgreSQL is at work on it. Answers whether its connection is given up with that.
    pub(super) fn looked(&self, owed: &Owed, is_at_work: bool) -> bool {
        self.flow(owed.is_urgent).looked(owed, is_at_work)
    }

    /// Whether what is written reaches the database, as far as is known: not where signs of life are answered all the while, and
    /// what else is written is not. Emergencies, which have a connection of their own, have the journal.
    pub(super) fn is_reached(&self) -> bool {
        let since = *self.beats_since.lock().unwrap_or_else(PoisonError::into_inner);
        since.is_none_or(|since| self.normal.is_reached(since))
    }

    fn lock(&self) -> MutexGuard<'_, Option<String>> {
        self.unwritable.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
