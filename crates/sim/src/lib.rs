//! Simulated docks and remote controllers with an aircraft each, over real MQTT. Knows DJI's protocol, not the platform.
//! Which kinds there are, and what differs between them, stands in [`Model`].
//!
//! [`Dock`] is pure: messages and the time go in, messages come out, and dice come from its own seed, so that a virtual
//! clock can drive it. [`Fleet`] runs any number of them against any broker, one task each, and writes down in a
//! [`Ledger`] what every dock really received and did: the truth that tests compare the platform's story with.
//!
//! Faults have their place between the two: whatever a dock sends is an [`Output`], and whatever it hears comes through
//! [`Dock::handle`]. [`fault`] stands there.
#![warn(missing_docs)]

mod camera;
mod condition;
mod config;
pub mod control;
mod dock;
pub mod fault;
mod fleet;
mod flight;
mod geo;
pub mod guide;
mod happening;
mod ledger;
mod login;
mod model;
mod place;
mod plausible;
mod refusal;
mod scenario;
mod timers;
mod wire;

pub use condition::{Condition, Conditions};
pub use config::{Binding, BrokerAddress, DockConfig, FleetConfig, ReplyTiming};
pub use dock::{AircraftState, AskedRequest, Asking, Dock, DockState, Output, Settings};
pub use fleet::{CommandCopy, ControlError, Controls, Fleet, List, StartError};
pub use geo::Position;
pub use happening::{Happening, Kind};
pub use ledger::{Ledger, Outcome, Received, oracle};
pub use login::{Login, LoginError};
pub use model::{Model, UnknownModel};
pub use place::text_of;
pub use scenario::{Scenario, ScenarioDock, ScenarioDocks};
pub use wire::{Passed, Way, Wire};
