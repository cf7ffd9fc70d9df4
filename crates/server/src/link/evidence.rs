//! Keeps what belongs to nothing, so that somebody can look at it, at a rate no hostile device can turn into a flood.

use std::sync::{Arc, Mutex, PoisonError};

use utmos_core::{
    id::{GatewaySn, TenantId},
    ports::{Ids, Unmatched},
    time::{Clock, Mono},
};
use utmos_dji::envelope;

use crate::passing::Passing;

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
    /// What is kept, by gateway; `None` stands for unknown gateways.
    kept: Mutex<Rates>,
    /// What the log is told beside that.
    told: Mutex<Rates>,
}

/// Per gateway, the second that counts and how many there were in it.
type Rates = Passing<Option<GatewaySn>, Option<(Mono, u32)>>;

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
        Self { clock, ids, kept: Mutex::default(), told: Mutex::default() }
    }

    /// What is to be stored of a stray message; `None` when its gateway has had its share.
    pub(super) fn of(&self, stray: Stray<'_>) -> Option<Unmatched> {
        let now = self.clock.now();
        if !has_room(&self.kept, stray.gateway, now.mono) {
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

    /// Whether the log may be told of something else of a gateway: as often as evidence is kept, and beside that, for whoever
    /// says much that means something has its evidence kept all the same.
    pub(super) fn may_tell(&self, gateway: &GatewaySn) -> bool {
        has_room(&self.told, Some(gateway), self.clock.now().mono)
    }
}

fn has_room(rates: &Mutex<Rates>, gateway: Option<&GatewaySn>, now: Mono) -> bool {
    let mut rates = rates.lock().unwrap_or_else(PoisonError::into_inner);
    let has_passed = |from: Mono| now.since(from).as_millis() >= 1_000;
    let is_over = |rate: &Option<(Mono, u32)>| rate.is_none_or(|(from, _)| has_passed(from));
    let rate = rates.of(&gateway.cloned(), is_over);
    let (from, count) = match *rate {
        Some((from, count)) if !has_passed(from) => (from, count),
        Some(_) | None => (now, 0),
    };
    *rate = Some((from, count.saturating_add(1)));
    count < KEPT_PER_SECOND_MAX
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]
    use crate::{clock::SystemClock, ids::SystemIds};

    use super::*;

    fn evidence() -> Evidence {
        Evidence::new(Arc::new(SystemClock::new()), Arc::new(SystemIds::new()))
    }

    #[test]
    fn what_the_log_is_told_takes_nothing_from_what_is_kept() {
        let evidence = evidence();
        let gateway = GatewaySn::parse("DOCK").unwrap();
        for _ in 0..10 * KEPT_PER_SECOND_MAX {
            evidence.may_tell(&gateway);
        }
        let stray = Stray {
            tenant: None,
            gateway: Some(&gateway),
            topic: "t",
            payload: b"{}",
            reason: "r",
            about: About::default(),
        };
        assert!(evidence.of(stray).is_some());
    }

    #[test]
    fn so_many_of_a_gateway_count_in_a_second_and_gateways_of_before_take_no_room() {
        let rates = Mutex::<Rates>::default();
        let at = Mono::from_millis;
        let dock = GatewaySn::parse("DOCK").unwrap();
        let counted = |now| (0..100).filter(|_| has_room(&rates, Some(&dock), at(now))).count();
        assert_eq!((counted(0), counted(999), counted(1_000)), (20, 0, 20));
        for number in 0..50_000 {
            let gateway = GatewaySn::parse(&format!("MADE-UP-{number}")).unwrap();
            assert!(has_room(&rates, Some(&gateway), at(2_000 + number)));
        }
        assert!(rates.lock().unwrap().len() <= 2 * 1_001 + 1);
    }
}
