//! MQTT itself behind two small traits: a client for outside brokers and an embedded broker.
//!
//! The crate has never heard of a drone. What it adds to MQTT is a promise about sending: a
//! [`Publish`] leaves at most once in its life. Nothing is re-sent, nothing waits for an absent
//! receiver, nothing is retained, and [`Sent`] says what is known afterwards and no more.
//!
//! The codec underneath (`mqtt5-protocol`, pinned exactly) never shows in the public interface, so that
//! it can be replaced.
#![warn(missing_docs)]

mod broker;
mod client;
mod codec;
#[doc(hidden)]
pub mod frames;
mod listener;
mod message;
mod stop;

pub use broker::{Broker, BrokerConfig, BrokerError, BrokerTls, Dismissals, Doorkeeper, Entry};
pub use client::{
    Acknowledge, Acknowledgement, Client, ClientCertificate, ClientConfig, ClientTls, LinkHealth,
    Password, Probe, ProbeMessage, ProtocolChoice, Session, Terms, Will,
};
pub use listener::listen;
pub use message::{Gate, Inbound, Outlet, Protocol, Publish, Qos, Sent};
