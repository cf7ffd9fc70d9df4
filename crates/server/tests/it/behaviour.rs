//! Habits of real devices that no page documents; `docs/device-behaviour.md` says which tests hold the others.

use reqwest::Method;
use serde_json::{Value, json};

use crate::{
    app::{PATIENCE, TestApp},
    dock::PretendDock,
};

async fn metric(app: &TestApp, name: &str) -> u64 {
    let text = app.api.bare(Method::GET, "/metrics").send().await.unwrap().text().await.unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')).unwrap();
    line.parse().unwrap()
}

/// A device's events once there are so many.
async fn events(app: &TestApp, device: &str, count: usize) -> Vec<Value> {
    let target = format!("/api/v1/open/devices/{device}/events?types=device.event");
    let asking = async {
        loop {
            let items = app.api.get(&target).await.body["items"].as_array().unwrap().clone();
            if items.len() >= count {
                return items;
            }
        }
    };
    tokio::time::timeout(PATIENCE, asking).await.expect("too few events")
}

#[tokio::test]
async fn a_state_that_comes_again_is_answered_each_time_and_leaves_nothing_behind() {
    const COPIES: u64 = 50;
    let mut latest = 0;
    let app = TestApp::start().await;
    let mut dock = app.dock("DOCK-1").await;
    dock.report_aircraft("AIR-1").await;
    dock.leave().await;
    let mut dock =
        PretendDock::connect_to(app.mqtt, "DOCK-1", &["thing/product/AIR-1/state_reply"]).await;
    for copy in 0..COPIES {
        let body = json!({
            "tid": "018a2210", "bid": "018a2210", "timestamp": 1_779_352_000_000_u64 + copy * 8_200,
            "gateway": "DOCK-1", "need_reply": 1, "data": {"geo_caging_status": {"state": 1}},
        });
        dock.publish("thing/product/AIR-1/state", &body).await;
        let answer = dock.message("/state_reply").await;
        assert_eq!((answer.tid(), &answer.body["data"]), ("018a2210", &json!({"result": 0})));
        assert!(answer.body.get("method").is_none(), "the answer to a state has no method");
        if copy == 0 {
            latest = metric(&app, "utmos_telemetry_latest_bytes").await;
            assert!(latest > 0);
        }
    }
    assert_eq!(metric(&app, "utmos_telemetry_latest_bytes").await, latest);
    dock.leave().await;
    // A server that stops writes what it has.
    let app = app.restart().await;
    let samples = app.api.get("/api/v1/open/devices/AIR-1/telemetry/history").await.body;
    assert_eq!(samples["items"].as_array().unwrap().len(), 1, "{samples:#}");
}

#[tokio::test]
async fn alarms_listed_on_both_topics_are_those_of_the_device_they_are_about() {
    let app = TestApp::start().await;
    let mut dock = app.dock("DOCK-1").await;
    dock.report_aircraft("AIR-1").await;
    let alarm =
        json!({"code": "0x16100067", "level": 1, "module": 3, "in_the_sky": 1, "imminent": 1});
    let lists = |device: &str, list: Value| {
        let body = json!({
            "tid": uuid::Uuid::new_v4().to_string(), "bid": "b", "timestamp": 1, "gateway": "DOCK-1",
            "method": "hms", "data": {"list": list},
        });
        (format!("thing/product/{device}/events"), body)
    };
    // A dock in the air lists nothing of its own every two seconds, and beside it what its aircraft has.
    for _ in 0..20 {
        for (topic, body) in [lists("DOCK-1", json!([])), lists("AIR-1", json!([alarm.clone()]))] {
            dock.publish(&topic, &body).await;
        }
    }
    dock.event("track", &json!("b"), json!({"last": true}), 1).await;
    dock.message("/events_reply").await;
    events(&app, "DOCK-1", 1).await;
    let codes = async |device: &str| -> Vec<Value> {
        let alarms = app.api.get(&format!("/api/v1/open/devices/{device}/alarms")).await.body;
        alarms["items"].as_array().unwrap().iter().map(|item| item["code"].clone()).collect()
    };
    assert_eq!(codes("AIR-1").await, [json!("0x16100067")]);
    assert_eq!(codes("DOCK-1").await, [] as [Value; 0]);
    for (device, expected) in [("AIR-1", 1), ("DOCK-1", 0)] {
        let target = format!(
            "/api/v1/open/devices/{device}/events?types=device.alarm_raised,device.alarm_cleared"
        );
        let told = app.api.get(&target).await.body;
        assert_eq!(told["items"].as_array().unwrap().len(), expected, "{device}: {told:#}");
    }
}

#[tokio::test]
async fn the_state_of_direct_control_is_answered_with_its_bid_and_changes_no_command() {
    let app = TestApp::start().await;
    let mut dock = app.dock("DOCK-1").await;
    let payload = json!({
        "mqtt_broker": {
            "address": "mqtt.example.com:8883", "client_id": "sn_a", "username": "sn_a_username",
            "password": "jwt_token", "expire_time": 1_672_744_922, "enable_tls": true,
        },
        "osd_frequency": 10, "hsi_frequency": 1,
    });
    let id = app.api.create("DOCK-1", "drc_mode_enter", payload, json!({})).await.id();
    let command = dock.command().await;
    dock.reply(&command, json!({"result": 0})).await;
    let before = app.api.ended(&id).await;
    assert_eq!(before["status"], "SUCCEEDED");
    // A recorded dock told it at once, and again when nobody had steered for a minute.
    for (n, data) in
        [json!({"result": 0, "drc_state": 2}), json!({"result": 514_301, "drc_state": 0})]
            .into_iter()
            .enumerate()
    {
        dock.event("drc_status_notify", &command.body["bid"], data.clone(), 1).await;
        let answer = dock.message("/events_reply").await;
        assert_eq!(
            (answer.method(), &answer.body["bid"], &answer.body["data"]),
            ("drc_status_notify", &command.body["bid"], &json!({"result": 0}))
        );
        assert_eq!(events(&app, "DOCK-1", n + 1).await[0]["data"], data);
    }
    assert_eq!(
        app.api.ended(&id).await,
        before,
        "that direct control ended later does not undo that it began"
    );
}

#[tokio::test]
async fn models_versions_methods_and_keys_that_no_page_lists_pass() {
    let app = TestApp::start().await;
    let mut dock = app.dock("DOCK-1").await;
    let topology = json!({
        "tid": "new", "bid": "new", "timestamp": 1, "method": "update_topo", "something": {"new": []},
        "data": {
            "domain": "3", "type": 99, "sub_type": 7, "thing_version": "1.3.1",
            "device_secret": "s", "nonce": "n",
            "sub_devices": [{
                "sn": "AIR-1", "domain": "1", "type": 65534, "sub_type": 0, "index": "A",
                "thing_version": "9.9.9", "quite_new": true,
            }],
        },
    });
    dock.publish("sys/product/DOCK-1/status", &topology).await;
    assert_eq!(dock.message("/status_reply").await.body["data"], json!({"result": 0}));
    let id = app.api.create("AIR-1", "debug_mode_open", json!({}), json!({})).await.id();
    let command = dock.command().await;
    dock.reply(&command, json!({"result": 0})).await;
    assert_eq!(app.api.ended(&id).await["status"], "SUCCEEDED", "its aircraft can be reached");
    for (sn, key) in [("DOCK-1", "3-99-7"), ("AIR-1", "1-65534-0")] {
        let shown = app.api.get(&format!("/api/v1/open/devices/{sn}")).await.body;
        assert_eq!((&shown["model_key"], &shown["product_name"]), (&json!(key), &Value::Null));
    }

    for (n, method) in
        ["uom_fly_data_info", "release_terminal_control_area", "track", "not_thought_of"]
            .into_iter()
            .enumerate()
    {
        let data = json!({"quite_new": n, "enum": -77, "latitude": 225_796_000});
        dock.event(method, &json!("b"), data.clone(), 1).await;
        assert_eq!(dock.message("/events_reply").await.method(), method);
        assert_eq!(events(&app, "DOCK-1", n + 1).await[0]["data"], data, "{method}");
    }
    assert_eq!(metric(&app, "utmos_uplink_malformed_total").await, 0);
}

#[tokio::test]
async fn what_stands_for_nothing_is_shown_as_the_device_wrote_it() {
    let app = TestApp::start().await;
    let dock = app.dock("DOCK-1").await;
    let raw = r#"{"temperature":32767,"link":65535,"count":999,"index":-1,"wind":25,"height":25.4,"big":12345678901234567890,"exact":1.10,"on":0,"off":false}"#;
    let text = format!(
        r#"{{"tid":"t","bid":"b","timestamp":1,"gateway":"DOCK-1","method":"track","data":{raw}}}"#
    );
    dock.publish_raw("thing/product/DOCK-1/events", text.as_bytes()).await;
    events(&app, "DOCK-1", 1).await;
    let target = "/api/v1/open/devices/DOCK-1/events?types=device.event";
    let headers = app.api.fresh_headers("GET", target, b"");
    let request = crate::app::with_headers(app.api.bare(Method::GET, target), &headers);
    let shown = request.send().await.unwrap().text().await.unwrap();
    assert!(shown.contains(raw), "{shown}");

    // In what it tells of itself as well, each property as it stands.
    let osd = format!(r#"{{"tid":"u","bid":"b","timestamp":1,"gateway":"DOCK-1","data":{raw}}}"#);
    dock.publish_raw("thing/product/DOCK-1/osd", osd.as_bytes()).await;
    let target = "/api/v1/open/devices/DOCK-1/telemetry";
    let asking = async {
        loop {
            let headers = app.api.fresh_headers("GET", target, b"");
            let request = crate::app::with_headers(app.api.bare(Method::GET, target), &headers);
            let shown = request.send().await.unwrap().text().await.unwrap();
            if shown.contains("temperature") {
                return shown;
            }
        }
    };
    let shown = tokio::time::timeout(PATIENCE, asking).await.expect("it is never told");
    for (name, value) in [
        ("temperature", "32767"),
        ("link", "65535"),
        ("count", "999"),
        ("index", "-1"),
        ("wind", "25"),
        ("height", "25.4"),
        ("big", "12345678901234567890"),
        ("exact", "1.10"),
    ] {
        let block = format!(r#""{name}":{{"value":{value},"#);
        assert!(shown.contains(&block), "{block} in {shown}");
    }
}

#[tokio::test]
async fn a_remote_controller_names_the_method_inside_data_on_its_aircrafts_topic() {
    let app = TestApp::start().await;
    let mut dock = app.dock("DOCK-1").await;
    dock.report_aircraft("AIR-1").await;
    let zeros = "00000000-0000-0000-0000-000000000000";
    for code in [1, 1, 2] {
        let body = json!({
            "tid": zeros, "bid": zeros, "timestamp": 1, "gateway": "DOCK-1",
            "data": {"event": "status_code", "method": "status_code", "output": {"codes": [code]}},
        });
        dock.publish("thing/product/AIR-1/events", &body).await;
    }
    let told = events(&app, "AIR-1", 2).await;
    let said: Vec<_> =
        told.iter().map(|item| (&item["method"], &item["data"]["output"]["codes"][0])).collect();
    let method = json!("status_code");
    assert_eq!(said, [(&method, &json!(2)), (&method, &json!(1))]);

    // Its home is nowhere: the number is kept as told, and no position is made of it.
    let odd = json!({"home_latitude": 26_836_624.6, "home_longitude": -77_000_000.5, "latitude": 0.0, "longitude": 0.0});
    dock.osd("AIR-1", odd).await;
    let asking = async {
        loop {
            let latest = app.api.get("/api/v1/open/devices/AIR-1/telemetry").await.body;
            if !latest["blocks"]["home_latitude"].is_null() {
                return latest;
            }
        }
    };
    let latest = tokio::time::timeout(PATIENCE, asking).await.expect("it is never told");
    assert_eq!(latest["blocks"]["home_latitude"]["value"], json!(26_836_624.6));
}

#[tokio::test]
async fn answers_that_overtake_each_other_find_their_commands_whatever_the_docks_clock_says() {
    let app = TestApp::start().await;
    let mut dock = app.dock("DOCK-1").await;
    let mut sent = Vec::new();
    for method in ["flighttask_recovery", "camera_focal_length_set", "debug_mode_open"] {
        let payload = match method {
            "camera_focal_length_set" => {
                json!({"payload_index": "98-0-0", "camera_type": "zoom", "zoom_factor": 5})
            }
            _ => json!({}),
        };
        let id = app.api.create("DOCK-1", method, payload, json!({})).await.id();
        sent.push((id, dock.command().await));
    }
    // A recorded dock answered the second after 29 ms and the first after 477 ms; its clock was half a second behind.
    for ((id, command), result) in sent.iter().rev().zip([314_000, 0, 0]) {
        let body = json!({
            "tid": command.body["tid"], "bid": command.body["bid"],
            "timestamp": command.body["timestamp"].as_i64().unwrap() - 610,
            "method": command.body["method"], "data": {"result": result},
        });
        dock.publish("thing/product/DOCK-1/services_reply", &body).await;
        let command = app.api.ended(id).await;
        let expected = if result == 0 { "SUCCEEDED" } else { "FAILED" };
        assert_eq!(
            (&command["status"], &command["response_code"]),
            (&json!(expected), &json!(result.to_string()))
        );
    }
}
