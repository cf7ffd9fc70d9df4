//! Whose share of the latest is full: told when it becomes so, and not again before it was not for a while. Pure.

use std::{collections::BTreeMap, time::Duration};

use utmos_core::{id::TenantId, time::Mono};

/// So long nothing must have been left out of a tenant's latest until its share counts as not full. What finds no room is
/// told again at the latest with the next `state`.
const ROOM_WAIT: Duration = Duration::from_secs(300);

/// Tenants of whose latest something was left out lately, and when that was last. No more entries than tenants.
#[derive(Debug, Default)]
pub(super) struct Fullness(BTreeMap<TenantId, Mono>);

impl Fullness {
    /// Something of a tenant found no room. Answers whether that is to be told.
    pub(super) fn was_full(&mut self, tenant: TenantId, now: Mono) -> bool {
        self.0.insert(tenant, now).is_none()
    }

    /// Tenants whose share is not full any more, each once.
    pub(super) fn take_over(&mut self, now: Mono) -> Vec<TenantId> {
        self.0.extract_if(.., |_, last| now.since(*last) >= ROOM_WAIT).map(|(who, _)| who).collect()
    }

    /// How many shares are full.
    pub(super) fn count(&self) -> usize {
        self.0.len()
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    #[test]
    fn a_full_share_is_told_once_and_again_only_after_it_had_room_for_a_while() {
        let mut full = Fullness::default();
        let [one, other] = [1, 2].map(|number| TenantId::new(Uuid::from_u128(number)));
        let at = |seconds: u64| Mono::from_millis(seconds * 1_000);
        assert!(full.was_full(one, at(0)) && full.was_full(other, at(0)));
        for minute in 1..60 {
            assert!(!full.was_full(one, at(minute * 60)));
            let over = full.take_over(at(minute * 60));
            assert_eq!(over.contains(&other), minute == 5, "{minute}");
            assert!(!over.contains(&one));
        }
        assert_eq!(full.count(), 1);
        assert!(full.take_over(at(59 * 60 + 299)).is_empty());
        assert_eq!(full.take_over(at(59 * 60 + 300)), [one]);
        assert_eq!(full.count(), 0);
        assert!(full.was_full(one, at(3_841)));
    }
}
