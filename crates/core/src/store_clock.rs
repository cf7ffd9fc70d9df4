//! The clock of a store that servers share, as one of them knows it. Pure.
//!
//! Servers tell each other deadlines by that clock, and none by its own wall: [`Deadline::wall`](crate::time::Deadline) means
//! the store's time there. Each server reads it with every sign of life and goes by its own running time in between, so that a
//! wall that is off, or is set, moves no deadline. What it knows is a span. Whoever writes a deadline down takes the earliest
//! that the store's clock may show, and whoever reads it counts by the latest: it may be over too early by the two spans, and
//! never too late.

use std::time::Duration;

use crate::{
    replica::{CLOCK_OFF_MAX_MS, SILENCE_MAX},
    time::{Mono, Timestamp},
};

/// Two clocks part by no more than a millisecond in so many.
const DRIFT_PART: i64 = 1_000;
/// A reading that contradicts what was known by no more is of a clock that runs unevenly; beyond, somebody has set it.
const UNEVEN_MAX_MS: i64 = 100;
/// The wall of a server may be so far from it.
const CLOCK_OFF_MAX: Duration = Duration::from_millis(CLOCK_OFF_MAX_MS.unsigned_abs());
/// The store's clock and the running time are read in whole milliseconds.
const ROUNDED_MS: i64 = 1;

/// The store's clock showed `store` at some time between `asked` and `answered`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reading {
    /// When it was asked.
    pub asked: Mono,
    /// What it showed.
    pub store: Timestamp,
    /// When its answer was there.
    pub answered: Mono,
}

/// What a server knows of the store's clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StoreClock {
    ahead: Ahead,
    /// When that was so.
    at: Mono,
    set_back: Option<SetBack>,
}

/// By how many milliseconds the store's clock is ahead of the running time, at least and at most.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Ahead {
    least: i64,
    most: i64,
}

/// The store's clock was set back: how old a deadline of before is, nobody can tell.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct SetBack {
    /// When that was known.
    known: Mono,
    /// What it may have shown before, at most.
    from: Timestamp,
}

impl StoreClock {
    /// What the first reading tells.
    #[must_use]
    pub fn read(reading: Reading) -> Self {
        Self { ahead: Ahead::of(reading), at: reading.answered, set_back: None }
    }

    /// Takes note of another reading. Answers by how many milliseconds at least the clock was set since the last one (back,
    /// where negative), if it was.
    pub fn note(&mut self, reading: Reading) -> Option<i64> {
        let (known, fresh) = (self.ahead_at(reading.answered), Ahead::of(reading));
        let forward = fresh.least.saturating_sub(known.most);
        let back = known.least.saturating_sub(fresh.most);
        if back > UNEVEN_MAX_MS {
            // Others find out with a sign of life of theirs, and write down what it showed before until then.
            let before = self.latest(reading.answered).plus(SILENCE_MAX);
            self.is_set_back(before, reading.answered);
        }
        self.ahead = match forward > 0 || back > 0 {
            true => fresh,
            false => {
                Ahead { least: known.least.max(fresh.least), most: known.most.min(fresh.most) }
            }
        };
        self.at = self.at.max(reading.answered);
        match (forward > UNEVEN_MAX_MS, back > UNEVEN_MAX_MS) {
            (true, _) => Some(forward),
            (_, true) => Some(-back),
            (false, false) => None,
        }
    }

    /// Takes note of what is on record at `now`, by the walls of servers: where that is of later than the store's clock shows
    /// and these may differ, it was set back.
    pub fn is_on_record(&mut self, newest: Timestamp, now: Mono) {
        if self.latest(now).plus(CLOCK_OFF_MAX) < newest {
            self.is_set_back(newest, now);
        }
    }

    fn is_set_back(&mut self, from: Timestamp, known: Mono) {
        let from = self.set_back.map_or(from, |before| before.from.max(from));
        self.set_back = Some(SetBack { known, from });
    }

    /// The earliest that it may show at `now`: by this, deadlines are written down.
    #[must_use]
    pub fn earliest(&self, now: Mono) -> Timestamp {
        shown(now, self.ahead_at(now).least)
    }

    /// The latest that it may show at `now`: by this, what others wrote down is counted.
    #[must_use]
    pub fn latest(&self, now: Mono) -> Timestamp {
        // Of a millisecond of the running time that has begun, all may have passed.
        shown(now, self.ahead_at(now).most.saturating_add(ROUNDED_MS))
    }

    /// How much is left at `now` until the store's clock shows `wall`, where that was written down `length` before at the most.
    /// Nothing, where it may have been written down before that clock was set back.
    #[must_use]
    pub fn left(&self, wall: Timestamp, now: Mono, length: Duration) -> Duration {
        let is_doubtful = |set: SetBack| {
            // What was written down before that is over by then.
            now.since(set.known) <= length && wall <= set.from.plus(length)
        };
        // More is left than there can be: whoever wrote it down did not know either that the clock had been set back.
        let left = wall.since(self.latest(now));
        match self.set_back.is_some_and(is_doubtful) || left > length {
            true => Duration::ZERO,
            false => left,
        }
    }

    fn ahead_at(&self, now: Mono) -> Ahead {
        let passed = i64::try_from(now.since(self.at).as_millis()).unwrap_or(i64::MAX);
        let drift = passed / DRIFT_PART + i64::from(passed > 0);
        Ahead {
            least: self.ahead.least.saturating_sub(drift),
            most: self.ahead.most.saturating_add(drift),
        }
    }
}

impl Ahead {
    fn of(reading: Reading) -> Self {
        let store = reading.store.as_millis();
        let by = |mono: Mono| store.saturating_sub(to_signed(mono));
        Self {
            least: by(reading.answered).saturating_sub(2 * ROUNDED_MS),
            most: by(reading.asked).saturating_add(ROUNDED_MS),
        }
    }
}

fn shown(now: Mono, ahead: i64) -> Timestamp {
    Timestamp::from_millis(to_signed(now).saturating_add(ahead))
}

fn to_signed(mono: Mono) -> i64 {
    i64::try_from(mono.as_millis()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]
    use proptest::prelude::*;

    use super::*;

    const LENGTH: Duration = Duration::from_secs(30);

    fn mono(millis: i64) -> Mono {
        Mono::from_millis(u64::try_from(millis).unwrap_or(0))
    }

    fn at(millis: i64) -> Timestamp {
        Timestamp::from_millis(millis)
    }

    fn reading(asked: i64, store: i64, answered: i64) -> Reading {
        Reading { asked: mono(asked), store: at(store), answered: mono(answered) }
    }

    /// A server in a world where true time and what the store's clock shows are known: its running time began at another moment
    /// and runs by so many millionths faster.
    #[derive(Debug, Clone, Copy)]
    struct Machine {
        began: i64,
        faster: i64,
    }

    impl Machine {
        fn mono(self, micros: i64) -> Mono {
            mono((self.began + micros + micros / 1_000_000 * self.faster) / 1_000)
        }

        /// The beats begin at these moments, and take so long on their way there and back.
        fn clock(
            self,
            beats: &[(i64, i64, i64)],
            shows: impl Fn(i64) -> i64,
        ) -> Option<StoreClock> {
            let mut clock: Option<StoreClock> = None;
            for (began, there, back) in beats {
                let reading = Reading {
                    asked: self.mono(*began),
                    store: at(shows(began + there)),
                    answered: self.mono(began + there + back),
                };
                match &mut clock {
                    Some(clock) => drop(clock.note(reading)),
                    None => clock = Some(StoreClock::read(reading)),
                }
            }
            clock
        }
    }

    fn machine() -> impl Strategy<Value = Machine> {
        // Clocks are held to within 500 millionths each.
        (0..10_000_000_000_i64, -450..=450_i64)
            .prop_map(|(began, faster)| Machine { began, faster })
    }

    /// Signs of life in microseconds: half a second after one another, with whatever way there and back.
    fn beats() -> impl Strategy<Value = Vec<(i64, i64, i64)>> {
        let way = || prop_oneof![4 => 100..3_000_i64, 1 => 100..900_000_i64];
        proptest::collection::vec((0..400_000_i64, way(), way()), 1..12).prop_map(|all| {
            let mut next = 0;
            let begins = all.into_iter().map(|(pause, there, back)| {
                let began = next + pause;
                next = began + there + back + 500_000;
                (began, there, back)
            });
            begins.collect()
        })
    }

    proptest! {
        /// The promise itself: by whichever ways to the store, and whatever the walls show, nobody gives another's deadline a
        /// millisecond more than it has, and takes away no more than the two were unsure.
        #[test]
        fn a_deadline_of_another_is_never_late_and_early_by_what_two_are_unsure(
            one in machine(), other in machine(),
            its in beats(), others in beats(),
            after in 0..20_000_000_i64, later in 0..30_000_000_i64,
        ) {
            let shows = |micros: i64| 1_780_000_000_000 + micros / 1_000;
            let (clock, others_clock) = (one.clock(&its, shows), other.clock(&others, shows));
            let (clock, others_clock) = (clock.unwrap(), others_clock.unwrap());
            let end = |all: &[(i64, i64, i64)]| all.last().map_or(0, |(began, there, back)| began + there + back);
            let accepted = end(&its).max(end(&others)) + after;
            let found = accepted + later;
            let wall = clock.earliest(one.mono(accepted)).plus(LENGTH);
            let left = others_clock.left(wall, other.mono(found), LENGTH);
            let left = i64::try_from(left.as_millis()).unwrap() * 1_000;
            let truly = (30_000_000 - later).max(0);
            prop_assert!(left <= truly, "late by {} µs", left - truly);
            let unsure = |clock: StoreClock, now: Mono| {
                clock.latest(now).since(clock.earliest(now)).as_millis()
            };
            let both = unsure(clock, one.mono(accepted)) + unsure(others_clock, other.mono(found));
            let early = u128::try_from(truly - left).unwrap();
            prop_assert!(early <= (both + 2) * 1_000, "early by {early} µs, unsure by {both} ms");
        }

        /// The best of the ways counts, so a slow one in between does no harm.
        #[test]
        fn what_a_quick_answer_told_a_slow_one_does_not_blur(slow in 1..2_000_i64) {
            let mut clock = StoreClock::read(reading(1_000, 50_000, 1_002));
            prop_assert_eq!(clock.note(reading(1_500, 50_500 + slow / 2, 1_500 + slow)), None);
            let now = mono(1_500 + slow);
            prop_assert!(clock.latest(now).since(clock.earliest(now)) <= Duration::from_millis(14));
        }
    }

    #[test]
    fn a_clock_that_runs_unevenly_is_followed_and_one_that_was_set_is_told_of() {
        let mut clock = StoreClock::read(reading(1_000, 50_000, 1_000));
        assert_eq!(clock.note(reading(1_500, 50_440, 1_500)), None);
        assert_eq!(clock.latest(mono(1_500)), at(50_442));
        assert_eq!(clock.note(reading(2_000, 60_940, 2_000)), Some(9_996));
        assert_eq!(clock.latest(mono(2_000)), at(60_942));
        assert_eq!(clock.note(reading(2_500, 51_440, 2_500)), Some(-9_996));
        assert_eq!(clock.latest(mono(2_500)), at(51_442));
    }

    #[test]
    fn what_was_written_down_before_the_clock_was_set_back_is_over() {
        let mut clock = StoreClock::read(reading(1_000, 50_000, 1_000));
        let before = clock.earliest(mono(1_000)).plus(LENGTH);
        assert!(clock.note(reading(1_500, 40_500, 1_500)).is_some());
        assert_eq!(clock.left(before, mono(1_500), LENGTH), Duration::ZERO);
        // By one that found out later.
        let meanwhile = at(53_000).plus(LENGTH);
        assert_eq!(clock.left(meanwhile, mono(4_000), LENGTH), Duration::ZERO);
        // By then what is of before is over in any case, and what looks like it is of after.
        let after = clock.earliest(mono(31_501)).plus(LENGTH);
        let left = clock.left(after, mono(31_501), LENGTH);
        assert!(left > Duration::from_millis(29_900), "{left:?}");
    }

    #[test]
    fn a_clock_that_is_behind_what_is_on_record_says_nothing_of_what_is() {
        let mut clock = StoreClock::read(reading(1_000, 50_000, 1_000));
        let wall = at(60_000);
        clock.is_on_record(at(52_000), mono(1_000));
        assert!(clock.left(wall, mono(1_000), LENGTH) > Duration::from_secs(9));
        clock.is_on_record(at(58_000), mono(1_000));
        assert_eq!(clock.left(wall, mono(1_000), LENGTH), Duration::ZERO);
    }

    /// As where a server cannot reach the store while its clock is set, and goes on writing down what that showed before.
    #[test]
    fn more_than_there_can_be_is_left_of_nothing() {
        let clock = StoreClock::read(Reading {
            asked: mono(1_000),
            answered: mono(1_002),
            store: at(500_000),
        });
        let longest = clock.latest(mono(2_000)).plus(LENGTH);
        assert_eq!(clock.left(longest, mono(2_000), LENGTH), LENGTH);
        let from_before = longest.plus(Duration::from_millis(1));
        assert_eq!(clock.left(from_before, mono(2_000), LENGTH), Duration::ZERO);
    }
}
