//! What is to be done when: due things in the order of their time, and of their making where times are equal.

use std::collections::BTreeMap;

/// Due things, by milliseconds of running time.
#[derive(Debug)]
pub struct Timers<T> {
    due: BTreeMap<(u64, u64), T>,
    made: u64,
}

impl<T> Default for Timers<T> {
    fn default() -> Self {
        Self { due: BTreeMap::new(), made: 0 }
    }
}

impl<T> Timers<T> {
    /// Sets `thing` for the time `at`.
    pub fn set(&mut self, at: u64, thing: T) {
        self.made += 1;
        self.due.insert((at, self.made), thing);
    }

    /// When the first is due.
    pub fn next(&self) -> Option<u64> {
        self.due.keys().next().map(|(at, _)| *at)
    }

    /// Takes the first that is due at `now`, with its time.
    pub fn pop(&mut self, now: u64) -> Option<(u64, T)> {
        let entry = self.due.first_entry()?;
        let at = entry.key().0;
        (at <= now).then(|| (at, entry.remove()))
    }

    /// Forgets whatever `unwanted` picks.
    pub fn cancel(&mut self, unwanted: impl Fn(&T) -> bool) {
        self.due.retain(|_, thing| !unwanted(thing));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn things_come_in_the_order_of_time_and_then_of_making() {
        let mut timers = Timers::default();
        timers.set(20, "late");
        timers.set(10, "first");
        timers.set(10, "second");
        assert_eq!(timers.next(), Some(10));
        assert_eq!(timers.pop(9), None);
        assert_eq!(timers.pop(10), Some((10, "first")));
        assert_eq!(timers.pop(30), Some((10, "second")));
        timers.cancel(|thing| *thing == "late");
        assert_eq!(timers.pop(30), None);
        assert_eq!(timers.next(), None);
    }
}
