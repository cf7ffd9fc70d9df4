//! Room of a fixed size that is shared out fairly: nobody holds more than is left for the others. Pure.

use std::collections::BTreeMap;

/// Who holds how much. One alone may hold half of it, two that come together a third each, and so on: there is always
/// as much left as the last of them took, and whoever comes next finds half of that. Where many take all they may, the
/// last find little, or nothing.
#[derive(Debug)]
pub(crate) struct Room<K> {
    size: usize,
    taken: usize,
    held: BTreeMap<K, usize>,
}

impl<K: Ord + Clone> Room<K> {
    /// Room of this size.
    pub(crate) fn new(size: usize) -> Self {
        Self { size, taken: 0, held: BTreeMap::new() }
    }

    /// Whether somebody may take so much: what is left then must be as much as they hold then.
    pub(crate) fn has(&self, who: &K, amount: usize) -> bool {
        let held = self.held.get(who).copied().unwrap_or(0) + amount;
        self.size.checked_sub(self.taken + amount).is_some_and(|left| held <= left)
    }

    /// Takes so much for somebody, if they may.
    pub(crate) fn take(&mut self, who: &K, amount: usize) -> bool {
        let has = self.has(who, amount);
        if has {
            self.take_anyway(who, amount);
        }
        has
    }

    /// Takes what cannot be refused any more.
    pub(crate) fn take_anyway(&mut self, who: &K, amount: usize) {
        if amount > 0 {
            *self.held.entry(who.clone()).or_default() += amount;
            self.taken += amount;
        }
    }

    /// Gives back what was taken.
    pub(crate) fn give_back(&mut self, who: &K, amount: usize) {
        let Some(held) = self.held.get_mut(who) else { return };
        let amount = amount.min(*held);
        *held -= amount;
        self.taken -= amount;
        if *held == 0 {
            self.held.remove(who);
        }
    }

    /// How much is taken in all.
    pub(crate) fn taken(&self) -> usize {
        self.taken
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fill(room: &mut Room<u32>, who: u32) -> usize {
        (0..1_000).filter(|_| room.take(&who, 1)).count()
    }

    #[test]
    fn one_alone_has_half_and_whoever_comes_next_as_much_as_is_left_to_them() {
        let mut room = Room::new(120);
        assert_eq!(fill(&mut room, 1), 60);
        assert_eq!(fill(&mut room, 2), 30, "half of what the first left");
        assert_eq!(fill(&mut room, 3), 15);
        assert_eq!(fill(&mut room, 1), 0);
        assert_eq!(room.taken(), 105);
        // What the first gives back is shared out anew.
        for _ in 0..60 {
            room.give_back(&1, 1);
        }
        assert_eq!(fill(&mut room, 3), 30);
        assert!(room.take(&4, 1), "there is always something left for one that holds nothing");
    }

    #[test]
    fn nothing_is_counted_twice_or_kept_of_those_who_hold_nothing() {
        let mut room = Room::new(10);
        assert!(room.take(&1, 0) && room.take(&1, 5) && !room.take(&1, 1) && !room.take(&2, 6));
        room.give_back(&1, 9);
        room.give_back(&2, 9);
        assert_eq!((room.taken(), room.held.len()), (0, 0));
        assert!(!room.take(&1, usize::MAX / 4), "it does not overflow");
        room.take_anyway(&1, 12);
        assert!(!room.has(&2, 0) && !room.take(&2, 1));
        room.give_back(&1, 12);
        assert!(room.take(&2, 5));
    }
}
