//! Hostile input. Every reader of bytes that come from outside has a target here: a function from any bytes to nothing,
//! which panics when the reader does not hold to what it promises. Not to panic is the least of it: what is read can be
//! written and read again, what is canonical stays so, limits hold, and what is refused is refused with a place and a
//! remedy.
//!
//! The fuzzer (`fuzz/`) and the test of this crate run the same targets on the same seeds.
#![warn(missing_docs)]

pub mod mutate;
pub mod seeds;
mod targets;

/// A reader under test.
#[derive(Clone, Copy)]
pub struct Target {
    /// Its name, and that of its folder of seeds.
    pub name: &'static str,
    /// What its bytes are.
    pub bytes: &'static str,
    /// Tries bytes. Panics when a promise does not hold.
    pub run: fn(&[u8]),
}

macro_rules! targets {
    ($($name:ident: $bytes:literal,)*) => {
        /// Every target.
        pub const TARGETS: &[Target] =
            &[$(Target { name: stringify!($name), bytes: $bytes, run: targets::$name },)*];
        pub use targets::{$($name,)*};
    };
}

targets! {
    uplink: "a topic, a line feed, and what a device published there",
    downlink: "a topic, a line feed, and a message to a device, as simulated docks read it",
    topics: "lines: a topic or a filter each",
    signed_headers: "lines: the four headers of a signature, the query, and then the body",
    canonical_query: "the query of a request, as it is signed",
    command_body: "the body of a command, as the API takes it",
    payload: "a method, a line feed, and the payload of a command",
    catalogue_override: "the file of changes to the catalogue",
    config: "the configuration file; after a line that reads [--set], one assignment a line",
    scenario: "a scenario of the simulator",
    fault_flag: "a fault or a condition of the simulator as a flag",
    trial_plan: "a plan of a trial",
    dock_logins: "the file of what simulated docks connect with",
    emergency_journal: "lines of the emergency journal; one that begins with { is sealed first",
    journal_file: "how many lines were set aside, a line feed, and the whole file of the emergency journal; a line that begins with { is sealed first",
    presence_topics: "a filter, a line feed, a topic, a line feed, and what an outside broker says there of a connection",
    mqtt_packets: "the length of a piece, and packets in such pieces",
    mqtt_hello: "the first bytes of a client of the embedded broker",
    list_queries: "the query of a list",
    device_request_bodies: "the words reply or rule, a space, the type of a request of a device, a line feed, and the body for it",
    device_bodies: "the word device or code, a line feed, and the body that registers a device or makes a binding code",
    joining: "what was typed as a binding code, a line feed, a topic, a line feed, and what a device asks or reports there",
    alarms: "lines: the data of a message that lists alarms each",
    telemetry: "lines: a digit and the data of a message each, and the same bytes as samples that were kept",
    sim_control: "a method, a space, a target, a line feed, and the body of a request to the control API of the simulator",
}

/// The target of this name.
#[must_use]
pub fn target(name: &str) -> Option<Target> {
    TARGETS.iter().copied().find(|target| target.name == name)
}
