//! What the database commits with nothing of ours around it: rows of a command's size, each commit synced.

use std::{path::Path, time::Duration};

use anyhow::Context;
use rusqlite::{Connection, params};
use tokio::time::Instant;
use tokio_postgres::{Client, NoTls};

use super::super::load::{Loaded, record, times};

/// About what a command and the lines of its timeline take.
const ROW: [u8; 1_024] = [7; 1_024];
/// Rows that are written before anything is measured: as many as make the write-ahead log longer than it gets between two
/// checkpoints. A log that has its length already is overwritten, as that of a server is after a while; one that grows costs the
/// file system much more.
const ROWS_BEFORE: u32 = 20_000;
/// Pages in the log after which SQLite takes them into its file.
const CHECKPOINT_PAGES: u32 = 4_000;
/// Rows of a large commit.
pub const AT_ONCE: u32 = 64;

/// Commits of so many rows, one after another. Counted are rows; times are those of commits.
pub async fn commits(
    dir: &Path,
    database: Option<&str>,
    rows: u32,
    time: Duration,
) -> anyhow::Result<Loaded> {
    match database {
        Some(url) => postgres(url, rows, time).await,
        None => {
            let file = dir.join("floor.sqlite");
            tokio::task::spawn_blocking(move || sqlite(&file, rows, time)).await?
        }
    }
}

fn sqlite(file: &Path, rows: u32, time: Duration) -> anyhow::Result<Loaded> {
    let mut database = Connection::open(file)?;
    database.pragma_update(None, "journal_mode", "WAL")?;
    database.pragma_update(None, "synchronous", "FULL")?;
    database.execute(
        "CREATE TABLE IF NOT EXISTS floor (id INTEGER PRIMARY KEY, row BLOB NOT NULL)",
        [],
    )?;
    database.pragma_update(None, "wal_autocheckpoint", CHECKPOINT_PAGES)?;
    insert(&mut database, ROWS_BEFORE)?;
    // What it answers does not matter: what is not taken over now is taken over with the first commits.
    database.query_row("PRAGMA wal_checkpoint(RESTART)", [], |_| Ok(()))?;
    let (mut times, began) = (times(), Instant::now());
    while began.elapsed() < time {
        let start = Instant::now();
        insert(&mut database, rows)?;
        record(&mut times, start.elapsed());
    }
    let took = began.elapsed();
    Ok(Loaded { done: times.len() * u64::from(rows), times, took, commands: Vec::new() })
}

/// One transaction.
fn insert(database: &mut Connection, rows: u32) -> rusqlite::Result<()> {
    let transaction = database.transaction()?;
    let mut insert = transaction.prepare_cached("INSERT INTO floor (row) VALUES (?1)")?;
    for _ in 0..rows {
        insert.execute(params![ROW])?;
    }
    drop(insert);
    transaction.commit()
}

async fn postgres(url: &str, rows: u32, time: Duration) -> anyhow::Result<Loaded> {
    let (client, connection) =
        tokio_postgres::connect(url, NoTls).await.context("PostgreSQL takes no connection")?;
    let working = tokio::spawn(connection);
    let measured = commit_rows(&client, rows, time).await;
    drop(client);
    working.await?.context("the connection to PostgreSQL broke")?;
    measured
}

async fn commit_rows(client: &Client, rows: u32, time: Duration) -> anyhow::Result<Loaded> {
    client
        .batch_execute("CREATE TABLE IF NOT EXISTS bench_floor (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, row bytea NOT NULL)")
        .await?;
    let insert = client
        .prepare("INSERT INTO bench_floor (row) SELECT $1 FROM generate_series(1, $2::int)")
        .await?;
    let (mut times, began) = (times(), Instant::now());
    let (row, count) = (ROW.as_slice(), i32::try_from(rows)?);
    while began.elapsed() < time {
        let start = Instant::now();
        client.execute(&insert, &[&row, &count]).await?;
        record(&mut times, start.elapsed());
    }
    let took = began.elapsed();
    client.batch_execute("DROP TABLE bench_floor").await?;
    Ok(Loaded { done: times.len() * u64::from(rows), times, took, commands: Vec::new() })
}
