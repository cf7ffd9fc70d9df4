//! What the link has to do that may wait for the store, one thing after another beside the way in.
//!
//! The way in never waits for it: what finds no room is dropped and counted.

use futures_util::future::BoxFuture;
use tokio::sync::mpsc;

use super::allotments::{Allotments, MESSAGES_MAX, Whose};

/// Chores of one gateway that may wait.
const PER_GATEWAY_MAX: usize = 64;

type Chore = BoxFuture<'static, ()>;

/// The chores that wait.
pub(super) struct Chores {
    queue: mpsc::Sender<Chore>,
    allotments: Allotments,
}

impl Chores {
    /// Starts doing chores; ends when this is dropped.
    pub(super) fn start() -> Self {
        let (queue, mut todo) = mpsc::channel::<Chore>(MESSAGES_MAX);
        tokio::spawn(async move {
            while let Some(chore) = todo.recv().await {
                chore.await;
            }
        });
        Self { queue, allotments: Allotments::new(PER_GATEWAY_MAX) }
    }

    /// Leaves something to be done in its turn that holds so many bytes of somebody's message. Answers whether there was
    /// room.
    pub(super) fn add(
        &self,
        whose: Whose<'_>,
        bytes: usize,
        chore: impl Future<Output = ()> + Send + 'static,
    ) -> bool {
        let Some(allotment) = self.allotments.take(whose, bytes) else { return false };
        let chore = async move {
            // Held until it is done, or thrown away.
            let _allotment = allotment;
            chore.await;
        };
        self.queue.try_send(Box::pin(chore)).is_ok()
    }

    /// How many wait.
    pub(super) fn depth(&self) -> usize {
        self.queue.max_capacity() - self.queue.capacity()
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]
    use std::future::pending;

    use tokio::sync::oneshot;

    use uuid::Uuid;

    use utmos_core::id::{GatewaySn, TenantId};

    use super::{super::allotments::BYTES_PER_GATEWAY_MAX, *};

    fn of(tenant: u128, gateway: &GatewaySn) -> Whose<'_> {
        let tenant = Some(TenantId::new(Uuid::from_u128(tenant)));
        Whose { tenant, gateway: Some(gateway), tenants: 2 }
    }

    #[tokio::test]
    async fn a_tenant_of_many_gateways_takes_no_room_from_the_others() {
        let chores = Chores::start();
        let mut taken = 0;
        for number in 0..2 * MESSAGES_MAX / PER_GATEWAY_MAX {
            let gateway = GatewaySn::parse(&format!("LOUD-{number}")).unwrap();
            taken += (0..64).filter(|_| chores.add(of(1, &gateway), 10, pending())).count();
        }
        assert_eq!(taken, MESSAGES_MAX / 2 + MESSAGES_MAX / 2 / 4);
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
