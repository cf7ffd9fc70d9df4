//! What stands in for a context broker: it takes every update of an IoT agent, keeps none, and wakes whoever waits for a
//! command's result. A real one would cost more.

use std::{
    collections::BTreeMap,
    net::{Ipv4Addr, SocketAddr},
    sync::{Arc, Mutex, PoisonError},
};

use serde::Deserialize;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::oneshot,
    task::JoinHandle,
};

/// Longest request that is read.
const REQUEST_BYTES_MAX: usize = 1024 * 1024;
const TAKEN: &[u8] = b"HTTP/1.1 204 No Content\r\n\r\n";
const REGISTERED: &[u8] =
    b"HTTP/1.1 201 Created\r\nLocation: /v2/registrations/1\r\nContent-Length: 0\r\n\r\n";

type Waiting = Arc<Mutex<BTreeMap<String, oneshot::Sender<i64>>>>;

/// It ends with this.
pub struct ContextBroker {
    pub address: SocketAddr,
    waiting: Waiting,
    serving: JoinHandle<()>,
}

/// An update of a dock's entity; the result of a command in it, if there is one.
#[derive(Deserialize)]
struct Update {
    services_info: Option<Attribute>,
}

#[derive(Deserialize)]
struct Attribute {
    value: String,
}

impl ContextBroker {
    pub async fn start() -> anyhow::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let (address, waiting) = (listener.local_addr()?, Waiting::default());
        let told = Arc::clone(&waiting);
        let serving = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve(stream, Arc::clone(&told)));
            }
        });
        Ok(Self { address, waiting, serving })
    }

    /// The result of the command with this `tid`, once it is told.
    pub fn result_of(&self, tid: &str) -> oneshot::Receiver<i64> {
        let (sender, receiver) = oneshot::channel();
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        waiting.insert(tid.to_owned(), sender);
        receiver
    }
}

impl Drop for ContextBroker {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

/// One connection, until the agent closes it.
async fn serve(mut stream: TcpStream, waiting: Waiting) {
    let mut came = Vec::new();
    if stream.set_nodelay(true).is_err() {
        return;
    }
    loop {
        let Some((is_registration, body, bytes)) = request(&came) else {
            let read = stream.read_buf(&mut came).await;
            if came.len() > REQUEST_BYTES_MAX || !read.is_ok_and(|bytes| bytes > 0) {
                return;
            }
            continue;
        };
        if let Some((tid, result)) = result_in(body) {
            let mut waiting = waiting.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(sender) = waiting.remove(&tid) {
                // Who has given up needs no result.
                let _gone = sender.send(result);
            }
        }
        let answer = if is_registration { REGISTERED } else { TAKEN };
        came.drain(..bytes);
        if stream.write_all(answer).await.is_err() {
            return;
        }
    }
}

/// Whether the first request registers something, its body, and how long it is, once all of it has come.
fn request(came: &[u8]) -> Option<(bool, &[u8], usize)> {
    let head_end = came.windows(4).position(|window| window == b"\r\n\r\n")?;
    let head = String::from_utf8_lossy(came.get(..head_end)?);
    let is_registration = head.starts_with("POST /v2/registrations");
    let length = head.split("\r\n").find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("content-length").then(|| value.trim().parse::<usize>().ok())?
    });
    let end = head_end + 4 + length.unwrap_or(0);
    Some((is_registration, came.get(head_end + 4..end)?, end))
}

/// The agent's script tells `tid` and result as one text.
fn result_in(body: &[u8]) -> Option<(String, i64)> {
    let update: Update = serde_json::from_slice(body).ok()?;
    let (tid, result) = update.services_info.as_ref()?.value.split_once(' ')?;
    Some((tid.to_owned(), result.parse().ok()?))
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]
    use super::*;

    #[test]
    fn a_request_is_read_once_all_of_it_has_come_and_no_further() {
        let first = b"POST /v2/registrations HTTP/1.1\r\nContent-Length: 2\r\n\r\n{}";
        let two = [first.as_slice(), b"POST /v2/entities HTTP/1.1\r\n\r\n"].concat();
        for cut in 0..first.len() {
            assert!(request(&two[..cut]).is_none(), "{cut}");
        }
        assert_eq!(request(&two).unwrap(), (true, &b"{}"[..], first.len()));
        let rest = &two[first.len()..];
        assert_eq!(request(rest).unwrap(), (false, &b""[..], rest.len()));
    }

    #[tokio::test]
    async fn whoever_waits_hears_the_result_and_not_that_it_is_pending() {
        let broker = ContextBroker::start().await.unwrap();
        let mut result = broker.result_of("t-1");
        let mut stream = TcpStream::connect(broker.address).await.unwrap();
        let mut tell = async |body: &str| {
            let bytes = body.len();
            let text =
                format!("POST /v2/entities HTTP/1.1\r\ncontent-length: {bytes}\r\n\r\n{body}");
            stream.write_all(text.as_bytes()).await.unwrap();
            let mut answer = vec![0; TAKEN.len()];
            stream.read_exact(&mut answer).await.unwrap();
            assert_eq!(answer, TAKEN);
        };
        tell(r#"{"id":"D","services_status":{"type":"commandStatus","value":"PENDING"}}"#).await;
        assert!(result.try_recv().is_err());
        tell(r#"{"id":"D","services_info":{"type":"commandResult","value":"t-1 325001"}}"#).await;
        assert_eq!(result.await.unwrap(), 325_001);
    }
}
