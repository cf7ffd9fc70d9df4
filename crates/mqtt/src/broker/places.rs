//! Who may hold a connection. Those that have logged in keep their place; those that have not are strangers: bounded for
//! each address, and let go, the oldest first, when somebody else needs the place. A user has a few connections and makes
//! room for its own next one. Pure but for the word to whoever must leave.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;

use super::leave::{Leave, Stop};

/// Connections of one user at a time. A dock needs one; more let a new one come before the old one is noticed to be gone.
pub(super) const CONNECTIONS_OF_USER_MAX: usize = 4;
/// The strangers of one address hold at most this part of all places.
const STRANGERS_OF_ADDRESS_SHARE: usize = 8;
/// However few places there are, an address may have this many strangers.
const STRANGERS_OF_ADDRESS_MIN: usize = 64;
/// Whoever has one IPv6 address has its whole /64.
const IPV6_PEER_BITS: u32 = 64;

/// All places for connections.
#[derive(Debug)]
pub(super) struct Places {
    clients_max: usize,
    strangers_of_address_max: usize,
    last: u64,
    open: BTreeMap<u64, Connection>,
    /// Oldest first.
    strangers: BTreeMap<u64, IpAddr>,
    of_address: BTreeMap<IpAddr, BTreeSet<u64>>,
    /// Those that have logged in, and are not on their way out, oldest first: one, mostly.
    of_user: BTreeMap<Arc<str>, Vec<u64>>,
    is_closed: bool,
}

/// One open socket.
#[derive(Debug)]
struct Connection {
    leave: Arc<Leave>,
    /// Who it says it is, known before the Doorkeeper is asked, so that a dismissal misses nobody.
    user: Option<Arc<str>>,
    /// Known once it has logged in.
    client_id: Option<Arc<str>>,
}

impl Places {
    pub(super) fn new(clients_max: usize) -> Self {
        let share = clients_max / STRANGERS_OF_ADDRESS_SHARE;
        Self::bounded(clients_max, share.max(STRANGERS_OF_ADDRESS_MIN))
    }

    fn bounded(clients_max: usize, strangers_of_address_max: usize) -> Self {
        Self {
            clients_max,
            strangers_of_address_max,
            last: 0,
            open: BTreeMap::new(),
            strangers: BTreeMap::new(),
            of_address: BTreeMap::new(),
            of_user: BTreeMap::new(),
            is_closed: false,
        }
    }

    /// A place for a stranger; the oldest other one may have to leave for it. `None` when all places are taken by those
    /// that have logged in.
    pub(super) fn enter(&mut self, address: IpAddr) -> Option<(u64, Arc<Leave>)> {
        let address = whole_peer(address);
        let own = self.of_address.get(&address);
        let oldest_own = own.filter(|own| self.strangers_of_address_max <= own.len());
        if let Some(&oldest) = oldest_own.and_then(BTreeSet::first) {
            self.evict(oldest);
        } else if self.clients_max <= self.open.len() {
            let (&oldest, _) = self.strangers.first_key_value()?;
            self.evict(oldest);
        }
        self.last += 1;
        let id = self.last;
        let leave = Leave::new();
        if self.is_closed {
            leave.say(Stop::Closing);
        }
        let connection = Connection { leave: Arc::clone(&leave), user: None, client_id: None };
        self.open.insert(id, connection);
        self.strangers.insert(id, address);
        self.of_address.entry(address).or_default().insert(id);
        Some((id, leave))
    }

    /// It says who it is.
    pub(super) fn name(&mut self, id: u64, user: &str) {
        if let Some(connection) = self.open.get_mut(&id) {
            connection.user = Some(Arc::from(user));
        }
    }

    /// It has proved who it is, and its place is its own; the user's oldest connection makes room if there are too many.
    /// One with the same client id does not count: it is about to be taken over. `false` when it had to leave meanwhile.
    pub(super) fn admit(&mut self, id: u64, user: &Arc<str>, client_id: &Arc<str>) -> bool {
        let Some(connection) = self.open.get_mut(&id) else { return false };
        connection.client_id = Some(Arc::clone(client_id));
        // The same name, held once.
        connection.user = Some(Arc::clone(user));
        self.forget_stranger(id);
        let own = self.of_user.entry(Arc::clone(user)).or_default();
        if let Err(at) = own.binary_search(&id) {
            own.reserve_exact(1);
            own.insert(at, id);
        }
        let open = &self.open;
        let others = own.iter().copied().filter(|other| {
            let known = open.get(other).and_then(|other| other.client_id.as_ref());
            *other != id && known != Some(client_id)
        });
        let others: Vec<u64> = others.collect();
        let too_many = (others.len() + 1).saturating_sub(CONNECTIONS_OF_USER_MAX);
        for oldest in others.into_iter().take(too_many) {
            tracing::info!(%user, "an mqtt client has too many connections; its oldest is closed");
            self.stop(oldest, Stop::Dismissed);
            self.forget_user(oldest);
        }
        true
    }

    /// It is gone.
    pub(super) fn leave(&mut self, id: u64) {
        self.forget_stranger(id);
        self.forget_user(id);
        self.open.remove(&id);
    }

    pub(super) fn stop(&self, id: u64, stop: Stop) {
        if let Some(connection) = self.open.get(&id) {
            connection.leave.say(stop);
        }
    }

    /// Whether it has been told to leave.
    pub(super) fn is_leaving(&self, id: u64) -> bool {
        let said = |connection: &Connection| connection.leave.said();
        self.open.get(&id).is_none_or(|it| said(it).is_some_and(|stop| stop != Stop::Closing))
    }

    /// Dismisses every connection of this user, also one that has not been let in yet.
    pub(super) fn dismiss(&self, user: &str) {
        for connection in self.open.values() {
            if connection.user.as_deref() == Some(user) {
                connection.leave.say(Stop::Dismissed);
            }
        }
    }

    /// Dismisses every connection of this user but this one.
    pub(super) fn dismiss_others(&self, user: &str, id: u64) {
        for (other, connection) in &self.open {
            if *other != id && connection.user.as_deref() == Some(user) {
                connection.leave.say(Stop::Dismissed);
            }
        }
    }

    /// The broker ends: whoever is there, or comes all the same, is told so, unless it has to leave already.
    pub(super) fn close(&mut self) {
        self.is_closed = true;
        for connection in self.open.values().filter(|it| it.leave.said().is_none()) {
            connection.leave.say(Stop::Closing);
        }
    }

    fn evict(&mut self, id: u64) {
        if let Some(address) = self.forget_stranger(id) {
            tracing::debug!(peer = %address, "cut an mqtt connection that has not logged in, to make room");
            self.stop(id, Stop::Cut);
            self.open.remove(&id);
        }
    }

    fn forget_stranger(&mut self, id: u64) -> Option<IpAddr> {
        let address = self.strangers.remove(&id)?;
        if let Some(own) = self.of_address.get_mut(&address) {
            own.remove(&id);
            if own.is_empty() {
                self.of_address.remove(&address);
            }
        }
        Some(address)
    }

    fn forget_user(&mut self, id: u64) {
        let Some(user) = self.open.get(&id).and_then(|known| known.user.clone()) else { return };
        if let Some(own) = self.of_user.get_mut(&user) {
            own.retain(|other| *other != id);
            if own.is_empty() {
                self.of_user.remove(&user);
            }
        }
    }
}

/// What of an address names whoever is behind it.
pub(super) fn whole_peer(address: IpAddr) -> IpAddr {
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
    use super::*;

    type Place = (u64, Arc<Leave>);

    fn enter(places: &mut Places, address: &str) -> Place {
        places.enter(address.parse().unwrap()).unwrap()
    }

    fn admit(places: &mut Places, place: &Place, user: &str, client_id: &str) -> bool {
        places.name(place.0, user);
        places.admit(place.0, &Arc::from(user), &Arc::from(client_id))
    }

    fn word(place: &Place) -> Option<Stop> {
        place.1.said()
    }

    #[test]
    fn an_address_makes_room_for_itself_before_it_troubles_others() {
        let mut places = Places::bounded(10, 2);
        let other = enter(&mut places, "10.0.0.2");
        let first = enter(&mut places, "10.0.0.1");
        let second = enter(&mut places, "::ffff:10.0.0.1");
        let third = enter(&mut places, "10.0.0.1");
        assert_eq!(word(&first), Some(Stop::Cut));
        assert!(!admit(&mut places, &first, "D1", "D1"), "too late");
        assert!(admit(&mut places, &second, "D1", "D1"));
        let fourth = enter(&mut places, "10.0.0.1");
        places.leave(fourth.0);
        enter(&mut places, "10.0.0.1");
        for kept in [&other, &second, &third, &fourth] {
            assert_eq!(word(kept), None, "only strangers that are there count");
        }
        let network = ["2001:db8::1", "2001:db8::ffff:2", "2001:db8::3", "2001:db8:0:1::1"]
            .map(|address| enter(&mut places, address));
        let words = network.each_ref().map(word);
        assert_eq!(words, [Some(Stop::Cut), None, None, None], "one /64 is one peer");
    }

    #[test]
    fn the_oldest_stranger_makes_room_and_who_has_logged_in_stays() {
        let mut places = Places::bounded(3, 64);
        let proved = enter(&mut places, "10.0.0.1");
        assert!(admit(&mut places, &proved, "D1", "D1"));
        let old = enter(&mut places, "10.0.0.2");
        let new = enter(&mut places, "10.0.0.3");
        let latest = enter(&mut places, "10.0.0.4");
        assert_eq!([&proved, &old, &new, &latest].map(word), [None, Some(Stop::Cut), None, None]);
        // Its end, later, frees no second place.
        places.leave(old.0);
        assert!(admit(&mut places, &new, "D2", "D2") && admit(&mut places, &latest, "D3", "D3"));
        assert!(places.enter("10.0.0.5".parse().unwrap()).is_none(), "all have logged in");
        places.leave(new.0);
        assert!(places.enter("10.0.0.5".parse().unwrap()).is_some());
    }

    #[test]
    fn a_user_makes_room_for_its_own_next_connection() {
        let mut places = Places::bounded(100, 64);
        let other = enter(&mut places, "10.0.0.1");
        admit(&mut places, &other, "D2", "D2");
        let all: Vec<Place> = (0..CONNECTIONS_OF_USER_MAX + 2)
            .map(|number| {
                let place = enter(&mut places, "10.0.0.1");
                admit(&mut places, &place, "D1", &number.to_string());
                place
            })
            .collect();
        let words: Vec<Option<Stop>> = all.iter().map(word).collect();
        assert_eq!(words[..2], [Some(Stop::Dismissed); 2], "the oldest");
        assert!(words[2..].iter().all(Option::is_none) && word(&other).is_none());
        // A client that comes back under its own id displaces itself and nobody else.
        let again = enter(&mut places, "10.0.0.1");
        admit(&mut places, &again, "D1", "3");
        assert!(all[2..].iter().all(|place| word(place).is_none()));
        for place in all.iter().chain([&again, &other]) {
            places.leave(place.0);
        }
        assert!(places.open.is_empty() && places.of_user.is_empty());
        assert!(places.strangers.is_empty() && places.of_address.is_empty());
    }

    #[test]
    fn who_is_there_and_who_comes_all_the_same_is_told_of_the_end() {
        let mut places = Places::bounded(10, 64);
        let (first, second) = (enter(&mut places, "10.0.0.1"), enter(&mut places, "10.0.0.1"));
        places.stop(second.0, Stop::Displaced);
        places.close();
        let late = enter(&mut places, "10.0.0.1");
        let told = [Some(Stop::Closing), Some(Stop::Displaced), Some(Stop::Closing)];
        assert_eq!([&first, &second, &late].map(word), told);
        assert!(!places.is_leaving(first.0) && places.is_leaving(second.0));
    }

    #[test]
    fn an_address_gets_an_eighth_of_many_places_and_a_few_of_few() {
        assert_eq!(Places::new(10_000).strangers_of_address_max, 1_250);
        assert_eq!(Places::new(100).strangers_of_address_max, STRANGERS_OF_ADDRESS_MIN);
    }
}
