//! What devices say: whom it comes from, which command it is for, and that nobody floods the server with it.

use reqwest::Method;
use serde_json::json;
use utmos_core::time::Clock;
use utmos_server::clock::SystemClock;

use crate::{
    app::{PATIENCE, TestApp},
    dock::PretendDock,
    routes::assert_refused,
};

async fn metric(app: &TestApp, name: &str) -> u64 {
    let text = app.api.bare(Method::GET, "/metrics").send().await.unwrap().text().await.unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix(name)).unwrap();
    line.trim().parse().unwrap()
}

#[tokio::test]
async fn two_stops_at_once_are_answered_without_a_number_each_by_its_own_answer() {
    let app = TestApp::start().await;
    let mut dock = app.dock("DOCK-1").await;
    let mut stops = Vec::new();
    for _ in 0..2 {
        let stop = app.api.create("DOCK-1", "drone_emergency_stop", json!({}), json!({})).await;
        stops.push(stop.id());
        assert_eq!(dock.command().await.method(), "drone_emergency_stop");
    }
    for _ in 0..2 {
        let answer = json!({"method": "drone_emergency_stop", "data": {"result": 0}});
        dock.publish("thing/product/DOCK-1/drc/up", &answer).await;
    }
    for stop in stops {
        assert_eq!(app.api.ended(&stop).await["status"], "SUCCEEDED");
    }
}

#[tokio::test]
async fn what_an_aircraft_says_is_answered_while_two_gateways_have_it() {
    let app = TestApp::start().await;
    for sn in ["DOCK-1", "DOCK-2"] {
        let mut dock = app.dock(sn).await;
        dock.report_aircraft("AIR-1").await;
        dock.leave().await;
    }
    let replies = "thing/product/AIR-1/events_reply";
    let mut dock = PretendDock::connect_to(app.mqtt, "DOCK-1", &[replies]).await;
    let body = json!({
        "tid": "t-1", "bid": "b-1", "timestamp": 1, "gateway": "DOCK-1", "need_reply": 1,
        "method": "airsense_warning", "data": [],
    });
    dock.publish("thing/product/AIR-1/events", &body).await;
    let answer = dock.message("/events_reply").await;
    assert_eq!((answer.tid(), answer.method()), ("t-1", "airsense_warning"));
    assert_eq!(metric(&app, "utmos_uplink_strangers_total").await, 0);
}

#[tokio::test]
async fn a_command_for_an_aircraft_that_two_gateways_have_is_refused_until_one_of_them_has_it() {
    let app = TestApp::start().await;
    let (mut first, mut second) = (app.dock("DOCK-1").await, app.dock("DOCK-2").await);
    first.report_aircraft("AIR-1").await;
    second.report_aircraft("AIR-1").await;
    let light = async |device: &str| {
        app.api.create(device, "drc_initial_state_subscribe", json!({}), json!({})).await
    };
    let refused = light("AIR-1").await;
    assert_refused(&refused, 400, "VALIDATION_FAILED");
    let problem = refused.body["details"][0]["problem"].as_str().unwrap();
    assert!(problem.contains("(DOCK-1, DOCK-2); address the gateway you mean"), "{problem}");
    assert_eq!(refused.body["details"][0]["field"], "/device_id");
    // By the gateway that is meant it goes, and by the aircraft once only one has it.
    let id = light("DOCK-2").await.id();
    assert_eq!(second.command().await.topic, "thing/product/DOCK-2/drc/down", "{id}");
    second.report_nobody().await;
    light("AIR-1").await.id();
    assert_eq!(first.command().await.topic, "thing/product/DOCK-1/drc/down");
}

#[tokio::test]
async fn a_dock_that_says_more_than_can_be_stored_is_heard_no_further_and_its_command_still_ends() {
    let app = TestApp::start().await;
    let mut dock = app.dock("DOCK-1").await;
    let id = app.api.create("DOCK-1", "debug_mode_open", json!({}), json!({})).await.id();
    let command = dock.command().await;
    app.unwell.hold();
    // The store takes nothing more, and this dock tells of its command again and again.
    let large = json!({"result": 0, "output": {"text": "x".repeat(700_000)}});
    for _ in 0..20 {
        dock.reply(&command, large.clone()).await;
    }
    let mut other = PretendDock::connect(app.mqtt, "DOCK-2").await;
    while metric(&app, "utmos_uplink_received_total").await < 20 {
        tokio::task::yield_now().await;
    }
    assert!(metric(&app, "utmos_uplink_dropped_total").await >= 14);
    app.unwell.release();
    assert_eq!(app.api.ended(&id).await["status"], "SUCCEEDED");
    let second = app.api.create("DOCK-2", "debug_mode_open", json!({}), json!({})).await.id();
    assert_eq!(other.command().await.tid(), second);
    // What was stored made room again.
    let third = app.api.create("DOCK-1", "debug_mode_close", json!({}), json!({})).await.id();
    let command = dock.command().await;
    dock.reply(&command, large).await;
    assert_eq!(app.api.ended(&third).await["status"], "SUCCEEDED");
}

#[tokio::test]
async fn secrets_in_what_could_not_be_read_are_not_shown() {
    let app = TestApp::start().await;
    let dock = PretendDock::connect_to(app.mqtt, "DOCK-1", &["thing/product/{sn}/services"]).await;
    for text in [
        r#"{"tid":"t","bid":"b","method":"airport_organization_get","data":{"device_binding_code":"hush-1","organization_id":"#,
        r#"{"tid":7,"method":[],"data":{"app_license":"hush-2"}}"#,
    ] {
        dock.publish_raw("thing/product/DOCK-1/requests", text.as_bytes()).await;
    }
    let looking = async {
        loop {
            let kept = app.api.get("/api/v1/open/unmatched-responses").await.body;
            if !kept["items"].as_array().unwrap().is_empty() {
                return kept.to_string();
            }
        }
    };
    let kept = tokio::time::timeout(PATIENCE, looking).await.expect("nothing was kept");
    assert!(!kept.contains("hush") && kept.contains("airport_organization_get"), "{kept}");
}

/// What a device writes as its time is kept with what it says, and nothing else hangs on it.
#[tokio::test]
async fn a_dock_whose_clock_is_years_off_is_heard_answered_and_commanded_like_any_other() {
    let app = TestApp::start().await;
    let mut dock = app.dock("DOCK-1").await;
    let before = SystemClock::new().now().wall.to_string();
    let times = [
        json!(0),
        json!(1),
        json!(-62_135_596_800_000_i64),
        json!(946_684_800_000_i64),
        json!(4_102_444_800_000_i64),
        json!(i64::MAX),
        json!(u64::MAX),
        json!(1.7e300),
        json!("yesterday"),
    ];
    for (number, time) in times.iter().enumerate() {
        let with = |body: serde_json::Value| {
            let mut body = body;
            for (name, value) in
                [("bid", json!("b")), ("timestamp", time.clone()), ("gateway", json!("DOCK-1"))]
            {
                body[name] = value;
            }
            body
        };
        let tid = format!("t-{number}");
        let osd = with(json!({"tid": tid, "data": {"mode_code": number}}));
        dock.publish("thing/product/DOCK-1/osd", &osd).await;
        let asked = with(json!({"tid": tid, "method": "flight_areas_get", "data": {}}));
        dock.publish("thing/product/DOCK-1/requests", &asked).await;
        assert_eq!(dock.message("/requests_reply").await.tid(), tid, "{time}");
        let told = with(
            json!({"tid": tid, "method": "device_exit_homing_notify", "need_reply": 1, "data": {"number": number}}),
        );
        dock.publish("thing/product/DOCK-1/events", &told).await;
        assert_eq!(dock.message("/events_reply").await.tid(), tid, "{time}");
        let id = app
            .api
            .create("DOCK-1", "cover_open", json!({}), json!({"complete_on": "reply"}))
            .await
            .id();
        let command = dock.command().await;
        let answer = with(json!({
            "tid": command.body["tid"], "method": "cover_open",
            "data": {"result": 0, "output": {"status": "ok"}},
        }));
        let mut answer = answer;
        answer["bid"] = command.body["bid"].clone();
        dock.publish("thing/product/DOCK-1/services_reply", &answer).await;
        assert_eq!(app.api.ended(&id).await["status"], "SUCCEEDED", "{time}");
    }
    // Everything came when it came, by the server's clock.
    let latest = app.api.get("/api/v1/open/devices/DOCK-1/telemetry").await.body;
    let mode = &latest["blocks"]["mode_code"];
    assert_eq!(mode["value"], times.len() - 1, "{latest}");
    assert!(mode["updated_at"].as_str().unwrap() >= before.as_str(), "{latest}");
    assert!(mode["age_seconds"].as_f64().unwrap() < 60.0, "{latest}");
    let target = "/api/v1/open/devices/DOCK-1/events?types=device.event";
    let all = async {
        loop {
            let items = app.api.get(target).await.body["items"].as_array().unwrap().clone();
            if items.len() == times.len() {
                return items;
            }
            tokio::task::yield_now().await;
        }
    };
    let all = tokio::time::timeout(PATIENCE, all).await.expect("each is kept");
    assert!(all.iter().all(|one| one["received_at"].as_str().unwrap() >= before.as_str()));
    assert_eq!(app.api.get("/api/v1/open/devices/DOCK-1").await.body["online"], true);
}

/// The most that is understood, and a byte more.
#[tokio::test]
async fn a_message_of_a_mebibyte_is_taken_and_a_longer_one_is_counted_and_its_beginning_kept() {
    const MEBIBYTE: usize = 1 << 20;
    let app = TestApp::start().await;
    let mut dock = app.dock("DOCK-1").await;
    let of = |tid: &str, bytes: usize| {
        let pad = |pad: &str| {
            let body = json!({
                "tid": tid, "bid": "b-1", "timestamp": 1, "gateway": "DOCK-1", "need_reply": 1,
                "method": "airsense_warning", "data": {"pad": pad},
            });
            body.to_string()
        };
        let message = pad(&"x".repeat(bytes - pad("").len()));
        assert_eq!(message.len(), bytes);
        message
    };
    let topic = "thing/product/DOCK-1/events";
    let before = metric(&app, "utmos_uplink_malformed_total").await;
    dock.publish_raw(topic, of("t-1", MEBIBYTE).as_bytes()).await;
    assert_eq!(dock.message("/events_reply").await.tid(), "t-1");
    assert_eq!(metric(&app, "utmos_uplink_malformed_total").await, before);
    dock.publish_raw(topic, of("t-2", MEBIBYTE + 1).as_bytes()).await;
    let kept = async {
        loop {
            let kept = app.api.get("/api/v1/open/unmatched-responses").await.body;
            if let Some(kept) = kept["items"].get(0) {
                break kept.to_string();
            }
        }
    };
    let kept = tokio::time::timeout(PATIENCE, kept).await.expect("it is kept as evidence");
    assert!(kept.contains("1048577") && kept.len() < 10_000, "{kept}");
    assert_eq!(metric(&app, "utmos_uplink_malformed_total").await, before + 1);
    // The connection goes on.
    dock.publish_raw(topic, of("t-3", 1_000).as_bytes()).await;
    assert_eq!(dock.message("/events_reply").await.tid(), "t-3");
}
