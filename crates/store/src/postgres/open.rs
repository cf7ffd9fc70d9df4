//! Opening the database: whether it can be reached, its schema, whether it is ours, and the settings of each connection.

use std::time::Duration;

use deadpool_postgres::{Hook, HookError, Manager, ManagerConfig, Pool, RecyclingMethod};
use sha2::{Digest, Sha256};
use tokio::task::AbortHandle;
use tokio_postgres::{Client, error::SqlState};
use utmos_core::ports::StoreError;

use super::{
    PostgresConfig,
    fault::{causes, to_store_error},
    limits::{CONNECT_WAIT, IDLE_WAIT, LOCK_WAIT, MIGRATION_WAIT, POOL_WAIT, STATEMENT_WAIT},
    tls::{MakeTls, TlsFault},
    upgrade,
    url::{PostgresUrl, mutual},
};
use crate::seal::Sealer;

/// Every change of the schema, in order. One that has shipped is never edited.
const MIGRATIONS: &[&str] = &[
    include_str!("../../migrations/postgres/0001_first.sql"),
    include_str!("../../migrations/postgres/0002_device_requests.sql"),
    include_str!("../../migrations/postgres/0003_import.sql"),
    include_str!("../../migrations/postgres/0004_replicas.sql"),
    include_str!("../../migrations/postgres/0005_rare_ends.sql"),
    include_str!("../../migrations/postgres/0006_fit.sql"),
    include_str!("../../migrations/postgres/0007_allowances.sql"),
    include_str!("../../migrations/postgres/0008_history.sql"),
    include_str!("../../migrations/postgres/0009_rows.sql"),
    include_str!("../../migrations/postgres/0010_batches.sql"),
    include_str!("../../migrations/postgres/0011_members.sql"),
    include_str!("../../migrations/postgres/0012_lines_together.sql"),
    include_str!("../../migrations/postgres/0013_lines.sql"),
];

/// The oldest PostgreSQL, as `server_version_num` has it.
const OLDEST: i32 = 140_000;

/// Held while the schema is looked at and changed. `UTMS` and a number.
const MIGRATION_LOCK: i64 = 0x5554_4D53_0000_0001;

/// In `meta`, while a SQLite database is taken over.
pub(super) const IMPORTING: &str = "importing";

/// In `meta`, once the database is taken over into SQLite, and for good.
pub(super) const EXPORTED: &str = "exported";

/// With this SQLSTATE ends a connection of a server to a database that is closed to servers; what it says is the mark.
pub(super) const CLOSED: &str = "UT001";

/// Refuses a connection where the database is closed to servers. A start looks for that by itself ([`prepare`]). A server that
/// was cut off while the database was closed does not start: it comes back by its next connection.
pub(super) const REFUSE_IF_CLOSED: &str = "
    DO $$ DECLARE mark text := (
        SELECT name FROM meta WHERE name IN ('importing', 'exported') ORDER BY name DESC LIMIT 1);
    BEGIN
        IF mark IS NOT NULL THEN RAISE EXCEPTION '%', mark USING ERRCODE = 'UT001'; END IF;
    END $$";

/// Finds out whether there is space for some rows: what fits into pages that are there says nothing of that. In a table of its
/// own, undone, on the disk of the others. Where the user may make none it is not tried.
pub(super) const TRY_SPACE: &str = "
    BEGIN;
    SET LOCAL temp_tablespaces = '';
    DO $$ BEGIN
        CREATE TEMPORARY TABLE utmos_try (bytes bytea) ON COMMIT DROP;
        ALTER TABLE utmos_try ALTER bytes SET STORAGE EXTERNAL;
        INSERT INTO utmos_try
            SELECT convert_to(repeat(md5(n::text), 250), 'UTF8') FROM generate_series(1, 16) AS n;
    EXCEPTION WHEN insufficient_privilege THEN NULL;
    END $$;
    ROLLBACK";

/// What a running server is told of a database that is closed to servers.
pub(super) fn closed_by(mark: &str) -> &'static str {
    match mark {
        IMPORTING => {
            "the database is being filled from a SQLite database and closed to servers until everything is there; stop this server, and start it when utmos store import has ended"
        }
        _ => {
            "the database was exported into a SQLite database and is closed to servers, for what waits in it would be sent twice; stop this server, and start the one that has that file (store.url = \"\")"
        }
    }
}

/// Why the database cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum PostgresOpenError {
    /// It cannot be reached or does not let us in.
    #[error("{database}: {why}")]
    Unavailable {
        /// Its address, without secrets.
        database: String,
        /// Why, with the remedy.
        why: String,
    },
    /// TLS cannot be set up.
    #[error("TLS to {database} cannot be set up")]
    Tls {
        /// Its address, without secrets.
        database: String,
        /// The cause.
        #[source]
        source: TlsFault,
    },
    /// A newer server made it.
    #[error(
        "{database} has schema {found}, made by a newer version; this one knows schemas up to {known}: install that version or restore the backup from before"
    )]
    NewerSchema {
        /// Its address, without secrets.
        database: String,
        /// Its schema.
        found: i32,
        /// Ours.
        known: i32,
    },
    /// Nobody brought it up to date.
    #[error("{database} has schema {found}, this version needs {known}; run: utmos store migrate")]
    OlderSchema {
        /// Its address, without secrets.
        database: String,
        /// Its schema; 0 when it has none.
        found: i32,
        /// Ours.
        known: i32,
    },
    /// A server is at work on it, and its schema would have to be changed under that.
    #[error(
        "{database} has schema {found}, which this version would bring to {known}, and server {server} is at work on it: stop every server of this database first, then start this version"
    )]
    AtWork {
        /// Its address, without secrets.
        database: String,
        /// Its schema.
        found: i32,
        /// Ours.
        known: i32,
        /// Who, with its version where that is known.
        server: String,
    },
    /// A migration is not what this version would have done.
    #[error(
        "{database}: migration {number} was applied in another form than this version knows; it belongs to another program or build: restore the backup or use another database"
    )]
    Altered {
        /// Its address, without secrets.
        database: String,
        /// Which.
        number: i32,
    },
    /// Its secrets were encrypted under another master key.
    #[error(
        "{0} was made with another master key; every server needs the same: put the right key into the key file"
    )]
    OtherMasterKey(String),
    /// A SQLite database is being taken over, or was in part.
    #[error(
        "{0} is being filled from a SQLite database, and not everything is there; run once more: utmos store import"
    )]
    Unfinished(String),
    /// It was taken over into a SQLite database, or is about to be.
    #[error(
        "{0} was exported into a SQLite database: what waits in it would be sent twice; to go on with this one all the same, put the other away and run in it: DELETE FROM meta WHERE name = 'exported'"
    )]
    Exported(String),
    /// A migration failed and was rolled back.
    #[error("{database}: migration {number} failed and was undone: {why}")]
    Migration {
        /// Its address, without secrets.
        database: String,
        /// Which.
        number: i32,
        /// Why.
        why: String,
    },
}

/// How an address is named in errors, and what can be said of it.
pub(super) struct Named<'a>(pub(super) &'a PostgresUrl);

impl Named<'_> {
    pub(super) fn name(&self) -> String {
        self.0.to_string()
    }

    pub(super) fn explain(&self, err: &tokio_postgres::Error) -> PostgresOpenError {
        self.unavailable(to_store_error(err))
    }

    pub(super) fn unavailable(&self, error: StoreError) -> PostgresOpenError {
        let (StoreError::Unavailable(why) | StoreError::Damaged(why)) = error;
        PostgresOpenError::Unavailable { database: self.name(), why }
    }
}

/// A connection with the settings of this store, and the task that drives it.
pub(super) async fn connect(
    url: &PostgresUrl,
    tls: &MakeTls,
) -> Result<Client, tokio_postgres::Error> {
    Ok(connect_driven(url, tls).await?.0)
}

async fn connect_driven(
    url: &PostgresUrl,
    tls: &MakeTls,
) -> Result<(Client, AbortHandle), tokio_postgres::Error> {
    let (client, connection) = url.config().connect(tls.clone()).await?;
    let driver = tokio::spawn(async move {
        if let Err(err) = connection.await {
            tracing::debug!("a connection to PostgreSQL ended: {}", causes(&err));
        }
    });
    client.batch_execute(&settings(STATEMENT_WAIT)).await?;
    Ok((client, driver.abort_handle()))
}

/// A connection on which a server works, and what breaks it off: none to a database that is closed to servers.
pub(super) async fn connect_to_serve(
    url: &PostgresUrl,
    tls: &MakeTls,
) -> Result<(Client, AbortHandle), tokio_postgres::Error> {
    let (client, driver) = connect_driven(url, tls).await?;
    client.batch_execute(REFUSE_IF_CLOSED).await?;
    Ok((client, driver))
}

/// A connection for long work, on which nothing else waits.
pub(super) async fn connect_patiently(
    config: &PostgresConfig,
    tls: &MakeTls,
) -> Result<Client, PostgresOpenError> {
    let named = Named(&config.url);
    let client = connect(&config.url, tls).await.map_err(|err| named.explain(&err))?;
    let patient = "SET statement_timeout = 0; SET idle_in_transaction_session_timeout = 0";
    client.batch_execute(patient).await.map_err(|err| named.explain(&err))?;
    Ok(client)
}

/// The TLS side of connections.
pub(super) fn tls(config: &PostgresConfig) -> Result<MakeTls, PostgresOpenError> {
    config
        .url
        .tls()
        .map_err(|source| PostgresOpenError::Tls { database: config.url.to_string(), source })
}

/// What every connection is set to. A commit is on the disk when it returns, whatever the server's own setting is; one
/// that asks more of its standbys stays. Statements here look rows up by an index: what the planner knows of a partition
/// that was empty a minute ago can only mislead it.
fn settings(statement: Duration) -> String {
    format!(
        "SET statement_timeout = {}; SET lock_timeout = {}; SET idle_in_transaction_session_timeout = {};
         SELECT set_config('synchronous_commit', 'on', false)
             WHERE current_setting('synchronous_commit') IN ('off', 'local', 'remote_write');
         SET default_transaction_isolation = 'read committed'; SET client_min_messages = warning; SET timezone = 'UTC';
         SET jit = off; SET enable_seqscan = off; SET enable_hashjoin = off; SET enable_mergejoin = off;
         SET plan_cache_mode = force_generic_plan; {}",
        statement.as_millis(),
        LOCK_WAIT.as_millis(),
        IDLE_WAIT.as_millis(),
        mutual(),
    )
}

/// A pool of connections that read, and that write what is rare. `more` is done on each that is made.
pub(super) fn pool(
    config: &PostgresConfig,
    tls: &MakeTls,
    connections: usize,
    more: &'static str,
) -> Result<Pool, String> {
    let manager = Manager::from_config(
        config.url.config().clone(),
        tls.clone(),
        ManagerConfig { recycling_method: RecyclingMethod::Fast },
    );
    Pool::builder(manager)
        .max_size(connections)
        // The one that was used last: what PostgreSQL and the processor remember of it is still there.
        .queue_mode(deadpool_postgres::QueueMode::Lifo)
        .runtime(deadpool_postgres::Runtime::Tokio1)
        .wait_timeout(Some(POOL_WAIT))
        .create_timeout(Some(CONNECT_WAIT))
        .recycle_timeout(Some(CONNECT_WAIT))
        .post_create(Hook::async_fn(move |client, _| {
            Box::pin(async move {
                let settings = format!("{}; {REFUSE_IF_CLOSED}; {more}", settings(STATEMENT_WAIT));
                client.batch_execute(&settings).await.map_err(HookError::Backend)
            })
        }))
        .build()
        .map_err(|err| err.to_string())
}

/// Whether the schema may be changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Migrate {
    Yes,
    /// It may, and the database need not be whole.
    ForImport,
    /// It is only looked at.
    No,
}

/// Brings the schema up to date and checks it, the master key and the settings that must be.
pub(super) async fn prepare(
    config: &PostgresConfig,
    tls: &MakeTls,
    sealer: &Sealer,
    migrate: Migrate,
) -> Result<(), PostgresOpenError> {
    let named = Named(&config.url);
    let explain = |err: tokio_postgres::Error| named.explain(&err);
    let mut client = connect(&config.url, tls).await.map_err(explain)?;
    check_fitness(&client, &named).await?;
    check_settings(&client, &named).await?;
    let found = applied(&client, &named).await?;
    if migrate != Migrate::No && found < known() {
        migrate_from(&mut client, &named).await?;
    } else if found < known() {
        return Err(PostgresOpenError::OlderSchema {
            database: named.name(),
            found,
            known: known(),
        });
    }
    check_key(&client, sealer, &named).await?;
    if migrate == Migrate::Yes {
        client.batch_execute(TRY_SPACE).await.map_err(explain)?;
    }
    match migrate {
        Migrate::ForImport => Ok(()),
        Migrate::Yes | Migrate::No => check_whole(&client, &named).await,
    }
}

/// No server may work on a part of what was, or on what another works on.
pub(super) async fn check_whole(
    client: &Client,
    named: &Named<'_>,
) -> Result<(), PostgresOpenError> {
    let sql = "SELECT name FROM meta WHERE name IN ($1, $2) ORDER BY name DESC";
    let found = client.query_opt(sql, &[&IMPORTING, &EXPORTED]).await;
    let Some(row) = found.map_err(|err| named.explain(&err))? else { return Ok(()) };
    match row.try_get::<_, &str>(0).map_err(|err| named.explain(&err))? {
        IMPORTING => Err(PostgresOpenError::Unfinished(named.name())),
        _ => Err(PostgresOpenError::Exported(named.name())),
    }
}

pub(super) fn known() -> i32 {
    i32::try_from(MIGRATIONS.len()).unwrap_or(i32::MAX)
}

fn checksum(sql: &str) -> Vec<u8> {
    Sha256::digest(sql.as_bytes()).to_vec()
}

/// How many migrations were applied; whether they are ours.
pub(super) async fn applied(client: &Client, named: &Named<'_>) -> Result<i32, PostgresOpenError> {
    let found =
        client.query("SELECT version, checksum FROM schema_migrations ORDER BY version", &[]).await;
    let rows = match found {
        Ok(rows) => rows,
        Err(err) if err.code() == Some(&SqlState::UNDEFINED_TABLE) => return Ok(0),
        Err(err) => return Err(named.explain(&err)),
    };
    let mut newest = 0;
    for row in rows {
        let read = |err: tokio_postgres::Error| named.explain(&err);
        let (number, kept): (i32, Vec<u8>) =
            (row.try_get(0).map_err(read)?, row.try_get(1).map_err(read)?);
        newest = newest.max(number);
        let ours = usize::try_from(number - 1).ok().and_then(|at| MIGRATIONS.get(at));
        if ours.is_some_and(|sql| checksum(sql) != kept) {
            return Err(PostgresOpenError::Altered { database: named.name(), number });
        }
    }
    if newest > known() {
        return Err(PostgresOpenError::NewerSchema {
            database: named.name(),
            found: newest,
            known: known(),
        });
    }
    Ok(newest)
}

/// Runs what is missing, all or nothing, while every other server waits for it.
async fn migrate_from(client: &mut Client, named: &Named<'_>) -> Result<(), PostgresOpenError> {
    let explain = |err: tokio_postgres::Error| named.explain(&err);
    let wait = MIGRATION_WAIT.as_millis();
    let patient = format!("SET statement_timeout = {wait}; SET lock_timeout = {wait}");
    client.batch_execute(&patient).await.map_err(explain)?;
    // Held by the session and not by the transaction: whoever waited for it must see what the other one committed.
    client.query("SELECT pg_advisory_lock($1)", &[&MIGRATION_LOCK]).await.map_err(explain)?;
    let found = applied(client, named).await?;
    if found >= known() {
        // Whoever was waited for has done it.
        return Ok(());
    }
    let silent = upgrade::nobody_is_at_work(client, named, found).await?;
    let tx = client.transaction().await.map_err(explain)?;
    upgrade::dissolve_silent(&tx, silent, named, found).await?;
    tx.batch_execute(
        "CREATE TABLE IF NOT EXISTS schema_migrations (
             version integer PRIMARY KEY, checksum bytea NOT NULL, applied_at timestamptz NOT NULL DEFAULT now())",
    )
    .await
    .map_err(explain)?;
    for (number, sql) in (1_i32..).zip(MIGRATIONS).filter(|(number, _)| *number > found) {
        let failed = |err: tokio_postgres::Error| {
            let (StoreError::Unavailable(why) | StoreError::Damaged(why)) = to_store_error(&err);
            PostgresOpenError::Migration { database: named.name(), number, why }
        };
        tx.batch_execute(sql).await.map_err(failed)?;
        tx.execute(
            "INSERT INTO schema_migrations (version, checksum) VALUES ($1, $2)",
            &[&number, &checksum(sql)],
        )
        .await
        .map_err(failed)?;
    }
    tx.commit().await.map_err(explain)?;
    // The lock ends with the connection at the latest.
    drop(client.query("SELECT pg_advisory_unlock($1)", &[&MIGRATION_LOCK]).await);
    Ok(())
}

/// The first server to come leaves the mark of its master key; every other must have the same.
async fn check_key(
    client: &Client,
    sealer: &Sealer,
    named: &Named<'_>,
) -> Result<(), PostgresOpenError> {
    let explain = |err: tokio_postgres::Error| named.explain(&err);
    let mark = sealer.check().as_slice();
    client
        .execute(
            "INSERT INTO meta (name, value) VALUES ('key_check', $1) ON CONFLICT DO NOTHING",
            &[&mark],
        )
        .await
        .map_err(explain)?;
    let row = client
        .query_one("SELECT value FROM meta WHERE name = 'key_check'", &[])
        .await
        .map_err(explain)?;
    let kept: &[u8] = row.try_get(0).map_err(explain)?;
    match kept == mark {
        true => Ok(()),
        false => Err(PostgresOpenError::OtherMasterKey(named.name())),
    }
}

/// What no setting can mend while it runs: a PostgreSQL that is too old, and a database that cannot hold every text.
pub(super) async fn check_fitness(
    client: &Client,
    named: &Named<'_>,
) -> Result<(), PostgresOpenError> {
    let explain = |err: tokio_postgres::Error| named.explain(&err);
    let sql =
        "SELECT current_setting('server_version_num')::integer, current_setting('server_version'),
                   current_setting('server_encoding')";
    let row = client.query_one(sql, &[]).await.map_err(explain)?;
    let (number, version, encoding): (i32, String, String) = (
        row.try_get(0).map_err(explain)?,
        row.try_get(1).map_err(explain)?,
        row.try_get(2).map_err(explain)?,
    );
    match unfit(number, &version, &encoding) {
        None => Ok(()),
        Some(why) => Err(PostgresOpenError::Unavailable { database: named.name(), why }),
    }
}

fn unfit(number: i32, version: &str, encoding: &str) -> Option<String> {
    if number < OLDEST {
        return Some(format!(
            "PostgreSQL {version} is too old, version {} or later is needed: upgrade it (pg_upgrade), or name another server in store.url",
            OLDEST / 10_000
        ));
    }
    (encoding != "UTF8").then(|| {
        format!(
            "the database has the encoding {encoding}, which cannot hold every text that devices and callers send: make it anew with createdb \
             --encoding=UTF8 --template=template0 (and --locale=C.UTF-8 where it says that the locale does not match)"
        )
    })
}

/// Warns of what somebody chose for the whole server and a power cut would punish.
async fn check_settings(client: &Client, named: &Named<'_>) -> Result<(), PostgresOpenError> {
    let explain = |err: tokio_postgres::Error| named.explain(&err);
    let sql = "SELECT current_setting('fsync'), current_setting('full_page_writes')";
    let row = client.query_one(sql, &[]).await.map_err(explain)?;
    for (at, setting) in ["fsync", "full_page_writes"].into_iter().enumerate() {
        let found: String = row.try_get(at).map_err(explain)?;
        if found != "on" {
            tracing::warn!(
                "{setting} of {} is {found}: a power cut can lose or damage what is stored; set it to on in its postgresql.conf",
                named.name()
            );
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::unfit;

    #[test]
    fn a_postgresql_that_is_too_old_is_refused_with_its_version() {
        for (number, version, is_refused) in
            [(130_014, "13.14", true), (140_000, "14.0", false), (170_002, "17.2", false)]
        {
            let why = unfit(number, version, "UTF8");
            assert_eq!(why.is_some(), is_refused, "{version}: {why:?}");
            assert!(why.is_none_or(|why| why.contains(version) && why.contains("version 14")));
        }
    }
}
