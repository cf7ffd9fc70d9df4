//! A bare session for looking at a broker: one step after another, nothing in the background, and, unlike the client, one
//! that a broker may be asked to keep.

use std::io;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use mqtt5_protocol::packet::disconnect::DisconnectPacket;
use mqtt5_protocol::packet::puback::PubAckPacket;
use mqtt5_protocol::packet::publish::PublishPacket;
use mqtt5_protocol::packet::subscribe::{SubscribePacket, SubscriptionOptions, TopicFilter};
use mqtt5_protocol::packet::unsubscribe::UnsubscribePacket;
use mqtt5_protocol::protocol::v5::reason_codes::ReasonCode;
use mqtt5_protocol::{Packet, QoS};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::{Instant, timeout_at};

use super::ClientConfig;
use super::dial::{self, PACKET_BYTES_MAX, Stream};
use super::link::{self, Greeting};
use crate::codec::{self, Frame, V5};
use crate::message::{Protocol, Publish, Qos, Sent};

/// What the broker is asked to do with the session once its connection ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Session {
    /// Forget it, and begin without an old one.
    #[default]
    Clean,
    /// Keep it (MQTT 5: for this long), and go on with an old one.
    Kept(Duration),
}

/// A message that came to a probe.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProbeMessage {
    /// The topic.
    pub topic: String,
    /// The payload.
    pub payload: Bytes,
    /// Whether the broker had it retained.
    pub retained: bool,
}

/// A session, taken step by step. Each step has a time of its own ([`ClientConfig::connect_wait`]).
pub struct Probe {
    stream: Stream,
    read: BytesMut,
    greeting: Greeting,
    step_wait: Duration,
    last_id: u16,
    came: Vec<ProbeMessage>,
}

impl Probe {
    /// Connects as a client with this configuration would; its subscriptions are not made.
    ///
    /// # Errors
    /// Why not, for people.
    pub async fn connect(config: &ClientConfig, session: Session) -> Result<Self, String> {
        let by = Instant::now() + config.connect_wait;
        let (stream, read, greeting) =
            dial::agree(config, session, by).await.map_err(|refusal| refusal.reason)?;
        Ok(Self {
            stream,
            read,
            greeting,
            step_wait: config.connect_wait,
            last_id: 0,
            came: Vec::new(),
        })
    }

    /// What was agreed on.
    pub fn protocol(&self) -> Protocol {
        if self.greeting.version == V5 { Protocol::V5 } else { Protocol::V311 }
    }

    /// Largest packet that the broker says it takes.
    pub fn packet_bytes_max(&self) -> Option<usize> {
        self.greeting.packet_bytes_max
    }

    /// Subscribes; whether the broker granted it.
    ///
    /// # Errors
    /// When the connection ends or the answer does not come.
    pub async fn subscribe(&mut self, filter: &str, qos: Qos) -> Result<bool, String> {
        let id = self.next_id();
        let packet =
            if self.is_v5() { SubscribePacket::new(id) } else { SubscribePacket::new_v311(id) };
        let options = SubscriptionOptions::new(codec::to_qos(qos));
        let packet = packet.add_filter_with_options(TopicFilter::with_options(filter, options));
        self.put(&Packet::Subscribe(packet)).await?;
        loop {
            if let Packet::SubAck(answer) = self.next(self.by()).await?
                && answer.packet_id == id
            {
                return Ok(answer.reason_codes.iter().all(|code| (*code as u8) < 0x80));
            }
        }
    }

    /// Takes a subscription back.
    ///
    /// # Errors
    /// When the connection ends or the answer does not come.
    pub async fn unsubscribe(&mut self, filter: &str) -> Result<(), String> {
        let id = self.next_id();
        let packet =
            if self.is_v5() { UnsubscribePacket::new(id) } else { UnsubscribePacket::new_v311(id) };
        self.put(&Packet::Unsubscribe(packet.add_filter(filter))).await?;
        while !matches!(self.next(self.by()).await?, Packet::UnsubAck(answer) if answer.packet_id == id)
        {
        }
        Ok(())
    }

    /// Publishes, and tells what the broker says of it; with QoS 0, of which it says nothing, once it has answered a ping behind it.
    /// Whatever is done after that comes after it at the broker as well. The gate is not asked.
    ///
    /// # Errors
    /// When the connection ends or the answer does not come.
    pub async fn publish(&mut self, message: Publish) -> Result<Sent, String> {
        let expiry = message.expiry_seconds();
        let mut packet =
            PublishPacket::new(message.topic, message.payload, codec::to_qos(message.qos));
        packet.protocol_version = self.greeting.version;
        if let (true, Some(seconds)) = (self.is_v5(), expiry) {
            packet.properties.set_message_expiry_interval(seconds);
        }
        if message.qos == Qos::AtMostOnce {
            self.put(&Packet::Publish(packet)).await?;
            self.ping().await?;
            return Ok(Sent::Confirmed { packet_id: None });
        }
        let id = self.next_id();
        packet.packet_id = Some(id);
        self.put(&Packet::Publish(packet)).await?;
        loop {
            if let Packet::PubAck(answer) = self.next(self.by()).await?
                && answer.packet_id == id
            {
                return Ok(link::judge(id, answer.reason_code));
            }
        }
    }

    /// What has come by now: everything before the answer to a ping, and what comes within `wait` after it.
    ///
    /// # Errors
    /// When the connection ends or the ping is not answered.
    pub async fn heard(&mut self, wait: Duration) -> Result<Vec<ProbeMessage>, String> {
        self.ping().await?;
        let by = Instant::now() + wait;
        while let Ok(next) = timeout_at(by, self.next(by + self.step_wait)).await {
            next?;
        }
        Ok(std::mem::take(&mut self.came))
    }

    async fn ping(&mut self) -> Result<(), String> {
        self.put(&Packet::PingReq).await?;
        while !matches!(self.next(self.by()).await?, Packet::PingResp) {}
        Ok(())
    }

    /// Says goodbye, and waits for the broker to close the connection, as it then has to. Where it does so in time, it knows by then that we are gone.
    pub async fn leave(mut self) {
        let farewell = if self.is_v5() {
            let mut goodbye = DisconnectPacket::new(ReasonCode::Success);
            goodbye.properties = mqtt5_protocol::Properties::default();
            self.put(&Packet::Disconnect(goodbye)).await
        } else {
            self.write(&[0xe0, 0x00]).await
        };
        let by = self.by();
        let closed = timeout_at(by, async {
            match &mut self.stream {
                Stream::Tcp(tcp) => tcp.shutdown().await,
                Stream::Tls(tls) => tls.shutdown().await,
            }?;
            while read(&mut self.stream, &mut self.read).await? > 0 {
                self.read.clear();
            }
            Ok::<_, io::Error>(())
        })
        .await;
        if farewell.is_err() || !matches!(closed, Ok(Ok(()))) {
            tracing::debug!("the broker did not take our goodbye");
        }
    }

    fn is_v5(&self) -> bool {
        self.greeting.version == V5
    }

    fn next_id(&mut self) -> u16 {
        self.last_id = self.last_id.checked_add(1).unwrap_or(1);
        self.last_id
    }

    fn by(&self) -> Instant {
        Instant::now() + self.step_wait
    }

    async fn put(&mut self, packet: &Packet) -> Result<(), String> {
        let mut wire = BytesMut::new();
        codec::encode(packet, &mut wire)
            .map_err(|err| format!("a packet of ours cannot be encoded: {err}"))?;
        self.write(&wire).await
    }

    async fn write(&mut self, wire: &[u8]) -> Result<(), String> {
        let by = self.by();
        let write = async {
            match &mut self.stream {
                Stream::Tcp(tcp) => tcp.write_all(wire).await,
                Stream::Tls(tls) => {
                    tls.write_all(wire).await?;
                    tls.flush().await
                }
            }
        };
        match timeout_at(by, write).await {
            Ok(written) => written.map_err(|err| format!("the connection broke: {err}")),
            Err(_) => Err("the broker takes no more bytes".to_owned()),
        }
    }

    /// The next packet. A message is acknowledged and kept for [`Probe::heard`] as well.
    async fn next(&mut self, by: Instant) -> Result<Packet, String> {
        let frame = loop {
            match Frame::take(&mut self.read, PACKET_BYTES_MAX).map_err(|err| dial::told(&err))? {
                Some(frame) => break frame,
                None => match timeout_at(by, read(&mut self.stream, &mut self.read)).await {
                    Ok(Ok(0)) => return Err("the broker closed the connection".to_owned()),
                    Ok(Ok(_)) => {}
                    Ok(Err(err)) => return Err(format!("the connection broke: {err}")),
                    Err(_) => return Err("the broker did not answer in time".to_owned()),
                },
            }
        };
        let packet = frame.decode(self.greeting.version).map_err(|err| dial::told(&err))?;
        match &packet {
            Packet::Publish(publish) => {
                self.came.push(ProbeMessage {
                    topic: publish.topic_name.to_string(),
                    payload: publish.payload.clone(),
                    retained: publish.retain,
                });
                if let (QoS::AtLeastOnce, Some(id)) = (publish.qos, publish.packet_id) {
                    self.put(&Packet::PubAck(PubAckPacket::new(id))).await?;
                }
                Ok(packet)
            }
            Packet::Disconnect(goodbye) => {
                Err(format!("the broker disconnected us: {:?}", goodbye.reason_code))
            }
            Packet::Connect(_)
            | Packet::ConnAck(_)
            | Packet::PubAck(_)
            | Packet::PubRec(_)
            | Packet::PubRel(_)
            | Packet::PubComp(_)
            | Packet::Subscribe(_)
            | Packet::SubAck(_)
            | Packet::Unsubscribe(_)
            | Packet::UnsubAck(_)
            | Packet::PingReq
            | Packet::PingResp
            | Packet::Auth(_) => Ok(packet),
        }
    }
}

/// Safe to drop at any point.
async fn read(stream: &mut Stream, into: &mut BytesMut) -> io::Result<usize> {
    into.reserve(link::READ_BYTES);
    match stream {
        Stream::Tcp(tcp) => tcp.read_buf(into).await,
        Stream::Tls(tls) => tls.read_buf(into).await,
    }
}
