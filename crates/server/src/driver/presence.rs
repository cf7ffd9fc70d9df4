//! Which gateways are there (LIFECYCLE.md, "Only to a device that is there"). Pure.

use std::{collections::BTreeMap, time::Duration};

use utmos_core::{
    id::GatewaySn,
    life::Presence,
    time::{Mono, Now, Timestamp},
};

use crate::presence_topics::{Connection, Word};

/// How presence is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Knowledge {
    /// Our own broker says who is connected and subscribed.
    OwnBroker,
    /// Only messages tell: whoever was heard from inside this window is there.
    Heard {
        /// The liveness window.
        window: Duration,
    },
}

/// What is known of gateways.
#[derive(Debug)]
pub struct PresenceBook {
    knowledge: Knowledge,
    gateways: BTreeMap<GatewaySn, Seen>,
}

#[derive(Debug, Default)]
struct Seen {
    last_heard: Option<(Mono, Timestamp)>,
    /// Client ids that are connected, and whether each listens for commands. A take-over under the same id is told as
    /// another `joined` and no `left`.
    connections: BTreeMap<String, bool>,
    /// Sessions that an outside broker told of and not of their end, each with when it began in that broker's count.
    sessions: BTreeMap<String, Option<i64>>,
    /// The session in which it was heard is over, as an outside broker says, and nothing was heard since.
    is_over: bool,
}

/// Sessions of one gateway at an outside broker that are told apart; nobody has as many.
const SESSIONS_MAX: usize = 8;

impl PresenceBook {
    /// An empty book.
    #[must_use]
    pub fn new(knowledge: Knowledge) -> Self {
        Self { knowledge, gateways: BTreeMap::new() }
    }

    /// Whether a gateway is there.
    #[must_use]
    pub fn of(&self, gateway: &GatewaySn, now: Now) -> Presence {
        let seen = self.gateways.get(gateway);
        let last_heard = seen.and_then(|seen| seen.last_heard);
        let last_heard_at = last_heard.map(|(_, at)| at);
        match (self.knowledge, last_heard) {
            (Knowledge::OwnBroker, _)
                if seen.is_some_and(|seen| seen.connections.values().any(|listens| *listens)) =>
            {
                Presence::Online
            }
            (Knowledge::OwnBroker, _) => Presence::Absent { last_heard_at },
            (Knowledge::Heard { .. }, None) => Presence::NeverHeard,
            (Knowledge::Heard { .. }, Some(_)) if seen.is_some_and(|seen| seen.is_over) => {
                Presence::Absent { last_heard_at }
            }
            (Knowledge::Heard { window }, Some((at, _))) if now.mono.since(at) <= window => {
                Presence::Online
            }
            (Knowledge::Heard { .. }, Some(_)) => Presence::Absent { last_heard_at },
        }
    }

    /// When a gateway was last heard from.
    #[must_use]
    pub fn last_heard_at(&self, gateway: &GatewaySn) -> Option<Timestamp> {
        self.gateways.get(gateway)?.last_heard.map(|(_, at)| at)
    }

    /// A message came. Answers whether the gateway came with it.
    pub fn heard(&mut self, gateway: &GatewaySn, now: Now) -> bool {
        self.edge(gateway, now, |seen| {
            seen.last_heard = Some((now.mono, now.wall));
            seen.is_over = false;
        })
    }

    /// An outside broker tells that a session began or ended. Either way the one in which the gateway was heard is over,
    /// unless it has another that is not: a session begins without subscriptions, so what is heard next counts. A word
    /// that is lost, or comes late, costs no more than that: silence ends presence all the same.
    pub fn told(&mut self, word: &Word, now: Now) {
        let known =
            self.gateways.get(&word.gateway).and_then(|seen| seen.sessions.get(&word.client_id));
        let is_older =
            matches!((known, word.began_at), (Some(Some(known)), Some(told)) if told < *known);
        if is_older || word.what == Connection::TakenOver {
            return;
        }
        self.edge(&word.gateway, now, |seen| {
            seen.sessions.remove(&word.client_id);
            seen.is_over |= seen.sessions.is_empty();
            if word.what == Connection::Began {
                if seen.sessions.len() >= SESSIONS_MAX {
                    seen.sessions.pop_first();
                }
                seen.sessions.insert(word.client_id.clone(), word.began_at);
            }
        });
    }

    /// The link to the outside broker was cut: how sessions ended meanwhile nobody tells.
    pub fn link_was_cut(&mut self) {
        self.gateways.values_mut().for_each(|seen| seen.sessions.clear());
    }

    /// Whether an outside broker said that the session is over in which a gateway was heard last.
    #[must_use]
    pub fn is_over(&self, gateway: &GatewaySn) -> bool {
        self.gateways.get(gateway).is_some_and(|seen| seen.is_over)
    }

    /// It connected to our broker. A session begins empty, so it does not listen yet.
    pub fn joined(&mut self, gateway: &GatewaySn, client_id: &str, now: Now) -> bool {
        self.edge(gateway, now, |seen| {
            seen.connections.insert(client_id.to_owned(), false);
            seen.last_heard = Some((now.mono, now.wall));
        })
    }

    /// A connection of it listens for commands now.
    pub fn listens(&mut self, gateway: &GatewaySn, client_id: &str, now: Now) -> bool {
        self.edge(gateway, now, |seen| {
            if let Some(listens) = seen.connections.get_mut(client_id) {
                *listens = true;
            }
        })
    }

    /// A connection of it is gone.
    pub fn left(&mut self, gateway: &GatewaySn, client_id: &str, now: Now) {
        self.edge(gateway, now, |seen| {
            seen.connections.remove(client_id);
        });
    }

    fn edge(&mut self, gateway: &GatewaySn, now: Now, change: impl FnOnce(&mut Seen)) -> bool {
        let before = self.of(gateway, now);
        if !self.gateways.contains_key(gateway) {
            self.gateways.insert(gateway.clone(), Seen::default());
        }
        if let Some(seen) = self.gateways.get_mut(gateway) {
            change(seen);
        }
        before != Presence::Online && self.of(gateway, now) == Presence::Online
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]
    use super::*;

    fn at(millis: u64) -> Now {
        Now { wall: Timestamp::from_millis(1_000_000), mono: Mono::from_millis(millis) }
    }

    #[test]
    fn at_our_own_broker_a_gateway_is_there_while_it_is_connected_and_listens() {
        let dock = GatewaySn::parse("DOCK").unwrap();
        let mut book = PresenceBook::new(Knowledge::OwnBroker);
        assert!(matches!(book.of(&dock, at(0)), Presence::Absent { last_heard_at: None }));
        assert!(!book.joined(&dock, "c", at(0)));
        assert!(book.listens(&dock, "c", at(1)), "the edge is reported once");
        assert!(!book.heard(&dock, at(2)));
        assert_eq!(
            book.of(&dock, at(1_000_000)),
            Presence::Online,
            "silence alone does not end a connection"
        );
        book.left(&dock, "c", at(3));
        assert!(matches!(book.of(&dock, at(3)), Presence::Absent { last_heard_at: Some(_) }));
    }

    #[test]
    fn a_connection_taken_over_listens_once_the_new_one_subscribes_and_is_gone_with_one_leave() {
        let dock = GatewaySn::parse("DOCK").unwrap();
        let mut book = PresenceBook::new(Knowledge::OwnBroker);
        book.joined(&dock, "c", at(0));
        assert!(book.listens(&dock, "c", at(0)));
        // Our broker tells of the take-over as another connect, and never of the old connection's end.
        book.joined(&dock, "c", at(1));
        assert!(
            matches!(book.of(&dock, at(1)), Presence::Absent { .. }),
            "a new session has no subscriptions"
        );
        assert!(
            book.listens(&dock, "c", at(2)),
            "that is an edge again, or nothing would wake what waits"
        );
        book.left(&dock, "c", at(3));
        assert!(matches!(book.of(&dock, at(3)), Presence::Absent { .. }));
    }

    #[test]
    fn of_two_connections_the_one_that_listens_is_what_counts() {
        let dock = GatewaySn::parse("DOCK").unwrap();
        let mut book = PresenceBook::new(Knowledge::OwnBroker);
        let is_there = |book: &PresenceBook| book.of(&dock, at(0)) == Presence::Online;
        book.joined(&dock, "listens", at(0));
        book.listens(&dock, "listens", at(0));
        book.joined(&dock, "deaf", at(0));
        assert!(is_there(&book));
        // Its session is taken over: nobody listens until the new one does.
        book.joined(&dock, "listens", at(0));
        assert!(!is_there(&book));
        assert!(book.listens(&dock, "listens", at(0)));
        book.left(&dock, "listens", at(0));
        assert!(!is_there(&book), "the one that is left does not listen");
        assert!(book.listens(&dock, "deaf", at(0)));
        book.joined(&dock, "third", at(0));
        book.left(&dock, "third", at(0));
        assert!(is_there(&book));
        // Told after its end.
        book.left(&dock, "deaf", at(0));
        assert!(!book.listens(&dock, "deaf", at(0)) && !is_there(&book));
    }

    #[test]
    fn behind_another_broker_only_messages_tell() {
        let dock = GatewaySn::parse("DOCK").unwrap();
        let mut book = PresenceBook::new(Knowledge::Heard { window: Duration::from_secs(60) });
        assert_eq!(book.of(&dock, at(0)), Presence::NeverHeard);
        assert!(book.heard(&dock, at(0)));
        assert_eq!(book.of(&dock, at(60_000)), Presence::Online);
        assert!(matches!(book.of(&dock, at(60_001)), Presence::Absent { .. }));
        assert!(book.heard(&dock, at(70_000)));
    }

    #[test]
    fn what_another_broker_tells_of_sessions_ends_presence_until_the_gateway_is_heard_again() {
        let dock = GatewaySn::parse("DOCK").unwrap();
        let mut book = PresenceBook::new(Knowledge::Heard { window: Duration::from_secs(60) });
        let word = |client_id: &str, began_at, what| Word {
            gateway: dock.clone(),
            client_id: client_id.to_owned(),
            began_at,
            what,
        };
        let is_there = |book: &PresenceBook, at_ms| book.of(&dock, at(at_ms)) == Presence::Online;
        // That it connected is not that it listens.
        book.told(&word("a", Some(1), Connection::Began), at(0));
        assert_eq!(book.of(&dock, at(0)), Presence::NeverHeard);
        assert!(book.heard(&dock, at(0)));
        book.told(&word("a", Some(1), Connection::Ended), at(1));
        assert!(!is_there(&book, 1) && book.is_over(&dock));
        assert!(
            book.heard(&dock, at(2)),
            "heard again is an edge, or nothing would wake what waits"
        );
        // A new session under the same id begins without subscriptions; the end of the old one, told late, is no news.
        book.told(&word("a", Some(5), Connection::Began), at(3));
        assert!(!is_there(&book, 3));
        book.heard(&dock, at(4));
        for what in [Connection::Ended, Connection::TakenOver] {
            book.told(&word("a", Some(1), what), at(5));
            assert!(is_there(&book, 5), "{what:?}");
        }
        // With another session it is not over.
        book.told(&word("b", None, Connection::Began), at(6));
        book.told(&word("b", None, Connection::Ended), at(7));
        assert!(is_there(&book, 7));
        // An end that was lost is found out by silence.
        assert!(is_there(&book, 60_004) && !is_there(&book, 60_005));
        // While the link was cut nobody told of ends, so that one more may be the last.
        book.heard(&dock, at(70_000));
        book.told(&word("c", None, Connection::Began), at(70_001));
        book.link_was_cut();
        book.told(&word("c", None, Connection::Ended), at(70_002));
        assert!(!is_there(&book, 70_002));
    }

    #[test]
    fn sessions_whose_end_is_never_told_fill_nothing() {
        let dock = GatewaySn::parse("DOCK").unwrap();
        let mut book = PresenceBook::new(Knowledge::Heard { window: Duration::from_secs(60) });
        for number in 0..1_000 {
            let client_id = format!("c-{number}");
            let word =
                Word { gateway: dock.clone(), client_id, began_at: None, what: Connection::Began };
            book.told(&word, at(number));
        }
        assert_eq!(book.gateways[&dock].sessions.len(), SESSIONS_MAX);
    }
}
