//! `kill -9` at every step of a command's life. Whatever was accepted comes to an end that is true, the device has it at
//! most once and in time, and the caller who lost the answer gets the same command again.

use std::{
    ops::RangeInclusive,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use tokio::sync::watch;
use utmos_mqtt::ProtocolChoice;
use utmos_sim::{Fleet, FleetConfig, ReplyTiming};

use crate::{
    api::{Api, COMMANDS, command},
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

/// Dice for the moments of death.
struct Dice(u64);

impl Dice {
    fn throw(&mut self, range: RangeInclusive<u64>) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        range.start() + self.0 % (range.end() - range.start() + 1)
    }
}

const DOCKS: u32 = 3;
const CLIENTS: usize = 6;
const COMMANDS_EACH: usize = 30;
const DEATHS: u64 = 4;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_again_and_again_under_load() {
    let seed = 0x5eed_2026;
    let (place, config) = Place::with_fleet(DOCKS).await;
    let mut process = place.spawn(None).await;
    let api = place.api();
    let fleet = connect(&place, &config).await;
    let (lives, life) = watch::channel(0_u64);
    let accepted = Arc::new(watch::Sender::new(0_u64));
    let clients: Vec<_> = (0..CLIENTS)
        .map(|client| {
            let (api, life, accepted) = (api.clone(), life.clone(), accepted.clone());
            let docks: Vec<String> = config.docks.iter().map(|dock| dock.sn.clone()).collect();
            tokio::spawn(async move {
                let mut made = Vec::new();
                for number in 0..COMMANDS_EACH {
                    let dock = &docks[(client + number) % docks.len()];
                    let body =
                        command(dock, method(number), json!({}), json!({"timeout_seconds": 3}));
                    let id = insist(&api, &body, &life).await;
                    accepted.send_modify(|count| *count += 1);
                    made.push((id, body));
                }
                made
            })
        })
        .collect();
    let mut dice = Dice(seed);
    let between = u64::try_from(CLIENTS * COMMANDS_EACH).unwrap() / (DEATHS + 1);
    let mut moment = 0;
    for _ in 0..DEATHS {
        moment += dice.throw(1..=between);
        accepted.subscribe().wait_for(|count| *count >= moment).await.unwrap();
        process.kill().await;
        process = place.spawn(None).await;
        lives.send_modify(|life| *life += 1);
    }
    let mut made = Vec::new();
    for client in clients {
        made.extend(client.await.unwrap());
    }
    let ends = AtomicU64::new(0);
    for (id, body) in &made {
        let ended = api.ended(id).await;
        truth::must_be_true(&ended, &fleet);
        ends.fetch_add(u64::from(ended["status"] == "SUCCEEDED"), Ordering::Relaxed);
        let again = api.post(COMMANDS, body).await;
        assert_eq!((again.status, again.id()), (StatusCode::OK, id.clone()), "seed {seed}");
    }
    assert!(ends.into_inner() > DEATHS, "some went well, or nothing was proved");
    let mut known: Vec<String> = made.iter().map(|(id, _)| id.clone()).collect();
    known.sort();
    let mut stored: Vec<String> = api.commands().await.iter().map(id_of).collect();
    stored.sort();
    assert_eq!(known, stored, "none lost, none made twice");
    for received in fleet.received() {
        let tid = received.tid.unwrap();
        assert!(known.binary_search(&tid.to_string()).is_ok(), "{tid} was never accepted");
    }
}

fn method(number: usize) -> &'static str {
    ["debug_mode_open", "flight_authority_grab", "flight_areas_get", "debug_mode_close"][number % 4]
}

fn id_of(command: &Value) -> String {
    command["command_id"].as_str().unwrap().to_owned()
}

/// Posts until there is an answer, as a caller does who lost one: with the same key.
async fn insist(api: &Api, body: &Value, life: &watch::Receiver<u64>) -> String {
    let mut life = life.clone();
    loop {
        let now = *life.borrow_and_update();
        if let Ok(answer) = api.try_request(Method::POST, COMMANDS, Some(body)).await {
            return answer.id();
        }
        life.wait_for(|life| *life > now).await.unwrap();
    }
}
