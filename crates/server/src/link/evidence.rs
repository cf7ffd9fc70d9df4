//! Keeps what belongs to nothing, so that somebody can look at it, at a rate no hostile device can turn into a flood.

use std::sync::{Arc, Mutex, PoisonError};

use utmos_core::{
    id::{GatewaySn, TenantId},
    ports::{Ids, Store, Unmatched},
    time::{Clock, Mono},
};
use utmos_dji::envelope;

/// Messages kept per second at most; the others are only counted.
const KEPT_PER_SECOND_MAX: u32 = 50;
/// Longest part of a name that is kept.
const NAME_CHARS_MAX: usize = 128;

/// What could be read of a message.
#[derive(Default)]
pub(super) struct About {
    pub(super) tid: Option<String>,
    pub(super) method: Option<String>,
}

pub(super) struct Evidence {
    store: Arc<dyn Store>,
    clock: Arc<dyn Clock>,
    ids: Arc<dyn Ids>,
    /// The second that counts, and how many were kept in it.
    rate: Mutex<(Mono, u32)>,
}

impl Evidence {
    pub(super) fn new(store: Arc<dyn Store>, clock: Arc<dyn Clock>, ids: Arc<dyn Ids>) -> Self {
        Self { store, clock, ids, rate: Mutex::new((Mono::from_millis(0), 0)) }
    }

    pub(super) async fn keep(
        &self,
        tenant: Option<TenantId>,
        gateway: Option<&GatewaySn>,
        topic: &str,
        payload: &[u8],
        reason: &str,
    ) {
        self.keep_about(tenant, gateway, topic, payload, reason, About::default()).await;
    }

    pub(super) async fn keep_about(
        &self,
        tenant: Option<TenantId>,
        gateway: Option<&GatewaySn>,
        topic: &str,
        payload: &[u8],
        reason: &str,
        about: About,
    ) {
        let now = self.clock.now();
        if !self.has_room(now.mono) {
            return;
        }
        let cut = |text: String| text.chars().take(NAME_CHARS_MAX).collect::<String>();
        let unmatched = Unmatched {
            id: self.ids.ordered(now.wall),
            tenant,
            gateway: gateway.cloned(),
            topic: cut(topic.to_owned()),
            tid: about.tid.map(cut),
            method: about.method.map(cut),
            reason: reason.to_owned(),
            raw: envelope::evidence(payload),
            received_at: now.wall,
        };
        if let Err(error) = self.store.keep_unmatched(unmatched).await {
            tracing::error!(%error, "could not keep evidence");
        }
    }

    fn has_room(&self, now: Mono) -> bool {
        let mut rate = self.rate.lock().unwrap_or_else(PoisonError::into_inner);
        if now.since(rate.0).as_millis() >= 1_000 {
            *rate = (now, 0);
        }
        rate.1 += 1;
        rate.1 <= KEPT_PER_SECOND_MAX
    }
}
