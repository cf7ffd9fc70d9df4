//! What one command, one message and one dock cost: as measured before (docs/scale.md), or as files of the bench say.

use std::{collections::BTreeMap, fs, path::Path};

use anyhow::{Context, ensure};
use serde::Deserialize;

use super::model::Group;
use crate::command::bench::{
    engine::{Choice, Engine},
    reply::Reply,
};

/// Costs of one of each.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Unit {
    /// Processor time of the server for a command from its POST to its outcome, 64 at once, in µs.
    pub command_server_us: f64,
    /// The same of the broker and the database beside it; with PostgreSQL where two servers share it, as those of a group do.
    pub command_beside_us: f64,
    /// Processor time of the server for a message of telemetry, in µs. Above the truth: a hundred commands a second, which
    /// were measured beside it, are in it.
    pub message_server_us: f64,
    /// The same of an outside broker, for each server that takes the message in.
    pub message_broker_us: f64,
    /// The same of PostgreSQL, where it has the history.
    pub message_database_us: f64,
    /// Disk for a message that is kept as it came, in bytes.
    pub message_bytes: f64,
    /// Memory of a server that has nothing to do, in MB.
    pub idle_mb: f64,
    /// Memory of the server for a dock that is connected and tells, its connection to the embedded broker included, in KiB.
    pub dock_kib: f64,
}

/// What everything costs.
#[derive(Debug, Clone, PartialEq)]
pub struct Costs {
    /// With each engine.
    pub units: BTreeMap<Engine, Unit>,
    /// Disk for a command that has ended, in KiB.
    pub command_kib: f64,
}

/// Messages a second under which `telemetry_cpu` and `telemetry_disk` are measured.
const MESSAGES_MEASURED: f64 = 2_000.0;
/// Docks that tell while `telemetry_memory` is read.
const DOCKS_MEASURED: f64 = 1_000.0;
/// Messages of a device a second for which `telemetry_disk` says what a day takes.
const OF_A_DEVICE: f64 = 2.0;
const SECONDS_OF_A_DAY: f64 = 86_400.0;

impl Costs {
    /// What docs/scale.md says of two cores of a small machine; builds of November 2026.
    pub fn measured_before() -> Self {
        Self {
            units: BTreeMap::from([
                (
                    Engine::Embedded,
                    Unit {
                        command_server_us: 102.0,
                        command_beside_us: 0.0,
                        message_server_us: 86.5,
                        message_broker_us: 0.0,
                        message_database_us: 0.0,
                        message_bytes: 161.0,
                        idle_mb: 26.0,
                        dock_kib: 51.2,
                    },
                ),
                (
                    Engine::Mosquitto,
                    Unit {
                        command_server_us: 122.0,
                        command_beside_us: 40.0,
                        message_server_us: 77.0,
                        message_broker_us: 28.5,
                        message_database_us: 0.0,
                        message_bytes: 161.0,
                        idle_mb: 25.9,
                        dock_kib: 50.0,
                    },
                ),
                (
                    Engine::Postgres,
                    Unit {
                        command_server_us: 76.0,
                        command_beside_us: 203.0,
                        message_server_us: 61.0,
                        message_broker_us: 26.5,
                        message_database_us: 60.0,
                        message_bytes: 200.0,
                        idle_mb: 23.8,
                        dock_kib: 35.3,
                    },
                ),
            ]),
            command_kib: 1.3,
        }
    }

    /// Takes what a file of the bench says.
    pub fn take_from(&mut self, file: &Path) -> anyhow::Result<()> {
        let text = fs::read_to_string(file)
            .with_context(|| format!("{} cannot be read", file.display()))?;
        self.take(&text).with_context(|| {
            format!(
                "{} is nothing that `utmos bench --json` or `utmos bench growth --json` wrote",
                file.display()
            )
        })
    }

    fn take(&mut self, text: &str) -> anyhow::Result<()> {
        let Written { engines, facts, one } = serde_json::from_str(text)?;
        let mut measured = engines;
        measured.extend(one.measures.is_some().then_some(one));
        ensure!(!(measured.is_empty() && facts.is_empty()), "it has no figures");
        let at_once = Reply::AtOnce.title();
        for engine in measured {
            ensure!(
                engine.docks_answer.as_ref().is_none_or(|it| *it == at_once),
                "its docks did not answer at once (--reply), and what a command costs then is not its cost"
            );
            self.take_engine(&engine);
        }
        for Fact { name, value } in facts {
            if name == "disk_per_command" {
                self.command_kib = value;
            }
        }
        Ok(())
    }

    fn take_engine(&mut self, of: &OfEngine) {
        let servers = of.servers.unwrap_or(1);
        let mut engines = Choice::All.engines().iter();
        let engine = engines.find(|engine| of.engine.as_deref() == Some(engine.key())).copied();
        // What a server costs is taken of one, which has all to do where the other is gone; what is beside them of a whole group.
        let (is_one, is_group) =
            (servers == 1, engine.is_some_and(|it| servers == Group(it).servers()));
        let Some(unit) = engine.and_then(|engine| self.units.get_mut(&engine)) else { return };
        for Measured { name, median } in of.measures.iter().flatten() {
            match name.as_str() {
                "cpu_beside_per_loop_64" if is_group => unit.command_beside_us = *median,
                _ if !is_one => {}
                "server_cpu_per_loop_64" => unit.command_server_us = *median,
                "memory_idle" => unit.idle_mb = *median,
                // Of one processor, in per cent.
                "telemetry_cpu" => {
                    unit.message_server_us = median / 100.0 * 1e6 / MESSAGES_MEASURED;
                }
                "telemetry_memory" => {
                    unit.dock_kib = (median - unit.idle_mb) * 1e6 / 1_024.0 / DOCKS_MEASURED;
                }
                "telemetry_broker_cpu" => {
                    unit.message_broker_us = median / 100.0 * 1e6 / MESSAGES_MEASURED;
                }
                "telemetry_database_cpu" => {
                    unit.message_database_us = median / 100.0 * 1e6 / MESSAGES_MEASURED;
                }
                "telemetry_disk" => {
                    unit.message_bytes = median * 1e6 / (OF_A_DEVICE * SECONDS_OF_A_DAY);
                }
                _ => {}
            }
        }
    }
}

#[derive(Deserialize)]
struct Written {
    #[serde(default)]
    engines: Vec<OfEngine>,
    #[serde(default)]
    facts: Vec<Fact>,
    #[serde(flatten)]
    one: OfEngine,
}

#[derive(Deserialize)]
struct OfEngine {
    engine: Option<String>,
    #[serde(default)]
    servers: Option<u32>,
    measures: Option<Vec<Measured>>,
    #[serde(default)]
    docks_answer: Option<String>,
}

#[derive(Deserialize)]
struct Measured {
    name: String,
    median: f64,
}

#[derive(Deserialize)]
struct Fact {
    name: String,
    value: f64,
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]
    use super::*;

    #[test]
    fn files_of_the_bench_are_read_and_nothing_else() {
        let mut costs = Costs::measured_before();
        let engine = |key: &str, cpu: f64| {
            format!(
                r#"{{"engine": "{key}", "measures": [{{"name": "server_cpu_per_loop_64", "median": {cpu}, "unit": "µs"}},
                    {{"name": "telemetry_cpu", "median": 50.0}}, {{"name": "something_new", "median": 1.0}}]}}"#
            )
        };
        costs.take(&engine("embedded", 100.0)).unwrap();
        let both = format!(
            r#"{{"version": "0.1.0", "engines": [{}, {}]}}"#,
            engine("mosquitto", 200.0),
            engine("postgres", 300.0)
        );
        costs.take(&both).unwrap();
        costs
            .take(r#"{"facts": [{"name": "disk_per_command", "value": 9.0, "unit": "KiB"}]}"#)
            .unwrap();
        let server = |engine: &Engine| costs.units[engine].command_server_us.round();
        let all: Vec<_> = Choice::All.engines().iter().map(server).collect();
        assert_eq!(all, [100.0, 200.0, 300.0]);
        let of_message = costs.units[&Engine::Embedded].message_server_us;
        assert_eq!((of_message.round(), costs.command_kib.round()), (250.0, 9.0));
        let two = |servers: u32| {
            format!(
                r#"{{"engine": "postgres", "servers": {servers}, "measures": [{{"name": "server_cpu_per_loop_64",
                    "median": {servers}}}, {{"name": "cpu_beside_per_loop_64", "median": {servers}}}]}}"#
            )
        };
        for servers in [3, 2, 1] {
            costs.take(&two(servers)).unwrap();
        }
        let shared = costs.units[&Engine::Postgres];
        assert_eq!((shared.command_server_us, shared.command_beside_us), (1.0, 2.0));
        let before = costs.clone();
        for nothing in ["{}", "[]", "", r#"{"engines": []}"#, r#"{"facts": {}}"#] {
            assert!(costs.take(nothing).is_err(), "{nothing}");
        }
        assert_eq!(costs, before);
    }
}
