//! The scenarios that come with the program, and docks that acknowledge commands when they like, against a real server.

use std::path::Path;

use serde_json::{Value, json};
use tokio::sync::mpsc::{self, UnboundedSender};
use utmos_mqtt::ProtocolChoice;
use utmos_sim::{Fleet, FleetConfig, Outcome, Scenario, ScenarioDocks, Wire, guide};

use crate::{
    api::{Api, PATIENCE},
    mosquitto::{Mosquitto, behind},
    place::{CATALOGUE, Place, Running, fly},
    truth,
};

const METHOD: &str = "debug_mode_open";

/// An example, as it lies there.
fn scenario(name: &str) -> Scenario {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples/scenarios");
    let text = std::fs::read_to_string(folder.join(name)).unwrap();
    Scenario::from_toml(&text).unwrap_or_else(|problems| panic!("{name}: {problems}"))
}

/// A server with its own broker, and the docks of a scenario.
async fn world(scenario: Scenario) -> (Place, Running, Fleet, FleetConfig) {
    overheard_world(scenario, None).await
}

/// The same, and what passes between docks and broker is told.
async fn overheard_world(
    scenario: Scenario,
    on_wire: Option<UnboundedSender<Wire>>,
) -> (Place, Running, Fleet, FleetConfig) {
    let docks = match scenario.docks {
        Some(ScenarioDocks::Count(docks)) => docks,
        Some(ScenarioDocks::Named(_)) | None => 1,
    };
    let (place, mut config) = Place::with_fleet(docks).await;
    config.speed = scenario.speed.unwrap_or(5.0);
    config.faults = scenario.faults;
    config.on_wire = on_wire;
    let server = place.start().await;
    let fleet = fly(&config, server.mqtt(), ProtocolChoice::V5).await;
    (place, server, fleet, config)
}

fn with(flags: &[&str]) -> Scenario {
    let mut scenario = Scenario::default();
    scenario.faults.put_first(flags.iter().map(|flag| flag.parse().unwrap()));
    scenario
}

async fn send(api: &Api, sn: &str, method: &str, payload: Value, timeout: u64) -> String {
    let more = json!({"timeout_seconds": timeout, "if_offline": "wait"});
    api.create(sn, method, payload, more).await.id()
}

fn status(command: &Value) -> &str {
    command["status"].as_str().unwrap()
}

/// Where a cause stands on a timeline.
fn place_of(causes: &[String], cause: &str) -> Option<usize> {
    causes.iter().position(|one| one == cause)
}

#[tokio::test]
async fn broken_answers_end_as_the_example_says() {
    let (_place, server, fleet, config) = world(scenario("broken-answers.toml")).await;
    let sn = &config.docks[0].sn;
    let expected = ["SUCCEEDED", "SUCCEEDED", "TIMED_OUT", "TIMED_OUT", "FAILED", "SUCCEEDED"];
    for (number, expected) in (1..).zip(expected) {
        let timeout = if expected == "TIMED_OUT" { 1 } else { 30 };
        let id = send(&server.api, sn, METHOD, json!({}), timeout).await;
        let command = server.api.ended(&id).await;
        assert_eq!(status(&command), expected, "{number}: {command:#}");
        truth::must_be_true(&command, &fleet);
    }
    let id = send(&server.api, &config.docks[1].sn, METHOD, json!({}), 30).await;
    assert_eq!(status(&server.api.ended(&id).await), "SUCCEEDED");
    fleet.shutdown().await;
    server.stop().await;
}

#[tokio::test]
async fn on_a_bad_day_every_dock_says_why_it_does_not_fly() {
    let (_place, server, fleet, config) = world(scenario("bad-day.toml")).await;
    let method = CATALOGUE.method("takeoff_to_point").unwrap();
    for (dock, code) in config.docks.iter().zip(["514135", "316009", "319030"]) {
        let wall = utmos_core::time::Timestamp::from_millis(0);
        let payload = guide::payload(method, dock, wall);
        let id = send(&server.api, &dock.aircraft_sn, "takeoff_to_point", payload, 30).await;
        let command = server.api.ended(&id).await;
        assert_eq!((status(&command), command["response_code"].as_str()), ("FAILED", Some(code)));
        truth::must_be_true(&command, &fleet);
    }
    fleet.shutdown().await;
    server.stop().await;
}

#[tokio::test]
async fn on_a_restless_network_every_command_ends_with_the_truth() {
    let (_place, server, fleet, config) = world(scenario("restless-network.toml")).await;
    let mut ids = Vec::new();
    for _ in 0..12 {
        for dock in &config.docks {
            ids.push(send(&server.api, &dock.sn, METHOD, json!({}), 3).await);
        }
        // At the pace of the docks, so that the scenario goes on meanwhile.
        for id in ids.iter().rev().take(config.docks.len()) {
            server.api.ended(id).await;
        }
    }
    let mut succeeded = 0;
    for id in &ids {
        let command = server.api.ended(id).await;
        truth::must_be_true(&command, &fleet);
        succeeded += usize::from(status(&command) == "SUCCEEDED");
    }
    assert!(ids.len() / 2 < succeeded, "{succeeded} of {}", ids.len());
    fleet.shutdown().await;
    server.stop().await;
}

#[tokio::test]
async fn an_answer_before_the_acknowledgement_ends_the_command_as_the_dock_did() {
    let flags = ["method=debug_mode_*,kind=early", "method=cover_open,kind=early"];
    let (_place, server, fleet, config) = world(with(&flags)).await;
    let (api, sn) = (&server.api, &config.docks[0].sn);
    for method in [METHOD, "cover_open", "cover_close"] {
        let id = send(api, sn, method, json!({}), 30).await;
        let command = api.ended(&id).await;
        assert_eq!(status(&command), "SUCCEEDED", "{method}: {command:#}");
        truth::must_be_true(&command, &fleet);
    }
    fleet.shutdown().await;
    server.stop().await;
}

#[tokio::test]
async fn a_refusal_before_the_acknowledgement_is_a_refusal() {
    // Not in debugging, so the dock itself refuses.
    let (_place, server, fleet, config) = world(with(&["kind=early"])).await;
    let id = send(&server.api, &config.docks[0].sn, "cover_open", json!({}), 30).await;
    let command = server.api.ended(&id).await;
    assert_eq!((status(&command), command["response_code"].as_str()), ("FAILED", Some("514153")));
    truth::must_be_true(&command, &fleet);
    fleet.shutdown().await;
    server.stop().await;
}

#[tokio::test]
async fn acknowledgements_that_come_late_or_never_change_no_end_and_stand_in_nobodys_way() {
    let flags = ["nth=1,kind=late_ack,ms=1500", "nth=2,kind=no_ack"];
    let (tell, mut wire) = mpsc::unbounded_channel();
    let (_place, server, fleet, config) = overheard_world(with(&flags), Some(tell)).await;
    let (api, sn) = (&server.api, &config.docks[0].sn);
    for number in 1..=3 {
        let id = send(api, sn, METHOD, json!({}), if number == 2 { 4 } else { 30 }).await;
        let command = api.ended(&id).await;
        assert_eq!(status(&command), "SUCCEEDED", "{number}: {command:#}");
        truth::must_be_true(&command, &fleet);
        assert_eq!(fleet.outcomes(&id), [Outcome::Done]);
        // The dock's own acknowledgement is what the embedded broker confirms.
        let causes = api.causes(&id).await;
        let reply = place_of(&causes, "reply").unwrap();
        let confirmed = place_of(&causes, "broker_confirmed");
        match number {
            3 => assert!(confirmed.is_some(), "{causes:?}"),
            _ => assert!(confirmed.is_none_or(|at| reply < at), "{number}: {causes:?}"),
        }
        if number == 2 {
            // At its deadline the broker cuts the connection. Nobody would know what became of a third that was under way then.
            let back = async {
                while !matches!(wire.recv().await, Some(Wire::Cut { .. })) {}
                while !matches!(wire.recv().await, Some(Wire::Linked { .. })) {}
            };
            let is_back = tokio::time::timeout(PATIENCE, back).await;
            assert!(is_back.is_ok(), "the dock was not cut, or did not come back");
        }
    }
    fleet.shutdown().await;
    server.stop().await;
}

#[tokio::test]
async fn an_outside_broker_takes_the_answer_before_the_acknowledgement_too() {
    let mosquitto = Mosquitto::start().await;
    let (mut place, mut config) = Place::with_fleet(1).await;
    behind(&mut place, &mosquitto, "5");
    config.faults = with(&["nth=1,kind=early", "nth=2,kind=no_ack"]).faults;
    let server = place.start().await;
    let fleet = fly(&config, (mosquitto.address, 1883).into(), ProtocolChoice::V5).await;
    for _ in 0..3 {
        let id = send(&server.api, &config.docks[0].sn, METHOD, json!({}), 30).await;
        let ended = tokio::time::timeout(PATIENCE, server.api.ended(&id)).await.unwrap();
        assert_eq!(status(&ended), "SUCCEEDED", "{ended:#}");
        truth::must_be_true(&ended, &fleet);
    }
    fleet.shutdown().await;
    server.stop().await;
}
