//! Whether the database is whole, for whoever looks after it.

use utmos_core::ports::StoreError;

use super::{SqliteStore, fault::to_store_error};

/// Faults that are told at most.
const FAULTS_MAX: u32 = 10;

impl SqliteStore {
    /// SQLite's quick check: what is damaged, in its words; empty when nothing is. Reads the whole file.
    ///
    /// # Errors
    /// When the database cannot be read at all.
    pub async fn quick_check(&self) -> Result<Vec<String>, StoreError> {
        let check = |conn: &rusqlite::Connection| {
            let mut statement = conn.prepare(&format!("PRAGMA quick_check({FAULTS_MAX})"))?;
            let lines = statement.query_map([], |row| row.get::<_, String>(0))?;
            lines.collect::<rusqlite::Result<Vec<_>>>()
        };
        let lines =
            self.readers.read(move |conn| check(conn).map_err(|err| to_store_error(&err))).await?;
        Ok(lines.into_iter().filter(|line| line != "ok").collect())
    }
}
