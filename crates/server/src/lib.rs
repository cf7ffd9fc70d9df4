//! The running platform: takes signed requests in, moves commands, talks to gateways.
//!
//! [`Server::start`] puts the parts together; the binary and the tests choose which. Decisions are made in
//! `utmos-core`, the protocol is known to `utmos-dji`; here is what asks, saves, and then acts.

pub mod allowances;
pub mod clock;
pub mod config;
mod crash_point;
pub mod directory;
mod doorkeeper;
pub mod driver;
mod durations;
pub mod events;
pub mod fleet;
pub mod http;
pub mod ids;
pub mod link;
pub mod outside;
mod passing;
pub mod presence_topics;
pub mod replicas;
pub mod requests;
mod shares;
mod start;
pub mod telemetry;

pub use start::{Parts, Server, Sharing, StartError, outside_client};
