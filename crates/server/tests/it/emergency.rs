//! Emergencies go out while the database is unwell.

use reqwest::StatusCode;
use serde_json::json;

use crate::app::{COMMANDS, TestApp};

/// The database takes no more pages, as on a full disk.
pub async fn fill(app: &TestApp) {
    app.store.limit_pages(1).await.unwrap();
    // What is free inside the file is used up first.
    for _ in 0..10_000 {
        let answer = app.api.create("DOCK-2", "debug_mode_open", json!({}), json!({})).await;
        if answer.status == StatusCode::SERVICE_UNAVAILABLE {
            assert_eq!(answer.code(), "OVERLOADED");
            assert!(answer.headers.contains_key("retry-after"));
            return;
        }
    }
    panic!("the store never filled up");
}

#[tokio::test]
async fn an_emergency_goes_out_on_a_full_disk_and_is_put_on_record_when_there_is_room_again() {
    let app = TestApp::start().await;
    let mut dock = app.dock("DOCK-1").await;
    fill(&app).await;
    let key = json!({"idempotency_key": "stop-now"});
    let created = app.api.create("DOCK-1", "return_home", json!({}), key.clone()).await;
    assert_eq!(created.status, StatusCode::ACCEPTED, "{created:?}");
    let command = dock.command().await;
    assert_eq!((command.tid(), command.method()), (created.id().as_str(), "return_home"));
    dock.reply(&command, json!({"result": 0})).await;
    let again = app.api.create("DOCK-1", "return_home", json!({}), key.clone()).await;
    assert_eq!(
        (again.status, again.id()),
        (StatusCode::OK, created.id()),
        "its key holds in the journal too"
    );
    let other = app.api.create("DOCK-1", "drone_emergency_stop", json!({}), key).await;
    assert_eq!(other.code(), "IDEMPOTENCY_CONFLICT");

    app.store.limit_pages(1_000_000).await.unwrap();
    let app = app.restart().await;
    let ended = app.api.ended(&created.id()).await;
    assert_eq!((&ended["status"], &ended["response_code"]), (&json!("SUCCEEDED"), &json!("0")));
    let causes = app.api.causes(&created.id()).await;
    assert!(
        causes.contains(&"sending_claimed".into()) && causes.contains(&"reply".into()),
        "{causes:?}"
    );
    let listed = app.api.get(&format!("{COMMANDS}?device_id=DOCK-1")).await;
    assert_eq!(listed.body["items"].as_array().map(Vec::len), Some(1));
    let mut dock = app.dock("DOCK-1").await;
    assert!(dock.drain().await.is_empty(), "it was sent once");
}

#[tokio::test]
async fn an_emergency_that_was_claimed_in_the_journal_is_not_sent_again_after_a_restart() {
    let app = TestApp::start().await;
    let mut dock = app.dock("DOCK-1").await;
    fill(&app).await;
    let stop = json!({"timeout_seconds": 2});
    let id = app.api.create("DOCK-1", "return_home", json!({}), stop).await.id();
    assert_eq!(dock.command().await.tid(), id);
    app.store.limit_pages(1_000_000).await.unwrap();
    let app = app.restart().await;
    let mut dock = app.dock("DOCK-1").await;
    assert!(dock.drain().await.is_empty());
    assert_eq!(app.api.ended(&id).await["status"], "TIMED_OUT");
}

#[tokio::test]
async fn an_emergency_withdraws_what_waits_for_its_aircraft_at_another_gateway() {
    let app = TestApp::start().await;
    // A remote controller had the aircraft, and lost it to the dock.
    let mut other = app.dock("DOCK-2").await;
    other.report_aircraft("AIR-1").await;
    other.report_nobody().await;
    other.leave().await;
    let mut dock = app.dock("DOCK-1").await;
    dock.report_aircraft("AIR-1").await;
    let fly =
        app.api.get("/api/v1/open/catalog/dji/methods/fly_to_point").await.body["example"].clone();
    let waits = json!({"if_offline": "wait", "timeout_seconds": 60});
    let flight = app.api.create("DOCK-2", "fly_to_point", fly, waits).await.id();

    let stop = app.api.create("AIR-1", "fly_to_point_stop", json!({}), json!({})).await.id();
    let command = dock.command().await;
    assert_eq!(command.tid(), stop);
    dock.reply(&command, json!({"result": 0})).await;
    let withdrawn = app.api.ended(&flight).await;
    assert_eq!(withdrawn["failure_code"], "PREEMPTED_BY_EMERGENCY", "{withdrawn}");
    let mut other = app.dock("DOCK-2").await;
    assert!(other.drain().await.is_empty());
}

#[tokio::test]
async fn of_two_copies_of_an_emergency_the_store_is_asked_for_one() {
    let app = TestApp::start().await;
    let mut dock = app.dock("DOCK-1").await;
    app.unwell.hold_acceptances(true);
    let extra = json!({"idempotency_key": "stop-now", "timeout_seconds": 30});
    let ask = || app.api.create("DOCK-1", "return_home", json!({}), extra.clone());
    let (one, other) = tokio::join!(ask(), ask());
    assert_eq!(one.id(), other.id(), "it went by the journal");
    let command = dock.command().await;
    assert_eq!(command.tid(), one.id());
    dock.reply(&command, json!({"result": 0})).await;
    assert_eq!(app.api.ended(&one.id()).await["status"], "SUCCEEDED");
    let asked: Vec<String> =
        app.unwell.held_acceptances().iter().map(ToString::to_string).collect();
    assert_eq!(asked, [one.id()]);

    // Whether the store writes it after all or not, its key leads to it.
    app.unwell.hold_acceptances(false);
    app.unwell.release();
    let again = ask().await;
    assert_eq!((again.status, again.id()), (StatusCode::OK, one.id()));
    assert!(dock.drain().await.is_empty());
}
