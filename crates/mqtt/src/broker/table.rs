//! Who is connected and subscribed to what, as far as the library has told us.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;
use tokio::time::{Instant, timeout_at};

use crate::message::Qos;

/// One authenticated connection.
#[derive(Debug)]
pub(super) struct Session {
    pub(super) connection: u64,
    pub(super) user: Arc<str>,
    pub(super) client_id: Arc<str>,
    /// QoS 1 and 2 messages it may have unconfirmed.
    pub(super) window: usize,
    /// Largest packet it takes, where it said so.
    pub(super) packet_bytes_max: Option<usize>,
    unconfirmed: AtomicUsize,
    confirmed: Notify,
    ended: AtomicBool,
}

impl Session {
    pub(super) fn new(
        connection: u64,
        user: &str,
        client_id: &str,
        window: usize,
        packet_bytes_max: Option<usize>,
    ) -> Self {
        Self {
            connection,
            user: Arc::from(user),
            client_id: Arc::from(client_id),
            window: window.max(1),
            packet_bytes_max,
            unconfirmed: AtomicUsize::new(0),
            confirmed: Notify::new(),
            ended: AtomicBool::new(false),
        }
    }

    pub(super) fn is_ended(&self) -> bool {
        self.ended.load(Ordering::Acquire)
    }

    pub(super) fn end(&self) {
        self.ended.store(true, Ordering::Release);
        self.confirmed.notify_waiters();
    }

    /// Waits for room in the window, so that what is handed over is written at once and never waits behind other messages.
    /// `false` when there is none by then, or the session has ended.
    pub(super) async fn book(&self, by: Instant) -> bool {
        loop {
            let confirmed = self.confirmed.notified();
            tokio::pin!(confirmed);
            confirmed.as_mut().enable();
            if self.is_ended() {
                return false;
            }
            let room = |now: usize| (now < self.window).then_some(now + 1);
            if self.unconfirmed.fetch_update(Ordering::AcqRel, Ordering::Acquire, room).is_ok() {
                return true;
            }
            if timeout_at(by, confirmed).await.is_err() {
                return false;
            }
        }
    }

    /// One message less is unconfirmed.
    pub(super) fn unbook(&self) {
        let less = |now: usize| Some(now.saturating_sub(1));
        if self.unconfirmed.fetch_update(Ordering::AcqRel, Ordering::Acquire, less).is_ok() {
            self.confirmed.notify_waiters();
        }
    }
}

/// A session that is, or is about to be, subscribed to a topic.
#[derive(Debug, Clone)]
pub(super) struct Target {
    pub(super) session: Arc<Session>,
    pub(super) filter: Arc<str>,
    /// What was granted; `None` between the Doorkeeper's yes and the library's SUBACK.
    pub(super) qos: Option<Qos>,
}

#[derive(Debug, Default)]
pub(super) struct Table(Mutex<Inner>);

#[derive(Debug, Default)]
struct Inner {
    clients: BTreeMap<Arc<str>, Arc<Session>>,
    exact: BTreeMap<Arc<str>, Vec<Target>>,
    wild: BTreeMap<Arc<str>, Vec<Target>>,
    filters: BTreeMap<u64, BTreeSet<Arc<str>>>,
}

fn is_wild(filter: &str) -> bool {
    filter.contains(['+', '#'])
}

impl Inner {
    fn map(&mut self, filter: &str) -> &mut BTreeMap<Arc<str>, Vec<Target>> {
        if is_wild(filter) { &mut self.wild } else { &mut self.exact }
    }

    fn unlist(&mut self, connection: u64, filter: &str) {
        let map = self.map(filter);
        if let Some(targets) = map.get_mut(filter) {
            targets.retain(|target| target.session.connection != connection);
            if targets.is_empty() {
                map.remove(filter);
            }
        }
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

    /// The Doorkeeper said yes; the library's answer is to come.
    pub(super) fn expect(&self, session: &Arc<Session>, filter: &str) {
        let mut inner = self.inner();
        let filter: Arc<str> = Arc::from(filter);
        let targets = inner.map(&filter).entry(Arc::clone(&filter)).or_default();
        if targets.iter().all(|target| target.session.connection != session.connection) {
            targets.push(Target {
                session: Arc::clone(session),
                filter: Arc::clone(&filter),
                qos: None,
            });
        }
        inner.filters.entry(session.connection).or_default().insert(filter);
    }

    /// The library's answer: granted, or not.
    pub(super) fn settle(&self, session: &Arc<Session>, filter: &Arc<str>, granted: Option<Qos>) {
        let mut inner = self.inner();
        let Some(granted) = granted else {
            if let Some(filters) = inner.filters.get_mut(&session.connection) {
                filters.remove(filter);
            }
            inner.unlist(session.connection, filter);
            return;
        };
        for target in inner.map(filter).get_mut(filter).into_iter().flatten() {
            if target.session.connection == session.connection {
                target.qos = Some(granted);
            }
        }
    }

    /// Everyone whose filter matches the topic, once for each filter.
    pub(super) fn matching(&self, topic: &str) -> Vec<Target> {
        let inner = self.inner();
        let mut targets = inner.exact.get(topic).cloned().unwrap_or_default();
        for (filter, more) in &inner.wild {
            if mqtt5::topic_matches_filter(topic, filter) {
                targets.extend(more.iter().cloned());
            }
        }
        targets
    }

    pub(super) fn is_anyone_subscribed(&self, topic: &str) -> bool {
        let inner = self.inner();
        inner.exact.contains_key(topic)
            || inner.wild.keys().any(|filter| mqtt5::topic_matches_filter(topic, filter))
    }
}
