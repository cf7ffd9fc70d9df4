//! `kill -9` at every step of a command's life. Whatever was accepted comes to an end that is true, the device has it at
//! most once and in time, and the caller who lost the answer gets the same command again.

use std::ops::RangeInclusive;

use reqwest::{Method, StatusCode};
use serde_json::json;
use utmos_mqtt::ProtocolChoice;
use utmos_sim::{Fleet, FleetConfig, ReplyTiming};

use crate::{
    api::{COMMANDS, command},
    place::{Place, fly, start_docks},
    truth,
};

/// How a story may end: status and failure code.
type End = (&'static str, Option<&'static str>);
const SUCCEEDED: End = ("SUCCEEDED", None);
const DISPATCH_UNCERTAIN: End = ("TIMED_OUT", Some("DISPATCH_UNCERTAIN"));
const NO_RESPONSE: End = ("TIMED_OUT", Some("NO_RESPONSE"));

/// When the dock comes.
#[derive(PartialEq)]
enum DockComes {
    /// It is there: the command is claimed in the transaction that accepts it.
    First,
    /// When the command already waits.
    AfterTheAnswer,
    /// To the process that comes after.
    AfterTheDeath,
}

/// Where the process dies, and what must come of the command then.
struct Case {
    point: &'static str,
    method: &'static str,
    /// Commands that come first, unharmed.
    before: &'static [&'static str],
    /// 0 is the method's own.
    timeout_seconds: u64,
    ends: &'static [End],
    /// How often the dock may have received it.
    received: RangeInclusive<usize>,
    /// How much faster than a real dock ours lives.
    speed: f64,
    dock_comes: DockComes,
}

const CASE: Case = Case {
    point: "",
    method: "debug_mode_open",
    before: &[],
    timeout_seconds: 2,
    ends: &[],
    received: 0..=1,
    speed: 1.0,
    dock_comes: DockComes::First,
};

/// Docks that answer after a while, as real ones do, so that one step of a command comes after another.
async fn place_with_dock(speed: f64) -> (Place, FleetConfig) {
    let (place, mut config) = Place::with_fleet(1).await;
    config.reply = ReplyTiming::Realistic;
    config.speed = speed;
    (place, config)
}

async fn connect(place: &Place, config: &FleetConfig) -> Fleet {
    fly(config, (place.address, 1883).into(), ProtocolChoice::Auto).await
}

async fn check(case: Case) {
    let (place, config) = place_with_dock(case.speed).await;
    let sn = config.docks[0].sn.clone();
    let process = place.spawn(Some(case.point)).await;
    let api = place.api();
    let mut fleet = None;
    if case.dock_comes == DockComes::First {
        fleet = Some(connect(&place, &config).await);
    }
    for method in case.before {
        let id = api.create(&sn, method, json!({}), json!({})).await.id();
        assert_eq!(api.ended(&id).await["status"], "SUCCEEDED");
    }
    let more = json!({"timeout_seconds": case.timeout_seconds});
    let body = command(&sn, case.method, json!({}), more);
    let first = api.try_request(Method::POST, COMMANDS, Some(&body)).await;
    if case.dock_comes == DockComes::AfterTheAnswer {
        let broker = (place.address, 1883).into();
        fleet = Some(start_docks(&config, broker, ProtocolChoice::Auto));
    }
    process.died().await;

    let _process = place.spawn(None).await;
    let fleet = match fleet {
        Some(fleet) => fleet,
        None => connect(&place, &config).await,
    };
    let again = api.post(COMMANDS, &body).await;
    assert_eq!(again.status, StatusCode::OK, "it was on record: {again:?}");
    let id = again.id();
    if let Ok(first) = first {
        assert_eq!(first.id(), id);
    }
    let ended = api.ended(&id).await;
    let end = (ended["status"].as_str().unwrap(), ended["failure_code"].as_str());
    assert!(case.ends.contains(&end), "{}: {ended:#} {:#}", case.point, api.timeline(&id).await);
    if end.0 == "TIMED_OUT" {
        let reason = ended["failure_reason"].as_str().unwrap();
        assert!(reason.contains("may have acted"), "{reason}");
    }
    truth::must_be_true(&ended, &fleet);
    let received = fleet.count(&id);
    assert!(case.received.contains(&received), "{}: received {received} times", case.point);
    let entries = api.causes(&id).await;
    let claims = entries.iter().filter(|cause| *cause == "sending_claimed").count();
    assert_eq!(claims, 1, "{}: {entries:?}", case.point);
    assert_eq!(api.post(COMMANDS, &body).await.id(), id);
    assert_eq!(api.commands().await.len(), case.before.len() + 1);
    // And the next one is none the worse for it.
    let next = api.create(&sn, "debug_mode_open", json!({}), json!({})).await.id();
    assert_eq!(api.ended(&next).await["status"], "SUCCEEDED");
}

#[tokio::test]
#[cfg_attr(not(debug_assertions), ignore = "only a debug build has crash points")]
async fn killed_after_the_accept_and_before_the_answer() {
    let case = Case { point: "accepted", dock_comes: DockComes::AfterTheDeath, ..CASE };
    check(Case { timeout_seconds: 0, ends: &[SUCCEEDED], received: 1..=1, ..case }).await;
}

#[tokio::test]
#[cfg_attr(not(debug_assertions), ignore = "only a debug build has crash points")]
async fn killed_after_the_accept_that_claimed_as_well() {
    let case = Case { point: "accepted", ..CASE };
    check(Case { ends: &[DISPATCH_UNCERTAIN], received: 0..=0, ..case }).await;
}

#[tokio::test]
#[cfg_attr(not(debug_assertions), ignore = "only a debug build has crash points")]
async fn killed_between_the_accept_and_the_claim() {
    let case =
        Case { point: "saving:sending_claimed", dock_comes: DockComes::AfterTheAnswer, ..CASE };
    check(Case { timeout_seconds: 0, ends: &[SUCCEEDED], received: 1..=1, ..case }).await;
}

#[tokio::test]
#[cfg_attr(not(debug_assertions), ignore = "only a debug build has crash points")]
async fn killed_after_the_claim_and_before_the_publish() {
    let case =
        Case { point: "saved:sending_claimed", dock_comes: DockComes::AfterTheAnswer, ..CASE };
    check(Case { ends: &[DISPATCH_UNCERTAIN], received: 0..=0, ..case }).await;
}

#[tokio::test]
#[cfg_attr(not(debug_assertions), ignore = "only a debug build has crash points")]
async fn killed_at_the_last_moment_before_the_write() {
    let case = Case { point: "writing", ..CASE };
    check(Case { ends: &[DISPATCH_UNCERTAIN], received: 0..=0, ..case }).await;
}

#[tokio::test]
#[cfg_attr(not(debug_assertions), ignore = "only a debug build has crash points")]
async fn killed_when_the_bytes_were_handed_over() {
    check(Case { point: "written", ends: &[DISPATCH_UNCERTAIN], ..CASE }).await;
}

#[tokio::test]
#[cfg_attr(not(debug_assertions), ignore = "only a debug build has crash points")]
async fn killed_before_the_confirmation_was_stored() {
    check(Case { point: "saving:broker_confirmed", ends: &[DISPATCH_UNCERTAIN], ..CASE }).await;
}

#[tokio::test]
#[cfg_attr(not(debug_assertions), ignore = "only a debug build has crash points")]
async fn killed_after_the_confirmation_was_stored() {
    check(Case { point: "saved:broker_confirmed", ends: &[NO_RESPONSE], ..CASE }).await;
}

#[tokio::test]
#[cfg_attr(not(debug_assertions), ignore = "only a debug build has crash points")]
async fn killed_before_the_reply_was_stored() {
    // On a slow machine the reply is stored together with the confirmation.
    let case = Case { point: "saving:reply", ends: &[NO_RESPONSE, DISPATCH_UNCERTAIN], ..CASE };
    check(Case { received: 1..=1, ..case }).await;
}

#[tokio::test]
#[cfg_attr(not(debug_assertions), ignore = "only a debug build has crash points")]
async fn killed_after_the_reply_was_stored_and_before_anybody_was_told() {
    check(Case { point: "saved:reply", ends: &[SUCCEEDED], received: 1..=1, ..CASE }).await;
}

#[tokio::test]
#[cfg_attr(not(debug_assertions), ignore = "only a debug build has crash points")]
async fn killed_right_after_the_end() {
    check(Case { point: "told:reply", ends: &[SUCCEEDED], received: 1..=1, ..CASE }).await;
}

#[tokio::test]
#[cfg_attr(not(debug_assertions), ignore = "only a debug build has crash points")]
async fn killed_while_a_job_reports_its_progress() {
    let case = Case { point: "saved:progress", method: "cover_open", speed: 5.0, ..CASE };
    let case = Case { before: &["debug_mode_open"], timeout_seconds: 0, ..case };
    check(Case { ends: &[SUCCEEDED], received: 1..=1, ..case }).await;
}

#[tokio::test]
async fn killed_while_commands_wait_for_an_absent_dock() {
    let (place, config) = place_with_dock(1.0).await;
    let sn = config.docks[0].sn.clone();
    let process = place.spawn(None).await;
    let api = place.api();
    let waiting = api.create(&sn, "debug_mode_open", json!({}), json!({})).await.id();
    let hasty = json!({"timeout_seconds": 1});
    let late = api.create(&sn, "debug_mode_close", json!({}), hasty).await.id();
    process.kill().await;

    let _process = place.spawn(None).await;
    let late = api.ended(&late).await;
    assert_eq!(
        (&late["status"], &late["failure_code"]),
        (&json!("TIMED_OUT"), &json!("DEVICE_OFFLINE"))
    );
    let fleet = connect(&place, &config).await;
    let ended = api.ended(&waiting).await;
    assert_eq!(ended["status"], "SUCCEEDED", "{ended:#}");
    for ended in [&late, &ended] {
        truth::must_be_true(ended, &fleet);
    }
    assert_eq!(fleet.received().len(), 1, "nothing old is sent");
}
