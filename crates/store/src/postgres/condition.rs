//! How the database is: whether what was written last was written, and why not.

use std::sync::{Mutex, MutexGuard, PoisonError};

use utmos_core::ports::StoreError;

pub(super) struct Condition {
    database: String,
    /// Why the last batch could not be written.
    unwritable: Mutex<Option<String>>,
}

impl Condition {
    pub(super) fn new(database: String) -> Self {
        Self { database, unwritable: Mutex::default() }
    }

    /// Something was written.
    pub(super) fn written(&self) {
        if self.lock().take().is_some() {
            tracing::warn!(database = %self.database, "the database can be written again");
        }
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
        self.lock().clone()
    }

    fn lock(&self) -> MutexGuard<'_, Option<String>> {
        self.unwritable.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
