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

use super::limits::SILENCE_WAIT;

pub(super) struct Condition {
    database: String,
    commits: AtomicU64,
    /// Why the last batch could not be written.
    unwritable: Mutex<Option<String>>,
    /// Since when each of the two writers waits for PostgreSQL. What waits for a standby has no end of PostgreSQL's own.
    under_way: Mutex<[Option<Instant>; 2]>,
}

/// A writer waits for PostgreSQL as long as this lives.
pub(super) struct UnderWay<'c> {
    condition: &'c Condition,
    writer: usize,
}

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        self.condition.waits(self.writer, None);
    }
}

impl Condition {
    pub(super) fn new(database: String) -> Self {
        let commits = AtomicU64::new(0);
        Self { database, commits, unwritable: Mutex::default(), under_way: Mutex::default() }
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

    /// A batch of the writer for emergencies, or of the other, begins.
    pub(super) fn begin(&self, is_urgent: bool) -> UnderWay<'_> {
        let writer = usize::from(is_urgent);
        self.waits(writer, Some(Instant::now()));
        UnderWay { condition: self, writer }
    }

    fn waits(&self, writer: usize, since: Option<Instant>) {
        let mut under_way = self.under_way.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(place) = under_way.get_mut(writer) {
            *place = since;
        }
    }

    /// That PostgreSQL has been silent for too long about a batch.
    pub(super) fn silence(&self) -> Option<String> {
        let under_way = *self.under_way.lock().unwrap_or_else(PoisonError::into_inner);
        let longest: Duration = under_way.iter().flatten().map(Instant::elapsed).max()?;
        (longest > SILENCE_WAIT).then(|| {
            format!(
                "PostgreSQL has not answered a write for {} s; look at pg_stat_activity: a standby that must confirm commits may be gone",
                longest.as_secs()
            )
        })
    }

    fn lock(&self) -> MutexGuard<'_, Option<String>> {
        self.unwritable.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
