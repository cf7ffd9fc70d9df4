//! The way back: everything that is in PostgreSQL into a new SQLite file.
//!
//! As the import does it: table by table in pieces, each in one transaction together with how far it came, and compared in the
//! end. Until then the file has another name, so that no server opens a part of it; from the beginning on none opens
//! PostgreSQL, so that nothing changes meanwhile and nothing is sent by two. A server that is cut off meanwhile, and so does not
//! hear of it, has lost what it may send, and gets no connection when it comes back.

use std::path::{Path, PathBuf};

use super::{
    PIECE_ROWS, TransferError, Transferred,
    filled::Filled,
    tables::{KEYS, TABLES},
    target::Target,
};
use crate::{postgres::PostgresConfig, seal::Sealer};

/// From where to where.
#[derive(Debug, Clone)]
pub struct Export {
    /// The PostgreSQL database.
    pub from: PostgresConfig,
    /// The SQLite file, which is not there yet.
    pub into: PathBuf,
    /// Rows that are written in one transaction, about.
    pub piece_rows: u32,
}

impl Export {
    /// With the usual pieces.
    #[must_use]
    pub fn new(from: PostgresConfig, into: &Path) -> Self {
        Self { from, into: into.to_owned(), piece_rows: PIECE_ROWS }
    }

    /// How the file is called until everything is in it.
    #[must_use]
    pub fn part(&self) -> PathBuf {
        let mut name = self.into.clone().into_os_string();
        name.push(".part");
        name.into()
    }

    /// Takes everything over, or goes on with it. PostgreSQL is closed to servers from then on. `progress` is told the table
    /// and how many of its rows were written, now and then.
    ///
    /// # Errors
    /// When not everything can be taken over; the error names what stands in the way. Run again, it goes on.
    pub async fn run(
        &self,
        mut progress: impl FnMut(&'static str, u64) + Send,
    ) -> Result<Transferred, TransferError> {
        if self.into.exists() {
            return Err(TransferError::Exists(self.into.clone()));
        }
        let part = self.part();
        let (source, mark) = Target::open_to_leave(&self.from).await?;
        let filled = Filled::open(&part, Sealer::new(&self.from.master_key), mark).await?;
        // Lines and keys are kept by the rows of their commands, which come before them.
        for table in TABLES.iter().chain([&KEYS]) {
            let mut rows = filled.position(table).await?;
            let take = async |piece: Vec<_>| {
                rows += piece.len() as u64;
                filled.write(table, piece, rows).await?;
                progress(table.name, rows);
                Ok(())
            };
            source.each_piece(table, filled.position(table).await?, self.piece_rows, take).await?;
        }
        filled.set_counters(source.counters().await?).await?;
        let mut taken = Vec::new();
        for table in TABLES.iter().chain([&KEYS]) {
            let (sent, found) =
                (source.sum(table).await?, filled.sum(table, self.piece_rows).await?);
            if sent != found {
                let (table, sent, found) = (table.name, sent.rows, found.rows);
                return Err(TransferError::WrittenOtherwise { path: part, table, sent, found });
            }
            taken.push((table.name, sent.rows));
        }
        filled.finish(&self.into).await?;
        Ok(Transferred { rows: taken })
    }
}
