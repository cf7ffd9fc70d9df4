//! The embedded broker: devices connect to it over sockets, the server talks to it in-process.
//!
//! Packets are written and read by a library; what they mean is decided here, for four reasons: sessions
//! end with their connection, and nothing is kept for who is not there; a confirmation is the client's own, under the packet id
//! its message had; a connection costs little while it says nothing; and any of them can be ended from outside, at once.
//!
//! A message a device publishes is taken in-process. It is routed on only where another authorised client is subscribed to its
//! topic at that moment (a second observer beside the server); the Doorkeeper decides who may be.

mod connection;
mod door;
pub(crate) mod hello;
mod leave;
mod listen;
mod outlet;
mod packets;
mod places;
mod presence;
mod session;
mod socket;
mod table;

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;

use crate::message::{Inbound, Outlet};
use door::Logins;
use hello::CONNECT_BYTES_MAX;
use leave::Stop;
use outlet::BrokerOutlet;
use places::Places;
use table::Table;

/// What the Doorkeeper says of one who wants to connect.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Entry {
    /// It stays out.
    Refused,
    /// It may connect.
    Granted,
    /// It may connect, and every other connection of its user name ends before: they are somebody else's.
    GrantedAlone,
}

impl From<bool> for Entry {
    fn from(may: bool) -> Self {
        if may { Self::Granted } else { Self::Refused }
    }
}

/// Decides who may connect, publish and subscribe. Answers at once, from memory: it is asked for every message.
pub trait Doorkeeper: Send + Sync {
    /// Whether this client may connect. Not asked for clients without a user name, which are refused.
    fn authenticate(
        &self,
        client_id: &str,
        user: Option<&str>,
        password: Option<&[u8]>,
        peer: Option<SocketAddr>,
    ) -> Entry;
    /// Whether this user may publish to this topic (its will included).
    fn may_publish(&self, user: &str, topic: &str) -> bool;
    /// Whether this user may subscribe to this filter, wildcards and all.
    fn may_subscribe(&self, user: &str, filter: &str) -> bool;
    /// Whether clients whose filters match may get what another client publishes on this topic. Asked before it is looked for who
    /// listens.
    fn may_overhear(&self, _topic: &str) -> bool {
        true
    }
}

/// The listener for TLS.
#[derive(Debug, Clone)]
pub struct BrokerTls {
    /// Its own address.
    pub listen: SocketAddr,
    /// PEM file with the certificate chain.
    pub cert: PathBuf,
    /// PEM file with the private key.
    pub key: PathBuf,
}

/// Settings of the embedded broker.
#[derive(Debug, Clone)]
pub struct BrokerConfig {
    /// Address of the plain TCP listener; port 0 takes a free one.
    pub listen: SocketAddr,
    /// Connections at once, those that have not logged in yet included; of these the oldest gives way when all places are
    /// taken. More are closed at accept.
    pub clients_max: usize,
    /// Largest packet taken from or sent to a client.
    pub packet_bytes_max: usize,
    /// QoS 1 and 2 messages a client may leave unconfirmed; a client's own receive maximum may make it less.
    pub unconfirmed_max: u16,
    /// A second listener, with TLS.
    pub tls: Option<BrokerTls>,
}

impl BrokerConfig {
    /// Makes a configuration with the usual limits: 10,000 clients, packets of 1 MiB with their heads.
    pub fn new(listen: SocketAddr) -> Self {
        Self {
            listen,
            clients_max: 10_000,
            packet_bytes_max: (1024 + 64) * 1024,
            unconfirmed_max: 256,
            tls: None,
        }
    }
}

/// Why the broker did not start.
#[derive(Debug, thiserror::Error)]
pub enum BrokerError {
    /// The address is taken.
    #[error(
        "cannot listen on {address}: another program uses this port; stop it or choose another port for the broker"
    )]
    PortInUse {
        /// The address asked for.
        address: SocketAddr,
        /// The system's word.
        source: io::Error,
    },
    /// The system refuses the address for another reason.
    #[error(
        "cannot listen on {address}; check that the address is one of this machine's and that the port may be used"
    )]
    Listen {
        /// The address asked for.
        address: SocketAddr,
        /// The system's word.
        source: io::Error,
    },
    /// The certificate or its key cannot be used.
    #[error("cannot use {} and {} for TLS: {reason}; both must be readable PEM files that belong together", cert.display(), key.display())]
    Tls {
        /// The certificate file.
        cert: PathBuf,
        /// The key file.
        key: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// A limit that makes no sense.
    #[error("the broker's {name} must not be 0")]
    Zero {
        /// The setting.
        name: &'static str,
    },
}

/// A running broker. Dropping it cuts every connection; [`Broker::shutdown`] says goodbye first.
#[derive(Debug)]
pub struct Broker {
    shared: Arc<Shared>,
    local_addr: SocketAddr,
    local_tls_addr: Option<SocketAddr>,
    tasks: Vec<JoinHandle<()>>,
}

/// What every connection and every outlet needs.
struct Shared {
    doorkeeper: Arc<dyn Doorkeeper>,
    inbound: mpsc::Sender<Inbound>,
    /// Held while presence changes and is told, so that what is told last is true.
    presence: tokio::sync::Mutex<()>,
    table: Table,
    logins: Logins,
    packet_bytes_max: usize,
    connect_bytes_max: usize,
    clients_max: usize,
    unconfirmed_max: u16,
    places: Mutex<Places>,
    closing: watch::Sender<bool>,
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared").finish_non_exhaustive()
    }
}

/// Longest a connection that must end may take to say goodbye.
const GOODBYE_WAIT: Duration = Duration::from_secs(1);
/// Longest a shutdown takes.
const SHUTDOWN_WAIT: Duration = Duration::from_secs(3);

impl Broker {
    /// Starts the broker; returns when it listens. What devices send, and their coming and going, goes to `inbound`, each
    /// device's in its order and the devices in turn. While the channel is full each device may have 64 messages (1 MiB)
    /// waiting, acknowledged and in memory; one that sends more is held up, and it alone.
    #[expect(
        clippy::unused_async,
        reason = "what it begins runs on the runtime of whoever awaits it"
    )]
    pub async fn start(
        config: BrokerConfig,
        doorkeeper: Arc<dyn Doorkeeper>,
        inbound: mpsc::Sender<Inbound>,
    ) -> Result<Self, BrokerError> {
        for (name, zero) in [
            ("clients_max", config.clients_max == 0),
            ("packet_bytes_max", config.packet_bytes_max == 0),
            ("unconfirmed_max", config.unconfirmed_max == 0),
        ] {
            if zero {
                return Err(BrokerError::Zero { name });
            }
        }
        let (listener, local_addr) = bind(config.listen)?;
        let tls = match &config.tls {
            Some(tls) => Some((bind(tls.listen)?, listen::acceptor(tls)?)),
            None => None,
        };

        let shared = Arc::new(Shared {
            doorkeeper,
            inbound,
            presence: tokio::sync::Mutex::new(()),
            table: Table::default(),
            logins: Logins::default(),
            packet_bytes_max: config.packet_bytes_max,
            connect_bytes_max: config.packet_bytes_max.min(CONNECT_BYTES_MAX),
            clients_max: config.clients_max,
            unconfirmed_max: config.unconfirmed_max,
            places: Mutex::new(Places::new(config.clients_max)),
            closing: watch::Sender::new(false),
        });
        let mut tasks = vec![tokio::spawn(listen::accept(Arc::clone(&shared), listener, None))];
        let mut local_tls_addr = None;
        if let Some(((listener, address), acceptor)) = tls {
            local_tls_addr = Some(address);
            tasks.push(tokio::spawn(listen::accept(Arc::clone(&shared), listener, Some(acceptor))));
        }
        tracing::info!(address = %local_addr, "the mqtt broker listens on {local_addr}");
        Ok(Self { shared, local_addr, local_tls_addr, tasks })
    }

    /// Where the plain listener listens.
    pub fn local_addr(&self) -> SocketAddr {
        self.local_addr
    }

    /// Where the TLS listener listens.
    pub fn local_tls_addr(&self) -> Option<SocketAddr> {
        self.local_tls_addr
    }

    /// The server's way out: in-process, without a socket, past every permission.
    pub fn outlet(&self) -> Arc<dyn Outlet> {
        Arc::new(BrokerOutlet(Arc::clone(&self.shared)))
    }

    /// A handle by which users are dismissed; it does not keep the broker.
    pub fn dismissals(&self) -> Dismissals {
        Dismissals(Arc::clone(&self.shared))
    }

    /// Dismisses this user. See [`Dismissals::dismiss`].
    pub fn disconnect(&self, user: &str) {
        self.dismissals().dismiss(user);
    }

    /// Whether a client of this user is connected and subscribed to this topic.
    pub fn is_subscribed(&self, user: &str, topic: &str) -> bool {
        self.shared.table.recipients(topic).iter().any(|recipient| &*recipient.session.user == user)
    }

    /// Connected clients.
    pub fn clients(&self) -> usize {
        self.shared.table.clients()
    }

    /// Stops listening, says goodbye to every client and waits until they are gone (at most 3 s).
    pub async fn shutdown(mut self) {
        self.shared.close();
        let tasks = std::mem::take(&mut self.tasks);
        let aborts: Vec<_> = tasks.iter().map(JoinHandle::abort_handle).collect();
        if tokio::time::timeout(SHUTDOWN_WAIT, futures_util::future::join_all(tasks)).await.is_err()
        {
            tracing::debug!("the mqtt broker did not end in time and was cut");
            for abort in aborts {
                abort.abort();
            }
        }
    }
}

/// Ends what a user began.
#[derive(Debug, Clone)]
pub struct Dismissals(Arc<Shared>);

impl Dismissals {
    /// Ends every connection of this user, within a second: from now on it gets nothing, and what it says counts for
    /// nothing. Its `Left` follows.
    pub fn dismiss(&self, user: &str) {
        // First those that are being let in: they are in the table after this, or not at all.
        self.0.places().dismiss(user);
        self.0.table.dismiss(user);
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        self.shared.close();
        for task in &self.tasks {
            task.abort();
        }
    }
}

impl Shared {
    fn places(&self) -> MutexGuard<'_, Places> {
        self.places.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes nobody in any more, and tells all who are there.
    fn close(&self) {
        self.closing.send_replace(true);
        self.places().close();
    }

    /// Ends every connection of this user but this one, which is not let in yet.
    fn dismiss_others(&self, user: &str, connection: u64) {
        // In the order of `Dismissals::dismiss`.
        self.places().dismiss_others(user, connection);
        self.table.dismiss(user);
    }

    fn stop(&self, connection: u64, stop: Stop) {
        self.places().stop(connection, stop);
    }
}

fn bind(address: SocketAddr) -> Result<(TcpListener, SocketAddr), BrokerError> {
    let listen = |source: io::Error| {
        if source.kind() == io::ErrorKind::AddrInUse {
            BrokerError::PortInUse { address, source }
        } else {
            BrokerError::Listen { address, source }
        }
    };
    let listener = crate::listen(address).map_err(listen)?;
    let local = listener.local_addr().map_err(listen)?;
    Ok((listener, local))
}
