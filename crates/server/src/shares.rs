//! Room that tenants share, so that none of them can fill it for the others. Pure.
//!
//! One half is parted evenly: each tenant's part of it is its own, whatever the others do. The other half is for whoever
//! comes first. Nothing goes through all tenants.

use std::collections::BTreeMap;

use utmos_core::id::TenantId;

/// So much of anything, and who has how much of it.
#[derive(Debug)]
pub(crate) struct Room {
    max: usize,
    /// What is taken of the half that is common.
    common: usize,
    of: BTreeMap<TenantId, Taken>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Taken {
    own: usize,
    common: usize,
}

impl Room {
    pub(crate) fn new(max: usize) -> Self {
        Self { max, common: 0, of: BTreeMap::new() }
    }

    fn own(&self, tenants: usize) -> usize {
        self.max / 2 / tenants.max(1)
    }

    /// How much a tenant may take, among so many.
    pub(crate) fn left(&self, tenant: TenantId, tenants: usize) -> usize {
        let taken = self.of.get(&tenant).copied().unwrap_or_default();
        let common = (self.max - self.max / 2).saturating_sub(self.common);
        self.own(tenants).saturating_sub(taken.own) + common
    }

    /// Takes so much for a tenant among so many, if there is room for it.
    pub(crate) fn take(&mut self, tenant: TenantId, amount: usize, tenants: usize) -> bool {
        let fits = amount <= self.left(tenant, tenants);
        if fits {
            self.put(tenant, amount, tenants);
        }
        fits
    }

    /// Takes so much, whether there is room for it or not.
    pub(crate) fn put(&mut self, tenant: TenantId, amount: usize, tenants: usize) {
        if amount == 0 {
            return;
        }
        let own_max = self.own(tenants);
        let taken = self.of.entry(tenant).or_default();
        let own = amount.min(own_max.saturating_sub(taken.own));
        taken.own += own;
        taken.common += amount - own;
        self.common += amount - own;
    }

    /// So much of a tenant's is free again; the common half first.
    pub(crate) fn give_back(&mut self, tenant: TenantId, amount: usize) {
        let Some(taken) = self.of.get_mut(&tenant) else { return };
        let common = amount.min(taken.common);
        taken.common -= common;
        self.common -= common;
        taken.own = taken.own.saturating_sub(amount - common);
        if *taken == Taken::default() {
            self.of.remove(&tenant);
        }
    }

    /// How much is taken. Looks at every tenant that has something.
    pub(crate) fn taken(&self) -> usize {
        self.common + self.of.values().map(|taken| taken.own).sum::<usize>()
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    fn tenant(number: usize) -> TenantId {
        TenantId::new(Uuid::from_u128(number as u128))
    }

    #[test]
    fn whatever_the_others_do_a_tenant_has_its_part_and_nobody_has_more_than_there_is() {
        for (max, tenants) in [(8_192, 2), (8_192, 500), (64 << 20, 10), (10, 3)] {
            let mut room = Room::new(max);
            for greedy in 1..tenants {
                while room.take(tenant(greedy), 1 + max / 5_000, tenants) {}
                assert!(room.taken() <= max);
            }
            let mut last = 0;
            while room.take(tenant(0), 1, tenants) {
                last += 1;
            }
            assert!(last >= max / 2 / tenants, "{last} of {max} among {tenants}");
            assert!(room.taken() <= max);
        }
    }

    #[test]
    fn who_is_alone_has_all_of_it_and_what_is_given_back_is_free() {
        let mut room = Room::new(100);
        assert!(room.take(tenant(1), 100, 1) && !room.take(tenant(1), 1, 1));
        room.give_back(tenant(1), 30);
        assert_eq!((room.left(tenant(1), 1), room.left(tenant(2), 2)), (30, 55));
        room.give_back(tenant(1), 70);
        assert_eq!((room.taken(), room.of.len(), room.common), (0, 0, 0));
        // What is given back comes out of the common half first: the others want it.
        let mut room = Room::new(100);
        assert!(room.take(tenant(1), 75, 2));
        room.give_back(tenant(1), 50);
        assert_eq!((room.left(tenant(1), 2), room.left(tenant(2), 2)), (50, 75));
        // More may be given back than was taken, and nothing but what is there.
        room.give_back(tenant(1), 1_000);
        room.give_back(tenant(3), 1);
        assert_eq!((room.taken(), room.left(tenant(1), 1)), (0, 100));
    }
}
