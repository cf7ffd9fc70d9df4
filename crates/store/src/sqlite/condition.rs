//! How the database is: whether what was written last was written, and whether the file was found damaged. While nothing
//! can be written, a write is tried now and then, so that the end of it is noticed by itself.

use std::{
    path::PathBuf,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use utmos_core::ports::StoreError;

use super::{
    batch::Batch,
    fault::{DAMAGED_REMEDY, Fault, is_of_file},
    queue::Job,
};

pub(crate) struct Condition {
    path: PathBuf,
    commits: AtomicU64,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// Why the last batch could not be written.
    unwritable: Option<String>,
    /// Once met, damage does not go away by itself.
    damaged: bool,
}

impl Condition {
    pub(crate) fn new(path: PathBuf) -> Self {
        Self { path, commits: AtomicU64::new(0), state: Mutex::default() }
    }

    /// A batch was written.
    pub(crate) fn written(&self) {
        self.commits.fetch_add(1, Ordering::Relaxed);
        if self.lock().unwritable.take().is_some() {
            tracing::warn!(path = %self.path.display(), "the database can be written again");
        }
    }

    /// How many batches were written.
    pub(crate) fn commits(&self) -> u64 {
        self.commits.load(Ordering::Relaxed)
    }

    /// A batch could not be written. Told once for each cause: it is tried again and again.
    pub(crate) fn not_written(&self, error: &StoreError) {
        self.met(error);
        let (StoreError::Unavailable(text) | StoreError::Damaged(text)) = error;
        let before = self.lock().unwritable.replace(text.clone());
        if before.as_ref() != Some(text) {
            tracing::error!(path = %self.path.display(), "the database cannot be written: {text}");
        }
    }

    /// An error of any kind. One that says that the file is damaged is remembered.
    pub(crate) fn met(&self, error: &StoreError) {
        if is_of_file(error) && !std::mem::replace(&mut self.lock().damaged, true) {
            tracing::error!(
                path = %self.path.display(), %error,
                "the database is damaged: no new commands but emergencies are taken until it is mended and the server started again"
            );
        }
    }

    /// Whether a new command may be stored at all: what a damaged file says of keys that were used before cannot be
    /// relied on, and a command must not be sent twice.
    pub(crate) fn take_on(&self) -> Result<(), StoreError> {
        match self.lock().damaged {
            true => Err(StoreError::Unavailable(self.damage())),
            false => Ok(()),
        }
    }

    /// Why new commands cannot be stored; `None` when all is well.
    pub(crate) fn trouble(&self) -> Option<String> {
        let (damaged, unwritable) = {
            let state = self.lock();
            (state.damaged, state.unwritable.clone())
        };
        if damaged { Some(self.damage()) } else { unwritable }
    }

    pub(crate) fn is_unwritable(&self) -> bool {
        self.lock().unwritable.is_some()
    }

    fn damage(&self) -> String {
        format!("the database {} is damaged; {DAMAGED_REMEDY}", self.path.display())
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A small write that nobody waits for.
pub(crate) struct Probe;

impl Job for Probe {
    fn run(&mut self, batch: &mut Batch<'_>) -> Result<(), Fault> {
        batch.execute(
            "INSERT INTO meta (name, value) VALUES ('write_probe', 1)
             ON CONFLICT (name) DO UPDATE SET value = value + 1",
            [],
        )?;
        Ok(())
    }

    fn answer(self: Box<Self>, _outcome: Result<(), StoreError>) {}
}
