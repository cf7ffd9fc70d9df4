//! Tries whether a broker keeps messages for a client that is away: a persistent session subscribes, leaves, somebody
//! publishes, and the session comes back.
//!
//! In bytes of MQTT 3.1.1, because our own client never has a persistent session. The topic is of no device.

use std::{io, time::Duration};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};
use uuid::Uuid;

/// First byte of the packet that answers a CONNECT.
pub const CONNACK: u8 = 0x20;
const PUBLISH: u8 = 0x30;
const SUBACK: u8 = 0x90;
const PUBACK: u8 = 0x40;
const DISCONNECT: [u8; 2] = [0xE0, 0];
/// Return code of a subscription that was refused.
const REFUSED: u8 = 0x80;

const STEP_WAIT: Duration = Duration::from_secs(5);
/// How long a kept message may take to come once the session is back.
const KEPT_WAIT: Duration = Duration::from_secs(2);
const PACKET_BYTES_MAX: usize = 64 * 1024;

/// What was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Queueing {
    /// The message came.
    Yes,
    /// It did not.
    No,
    /// The broker did not let us try.
    Unknown(String),
}

/// User name and password.
type Login<'a> = Option<(&'a str, Option<&'a str>)>;

/// Tries it.
pub async fn probe(
    host: &str,
    port: u16,
    username: Option<&str>,
    password: Option<&str>,
) -> Queueing {
    let id = Uuid::new_v4().simple().to_string();
    let probe = Probe {
        address: (host, port),
        login: username.map(|name| (name, password)),
        client_id: format!("utmos-doctor-{id}"),
        topic: format!("thing/product/UTMOS-DOCTOR-{id}/services"),
    };
    let outcome = probe.run().await;
    // Whatever came of it, the session must not stay behind.
    let _best_effort = probe.open(&probe.client_id, true).await;
    outcome.unwrap_or_else(|err| Queueing::Unknown(err.to_string()))
}

struct Probe<'a> {
    address: (&'a str, u16),
    login: Login<'a>,
    client_id: String,
    topic: String,
}

impl Probe<'_> {
    async fn run(&self) -> io::Result<Queueing> {
        let mut away = self.open(&self.client_id, false).await?;
        away.write_all(&subscribe_packet(&self.topic)).await?;
        let (_, body) = step(read_packet(&mut away, SUBACK)).await?;
        if body.last() == Some(&REFUSED) {
            return Ok(Queueing::Unknown(
                "this user may not subscribe to a device's topic".to_owned(),
            ));
        }
        away.write_all(&DISCONNECT).await?;
        drop(away);

        let mut sender = self.open(&format!("{}-s", self.client_id), true).await?;
        sender.write_all(&publish_packet(&self.topic)).await?;
        step(read_packet(&mut sender, PUBACK)).await?;
        sender.write_all(&DISCONNECT).await?;

        let mut back = self.open(&self.client_id, false).await?;
        match timeout(KEPT_WAIT, read_packet(&mut back, PUBLISH)).await {
            Ok(Ok(_)) => Ok(Queueing::Yes),
            Ok(Err(err)) => Err(err),
            Err(_) => Ok(Queueing::No),
        }
    }

    async fn open(&self, client_id: &str, is_clean: bool) -> io::Result<TcpStream> {
        let opening = async {
            let mut stream = TcpStream::connect(self.address).await?;
            stream.write_all(&connect_packet(client_id, self.login, is_clean)).await?;
            match read_packet(&mut stream, CONNACK).await?.1.as_slice() {
                [_, 0] => Ok(stream),
                _ => Err(io::Error::other("the broker refuses a persistent session of MQTT 3.1.1")),
            }
        };
        step(opening).await
    }
}

async fn step<T>(work: impl Future<Output = io::Result<T>>) -> io::Result<T> {
    timeout(STEP_WAIT, work)
        .await
        .unwrap_or_else(|_| Err(io::Error::other("the broker does not answer")))
}

/// Reads packets until one of this kind comes: its first byte and its body.
async fn read_packet(stream: &mut TcpStream, kind: u8) -> io::Result<(u8, Vec<u8>)> {
    loop {
        let first = stream.read_u8().await?;
        let mut length = 0;
        for shift in [0, 7, 14, 21] {
            let byte = stream.read_u8().await?;
            length |= usize::from(byte & 0x7F) << shift;
            if byte & 0x80 == 0 {
                break;
            }
        }
        if length > PACKET_BYTES_MAX {
            return Err(io::Error::other("the broker sends a packet that is too large"));
        }
        let mut body = vec![0; length];
        stream.read_exact(&mut body).await?;
        if first & 0xF0 == kind & 0xF0 {
            return Ok((first, body));
        }
    }
}

/// A CONNECT of MQTT 3.1.1.
pub fn connect_packet(client_id: &str, login: Login<'_>, is_clean: bool) -> Vec<u8> {
    const KEEP_ALIVE_SECONDS: u16 = 60;
    let (name, password) = login.map_or((None, None), |(name, password)| (Some(name), password));
    let flags =
        u8::from(name.is_some()) << 7 | u8::from(password.is_some()) << 6 | u8::from(is_clean) << 1;
    let mut body = text("MQTT");
    body.extend([4, flags]);
    body.extend(KEEP_ALIVE_SECONDS.to_be_bytes());
    for part in [Some(client_id), name, password].into_iter().flatten() {
        body.extend(text(part));
    }
    packet(0x10, &body)
}

fn subscribe_packet(topic: &str) -> Vec<u8> {
    packet(0x82, &[&[0, 1][..], &text(topic), &[1]].concat())
}

/// QoS 1, not retained. The payload is no command of any device.
fn publish_packet(topic: &str) -> Vec<u8> {
    packet(0x32, &[&text(topic)[..], &[0, 1], b"{}"].concat())
}

fn packet(first: u8, body: &[u8]) -> Vec<u8> {
    let mut bytes = vec![first];
    let mut length = body.len();
    loop {
        let digit = u8::try_from(length & 0x7F).unwrap_or_default();
        length >>= 7;
        bytes.push(if length > 0 { digit | 0x80 } else { digit });
        if length == 0 {
            break;
        }
    }
    bytes.extend(body);
    bytes
}

fn text(text: &str) -> Vec<u8> {
    let length = u16::try_from(text.len()).unwrap_or(u16::MAX);
    let mut bytes = length.to_be_bytes().to_vec();
    bytes.extend(text.as_bytes().iter().take(usize::from(length)));
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packets_are_those_of_the_standard() {
        assert_eq!(
            connect_packet("a", Some(("u", Some("p"))), true),
            [
                0x10,
                19,
                0,
                4,
                b'M',
                b'Q',
                b'T',
                b'T',
                4,
                0b1100_0010,
                0,
                60,
                0,
                1,
                b'a',
                0,
                1,
                b'u',
                0,
                1,
                b'p'
            ]
        );
        assert_eq!(connect_packet("a", None, false)[9], 0);
        assert_eq!(subscribe_packet("t"), [0x82, 6, 0, 1, 0, 1, b't', 1]);
        assert_eq!(publish_packet("t"), [0x32, 7, 0, 1, b't', 0, 1, b'{', b'}']);
        assert_eq!(packet(1, &[0; 200])[..3], [1, 0xC8, 1]);
    }
}
