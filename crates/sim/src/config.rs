//! What a fleet is made of.

use std::{fmt, path::PathBuf, time::Duration};

use rand::{RngExt, SeedableRng, rngs::StdRng};
use tokio::sync::mpsc;
use utmos_mqtt::{ClientTls, ProtocolChoice};

use crate::{Happening, Login, Model, Position, Wire, fault::FaultPlan};

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
        let sn = sn_of(model, n);
        let mut rng = StdRng::seed_from_u64(seed ^ (u64::from(n) << 32) ^ 0x0070_6173_7377_6f72);
        let steps = n.saturating_sub(1);
        let (east, north) = (f64::from(steps % ROW), f64::from(steps / ROW));
        Self {
            model,
            aircraft_sn: Self::aircraft_of(model, &sn),
            username: sn.clone(),
            password: format!("{:016x}", rng.random::<u64>()),
            home: FIRST_HOME.moved(-north * SPACING_METRES, -east * SPACING_METRES),
            binding: None,
            sn,
        }
    }
}

impl DockConfig {
    /// One with a serial number of its own, at the place of the n-th of its model.
    #[must_use]
    pub fn named(model: Model, seed: u64, n: u32, Login { sn, password }: Login) -> Self {
        let n = number_of(model, &sn).unwrap_or(n);
        Self {
            username: sn.clone(),
            aircraft_sn: Self::aircraft_of(model, &sn),
            sn,
            password,
            ..Self::numbered_as(model, seed, n)
        }
    }

    /// The serial number of a dock's aircraft where none is given: that of a numbered dock has its number, another's is
    /// made of the dock's.
    #[must_use]
    pub fn aircraft_of(model: Model, sn: &str) -> String {
        let aircraft = model.aircraft_name();
        match number_of(model, sn) {
            Some(n) if sn_of(model, n) == sn => format!("SIM-{aircraft}-{n:04}"),
            Some(_) | None => format!("{sn}-{aircraft}"),
        }
    }

    /// Nobody has registered it: it connects with a binding code in the place of a password, and asks to join with it.
    pub fn be_factory_new(&mut self, organization_id: &str, code: &str) {
        code.clone_into(&mut self.password);
        self.binding =
            Some(Binding { organization_id: organization_id.to_owned(), code: code.to_owned() });
    }
}

fn sn_of(model: Model, n: u32) -> String {
    format!("{}{n:04}", model.sn_prefix())
}

/// The number that ends a serial number such as numbered docks have.
fn number_of(model: Model, sn: &str) -> Option<u32> {
    sn.strip_prefix(model.sn_prefix())?.parse().ok()
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dock_of_another_name_has_an_aircraft_of_its_own() {
        let login = |sn: &str| Login { sn: sn.to_owned(), password: "p".to_owned() };
        let named = |model, n, sn| DockConfig::named(model, 1, n, login(sn));
        let dock2 = Model::Dock2;
        assert_eq!(named(dock2, 1, "SIM-DOCK-0003").aircraft_sn, "SIM-M3D-0003");
        assert_eq!(named(dock2, 1, "SIM-DOCK-3").aircraft_sn, "SIM-DOCK-3-M3D");
        let of_dock3 = named(Model::Dock3, 1, "SIM-DOCK3-0004");
        assert_eq!((of_dock3.model, of_dock3.aircraft_sn.as_str()), (Model::Dock3, "SIM-M4D-0004"));
        assert_eq!(named(Model::RcPro, 1, "5YSZ").aircraft_sn, "5YSZ-M3E");
        let named = named(dock2, 2, "4TADL");
        assert_eq!(
            (named.sn.as_str(), named.username.as_str(), named.aircraft_sn.as_str()),
            ("4TADL", "4TADL", "4TADL-M3D")
        );
        assert_eq!(named.password, "p");
        assert_eq!(named.home, DockConfig::numbered(1, 2).home);
    }
}
