//! The binary as a user runs it.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod administration;
mod bench;
mod broker;
mod config;
mod demo;
mod doctor;
mod peers;
mod postgres;
#[expect(dead_code, reason = "the store's tests use all of it")]
#[path = "../../../store/tests/it/postgres_server.rs"]
mod postgres_server;
mod send;
mod shell;
mod sign;
mod sim;
