//! One connection from its SUBSCRIBE to its end. Everything it knows dies with it: that is what makes "at most once" true.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use mqtt5_protocol::packet::disconnect::DisconnectPacket;
use mqtt5_protocol::packet::puback::PubAckPacket;
use mqtt5_protocol::packet::pubcomp::PubCompPacket;
use mqtt5_protocol::packet::publish::PublishPacket;
use mqtt5_protocol::packet::pubrec::PubRecPacket;
use mqtt5_protocol::packet::pubrel::PubRelPacket;
use mqtt5_protocol::packet::suback::SubAckPacket;
use mqtt5_protocol::packet::subscribe::{
    RetainHandling, SubscribePacket, SubscriptionOptions, TopicFilter,
};
use mqtt5_protocol::protocol::v5::reason_codes::ReasonCode;
use mqtt5_protocol::{Packet, QoS};
use tokio::io::{AsyncReadExt, AsyncWriteExt, ReadHalf, WriteHalf};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::Instant;

use super::acknowledgement::{Acknowledge, Leaving, LeftToReceiver, Owed};
use super::dial::{PACKET_BYTES_MAX, told};
use super::late::{Late, Time};
use super::wire::{Pushed, Wire, push_out};
use super::{ClientConfig, LinkSlot, Request, Requests, Terms};
use crate::codec::{self, Frame, V5};
use crate::message::{Inbound, Protocol, Qos, Sent};
use crate::stop::stopped;

/// Room made for each read.
pub(super) const READ_BYTES: usize = 2048;
/// Requests are taken until this much waits to be written: small enough to fit the kernel's buffer at once, so that the
/// gate is asked just before the bytes leave.
const BATCH_BYTES: usize = 8 * 1024;
/// Messages that may wait for the inbound channel before reading stops.
const ARRIVALS_MAX: usize = 1024;
/// Publishes that may be unconfirmed at once, if the broker allows as many.
const INFLIGHT_MAX: usize = 4096;
/// The one SUBSCRIBE of a link; publishes start above it.
const SUBSCRIBE_ID: u16 = 1;
/// Longest we try to write our goodbye.
const GOODBYE_WAIT: Duration = Duration::from_millis(500);

/// What to do where a broker does not grant a subscription.
fn remedy(config: &ClientConfig) -> String {
    let user = config.username.as_ref().map_or("it".to_owned(), |user| format!("user `{user}`"));
    format!("its access rules must let {user} subscribe to every topic that is asked for")
}

/// What the broker's CONNACK settled.
pub(super) struct Greeting {
    pub(super) version: u8,
    pub(super) keep_alive: Duration,
    pub(super) receive_max: u16,
    pub(super) packet_bytes_max: Option<usize>,
    pub(super) qos_max: u8,
}

/// A publish that has left and is not confirmed.
struct Flight {
    done: oneshot::Sender<Sent>,
    qos: Qos,
    time: Option<Time>,
    /// What PUBREC said of a QoS 2 publish; told when PUBCOMP closes it.
    received: Option<Sent>,
}

pub(super) struct Link<'a, S> {
    reader: ReadHalf<S>,
    writer: WriteHalf<S>,
    greeting: Greeting,
    inbound: &'a mpsc::Sender<Inbound>,
    slot: &'a LinkSlot,
    read: BytesMut,
    unwritten: BytesMut,
    unflushed: bool,
    /// Who waits for what is in `unwritten`: QoS 0 publishes, and acknowledgements.
    leaving: Vec<oneshot::Sender<Sent>>,
    flights: BTreeMap<u16, Flight>,
    late: Late,
    next_id: u16,
    arrivals: VecDeque<(Inbound, Owed)>,
    left: LeftToReceiver,
    /// QoS 2 messages that were delivered and not released yet.
    received: BTreeSet<u16>,
    /// Retained messages that were dropped.
    retained: u64,
    requests: Option<Requests>,
    heard_at: Instant,
    wrote_at: Instant,
    pinged_at: Option<Instant>,
    /// Since when a publish waits for the broker's word and nothing whatever was heard.
    unconfirmed_since: Option<Instant>,
}

impl<'a, S: Wire> Link<'a, S> {
    pub(super) fn new(
        stream: S,
        read: BytesMut,
        greeting: Greeting,
        inbound: &'a mpsc::Sender<Inbound>,
        slot: &'a LinkSlot,
    ) -> Self {
        let (reader, writer) = tokio::io::split(stream);
        let now = Instant::now();
        Self {
            reader,
            writer,
            greeting,
            inbound,
            slot,
            read,
            unwritten: BytesMut::new(),
            unflushed: false,
            leaving: Vec::new(),
            flights: BTreeMap::new(),
            late: Late::default(),
            next_id: SUBSCRIBE_ID,
            arrivals: VecDeque::new(),
            left: LeftToReceiver::new(),
            received: BTreeSet::new(),
            retained: 0,
            requests: None,
            heard_at: now,
            wrote_at: now,
            pinged_at: None,
            unconfirmed_since: None,
        }
    }

    /// Runs to the end of the connection. Says whether the link was ever up, and why it ended.
    pub(super) async fn run(
        mut self,
        config: &ClientConfig,
        up_by: Instant,
        stop: &mut watch::Receiver<bool>,
    ) -> (bool, String) {
        let (is_over, reason) = match self.serve(config, up_by, stop).await {
            Ok(()) => {
                self.say_goodbye().await;
                (true, "shut down".to_owned())
            }
            Err(reason) => (false, reason),
        };
        let was_up = self.requests.is_some();
        self.settle().await;
        if !is_over {
            // What the kernel has not delivered would go on trying to arrive, and be late when it does.
            self.reader.unsplit(self.writer).cut();
        }
        (was_up, reason)
    }

    async fn serve(
        &mut self,
        config: &ClientConfig,
        up_by: Instant,
        stop: &mut watch::Receiver<bool>,
    ) -> Result<(), String> {
        if config.subscriptions.is_empty() {
            self.go_up(Vec::new());
        } else {
            self.subscribe(config)?;
        }
        self.digest(config)?;
        loop {
            if self.read.capacity() - self.read.len() < READ_BYTES / 4 {
                self.read.reserve(READ_BYTES);
            }
            let writing = !self.unwritten.is_empty();
            let flushing = self.unflushed && !writing;
            let idle = !writing && !flushing;
            let usual = self.is_usual_free();
            let wake_at = self.wake_at(up_by);
            tokio::select! {
                read = self.reader.read_buf(&mut self.read), if self.arrivals.len() < ARRIVALS_MAX => {
                    match read {
                        Ok(0) if self.requests.is_none() => {
                            return Err(format!(
                                "the broker closed the connection at SUBSCRIBE ({})",
                                remedy(config)
                            ));
                        }
                        Ok(0) => return Err("the broker closed the connection".into()),
                        Ok(_) => {}
                        Err(err) => return Err(format!("the connection broke: {err}")),
                    }
                    self.heard_at = Instant::now();
                    self.pinged_at = None;
                    self.digest(config)?;
                    let waits = !self.flights.is_empty() || self.late.is_asking();
                    self.unconfirmed_since = waits.then_some(self.heard_at);
                }
                pushed = push_out(&mut self.writer, &mut self.unwritten), if writing || flushing => match pushed {
                    Ok(Pushed::Written(0)) => return Err("the connection takes no more bytes".into()),
                    Ok(Pushed::Written(_)) => {
                        self.wrote_at = Instant::now();
                        self.unflushed = true;
                    }
                    Ok(Pushed::Flushed) => {
                        self.unflushed = false;
                        for done in self.leaving.drain(..) {
                            tell(done, Sent::Confirmed { packet_id: None });
                        }
                    }
                    Err(err) => return Err(format!("the connection broke: {err}")),
                },
                room = self.inbound.reserve(), if !self.arrivals.is_empty() => {
                    let Ok(room) = room else { return Ok(()) };
                    if let Some((arrival, owed)) = self.arrivals.pop_front() {
                        room.send(arrival);
                        self.pay(&owed)?;
                    }
                    self.deliver_more()?;
                }
                leaving = self.left.next() => {
                    self.pay_late(leaving)?;
                    self.pay_more()?;
                }
                request = next_request(&mut self.requests, usual), if idle && !self.late.has_doubts() && self.flights.len() < self.flights_max() => {
                    self.depart(request)?;
                    self.depart_more()?;
                }
                () = tokio::time::sleep_until(wake_at.unwrap_or_else(Instant::now)), if wake_at.is_some() => self.wake(up_by)?,
                () = stopped(stop) => return Ok(()),
            }
        }
    }

    /// Everything that was on its way when the link ended, told exactly once.
    async fn settle(&mut self) {
        self.slot.close();
        for (_, flight) in std::mem::take(&mut self.flights) {
            tell(flight.done, Sent::Unknown);
        }
        for done in self.leaving.drain(..) {
            tell(done, Sent::Unknown);
        }
        if let Some(requests) = &mut self.requests {
            for request in requests.rest().await {
                tell(request.done, Sent::NotConnected);
            }
        }
    }

    fn go_up(&mut self, lowered: Vec<String>) {
        let protocol = if self.greeting.version == V5 { Protocol::V5 } else { Protocol::V311 };
        let Greeting { packet_bytes_max, qos_max, .. } = self.greeting;
        let qos_max = match qos_max {
            0 => Qos::AtMostOnce,
            1 => Qos::AtLeastOnce,
            _ => Qos::ExactlyOnce,
        };
        self.requests =
            Some(self.slot.open(Terms { protocol, packet_bytes_max, qos_max, lowered }));
        self.arrivals.push_back((Inbound::LinkUp { protocol }, Owed::Nothing));
    }

    fn subscribe(&mut self, config: &ClientConfig) -> Result<(), String> {
        let mut packet = if self.greeting.version == V5 {
            SubscribePacket::new(SUBSCRIBE_ID)
        } else {
            SubscribePacket::new_v311(SUBSCRIBE_ID)
        };
        for (filter, qos) in &config.subscriptions {
            let mut options = SubscriptionOptions::new(codec::to_qos(*qos));
            if self.greeting.version == V5 {
                options.retain_handling = RetainHandling::DoNotSend;
            }
            packet =
                packet.add_filter_with_options(TopicFilter::with_options(filter.clone(), options));
        }
        self.put(&Packet::Subscribe(packet))
    }

    // Outbound.

    fn flights_max(&self) -> usize {
        usize::from(self.greeting.receive_max).clamp(1, INFLIGHT_MAX)
    }

    /// Whether there is room beside the one place that is kept for what is urgent. A window of one keeps none.
    fn is_usual_free(&self) -> bool {
        self.flights.len() < (self.flights_max() - 1).max(1)
    }

    fn depart_more(&mut self) -> Result<(), String> {
        while self.unwritten.len() < BATCH_BYTES
            && self.flights.len() < self.flights_max()
            && !self.late.has_doubts()
        {
            let usual = self.is_usual_free();
            let Some(request) =
                self.requests.as_mut().and_then(|requests| requests.try_next(usual))
            else {
                break;
            };
            self.depart(request)?;
        }
        Ok(())
    }

    /// Puts one publish on the wire, if everything still says yes. From here on it counts as perhaps sent.
    fn depart(&mut self, request: Request) -> Result<(), String> {
        self.pay_more()?;
        let Request { mut message, done } = request;
        if done.is_closed() {
            return Ok(());
        }
        if let Some(fault) = codec::topic_fault(&message.topic) {
            tell(done, Sent::Refused(fault));
            return Ok(());
        }
        let bytes_max = self.greeting.packet_bytes_max.unwrap_or(PACKET_BYTES_MAX);
        if codec::publish_bytes(&message) > bytes_max {
            tell(
                done,
                Sent::Refused(format!(
                    "{} bytes are more than the broker takes ({bytes_max})",
                    message.payload.len()
                )),
            );
            return Ok(());
        }
        let qos = if self.greeting.qos_max == 0 {
            Qos::AtMostOnce
        } else if self.greeting.qos_max == 1 {
            message.qos.min(Qos::AtLeastOnce)
        } else {
            message.qos
        };
        if !message.may_leave() {
            tell(done, Sent::Withheld);
            return Ok(());
        }
        let is_lowered = qos != message.qos;
        let expiry = message.expiry_seconds();
        let time = message.expiry.and_then(Time::of);
        let mut packet = PublishPacket::new(message.topic, message.payload, codec::to_qos(qos));
        packet.protocol_version = self.greeting.version;
        if let (V5, Some(seconds)) = (self.greeting.version, expiry) {
            packet.properties.set_message_expiry_interval(seconds);
        }
        if qos == Qos::AtMostOnce && is_lowered {
            // A confirmation was asked for, and the broker gives none: nobody will ever know.
            tell(done, Sent::Unknown);
        } else if qos == Qos::AtMostOnce {
            self.leaving.push(done);
        } else {
            let id = self.free_id();
            packet.packet_id = Some(id);
            self.flights.insert(id, Flight { done, qos, time, received: None });
            if let Some(time) = time {
                self.late.flies(id, time);
            }
            self.unconfirmed_since.get_or_insert_with(Instant::now);
        }
        self.put(&Packet::Publish(packet))?;
        match time {
            // Nobody confirms it.
            Some(time) if qos == Qos::AtMostOnce => self.ask_after(time),
            Some(_) | None => Ok(()),
        }
    }

    fn ask_after(&mut self, time: Time) -> Result<(), String> {
        self.unconfirmed_since.get_or_insert_with(Instant::now);
        if self.late.must_ask(time) { self.ask() } else { Ok(()) }
    }

    fn ask(&mut self) -> Result<(), String> {
        self.late.asked();
        self.put(&Packet::PingReq)
    }

    /// An id that no publish in flight has. There is one: far fewer are in flight than there are ids.
    fn free_id(&mut self) -> u16 {
        loop {
            self.next_id =
                if self.next_id == u16::MAX { SUBSCRIBE_ID + 1 } else { self.next_id + 1 };
            if !self.flights.contains_key(&self.next_id) {
                return self.next_id;
            }
        }
    }

    fn put(&mut self, packet: &Packet) -> Result<(), String> {
        codec::encode(packet, &mut self.unwritten)
            .map_err(|err| format!("a packet of ours cannot be encoded: {err}"))
    }

    // Inbound.

    /// Takes every whole packet out of what was read.
    fn digest(&mut self, config: &ClientConfig) -> Result<(), String> {
        while let Some(frame) =
            Frame::take(&mut self.read, PACKET_BYTES_MAX).map_err(|err| told(&err))?
        {
            let packet = frame.decode(self.greeting.version).map_err(|err| told(&err))?;
            self.handle(packet, config)?;
        }
        Ok(())
    }

    fn handle(&mut self, packet: Packet, config: &ClientConfig) -> Result<(), String> {
        match packet {
            Packet::Publish(publish) => self.arrive(publish, config),
            Packet::PubAck(ack) => {
                self.land(ack.packet_id, Qos::AtLeastOnce, ack.reason_code);
                Ok(())
            }
            Packet::PubRec(rec) => self.half_land(rec.packet_id, rec.reason_code),
            Packet::PubComp(comp) => {
                if let Some(flight) = self.take_flight(comp.packet_id, Qos::ExactlyOnce) {
                    tell(
                        flight.done,
                        flight
                            .received
                            .unwrap_or(Sent::Confirmed { packet_id: Some(comp.packet_id) }),
                    );
                }
                Ok(())
            }
            Packet::PubRel(rel) => {
                self.received.remove(&rel.packet_id);
                self.put(&Packet::PubComp(PubCompPacket::new(rel.packet_id)))
            }
            Packet::SubAck(suback) => self.subscribed(&suback, config),
            Packet::PingResp if self.late.answered() => self.ask(),
            Packet::PingResp => Ok(()),
            Packet::Disconnect(goodbye) => {
                Err(format!("the broker disconnected us: {:?}", goodbye.reason_code))
            }
            Packet::Connect(_)
            | Packet::ConnAck(_)
            | Packet::Subscribe(_)
            | Packet::Unsubscribe(_)
            | Packet::UnsubAck(_)
            | Packet::PingReq
            | Packet::Auth(_) => Err(format!(
                "the broker sent {}, which nobody asked for",
                packet.packet_type_name()
            )),
        }
    }

    fn arrive(&mut self, publish: PublishPacket, config: &ClientConfig) -> Result<(), String> {
        let owed = match (publish.qos, publish.packet_id) {
            (QoS::AtMostOnce, _) => Owed::Nothing,
            (QoS::AtLeastOnce, Some(id)) => Owed::PubAck(id),
            (QoS::ExactlyOnce, Some(id)) => {
                if !self.received.insert(id) {
                    return self.put(&Packet::PubRec(PubRecPacket::new(id)));
                }
                Owed::PubRec(id)
            }
            (QoS::AtLeastOnce | QoS::ExactlyOnce, None) => {
                return Err("the broker sent a message without packet id".into());
            }
        };
        if publish.retain {
            // What somebody said once, perhaps years ago, is no sign of life; the broker is owed the same for it.
            self.retained = self.retained.saturating_add(1);
            tracing::debug!(topic = %publish.topic_name, dropped = self.retained, "a retained mqtt message is not taken");
            return self.pay(&owed);
        }
        let (owed, acknowledgement) = match (config.acknowledge, &owed) {
            (Acknowledge::ByReceiver, Owed::PubAck(_) | Owed::PubRec(_)) => {
                (Owed::Nothing, Some(self.left.leave(owed)))
            }
            (Acknowledge::ByReceiver | Acknowledge::OnDelivery, _) => (owed, None),
        };
        let message = Inbound::Message {
            topic: Arc::from(publish.topic_name),
            payload: publish.payload,
            user: None,
            acknowledgement,
        };
        self.arrivals.push_back((message, owed));
        Ok(())
    }

    fn deliver_more(&mut self) -> Result<(), String> {
        while !self.arrivals.is_empty() {
            let Ok(room) = self.inbound.try_reserve() else { break };
            if let Some((arrival, owed)) = self.arrivals.pop_front() {
                room.send(arrival);
                self.pay(&owed)?;
            }
        }
        Ok(())
    }

    /// Whatever receivers have acknowledged by now.
    fn pay_more(&mut self) -> Result<(), String> {
        while let Some(leaving) = self.left.try_next() {
            self.pay_late(leaving)?;
        }
        Ok(())
    }

    fn pay_late(&mut self, Leaving { owed, written }: Leaving) -> Result<(), String> {
        self.leaving.extend(written);
        self.pay(&owed)
    }

    fn pay(&mut self, owed: &Owed) -> Result<(), String> {
        match owed {
            Owed::Nothing => Ok(()),
            Owed::PubAck(id) => self.put(&Packet::PubAck(PubAckPacket::new(*id))),
            Owed::PubRec(id) => self.put(&Packet::PubRec(PubRecPacket::new(*id))),
        }
    }

    fn take_flight(&mut self, id: u16, qos: Qos) -> Option<Flight> {
        if self.flights.get(&id).is_some_and(|flight| flight.qos == qos) {
            let flight = self.flights.remove(&id)?;
            if let Some(time) = flight.time {
                self.late.landed(id, time);
            }
            Some(flight)
        } else {
            None
        }
    }

    fn land(&mut self, id: u16, qos: Qos, reason: ReasonCode) {
        if let Some(flight) = self.take_flight(id, qos) {
            tell(flight.done, judge(id, reason));
        }
    }

    fn half_land(&mut self, id: u16, reason: ReasonCode) -> Result<(), String> {
        if is_refusal(reason) {
            self.land(id, Qos::ExactlyOnce, reason);
            return Ok(());
        }
        if let Some(flight) = self.flights.get_mut(&id) {
            flight.received = Some(judge(id, reason));
        }
        self.put(&Packet::PubRel(PubRelPacket::new(id)))
    }

    fn subscribed(&mut self, suback: &SubAckPacket, config: &ClientConfig) -> Result<(), String> {
        if suback.packet_id != SUBSCRIBE_ID || self.requests.is_some() {
            return Ok(());
        }
        if suback.reason_codes.len() != config.subscriptions.len() {
            return Err("the broker's SUBACK does not fit our SUBSCRIBE".into());
        }
        let mut lowered = Vec::new();
        for (code, (filter, qos)) in suback.reason_codes.iter().zip(&config.subscriptions) {
            let code_byte = *code as u8;
            if code_byte >= 0x80 {
                return Err(format!(
                    "the broker refused the subscription to {filter}: {code:?} ({})",
                    remedy(config)
                ));
            }
            if code_byte < codec::to_qos(*qos) as u8 {
                lowered.push(filter.clone());
            }
        }
        self.go_up(lowered);
        Ok(())
    }

    // Time.

    fn wake_at(&self, up_by: Instant) -> Option<Instant> {
        let alive = if self.pinged_at.is_some() { self.dead_at() } else { self.ping_at() };
        let up = self.requests.is_none().then_some(up_by);
        [alive, up, self.late.wake_at()].into_iter().flatten().min()
    }

    /// When to ask whether the broker is there: quiet on either side for long, or a publish that it says nothing of.
    fn ping_at(&self) -> Option<Instant> {
        let keep_alive = self.keep_alive()?;
        let quiet = self.heard_at.min(self.wrote_at) + keep_alive * 3 / 4;
        let unconfirmed = self.unconfirmed_since.map(|since| since + silence_wait(keep_alive) / 2);
        Some(unconfirmed.map_or(quiet, |at| at.min(quiet)))
    }

    /// No word by then, once it was asked: it is not. A publish that waits for its word was a question as well.
    fn dead_at(&self) -> Option<Instant> {
        let wait = silence_wait(self.keep_alive()?);
        let asked = self.pinged_at? + wait;
        let unconfirmed = self.unconfirmed_since.map(|since| since + wait);
        Some(unconfirmed.map_or(asked, |at| at.min(asked)))
    }

    fn keep_alive(&self) -> Option<Duration> {
        (!self.greeting.keep_alive.is_zero()).then_some(self.greeting.keep_alive)
    }

    fn wake(&mut self, up_by: Instant) -> Result<(), String> {
        let now = Instant::now();
        if self.requests.is_none() && now >= up_by {
            return Err("the broker did not answer SUBSCRIBE in time".into());
        }
        while let Some(id) = self.late.next_due(now) {
            if let Some(time) = self.flights.get(&id).and_then(|flight| flight.time) {
                self.ask_after(time)?;
            }
        }
        if self.late.is_over(now, self.arrivals.len() < ARRIVALS_MAX) {
            return Err("the broker has not read a message in its time".into());
        }
        let has_passed = |at: Option<Instant>| at.is_some_and(|at| now >= at);
        if self.pinged_at.is_none() {
            return if has_passed(self.ping_at()) { self.ping(now) } else { Ok(()) };
        }
        if !has_passed(self.dead_at()) {
            return Ok(());
        }
        if self.arrivals.len() < ARRIVALS_MAX {
            return Err("the broker is silent".into());
        }
        // We are the ones who do not listen: ask again.
        self.unconfirmed_since = self.unconfirmed_since.map(|_| now);
        self.ping(now)
    }

    fn ping(&mut self, now: Instant) -> Result<(), String> {
        self.pinged_at = Some(now);
        self.ask()
    }

    async fn say_goodbye(&mut self) {
        // What is half written must be finished, or the broker cannot read our goodbye.
        let mut goodbye = DisconnectPacket::new(ReasonCode::Success);
        goodbye.properties = mqtt5_protocol::Properties::default();
        let paid = self.pay_more();
        let farewell = if self.greeting.version == V5 {
            self.put(&Packet::Disconnect(goodbye))
        } else {
            self.unwritten.extend_from_slice(&[0xe0, 0x00]);
            Ok(())
        };
        let write = async {
            self.writer.write_all_buf(&mut self.unwritten).await?;
            self.writer.shutdown().await
        };
        if paid.is_err()
            || farewell.is_err()
            || !matches!(tokio::time::timeout(GOODBYE_WAIT, write).await, Ok(Ok(())))
        {
            tracing::debug!("the broker did not take our goodbye");
        }
    }
}

/// No word for this long after a question: nobody is there.
fn silence_wait(keep_alive: Duration) -> Duration {
    (keep_alive / 2).max(Duration::from_millis(500))
}

async fn next_request(requests: &mut Option<Requests>, usual: bool) -> Request {
    match requests {
        Some(requests) => requests.next(usual).await,
        None => std::future::pending().await,
    }
}

/// Whoever asked may have gone; then nobody wants to know.
fn tell(done: oneshot::Sender<Sent>, sent: Sent) {
    drop(done.send(sent));
}

fn is_refusal(reason: ReasonCode) -> bool {
    u8::from(reason) >= 0x80
}

pub(super) fn judge(id: u16, reason: ReasonCode) -> Sent {
    if is_refusal(reason) {
        Sent::Refused(format!("{reason:?}"))
    } else if reason == ReasonCode::NoMatchingSubscribers {
        Sent::NoSubscriber
    } else {
        Sent::Confirmed { packet_id: Some(id) }
    }
}
