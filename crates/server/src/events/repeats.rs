//! Which events were taken already. Docks send one again until it is answered, with the same `tid`; remote controllers
//! give all of theirs the same one (DJI-Cloud-API-Demo#11), so that only what they say tells them apart.

use std::{
    collections::{BTreeMap, VecDeque, hash_map::DefaultHasher},
    hash::{Hash, Hasher},
    time::Duration,
};

use utmos_core::{id::DeviceSn, time::Mono};
use utmos_dji::uplink::Event;

/// Events of a device that are remembered. Older ones are known to the store.
const PER_DEVICE_MAX: usize = 64;
/// An equal event without an id of its own is the same one for so long; docks repeat after 8.2 s at the latest.
const EQUAL_WAIT: Duration = Duration::from_secs(10);

/// What is remembered of an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mark {
    hash: u64,
    /// Until when; `None`: for as long as there is room.
    until: Option<Mono>,
}

impl Mark {
    /// The mark of an event that came now.
    pub fn of(event: &Event, now: Mono) -> Self {
        let mut hasher = DefaultHasher::new();
        event.method.hash(&mut hasher);
        match event.exchange.own_tid() {
            Some(tid) => tid.hash(&mut hasher),
            None => event.data.hash(&mut hasher),
        }
        let is_nameless = event.exchange.own_tid().is_none();
        Self { hash: hasher.finish(), until: is_nameless.then(|| now.plus(EQUAL_WAIT)) }
    }
}

/// What devices said last.
#[derive(Debug, Default)]
pub struct Repeats(BTreeMap<DeviceSn, VecDeque<Mark>>);

impl Repeats {
    /// Whether the event was taken before.
    pub fn knows(&self, device: &DeviceSn, mark: Mark, now: Mono) -> bool {
        let holds = |known: &Mark| known.until.is_none_or(|until| now < until);
        self.0
            .get(device)
            .is_some_and(|marks| marks.iter().any(|known| known.hash == mark.hash && holds(known)))
    }

    /// Remembers that the event was taken.
    pub fn note(&mut self, device: &DeviceSn, mark: Mark) {
        let marks = self.0.entry(device.clone()).or_default();
        if marks.len() == PER_DEVICE_MAX {
            marks.pop_front();
        }
        marks.push_back(mark);
    }

    /// A device is another tenant's, or nobody's: what it says is news to whoever has it next.
    pub fn forget(&mut self, device: &DeviceSn) {
        self.0.remove(device);
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

    use utmos_dji::uplink::Exchange;

    use super::*;

    fn event(tid: &str, method: &str, data: &str) -> Event {
        Event {
            device: DeviceSn::parse("DOCK").unwrap(),
            gateway: None,
            exchange: Exchange { tid: Some(tid.to_owned()), bid: None },
            method: Some(method.to_owned()),
            need_reply: true,
            progress: None,
            device_time: None,
            data: data.into(),
        }
    }

    #[test]
    fn the_same_tid_is_the_same_event_and_zeros_are_none() {
        let (sn, other) = (DeviceSn::parse("DOCK").unwrap(), DeviceSn::parse("DOCK-2").unwrap());
        let now = Mono::from_millis(5_000);
        let later = |millis: u64| now.plus(Duration::from_millis(millis));
        let mut repeats = Repeats::default();
        let mark = Mark::of(&event("a", "m", "1"), now);
        repeats.note(&sn, mark);
        let knows =
            |repeats: &Repeats, one: &Event, at: Mono| repeats.knows(&sn, Mark::of(one, at), at);
        assert!(knows(&repeats, &event("a", "m", "2"), later(3_600_000)));
        assert!(!knows(&repeats, &event("b", "m", "1"), now));
        assert!(!knows(&repeats, &event("a", "n", "1"), now));
        assert!(!repeats.knows(&other, mark, now));

        let zeros = "00000000-0000-0000-0000-000000000000";
        repeats.note(&sn, Mark::of(&event(zeros, "m", "1"), now));
        assert!(knows(&repeats, &event(zeros, "m", "1"), later(8_200)));
        assert!(!knows(&repeats, &event(zeros, "m", "1"), later(10_000)));
        assert!(!knows(&repeats, &event(zeros, "m", "2"), now));
    }

    #[test]
    fn what_is_remembered_of_a_device_is_bounded() {
        let sn = DeviceSn::parse("DOCK").unwrap();
        let now = Mono::from_millis(0);
        let mut repeats = Repeats::default();
        for n in 0..1_000 {
            repeats.note(&sn, Mark::of(&event(&format!("t{n}"), "m", "1"), now));
        }
        assert_eq!(repeats.0[&sn].len(), PER_DEVICE_MAX);
        assert!(repeats.knows(&sn, Mark::of(&event("t999", "m", "1"), now), now));
        assert!(!repeats.knows(&sn, Mark::of(&event("t1", "m", "1"), now), now));
    }
}
