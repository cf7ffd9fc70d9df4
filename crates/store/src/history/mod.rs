//! The history in a SQLite file of its own: what devices reported. Written in groups by one thread, read beside it.
//!
//! A commit here is not synced to the disk by itself: after a power cut the last moments may be missing, and nothing else.
//! A process that dies loses nothing it was told is kept.

mod events;
pub(crate) mod telemetry;
mod writer;

use std::{
    fmt,
    path::{Path, PathBuf},
    sync::Arc,
};

use rusqlite::{Connection, Transaction};
use utmos_core::ports::StoreError;

use self::writer::Writer;
use crate::{
    OpenError,
    sqlite::{
        condition::Condition,
        open::{self, Schema},
        readers::Readers,
    },
};

/// `UTMH`.
const SCHEMA: Schema = Schema {
    application_id: 0x5554_4D48,
    migrations: &[
        include_str!("../../migrations/history/0001_first.sql"),
        include_str!("../../migrations/history/0002_telemetry.sql"),
        include_str!("../../migrations/history/0003_events.sql"),
        include_str!("../../migrations/history/0004_held.sql"),
        include_str!("../../migrations/history/0005_charged.sql"),
    ],
};

/// Page cache of the connection that writes, in KiB.
const WRITER_CACHE_KIB: i64 = 8 * 1024;

/// The history in a SQLite file. One process writes it.
pub struct HistoryFile {
    path: PathBuf,
    writer: Writer,
    readers: Readers,
}

impl HistoryFile {
    /// Opens the file, makes it where there is none, and brings it up to date. Blocks, for a moment.
    ///
    /// # Errors
    /// When the file cannot be used; the error names it and the remedy.
    pub fn open(path: &Path) -> Result<Self, OpenError> {
        open::create_private(path)
            .map_err(|source| OpenError::File { path: path.to_owned(), source })?;
        let explain = |err| open::explain(path, err);
        let mut conn = open::connect(path).map_err(explain)?;
        if conn.is_readonly(rusqlite::MAIN_DB).map_err(explain)? {
            return Err(OpenError::ReadOnly(path.to_owned()));
        }
        // Counts only in a file that is still empty: what retention frees is given back to the disk, bit by bit.
        conn.execute_batch("PRAGMA auto_vacuum = INCREMENTAL").map_err(explain)?;
        open::migrate(&mut conn, path, &SCHEMA)?;
        conn.execute_batch(&format!(
            "PRAGMA synchronous = NORMAL;
             PRAGMA temp_store = MEMORY;
             PRAGMA cache_size = -{WRITER_CACHE_KIB};"
        ))
        .map_err(explain)?;
        let condition = Arc::new(Condition::new(path.to_owned()));
        Ok(Self {
            path: path.to_owned(),
            writer: Writer::start(conn).map_err(OpenError::Thread)?,
            readers: Readers::new(path.to_owned(), condition),
        })
    }

    /// The file.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Writes what is queued and ends the thread. Later calls are refused.
    pub async fn close(&self) {
        self.readers.close().await;
        self.writer.close().await;
    }

    /// Runs `work` in the next transaction; answers once that is committed. It may run twice: after another write of the
    /// same transaction failed.
    async fn write<T, F>(&self, work: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: FnMut(&Transaction<'_>) -> rusqlite::Result<T> + Send + 'static,
    {
        self.writer.submit(work).await
    }

    async fn read<T, F>(&self, read: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: FnOnce(&Connection) -> Result<T, StoreError> + Send + 'static,
    {
        self.readers.read(read).await
    }
}

impl fmt::Debug for HistoryFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HistoryFile").field("path", &self.path).finish_non_exhaustive()
    }
}
