//! What the link has to do that may wait for the store, one thing after another beside the way in.
//!
//! The way in never waits for it: what finds no room is dropped and counted. Each gateway has a share of the room, so that
//! one that floods us takes nothing from the others.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use futures_util::future::BoxFuture;
use tokio::sync::mpsc;
use utmos_core::id::GatewaySn;

/// Chores that may wait in all.
const WAITING_MAX: usize = 4_096;
/// Chores of one gateway that may wait, and the bytes of the messages they hold.
const PER_GATEWAY_MAX: usize = 64;
const BYTES_PER_GATEWAY_MAX: usize = 2 * 1024 * 1024;

type Chore = BoxFuture<'static, ()>;

/// What waits of one gateway. `None` stands for those nobody knows.
#[derive(Debug, Clone, Copy, Default)]
struct Waiting {
    chores: usize,
    bytes: usize,
}

type Shares = Arc<Mutex<BTreeMap<Option<GatewaySn>, Waiting>>>;

/// The chores that wait.
pub(super) struct Chores {
    queue: mpsc::Sender<Chore>,
    shares: Shares,
}

impl Chores {
    /// Starts doing chores; ends when this is dropped.
    pub(super) fn start() -> Self {
        let (queue, mut todo) = mpsc::channel::<Chore>(WAITING_MAX);
        tokio::spawn(async move {
            while let Some(chore) = todo.recv().await {
                chore.await;
            }
        });
        Self { queue, shares: Shares::default() }
    }

    /// Leaves something to be done in its turn that holds so many bytes of a gateway's message. Answers whether there
    /// was room.
    pub(super) fn add(
        &self,
        gateway: Option<&GatewaySn>,
        bytes: usize,
        chore: impl Future<Output = ()> + Send + 'static,
    ) -> bool {
        let Some(share) = Share::take(&self.shares, gateway, bytes) else { return false };
        let chore = async move {
            // Held until it is done, or thrown away.
            let _share = share;
            chore.await;
        };
        self.queue.try_send(Box::pin(chore)).is_ok()
    }

    /// How many wait.
    pub(super) fn depth(&self) -> usize {
        self.queue.max_capacity() - self.queue.capacity()
    }
}

/// A chore's part of its gateway's share.
struct Share {
    shares: Shares,
    gateway: Option<GatewaySn>,
    bytes: usize,
}

impl Share {
    fn take(shares: &Shares, gateway: Option<&GatewaySn>, bytes: usize) -> Option<Self> {
        let mut held = lock(shares);
        let waiting = held.get(&gateway.cloned()).copied().unwrap_or_default();
        // One message alone always finds room, however large.
        let is_full = waiting.chores >= PER_GATEWAY_MAX
            || (waiting.chores > 0 && waiting.bytes + bytes > BYTES_PER_GATEWAY_MAX);
        if is_full {
            return None;
        }
        let waiting = Waiting { chores: waiting.chores + 1, bytes: waiting.bytes + bytes };
        held.insert(gateway.cloned(), waiting);
        drop(held);
        Some(Self { shares: shares.clone(), gateway: gateway.cloned(), bytes })
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        let mut held = lock(&self.shares);
        let Some(waiting) = held.get_mut(&self.gateway) else { return };
        waiting.chores -= 1;
        waiting.bytes -= self.bytes;
        if waiting.chores == 0 {
            held.remove(&self.gateway);
        }
    }
}

fn lock(shares: &Shares) -> MutexGuard<'_, BTreeMap<Option<GatewaySn>, Waiting>> {
    shares.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]
    use std::future::pending;

    use tokio::sync::oneshot;

    use super::*;

    #[tokio::test]
    async fn a_gateway_that_floods_takes_no_room_from_the_others() {
        let chores = Chores::start();
        let (loud, quiet) = (GatewaySn::parse("LOUD").unwrap(), GatewaySn::parse("QUIET").unwrap());
        let (release, held) = oneshot::channel::<()>();
        assert!(chores.add(Some(&loud), 10, async { held.await.unwrap() }));
        let taken = (0..1_000).filter(|_| chores.add(Some(&loud), 10, async {})).count();
        assert_eq!(taken, PER_GATEWAY_MAX - 1);
        let (done, was_done) = oneshot::channel();
        assert!(chores.add(Some(&quiet), 10, async { done.send(()).unwrap() }));
        release.send(()).unwrap();
        was_done.await.unwrap();
        assert!(chores.add(Some(&loud), 10, async {}), "what was done made room");
    }

    #[tokio::test]
    async fn large_messages_take_more_of_the_share_and_one_always_finds_room() {
        let chores = Chores::start();
        let gateway = GatewaySn::parse("DOCK").unwrap();
        assert!(chores.add(Some(&gateway), BYTES_PER_GATEWAY_MAX * 2, pending()));
        assert!(!chores.add(Some(&gateway), 1, async {}));
        assert!(chores.add(None, 1, async {}), "nobody's share is another one");
    }
}
