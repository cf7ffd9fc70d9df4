//! What a client says first: whoever has not logged in may send nothing but one CONNECT of a bounded size, within a bounded
//! time.

use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use bytes::BytesMut;
use mqtt5_protocol::Packet;
use mqtt5_protocol::packet::connect::ConnectPacket;
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;

use super::socket::Socket;
use crate::codec::{self, Frame};

/// Largest CONNECT, in bytes. Client id, user name, password and will are some hundred.
pub(super) const CONNECT_BYTES_MAX: usize = 16 * 1024;
/// Longest a TLS handshake may take, and then the CONNECT.
const HELLO_WAIT: Duration = Duration::from_secs(10);
/// First byte of a CONNECT.
const CONNECT: u8 = 0x10;

/// Why there was no hello.
#[derive(Debug, thiserror::Error)]
enum NoHello {
    #[error("its connection broke: {0}")]
    Io(#[from] io::Error),
    #[error("it left without a word")]
    Left,
    #[error("what it says is no CONNECT packet")]
    NoConnect,
    #[error("its CONNECT has {0} bytes, more than {1}")]
    TooLarge(usize, usize),
    #[error("its CONNECT cannot be read: {0}")]
    Unreadable(String),
}

/// A client that has said its CONNECT.
pub(super) struct Caller {
    pub(super) socket: Socket,
    pub(super) connect: Box<ConnectPacket>,
    /// What came behind it.
    pub(super) read: BytesMut,
}

/// Listens to a client until it has said a CONNECT of at most `bytes_max`.
pub(super) async fn hello(
    tcp: TcpStream,
    peer: SocketAddr,
    tls: Option<TlsAcceptor>,
    bytes_max: usize,
) -> Option<Caller> {
    let mut socket = match tls {
        None => Socket::Plain(tcp),
        Some(acceptor) => {
            match tokio::time::timeout(HELLO_WAIT, Box::pin(acceptor.accept(tcp))).await {
                Ok(Ok(stream)) => Socket::Secure(Box::new(stream)),
                Ok(Err(err)) => {
                    tracing::info!(%peer, "no TLS with an mqtt client: {err}");
                    return None;
                }
                Err(_) => {
                    tracing::info!(%peer, "no TLS with an mqtt client: it did not answer in time");
                    return None;
                }
            }
        }
    };
    let mut read = BytesMut::new();
    match tokio::time::timeout(HELLO_WAIT, listen(&mut socket, &mut read, bytes_max)).await {
        Ok(Ok(connect)) => Some(Caller { socket, connect, read }),
        Ok(Err(why @ (NoHello::Io(_) | NoHello::Left))) => {
            tracing::debug!(%peer, "no mqtt with a client: {why}");
            None
        }
        Ok(Err(why @ (NoHello::NoConnect | NoHello::TooLarge(..) | NoHello::Unreadable(_)))) => {
            tracing::info!(%peer, "no mqtt with a client: {why}");
            None
        }
        Err(_) => {
            tracing::info!(%peer, "no mqtt with a client: it did not log in in time");
            None
        }
    }
}

async fn listen(
    socket: &mut Socket,
    read: &mut BytesMut,
    bytes_max: usize,
) -> Result<Box<ConnectPacket>, NoHello> {
    loop {
        if poll_fn(|cx| socket.poll_read_into(cx, read)).await? == 0 {
            return Err(NoHello::Left);
        }
        if !judge(read, bytes_max)? {
            continue;
        }
        let unreadable = |err: mqtt5_protocol::MqttError| NoHello::Unreadable(codec::plain(&err));
        let Some(frame) = Frame::take(read, bytes_max).map_err(unreadable)? else { continue };
        // A CONNECT says its version itself.
        let Packet::Connect(connect) = frame.decode(codec::V5).map_err(unreadable)? else {
            return Err(NoHello::NoConnect);
        };
        return Ok(connect);
    }
}

/// Whether the head of the packet is whole.
fn judge(head: &[u8], bytes_max: usize) -> Result<bool, NoHello> {
    match head.first() {
        None => return Err(NoHello::Left),
        Some(&CONNECT) => {}
        Some(_) => return Err(NoHello::NoConnect),
    }
    match codec::lengths(head) {
        Ok(None) => Ok(false),
        Ok(Some((head, body))) if head + body <= bytes_max => Ok(true),
        Ok(Some((head, body))) => Err(NoHello::TooLarge(head + body, bytes_max)),
        Err(_) => Err(NoHello::NoConnect),
    }
}

/// What is made of the first bytes of a client, for those who try bytes on it: whether a CONNECT within the bound has begun,
/// `false` while its length is not there, or why not.
pub(crate) fn try_hello(head: &[u8], bytes_max: usize) -> Result<bool, String> {
    judge(head, bytes_max).map_err(|why| why.to_string())
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]
    use tokio::io::AsyncWriteExt;
    use tokio::net::TcpListener;
    use tokio::time::{Instant, sleep};

    use super::*;

    // The limit is of the whole CONNECT, and not of the wait for the next byte.
    #[tokio::test(start_paused = true)]
    async fn who_sends_a_byte_of_a_connect_now_and_then_is_let_go_at_the_limit() {
        const DRIP: Duration = Duration::from_millis(100);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (tcp, peer) = listener.accept().await.unwrap();
        // The head of a CONNECT of 15,000 bytes.
        client.write_all(&[CONNECT, 0x98, 0x75]).await.unwrap();
        let began = Instant::now();
        let dripping = async {
            while began.elapsed() < HELLO_WAIT * 10 {
                sleep(DRIP).await;
                client.write_all(b"x").await.unwrap();
            }
        };
        let caller = tokio::select! {
            biased;
            caller = hello(tcp, peer, None, CONNECT_BYTES_MAX) => caller,
            () = dripping => panic!("it is never let go"),
        };
        assert!(caller.is_none() && HELLO_WAIT <= began.elapsed());
    }

    #[test]
    fn only_a_connect_within_its_bound_is_listened_to() {
        assert!(matches!(judge(&[0x10, 20], 22), Ok(true)));
        assert!(matches!(judge(&[0x10], 22), Ok(false)));
        assert!(matches!(judge(&[0x10, 0x80], 22), Ok(false)));
        assert!(matches!(judge(&[], 22), Err(NoHello::Left)));
        assert!(matches!(judge(&[0x30, 2], 22), Err(NoHello::NoConnect)));
        assert!(matches!(judge(b"GET /", 22), Err(NoHello::NoConnect)));
        assert!(matches!(judge(&[0x10, 21], 22), Err(NoHello::TooLarge(23, 22))));
        assert!(matches!(judge(&[0x10, 255, 255, 255, 255], 22), Err(NoHello::NoConnect)));
    }
}
