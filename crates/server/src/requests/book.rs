//! The requests that somebody has to look after, and when. Pure; what they say is on record.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use utmos_core::{
    id::{DeviceRequestId, GatewaySn, TenantId},
    time::Mono,
};

use super::doors::{OPEN_OF_ALL_MAX, OPEN_PER_GATEWAY_MAX};
use crate::shares::Room;

/// What tells a request's repetitions.
pub(super) type RepeatKey = [u8; 16];

/// How often the record of one request is looked at for copies of it.
const LOOK_UP_PACE: Duration = Duration::from_secs(1);

/// What a request is to the book that came just now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Copied {
    /// None that is open.
    Unknown,
    /// A copy of one that waits, or that somebody sees to at this moment.
    Waits,
    /// A copy of this one, and another server may have answered it since its record was looked at.
    LookUp(DeviceRequestId),
}

/// Who waits for what.
#[derive(Debug)]
pub(super) struct Book {
    open: BTreeMap<DeviceRequestId, Open>,
    due: BTreeSet<(Mono, DeviceRequestId)>,
    by_gateway: BTreeMap<GatewaySn, BTreeSet<DeviceRequestId>>,
    by_key: BTreeMap<RepeatKey, DeviceRequestId>,
    /// How many of each gateway are being recorded, and will be open.
    expected: BTreeMap<GatewaySn, usize>,
    /// How many are open of each tenant, or expected.
    by_tenant: Room,
    /// How many answers wait for their gateway.
    unsent: usize,
}

impl Default for Book {
    fn default() -> Self {
        Self {
            open: BTreeMap::new(),
            due: BTreeSet::new(),
            by_gateway: BTreeMap::new(),
            by_key: BTreeMap::new(),
            expected: BTreeMap::new(),
            by_tenant: Room::new(OPEN_OF_ALL_MAX),
            unsent: 0,
        }
    }
}

#[derive(Debug)]
struct Open {
    tenant: TenantId,
    gateway: GatewaySn,
    key: Option<RepeatKey>,
    due: Mono,
    /// Its answer waits for the gateway, and is not tried before this.
    unsent_from: Option<Mono>,
    /// When its record was looked at for a copy of it.
    looked_up: Option<Mono>,
    /// Somebody looks after it at this moment.
    in_hand: bool,
    /// It is to be looked after again, right after that.
    again: bool,
}

/// When and why a request is to be looked after.
#[derive(Debug, Clone, Copy)]
pub(super) struct Next {
    pub(super) due: Mono,
    /// Its answer waits for the gateway, and is not tried before this.
    pub(super) unsent_from: Option<Mono>,
}

impl Book {
    pub(super) fn len(&self) -> usize {
        self.open.len()
    }

    /// Sets a place aside for one more of this gateway, whose record is about to be written, if there is room among so many
    /// tenants. It is held until [`Book::no_longer_expect`].
    pub(super) fn expect(&mut self, tenant: TenantId, gateway: &GatewaySn, tenants: usize) -> bool {
        let open = self.by_gateway.get(gateway).map_or(0, BTreeSet::len);
        let expected = self.expected.get(gateway).copied().unwrap_or(0);
        let may = open + expected < OPEN_PER_GATEWAY_MAX && self.by_tenant.take(tenant, 1, tenants);
        if may {
            *self.expected.entry(gateway.clone()).or_default() += 1;
        }
        may
    }

    /// Gives the place back: its request is written in, or never will be.
    pub(super) fn no_longer_expect(&mut self, tenant: TenantId, gateway: &GatewaySn) {
        self.by_tenant.give_back(tenant, 1);
        if let Some(expected) = self.expected.get_mut(gateway) {
            *expected = expected.saturating_sub(1);
            if *expected == 0 {
                self.expected.remove(gateway);
            }
        }
    }

    /// A request with this key came.
    pub(super) fn copied(&mut self, key: &RepeatKey, now: Mono) -> Copied {
        let Some(id) = self.by_key.get(key) else { return Copied::Unknown };
        let Some(open) = self.open.get_mut(id) else { return Copied::Unknown };
        if open.in_hand || open.looked_up.is_some_and(|at| now.since(at) < LOOK_UP_PACE) {
            return Copied::Waits;
        }
        open.looked_up = Some(now);
        Copied::LookUp(*id)
    }

    /// Writes a request in, or when it is due next; also where there is no room for it, since it is on record.
    pub(super) fn put(
        &mut self,
        id: DeviceRequestId,
        tenant: TenantId,
        gateway: &GatewaySn,
        key: Option<RepeatKey>,
        next: Next,
    ) {
        let before = self.open.get(&id);
        let (in_hand, again) = before.map_or((false, false), |open| (open.in_hand, open.again));
        let looked_up = before.and_then(|open| open.looked_up);
        let key = key.or_else(|| before.and_then(|open| open.key));
        self.remove(id);
        if let Some(key) = key {
            self.by_key.insert(key, id);
        }
        self.by_gateway.entry(gateway.clone()).or_default().insert(id);
        self.due.insert((next.due, id));
        self.unsent += usize::from(next.unsent_from.is_some());
        self.by_tenant.put(tenant, 1);
        let open = Open {
            tenant,
            gateway: gateway.clone(),
            key,
            due: next.due,
            unsent_from: next.unsent_from,
            looked_up,
            in_hand,
            again,
        };
        self.open.insert(id, open);
    }

    /// Writes in when a known request is due next.
    pub(super) fn put_off(&mut self, id: DeviceRequestId, next: Next) {
        if let Some(open) = self.open.get(&id) {
            let (tenant, gateway) = (open.tenant, open.gateway.clone());
            self.put(id, tenant, &gateway, None, next);
        }
    }

    /// Whether anything waits that may have to leave once this gateway is there. Asked for every message.
    pub(super) fn has_unsent_of(&self, gateway: &GatewaySn) -> bool {
        self.unsent > 0 && self.by_gateway.contains_key(gateway)
    }

    /// Strikes a request out.
    pub(super) fn remove(&mut self, id: DeviceRequestId) {
        let Some(open) = self.open.remove(&id) else { return };
        self.due.remove(&(open.due, id));
        self.by_tenant.give_back(open.tenant, 1);
        self.unsent -= usize::from(open.unsent_from.is_some());
        if let Some(key) = open.key.filter(|key| self.by_key.get(key) == Some(&id)) {
            self.by_key.remove(&key);
        }
        if let Some(ids) = self.by_gateway.get_mut(&open.gateway) {
            ids.remove(&id);
            if ids.is_empty() {
                self.by_gateway.remove(&open.gateway);
            }
        }
    }

    /// Takes a request in hand. Answers whether nobody else has it: who does is told to look again.
    pub(super) fn take(&mut self, id: DeviceRequestId) -> bool {
        let Some(open) = self.open.get_mut(&id) else { return false };
        if open.in_hand {
            open.again = true;
            return false;
        }
        open.in_hand = true;
        true
    }

    /// Lays a request down. Answers whether it is to be looked after again at once; then it stays in hand.
    pub(super) fn lay_down(&mut self, id: DeviceRequestId) -> bool {
        let Some(open) = self.open.get_mut(&id) else { return false };
        let again = std::mem::take(&mut open.again);
        open.in_hand = again;
        again
    }

    /// Takes in hand what is due, and says when the next is.
    pub(super) fn take_due(
        &mut self,
        now: Mono,
        most: usize,
    ) -> (Vec<DeviceRequestId>, Option<Mono>) {
        let mut due = Vec::new();
        // One in hand is written in anew when it is laid down.
        let passed: Vec<_> =
            self.due.iter().take_while(|(at, _)| *at <= now).take(most).copied().collect();
        for (at, id) in passed {
            self.due.remove(&(at, id));
            if self.take(id) {
                due.push(id);
            }
        }
        (due, self.due.first().map(|(at, _)| *at))
    }

    /// Takes in hand the answers that wait for this gateway.
    pub(super) fn take_unsent(&mut self, gateway: &GatewaySn, now: Mono) -> Vec<DeviceRequestId> {
        let waits = |open: &Open| !open.in_hand && open.unsent_from.is_some_and(|from| from <= now);
        let ids = self.by_gateway.get(gateway).into_iter().flatten().copied();
        let ids: Vec<_> = ids.filter(|id| self.open.get(id).is_some_and(waits)).collect();
        ids.into_iter().filter(|id| self.take(*id)).collect()
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]
    use uuid::Uuid;

    use super::*;

    fn id(number: u128) -> DeviceRequestId {
        DeviceRequestId::new(Uuid::from_u128(number))
    }

    fn at(millis: u64) -> Mono {
        Mono::from_millis(millis)
    }

    fn tenant(number: u128) -> TenantId {
        TenantId::new(Uuid::from_u128(number))
    }

    #[test]
    fn a_tenant_of_many_gateways_leaves_room_for_the_others() {
        let mut book = Book::default();
        let next = Next { due: at(50), unsent_from: None };
        let (mut number, mut full) = (0, 0);
        for gateway in 0..2_000 {
            let gateway = GatewaySn::parse(&format!("LOUD-{gateway}")).unwrap();
            while book.expect(tenant(1), &gateway, 2) {
                number += 1;
                book.put(id(number), tenant(1), &gateway, None, next);
                book.no_longer_expect(tenant(1), &gateway);
            }
            full += 1;
        }
        let most = OPEN_OF_ALL_MAX / 2 + OPEN_OF_ALL_MAX / 2 / 3;
        assert_eq!((full, book.len()), (2_000, most));
        let quiet = GatewaySn::parse("QUIET").unwrap();
        assert!(book.expect(tenant(2), &quiet, 2));
        book.remove(id(1));
        assert!(book.expect(tenant(1), &quiet, 2), "what is done makes room");
    }

    #[test]
    fn what_is_being_recorded_takes_a_place_already() {
        let mut book = Book::default();
        let dock = GatewaySn::parse("DOCK").unwrap();
        let next = Next { due: at(50), unsent_from: None };
        book.put(id(1), tenant(1), &dock, None, next);
        let expected = (0..1_000).filter(|_| book.expect(tenant(1), &dock, 1)).count();
        assert_eq!(expected, OPEN_PER_GATEWAY_MAX - 1);
        // One is on record now, and one could not be put there.
        book.put(id(2), tenant(1), &dock, None, next);
        book.no_longer_expect(tenant(1), &dock);
        book.no_longer_expect(tenant(1), &dock);
        assert!(book.expect(tenant(1), &dock, 1));
        assert!(!book.expect(tenant(1), &dock, 1));
        (1..OPEN_PER_GATEWAY_MAX - 1).for_each(|_| book.no_longer_expect(tenant(1), &dock));
        (1..=2).for_each(|number| book.remove(id(number)));
        assert!(book.expected.is_empty() && book.by_gateway.is_empty());
        assert_eq!(book.by_tenant.taken(), 0);
    }

    #[test]
    fn each_is_in_one_hand_at_a_time_and_news_meanwhile_is_not_lost() {
        let mut book = Book::default();
        let dock = GatewaySn::parse("DOCK").unwrap();
        book.put(id(1), tenant(1), &dock, Some([1; 16]), Next { due: at(50), unsent_from: None });
        assert_eq!(book.copied(&[2; 16], at(0)), Copied::Unknown);
        assert_eq!(book.copied(&[1; 16], at(0)), Copied::LookUp(id(1)));
        assert_eq!(book.copied(&[1; 16], at(999)), Copied::Waits, "that was a moment ago");
        assert_eq!(book.copied(&[1; 16], at(1_000)), Copied::LookUp(id(1)));
        assert_eq!(book.take_due(at(49), 9), (vec![], Some(at(50))));
        assert_eq!(book.take_due(at(50), 9), (vec![id(1)], None));
        assert!(!book.take(id(1)), "somebody has it");
        book.put(id(1), tenant(1), &dock, None, Next { due: at(90), unsent_from: Some(at(60)) });
        assert_eq!(book.copied(&[1; 16], at(9_000)), Copied::Waits, "it keeps its key");
        assert_eq!(book.take_unsent(&dock, at(70)), [], "it is in hand");
        assert!(book.lay_down(id(1)), "it was asked for meanwhile");
        assert!(!book.lay_down(id(1)));
        assert_eq!(book.take_unsent(&dock, at(59)), [], "too early");
        assert_eq!(book.take_unsent(&dock, at(60)), [id(1)]);
        book.remove(id(1));
        assert_eq!(book.copied(&[1; 16], at(9_000)), Copied::Unknown);
        assert!(book.len() == 0 && book.by_gateway.is_empty());
        assert_eq!(book.take_due(at(1_000), 9), (vec![], None));
        assert!(!book.take(id(1)) && !book.lay_down(id(1)));
    }
}
