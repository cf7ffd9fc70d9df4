//! PostgreSQL, which is filled.

use std::time::Duration;

use rusqlite::types::Value;
use tokio_postgres::{Client, Row, Transaction, types::ToSql};
use uuid::Uuid;

use super::{
    TransferError,
    cells::{Cell, Column, Sum},
    source::{Counters, Piece},
    tables::{KEYS, TABLES, Table},
};
use crate::postgres::{
    PostgresConfig, PostgresOpenError,
    transfer::{self as postgres, Partitions},
};

/// Rows that are read at a time.
const READ_ROWS: i32 = 2_000;
/// How often other connections are looked for, and how long between two looks.
const ENDING_LOOKS: u32 = 20;
const ENDING_PAUSE: Duration = Duration::from_millis(100);

pub(super) struct Target {
    database: String,
    client: Client,
    partitions: Partitions,
}

impl Target {
    /// Opens a database that is empty, or that was begun to be filled from the same source.
    pub(super) async fn open(
        config: &PostgresConfig,
        mark: [u8; 16],
    ) -> Result<Self, TransferError> {
        let client = postgres::connect(config).await?;
        let mut target =
            Self { database: config.url.to_string(), client, partitions: Partitions::default() };
        target.take_alone().await?;
        target.claim(mark).await?;
        Ok(target)
    }

    fn failed(&self, table: &'static str, err: &tokio_postgres::Error) -> TransferError {
        unwritable(&self.database, table, err)
    }

    /// Opens a database that is to be taken elsewhere, and closes it to servers for good: what waits in it must not be sent
    /// by two. Answers what tells it from every other.
    pub(super) async fn open_to_leave(
        config: &PostgresConfig,
    ) -> Result<(Self, [u8; 16]), TransferError> {
        let client = postgres::connect(config).await?;
        let mut target =
            Self { database: config.url.to_string(), client, partitions: Partitions::default() };
        // Who comes too early is told so before anything is taken from a server.
        target.take_alone().await?;
        let mark = *Uuid::new_v4().as_bytes();
        let kept = target.close(mark).await?;
        let explain = |err: tokio_postgres::Error| target.failed("meta", &err);
        // A connection that is made from here on sees the mark; one that was there before is seen.
        if let Err(error) = target.alone().await {
            let sql = "DELETE FROM meta WHERE name = $1 AND value = $2";
            let params: [&(dyn ToSql + Sync); 2] = [&postgres::EXPORTED, &mark.as_slice()];
            target.client.execute(sql, &params).await.map_err(explain)?;
            return Err(error);
        }
        let mark = kept.try_into().unwrap_or(mark);
        Ok((target, mark))
    }

    /// Closes the database to servers and takes from each what it may send, all or nothing. Answers the mark it has.
    async fn close(&mut self, mark: [u8; 16]) -> Result<Vec<u8>, TransferError> {
        let database = self.database.clone();
        let explain = |err: tokio_postgres::Error| unwritable(&database, "meta", &err);
        let tx = self.client.transaction().await.map_err(explain)?;
        if meta(&tx, postgres::IMPORTING).await.map_err(explain)?.is_some() {
            return Err(PostgresOpenError::Unfinished(database).into());
        }
        postgres::dissolve(&tx).await.map_err(explain)?;
        let sql = "INSERT INTO meta AS m (name, value) VALUES ($1, $2)
                   ON CONFLICT (name) DO UPDATE SET value = m.value RETURNING value";
        let row = tx.query_one(sql, &[&postgres::EXPORTED, &mark.as_slice()]).await;
        let kept = row.and_then(|row| row.try_get(0)).map_err(explain)?;
        tx.commit().await.map_err(explain)?;
        Ok(kept)
    }

    /// Hands over the rows of a table in pieces, in one order, but for those of before.
    pub(super) async fn each_piece(
        &self,
        table: &'static Table,
        before: u64,
        piece_rows: u32,
        mut take: impl AsyncFnMut(Vec<Vec<Cell>>) -> Result<(), TransferError>,
    ) -> Result<(), TransferError> {
        let explain = |err: tokio_postgres::Error| self.failed(table.name, &err);
        let names: Vec<&str> = table.columns.iter().map(|(name, _, _)| *name).collect();
        let declare = format!(
            "BEGIN; DECLARE every NO SCROLL CURSOR FOR SELECT {} FROM {} ORDER BY {} OFFSET {before}",
            names.join(", "),
            table.name,
            table.key,
        );
        self.client.batch_execute(&declare).await.map_err(explain)?;
        let fetch = format!("FETCH {} FROM every", piece_rows.max(1));
        let fetch = self.client.prepare(&fetch).await.map_err(explain)?;
        loop {
            let rows = self.client.query(&fetch, &[]).await.map_err(explain)?;
            if rows.is_empty() {
                break;
            }
            let cells = rows.iter().map(|row| cells_of(table, row));
            take(cells.collect::<Result<_, _>>().map_err(explain)?).await?;
        }
        self.client.batch_execute("COMMIT").await.map_err(explain)
    }

    /// What is counted beside the tables.
    pub(super) async fn counters(&self) -> Result<Counters, TransferError> {
        let explain = |err: tokio_postgres::Error| self.failed("generations", &err);
        let sql = "SELECT (SELECT max(newest) FROM clocks WHERE newest > $1),
                          (SELECT n FROM generations WHERE name = 'registry'),
                          (SELECT n FROM generations WHERE name = 'request_rules')";
        let row = self.client.query_one(sql, &[&i64::MIN]).await.map_err(explain)?;
        Ok(Counters {
            newest_record: row.try_get(0).map_err(explain)?,
            registry: row.try_get(1).map_err(explain)?,
            rules: row.try_get(2).map_err(explain)?,
        })
    }

    async fn take_alone(&self) -> Result<(), TransferError> {
        self.lock().await?;
        self.alone().await
    }

    async fn lock(&self) -> Result<(), TransferError> {
        let explain = |err: tokio_postgres::Error| self.failed("import", &err);
        let sql = "SELECT pg_try_advisory_lock($1)";
        let row = self.client.query_one(sql, &[&postgres::IMPORT_LOCK]).await.map_err(explain)?;
        if !row.try_get::<_, bool>(0).map_err(explain)? {
            return Err(TransferError::Busy(self.database.clone()));
        }
        Ok(())
    }

    async fn alone(&self) -> Result<(), TransferError> {
        let explain = |err: tokio_postgres::Error| self.failed("pg_stat_activity", &err);
        let mut connections = 0;
        let sql = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()
                   AND pid <> pg_backend_pid() AND application_name = current_setting('application_name')";
        // Those of a server that has just stopped end a moment later.
        for _ in 0..ENDING_LOOKS {
            let row = self.client.query_one(sql, &[]).await.map_err(explain)?;
            connections = row.try_get(0).map_err(explain)?;
            if connections == 0 {
                return Ok(());
            }
            tokio::time::sleep(ENDING_PAUSE).await;
        }
        Err(TransferError::InUse { database: self.database.clone(), connections })
    }

    /// Closes the database to servers until it is done.
    async fn claim(&mut self, mark: [u8; 16]) -> Result<(), TransferError> {
        let database = self.database.clone();
        let explain = |err: tokio_postgres::Error| unwritable(&database, "meta", &err);
        let tx = self.client.transaction().await.map_err(explain)?;
        let of_before = meta(&tx, postgres::IMPORTED).await.map_err(explain)?;
        let is_open = meta(&tx, postgres::IMPORTING).await.map_err(explain)?.is_some();
        match of_before {
            Some(of_before) if of_before != mark => {
                return Err(TransferError::OtherSource(database));
            }
            Some(_) if !is_open => return Err(TransferError::Done(database)),
            Some(_) => return Ok(()),
            None => {}
        }
        for table in TABLES.iter().chain([&KEYS]) {
            let sql = format!("SELECT 1 FROM {} LIMIT 1", table.name);
            if tx.query_opt(&sql, &[]).await.map_err(explain)?.is_some() {
                return Err(TransferError::NotEmpty { database, table: table.name });
            }
        }
        // No server is connected; one that was killed or cut off has left its part.
        postgres::dissolve(&tx).await.map_err(explain)?;
        tx.batch_execute("DELETE FROM handed").await.map_err(explain)?;
        let sql = "INSERT INTO meta (name, value) VALUES ($1, $3), ($2, $3)";
        let params: [&(dyn ToSql + Sync); 3] =
            [&postgres::IMPORTED, &postgres::IMPORTING, &mark.as_slice()];
        tx.execute(sql, &params).await.map_err(explain)?;
        tx.commit().await.map_err(explain)
    }

    /// How far a table came.
    pub(super) async fn position(&self, table: &Table) -> Result<Option<Value>, TransferError> {
        let explain = |err: tokio_postgres::Error| self.failed("import_positions", &err);
        let sql = "SELECT number, bytes, words FROM import_positions WHERE name = $1";
        let Some(row) = self.client.query_opt(sql, &[&table.name]).await.map_err(explain)? else {
            return Ok(None);
        };
        let number: Option<i64> = row.try_get(0).map_err(explain)?;
        let bytes: Option<Vec<u8>> = row.try_get(1).map_err(explain)?;
        let words: Option<String> = row.try_get(2).map_err(explain)?;
        Ok(number.map(Value::Integer).or(bytes.map(Value::Blob)).or(words.map(Value::Text)))
    }

    /// Writes a piece, and how far it came, both or neither.
    pub(super) async fn write(
        &mut self,
        table: &'static Table,
        piece: Piece,
    ) -> Result<(), TransferError> {
        let database = self.database.clone();
        let explain = |err: tokio_postgres::Error| unwritable(&database, table.name, &err);
        let Piece { rows, end } = piece;
        if let Some(at) = postgres::partitioned_by(table.name)
            .and_then(|column| table.columns.iter().position(|(name, _, _)| *name == column))
        {
            let ids = rows.iter().filter_map(|row| match &row[at] {
                Cell::Uuid(id) => Some(*id),
                Cell::Null | Cell::Number(_) | Cell::Flag(_) | Cell::Text(_) | Cell::Bytes(_) => {
                    None
                }
            });
            self.partitions.make_for(&mut self.client, ids).await?;
        }
        let mut columns: Vec<Column> =
            table.columns.iter().map(|(_, kind, _)| Column::new(*kind)).collect();
        for row in rows {
            for (column, cell) in columns.iter_mut().zip(row) {
                column.push(cell);
            }
        }
        let params: Vec<&(dyn ToSql + Sync)> = columns.iter().map(Column::param).collect();
        let tx = self.client.transaction().await.map_err(explain)?;
        let insert = tx.prepare(&insert_sql(table)).await.map_err(explain)?;
        tx.execute(&insert, &params).await.map_err(explain)?;
        put_position(&tx, table, &end).await.map_err(explain)?;
        tx.commit().await.map_err(explain)
    }

    /// What is counted beside the tables goes on from where it was.
    pub(super) async fn set_counters(&mut self, counters: Counters) -> Result<(), TransferError> {
        let database = self.database.clone();
        let explain = |err: tokio_postgres::Error| unwritable(&database, "generations", &err);
        let tx = self.client.transaction().await.map_err(explain)?;
        let sql = "UPDATE generations SET n = greatest(n, $2) WHERE name = $1";
        tx.execute(sql, &[&"registry", &counters.registry]).await.map_err(explain)?;
        tx.execute(sql, &[&"request_rules", &counters.rules]).await.map_err(explain)?;
        if let Some(newest) = counters.newest_record {
            let sql = "INSERT INTO clocks (writer, newest) VALUES ($1, $2)
                       ON CONFLICT (writer) DO UPDATE SET newest = greatest(clocks.newest, excluded.newest)";
            tx.execute(sql, &[&Uuid::nil(), &newest]).await.map_err(explain)?;
        }
        tx.batch_execute(
            "SELECT setval('commands_in_order', (SELECT coalesce(max(seq), 0) + 1 FROM commands));
             SELECT setval(pg_get_serial_sequence('device_records', 'n'),
                           (SELECT coalesce(max(n), 0) + 1 FROM device_records))",
        )
        .await
        .map_err(explain)?;
        tx.commit().await.map_err(explain)
    }

    /// Everything in a table.
    pub(super) async fn sum(&self, table: &'static Table) -> Result<Sum, TransferError> {
        let explain = |err: tokio_postgres::Error| self.failed(table.name, &err);
        let names: Vec<&str> = table.columns.iter().map(|(name, _, _)| *name).collect();
        let declare = format!(
            "BEGIN; DECLARE every NO SCROLL CURSOR FOR SELECT {} FROM {}",
            names.join(", "),
            table.name
        );
        self.client.batch_execute(&declare).await.map_err(explain)?;
        let fetch = format!("FETCH {READ_ROWS} FROM every");
        let fetch = self.client.prepare(&fetch).await.map_err(explain)?;
        let mut sum = Sum::default();
        loop {
            let rows = self.client.query(&fetch, &[]).await.map_err(explain)?;
            if rows.is_empty() {
                break;
            }
            for row in &rows {
                sum.add(&cells_of(table, row).map_err(explain)?);
            }
        }
        self.client.batch_execute("COMMIT").await.map_err(explain)?;
        Ok(sum)
    }

    /// Opens the database to servers.
    pub(super) async fn finish(self) -> Result<(), TransferError> {
        let explain = |err: tokio_postgres::Error| self.failed("meta", &err);
        self.client.batch_execute("ANALYZE").await.map_err(explain)?;
        let sql = "DELETE FROM meta WHERE name = $1";
        self.client.execute(sql, &[&postgres::IMPORTING]).await.map_err(explain)?;
        Ok(())
    }
}

fn cells_of(table: &Table, row: &Row) -> Result<Vec<Cell>, tokio_postgres::Error> {
    let cell = |(at, (_, kind, _)): (usize, &(_, _, _))| Cell::from_postgres(row, at, *kind);
    table.columns.iter().enumerate().map(cell).collect()
}

fn unwritable(database: &str, table: &'static str, err: &tokio_postgres::Error) -> TransferError {
    TransferError::Unwritable { database: database.to_owned(), table, why: postgres::why(err) }
}

async fn meta(tx: &Transaction<'_>, name: &str) -> Result<Option<Vec<u8>>, tokio_postgres::Error> {
    let row = tx.query_opt("SELECT value FROM meta WHERE name = $1", &[&name]).await?;
    row.map(|row| row.try_get(0)).transpose()
}

/// None of its rows can be there: how far it came is written with them.
fn insert_sql(table: &Table) -> String {
    let names: Vec<&str> = table.columns.iter().map(|(name, _, _)| *name).collect();
    let arrays =
        table.columns.iter().zip(1..).map(|((_, kind, _), n)| format!("${n}::{}", kind.array()));
    let arrays: Vec<String> = arrays.collect();
    format!(
        "INSERT INTO {} ({}) OVERRIDING SYSTEM VALUE SELECT * FROM unnest({})",
        table.name,
        names.join(", "),
        arrays.join(", ")
    )
}

async fn put_position(
    tx: &Transaction<'_>,
    table: &Table,
    end: &Value,
) -> Result<(), tokio_postgres::Error> {
    let (number, bytes, words) = match end {
        Value::Integer(number) => (Some(*number), None, None),
        Value::Blob(bytes) => (None, Some(bytes.as_slice()), None),
        Value::Text(words) => (None, None, Some(words.as_str())),
        Value::Null | Value::Real(_) => (None, None, None),
    };
    let sql = "INSERT INTO import_positions (name, number, bytes, words) VALUES ($1, $2, $3, $4)
               ON CONFLICT (name) DO UPDATE SET number = excluded.number, bytes = excluded.bytes, words = excluded.words";
    tx.execute(sql, &[&table.name, &number, &bytes, &words]).await.map(drop)
}
