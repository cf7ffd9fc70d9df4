//! The SQLite database that is filled.

use std::{
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

use rusqlite::{Connection, OptionalExtension, params, params_from_iter, types::Value};
use uuid::Uuid;

use super::{
    TransferError,
    cells::{Cell, Sum},
    source::{Counters, Source},
    tables::Table,
};
use crate::{seal::Sealer, sqlite::transfer};

pub(super) struct Filled {
    path: PathBuf,
    conn: Arc<Mutex<Connection>>,
    /// The same, to be read.
    read: Source,
}

impl Filled {
    /// Makes it, or opens what was begun with the same database.
    pub(super) async fn open(
        path: &Path,
        sealer: Sealer,
        mark: [u8; 16],
    ) -> Result<Self, TransferError> {
        let path = path.to_owned();
        let opened = tokio::task::spawn_blocking(move || open(&path, &sealer, mark));
        opened.await.map_err(|_| TransferError::Stopped)?
    }

    /// How many rows of a table are there.
    pub(super) async fn position(&self, table: &'static Table) -> Result<u64, TransferError> {
        self.with(table.name, move |conn| {
            let sql = "SELECT n FROM export_positions WHERE name = ?1";
            let found: Option<i64> =
                conn.query_row(sql, [table.name], |row| row.get(0)).optional()?;
            Ok(found.unwrap_or(0).unsigned_abs())
        })
        .await
    }

    /// Writes a piece, and how many rows there are with it, both or neither.
    pub(super) async fn write(
        &self,
        table: &'static Table,
        rows: Vec<Vec<Cell>>,
        count: u64,
    ) -> Result<(), TransferError> {
        self.with(table.name, move |conn| {
            let tx = conn.transaction()?;
            {
                let mut insert = tx.prepare_cached(&insert_sql(table))?;
                for row in rows {
                    let cells = row.into_iter().map(|cell| as_there(table, cell));
                    insert.execute(params_from_iter(cells))?;
                }
                let sql = "INSERT INTO export_positions (name, n) VALUES (?1, ?2)
                           ON CONFLICT (name) DO UPDATE SET n = excluded.n";
                tx.prepare_cached(sql)?.execute(params![table.name, count.cast_signed()])?;
            }
            tx.commit()
        })
        .await
    }

    /// What is counted beside the tables goes on from where it was.
    pub(super) async fn set_counters(&self, counters: Counters) -> Result<(), TransferError> {
        self.with("meta", move |conn| {
            let named = [
                ("newest_record", counters.newest_record),
                ("generation", Some(counters.registry)),
                ("request_rules", Some(counters.rules)),
            ];
            let tx = conn.transaction()?;
            for (name, value) in named {
                let sql = "INSERT OR REPLACE INTO meta (name, value) VALUES (?1, ?2)";
                if let Some(value) = value {
                    tx.execute(sql, params![name, value])?;
                }
            }
            tx.execute_batch(
                "DELETE FROM unmatched_counts;
                 INSERT INTO unmatched_counts (tenant, n) SELECT tenant, count(*) FROM unmatched GROUP BY tenant",
            )?;
            tx.commit()
        })
        .await
    }

    /// Everything in a table.
    pub(super) async fn sum(&self, table: &'static Table, rows: u32) -> Result<Sum, TransferError> {
        self.read.sum(table, rows).await
    }

    /// Gives it its name: one file, whole.
    pub(super) async fn finish(self, name: &Path) -> Result<(), TransferError> {
        self.with("meta", |conn| {
            let tx = conn.transaction()?;
            tx.execute_batch(LED_TO)?;
            tx.commit()?;
            conn.execute_batch(
                "DROP TABLE export_positions; DROP INDEX export_commands; DROP INDEX export_lines; PRAGMA wal_checkpoint(TRUNCATE)",
            )?;
            // The log goes with it; the server that opens the file begins another.
            conn.query_row("PRAGMA journal_mode = DELETE", [], |row| row.get::<_, String>(0))?;
            Ok(())
        })
        .await?;
        let Self { path, conn, read } = self;
        drop((conn, read));
        let unmoved = |source| TransferError::Unmoved { path: path.clone(), source };
        std::fs::rename(&path, name).map_err(unmoved)?;
        let folder = name.parent().filter(|folder| !folder.as_os_str().is_empty());
        let folder = std::fs::File::open(folder.unwrap_or(Path::new("."))).map_err(unmoved)?;
        folder.sync_all().map_err(unmoved)
    }

    async fn with<T: Send + 'static>(
        &self,
        table: &'static str,
        work: impl FnOnce(&mut Connection) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T, TransferError> {
        let (conn, path) = (self.conn.clone(), self.path.clone());
        let done = tokio::task::spawn_blocking(move || {
            work(&mut conn.lock().unwrap_or_else(PoisonError::into_inner))
                .map_err(|source| TransferError::Unfilled { path, table, source })
        });
        done.await.map_err(|_| TransferError::Stopped)?
    }
}

fn open(path: &Path, sealer: &Sealer, mark: [u8; 16]) -> Result<Filled, TransferError> {
    let conn = transfer::open_to_fill(path, sealer)?;
    let explain = |source| TransferError::Unfilled { path: path.to_owned(), table: "meta", source };
    conn.execute_batch(
        "CREATE TABLE IF NOT EXISTS export_positions (name TEXT PRIMARY KEY, n INTEGER NOT NULL) STRICT;
         CREATE INDEX IF NOT EXISTS export_commands ON commands (id);
         CREATE INDEX IF NOT EXISTS export_lines ON timeline (row, n)",
    )
    .map_err(explain)?;
    let sql = "INSERT INTO meta (name, value) VALUES ('transfer_mark', ?1) ON CONFLICT DO NOTHING";
    conn.execute(sql, [mark]).map_err(explain)?;
    let sql = "SELECT value FROM meta WHERE name = 'transfer_mark'";
    let kept: Vec<u8> = conn.query_row(sql, [], |row| row.get(0)).map_err(explain)?;
    if kept != mark {
        return Err(TransferError::OtherExport(path.to_owned()));
    }
    let conn = Arc::new(Mutex::new(conn));
    let read = Source::of(path, conn.clone(), mark);
    Ok(Filled { path: path.to_owned(), conn, read })
}

/// What leads to rows in SQLite alone: lines of a timeline in their chain, and commands sorted for lists.
const LED_TO: &str = "
    UPDATE timeline SET before = (SELECT b.line FROM timeline b WHERE b.row = timeline.row AND b.n < timeline.n ORDER BY b.n DESC LIMIT 1);
    UPDATE lives SET last_line = (SELECT t.line FROM timeline t WHERE t.row = lives.row ORDER BY t.n DESC LIMIT 1);
    DELETE FROM commands_of_tenants;
    INSERT INTO commands_of_tenants SELECT tenant, id, row FROM commands ORDER BY tenant, id;
    DELETE FROM commands_of_devices;
    INSERT INTO commands_of_devices SELECT tenant, device, id, row FROM commands ORDER BY tenant, device, id;
    UPDATE meta SET value = (SELECT coalesce(max(row), 0) FROM commands) WHERE name = 'sorted'";

/// A column of SQLite without the name of its table.
fn own(column: &str) -> &str {
    column.rsplit('.').next().unwrap_or(column)
}

/// How a row of PostgreSQL is written. What SQLite keeps by the number of its command is found by the command's id.
fn insert_sql(table: &Table) -> String {
    let of_command = "(SELECT row FROM lives WHERE id = ?1)";
    match table.name {
        // In PostgreSQL it has the tenant of ones where SQLite has none.
        "unmatched" => {
            let names: Vec<&str> = table.columns.iter().map(|(name, _, _)| *name).collect();
            insert_into(table.name, &names, None)
        }
        "lives" => {
            let names: Vec<&str> = table.columns.iter().map(|(name, _, _)| *name).collect();
            let row = "(SELECT row FROM commands WHERE id = ?1)";
            insert_into(table.name, &names, Some(row))
        }
        "nonces" => "INSERT INTO nonces (keys, expires_at) VALUES (?1, ?2)".to_owned(),
        "timeline" => format!(
            "INSERT INTO timeline (row, n, status_from, status_to, at, proof, lines) VALUES ({of_command}, ?2, ?3, ?4, ?5, ?6, ?7)"
        ),
        "motions" => format!(
            "INSERT INTO motions (row, tenant, gateway, aircraft) SELECT {of_command}, ?2, ?3, ?4 WHERE ?5 IS NOT NULL"
        ),
        "idempotency" => {
            "INSERT INTO idempotency (key, row) SELECT ?1, row FROM lives WHERE id = ?2".to_owned()
        }
        _ => {
            let names: Vec<&str> = table.columns.iter().map(|(_, _, there)| own(there)).collect();
            insert_into(table.name, &names, None)
        }
    }
}

fn insert_into(table: &str, names: &[&str], row: Option<&str>) -> String {
    let mut places: Vec<String> = (1..=names.len()).map(|number| format!("?{number}")).collect();
    let mut names = names.to_vec();
    if let Some(row) = row {
        names.push("row");
        places.push(row.to_owned());
    }
    format!("INSERT INTO {table} ({}) VALUES ({})", names.join(", "), places.join(", "))
}

fn as_there(table: &Table, cell: Cell) -> Value {
    match cell {
        Cell::Uuid(id) if table.name == "unmatched" && id == Uuid::max() => Value::Blob(Vec::new()),
        other @ (Cell::Null
        | Cell::Uuid(_)
        | Cell::Number(_)
        | Cell::Flag(_)
        | Cell::Text(_)
        | Cell::Bytes(_)) => other.into_sqlite(),
    }
}
