//! The days in which telemetry lies, and the weeks in which events do, by when they came. A partition is made before the first
//! row is written that lies in it, and goes whole once all of it is old.

use std::{
    collections::BTreeSet,
    sync::{Mutex, MutexGuard, PoisonError},
};

use tokio_postgres::{Client, GenericClient, Row};
use utmos_core::time::Timestamp;

use crate::postgres::fault::Fault;

/// Held while partitions of the history are made or dropped. `UTMS` and a number.
const SPAN_LOCK: i64 = 0x5554_4D53_0000_0005;
/// How long the tables may be locked for everybody while a partition goes. What needs longer is left for the next time.
const DROP_WAIT: &str = "500ms";

const DAY_MS: i64 = 24 * 60 * 60 * 1000;
/// 1 January 1970 was a Thursday, and weeks begin on Mondays.
const MONDAY_MS: i64 = 3 * DAY_MS;

/// What is partitioned.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Table {
    Telemetry,
    Events,
}

impl Table {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Telemetry => "history_telemetry",
            Self::Events => "history_events",
        }
    }

    /// What stands before the number in the name of a partition.
    fn mark(self) -> &'static str {
        match self {
            Self::Telemetry => "d",
            Self::Events => "w",
        }
    }

    fn length_ms(self) -> i64 {
        match self {
            Self::Telemetry => DAY_MS,
            Self::Events => 7 * DAY_MS,
        }
    }

    fn shift_ms(self) -> i64 {
        match self {
            Self::Telemetry => 0,
            Self::Events => MONDAY_MS,
        }
    }

    /// In which of its partitions a moment lies.
    pub(super) fn at(self, at: Timestamp) -> Span {
        let number = at.as_millis().saturating_add(self.shift_ms()).div_euclid(self.length_ms());
        Span { table: self, number }
    }

    /// The one of this number.
    pub(super) fn numbered(self, number: i64) -> Span {
        Span { table: self, number }
    }
}

/// A partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Span {
    table: Table,
    number: i64,
}

impl Span {
    pub(super) fn number(self) -> i64 {
        self.number
    }

    /// The first millisecond of it.
    pub(super) fn begin(self) -> i64 {
        self.number.saturating_mul(self.table.length_ms()).saturating_sub(self.table.shift_ms())
    }

    /// The first after it.
    pub(super) fn end(self) -> i64 {
        self.begin().saturating_add(self.table.length_ms())
    }

    /// How its table is called. No name has a sign in it.
    pub(super) fn part(self) -> String {
        let (table, mark) = (self.table.name(), self.table.mark());
        let before = if self.number < 0 { "b" } else { "" };
        format!("{table}_{mark}{before}{}", self.number.unsigned_abs())
    }

    fn of_part(table: Table, part: &str) -> Option<Self> {
        let digits = part.strip_prefix(table.name())?.strip_prefix('_')?;
        let digits = digits.strip_prefix(table.mark())?;
        let number = match digits.strip_prefix('b') {
            Some(before) => before.parse::<i64>().ok()?.checked_neg()?,
            None => digits.parse().ok()?,
        };
        Some(table.numbered(number))
    }
}

/// Asks the catalogue's tables: what a session remembers of names may be older than what was committed while it waited.
pub(super) const ARE_THERE: &str = "
    SELECT c.relname::text FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
    WHERE i.inhparent = $1::text::regclass";

/// Those of a table that are there, oldest first.
pub(super) async fn there(client: &impl GenericClient, table: Table) -> Result<Vec<Span>, Fault> {
    Ok(of_rows(table, &client.query(ARE_THERE, &[&table.name()]).await?))
}

/// Those of a table that are there, oldest first: as [`ARE_THERE`] answered.
pub(super) fn of_rows(table: Table, rows: &[Row]) -> Vec<Span> {
    let read = |row: &Row| row.try_get::<_, String>(0).ok();
    let names = rows.iter().filter_map(read);
    let mut spans: Vec<Span> = names.filter_map(|name| Span::of_part(table, &name)).collect();
    spans.sort_unstable();
    spans
}

/// Those that are known to be there.
#[derive(Default)]
pub(super) struct Spans(Mutex<BTreeSet<Span>>);

impl Spans {
    /// Makes those of them that are not there. Not within a transaction.
    pub(super) async fn ensure(
        &self,
        client: &mut Client,
        wanted: &BTreeSet<Span>,
    ) -> Result<(), Fault> {
        for span in wanted {
            if !self.lock().contains(span) {
                make(client, *span).await?;
                self.lock().insert(*span);
            }
        }
        Ok(())
    }

    /// Somebody dropped some.
    pub(super) fn forget(&self) {
        self.lock().clear();
    }

    fn lock(&self) -> MutexGuard<'_, BTreeSet<Span>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn make(client: &mut Client, span: Span) -> Result<(), Fault> {
    if there(client, span.table).await?.contains(&span) {
        return Ok(());
    }
    let tx = client.transaction().await?;
    tx.query("SELECT pg_advisory_xact_lock($1)", &[&SPAN_LOCK]).await?;
    // Another server may have been faster.
    if there(&tx, span.table).await?.contains(&span) {
        return Ok(());
    }
    let (table, part, begin, end) = (span.table.name(), span.part(), span.begin(), span.end());
    tx.batch_execute(&format!(
        "CREATE TABLE {part} (LIKE {table} INCLUDING ALL);
         ALTER TABLE {table} ATTACH PARTITION {part} FOR VALUES FROM ({begin}) TO ({end})"
    ))
    .await?;
    tx.commit().await?;
    Ok(())
}

/// Drops one with what is told of it in `history_held` under these, and answers how many rows it had. A lock that others hold
/// for long is a [`Fault::Everyone`].
pub(super) async fn drop_whole(
    client: &mut Client,
    span: Span,
    whats: &[i16],
) -> Result<usize, Fault> {
    let tx = client.transaction().await?;
    tx.batch_execute(&format!("SET LOCAL lock_timeout = '{DROP_WAIT}'")).await?;
    tx.query("SELECT pg_advisory_xact_lock($1)", &[&SPAN_LOCK]).await?;
    // First the table: whoever writes into it has its rows in `history_held` only afterwards.
    tx.batch_execute(&format!("DROP TABLE IF EXISTS {}", span.part())).await?;
    let sql =
        "WITH gone AS (DELETE FROM history_held WHERE what = ANY ($1) AND span = $2 RETURNING n)
               SELECT coalesce(sum(n), 0)::bigint FROM gone";
    let count: i64 = tx.query_one(sql, &[&whats, &span.number()]).await?.try_get(0)?;
    tx.commit().await?;
    Ok(usize::try_from(count).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_moment_lies_within_its_span_and_spans_touch_and_are_known_by_their_names() {
        let times = [0, 1, -1, DAY_MS - 1, DAY_MS, 1_789_948_800_000, i64::MAX / 4, -i64::MAX / 4];
        for table in [Table::Telemetry, Table::Events] {
            for millis in times {
                let span = table.at(Timestamp::from_millis(millis));
                assert!(span.begin() <= millis && millis < span.end(), "{millis}");
                assert_eq!(table.at(Timestamp::from_millis(span.end())).begin(), span.end());
                assert_eq!(Span::of_part(table, &span.part()), Some(span));
            }
            assert_eq!(Span::of_part(table, "history_telemetry_by_age"), None);
        }
        // Monday, 21 September 2026.
        let monday = Timestamp::from_millis(1_789_948_800_000);
        assert_eq!(Table::Events.at(monday).begin(), monday.as_millis());
        assert_eq!(Table::Events.at(monday).part(), "history_events_w2960");
        assert_eq!(Table::Telemetry.at(Timestamp::from_millis(-1)).part(), "history_telemetry_db1");
    }
}
