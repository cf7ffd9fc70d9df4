//! Reading, and writing what is rare: on a connection of the pool, each in a transaction of its own.

use deadpool_postgres::{ClientWrapper, Object, Transaction};
use tokio::time::error::Elapsed;
use tokio_postgres::{Row, types::ToSql};
use utmos_core::ports::StoreError;

use super::{
    PostgresStore,
    fault::{Fault, pool_error, silent},
    limits::CROSSED_MAX,
};

/// What a statement takes.
pub(super) type Params<'a> = &'a [&'a (dyn ToSql + Sync)];

/// Work on a connection of a pool, for which PostgreSQL has a bounded time: `answered!(connection, |client| work)`, where `work` is
/// a future of `Result<_, Fault>`. Its own time-outs come first; this one is for a PostgreSQL, or a way to it, that says
/// nothing at all. A connection on which an answer is owed is given up: whoever had it next would wait behind that.
macro_rules! answered {
    ($connection:expr, |$client:ident| $work:expr) => {{
        let mut connection: deadpool_postgres::Object = $connection;
        let done = {
            let $client: &mut deadpool_postgres::ClientWrapper = &mut connection;
            tokio::time::timeout($crate::postgres::limits::ANSWER_WAIT, $work).await
        };
        $crate::postgres::rare::ended(done, connection)
    }};
}
pub(super) use answered;

/// What became of work that had a bounded time.
pub(super) fn ended<T>(
    done: Result<Result<T, Fault>, Elapsed>,
    connection: Object,
) -> Result<T, Fault> {
    done.unwrap_or_else(|_| {
        drop(Object::take(connection));
        Err(silent())
    })
}

impl PostgresStore {
    /// One statement that reads, and so sees one moment.
    pub(super) async fn read(&self, sql: &str, params: Params<'_>) -> Result<Vec<Row>, StoreError> {
        let client = self.pool.get().await.map_err(|err| pool_error(&err))?;
        answered!(client, |client| query(client, sql, params)).map_err(Fault::into_error)
    }
}

/// Several statements that change rows, all or nothing: `rarely!(store, |tx| work(&tx, …))`, where `work` is a future of
/// `Result<_, Fault>`. It is made anew when another transaction crossed it, and so must start from nothing each time. A
/// commit whose answer is lost is an error: it may have been written.
macro_rules! rarely {
    ($store:expr, |$tx:ident| $work:expr) => {{
        let mut tries = 0;
        loop {
            let attempt = async {
                let connection = $store.pool.get().await?;
                $crate::postgres::rare::answered!(connection, |client| async {
                    let $tx = client.transaction().await?;
                    let value = $work.await?;
                    $crate::postgres::rare::commit($tx).await?;
                    Ok::<_, $crate::postgres::fault::Fault>(value)
                })
            };
            if let Some(answer) = $crate::postgres::rare::settle(attempt.await, &mut tries) {
                break answer;
            }
        }
    }};
}
pub(super) use rarely;

/// An error of the commit itself is not tried again, whatever it is.
pub(super) async fn commit(tx: Transaction<'_>) -> Result<(), Fault> {
    tx.commit().await.map_err(|err| Fault::Everyone(Fault::from(err).into_error()))
}

/// The answer to a caller; `None` to try again.
pub(super) fn settle<T>(
    attempt: Result<T, Fault>,
    tries: &mut u32,
) -> Option<Result<T, StoreError>> {
    match attempt {
        Err(Fault::Crossed(_)) if *tries < CROSSED_MAX => {
            *tries += 1;
            None
        }
        other => Some(other.map_err(Fault::into_error)),
    }
}

/// A statement on a connection of the pool, prepared once for each.
pub(super) async fn query(
    client: &ClientWrapper,
    sql: &str,
    params: Params<'_>,
) -> Result<Vec<Row>, Fault> {
    let statement = client.prepare_cached(sql).await?;
    Ok(client.query(&statement, params).await?)
}

/// A statement of a transaction that reads.
pub(super) async fn select(
    tx: &Transaction<'_>,
    sql: &str,
    params: Params<'_>,
) -> Result<Vec<Row>, Fault> {
    let statement = tx.prepare_cached(sql).await?;
    Ok(tx.query(&statement, params).await?)
}

/// A statement of a transaction that changes rows; answers how many.
pub(super) async fn execute(
    tx: &Transaction<'_>,
    sql: &str,
    params: Params<'_>,
) -> Result<u64, Fault> {
    let statement = tx.prepare_cached(sql).await?;
    Ok(tx.execute(&statement, params).await?)
}
