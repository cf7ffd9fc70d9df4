//! The client for brokers outside: one session per connection, nothing carried from one to the next.

mod acknowledgement;
mod dial;
mod late;
mod link;
mod probe;
mod tls;
mod wire;

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinHandle;
use zeroize::Zeroizing;

pub use acknowledgement::{Acknowledge, Acknowledgement};
pub use probe::{Probe, ProbeMessage, Session};
pub use tls::{ClientCertificate, ClientTls};

use crate::message::{Inbound, Outlet, Protocol, Publish, Qos, Sent};

/// Requests that may wait for the link to take them; a full queue makes `publish` wait.
const REQUESTS_MAX: usize = 256;
/// Longest a shutdown waits for the link to say goodbye.
const SHUTDOWN_WAIT: Duration = Duration::from_secs(2);

/// A password; `Debug` prints nothing of it, and the memory is wiped when it goes.
#[derive(Clone)]
pub struct Password(Zeroizing<Vec<u8>>);

impl Password {
    /// Takes the bytes.
    pub fn new(bytes: impl Into<Vec<u8>>) -> Self {
        Self(Zeroizing::new(bytes.into()))
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for Password {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Password")
    }
}

/// Which protocol to speak.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ProtocolChoice {
    /// MQTT 5, and 3.1.1 at each connect that the broker refuses or breaks off for it.
    #[default]
    Auto,
    /// MQTT 5 only.
    V5,
    /// MQTT 3.1.1 only.
    V311,
}

/// What the broker publishes for us when the connection is lost. Never retained.
#[derive(Clone)]
pub struct Will {
    /// The topic.
    pub topic: String,
    /// The payload.
    pub payload: Vec<u8>,
    /// The quality of service.
    pub qos: Qos,
}

impl fmt::Debug for Will {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Will")
            .field("topic", &self.topic)
            .field("qos", &self.qos)
            .finish_non_exhaustive()
    }
}

/// How to reach a broker and what to ask of it.
#[derive(Debug, Clone)]
pub struct ClientConfig {
    /// Name or address of the broker.
    pub host: String,
    /// Its port.
    pub port: u16,
    /// The client id; unique at the broker.
    pub client_id: String,
    /// The user name.
    pub username: Option<String>,
    /// The password.
    pub password: Option<Password>,
    /// MQTT keep-alive; zero switches it off.
    pub keep_alive: Duration,
    /// Which protocol to speak.
    pub protocol: ProtocolChoice,
    /// Subscribed at every connect, before `LinkUp`; a filter that is refused makes the connect fail.
    pub subscriptions: Vec<(String, Qos)>,
    /// The will.
    pub will: Option<Will>,
    /// TLS; `None` is plain TCP.
    pub tls: Option<ClientTls>,
    /// Who acknowledges what arrives.
    pub acknowledge: Acknowledge,
    /// First wait between two attempts to connect.
    pub reconnect_wait_min: Duration,
    /// Longest wait between two attempts.
    pub reconnect_wait_max: Duration,
    /// Longest that name lookup, TCP, TLS, CONNECT and SUBSCRIBE may take together.
    pub connect_wait: Duration,
}

impl ClientConfig {
    /// Makes a configuration with the usual values: plain TCP, protocol by agreement, keep-alive 30 s, reconnect after 0.25 s to 30 s.
    pub fn new(host: impl Into<String>, port: u16, client_id: impl Into<String>) -> Self {
        Self {
            host: host.into(),
            port,
            client_id: client_id.into(),
            username: None,
            password: None,
            keep_alive: Duration::from_secs(30),
            protocol: ProtocolChoice::Auto,
            subscriptions: Vec::new(),
            will: None,
            tls: None,
            acknowledge: Acknowledge::OnDelivery,
            reconnect_wait_min: Duration::from_millis(250),
            reconnect_wait_max: Duration::from_secs(30),
            connect_wait: Duration::from_secs(10),
        }
    }
}

impl ClientConfig {
    /// Reads the files that TLS needs, as every connect does.
    ///
    /// # Errors
    /// Which file or setting cannot be used, and why.
    pub fn check_tls(&self) -> Result<(), String> {
        self.tls.as_ref().map_or(Ok(()), |tls| tls::check(self, tls))
    }
}

/// A client that keeps itself connected. Dropping it cuts the connection; [`Client::shutdown`] says goodbye first.
#[derive(Debug)]
pub struct Client {
    gate: Arc<LinkSlot>,
    stop: watch::Sender<bool>,
    task: JoinHandle<()>,
}

impl Client {
    /// Starts to connect in the background; `inbound` tells how it goes. Messages of QoS 1 and 2 are acknowledged once they are in
    /// the channel, or by the receiver where [`ClientConfig::acknowledge`] says so.
    /// Retained messages never are: an MQTT 5 broker is asked not to send them, and what comes with the flag is dropped.
    pub fn start(config: ClientConfig, inbound: mpsc::Sender<Inbound>) -> Self {
        let gate = Arc::new(LinkSlot::default());
        let (stop, stopped) = watch::channel(false);
        let task = tokio::spawn(dial::keep_connected(config, inbound, Arc::clone(&gate), stopped));
        Self { gate, stop, task }
    }

    /// How the link is, for whoever wants to know at any time.
    pub fn health(&self) -> LinkHealth {
        LinkHealth(Arc::clone(&self.gate))
    }

    /// The way out. Stays usable over reconnects and answers `NotConnected` in between.
    pub fn outlet(&self) -> Arc<dyn Outlet> {
        Arc::new(ClientOutlet(Arc::clone(&self.gate)))
    }

    /// Whether the link is up: connected, and every subscription granted.
    pub fn is_up(&self) -> bool {
        self.gate.current().is_some()
    }

    /// Sends DISCONNECT, closes, and waits for the task to end (at most 2 s).
    pub async fn shutdown(mut self) {
        self.stop.send_replace(true);
        if tokio::time::timeout(SHUTDOWN_WAIT, &mut self.task).await.is_err() {
            tracing::debug!("the mqtt client did not end in time and was cut");
        }
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// One publish on its way to the link, and who waits for its result.
pub(crate) struct Request {
    pub(crate) message: Publish,
    pub(crate) done: oneshot::Sender<Sent>,
}

/// The way to the present link, for what is urgent and for what is not.
#[derive(Clone, Debug)]
struct Way {
    urgent: mpsc::Sender<Request>,
    usual: mpsc::Sender<Request>,
}

/// The link's end of [`Way`].
pub(crate) struct Requests {
    urgent: mpsc::Receiver<Request>,
    usual: mpsc::Receiver<Request>,
}

impl Requests {
    /// The next request; the urgent ones first, and only those unless `usual`. Never comes back once every outlet is gone.
    /// Safe to drop at any point.
    pub(crate) async fn next(&mut self, usual: bool) -> Request {
        tokio::select! {
            biased;
            Some(request) = self.urgent.recv() => request,
            Some(request) = self.usual.recv(), if usual => request,
            else => std::future::pending().await,
        }
    }

    /// The same, without waiting.
    pub(crate) fn try_next(&mut self, usual: bool) -> Option<Request> {
        let urgent = self.urgent.try_recv().ok();
        if urgent.is_some() || !usual { urgent } else { self.usual.try_recv().ok() }
    }

    /// What is left when the link ends; nothing more is taken.
    pub(crate) async fn rest(&mut self) -> Vec<Request> {
        let mut rest = Vec::new();
        for requests in [&mut self.urgent, &mut self.usual] {
            requests.close();
            while let Some(request) = requests.recv().await {
                rest.push(request);
            }
        }
        rest
    }
}

/// What a broker agreed to when a link came up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Terms {
    /// The protocol.
    pub protocol: Protocol,
    /// The largest packet that it takes, where it says so.
    pub packet_bytes_max: Option<usize>,
    /// The best quality of service that it takes messages with.
    pub qos_max: Qos,
    /// Subscriptions that it granted with a lower quality of service than was asked for.
    pub lowered: Vec<String>,
}

/// Where the present link can be found; empty while there is none.
#[derive(Default, Debug)]
pub(crate) struct LinkSlot {
    way: Mutex<Option<Way>>,
    /// Of the last link.
    terms: Mutex<Option<Terms>>,
    /// Why there is none, once that is known.
    fault: Mutex<String>,
}

/// Whether a client's link is up, and why not.
#[derive(Clone, Debug)]
pub struct LinkHealth(Arc<LinkSlot>);

impl LinkHealth {
    /// Why the link is down; `None` while it is up.
    pub fn trouble(&self) -> Option<String> {
        if self.0.current().is_some() {
            return None;
        }
        let fault = self.0.fault.lock().unwrap_or_else(PoisonError::into_inner).clone();
        Some(if fault.is_empty() { "not connected yet".to_owned() } else { fault })
    }

    /// What the broker agreed to; `None` while the link is down.
    pub fn terms(&self) -> Option<Terms> {
        self.0.current()?;
        self.0.terms.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl LinkSlot {
    pub(crate) fn open(&self, terms: Terms) -> Requests {
        *self.terms.lock().unwrap_or_else(PoisonError::into_inner) = Some(terms);
        let (urgent, urgent_queue) = mpsc::channel(REQUESTS_MAX);
        let (usual, usual_queue) = mpsc::channel(REQUESTS_MAX);
        *self.way.lock().unwrap_or_else(PoisonError::into_inner) = Some(Way { urgent, usual });
        Requests { urgent: urgent_queue, usual: usual_queue }
    }

    pub(crate) fn close(&self) {
        *self.way.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    pub(crate) fn fail(&self, reason: &str) {
        reason.clone_into(&mut self.fault.lock().unwrap_or_else(PoisonError::into_inner));
    }

    fn current(&self) -> Option<Way> {
        self.way.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

struct ClientOutlet(Arc<LinkSlot>);

#[async_trait]
impl Outlet for ClientOutlet {
    async fn publish(&self, message: Publish) -> Sent {
        let Some(way) = self.0.current() else { return Sent::NotConnected };
        let link = if message.urgent { way.urgent } else { way.usual };
        let (done, result) = oneshot::channel();
        if link.send(Request { message, done }).await.is_err() {
            return Sent::NotConnected;
        }
        drop(link);
        // The link answers every request it took; silence means that its task died, and with it the knowledge.
        result.await.unwrap_or(Sent::Unknown)
    }
}
