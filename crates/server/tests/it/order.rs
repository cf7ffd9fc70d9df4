//! Who goes first, who goes next, and who does not go.

use reqwest::StatusCode;
use serde_json::json;

use crate::app::TestApp;

fn fly_to(id: &str) -> serde_json::Value {
    json!({"fly_to_id": id, "max_speed": 5, "points": [{"latitude": 1.0, "longitude": 2.0, "height": 60.0}]})
}

#[tokio::test]
async fn commands_of_a_gateway_leave_in_the_order_of_acceptance() {
    let app = TestApp::start().await;
    let mut ids = Vec::new();
    for _ in 0..50 {
        ids.push(app.api.create("DOCK-1", "debug_mode_open", json!({}), json!({})).await.id());
    }
    let mut dock = app.dock("DOCK-1").await;
    for id in ids {
        assert_eq!(dock.command().await.tid(), id);
    }
}

#[tokio::test]
async fn an_emergency_fails_the_motions_that_wait_and_goes_out_itself() {
    let app = TestApp::start().await;
    let wait = json!({"if_offline": "wait"});
    let motion =
        app.api.create("DOCK-1", "flighttask_recovery", json!({}), wait.clone()).await.id();
    let harmless = app.api.create("DOCK-1", "debug_mode_open", json!({}), json!({})).await.id();
    let emergency = app.api.create("DOCK-1", "return_home", json!({}), wait).await.id();
    let ended = app.api.ended(&motion).await;
    assert_eq!(
        (&ended["status"], &ended["failure_code"]),
        (&json!("FAILED"), &json!("PREEMPTED_BY_EMERGENCY"))
    );
    let mut dock = app.dock("DOCK-1").await;
    let mut came =
        vec![dock.command().await.tid().to_owned(), dock.command().await.tid().to_owned()];
    came.sort();
    let mut expected = vec![harmless, emergency];
    expected.sort();
    assert_eq!(came, expected);
}

#[tokio::test]
async fn one_movement_at_a_time_unless_it_is_an_emergency() {
    let app = TestApp::start().await;
    let mut dock = app.dock("DOCK-1").await;
    dock.report_aircraft("DRONE-1").await;
    let first = app.api.create("DRONE-1", "fly_to_point", fly_to("a"), json!({})).await.id();
    let command = dock.command().await;
    dock.reply(&command, json!({"result": 0})).await;
    let busy = app.api.create("DOCK-1", "fly_to_point", fly_to("b"), json!({})).await;
    assert_eq!((busy.status, busy.code()), (StatusCode::CONFLICT, "DEVICE_BUSY"), "{busy:?}");
    assert!(busy.body["message"].as_str().unwrap().contains(&first), "it names the one in the way");
    let update =
        json!({"max_speed": 5, "points": [{"latitude": 1.0, "longitude": 2.0, "height": 60.0}]});
    assert_eq!(
        app.api.create("DRONE-1", "fly_to_point_update", update, json!({})).await.status,
        StatusCode::ACCEPTED
    );
    assert_eq!(dock.command().await.method(), "fly_to_point_update", "steering is no start");
    assert_eq!(
        app.api.create("DRONE-1", "return_home", json!({}), json!({})).await.status,
        StatusCode::ACCEPTED
    );
    assert_eq!(
        dock.command().await.method(),
        "return_home",
        "an emergency is never refused as busy"
    );
    let end = json!({"result": 0, "fly_to_id": "a", "status": "wayline_ok", "way_point_index": 0});
    dock.event("fly_to_point_progress", &json!("a-bid-of-its-own"), end, 0).await;
    assert_eq!(app.api.ended(&first).await["status"], "SUCCEEDED", "matched by fly_to_id alone");
}

#[tokio::test]
async fn a_movement_of_unknown_outcome_stands_in_the_way_until_its_events_say_it_is_over() {
    let app = TestApp::start().await;
    let mut dock = app.dock("DOCK-1").await;
    dock.report_aircraft("DRONE-1").await;
    let short = json!({"timeout_seconds": 1});
    let first = app.api.create("DRONE-1", "fly_to_point", fly_to("a"), short).await.id();
    dock.command().await;
    assert_eq!(app.api.ended(&first).await["failure_code"], "NO_RESPONSE");
    let report = |status: &str| json!({"result": 0, "fly_to_id": "a", "status": status, "way_point_index": 0});
    dock.event("fly_to_point_progress", &json!("b"), report("wayline_progress"), 0).await;
    let flying = app.api.until(&first, |command| !command["execution"].is_null()).await;
    assert_eq!(flying["status"], "TIMED_OUT", "the state does not change; what it does is shown");
    let busy = app.api.create("DRONE-1", "fly_to_point", fly_to("b"), json!({})).await;
    assert_eq!(busy.code(), "DEVICE_BUSY", "{busy:?}");
    dock.event("fly_to_point_progress", &json!("b"), report("wayline_ok"), 0).await;
    app.api.until(&first, |command| command["execution"]["state"] == "wayline_ok").await;
    let next = app.api.create("DRONE-1", "fly_to_point", fly_to("c"), json!({})).await;
    assert_eq!(next.status, StatusCode::ACCEPTED, "{next:?}");
}

#[tokio::test]
async fn after_return_home_the_aircrafts_own_telemetry_frees_it() {
    let app = TestApp::start().await;
    let mut dock = app.dock("DOCK-1").await;
    dock.report_aircraft("DRONE-1").await;
    let osd = |mode: u8| json!({"tid": "o", "bid": "o", "timestamp": 1, "gateway": "DOCK-1", "data": {"mode_code": mode}});
    let home = app.api.create("DRONE-1", "return_home", json!({}), json!({})).await.id();
    let command = dock.command().await;
    dock.publish("thing/product/DRONE-1/osd", &osd(9)).await;
    dock.reply(&command, json!({"result": 0})).await;
    assert_eq!(app.api.ended(&home).await["status"], "SUCCEEDED");
    let busy = app.api.create("DRONE-1", "fly_to_point", fly_to("a"), json!({})).await;
    assert_eq!(busy.code(), "DEVICE_BUSY", "it is still on its way: {busy:?}");
    dock.publish("thing/product/DRONE-1/osd", &osd(10)).await;
    dock.publish("thing/product/DRONE-1/osd", &osd(0)).await;
    dock.drain().await;
    tokio::time::timeout(crate::app::PATIENCE, async {
        while app.api.create("DRONE-1", "fly_to_point", fly_to("b"), json!({})).await.status
            != StatusCode::ACCEPTED
        {}
    })
    .await
    .expect("the aircraft was never freed");
}
