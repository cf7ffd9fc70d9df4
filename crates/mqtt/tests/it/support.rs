//! Brokers, clients and patience for the tests.
#![expect(clippy::unwrap_used, reason = "a test stops where its assumption fails")]

use std::future::Future;
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout};
use utmos_mqtt::{
    Broker, BrokerConfig, Client, ClientConfig, Doorkeeper, Entry, Inbound, Outlet, Password,
    Protocol, ProtocolChoice, Publish, Qos, Sent,
};

pub const PATIENCE: Duration = Duration::from_secs(15);

/// Waits for a future, but not for ever.
pub async fn soon<F: Future>(what: &str, future: F) -> F::Output {
    match timeout(PATIENCE, future).await {
        Ok(output) => output,
        Err(_) => panic!("waited {PATIENCE:?} in vain for: {what}"),
    }
}

/// Waits until a condition holds.
pub async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let by = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < by, "waited {PATIENCE:?} in vain for: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Lets in everyone whose password is `secret-` and their name. A dock may use the topics with its own name as third level;
/// whoever is called `observer` may do everything.
pub struct TestDoor;

impl Doorkeeper for TestDoor {
    fn authenticate(
        &self,
        _client_id: &str,
        user: Option<&str>,
        password: Option<&[u8]>,
        peer: Option<SocketAddr>,
    ) -> Entry {
        assert!(peer.is_some());
        user.is_some_and(|user| password == Some(format!("secret-{user}").as_bytes())).into()
    }

    fn may_publish(&self, user: &str, topic: &str) -> bool {
        user == "observer" || topic.split('/').nth(2) == Some(user)
    }

    fn may_subscribe(&self, user: &str, filter: &str) -> bool {
        user == "observer" || filter.split('/').nth(2) == Some(user)
    }
}

/// A broker of ours, and everything it has told so far.
pub struct Own {
    pub broker: Broker,
    pub told: Told,
}

/// An inbound channel that is always drained.
#[derive(Clone, Default)]
pub struct Told(Arc<Mutex<Vec<Inbound>>>);

impl Told {
    pub fn drain(mut inbound: mpsc::Receiver<Inbound>) -> Self {
        let told = Self::default();
        let all = told.clone();
        tokio::spawn(async move {
            while let Some(one) = inbound.recv().await {
                all.0.lock().unwrap().push(one);
            }
        });
        told
    }

    pub fn all(&self) -> Vec<Inbound> {
        self.0.lock().unwrap().clone()
    }

    /// Messages as `topic payload`.
    pub fn messages(&self) -> Vec<String> {
        self.all()
            .iter()
            .filter_map(|inbound| match inbound {
                Inbound::Message { topic, payload, .. } => {
                    Some(format!("{topic} {}", String::from_utf8_lossy(payload)))
                }
                Inbound::Joined { .. }
                | Inbound::Subscribed { .. }
                | Inbound::Left { .. }
                | Inbound::LinkUp { .. }
                | Inbound::LinkDown { .. } => None,
            })
            .collect()
    }

    pub fn count(&self, message: &str) -> usize {
        self.messages().iter().filter(|one| *one == message).count()
    }

    /// `+user` for a join, `-user` for a leave, in order.
    pub fn presence(&self) -> Vec<String> {
        self.all()
            .iter()
            .filter_map(|inbound| match inbound {
                Inbound::Joined { user, .. } => Some(format!("+{user}")),
                Inbound::Left { user, .. } => Some(format!("-{user}")),
                Inbound::Message { .. }
                | Inbound::Subscribed { .. }
                | Inbound::LinkUp { .. }
                | Inbound::LinkDown { .. } => None,
            })
            .collect()
    }

    pub fn ups(&self) -> Vec<Protocol> {
        self.all()
            .iter()
            .filter_map(|inbound| {
                if let Inbound::LinkUp { protocol } = inbound { Some(*protocol) } else { None }
            })
            .collect()
    }

    pub fn downs(&self) -> Vec<String> {
        self.all()
            .iter()
            .filter_map(|inbound| {
                if let Inbound::LinkDown { reason } = inbound { Some(reason.clone()) } else { None }
            })
            .collect()
    }
}

pub fn here(port: u16) -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], port))
}

pub async fn own() -> Own {
    own_with(BrokerConfig::new(here(0))).await
}

pub async fn own_with(config: BrokerConfig) -> Own {
    let (inbound, told) = mpsc::channel(64);
    let broker = Broker::start(config, Arc::new(TestDoor), inbound).await.unwrap();
    Own { broker, told: Told::drain(told) }
}

/// Mosquitto as a child process; killed when dropped.
pub struct Mosquitto {
    child: Child,
    pub port: u16,
    folder: tempfile::TempDir,
}

impl Mosquitto {
    pub async fn start() -> Self {
        Self::start_with("allow_anonymous true\nmax_queued_messages 0\n").await
    }

    /// One that is told more of its one listener.
    pub async fn start_with(more: &str) -> Self {
        let port = std::net::TcpListener::bind(here(0)).unwrap().local_addr().unwrap().port();
        let folder = tempfile::tempdir().unwrap();
        let config =
            format!("listener {port} 127.0.0.1\n{more}set_tcp_nodelay true\npersistence false\n");
        std::fs::write(folder.path().join("mosquitto.conf"), config).unwrap();
        let child = Self::spawn(folder.path());
        let mosquitto = Self { child, port, folder };
        mosquitto.answers().await;
        mosquitto
    }

    fn spawn(folder: &Path) -> Child {
        let binary = ["/usr/sbin/mosquitto", "/usr/bin/mosquitto", "/usr/local/sbin/mosquitto"]
            .into_iter()
            .find(|path| Path::new(path).exists())
            .unwrap_or_else(|| {
                panic!("mosquitto is not installed; run: apt-get install -y mosquitto")
            });
        Command::new(binary)
            .arg("-c")
            .arg(folder.join("mosquitto.conf"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap()
    }

    async fn answers(&self) {
        let by = Instant::now() + PATIENCE;
        while tokio::net::TcpStream::connect(here(self.port)).await.is_err() {
            assert!(Instant::now() < by, "mosquitto does not listen");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    pub fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    pub async fn start_again(&mut self) {
        self.child = Self::spawn(self.folder.path());
        self.answers().await;
    }
}

impl Drop for Mosquitto {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// Either broker, for the suite.
pub enum Any {
    Own(Own),
    Mosquitto(Mosquitto),
}

impl Any {
    pub fn port(&self) -> u16 {
        match self {
            Self::Own(own) => own.broker.local_addr().port(),
            Self::Mosquitto(mosquitto) => mosquitto.port,
        }
    }
}

pub struct TestClient {
    pub client: Client,
    pub out: Arc<dyn Outlet>,
    pub told: Told,
}

pub fn config(port: u16, user: &str, filters: &[&str]) -> ClientConfig {
    let mut config = ClientConfig::new("127.0.0.1", port, format!("id-{user}"));
    config.username = Some(user.to_owned());
    config.password = Some(Password::new(format!("secret-{user}")));
    config.subscriptions =
        filters.iter().map(|filter| ((*filter).to_owned(), Qos::AtLeastOnce)).collect();
    config.reconnect_wait_min = Duration::from_millis(20);
    config.reconnect_wait_max = Duration::from_millis(200);
    config
}

pub fn start(config: ClientConfig) -> TestClient {
    let (inbound, told) = mpsc::channel(64);
    let client = Client::start(config, inbound);
    TestClient { out: client.outlet(), client, told: Told::drain(told) }
}

/// Starts a client and waits until its link is up.
pub async fn up(config: ClientConfig) -> TestClient {
    let client = start(config);
    until("the link", || !client.told.ups().is_empty()).await;
    client
}

pub async fn up_as(port: u16, user: &str, filters: &[&str]) -> TestClient {
    up(config(port, user, filters)).await
}

pub fn choice(protocol: Protocol) -> ProtocolChoice {
    match protocol {
        Protocol::V5 => ProtocolChoice::V5,
        Protocol::V311 => ProtocolChoice::V311,
    }
}

pub async fn send(out: &Arc<dyn Outlet>, topic: &str, payload: &str) -> Sent {
    soon("the result of a publish", out.publish(Publish::new(topic, payload.to_owned()))).await
}

pub fn is_confirmed(sent: &Sent) -> bool {
    matches!(sent, Sent::Confirmed { .. })
}

/// A publish that is under way.
pub fn sending(out: &Arc<dyn Outlet>, message: Publish) -> JoinHandle<Sent> {
    let out = Arc::clone(out);
    tokio::spawn(async move { out.publish(message).await })
}
