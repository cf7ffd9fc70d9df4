//! Opening the database: the file, its settings, its schema, and whether it is ours at all.

use std::{
    fs,
    io::{self, Read},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use rusqlite::{
    Connection, ErrorCode, OpenFlags, OptionalExtension, TransactionBehavior, config::DbConfig,
    params,
};

use super::{
    checkpoint::WalSize,
    fault::DAMAGED_REMEDY,
    limits::{
        BUSY_WAIT, READER_CACHE_KIB, STATEMENTS_MAX, WAL_KEPT_BYTES, WAL_RETRY_PAUSE,
        WRITER_CACHE_KIB,
    },
    quick, sorted,
    wal::{self, WalFault},
};
use crate::seal::Sealer;

/// A kind of file: how it is marked, and every change of its schema, in order. One that has shipped is never edited.
pub(crate) struct Schema {
    /// Marks a SQLite file as ours, and of this kind.
    pub(crate) application_id: u32,
    pub(crate) migrations: &'static [&'static str],
}

/// `UTMS`.
const APPLICATION_ID: u32 = 0x5554_4D53;

pub(super) const SCHEMA: Schema = Schema { application_id: APPLICATION_ID, migrations: MIGRATIONS };

const MIGRATIONS: &[&str] = &[
    include_str!("../../migrations/sqlite/0001_first.sql"),
    include_str!("../../migrations/sqlite/0002_nonces_in_order.sql"),
    include_str!("../../migrations/sqlite/0003_emergencies.sql"),
    include_str!("../../migrations/sqlite/0004_emergencies_of_aircraft.sql"),
    include_str!("../../migrations/sqlite/0005_sealed_texts.sql"),
    include_str!("../../migrations/sqlite/0006_device_requests.sql"),
    include_str!("../../migrations/sqlite/0007_fleet.sql"),
    include_str!("../../migrations/sqlite/0008_rare_ends.sql"),
    include_str!("../../migrations/sqlite/0009_sorted_commands.sql"),
    include_str!("../../migrations/sqlite/0010_nonces_together.sql"),
    include_str!("../../migrations/sqlite/0011_lines_together.sql"),
];

/// SQLite takes a file of one byte for an empty one as well.
const EMPTY_MAX: u64 = 1;

/// Tables that are checked at every start: small ones, without which nothing works.
const CHECKED_TABLES: [&str; 9] = [
    "schema_migrations",
    "meta",
    "tenants",
    "credentials",
    "credential_secrets",
    "devices",
    "topologies",
    "motions",
    "nonces",
];

/// Why the store cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The file cannot be made or opened.
    #[error("the database {} cannot be opened; check that its folder exists and belongs to this user", .path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// The file is something else.
    #[error("{} is not a database of this program; name another file, or restore it from a backup", .0.display())]
    NotADatabase(PathBuf),
    /// A newer version of the program has written it.
    #[error("the database {} has schema version {found}, and this program knows only up to {known}; start the newer program, or restore the backup made before the upgrade", .path.display())]
    NewerSchema {
        /// The file.
        path: PathBuf,
        /// Its version.
        found: i64,
        /// The latest version this program knows.
        known: i64,
    },
    /// It cannot be written.
    #[error("the database {} is read-only; make it and its folder writable for this user", .0.display())]
    ReadOnly(PathBuf),
    /// Another process has been writing for long.
    #[error("the database {} has been locked by another process for {} s; end that process, or wait for it", .0.display(), BUSY_WAIT.as_secs())]
    Locked(PathBuf),
    /// The file is damaged.
    #[error("the database {} is damaged ({what}); {DAMAGED_REMEDY}", .path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// Where, in SQLite's words.
        what: String,
    },
    /// The write-ahead log beside the file does not fit.
    #[error("the write-ahead log {} {fault}; what it holds was accepted last: put the right file back, or see docs/recovery.md for starting without it", .path.display())]
    Log {
        /// The log.
        path: PathBuf,
        /// What is wrong with it.
        fault: WalFault,
    },
    /// A database was here, and its file is empty or gone.
    #[error("the database {} is {how}, and {} beside it is of one that was used; nothing was made in its place: put the file back or restore a backup, see docs/recovery.md, also for beginning anew on purpose", .path.display(), .trace.display())]
    Lost {
        /// The file.
        path: PathBuf,
        /// `missing` or `empty`.
        how: &'static str,
        /// What tells that it was used.
        trace: PathBuf,
    },
    /// There is no space.
    #[error("there is no space left for the database {}; free some", .0.display())]
    DiskFull(PathBuf),
    /// The secrets in it are encrypted under another key.
    #[error("the database {} was made with another master key, or the -wal beside it is another database's; start with the right key (its file or setting), without it the credentials in it are lost", .0.display())]
    WrongMasterKey(PathBuf),
    /// Anything else SQLite says.
    #[error("the database {} cannot be used", .path.display())]
    Sqlite {
        /// The file.
        path: PathBuf,
        /// The cause.
        #[source]
        source: rusqlite::Error,
    },
    /// The system gave no thread.
    #[error("no thread for the store could be started")]
    Thread(#[source] io::Error),
}

/// Makes the file if there is none, brings its schema up to date, and compares the master key. The connection it was done
/// with is to be kept until others are open: without one, the log would be read anew.
pub(super) fn prepare(path: &Path, sealer: &Sealer) -> Result<Connection, OpenError> {
    check_not_lost(path, &[])?;
    create_private(path).map_err(|source| OpenError::File { path: path.to_owned(), source })?;
    check_log(path)?;
    let mut conn = connect_and_leave(path).map_err(|err| explain(path, err))?;
    // SQLite opens a file it may not write for reading alone, and says so only at the first write.
    if conn.is_readonly(rusqlite::MAIN_DB).map_err(|err| explain(path, err))? {
        return Err(OpenError::ReadOnly(path.to_owned()));
    }
    migrate(&mut conn, path, &SCHEMA)?;
    check_key(&mut conn, path, sealer)?;
    sorted::begin(&conn).map_err(|err| explain(path, err))?;
    check_tables(&conn, path)?;
    Ok(conn)
}

/// Refuses a database that is empty or missing where one was used: SQLite would make a new one in its place, and delete the
/// log beside it. What was accepted, and every key and nonce, would be gone without a word. It was used where a log with
/// something in it, nonces, or one of these `others` lie beside it: all of them are made once the file has its first page.
///
/// # Errors
/// When it is so, or its folder cannot be read.
pub fn check_not_lost(database: &Path, others: &[&Path]) -> Result<(), OpenError> {
    let own = [wal::path_of(database), quick::path_of(database)];
    // A journal is there with other stores as well, and is full of zeros from the first start on.
    let others = others.iter().filter(|other| !is_blank(other));
    let traces = own.iter().map(PathBuf::as_path).chain(others.copied());
    // These first: another process may be making all of it just now, the database before them.
    for trace in traces {
        if length(trace)?.unwrap_or(0) == 0 {
            continue;
        }
        let how = match length(database)? {
            None => "missing",
            Some(0..=EMPTY_MAX) => "empty",
            Some(_) => return Ok(()),
        };
        return Err(OpenError::Lost { path: database.to_owned(), how, trace: trace.to_owned() });
    }
    Ok(())
}

/// Whether there is nothing but zeros in a file. One that cannot be read may hold anything.
fn is_blank(path: &Path) -> bool {
    let Ok(mut file) = fs::File::open(path) else { return !path.exists() };
    let mut some = vec![0; 64 * 1024];
    loop {
        match file.read(&mut some) {
            Ok(0) => return true,
            Ok(count) if some.iter().take(count).all(|byte| *byte == 0) => {}
            Ok(_) => return false,
            Err(err) => return err.kind() == io::ErrorKind::IsADirectory,
        }
    }
}

/// How long a file is; `None` where there is none. What is no file counts as an empty one.
fn length(path: &Path) -> Result<Option<u64>, OpenError> {
    match fs::metadata(path) {
        Ok(file) => Ok(Some(if file.is_file() { file.len() } else { 0 })),
        Err(err) if err.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(OpenError::File { path: path.to_owned(), source }),
    }
}

/// Looks at the write-ahead log before it is used. Whoever opens it for the last time copies what SQLite can read of it
/// and deletes it, so a log with damage must not be opened in the usual way.
pub(super) fn check_log(path: &Path) -> Result<(), OpenError> {
    let file = |source| OpenError::File { path: wal::path_of(path), source };
    let look = || wal::look(path, APPLICATION_ID).map_err(file);
    if look()?.is_none() {
        return Ok(());
    }
    // Another process may have been writing to it just now: seen again while none can, it counts.
    let conn = connect_and_leave(path).map_err(|err| explain(path, err))?;
    let explain = |err| explain(path, err);
    conn.execute_batch("BEGIN IMMEDIATE").map_err(explain)?;
    let found = look()?;
    conn.execute_batch("ROLLBACK").map_err(explain)?;
    match found {
        Some(fault) => Err(OpenError::Log { path: wal::path_of(path), fault }),
        None => Ok(()),
    }
}

/// Whether this is a database of ours.
pub(super) fn check_ours(conn: &Connection, path: &Path) -> Result<(), OpenError> {
    let sql = "PRAGMA application_id";
    let found: u32 = conn.query_row(sql, [], |row| row.get(0)).map_err(|err| explain(path, err))?;
    if found == APPLICATION_ID { Ok(()) } else { Err(OpenError::NotADatabase(path.to_owned())) }
}

/// Reads what every start relies on, to its end. The tables of commands are not among it: they are as long as the server
/// is old. Those that are open are read by whoever takes them over.
fn check_tables(conn: &Connection, path: &Path) -> Result<(), OpenError> {
    for table in CHECKED_TABLES {
        let sql = format!("PRAGMA quick_check('{table}')");
        let first: String =
            conn.query_row(&sql, [], |row| row.get(0)).map_err(|err| explain(path, err))?;
        if first != "ok" {
            let what = format!("table {table}: {}", first.replace('\n', " "));
            return Err(OpenError::Damaged { path: path.to_owned(), what });
        }
    }
    Ok(())
}

/// Makes an empty file that only its owner may read; one that is there already is refused.
pub(super) fn create_new(path: &Path) -> Result<(), OpenError> {
    let made = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path);
    made.map(drop).map_err(|source| OpenError::File { path: path.to_owned(), source })
}

pub(crate) fn create_private(path: &Path) -> io::Result<()> {
    match fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path) {
        Err(err) if err.kind() != io::ErrorKind::AlreadyExists => Err(err),
        Ok(_) | Err(_) => Ok(()),
    }
}

pub(crate) fn connect(path: &Path) -> rusqlite::Result<Connection> {
    let conn = Connection::open_with_flags(
        path,
        OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX,
    )?;
    settle(conn)
}

/// A connection that leaves the log alone when it closes. Whatever is refused must be left as it was: the log may be
/// another database's, and the last to close would pour it into this one.
pub(super) fn connect_and_leave(path: &Path) -> rusqlite::Result<Connection> {
    let conn = connect(path)?;
    conn.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)?;
    Ok(conn)
}

/// What every connection has.
fn settle(conn: Connection) -> rusqlite::Result<Connection> {
    conn.busy_timeout(BUSY_WAIT)?;
    // Otherwise SQLite looks at the values bound to a statement and, where they might bear on its plan, prepares the
    // statement anew at every run, which costs more than the run.
    conn.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true)?;
    conn.set_prepared_statement_cache_capacity(STATEMENTS_MAX);
    Ok(conn)
}

/// Brings a file's schema up to date.
pub(crate) fn migrate(
    conn: &mut Connection,
    path: &Path,
    schema: &Schema,
) -> Result<(), OpenError> {
    let explain = |err| explain(path, err);
    // In this order: whoever makes the first table has marked the file in the same transaction.
    let tables: i64 = conn
        .query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0))
        .map_err(explain)?;
    let application: u32 =
        conn.query_row("PRAGMA application_id", [], |row| row.get(0)).map_err(explain)?;
    if application != schema.application_id && tables > 0 {
        return Err(OpenError::NotADatabase(path.to_owned()));
    }
    let known = i64::try_from(schema.migrations.len()).unwrap_or(i64::MAX);
    let newer = |found| OpenError::NewerSchema { path: path.to_owned(), found, known };
    // Mostly there is nothing to do, and then no other process should have to wait.
    match version(conn).map_err(explain)? {
        found if found > known => return Err(newer(found)),
        found if found == known => return keep_wal(conn).map_err(explain),
        _ => {}
    }
    begin_wal(conn).map_err(explain)?;
    let tx = conn.transaction_with_behavior(TransactionBehavior::Immediate).map_err(explain)?;
    tx.execute_batch(&format!(
        "PRAGMA application_id = {};
         CREATE TABLE IF NOT EXISTS schema_migrations (version INTEGER PRIMARY KEY) STRICT;",
        schema.application_id
    ))
    .map_err(explain)?;
    // Another process may have been faster.
    let found = version(&tx).map_err(explain)?;
    if found > known {
        return Err(newer(found));
    }
    if found > 0 {
        tracing::info!(
            "the database {} is brought from schema {found} to {known}, which takes the longer the more is in it",
            path.display()
        );
    }
    for (number, sql) in (1..).zip(schema.migrations).filter(|(number, _)| *number > found) {
        tx.execute_batch(sql).map_err(explain)?;
        tx.execute("INSERT INTO schema_migrations (version) VALUES (?1)", params![number])
            .map_err(explain)?;
    }
    tx.commit().map_err(explain)
}

/// A copy, such as a backup, comes without the mode the server works in.
fn keep_wal(conn: &Connection) -> rusqlite::Result<()> {
    let mode: String = conn.query_row("PRAGMA journal_mode", [], |row| row.get(0))?;
    if mode == "wal" { Ok(()) } else { begin_wal(conn) }
}

/// Puts the file into WAL mode. SQLite first reads the file and then wants it to itself, and for that second step it
/// does not wait: of two processes that make a database together one is told at once that the file is busy.
fn begin_wal(conn: &Connection) -> rusqlite::Result<()> {
    conn.busy_timeout(Duration::ZERO)?;
    let mut tries = BUSY_WAIT.as_millis() / WAL_RETRY_PAUSE.as_millis();
    loop {
        match conn.query_row("PRAGMA journal_mode = WAL", [], |_| Ok(())) {
            Err(err) if err.sqlite_error_code() == Some(ErrorCode::DatabaseBusy) && tries > 0 => {
                tries -= 1;
                std::thread::sleep(WAL_RETRY_PAUSE);
            }
            Err(err) => return Err(err),
            Ok(()) => return conn.busy_timeout(BUSY_WAIT),
        }
    }
}

pub(super) fn version(conn: &Connection) -> rusqlite::Result<i64> {
    let sql =
        "SELECT count(*) FROM sqlite_schema WHERE type = 'table' AND name = 'schema_migrations'";
    if conn.query_row(sql, [], |row| row.get::<_, i64>(0))? == 0 {
        return Ok(0);
    }
    conn.query_row("SELECT coalesce(max(version), 0) FROM schema_migrations", [], |row| row.get(0))
}

fn check_key(conn: &mut Connection, path: &Path, sealer: &Sealer) -> Result<(), OpenError> {
    let explain = |err| explain(path, err);
    let read = |conn: &Connection| -> rusqlite::Result<Option<Vec<u8>>> {
        conn.query_row("SELECT value FROM meta WHERE name = 'key_check'", [], |row| row.get(0))
            .optional()
    };
    let kept = match read(conn).map_err(explain)? {
        Some(kept) => kept,
        None => {
            let tx =
                conn.transaction_with_behavior(TransactionBehavior::Immediate).map_err(explain)?;
            let sql = "INSERT OR IGNORE INTO meta (name, value) VALUES ('key_check', ?1)";
            tx.execute(sql, params![sealer.check()]).map_err(explain)?;
            let kept = read(&tx).map_err(explain)?.unwrap_or_default();
            tx.commit().map_err(explain)?;
            kept
        }
    };
    if kept == sealer.check() { Ok(()) } else { Err(OpenError::WrongMasterKey(path.to_owned())) }
}

pub(crate) fn explain(path: &Path, err: rusqlite::Error) -> OpenError {
    let path = path.to_owned();
    match err.sqlite_error_code() {
        Some(ErrorCode::NotADatabase) => OpenError::NotADatabase(path),
        Some(ErrorCode::ReadOnly | ErrorCode::PermissionDenied) => OpenError::ReadOnly(path),
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => OpenError::Locked(path),
        Some(ErrorCode::DiskFull) => OpenError::DiskFull(path),
        Some(ErrorCode::DatabaseCorrupt) => OpenError::Damaged { path, what: err.to_string() },
        _ => OpenError::Sqlite { path, source: err },
    }
}

/// The connection that writes. It never copies the WAL itself.
pub(super) fn writer(path: &Path, wal: &Arc<WalSize>) -> rusqlite::Result<Connection> {
    let mut conn = connect(path)?;
    conn.execute_batch(&format!(
        "PRAGMA synchronous = FULL;
         PRAGMA wal_autocheckpoint = 0;
         PRAGMA journal_size_limit = {WAL_KEPT_BYTES};
         PRAGMA foreign_keys = OFF;
         PRAGMA temp_store = MEMORY;
         PRAGMA cache_size = -{WRITER_CACHE_KIB};"
    ))?;
    let wal = wal.clone();
    conn.wal_hook(Some(move |_: &mut _, pages| {
        wal.committed(u32::try_from(pages).unwrap_or(0));
        Ok(())
    }))?;
    Ok(conn)
}

/// The connection that copies the WAL into the database. It does not wait for readers.
pub(super) fn checkpointer(path: &Path) -> rusqlite::Result<Connection> {
    let conn = connect(path)?;
    conn.busy_timeout(Duration::ZERO)?;
    conn.execute_batch("PRAGMA synchronous = FULL; PRAGMA wal_autocheckpoint = 0;")?;
    Ok(conn)
}

/// A connection that only reads.
pub(crate) fn reader(path: &Path) -> rusqlite::Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let conn = settle(Connection::open_with_flags(path, flags)?)?;
    conn.execute_batch(&format!(
        "PRAGMA temp_store = MEMORY; PRAGMA cache_size = -{READER_CACHE_KIB};"
    ))?;
    Ok(conn)
}

#[cfg(test)]
mod tests {
    use rusqlite::ffi;

    use super::*;

    #[test]
    fn what_sqlite_says_becomes_an_error_with_file_and_remedy() {
        let path = Path::new("/data/utmos.db");
        for (code, remedy) in [
            (ffi::SQLITE_READONLY, "writable"),
            (ffi::SQLITE_PERM, "writable"),
            (ffi::SQLITE_FULL, "free some"),
            (ffi::SQLITE_BUSY, "end that process"),
            (ffi::SQLITE_NOTADB, "restore it from a backup"),
            (ffi::SQLITE_CORRUPT, "utmos store check"),
        ] {
            let err = explain(path, rusqlite::Error::SqliteFailure(ffi::Error::new(code), None));
            let text = err.to_string();
            assert!(text.contains("/data/utmos.db") && text.contains(remedy), "{text}");
        }
    }
}
