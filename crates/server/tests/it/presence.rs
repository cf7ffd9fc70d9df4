//! Devices come and go: told once, and kept over a restart.

use serde_json::json;
use tokio::sync::mpsc;
use utmos_core::{
    device::Device,
    id::DeviceSn,
    ports::{DeviceOrder, EventStore, FleetStore, Ordered, RegistryStore},
    time::Timestamp,
};
use utmos_mqtt::{Client, ClientConfig, Password, Qos, Will};

use crate::{
    app::{PASSWORD, PATIENCE, TestApp, order, put_gateway},
    devices_api::shown,
    dock::PretendDock,
};

async fn figure(app: &TestApp, name: &str) -> u64 {
    let text =
        app.api.bare(reqwest::Method::GET, "/metrics").send().await.unwrap().text().await.unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix(&format!("utmos_{name} ")));
    line.unwrap_or_else(|| panic!("no {name}")).parse().unwrap()
}

async fn until(app: &TestApp, name: &str, value: u64) {
    tokio::time::timeout(PATIENCE, async {
        while figure(app, name).await != value {
            tokio::task::yield_now().await;
        }
    })
    .await
    .unwrap_or_else(|_| panic!("{name} never came to {value}"));
}

#[tokio::test]
async fn a_dock_and_its_aircraft_come_and_go_once_however_often_they_say_so() {
    let app = TestApp::start_with(&["presence.offline_after_seconds=1"]).await;
    let mut dock = app.dock("DOCK-1").await;
    for _ in 0..3 {
        dock.report_aircraft("AIR-1").await;
        dock.osd("DOCK-1", json!({"mode_code": 0})).await;
        dock.osd("AIR-1", json!({"mode_code": 0})).await;
    }
    until(&app, "devices_online", 2).await;
    assert_eq!(
        (figure(&app, "devices_came_total").await, figure(&app, "devices_went_total").await),
        (2, 0)
    );
    // The aircraft leaves, and the dock is still there.
    dock.report_nobody().await;
    until(&app, "devices_online", 1).await;
    dock.report_aircraft("AIR-1").await;
    until(&app, "devices_online", 2).await;
    // With its gateway it goes as well.
    dock.leave().await;
    until(&app, "devices_online", 0).await;
    assert_eq!(
        (figure(&app, "devices_came_total").await, figure(&app, "devices_went_total").await),
        (3, 3)
    );
    let device = shown(&app.api, "AIR-1", |one| one["online"] == false).await;
    assert_eq!(device["online_evidence"]["kind"], "gateway_offline");
    // Each is an event of the device, the newest first.
    let on = ["device.offline", "device.online"];
    for (sn, expected) in [("DOCK-1", on.to_vec()), ("AIR-1", on.repeat(2))] {
        let target = format!("/api/v1/open/devices/{sn}/events?types=device.online,device.offline");
        let told = async {
            loop {
                let items = app.api.get(&target).await.body["items"].clone();
                let items: Vec<_> =
                    items.as_array().unwrap().iter().map(|one| one["type"].clone()).collect();
                if items.len() >= expected.len() {
                    return items;
                }
            }
        };
        let told = tokio::time::timeout(PATIENCE, told).await.expect("not all is told");
        assert_eq!(told, expected, "{sn}");
    }
}

/// Of the numbers of direct control it shows on the wire; how aircraft fly is held beside them.
#[tokio::test]
async fn nothing_is_held_of_what_was_removed_and_it_begins_anew_when_it_is_back() {
    let app = TestApp::start_with(&["telemetry.flush_seconds=300"]).await;
    let tenant = app.api.given.tenant;
    let mut dock = app.dock("DOCK-1").await;
    dock.report_aircraft("AIR-1").await;
    dock.osd("DOCK-1", json!({"mode_code": 0})).await;
    dock.osd("AIR-1", json!({"mode_code": 5, "height": 50})).await;
    until(&app, "telemetry_devices", 2).await;
    until(&app, "devices_online", 2).await;
    let steer = async |dock: &mut PretendDock| {
        app.api.create("DOCK-1", "drc_initial_state_subscribe", json!({}), json!({})).await.id();
        dock.command().await.body["seq"].clone()
    };
    assert_eq!((steer(&mut dock).await, steer(&mut dock).await), (json!(1), json!(2)));
    shown(&app.api, "AIR-1", |one| one["online"] == true).await;

    for sn in ["AIR-1", "DOCK-1"] {
        let sn = DeviceSn::parse(sn).unwrap();
        let removed = order(&*app.store, DeviceOrder::Remove { sn, tenant }).await;
        assert!(matches!(removed, Ordered::Done(_)), "{removed:?}");
    }
    dock.cut().await;
    for name in ["telemetry_devices", "telemetry_latest_bytes", "devices_online"] {
        until(&app, name, 0).await;
    }
    put_gateway(&*app.store, tenant, "DOCK-1").await;
    app.credential(|_| {}).await;
    let mut dock = app.dock("DOCK-1").await;
    until(&app, "devices_online", 1).await;
    assert_eq!(steer(&mut dock).await, 1);
    let latest = app.api.get("/api/v1/open/devices/DOCK-1/telemetry").await.body;
    assert_eq!(latest["blocks"], json!({}));
}

/// That a device has gone is known here, and waits for no store.
#[tokio::test]
async fn whoever_goes_while_a_write_of_sightings_hangs_is_told_of_all_the_same() {
    let app = TestApp::start_with(&["presence.offline_after_seconds=1"]).await;
    app.unwell_fleet.hold_sightings(true);
    let dock = app.dock("DOCK-1").await;
    until(&app, "devices_online", 1).await;
    app.unwell_fleet.until_sightings_wait().await;
    dock.leave().await;
    until(&app, "devices_online", 0).await;
    let target = "/api/v1/open/devices/DOCK-1/events?types=device.offline";
    let told = async {
        while app.api.get(target).await.body["items"].as_array().is_none_or(Vec::is_empty) {}
    };
    tokio::time::timeout(PATIENCE, told).await.expect("nobody is told");
    app.unwell_fleet.hold_sightings(false);
}

/// Once so many events of this type are on record of `DOCK-1`.
async fn until_told(app: &TestApp, what: &str, count: usize) {
    let target = format!("/api/v1/open/devices/DOCK-1/events?types={what}");
    let told = async {
        while app.api.get(&target).await.body["items"].as_array().map_or(0, Vec::len) < count {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE, told).await.unwrap_or_else(|_| panic!("no {count} of {what}"));
}

/// What was told is on record sooner than what was seen.
#[tokio::test]
async fn a_server_that_is_killed_right_after_it_told_of_somebody_does_not_contradict_that() {
    let app = TestApp::start_with(&["presence.offline_after_seconds=1"]).await;
    let dock = app.dock("DOCK-1").await;
    let seen = async {
        while !app.store.sightings().await.unwrap().iter().any(|one| one.online) {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE, seen).await.expect("it is never written");
    app.unwell_fleet.hold_sightings(true);
    dock.leave().await;
    until_told(&app, "device.offline", 1).await;

    let again = app.as_if_killed().await;
    assert_eq!(figure(&again, "devices_online").await, 0, "it was told that it is gone");
    again.unwell_fleet.hold_sightings(true);
    let dock = again.dock("DOCK-1").await;
    until_told(&again, "device.online", 2).await;

    let third = again.as_if_killed().await;
    assert_eq!(figure(&third, "devices_online").await, 1, "it was told that it is back");
    dock.leave().await;
    let dock = third.dock("DOCK-1").await;
    shown(&third.api, "DOCK-1", |one| one["online"] == true).await;
    assert_eq!(figure(&third, "devices_came_total").await, 0, "nor is that told twice");
    dock.leave().await;
    app.unwell_fleet.hold_sightings(false);
    again.unwell_fleet.hold_sightings(false);
}

#[tokio::test]
async fn what_was_told_of_a_device_before_it_was_removed_says_nothing_of_it_when_it_is_added_again()
{
    let app = TestApp::start().await;
    let _dock = app.dock("DOCK-1").await;
    until_told(&app, "device.online", 1).await;
    let (sn, tenant) = (DeviceSn::parse("DOCK-1").unwrap(), app.api.given.tenant);
    let known = app.store.devices().await.unwrap().into_iter().find(|one| one.sn == sn).unwrap();
    let removed = order(&*app.store, DeviceOrder::Remove { sn, tenant }).await;
    assert!(matches!(removed, Ordered::Done(_)), "{removed:?}");
    until(&app, "devices_online", 0).await;
    let told = app.history.newest_edges().await.unwrap();
    let told_at = told.iter().map(|edge| edge.at.as_millis()).max().unwrap();
    let added_at = Timestamp::from_millis(told_at + 1);
    let added = Device { created_at: added_at, ..known };
    let added = order(&*app.store, DeviceOrder::Register(added)).await;
    assert!(matches!(added, Ordered::Done(_)), "{added:?}");
    let again = app.restart().await;
    assert_eq!(figure(&again, "devices_online").await, 0, "it never came since");
}

#[tokio::test]
async fn one_that_is_back_soon_was_never_away_also_over_a_restart() {
    let app = TestApp::start_with(&["presence.offline_after_seconds=60"]).await;
    for _ in 0..3 {
        let dock = app.dock("DOCK-1").await;
        shown(&app.api, "DOCK-1", |one| one["online"] == true).await;
        dock.leave().await;
        let device = shown(&app.api, "DOCK-1", |one| one["online"] == false).await;
        assert_eq!(
            device["online_evidence"]["kind"], "disconnected",
            "what is shown is what is so now"
        );
    }
    assert_eq!(
        (figure(&app, "devices_came_total").await, figure(&app, "devices_went_total").await),
        (1, 0)
    );
    let app = app.restart().await;
    assert_eq!(figure(&app, "devices_online").await, 1, "it has time to come back");
    let before = shown(&app.api, "DOCK-1", |one| one["first_seen_at"].is_string()).await;
    let dock = app.dock("DOCK-1").await;
    let after = shown(&app.api, "DOCK-1", |one| one["online"] == true).await;
    assert_eq!(after["first_seen_at"], before["first_seen_at"]);
    assert_eq!(
        figure(&app, "devices_came_total").await,
        0,
        "its coming was told before the restart"
    );
    dock.leave().await;
}

#[tokio::test]
async fn a_last_will_makes_nobody_come_back_and_speaks_for_nobody_else() {
    let app = TestApp::start_with(&["presence.offline_after_seconds=1"]).await;
    let neighbour = app.dock("DOCK-2").await;
    let mut dock = app.dock("DOCK-1").await;
    dock.report_aircraft("AIR-1").await;
    until(&app, "devices_online", 3).await;
    dock.leave().await;
    until(&app, "devices_online", 1).await;
    for (topic, data) in [
        ("thing/product/DOCK-1/osd", json!({"firmware_version": "will"})),
        ("thing/product/AIR-1/osd", json!({"mode_code": 0})),
        ("thing/product/DOCK-2/osd", json!({"firmware_version": "will"})),
        ("sys/product/DOCK-1/status", json!({"sub_devices": []})),
        ("thing/product/DOCK-1/services", json!({})),
    ] {
        let (sender, mut inbound) = mpsc::channel(64);
        let mut config = ClientConfig::new(app.mqtt.ip().to_string(), app.mqtt.port(), "DOCK-1");
        config.username = Some("DOCK-1".to_owned());
        config.password = Some(Password::new(PASSWORD.as_bytes()));
        let body =
            json!({"tid": "t", "bid": "b", "timestamp": 1, "gateway": "DOCK-1", "data": data});
        let payload = body.to_string().into_bytes();
        config.will = Some(Will { topic: topic.to_owned(), payload, qos: Qos::AtLeastOnce });
        let client = Client::start(config, sender);
        tokio::time::timeout(PATIENCE, inbound.recv()).await.unwrap().unwrap();
        // Gone without a goodbye.
        drop(client);
    }
    // A session of the same name proves that all of them have ended.
    let dock = app.dock("DOCK-1").await;
    shown(&app.api, "DOCK-1", |one| one["online"] == true).await;
    dock.leave().await;
    until(&app, "devices_online", 1).await;
    shown(&app.api, "DOCK-1", |one| one["firmware_version"] == "will").await;
    let other = shown(&app.api, "DOCK-2", |one| one["online"] == true).await;
    assert_eq!(other["firmware_version"], serde_json::Value::Null, "a will speaks for its own");
    let aircraft = shown(&app.api, "AIR-1", |one| one["online"] == false).await;
    assert_eq!(aircraft["online_evidence"]["kind"], "gateway_offline");
    neighbour.leave().await;
}

#[tokio::test]
async fn what_a_dock_sends_again_of_an_aircraft_that_is_off_does_not_make_it_come() {
    let app = TestApp::start_with(&["presence.offline_after_seconds=1"]).await;
    let mut dock = app.dock("DOCK-1").await;
    dock.report_aircraft("AIR-1").await;
    until(&app, "devices_online", 2).await;
    dock.report_nobody().await;
    until(&app, "devices_online", 1).await;
    let body = |data| {
        json!({
            "tid": "s-1", "bid": "s-1", "timestamp": 1, "gateway": "DOCK-1", "need_reply": 1, "method": "track",
            "data": data,
        })
    };
    for (topic, data) in [
        ("state", json!({"rth_mode": 1})),
        ("state", json!({"firmware_version": "07.01.10.03"})),
        ("events", json!({"n": 1})),
        ("osd", json!({"firmware_version": "07.01.10.03"})),
        ("osd", json!({"mode_code": 14})),
    ] {
        dock.publish(&format!("thing/product/AIR-1/{topic}"), &body(data)).await;
    }
    // Once this is answered, what came before it has been heard.
    dock.publish("thing/product/DOCK-1/events", &body(json!({"n": 2}))).await;
    dock.message("/DOCK-1/events_reply").await;
    let device = app.api.get("/api/v1/open/devices/AIR-1").await.body;
    assert_eq!((figure(&app, "devices_came_total").await, &device["online"]), (2, &json!(false)));
    assert_eq!(device["online_evidence"]["kind"], "left_gateway");
    // Nor after a restart, before the dock has said what it has.
    dock.leave().await;
    until(&app, "devices_online", 0).await;
    let app = app.restart().await;
    let mut dock = app.dock("DOCK-1").await;
    until(&app, "devices_online", 1).await;
    for (topic, data) in
        [("state", json!({"firmware_version": "07.01.10.03"})), ("events", json!({"n": 1}))]
    {
        dock.publish(&format!("thing/product/AIR-1/{topic}"), &body(data)).await;
    }
    dock.publish("thing/product/DOCK-1/events", &body(json!({"n": 3}))).await;
    dock.message("/DOCK-1/events_reply").await;
    let device = app.api.get("/api/v1/open/devices/AIR-1").await.body;
    assert_eq!((figure(&app, "devices_came_total").await, &device["online"]), (1, &json!(false)));
    // What it says itself, and nothing else, brings it back.
    dock.osd("AIR-1", json!({"mode_code": 0})).await;
    until(&app, "devices_online", 2).await;
}
