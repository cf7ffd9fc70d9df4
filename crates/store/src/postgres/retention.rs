//! Weeks that are made ahead, and old ones that go: three tables each, not row by row.
//!
//! A week stays as long as anything in it needs somebody to look after it. Its keys go before its commands: a key whose
//! command is gone would be damage, and a command whose key is gone is only one that can be asked for anew.

use std::{collections::BTreeSet, time::Duration};

use tokio_postgres::{Client, error::SqlState};
use utmos_core::time::Timestamp;
use uuid::Uuid;

use super::{
    PostgresConfig, PostgresOpenError, PostgresStore,
    cells::millis,
    fault::to_store_error,
    open::{self, Migrate, Named, REFUSE_IF_CLOSED},
    partitions::{PARTITION_LOCK, Week, Weeks},
};
use crate::seal::Sealer;

/// How far ahead weeks are made.
const AHEAD: Duration = Duration::from_hours(24 * 7);
/// Of whoever drops weeks, as long as its connection lives. `UTMS` and a number.
const TURN_LOCK: i64 = 0x5554_4D53_0000_0007;
/// Keys that are forgotten in one transaction.
const KEYS_AT_A_TIME: i64 = 5_000;
/// How long the tables may be locked for everybody while a week goes. What needs longer is left for the next time.
const DROP_WAIT: &str = "500ms";

/// What was done to the weeks.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct WeeksTidied {
    /// Old weeks that went.
    pub dropped: usize,
    /// Old weeks that stay, since something in them still needs somebody to look after it.
    pub needed: usize,
    /// Old weeks that stay, since others were at work on them. They go the next time.
    pub busy: usize,
    /// Another is doing the same: nothing was done.
    pub is_under_way: bool,
}

impl PostgresStore {
    /// Makes the weeks of this and the next seven days, and drops those that ended more than `keep` ago with their
    /// commands, timelines and keys, by `now` as well as by the database's clock. Servers may run meanwhile; one does this at a
    /// time.
    ///
    /// # Errors
    /// When the database cannot be opened or written.
    pub async fn tidy_weeks(
        config: &PostgresConfig,
        now: Timestamp,
        keep: Duration,
    ) -> Result<WeeksTidied, PostgresOpenError> {
        let tls = open::tls(config)?;
        open::prepare(config, &tls, &Sealer::new(&config.master_key), Migrate::No).await?;
        let mut client = open::connect_patiently(config, &tls).await?;
        let named = Named(&config.url);
        let explain = |error| named.unavailable(error);
        let failed = |err: tokio_postgres::Error| explain(to_store_error(&err));
        // It may have been closed after it was looked at.
        client.batch_execute(REFUSE_IF_CLOSED).await.map_err(failed)?;
        // What is old is so by the database's clock as well: a server whose own is ahead drops nothing that others need.
        let sql = "SELECT pg_try_advisory_lock($1), least($2, (extract(epoch FROM now()) * 1000)::bigint)";
        let turn = client.query_one(sql, &[&TURN_LOCK, &now.as_millis()]).await.map_err(failed)?;
        if !turn.try_get::<_, bool>(0).map_err(failed)? {
            return Ok(WeeksTidied { is_under_way: true, ..WeeksTidied::default() });
        }
        let now = Timestamp::from_millis(turn.try_get(1).map_err(failed)?);
        let ahead: BTreeSet<Week> = [now, now.plus(AHEAD)].into_iter().map(Week::at).collect();
        Weeks::default()
            .ensure(&mut client, &ahead)
            .await
            .map_err(|fault| explain(fault.into_error()))?;
        let mut tidied = WeeksTidied::default();
        let oldest = Week::at(Timestamp::from_millis(now.as_millis().saturating_sub(millis(keep))));
        for week in known(&client).await.map_err(failed)? {
            if week < oldest {
                let gone = drop_week(&mut client, week).await;
                match gone.map_err(failed)? {
                    Gone::Yes => tidied.dropped += 1,
                    Gone::Needed => tidied.needed += 1,
                    Gone::Busy => tidied.busy += 1,
                }
            }
        }
        Ok(tidied)
    }
}

enum Gone {
    Yes,
    Needed,
    Busy,
}

async fn known(client: &Client) -> Result<Vec<Week>, tokio_postgres::Error> {
    let sql = "SELECT substring(c.relname from '^commands_w([0-9]+)$')::bigint
               FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
               WHERE i.inhparent = 'commands'::regclass AND c.relname ~ '^commands_w[0-9]+$' ORDER BY 1";
    let rows = client.query(sql, &[]).await?;
    rows.iter().map(|row| row.try_get(0).map(Week::numbered)).collect()
}

async fn drop_week(client: &mut Client, week: Week) -> Result<Gone, tokio_postgres::Error> {
    if is_needed(client, week).await? {
        return Ok(Gone::Needed);
    }
    forget_keys(client, week).await?;
    match drop_tables(client, week).await {
        Err(err) if is_in_the_way(&err) => Ok(Gone::Busy),
        other => other.map(|()| Gone::Yes),
    }
}

async fn is_needed(client: &Client, week: Week) -> Result<bool, tokio_postgres::Error> {
    let (begin, end) = range(week);
    let sql = "SELECT EXISTS (SELECT FROM lives WHERE id >= $1 AND id < $2 AND needs_care)
                   OR EXISTS (SELECT FROM motions WHERE command >= $1 AND command < $2)";
    client.query_one(sql, &[&begin, &end]).await?.try_get(0)
}

async fn forget_keys(client: &Client, week: Week) -> Result<(), tokio_postgres::Error> {
    let (begin, end) = range(week);
    let sql = "DELETE FROM idempotency WHERE key IN (
                   SELECT key FROM idempotency WHERE command >= $1 AND command < $2 LIMIT $3)";
    while client.execute(sql, &[&begin, &end, &KEYS_AT_A_TIME]).await? > 0 {}
    // What was handed to a server and never taken in: all of it has ended.
    let sql = "DELETE FROM handed WHERE command >= $1 AND command < $2";
    client.execute(sql, &[&begin, &end]).await?;
    Ok(())
}

async fn drop_tables(client: &mut Client, week: Week) -> Result<(), tokio_postgres::Error> {
    let tx = client.transaction().await?;
    tx.batch_execute(&format!("SET LOCAL lock_timeout = '{DROP_WAIT}'")).await?;
    tx.query("SELECT pg_advisory_xact_lock($1)", &[&PARTITION_LOCK]).await?;
    let tables = super::partitions::names(week).join(", ");
    tx.batch_execute(&format!("DROP TABLE {tables}")).await?;
    tx.commit().await
}

/// The ids of a week.
fn range(week: Week) -> (Uuid, Uuid) {
    let (begin, end) = week.bounds();
    (begin, end.unwrap_or(Uuid::max()))
}

fn is_in_the_way(err: &tokio_postgres::Error) -> bool {
    let code = err.code();
    code == Some(&SqlState::LOCK_NOT_AVAILABLE) || code == Some(&SqlState::T_R_DEADLOCK_DETECTED)
}
