//! The last answers, for repeated requests whose record is not written yet, or cannot be read. Pure.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
};

use utmos_core::{
    device_request::{Asked, Reply},
    id::TenantId,
};

use super::book::RepeatKey;
use crate::shares::Room;

/// Bytes of what was asked and answered that is remembered.
const REMEMBERED_BYTES_MAX: usize = 16 * 1024 * 1024;
/// Answers that are remembered, so that a repeated request gets the same one. Where there is no room for another of a tenant
/// its own oldest go, and nobody else's. What is not remembered is on record by then, but for answers that could not be recorded.
const REMEMBERED_MAX: usize = 4_096;

/// The last answers, by what tells their requests' repetitions.
#[derive(Debug)]
pub(super) struct Remembered {
    answers: BTreeMap<RepeatKey, (Arc<Asked>, Reply)>,
    /// Those of each tenant, the oldest first.
    of: BTreeMap<TenantId, VecDeque<RepeatKey>>,
    places: Room,
    bytes: Room,
}

impl Default for Remembered {
    fn default() -> Self {
        Self {
            answers: BTreeMap::new(),
            of: BTreeMap::new(),
            places: Room::new(REMEMBERED_MAX),
            bytes: Room::new(REMEMBERED_BYTES_MAX),
        }
    }
}

impl Remembered {
    /// The answer that a request got.
    pub(super) fn get(&self, key: &RepeatKey) -> Option<(Arc<Asked>, Reply)> {
        self.answers.get(key).cloned()
    }

    /// Remembers an answer, among so many tenants.
    pub(super) fn put(&mut self, key: RepeatKey, asked: Arc<Asked>, reply: Reply, tenants: usize) {
        self.forget(&key);
        let (tenant, weight) = (asked.tenant, weight(&asked, &reply));
        while self.places.left(tenant, tenants) == 0 || self.bytes.left(tenant, tenants) < weight {
            let oldest = self.of.get(&tenant).and_then(|keys| keys.front().copied());
            // One that is larger than its tenant's share while the others fill theirs.
            let Some(oldest) = oldest else { return };
            self.forget(&oldest);
        }
        self.places.put(tenant, 1);
        self.bytes.put(tenant, weight);
        self.of.entry(tenant).or_default().push_back(key);
        self.answers.insert(key, (asked, reply));
    }

    fn forget(&mut self, key: &RepeatKey) {
        let Some((asked, reply)) = self.answers.remove(key) else { return };
        let tenant = asked.tenant;
        self.places.give_back(tenant, 1);
        self.bytes.give_back(tenant, weight(&asked, &reply));
        if let Some(keys) = self.of.get_mut(&tenant) {
            // Mostly it is the oldest.
            if let Some(place) = keys.iter().position(|known| known == key) {
                keys.remove(place);
            }
            if keys.is_empty() {
                self.of.remove(&tenant);
            }
        }
    }
}

fn weight(asked: &Asked, reply: &Reply) -> usize {
    asked.payload.len() + reply.data.len()
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]
    use std::time::Duration;

    use utmos_core::{
        device_request::{AskedOn, ReplySource},
        id::{DeviceRequestId, GatewaySn},
        time::{BootId, Deadline, Mono, Timestamp},
    };
    use uuid::Uuid;

    use super::*;

    fn asked(tenant: u128, bytes: usize) -> Arc<Asked> {
        let gateway = GatewaySn::parse("DOCK").unwrap();
        let at = Timestamp::from_millis(0);
        Arc::new(Asked {
            id: DeviceRequestId::new(Uuid::nil()),
            tenant: TenantId::new(Uuid::from_u128(tenant)),
            device: gateway.to_device(),
            gateway,
            request_type: None,
            tid: None,
            bid: None,
            asked_on: AskedOn::Requests,
            repeat_key: None,
            payload: "x".repeat(bytes).into(),
            payload_is_cut: false,
            received_at: at,
            deadline: Deadline { boot: BootId([0; 16]), mono: Mono::from_millis(0), wall: at },
            reply_wait: Duration::ZERO,
            automatic_after: None,
        })
    }

    fn reply() -> Reply {
        Reply {
            code: "0".to_owned(),
            message: None,
            source: ReplySource::Auto,
            by: None,
            data: "{}".into(),
            at: Timestamp::from_millis(0),
        }
    }

    fn key(tenant: u64, number: u64) -> RepeatKey {
        (u128::from(tenant) << 64 | u128::from(number)).to_be_bytes()
    }

    fn is_empty(remembered: &Remembered) -> bool {
        remembered.answers.is_empty()
            && remembered.of.is_empty()
            && remembered.places.taken() + remembered.bytes.taken() == 0
    }

    #[test]
    fn so_many_answers_are_remembered_and_the_oldest_go() {
        let mut remembered = Remembered::default();
        for number in 0..=REMEMBERED_MAX as u64 {
            for _ in 0..2 {
                remembered.put(key(1, number), asked(1, 2), reply(), 1);
            }
        }
        // All but the part of whoever comes next.
        let most = REMEMBERED_MAX / 4 * 3;
        assert_eq!(remembered.answers.len(), most);
        let first = (REMEMBERED_MAX + 1 - most) as u64;
        assert!(remembered.get(&key(1, first - 1)).is_none());
        assert!(remembered.get(&key(1, first)).is_some());
        for number in 0..=REMEMBERED_MAX as u64 {
            remembered.forget(&key(1, number));
        }
        assert!(is_empty(&remembered));
    }

    #[test]
    fn a_tenant_that_floods_has_no_answer_of_another_forgotten() {
        for bytes in [10, 100_000] {
            let mut remembered = Remembered::default();
            for number in 0..20 {
                remembered.put(key(2, number), asked(2, 10_000), reply(), 5);
            }
            for number in 0..20_000 {
                remembered.put(key(1, number), asked(1, bytes), reply(), 5);
            }
            assert!((0..20).all(|number| remembered.get(&key(2, number)).is_some()), "{bytes}");
            // One that comes when the flood has taken all it may finds room as well.
            for number in 0..20 {
                remembered.put(key(3, number), asked(3, 10_000), reply(), 5);
            }
            assert!((0..20).all(|number| remembered.get(&key(3, number)).is_some()), "{bytes}");
            assert!(remembered.get(&key(1, 19_999)).is_some(), "and the newest of the flood stay");
            assert!(remembered.bytes.taken() <= REMEMBERED_BYTES_MAX);
        }
        // One alone that is too large is not remembered, and costs nobody anything.
        let mut remembered = Remembered::default();
        remembered.put(key(1, 1), asked(1, REMEMBERED_BYTES_MAX), reply(), 1);
        assert!(is_empty(&remembered));
    }
}
