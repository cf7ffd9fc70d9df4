//! How much memory the bodies of all running requests may hold together.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Bytes of bodies that are held at a time, for all requests together.
pub const HELD_BYTES_MAX: usize = 64 * 1024 * 1024;
/// The beginning of every body is held beside the budget, so that an emergency gets in however many large bodies there
/// are. Connections and their streams bound the sum.
const FREE_BYTES: usize = 4 * 1024;

/// The bytes that may still be held.
#[derive(Clone)]
pub struct BodyBudget(Arc<Semaphore>);

/// What one body holds of the budget; given back when this is dropped.
pub struct Share {
    budget: BodyBudget,
    free: usize,
    held: Option<OwnedSemaphorePermit>,
}

impl BodyBudget {
    /// A budget of so many bytes.
    #[must_use]
    pub fn new(bytes: usize) -> Self {
        Self(Arc::new(Semaphore::new(bytes)))
    }

    /// The share of a body of which nothing has come yet.
    #[must_use]
    pub fn begin(&self) -> Share {
        Share { budget: self.clone(), free: FREE_BYTES, held: None }
    }
}

impl Default for BodyBudget {
    fn default() -> Self {
        Self::new(HELD_BYTES_MAX)
    }
}

impl Share {
    /// Asks for room for so many more bytes. What a peer only announces costs others nothing.
    #[must_use]
    pub fn grow(&mut self, bytes: usize) -> bool {
        let beside = bytes.min(self.free);
        let Ok(wanted) = u32::try_from(bytes - beside) else { return false };
        if 0 < wanted {
            let Ok(more) = self.budget.0.clone().try_acquire_many_owned(wanted) else {
                return false;
            };
            match &mut self.held {
                Some(held) => held.merge(more),
                None => self.held = Some(more),
            }
        }
        self.free -= beside;
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_bodies_are_free_and_large_ones_share_what_there_is() {
        let budget = BodyBudget::new(100);
        let mut large = budget.begin();
        assert!(large.grow(FREE_BYTES - 1) && large.grow(61) && large.grow(20));
        let mut other = budget.begin();
        assert!(other.grow(FREE_BYTES) && !other.grow(21) && other.grow(20) && !other.grow(1));
        let mut small = budget.begin();
        assert!(small.grow(FREE_BYTES), "however little is left");
        drop(large);
        assert!(other.grow(80) && !other.grow(1));
        drop(other);
        assert_eq!(budget.0.available_permits(), 100);
    }
}
