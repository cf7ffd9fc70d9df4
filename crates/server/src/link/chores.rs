//! What the link has to do that may wait for the store, one thing after another beside the way in.
//!
//! The way in never waits for it: what finds no room is dropped and counted. Each gateway has a share of the room, and each
//! tenant, so that one that floods us takes nothing from the others.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use futures_util::future::BoxFuture;
use tokio::sync::mpsc;
use utmos_core::id::{GatewaySn, TenantId};

use crate::shares::Room;

/// Chores that may wait in all, and the bytes of the messages they hold; tenants share both.
const WAITING_MAX: usize = 8_192;
const BYTES_MAX: usize = 128 * 1024 * 1024;
/// Chores of one gateway that may wait, and the bytes of the messages they hold.
const PER_GATEWAY_MAX: usize = 64;
const BYTES_PER_GATEWAY_MAX: usize = 2 * 1024 * 1024;

type Chore = BoxFuture<'static, ()>;

/// Whose chore it is. `None` stands for those nobody knows.
#[derive(Debug, Clone, Copy)]
pub(super) struct Whose<'a> {
    pub(super) tenant: Option<TenantId>,
    pub(super) gateway: Option<&'a GatewaySn>,
    /// How many tenants there are.
    pub(super) tenants: usize,
}

/// What waits of one gateway.
#[derive(Debug, Clone, Copy, Default)]
struct Waiting {
    chores: usize,
    bytes: usize,
}

/// What waits. Pure.
struct Shares {
    gateways: BTreeMap<Option<GatewaySn>, Waiting>,
    chores: Room<Option<TenantId>>,
    bytes: Room<Option<TenantId>>,
}

impl Shares {
    fn take(&mut self, whose: Whose<'_>, bytes: usize) -> bool {
        let Whose { tenant, gateway, tenants } = whose;
        // Nobody has a part as well.
        let tenants = tenants + 1;
        let waiting = self.gateways.get(&gateway.cloned()).copied().unwrap_or_default();
        // Of a gateway, one message alone always finds room, however large.
        let is_full = waiting.chores >= PER_GATEWAY_MAX
            || (waiting.chores > 0 && waiting.bytes + bytes > BYTES_PER_GATEWAY_MAX);
        if is_full || !self.chores.take(tenant, 1, tenants) {
            return false;
        }
        if !self.bytes.take(tenant, bytes, tenants) {
            self.chores.give_back(tenant, 1);
            return false;
        }
        let waiting = Waiting { chores: waiting.chores + 1, bytes: waiting.bytes + bytes };
        self.gateways.insert(gateway.cloned(), waiting);
        true
    }

    fn give_back(&mut self, tenant: Option<TenantId>, gateway: &Option<GatewaySn>, bytes: usize) {
        self.chores.give_back(tenant, 1);
        self.bytes.give_back(tenant, bytes);
        let Some(waiting) = self.gateways.get_mut(gateway) else { return };
        waiting.chores -= 1;
        waiting.bytes -= bytes;
        if waiting.chores == 0 {
            self.gateways.remove(gateway);
        }
    }
}

/// The chores that wait.
pub(super) struct Chores {
    queue: mpsc::Sender<Chore>,
    shares: Arc<Mutex<Shares>>,
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
        let shares = Shares {
            gateways: BTreeMap::new(),
            chores: Room::new(WAITING_MAX),
            bytes: Room::new(BYTES_MAX),
        };
        Self { queue, shares: Arc::new(Mutex::new(shares)) }
    }

    /// Leaves something to be done in its turn that holds so many bytes of somebody's message. Answers whether there was
    /// room.
    pub(super) fn add(
        &self,
        whose: Whose<'_>,
        bytes: usize,
        chore: impl Future<Output = ()> + Send + 'static,
    ) -> bool {
        let Some(share) = Share::take(&self.shares, whose, bytes) else { return false };
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

/// A chore's part of the room.
struct Share {
    shares: Arc<Mutex<Shares>>,
    tenant: Option<TenantId>,
    gateway: Option<GatewaySn>,
    bytes: usize,
}

impl Share {
    fn take(shares: &Arc<Mutex<Shares>>, whose: Whose<'_>, bytes: usize) -> Option<Self> {
        let Whose { tenant, gateway, .. } = whose;
        let taken = lock(shares).take(whose, bytes);
        taken.then(|| Self { shares: shares.clone(), tenant, gateway: gateway.cloned(), bytes })
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        lock(&self.shares).give_back(self.tenant, &self.gateway, self.bytes);
    }
}

fn lock(shares: &Mutex<Shares>) -> MutexGuard<'_, Shares> {
    shares.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]
    use std::future::pending;

    use tokio::sync::oneshot;

    use uuid::Uuid;

    use super::*;

    fn of(tenant: u128, gateway: &GatewaySn) -> Whose<'_> {
        let tenant = Some(TenantId::new(Uuid::from_u128(tenant)));
        Whose { tenant, gateway: Some(gateway), tenants: 2 }
    }

    #[tokio::test]
    async fn a_tenant_of_many_gateways_takes_no_room_from_the_others() {
        let chores = Chores::start();
        let mut taken = 0;
        for number in 0..2 * WAITING_MAX / PER_GATEWAY_MAX {
            let gateway = GatewaySn::parse(&format!("LOUD-{number}")).unwrap();
            taken += (0..64).filter(|_| chores.add(of(1, &gateway), 10, pending())).count();
        }
        assert_eq!(taken, WAITING_MAX / 2 + WAITING_MAX / 2 / 4);
        let quiet = GatewaySn::parse("QUIET").unwrap();
        assert!(chores.add(of(2, &quiet), 10, async {}));
        let nobody = Whose { tenant: None, gateway: None, tenants: 2 };
        assert!(chores.add(nobody, 10, async {}), "nobody's share is another one");
    }

    #[tokio::test]
    async fn a_gateway_that_floods_takes_no_room_from_the_others() {
        let chores = Chores::start();
        let (loud, quiet) = (GatewaySn::parse("LOUD").unwrap(), GatewaySn::parse("QUIET").unwrap());
        let (release, held) = oneshot::channel::<()>();
        assert!(chores.add(of(1, &loud), 10, async { held.await.unwrap() }));
        let taken = (0..1_000).filter(|_| chores.add(of(1, &loud), 10, async {})).count();
        assert_eq!(taken, PER_GATEWAY_MAX - 1);
        let (done, was_done) = oneshot::channel();
        assert!(chores.add(of(1, &quiet), 10, async { done.send(()).unwrap() }));
        release.send(()).unwrap();
        was_done.await.unwrap();
        assert!(chores.add(of(1, &loud), 10, async {}), "what was done made room");
    }

    #[tokio::test]
    async fn large_messages_take_more_of_the_share_and_one_always_finds_room() {
        let chores = Chores::start();
        let gateway = GatewaySn::parse("DOCK").unwrap();
        assert!(chores.add(of(1, &gateway), BYTES_PER_GATEWAY_MAX * 2, pending()));
        assert!(!chores.add(of(1, &gateway), 1, async {}));
        assert!(
            chores.add(Whose { tenant: None, gateway: None, tenants: 2 }, 1, async {}),
            "nobody's share is another one"
        );
    }
}
