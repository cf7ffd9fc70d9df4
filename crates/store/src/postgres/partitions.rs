//! The weeks in which commands, their lives and their timelines lie. A command's id begins with its time, and its week
//! follows from that. Weeks begin on Mondays at 00:00 UTC; the week of 1 January 1970 is number 0.
//!
//! A week is made before its first command is written: ahead of time by whoever keeps house, at the latest by the writer.
//! A partition is made beside its table and then attached, which stops neither readers nor writers.

use std::collections::BTreeSet;

use tokio_postgres::Client;
use utmos_core::time::Timestamp;
use uuid::Uuid;

use super::fault::Fault;

/// The tables that are partitioned, and with which settings. Rows of `lives` change in place where there is room.
const TABLES: [(&str, &str); 3] = [
    ("commands", "fillfactor = 100"),
    ("lives", "fillfactor = 60"),
    ("timeline", "fillfactor = 100"),
];

/// Held while partitions are made or dropped.
pub(super) const PARTITION_LOCK: i64 = 0x5554_4D53_0000_0002;

const DAY_MS: u64 = 24 * 60 * 60 * 1000;
const WEEK_MS: u64 = 7 * DAY_MS;
/// 1 January 1970 was a Thursday.
const MONDAY_MS: u64 = 3 * DAY_MS;
/// Milliseconds in an id.
const TIME_BITS: u32 = 48;

/// A week, by its number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Week(u64);

impl Week {
    /// The week an id lies in.
    pub(super) fn of(id: Uuid) -> Self {
        let millis = u64::try_from(id.as_u128() >> (128 - TIME_BITS)).unwrap_or(u64::MAX);
        Self((millis + MONDAY_MS) / WEEK_MS)
    }

    /// The week of a moment.
    pub(super) fn at(at: Timestamp) -> Self {
        Self((u64::try_from(at.as_millis()).unwrap_or(0) + MONDAY_MS) / WEEK_MS)
    }

    /// By its number.
    pub(super) fn numbered(number: i64) -> Self {
        Self(number.unsigned_abs())
    }

    /// The first id of it, and the first after it; `None` where no id comes after it.
    pub(super) fn bounds(self) -> (Uuid, Option<Uuid>) {
        let id = |millis: u64| {
            (millis < 1 << TIME_BITS)
                .then(|| Uuid::from_u128(u128::from(millis) << (128 - TIME_BITS)))
        };
        let begin = (self.0 * WEEK_MS).saturating_sub(MONDAY_MS);
        (id(begin).unwrap_or(Uuid::max()), id((self.0 + 1) * WEEK_MS - MONDAY_MS))
    }
}

/// The weeks that are known to be there.
#[derive(Default)]
pub(super) struct Weeks(BTreeSet<Week>);

impl Weeks {
    /// Makes those of these weeks that are not there. Not within a transaction.
    pub(super) async fn ensure(
        &mut self,
        client: &mut Client,
        wanted: &BTreeSet<Week>,
    ) -> Result<(), Fault> {
        for week in wanted {
            if !self.0.contains(week) {
                make(client, *week).await?;
                self.0.insert(*week);
            }
        }
        Ok(())
    }

    /// Somebody dropped some.
    pub(super) fn forget(&mut self) {
        self.0.clear();
    }
}

/// The tables of a week.
pub(super) fn names(week: Week) -> [String; 3] {
    TABLES.map(|(table, _)| format!("{table}_w{}", week.0))
}

/// Asks the catalogue's tables: what a session remembers of names may be older than what was committed while it waited.
const IS_THERE: &str = "
    SELECT count(*) > 0 FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
    WHERE i.inhparent = 'commands'::regclass AND c.relname = $1::text";

async fn make(client: &mut Client, week: Week) -> Result<(), Fault> {
    let name = format!("commands_w{}", week.0);
    if client.query_one(IS_THERE, &[&name]).await?.try_get(0)? {
        return Ok(());
    }
    let tx = client.transaction().await?;
    tx.query("SELECT pg_advisory_xact_lock($1)", &[&PARTITION_LOCK]).await?;
    // Another server may have been faster.
    if tx.query_one(IS_THERE, &[&name]).await?.try_get(0)? {
        return Ok(());
    }
    let (begin, end) = week.bounds();
    let end = end.map_or("MAXVALUE".to_owned(), |end| format!("'{end}'"));
    for (table, settings) in TABLES {
        let name = format!("{table}_w{}", week.0);
        tx.batch_execute(&format!(
            "CREATE TABLE {name} (LIKE {table} INCLUDING ALL) WITH ({settings});
             ALTER TABLE {table} ATTACH PARTITION {name} FOR VALUES FROM ('{begin}') TO ({end})"
        ))
        .await?;
    }
    tx.commit().await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: u64) -> Uuid {
        Uuid::from_u128(u128::from(millis) << 80)
    }

    #[test]
    fn every_id_lies_within_its_week_and_weeks_touch() {
        let last = (1_u64 << 48) - 1;
        for millis in [0, 1, 4 * DAY_MS - 1, 4 * DAY_MS, 1_790_000_000_000, last - WEEK_MS, last] {
            for id in [at(millis), Uuid::from_u128(at(millis).as_u128() | ((1 << 80) - 1))] {
                let week = Week::of(id);
                let (begin, end) = week.bounds();
                assert!(begin <= id && end.is_none_or(|end| id < end), "{millis}");
                if let Some(end) = end {
                    assert_eq!(Week::of(end).bounds().0, end);
                    assert!(Week::of(end) > week);
                }
            }
        }
        assert_eq!(Week::of(Uuid::max()).bounds().1, None);
        // Monday, 21 September 2026.
        let monday = 1_789_948_800_000;
        assert_eq!(Week::of(at(monday)).bounds().0, at(monday));
        assert_eq!(Week::of(at(monday)).0, Week::of(at(monday - 1)).0 + 1);
        assert_eq!(Week::at(Timestamp::from_millis(1_789_948_800_000)), Week::of(at(monday)));
    }
}
