//! What is remembered to a bound. Pure.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use utmos_core::{id::CommandId, signing::NonceUse, time::Timestamp};

/// Nonces; beyond their bound those go that expire first.
#[derive(Default)]
pub(super) struct Nonces {
    by_key: BTreeMap<[u8; 16], NonceUse>,
    by_expiry: BTreeSet<(Timestamp, [u8; 16])>,
}

/// Nonces that are remembered.
pub(super) const NONCES_MAX: usize = 10_000;

impl Nonces {
    pub(super) fn insert(&mut self, nonce: NonceUse) {
        self.remove(&nonce.key);
        if self.by_key.len() >= NONCES_MAX
            && let Some((_, oldest)) = self.by_expiry.pop_first()
        {
            self.by_key.remove(&oldest);
        }
        self.by_key.insert(nonce.key, nonce);
        self.by_expiry.insert((nonce.expires_at, nonce.key));
    }

    pub(super) fn remove(&mut self, key: &[u8; 16]) {
        if let Some(nonce) = self.by_key.remove(key) {
            self.by_expiry.remove(&(nonce.expires_at, nonce.key));
        }
    }

    pub(super) fn contains(&self, key: &[u8; 16]) -> bool {
        self.by_key.contains_key(key)
    }

    pub(super) fn len(&self) -> usize {
        self.by_key.len()
    }

    pub(super) fn some(&self, most: usize) -> Vec<NonceUse> {
        self.by_key.values().take(most).copied().collect()
    }
}

/// Commands; beyond their bound those go that came first.
#[derive(Default)]
pub(super) struct Latest {
    ids: BTreeSet<CommandId>,
    order: VecDeque<CommandId>,
}

/// Commands that are remembered.
pub(super) const LATEST_MAX: usize = 10_000;

impl Latest {
    pub(super) fn insert(&mut self, id: CommandId) {
        if !self.ids.insert(id) {
            return;
        }
        self.order.push_back(id);
        if self.order.len() > LATEST_MAX
            && let Some(oldest) = self.order.pop_front()
        {
            self.ids.remove(&oldest);
        }
    }

    pub(super) fn contains(&self, id: CommandId) -> bool {
        self.ids.contains(&id)
    }
}

#[cfg(test)]
mod tests {
    use super::{
        super::tests::given::{nonce, spec},
        *,
    };

    #[test]
    fn of_too_many_nonces_those_go_that_expire_first() {
        let mut nonces = Nonces::default();
        // The first expires last.
        let of = |number: u32| nonce(u128::from(number), 1_000_000 - i64::from(number));
        let count = u32::try_from(NONCES_MAX).unwrap_or(u32::MAX);
        (0..=count).for_each(|number| nonces.insert(of(number)));
        // Once more, and no room is taken for it.
        nonces.insert(NonceUse { expires_at: of(0).expires_at, ..of(count) });
        for (number, is_known) in [(0, true), (count - 2, true), (count - 1, false), (count, true)]
        {
            assert_eq!(nonces.contains(&of(number).key), is_known, "{number}");
        }
        assert_eq!((nonces.by_key.len(), nonces.by_expiry.len()), (NONCES_MAX, NONCES_MAX));
        (0..=count).for_each(|number| nonces.remove(&of(number).key));
        assert!(nonces.some(1).is_empty() && nonces.by_expiry.is_empty());
    }

    #[test]
    fn of_too_many_commands_those_go_that_came_first() {
        let mut latest = Latest::default();
        let count = i64::try_from(LATEST_MAX).unwrap_or(i64::MAX);
        let id = |number| spec(number, "k").id;
        latest.insert(id(0));
        (0..=count).for_each(|number| latest.insert(id(number)));
        assert!(!latest.contains(id(0)) && latest.contains(id(1)) && latest.contains(id(count)));
        assert_eq!((latest.ids.len(), latest.order.len()), (LATEST_MAX, LATEST_MAX));
    }
}
