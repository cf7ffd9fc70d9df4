//! Who is connected and subscribed to what, as far as the library has told us. What a message costs here depends on who
//! gets it, not on how many others are connected.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::session::Session;
use crate::message::Qos;

/// Topic filters of one connection; the library refuses more as over its quota. A dock needs about ten.
pub(super) const SUBSCRIPTIONS_MAX: usize = 64;

/// A topic filter, and what was granted; `None` between the Doorkeeper's yes and the library's SUBACK.
pub(super) type Subscription = (Arc<str>, Option<Qos>);

/// A connection that gets a message, once, however many of its filters match.
#[derive(Debug, Clone)]
pub(super) struct Recipient {
    pub(super) session: Arc<Session>,
    /// Those that match; never empty.
    pub(super) subscriptions: Vec<Subscription>,
}

impl Recipient {
    /// Whether the library has answered for each of the filters.
    pub(super) fn is_settled(&self) -> bool {
        self.subscriptions.iter().all(|(_, granted)| granted.is_some())
    }

    /// The quality of service it gets the message with: the library takes the filter that spells the topic first, and any
    /// of the others, so of those the least. `None` while nothing is granted.
    pub(super) fn qos(&self) -> Option<Qos> {
        let exact = self.subscriptions.iter().find(|(filter, _)| !is_wild(filter));
        let exact = exact.and_then(|(_, granted)| *granted);
        exact.or_else(|| self.subscriptions.iter().filter_map(|(_, granted)| *granted).min())
    }

    /// Whether both are the same connection, subscribed on the same terms.
    pub(super) fn is(&self, other: &Self) -> bool {
        self.session.connection == other.session.connection
            && self.subscriptions == other.subscriptions
    }
}

#[derive(Debug, Default)]
pub(super) struct Table(Mutex<Inner>);

/// Who has a filter, by connection.
type Holders = BTreeMap<u64, (Arc<Session>, Option<Qos>)>;

#[derive(Debug, Default)]
struct Inner {
    clients: BTreeMap<Arc<str>, Arc<Session>>,
    exact: BTreeMap<Arc<str>, Holders>,
    /// Filters with wildcards, under the levels before the first of these: to match a topic, only filters are looked at
    /// that begin as it does.
    wild: BTreeMap<String, BTreeMap<Arc<str>, Holders>>,
    filters: BTreeMap<u64, BTreeSet<Arc<str>>>,
}

fn is_wild(filter: &str) -> bool {
    filter.contains(['+', '#'])
}

/// The levels of a filter before its first wildcard, with the slash after them.
fn beginning(filter: &str) -> &str {
    let first = filter.find(['+', '#']).unwrap_or(filter.len());
    &filter[..first]
}

/// Everything that the [`beginning`] of a filter for this topic may be.
fn beginnings(topic: &str) -> impl Iterator<Item = &str> {
    let after_slashes = topic.match_indices('/').map(|(at, _)| &topic[..=at]);
    std::iter::once("").chain(after_slashes)
}

impl Inner {
    fn holders(&mut self, filter: &Arc<str>) -> &mut Holders {
        if is_wild(filter) {
            let under = self.wild.entry(beginning(filter).to_owned()).or_default();
            under.entry(Arc::clone(filter)).or_default()
        } else {
            self.exact.entry(Arc::clone(filter)).or_default()
        }
    }

    fn unlist(&mut self, connection: u64, filter: &str) {
        fn without(map: &mut BTreeMap<Arc<str>, Holders>, connection: u64, filter: &str) {
            if let Some(holders) = map.get_mut(filter) {
                holders.remove(&connection);
                if holders.is_empty() {
                    map.remove(filter);
                }
            }
        }
        if !is_wild(filter) {
            without(&mut self.exact, connection, filter);
        } else if let Some(under) = self.wild.get_mut(beginning(filter)) {
            without(under, connection, filter);
            if under.is_empty() {
                self.wild.remove(beginning(filter));
            }
        }
    }

    /// Filters with wildcards that may match, and those who have them.
    fn candidates(&self, topic: &str) -> impl Iterator<Item = (&Arc<str>, &Holders)> {
        let whole = format!("{topic}/");
        // `a/#` matches `a` as well.
        let parent = self.wild.get(&whole).into_iter().flatten();
        let under = beginnings(topic).filter_map(|levels| self.wild.get(levels)).flatten();
        under.chain(parent)
    }
}

impl Table {
    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn clients(&self) -> usize {
        self.inner().clients.len()
    }

    /// Who has this client id.
    pub(super) fn holder(&self, client_id: &str) -> Option<Arc<Session>> {
        self.inner().clients.get(client_id).cloned()
    }

    /// Ends all sessions of a user.
    pub(super) fn dismiss(&self, user: &str) {
        for session in self.inner().clients.values().filter(|session| &*session.user == user) {
            session.dismiss();
        }
    }

    /// The session takes its client id; returns the connection that had it.
    pub(super) fn join(&self, session: &Arc<Session>) -> Option<Arc<Session>> {
        self.inner().clients.insert(Arc::clone(&session.client_id), Arc::clone(session))
    }

    /// Forgets the session. Says whether it still had its client id.
    pub(super) fn leave(&self, session: &Session) -> bool {
        session.end();
        let mut inner = self.inner();
        for filter in inner.filters.remove(&session.connection).unwrap_or_default() {
            inner.unlist(session.connection, &filter);
        }
        let present = inner
            .clients
            .get(&session.client_id)
            .is_some_and(|now| now.connection == session.connection);
        if present {
            inner.clients.remove(&session.client_id);
        }
        present
    }

    /// The Doorkeeper said yes; the library's answer is to come. `false` when the connection has as many as it may have.
    pub(super) fn expect(&self, session: &Arc<Session>, filter: &str) -> bool {
        let mut inner = self.inner();
        let filters = inner.filters.entry(session.connection).or_default();
        let filter: Arc<str> = Arc::from(filter);
        if filters.len() >= SUBSCRIPTIONS_MAX && !filters.contains(&filter) {
            return false;
        }
        filters.insert(Arc::clone(&filter));
        // Also where it subscribes anew, perhaps with another quality of service.
        inner.holders(&filter).insert(session.connection, (Arc::clone(session), None));
        true
    }

    /// The library's answer: granted, or not.
    pub(super) fn settle(&self, session: &Arc<Session>, filter: &Arc<str>, granted: Option<Qos>) {
        let mut inner = self.inner();
        let own = inner.filters.get_mut(&session.connection);
        let Some(own) = own.filter(|own| own.contains(filter)) else { return };
        if granted.is_none() {
            own.remove(filter);
            inner.unlist(session.connection, filter);
        } else if let Some((_, qos)) = inner.holders(filter).get_mut(&session.connection) {
            *qos = granted;
        }
    }

    /// Everyone there who has a filter that matches the topic, in the order in which they connected.
    pub(super) fn recipients(&self, topic: &str) -> Vec<Recipient> {
        let inner = self.inner();
        let mut found: BTreeMap<u64, Recipient> = BTreeMap::new();
        let matching =
            |(filter, _): &(&Arc<str>, &Holders)| mqtt5::topic_matches_filter(topic, filter);
        let wild = inner.candidates(topic).filter(matching);
        for (filter, holders) in inner.exact.get_key_value(topic).into_iter().chain(wild) {
            for (connection, (session, granted)) in holders {
                if session.is_ended() {
                    continue;
                }
                let recipient = found.entry(*connection).or_insert_with(|| Recipient {
                    session: Arc::clone(session),
                    subscriptions: Vec::new(),
                });
                recipient.subscriptions.push((Arc::clone(filter), *granted));
            }
        }
        found.into_values().collect()
    }
}

#[cfg(test)]
mod tests {
    use mqtt5::broker::router::MessageRouter;

    use super::*;

    fn session(connection: u64, user: &str) -> Arc<Session> {
        let client_id = format!("{user}-{connection}");
        let router = Arc::new(MessageRouter::new());
        Arc::new(Session::new(connection, user, &client_id, 8, None, router))
    }

    fn subscribe(table: &Table, session: &Arc<Session>, filter: &str, qos: Qos) {
        assert!(table.expect(session, filter));
        table.settle(session, &Arc::from(filter), Some(qos));
    }

    fn filters(table: &Table, topic: &str) -> Vec<(u64, Vec<String>)> {
        let of = |one: &Recipient| one.subscriptions.iter().map(|(f, _)| f.to_string()).collect();
        let all = table.recipients(topic);
        all.iter().map(|one| (one.session.connection, of(one))).collect()
    }

    #[test]
    fn a_connection_is_found_once_by_all_its_filters() {
        let table = Table::default();
        let (one, two) = (session(1, "D1"), session(2, "D2"));
        let of_one = ["a/b", "a/+", "+/b", "#", "a/b/#", "a/#", "+/+"];
        for filter in of_one.iter().chain(&["a", "a/b/c", "b/#", "+", "a/c", "a/+/c", "/#"]) {
            subscribe(&table, &one, filter, Qos::AtLeastOnce);
        }
        subscribe(&table, &two, "a/b", Qos::AtLeastOnce);
        let mut found = filters(&table, "a/b");
        for (_, filters) in &mut found {
            filters.sort();
        }
        let mut expected = of_one.map(str::to_owned);
        expected.sort();
        assert_eq!(found, [(1, expected.to_vec()), (2, vec!["a/b".to_owned()])]);
        assert_eq!(filters(&table, "/x")[0].1, ["#", "+/+", "/#"]);
        assert!(filters(&table, "$SYS/x").is_empty());

        table.settle(&one, &Arc::from("a/b"), None);
        assert_eq!(filters(&table, "a/b")[0].1.len(), of_one.len() - 1);
        table.leave(&one);
        table.leave(&two);
        let inner = table.inner();
        assert!(inner.exact.is_empty() && inner.wild.is_empty() && inner.filters.is_empty());
    }

    #[test]
    fn the_filter_that_spells_the_topic_decides_the_quality_and_else_the_least() {
        let table = Table::default();
        let one = session(1, "D1");
        let qos = |topic: &str| table.recipients(topic).first().and_then(Recipient::qos);
        subscribe(&table, &one, "a/+", Qos::AtLeastOnce);
        assert_eq!(qos("a/b"), Some(Qos::AtLeastOnce));
        subscribe(&table, &one, "a/#", Qos::AtMostOnce);
        assert_eq!(qos("a/b"), Some(Qos::AtMostOnce));
        subscribe(&table, &one, "a/b", Qos::ExactlyOnce);
        assert_eq!(qos("a/b"), Some(Qos::ExactlyOnce));
        assert!(table.expect(&one, "a/b"));
        assert!(!table.recipients("a/b")[0].is_settled());
    }

    #[test]
    fn subscriptions_end_at_their_limit_and_known_ones_may_be_renewed() {
        let table = Table::default();
        let one = session(1, "D1");
        for number in 0..SUBSCRIPTIONS_MAX {
            assert!(table.expect(&one, &format!("a/{number}/#")));
        }
        assert!(!table.expect(&one, "one/more") && table.expect(&one, "a/0/#"));
        table.settle(&one, &Arc::from("one/more"), Some(Qos::AtLeastOnce));
        assert!(table.recipients("one/more").is_empty());
        table.settle(&one, &Arc::from("a/0/#"), None);
        assert!(table.expect(&one, "one/more"));
    }

    #[test]
    fn a_message_looks_at_no_filters_of_others() {
        let table = Table::default();
        for number in 0..1_000 {
            let one = session(number, &format!("D{number}"));
            for end in ["+", "#", "events/#", "+/set"] {
                subscribe(
                    &table,
                    &one,
                    &format!("thing/product/D{number}/{end}"),
                    Qos::AtLeastOnce,
                );
            }
        }
        let inner = table.inner();
        for topic in ["thing/product/D7/services", "thing/product/D7/property/set"] {
            assert!(inner.candidates(topic).count() <= 4, "{topic}");
        }
        assert_eq!(inner.candidates("thing/product/D1000/services").count(), 0);
    }
}
