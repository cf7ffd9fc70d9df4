//! Connecting, the agreement on a protocol, and the wait between two attempts.

use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use mqtt5_protocol::packet::connack::ConnAckPacket;
use mqtt5_protocol::packet::connect::ConnectPacket;
use mqtt5_protocol::protocol::v5::reason_codes::ReasonCode;
use mqtt5_protocol::{ConnectOptions, MqttError, Packet, WillMessage};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, timeout_at};

use super::link::{self, Greeting, Link};
use super::{ClientConfig, LinkSlot, ProtocolChoice, Session, tls};
use crate::codec::{self, Frame, V5, V311};
use crate::message::Inbound;
use crate::stop::stopped;

/// Largest packet we take from a broker; MQTT 5 brokers are told.
pub(super) const PACKET_BYTES_MAX: usize = 16 * 1024 * 1024;
/// QoS 1 and 2 messages an MQTT 5 broker may have on its way to us, unconfirmed.
const RECEIVE_MAX: u16 = 1024;
/// A link that lived this long starts the back-off from the beginning.
const STEADY_AFTER: Duration = Duration::from_secs(10);

/// Connects again and again until `stop`.
pub(super) async fn keep_connected(
    config: ClientConfig,
    inbound: mpsc::Sender<Inbound>,
    slot: Arc<LinkSlot>,
    mut stop: watch::Receiver<bool>,
) {
    let mut wait = config.reconnect_wait_min;
    let mut told = String::new();
    loop {
        let began = Instant::now();
        let reason = one_connection(&config, &inbound, &slot, &mut stop).await;
        slot.close();
        if *stop.borrow() || inbound.is_closed() {
            break;
        }
        let (reason, was_up) = match reason {
            End::Lost(reason) => (reason, true),
            End::NeverUp(reason) => (reason, false),
        };
        if was_up && began.elapsed() >= STEADY_AFTER {
            wait = config.reconnect_wait_min;
        }
        slot.fail(&reason);
        tracing::info!(host = %config.host, port = config.port, client_id = %config.client_id, "mqtt link down: {reason}");
        if was_up || reason != told {
            told.clone_from(&reason);
            tokio::select! {
                sent = inbound.send(Inbound::LinkDown { reason }) => if sent.is_err() { break },
                () = stopped(&mut stop) => break,
            }
        }
        tokio::select! {
            () = tokio::time::sleep(jitter(wait)) => {}
            () = stopped(&mut stop) => break,
        }
        wait = (wait * 2).min(config.reconnect_wait_max).max(config.reconnect_wait_min);
    }
    slot.close();
}

/// How a connection ended.
enum End {
    Lost(String),
    NeverUp(String),
}

async fn one_connection(
    config: &ClientConfig,
    inbound: &mpsc::Sender<Inbound>,
    slot: &LinkSlot,
    stop: &mut watch::Receiver<bool>,
) -> End {
    let by = Instant::now() + config.connect_wait;
    let agreed = tokio::select! {
        agreed = agree(config, Session::Clean, by) => agreed,
        () = stopped(stop) => return End::NeverUp("shut down".into()),
    };
    let (stream, rest, greeting) = match agreed {
        Ok(connected) => connected,
        Err(refusal) => return End::NeverUp(refusal.reason),
    };
    let (was_up, reason) = match stream {
        Stream::Tcp(tcp) => {
            Link::new(tcp, rest, greeting, inbound, slot).run(config, by, stop).await
        }
        Stream::Tls(tls) => {
            Link::new(tls, rest, greeting, inbound, slot).run(config, by, stop).await
        }
    };
    if was_up { End::Lost(reason) } else { End::NeverUp(reason) }
}

/// Between half and the whole of `wait`, so that clients of one broker do not come back as one.
fn jitter(wait: Duration) -> Duration {
    let dice = getrandom::u32().unwrap_or(u32::MAX);
    wait / 2 + (wait / 2).mul_f64(f64::from(dice) / f64::from(u32::MAX))
}

pub(super) enum Stream {
    Tcp(TcpStream),
    Tls(Box<tokio_rustls::client::TlsStream<TcpStream>>),
}

pub(super) struct Refusal {
    pub(super) reason: String,
    /// The broker may just not know MQTT 5.
    perhaps_protocol: bool,
}

impl Refusal {
    fn of(reason: impl Into<String>) -> Self {
        Self { reason: reason.into(), perhaps_protocol: false }
    }
}

pub(super) type Agreed = (Stream, BytesMut, Greeting);

pub(super) async fn agree(
    config: &ClientConfig,
    session: Session,
    by: Instant,
) -> Result<Agreed, Refusal> {
    match config.protocol {
        ProtocolChoice::V5 => attempt(config, session, V5, by).await,
        ProtocolChoice::V311 => attempt(config, session, V311, by).await,
        ProtocolChoice::Auto => match attempt(config, session, V5, by).await {
            Err(refusal) if refusal.perhaps_protocol => {
                tracing::debug!(host = %config.host, "trying mqtt 3.1.1 after: {}", refusal.reason);
                attempt(config, session, V311, by).await
            }
            answer => answer,
        },
    }
}

async fn attempt(
    config: &ClientConfig,
    session: Session,
    version: u8,
    by: Instant,
) -> Result<Agreed, Refusal> {
    let attempt = async {
        match open(config).await.map_err(Refusal::of)? {
            Stream::Tcp(mut tcp) => {
                let (rest, greeting) = greet(&mut tcp, config, session, version).await?;
                Ok((Stream::Tcp(tcp), rest, greeting))
            }
            Stream::Tls(mut tls) => {
                let (rest, greeting) = greet(&mut tls, config, session, version).await?;
                Ok((Stream::Tls(tls), rest, greeting))
            }
        }
    };
    timeout_at(by, attempt).await.unwrap_or_else(|_| {
        Err(Refusal::of(format!("{}:{} did not answer in time", config.host, config.port)))
    })
}

async fn open(config: &ClientConfig) -> Result<Stream, String> {
    let tcp = TcpStream::connect((config.host.as_str(), config.port))
        .await
        .map_err(|err| format!("cannot connect to {}:{}: {err}", config.host, config.port))?;
    tcp.set_nodelay(true).map_err(|err| format!("cannot set TCP_NODELAY: {err}"))?;
    let Some(tls) = &config.tls else { return Ok(Stream::Tcp(tcp)) };
    let stream = tls::secure(config, tls, tcp).await?;
    Ok(Stream::Tls(Box::new(stream)))
}

/// CONNECT and CONNACK.
async fn greet<S>(
    stream: &mut S,
    config: &ClientConfig,
    session: Session,
    version: u8,
) -> Result<(BytesMut, Greeting), Refusal>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let broken = |what: String| Refusal { reason: what, perhaps_protocol: true };
    // With TLS 1.3 the broker's word on our certificate comes only now.
    let broke_off = |err: std::io::Error| match tls::fault(config, &err) {
        Some(fault) => Refusal::of(format!("no TLS with {}:{}: {fault}", config.host, config.port)),
        None => broken(format!("the broker broke off{}: {err}", hint(config))),
    };
    let mut wire = BytesMut::with_capacity(256);
    codec::encode(&Packet::Connect(Box::new(connect_packet(config, session, version))), &mut wire)
        .map_err(|err| Refusal::of(format!("the connect settings cannot be sent: {err}")))?;
    stream.write_all(&wire).await.map_err(broke_off)?;
    stream.flush().await.map_err(broke_off)?;

    let mut buf = BytesMut::with_capacity(link::READ_BYTES);
    let frame = loop {
        match Frame::take(&mut buf, PACKET_BYTES_MAX) {
            Ok(Some(frame)) => break frame,
            Ok(None) => match stream.read_buf(&mut buf).await {
                Ok(0) => {
                    let hint = hint(config);
                    return Err(broken(format!(
                        "the broker closed the connection at CONNECT{hint}"
                    )));
                }
                Ok(_) => {}
                Err(err) => return Err(broke_off(err)),
            },
            Err(err) => return Err(broken(format!("the broker does not speak mqtt: {err}"))),
        }
    };
    let old_style = frame.body.len() == 2;
    match frame.decode(version) {
        Ok(Packet::ConnAck(connack)) => {
            accept(config, version, &connack, old_style).map(|greeting| (buf, greeting))
        }
        Ok(other) => {
            Err(broken(format!("the broker answered CONNECT with {}", other.packet_type_name())))
        }
        Err(err) => Err(broken(format!("the broker's CONNACK is unreadable: {err}"))),
    }
}

/// A broker that wants a client certificate may just hang up.
fn hint(config: &ClientConfig) -> &'static str {
    if config.tls.as_ref().is_some_and(|tls| tls.client_certificate.is_none()) {
        " (it may want a client certificate: client_cert_file, client_key_file)"
    } else {
        ""
    }
}

fn accept(
    config: &ClientConfig,
    version: u8,
    connack: &ConnAckPacket,
    old_style: bool,
) -> Result<Greeting, Refusal> {
    let reason = connack.reason_code;
    // A 3.1.1 CONNACK to an MQTT 5 CONNECT: the broker did not understand what it accepted.
    let misunderstood = reason == ReasonCode::Success && version == V5 && old_style;
    if reason != ReasonCode::Success || misunderstood {
        let perhaps_protocol = misunderstood
            || [
                ReasonCode::UnsupportedProtocolVersion,
                ReasonCode::MalformedPacket,
                ReasonCode::ProtocolError,
            ]
            .contains(&reason);
        return Err(Refusal { reason: refused(config, reason), perhaps_protocol });
    }
    let properties = &connack.properties;
    Ok(Greeting {
        version,
        keep_alive: properties
            .get_server_keep_alive()
            .map_or(config.keep_alive, |seconds| Duration::from_secs(u64::from(seconds))),
        receive_max: properties.get_receive_maximum().unwrap_or(u16::MAX),
        packet_bytes_max: properties
            .get_maximum_packet_size()
            .map(|max| usize::try_from(max).unwrap_or(usize::MAX)),
        qos_max: properties.get_maximum_qos().unwrap_or(2),
    })
}

fn refused(config: &ClientConfig, reason: ReasonCode) -> String {
    let is_login = [ReasonCode::NotAuthorized, ReasonCode::BadUsernameOrPassword].contains(&reason);
    let why = match &config.username {
        Some(user) if is_login => format!(" (user `{user}`: check username and its password)"),
        None if is_login => " (it wants a username and a password)".to_owned(),
        _ if reason == ReasonCode::ClientIdentifierNotValid => {
            format!(" (client id `{}`: choose another client_id)", config.client_id)
        }
        _ => String::new(),
    };
    format!("the broker refused: {reason:?}{why}")
}

fn connect_packet(config: &ClientConfig, session: Session, version: u8) -> ConnectPacket {
    let mut options = ConnectOptions::new(config.client_id.clone());
    options.clean_start = session == Session::Clean;
    options.keep_alive = config.keep_alive;
    options.username.clone_from(&config.username);
    options.password = config.password.as_ref().map(|password| password.bytes().to_vec());
    options.will = config.will.as_ref().map(|will| {
        WillMessage::new(will.topic.clone(), will.payload.clone())
            .with_qos(codec::to_qos(will.qos))
            .with_retain(false)
    });
    let mut packet =
        if version == V5 { ConnectPacket::new(options) } else { ConnectPacket::new_v311(options) };
    if version == V5 {
        packet.properties.set_receive_maximum(RECEIVE_MAX);
        if let Session::Kept(wait) = session {
            let seconds = u32::try_from(wait.as_secs()).unwrap_or(u32::MAX);
            packet.properties.set_session_expiry_interval(seconds);
        }
        packet
            .properties
            .set_maximum_packet_size(u32::try_from(PACKET_BYTES_MAX).unwrap_or(u32::MAX));
    }
    packet
}

/// What the library says, for people.
pub(super) fn told(err: &MqttError) -> String {
    format!("the broker sent something unreadable: {err}")
}
