//! What a fleet is made of.

use std::{fmt, path::PathBuf, time::Duration};

use rand::{RngExt, SeedableRng, rngs::StdRng};
use tokio::sync::mpsc;
use utmos_mqtt::{ClientTls, ProtocolChoice};

use crate::{Happening, Model, Position, Wire, fault::FaultPlan};

/// A fleet of simulated docks.
#[derive(Debug, Clone)]
pub struct FleetConfig {
    /// The broker they connect to.
    pub broker: BrokerAddress,
    /// The docks.
    pub docks: Vec<DockConfig>,
    /// Fixes every id, delay and reading.
    pub seed: u64,
    /// How many times faster than real ones they fly, work and answer. Telemetry keeps its pace.
    pub speed: f64,
    /// When they answer.
    pub reply: ReplyTiming,
    /// No telemetry and no alarms, for benchmarks.
    pub quiet: bool,
    /// What is to go wrong. The empty plan: nothing.
    pub faults: FaultPlan,
    /// A file to which each received command is appended as a line of JSON, at once; see [`crate::oracle`].
    pub oracle_log: Option<PathBuf>,
    /// Who wants to be told what happens. What finds no room in the channel is dropped.
    pub on_event: Option<mpsc::Sender<Happening>>,
    /// Who wants to see every message and connection of every dock. Nothing is dropped, so whoever asks for it must keep up.
    pub on_wire: Option<mpsc::UnboundedSender<Wire>>,
}

impl FleetConfig {
    /// Makes a fleet of `docks` numbered docks that live at real speed.
    #[must_use]
    pub fn new(broker: BrokerAddress, docks: u32, seed: u64) -> Self {
        Self {
            broker,
            docks: (1..=docks).map(|n| DockConfig::numbered(seed, n)).collect(),
            seed,
            speed: 1.0,
            reply: ReplyTiming::Realistic,
            quiet: false,
            faults: FaultPlan::default(),
            oracle_log: None,
            on_event: None,
            on_wire: None,
        }
    }
}

/// A broker, as the docks reach it.
#[derive(Debug, Clone)]
pub struct BrokerAddress {
    /// Name or address.
    pub host: String,
    /// Port.
    pub port: u16,
    /// TLS; `None` is plain TCP.
    pub tls: Option<ClientTls>,
    /// Which MQTT to speak.
    pub protocol: ProtocolChoice,
    /// MQTT keep-alive.
    pub keep_alive: Duration,
    /// First wait between two attempts to connect.
    pub reconnect_wait_min: Duration,
    /// Longest wait between two attempts.
    pub reconnect_wait_max: Duration,
}

impl BrokerAddress {
    /// A broker on plain TCP, tried again within seconds when it is gone.
    #[must_use]
    pub fn new(host: impl Into<String>, port: u16) -> Self {
        Self {
            host: host.into(),
            port,
            tls: None,
            protocol: ProtocolChoice::Auto,
            keep_alive: Duration::from_secs(30),
            reconnect_wait_min: Duration::from_millis(200),
            reconnect_wait_max: Duration::from_secs(5),
        }
    }
}

/// When a dock answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ReplyTiming {
    /// Without any delay.
    AtOnce,
    /// As a recorded dock: 30 to 50 ms, 1.2 s for `drc_mode_enter`, 5 ms for a refusal; divided by the speed.
    #[default]
    Realistic,
}

/// One gateway and its aircraft.
#[derive(Clone, PartialEq)]
pub struct DockConfig {
    /// What it is.
    pub model: Model,
    /// Serial number of the gateway; also its MQTT client id.
    pub sn: String,
    /// Serial number of the aircraft.
    pub aircraft_sn: String,
    /// MQTT user name.
    pub username: String,
    /// MQTT password.
    pub password: String,
    /// Where it stands.
    pub home: Position,
    /// The organisation it asks to be bound to. Without one it asks only whether it is bound.
    pub binding: Option<Binding>,
}

/// What is typed into a dock to bind it.
#[derive(Clone, PartialEq, Eq)]
pub struct Binding {
    /// `organization_id`.
    pub organization_id: String,
    /// `device_binding_code`, a secret.
    pub code: String,
}

/// Where dock 1 stands: within a walk of the targets in the catalogue's example payloads.
const FIRST_HOME: Position = Position { latitude: 22.5790, longitude: 113.9398, height: 30.0 };
/// Docks stand in rows of this many, so far apart.
const ROW: u32 = 32;
const SPACING_METRES: f64 = 60.0;

impl DockConfig {
    /// The n-th of the default docks, from 1: `SIM-DOCK-0001` with `SIM-M3D-0001`, a Dock 2. The password depends on the
    /// seed.
    #[must_use]
    pub fn numbered(seed: u64, n: u32) -> Self {
        Self::numbered_as(Model::default(), seed, n)
    }

    /// The n-th of a model, from 1, such as `SIM-DOCK3-0001` with `SIM-M4D-0001`. It stands where the n-th of any other
    /// model would.
    #[must_use]
    pub fn numbered_as(model: Model, seed: u64, n: u32) -> Self {
        let sn = format!("{}{n:04}", model.sn_prefix());
        let mut rng = StdRng::seed_from_u64(seed ^ (u64::from(n) << 32) ^ 0x0070_6173_7377_6f72);
        let steps = n.saturating_sub(1);
        let (east, north) = (f64::from(steps % ROW), f64::from(steps / ROW));
        Self {
            model,
            aircraft_sn: format!("SIM-{}-{n:04}", model.aircraft_name()),
            username: sn.clone(),
            password: format!("{:016x}", rng.random::<u64>()),
            home: FIRST_HOME.moved(-north * SPACING_METRES, -east * SPACING_METRES),
            binding: None,
            sn,
        }
    }
}

impl DockConfig {
    /// Nobody has registered it: it connects with a binding code in the place of a password, and asks to join with it.
    pub fn be_factory_new(&mut self, organization_id: &str, code: &str) {
        code.clone_into(&mut self.password);
        self.binding =
            Some(Binding { organization_id: organization_id.to_owned(), code: code.to_owned() });
    }
}

impl fmt::Debug for DockConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DockConfig")
            .field("model", &self.model)
            .field("sn", &self.sn)
            .field("aircraft_sn", &self.aircraft_sn)
            .field("username", &self.username)
            .field("home", &self.home)
            .field("binding", &self.binding)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for Binding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Binding")
            .field("organization_id", &self.organization_id)
            .finish_non_exhaustive()
    }
}
