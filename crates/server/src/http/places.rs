//! Who may hold a connection. One that carried a verified request is its tenant's and stays, as far as the tenant's share
//! of all places goes. Those that never carried one, and those beyond the share, are strangers: bounded for each peer, and
//! let go, the oldest first, when somebody else needs the place.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    net::{IpAddr, Ipv6Addr},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use utmos_core::id::TenantId;

use crate::shares::Room;

/// One peer's strangers hold at most this part of all places.
const STRANGERS_OF_PEER_SHARE: usize = 8;
/// However few places there are, a peer may have this many strangers.
const STRANGERS_OF_PEER_MIN: usize = 64;
/// Whoever has one IPv6 address has its whole /64.
const IPV6_PEER_BITS: u32 = 64;

/// All places for connections.
pub struct Places {
    connections_max: usize,
    strangers_of_peer_max: usize,
    state: Mutex<State>,
    freed: Notify,
}

struct State {
    last: u64,
    /// Each with the tenant that it was proved for.
    open: HashMap<u64, Option<TenantId>>,
    proved: Room,
    /// Oldest first.
    strangers: BTreeMap<u64, Stranger>,
    of_peer: HashMap<IpAddr, BTreeSet<u64>>,
}

struct Stranger {
    peer: IpAddr,
    cut: CancellationToken,
}

/// A place that is held, by one connection. It is free again when this is dropped.
pub struct Place {
    id: u64,
    is_stranger: AtomicBool,
    cut: CancellationToken,
    places: Arc<Places>,
}

impl Places {
    /// Places for this many connections.
    pub fn new(connections_max: usize) -> Arc<Self> {
        let of_peer = (connections_max / STRANGERS_OF_PEER_SHARE).max(STRANGERS_OF_PEER_MIN);
        Self::bounded(connections_max, of_peer)
    }

    fn bounded(connections_max: usize, strangers_of_peer_max: usize) -> Arc<Self> {
        let state = State {
            last: 0,
            open: HashMap::new(),
            proved: Room::new(connections_max),
            strangers: BTreeMap::new(),
            of_peer: HashMap::new(),
        };
        let (state, freed) = (Mutex::new(state), Notify::new());
        Arc::new(Self { connections_max, strangers_of_peer_max, state, freed })
    }

    /// A place, as soon as there is one or somebody can be made to leave.
    pub async fn take(self: &Arc<Self>, peer: IpAddr) -> Place {
        loop {
            let freed = self.freed.notified();
            if let Some(place) = self.try_take(peer) {
                return place;
            }
            freed.await;
        }
    }

    fn try_take(self: &Arc<Self>, peer: IpAddr) -> Option<Place> {
        let peer = whole_peer(peer);
        let mut guard = self.lock();
        let state = &mut *guard;
        let own = state.of_peer.get(&peer);
        let oldest_own = own.filter(|own| self.strangers_of_peer_max <= own.len());
        if let Some(&oldest) = oldest_own.and_then(BTreeSet::first) {
            state.evict(oldest);
        } else if self.connections_max <= state.open.len() {
            let (&oldest, _) = state.strangers.first_key_value()?;
            state.evict(oldest);
        }
        state.last += 1;
        let (id, cut) = (state.last, CancellationToken::new());
        state.open.insert(id, None);
        state.strangers.insert(id, Stranger { peer, cut: cut.clone() });
        state.of_peer.entry(peer).or_default().insert(id);
        Some(Place { id, is_stranger: AtomicBool::new(true), cut, places: self.clone() })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn evict(&mut self, id: u64) {
        self.open.remove(&id);
        if let Some(stranger) = self.forget_stranger(id) {
            tracing::debug!(peer = %stranger.peer, "closed a connection that carried no verified request, or was beyond its tenant's share, to make room");
            stranger.cut.cancel();
        }
    }

    fn forget_stranger(&mut self, id: u64) -> Option<Stranger> {
        let stranger = self.strangers.remove(&id)?;
        if let Some(own) = self.of_peer.get_mut(&stranger.peer) {
            own.remove(&id);
            if own.is_empty() {
                self.of_peer.remove(&stranger.peer);
            }
        }
        Some(stranger)
    }
}

impl Place {
    /// The connection carried a verified request of one of so many tenants: its place is that tenant's from now on, if its
    /// share has room for one more. Otherwise it stays a stranger, until it carries another request and there is.
    pub fn prove(&self, tenant: TenantId, tenants: usize) {
        if !self.is_stranger.load(Ordering::Relaxed) {
            return;
        }
        let mut guard = self.places.lock();
        let state = &mut *guard;
        let Some(owner @ None) = state.open.get_mut(&self.id) else { return };
        if state.proved.take(tenant, 1, tenants) {
            *owner = Some(tenant);
            state.forget_stranger(self.id);
            self.is_stranger.store(false, Ordering::Relaxed);
        }
    }

    /// Ends when somebody else needs the place.
    pub async fn needed(&self) {
        self.cut.cancelled().await;
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let was_open = {
            let mut state = self.places.lock();
            state.forget_stranger(self.id);
            let owner = state.open.remove(&self.id);
            if let Some(tenant) = owner.flatten() {
                state.proved.give_back(tenant, 1);
            }
            owner.is_some()
        };
        if was_open {
            self.places.freed.notify_one();
        }
    }
}

/// What of an address names whoever is behind it.
fn whole_peer(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V4(address) => address.into(),
        IpAddr::V6(address) => {
            Ipv6Addr::from_bits(address.to_bits() & (u128::MAX << IPV6_PEER_BITS)).into()
        }
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]
    use futures_util::FutureExt;
    use uuid::Uuid;

    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn tenant(number: u128) -> TenantId {
        TenantId::new(Uuid::from_u128(number))
    }

    fn is_cut(place: &Place) -> bool {
        place.cut.is_cancelled()
    }

    #[test]
    fn a_peer_makes_room_for_itself_before_it_troubles_others() {
        let places = Places::bounded(10, 2);
        let take = |text: &str| places.try_take(ip(text)).unwrap();
        let other = take("10.0.0.2");
        let (first, second) = (take("10.0.0.1"), take("::ffff:10.0.0.1"));
        let third = take("10.0.0.1");
        assert!(is_cut(&first) && !is_cut(&second) && !is_cut(&third) && !is_cut(&other));
        second.prove(tenant(1), 1);
        let fourth = take("10.0.0.1");
        assert!(!is_cut(&second) && !is_cut(&third), "only strangers count");
        drop(fourth);
        let fifth = take("10.0.0.1");
        assert!(!is_cut(&third) && !is_cut(&fifth), "who left counts no more");

        let network = [take("2001:db8::1"), take("2001:db8::ffff:2"), take("2001:db8::3")];
        assert_eq!(network.each_ref().map(is_cut), [true, false, false], "one /64 is one peer");
        assert!(!is_cut(&take("2001:db8:0:1::1")));
    }

    #[test]
    fn the_oldest_stranger_makes_room_and_who_has_proved_itself_stays() {
        let places = Places::bounded(3, 64);
        let take = |text: &str| places.try_take(ip(text));
        let proved = take("10.0.0.1").unwrap();
        proved.prove(tenant(1), 0);
        let (old, new) = (take("10.0.0.2").unwrap(), take("10.0.0.3").unwrap());
        let latest = take("10.0.0.4").unwrap();
        assert_eq!([&proved, &old, &new, &latest].map(is_cut), [false, true, false, false]);
        // Its end, later, frees no second place.
        drop(old);
        new.prove(tenant(1), 0);
        latest.prove(tenant(2), 0);
        assert!(take("10.0.0.5").is_none(), "all have proved themselves");
        drop(new);
        assert!(take("10.0.0.5").is_some());
    }

    #[tokio::test]
    async fn who_finds_no_place_gets_the_next_that_is_free() {
        let places = Places::bounded(1, 64);
        let held = places.try_take(ip("10.0.0.1")).unwrap();
        held.prove(tenant(1), 0);
        let mut waits = Box::pin(places.take(ip("10.0.0.2")));
        assert!((&mut waits).now_or_never().is_none());
        drop(held);
        assert!(waits.now_or_never().is_some());
        assert!(places.lock().open.is_empty() && places.lock().of_peer.is_empty());
    }

    #[test]
    fn a_tenant_holds_its_share_and_leaves_every_other_one_theirs() {
        let places = Places::bounded(120, 120);
        let from =
            |last: usize| places.try_take(ip(&format!("10.0.{}.{}", last / 200, last % 200)));
        let proved = |number: u128, last: usize| {
            let place = from(last).unwrap();
            place.prove(tenant(number), 2);
            place
        };
        let flood: Vec<Place> = (0..1_000).map(|last| proved(1, last)).collect();
        let kept = |flood: &[Place]| flood.iter().filter(|place| !is_cut(place)).count();
        assert_eq!(kept(&flood), 120, "it may use what nobody needs");
        let own = |number: u128| places.lock().proved.left(tenant(number), 2);
        assert_eq!((own(1), own(2)), (0, 20));
        // Another tenant comes in its place, and stays whatever the first one does.
        let others: Vec<Place> = (0..20).map(|last| proved(2, last)).collect();
        let more: Vec<Place> = (0..1_000).map(|last| proved(1, last)).collect();
        assert!(!others.iter().any(is_cut));
        assert_eq!((kept(&flood), kept(&more)), (80, 20));
        // Whoever has not signed yet takes none of what was proved.
        let strangers: Vec<Place> = (0..1_000).map(|last| from(last).unwrap()).collect();
        assert_eq!((kept(&flood), kept(&more), kept(&strangers)), (80, 0, 20));
        assert!(!others.iter().any(is_cut));
        // One beyond its share is proved with a later request, once there is room for it.
        let late = from(1).unwrap();
        late.prove(tenant(1), 2);
        drop(flood);
        late.prove(tenant(1), 2);
        assert_eq!(own(1), 79);
        drop((others, more, strangers, late));
        let left = places.lock();
        assert_eq!((left.open.len(), left.proved.taken()), (0, 0));
    }

    #[test]
    fn one_peer_gets_an_eighth_of_many_places_and_a_few_of_few() {
        assert_eq!(Places::new(10_000).strangers_of_peer_max, 1_250);
        assert_eq!(Places::new(100).strangers_of_peer_max, STRANGERS_OF_PEER_MIN);
    }
}
