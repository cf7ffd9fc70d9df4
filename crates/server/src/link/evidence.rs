//! Keeps what belongs to nothing, so that somebody can look at it, at a rate no hostile device can turn into a flood.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
};

use utmos_core::{
    id::{GatewaySn, TenantId},
    ports::{Ids, Unmatched},
    time::{Clock, Mono},
};
use utmos_dji::envelope;

/// Messages of one gateway kept per second at most; the others are only counted.
const KEPT_PER_SECOND_MAX: u32 = 20;
/// Longest part of a name that is kept.
const NAME_CHARS_MAX: usize = 128;

/// What could be read of a message.
#[derive(Default)]
pub(super) struct About {
    pub(super) tid: Option<String>,
    pub(super) method: Option<String>,
}

pub(super) struct Evidence {
    clock: Arc<dyn Clock>,
    ids: Arc<dyn Ids>,
    /// Per gateway, the second that counts and how many were kept in it. `None` stands for unknown gateways.
    rates: Mutex<BTreeMap<Option<GatewaySn>, (Mono, u32)>>,
}

/// What is known of a message that belongs to nothing.
pub(super) struct Stray<'a> {
    pub(super) tenant: Option<TenantId>,
    pub(super) gateway: Option<&'a GatewaySn>,
    pub(super) topic: &'a str,
    pub(super) payload: &'a [u8],
    pub(super) reason: &'a str,
    pub(super) about: About,
}

impl Evidence {
    pub(super) fn new(clock: Arc<dyn Clock>, ids: Arc<dyn Ids>) -> Self {
        Self { clock, ids, rates: Mutex::new(BTreeMap::new()) }
    }

    /// What is to be stored of a stray message; `None` when its gateway has had its share.
    pub(super) fn of(&self, stray: Stray<'_>) -> Option<Unmatched> {
        let now = self.clock.now();
        if !self.has_room(stray.gateway, now.mono) {
            return None;
        }
        let cut = |text: &str| text.chars().take(NAME_CHARS_MAX).collect::<String>();
        Some(Unmatched {
            id: self.ids.ordered(now.wall),
            tenant: stray.tenant,
            gateway: stray.gateway.cloned(),
            topic: cut(stray.topic),
            tid: stray.about.tid.as_deref().map(cut),
            method: stray.about.method.as_deref().map(cut),
            reason: stray.reason.to_owned(),
            raw: envelope::evidence(stray.payload),
            received_at: now.wall,
        })
    }

    /// Whether the log may be told of something else of a gateway: it counts as evidence does.
    pub(super) fn may_tell(&self, gateway: &GatewaySn) -> bool {
        self.has_room(Some(gateway), self.clock.now().mono)
    }

    fn has_room(&self, gateway: Option<&GatewaySn>, now: Mono) -> bool {
        let mut rates = self.rates.lock().unwrap_or_else(PoisonError::into_inner);
        let rate = rates.entry(gateway.cloned()).or_insert((now, 0));
        if now.since(rate.0).as_millis() >= 1_000 {
            *rate = (now, 0);
        }
        rate.1 += 1;
        rate.1 <= KEPT_PER_SECOND_MAX
    }
}
