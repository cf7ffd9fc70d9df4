//! Takes everything that is in a SQLite database into an empty PostgreSQL, or back: every command, key, nonce and line.
//!
//! It goes table by table in pieces, each in one transaction together with how far it came, so that whoever is stopped in
//! the middle goes on from there. Rows are written as they stand: what is sealed stays sealed, under the same master key.
//! In the end everything is read on both sides and compared; only then may servers open the database.

mod cells;
mod export;
mod filled;
mod source;
mod tables;
mod target;

use std::path::{Path, PathBuf};

use utmos_core::ports::StoreError;

use self::{
    source::Source,
    tables::{KEYS, TABLES, Table},
    target::Target,
};
use crate::{
    postgres::{PostgresConfig, PostgresOpenError},
    seal::Sealer,
    sqlite::OpenError,
};

/// Rows that are written in one transaction, about, where nobody says otherwise.
const PIECE_ROWS: u32 = 2_000;

pub use self::export::Export;

/// From where to where.
#[derive(Debug, Clone)]
pub struct Import {
    /// The SQLite database.
    pub from: PathBuf,
    /// The PostgreSQL database, which has the same master key.
    pub into: PostgresConfig,
    /// Rows that are written in one transaction, about.
    pub piece_rows: u32,
}

impl Import {
    /// With the usual pieces.
    #[must_use]
    pub fn new(from: &Path, into: PostgresConfig) -> Self {
        Self { from: from.to_owned(), into, piece_rows: PIECE_ROWS }
    }
}

/// Why not everything was taken over.
#[derive(Debug, thiserror::Error)]
pub enum TransferError {
    /// The SQLite database cannot be opened.
    #[error(transparent)]
    Source(#[from] OpenError),
    /// It cannot be read.
    #[error("the database {} cannot be read", .path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// The cause.
        #[source]
        source: rusqlite::Error,
    },
    /// It holds what cannot be taken over.
    #[error("{}: {table}, row {row}: {column}: {why}; look at it with: utmos store check", .path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// Where.
        table: &'static str,
        /// Which, counted in the order in which they are read.
        row: u64,
        /// Which column.
        column: &'static str,
        /// What is wrong.
        why: String,
    },
    /// What is left of an older version in it cannot be read.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// PostgreSQL cannot be opened.
    #[error(transparent)]
    Target(#[from] PostgresOpenError),
    /// It cannot be written, or read.
    #[error("{database}: {table}: {why}")]
    Unwritable {
        /// Its address, without secrets.
        database: String,
        /// What was being written.
        table: &'static str,
        /// Why.
        why: String,
    },
    /// It is in use.
    #[error("{0}: another import or export is under way there; wait for it")]
    Busy(String),
    /// Servers are connected.
    #[error(
        "{database}: {connections} other connections of this program are open; stop every server that uses it"
    )]
    InUse {
        /// Its address, without secrets.
        database: String,
        /// How many.
        connections: i64,
    },
    /// It holds something else.
    #[error("{database} holds {table} of its own; import into an empty database")]
    NotEmpty {
        /// Its address, without secrets.
        database: String,
        /// Where the first row was found.
        table: &'static str,
    },
    /// It holds what another database held.
    #[error("{0} is being filled from another SQLite database; import into an empty database")]
    OtherSource(String),
    /// It was done.
    #[error(
        "{0} was filled from this database before, and servers may have written to it since; nothing was changed"
    )]
    Done(String),
    /// Not everything arrived as it was.
    #[error(
        "{table}: {sent} rows were to be taken over and {found} are there, or they differ; the database stays closed: drop it, make it anew and import again"
    )]
    Differs {
        /// Where.
        table: &'static str,
        /// Rows in SQLite.
        sent: u64,
        /// Rows in PostgreSQL.
        found: u64,
    },
    /// There is a file where it is to go.
    #[error("{} is there already; name a new file, or move it away", .0.display())]
    Exists(PathBuf),
    /// What was begun there belongs to something else.
    #[error("{} was begun with another database; remove it, and export again", .0.display())]
    OtherExport(PathBuf),
    /// The SQLite database cannot be written.
    #[error("the database {} cannot be written; {table}", .path.display())]
    Unfilled {
        /// The file.
        path: PathBuf,
        /// What was being written.
        table: &'static str,
        /// The cause.
        #[source]
        source: rusqlite::Error,
    },
    /// It cannot be put in its place.
    #[error("{} cannot be renamed", .path.display())]
    Unmoved {
        /// The file.
        path: PathBuf,
        /// The cause.
        #[source]
        source: std::io::Error,
    },
    /// Not everything is in the file as it was.
    #[error("{table}: {sent} rows were to be written to {} and {found} are there, or they differ; remove it and export again", .path.display())]
    WrittenOtherwise {
        /// The file.
        path: PathBuf,
        /// Where.
        table: &'static str,
        /// Rows in PostgreSQL.
        sent: u64,
        /// Rows in SQLite.
        found: u64,
    },
    /// A task ended badly.
    #[error("reading was stopped")]
    Stopped,
}

/// What was taken over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Transferred {
    /// Rows of each table.
    pub rows: Vec<(&'static str, u64)>,
}

impl Transferred {
    /// Rows of a table.
    #[must_use]
    pub fn of(&self, table: &str) -> u64 {
        self.rows.iter().find(|(name, _)| *name == table).map_or(0, |(_, rows)| *rows)
    }
}

impl Import {
    /// Takes everything over, or goes on with it. Nobody may write to either meanwhile: writes to SQLite wait until it has
    /// ended, and PostgreSQL refuses servers until it is done. `progress` is told the table and how many of its rows were
    /// written, now and then.
    ///
    /// # Errors
    /// When not everything can be taken over; the error names what stands in the way. Run again, it goes on.
    pub async fn run(
        &self,
        mut progress: impl FnMut(&'static str, u64) + Send,
    ) -> Result<Transferred, TransferError> {
        let source = Source::open(&self.from, Sealer::new(&self.into.master_key)).await?;
        let mut target = Target::open(&self.into, source.mark()).await?;
        for table in TABLES.iter().chain([&KEYS]) {
            let (mut position, mut rows) = (target.position(table).await?, 0);
            while let Some(piece) = source.piece(table, position, self.piece_rows).await? {
                rows += piece.rows.len() as u64;
                position = Some(piece.end.clone());
                target.write(table, piece).await?;
                progress(table.name, rows);
            }
        }
        target.set_counters(source.counters().await?).await?;
        let mut taken = Vec::new();
        for table in TABLES.iter().chain([&KEYS]) {
            taken.push((table.name, self.compare(&source, &target, table).await?));
        }
        target.finish().await?;
        Ok(Transferred { rows: taken })
    }

    /// Reads a table on both sides; answers how many rows it has.
    async fn compare(
        &self,
        source: &Source,
        target: &Target,
        table: &'static Table,
    ) -> Result<u64, TransferError> {
        let sent = source.sum(table, self.piece_rows).await?;
        let found = target.sum(table).await?;
        if sent != found {
            let (table, sent, found) = (table.name, sent.rows, found.rows);
            return Err(TransferError::Differs { table, sent, found });
        }
        Ok(sent.rows)
    }
}
