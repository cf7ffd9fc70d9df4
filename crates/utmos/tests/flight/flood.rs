//! Peers that flood a server: many sockets from many addresses, and bytes that no client of ours would send.

use std::{
    net::{Ipv4Addr, SocketAddr},
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpSocket, TcpStream},
};

use crate::{api::PATIENCE, skips::skipped};

/// Connections that are made at a time: no more than the system keeps for a server that has not taken them yet.
const AT_ONCE: usize = 200;

/// Lets this process open as many files as it may. Answers how many of them floods may use.
fn sockets() -> usize {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    /// For everything else in this process.
    const OTHER_FILES: u64 = 2_000;
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
    let allowed = match setrlimit(Resource::Nofile, raised) {
        Ok(()) => limit.maximum,
        Err(_) => limit.current,
    };
    let allowed = allowed.unwrap_or(u64::MAX);
    usize::try_from(allowed.saturating_sub(OTHER_FILES).max(allowed / 2)).unwrap()
}

/// So many sockets, or as many as this process may open: then the test says so.
pub fn sockets_for(wanted: usize) -> usize {
    let allowed = sockets();
    if allowed < wanted {
        skipped(
            &format!("{} of {wanted} peers", wanted - allowed),
            &format!("the limit of open files allows {allowed} (ulimit -Hn)"),
        );
    }
    allowed.min(wanted)
}

/// A connection from this address of the machine. `None` when the server does not take it.
pub async fn connect(from: Ipv4Addr, to: SocketAddr) -> Option<TcpStream> {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind(SocketAddr::from((from, 0))).unwrap();
    let connected = tokio::time::timeout(PATIENCE, socket.connect(to)).await;
    let tcp = connected.ok()?.ok()?;
    tcp.set_nodelay(true).unwrap();
    Some(tcp)
}

/// So many connections, from as many addresses as `froms` has. Each says what `said` gives for its number.
pub async fn crowd(
    froms: &[Ipv4Addr],
    to: SocketAddr,
    count: usize,
    said: impl Fn(usize) -> Vec<u8>,
) -> Vec<TcpStream> {
    let mut all = Vec::with_capacity(count);
    let numbers: Vec<usize> = (0..count).collect();
    for some in numbers.chunks(AT_ONCE) {
        let begun = some.iter().map(|number| {
            let (from, said) = (froms[number % froms.len()], said(*number));
            async move {
                let mut tcp = connect(from, to).await?;
                // Whoever was cut already has said enough.
                let _cut = tokio::time::timeout(PATIENCE, tcp.write_all(&said)).await;
                Some(tcp)
            }
        });
        all.extend(futures_util::future::join_all(begun).await.into_iter().flatten());
    }
    all
}

/// Addresses of this machine that nobody else uses as where they come from.
pub fn sources(count: u8) -> Vec<Ipv4Addr> {
    (1..=count).map(|last| Ipv4Addr::new(127, 1, 2, last)).collect()
}

/// What a peer said until it closed, or until it had said nothing for a while.
#[derive(Debug)]
pub struct Rest {
    pub said: Vec<u8>,
    /// Whether it closed. Otherwise it just fell silent.
    pub closed: bool,
}

/// Everything a peer says from now on.
pub async fn rest(tcp: &mut TcpStream) -> Rest {
    const SILENCE_WAIT: Duration = Duration::from_secs(20);
    let mut rest = Rest { said: Vec::new(), closed: false };
    let mut some = vec![0; 4_096];
    while let Ok(read) = tokio::time::timeout(SILENCE_WAIT, tcp.read(&mut some)).await {
        match read {
            Ok(count @ 1..) => rest.said.extend_from_slice(&some[..count]),
            Ok(0) | Err(_) => {
                rest.closed = true;
                break;
            }
        }
    }
    rest
}

/// A packet of MQTT.
pub fn packet(head: u8, body: &[u8]) -> Vec<u8> {
    let mut out = vec![head];
    let mut length = body.len();
    loop {
        let low = u8::try_from(length % 128).unwrap();
        length /= 128;
        out.push(if length > 0 { low | 0x80 } else { low });
        if length == 0 {
            break;
        }
    }
    out.extend_from_slice(body);
    out
}

fn text(out: &mut Vec<u8>, text: &str) {
    out.extend_from_slice(&u16::try_from(text.len()).unwrap().to_be_bytes());
    out.extend_from_slice(text.as_bytes());
}

/// CONNECT of MQTT 3.1.1.
pub fn hello(user: &str, password: &str) -> Vec<u8> {
    let mut body = Vec::new();
    text(&mut body, "MQTT");
    body.extend_from_slice(&[4, 0xc2, 0, 60]);
    for one in [user, user, password] {
        text(&mut body, one);
    }
    packet(0x10, &body)
}

/// SUBSCRIBE with QoS 1.
pub fn subscribe(filter: &str) -> Vec<u8> {
    let mut body = vec![0, 1];
    text(&mut body, filter);
    body.push(1);
    packet(0x82, &body)
}

/// PUBLISH with this QoS.
pub fn publish(topic: &str, qos: u8, payload: &[u8]) -> Vec<u8> {
    let mut body = Vec::new();
    text(&mut body, topic);
    if qos > 0 {
        body.extend_from_slice(&[0, 9]);
    }
    body.extend_from_slice(payload);
    packet(0x30 | (qos << 1), &body)
}

/// A frame of HTTP/2.
pub fn frame(kind: u8, flags: u8, stream: u32, body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(body.len()).unwrap().to_be_bytes();
    let mut out = vec![length[1], length[2], length[3], kind, flags];
    out.extend_from_slice(&stream.to_be_bytes());
    out.extend_from_slice(body);
    out
}

/// The beginning of a connection of HTTP/2.
pub fn preface() -> Vec<u8> {
    [&b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"[..], &frame(4, 0, 0, &[])].concat()
}

/// Kinds of frames of HTTP/2.
const HEADERS: u8 = 1;
const RESET: u8 = 3;
const GO_AWAY: u8 = 7;
const CONTINUATION: u8 = 9;
/// A head with this flag is whole.
const END_HEADERS: u8 = 4;
/// `:status: 200`, as HPACK has it.
const STATUS_200: u8 = 0x88;

/// A head of HTTP/2 that is not whole, and so many frames that go on with it and do not end it either.
pub fn endless_head(frames: usize) -> Vec<u8> {
    let begun = frame(HEADERS, 0, 1, &[0x82, 0x86]);
    // A literal that is not to be remembered: `a: b`.
    let more = frame(CONTINUATION, 0, 1, &[0, 1, b'a', 1, b'b'].repeat(100));
    [preface(), begun, more.repeat(frames)].concat()
}

/// A whole head of HTTP/2 that is small, and large once it is read: one header of some bytes is remembered, and named
/// again, with a byte, so many times.
pub fn swelling_head(times: usize) -> Vec<u8> {
    let mut block = vec![0x82, 0x86, 0x84, 0x40, 1, b'a', 0x7f, 0xa1, 0x1e];
    // 127 and 0x1e * 128 + 0x21 more.
    block.extend(std::iter::repeat_n(b'x', 127 + 0x1e * 128 + 0x21));
    let mut head = [preface(), frame(HEADERS, 0, 1, &block)].concat();
    // The newest that is remembered.
    let again = vec![0xbe; times];
    let last = again.chunks(16_000).count() - 1;
    for (number, some) in again.chunks(16_000).enumerate() {
        let flags = if number == last { END_HEADERS } else { 0 };
        head.extend(frame(CONTINUATION, flags, 1, some));
    }
    head
}

/// Whether frames of HTTP/2 say that a head is not taken: another answer than 200, the stream taken back, or goodbye.
pub fn refuses_head(mut said: &[u8]) -> bool {
    while let [a, b, c, kind, _, _, _, _, _, rest @ ..] = said {
        let length = u32::from_be_bytes([0, *a, *b, *c]) as usize;
        let body = rest.get(..length).unwrap_or(rest);
        match *kind {
            RESET | GO_AWAY => return true,
            HEADERS => return body.first() != Some(&STATUS_200),
            _ => said = rest.get(length..).unwrap_or_default(),
        }
    }
    false
}

/// The head of `GET /healthz` on a stream, which ends with it.
pub fn get(stream: u32) -> Vec<u8> {
    let mut block = vec![0x82, 0x86, 0x04, 8];
    block.extend_from_slice(b"/healthz");
    block.extend_from_slice(&[0x41, 1, b'x']);
    frame(1, 0x5, stream, &block)
}
