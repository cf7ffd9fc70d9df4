//! The SQLite database that is read: held against every other writer from beginning to end.

use std::{
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

use rusqlite::{Connection, OptionalExtension, params, types::Value};

use super::{
    TransferError,
    cells::{Cell, Sum},
    tables::Table,
};
use crate::{seal::Sealer, sqlite::transfer};

pub(super) struct Source {
    path: PathBuf,
    /// In a transaction that lets nobody else write, and so sees one moment.
    conn: Arc<Mutex<Connection>>,
    mark: [u8; 16],
}

/// Some rows of a table, whole as far as its order goes.
pub(super) struct Piece {
    pub(super) rows: Vec<Vec<Cell>>,
    /// Where the next piece begins: after this.
    pub(super) end: Value,
}

/// What is counted beside the tables.
pub(super) struct Counters {
    pub(super) newest_record: Option<i64>,
    pub(super) registry: i64,
    pub(super) rules: i64,
}

impl Source {
    pub(super) async fn open(path: &Path, sealer: Sealer) -> Result<Self, TransferError> {
        let path = path.to_owned();
        let opened = tokio::task::spawn_blocking(move || open(&path, &sealer));
        opened.await.map_err(|_| TransferError::Stopped)?
    }

    /// Reads what is being filled, to compare it.
    pub(super) fn of(path: &Path, conn: Arc<Mutex<Connection>>, mark: [u8; 16]) -> Self {
        Self { path: path.to_owned(), conn, mark }
    }

    /// What tells this database from every other.
    pub(super) fn mark(&self) -> [u8; 16] {
        self.mark
    }

    /// The rows after a position, some `rows` of them. `None` when there are no more.
    pub(super) async fn piece(
        &self,
        table: &'static Table,
        after: Option<Value>,
        rows: u32,
    ) -> Result<Option<Piece>, TransferError> {
        self.with(move |conn, path| piece(conn, path, table, after, rows)).await
    }

    /// Everything in a table.
    pub(super) async fn sum(&self, table: &'static Table, rows: u32) -> Result<Sum, TransferError> {
        let (mut sum, mut position) = (Sum::default(), None);
        while let Some(piece) = self.piece(table, position, rows).await? {
            piece.rows.iter().for_each(|row| sum.add(row));
            position = Some(piece.end);
        }
        Ok(sum)
    }

    pub(super) async fn counters(&self) -> Result<Counters, TransferError> {
        self.with(|conn, path| {
            let read = |name: &str| -> rusqlite::Result<Option<i64>> {
                let sql = "SELECT value FROM meta WHERE name = ?1";
                conn.query_row(sql, [name], |row| row.get(0)).optional()
            };
            let unreadable = |source| unreadable(path, source);
            Ok(Counters {
                newest_record: read("newest_record").map_err(unreadable)?,
                registry: read("generation").map_err(unreadable)?.unwrap_or(0),
                rules: read("request_rules").map_err(unreadable)?.unwrap_or(0),
            })
        })
        .await
    }

    async fn with<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Connection, &Path) -> Result<T, TransferError> + Send + 'static,
    ) -> Result<T, TransferError> {
        let (conn, path) = (self.conn.clone(), self.path.clone());
        let done = tokio::task::spawn_blocking(move || {
            work(&conn.lock().unwrap_or_else(PoisonError::into_inner), &path)
        });
        done.await.map_err(|_| TransferError::Stopped)?
    }
}

fn unreadable(path: &Path, source: rusqlite::Error) -> TransferError {
    TransferError::Unreadable { path: path.to_owned(), source }
}

fn open(path: &Path, sealer: &Sealer) -> Result<Source, TransferError> {
    // Brings an older one up to date, and refuses one that is damaged or another's.
    let conn = transfer::open_to_transfer(path, sealer)?;
    let explain = |source| unreadable(path, source);
    conn.execute_batch("BEGIN IMMEDIATE").map_err(explain)?;
    transfer::seal_old_texts(&conn, sealer)?;
    let sql = "INSERT INTO meta (name, value) VALUES ('transfer_mark', randomblob(16)) ON CONFLICT DO NOTHING";
    conn.execute(sql, []).map_err(explain)?;
    let sql = "SELECT value FROM meta WHERE name = 'transfer_mark'";
    let mark = conn.query_row(sql, [], |row| row.get(0)).map_err(explain)?;
    // From here on nothing is changed; who waited for the lock may have it for a moment, which is before the first row.
    conn.execute_batch("COMMIT; BEGIN IMMEDIATE").map_err(explain)?;
    Ok(Source { path: path.to_owned(), conn: Arc::new(Mutex::new(conn)), mark })
}

fn piece(
    conn: &Connection,
    path: &Path,
    table: &'static Table,
    after: Option<Value>,
    rows: u32,
) -> Result<Option<Piece>, TransferError> {
    let explain = |source| unreadable(path, source);
    let Table { from, order, .. } = table;
    let beyond =
        if after.is_some() { format!("WHERE {order} > ?1") } else { "WHERE ?1 IS NULL".to_owned() };
    let after = after.unwrap_or(Value::Null);
    let sql = format!(
        "SELECT max(k) FROM (SELECT {order} AS k FROM {from} {beyond} ORDER BY {order} LIMIT ?2)"
    );
    let mut end = conn.prepare_cached(&sql).map_err(explain)?;
    let end: Value = end.query_row(params![after, rows], |row| row.get(0)).map_err(explain)?;
    if end == Value::Null {
        return Ok(None);
    }
    let columns: Vec<&str> = table.columns.iter().map(|(_, _, sqlite)| *sqlite).collect();
    let columns = columns.join(", ");
    let sql = format!("SELECT {columns} FROM {from} {beyond} AND {order} <= ?2 ORDER BY {order}");
    let mut select = conn.prepare_cached(&sql).map_err(explain)?;
    let mut found = select.query(params![after, end]).map_err(explain)?;
    let mut rows = Vec::new();
    while let Some(row) = found.next().map_err(explain)? {
        let cell = |at: usize| {
            let (column, kind, _) = table.columns[at];
            let value = row.get_ref(at).map_err(explain)?;
            Cell::from_sqlite(value, kind).map_err(|why| TransferError::Damaged {
                path: path.to_owned(),
                table: table.name,
                row: rows.len() as u64 + 1,
                column,
                why,
            })
        };
        let cells = (0..table.columns.len()).map(cell).collect::<Result<Vec<_>, _>>()?;
        rows.push(cells);
    }
    Ok(Some(Piece { rows, end }))
}
