//! HTTP/1.1 as bytes, for what no client library would send.

use std::{fmt::Write, net::SocketAddr, time::Duration};

use reqwest::{
    StatusCode,
    header::{HeaderMap, HeaderName, HeaderValue},
};
use serde_json::Value;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpSocket, TcpStream},
};

use crate::app::{Answer, PATIENCE};

/// A connection.
pub struct Wire {
    stream: TcpStream,
    unread: Vec<u8>,
}

impl Wire {
    pub async fn open(http: SocketAddr) -> Self {
        Self { stream: TcpStream::connect(http).await.unwrap(), unread: Vec::new() }
    }

    /// The same from another address of this machine.
    pub async fn open_from(from: [u8; 4], http: SocketAddr) -> Self {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind((from, 0).into()).unwrap();
        Self { stream: socket.connect(http).await.unwrap(), unread: Vec::new() }
    }

    /// Sends what the other side may refuse to take to the end.
    pub async fn send(&mut self, bytes: &[u8]) {
        let _ = self.stream.write_all(bytes).await;
    }

    /// The next answer, or nothing when the other side closes instead.
    pub async fn answer(&mut self) -> Option<Answer> {
        let end = loop {
            if let Some(end) = self.unread.windows(4).position(|four| four == b"\r\n\r\n") {
                break end;
            }
            if !self.read_more().await {
                assert!(self.unread.is_empty(), "an answer broke off in its head");
                return None;
            }
        };
        let head = String::from_utf8(self.unread[..end].to_vec()).unwrap();
        let mut lines = head.split("\r\n");
        let status =
            lines.next().unwrap().split(' ').nth(1).unwrap().parse::<StatusCode>().unwrap();
        let mut headers = HeaderMap::new();
        for (name, value) in lines.map(|line| line.split_once(": ").unwrap()) {
            headers
                .append(name.parse::<HeaderName>().unwrap(), value.parse::<HeaderValue>().unwrap());
        }
        let length: usize = headers["content-length"].to_str().unwrap().parse().unwrap();
        while self.unread.len() < end + 4 + length {
            assert!(self.read_more().await, "an answer broke off in its body");
        }
        let body = self.unread[end + 4..end + 4 + length].to_vec();
        self.unread.drain(..end + 4 + length);
        let text = String::from_utf8(body).unwrap();
        let body = serde_json::from_str(&text).unwrap_or(Value::String(text));
        Some(Answer { status, headers, body })
    }

    /// Waits until the other side closes, whatever it sends before.
    pub async fn closed(&mut self) {
        while self.read_more().await {}
    }

    /// Goes on and on, a byte at a time and never long without one, until the other side closes. What it said meanwhile is
    /// kept.
    pub async fn drips(&mut self, bytes: &[u8]) {
        /// A small part of every limit that tests set.
        const DRIP: Duration = Duration::from_millis(50);
        let dripping = async {
            for byte in bytes.iter().cycle() {
                tokio::select! {
                    biased;
                    read = self.stream.read_buf(&mut self.unread) => match read {
                        Ok(1..) => {}
                        Ok(0) | Err(_) => return,
                    },
                    () = tokio::time::sleep(DRIP) => {
                        let _cut = self.stream.write_all(&[*byte]).await;
                    }
                }
            }
        };
        let closed = tokio::time::timeout(PATIENCE, dripping).await;
        assert!(closed.is_ok(), "whoever sends a byte now and then is never let go");
    }

    async fn read_more(&mut self) -> bool {
        let read = tokio::time::timeout(PATIENCE, self.stream.read_buf(&mut self.unread)).await;
        matches!(read.expect("neither an answer nor an end came"), Ok(count) if count > 0)
    }
}

/// The head of a request, with everything but what is said of a body.
pub fn head(method: &str, target: &str, headers: &[(&'static str, String)]) -> String {
    let mut text = format!("{method} {target} HTTP/1.1\r\nHost: test\r\n");
    for (name, value) in headers {
        write!(text, "{name}: {value}\r\n").unwrap();
    }
    text
}

/// A request, whole.
pub fn whole(
    method: &str,
    target: &str,
    headers: &[(&'static str, String)],
    body: &[u8],
) -> Vec<u8> {
    let head = head(method, target, headers);
    let more = format!("Content-Type: application/json\r\nContent-Length: {}\r\n\r\n", body.len());
    [head.as_bytes(), more.as_bytes(), body].concat()
}
