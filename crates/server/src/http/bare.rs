//! Finishes the refusals that the HTTP library writes itself, before there is a request that could be handed on: it
//! answers 400, 414 and 431 with a bare head. Here they get the envelope and a request id, on their way to the socket.

use std::{
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use utmos_core::ports::Ids;

use super::problem::{Code, Problem};

/// Longest head that is looked at; a bare one has about 110 bytes.
const HEAD_BYTES_MAX: usize = 256;
/// The headers of a bare head. Every answer of ours has others, `X-Request-Id` among them.
const BARE_HEADERS: [&str; 3] = ["connection", "content-length", "date"];

/// A connection that never carries a bare refusal.
pub struct Enveloped<S> {
    inner: S,
    ids: Arc<dyn Ids>,
    /// What stands for a bare head, as far as it is not written yet.
    instead: Vec<u8>,
}

impl<S> Enveloped<S> {
    /// Writes through to `inner`.
    pub fn new(inner: S, ids: Arc<dyn Ids>) -> Self {
        Self { inner, ids, instead: Vec::new() }
    }
}

impl<S: AsyncWrite + Unpin> Enveloped<S> {
    fn poll_instead(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.instead.is_empty() {
            let written = ready!(Pin::new(&mut self.inner).poll_write(cx, &self.instead))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.instead.drain(..written);
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Enveloped<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_read(cx, buf)
    }
}

/// Not vectored, so that a head always comes in one piece.
impl<S: AsyncWrite + Unpin> AsyncWrite for Enveloped<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let me = &mut *self;
        ready!(me.poll_instead(cx))?;
        match Bare::at_end_of(bytes) {
            None => Pin::new(&mut me.inner).poll_write(cx, bytes),
            // What stands before it goes first; the head comes again, alone.
            Some(bare) if 0 < bare.start => {
                Pin::new(&mut me.inner).poll_write(cx, bytes.get(..bare.start).unwrap_or_default())
            }
            Some(bare) => {
                let id = me.ids.random().to_string();
                tracing::debug!(
                    request.id = %id,
                    "refused what is no request: {}",
                    bare.code.as_str()
                );
                me.instead = bare.finished(&id);
                Poll::Ready(Ok(bytes.len()))
            }
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_instead(cx))?;
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_instead(cx))?;
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}

/// A bare refusal.
#[derive(Debug, PartialEq)]
struct Bare<'a> {
    /// Where it begins.
    start: usize,
    code: Code,
    version: &'a str,
    date: Option<&'a str>,
}

impl<'a> Bare<'a> {
    /// The bare refusal that these bytes end with. Nothing follows one, since it closes the connection. No body of ours
    /// ends so: JSON has no line breaks of this kind, and the pages are known.
    fn at_end_of(bytes: &'a [u8]) -> Option<Self> {
        if !bytes.ends_with(b"\r\n\r\n") {
            return None;
        }
        let from = bytes.len().saturating_sub(HEAD_BYTES_MAX);
        let start = from + bytes.get(from..)?.windows(7).rposition(|seven| seven == b"HTTP/1.")?;
        let head = std::str::from_utf8(bytes.get(start..)?).ok()?;
        let mut lines = head.strip_suffix("\r\n\r\n")?.split("\r\n");
        let mut words = lines.next()?.split(' ');
        let (version, code) = (words.next()?, code_of(words.next()?)?);
        let mut date = None;
        for line in lines {
            let (name, value) = line.split_once(": ")?;
            BARE_HEADERS.contains(&name).then_some(())?;
            if name == "date" {
                date = Some(value);
            }
        }
        Some(Self { start, code, version, date })
    }

    /// The refusal as it goes out.
    fn finished(&self, request_id: &str) -> Vec<u8> {
        let status = self.code.status();
        let body = Problem::new(self.code, message(self.code)).to_json(request_id);
        let date = self.date.map(|date| format!("date: {date}\r\n")).unwrap_or_default();
        let head = format!(
            "{} {} {}\r\ncontent-type: application/problem+json\r\ncontent-length: {}\r\nconnection: close\r\n\
             cache-control: no-store\r\nx-content-type-options: nosniff\r\nx-request-id: {request_id}\r\n{date}\r\n",
            self.version,
            status.as_u16(),
            status.canonical_reason().unwrap_or_default(),
            body.len(),
        );
        [head.into_bytes(), body].concat()
    }
}

fn code_of(status: &str) -> Option<Code> {
    match status {
        "400" => Some(Code::MalformedRequest),
        "414" => Some(Code::UriTooLong),
        "431" => Some(Code::HeadersTooLarge),
        _ => None,
    }
}

fn message(code: Code) -> &'static str {
    if code == Code::UriTooLong {
        "the path and the query are longer than 65534 bytes"
    } else if code == Code::HeadersTooLarge {
        "there are more than 100 headers, or they are too long"
    } else {
        "what came cannot be read as a request of HTTP/1.1; look at its first line, its headers and its length"
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;
    use crate::ids::SystemIds;

    const BARE: &str = "HTTP/1.1 431 Request Header Fields Too Large\r\nconnection: close\r\ncontent-length: 0\r\n\
                        date: Thu, 26 Nov 2026 11:18:59 GMT\r\n\r\n";

    #[test]
    fn only_a_bare_refusal_at_the_end_is_one() {
        let found = Bare::at_end_of(BARE.as_bytes()).unwrap();
        assert_eq!(
            (found.start, found.code, found.version),
            (0, Code::HeadersTooLarge, "HTTP/1.1")
        );
        let after =
            format!("HTTP/1.1 200 OK\r\nx-request-id: 1\r\ncontent-length: 2\r\n\r\nok{BARE}");
        assert_eq!(Bare::at_end_of(after.as_bytes()).unwrap().start, after.len() - BARE.len());
        for other in [
            "",
            "\r\n\r\n",
            "HTTP/1.1 100 Continue\r\n\r\n",
            "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n",
            "HTTP/1.1 400 Bad Request\r\nx-request-id: 1\r\ncontent-length: 0\r\n\r\n",
            &format!("{BARE}more"),
            &BARE[..BARE.len() - 1],
        ] {
            assert_eq!(Bare::at_end_of(other.as_bytes()), None, "{other:?}");
        }
    }

    #[tokio::test]
    async fn it_is_finished_also_where_the_other_side_takes_a_byte_at_a_time() {
        let (near, mut far) = tokio::io::duplex(1);
        let mut near = Enveloped::new(near, Arc::new(SystemIds::new()));
        let before = "HTTP/1.1 200 OK\r\nx-request-id: 1\r\ncontent-length: 0\r\n\r\n";
        let writing = async {
            near.write_all(format!("{before}{BARE}").as_bytes()).await.unwrap();
            near.shutdown().await.unwrap();
        };
        let mut text = String::new();
        let (read, ()) = tokio::join!(far.read_to_string(&mut text), writing);
        read.unwrap();
        let finished = text.strip_prefix(before).unwrap();
        let (head, body) = finished.split_once("\r\n\r\n").unwrap();
        assert!(head.contains("\r\ndate: Thu, 26 Nov 2026 11:18:59 GMT"), "{head}");
        assert!(head.contains(&format!("\r\ncontent-length: {}\r\n", body.len())), "{head}");
        let body: serde_json::Value = serde_json::from_str(body).unwrap();
        assert_eq!(body["code"], "HEADERS_TOO_LARGE");
    }
}
