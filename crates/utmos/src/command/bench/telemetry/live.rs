//! Docks that are connected, answer every command at once, and tell of themselves when they are let.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use anyhow::Context;
use hdrhistogram::Histogram;
use tokio::{
    sync::{mpsc, oneshot, watch},
    task::{JoinHandle, JoinSet},
    time::{Instant, sleep_until, timeout},
};
use utmos_core::{id::GatewaySn, ports::Ids, time::Clock};
use utmos_dji::{
    device_side::{self, Downlink},
    downlink::Heading,
    topic::{DownlinkTopic, UplinkTopic},
};
use utmos_mqtt::{Client, ClientConfig, Inbound, Outlet, Password, Publish, Qos};
use utmos_server::{clock::SystemClock, ids::SystemIds};
use utmos_sim::DockConfig;

use super::{MESSAGES_A_SECOND, osd};
use crate::command::bench::{load, moment};

/// Docks that connect at once where nothing else is meant.
pub const CONNECTING_MAX: usize = 32;
const CONNECT_WAIT: Duration = Duration::from_secs(30);
/// Longest wait for an answer to a request.
const REPLY_WAIT: Duration = Duration::from_secs(30);
/// Tasks that send for the docks, each for its part of them.
const TELLERS: usize = 50;
const INBOUND_MAX: usize = 256;
const CONFIG: &str = r#"{"config_type":"json","config_scope":"product"}"#;

/// What docks have got, by its `tid`.
#[derive(Default)]
struct Ledger {
    commands: BTreeMap<String, usize>,
    /// Requests that wait for their answer.
    asked: BTreeMap<String, oneshot::Sender<Instant>>,
}

/// What all docks have in common.
#[derive(Default)]
struct Common {
    ledger: Mutex<Ledger>,
    /// They take commands and answer none.
    is_mute: AtomicBool,
}

type Shared = Arc<Common>;

/// All of them.
pub struct Live {
    docks: Vec<Arc<Dock>>,
    ledger: Shared,
    ids: SystemIds,
    clock: SystemClock,
}

struct Dock {
    gateway: GatewaySn,
    client: Mutex<Option<Client>>,
    outlet: Arc<dyn Outlet>,
    _answering: JoinHandle<()>,
}

/// The docks' messages, until they are stopped.
pub struct Telling {
    stop: watch::Sender<bool>,
    tellers: JoinSet<()>,
}

impl Telling {
    pub async fn stop(mut self) {
        let _ = self.stop.send(true);
        while self.tellers.join_next().await.is_some() {}
    }
}

impl Live {
    /// Connects them, so many at once.
    pub async fn connect(
        broker: SocketAddr,
        docks: Vec<DockConfig>,
        at_once: usize,
    ) -> anyhow::Result<Self> {
        let ledger = Shared::default();
        let (mut waiting, mut connected) = (docks.into_iter(), Vec::new());
        let mut connecting = JoinSet::new();
        loop {
            while connecting.len() < at_once
                && let Some(dock) = waiting.next()
            {
                connecting.spawn(Dock::connect(broker, dock, Arc::clone(&ledger)));
            }
            let Some(dock) = connecting.join_next().await else { break };
            connected.push(Arc::new(dock??));
        }
        Ok(Self { docks: connected, ledger, ids: SystemIds::new(), clock: SystemClock::new() })
    }

    /// The serial number of the n-th dock, round and round.
    pub fn sn(&self, n: usize) -> &str {
        self.docks.get(n % self.docks.len().max(1)).map_or("", |dock| dock.gateway.as_str())
    }

    /// How often a command has come.
    pub fn count(&self, tid: &str) -> usize {
        lock(&self.ledger).commands.get(tid).copied().unwrap_or(0)
    }

    /// How many commands have come in all.
    pub fn commands(&self) -> usize {
        lock(&self.ledger).commands.values().sum()
    }

    /// Has them take commands from now on and answer none.
    pub fn fall_silent(&self) {
        self.ledger.is_mute.store(true, Ordering::Relaxed);
    }

    /// Has every dock tell of itself from now on, evenly spread over time.
    pub fn tell(&self) -> Telling {
        let (stop, stopped) = watch::channel(false);
        let mut tellers = JoinSet::new();
        let (period, began) = (Duration::from_secs(1) / MESSAGES_A_SECOND, Instant::now());
        let share = self.docks.len().div_ceil(TELLERS);
        for (number, docks) in self.docks.chunks(share.max(1)).enumerate() {
            let (docks, stopped) = (docks.to_vec(), stopped.clone());
            let first = number * share;
            tellers.spawn(async move {
                let clock = SystemClock::new();
                let pace = period / u32::try_from(docks.len()).unwrap_or(1).max(1);
                let mut intended = began;
                for n in 0.. {
                    for (at, dock) in docks.iter().enumerate() {
                        sleep_until(intended).await;
                        if *stopped.borrow() {
                            return;
                        }
                        dock.tell(first + at, n, &clock).await;
                        intended += pace;
                    }
                }
            });
        }
        Telling { stop, tellers }
    }

    /// Has docks ask for their configuration at a fixed pace; answers how long the answers took, each from when its request
    /// was meant to leave.
    pub async fn ask(&self, pace: Duration, until: Instant) -> anyhow::Result<Histogram<u64>> {
        let (mut times, mut intended, mut waiting) =
            (load::times(), Instant::now(), JoinSet::new());
        for dock in self.docks.iter().cycle() {
            if until <= intended {
                break;
            }
            moment::reach(intended).await;
            let tid = self.ids.random().to_string();
            let (told, answered) = oneshot::channel();
            lock(&self.ledger).asked.insert(tid.clone(), told);
            let heading = Heading { tid: &tid, bid: &tid, at: self.clock.now().wall };
            let payload = device_side::request(heading, &dock.gateway, "config", CONFIG);
            let topic = UplinkTopic::Requests { gateway: dock.gateway.clone() }.to_string();
            let (outlet, meant) = (Arc::clone(&dock.outlet), intended);
            waiting.spawn(async move {
                outlet.publish(Publish::new(topic, payload)).await;
                let came =
                    timeout(REPLY_WAIT, answered).await.context("a request has no answer")?;
                Ok::<_, anyhow::Error>(came?.saturating_duration_since(meant))
            });
            intended += pace;
        }
        while let Some(took) = waiting.join_next().await {
            load::record(&mut times, took??);
        }
        Ok(times)
    }

    pub async fn leave(&self) {
        for dock in &self.docks {
            let client = dock.client.lock().unwrap_or_else(PoisonError::into_inner).take();
            if let Some(client) = client {
                client.shutdown().await;
            }
        }
    }
}

impl Dock {
    async fn connect(broker: SocketAddr, dock: DockConfig, ledger: Shared) -> anyhow::Result<Self> {
        let gateway = GatewaySn::parse(&dock.sn)?;
        let services = DownlinkTopic::Services { gateway: gateway.clone() };
        let replies = DownlinkTopic::RequestsReply { gateway: gateway.clone() };
        let mut config = ClientConfig::new(broker.ip().to_string(), broker.port(), &dock.sn);
        config.username = Some(dock.username.clone());
        config.password = Some(Password::new(dock.password.as_bytes()));
        config.subscriptions =
            vec![(services.to_string(), Qos::AtLeastOnce), (replies.to_string(), Qos::AtLeastOnce)];
        let (sender, mut inbound) = mpsc::channel(INBOUND_MAX);
        let client = Client::start(config, sender);
        let up = async {
            while !matches!(inbound.recv().await.context("a client ended")?, Inbound::LinkUp { .. })
            {
            }
            Ok::<_, anyhow::Error>(())
        };
        timeout(CONNECT_WAIT, up).await.context("a dock does not come online")??;
        let outlet = client.outlet();
        let answering = tokio::spawn(answer(inbound, services, Arc::clone(&outlet), ledger));
        Ok(Self { gateway, client: Mutex::new(Some(client)), outlet, _answering: answering })
    }

    async fn tell(&self, number: usize, n: u64, clock: &SystemClock) {
        let id = format!("{number:08}-0000-4000-8000-{n:012}");
        let heading = Heading { tid: &id, bid: &id, at: clock.now().wall };
        let payload = device_side::osd(heading, &self.gateway, &osd::part(number, n));
        let topic = UplinkTopic::Osd { device: self.gateway.to_device() }.to_string();
        self.outlet.publish(Publish::new(topic, payload)).await;
    }
}

/// Answers commands, and notes what came.
async fn answer(
    mut inbound: mpsc::Receiver<Inbound>,
    services: DownlinkTopic,
    outlet: Arc<dyn Outlet>,
    ledger: Shared,
) {
    let (own, clock) = (services.to_string(), SystemClock::new());
    let reply_topic = format!("{own}_reply");
    while let Some(message) = inbound.recv().await {
        let at = Instant::now();
        let Inbound::Message { topic, payload, .. } = message else { continue };
        if *topic != *own {
            let tid = serde_json::from_slice::<Answered<'_>>(&payload).map(|answered| answered.tid);
            let asked = tid.ok().and_then(|tid| lock(&ledger).asked.remove(tid));
            if let Some(asked) = asked {
                let _ = asked.send(at);
            }
            continue;
        }
        let Ok(Downlink::Services { exchange, method, .. }) =
            device_side::read(&services, &payload)
        else {
            continue;
        };
        let tid = exchange.tid.clone().unwrap_or_default();
        *lock(&ledger).commands.entry(tid).or_insert(0) += 1;
        if ledger.is_mute.load(Ordering::Relaxed) {
            continue;
        }
        let method = method.unwrap_or_default();
        let reply =
            device_side::services_reply(&exchange, &method, r#"{"result":0}"#, clock.now().wall);
        let (outlet, topic) = (Arc::clone(&outlet), reply_topic.clone());
        // Awaiting the confirmation here would hold up the messages it comes behind.
        tokio::spawn(async move { outlet.publish(Publish::new(topic, reply)).await });
    }
}

#[derive(serde::Deserialize)]
struct Answered<'a> {
    tid: &'a str,
}

fn lock(ledger: &Shared) -> MutexGuard<'_, Ledger> {
    ledger.ledger.lock().unwrap_or_else(PoisonError::into_inner)
}
