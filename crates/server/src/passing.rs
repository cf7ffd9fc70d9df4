//! What means nothing any more after a while, by what it is about, without a clock of its own: room grows with what is
//! there lately and not with everything that ever was. Pure.

use std::collections::BTreeMap;

/// So few are never looked through.
const LOOK_MIN: usize = 1_024;

/// Values that pass.
#[derive(Debug)]
pub(crate) struct Passing<K, V> {
    of: BTreeMap<K, V>,
    /// How many there may be before those that passed are thrown out.
    look_at: usize,
}

impl<K, V> Default for Passing<K, V> {
    fn default() -> Self {
        Self { of: BTreeMap::new(), look_at: LOOK_MIN }
    }
}

impl<K: Ord + Clone, V: Default> Passing<K, V> {
    /// The value of `key`, a new one where there is none. From time to time, and in all as seldom as each time costs, those
    /// go that have passed.
    pub(crate) fn of(&mut self, key: &K, has_passed: impl Fn(&V) -> bool) -> &mut V {
        if self.of.len() >= self.look_at && !self.of.contains_key(key) {
            self.of.retain(|_, value| !has_passed(value));
            self.look_at = (2 * self.of.len()).max(LOOK_MIN);
        }
        self.of.entry(key.clone()).or_default()
    }

    /// The value of `key`, where there is one.
    #[cfg(test)]
    pub(crate) fn get(&self, key: &K) -> Option<&V> {
        self.of.get(key)
    }

    /// The same, to be changed.
    pub(crate) fn get_mut(&mut self, key: &K) -> Option<&mut V> {
        self.of.get_mut(key)
    }

    /// How many there are, those that have passed among them.
    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.of.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_are_no_more_than_twice_those_that_count_and_none_of_these_goes() {
        let mut passing: Passing<u32, u32> = Passing::default();
        for number in 0..100_000 {
            // The last thousand count.
            *passing.of(&number, |at| *at + 1_000 < number) = number;
            assert!(passing.len() <= 2 * 1_001 + 1, "{number}: {}", passing.len());
            if number % 997 == 0 {
                let mut counting = number.saturating_sub(999)..=number;
                assert!(counting.all(|it| passing.get(&it) == Some(&it)), "{number}");
            }
        }
    }
}
