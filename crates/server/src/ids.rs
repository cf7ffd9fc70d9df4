//! Fresh ids.

use std::sync::{Mutex, PoisonError};

use utmos_core::{ports::Ids, time::Timestamp};
use uuid::{ContextV7, Uuid};

/// Ids from the system's random numbers; ordered ones rise even within one millisecond.
#[derive(Debug)]
pub struct SystemIds {
    order: Mutex<ContextV7>,
}

impl SystemIds {
    /// A source of ids.
    #[must_use]
    pub fn new() -> Self {
        Self { order: Mutex::new(ContextV7::new()) }
    }
}

impl Default for SystemIds {
    fn default() -> Self {
        Self::new()
    }
}

impl Ids for SystemIds {
    fn ordered(&self, at: Timestamp) -> Uuid {
        let millis = u64::try_from(at.as_millis()).unwrap_or(0);
        let (seconds, nanos) =
            (millis / 1_000, u32::try_from(millis % 1_000).unwrap_or(0) * 1_000_000);
        let order = self.order.lock().unwrap_or_else(PoisonError::into_inner);
        Uuid::new_v7(uuid::Timestamp::from_unix(&*order, seconds, nanos))
    }

    fn random(&self) -> Uuid {
        Uuid::new_v4()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ordered_ids_rise_within_a_millisecond() {
        let ids = SystemIds::new();
        let made: Vec<Uuid> =
            (0..10_000).map(|_| ids.ordered(Timestamp::from_millis(1_700_000_000_000))).collect();
        assert!(made.is_sorted_by(|a, b| a < b));
        assert_eq!(made[0].get_version_num(), 7);
    }
}
