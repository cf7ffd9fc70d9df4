//! What must hold while the store is slow or refuses, and while docks come, go and claim too much.

use std::time::Duration;

use reqwest::StatusCode;
use serde_json::json;

use crate::{
    app::{COMMANDS, TestApp},
    dock::PretendDock,
    wire::{Wire, head},
};

fn fly_to(id: &str) -> serde_json::Value {
    json!({"fly_to_id": id, "max_speed": 5, "points": [{"latitude": 1.0, "longitude": 2.0, "height": 60.0}]})
}

#[tokio::test]
async fn a_movement_whose_claim_is_being_saved_does_not_leave_after_an_emergency() {
    let app = TestApp::start().await;
    let patient = json!({"if_offline": "wait"});
    let motion = app.api.create("DOCK-1", "fly_to_point", fly_to("a"), patient).await.id();
    app.unwell.hold();
    let mut dock = app.dock("DOCK-1").await;
    app.unwell.until_waiting(1).await;
    let emergency = app.api.create("DOCK-1", "return_home", json!({}), json!({})).await.id();
    assert_eq!(
        dock.command().await.tid(),
        emergency,
        "it goes by the journal while the claim is held"
    );
    app.unwell.release();
    let ended = app.api.ended(&motion).await;
    assert_eq!(
        (&ended["status"], &ended["failure_code"]),
        (&json!("FAILED"), &json!("PREEMPTED_BY_EMERGENCY"))
    );
    assert!(dock.drain().await.is_empty(), "the movement never left");
}

#[tokio::test]
async fn a_movement_whose_acceptance_is_being_saved_does_not_leave_after_an_emergency() {
    let app = TestApp::start().await;
    let mut dock = app.dock("DOCK-1").await;
    app.unwell.hold_acceptances(true);
    let (api, first) = (app.api.clone(), fly_to("a"));
    let motion =
        tokio::spawn(
            async move { api.create("DOCK-1", "fly_to_point", first, json!({})).await.id() },
        );
    app.unwell.until_waiting(1).await;
    app.unwell.hold_acceptances(false);
    // Not one that starts a movement itself: that would refuse the other already.
    let emergency =
        app.api.create("DOCK-1", "drone_emergency_stop", json!({}), json!({})).await.id();
    app.api.until(&emergency, |command| command["status"] == "DELIVERED").await;
    app.unwell.release();
    let ended = app.api.ended(&motion.await.unwrap()).await;
    assert_eq!(
        (&ended["status"], &ended["failure_code"]),
        (&json!("FAILED"), &json!("PREEMPTED_BY_EMERGENCY"))
    );
    let came = dock.drain().await;
    let methods: Vec<&str> = came.iter().map(|down| down.method()).collect();
    assert_eq!(methods, ["drone_emergency_stop"], "the movement was claimed and still never left");
}

#[tokio::test]
async fn what_is_accepted_while_an_earlier_claim_is_being_saved_leaves_after_it() {
    let app = TestApp::start().await;
    let first = app.api.create("DOCK-1", "debug_mode_open", json!({}), json!({})).await.id();
    app.unwell.hold();
    let mut dock = app.dock("DOCK-1").await;
    app.unwell.until_waiting(1).await;
    let second = app.api.create("DOCK-1", "debug_mode_close", json!({}), json!({})).await.id();
    app.unwell.release();
    assert_eq!([dock.command().await.tid(), dock.command().await.tid()], [first, second]);
}

#[tokio::test]
async fn what_nobody_listens_for_holds_up_no_other_channel() {
    let app = TestApp::start().await;
    let mut dock =
        PretendDock::connect_to(app.mqtt, "DOCK-1", &["thing/product/{sn}/services"]).await;
    let stick = json!({"roll": 1024, "pitch": 1024, "throttle": 1024, "yaw": 1024});
    let patient = json!({"if_offline": "wait", "timeout_seconds": 300});
    let control = app.api.create("DOCK-1", "stick_control", stick, patient).await.id();
    let mut causes = Vec::new();
    while !causes.iter().any(|cause| cause == "not_sent") {
        causes = app.api.causes(&control).await;
    }
    let hasty = json!({"if_offline": "fail"});
    let other = app.api.create("DOCK-1", "debug_mode_open", json!({}), hasty).await.id();
    assert_eq!(dock.command().await.tid(), other);
}

#[tokio::test]
async fn order_holds_when_the_store_refuses_for_a_while() {
    let app = TestApp::start().await;
    let mut ids = Vec::new();
    for _ in 0..10 {
        ids.push(app.api.create("DOCK-1", "debug_mode_open", json!({}), json!({})).await.id());
    }
    app.unwell.refuse(true);
    let mut dock = app.dock("DOCK-1").await;
    // Each of the ten claims was refused at least twice.
    while app.unwell.refused() < 20 {
        tokio::task::yield_now().await;
    }
    app.unwell.refuse(false);
    for id in ids {
        assert_eq!(dock.command().await.tid(), id);
    }
}

#[tokio::test]
async fn an_answer_that_comes_while_the_time_out_is_being_saved_is_kept() {
    let app = TestApp::start().await;
    let mut dock = app.dock("DOCK-1").await;
    let short = json!({"timeout_seconds": 1});
    let id = app.api.create("DOCK-1", "debug_mode_open", json!({}), short).await.id();
    let command = dock.command().await;
    app.api.until(&id, |command| command["status"] == "DELIVERED").await;
    app.unwell.hold();
    app.unwell.until_waiting(1).await;
    dock.reply(&command, json!({"result": 0})).await;
    dock.drain().await;
    app.unwell.release();
    let filled = app.api.until(&id, |command| !command["response_code"].is_null()).await;
    assert_eq!((&filled["status"], &filled["response_code"]), (&json!("TIMED_OUT"), &json!("0")));
}

#[tokio::test]
async fn a_stray_message_of_one_dock_holds_up_no_other_while_the_store_waits() {
    let app = TestApp::start().await;
    let noisy = app.dock("DOCK-2").await;
    let mut dock = app.dock("DOCK-1").await;
    app.unwell.hold();
    for _ in 0..100 {
        noisy.publish_raw("thing/product/DOCK-2/services_reply", b"{broken").await;
    }
    assert!(
        dock.drain().await.is_empty(),
        "the way in goes on: this asks for an answer and gets it"
    );
    app.unwell.release();
}

#[tokio::test]
async fn a_stop_ends_though_the_store_refuses() {
    let app = TestApp::start().await;
    let mut dock = app.dock("DOCK-1").await;
    let id = app.api.create("DOCK-1", "debug_mode_open", json!({}), json!({})).await.id();
    let command = dock.command().await;
    app.api.until(&id, |command| command["status"] == "DELIVERED").await;
    app.unwell.refuse(true);
    dock.reply(&command, json!({"result": 0})).await;
    while app.unwell.refused() == 0 {
        tokio::task::yield_now().await;
    }
    tokio::time::timeout(crate::app::PATIENCE, app.server.stop())
        .await
        .expect("the stop does not end");
}

#[tokio::test]
async fn a_session_that_was_taken_over_gets_what_waits_once_it_listens() {
    let app = TestApp::start().await;
    let first = app.dock("DOCK-1").await;
    let second = app.dock("DOCK-1").await;
    drop(first);
    second.leave().await;
    let id = app.api.create("DOCK-1", "debug_mode_open", json!({}), json!({})).await.id();
    let mut third = app.dock("DOCK-1").await;
    assert_eq!(third.command().await.tid(), id);
}

#[tokio::test]
async fn a_dock_that_claims_another_as_its_aircraft_reaches_none_of_its_topics() {
    let app = TestApp::start().await;
    app.other_tenant("second", "DOCK-9").await;
    let mut thief = app.dock("DOCK-1").await;
    let mut victim = app.dock("DOCK-9").await;
    let own =
        app.api.create("DOCK-2", "fly_to_point", fly_to("a"), json!({"if_offline": "wait"})).await;
    assert_eq!(own.status, StatusCode::ACCEPTED);
    for claimed in ["DOCK-2", "DOCK-9"] {
        thief.report_aircraft(claimed).await;
        assert!(
            !thief.may_subscribe(&format!("thing/product/{claimed}/services")).await,
            "{claimed}"
        );
        assert!(!thief.may_publish(&format!("thing/product/{claimed}/events")).await, "{claimed}");
    }
    assert!(victim.drain().await.is_empty());
}

#[tokio::test]
async fn a_stop_takes_no_longer_than_it_may_whatever_does_not_end() {
    let app = TestApp::start_with(&["http.shutdown_seconds=4", "http.body_read_seconds=300"]).await;
    // A change that cannot be saved, a request that does not end, and a dock that stays.
    app.api.create("DOCK-1", "debug_mode_open", json!({}), json!({})).await.id();
    app.unwell.hold();
    let _dock = app.dock("DOCK-1").await;
    app.unwell.until_waiting(1).await;
    let mut wire = Wire::open(app.http).await;
    let head = head("POST", COMMANDS, &app.api.fresh_headers("POST", COMMANDS, b"{}"));
    wire.send(format!("{head}Content-Length: 2\r\n\r\n{{").as_bytes()).await;
    // Another request on a connection of its own, so that the first has been taken in.
    assert_eq!(app.api.get(COMMANDS).await.status, StatusCode::OK);
    let stopped = tokio::time::timeout(Duration::from_secs(7), app.server.stop()).await;
    assert!(stopped.is_ok(), "each part took the whole time for itself");
    assert!(wire.answer().await.is_none(), "what did not end is cut");
}
