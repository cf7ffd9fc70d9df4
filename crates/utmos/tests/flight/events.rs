//! What devices tell by themselves, end to end: progress on its command and in the list of events, and a whole recorded
//! flight that leaves nothing behind but news.

use std::collections::BTreeSet;

use reqwest::StatusCode;
use serde_json::{Value, json};
use utmos_core::{device::DeviceKind, time::Clock};
use utmos_mqtt::ProtocolChoice;
use utmos_server::clock::SystemClock;
use utmos_sim::{Model, guide};

use crate::{
    api::{Api, PATIENCE},
    dock::PretendDock,
    place::{CATALOGUE, PASSWORD, Place, data, fly},
    truth,
};

/// How many times faster than real the docks live.
const SPEED: f64 = 20.0;
/// Jobs, and the events that tell how they go.
const JOBS: [(&str, &str); 6] = [
    ("cover_open", "cover_open"),
    ("takeoff_to_point", "takeoff_to_point_progress"),
    ("fly_to_point", "fly_to_point_progress"),
    ("flighttask_execute", "flighttask_progress"),
    ("ota_create", "ota_progress"),
    ("fileupload_start", "fileupload_progress"),
];

fn target(device: &str, query: &str) -> String {
    format!("/api/v1/open/devices/{device}/events{query}")
}

/// A device's events as soon as `holds` is true of them, newest first.
async fn until(api: &Api, target: &str, holds: impl Fn(&[Value]) -> bool) -> Vec<Value> {
    let asking = async {
        loop {
            let answer = api.get(target).await;
            assert_eq!(answer.status, StatusCode::OK, "{answer:?}");
            let items = answer.body["items"].as_array().unwrap().clone();
            if holds(&items) {
                return items;
            }
        }
    };
    tokio::time::timeout(PATIENCE, asking).await.unwrap_or_else(|_| panic!("{target}: too little"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_progress_of_every_kind_of_job_shows_on_its_command_and_as_events_of_it() {
    let (place, mut config) = Place::with_models(&[Model::Dock2; JOBS.len()]).await;
    config.speed = SPEED;
    let server = place.start().await;
    let fleet = fly(&config, server.mqtt(), ProtocolChoice::Auto).await;
    let api = &server.api;
    let wait = json!({"if_offline": "wait"});
    let now = || SystemClock::new().now().wall;
    let jobs = JOBS.iter().zip(&config.docks).map(async |((name, event), dock)| {
        let method = CATALOGUE.method(name).unwrap();
        for first in guide::before(method, dock.model) {
            let first = CATALOGUE.method(first.method).unwrap();
            let payload = guide::payload(first, dock, now());
            let id = api.create(&dock.sn, &first.name, payload, wait.clone()).await.id();
            let command = api.ended(&id).await;
            assert_eq!(command["status"], "SUCCEEDED", "{}: {command:#}", first.name);
        }
        let payload = guide::payload(method, dock, now());
        let id = api.create(&dock.sn, name, payload, wait.clone()).await.id();
        let command = api.ended(&id).await;
        truth::must_be_true(&command, &fleet);
        assert_eq!(command["status"], "SUCCEEDED", "{name}: {command:#}");
        let state = command["execution"]["state"].as_str().unwrap();
        assert!(["ok", "success", "wayline_ok"].contains(&state), "{name}: {state}");
        assert!(command["execution"]["ext"].is_object(), "{name}: {command:#}");

        // The command ended with its last event, so that one is stored soon.
        let target = target(&dock.sn, &format!("?types=device.event&method={event}&limit=500"));
        let last = &command["execution"]["ext"];
        let is_last = |item: &Value| item["data"] == *last;
        let items = until(api, &target, |items| items.iter().any(is_last)).await;
        let tids = items.iter().map(|item| item["event_id"].as_str().unwrap());
        assert_eq!(tids.collect::<BTreeSet<_>>().len(), items.len());
        for item in &items {
            assert_eq!(item["command_id"], id.as_str(), "{name}: {item:#}");
            assert_eq!(item["gateway_id"], dock.sn.as_str());
        }
    });
    futures_util::future::join_all(jobs).await;
    fleet.shutdown().await;
    server.stop().await;
}

#[tokio::test]
async fn a_recorded_flight_told_three_times_is_kept_once() {
    let place = Place::new().await;
    let gateways: [(&str, DeviceKind, &[&str]); 3] = [
        ("SN_DOCK_FIXTURE", DeviceKind::Dock, &["SN_DRONE_FIXTURE"]),
        ("SN_DOCK_B", DeviceKind::Dock, &[]),
        ("SN_DOCK_C", DeviceKind::Dock, &[]),
    ];
    for (sn, kind, aircraft) in gateways {
        place.put_gateway(place.given.tenant, sn, kind, PASSWORD, aircraft).await;
    }
    let server = place.start().await;
    let mut dock =
        PretendDock::with_aircraft(server.mqtt(), "SN_DOCK_FIXTURE", &["SN_DRONE_FIXTURE"]).await;
    let told: Vec<(String, Value)> = data("recordings/dock3-flight/events.jsonl")
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap())
        .filter(|line| line["direction"] == "up")
        .map(|line| {
            let payload = line["payload_text"].as_str().unwrap();
            (line["topic"].as_str().unwrap().to_owned(), serde_json::from_str(payload).unwrap())
        })
        .collect();
    let asked = told.iter().filter(|(_, body)| body["need_reply"] == 1).count();
    assert!(asked >= 10, "{asked}");
    for _ in 0..3 {
        for (topic, body) in &told {
            dock.publish(topic, body).await;
        }
        let answers = dock.drain().await;
        let answered = answers.iter().filter(|down| down.topic.ends_with("/events_reply")).count();
        assert_eq!(answered, asked, "every copy is answered");
    }
    // Events of a gateway are stored in the order in which they came: with the last all are there.
    for device in ["SN_DOCK_FIXTURE", "SN_DRONE_FIXTURE"] {
        let body = json!({
            "tid": "the-last", "bid": "the-last", "timestamp": 1, "gateway": "SN_DOCK_FIXTURE",
            "method": "the_last", "data": {},
        });
        dock.publish(&format!("thing/product/{device}/events"), &body).await;
    }
    for device in ["SN_DOCK_FIXTURE", "SN_DRONE_FIXTURE"] {
        let of_device = |one: &&(String, Value)| one.0.split('/').nth(2) == Some(device);
        let expected: BTreeSet<(&str, &str)> = told
            .iter()
            .filter(of_device)
            .filter(|(_, body)| body["method"] != "hms")
            .map(|(_, body)| (body["method"].as_str().unwrap(), body["tid"].as_str().unwrap()))
            .chain([("the_last", "the-last")])
            .collect();
        let target = target(device, "?types=device.event&limit=500");
        let is_last = |item: &Value| item["method"] == "the_last";
        let items = until(&server.api, &target, |items| items.iter().any(is_last)).await;
        assert_eq!(items.len(), expected.len(), "{device}");
        let methods = |all: Vec<&str>| -> Vec<String> {
            let mut all: Vec<String> = all.into_iter().map(str::to_owned).collect();
            all.sort();
            all
        };
        assert_eq!(
            methods(items.iter().map(|item| item["method"].as_str().unwrap()).collect()),
            methods(expected.iter().map(|(method, _)| *method).collect())
        );
    }
    // The one alarm of that flight: in the air, and each time the empty list before it came between.
    let alarms = server.api.get("/api/v1/open/devices/SN_DRONE_FIXTURE/alarms").await.body;
    let raised =
        until(&server.api, &target("SN_DRONE_FIXTURE", "?types=device.alarm_raised"), |items| {
            !items.is_empty()
        })
        .await;
    let alarm = &raised[0]["alarms"][0];
    assert_eq!(alarm["code"], "0x1B030019");
    assert_eq!(alarm["in_the_sky"], true);
    assert_eq!(alarm["module"], "navigation");
    assert!(alarm["text"].as_str().unwrap().starts_with("The aircraft is off its route"));
    assert!(alarms["as_of"].is_string(), "{alarms:#}");
    server.stop().await;
}
