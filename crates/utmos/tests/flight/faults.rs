//! Docks that misbehave on purpose, and a server that must not be taken in: what it says of a command in the end is what
//! the dock wrote down.

use serde_json::{Value, json};
use tokio::sync::mpsc;
use utmos_mqtt::ProtocolChoice;
use utmos_sim::{Fleet, FleetConfig, Happening, Kind, Outcome, fault::FaultPlan};

use crate::{
    api::{Api, PATIENCE},
    mosquitto::{Mosquitto, behind},
    place::{Place, Running, fly},
    truth,
};

const METHOD: &str = "debug_mode_open";

fn plan(flags: &[String]) -> FaultPlan {
    let mut plan = FaultPlan::default();
    plan.put_first(flags.iter().map(|flag| flag.parse().unwrap()));
    plan
}

/// A server with its own broker, and docks that follow a plan.
async fn world(
    docks: u32,
    flags: &[String],
    protocol: ProtocolChoice,
) -> (Place, Running, Fleet, FleetConfig) {
    let (place, mut config) = Place::with_fleet(docks).await;
    config.faults = plan(flags);
    // Fast, and yet no job is over before the deadline of its answer.
    config.speed = 5.0;
    let server = place.start().await;
    let fleet = fly(&config, server.mqtt(), protocol).await;
    (place, server, fleet, config)
}

async fn send(api: &Api, sn: &str, method: &str, timeout: u64) -> String {
    let more = json!({"timeout_seconds": timeout, "if_offline": "wait"});
    api.create(sn, method, json!({}), more).await.id()
}

fn state(command: &Value) -> (&str, Option<&str>) {
    (command["status"].as_str().unwrap(), command["failure_code"].as_str())
}

/// Waits until the timeline says so.
async fn told(api: &Api, id: &str, words: &str) {
    let wait = async { while !api.timeline(id).await.to_string().contains(words) {} };
    assert!(tokio::time::timeout(PATIENCE, wait).await.is_ok(), "{words} never came");
}

async fn the_end_is_the_true_one(protocol: ProtocolChoice) {
    const SUCCEEDED: (&str, Option<&str>) = ("SUCCEEDED", None);
    const SILENT: (&str, Option<&str>) = ("TIMED_OUT", Some("NO_RESPONSE"));
    const FAILED: (&str, Option<&str>) = ("FAILED", Some("DEVICE_EXECUTION_FAILED"));
    const UNMATCHED: (&str, Option<&str>) = ("UNMATCHED_RESPONSE", None);
    let cases = [
        ("kind=duplicate", SUCCEEDED, Outcome::Done),
        ("kind=string_numbers", SUCCEEDED, Outcome::Done),
        ("kind=wrong_bid", SUCCEEDED, Outcome::Done),
        ("kind=missing_field,field=timestamp", SUCCEEDED, Outcome::Done),
        ("kind=missing_field,field=method", SUCCEEDED, Outcome::Done),
        ("kind=missing_field,field=bid", SUCCEEDED, Outcome::Done),
        ("kind=huge,bytes=500000", SUCCEEDED, Outcome::Done),
        ("kind=huge", SUCCEEDED, Outcome::Done),
        ("kind=result,code=low_battery", FAILED, Outcome::Refused(316_009)),
        ("kind=wrong_method", UNMATCHED, Outcome::Done),
        ("kind=missing_field,field=result", UNMATCHED, Outcome::Done),
        ("kind=missing_field,field=data", UNMATCHED, Outcome::Done),
        ("kind=silent", SILENT, Outcome::Done),
        ("kind=never", SILENT, Outcome::Ignored),
        ("kind=wrong_tid", SILENT, Outcome::Done),
        ("kind=missing_field,field=tid", SILENT, Outcome::Done),
        ("kind=truncated", SILENT, Outcome::Done),
        ("kind=binary", SILENT, Outcome::Done),
        // More than is understood, and more than the broker takes.
        ("kind=huge,bytes=1050000", SILENT, Outcome::Done),
        ("kind=huge,bytes=3000000", SILENT, Outcome::Done),
        // The embedded broker lets no dock speak for another.
        ("kind=wrong_gateway,sn=SIM-DOCK-0002", SILENT, Outcome::Done),
        ("kind=disconnect,ms=100", SILENT, Outcome::Done),
    ];
    let flags: Vec<String> = (1..)
        .zip(&cases)
        .map(|(nth, (flag, _, _))| format!("gateway=SIM-DOCK-0001,nth={nth},{flag}"))
        .collect();
    let (_place, server, fleet, config) = world(2, &flags, protocol).await;
    let api = &server.api;
    for (flag, expected, outcome) in cases {
        let timeout = if expected == SILENT { 1 } else { 30 };
        let id = send(api, &config.docks[0].sn, METHOD, timeout).await;
        let command = api.ended(&id).await;
        assert_eq!(state(&command), expected, "{flag}: {command:#}");
        assert_eq!(fleet.outcomes(&id), [outcome], "{flag}");
        if expected != UNMATCHED {
            truth::must_be_true(&command, &fleet);
        }
        if flag == "kind=duplicate" {
            told(api, &id, "\"duplicate\":true").await;
            assert_eq!(state(&api.ended(&id).await), SUCCEEDED, "and so it stays");
        }
    }
    // The other dock had no part in it.
    let id = send(api, &config.docks[1].sn, METHOD, 30).await;
    assert_eq!(state(&api.ended(&id).await), SUCCEEDED);
    fleet.shutdown().await;
    server.stop().await;
}

#[tokio::test]
async fn whatever_a_dock_answers_the_end_is_the_true_one_in_mqtt_5() {
    the_end_is_the_true_one(ProtocolChoice::V5).await;
}

#[tokio::test]
async fn whatever_a_dock_answers_the_end_is_the_true_one_in_mqtt_3_1_1() {
    the_end_is_the_true_one(ProtocolChoice::V311).await;
}

#[tokio::test]
async fn an_answer_after_the_deadline_changes_no_end() {
    let (_place, server, fleet, config) =
        world(1, &["kind=late,ms=1500".to_owned()], ProtocolChoice::V5).await;
    let api = &server.api;
    let id = send(api, &config.docks[0].sn, METHOD, 1).await;
    let ended = api.ended(&id).await;
    assert_eq!(state(&ended), ("TIMED_OUT", Some("NO_RESPONSE")));
    assert_eq!(ended["response_code"], Value::Null);
    told(api, &id, "\"late_response\":true").await;
    let after = api.ended(&id).await;
    assert_eq!(state(&after), ("TIMED_OUT", Some("NO_RESPONSE")));
    assert_eq!(after["response_code"], "0", "{after:#}");
    assert_eq!(fleet.outcome(&id), Some(Outcome::Done));
    fleet.shutdown().await;
    server.stop().await;
}

#[tokio::test]
async fn jobs_end_as_they_did_however_they_are_told() {
    let flags = [
        "method=cover_open,kind=progress_out_of_order",
        "method=cover_close,kind=resend_events",
        // The answer is lost and the events still come.
        "method=device_format,kind=silent",
        "method=drone_format,kind=disconnect,ms=50",
        // Nothing is ordered or timed by a dock's clock.
        "kind=clock_skew,at_ms=0,seconds=-86400",
    ]
    .map(str::to_owned);
    let (_place, server, fleet, config) = world(1, &flags, ProtocolChoice::V5).await;
    let (api, sn) = (&server.api, &config.docks[0].sn);
    for method in [METHOD, "cover_open", "cover_close", "device_format", "drone_format"] {
        let id = send(api, sn, method, 1).await;
        let command = api.ended(&id).await;
        assert_eq!(state(&command), ("SUCCEEDED", None), "{method}: {command:#}");
        truth::must_be_true(&command, &fleet);
    }
    fleet.shutdown().await;
    server.stop().await;
}

#[tokio::test]
async fn docks_that_all_go_and_come_back_at_once_can_be_commanded_again() {
    let (place, mut config) = Place::with_fleet(5).await;
    config.faults = plan(&["kind=reconnect_storm,at_ms=1500,ms=100".to_owned()]);
    let (events, mut happenings) = mpsc::channel(10_000);
    config.on_event = Some(events);
    let server = place.start().await;
    let fleet = fly(&config, server.mqtt(), ProtocolChoice::V5).await;
    let (mut gone, mut back) = (0, 0);
    let storm = async {
        while gone < config.docks.len() || back < config.docks.len() {
            let Happening { kind, .. } = happenings.recv().await.unwrap();
            let by_storm = |reason: &str| reason.contains("reconnect_storm");
            gone += usize::from(matches!(&kind, Kind::Disconnected { reason } if by_storm(reason)));
            back += usize::from(0 < gone && matches!(kind, Kind::Announced { .. }));
        }
    };
    assert!(tokio::time::timeout(PATIENCE, storm).await.is_ok(), "{gone} went, {back} came back");
    for dock in &config.docks {
        let id = send(&server.api, &dock.sn, METHOD, 30).await;
        let command = server.api.ended(&id).await;
        assert_eq!(state(&command), ("SUCCEEDED", None), "{command:#}");
        truth::must_be_true(&command, &fleet);
    }
    fleet.shutdown().await;
    server.stop().await;
}

#[tokio::test]
async fn an_answer_of_another_gateway_is_no_answer() {
    let mosquitto = Mosquitto::start().await;
    let (mut place, mut config) = Place::with_fleet(2).await;
    behind(&mut place, &mosquitto, "5");
    config.faults = plan(&["gateway=SIM-DOCK-0001,kind=wrong_gateway,sn=SIM-DOCK-0002".to_owned()]);
    let server = place.start().await;
    let fleet = fly(&config, (mosquitto.address, 1883).into(), ProtocolChoice::V5).await;
    let id = send(&server.api, &config.docks[0].sn, METHOD, 5).await;
    let command = server.api.ended(&id).await;
    // Who speaks is not known at another's broker, so such an answer neither ends the command nor counts for it.
    assert_eq!(state(&command), ("TIMED_OUT", Some("NO_RESPONSE")), "{command:#}");
    assert!(server.api.figure("uplink_forged_total").await > 0);
    assert_eq!(fleet.outcome(&id), Some(Outcome::Done));
    fleet.shutdown().await;
    server.stop().await;
}
