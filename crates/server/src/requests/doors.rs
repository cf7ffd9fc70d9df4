//! How much of one gateway is in hand at once: one that floods us takes nothing from the others. Pure.

use std::collections::BTreeMap;

use utmos_core::{id::GatewaySn, time::Mono};

/// Requests of one gateway that are being answered, and the bytes they hold.
pub(super) const IN_HAND_MAX: usize = 64;
pub(super) const IN_HAND_BYTES_MAX: usize = 2 * 1024 * 1024;
/// Requests of one gateway whose record is being written.
pub(super) const RECORDING_PER_GATEWAY_MAX: usize = 64;
/// The same of all gateways.
pub(super) const RECORDING_MAX: usize = 4_096;
/// Requests of one gateway put on record in a second.
pub(super) const RECORDED_PER_SECOND_MAX: u32 = 20;
/// Requests of one gateway that may wait for an answer by hand.
pub(super) const OPEN_PER_GATEWAY_MAX: usize = 64;
/// Copies of one request that wait for its answer.
pub(super) const COPIES_MAX: usize = 8;
/// Longest `data` of a request that is kept whole, in bytes, and how much is kept of a longer one.
pub(super) const PAYLOAD_BYTES_MAX: usize = 16 * 1024;
pub(super) const PAYLOAD_HEAD_BYTES: usize = 4 * 1024;

/// What is in hand of each gateway. There are no more entries than registered gateways.
#[derive(Debug, Default)]
pub(super) struct Doors {
    gateways: BTreeMap<GatewaySn, InHand>,
}

#[derive(Debug, Default)]
struct InHand {
    requests: usize,
    bytes: usize,
    recording: usize,
    second: Option<Mono>,
    recorded: u32,
}

impl Doors {
    /// Takes a request in, if there is room. One alone always finds room, however large.
    pub(super) fn enter(&mut self, gateway: &GatewaySn, bytes: usize) -> bool {
        let held = self.gateways.entry(gateway.clone()).or_default();
        let is_full = held.requests >= IN_HAND_MAX
            || (held.requests > 0 && held.bytes + bytes > IN_HAND_BYTES_MAX);
        if !is_full {
            held.requests += 1;
            held.bytes += bytes;
        }
        !is_full
    }

    /// A request that was taken in is answered or given up.
    pub(super) fn leave(&mut self, gateway: &GatewaySn, bytes: usize) {
        if let Some(held) = self.gateways.get_mut(gateway) {
            held.requests = held.requests.saturating_sub(1);
            held.bytes = held.bytes.saturating_sub(bytes);
        }
    }

    /// Whether a request may be put on record now; if so, it counts until [`Doors::recorded`].
    pub(super) fn record(&mut self, gateway: &GatewaySn, now: Mono) -> bool {
        let held = self.gateways.entry(gateway.clone()).or_default();
        if held.second.is_none_or(|second| now.since(second).as_millis() >= 1_000) {
            held.second = Some(now);
            held.recorded = 0;
        }
        let has_room =
            held.recorded < RECORDED_PER_SECOND_MAX && held.recording < RECORDING_PER_GATEWAY_MAX;
        if has_room {
            held.recorded += 1;
            held.recording += 1;
        }
        has_room
    }

    /// A record was written, or could not be.
    pub(super) fn recorded(&mut self, gateway: &GatewaySn) {
        if let Some(held) = self.gateways.get_mut(gateway) {
            held.recording = held.recording.saturating_sub(1);
        }
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]
    use super::*;

    #[test]
    fn a_gateway_that_floods_takes_no_room_from_the_others() {
        let mut doors = Doors::default();
        let (loud, quiet) = (GatewaySn::parse("LOUD").unwrap(), GatewaySn::parse("QUIET").unwrap());
        let entered = (0..1_000).filter(|_| doors.enter(&loud, 10)).count();
        assert_eq!(entered, IN_HAND_MAX);
        assert!(doors.enter(&quiet, IN_HAND_BYTES_MAX * 2), "one alone always finds room");
        assert!(!doors.enter(&quiet, 1));
        doors.leave(&quiet, IN_HAND_BYTES_MAX * 2);
        doors.leave(&loud, 10);
        assert!(doors.enter(&quiet, 1) && doors.enter(&loud, 1) && !doors.enter(&loud, 1));
    }

    #[test]
    fn so_many_are_recorded_in_a_second_and_written_at_once() {
        let mut doors = Doors::default();
        let gateway = GatewaySn::parse("LOUD").unwrap();
        let mut total = 0;
        for second in 0..10 {
            let now = Mono::from_millis(second * 1_000);
            let recorded = (0..1_000).filter(|_| doors.record(&gateway, now)).count();
            assert!(recorded <= RECORDED_PER_SECOND_MAX as usize);
            total += recorded;
        }
        assert_eq!(total, RECORDING_PER_GATEWAY_MAX, "none of them was written");
        doors.recorded(&gateway);
        assert!(doors.record(&gateway, Mono::from_millis(20_000)));
    }
}
