//! Two times that must not be mixed: what the wall shows, and what only ever runs forward.
//!
//! Records and signatures use the wall. Deadlines use the machine's running time, which no clock adjustment moves
//! and which goes on across a restart of the process; a [`BootId`] says which run of the machine it counts.

use std::{fmt, time::Duration};

use serde::{Deserialize, Serialize};

/// Wall time in Unix milliseconds. May jump either way between two readings.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Timestamp(i64);

impl Timestamp {
    /// From Unix milliseconds.
    #[must_use]
    pub const fn from_millis(millis: i64) -> Self {
        Self(millis)
    }

    /// Unix milliseconds.
    #[must_use]
    pub const fn as_millis(self) -> i64 {
        self.0
    }

    /// This time and `wait` more.
    #[must_use]
    pub fn plus(self, wait: Duration) -> Self {
        Self(self.0.saturating_add(millis(wait)))
    }

    /// How long after `earlier` this is; zero when it is before.
    #[must_use]
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_millis(u64::try_from(self.0.saturating_sub(earlier.0)).unwrap_or(0))
    }
}

impl fmt::Display for Timestamp {
    /// RFC 3339 in UTC with milliseconds.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match jiff::Timestamp::from_millisecond(self.0) {
            Ok(at) => write!(f, "{at:.3}"),
            Err(_) => write!(f, "{}", self.0),
        }
    }
}

/// Running time of the machine in milliseconds since it booted. Never goes back, counts sleep too.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Mono(u64);

impl Mono {
    /// From milliseconds since boot.
    #[must_use]
    pub const fn from_millis(millis: u64) -> Self {
        Self(millis)
    }

    /// Milliseconds since boot.
    #[must_use]
    pub const fn as_millis(self) -> u64 {
        self.0
    }

    /// This time and `wait` more.
    #[must_use]
    pub fn plus(self, wait: Duration) -> Self {
        Self(self.0.saturating_add(u64::try_from(wait.as_millis()).unwrap_or(u64::MAX)))
    }

    /// How long after `earlier` this is; zero when it is before.
    #[must_use]
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_millis(self.0.saturating_sub(earlier.0))
    }
}

/// Which run of which machine a [`Mono`] counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct BootId(pub [u8; 16]);

/// The time at hand, read once per decision.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Now {
    /// What the wall shows.
    pub wall: Timestamp,
    /// What runs.
    pub mono: Mono,
}

impl Now {
    /// By which time to remove what is old: the earlier of the wall, and the wall at `start` plus what has run since. A
    /// wall clock that jumps ahead makes nothing older.
    #[must_use]
    pub fn steady(self, start: Self) -> Timestamp {
        start.wall.plus(self.mono.since(start.mono)).min(self.wall)
    }
}

/// A point in the running time, with what is needed to find it again after a restart or a reboot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Deadline {
    /// The boot that `mono` counts from.
    pub boot: BootId,
    /// When it passes.
    pub mono: Mono,
    /// The same on the clock that finds it again elsewhere, as that looked when it was set: the wall of this machine or, where
    /// servers share a store, the store's clock ([`StoreClock`](crate::store_clock::StoreClock)).
    pub wall: Timestamp,
}

impl Deadline {
    /// The deadline `wait` from `now`, whose wall is that of [`Deadline::wall`].
    #[must_use]
    pub fn after(now: Now, boot: BootId, wait: Duration) -> Self {
        Self { boot, mono: now.mono.plus(wait), wall: now.wall.plus(wait) }
    }

    /// Whether it has passed.
    #[must_use]
    pub fn passed(&self, now: Now) -> bool {
        self.mono <= now.mono
    }

    /// How much time is left.
    #[must_use]
    pub fn left(&self, now: Now) -> Duration {
        self.mono.since(now.mono)
    }

    /// When it was set, on the clock of [`Deadline::wall`], if that was so long before.
    #[must_use]
    pub fn set_at(&self, wait: Duration) -> Timestamp {
        Timestamp(self.wall.0.saturating_sub(millis(wait)))
    }

    /// Finds the deadline again in a process of boot `boot`, of which `length` is the longest it can have ahead.
    ///
    /// In the boot it was set in it stands as it is. After a reboot only the wall tells; `newest` is the latest wall
    /// time on record, and a wall that shows less has been set back, so nothing of before can be trusted to be fresh:
    /// such a deadline counts as passed.
    #[must_use]
    pub fn found_again(self, now: Now, boot: BootId, length: Duration, newest: Timestamp) -> Self {
        if self.boot == boot {
            return self;
        }
        let left =
            if now.wall < newest { Duration::ZERO } else { self.wall.since(now.wall).min(length) };
        self.with_left(left, now.mono, boot)
    }

    /// The same in a process of boot `boot`, which has so much `left` until then.
    #[must_use]
    pub fn with_left(self, left: Duration, now: Mono, boot: BootId) -> Self {
        Self { boot, mono: now.plus(left), wall: self.wall }
    }
}

fn millis(wait: Duration) -> i64 {
    i64::try_from(wait.as_millis()).unwrap_or(i64::MAX)
}

/// Reads the two times. The only place a process may get them from.
pub trait Clock: Send + Sync {
    /// Both times, read together.
    fn now(&self) -> Now;
    /// Which boot the running time counts from.
    fn boot(&self) -> BootId;
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOOT: BootId = BootId([1; 16]);
    const REBOOTED: BootId = BootId([2; 16]);

    fn now(wall: i64, mono: u64) -> Now {
        Now { wall: Timestamp::from_millis(wall), mono: Mono::from_millis(mono) }
    }

    #[test]
    fn a_wall_clock_jump_does_not_move_a_deadline() {
        let deadline = Deadline::after(now(1_000_000, 50), BOOT, Duration::from_secs(30));
        assert!(!deadline.passed(now(9_000_000, 30_049)));
        assert!(deadline.passed(now(0, 30_050)));
        let kept = deadline.found_again(
            now(0, 20_000),
            BOOT,
            Duration::from_secs(30),
            Timestamp::from_millis(9_000_000),
        );
        assert_eq!(kept, deadline);
    }

    #[test]
    fn a_wall_clock_that_jumps_ahead_makes_nothing_older() {
        let start = now(1_000_000, 50);
        let steady = |wall, mono| now(wall, mono).steady(start).as_millis();
        assert_eq!(steady(1_001_000, 1_050), 1_001_000);
        assert_eq!(steady(9_000_000, 1_050), 1_001_000, "ahead: what has run counts");
        assert_eq!(steady(500_000, 1_050), 500_000, "back: the wall counts");
    }

    #[test]
    fn after_a_reboot_the_wall_counts_unless_it_was_set_back() {
        let length = Duration::from_secs(30);
        let deadline = Deadline::after(now(1_000_000, 50), BOOT, length);
        let newest = Timestamp::from_millis(1_000_500);
        let later = deadline.found_again(now(1_010_000, 7), REBOOTED, length, newest);
        assert_eq!(later.left(now(1_010_000, 7)), Duration::from_secs(20));
        let set_back = deadline.found_again(now(500_000, 7), REBOOTED, length, newest);
        assert!(set_back.passed(now(500_000, 7)));
    }

    #[test]
    fn a_timestamp_reads_as_rfc_3339_with_milliseconds() {
        assert_eq!(
            Timestamp::from_millis(1_779_352_084_063).to_string(),
            "2026-05-21T08:28:04.063Z"
        );
        assert_eq!(Timestamp::from_millis(0).to_string(), "1970-01-01T00:00:00.000Z");
    }
}
