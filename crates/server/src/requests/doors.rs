//! How much of one gateway and of one tenant is in hand at once: one that floods us takes nothing from the others. Pure.

use utmos_core::{
    id::{GatewaySn, TenantId},
    time::Mono,
};

use crate::{passing::Passing, shares::Room};

/// Requests of one gateway that are being answered, and the bytes they hold.
pub(super) const IN_HAND_MAX: usize = 64;
pub(super) const IN_HAND_BYTES_MAX: usize = 2 * 1024 * 1024;
/// The same of all gateways; tenants share it.
pub(super) const IN_HAND_OF_ALL_MAX: usize = 16_384;
pub(super) const IN_HAND_BYTES_OF_ALL_MAX: usize = 128 * 1024 * 1024;
/// Requests of one gateway whose record is being written.
pub(super) const RECORDING_PER_GATEWAY_MAX: usize = 64;
/// The same of all gateways; tenants share it.
pub(super) const RECORDING_MAX: usize = 8_192;
/// Requests of one gateway put on record in a second.
pub(super) const RECORDED_PER_SECOND_MAX: u32 = 20;
/// Requests of one gateway that may wait for an answer by hand.
pub(super) const OPEN_PER_GATEWAY_MAX: usize = 64;
/// The same of all gateways; tenants share it. One alone has more than is kept on record of one.
pub(super) const OPEN_OF_ALL_MAX: usize = 65_536;
/// Copies of one request that wait for its answer.
pub(super) const COPIES_MAX: usize = 8;
/// Longest `data` of a request that is kept whole, in bytes, and how much is kept of a longer one.
pub(super) const PAYLOAD_BYTES_MAX: usize = 16 * 1024;
pub(super) const PAYLOAD_HEAD_BYTES: usize = 4 * 1024;

/// What is in hand of each gateway and each tenant. Gateways of which nothing was in hand lately take no room.
#[derive(Debug)]
pub(super) struct Doors {
    gateways: Passing<GatewaySn, InHand>,
    requests: Room,
    bytes: Room,
    recording: Room,
}

#[derive(Debug, Default)]
struct InHand {
    requests: usize,
    bytes: usize,
    recording: usize,
    second: Option<Mono>,
    recorded: u32,
}

impl InHand {
    /// Whether nothing of it counts any more.
    fn has_passed(&self, now: Mono) -> bool {
        let is_over = |second| now.since(second).as_millis() >= 1_000;
        self.requests == 0 && self.recording == 0 && self.second.is_none_or(is_over)
    }
}

impl Default for Doors {
    fn default() -> Self {
        Self {
            gateways: Passing::default(),
            requests: Room::new(IN_HAND_OF_ALL_MAX),
            bytes: Room::new(IN_HAND_BYTES_OF_ALL_MAX),
            recording: Room::new(RECORDING_MAX),
        }
    }
}

impl Doors {
    /// Takes a request in, if there is room among so many tenants. Of a gateway, one alone always finds room in its share,
    /// however large.
    pub(super) fn enter(
        &mut self,
        tenant: TenantId,
        gateway: &GatewaySn,
        bytes: usize,
        now: Mono,
        tenants: usize,
    ) -> bool {
        let held = self.gateways.of(gateway, |held| held.has_passed(now));
        let is_full = held.requests >= IN_HAND_MAX
            || (held.requests > 0 && held.bytes + bytes > IN_HAND_BYTES_MAX);
        if is_full || !self.requests.take(tenant, 1, tenants) {
            return false;
        }
        if !self.bytes.take(tenant, bytes, tenants) {
            self.requests.give_back(tenant, 1);
            return false;
        }
        held.requests += 1;
        held.bytes += bytes;
        true
    }

    /// A request that was taken in is answered or given up.
    pub(super) fn leave(&mut self, tenant: TenantId, gateway: &GatewaySn, bytes: usize) {
        self.requests.give_back(tenant, 1);
        self.bytes.give_back(tenant, bytes);
        if let Some(held) = self.gateways.get_mut(gateway) {
            held.requests = held.requests.saturating_sub(1);
            held.bytes = held.bytes.saturating_sub(bytes);
        }
    }

    /// Whether a request may be put on record now, among so many tenants; if so, it counts until [`Doors::recorded`].
    pub(super) fn record(
        &mut self,
        tenant: TenantId,
        gateway: &GatewaySn,
        now: Mono,
        tenants: usize,
    ) -> bool {
        let held = self.gateways.of(gateway, |held| held.has_passed(now));
        if held.second.is_none_or(|second| now.since(second).as_millis() >= 1_000) {
            held.second = Some(now);
            held.recorded = 0;
        }
        let has_room = held.recorded < RECORDED_PER_SECOND_MAX
            && held.recording < RECORDING_PER_GATEWAY_MAX
            && self.recording.take(tenant, 1, tenants);
        if has_room {
            held.recorded += 1;
            held.recording += 1;
        }
        has_room
    }

    /// A record was written, or could not be.
    pub(super) fn recorded(&mut self, tenant: TenantId, gateway: &GatewaySn) {
        self.recording.give_back(tenant, 1);
        if let Some(held) = self.gateways.get_mut(gateway) {
            held.recording = held.recording.saturating_sub(1);
        }
    }

    /// Records that are being written.
    pub(super) fn recording(&self) -> usize {
        self.recording.taken()
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]
    use uuid::Uuid;

    use super::*;

    const NOW: Mono = Mono::from_millis(0);

    fn tenant(number: u128) -> TenantId {
        TenantId::new(Uuid::from_u128(number))
    }

    #[test]
    fn a_tenant_of_many_gateways_takes_no_room_from_the_others() {
        let mut doors = Doors::default();
        let now = Mono::from_millis(0);
        let quiet = GatewaySn::parse("QUIET").unwrap();
        let (mut entered, mut recorded) = (0, 0);
        for number in 0..2_000 {
            let gateway = GatewaySn::parse(&format!("LOUD-{number}")).unwrap();
            entered += (0..64).filter(|_| doors.enter(tenant(1), &gateway, 10, NOW, 2)).count();
            recorded += (0..64).filter(|_| doors.record(tenant(1), &gateway, now, 2)).count();
        }
        let most = |max: usize| max / 2 + max / 2 / 3;
        assert_eq!((entered, recorded), (most(IN_HAND_OF_ALL_MAX), most(RECORDING_MAX)));
        assert!(
            doors.enter(tenant(2), &quiet, 10, NOW, 2) && doors.record(tenant(2), &quiet, now, 2)
        );
        assert_eq!(doors.recording(), most(RECORDING_MAX) + 1);
        let large = IN_HAND_BYTES_MAX;
        let mut doors = Doors::default();
        let entered = (0..2_000).filter(|number| {
            let gateway = GatewaySn::parse(&format!("LOUD-{number}")).unwrap();
            doors.enter(tenant(1), &gateway, large, NOW, 2)
        });
        assert_eq!(entered.count(), most(IN_HAND_BYTES_OF_ALL_MAX) / large);
        assert!(doors.enter(tenant(2), &quiet, large, NOW, 2));
    }

    #[test]
    fn a_gateway_that_floods_takes_no_room_from_the_others() {
        let mut doors = Doors::default();
        let (loud, quiet) = (GatewaySn::parse("LOUD").unwrap(), GatewaySn::parse("QUIET").unwrap());
        let entered = (0..1_000).filter(|_| doors.enter(tenant(1), &loud, 10, NOW, 2)).count();
        assert_eq!(entered, IN_HAND_MAX);
        assert!(
            doors.enter(tenant(1), &quiet, IN_HAND_BYTES_MAX * 2, NOW, 2),
            "one alone always finds room"
        );
        assert!(!doors.enter(tenant(1), &quiet, 1, NOW, 2));
        doors.leave(tenant(1), &quiet, IN_HAND_BYTES_MAX * 2);
        doors.leave(tenant(1), &loud, 10);
        assert!(
            doors.enter(tenant(1), &quiet, 1, NOW, 2)
                && doors.enter(tenant(1), &loud, 1, NOW, 2)
                && !doors.enter(tenant(1), &loud, 1, NOW, 2)
        );
    }

    #[test]
    fn gateways_of_which_nothing_is_in_hand_take_no_room() {
        let mut doors = Doors::default();
        let held = GatewaySn::parse("HELD").unwrap();
        assert!(doors.enter(tenant(1), &held, 10, NOW, 2));
        for number in 0..50_000 {
            let gateway = GatewaySn::parse(&format!("PASSING-{number}")).unwrap();
            let now = Mono::from_millis(number);
            assert!(
                doors.enter(tenant(1), &gateway, 10, now, 2)
                    && doors.record(tenant(1), &gateway, now, 2)
            );
            doors.leave(tenant(1), &gateway, 10);
            doors.recorded(tenant(1), &gateway);
        }
        assert!(doors.gateways.len() < 5_000, "{}", doors.gateways.len());
        assert_eq!(doors.gateways.get(&held).map(|held| held.requests), Some(1));
    }

    #[test]
    fn so_many_are_recorded_in_a_second_and_written_at_once() {
        let mut doors = Doors::default();
        let gateway = GatewaySn::parse("LOUD").unwrap();
        let mut total = 0;
        for second in 0..10 {
            let now = Mono::from_millis(second * 1_000);
            let recorded = (0..1_000).filter(|_| doors.record(tenant(1), &gateway, now, 2)).count();
            assert!(recorded <= RECORDED_PER_SECOND_MAX as usize);
            total += recorded;
        }
        assert_eq!(total, RECORDING_PER_GATEWAY_MAX, "none of them was written");
        doors.recorded(tenant(1), &gateway);
        assert!(doors.record(tenant(1), &gateway, Mono::from_millis(20_000), 2));
    }
}
