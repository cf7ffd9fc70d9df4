//! What a client says first. Looked at before the library reads it: whoever has not logged in may send nothing but one
//! CONNECT of a bounded size, within a bounded time. The library's own bound is that of every packet, a megabyte for each
//! stranger.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use mqtt5::broker::tls_acceptor::TlsStreamWrapper;
use mqtt5::broker::transport::BrokerTransport;
use tokio::io::AsyncBufReadExt;
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;

use crate::codec;

/// Largest CONNECT, in bytes. Client id, user name, password and will are some hundred.
pub(super) const CONNECT_BYTES_MAX: usize = 16 * 1024;
/// Longest a TLS handshake may take, and then the first bytes.
const HELLO_WAIT: Duration = Duration::from_secs(10);
/// How often we look for the rest of a head that came in pieces, which is rare.
const REST_LOOK_WAIT: Duration = Duration::from_millis(100);
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
    #[error("over TLS, the length of its CONNECT comes in pieces")]
    InPieces,
}

/// The transport of a client that has begun to say a CONNECT of at most `bytes_max`.
pub(super) async fn hello(
    tcp: TcpStream,
    peer: SocketAddr,
    tls: Option<TlsAcceptor>,
    bytes_max: usize,
) -> Option<BrokerTransport> {
    let Some(acceptor) = tls else {
        return match tokio::time::timeout(HELLO_WAIT, plain(&tcp, bytes_max)).await {
            Ok(Ok(())) => Some(BrokerTransport::tcp(tcp)),
            Ok(Err(why)) => refuse(peer, &why),
            Err(_) => silent(peer),
        };
    };
    let mut stream = match tokio::time::timeout(HELLO_WAIT, acceptor.accept(tcp)).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(err)) => {
            tracing::info!(%peer, "no TLS with an mqtt client: {err}");
            return None;
        }
        Err(_) => {
            tracing::info!(%peer, "no TLS with an mqtt client: it did not answer in time");
            return None;
        }
    };
    let said = async {
        match judge(stream.fill_buf().await?, bytes_max)? {
            true => Ok(()),
            false => Err(NoHello::InPieces),
        }
    };
    match tokio::time::timeout(HELLO_WAIT, said).await {
        Ok(Ok(())) => Some(BrokerTransport::tls(TlsStreamWrapper::new(stream))),
        Ok(Err(why)) => refuse(peer, &why),
        Err(_) => silent(peer),
    }
}

async fn plain(tcp: &TcpStream, bytes_max: usize) -> Result<(), NoHello> {
    let mut head = [0; codec::HEAD_BYTES_MAX];
    loop {
        let length = tcp.peek(&mut head).await?;
        if judge(head.get(..length).unwrap_or_default(), bytes_max)? {
            return Ok(());
        }
        // The bytes that are there would wake us at once.
        tokio::time::sleep(REST_LOOK_WAIT).await;
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

fn refuse(peer: SocketAddr, why: &NoHello) -> Option<BrokerTransport> {
    match why {
        NoHello::Io(_) | NoHello::Left => tracing::debug!(%peer, "no mqtt with a client: {why}"),
        NoHello::NoConnect | NoHello::TooLarge(..) | NoHello::InPieces => {
            tracing::info!(%peer, "no mqtt with a client: {why}");
        }
    }
    None
}

fn silent(peer: SocketAddr) -> Option<BrokerTransport> {
    tracing::info!(%peer, "no mqtt with a client: it said nothing in time");
    None
}

#[cfg(test)]
mod tests {
    use super::*;

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
