//! The store as its callers see it. `contract` is the suite every adapter has to pass; the rest is the adapters' own.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod agreement;
mod contract;
mod crash;
mod damage;
mod events;
mod fleet;
mod given;
mod history;
mod lists;
mod opening;
mod postgres;
mod postgres_allowances;
mod postgres_commands;
mod postgres_faults;
mod postgres_flow;
mod postgres_history;
mod postgres_news;
mod postgres_opening;
mod postgres_replicas;
mod postgres_replicas_race;
mod postgres_server;
mod postgres_upgrade;
mod postgres_weeks;
mod quick;
mod registry;
mod requests;
mod roundtrip;
mod sqlite;
mod telemetry;
mod transfer;
mod transfer_export;
mod trouble;
