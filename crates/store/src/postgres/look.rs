//! What can be said of a database without its master key: whether it is reached, what it holds, and whether it takes writes.

use std::fmt;

use tokio_postgres::Client;

use super::{
    PostgresOpenError, PostgresStore,
    open::{self, Named},
    url::PostgresUrl,
};

/// Some MB in a table of its own, undone: a right that is missing, a database that is read-only and a disk that is full say so.
const TRY: &str = "
    BEGIN;
    CREATE TABLE utmos_doctor (bytes bytea);
    ALTER TABLE utmos_doctor ALTER bytes SET STORAGE EXTERNAL;
    INSERT INTO utmos_doctor
        SELECT convert_to(repeat(md5(n::text), 250), 'UTF8') FROM generate_series(1, 1024) AS n;
    ROLLBACK";

/// What was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Looked {
    /// PostgreSQL's version.
    pub version: String,
    /// The schema; 0 where there is none yet.
    pub schema: i32,
    /// The schema of this program.
    pub known_schema: i32,
    /// How much the database holds.
    pub bytes: u64,
    /// Weeks of commands, each of which has tables of its own.
    pub weeks: WeeksKept,
}

/// Weeks of commands with which PostgreSQL gets along as it is installed, with so many locks for each transaction.
const WEEKS_MAX: u64 = 40;
const USUAL_LOCKS: u64 = 64;

/// Each week has tables of its own, and each of these a place in PostgreSQL's table of locks where a statement goes through all.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WeeksKept {
    /// Weeks of commands.
    pub weeks: u64,
    /// PostgreSQL's `max_locks_per_transaction`.
    pub locks: u64,
}

impl WeeksKept {
    /// Whether something should be done before PostgreSQL runs out of locks.
    #[must_use]
    pub const fn are_too_many(&self) -> bool {
        self.weeks > WEEKS_MAX * self.locks / USUAL_LOCKS
    }

    /// What can be done.
    pub const REMEDY: &str = "let the servers drop old weeks (store.commands_keep_days) or do it once a day (utmos store tidy --older-than DAYS), or raise max_locks_per_transaction to 256";
}

impl fmt::Display for WeeksKept {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { weeks, locks } = self;
        write!(
            f,
            "commands of {weeks} weeks are kept, and with more than a year of weeks PostgreSQL runs out of locks (max_locks_per_transaction = {locks})"
        )
    }
}

impl PostgresStore {
    /// Counts the weeks of commands, on a connection of its own.
    ///
    /// # Errors
    /// When the database cannot be reached.
    pub async fn weeks_kept(url: &PostgresUrl) -> Result<WeeksKept, PostgresOpenError> {
        let tls = url
            .tls()
            .map_err(|source| PostgresOpenError::Tls { database: url.to_string(), source })?;
        let named = Named(url);
        let explain = |err: tokio_postgres::Error| named.explain(&err);
        let client = open::connect(url, &tls).await.map_err(explain)?;
        count_weeks(&client).await.map_err(explain)
    }

    /// Looks at a database, and leaves nothing in it.
    ///
    /// # Errors
    /// When no server could work on it; the error names it and the remedy.
    pub async fn look(url: &PostgresUrl) -> Result<Looked, PostgresOpenError> {
        let tls = url
            .tls()
            .map_err(|source| PostgresOpenError::Tls { database: url.to_string(), source })?;
        let named = Named(url);
        let explain = |err: tokio_postgres::Error| named.explain(&err);
        let client = open::connect(url, &tls).await.map_err(explain)?;
        open::check_fitness(&client, &named).await?;
        let schema = open::applied(&client, &named).await?;
        if schema > 0 {
            open::check_whole(&client, &named).await?;
            check_owner(&client, &named).await?;
        }
        client.batch_execute(TRY).await.map_err(explain)?;
        let sql = "
            SELECT current_setting('server_version'), pg_database_size(current_database())";
        let row = client.query_one(sql, &[]).await.map_err(explain)?;
        let bytes = row.try_get::<_, i64>(1).map_err(explain)?.unsigned_abs();
        Ok(Looked {
            version: row.try_get(0).map_err(explain)?,
            schema,
            known_schema: open::known(),
            bytes,
            weeks: count_weeks(&client).await.map_err(explain)?,
        })
    }
}

async fn count_weeks(client: &Client) -> Result<WeeksKept, tokio_postgres::Error> {
    let sql = "
        SELECT (SELECT count(*) FROM pg_inherits WHERE inhparent = to_regclass('commands')),
            current_setting('max_locks_per_transaction')::bigint";
    let row = client.query_one(sql, &[]).await?;
    let count = |at: usize| row.try_get::<_, i64>(at).map(i64::unsigned_abs);
    Ok(WeeksKept { weeks: count(0)?, locks: count(1)? })
}

/// Only an owner of its table may add a partition.
async fn check_owner(client: &Client, named: &Named<'_>) -> Result<(), PostgresOpenError> {
    let sql = "SELECT c.oid::regclass::text, pg_get_userbyid(c.relowner) FROM pg_class c
               WHERE c.oid = to_regclass('commands') AND NOT pg_has_role(c.relowner, 'USAGE')";
    let explain = |err: tokio_postgres::Error| named.explain(&err);
    let Some(row) = client.query_opt(sql, &[]).await.map_err(explain)? else { return Ok(()) };
    let (table, owner): (String, String) =
        (row.try_get(0).map_err(explain)?, row.try_get(1).map_err(explain)?);
    let why = format!(
        "the table {table} belongs to user {owner}, and the server makes a partition of it each week; use that user, or let this one own \
         everything (REASSIGN OWNED BY {owner} TO …)"
    );
    Err(PostgresOpenError::Unavailable { database: named.name(), why })
}
