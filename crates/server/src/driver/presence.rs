//! Which gateways are there (LIFECYCLE.md, "Only to a device that is there"). Pure.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
    time::Duration,
};

use utmos_core::{
    id::GatewaySn,
    life::Presence,
    planted::{self, Fault},
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
    /// Since when this server hears what devices say.
    listening_from: Option<Mono>,
    gateways: BTreeMap<GatewaySn, Seen>,
}

#[derive(Debug, Default)]
struct Seen {
    last_heard: Option<(Mono, Timestamp)>,
    /// Client ids that are connected, and whether each listens for commands: one, mostly. A take-over under the same id is
    /// told as another `joined` and no `left`.
    connections: Vec<(Arc<str>, bool)>,
    /// Boxed: at our own broker there is nothing of it.
    outside: Option<Box<Outside>>,
    /// Nothing is to be kept of it once its last connection is gone.
    is_forgotten: bool,
}

/// What others tell of a gateway: an outside broker, or another server.
#[derive(Debug, Default)]
struct Outside {
    /// It was not heard here, and counts as there until then, for somebody else heard it lately.
    there_until: Option<Mono>,
    /// The last session of each client that an outside broker told of.
    sessions: BTreeMap<String, Session>,
    /// An outside broker said that the session in which it was heard is over, and nothing proves another yet.
    doubt: Option<Doubt>,
    /// When the last sessions ended that an outside broker told of.
    ends: VecDeque<Mono>,
}

/// A session at an outside broker.
#[derive(Debug, Clone, Copy)]
struct Session {
    /// When it began in that broker's count.
    began_at: Option<i64>,
    /// Whether its end was not told.
    is_live: bool,
    /// When that was told.
    told_at: Mono,
}

impl Session {
    /// Whether a word tells something new of its client. Words may come twice, and the word of a session's beginning after
    /// that of its end.
    fn is_news(self, word: &Word) -> bool {
        let (Some(known), Some(told)) = (self.began_at, word.began_at) else { return true };
        match word.what {
            Connection::Began => known < told,
            Connection::Ended if self.is_live => known <= told,
            Connection::Ended | Connection::TakenOver => known < told,
        }
    }
}

/// Sessions of one gateway at an outside broker that are told apart; nobody has as many.
const SESSIONS_MAX: usize = 8;
/// What was on its way when a session ended, its last will among it, is here after so long. Nothing orders messages of a
/// client and what its broker tells of it: a will leaves before or after the word of the end, as the broker likes.
const UNDER_WAY_WAIT: Duration = Duration::from_secs(5);

/// A gateway's session is over. A session leaves one last will at most, and its client may have asked for it to be held
/// back: so one message more is needed than sessions have ended lately before the gateway counts as there again.
#[derive(Debug, Clone, Copy, Default)]
struct Doubt {
    /// Whether a session ended, or one only began in which nothing was heard yet.
    has_ended: bool,
    /// Messages count from then on: from `UNDER_WAY_WAIT` after the last end, or at once in a new session.
    from: Option<Mono>,
    /// Those that counted, how many of them may be wills, and when the last of them came.
    heard: usize,
    wills: usize,
    heard_at: Option<Mono>,
}

impl Doubt {
    /// A message came, after so many ends lately. Answers whether it takes the doubt away.
    fn is_over_with(&mut self, ends: usize, now: Mono, window: Duration) -> bool {
        if self.from.is_some_and(|from| now < from) {
            return false;
        }
        if self.heard_at.is_some_and(|at| now.since(at) > window) {
            (self.heard, self.wills) = (0, 0);
        }
        self.heard_at = Some(now);
        self.heard += 1;
        self.wills = self.wills.max(ends).max(usize::from(self.has_ended));
        self.heard > self.wills
    }
}

impl Seen {
    fn outside(&self) -> Option<&Outside> {
        self.outside.as_deref()
    }

    fn has_doubt(&self) -> bool {
        self.outside().is_some_and(|outside| outside.doubt.is_some())
    }

    fn told(&mut self, word: &Word, now: Mono, window: Duration) {
        let last_heard = self.last_heard.map(|(at, _)| at);
        self.outside.get_or_insert_default().told(word, last_heard, now, window);
    }

    fn heard(&mut self, now: Now, window: Duration) {
        let last_heard = self.last_heard.replace((now.mono, now.wall));
        if let Some(outside) = &mut self.outside {
            outside.heard(last_heard.map(|(at, _)| at), now.mono, window);
        }
    }
}

impl Outside {
    /// The word of an end may be lost. Nothing of that session holds up the end of another once nothing was heard for longer
    /// than the window: one that goes on all the same proves that with a few messages.
    fn forget_what_fell_silent(&mut self, last_heard: Option<Mono>, now: Mono, window: Duration) {
        let fell_silent = |at: Mono| now.since(at) > window;
        if last_heard.is_none_or(fell_silent) {
            self.sessions.retain(|_, session| !session.is_live || !fell_silent(session.told_at));
        }
    }

    fn told(&mut self, word: &Word, last_heard: Option<Mono>, now: Mono, window: Duration) {
        self.there_until = None;
        self.forget_what_fell_silent(last_heard, now, window);
        let former = self.sessions.remove(&word.client_id);
        let has_another = self.sessions.values().any(|session| session.is_live);
        let (ends, begins) = (
            word.what == Connection::Ended || former.is_some_and(|former| former.is_live),
            word.what == Connection::Began,
        );
        if self.sessions.len() >= SESSIONS_MAX {
            let over = self.sessions.iter().find(|(_, session)| !session.is_live);
            let goes = over.or_else(|| self.sessions.first_key_value()).map(|one| one.0.clone());
            goes.and_then(|goes| self.sessions.remove(&goes));
        }
        let session = Session { began_at: word.began_at, is_live: begins, told_at: now };
        self.sessions.insert(word.client_id.clone(), session);
        // Each leaves a will, that of one beside another as well.
        if ends {
            self.ends.push_back(now);
            if self.ends.len() > SESSIONS_MAX {
                self.ends.pop_front();
            }
        }
        // The first session of one that was never heard ends nothing.
        let casts_doubt = !has_another && (ends || last_heard.is_some());
        if !casts_doubt && self.doubt.is_none() {
            return;
        }
        let has_ended = ends || self.doubt.is_some_and(|doubt| doubt.has_ended);
        let from = (!begins && !has_another).then(|| now.plus(UNDER_WAY_WAIT));
        self.doubt = Some(Doubt { has_ended, from, ..Doubt::default() });
    }

    fn heard(&mut self, last_heard: Option<Mono>, now: Mono, window: Duration) {
        self.forget_what_fell_silent(last_heard, now, window);
        let ends = self.ends.iter().filter(|at| now.since(**at) <= window).count();
        self.doubt.take_if(|doubt| doubt.is_over_with(ends, now, window));
    }
}

impl PresenceBook {
    /// An empty book.
    #[must_use]
    pub fn new(knowledge: Knowledge) -> Self {
        Self { knowledge, listening_from: None, gateways: BTreeMap::new() }
    }

    /// From now on this server hears what devices say. Answers after which time silence means something.
    pub fn listens_from(&mut self, now: Mono) -> Option<Duration> {
        self.listening_from = Some(now);
        match self.knowledge {
            Knowledge::OwnBroker => None,
            Knowledge::Heard { window } => Some(window),
        }
    }

    /// It is on record that somebody else heard a gateway then: it counts as there as long as if it had been heard here. What
    /// is heard or told here counts more.
    pub fn was_heard(&mut self, gateway: &GatewaySn, at: Timestamp, now: Now) {
        let Knowledge::Heard { window } = self.knowledge else { return };
        let age = u64::try_from(now.wall.as_millis().saturating_sub(at.as_millis()));
        let rest = age.ok().and_then(|age| window.checked_sub(Duration::from_millis(age)));
        // Of a clock that was set back nothing follows.
        let Some(rest) = rest else { return };
        let seen = self.gateways.entry(gateway.clone()).or_default();
        if seen.last_heard.is_none() && seen.outside().is_none_or(|it| it.sessions.is_empty()) {
            seen.outside.get_or_insert_default().there_until = Some(now.mono.plus(rest));
        }
    }

    /// Whether a gateway is there.
    #[must_use]
    pub fn of(&self, gateway: &GatewaySn, now: Now) -> Presence {
        let seen = self.gateways.get(gateway);
        let last_heard = seen.and_then(|seen| seen.last_heard);
        let last_heard_at = last_heard.map(|(_, at)| at);
        match (self.knowledge, last_heard) {
            (Knowledge::OwnBroker, _)
                if seen
                    .is_some_and(|seen| seen.connections.iter().any(|(_, listens)| *listens)) =>
            {
                Presence::Online
            }
            (Knowledge::OwnBroker, _) => Presence::Absent { last_heard_at },
            (Knowledge::Heard { .. }, _) if seen.is_some_and(Seen::has_doubt) => {
                Presence::Absent { last_heard_at }
            }
            (Knowledge::Heard { .. }, None)
                if seen
                    .and_then(|seen| seen.outside()?.there_until)
                    .is_some_and(|until| now.mono <= until) =>
            {
                Presence::Online
            }
            (Knowledge::Heard { window }, None) => match self.listening_from {
                Some(from) if now.mono.since(from) <= window => Presence::NotHeardYet,
                Some(_) | None => Presence::NeverHeard,
            },
            (Knowledge::Heard { window }, Some((at, _)))
                if now.mono.since(at) <= window
                    || planted::is_planted(Fault::PresenceNeverOver) =>
            {
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
        let window = self.window();
        self.edge(gateway, now, |seen| seen.heard(now, window))
    }

    /// An outside broker tells that a session began or ended. Either way the one in which the gateway was heard is over,
    /// unless it has another that is not: a session begins without subscriptions, so what is heard in it counts. A word of
    /// a beginning that is lost, or comes late, costs a few messages more. One of an end that is lost has the next end wait
    /// for silence, which ends presence all the same, and with that it is over.
    pub fn told(&mut self, word: &Word, now: Now) {
        let window = self.window();
        let outside = self.gateways.get(&word.gateway).and_then(Seen::outside);
        let known = outside.and_then(|outside| outside.sessions.get(&word.client_id));
        if known.is_some_and(|known| !known.is_news(word)) || word.what == Connection::TakenOver {
            return;
        }
        self.edge(&word.gateway, now, |seen| seen.told(word, now.mono, window));
    }

    fn window(&self) -> Duration {
        match self.knowledge {
            Knowledge::OwnBroker => Duration::ZERO,
            Knowledge::Heard { window } => window,
        }
    }

    /// A gateway is registered no more, or does not wait to be: nothing is kept of it once its last connection is gone.
    pub fn forget(&mut self, gateway: &GatewaySn) {
        if let Some(seen) = self.gateways.get_mut(gateway) {
            seen.is_forgotten = true;
            if seen.connections.is_empty() {
                self.gateways.remove(gateway);
            }
        }
    }

    /// The link to the outside broker was cut: how sessions ended meanwhile nobody tells.
    pub fn link_was_cut(&mut self) {
        let outside = self.gateways.values_mut().filter_map(|seen| seen.outside.as_mut());
        outside.for_each(|outside| outside.sessions.clear());
    }

    /// Whether an outside broker said that the session of a gateway is over, and nothing heard since proves another.
    #[must_use]
    pub fn is_over(&self, gateway: &GatewaySn) -> bool {
        self.gateways.get(gateway).is_some_and(Seen::has_doubt)
    }

    /// It connected to our broker. A session begins empty, so it does not listen yet.
    pub fn joined(
        &mut self,
        gateway: &GatewaySn,
        client_id: impl Into<Arc<str>>,
        now: Now,
    ) -> bool {
        let client_id = client_id.into();
        self.edge(gateway, now, |seen| {
            seen.connections.retain(|(known, _)| *known != client_id);
            seen.connections.reserve_exact(1);
            seen.connections.push((client_id, false));
            seen.last_heard = Some((now.mono, now.wall));
            seen.is_forgotten = false;
        })
    }

    /// A connection of it listens for commands now.
    pub fn listens(&mut self, gateway: &GatewaySn, client_id: &str, now: Now) -> bool {
        self.edge(gateway, now, |seen| {
            let own = seen.connections.iter_mut().find(|(known, _)| **known == *client_id);
            if let Some((_, listens)) = own {
                *listens = true;
            }
        })
    }

    /// A connection of it is gone.
    pub fn left(&mut self, gateway: &GatewaySn, client_id: &str) {
        let Some(seen) = self.gateways.get_mut(gateway) else { return };
        seen.connections.retain(|(known, _)| **known != *client_id);
        if seen.is_forgotten && seen.connections.is_empty() {
            self.gateways.remove(gateway);
        }
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
mod tests;
