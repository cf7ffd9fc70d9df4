//! Cancelling what has left: its abort command, as often as it takes, and also while the database is unwell.

use std::time::Duration;

use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use crate::{
    app::{Answer, COMMANDS, PATIENCE, TestApp, unix_seconds},
    dock::{Down, PretendDock},
    emergency::fill,
};

fn fly_to(id: &str) -> Value {
    json!({"fly_to_id": id, "max_speed": 5, "points": [{"latitude": 1.0, "longitude": 2.0, "height": 60.0}]})
}

/// A flight that the dock says has begun. Answers its id and how it came to the dock.
async fn flight(app: &TestApp, dock: &mut PretendDock, more: Value) -> (String, Down) {
    let id = app.api.create("DOCK-1", "fly_to_point", fly_to("f"), more).await.id();
    let command = dock.command().await;
    dock.reply(&command, json!({"result": 0})).await;
    app.api.until(&id, |command| !command["response_code"].is_null()).await;
    (id, command)
}

async fn cancel(app: &TestApp, id: &str) -> Answer {
    app.api.post(&format!("{COMMANDS}/{id}/cancel"), &Value::Null).await
}

fn abort_of(answer: &Answer) -> &str {
    assert_eq!(answer.status, StatusCode::OK, "{answer:?}");
    answer.body["abort_command_id"].as_str().unwrap()
}

#[tokio::test]
async fn a_cancel_after_an_abort_that_failed_sends_another() {
    let app = TestApp::start().await;
    let mut dock = app.dock("DOCK-1").await;
    let (flying, _) = flight(&app, &mut dock, json!({})).await;
    let mut aborts = Vec::new();
    for result in [514_100, 514_101, 0] {
        let asked = [cancel(&app, &flying).await, cancel(&app, &flying).await];
        let (one, two) = (abort_of(&asked[0]), abort_of(&asked[1]));
        assert_eq!(one, two, "one abort for as long as it is under way");
        let stop = dock.command().await;
        assert_eq!((stop.method(), stop.tid()), ("fly_to_point_stop", one));
        dock.reply(&stop, json!({"result": result})).await;
        app.api.ended(one).await;
        aborts.push(one.to_owned());
    }
    let answer = cancel(&app, &flying).await;
    assert_eq!(abort_of(&answer), aborts[2], "what the device took is not sent again");
    assert!(dock.drain().await.is_empty());
    let timeline = app.api.get(&format!("{COMMANDS}/{flying}/timeline")).await.body;
    let noted: Vec<&str> = timeline["items"]
        .as_array()
        .unwrap()
        .iter()
        .filter_map(|item| item["abort_command_id"].as_str())
        .collect();
    assert_eq!(noted, aborts, "each stands on the timeline once");
}

#[tokio::test]
async fn simultaneous_cancels_after_an_abort_that_failed_make_one_abort() {
    let app = TestApp::start().await;
    let mut dock = app.dock("DOCK-1").await;
    let (flying, _) = flight(&app, &mut dock, json!({})).await;
    let first = cancel(&app, &flying).await;
    let stop = dock.command().await;
    dock.reply(&stop, json!({"result": 514_100})).await;
    app.api.ended(abort_of(&first)).await;
    let answers = futures_util::future::join_all((0..16).map(|_| cancel(&app, &flying))).await;
    let second = abort_of(&answers[0]);
    assert_ne!(second, abort_of(&first));
    assert!(answers.iter().all(|answer| abort_of(answer) == second), "{answers:?}");
    let came = dock.drain().await;
    assert_eq!(came.iter().map(Down::tid).collect::<Vec<_>>(), [second]);
}

#[tokio::test]
async fn what_runs_on_beside_the_end_of_its_command_can_be_cancelled() {
    let app = TestApp::start().await;
    let mut dock = app.dock("DOCK-1").await;
    let (flying, command) = flight(&app, &mut dock, json!({"complete_on": "reply"})).await;
    let read = app.api.ended(&flying).await;
    assert_eq!(read["status"], "SUCCEEDED");
    let answer = cancel(&app, &flying).await;
    let stop = dock.command().await;
    assert_eq!((stop.method(), stop.tid()), ("fly_to_point_stop", abort_of(&answer)));
    dock.reply(&stop, json!({"result": 0})).await;
    app.api.ended(stop.tid()).await;
    // Once the job is over, there is nothing to stop.
    let over = json!({"fly_to_id": "f", "status": "wayline_cancel", "result": 0});
    dock.event("fly_to_point_progress", &command.body["bid"], over, 0).await;
    app.api.until(&flying, |command| command["execution"]["state"] == "wayline_cancel").await;
    let late = cancel(&app, &flying).await;
    assert_eq!((late.status, late.code()), (StatusCode::CONFLICT, "COMMAND_NOT_CANCELLABLE"));
    let message = late.body["message"].as_str().unwrap();
    assert!(message.contains("has ended as SUCCEEDED"), "{message}");
}

#[tokio::test]
async fn an_abort_concerns_the_aircraft_of_what_it_stops() {
    let app = TestApp::start().await;
    let mut dock = app.dock("DOCK-1").await;
    dock.report_aircraft("DRONE-1").await;
    let flying = app.api.create("DRONE-1", "fly_to_point", fly_to("f"), json!({})).await.id();
    let command = dock.command().await;
    dock.reply(&command, json!({"result": 0})).await;
    app.api.until(&flying, |command| !command["response_code"].is_null()).await;
    // The aircraft goes over to the other gateway, where a movement waits for somebody to listen.
    let mut other = PretendDock::connect_to(app.mqtt, "DOCK-2", &["sys/product/{sn}/#"]).await;
    other.report_aircraft("DRONE-1").await;
    dock.drain().await;
    let patient = json!({"if_offline": "wait", "timeout_seconds": 300});
    let waiting = app.api.create("DRONE-1", "flighttask_recovery", json!({}), patient).await.id();
    let stop = cancel(&app, &flying).await;
    assert_eq!(dock.command().await.tid(), abort_of(&stop));
    let ended = app.api.ended(&waiting).await;
    assert_eq!(ended["failure_code"], "PREEMPTED_BY_EMERGENCY", "{ended:#}");
    assert_eq!(ended["gateway_id"], "DOCK-2", "{ended:#}");
}

#[tokio::test]
async fn a_cancel_whose_abort_is_an_emergency_goes_out_on_a_full_disk() {
    let app = TestApp::start().await;
    let mut dock = app.dock("DOCK-1").await;
    let (flying, _) = flight(&app, &mut dock, json!({})).await;
    fill(&app).await;
    // Until there is no room for a nonce either.
    while app.api.get(COMMANDS).await.status == StatusCode::OK {}
    let answer = cancel(&app, &flying).await;
    let stop = dock.command().await;
    assert_eq!((stop.method(), stop.tid()), ("fly_to_point_stop", abort_of(&answer)));
    let again = cancel(&app, &flying).await;
    assert_eq!(abort_of(&again), stop.tid(), "one abort, in the journal too");
    app.store.limit_pages(1_000_000).await.unwrap();
    dock.reply(&stop, json!({"result": 0})).await;
    app.api.ended(stop.tid()).await;
    assert!(dock.drain().await.is_empty(), "it was sent once");
}

#[tokio::test]
async fn a_cancel_whose_abort_is_an_emergency_does_not_wait_for_a_database_that_hangs() {
    let app = TestApp::start().await;
    let mut dock = app.dock("DOCK-1").await;
    // Delivered, and its confirmation cannot be saved: it stands as being sent.
    let id = app.api.create("DOCK-1", "fly_to_point", fly_to("f"), json!({})).await.id();
    app.unwell.hold_everything();
    dock.command().await;
    let mut answer = cancel(&app, &id).await;
    // Refused for as long as the broker has no word on it.
    while answer.status == StatusCode::CONFLICT {
        answer = cancel(&app, &id).await;
    }
    let stop = dock.command().await;
    assert_eq!((stop.method(), stop.tid()), ("fly_to_point_stop", abort_of(&answer)));
    app.unwell.release();
    dock.reply(&stop, json!({"result": 0})).await;
    app.api.ended(stop.tid()).await;
    // It is noted when the database has the time; the answer of the stop may be before it.
    let noted = async { while !app.api.causes(&id).await.contains(&"cancelled".into()) {} };
    tokio::time::timeout(PATIENCE, noted).await.unwrap();
}

#[tokio::test]
async fn a_cancel_whose_abort_is_an_emergency_goes_out_on_a_damaged_database() {
    let app = TestApp::start().await;
    let mut dock = app.dock("DOCK-1").await;
    let (flying, _) = flight(&app, &mut dock, json!({})).await;
    let plain = app.api.create("DOCK-1", "debug_mode_open", json!({}), json!({})).await.id();
    dock.command().await;
    app.api.until(&plain, |command| command["status"] == "DELIVERED").await;
    app.unwell.damage(true);
    let answer = cancel(&app, &flying).await;
    let stop = dock.command().await;
    assert_eq!((stop.method(), stop.tid()), ("fly_to_point_stop", abort_of(&answer)));
    let again = cancel(&app, &flying).await;
    assert_eq!(abort_of(&again), stop.tid(), "one abort, in the journal too");
    // What speaks against another is not said of a database that nobody can rely on.
    let refused = cancel(&app, &plain).await;
    assert_eq!(refused.status, StatusCode::INTERNAL_SERVER_ERROR, "{refused:?}");
    app.unwell.damage(false);
    dock.reply(&stop, json!({"result": 0})).await;
    app.api.ended(stop.tid()).await;
    assert!(dock.drain().await.is_empty(), "it was sent once");
}

/// A cancel with this nonce.
async fn cancel_with(app: &TestApp, id: &str, nonce: &str) -> Answer {
    let target = format!("{COMMANDS}/{id}/cancel");
    app.api.request_with(Method::POST, &target, Some(b"null"), nonce, unix_seconds()).await
}

#[tokio::test]
async fn a_cancel_is_refused_only_once_its_nonce_is_on_record() {
    let app = TestApp::start().await;
    let mut dock = app.dock("DOCK-1").await;
    let id = app.api.create("DOCK-1", "debug_mode_open", json!({}), json!({})).await.id();
    dock.command().await;
    app.api.until(&id, |command| command["status"] == "DELIVERED").await;

    // While the database refuses, what is known from memory is not said: the nonce is not on record.
    app.unwell.hold_everything();
    app.unwell.refuse(true);
    app.unwell.release();
    let unwell = cancel_with(&app, &id, "of-a-refused-cancel").await;
    assert_eq!((unwell.status, unwell.code()), (StatusCode::SERVICE_UNAVAILABLE, "OVERLOADED"));
    app.unwell.refuse(false);
    let refused = cancel_with(&app, &id, "of-a-refused-cancel").await;
    assert_eq!((refused.status, refused.code()), (StatusCode::CONFLICT, "COMMAND_NOT_CANCELLABLE"));
    let replayed = cancel_with(&app, &id, "of-a-refused-cancel").await;
    assert_eq!(replayed.code(), "NONCE_REPLAYED", "{replayed:?}");

    // While it hangs, the refusal waits for it.
    app.unwell.hold_everything();
    let slow = {
        let mut slow = std::pin::pin!(cancel_with(&app, &id, "of-a-slow-cancel"));
        // Longer than a cancel waits for the database before it looks into its memory.
        let early = tokio::time::timeout(Duration::from_millis(700), &mut slow).await;
        assert!(early.is_err(), "answered before its nonce was on record: {early:?}");
        app.unwell.release();
        slow.await
    };
    assert_eq!(slow.code(), "COMMAND_NOT_CANCELLABLE", "{slow:?}");
    let replayed = cancel_with(&app, &id, "of-a-slow-cancel").await;
    assert_eq!(replayed.code(), "NONCE_REPLAYED", "{replayed:?}");
}
