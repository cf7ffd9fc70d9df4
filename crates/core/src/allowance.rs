//! How often somebody may ask: an allowance fills up at a steady rate, to a bound. Pure.
//!
//! One number says how it stands: when it will be whole again (the "generic cell rate algorithm"). Several servers hold one
//! allowance together without asking each other before they answer: what a server has given and not told yet, it counts
//! as if each of them had given as much. So between two tellings each of them goes on with its even share, also while there is nobody to be
//! told, and whatever is told is paid for by all of them afterwards.

use std::time::Duration;

use crate::time::Mono;

/// A share of a second: how long at most what a server has given in a hurry stays untold.
pub const TELL_WAIT: Duration = Duration::from_millis(250);
/// What is given slowly waits for so many of them.
pub const TELL_ALL_EVERY: u32 = 8;

/// How much of an allowance may be missing beyond all of it: what servers gave that knew too little of each other. More is
/// forgiven, so that a server that could tell nobody for an hour does not keep a caller out for as long.
const DEBT_MAX: Duration = Duration::from_secs(10);

const SECOND: u64 = 1_000_000_000;

/// How often: so many a second, and so many at once after a pause.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate {
    per_second: u32,
    burst: u32,
}

impl Rate {
    /// `None` where `per_second` is 0: no bound at all.
    #[must_use]
    pub fn new(per_second: u32, burst: u32) -> Option<Self> {
        (per_second > 0).then(|| Self { per_second, burst: burst.max(1) })
    }

    /// How many a second.
    #[must_use]
    pub fn per_second(self) -> u32 {
        self.per_second
    }

    /// How many at once.
    #[must_use]
    pub fn burst(self) -> u32 {
        self.burst
    }

    /// How long an allowance that was used up needs to be whole.
    #[must_use]
    pub fn whole(self) -> Duration {
        self.cost(self.burst)
    }

    /// Until it is whole again, at most.
    #[must_use]
    pub fn missing_max(self) -> Duration {
        self.whole() + DEBT_MAX
    }

    /// How long it takes to come by so many. Rounded up: never more often than was said.
    #[must_use]
    pub fn cost(self, count: u32) -> Duration {
        Duration::from_nanos(self.each() * u64::from(count))
    }

    fn each(self) -> u64 {
        SECOND.div_ceil(u64::from(self.per_second))
    }

    /// What one costs a server among so many while the others do not know of it. One can always be had in the end.
    fn untold_cost(self, servers: u32) -> u64 {
        self.each() * u64::from(servers.clamp(1, self.burst))
    }

    /// So many are told at once.
    fn hurry(self) -> u32 {
        (self.per_second / 4).min(self.burst / 4).max(1)
    }
}

/// What is left of an allowance, as one server knows it. As good as a new one once it [is whole](Self::is_whole).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Allowance {
    /// When nothing of it will be missing, in nanoseconds of the running time.
    whole_at: u64,
    /// What was given and no other server was told of.
    untold: u32,
    /// What is being told.
    telling: u32,
}

/// Whether there is something to tell, and how soon.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Untold {
    /// There is nothing.
    Nothing,
    /// It can wait for [`TELL_ALL_EVERY`] times [`TELL_WAIT`].
    Little,
    /// It can wait for [`TELL_WAIT`].
    Some,
    /// It cannot wait.
    Much,
}

impl Allowance {
    /// How long it takes until there is one; `None` when there is.
    #[must_use]
    pub fn wait(&self, rate: Rate, servers: u32, now: Mono) -> Option<Duration> {
        let after = self.after(rate, servers, now);
        let most = nanos(now).saturating_add(length(rate.whole()));
        (most < after).then(|| Duration::from_nanos(after - most))
    }

    /// Takes one, whether there is one or not: never more than all of it is missing then.
    pub fn take(&mut self, rate: Rate, servers: u32, now: Mono) {
        let most = nanos(now).saturating_add(length(rate.whole()));
        self.whole_at = self.after(rate, servers, now).min(most.max(self.whole_at));
    }

    /// The other servers are to be told of one that was taken.
    pub fn leave_untold(&mut self) {
        self.untold = self.untold.saturating_add(1);
    }

    /// Whether nothing of it is missing, and nobody must be told of anything.
    #[must_use]
    pub fn is_whole(&self, now: Mono) -> bool {
        self.whole_at <= nanos(now) && self.untold == 0 && self.telling == 0
    }

    /// What the other servers do not know and are not being told.
    #[must_use]
    pub fn untold(&self, rate: Rate) -> Untold {
        match (self.untold, self.telling) {
            (0, _) => Untold::Nothing,
            (untold, 0) if rate.hurry() <= untold => Untold::Much,
            (untold, _) if rate.hurry() <= untold.saturating_mul(8) => Untold::Some,
            (_, _) => Untold::Little,
        }
    }

    /// Begins to tell the others: of how many.
    pub fn tell(&mut self) -> u32 {
        self.telling = std::mem::take(&mut self.untold);
        self.telling
    }

    /// They were told: at `asked` or a little later all of it, over all servers, was whole after so long.
    pub fn told(&mut self, rate: Rate, servers: u32, asked: Mono, missing: Duration) {
        self.telling = 0;
        let missing = length(missing.min(rate.missing_max()));
        let own = rate.untold_cost(servers).saturating_mul(u64::from(self.untold));
        self.whole_at = nanos(asked).saturating_add(missing).saturating_add(own);
    }

    /// They could not be told.
    pub fn not_told(&mut self) {
        self.untold = self.untold.saturating_add(std::mem::take(&mut self.telling));
    }

    /// When it would be whole after one more.
    fn after(&self, rate: Rate, servers: u32, now: Mono) -> u64 {
        self.whole_at.max(nanos(now)).saturating_add(rate.untold_cost(servers))
    }
}

fn nanos(at: Mono) -> u64 {
    at.as_millis().saturating_mul(1_000_000)
}

fn length(wait: Duration) -> u64 {
    u64::try_from(wait.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]
    use proptest::prelude::*;

    use super::*;

    fn at(millis: u64) -> Mono {
        Mono::from_millis(1_000_000 + millis)
    }

    fn rate(per_second: u32, burst: u32) -> Rate {
        Rate::new(per_second, burst).unwrap()
    }

    /// Takes one if there is one.
    fn ask(allowance: &mut Allowance, rate: Rate, servers: u32, now: Mono) -> bool {
        let is_given = allowance.wait(rate, servers, now).is_none();
        if is_given {
            allowance.take(rate, servers, now);
            allowance.leave_untold();
        }
        is_given
    }

    /// Between any two of these times no more was given than the bound and what came since, and `more`.
    fn holds(given: &[u64], rate: Rate, more: u64) -> Result<(), TestCaseError> {
        for (first, from) in given.iter().enumerate() {
            for (last, to) in given.iter().enumerate().skip(first) {
                let count = (last - first + 1) as u64;
                let came = u64::from(rate.per_second) * (to - from) / 1_000 + 1;
                prop_assert!(
                    count <= u64::from(rate.burst) + came + more,
                    "{count} from {from} to {to} ms at {rate:?}"
                );
            }
        }
        Ok(())
    }

    #[test]
    fn after_a_pause_there_are_so_many_at_once_and_then_one_after_another() {
        let (rate, mut allowance) = (rate(10, 3), Allowance::default());
        for _ in 0..3 {
            assert!(ask(&mut allowance, rate, 1, at(0)));
        }
        assert_eq!(allowance.wait(rate, 1, at(0)), Some(Duration::from_millis(100)));
        assert_eq!(allowance.wait(rate, 1, at(40)), Some(Duration::from_millis(60)));
        assert!(ask(&mut allowance, rate, 1, at(100)));
        assert!(!ask(&mut allowance, rate, 1, at(199)));
        assert!(ask(&mut allowance, rate, 1, at(200)));
        allowance.tell();
        allowance.told(rate, 1, at(200), Duration::ZERO);
        assert!(allowance.is_whole(at(200)));
    }

    #[test]
    fn zero_a_second_is_no_bound() {
        assert_eq!(Rate::new(0, 5), None);
        assert_eq!(rate(1, 0).burst(), 1, "one can always be had in the end");
    }

    #[test]
    fn what_is_taken_anyway_leaves_no_debt_beyond_all_of_it() {
        let (rate, mut allowance) = (rate(10, 3), Allowance::default());
        for _ in 0..1_000 {
            allowance.take(rate, 1, at(0));
        }
        assert_eq!(allowance.wait(rate, 1, at(0)), Some(Duration::from_millis(100)));
    }

    #[test]
    fn what_nobody_was_told_of_counts_as_if_each_server_had_given_it() {
        let (rate, mut allowance) = (rate(10, 12), Allowance::default());
        let mut given = 0;
        while ask(&mut allowance, rate, 3, at(0)) {
            given += 1;
        }
        assert_eq!(given, 4, "its even share");
        assert_eq!(allowance.untold(rate), Untold::Much);
        assert_eq!(allowance.tell(), 4);
        assert_eq!(allowance.untold(rate), Untold::Nothing);
        // The others gave nothing: eight are left to all, and its share of these is 2.
        allowance.told(rate, 3, at(0), rate.cost(4));
        let again: Vec<bool> = (0..4).map(|_| ask(&mut allowance, rate, 3, at(0))).collect();
        assert_eq!(again, [true, true, false, false]);
        allowance.tell();
        allowance.not_told();
        assert_eq!(allowance.tell(), 2, "what could not be told is told later");
    }

    /// What all servers know, in the store.
    #[derive(Default)]
    struct Shared {
        whole_at: u64,
    }

    impl Shared {
        fn charge(&mut self, rate: Rate, count: u32, now: Mono) -> Duration {
            let missing = self.whole_at.saturating_sub(nanos(now)) + length(rate.cost(count));
            let missing = missing.min(length(rate.missing_max()));
            self.whole_at = nanos(now) + missing;
            Duration::from_nanos(missing)
        }
    }

    proptest! {
        #[test]
        fn never_more_than_the_bound_and_what_came_since(
            (per_second, burst) in (1..400_u32, 1..60_u32),
            pauses in prop::collection::vec(0..40_u64, 1..200),
        ) {
            let (rate, mut allowance, mut now) = (rate(per_second, burst), Allowance::default(), 0);
            let mut given = Vec::new();
            for pause in pauses {
                now += pause;
                if ask(&mut allowance, rate, 1, at(now)) {
                    given.push(now);
                }
            }
            holds(&given, rate, 0)?;
        }

        #[test]
        fn whoever_keeps_to_the_rate_is_never_refused(
            (per_second, burst) in (1..=1_000_u32, 1..60_u32),
            lateness in prop::collection::vec(0..5_u64, 1..200),
        ) {
            let (rate, mut allowance, mut now) = (rate(per_second, burst), Allowance::default(), 0);
            for late in lateness {
                // Whole milliseconds, and so a little less often than allowed where the rate does not go into them.
                now += 1_000_u64.div_ceil(u64::from(per_second)) + late;
                prop_assert!(ask(&mut allowance, rate, 1, at(now)), "{now} ms at {rate:?}");
            }
        }

        #[test]
        fn whoever_waits_as_long_as_told_gets_one(
            (per_second, burst, servers) in (1..400_u32, 1..60_u32, 1..5_u32),
            asked in 0..200_usize,
        ) {
            let (rate, mut allowance) = (rate(per_second, burst), Allowance::default());
            for _ in 0..asked {
                ask(&mut allowance, rate, servers, at(0));
            }
            if let Some(wait) = allowance.wait(rate, servers, at(0)) {
                let then = at(0).plus(wait + Duration::from_millis(1));
                prop_assert!(ask(&mut allowance, rate, servers, then));
            }
        }

        // However callers go from one to the other: each server tells what it gave as soon as it is much, and now and then.
        #[test]
        fn the_sum_over_servers_holds_but_for_what_is_untold(
            (per_second, burst, servers) in (1..400_u32, 1..80_u32, 1..5_u32),
            steps in prop::collection::vec((0..5_usize, 0..30_u64, prop::bool::weighted(0.1)), 1..300),
        ) {
            let (rate, mut shared, mut now) = (rate(per_second, burst), Shared::default(), 0);
            let mut own = vec![Allowance::default(); servers as usize];
            let mut given = Vec::new();
            for (number, pause, is_time) in steps {
                now += pause;
                let one = &mut own[number % servers as usize];
                if ask(one, rate, servers, at(now)) {
                    given.push(now);
                }
                if is_time || one.untold(rate) == Untold::Much {
                    let missing = shared.charge(rate, one.tell(), at(now));
                    one.told(rate, servers, at(now), missing);
                }
                let untold: u32 = own.iter().map(|one| one.untold).sum();
                prop_assert!(untold <= servers * rate.hurry());
            }
            holds(&given, rate, u64::from(servers * (rate.hurry() + 1)))?;
        }

        // The store is away: each has its even share, and no caller is refused for that who keeps to it.
        #[test]
        fn servers_that_can_tell_nobody_give_their_even_share(
            (per_second, burst, servers) in (4..400_u32, 8..80_u32, 1..5_u32),
            asked in prop::collection::vec((0..5_usize, 0..20_u64), 1..300),
        ) {
            let (rate, mut now) = (rate(per_second, burst), 0);
            let mut own = vec![Allowance::default(); servers as usize];
            let mut given = Vec::new();
            for (number, pause) in asked {
                now += pause;
                if ask(&mut own[number % servers as usize], rate, servers, at(now)) {
                    given.push(now);
                }
            }
            holds(&given, rate, u64::from(servers))?;
        }
    }
}
