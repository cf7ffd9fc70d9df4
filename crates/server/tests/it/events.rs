//! Device events and alarms: every copy is answered, each is kept once, and only what changed is news.

use std::collections::BTreeSet;

use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use utmos_core::{
    id::DeviceSn,
    ports::{DeviceOrder, EventStore, Ordered},
    time::Clock,
};
use utmos_server::clock::SystemClock;

use crate::{
    app::{Api, PATIENCE, TestApp, order},
    dock::PretendDock,
    routes::assert_refused,
};

const ZEROS: &str = "00000000-0000-0000-0000-000000000000";

pub fn events_of(device: &str, query: &str) -> String {
    // That the dock itself came and went is told as well, and is another matter.
    let reported = "types=device.event,device.alarm_raised,device.alarm_cleared";
    let query = match query {
        "" => format!("?{reported}"),
        query if query.contains("types=") => query.to_owned(),
        query => format!("{query}&{reported}"),
    };
    format!("/api/v1/open/devices/{device}/events{query}")
}

/// What a list holds as soon as `holds` is true of it: events are stored beside the way in.
pub async fn until(api: &Api, target: &str, holds: impl Fn(&[Value]) -> bool) -> Vec<Value> {
    let mut last = Vec::new();
    let asking = async {
        loop {
            let answer = api.get(target).await;
            assert_eq!(answer.status, StatusCode::OK, "{answer:?}");
            last = answer.body["items"].as_array().unwrap().clone();
            if holds(&last) {
                return;
            }
        }
    };
    let came = tokio::time::timeout(PATIENCE, asking).await;
    assert!(came.is_ok(), "{target} stays at {last:#?}");
    last
}

async fn metric(app: &TestApp, name: &str) -> u64 {
    let text = app.api.bare(Method::GET, "/metrics").send().await.unwrap().text().await.unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')).unwrap();
    line.parse().unwrap()
}

pub fn message(tid: &str, method: &str, need_reply: u8, data: &Value) -> Value {
    json!({
        "tid": tid, "bid": tid, "timestamp": 1_700_000_000_000_u64, "gateway": "DOCK-1",
        "need_reply": need_reply, "method": method, "data": data,
    })
}

pub async fn say(dock: &PretendDock, body: &Value) {
    dock.publish(&format!("thing/product/{}/events", dock.sn), body).await;
}

/// Sends a list of alarms, and waits until it has been taken in.
async fn list_alarms(dock: &mut PretendDock, entries: Value) {
    let tid = uuid::Uuid::new_v4().to_string();
    say(dock, &message(&tid, "hms", 1, &json!({ "list": entries }))).await;
    assert_eq!(dock.message("/events_reply").await.tid(), tid);
}

fn field<'a>(items: &'a [Value], pointer: &str) -> Vec<&'a Value> {
    items.iter().map(|item| item.pointer(pointer).unwrap_or(&Value::Null)).collect()
}

#[tokio::test]
async fn every_copy_of_an_event_is_answered_and_it_is_kept_once() {
    let app = TestApp::start().await;
    let mut dock = app.dock("DOCK-1").await;
    // As a recorded dock did: the same tid and bid, a new timestamp, again and again.
    for copy in 0..5 {
        let mut body = message("2ae97470", "airsense_warning", 1, &json!([{"icao": "B-5931"}]));
        body["timestamp"] = json!(1_700_000_000_000_u64 + copy * 2_050);
        say(&dock, &body).await;
        let answer = dock.message("/events_reply").await;
        assert_eq!((answer.tid(), answer.method()), ("2ae97470", "airsense_warning"));
        assert_eq!(answer.body["data"], json!({"result": 0}));
    }
    say(&dock, &message("other", "airsense_warning", 0, &json!([]))).await;
    let target = events_of("DOCK-1", "");
    let items = until(&app.api, &target, |items| items.len() >= 2).await;
    assert_eq!(field(&items, "/data"), [&json!([]), &json!([{"icao": "B-5931"}])]);
    assert_eq!(field(&items, "/need_reply"), [&json!(false), &json!(true)]);
    let first = &items[1];
    assert_eq!(first["type"], "device.event");
    assert_eq!((&first["device_id"], &first["gateway_id"]), (&json!("DOCK-1"), &json!("DOCK-1")));
    assert_eq!(first["device_time"], "2023-11-14T22:13:20.000Z");
    assert_eq!((&first["command_id"], &first["data_cut"]), (&Value::Null, &json!(false)));
    assert_eq!(metric(&app, "utmos_events_received_total").await, 6);
    assert_eq!(metric(&app, "utmos_events_repeated_total").await, 4);
    assert_eq!(metric(&app, "utmos_events_stored_total").await, 3, "with the dock's coming");
    assert_eq!(metric(&app, "utmos_uplink_answered_total").await, 5);

    // A server that starts anew answers a copy too, and keeps it no second time.
    let app = app.restart().await;
    let mut dock = app.dock("DOCK-1").await;
    say(&dock, &message("2ae97470", "airsense_warning", 1, &json!([{"icao": "B-5931"}]))).await;
    assert_eq!(dock.message("/events_reply").await.tid(), "2ae97470");
    say(&dock, &message("third", "airsense_warning", 0, &json!([]))).await;
    let items = until(&app.api, &target, |items| items.len() >= 3).await;
    assert_eq!(items.len(), 3, "{items:#?}");
}

#[tokio::test]
async fn what_a_device_says_again_after_it_was_moved_is_news_to_its_new_tenant() {
    let app = TestApp::start().await;
    let other = app.other_tenant("second", "DOCK-9").await;
    let mut dock = app.dock("DOCK-1").await;
    let said = message("2ae97470", "airsense_warning", 1, &json!([]));
    say(&dock, &said).await;
    dock.message("/events_reply").await;
    dock.leave().await;
    let target = events_of("DOCK-1", "?method=airsense_warning");
    until(&app.api, &target, |items| items.len() == 1).await;
    let (from, to) = (app.api.given.tenant, other.given.tenant);
    let moved = DeviceOrder::Move { sn: DeviceSn::parse("DOCK-1").unwrap(), from, to };
    assert!(matches!(order(&*app.store, moved).await, Ordered::Done(_)));
    let moving = async {
        while other.get(&target).await.status != StatusCode::OK {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE, moving).await.unwrap();
    let mut dock = app.dock("DOCK-1").await;
    say(&dock, &said).await;
    assert_eq!(dock.message("/events_reply").await.tid(), "2ae97470");
    assert_eq!(until(&other, &target, |items| !items.is_empty()).await.len(), 1);
}

#[tokio::test]
async fn zeros_for_ids_tell_no_events_apart_and_what_they_say_does() {
    let app = TestApp::start().await;
    let dock = app.dock("DOCK-1").await;
    for data in [json!({"codes": [1]}), json!({"codes": [1]}), json!({"codes": [2]})] {
        let body = json!({
            "tid": ZEROS, "bid": ZEROS, "timestamp": 1, "gateway": "DOCK-1",
            "data": {"event": "status_code", "method": "status_code", "output": data},
        });
        say(&dock, &body).await;
    }
    let items = until(&app.api, &events_of("DOCK-1", ""), |items| items.len() >= 2).await;
    assert_eq!(field(&items, "/method"), [&json!("status_code"); 2], "the method inside data");
    assert_eq!(field(&items, "/data/output/codes/0"), [&json!(2), &json!(1)]);
    assert_eq!(metric(&app, "utmos_events_repeated_total").await, 1);
}

#[tokio::test]
async fn an_alarm_is_told_when_it_is_raised_and_when_it_is_over_and_never_between() {
    let app = TestApp::start().await;
    let mut dock = app.dock("DOCK-1").await;
    let cover = json!({
        "code": "0x19110014", "level": 2, "module": 3, "in_the_sky": 0, "imminent": 0,
        "device_type": "3-2-0", "args": {"component_index": 0, "sensor_index": 1},
    });
    let compass = json!({
        "code": "0x16100067", "level": 1, "module": 3, "in_the_sky": 1, "imminent": 1,
        "device_type": "0-91-0", "args": {"component_index": 0, "sensor_index": 0},
    });
    let unknown = json!({"code": "0x16FFFFFF", "level": 0});
    list_alarms(&mut dock, json!([])).await;
    list_alarms(&mut dock, json!([cover])).await;
    for _ in 0..10 {
        list_alarms(&mut dock, json!([cover, compass, unknown])).await;
    }
    let alarms = "/api/v1/open/devices/DOCK-1/alarms";
    let raised = app.api.get(alarms).await;
    assert!(raised.body["as_of"].is_string(), "{raised:?}");
    let items = raised.body["items"].as_array().unwrap().clone();
    let told = |item: &Value| {
        let words = ["code", "level", "module", "text", "remedy", "in_the_sky", "imminent"];
        words.map(|word| item[word].clone())
    };
    assert_eq!(
        items.iter().map(told).collect::<Vec<_>>(),
        [
            [
                json!("0x19110014"),
                json!("warning"),
                json!("dock"),
                json!("The dock's right cover did not open in time"),
                json!("See what blocks it (ice, snow), then try again."),
                json!(false),
                json!(false),
            ],
            [
                json!("0x16100067"),
                json!("caution"),
                json!("flight control"),
                json!("The compass is disturbed"),
                json!("Fly away from what disturbs it."),
                json!(true),
                json!(true),
            ],
            [
                json!("0x16FFFFFF"),
                json!("notice"),
                json!("flight control"),
                json!("Alarm 0x16FFFFFF of the flight control; its meaning is not in the table"),
                Value::Null,
                Value::Null,
                Value::Null,
            ],
        ],
        "the most serious first"
    );
    list_alarms(&mut dock, json!([compass])).await;

    let target = events_of("DOCK-1", "");
    let items = until(&app.api, &target, |items| items.len() >= 3).await;
    assert_eq!(
        field(&items, "/type"),
        [
            &json!("device.alarm_cleared"),
            &json!("device.alarm_raised"),
            &json!("device.alarm_raised")
        ],
        "{items:#?}"
    );
    let codes = |item: &Value| -> Vec<Value> {
        item["alarms"].as_array().unwrap().iter().map(|one| one["code"].clone()).collect()
    };
    assert_eq!(codes(&items[2]), [json!("0x19110014")]);
    assert_eq!(codes(&items[1]), [json!("0x16100067"), json!("0x16FFFFFF")]);
    assert_eq!(codes(&items[0]), [json!("0x16FFFFFF"), json!("0x19110014")]);
    assert_eq!(items[2]["data"], json!({"list": [cover]}), "as the dock wrote it");
    assert_eq!(items[2]["method"], "hms");

    // The view outlives the server, and so does what is news.
    let app = app.restart().await;
    let after = app.api.get(alarms).await;
    assert_eq!(field(after.body["items"].as_array().unwrap(), "/code"), [&json!("0x16100067")]);
    assert_eq!(after.body["as_of"], Value::Null, "not heard yet");
    let mut dock = app.dock("DOCK-1").await;
    list_alarms(&mut dock, json!([compass])).await;
    list_alarms(&mut dock, json!([])).await;
    let items = until(&app.api, &target, |items| items.len() >= 4).await;
    assert_eq!(items.len(), 4);
    assert_eq!(items[0]["type"], "device.alarm_cleared");
    assert_eq!(app.api.get(alarms).await.body["items"], json!([]));
}

#[tokio::test]
async fn alarms_of_all_devices_are_one_list_and_a_limited_credential_sees_its_own() {
    let app = TestApp::start().await;
    for sn in ["DOCK-1", "DOCK-2"] {
        let mut dock = app.dock(sn).await;
        list_alarms(&mut dock, json!([{"code": "0x19114C00"}, {"code": "0x19111800"}])).await;
        dock.leave().await;
    }
    let first = app.api.get("/api/v1/open/alarms?limit=3").await;
    let cursor = first.body["next_cursor"].as_str().unwrap().replace(' ', "%20");
    let rest = app.api.get(&format!("/api/v1/open/alarms?limit=3&cursor={cursor}")).await;
    let mut seen: Vec<Value> = first.body["items"].as_array().unwrap().clone();
    seen.extend(rest.body["items"].as_array().unwrap().iter().cloned());
    let pairs: Vec<(&str, &str)> = seen
        .iter()
        .map(|one| (one["device_id"].as_str().unwrap(), one["code"].as_str().unwrap()))
        .collect();
    assert_eq!(
        pairs,
        [
            ("DOCK-1", "0x19111800"),
            ("DOCK-1", "0x19114C00"),
            ("DOCK-2", "0x19111800"),
            ("DOCK-2", "0x19114C00"),
        ]
    );
    assert_eq!(rest.body["next_cursor"], Value::Null);

    let only = BTreeSet::from([DeviceSn::parse("DOCK-2").unwrap()]);
    let limited = app.credential(|one| one.devices = Some(only)).await;
    let own = limited.get("/api/v1/open/alarms").await;
    let devices = field(own.body["items"].as_array().unwrap(), "/device_id");
    assert_eq!(devices, [&json!("DOCK-2"); 2]);
    for target in [events_of("DOCK-1", ""), "/api/v1/open/devices/DOCK-1/alarms".to_owned()] {
        assert_refused(&limited.get(&target).await, 404, "DEVICE_NOT_FOUND");
    }
    for target in [events_of("NO-SUCH", ""), events_of("a%20b", "")] {
        assert_refused(&app.api.get(&target).await, 404, "DEVICE_NOT_FOUND");
    }
}

#[tokio::test]
async fn alarms_end_with_the_device_that_listed_them_and_are_nobody_elses() {
    let app = TestApp::start().await;
    let other = app.other_tenant("second", "DOCK-9").await;
    for sn in ["DOCK-1", "DOCK-2", "DOCK-3"] {
        if sn == "DOCK-3" {
            crate::app::put_gateway(&*app.store, app.api.given.tenant, sn).await;
            app.credential(|_| {}).await;
        }
        let mut dock = app.dock(sn).await;
        list_alarms(&mut dock, json!([{"code": "0x19114C00"}])).await;
        dock.leave().await;
    }
    let alarms = "/api/v1/open/alarms";
    until(&app.api, alarms, |items| items.len() == 3).await;
    let (from, to) = (app.api.given.tenant, other.given.tenant);
    let (gone, moved) = (DeviceSn::parse("DOCK-1").unwrap(), DeviceSn::parse("DOCK-2").unwrap());
    for change in
        [DeviceOrder::Remove { sn: gone, tenant: from }, DeviceOrder::Move { sn: moved, from, to }]
    {
        assert!(matches!(order(&*app.store, change).await, Ordered::Done(_)));
    }
    let left = until(&app.api, alarms, |items| items.len() == 1).await;
    assert_eq!(left[0]["device_id"], "DOCK-3");
    let shown = other.get("/api/v1/open/devices/DOCK-2/alarms").await.body;
    assert_eq!(
        shown,
        json!({"as_of": null, "items": []}),
        "when it last listed them is the former tenant's"
    );
    assert_eq!(other.get(alarms).await.body["items"], json!([]));
    // Nor do they come back.
    let app = app.restart().await;
    until(&app.api, alarms, |items| items.len() == 1).await;
}

#[tokio::test]
async fn a_list_is_filtered_and_paged_and_every_problem_is_named_at_once() {
    let app = TestApp::start().await;
    let mut dock = app.dock("DOCK-1").await;
    let before = SystemClock::new().now().wall.to_string();
    for n in 0..5 {
        let method = if n % 2 == 0 { "return_home_info" } else { "drc_status_notify" };
        say(&dock, &message(&format!("t{n}"), method, 0, &json!({"n": n}))).await;
    }
    list_alarms(&mut dock, json!([{"code": "0x19111800"}])).await;
    let all = until(&app.api, &events_of("DOCK-1", ""), |items| items.len() >= 6).await;
    assert_eq!(all[0]["type"], "device.alarm_raised");
    let mut paged = Vec::new();
    let mut query = "?limit=4".to_owned();
    loop {
        let page = app.api.get(&events_of("DOCK-1", &query)).await;
        paged.extend(page.body["items"].as_array().unwrap().iter().cloned());
        let Some(cursor) = page.body["next_cursor"].as_str() else { break };
        query = format!("?limit=4&cursor={cursor}");
    }
    assert_eq!(paged, all);
    for (query, count) in [
        ("?types=device.event".to_owned(), 5),
        ("?types=device.alarm_raised,device.alarm_cleared".to_owned(), 1),
        ("?types=device.online".to_owned(), 1),
        ("?method=return_home_info".to_owned(), 3),
        (format!("?from={before}"), 6),
        (format!("?to={before}"), 0),
    ] {
        let page = app.api.get(&events_of("DOCK-1", &query)).await;
        assert_eq!(page.body["items"].as_array().unwrap().len(), count, "{query}");
    }
    let bad = app.api.get(&events_of("DOCK-1", "?types=hms&from=noon&limit=501&since=1")).await;
    assert_refused(&bad, 400, "VALIDATION_FAILED");
    let fields: Vec<&str> = bad.body["details"]
        .as_array()
        .unwrap()
        .iter()
        .map(|detail| detail["field"].as_str().unwrap())
        .collect();
    assert_eq!(fields, ["query:since", "query:types", "query:from", "query:limit"]);
}

#[tokio::test]
async fn what_is_too_long_is_cut_and_marked_and_secrets_are_not_kept() {
    let app = TestApp::start().await;
    let mut dock = app.dock("DOCK-1").await;
    let long = "x".repeat(40_000);
    say(&dock, &message("long", "uom_fly_data_info", 1, &json!({ "text": long }))).await;
    dock.message("/events_reply").await;
    let secret = json!({
        "mqtt": {"password": "hush-1"}, "access_key_secret": "hush-2", "n": 1,
        "device_binding_code": "hush-3", "app": {"app_key": "hush-4", "app_license": "hush-5", "nonce": "hush-6"},
    });
    say(&dock, &message("secret", "track", 0, &secret)).await;
    let both = json!({"a": 1, "b_token": "hush-7", "c": long});
    say(&dock, &message("both", "track", 0, &both)).await;

    // A progress event that repeats what its command was told in confidence.
    let payload = json!({
        "bucket": "logs", "region": "us-east-1", "endpoint": "https://storage.example", "provider": "minio",
        "credentials": {
            "access_key_id": "hush-key-id", "access_key_secret": "hush-key", "expire": 3600,
            "security_token": "hush-session",
        },
        "params": {"files": [
            {"object_key": "logs/a.log", "module": "3", "list": [{"boot_index": 321}]},
        ]},
    });
    let created = app.api.create("DOCK-1", "fileupload_start", payload, json!({})).await;
    let id = created.id();
    let command = dock.command().await;
    dock.reply(&command, json!({"result": 0, "output": {"status": "in_progress"}})).await;
    let progress = json!({"result": 0, "output": {
        "status": "in_progress", "progress": {"percent": 7}, "ext": {"note": "logged in as hush-key-id with hush-key"},
    }});
    dock.event("fileupload_progress", &command.body["bid"], progress, 0).await;
    let items = until(&app.api, &events_of("DOCK-1", ""), |items| items.len() >= 4).await;
    let [progress, both, secret, long] = items.as_slice() else { panic!("{items:#?}") };
    assert_eq!((&long["data_cut"], &secret["data_cut"]), (&json!(true), &json!(false)));
    let beginning = long["data"].as_str().unwrap();
    assert!(beginning.starts_with(r#"{"text":"xxx"#) && beginning.len() == 16 * 1024);
    assert_eq!(secret["data"]["n"], 1);
    assert_eq!(both["data"], r#"{"a":1,"b_***"#, "of what is cut, up to the first secret");
    assert_eq!(progress["command_id"], id.as_str());
    assert_eq!(progress["data"]["output"]["progress"]["percent"], 7);
    let shown = Value::from(items.clone()).to_string();
    assert!(!shown.contains("hush"), "{shown}");
    for file in std::fs::read_dir(app.folder()).unwrap().map(|file| file.unwrap().path()) {
        let bytes = std::fs::read(&file).unwrap();
        let name = file.file_name().unwrap().to_str().unwrap().to_owned();
        let holds = |text: &str| bytes.windows(text.len()).any(|part| part == text.as_bytes());
        let secrets = ["hush-1", "hush-3", "hush-4", "hush-5", "hush-6", "hush-7", "hush-key"];
        assert!(!secrets.into_iter().any(holds), "{name} holds a secret");
    }
}

#[tokio::test]
async fn that_a_device_came_or_went_is_an_event() {
    let app = TestApp::start().await;
    let device = DeviceSn::parse("DOCK-1").unwrap();
    let tenant = app.api.given.tenant;
    let now = || SystemClock::new().now().wall;
    app.server.events().edge(tenant, &device, true, now(), "connected");
    app.server.events().edge(tenant, &device, false, now(), "disconnected");
    let target = events_of("DOCK-1", "?types=device.online,device.offline");
    let items = until(&app.api, &target, |items| items.len() >= 2).await;
    assert_eq!(field(&items, "/type"), [&json!("device.offline"), &json!("device.online")]);
    assert_eq!(field(&items, "/data/evidence"), [&json!("disconnected"), &json!("connected")]);
    assert_eq!(items[0]["method"], Value::Null);
}

#[tokio::test]
async fn a_flood_of_events_is_answered_whole_and_kept_as_far_as_there_is_room() {
    const FLOOD: u64 = 3_000;
    let app = TestApp::start_with(&["events.per_device_max=100"]).await;
    let mut dock = app.dock("DOCK-1").await;
    list_alarms(&mut dock, json!([{"code": "0x19111800"}])).await;
    for n in 0..FLOOD {
        let last = u8::from(n + 1 == FLOOD);
        say(&dock, &message(&format!("t{n}"), "track", last, &json!({"n": n}))).await;
    }
    dock.message("/events_reply").await;
    let settled = async {
        while metric(&app, "utmos_events_waiting").await > 0
            || metric(&app, "utmos_events_stored_total").await
                + metric(&app, "utmos_events_dropped_total").await
                < FLOOD + 1
        {}
    };
    tokio::time::timeout(PATIENCE, settled).await.expect("every event is stored or counted");
    let page = app.api.get(&events_of("DOCK-1", "?types=device.event&limit=500")).await;
    let kept = page.body["items"].as_array().unwrap().len();
    assert!((1..=110).contains(&kept), "{kept}");
    let alarm = app.api.get(&events_of("DOCK-1", "?types=device.alarm_raised")).await;
    assert_eq!(alarm.body["items"].as_array().unwrap().len(), 1, "no flood pushes an alarm out");
}

/// Docks send a list again until it is answered: one that comes late says how things were.
#[tokio::test]
async fn a_late_copy_of_a_list_of_alarms_brings_nothing_back() {
    let app = TestApp::start().await;
    let mut dock = app.dock("DOCK-1").await;
    let raised = message("l-1", "hms", 1, &json!({"list": [{"code": "0x19110014"}]}));
    let over = message("l-2", "hms", 1, &json!({"list": []}));
    for (body, tid) in [(&raised, "l-1"), (&over, "l-2"), (&raised, "l-1"), (&raised, "l-1")] {
        say(&dock, body).await;
        assert_eq!(dock.message("/events_reply").await.tid(), tid, "every copy is answered");
    }
    let alarms = "/api/v1/open/devices/DOCK-1/alarms";
    assert_eq!(app.api.get(alarms).await.body["items"], json!([]));
    let items = until(&app.api, &events_of("DOCK-1", ""), |items| items.len() >= 2).await;
    assert_eq!(
        field(&items, "/type"),
        [&json!("device.alarm_cleared"), &json!("device.alarm_raised")]
    );
    // It may be raised again, by a list of its own. Lists without ids of their own are told apart by nothing.
    say(&dock, &message("l-3", "hms", 1, &json!({"list": [{"code": "0x19110014"}]}))).await;
    assert_eq!(dock.message("/events_reply").await.tid(), "l-3");
    assert_eq!(app.api.get(alarms).await.body["items"].as_array().unwrap().len(), 1);
    for list in [json!([]), json!([{"code": "0x19111800"}]), json!([])] {
        say(&dock, &message(ZEROS, "hms", 1, &json!({ "list": list }))).await;
        dock.message("/events_reply").await;
    }
    assert_eq!(app.api.get(alarms).await.body["items"], json!([]));
}

/// What a command was told in confidence is hidden in whatever its gateway says later, also once the command has ended and
/// in messages that name no command.
#[tokio::test]
async fn what_was_told_in_confidence_is_hidden_after_the_command_ended_and_in_every_event() {
    let app = TestApp::start().await;
    let mut dock = app.dock("DOCK-1").await;
    let payload = json!({
        "bucket": "logs", "region": "us-east-1", "endpoint": "https://storage.example", "provider": "minio",
        "credentials": {
            "access_key_id": "hush-key-id", "access_key_secret": "hush-key", "expire": 3600,
            "security_token": "hush-session",
        },
        "params": {"files": [
            {"object_key": "logs/a.log", "module": "3", "list": [{"boot_index": 321}]},
        ]},
    });
    let created = app.api.create("DOCK-1", "fileupload_start", payload, json!({})).await;
    let command = dock.command().await;
    let note =
        json!({"ext": {"note": "logged in as hush-key-id with hush-key, hush-session"}, "n": 1});
    // While the command is under way, in an event of something else.
    say(&dock, &message("before", "track", 0, &note)).await;
    dock.reply(&command, json!({"result": 314_000})).await;
    assert_eq!(app.api.ended(&created.id()).await["status"], "FAILED");
    // And after it: the progress of a command that is over, another event, one that is too long, an alarm.
    let progress = json!({"result": 0, "output": {"status": "in_progress", "progress": {"percent": 7}, "note": note}});
    dock.event("fileupload_progress", &command.body["bid"], progress, 0).await;
    say(&dock, &message("after", "track", 0, &note)).await;
    let long = json!({"a": "hush-key", "b": "x".repeat(40_000)});
    say(&dock, &message("long", "track", 0, &long)).await;
    list_alarms(
        &mut dock,
        json!([{"code": "0x19110014", "args": {"component_index": 0, "who": "hush-key"}}]),
    )
    .await;
    let items = until(&app.api, &events_of("DOCK-1", ""), |items| items.len() >= 5).await;
    assert!(!Value::from(items.clone()).to_string().contains("hush"), "{items:#?}");
    assert_eq!(items[4]["data"]["n"], 1, "nothing else is hidden: {:#}", items[4]);
    assert!(items[1]["data"].as_str().unwrap().starts_with(r#"{"a":"***","b":"xxx"#));
    // Another gateway was told nothing: the same word of it is none of those.
    let other = app.dock("DOCK-2").await;
    let mut body = message("other", "track", 0, &json!({"word": "hush-key"}));
    body["gateway"] = json!("DOCK-2");
    say(&other, &body).await;
    let theirs = until(&app.api, &events_of("DOCK-2", ""), |items| !items.is_empty()).await;
    assert_eq!(theirs[0]["data"]["word"], "hush-key");
    let kept = async {
        while app.history.alarms().await.unwrap().is_empty() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE, kept).await.unwrap();
    let alarm = &app.history.alarms().await.unwrap()[0];
    assert!(alarm.entry.contains("***") && !alarm.entry.contains("hush"), "{}", &*alarm.entry);
}

/// The store may refuse for long: what is raised now is kept once it takes it, or it would go on to say what is over.
#[tokio::test]
async fn alarms_outlast_a_history_that_refuses_for_long() {
    let app = TestApp::start().await;
    let mut dock = app.dock("DOCK-1").await;
    list_alarms(&mut dock, json!([{"code": "0x19110014"}])).await;
    until(&app.api, &events_of("DOCK-1", ""), |items| items.len() == 1).await;
    app.unwell_history.refuse_events(true);
    list_alarms(&mut dock, json!([{"code": "0x19111800"}])).await;
    // Long enough for the events to be given up.
    app.unwell_history.until_refused(6).await;
    assert!(metric(&app, "utmos_events_dropped_total").await >= 2);
    app.unwell_history.refuse_events(false);
    let kept = async {
        loop {
            let alarms = app.history.alarms().await.unwrap();
            if let [alarm] = alarms.as_slice()
                && alarm.entry.contains("0x19111800")
            {
                return;
            }
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(PATIENCE, kept).await.expect("the store still says what is over");
    // A stop does not wait for a store that refuses.
    app.unwell_history.refuse_events(true);
    list_alarms(&mut dock, json!([])).await;
    app.unwell_history.until_refused(7).await;
    let app = tokio::time::timeout(PATIENCE, app.restart()).await.expect("it does not stop");
    drop(app);
}
