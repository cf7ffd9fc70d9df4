//! `utmos bench peers`: what is missing is named, and what is there is loaded and judged.

use std::{io::Write, path::PathBuf};

use serde_json::Value;

use crate::shell::{PROGRAM, Shell, run};

/// Names the folder into which npm installed the peers. They are no part of the project and come from no distribution, so that
/// the tests of them are left out without it everywhere, also where nothing else may be.
const PEERS: &str = "TESTS_PEERS";

/// The folder, if it was named.
fn installed() -> Option<PathBuf> {
    let folder = std::env::var_os(PEERS).map(PathBuf::from);
    if folder.is_none() {
        let why = format!("SKIPPED: peers: {PEERS} names no folder (docs/benchmarks.md, Peers)\n");
        // Not by a macro, whose output is kept back where the test passes.
        std::io::stderr().write_all(why.as_bytes()).unwrap();
    }
    folder
}

#[test]
fn peers_that_are_missing_are_named_with_the_command_that_installs_them() {
    let shell = Shell::new();
    let all = shell.run(["bench", "peers"]);
    assert_eq!((all.code, all.out.as_str()), (1, ""), "{all:?}");
    let command = "npm install --prefix peers node-red@5 node@22 iotagent-node-lib@4 mqtt@5";
    assert!(all.err.contains("Node-RED and FIWARE IoT agent cannot be found in peers"), "{all:?}");
    assert!(all.err.contains(command), "{all:?}");
    let one = shell.run(["bench", "peers", "--peer", "node-red", "--peers", "elsewhere"]);
    assert_eq!(one.code, 1, "{one:?}");
    assert!(one.err.contains("npm install --prefix elsewhere node-red@5 node@22\n"), "{one:?}");
    // Nothing was begun.
    assert_eq!(std::fs::read_dir(shell.path()).unwrap().count(), 0);
    let unknown = shell.run(["bench", "peers", "--peer", "nobody"]);
    assert_eq!(unknown.code, 2, "{unknown:?}");
    assert!(unknown.err.contains("node-red") && unknown.err.contains("fiware"), "{unknown:?}");
}

#[test]
fn peers_take_the_same_commands_and_every_end_is_what_the_dock_did() {
    let Some(peers) = installed() else { return };
    let shell = Shell::new();
    let mut bench = shell.command(PROGRAM);
    bench.args(["bench", "peers", "--runs", "1", "--seconds", "0.5"]);
    bench.args(["--clients", "1", "--clients", "64", "--json", "figures.json", "--peers"]);
    let run = run(bench.arg(peers));
    assert_eq!(run.code, 0, "{run:?}");
    let text = std::fs::read_to_string(shell.path().join("figures.json")).unwrap();
    let figures: Value = serde_json::from_str(&text).unwrap();
    let measures = figures["measures"].as_array().unwrap();
    let called: Vec<_> = measures
        .iter()
        .map(|one| (one["clients"].as_u64().unwrap(), one["name"].as_str().unwrap()))
        .collect();
    let [ours, red, fiware] = ["utmos", "node-red", "fiware"];
    assert_eq!(called, [(1, ours), (1, red), (1, fiware), (64, ours), (64, red), (64, fiware)]);
    for one in measures {
        assert!(one["median_per_second"].as_f64() > Some(0.0), "{one:#}");
        assert_eq!(one["name"] != ours, one["utmos_does_times"].as_f64() > Some(0.0), "{one:#}");
    }
    for one in figures["contestants"].as_array().unwrap() {
        assert!(one["commands"].as_u64() > Some(0), "{one:#}");
        assert_eq!(one["commands"], one["commands_right"], "{one:#}");
    }
    // Nothing stays but the figures.
    assert_eq!(std::fs::read_dir(shell.path()).unwrap().count(), 1);
}
