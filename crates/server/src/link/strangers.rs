//! Devices that speak and that nobody has registered: each is told of once, and so many that a fleet of somebody else's on the
//! same broker fills neither the log nor the store. Pure.

use std::{
    collections::{BTreeSet, VecDeque},
    time::Duration,
};

use utmos_core::{id::DeviceSn, time::Mono};

/// Those that are remembered; beyond, the first are forgotten, and told of anew when they speak again.
const KNOWN_MAX: usize = 1_024;
/// How many are told of at once …
const TOLD_MAX: u32 = 20;
/// … and how long it takes until one more is.
const TOLD_AGAIN_WAIT: Duration = Duration::from_secs(60);

#[derive(Debug, Default)]
pub(super) struct Strangers {
    known: BTreeSet<DeviceSn>,
    order: VecDeque<DeviceSn>,
    /// How many were told of, less one for every wait since.
    told: u32,
    /// Since when that is counted.
    from: Option<Mono>,
}

impl Strangers {
    /// Whether this one is to be told of now. One that has to wait is told of when it speaks later, and so is one of which
    /// nobody says then that it [was told](Self::was_told).
    pub(super) fn is_news(&mut self, sn: &DeviceSn, now: Mono) -> bool {
        if self.known.contains(sn) {
            return false;
        }
        let from = *self.from.get_or_insert(now);
        let waits = now.since(from).as_millis() / TOLD_AGAIN_WAIT.as_millis();
        if waits > 0 {
            self.told = self.told.saturating_sub(u32::try_from(waits).unwrap_or(u32::MAX));
            self.from = Some(now);
        }
        self.told < TOLD_MAX
    }

    /// This one was told of.
    pub(super) fn was_told(&mut self, sn: &DeviceSn) {
        self.told += 1;
        if !self.known.insert(sn.clone()) {
            return;
        }
        if self.order.len() == KNOWN_MAX
            && let Some(first) = self.order.pop_front()
        {
            self.known.remove(&first);
        }
        self.order.push_back(sn.clone());
    }

    /// What was told of this one is lost: it is told of anew when it speaks again.
    pub(super) fn was_lost(&mut self, sn: &DeviceSn) {
        if self.known.remove(sn) {
            self.order.retain(|known| known != sn);
        }
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]
    use super::*;

    fn told(strangers: &mut Strangers, numbers: std::ops::Range<u32>, second: u64) -> usize {
        let sn = |number| DeviceSn::parse(&format!("STRANGER-{number}")).unwrap();
        let now = Mono::from_millis(second * 1_000);
        let mut told = |number| {
            let is_news = strangers.is_news(&sn(number), now);
            if is_news {
                strangers.was_told(&sn(number));
            }
            is_news
        };
        numbers.filter(|number| told(*number)).count()
    }

    #[test]
    fn whoever_found_no_room_is_told_of_when_it_speaks_again_and_takes_no_turn_from_others() {
        let mut strangers = Strangers::default();
        let (sn, now) = (DeviceSn::parse("STRANGER-0").unwrap(), Mono::from_millis(1_000));
        for _ in 0..100 {
            assert!(strangers.is_news(&sn, now), "nobody was told");
        }
        assert_eq!(told(&mut strangers, 0..1_000, 1), 20);
        // What was lost was told all the same, so that a store that fails makes no flood of it.
        strangers.was_lost(&sn);
        assert_eq!((strangers.known.len(), strangers.order.len()), (19, 19));
        assert_eq!(told(&mut strangers, 0..1, 1), 0);
        assert_eq!(told(&mut strangers, 0..1, 61), 1);
    }

    #[test]
    fn each_is_told_of_once_and_a_fleet_of_them_now_and_then() {
        let mut strangers = Strangers::default();
        assert_eq!(told(&mut strangers, 0..5, 1), 5);
        assert_eq!(told(&mut strangers, 0..5, 2), 0);
        assert_eq!(told(&mut strangers, 0..1_000, 3), 15);
        assert_eq!(told(&mut strangers, 0..1_000, 59), 0);
        assert_eq!(told(&mut strangers, 0..1_000, 61), 1, "whoever had to wait");
        assert_eq!(told(&mut strangers, 0..10_000, 100_000), 20);
        assert_eq!(told(&mut strangers, 0..1, 200_000), 0, "it is known still");
    }

    #[test]
    fn so_many_are_remembered() {
        let mut strangers = Strangers::default();
        for number in 0..2_000 {
            let second = u64::from(number) * 60;
            assert_eq!(told(&mut strangers, number..number + 1, second), 1);
        }
        assert_eq!((strangers.known.len(), strangers.order.len()), (KNOWN_MAX, KNOWN_MAX));
        assert_eq!(told(&mut strangers, 0..1, 1_000_000), 1);
        assert_eq!(told(&mut strangers, 1_999..2_000, 1_000_000), 0);
    }
}
