//! Who is connected and subscribed to what. What a message costs here depends on who gets it, not on how many others are
//! connected.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::session::Session;
use crate::message::Qos;

/// Topic filters of one connection; more are refused as over its quota. A dock needs about ten.
pub(super) const SUBSCRIPTIONS_MAX: usize = 64;

/// On what terms a filter was granted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Terms {
    pub(super) qos: Qos,
    /// MQTT 5: it does not want what it publishes itself.
    pub(super) no_local: bool,
}

/// A connection that gets a message, once, however many of its filters match.
#[derive(Debug, Clone)]
pub(super) struct Recipient {
    pub(super) session: Arc<Session>,
    /// The best quality of service of those filters (MQTT 5, 3.3.4).
    pub(super) qos: Qos,
    /// Whether one of them takes what it publishes itself.
    pub(super) takes_own: bool,
}

#[derive(Debug, Default)]
pub(super) struct Table(Mutex<Inner>);

/// Who has a filter: mostly one, so that a list is smaller than a map, and as fast.
type Holders = Vec<(Arc<Session>, Terms)>;

#[derive(Debug, Default)]
struct Inner {
    clients: BTreeMap<Arc<str>, Arc<Session>>,
    exact: BTreeMap<Arc<str>, Holders>,
    /// Filters with wildcards, under the levels before the first of these: to match a topic, only filters are looked at
    /// that begin as it does.
    wild: BTreeMap<String, BTreeMap<Arc<str>, Holders>>,
    /// Of each connection, which has few: a list is smaller than a set, and as fast.
    filters: BTreeMap<u64, Vec<Arc<str>>>,
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
                holders.retain(|(session, _)| session.connection != connection);
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

    /// Grants a filter, perhaps anew on other terms. `false` when the connection has as many as it may have, or has ended.
    pub(super) fn subscribe(
        &self,
        session: &Arc<Session>,
        filter: &Arc<str>,
        terms: Terms,
    ) -> bool {
        let mut inner = self.inner();
        if session.is_ended() {
            return false;
        }
        let own = inner.filters.entry(session.connection).or_default();
        if !own.contains(filter) {
            if own.len() >= SUBSCRIPTIONS_MAX {
                return false;
            }
            own.reserve_exact(1);
            own.push(Arc::clone(filter));
        }
        let holders = inner.holders(filter);
        match holders.iter_mut().find(|(holder, _)| holder.connection == session.connection) {
            Some((_, known)) => *known = terms,
            None => {
                holders.reserve_exact(1);
                holders.push((Arc::clone(session), terms));
            }
        }
        true
    }

    /// Takes a filter back. `false` where the connection has none such.
    pub(super) fn unsubscribe(&self, session: &Session, filter: &str) -> bool {
        let mut inner = self.inner();
        let Some(own) = inner.filters.get_mut(&session.connection) else { return false };
        let Some(at) = own.iter().position(|known| &**known == filter) else { return false };
        own.remove(at);
        inner.unlist(session.connection, filter);
        true
    }

    /// Everyone there who has a filter that matches the topic, in the order in which they connected.
    pub(super) fn recipients(&self, topic: &str) -> Vec<Recipient> {
        let inner = self.inner();
        let matching = |(filter, _): &(&Arc<str>, &Holders)| {
            mqtt5_protocol::topic_matches_filter(topic, filter)
        };
        let wild = inner.candidates(topic).filter(matching);
        let mut found: Vec<Recipient> = Vec::new();
        for (_, holders) in inner.exact.get_key_value(topic).into_iter().chain(wild) {
            for (session, terms) in holders.iter().filter(|(session, _)| !session.is_ended()) {
                let same = |known: &&mut Recipient| known.session.connection == session.connection;
                match found.iter_mut().find(same) {
                    Some(known) => {
                        known.qos = known.qos.max(terms.qos);
                        known.takes_own |= !terms.no_local;
                    }
                    None => found.push(Recipient {
                        session: Arc::clone(session),
                        qos: terms.qos,
                        takes_own: !terms.no_local,
                    }),
                }
            }
        }
        found.sort_by_key(|recipient| recipient.session.connection);
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn session(connection: u64, user: &str) -> Arc<Session> {
        let client_id = format!("{user}-{connection}");
        Arc::new(Session::new(connection, user, &client_id, 5, 8, None))
    }

    fn subscribe(table: &Table, session: &Arc<Session>, filter: &str, qos: Qos) -> bool {
        table.subscribe(session, &Arc::from(filter), Terms { qos, no_local: false })
    }

    fn found(table: &Table, topic: &str) -> Vec<u64> {
        table.recipients(topic).iter().map(|one| one.session.connection).collect()
    }

    #[test]
    fn a_connection_is_found_once_by_each_of_its_filters() {
        for filter in ["a/b", "a/+", "+/b", "#", "a/b/#", "a/#", "+/+"] {
            let table = Table::default();
            let (one, two) = (session(1, "D1"), session(2, "D2"));
            assert!(subscribe(&table, &one, filter, Qos::AtLeastOnce));
            assert_eq!(found(&table, "a/b"), [1], "{filter}");
            assert!(subscribe(&table, &two, "a/b", Qos::AtLeastOnce));
            assert!(subscribe(&table, &one, "#", Qos::AtLeastOnce));
            assert_eq!(found(&table, "a/b"), [1, 2], "{filter}");
            assert!(found(&table, "$SYS/x").is_empty());
            assert!(table.unsubscribe(&one, "#") && !table.unsubscribe(&one, "#"));
            table.leave(&one);
            assert_eq!(found(&table, "a/b"), [2], "{filter}");
            table.leave(&two);
            let inner = table.inner();
            assert!(inner.exact.is_empty() && inner.wild.is_empty() && inner.filters.is_empty());
        }
        let table = Table::default();
        let one = session(1, "D1");
        for filter in ["a", "a/b/c", "b/#", "+", "a/c", "a/+/c", "/#"] {
            assert!(subscribe(&table, &one, filter, Qos::AtLeastOnce));
        }
        assert!(found(&table, "a/b").is_empty());
        assert_eq!(found(&table, "/x"), [1]);
    }

    #[test]
    fn the_best_quality_of_its_filters_is_what_a_connection_gets() {
        let table = Table::default();
        let one = session(1, "D1");
        let qos = |topic: &str| table.recipients(topic).first().map(|one| one.qos);
        assert!(subscribe(&table, &one, "a/+", Qos::AtMostOnce));
        assert_eq!(qos("a/b"), Some(Qos::AtMostOnce));
        assert!(subscribe(&table, &one, "a/#", Qos::AtLeastOnce));
        assert_eq!(qos("a/b"), Some(Qos::AtLeastOnce));
        assert!(subscribe(&table, &one, "a/b", Qos::AtMostOnce));
        assert_eq!(qos("a/b"), Some(Qos::AtLeastOnce));
        assert!(subscribe(&table, &one, "a/#", Qos::AtMostOnce), "anew, on other terms");
        assert_eq!(qos("a/b"), Some(Qos::AtMostOnce));
    }

    #[test]
    fn a_connection_may_not_want_its_own_words() {
        let table = Table::default();
        let one = session(1, "D1");
        let takes_own = || table.recipients("a/b").first().map(|one| one.takes_own);
        assert!(table.subscribe(
            &one,
            &Arc::from("a/#"),
            Terms { qos: Qos::AtLeastOnce, no_local: true }
        ));
        assert_eq!(takes_own(), Some(false));
        assert!(subscribe(&table, &one, "a/b", Qos::AtLeastOnce));
        assert_eq!(takes_own(), Some(true), "by the other filter");
    }

    #[test]
    fn subscriptions_end_at_their_limit_and_known_ones_may_be_renewed() {
        let table = Table::default();
        let one = session(1, "D1");
        for number in 0..SUBSCRIPTIONS_MAX {
            assert!(subscribe(&table, &one, &format!("a/{number}/#"), Qos::AtLeastOnce));
        }
        assert!(!subscribe(&table, &one, "one/more", Qos::AtLeastOnce));
        assert!(subscribe(&table, &one, "a/0/#", Qos::AtLeastOnce));
        assert!(found(&table, "one/more").is_empty());
        assert!(table.unsubscribe(&one, "a/0/#"));
        assert!(subscribe(&table, &one, "one/more", Qos::AtLeastOnce));
        one.end();
        assert!(!subscribe(&table, &one, "one/more", Qos::AtLeastOnce), "it has ended");
    }

    #[test]
    fn a_message_looks_at_no_filters_of_others() {
        let table = Table::default();
        for number in 0..1_000 {
            let one = session(number, &format!("D{number}"));
            for end in ["+", "#", "events/#", "+/set"] {
                let filter = format!("thing/product/D{number}/{end}");
                assert!(subscribe(&table, &one, &filter, Qos::AtLeastOnce));
            }
        }
        let inner = table.inner();
        for topic in ["thing/product/D7/services", "thing/product/D7/property/set"] {
            assert!(inner.candidates(topic).count() <= 4, "{topic}");
        }
        assert_eq!(inner.candidates("thing/product/D1000/services").count(), 0);
    }
}
