//! Copies the WAL into the database, off the writer's path, and has a write tried now and then while none goes well.
//!
//! The copy runs beside the writer. Only when the WAL has grown long does the writer rest for the short remainder, since
//! the WAL starts over only from a moment at which all of it is copied.

use std::{
    sync::{
        Arc, Condvar, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use rusqlite::Connection;

use super::{
    condition::{Condition, Probe},
    limits::{WAL_COPY_PAGES, WAL_IDLE_WAIT, WAL_RESTART_PAGES},
    queue::Queue,
};
use crate::urgent::Lane;

/// How long the WAL is, told by the writer after each commit.
pub(super) struct WalSize {
    pages: AtomicU32,
    /// The length at which the next copy is due.
    copy_at: AtomicU32,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    wanted: bool,
    closed: bool,
}

enum Call {
    Copy,
    Idle,
    Close,
}

impl WalSize {
    pub(super) fn new() -> Self {
        Self {
            pages: AtomicU32::new(0),
            copy_at: AtomicU32::new(WAL_COPY_PAGES),
            state: Mutex::default(),
            changed: Condvar::new(),
        }
    }

    pub(super) fn committed(&self, pages: u32) {
        let before = self.pages.swap(pages, Ordering::Relaxed);
        if pages < before {
            // It has started over.
            self.copy_at.store(WAL_COPY_PAGES, Ordering::Relaxed);
        }
        if pages >= self.copy_at.load(Ordering::Relaxed) {
            self.lock().wanted = true;
            self.changed.notify_one();
        }
    }

    pub(super) fn close(&self) {
        self.lock().closed = true;
        self.changed.notify_one();
    }

    fn wait(&self, limit: Duration) -> Call {
        let state = self.lock();
        let (mut state, _) = self
            .changed
            .wait_timeout_while(state, limit, |state| !state.wanted && !state.closed)
            .unwrap_or_else(PoisonError::into_inner);
        if state.closed {
            return Call::Close;
        }
        if std::mem::take(&mut state.wanted) { Call::Copy } else { Call::Idle }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

pub(super) struct Checkpointer {
    pub(super) conn: Connection,
    pub(super) queue: Arc<Queue>,
    pub(super) wal: Arc<WalSize>,
    pub(super) condition: Arc<Condition>,
}

impl Checkpointer {
    pub(super) fn run(self) {
        let mut batches_seen = 0;
        loop {
            match self.wal.wait(WAL_IDLE_WAIT) {
                Call::Close => break,
                Call::Copy => self.copy(),
                Call::Idle => {
                    let (batches, is_quiet) = self.queue.activity();
                    let was_quiet = batches == batches_seen;
                    batches_seen = batches;
                    if is_quiet && self.condition.is_unwritable() {
                        // Closed meanwhile: then nobody wants to know.
                        drop(self.queue.push(Lane::Normal, Box::new(Probe)));
                        continue;
                    }
                    if is_quiet && was_quiet && self.wal.pages.load(Ordering::Relaxed) > 0 {
                        self.finish();
                    }
                }
            }
        }
        self.checkpoint("TRUNCATE");
    }

    fn copy(&self) {
        let (length, _) = self.checkpoint("PASSIVE");
        // A reader can keep pages from being copied for a while; ask again only after so many more.
        self.wal.copy_at.store(length.saturating_add(WAL_COPY_PAGES), Ordering::Relaxed);
        if length >= WAL_RESTART_PAGES {
            let _hold = self.queue.hold();
            self.checkpoint("PASSIVE");
        }
    }

    /// Copies all there is. The file keeps its length, since a write into space it has is faster than one that adds to it.
    fn finish(&self) {
        let _hold = self.queue.hold();
        let (length, done) = self.checkpoint("RESTART");
        if length == done {
            self.wal.pages.store(0, Ordering::Relaxed);
            self.wal.copy_at.store(WAL_COPY_PAGES, Ordering::Relaxed);
        }
    }

    /// Answers the pages in the WAL and how many of them are copied.
    fn checkpoint(&self, mode: &str) -> (u32, u32) {
        let counts = self.conn.query_row(&format!("PRAGMA wal_checkpoint({mode})"), [], |row| {
            Ok((row.get::<_, i64>(1)?, row.get::<_, i64>(2)?))
        });
        match counts {
            Ok((length, done)) => {
                (u32::try_from(length).unwrap_or(0), u32::try_from(done).unwrap_or(0))
            }
            Err(err) => {
                tracing::warn!(
                    "the write-ahead log could not be copied into the database, to be tried again: {err}"
                );
                (0, 0)
            }
        }
    }
}
