//! Reading, and writing what is rare: on a connection of the pool, each in a transaction of its own.

use deadpool_postgres::{ClientWrapper, Transaction};
use tokio_postgres::{Row, types::ToSql};
use utmos_core::ports::StoreError;

use super::{
    PostgresStore,
    fault::{Fault, pool_error},
    limits::CROSSED_MAX,
};

/// What a statement takes.
pub(super) type Params<'a> = &'a [&'a (dyn ToSql + Sync)];

impl PostgresStore {
    /// One statement that reads, and so sees one moment.
    pub(super) async fn read(&self, sql: &str, params: Params<'_>) -> Result<Vec<Row>, StoreError> {
        let client = self.pool.get().await.map_err(|err| pool_error(&err))?;
        let rows = query(&client, sql, params).await;
        rows.map_err(Fault::into_error)
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
                let mut client = $store.pool.get().await?;
                let $tx = client.transaction().await?;
                let value = $work.await?;
                $crate::postgres::rare::commit($tx).await?;
                Ok(value)
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
