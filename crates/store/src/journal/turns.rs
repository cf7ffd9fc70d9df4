//! Requests of emergencies with one key come one after another. Each is answered before the next is looked at, which then
//! finds its command: two copies that came at once could go two ways, one by the store and one by the journal. None waits
//! longer than the one before it may take, and whoever goes first is not held up.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
};

use tokio::sync::OwnedMutexGuard;
use utmos_core::{command::Spec, id::TenantId};

type Key = (TenantId, String);
type Place = Arc<tokio::sync::Mutex<()>>;

/// Whose turn it is, by key.
#[derive(Default)]
pub(super) struct Turns(Mutex<BTreeMap<Key, Place>>);

/// It is somebody's turn as long as this lives.
pub(super) struct Turn<'t> {
    turns: &'t Turns,
    key: Key,
    /// `None` only while it is waited for or dropped.
    held: Option<OwnedMutexGuard<()>>,
    /// Whether another with this key was under way when it came.
    has_waited: bool,
}

impl Turn<'_> {
    pub(super) fn has_waited(&self) -> bool {
        self.has_waited
    }
}

impl Turns {
    /// Waits until all that came before with this key are answered.
    pub(super) async fn take(&self, spec: &Spec) -> Turn<'_> {
        let key = (spec.tenant, spec.idempotency_key.clone());
        // Dropped while it waits, it leaves nothing behind either.
        let mut turn = Turn { turns: self, key, held: None, has_waited: false };
        let place = self.with(|places| places.entry(turn.key.clone()).or_default().clone());
        if let Ok(held) = place.clone().try_lock_owned() {
            turn.held = Some(held);
        } else {
            turn.has_waited = true;
            turn.held = Some(place.lock_owned().await);
        }
        turn
    }

    fn with<T>(&self, look: impl FnOnce(&mut BTreeMap<Key, Place>) -> T) -> T {
        look(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        self.held = None;
        self.turns.with(|places| {
            // Whoever waits holds the place as well.
            if places.get(&self.key).is_some_and(|place| Arc::strong_count(place) == 1) {
                places.remove(&self.key);
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::journal::tests::emergency;

    #[tokio::test]
    async fn one_key_has_one_turn_at_a_time_and_others_do_not_wait() {
        let turns = Arc::new(Turns::default());
        let first = turns.take(&emergency(0, "k")).await;
        drop(turns.take(&emergency(0, "other")).await);
        let next = {
            let turns = turns.clone();
            tokio::spawn(async move { drop(turns.take(&emergency(1, "k")).await) })
        };
        let gone = {
            let turns = turns.clone();
            tokio::spawn(async move { drop(turns.take(&emergency(2, "k")).await) })
        };
        for _ in 0..100 {
            tokio::task::yield_now().await;
        }
        assert!(!next.is_finished() && !gone.is_finished());
        // One of those who wait goes away.
        gone.abort();
        assert!(gone.await.is_err());
        drop(first);
        assert!(next.await.is_ok());
        assert!(turns.with(|places| places.is_empty()), "nothing is kept of keys");
    }
}
