//! The server as its callers and its docks meet it: real HTTP, real SQLite in a temporary folder, our own broker, and
//! docks that do exactly what a test tells them.
#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

mod app;
mod bad_input;
mod bad_peers;
mod behaviour;
mod bindings;
mod cancelling;
mod commands_api;
mod devices;
mod devices_api;
mod dock;
mod emergency;
mod error_codes;
mod events;
mod events_each;
mod fleet_unwell;
mod history_unwell;
mod life;
mod limits;
mod lines;
mod metrics;
mod onboarding;
mod openapi;
mod order;
mod overtaken;
mod presence;
mod requests;
mod requests_golden;
mod requests_unwell;
mod routes;
mod shares;
mod signing;
mod strangers;
mod telemetry;
mod trouble;
mod unwell;
mod uplink;
mod wire;
