//! The targets, by what they read.

mod commands;
mod devices;
mod files;
mod journal;
mod packets;
mod presence;
mod reports;
mod requests;
mod simulator;
mod wire;

use std::sync::LazyLock;

use utmos_dji::{catalogue::Catalogue, hms::Meanings};

pub use self::{
    commands::{canonical_query, command_body, payload, signed_headers},
    devices::{device_bodies, device_request_bodies, joining},
    files::{catalogue_override, config},
    journal::{emergency_journal, journal_file},
    packets::{mqtt_hello, mqtt_packets},
    presence::presence_topics,
    reports::{alarms, telemetry},
    requests::{list_queries, sim_control},
    simulator::{dock_logins, fault_flag, scenario, trial_plan},
    wire::{downlink, topics, uplink},
};

/// The catalogue of the program.
static CATALOGUE: LazyLock<Catalogue> = LazyLock::new(|| {
    Catalogue::embedded()
        .unwrap_or_else(|err| panic!("the embedded catalogue does not read: {err}"))
});

/// The words of alarms.
static MEANINGS: LazyLock<Meanings> = LazyLock::new(|| {
    Meanings::embedded().unwrap_or_else(|err| panic!("the table of alarms does not read: {err}"))
});

/// The first line, and what follows it.
fn first_line(input: &[u8]) -> (&[u8], &[u8]) {
    let end = input.iter().position(|byte| *byte == b'\n').unwrap_or(input.len());
    let (first, rest) = input.split_at(end);
    (first, rest.get(1..).unwrap_or_default())
}

/// A text that tells somebody what is wrong: there, not endless, and on as few lines as it has problems.
fn is_told(text: &str) {
    assert!(!text.trim().is_empty(), "an error that says nothing");
}
