//! The life of a connection that has logged in: one task, which alone reads and writes its socket.

use std::collections::BTreeSet;
use std::fmt;
use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use mqtt5_protocol::MqttError;
use mqtt5_protocol::packet::connect::ConnectPacket;
use mqtt5_protocol::protocol::v5::reason_codes::ReasonCode;
use tokio::io::{AsyncWrite, AsyncWriteExt};
use tokio::time::{Instant, timeout};

use super::door;
use super::hello::Caller;
use super::leave::Stop;
use super::presence::Presence;
use super::session::{Overheard, Session};
use super::socket::Socket;
use super::{GOODBYE_WAIT, Shared};
use crate::codec;

/// Longest a connection waits for another client that is behind with what this one publishes; then that one has to go.
const HAND_ON_WAIT: Duration = Duration::from_secs(2);
/// While a client takes nothing and so many bytes wait for it, it is not listened to either.
const UNWRITTEN_MAX: usize = 64 * 1024;

/// A connection that has logged in.
pub(super) struct Connection {
    pub(super) shared: Arc<Shared>,
    pub(super) session: Arc<Session>,
    socket: Socket,
    /// Read and not understood yet; empty, it holds no memory.
    pub(super) read: BytesMut,
    /// What is being written, and how much of it has been.
    wire: Vec<u8>,
    wrote: usize,
    unflushed: bool,
    /// Answers to what was read last.
    pub(super) answers: Vec<u8>,
    /// QoS 2 messages that were taken and not released yet.
    pub(super) received: BTreeSet<u16>,
    /// A client that is behind with what this one publishes, and how long it is waited for.
    pub(super) crowd: Option<Crowd>,
    /// Longest silence.
    silence_max: Option<Duration>,
    heard_at: Instant,
    /// When to look whether it has been silent for too long.
    check_at: Option<Instant>,
    /// When to look for messages that it has had its time to confirm.
    give_up_at: Option<Instant>,
}

/// A client that is waited for, and until when. Boxed: hardly any connection has one.
pub(super) type Crowd = Box<(Arc<Session>, Instant)>;

/// Why a connection ends.
#[derive(Debug)]
pub(super) enum End {
    /// It said so.
    Farewell {
        /// MQTT 5: its will is to be published all the same.
        with_will: bool,
    },
    Closed,
    Broken(io::Error),
    /// It said what it may not.
    Fault(ReasonCode, String),
    Silent,
    /// It did not confirm a message in its time.
    Overdue,
    /// Nobody listens to the broker any more.
    Unheard,
    Stopped(Stop),
}

impl From<Stop> for End {
    fn from(stop: Stop) -> Self {
        Self::Stopped(stop)
    }
}

impl From<MqttError> for End {
    fn from(err: MqttError) -> Self {
        let reason = if let MqttError::PacketTooLarge { .. } = &err {
            ReasonCode::PacketTooLarge
        } else if let MqttError::ProtocolError(_) = &err {
            ReasonCode::ProtocolError
        } else {
            ReasonCode::MalformedPacket
        };
        Self::Fault(reason, codec::plain(&err))
    }
}

impl fmt::Display for End {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Farewell { .. } => f.write_str("it said goodbye"),
            Self::Closed => f.write_str("it closed the connection"),
            Self::Broken(err) => write!(f, "it broke: {err}"),
            Self::Fault(_, what) => f.write_str(what),
            Self::Silent => f.write_str("it was silent for longer than its keep-alive allows"),
            Self::Overdue => f.write_str("it did not confirm a message in its time"),
            Self::Unheard => f.write_str("nobody listens to the mqtt broker any more"),
            Self::Stopped(Stop::Displaced) => f.write_str("another took its client id"),
            Self::Stopped(Stop::Cut) => f.write_str("it was cut"),
            Self::Stopped(Stop::Dismissed) => f.write_str("it was dismissed"),
            Self::Stopped(Stop::Closing) => f.write_str("the mqtt broker ends"),
        }
    }
}

/// What happened on the socket.
enum Turn {
    /// So many bytes came; 0 at the end.
    Read(usize),
    /// The time to give up has changed.
    Clock,
    /// Nothing was written: a message's time is over.
    Overdue,
}

impl Connection {
    /// Asks the door, answers the CONNECT, and makes a connection of it; `None` where it stays out.
    pub(super) async fn begin(
        shared: &Arc<Shared>,
        presence: &mut Presence,
        caller: Caller,
        peer: SocketAddr,
    ) -> Option<Self> {
        let Caller { mut socket, mut connect, read } = caller;
        let version = connect.protocol_version;
        let assigned = if connect.client_id.is_empty() { own_client_id() } else { None };
        let admitted =
            door::admit(shared, presence.connection(), &connect, assigned.as_deref(), peer);
        let session = match admitted.await {
            Ok(session) => session,
            Err(reason) => {
                let refusal = codec::connack(version, reason, &codec::Granted::default());
                let said = async {
                    socket.write_all(&refusal).await?;
                    socket.shutdown().await
                };
                timeout(GOODBYE_WAIT, said).await.ok();
                return None;
            }
        };
        presence.name(&session, will(&mut connect));
        let granted = codec::Granted {
            packet_bytes_max: u32::try_from(shared.packet_bytes_max).unwrap_or(u32::MAX),
            client_id: assigned.as_deref(),
        };
        let wire = codec::connack(version, ReasonCode::Success, &granted);
        let silence_max = Some(Duration::from_secs(u64::from(connect.keep_alive)) * 3 / 2);
        let silence_max = silence_max.filter(|max| !max.is_zero());
        let now = Instant::now();
        let mut connection = Self {
            shared: Arc::clone(shared),
            session,
            socket,
            read,
            wire,
            wrote: 0,
            unflushed: false,
            answers: Vec::new(),
            received: BTreeSet::new(),
            crowd: None,
            silence_max,
            heard_at: now,
            check_at: silence_max.map(|max| now + max),
            give_up_at: None,
        };
        // Not in the table yet, so that nothing else is on its way.
        let welcome = poll_fn(|cx| connection.poll_write(cx));
        match timeout(GOODBYE_WAIT, welcome).await {
            Ok(Ok(())) => Some(connection),
            Ok(Err(_)) | Err(_) => {
                tracing::debug!(%peer, "an mqtt client did not take its CONNACK");
                None
            }
        }
    }

    /// Runs until there is a reason to end it.
    pub(super) async fn live(&mut self, presence: &mut Presence) -> End {
        let shared = Arc::clone(&self.shared);
        let alarm = tokio::time::sleep_until(self.heard_at);
        tokio::pin!(alarm);
        let mut alarm_at = None;
        loop {
            if let Err(end) = self.digest(presence) {
                return end;
            }
            let was_held_up = !presence.has_room();
            if !presence.pass_on() {
                return End::Unheard;
            }
            if was_held_up && presence.has_room() {
                // More may have come than there was room for.
                continue;
            }
            let reading = self.crowd.is_none() && presence.has_room();
            let crowd = self.crowd.clone();
            let next = self.check_at.into_iter().chain(self.give_up_at).min();
            // Asked here as well: whoever keeps us reading must not stop the clock.
            if next.is_some_and(|at| at <= Instant::now()) {
                if let Some(end) = self.look_at_clock(reading) {
                    return end;
                }
                continue;
            }
            if alarm_at != next {
                alarm_at = next;
                if let Some(at) = next {
                    alarm.as_mut().reset(at);
                }
            }
            tokio::select! {
                biased;
                turn = poll_fn(|cx| self.poll_turn(cx, reading)) => match turn {
                    Ok(Turn::Read(0)) => return End::Closed,
                    Ok(Turn::Read(_)) => self.heard_at = Instant::now(),
                    Ok(Turn::Clock) => {}
                    Ok(Turn::Overdue) => return End::Overdue,
                    Err(err) => return End::Broken(err),
                },
                room = seldom(|| shared.inbound.reserve()), if presence.has_backlog() => match room {
                    Ok(room) => presence.pass(room),
                    Err(_) => return End::Unheard,
                },
                keeps_up = seldom(|| until_less_crowded(crowd.as_ref())), if crowd.is_some() => {
                    self.crowd = None;
                    if let Some(crowd) = crowd.filter(|_| !keeps_up) {
                        shared.dismiss_deaf(&crowd.0);
                    }
                }
                () = &mut alarm, if alarm_at.is_some() => alarm_at = None,
            }
        }
    }

    /// Whether the socket has all it was given. TLS may have taken bytes that it still holds.
    fn is_written(&self) -> bool {
        self.wrote == self.wire.len() && !self.unflushed
    }

    /// Whether it has had its time for a message and has not confirmed it.
    fn is_overdue(&mut self) -> bool {
        let Some(at) = self.give_up_at else { return false };
        let now = Instant::now();
        if now < at {
            return false;
        }
        self.give_up_at = self.session.next_give_up();
        self.give_up_at.is_some_and(|at| at <= now)
    }

    /// Silence counts only while it is listened to.
    fn look_at_clock(&mut self, reading: bool) -> Option<End> {
        let now = Instant::now();
        if let Some(max) = self.silence_max {
            if !reading {
                self.heard_at = now;
            }
            if self.heard_at + max <= now {
                return Some(End::Silent);
            }
            self.check_at = Some(self.heard_at + max);
        }
        self.is_overdue().then_some(End::Overdue)
    }

    /// Writes what there is to write, then reads.
    fn poll_turn(&mut self, cx: &mut Context<'_>, reading: bool) -> Poll<io::Result<Turn>> {
        let before = self.give_up_at;
        // However long we were not asked: what is late stays here.
        if self.is_overdue() {
            return Poll::Ready(Ok(Turn::Overdue));
        }
        loop {
            if self.is_written() {
                self.wrote = 0;
                self.give_up_at = self.session.take_unwritten(&mut self.wire, cx);
                if self.wire.is_empty() {
                    break;
                }
            }
            match self.poll_write(cx) {
                Poll::Ready(Ok(())) => {}
                Poll::Ready(Err(err)) => return Poll::Ready(Err(err)),
                Poll::Pending => {
                    self.give_up_at = self.session.note_stuck(cx);
                    break;
                }
            }
        }
        if reading && (self.is_written() || self.session.unwritten_bytes() < UNWRITTEN_MAX) {
            let read = &mut self.read;
            if let Poll::Ready(came) = self.socket.poll_read_into(cx, read) {
                return Poll::Ready(came.map(Turn::Read));
            }
        }
        if before == self.give_up_at { Poll::Pending } else { Poll::Ready(Ok(Turn::Clock)) }
    }

    /// Writes all of what is being written.
    fn poll_write(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while let Some(rest) = self.wire.get(self.wrote..).filter(|rest| !rest.is_empty()) {
            match Pin::new(&mut self.socket).poll_write(cx, rest) {
                Poll::Ready(Ok(0)) => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                Poll::Ready(Ok(bytes)) => {
                    self.wrote += bytes;
                    self.unflushed = true;
                }
                Poll::Ready(Err(err)) => return Poll::Ready(Err(err)),
                Poll::Pending => return Poll::Pending,
            }
        }
        if self.unflushed {
            match Pin::new(&mut self.socket).poll_flush(cx) {
                Poll::Ready(Ok(())) => self.unflushed = false,
                Poll::Ready(Err(err)) => return Poll::Ready(Err(err)),
                Poll::Pending => return Poll::Pending,
            }
        }
        Poll::Ready(Ok(()))
    }

    /// Ends it. A client that can be told is told why. Nothing else reaches one that has to go, and what one has not confirmed
    /// does not reach it later: where it does not close its side in time, what our buffers hold is thrown away.
    pub(super) async fn end(mut self, end: &End, presence: &mut Presence) {
        let has_unconfirmed = self.session.has_unconfirmed();
        let reason = match end {
            End::Farewell { with_will } => {
                if !with_will {
                    presence.said_goodbye();
                }
                None
            }
            End::Closed | End::Broken(_) => None,
            End::Fault(reason, _) => Some(*reason),
            End::Stopped(Stop::Displaced) => Some(ReasonCode::SessionTakenOver),
            End::Stopped(Stop::Dismissed) => Some(ReasonCode::AdministrativeAction),
            End::Stopped(Stop::Closing) | End::Unheard => Some(ReasonCode::ServerShuttingDown),
            End::Silent | End::Overdue | End::Stopped(Stop::Cut) => {
                self.session.end();
                self.socket.cut();
                return;
            }
        };
        let goodbye = async {
            match reason {
                Some(reason) => self.say_goodbye(reason).await?,
                None => self.session.end(),
            }
            self.socket.shutdown().await?;
            if has_unconfirmed {
                self.until_closed().await?;
            }
            Ok::<(), io::Error>(())
        };
        let is_well = timeout(GOODBYE_WAIT, goodbye).await.is_ok_and(|said| said.is_ok());
        self.session.end();
        if !is_well {
            self.socket.cut();
        }
    }

    /// An error where the last bytes cannot be told from those that must not reach it.
    async fn say_goodbye(&mut self, reason: ReasonCode) -> io::Result<()> {
        if !self.session.is_ended() {
            // Answers, mostly. Nothing is handed over any more.
            self.session.take_rest(&mut self.wire);
            self.session.end();
        } else if !self.is_written() {
            return Err(io::ErrorKind::ConnectionAborted.into());
        }
        codec::put_disconnect(self.session.version, reason, &mut self.wire);
        poll_fn(|cx| self.poll_write(cx)).await
    }

    /// Waits until the client has closed its side, after which it has all it will get.
    async fn until_closed(&mut self) -> io::Result<()> {
        loop {
            self.read.clear();
            let (socket, read) = (&mut self.socket, &mut self.read);
            if poll_fn(|cx| socket.poll_read_into(cx, read)).await? == 0 {
                return Ok(());
            }
        }
    }
}

/// A wait that few connections are in at a time, so that it has a place of its own, and none in the task of every connection.
/// It is begun when it is waited for, and not before.
async fn seldom<T, F: Future<Output = T>>(begin: impl FnOnce() -> F) -> T {
    Box::pin(begin()).await
}

async fn until_less_crowded(crowd: Option<&Crowd>) -> bool {
    match crowd {
        Some(crowd) => crowd.0.until_less_crowded(crowd.1).await,
        None => true,
    }
}

fn will(connect: &mut ConnectPacket) -> Option<Overheard> {
    let will = connect.will.take()?;
    let payload = Bytes::from(will.payload);
    Some(Overheard::new(Arc::from(will.topic), payload, codec::from_qos(will.qos)))
}

/// A client id for one that has none, which nobody else has or can guess.
fn own_client_id() -> Option<String> {
    let mut bytes = [0; 12];
    getrandom::fill(&mut bytes).ok()?;
    Some(bytes.iter().fold("auto-".to_owned(), |id, byte| format!("{id}{byte:02x}")))
}

/// It is behind from now on.
pub(super) fn crowd_of(session: Arc<Session>) -> Crowd {
    Box::new((session, Instant::now() + HAND_ON_WAIT))
}
