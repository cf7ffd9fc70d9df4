//! The binary as a user runs it.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod administration;
mod config;
mod demo;
mod doctor;
mod send;
mod shell;
mod sign;
mod sim;
