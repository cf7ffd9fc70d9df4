//! What is old goes, by whole days where it can, and what has aged becomes less: a little at a time, by one server at a time.

use std::{
    collections::BTreeSet,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use deadpool_postgres::{ClientWrapper, Transaction};
use tokio_postgres::{Row, types::ToSql};
use utmos_core::{
    device::DeviceKind,
    id::{DeviceSn, TenantId},
    ports::{TelemetryRules, Tidied},
    telemetry::SPAN_MAX,
    time::Timestamp,
};
use uuid::Uuid;

use super::{
    held::{Changes, PIECE_BYTES, TELEMETRY},
    share,
    spans::{Span, Table, drop_whole, there},
    telemetry::{code_of, insert},
};
use crate::{
    history::telemetry::{
        Packed,
        tidy::{
            Aged, KINDS, LATEST_KEPT, MERGED_BYTES_MAX, MERGED_MAX, REMOVED_MAX, WINDOW, before,
        },
    },
    postgres::{cells::millis, fault::Fault},
};

/// Held by the server whose turn it is. `UTMS` and a number.
const TURN_LOCK: i64 = 0x5554_4D53_0000_0006;

/// What need not be looked at again: telemetry is written when it comes, so a day that has been looked through stays as it is.
#[derive(Default)]
pub(super) struct LookedThrough {
    /// Days in which everything has been merged.
    merged: Mutex<BTreeSet<Span>>,
    /// Days in which nothing is left of a kind that is kept for less long than another.
    emptied: Mutex<BTreeSet<(Span, i16)>>,
}

fn lock<T>(set: &Mutex<T>) -> MutexGuard<'_, T> {
    set.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Whether all of a day came before this: a piece may reach into the next.
fn is_over(day: Span, until: i64) -> bool {
    day.end().saturating_add(millis(SPAN_MAX)) <= until
}

/// A step, unless another server is at it. The connection must be given up when this is broken off or fails: it holds a lock.
pub(super) async fn step(
    client: &mut ClientWrapper,
    done: &LookedThrough,
    rules: &TelemetryRules,
    now: Timestamp,
) -> Result<Tidied, Fault> {
    // What is old is so by the database's clock as well: a server whose own is ahead takes nothing from others.
    let sql =
        "SELECT pg_try_advisory_lock($1), least($2, (extract(epoch FROM now()) * 1000)::bigint)";
    let row = client.query_one(sql, &[&TURN_LOCK, &now.as_millis()]).await?;
    if !row.try_get::<_, bool>(0)? {
        return Ok(Tidied::default());
    }
    let did = in_turn(client, done, rules, Timestamp::from_millis(row.try_get(1)?)).await?;
    client.query("SELECT pg_advisory_unlock($1)", &[&TURN_LOCK]).await?;
    Ok(did)
}

async fn in_turn(
    client: &mut ClientWrapper,
    done: &LookedThrough,
    rules: &TelemetryRules,
    now: Timestamp,
) -> Result<Tidied, Fault> {
    let longest = KINDS.map(|kind| rules.kept(kind)).into_iter().max().unwrap_or_default();
    let mut dropped = 0;
    let mut days = there(&**client, Table::Telemetry).await?;
    let old = before(now, longest);
    for day in days.extract_if(.., |day| is_over(*day, old)) {
        match drop_whole(client, day, &[TELEMETRY]).await {
            Ok(count) => dropped += count,
            // Others are at work on the tables: the next time.
            Err(Fault::Everyone(error) | Fault::Crossed(error)) if !client.is_closed() => {
                tracing::debug!(%error, "a day of telemetry stays for now");
                break;
            }
            Err(fault) => return Err(fault),
        }
    }
    lock(&done.merged).retain(|day| days.contains(day));
    lock(&done.emptied).retain(|(day, _)| days.contains(day));
    let mut removed = 0;
    for kind in KINDS.into_iter().filter(|kind| rules.kept(*kind) < longest) {
        let until = before(now, rules.kept(kind));
        removed += remove(client, done, &days, kind, until, REMOVED_MAX - removed).await?;
    }
    if removed < REMOVED_MAX {
        let left = REMOVED_MAX - removed;
        removed += share::level(client, rules.bytes_max, left).await?;
    }
    let until = before(now, rules.full_rate).div_euclid(millis(WINDOW)) * millis(WINDOW);
    let merged = match aged(client, done, &days, until).await? {
        None => 0,
        Some(aged) => merge(client, aged, rules.step).await?,
    };
    if removed == 0 && merged == 0 {
        removed += remove_latest(client, rules, now).await?;
    }
    let removed = usize::try_from(removed).unwrap_or(0);
    let more = merged > 0 || i64::try_from(removed).unwrap_or(0) >= REMOVED_MAX;
    Ok(Tidied { removed: removed + dropped, merged, more })
}

/// Removes what is too old of a kind that is kept for less long than another.
async fn remove(
    client: &mut ClientWrapper,
    done: &LookedThrough,
    days: &[Span],
    kind: DeviceKind,
    until: i64,
    limit: i64,
) -> Result<i64, Fault> {
    let mut removed = 0;
    for day in days.iter().filter(|day| day.begin() < until) {
        let key = (*day, code_of(kind));
        if limit <= removed || lock(&done.emptied).contains(&key) {
            continue;
        }
        let left = limit - removed;
        let tx = client.transaction().await?;
        let mut count = 0;
        for merged in [false, true] {
            let part = day.part();
            let sql = format!(
                "DELETE FROM {part} WHERE ctid = ANY (ARRAY(
                     SELECT ctid FROM {part} WHERE kind = $1 AND merged = $2 AND last_ms < $3
                     ORDER BY last_ms LIMIT $4))
                 RETURNING tenant, device, octet_length(body)::bigint"
            );
            let params: [&(dyn ToSql + Sync); 4] = [&key.1, &merged, &until, &(left - count)];
            let gone = tx.query(&sql, &params).await?;
            count += note_gone(&tx, *day, &gone).await?;
        }
        tx.commit().await?;
        removed += count;
        if count < left && is_over(*day, until) {
            lock(&done.emptied).insert(key);
        }
    }
    Ok(removed)
}

/// Takes rows that were deleted from what their devices hold; answers how many.
async fn note_gone(tx: &Transaction<'_>, day: Span, gone: &[Row]) -> Result<i64, Fault> {
    let mut held = Changes::default();
    for row in gone {
        let (tenant, device): (Uuid, &str) = (row.try_get(0)?, row.try_get(1)?);
        held.go(tenant, device, TELEMETRY, day, row.try_get::<_, i64>(2)? + PIECE_BYTES);
    }
    held.write(tx).await?;
    Ok(i64::try_from(gone.len()).unwrap_or(i64::MAX))
}

/// The oldest pieces that have aged, of one device and one hour. What cannot be read any more has no samples, and goes with
/// the others.
async fn aged(
    client: &ClientWrapper,
    done: &LookedThrough,
    days: &[Span],
    until: i64,
) -> Result<Option<(Span, Aged)>, Fault> {
    for day in days.iter().filter(|day| day.begin() < until) {
        if lock(&done.merged).contains(day) {
            continue;
        }
        for kind in KINDS {
            if let Some(found) = aged_of(client, *day, kind, until).await? {
                return Ok(Some((*day, found)));
            }
        }
        if is_over(*day, until) {
            lock(&done.merged).insert(*day);
        }
    }
    Ok(None)
}

async fn aged_of(
    client: &ClientWrapper,
    day: Span,
    kind: DeviceKind,
    until: i64,
) -> Result<Option<Aged>, Fault> {
    let part = day.part();
    let sql = format!(
        "SELECT tenant, device, first_ms FROM {part}
         WHERE kind = $1 AND merged = false AND last_ms < $2 ORDER BY last_ms LIMIT 1"
    );
    let rows = client.query(&sql, &[&code_of(kind), &until]).await?;
    let Some(row) = rows.first() else { return Ok(None) };
    let (tenant, device): (Uuid, String) = (row.try_get(0)?, row.try_get(1)?);
    let window = row.try_get::<_, i64>(2)?.div_euclid(millis(WINDOW));
    let Ok(sn) = DeviceSn::parse(&device) else { return Ok(None) };
    let sql = format!(
        "SELECT id, first_ms, bytes, CASE WHEN sum - bytes < $7 THEN body END
         FROM (SELECT id, first_ms, bytes, body, (sum(bytes) OVER (ORDER BY first_ms, id))::bigint AS sum FROM {part}
               WHERE tenant = $1 AND device = $2 AND first_ms >= $3 AND first_ms < $4 AND merged = false AND last_ms < $5
               ORDER BY first_ms, id LIMIT $6) AS p"
    );
    let (begin, end) = (window * millis(WINDOW), (window + 1) * millis(WINDOW));
    let params: [&(dyn ToSql + Sync); 7] =
        [&tenant, &device, &begin, &end, &until, &MERGED_MAX, &MERGED_BYTES_MAX];
    let (mut ids, mut samples) = (Vec::new(), Vec::new());
    for row in client.query(&sql, &params).await? {
        let Some(body) = row.try_get::<_, Option<Vec<u8>>>(3)? else { break };
        let first = Timestamp::from_millis(row.try_get(1)?);
        let packed = Packed { bytes: row.try_get(2)?, body };
        ids.push(row.try_get(0)?);
        samples.extend(packed.samples(first).unwrap_or_default());
    }
    Ok(Some(Aged { tenant: TenantId::new(tenant), device: sn, kind, ids, samples }))
}

async fn merge(
    client: &mut ClientWrapper,
    (day, aged): (Span, Aged),
    step: Duration,
) -> Result<usize, Fault> {
    let (tenant, device) = (aged.tenant, aged.device.clone());
    let (ids, pieces) = aged.merged(step).await?;
    let tx = client.transaction().await?;
    let part = day.part();
    let sql = format!(
        "DELETE FROM {part} WHERE tenant = $1 AND device = $2 AND id = ANY ($3)
         RETURNING tenant, device, octet_length(body)::bigint"
    );
    let gone = tx.query(&sql, &[&tenant.uuid(), &device.as_str(), &ids]).await?;
    note_gone(&tx, day, &gone).await?;
    let mut held = Changes::default();
    insert(&tx, &pieces, &mut held).await?;
    held.write(&tx).await?;
    tx.commit().await?;
    Ok(ids.len())
}

/// What devices told last goes where they have been silent for long.
async fn remove_latest(
    client: &mut ClientWrapper,
    rules: &TelemetryRules,
    now: Timestamp,
) -> Result<i64, Fault> {
    let mut removed = 0;
    for kind in KINDS {
        let until = before(now, rules.kept(kind).max(LATEST_KEPT));
        let sql = "DELETE FROM history_latest WHERE ctid = ANY (ARRAY(
                       SELECT ctid FROM history_latest WHERE kind = $1 AND at_ms < $2 LIMIT $3))";
        let statement = client.prepare_cached(sql).await?;
        removed += client
            .execute(&statement, &[&code_of(kind), &until, &REMOVED_MAX])
            .await
            .map(|count| i64::try_from(count).unwrap_or(i64::MAX))?;
    }
    Ok(removed)
}

/// Forgets weeks of events that ended before this, oldest first, until so many events are gone; answers how many are.
pub(super) async fn forget_weeks(
    client: &mut ClientWrapper,
    until: Timestamp,
    limit: usize,
    whats: &[i16],
) -> Result<usize, Fault> {
    let mut forgotten = 0;
    for week in there(&**client, Table::Events).await? {
        if until.as_millis() < week.end() || limit <= forgotten {
            break;
        }
        // Their keys go before them, a few at a time: who sends an event of that week again is believed that it is new.
        let sql = "DELETE FROM history_events_once WHERE ctid = ANY (ARRAY(
                       SELECT ctid FROM history_events_once WHERE week = $1 LIMIT $2))";
        let statement = client.prepare_cached(sql).await?;
        while client.execute(&statement, &[&week.number(), &KEYS_AT_A_TIME]).await? > 0 {}
        match drop_whole(client, week, whats).await {
            Ok(count) => forgotten += count,
            Err(Fault::Everyone(error) | Fault::Crossed(error)) if !client.is_closed() => {
                tracing::debug!(%error, "a week of events stays for now");
                break;
            }
            Err(fault) => return Err(fault),
        }
    }
    Ok(forgotten)
}

/// Keys of events that are forgotten in one transaction.
const KEYS_AT_A_TIME: i64 = 5_000;
