//! Docks over real MQTT: one task for each, and one ledger for all.

use std::{
    fs::OpenOptions,
    future::pending,
    io,
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, SystemTime},
};

use futures_util::{StreamExt, future::join_all, stream::FuturesUnordered};
use tokio::{
    sync::{mpsc, watch},
    task::JoinHandle,
    time::{Instant, sleep_until},
};
use utmos_core::{
    id::InvalidSn,
    time::{Mono, Now, Timestamp},
};
use utmos_dji::catalogue::{Catalogue, CatalogueError};
use utmos_mqtt::{Client, ClientConfig, Inbound, Outlet, Password, Publish, Qos, Sent};

use crate::{
    Dock, DockConfig, FleetConfig, Happening, Ledger, Outcome, Output, Passed, Received, Settings,
    Way,
    fault::{Deeds, Fault, FaultyDock},
};

/// Messages from the broker that wait for a dock.
const INBOUND_MAX: usize = 32;
/// Messages of a dock on their way to the broker; what comes on top is dropped.
const OUTBOUND_MAX: usize = 256;

/// Why a fleet does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// A dock's or an aircraft's serial number is no safe topic level.
    #[error("dock {sn:?} has a serial number that cannot be used")]
    SerialNumber {
        /// The dock.
        sn: String,
        /// What is wrong.
        #[source]
        source: InvalidSn,
    },
    /// The speed is no positive number.
    #[error("the speed must be a positive number, not {0}")]
    Speed(f64),
    /// The oracle log cannot be opened.
    #[error("the oracle log {} cannot be opened for appending", path.display())]
    OracleLog {
        /// The file.
        path: PathBuf,
        /// The system's word.
        #[source]
        source: io::Error,
    },
    /// The catalogue does not read.
    #[error("the catalogue of methods cannot be read")]
    Catalogue(#[from] CatalogueError),
}

/// Running docks. Dropping it cuts their connections; [`Fleet::shutdown`] says goodbye first.
#[derive(Debug)]
pub struct Fleet {
    docks: Vec<DockConfig>,
    shared: Arc<Shared>,
    tasks: Vec<JoinHandle<()>>,
}

#[derive(Debug)]
struct Shared {
    ledger: Mutex<Ledger>,
    clock: Clock,
    ready: watch::Sender<usize>,
    changes: watch::Sender<u64>,
    stop: watch::Sender<bool>,
    on_event: Option<mpsc::Sender<Happening>>,
    on_wire: Option<mpsc::UnboundedSender<Passed>>,
}

impl Shared {
    fn ledger(&self) -> MutexGuard<'_, Ledger> {
        self.ledger.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Shows a message to whoever wants to see it.
    fn heard(&self, sn: &Arc<str>, message: &Inbound) {
        if let (Some(observer), Inbound::Message { topic, payload, .. }) = (&self.on_wire, message)
        {
            let _ = observer.send(Passed {
                sn: Arc::clone(sn),
                topic: topic.to_string(),
                payload: payload.to_vec(),
                at: self.clock.now().wall,
                way: Way::Down,
            });
        }
    }
}

/// The time of all docks: read from the wall once, and then running on without jumps.
#[derive(Debug, Clone, Copy)]
struct Clock {
    started: Instant,
    wall: i64,
}

impl Clock {
    #[expect(
        clippy::disallowed_methods,
        reason = "the docks' own clock, which no port of the platform's may drive"
    )]
    fn start() -> Self {
        let wall = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        Self { started: Instant::now(), wall: i64::try_from(wall.as_millis()).unwrap_or(0) }
    }

    fn now(&self) -> Now {
        let run = self.started.elapsed().as_millis();
        Now {
            wall: Timestamp::from_millis(self.wall + i64::try_from(run).unwrap_or(0)),
            mono: Mono::from_millis(u64::try_from(run).unwrap_or(0)),
        }
    }

    fn at(&self, millis: u64) -> Instant {
        self.started + Duration::from_millis(millis)
    }
}

impl Fleet {
    /// Starts every dock. They connect in the background, again and again if need be; [`Fleet::ready`] waits for them.
    ///
    /// Must be called inside of a tokio runtime.
    ///
    /// # Errors
    /// When the configuration cannot be used.
    pub fn start(config: FleetConfig) -> Result<Self, StartError> {
        let FleetConfig {
            broker,
            docks,
            seed,
            speed,
            reply,
            quiet,
            faults,
            oracle_log,
            on_event,
            on_wire,
        } = config;
        if !(speed.is_finite() && 0.0 < speed) {
            return Err(StartError::Speed(speed));
        }
        let log = match oracle_log {
            Some(path) => {
                let file = OpenOptions::new().create(true).append(true).open(&path);
                Some(file.map_err(|source| StartError::OracleLog { path, source })?)
            }
            None => None,
        };
        let catalogue = Arc::new(Catalogue::embedded()?);
        let settings = Settings { speed, reply, quiet, observed: on_event.is_some() };
        let shared = Arc::new(Shared {
            ledger: Mutex::new(Ledger::with_log(log)),
            clock: Clock::start(),
            ready: watch::Sender::new(0),
            changes: watch::Sender::new(0),
            stop: watch::Sender::new(false),
            on_event,
            on_wire,
        });
        let mut made = Vec::with_capacity(docks.len());
        for dock in &docks {
            let now = shared.clock.now();
            let pure = Dock::new(dock, settings, Arc::clone(&catalogue), seed, now)
                .map_err(|source| StartError::SerialNumber { sn: dock.sn.clone(), source })?;
            let mut client = ClientConfig::new(&broker.host, broker.port, &dock.sn);
            client.username = Some(dock.username.clone());
            client.password = Some(Password::new(dock.password.as_bytes()));
            client.keep_alive = broker.keep_alive;
            client.protocol = broker.protocol;
            client.tls = broker.tls.clone();
            client.reconnect_wait_min = broker.reconnect_wait_min;
            client.reconnect_wait_max = broker.reconnect_wait_max;
            client.subscriptions =
                pure.subscriptions().into_iter().map(|filter| (filter, Qos::AtLeastOnce)).collect();
            let pure = FaultyDock::new(pure, &faults, faults.seed.unwrap_or(seed), now);
            made.push((pure, client, Arc::from(dock.sn.as_str())));
        }
        let tasks = made
            .into_iter()
            .map(|(dock, client, sn)| tokio::spawn(live(dock, client, sn, Arc::clone(&shared))))
            .collect();
        Ok(Self { docks, shared, tasks })
    }

    /// The docks it runs.
    #[must_use]
    pub fn docks(&self) -> &[DockConfig] {
        &self.docks
    }

    /// Waits until every dock has connected, has its subscriptions, and its `update_topo` is with the broker.
    pub async fn ready(&self) {
        let mut ready = self.shared.ready.subscribe();
        let all = self.docks.len();
        // The sender lives as long as `self`, so this ends well or not at all.
        let _ = ready.wait_for(|count| all <= *count).await;
    }

    /// Every command any dock has received, in the order of arrival.
    #[must_use]
    pub fn received(&self) -> Vec<Received> {
        self.shared.ledger().all()
    }

    /// How often a `tid` was received.
    #[must_use]
    pub fn count(&self, tid: &str) -> usize {
        self.shared.ledger().count(tid)
    }

    /// What became of the last copy of a command; nothing if none was received.
    #[must_use]
    pub fn outcome(&self, tid: &str) -> Option<Outcome> {
        self.outcomes(tid).pop()
    }

    /// What became of every copy of a command.
    #[must_use]
    pub fn outcomes(&self, tid: &str) -> Vec<Outcome> {
        self.shared.ledger().outcomes(tid)
    }

    /// The fault of the plan that a command met; nothing if it met none or was not received.
    #[must_use]
    pub fn fault(&self, tid: &str) -> Option<Fault> {
        self.shared.ledger().fault(tid).cloned()
    }

    /// Tells, by a rising number, that a command was received or a job has ended: to wait for either without polling.
    #[must_use]
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.shared.changes.subscribe()
    }

    /// Says goodbye to the broker for every dock, and waits for it.
    pub async fn shutdown(mut self) {
        self.shared.stop.send_replace(true);
        join_all(std::mem::take(&mut self.tasks)).await;
    }
}

impl Drop for Fleet {
    fn drop(&mut self) {
        for task in &self.tasks {
            task.abort();
        }
    }
}

/// A dock's connection, and what comes in by it.
struct Line {
    client: Client,
    outlet: Arc<dyn Outlet>,
    inbound: mpsc::Receiver<Inbound>,
}

impl Line {
    fn open(config: ClientConfig) -> Self {
        let (sender, inbound) = mpsc::channel(INBOUND_MAX);
        let client = Client::start(config, sender);
        Self { outlet: client.outlet(), client, inbound }
    }

    /// What comes next; nothing ever where there is no line.
    async fn next(line: &mut Option<Self>) -> Option<Inbound> {
        match line {
            Some(line) => line.inbound.recv().await,
            None => pending().await,
        }
    }
}

/// The life of one dock.
async fn live(mut dock: FaultyDock, config: ClientConfig, sn: Arc<str>, shared: Arc<Shared>) {
    let mut line = Some(Line::open(config.clone()));
    // When a line that a fault cut is made anew.
    let mut back: Option<Mono> = None;
    let mut stop = shared.stop.subscribe();
    let mut on_their_way = FuturesUnordered::new();
    let mut announced = false;
    loop {
        let wake = [dock.next_wake(), back].into_iter().flatten().min();
        let wake = wake.map(|at| shared.clock.at(at.as_millis()));
        let Deeds { outputs, met, away_ms } = tokio::select! {
            biased;
            _ = stop.wait_for(|stop| *stop) => break,
            // Polled first, so that messages leave in the order they were made.
            Some((announces, sent)) = on_their_way.next(), if !on_their_way.is_empty() => {
                announced |= confirmed(&sn, announces, &sent, announced, &shared);
                continue;
            }
            message = Line::next(&mut line) => match message {
                Some(message) => {
                    shared.heard(&sn, &message);
                    hear(&mut dock, message, shared.clock.now())
                }
                None => break,
            },
            () = sleep_until(wake.unwrap_or_else(Instant::now)), if wake.is_some() => {
                let now = shared.clock.now();
                if back.is_some_and(|back| back <= now.mono) {
                    back = None;
                    line = Some(Line::open(config.clone()));
                }
                dock.tick(now)
            }
        };
        for output in outputs {
            let Some((message, announces)) = take(output, &sn, &shared) else { continue };
            let Some(line) = &line else { continue };
            if on_their_way.len() < OUTBOUND_MAX {
                let outlet = Arc::clone(&line.outlet);
                on_their_way.push(send(outlet, message, announces, &sn, &shared));
            } else {
                tracing::warn!(gateway.sn = %sn, "the broker is too slow, a message was dropped");
            }
        }
        if let Some((tid, fault)) = met {
            shared.ledger().met(&tid, fault);
        }
        if let Some(ms) = away_ms {
            // Dropped and not shut down: a connection that is lost says no goodbye.
            line = None;
            back = Some(Mono::from_millis(shared.clock.now().mono.as_millis() + ms));
        }
    }
    if let Some(line) = line {
        line.client.shutdown().await;
    }
}

async fn send(
    outlet: Arc<dyn Outlet>,
    message: Publish,
    announces: bool,
    sn: &Arc<str>,
    shared: &Shared,
) -> (bool, Sent) {
    let Some(observer) = &shared.on_wire else {
        return (announces, outlet.publish(message).await);
    };
    let (topic, payload) = (message.topic.clone(), message.payload.to_vec());
    let began_at = shared.clock.now().wall;
    let sent = outlet.publish(message).await;
    let way = Way::Up { sent: sent.clone(), settled_at: shared.clock.now().wall };
    // Whoever asked may have gone.
    let _ = observer.send(Passed { sn: Arc::clone(sn), topic, payload, at: began_at, way });
    (announces, sent)
}

/// Whether the dock is now known to be there.
fn confirmed(sn: &str, announces: bool, sent: &Sent, announced: bool, shared: &Shared) -> bool {
    match sent {
        // An MQTT 5 broker says so when nobody listens; the dock is there all the same.
        Sent::Confirmed { .. } | Sent::NoSubscriber => {
            if announces && !announced {
                shared.ready.send_modify(|count| *count += 1);
            }
            announces
        }
        Sent::Refused(reason) => {
            tracing::warn!(gateway.sn = %sn, "the broker refused a message: {reason}");
            false
        }
        Sent::Withheld | Sent::NotConnected | Sent::Unknown => false,
    }
}

fn hear(dock: &mut FaultyDock, message: Inbound, now: Now) -> Deeds {
    match message {
        Inbound::Message { topic, payload, .. } => dock.handle(&topic, &payload, now),
        Inbound::LinkUp { protocol: _ } => dock.connected(now),
        Inbound::LinkDown { reason } => dock.disconnected(&reason, now),
        // Only the embedded broker tells of these.
        Inbound::Joined { .. } | Inbound::Subscribed { .. } | Inbound::Left { .. } => {
            Deeds::default()
        }
    }
}

/// Writes down what is to be written down; gives back what is to be sent.
fn take(output: Output, sn: &Arc<str>, shared: &Shared) -> Option<(Publish, bool)> {
    match output {
        Output::Publish { topic, payload, qos, announces } => {
            return Some((Publish::new(topic, payload).with_qos(qos), announces));
        }
        Output::Received { received, receipt, outcome } => {
            shared.ledger().received(received, receipt, outcome);
            shared.changes.send_modify(|change| *change += 1);
        }
        Output::Ended { receipt, outcome } => {
            shared.ledger().ended(sn, receipt, outcome);
            shared.changes.send_modify(|change| *change += 1);
        }
        Output::Happened(happening) => {
            if let Some(observer) = &shared.on_event {
                // Who watches too slowly misses something; the docks do not wait.
                let _ = observer.try_send(happening);
            }
        }
    }
    None
}
