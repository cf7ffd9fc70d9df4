//! Whether anybody is at work on a database whose schema is to be changed.
//!
//! A server goes on with statements that it prepared on the schema as it was, so nobody may. Who has fallen silent is none that is at
//! work: it is made no member together with the change, and finds out when it comes back.

use std::time::Duration;

use tokio_postgres::{Client, GenericClient};
use utmos_core::replica::{BEAT_WAIT, SILENCE_MAX};
use uuid::Uuid;

use super::{
    open::{Named, known},
    replicas::{JOIN_LOCK, dissolve},
};
use crate::postgres::PostgresOpenError;

/// Somebody who is on record as a member.
struct Seen {
    id: Uuid,
    beats: i64,
    /// With its version, where that is on record.
    name: String,
}

/// Those who have given no sign of life for as long as one was waited for.
pub(super) struct Silent(Vec<Seen>);

async fn seen(client: &impl GenericClient) -> Result<Vec<Seen>, tokio_postgres::Error> {
    let sql = "SELECT to_regclass('replicas') IS NOT NULL";
    if !client.query_one(sql, &[]).await?.try_get::<_, bool>(0)? {
        return Ok(Vec::new());
    }
    // The columns are those of whichever version made the table.
    let sql =
        "SELECT id, beats, name || coalesce(' (version ' || (to_jsonb(r) ->> 'version') || ')', '')
               FROM replicas r ORDER BY name";
    let rows = client.query(sql, &[]).await?;
    let read = |row: &tokio_postgres::Row| {
        Ok(Seen { id: row.try_get(0)?, beats: row.try_get(1)?, name: row.try_get(2)? })
    };
    rows.iter().map(read).collect()
}

/// Waits until it is certain that nobody is at work.
pub(super) async fn nobody_is_at_work(
    client: &Client,
    named: &Named<'_>,
    found: i32,
) -> Result<Silent, PostgresOpenError> {
    let explain = |err: tokio_postgres::Error| named.explain(&err);
    let first = seen(client).await.map_err(explain)?;
    let mut lasts = Duration::ZERO;
    while !first.is_empty() && lasts <= SILENCE_MAX {
        tokio::time::sleep(BEAT_WAIT).await;
        lasts += BEAT_WAIT;
        let now = seen(client).await.map_err(explain)?;
        refuse_who_is_not_in(&first, now, named, found)?;
    }
    Ok(Silent(first))
}

/// Makes those who are silent no members, and keeps everybody from becoming one until the transaction ends.
pub(super) async fn dissolve_silent(
    tx: &tokio_postgres::Transaction<'_>,
    silent: Silent,
    named: &Named<'_>,
    found: i32,
) -> Result<(), PostgresOpenError> {
    let explain = |err: tokio_postgres::Error| named.explain(&err);
    tx.query("SELECT pg_advisory_xact_lock($1)", &[&JOIN_LOCK]).await.map_err(explain)?;
    refuse_who_is_not_in(&silent.0, seen(tx).await.map_err(explain)?, named, found)?;
    match silent.0.is_empty() {
        true => Ok(()),
        false => dissolve(tx).await.map_err(explain),
    }
}

fn refuse_who_is_not_in(
    silent: &[Seen],
    now: Vec<Seen>,
    named: &Named<'_>,
    found: i32,
) -> Result<(), PostgresOpenError> {
    let is_silent = |one: &Seen| silent.iter().any(|it| it.id == one.id && it.beats == one.beats);
    match now.into_iter().find(|one| !is_silent(one)) {
        None => Ok(()),
        Some(Seen { name: server, .. }) => {
            Err(PostgresOpenError::AtWork { database: named.name(), found, known: known(), server })
        }
    }
}
