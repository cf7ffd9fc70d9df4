//! Docks over real MQTT: one task for each, and one ledger for all.

mod controls;
mod live;
mod register;

use std::{
    collections::BTreeSet,
    fs::OpenOptions,
    io,
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, SystemTime},
};

use futures_util::future::join_all;
use tokio::{
    sync::{mpsc, watch},
    task::JoinHandle,
    time::Instant,
};
use utmos_core::{
    id::InvalidSn,
    time::{Mono, Now, Timestamp},
};
use utmos_dji::catalogue::{Catalogue, CatalogueError};
use utmos_mqtt::{Acknowledge, ClientConfig, Inbound, Password, Qos};

use crate::{
    Dock, DockConfig, FleetConfig, Happening, Ledger, Outcome, Passed, Received, Settings, Way,
    Wire,
    fault::{Fault, FaultyDock, Met},
};

use controls::Reins;
pub use controls::{CommandCopy, ControlError, Controls};
use live::live;
pub use register::List;
use register::Register;

/// Orders that wait for a dock; who gives more waits.
const ORDERS_MAX: usize = 16;

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
    /// Two of its devices have one serial number.
    #[error("{sn} is the serial number of two devices, one of them dock {dock} or its aircraft")]
    SerialNumberTwice {
        /// The serial number.
        sn: String,
        /// The second dock that has it, itself or as its aircraft's.
        dock: String,
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
    controls: Controls,
    tasks: Vec<JoinHandle<()>>,
}

#[derive(Debug)]
struct Shared {
    ledger: Mutex<Ledger>,
    register: Mutex<Register>,
    clock: Clock,
    catalogue: Arc<Catalogue>,
    ready: watch::Sender<usize>,
    changes: watch::Sender<u64>,
    stop: watch::Sender<bool>,
    on_event: Option<mpsc::Sender<Happening>>,
    on_wire: Option<mpsc::UnboundedSender<Wire>>,
}

impl Shared {
    fn ledger(&self) -> MutexGuard<'_, Ledger> {
        self.ledger.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn register(&self) -> MutexGuard<'_, Register> {
        self.register.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn now_ms(&self) -> u64 {
        self.clock.now().mono.as_millis()
    }

    /// Writes down which fault a command met.
    fn met(&self, Met { rule, tid, fault }: Met) {
        self.register().met(rule);
        if let Some(tid) = tid {
            self.ledger().met(&tid, fault);
        }
    }

    /// Shows what came to a dock to whoever wants to see it.
    fn heard(&self, sn: &Arc<str>, inbound: &Inbound) {
        let (sn, at) = (Arc::clone(sn), self.clock.now().wall);
        let seen = match inbound {
            Inbound::Message { topic, payload, .. } => {
                if self.on_wire.is_none() {
                    return;
                }
                let (topic, payload) = (topic.to_string(), payload.to_vec());
                Wire::Passed(Passed { sn, topic, payload, at, way: Way::Down })
            }
            Inbound::LinkUp { .. } => Wire::Linked { sn, at },
            Inbound::LinkDown { .. } => Wire::Cut { sn, at },
            Inbound::Joined { .. } | Inbound::Subscribed { .. } | Inbound::Left { .. } => return,
        };
        self.show(seen);
    }

    fn show(&self, seen: Wire) {
        if let Some(observer) = &self.on_wire {
            // Whoever asked may have gone.
            let _ = observer.send(seen);
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
        let mut seen = BTreeSet::new();
        for dock in &docks {
            for sn in [&dock.sn, &dock.aircraft_sn] {
                if !seen.insert(sn) {
                    let (sn, dock) = (sn.clone(), dock.sn.clone());
                    return Err(StartError::SerialNumberTwice { sn, dock });
                }
            }
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
            register: Mutex::new(Register::of(&faults, 0)),
            clock: Clock::start(),
            catalogue: Arc::clone(&catalogue),
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
            // So that faults can choose when; without one, before anything else is done.
            client.acknowledge = Acknowledge::ByReceiver;
            client.reconnect_wait_min = broker.reconnect_wait_min;
            client.reconnect_wait_max = broker.reconnect_wait_max;
            client.subscriptions =
                pure.subscriptions().into_iter().map(|filter| (filter, Qos::AtLeastOnce)).collect();
            let pure = FaultyDock::new(pure, &faults, faults.seed.unwrap_or(seed), now);
            made.push((pure, client, Arc::<str>::from(dock.sn.as_str())));
        }
        let mut reins = Vec::with_capacity(made.len());
        let mut tasks = Vec::with_capacity(made.len());
        for (dock, client, sn) in made {
            let (orders, taken) = mpsc::channel(ORDERS_MAX);
            reins.push(Reins { sn: String::from(&*sn), orders });
            tasks.push(tokio::spawn(live(dock, client, sn, Arc::clone(&shared), taken)));
        }
        let controls = Controls { shared: Arc::clone(&shared), docks: reins.into() };
        Ok(Self { docks, shared, controls, tasks })
    }

    /// A hold on it, to look at it and to change what goes wrong while it runs.
    #[must_use]
    pub fn controls(&self) -> Controls {
        self.controls.clone()
    }

    /// Waits until somebody has told it to stop; see [`Controls::stop`].
    pub async fn stopped(&self) {
        let mut stop = self.shared.stop.subscribe();
        // The sender lives as long as `self`, so this ends well or not at all.
        let _ = stop.wait_for(|stop| *stop).await;
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
