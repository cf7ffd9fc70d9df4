//! The simulated dock: pure under virtual time, and one over real MQTT.
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test that cannot go on should stop"
)]

mod conditions;
mod control;
mod drc;
mod fault_manual;
mod faults;
mod flights;
mod jobs;
mod kinds;
mod link;
mod methods;
mod models;
mod mqtt;
mod properties;
mod refusals;
mod seeds;
mod world;
