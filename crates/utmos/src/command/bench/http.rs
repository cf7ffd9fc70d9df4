//! The leanest client that can load the server: one connection, one request at a time, and no more of HTTP/1.1 than the
//! server's own answers need. What it costs is taken from the processors the server runs on.

use std::{io, net::SocketAddr};

use anyhow::{Context, bail};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};
use utmos_core::{
    credential::SigningKey,
    id::ApiId,
    signing::{HEADERS, SignedParts, sign},
    time::Clock,
};
use utmos_server::clock::SystemClock;

use crate::api::access::Access;

/// Longest answer that is read.
const ANSWER_BYTES_MAX: usize = 16 * 1024 * 1024;

/// Who signs.
pub struct Signer {
    pub api_id: ApiId,
    pub key: SigningKey,
    pub clock: SystemClock,
}

impl Signer {
    pub fn new(access: &Access) -> Self {
        Self {
            api_id: access.api_id.clone(),
            key: access.key.signing_key(),
            clock: SystemClock::new(),
        }
    }
}

/// A connection that is kept.
pub struct Connection {
    stream: TcpStream,
    out: Vec<u8>,
    /// What has been read; the last answer lies in it.
    came: Vec<u8>,
}

/// An answer.
pub struct Answer<'a> {
    pub status: u16,
    pub body: &'a [u8],
}

impl Connection {
    pub async fn open(address: SocketAddr) -> io::Result<Self> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        Ok(Self { stream, out: Vec::new(), came: Vec::new() })
    }

    /// A request that is not signed.
    pub async fn get(&mut self, path: &str) -> anyhow::Result<Answer<'_>> {
        self.out.clear();
        self.out
            .extend_from_slice(format!("GET {path} HTTP/1.1\r\nHost: bench\r\n\r\n").as_bytes());
        self.exchange().await
    }

    /// A request with a JSON body that is not signed, and with further headers, each with the end of its line.
    pub async fn post(
        &mut self,
        path: &str,
        headers: &str,
        body: &[u8],
    ) -> anyhow::Result<Answer<'_>> {
        let bytes = body.len();
        let head = format!(
            "POST {path} HTTP/1.1\r\nHost: bench\r\nContent-Type: application/json\r\nContent-Length: {bytes}\r\n{headers}\r\n"
        );
        self.out.clear();
        self.out.extend_from_slice(head.as_bytes());
        self.out.extend_from_slice(body);
        self.exchange().await
    }

    /// A signed request.
    pub async fn signed(
        &mut self,
        signer: &Signer,
        nonce: &str,
        parts: SignedParts<'_>,
    ) -> anyhow::Result<Answer<'_>> {
        let Signer { api_id, key, clock } = signer;
        let timestamp = clock.now().wall.as_millis() / 1_000;
        let signature = sign(key, parts, api_id, timestamp, nonce);
        let SignedParts { method, path, query, body } = parts;
        let (mark, query) = query.map_or(("", ""), |query| ("?", query));
        let [id, time, once, proof] = HEADERS;
        let bytes = body.len();
        let head = format!(
            "{method} {path}{mark}{query} HTTP/1.1\r\nHost: bench\r\nContent-Type: application/json\r\nContent-Length: \
             {bytes}\r\n{id}: {api_id}\r\n{time}: {timestamp}\r\n{once}: {nonce}\r\n{proof}: {signature}\r\n\r\n",
        );
        self.out.clear();
        self.out.extend_from_slice(head.as_bytes());
        self.out.extend_from_slice(body);
        self.exchange().await
    }

    async fn exchange(&mut self) -> anyhow::Result<Answer<'_>> {
        self.stream.write_all(&self.out).await.context("the server takes no request")?;
        self.came.clear();
        let (status, start, end) = loop {
            if let Some(whole) = whole(&self.came)? {
                break whole;
            }
            if ANSWER_BYTES_MAX < self.came.len() {
                bail!("the server's answer is longer than {ANSWER_BYTES_MAX} bytes");
            }
            if self.stream.read_buf(&mut self.came).await.context("the server gives no answer")?
                == 0
            {
                bail!("the server closed the connection");
            }
        };
        let body = self.came.get(start..end).unwrap_or_default();
        Ok(Answer { status, body })
    }
}

/// Status, start and end of the body, once all of it has come.
fn whole(came: &[u8]) -> anyhow::Result<Option<(u16, usize, usize)>> {
    let Some(head_end) = came.windows(4).position(|window| window == b"\r\n\r\n") else {
        return Ok(None);
    };
    let head = std::str::from_utf8(came.get(..head_end).unwrap_or_default())
        .context("an answer's head is no text")?;
    let mut lines = head.split("\r\n");
    let status = lines.next().and_then(|line| line.split(' ').nth(1)?.parse().ok());
    let status = status.context("an answer without a status")?;
    let length = lines.find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("content-length").then(|| value.trim().parse::<usize>().ok())?
    });
    // An answer without content says no length.
    let length = if status == 204 { length.or(Some(0)) } else { length };
    let start = head_end + 4;
    let end = start + length.context("an answer without a length")?;
    Ok((end <= came.len()).then_some((status, start, end)))
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]
    use super::*;

    #[test]
    fn an_answer_is_whole_when_all_of_its_body_has_come() {
        let text = b"HTTP/1.1 202 Accepted\r\ncontent-type: x\r\nContent-Length: 5\r\n\r\nhello";
        for cut in 0..text.len() {
            assert_eq!(whole(&text[..cut]).unwrap(), None, "{cut}");
        }
        let (status, start, end) = whole(text).unwrap().unwrap();
        assert_eq!((status, &text[start..end]), (202, &b"hello"[..]));
    }

    #[test]
    fn an_answer_without_content_is_whole_with_its_head() {
        let text = b"HTTP/1.1 204 No Content\r\nDate: x\r\n\r\n";
        assert_eq!(whole(text).unwrap(), Some((204, text.len(), text.len())));
    }

    #[test]
    fn an_answer_that_does_not_say_how_long_it_is_is_refused() {
        assert!(whole(b"HTTP/1.1 200 OK\r\n\r\n").is_err());
        assert!(whole(b"nonsense\r\n\r\n").is_err());
    }
}
