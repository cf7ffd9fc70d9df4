//! Connecting, the agreement on a protocol, and the wait between two attempts.

use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use mqtt5::packet::connack::ConnAckPacket;
use mqtt5::packet::connect::ConnectPacket;
use mqtt5::protocol::v5::reason_codes::ReasonCode;
use mqtt5::{ConnectOptions, MqttError, Packet, WillMessage};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, timeout_at};
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::pki_types::ServerName;

use super::link::{self, Greeting, Link};
use super::{ClientConfig, ClientTls, LinkSlot, ProtocolChoice};
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
        agreed = agree(config, by) => agreed,
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

enum Stream {
    Tcp(TcpStream),
    Tls(Box<tokio_rustls::client::TlsStream<TcpStream>>),
}

struct Refusal {
    reason: String,
    /// The broker may just not know MQTT 5.
    perhaps_protocol: bool,
}

impl Refusal {
    fn of(reason: impl Into<String>) -> Self {
        Self { reason: reason.into(), perhaps_protocol: false }
    }
}

type Agreed = (Stream, BytesMut, Greeting);

async fn agree(config: &ClientConfig, by: Instant) -> Result<Agreed, Refusal> {
    match config.protocol {
        ProtocolChoice::V5 => attempt(config, V5, by).await,
        ProtocolChoice::V311 => attempt(config, V311, by).await,
        ProtocolChoice::Auto => match attempt(config, V5, by).await {
            Err(refusal) if refusal.perhaps_protocol => {
                tracing::debug!(host = %config.host, "trying mqtt 3.1.1 after: {}", refusal.reason);
                attempt(config, V311, by).await
            }
            answer => answer,
        },
    }
}

async fn attempt(config: &ClientConfig, version: u8, by: Instant) -> Result<Agreed, Refusal> {
    let attempt = async {
        match open(config).await.map_err(Refusal::of)? {
            Stream::Tcp(mut tcp) => {
                let (rest, greeting) = greet(&mut tcp, config, version).await?;
                Ok((Stream::Tcp(tcp), rest, greeting))
            }
            Stream::Tls(mut tls) => {
                let (rest, greeting) = greet(&mut tls, config, version).await?;
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
    let (connector, name) = tls_connector(config, tls)?;
    let stream = connector
        .connect(name, tcp)
        .await
        .map_err(|err| format!("no TLS with {}:{}: {err}", config.host, config.port))?;
    Ok(Stream::Tls(Box::new(stream)))
}

fn tls_connector(
    config: &ClientConfig,
    tls: &ClientTls,
) -> Result<(TlsConnector, ServerName<'static>), String> {
    let name = tls.server_name.as_ref().unwrap_or(&config.host);
    let server = ServerName::try_from(name.clone())
        .map_err(|_| format!("`{name}` is not a name a certificate can have"))?;
    // The library wants an address here and uses it only for connecting, which we have done.
    let mut settings = mqtt5::transport::tls::TlsConfig::new(
        std::net::SocketAddr::from(([0, 0, 0, 0], 0)),
        name.as_str(),
    );
    if let Some(file) = &tls.ca_file {
        settings = settings.with_system_roots(false);
        let pem = std::fs::read(file)
            .map_err(|err| format!("cannot read the CA file {}: {err}", file.display()))?;
        settings
            .load_ca_cert_pem_bytes(&pem)
            .map_err(|err| format!("the CA file {} is not usable: {err}", file.display()))?;
    }
    let settings = settings
        .client_config()
        .map_err(|err| format!("the TLS settings are not usable: {err}"))?;
    Ok((TlsConnector::from(Arc::new(settings)), server))
}

/// CONNECT and CONNACK.
async fn greet<S>(
    stream: &mut S,
    config: &ClientConfig,
    version: u8,
) -> Result<(BytesMut, Greeting), Refusal>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let broken = |what: String| Refusal { reason: what, perhaps_protocol: true };
    let mut wire = BytesMut::with_capacity(256);
    codec::encode(&Packet::Connect(Box::new(connect_packet(config, version))), &mut wire)
        .map_err(|err| Refusal::of(format!("the connect settings cannot be sent: {err}")))?;
    stream.write_all(&wire).await.map_err(|err| broken(format!("the broker broke off: {err}")))?;
    stream.flush().await.map_err(|err| broken(format!("the broker broke off: {err}")))?;

    let mut buf = BytesMut::with_capacity(link::READ_BYTES);
    let frame = loop {
        match Frame::take(&mut buf, PACKET_BYTES_MAX) {
            Ok(Some(frame)) => break frame,
            Ok(None) => match stream.read_buf(&mut buf).await {
                Ok(0) => return Err(broken("the broker closed the connection at CONNECT".into())),
                Ok(_) => {}
                Err(err) => return Err(broken(format!("the broker broke off: {err}"))),
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
        return Err(Refusal {
            reason: format!("the broker refused: {reason:?}"),
            perhaps_protocol,
        });
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

fn connect_packet(config: &ClientConfig, version: u8) -> ConnectPacket {
    let mut options = ConnectOptions::new(config.client_id.clone()).protocol_options;
    options.clean_start = true;
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
