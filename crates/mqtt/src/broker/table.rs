//! Who is connected and subscribed to what, as far as the library has told us.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{Notify, oneshot};
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
    /// Held from noting a message as handed over until the library has it, so that both have the same order.
    pub(super) order: Arc<tokio::sync::Mutex<()>>,
    handed: Mutex<Handed>,
}

/// The QoS 1 and 2 messages that wait for the client's word, by packet id. The library gives ids from 1 on in the order in
/// which it is handed the messages, so they are known here, as long as nothing else draws from them: no messages of other
/// clients, and none of QoS 2 from the client itself, whose ids the library leaves out.
#[derive(Debug, Default)]
struct Handed {
    waiting: BTreeMap<u16, Option<oneshot::Sender<Confirmed>>>,
    last_id: u16,
    ended: bool,
    /// Something else did.
    uncountable: bool,
}

impl Handed {
    fn next_id(&mut self) -> u16 {
        loop {
            self.last_id = self.last_id.checked_add(1).unwrap_or(1);
            if !self.waiting.contains_key(&self.last_id) {
                return self.last_id;
            }
        }
    }
}

/// Whoever asked may have gone.
fn tell(done: oneshot::Sender<Confirmed>, confirmed: Confirmed) {
    done.send(confirmed).ok();
}

/// What became of a message that was handed over; nothing where the connection ended first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Confirmed {
    /// The client's PUBACK came.
    Acknowledged { packet_id: u16 },
    /// It was handed over, and whose PUBACK comes cannot be told.
    Uncountable,
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
            order: Arc::default(),
            handed: Mutex::default(),
        }
    }

    fn handed(&self) -> MutexGuard<'_, Handed> {
        self.handed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes a QoS 1 or 2 message that is about to be handed over. `false` where the session has ended.
    pub(super) fn hand(&self, done: Option<oneshot::Sender<Confirmed>>) -> bool {
        let mut handed = self.handed();
        if handed.ended {
            return false;
        }
        if !handed.uncountable {
            let id = handed.next_id();
            handed.waiting.insert(id, done);
        } else if let Some(done) = done {
            tell(done, Confirmed::Uncountable);
        }
        true
    }

    /// The client's word came for a message under this id.
    pub(super) fn acknowledged(&self, packet_id: u16) {
        let known = self.handed().waiting.remove(&packet_id);
        match known {
            Some(Some(done)) => tell(done, Confirmed::Acknowledged { packet_id }),
            Some(None) => {}
            None => self.lose_count(),
        }
    }

    /// From now on nobody can tell which message a PUBACK is for.
    pub(super) fn lose_count(&self) {
        let mut handed = self.handed();
        if !handed.uncountable && !handed.ended {
            tracing::debug!(user = %self.user, client_id = %self.client_id, "an mqtt client does not get our messages alone; for those, handed over counts as confirmed");
        }
        handed.uncountable = true;
        for done in std::mem::take(&mut handed.waiting).into_values().flatten() {
            tell(done, Confirmed::Uncountable);
        }
    }

    pub(super) fn is_ended(&self) -> bool {
        self.ended.load(Ordering::Acquire)
    }

    pub(super) fn end(&self) {
        self.ended.store(true, Ordering::Release);
        self.confirmed.notify_waiters();
        let mut handed = self.handed();
        handed.ended = true;
        handed.waiting.clear();
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

impl Target {
    /// Whether both are the same subscription on the same terms.
    pub(super) fn is(&self, other: &Self) -> bool {
        self.session.connection == other.session.connection
            && self.filter == other.filter
            && self.qos == other.qos
    }
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
        let known =
            targets.iter_mut().find(|target| target.session.connection == session.connection);
        if let Some(target) = known {
            // Subscribed anew, perhaps with another quality of service.
            target.qos = None;
        } else {
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

    /// Everyone there whose filter matches the topic, once for each filter.
    pub(super) fn matching(&self, topic: &str) -> Vec<Target> {
        let inner = self.inner();
        let mut targets = inner.exact.get(topic).cloned().unwrap_or_default();
        for (filter, more) in &inner.wild {
            if mqtt5::topic_matches_filter(topic, filter) {
                targets.extend(more.iter().cloned());
            }
        }
        targets.retain(|target| !target.session.is_ended());
        targets
    }

    pub(super) fn is_anyone_subscribed(&self, topic: &str) -> bool {
        let inner = self.inner();
        inner.exact.contains_key(topic)
            || inner.wild.keys().any(|filter| mqtt5::topic_matches_filter(topic, filter))
    }
}
