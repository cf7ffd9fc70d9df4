//! One authenticated connection, and what is on its way to it.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use mqtt5::broker::router::MessageRouter;
use mqtt5::packet::publish::PublishPacket;
use tokio::sync::{Notify, oneshot};
use tokio::time::{Instant, timeout_at};

use super::table::Subscription;

/// How often we look whether somebody who is behind has caught up.
pub(super) const LOOK_WAIT: Duration = Duration::from_millis(5);

/// One authenticated connection.
pub(super) struct Session {
    pub(super) connection: u64,
    pub(super) user: Arc<str>,
    pub(super) client_id: Arc<str>,
    /// QoS 1 and 2 messages it may have unconfirmed.
    pub(super) window: usize,
    /// Largest packet it takes, where it said so.
    pub(super) packet_bytes_max: Option<usize>,
    /// Its own, in which it is the only client.
    router: Arc<MessageRouter>,
    unconfirmed: AtomicUsize,
    confirmed: Notify,
    ended: AtomicBool,
    dismissed: AtomicBool,
    /// Held from noting a message as handed over until the library has it, so that both have the same order, and so that
    /// each message passes the router alone.
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

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = f.debug_struct("Session");
        shown.field("user", &self.user).field("client_id", &self.client_id);
        shown.field("connection", &self.connection).finish_non_exhaustive()
    }
}

impl Session {
    pub(super) fn new(
        connection: u64,
        user: &str,
        client_id: &str,
        window: usize,
        packet_bytes_max: Option<usize>,
        router: Arc<MessageRouter>,
    ) -> Self {
        Self {
            connection,
            user: Arc::from(user),
            client_id: Arc::from(client_id),
            window: window.max(1),
            packet_bytes_max,
            router,
            unconfirmed: AtomicUsize::new(0),
            confirmed: Notify::new(),
            ended: AtomicBool::new(false),
            dismissed: AtomicBool::new(false),
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

    /// It ends, and nothing it says counts any more.
    pub(super) fn dismiss(&self) {
        self.dismissed.store(true, Ordering::Release);
        self.end();
    }

    pub(super) fn is_dismissed(&self) -> bool {
        self.dismissed.load(Ordering::Acquire)
    }

    /// Puts a message into the library, which writes it to the client once, whichever and however many of its filters
    /// match: the library leaves out what a client has just been given on a topic, and forgets that here before every
    /// message. Whoever calls holds `order`. Never waits for the client: what does not fit stands in line behind.
    pub(super) async fn deliver(&self, packet: &PublishPacket, from: Option<&str>) {
        self.router.remove_change_only_state(&self.client_id).await;
        self.router.route_message_with_deadline(packet, from, Instant::now()).await;
    }

    /// Whether messages stand in line for the client, or may.
    pub(super) fn is_behind(&self) -> bool {
        self.router.queue_handle(&self.client_id).behind()
    }

    /// Waits until nothing stands in line. `false` when something does by then, or the session has ended.
    pub(super) async fn until_keeping_up(&self, by: Instant) -> bool {
        while self.is_behind() {
            if self.is_ended() || Instant::now() >= by {
                return false;
            }
            tokio::time::sleep(LOOK_WAIT).await;
        }
        true
    }

    /// Whether the library would write a message that matches one of these filters.
    pub(super) async fn takes(&self, filters: &[Subscription]) -> bool {
        if self.is_ended() {
            return false;
        }
        for (filter, _) in filters {
            if self.router.has_subscription(&self.client_id, filter).await {
                return true;
            }
        }
        false
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
