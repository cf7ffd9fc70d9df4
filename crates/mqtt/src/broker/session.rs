//! One authenticated connection as the others see it: what is on its way to it, and what it has not confirmed.

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use futures_util::task::AtomicWaker;
use tokio::sync::{Notify, oneshot};
use tokio::time::{Instant, timeout_at};

use crate::codec;
use crate::message::Qos;

/// Messages are taken until this much waits to be written: small enough to fit the kernel's buffer at once, so that what is
/// handed over leaves at once.
const BATCH_BYTES: usize = 8 * 1024;
/// Messages of other clients that may stand in line before those who send them are held up.
const LINE_CROWDED: usize = 64;
/// Messages, and bytes, of other clients that may stand in line at all.
const LINE_MAX: usize = 1024;
const LINE_BYTES_MAX: usize = 4 * 1024 * 1024;
/// An empty buffer larger than this is given back.
const KEPT_BYTES: usize = 4 * 1024;

/// One authenticated connection.
pub(super) struct Session {
    pub(super) connection: u64,
    pub(super) user: Arc<str>,
    pub(super) client_id: Arc<str>,
    /// The level in its CONNECT.
    pub(super) version: u8,
    /// QoS 1 and 2 messages it may have unconfirmed.
    window: usize,
    /// Largest packet it takes, where it said so.
    pub(super) packet_bytes_max: Option<usize>,
    ended: AtomicBool,
    dismissed: AtomicBool,
    out: Mutex<Out>,
    /// Wakes the connection's own task: there is something to write.
    work: AtomicWaker,
    /// Something has left or was confirmed, or nothing will be any more.
    room: Notify,
}

/// What is on its way out.
#[derive(Debug, Default)]
struct Out {
    unwritten: Vec<u8>,
    /// The socket takes nothing at the moment.
    stuck: bool,
    /// QoS 1 and 2 messages that wait for the client's word, by packet id.
    flights: BTreeMap<u16, Flight>,
    /// Places in the window that are promised to messages about to be handed over.
    booked: usize,
    /// Messages of the server that wait for room: those of other clients stand back.
    wanted: usize,
    last_id: u16,
    /// No message's time to be confirmed is over before this.
    give_up_at: Option<Instant>,
    /// Messages of other clients for which there is no room yet.
    line: VecDeque<Overheard>,
    line_bytes: usize,
    ended: bool,
}

#[derive(Debug)]
struct Flight {
    qos: Qos,
    done: Option<oneshot::Sender<u16>>,
    /// Then the client has had its time to confirm it.
    give_up_at: Option<Instant>,
}

/// How long a message is worth something.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Time {
    /// As MQTT 5 has it on the wire.
    pub(super) expiry_seconds: Option<u32>,
    /// Then its client must have confirmed it, or is cut.
    pub(super) give_up_at: Option<Instant>,
}

/// A message of another client.
#[derive(Debug, Clone)]
pub(super) struct Overheard {
    pub(super) topic: Arc<str>,
    pub(super) payload: Bytes,
    pub(super) qos: Qos,
}

/// What became of a message of another client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Line {
    /// It leaves, or stands in line.
    Taken,
    /// It stands in line with so many others that whoever sends more should wait.
    Crowded,
    /// It was not taken: the session has ended, or its line is full.
    Refused,
}

/// Why a message cannot be handed over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum NotReady {
    /// What was handed over before has not left.
    Behind,
    /// The client has not confirmed what it has.
    WindowFull,
    Ended,
}

/// A message that was handed over.
pub(super) enum Handed {
    /// It is not confirmed: QoS 0.
    Unconfirmed,
    /// The packet id it was confirmed under comes, or nothing where the connection ends first.
    Awaiting(oneshot::Receiver<u16>),
}

/// Room for one message; given back unless it is handed over.
pub(super) struct Booked {
    session: Arc<Session>,
    qos: Qos,
    held: bool,
}

impl Drop for Booked {
    fn drop(&mut self) {
        if self.held {
            let mut out = self.session.out();
            out.booked = out.booked.saturating_sub(1);
            drop(out);
            self.session.room.notify_waiters();
        }
    }
}

/// A message of the server waits for room.
struct Wanted<'a>(&'a Session);

impl<'a> Wanted<'a> {
    fn of(session: &'a Session) -> Self {
        session.out().wanted += 1;
        Self(session)
    }
}

impl Drop for Wanted<'_> {
    fn drop(&mut self) {
        let mut out = self.0.out();
        out.wanted = out.wanted.saturating_sub(1);
        drop(out);
        // Who stood back may go on.
        self.0.work.wake();
    }
}

impl Out {
    fn is_behind(&self) -> bool {
        self.stuck || self.unwritten.len() >= BATCH_BYTES
    }

    fn has_window(&self, window: usize) -> bool {
        self.flights.len() + self.booked < window
    }

    fn next_id(&mut self) -> u16 {
        // Terminates: the window is smaller than the range of ids.
        loop {
            self.last_id = self.last_id.checked_add(1).unwrap_or(1);
            if !self.flights.contains_key(&self.last_id) {
                return self.last_id;
            }
        }
    }

    fn write(
        &mut self,
        version: u8,
        topic: &str,
        payload: &[u8],
        qos: Qos,
        time: Time,
        done: Option<oneshot::Sender<u16>>,
    ) {
        let Time { expiry_seconds, give_up_at } = time;
        let mut packet_id = 0;
        if qos > Qos::AtMostOnce {
            packet_id = self.next_id();
            self.flights.insert(packet_id, Flight { qos, done, give_up_at });
            if let Some(at) = give_up_at {
                self.give_up_at = Some(self.give_up_at.map_or(at, |known| known.min(at)));
            }
        }
        let publish = codec::Publication { topic, payload, qos, packet_id, expiry_seconds };
        publish.encode(version, &mut self.unwritten);
    }
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
        version: u8,
        window: usize,
        packet_bytes_max: Option<usize>,
    ) -> Self {
        let user: Arc<str> = Arc::from(user);
        // A dock's is its user name.
        let client_id = if *user == *client_id { Arc::clone(&user) } else { Arc::from(client_id) };
        Self {
            connection,
            user,
            client_id,
            version,
            window: window.max(1),
            packet_bytes_max,
            ended: AtomicBool::new(false),
            dismissed: AtomicBool::new(false),
            out: Mutex::default(),
            work: AtomicWaker::new(),
            room: Notify::new(),
        }
    }

    fn out(&self) -> MutexGuard<'_, Out> {
        self.out.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn is_ended(&self) -> bool {
        self.ended.load(Ordering::Acquire)
    }

    /// From now on it gets nothing; what was sent to it and not confirmed is unknown.
    pub(super) fn end(&self) {
        self.ended.store(true, Ordering::Release);
        let mut out = self.out();
        out.ended = true;
        out.flights.clear();
        out.line.clear();
        out.unwritten = Vec::new();
        drop(out);
        self.room.notify_waiters();
    }

    /// It ends, and nothing it says counts any more.
    pub(super) fn dismiss(&self) {
        self.dismissed.store(true, Ordering::Release);
        self.end();
    }

    pub(super) fn is_dismissed(&self) -> bool {
        self.dismissed.load(Ordering::Acquire)
    }

    fn try_book(&self, qos: Qos) -> Result<(), NotReady> {
        let mut out = self.out();
        if out.ended {
            return Err(NotReady::Ended);
        }
        if qos > Qos::AtMostOnce && !out.has_window(self.window) {
            return Err(NotReady::WindowFull);
        }
        if out.is_behind() {
            return Err(NotReady::Behind);
        }
        if qos > Qos::AtMostOnce {
            out.booked += 1;
        }
        Ok(())
    }

    /// Waits until a message that is handed over leaves at once, behind no other.
    pub(super) async fn book(self: &Arc<Self>, qos: Qos, by: Instant) -> Result<Booked, NotReady> {
        loop {
            let room = self.room.notified();
            tokio::pin!(room);
            room.as_mut().enable();
            match self.try_book(qos) {
                Ok(()) => {
                    let held = qos > Qos::AtMostOnce;
                    return Ok(Booked { session: Arc::clone(self), qos, held });
                }
                Err(NotReady::Ended) => return Err(NotReady::Ended),
                Err(why) => {
                    let wanted = Wanted::of(self);
                    let waited = timeout_at(by, room).await;
                    drop(wanted);
                    if waited.is_err() {
                        return Err(why);
                    }
                }
            }
        }
    }

    /// The message's bytes are on their way. `None` where the session has ended.
    pub(super) fn hand(
        &self,
        mut booked: Booked,
        topic: &str,
        payload: &[u8],
        time: Time,
    ) -> Option<Handed> {
        let mut out = self.out();
        let qos = booked.qos;
        if booked.held {
            out.booked = out.booked.saturating_sub(1);
            booked.held = false;
        }
        if out.ended {
            return None;
        }
        let (done, confirmed) = if qos > Qos::AtMostOnce {
            let (done, confirmed) = oneshot::channel();
            (Some(done), Handed::Awaiting(confirmed))
        } else {
            (None, Handed::Unconfirmed)
        };
        out.write(self.version, topic, payload, qos, time, done);
        drop(out);
        self.work.wake();
        Some(confirmed)
    }

    /// Takes what another client published, which is not ours to withhold or to hurry.
    pub(super) fn overhear(&self, message: Overheard) -> Line {
        let mut out = self.out();
        if out.ended
            || out.line.len() >= LINE_MAX
            || out.line_bytes + message.payload.len() > LINE_BYTES_MAX
        {
            return Line::Refused;
        }
        out.line_bytes += message.payload.len();
        out.line.push_back(message);
        self.advance(&mut out);
        let line = if out.line.len() >= LINE_CROWDED { Line::Crowded } else { Line::Taken };
        drop(out);
        self.work.wake();
        line
    }

    /// Whether whoever publishes to it should wait.
    pub(super) fn is_crowded(&self) -> bool {
        self.out().line.len() >= LINE_CROWDED
    }

    /// Waits until something has left or was confirmed.
    pub(super) async fn until_less_crowded(&self, by: Instant) -> bool {
        loop {
            let room = self.room.notified();
            tokio::pin!(room);
            room.as_mut().enable();
            if !self.is_crowded() {
                return true;
            }
            if timeout_at(by, room).await.is_err() {
                return false;
            }
        }
    }

    /// Lets those in line go for which there is room. What the server sends goes first.
    fn advance(&self, out: &mut Out) {
        while out.wanted == 0
            && !out.is_behind()
            && let Some(first) = out.line.front()
            && (first.qos == Qos::AtMostOnce || out.has_window(self.window))
            && let Some(Overheard { topic, payload, qos }) = out.line.pop_front()
        {
            out.line_bytes = out.line_bytes.saturating_sub(payload.len());
            out.write(self.version, &topic, &payload, qos, Time::default(), None);
        }
    }

    /// The client confirmed a QoS 1 message, or the last step of a QoS 2 message. One that is not known confirms nothing.
    pub(super) fn confirmed(&self, packet_id: u16, qos: Qos) {
        let mut out = self.out();
        if out.flights.get(&packet_id).is_none_or(|flight| flight.qos != qos) {
            return;
        }
        let done = out.flights.remove(&packet_id).and_then(|flight| flight.done);
        self.advance(&mut out);
        drop(out);
        if let Some(done) = done {
            // Whoever asked may have gone.
            done.send(packet_id).ok();
        }
        self.room.notify_waiters();
    }

    /// Whether a QoS 2 message waits for its second step under this id.
    pub(super) fn is_in_flight(&self, packet_id: u16) -> bool {
        self.out().flights.get(&packet_id).is_some_and(|flight| flight.qos == Qos::ExactlyOnce)
    }

    /// Answers of the broker itself, which go with everything else.
    pub(super) fn answer(&self, answers: &[u8]) {
        let mut out = self.out();
        if !out.ended {
            out.unwritten.extend_from_slice(answers);
        }
    }

    /// Bytes that wait to be written.
    pub(super) fn unwritten_bytes(&self) -> usize {
        self.out().unwritten.len()
    }

    /// Called by the connection's own task: what is to be written next is put into the empty `wire`, and the task woken when
    /// there is more. Returns when to look for messages whose time is over.
    pub(super) fn take_unwritten(
        &self,
        wire: &mut Vec<u8>,
        cx: &std::task::Context<'_>,
    ) -> Option<Instant> {
        self.work.register(cx.waker());
        let mut out = self.out();
        let was_behind = out.is_behind();
        out.stuck = false;
        wire.clear();
        if wire.capacity() > KEPT_BYTES {
            *wire = Vec::new();
        }
        std::mem::swap(wire, &mut out.unwritten);
        self.advance(&mut out);
        let give_up_at = out.give_up_at;
        drop(out);
        if was_behind {
            self.room.notify_waiters();
        }
        give_up_at
    }

    /// When the client will have had its time for a message that it has not confirmed.
    pub(super) fn next_give_up(&self) -> Option<Instant> {
        let mut out = self.out();
        out.give_up_at = out.flights.values().filter_map(|flight| flight.give_up_at).min();
        out.give_up_at
    }

    /// Whether it has messages that it has not confirmed.
    pub(super) fn has_unconfirmed(&self) -> bool {
        !self.out().flights.is_empty()
    }

    /// Called by the connection's own task: the socket takes nothing at the moment. Returns when to look for messages whose time
    /// is over; the task is woken when there are more.
    pub(super) fn note_stuck(&self, cx: &std::task::Context<'_>) -> Option<Instant> {
        self.work.register(cx.waker());
        let mut out = self.out();
        out.stuck = true;
        out.give_up_at
    }

    /// What is left at the end, for a connection that may still be told.
    pub(super) fn take_rest(&self, wire: &mut Vec<u8>) {
        wire.append(&mut self.out().unwritten);
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test stops where its assumption fails")]

    use std::task::{Context, Waker};
    use std::time::Duration;

    use super::*;

    fn session(window: usize) -> Arc<Session> {
        Arc::new(Session::new(1, "D1", "D1", codec::V5, window, None))
    }

    fn taken(session: &Session) -> Vec<u8> {
        let mut wire = Vec::new();
        session.take_unwritten(&mut wire, &Context::from_waker(Waker::noop()));
        wire
    }

    async fn hand(session: &Arc<Session>, payload: &[u8]) -> Handed {
        let booked = session.book(Qos::AtLeastOnce, Instant::now()).await.ok().unwrap();
        session.hand(booked, "a", payload, Time::default()).unwrap()
    }

    #[tokio::test]
    async fn a_place_that_is_booked_and_not_used_is_given_back() {
        let session = session(1);
        let booked = session.book(Qos::AtLeastOnce, Instant::now()).await.ok().unwrap();
        let full = session.book(Qos::AtLeastOnce, Instant::now()).await.err();
        assert_eq!(full, Some(NotReady::WindowFull));
        assert!(session.book(Qos::AtMostOnce, Instant::now()).await.is_ok(), "needs no place");
        drop(booked);
        let Handed::Awaiting(confirmed) = hand(&session, b"x").await else { panic!("QoS 1") };
        let full = session.book(Qos::AtLeastOnce, Instant::now()).await.err();
        assert_eq!(full, Some(NotReady::WindowFull));
        session.confirmed(1, Qos::ExactlyOnce);
        assert!(
            session.is_crowded() || session.book(Qos::AtLeastOnce, Instant::now()).await.is_err()
        );
        session.confirmed(1, Qos::AtLeastOnce);
        assert_eq!(confirmed.await.ok(), Some(1));
        assert!(session.book(Qos::AtLeastOnce, Instant::now()).await.is_ok());
    }

    #[tokio::test]
    async fn nothing_is_handed_to_a_client_that_has_not_taken_what_it_was_given() {
        let session = session(100);
        hand(&session, &[0; BATCH_BYTES]).await;
        let behind = session.book(Qos::AtLeastOnce, Instant::now()).await.err();
        assert_eq!(behind, Some(NotReady::Behind));
        assert!(taken(&session).len() > BATCH_BYTES);
        session.note_stuck(&Context::from_waker(Waker::noop()));
        let behind = session.book(Qos::AtLeastOnce, Instant::now()).await.err();
        assert_eq!(behind, Some(NotReady::Behind));
        let later = Instant::now() + Duration::from_secs(10);
        let (booked, _) = tokio::join!(session.book(Qos::AtLeastOnce, later), async {
            tokio::task::yield_now().await;
            taken(&session)
        });
        assert!(booked.is_ok());
    }

    #[tokio::test]
    async fn messages_of_others_stand_in_line_and_no_more_than_so_many() {
        let session = session(2);
        let message = || Overheard {
            topic: "a".into(),
            payload: Bytes::from_static(b"x"),
            qos: Qos::AtLeastOnce,
        };
        for _ in 0..2 + LINE_CROWDED - 1 {
            assert_eq!(session.overhear(message()), Line::Taken);
        }
        assert_eq!(session.overhear(message()), Line::Crowded);
        for _ in LINE_CROWDED..LINE_MAX {
            assert_eq!(session.overhear(message()), Line::Crowded);
        }
        assert_eq!(session.overhear(message()), Line::Refused);
        let first = taken(&session).len();
        session.confirmed(1, Qos::AtLeastOnce);
        assert_eq!(taken(&session).len() * 2, first, "one more for the one that was confirmed");
        session.end();
        assert_eq!(session.overhear(message()), Line::Refused);
        assert!(taken(&session).is_empty());
    }

    #[tokio::test]
    async fn a_message_is_overdue_until_it_is_confirmed() {
        let session = session(3);
        let now = Instant::now();
        for seconds in [2, 1] {
            let booked = session.book(Qos::AtLeastOnce, now).await.ok().unwrap();
            let give_up_at = Some(now + Duration::from_secs(seconds));
            session.hand(booked, "a", b"x", Time { expiry_seconds: None, give_up_at }).unwrap();
        }
        let next = session.take_unwritten(&mut Vec::new(), &Context::from_waker(Waker::noop()));
        assert_eq!(next, Some(now + Duration::from_secs(1)));
        let after = |seconds| Some(now + Duration::from_secs(seconds));
        assert_eq!(session.next_give_up(), after(1));
        session.confirmed(2, Qos::AtLeastOnce);
        assert_eq!(session.next_give_up(), after(2));
        // The socket takes nothing, and there is one more whose time is shorter.
        session.note_stuck(&Context::from_waker(Waker::noop()));
        taken(&session);
        let booked = session.book(Qos::AtLeastOnce, now).await.ok().unwrap();
        session
            .hand(booked, "a", b"x", Time { expiry_seconds: None, give_up_at: after(1) })
            .unwrap();
        assert_eq!(session.note_stuck(&Context::from_waker(Waker::noop())), after(1));
        session.confirmed(3, Qos::AtLeastOnce);
        session.confirmed(1, Qos::AtLeastOnce);
        assert_eq!(session.next_give_up(), None);
    }

    #[tokio::test]
    async fn what_the_server_sends_goes_before_those_in_line() {
        let session = session(1);
        let message =
            || Overheard::new("a".into(), Bytes::from_static(b"theirs"), Qos::AtLeastOnce);
        session.overhear(message());
        session.overhear(message());
        taken(&session);
        let later = Instant::now() + Duration::from_secs(10);
        let (booked, ()) = tokio::join!(session.book(Qos::AtLeastOnce, later), async {
            tokio::task::yield_now().await;
            session.confirmed(1, Qos::AtLeastOnce);
        });
        assert!(session.hand(booked.ok().unwrap(), "a", b"ours", Time::default()).is_some());
        assert!(taken(&session).ends_with(b"ours"));
        session.confirmed(2, Qos::AtLeastOnce);
        assert!(taken(&session).ends_with(b"theirs"));
    }

    #[tokio::test]
    async fn an_end_leaves_what_was_handed_over_unknown() {
        let session = session(2);
        let Handed::Awaiting(confirmed) = hand(&session, b"x").await else { panic!("QoS 1") };
        let booked = session.book(Qos::AtLeastOnce, Instant::now()).await.ok().unwrap();
        session.dismiss();
        assert!(confirmed.await.is_err() && session.is_dismissed());
        assert!(session.hand(booked, "a", b"y", Time::default()).is_none());
        assert_eq!(
            session.book(Qos::AtMostOnce, Instant::now()).await.err(),
            Some(NotReady::Ended)
        );
    }
}
