//! What happened at gateways of other servers, for a moment: of several that share a history the holder of a gateway keeps it,
//! and the one that held it may be gone before it could. Whoever holds the gateway next has it here. What the former holder
//! kept all the same is there once (`tid`, or the device's own time and words), but for comings and goings.

use std::{collections::VecDeque, time::Duration};

use utmos_core::{
    device_event::DeviceEvent,
    id::{GatewaySn, TenantId},
    time::{Mono, Now},
};
use utmos_dji::uplink::Event;

/// Longer than others need to take over from a server that died, or than a server needs to find that it holds what it holds.
const KEPT: Duration = Duration::from_secs(6);
/// Events that may wait, and bytes of what they say; the oldest go first.
const EVENTS_MAX: usize = 4_096;
const BYTES_MAX: usize = 8 * 1024 * 1024;

/// Who said something, and when.
#[derive(Debug, Clone)]
pub(super) struct Origin {
    pub(super) tenant: TenantId,
    pub(super) gateway: GatewaySn,
    pub(super) at: Now,
}

/// Something that happened.
pub(super) enum What {
    /// A device said so, and nobody has looked at it yet.
    Said(Origin, Box<Event>),
    /// This server found out.
    Found(Box<DeviceEvent>),
}

impl What {
    fn gateway(&self) -> &GatewaySn {
        match self {
            Self::Said(origin, _) => &origin.gateway,
            Self::Found(event) => &event.gateway,
        }
    }

    fn bytes(&self) -> usize {
        match self {
            Self::Said(_, event) => event.data.len(),
            Self::Found(event) => event.data.len(),
        }
    }
}

#[derive(Default)]
pub(super) struct Aside {
    events: VecDeque<(Mono, What)>,
    bytes: usize,
}

impl Aside {
    pub(super) fn is_empty(&self) -> bool {
        self.events.is_empty()
    }

    pub(super) fn put(&mut self, now: Mono, what: What) {
        self.bytes += what.bytes();
        self.events.push_back((now, what));
        while EVENTS_MAX < self.events.len() || BYTES_MAX < self.bytes {
            let Some((_, oldest)) = self.events.pop_front() else { break };
            self.bytes -= oldest.bytes();
        }
    }

    /// Takes out what is this server's by now, in the order it came, and lets go what is too old to be.
    pub(super) fn take(&mut self, now: Mono, is_ours: impl Fn(&GatewaySn) -> bool) -> Vec<What> {
        let mut ours = Vec::new();
        for (came, what) in std::mem::take(&mut self.events) {
            if is_ours(what.gateway()) {
                ours.push(what);
            } else if now.since(came) < KEPT {
                self.events.push_back((came, what));
            }
        }
        self.bytes = self.events.iter().map(|(_, what)| what.bytes()).sum();
        ours
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

    use utmos_core::{device_event::EventKind, id::DeviceSn, time::Timestamp};
    use uuid::Uuid;

    use super::*;

    fn found(gateway: &str, n: u128, bytes: usize) -> What {
        What::Found(Box::new(DeviceEvent {
            id: Uuid::from_u128(n),
            tenant: TenantId::new(Uuid::nil()),
            device: DeviceSn::parse(gateway).unwrap(),
            gateway: GatewaySn::parse(gateway).unwrap(),
            kind: EventKind::Online,
            method: None,
            tid: None,
            data: "x".repeat(bytes).into(),
            is_cut: false,
            received_at: Timestamp::from_millis(0),
            device_time: None,
            need_reply: false,
            command: None,
        }))
    }

    fn numbers(taken: &[What]) -> Vec<u128> {
        let number = |what: &What| match what {
            What::Found(event) => event.id.as_u128(),
            What::Said(..) => 0,
        };
        taken.iter().map(number).collect()
    }

    fn at(millis: u64) -> Mono {
        Mono::from_millis(millis)
    }

    #[test]
    fn whoever_holds_a_gateway_next_has_what_happened_lately_and_nothing_older() {
        let mut aside = Aside::default();
        for (n, gateway) in [(1, "A"), (2, "B"), (3, "A")] {
            aside.put(at(u64::try_from(n).unwrap() * 1_000), found(gateway, n, 1));
        }
        assert_eq!(numbers(&aside.take(at(3_000), |_| false)), []);
        assert_eq!(numbers(&aside.take(at(4_000), |gateway| gateway.as_str() == "A")), [1, 3]);
        assert_eq!(numbers(&aside.take(at(8_000), |_| false)), []);
        assert!(aside.is_empty() && aside.bytes == 0, "the other's is the other's");
    }

    #[test]
    fn neither_number_nor_size_grows_without_bound() {
        let mut aside = Aside::default();
        let all = EVENTS_MAX as u128 + 10;
        (0..all).for_each(|n| aside.put(at(0), found("A", n, 1)));
        assert_eq!((aside.events.len(), aside.bytes), (EVENTS_MAX, EVENTS_MAX));
        assert_eq!(numbers(&aside.take(at(0), |_| true))[0], 10);
        (0..20).for_each(|n| aside.put(at(0), found("A", n, 1024 * 1024)));
        assert_eq!(numbers(&aside.take(at(0), |_| true)), (12..20).collect::<Vec<_>>());
    }
}
