//! A small race: docks with every fault there is, a server that is killed, and not one state that is not what the dock did.

use std::{fs::Permissions, os::unix::fs::PermissionsExt, process::Stdio, time::Duration};

use serde_json::{Value, json};
use tokio::process::Command;

use crate::mosquitto::Mosquitto;

/// Longest a race of some seconds may take on a busy machine.
const RACE_WAIT: Duration = Duration::from_secs(180);
/// Classes that a command is in when it came at an unlucky moment: a race may do without them.
const BY_CHANCE: [&str; 2] = ["never arrived", "none, server killed"];
/// What befalls all docks at once; on a busy machine every command of that moment may be one that never arrived.
const INCIDENTS: [&str; 4] = ["reconnect_storm", "topology_flap", "clock_skew", "offline"];
/// Codes with which docks refuse flights, or end them, in bad weather, with a low battery, without authority, while they are
/// debugged, and with the aircraft off; no dock of a race has them otherwise.
const OF_CONDITIONS: [&str; 7] =
    ["514135", "321784", "514134", "316009", "319030", "319036", "325012"];
/// What must never be.
const FAULTS: [&str; 8] =
    ["wrong", "lost", "doubled", "stale", "unanswered", "untold", "unasked", "unexplained"];

/// Models whose gateways are raced.
const MODELS: [&str; 6] = ["dock1", "dock2", "dock3", "dock3_m4td", "rc_pro", "rc_plus_2"];

/// Runs a race, which must be true; answers its figures and what it printed.
async fn raced(more: &[&str]) -> (Value, String) {
    let folder = tempfile::tempdir().unwrap();
    // PostgreSQL, which is another user's where this is root's, must find its files.
    std::fs::set_permissions(folder.path(), Permissions::from_mode(0o755)).unwrap();
    let file = folder.path().join("race.json");
    let mut race = Command::new(env!("CARGO_BIN_EXE_utmos"));
    race.args(["bench", "race", "--silence", "3", "--settle", "120"])
        .args(more)
        .arg("--json")
        .arg(&file)
        .current_dir(folder.path())
        .env_clear()
        .stdin(Stdio::null())
        .kill_on_drop(true);
    let output = tokio::time::timeout(RACE_WAIT, race.output()).await.expect("it ends").unwrap();
    let told = format!(
        "{}\n{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    let text = std::fs::read_to_string(&file).unwrap_or_else(|_| panic!("{told}"));
    let race: Value = serde_json::from_str(&text).unwrap();
    for fault in FAULTS {
        assert_eq!(race[fault], 0, "{fault}: {told}");
    }
    assert_eq!(race["refused"], json!({}), "{told}");
    assert!(output.status.success(), "{told}");
    assert!(race["restarts"].as_u64() >= Some(1), "{told}");
    for name in MODELS {
        let mut models = race["models"].as_array().unwrap().iter();
        let model = models.find(|model| model["model"] == name).unwrap_or_else(|| panic!("{told}"));
        assert!(model["exact"].as_u64() >= Some(1), "{name}: {told}");
    }
    (race, told)
}

#[tokio::test]
async fn every_state_is_what_the_dock_did_whatever_goes_wrong() {
    let (race, told) =
        raced(&["--rate", "40", "--seconds", "16", "--kill-every", "5", "--docks", "10"]).await;
    assert_eq!(race["broker"], "own");
    for class in race["faults"].as_array().unwrap() {
        let (name, commands) = (class["fault"].as_str().unwrap(), class["commands"].as_u64());
        let by_chance = BY_CHANCE.iter().any(|start| name.starts_with(start));
        let is_incident = INCIDENTS.contains(&name);
        assert!(by_chance || is_incident || commands >= Some(1), "{name} was not met: {told}");
    }
    for incident in INCIDENTS {
        let classes = race["faults"].as_array().unwrap().iter();
        let of_it = classes.filter(|class| class["fault"].as_str().unwrap().ends_with(incident));
        let met: u64 = of_it.filter_map(|class| class["commands"].as_u64()).sum();
        assert!(met >= 1, "{incident} befell nobody: {told}");
    }
    let codes = race["codes"].as_object().unwrap();
    assert!(
        OF_CONDITIONS.iter().any(|code| codes.contains_key(*code)),
        "nothing was refused: {told}"
    );
    // Not everything may hide behind "unknown".
    let exact = |name: &str| {
        let classes = race["faults"].as_array().unwrap();
        let class = classes.iter().find(|class| class["fault"] == name).unwrap();
        class["exact"].as_u64()
    };
    for name in ["none", "duplicate", "wrong_bid", "result", "string_numbers"] {
        assert!(exact(name) >= Some(1), "{name}: {told}");
    }
}

/// The broker goes on without the server, and takes what nobody hears then.
#[tokio::test]
async fn every_state_is_what_the_dock_did_at_a_broker_of_others() {
    let mosquitto = Mosquitto::start().await;
    let broker = mosquitto.address().to_string();
    let (race, told) = raced(&[
        "--rate",
        "30",
        "--seconds",
        "6",
        "--kill-every",
        "3",
        "--docks",
        "10",
        "--broker",
        &broker,
    ])
    .await;
    assert_eq!(race["broker"], broker, "{told}");
    assert!(race["exact"].as_u64() >= Some(20), "{told}");
}

/// What a device says while the server that looks after it comes back, and to others.
#[tokio::test]
async fn every_state_is_what_the_dock_did_at_any_of_several_servers() {
    let several = ["--engine", "postgres", "--servers", "2"];
    let load = ["--rate", "30", "--seconds", "18", "--kill-every", "8", "--docks", "10"];
    let arguments: Vec<&str> = several.into_iter().chain(load).collect();
    let (race, told) = raced(&arguments).await;
    assert_eq!(race["servers"], 2, "{told}");
    assert!(race["exact"].as_u64() >= Some(100), "{told}");
}
