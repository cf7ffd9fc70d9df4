//! Room that tenants share, so that none of them can fill it for the others. Pure.
//!
//! One half is parted evenly between the tenants there are and one more, whoever comes next: each one's part of it is its
//! own, whatever the others do. The other half is for whoever comes first. Nothing goes through all tenants, but for a
//! change of how many there are.

use std::collections::BTreeMap;

use utmos_core::id::TenantId;

/// So much of anything, and who has how much of it.
#[derive(Debug)]
pub(crate) struct Room<K = TenantId> {
    max: usize,
    tenants: usize,
    taken: usize,
    /// What is taken beyond the parts of those who took it.
    common: usize,
    of: BTreeMap<K, usize>,
}

impl<K: Ord + Copy> Room<K> {
    pub(crate) fn new(max: usize) -> Self {
        Self { max, tenants: 0, taken: 0, common: 0, of: BTreeMap::new() }
    }

    /// Each one's part.
    fn own(&self) -> usize {
        self.max / 2 / self.tenants.saturating_add(1)
    }

    fn beyond(&self, held: usize) -> usize {
        held.saturating_sub(self.own())
    }

    /// Parts it between so many. What somebody has beyond a part that became smaller counts as common.
    fn part(&mut self, tenants: usize) {
        if self.tenants != tenants {
            self.tenants = tenants;
            self.common = self.of.values().map(|held| self.beyond(*held)).sum();
        }
    }

    fn held(&self, who: K) -> usize {
        self.of.get(&who).copied().unwrap_or(0)
    }

    /// How much somebody may take, among so many tenants. Never more than there is: whoever had taken all they may before
    /// there were so many keeps it until it is given back.
    pub(crate) fn left(&mut self, who: K, tenants: usize) -> usize {
        self.part(tenants);
        let common = (self.max - self.max / 2).saturating_sub(self.common);
        let own = self.own().saturating_sub(self.held(who));
        (own + common).min(self.max.saturating_sub(self.taken))
    }

    /// Takes so much for somebody among so many tenants, if there is room for it.
    pub(crate) fn take(&mut self, who: K, amount: usize, tenants: usize) -> bool {
        let fits = amount <= self.left(who, tenants);
        if fits {
            self.put(who, amount);
        }
        fits
    }

    /// Takes so much, whether there is room for it or not.
    pub(crate) fn put(&mut self, who: K, amount: usize) {
        self.set(who, self.held(who).saturating_add(amount));
    }

    /// So much of somebody's is free again.
    pub(crate) fn give_back(&mut self, who: K, amount: usize) {
        self.set(who, self.held(who).saturating_sub(amount));
    }

    fn set(&mut self, who: K, held: usize) {
        let before = self.held(who);
        self.taken = self.taken - before + held;
        self.common = self.common - self.beyond(before) + self.beyond(held);
        if held == 0 {
            self.of.remove(&who);
        } else {
            self.of.insert(who, held);
        }
    }

    /// How much is taken.
    pub(crate) fn taken(&self) -> usize {
        self.taken
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Takes one after another until there is no room.
    fn fill(room: &mut Room<usize>, who: usize, tenants: usize) -> usize {
        (0..100_000).take_while(|_| room.take(who, 1, tenants)).count()
    }

    #[test]
    fn whatever_the_others_do_a_tenant_has_its_part_and_nobody_has_more_than_there_is() {
        for (max, tenants) in [(8_192, 2), (8_192, 500), (64 << 10, 10), (10, 3), (1, 1)] {
            let mut room = Room::new(max);
            for greedy in 1..tenants {
                while room.take(greedy, 1 + max / 5_000, tenants) {}
                assert!(room.taken() <= max);
            }
            let last = fill(&mut room, 0, tenants);
            assert!(last >= max / 2 / (tenants + 1), "{last} of {max} among {tenants}");
            assert!(room.taken() <= max);
        }
    }

    #[test]
    fn who_is_alone_leaves_the_next_one_a_part_and_what_is_given_back_is_free() {
        let mut room = Room::new(100);
        assert_eq!(fill(&mut room, 1, 1), 75);
        assert_eq!(room.left(2, 1), 25);
        room.give_back(1, 30);
        assert_eq!((room.left(1, 1), room.left(2, 1)), (30, 55));
        room.give_back(1, 45);
        assert_eq!((room.taken(), room.of.len(), room.common), (0, 0, 0));
        // What is given back comes out of the common half first: the others want it.
        assert!(room.take(1, 66, 2));
        room.give_back(1, 40);
        assert_eq!((room.left(1, 2), room.left(2, 2)), (40, 56));
        // No more is free than was taken, and nothing overflows.
        room.give_back(1, 1_000);
        room.give_back(3, 1);
        assert_eq!((room.taken(), room.left(1, 1)), (0, 75));
        assert!(!room.take(1, usize::MAX, 1) && room.take(1, 0, usize::MAX));
    }

    #[test]
    fn more_tenants_part_anew_and_never_take_more_than_there_is() {
        let mut room = Room::new(120);
        assert_eq!(fill(&mut room, 1, 1), 90);
        // Of a second one's twenty all are there, though the first has more than it could take now.
        assert_eq!((room.left(1, 2), fill(&mut room, 2, 2)), (0, 20));
        assert_eq!(fill(&mut room, 3, 5), 10, "what there is of a part");
        assert_eq!((fill(&mut room, 4, 5), room.taken()), (0, 120));
        // What the first gives back is common no more, and the others find their parts.
        room.give_back(1, 90);
        assert_eq!((fill(&mut room, 4, 5), fill(&mut room, 1, 5)), (60, 10));
        assert_eq!(room.taken(), 100);
        // And fewer have more each.
        assert_eq!(room.left(5, 1), 20);
    }

    #[test]
    fn what_cannot_be_refused_is_taken_and_leaves_nothing_until_it_is_given_back() {
        let mut room = Room::new(10);
        room.put(1, 12);
        assert!(!room.take(2, 1, 1) && room.take(2, 0, 1));
        room.give_back(1, 12);
        assert!(room.take(2, 5, 1));
    }
}
