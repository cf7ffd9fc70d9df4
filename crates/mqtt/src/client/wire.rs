//! What a link runs on.

use bytes::BytesMut;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;

/// A connection that can be cut short.
pub(super) trait Wire: AsyncRead + AsyncWrite + Unpin {
    /// Has whatever was written and has not arrived never arrive, and ends the connection at once.
    fn cut(self);
}

impl Wire for TcpStream {
    fn cut(self) {
        if let Err(error) = self.set_zero_linger() {
            tracing::debug!(%error, "a dead mqtt connection could not be cut short");
        }
    }
}

impl Wire for Box<TlsStream<TcpStream>> {
    fn cut(self) {
        let (tcp, _) = self.get_ref();
        if let Err(error) = tcp.set_zero_linger() {
            tracing::debug!(%error, "a dead mqtt connection could not be cut short");
        }
    }
}

pub(super) enum Pushed {
    Written(usize),
    Flushed,
}

/// Writes what is there; flushes once nothing is. Safe to drop at any point.
pub(super) async fn push_out<W: AsyncWrite + Unpin>(
    writer: &mut W,
    unwritten: &mut BytesMut,
) -> std::io::Result<Pushed> {
    if unwritten.is_empty() {
        writer.flush().await.map(|()| Pushed::Flushed)
    } else {
        writer.write_buf(unwritten).await.map(Pushed::Written)
    }
}
