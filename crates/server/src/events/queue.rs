//! Events on their way to the store: so many in all, so many of each tenant and each gateway, so many bytes.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
};

use utmos_core::{
    command::Spec,
    device_event::{Alarm, DeviceEvent},
    id::{DeviceSn, GatewaySn},
};

use crate::shares::Room;

/// Events that may wait.
const EVENTS_MAX: usize = 8_192;
/// Events of one gateway that may wait: a noisy one takes no room from the others.
const GATEWAY_EVENTS_MAX: usize = 512;
/// Bytes of what they say that may wait.
const BYTES_MAX: usize = 32 * 1024 * 1024;
/// The same of one gateway.
const GATEWAY_BYTES_MAX: usize = BYTES_MAX / 8;
/// Events that are stored in one go.
const BATCH_MAX: usize = 512;

/// An event that is to be stored.
pub struct Pending {
    /// The event; what it says is not masked yet, unless it was cut.
    pub event: DeviceEvent,
    /// What is known of its command, whose secrets it may repeat.
    pub spec: Option<Arc<Spec>>,
}

/// What waits of one gateway.
#[derive(Debug, Clone, Copy, Default)]
struct Share {
    events: usize,
    bytes: usize,
}

/// What waits for the store.
pub struct Queue {
    events: VecDeque<Pending>,
    places: Room,
    bytes: Room,
    of_gateway: BTreeMap<GatewaySn, Share>,
    /// The newest of each device is enough.
    alarms: BTreeMap<DeviceSn, Vec<Alarm>>,
}

impl Default for Queue {
    fn default() -> Self {
        Self {
            events: VecDeque::new(),
            places: Room::new(EVENTS_MAX),
            bytes: Room::new(BYTES_MAX),
            of_gateway: BTreeMap::new(),
            alarms: BTreeMap::new(),
        }
    }
}

impl Queue {
    /// Adds an event, if there is room for its tenant, of so many, and its gateway.
    pub fn push(&mut self, pending: Pending, tenants: usize) -> bool {
        let bytes = pending.event.data.len();
        let (tenant, gateway) = (pending.event.tenant, &pending.event.gateway);
        let share = self.of_gateway.get(gateway).copied().unwrap_or_default();
        let fits = share.events < GATEWAY_EVENTS_MAX
            && bytes <= GATEWAY_BYTES_MAX.saturating_sub(share.bytes)
            && bytes <= self.bytes.left(tenant, tenants)
            && self.places.take(tenant, 1, tenants);
        if fits {
            self.bytes.put(tenant, bytes);
            let share = Share { events: share.events + 1, bytes: share.bytes + bytes };
            self.of_gateway.insert(gateway.clone(), share);
            self.events.push_back(pending);
        }
        fits
    }

    /// Says which alarms a device has now.
    pub fn set_alarms(&mut self, device: &DeviceSn, alarms: Vec<Alarm>) {
        self.alarms.insert(device.clone(), alarms);
    }

    /// Which alarms devices had when the store did not take them, where nothing newer is to be said.
    pub fn keep_alarms(&mut self, alarms: Vec<(DeviceSn, Vec<Alarm>)>) {
        for (device, alarms) in alarms {
            self.alarms.entry(device).or_insert(alarms);
        }
    }

    /// Takes out what is to be stored next.
    pub fn take(&mut self) -> (Vec<Pending>, Vec<(DeviceSn, Vec<Alarm>)>) {
        let count = self.events.len().min(BATCH_MAX);
        let events: Vec<Pending> = self.events.drain(..count).collect();
        for pending in &events {
            let bytes = pending.event.data.len();
            self.places.give_back(pending.event.tenant, 1);
            self.bytes.give_back(pending.event.tenant, bytes);
            if let Some(share) = self.of_gateway.get_mut(&pending.event.gateway) {
                share.events -= 1;
                share.bytes -= bytes;
                if share.events == 0 {
                    self.of_gateway.remove(&pending.event.gateway);
                }
            }
        }
        (events, std::mem::take(&mut self.alarms).into_iter().collect())
    }

    /// How many events wait.
    pub fn len(&self) -> usize {
        self.events.len()
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

    use utmos_core::{device_event::EventKind, id::TenantId, time::Timestamp};
    use uuid::Uuid;

    use super::*;

    fn pending(gateway: &str, bytes: usize) -> Pending {
        of_tenant(0, gateway, bytes)
    }

    fn of_tenant(tenant: u128, gateway: &str, bytes: usize) -> Pending {
        let event = DeviceEvent {
            id: Uuid::nil(),
            tenant: TenantId::new(Uuid::from_u128(tenant)),
            device: DeviceSn::parse(gateway).unwrap(),
            gateway: GatewaySn::parse(gateway).unwrap(),
            kind: EventKind::Event,
            method: None,
            tid: None,
            data: "x".repeat(bytes).into(),
            is_cut: false,
            received_at: Timestamp::from_millis(0),
            device_time: None,
            need_reply: false,
            command: None,
        };
        Pending { event, spec: None }
    }

    #[test]
    fn a_noisy_gateway_fills_its_own_share_and_no_more() {
        let mut queue = Queue::default();
        for _ in 0..GATEWAY_EVENTS_MAX {
            assert!(queue.push(pending("NOISY", 10), 1));
        }
        assert!(!queue.push(pending("NOISY", 10), 1));
        assert!(queue.push(pending("QUIET", 10), 1));
        let (taken, _) = queue.take();
        assert_eq!(taken.len(), BATCH_MAX);
        assert!(queue.push(pending("NOISY", 10), 1), "its share is free again");
        while !queue.take().0.is_empty() {}
        assert_eq!(
            (queue.len(), queue.bytes.taken() + queue.places.taken(), queue.of_gateway.len()),
            (0, 0, 0)
        );
    }

    #[test]
    fn large_events_of_one_gateway_leave_room_for_the_others() {
        let mut queue = Queue::default();
        let large = (0..100).filter(|_| queue.push(pending("NOISY", 1024 * 1024), 1));
        assert_eq!(large.count(), GATEWAY_BYTES_MAX / (1024 * 1024));
        assert!(queue.push(pending("QUIET", 1024 * 1024), 1));
        while !queue.take().0.is_empty() {}
        assert!(queue.push(pending("NOISY", 1024 * 1024), 1), "its share is free again");
    }

    #[test]
    fn neither_number_nor_size_grows_without_bound() {
        let mut queue = Queue::default();
        let taken = (0..EVENTS_MAX + 100).filter(|n| queue.push(pending(&format!("G{n}"), 1), 1));
        assert_eq!(taken.count(), EVENTS_MAX / 4 * 3, "all but the part of whoever comes next");
        let mut queue = Queue::default();
        let big = (0..100).filter(|n| queue.push(pending(&format!("G{n}"), 1024 * 1024), 1));
        assert_eq!(big.count(), 24);
    }

    #[test]
    fn a_tenant_with_many_gateways_fills_its_share_and_leaves_the_others_theirs() {
        let mut queue = Queue::default();
        for bytes in [1, 200_000] {
            let loud = (0..100_000)
                .filter(|n| queue.push(of_tenant(1, &format!("LOUD-{}", n % 1_000), bytes), 4));
            assert!(loud.count() > 10);
            for tenant in 2..5 {
                let quiet = (0..50).filter(|_| {
                    queue.push(of_tenant(tenant, &format!("QUIET-{tenant}"), 10_000), 4)
                });
                assert_eq!(quiet.count(), 50, "{tenant} beside events of {bytes}");
            }
            while !queue.take().0.is_empty() {}
        }
    }
}
