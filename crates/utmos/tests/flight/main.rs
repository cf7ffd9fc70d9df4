//! Whole flights: the server or the program itself, real brokers, simulated docks, and what must hold when machines,
//! clocks, brokers and callers misbehave.
#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

mod api;
mod clock;
mod crash;
mod devices;
mod dock;
mod drill;
mod events;
mod faults;
mod flood;
mod floods;
mod forged;
mod forwarder;
mod island;
mod large_fleet;
mod methods;
mod models;
mod mosquitto;
mod mosquitto_access;
mod mosquitto_doctor;
mod mosquitto_tls;
mod nats;
mod onboarding;
mod outside;
mod outside_presence;
mod place;
#[expect(dead_code, reason = "the store's tests use all of it")]
#[path = "../../../store/tests/it/postgres_server.rs"]
mod postgres_server;
mod process;
mod properties;
mod rabbitmq;
mod race;
mod recordings;
mod replay;
mod requests;
mod scenarios;
mod security;
mod skips;
mod truth;
