//! How a dock stands, for whoever looks at it from aside.

use serde::Serialize;
use utmos_core::time::Now;

use super::{Dock, debugging::Mode, flying::Stage};
use crate::Conditions;

/// How a dock and its aircraft stand.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct DockState {
    /// Serial number of the dock.
    pub sn: String,
    /// What it is.
    pub model: &'static str,
    /// Whether it has a connection to its broker.
    pub connected: bool,
    /// Whether it has announced itself on it.
    pub online: bool,
    /// `idle`, `remote_debugging`, `updating` or `working`.
    pub mode: &'static str,
    /// Its aircraft.
    pub aircraft: AircraftState,
    /// Whether it listens to direct control.
    pub direct_control: bool,
    /// What is true for it.
    pub conditions: Conditions,
    /// What it was told to ask the cloud, the newest last.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub requests: Vec<AskedRequest>,
}

/// A request that a dock was told to send, and what it got for it.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct AskedRequest {
    /// Its id.
    pub tid: String,
    /// What was asked for.
    pub method: String,
    /// The `data` of every answer.
    pub answers: Vec<serde_json::Value>,
}

/// How an aircraft stands.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct AircraftState {
    /// Its serial number.
    pub sn: String,
    /// Whether it is switched on.
    pub on: bool,
    /// `docked`, `preparing`, `airborne`, `returning`, `landing`, `stowing`, or `outside` on the ground.
    pub stage: &'static str,
    /// Percent.
    pub battery: f64,
    /// Degrees north.
    pub latitude: f64,
    /// Degrees east.
    pub longitude: f64,
    /// Metres above where it took off.
    pub elevation: f64,
}

impl Dock {
    /// How it stands at `now`.
    #[must_use]
    pub fn shown(&self, now: Now) -> DockState {
        let mut aircraft = self.aircraft.clone();
        aircraft.advance(self.flight_clock_at(now));
        DockState {
            sn: self.sn.as_str().to_owned(),
            model: self.config.model.as_str(),
            connected: !self.link.is_down(),
            online: self.link.is_announced(),
            mode: match self.hardware.mode {
                Mode::Idle => "idle",
                Mode::RemoteDebugging => "remote_debugging",
                Mode::Updating => "updating",
                Mode::Working => "working",
            },
            aircraft: AircraftState {
                sn: self.aircraft_sn.as_str().to_owned(),
                on: self.hardware.aircraft_on,
                stage: match self.sky.stage {
                    Stage::Docked => "docked",
                    Stage::Preparing { .. } => "preparing",
                    Stage::Airborne => "airborne",
                    Stage::Returning => "returning",
                    Stage::Landing { .. } => "landing",
                    Stage::Stowing => "stowing",
                    Stage::Outside => "outside",
                },
                battery: (aircraft.battery * 10.0).round() / 10.0,
                latitude: aircraft.position.latitude,
                longitude: aircraft.position.longitude,
                elevation: (aircraft.elevation() * 10.0).round() / 10.0,
            },
            direct_control: self.drc.is_some(),
            conditions: self.conditions,
            requests: self.asked.iter().cloned().collect(),
        }
    }
}
