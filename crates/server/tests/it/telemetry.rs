//! What devices tell of themselves: the latest, its history, where they flew; and that commands do not depend on it.

use std::collections::BTreeSet;

use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use utmos_core::{
    device::DeviceKind,
    id::DeviceSn,
    ports::{DeviceOrder, DeviceTelemetry, Ordered, TelemetryStore},
    telemetry::{Samples, Source},
    time::Timestamp,
};

use crate::{
    app::{Answer, Api, PATIENCE, TestApp, put_gateway, unix_seconds},
    dock::PretendDock,
    history_unwell,
    routes::assert_refused,
};

/// Between two looks at what is waited for: others need the processors, too.
const LOOK_WAIT: std::time::Duration = std::time::Duration::from_millis(50);
const OFTEN: &[&str] = &["telemetry.flush_seconds=1"];

fn path(device: &str) -> String {
    format!("/api/v1/open/devices/{device}/telemetry")
}

async fn tell(dock: &PretendDock, device: &str, topic: &str, data: Value) {
    let body = json!({
        "tid": uuid::Uuid::new_v4().to_string(), "bid": "b", "timestamp": 1, "gateway": dock.sn, "data": data,
    });
    dock.publish(&format!("thing/product/{device}/{topic}"), &body).await;
}

/// Asks until it holds.
async fn until(api: &Api, target: &str, holds: impl Fn(&Value) -> bool) -> Value {
    let asking = async {
        loop {
            let answer = api.get(target).await;
            assert_eq!(answer.status, StatusCode::OK, "{answer:?}");
            if holds(&answer.body) {
                return answer.body;
            }
            tokio::time::sleep(LOOK_WAIT).await;
        }
    };
    tokio::time::timeout(PATIENCE, asking).await.expect("it never came to that")
}

fn value_of(body: &Value, key: &str) -> Value {
    body["blocks"][key]["value"].clone()
}

fn count(body: &Value) -> usize {
    body["items"].as_array().unwrap().len()
}

async fn metric(app: &TestApp, name: &str) -> u64 {
    let text = app.api.bare(Method::GET, "/metrics").send().await.unwrap().text().await.unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')).unwrap();
    line.trim().parse().unwrap()
}

#[tokio::test]
async fn the_latest_of_each_property_is_there_with_its_age_also_after_a_restart() {
    let app = TestApp::start().await;
    let nothing = app.api.get(&path("DOCK-1")).await.body;
    assert_eq!(nothing, json!({"device_id": "DOCK-1", "blocks": {}, "updated_at": null}));

    let mut dock = app.dock("DOCK-1").await;
    dock.report_aircraft("AIR-1").await;
    let sub = json!({"device_sn": "AIR-1", "device_model_key": "0-100-1"});
    tell(&dock, "DOCK-1", "osd", json!({"mode_code": 4, "temperature": 25.40, "sub_device": sub}))
        .await;
    tell(&dock, "DOCK-1", "osd", json!({"job_number": 298, "52-0-0": {"zoom": 2}})).await;
    tell(&dock, "DOCK-1", "state", json!({"nobody_documented_this": [1, {"a": null}]})).await;
    tell(&dock, "DOCK-1", "osd", json!({"mode_code": 0, "sub_device": {"device_sn": "AIR-1"}}))
        .await;
    tell(&dock, "AIR-1", "osd", json!({"mode_code": 3, "height": 55})).await;
    dock.publish(
        "thing/product/DOCK-1/drc/up",
        &json!({"method": "osd_info_push", "seq": 1, "data": {"height": 60.5}}),
    )
    .await;

    let whole = |body: &Value| value_of(body, "height") == json!(60.5);
    let aircraft = until(&app.api, &path("AIR-1"), whole).await;
    assert_eq!(
        (&aircraft["blocks"]["height"]["source"], &aircraft["blocks"]["mode_code"]["source"]),
        (&json!("drc"), &json!("osd"))
    );
    let body = app.api.get(&path("DOCK-1")).await.body;
    let keys: Vec<_> = body["blocks"].as_object().unwrap().keys().cloned().collect();
    let expected = [
        "52-0-0",
        "job_number",
        "mode_code",
        "nobody_documented_this",
        "sub_device",
        "temperature",
    ];
    assert_eq!(keys, expected);
    assert_eq!(value_of(&body, "mode_code"), 0);
    assert_eq!(value_of(&body, "sub_device"), json!({"device_sn": "AIR-1"}), "the rest is gone");
    assert_eq!(body["blocks"]["nobody_documented_this"]["source"], "state");
    let age = body["blocks"]["mode_code"]["age_seconds"].as_f64().unwrap();
    assert!((0.0..30.0).contains(&age), "{age}");

    let some = app.api.get(&format!("{}?fields=mode_code,no_such", path("DOCK-1"))).await.body;
    assert_eq!(some["blocks"].as_object().unwrap().len(), 1);

    dock.leave().await;
    let before = app.api.get(&path("DOCK-1")).await.body;
    let app = app.restart().await;
    let after = app.api.get(&path("DOCK-1")).await.body;
    for (key, block) in before["blocks"].as_object().unwrap() {
        for part in ["value", "source", "updated_at"] {
            assert_eq!(after["blocks"][key][part], block[part], "{key}");
        }
    }
    // What is told now stands before it, and is not the end of it.
    let dock = app.dock("DOCK-1").await;
    tell(&dock, "DOCK-1", "osd", json!({"mode_code": 5})).await;
    let mixed =
        until(&app.api, &path("DOCK-1"), |body| value_of(body, "mode_code") == json!(5)).await;
    assert_eq!(value_of(&mixed, "job_number"), 298);
    let app = app.restart().await;
    let kept = app.api.get(&path("DOCK-1")).await.body;
    assert_eq!(
        (value_of(&kept, "job_number"), value_of(&kept, "mode_code")),
        (json!(298), json!(5))
    );
}

#[tokio::test]
async fn only_those_who_may_see_a_device_see_what_it_tells() {
    let app = TestApp::start().await;
    let only = BTreeSet::from([DeviceSn::parse("DOCK-1").unwrap()]);
    let limited = app.credential(|one| one.devices = Some(only)).await;
    for end in ["", "/history", "/track"] {
        let target = |device: &str| format!("{}{end}", path(device));
        assert_eq!(limited.get(&target("DOCK-1")).await.status, StatusCode::OK);
        assert_refused(&limited.get(&target("DOCK-2")).await, 404, "DEVICE_NOT_FOUND");
        for none in ["NOBODY", "%FF", "a%2Fb"] {
            assert_refused(&app.api.get(&target(none)).await, 404, "DEVICE_NOT_FOUND");
        }
    }
}

#[tokio::test]
async fn the_history_is_read_by_range_fields_and_step_in_pages() {
    let app = TestApp::start_with(OFTEN).await;
    let dock = app.dock("DOCK-1").await;
    let history = format!("{}/history", path("DOCK-1"));
    for n in 0..20 {
        let data = if n % 2 == 0 { json!({"n": n, "even": true}) } else { json!({"n": n}) };
        tell(&dock, "DOCK-1", "osd", data).await;
        if n == 5 {
            // What follows is told later than this: a server that is late hears all of it in the same millisecond.
            until(&app.api, &history, |body| count(body) == 6).await;
        }
    }
    let all = until(&app.api, &format!("{history}?limit=500"), |body| count(body) == 20).await;
    assert_eq!(all["next_cursor"], Value::Null);
    let numbers = |body: &Value| {
        let items = body["items"].as_array().unwrap().clone();
        items.iter().map(|one| one["values"]["n"].as_u64().unwrap()).collect::<Vec<_>>()
    };
    assert_eq!(numbers(&all), (0..20).collect::<Vec<_>>());
    assert_eq!(all["items"][3]["source"], "osd");

    let (mut paged, mut target) = (Vec::new(), format!("{history}?limit=7"));
    loop {
        let page = app.api.get(&target).await.body;
        paged.extend(numbers(&page));
        let Some(next) = page["next_cursor"].as_str() else { break };
        target = format!("{history}?limit=7&cursor={next}");
    }
    assert_eq!(paged, numbers(&all));

    let even = app.api.get(&format!("{history}?fields=even")).await.body;
    assert_eq!((count(&even), &even["items"][0]["values"]), (10, &json!({"even": true})));
    let merged = app.api.get(&format!("{history}?step_seconds=3600")).await.body;
    let last = merged["items"].as_array().unwrap().last().unwrap().clone();
    assert!((1..=2).contains(&count(&merged)), "an hour may end meanwhile: {merged:#}");
    assert_eq!((&last["source"], &last["values"]["n"]), (&json!("merged"), &json!(19)));
    // A range cuts through what was told: its beginning counts, its end does not.
    let times: Vec<_> =
        all["items"].as_array().unwrap().iter().map(|one| one["at"].as_str().unwrap()).collect();
    let (from, to) = (times[5], times[14]);
    let within = app.api.get(&format!("{history}?from={from}&to={to}")).await.body;
    let expected = (0..20).filter(|n| (from..to).contains(&times[*n])).map(|n| n as u64);
    assert_eq!(numbers(&within), expected.collect::<Vec<_>>());
    let (before, after) = (format!("{history}?to={from}"), format!("{history}?from={to}"));
    let mut parts = numbers(&app.api.get(&before).await.body);
    parts.extend(numbers(&within));
    parts.extend(numbers(&app.api.get(&after).await.body));
    assert_eq!(parts, numbers(&all), "ranges that meet have all of it once");
    let future = format!("{history}?from=2090-01-01T00:00:00Z&to=2091-01-01T00:00:00Z");
    let future = app.api.get(&future).await;
    assert_eq!(future.body, json!({"items": [], "next_cursor": null}));

    let bad = "from=2026-01-02T00:00:00Z&to=2026-01-01T00:00:00Z&fields=&step_seconds=0&limit=501&cursor=x&color=red";
    let answer = app.api.get(&format!("{history}?{bad}")).await;
    assert_refused(&answer, 400, "VALIDATION_FAILED");
    let fields: BTreeSet<_> = answer.body["details"]
        .as_array()
        .unwrap()
        .iter()
        .map(|one| one["field"].as_str().unwrap())
        .collect();
    let expected = ["color", "cursor", "fields", "from", "limit", "step_seconds"]
        .map(|name| format!("query:{name}"));
    assert_eq!(fields, expected.iter().map(String::as_str).collect());
}

#[tokio::test]
async fn a_state_that_is_sent_again_is_one_sample() {
    let app = TestApp::start_with(OFTEN).await;
    let dock = app.dock("DOCK-1").await;
    let state = json!({
        "tid": "t-1", "bid": "b-1", "timestamp": 1, "gateway": "DOCK-1", "need_reply": 1, "data": {"rth_mode": 1},
    });
    for _ in 0..20 {
        dock.publish("thing/product/DOCK-1/state", &state).await;
    }
    tell(&dock, "DOCK-1", "osd", json!({"end": 1})).await;
    let history = format!("{}/history", path("DOCK-1"));
    let has_end = |body: &Value| {
        body["items"].as_array().unwrap().iter().any(|one| one["values"]["end"] == 1)
    };
    assert_eq!(count(&until(&app.api, &history, has_end).await), 2);
}

#[tokio::test]
async fn a_track_is_geojson_without_nonsense() {
    let app = TestApp::start_with(OFTEN).await;
    let mut dock = app.dock("DOCK-1").await;
    dock.report_aircraft("AIR-1").await;
    let id = app.api.create("DOCK-1", "return_home", json!({}), json!({})).await.id();
    let command = dock.command().await;
    for at in [
        json!({"latitude": 15.1, "longitude": 140.1, "height": 50.5}),
        json!({"latitude": 0, "longitude": 0, "height": 50}),
        json!({"latitude": 26_836_624.6, "longitude": 26_836_624.6}),
        json!({"mode_code": 9}),
        json!({"latitude": 15.2, "longitude": 140.2, "height": 51}),
    ] {
        tell(&dock, "AIR-1", "osd", at).await;
    }
    let history = format!("{}/history", path("AIR-1"));
    until(&app.api, &history, |body| count(body) == 5).await;
    dock.reply(&command, json!({"result": 0})).await;
    app.api.ended(&id).await;

    let check = |answer: Answer, command: Value| {
        assert_eq!(answer.status, StatusCode::OK, "{answer:?}");
        assert_eq!(answer.headers["content-type"], "application/geo+json");
        let body = answer.body;
        assert_eq!(
            (&body["type"], &body["geometry"]["type"]),
            (&json!("Feature"), &json!("LineString"))
        );
        assert_eq!(
            body["geometry"]["coordinates"],
            json!([[140.1, 15.1, 50.5], [140.2, 15.2, 51.0]])
        );
        let properties = &body["properties"];
        assert_eq!(
            (&properties["device_id"], &properties["command_id"]),
            (&json!("AIR-1"), &command)
        );
        assert_eq!(properties["coordTimes"].as_array().unwrap().len(), 2);
    };
    let track = |device: &str, query: &str| format!("{}/track?{query}", path(device));
    check(app.api.get(&track("AIR-1", "")).await, Value::Null);
    let of_command = format!("command_id={id}");
    check(app.api.get(&track("AIR-1", &of_command)).await, json!(id));
    // A dock stands where it stands.
    check(app.api.get(&track("DOCK-1", &of_command)).await, json!(id));

    let only = BTreeSet::from([DeviceSn::parse("DOCK-1").unwrap()]);
    let limited = app.credential(|one| one.devices = Some(only)).await;
    let answer = limited.get(&track("DOCK-1", &of_command)).await;
    assert_refused(&answer, 404, "DEVICE_NOT_FOUND");

    let empty = app.api.get(&track("DOCK-1", "")).await.body;
    assert_eq!(empty["geometry"], Value::Null);
    let foreign = app.api.get(&track("DOCK-2", &of_command)).await;
    assert_refused(&foreign, 400, "VALIDATION_FAILED");
    let unknown = format!("command_id={}", uuid::Uuid::nil());
    assert_refused(&app.api.get(&track("DOCK-1", &unknown)).await, 404, "COMMAND_NOT_FOUND");
    for bad in [
        "command_id=x",
        "from=2026-01-01T00:00:00Z&to=2026-01-01T06:00:01Z",
        "from=yesterday",
        &format!("{of_command}&from=2026-01-01T00:00:00Z"),
    ] {
        assert_refused(&app.api.get(&track("DOCK-1", bad)).await, 400, "VALIDATION_FAILED");
    }
}

#[tokio::test]
async fn commands_and_the_latest_go_on_while_the_history_cannot_be_written() {
    let app = TestApp::start_with(OFTEN).await;
    let mut dock = app.dock("DOCK-1").await;
    tell(&dock, "DOCK-1", "osd", json!({"mode_code": 0})).await;
    until(&app.api, &path("DOCK-1"), |body| value_of(body, "mode_code") == json!(0)).await;
    app.history.close().await;
    let began = unix_seconds();
    while metric(&app, "utmos_telemetry_dropped_total").await == 0 {
        tell(&dock, "DOCK-1", "osd", json!({"mode_code": 4})).await;
        assert!(unix_seconds() - began < 60, "nothing was dropped");
        tokio::time::sleep(LOOK_WAIT).await;
    }
    until(&app.api, &path("DOCK-1"), |body| value_of(body, "mode_code") == json!(4)).await;
    let id = app.api.create("DOCK-1", "debug_mode_open", json!({}), json!({})).await.id();
    let command = dock.command().await;
    dock.reply(&command, json!({"result": 0})).await;
    assert_eq!(app.api.ended(&id).await["status"], "SUCCEEDED");
    let history = app.api.get(&format!("{}/history", path("DOCK-1"))).await;
    assert_refused(&history, 503, "OVERLOADED");
}

#[tokio::test]
async fn a_tenant_that_fills_what_waits_for_the_history_takes_nothing_from_another() {
    let app = TestApp::start_with(&[
        "telemetry.flush_seconds=300",
        "telemetry.pending_bytes_max=1048576",
    ])
    .await;
    let other = app.other_tenant("second", "DOCK-9").await;
    let (loud, quiet) = (app.dock("DOCK-1").await, app.dock("DOCK-9").await);
    let noise = json!({"noise": "x".repeat(16_000)});
    for _ in 0..60 {
        tell(&loud, "DOCK-1", "osd", noise.clone()).await;
    }
    let taken = async |count: u64| {
        let taking = async {
            while metric(&app, "utmos_telemetry_messages_total").await < count {
                tokio::time::sleep(LOOK_WAIT).await;
            }
        };
        tokio::time::timeout(PATIENCE, taking).await.expect("not all of it is heard");
        metric(&app, "utmos_telemetry_dropped_total").await
    };
    let dropped = taken(60).await;
    assert!((1..59).contains(&dropped), "{dropped}");
    // A third of one half is its own.
    for _ in 0..10 {
        tell(&quiet, "DOCK-9", "osd", noise.clone()).await;
    }
    assert_eq!(taken(70).await, dropped);
    // What waits is kept in the end.
    let app = app.restart().await;
    let other = Api::new(app.http, other.given);
    let history = format!("{}/history", path("DOCK-9"));
    assert_eq!(count(&other.get(&history).await.body), 10);
}

#[tokio::test]
async fn a_tenant_that_fills_what_is_held_of_the_latest_takes_nothing_from_another() {
    let app =
        TestApp::start_with(&["telemetry.flush_seconds=1", "telemetry.latest_bytes_max=1048576"])
            .await;
    let other = app.other_tenant("second", "DOCK-9").await;
    let quiet = app.dock("DOCK-9").await;
    let mut devices = Vec::new();
    for (dock, aircraft) in [("DOCK-1", "AIR-1"), ("DOCK-2", "AIR-2")] {
        let mut loud = app.dock(dock).await;
        loud.report_aircraft(aircraft).await;
        for device in [dock, aircraft] {
            for number in 0..15 {
                let data = json!({format!("noise-{number}"): "x".repeat(16_000)});
                tell(&loud, device, "osd", data).await;
            }
            devices.push(device);
        }
    }
    let heard = async |count: u64| {
        let hearing = async {
            while metric(&app, "utmos_telemetry_messages_total").await < count {
                tokio::time::sleep(LOOK_WAIT).await;
            }
        };
        tokio::time::timeout(PATIENCE, hearing).await.expect("not all of it is heard");
        metric(&app, "utmos_telemetry_latest_left_out_total").await
    };
    let left_out = heard(60).await;
    assert!((1..59).contains(&left_out), "{left_out}");
    assert!(metric(&app, "utmos_telemetry_latest_bytes").await <= 1_048_576);
    for number in 0..10 {
        let data = json!({format!("word-{number}"): "x".repeat(16_000)});
        tell(&quiet, "DOCK-9", "osd", data).await;
    }
    assert_eq!(heard(70).await, left_out, "it found room");
    let latest = other.get(&path("DOCK-9")).await.body;
    assert_eq!(latest["blocks"].as_object().unwrap().len(), 10);
    // The history has all of it.
    let mut blocks = 0;
    for device in devices {
        let history = format!("{}/history", path(device));
        until(&app.api, &history, |body| count(body) == 15).await;
        let latest = app.api.get(&path(device)).await.body;
        blocks += latest["blocks"].as_object().unwrap().len() as u64;
    }
    assert_eq!(blocks + left_out, 60);
}

#[tokio::test]
async fn a_device_that_comes_back_to_a_full_share_loses_nothing_that_it_told_before() {
    let app =
        TestApp::start_with(&["telemetry.flush_seconds=1", "telemetry.latest_bytes_max=1048576"])
            .await;
    let dock = app.dock("DOCK-1").await;
    for data in [json!({"mode_code": 1, "gone": 1}), json!({"stays": {"a": [1, 2]}, "text": "x"})] {
        tell(&dock, "DOCK-1", "osd", data).await;
    }
    until(&app.api, &path("DOCK-1"), |body| value_of(body, "text") == "x").await;
    dock.leave().await;
    let app = app.restart().await;
    assert_eq!(app.api.get("/readyz").await.body["warnings"], Value::Null);

    // Others of the tenant take all the room there is, down to the last hundred bytes.
    put_gateway(&*app.store, app.api.given.tenant, "DOCK-3").await;
    app.credential(|_| {}).await;
    let mut loud = app.dock("DOCK-2").await;
    loud.report_aircraft("AIR-2").await;
    let mut third = app.dock("DOCK-3").await;
    third.report_aircraft("AIR-3").await;
    let noise = |name: String, bytes: usize| json!({name: "x".repeat(bytes)});
    for (dock, device) in
        [(&loud, "DOCK-2"), (&loud, "AIR-2"), (&third, "DOCK-3"), (&third, "AIR-3")]
    {
        for number in 0..(if device == "AIR-3" { 3 } else { 15 }) {
            tell(dock, device, "osd", noise(format!("noise-{number}"), 16_000)).await;
        }
    }
    let mut put = 0;
    for bytes in [8_000, 4_000, 2_000, 1_000, 500, 250, 120, 60, 30, 10, 1] {
        for number in 0..5 {
            tell(&third, "AIR-3", "osd", noise(format!("{bytes}-{number}"), bytes)).await;
            put += bytes;
        }
    }
    assert!(put < 128_000);
    let is_full = async || {
        while app.metric("utmos_telemetry_latest_left_out_total").await == "0" {
            tokio::time::sleep(LOOK_WAIT).await;
        }
    };
    tokio::time::timeout(PATIENCE, is_full()).await.expect("it is never full");
    let warnings = app.api.get("/readyz").await.body["warnings"].to_string();
    assert!(warnings.contains("telemetry.latest_bytes_max"), "{warnings}");

    let dock = app.dock("DOCK-1").await;
    tell(&dock, "DOCK-1", "osd", json!({"gone": "x".repeat(100_000)})).await;
    let as_before = |body: &Value| {
        let told = ["mode_code", "stays", "text", "gone"].map(|key| value_of(body, key));
        told == [json!(1), json!({"a": [1, 2]}), json!("x"), Value::Null]
    };
    until(&app.api, &path("DOCK-1"), as_before).await;
    // What is kept now is no less, and what is not true any more is not among it.
    let history = format!("{}/history", path("DOCK-1"));
    until(&app.api, &history, |body| count(body) == 3).await;
    let app = app.restart().await;
    let latest = app.api.get(&path("DOCK-1")).await.body;
    assert!(as_before(&latest), "{latest:#}");
}

#[tokio::test]
async fn a_page_of_large_samples_ends_early_and_tells_where_the_next_begins() {
    const NOISE_BYTES: usize = 900_000;
    let app = TestApp::start().await;
    let sn = DeviceSn::parse("DOCK-1").unwrap();
    let begin = unix_seconds() * 1_000;
    // More than one device may tell in a minute is kept past what takes it in.
    for number in 0..12 {
        let values = json!({"n": number, "noise": "x".repeat(NOISE_BYTES)}).to_string();
        let at = Timestamp::from_millis(begin - 60_000 + number * 1_000);
        let told = DeviceTelemetry {
            tenant: app.api.given.tenant,
            device: sn.clone(),
            kind: DeviceKind::Dock,
            samples: vec![Samples::of(at, Source::Osd, &values)],
            latest: None,
        };
        app.history.keep_telemetry(vec![told]).await.unwrap();
    }
    for query in ["limit=500", "limit=500&step_seconds=1", "limit=3"] {
        let history = format!("{}/history?{query}", path("DOCK-1"));
        let (mut numbers, mut pages, mut target) = (Vec::new(), Vec::new(), history.clone());
        loop {
            let page = app.api.get(&target).await.body;
            let items = page["items"].as_array().unwrap();
            pages.push(items.len());
            numbers.extend(items.iter().map(|one| one["values"]["n"].as_i64().unwrap()));
            let Some(next) = page["next_cursor"].as_str() else { break };
            target = format!("{history}&cursor={next}");
        }
        if query.contains("step") {
            // A merged sample holds no block that is as long as that.
            assert!(pages.iter().sum::<usize>() == 12, "{query}: {pages:?}");
        } else {
            assert!(pages.iter().all(|items| *items <= 4), "{query}: {pages:?}");
        }
        assert_eq!(numbers, (0..12).collect::<Vec<_>>(), "{query}");
    }
    let track = app.api.get(&format!("{}/track", path("DOCK-1"))).await;
    assert_eq!((track.status, &track.body["geometry"]), (StatusCode::OK, &Value::Null));
}

/// Parts of the devices are kept one after another, and of a history that takes none each would take its time.
#[tokio::test]
async fn a_stop_tries_a_history_that_takes_nothing_once() {
    for becomes in [history_unwell::Telemetry::Refused, history_unwell::Telemetry::Hangs] {
        // Nothing is kept before the stop.
        let app = TestApp::start_with(&["telemetry.flush_seconds=300"]).await;
        let sns: Vec<String> = (1..=12).map(|number| format!("DOCK-{number}")).collect();
        for sn in &sns[2..] {
            put_gateway(&*app.store, app.api.given.tenant, sn).await;
        }
        app.credential(|_| {}).await;
        let mut docks = Vec::new();
        for sn in &sns {
            docks.push(app.dock(sn).await);
        }
        for dock in &docks {
            tell(dock, &dock.sn, "osd", json!({"mode_code": 0})).await;
            until(&app.api, &path(&dock.sn), |body| value_of(body, "mode_code") == 0).await;
        }
        app.unwell_history.telemetry_is(becomes);
        let TestApp { server, unwell_history, .. } = app;
        tokio::time::timeout(PATIENCE, server.stop()).await.expect("it does not stop");
        assert_eq!(unwell_history.telemetry_tries(), 1, "{becomes:?}");
    }
}

#[tokio::test]
async fn telemetry_of_a_mebibyte_is_counted_and_leaves_the_rest_as_it_was() {
    let app = TestApp::start_with(OFTEN).await;
    let mut dock = app.dock("DOCK-1").await;
    tell(&dock, "DOCK-1", "osd", json!({"mode_code": 0, "huge": 1})).await;
    let dropped = metric(&app, "utmos_telemetry_dropped_total").await;
    for topic in ["osd", "state"] {
        tell(&dock, "DOCK-1", topic, json!({"huge": "x".repeat(1_000_000), topic: 1})).await;
    }
    tell(&dock, "DOCK-1", "osd", json!({"mode_code": 4})).await;
    let latest = until(&app.api, &path("DOCK-1"), |body| value_of(body, "mode_code") == 4).await;
    assert_eq!((value_of(&latest, "osd"), value_of(&latest, "state")), (json!(1), json!(1)));
    assert_eq!(value_of(&latest, "huge"), Value::Null, "its former value is not true any more");
    assert!(metric(&app, "utmos_telemetry_dropped_total").await >= dropped + 2);
    let id = app.api.create("DOCK-1", "debug_mode_open", json!({}), json!({})).await.id();
    let command = dock.command().await;
    dock.reply(&command, json!({"result": 0})).await;
    assert_eq!(app.api.ended(&id).await["status"], "SUCCEEDED");
}

#[tokio::test]
async fn a_device_that_moves_shows_its_new_tenant_nothing_of_before() {
    let app = TestApp::start_with(OFTEN).await;
    let dock = app.dock("DOCK-1").await;
    tell(&dock, "DOCK-1", "osd", json!({"secret": 1})).await;
    let history = format!("{}/history", path("DOCK-1"));
    until(&app.api, &history, |body| count(body) == 1).await;
    let other = app.other_tenant("second", "DOCK-9").await;
    let (from, to) = (app.api.given.tenant, other.given.tenant);
    let order = DeviceOrder::Move { sn: DeviceSn::parse("DOCK-1").unwrap(), from, to };
    let moved = crate::app::order(&*app.store, order).await;
    assert!(matches!(moved, Ordered::Done(_)), "{moved:?}");
    let moving = async {
        while other.get(&path("DOCK-1")).await.status != StatusCode::OK {
            tokio::time::sleep(LOOK_WAIT).await;
        }
    };
    tokio::time::timeout(PATIENCE, moving).await.unwrap();
    assert_eq!(other.get(&path("DOCK-1")).await.body["blocks"], json!({}));
    assert_eq!(other.get(&history).await.body["items"], json!([]));
    assert_refused(&app.api.get(&path("DOCK-1")).await, 404, "DEVICE_NOT_FOUND");
}

#[tokio::test]
async fn the_key_of_the_radio_link_is_neither_shown_nor_kept() {
    let app = TestApp::start_with(OFTEN).await;
    let dock = app.dock("DOCK-1").await;
    let link = json!({"secret_code": ["hush-1", "hush-2"], "center_node": {"sdr_id": 7}});
    for topic in ["osd", "state"] {
        tell(&dock, "DOCK-1", topic, json!({"wireless_link_topo": link, topic: 1.50})).await;
    }
    let both = |body: &Value| count(body) == 2;
    let history = until(&app.api, &format!("{}/history", path("DOCK-1")), both).await;
    let latest = app.api.get(&path("DOCK-1")).await.body;
    let known = value_of(&latest, "wireless_link_topo");
    assert_eq!(known, json!({"secret_code": "***", "center_node": {"sdr_id": 7}}));
    assert!(!format!("{latest}{history}").contains("hush"), "{latest:#} {history:#}");
}
