//! Who is there behind an outside broker: what it tells of connections, and what a gateway's own messages prove.

use std::time::Duration;

use serde_json::{Value, json};
use utmos_mqtt::{Qos, Will};

use crate::{
    api::{Api, PATIENCE},
    dock::{PretendDock, filters, login},
    forged::{is_heard, outside, until},
    place::PASSWORD,
};

/// What the tests' servers are told: a plugin of the broker tells of connections, in EMQX's words.
const TOLD: [&str; 5] = [
    "mqtt.external.liveness_seconds=5",
    "presence.offline_after_seconds=1",
    "mqtt.external.presence_connected=told/{client_id}/connected",
    "mqtt.external.presence_disconnected=told/{client_id}/disconnected",
    "mqtt.external.presence_gateway=username",
];

/// Waits until a figure has a value.
async fn until_figure(api: &Api, name: &str, holds: impl Fn(u64) -> bool) {
    let asking = async {
        while !holds(api.figure(name).await) {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(PATIENCE, asking).await.unwrap_or_else(|_| panic!("{name} never does"));
}

fn word(began: i64) -> Value {
    json!({"clientid": "c", "username": "DOCK-1", "connected_at": began, "reason": "tcp_closed"})
}

fn osd(firmware: &str) -> Value {
    let data = json!({"firmware_version": firmware, "mode_code": 0});
    json!({"tid": "t", "bid": "b", "timestamp": 1, "gateway": "DOCK-1", "data": data})
}

#[tokio::test]
async fn what_an_outside_broker_tells_of_connections_ends_presence_and_begins_none() {
    let (mosquitto, _place, server) = outside(&TOLD).await;
    let api = &server.api;
    let broker = mosquitto.address();
    let plugin = PretendDock::connect(broker, "PLUGIN").await;
    let mut dock = PretendDock::connect(broker, "DOCK-1").await;
    is_heard(api, &mut dock, "DOCK-1").await;
    plugin.publish("told/c/disconnected", &word(1)).await;
    let gone = until(api, "DOCK-1", |one| one["online"] == false).await;
    assert_eq!(gone["online_evidence"]["kind"], "disconnected", "long before it is silent");
    // It comes back: that it connected is not yet that it listens.
    let other = json!({"clientid": "d", "username": "DOCK-2", "connected_at": 1});
    plugin.publish("told/c/connected", &word(2)).await;
    plugin.publish("told/d/connected", &other).await;
    // What is told of no gateway of ours is passed over; what tells nothing is kept.
    plugin.publish("told/x/connected", &json!({"username": "SOMEBODY"})).await;
    plugin.publish("told/c/connected", &json!({"clientid": "c"})).await;
    let malformed = async {
        while api.figure("uplink_malformed_total").await == 0 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(PATIENCE, malformed).await.expect("the last word is never heard");
    let (first, second) =
        (until(api, "DOCK-1", |_| true).await, until(api, "DOCK-2", |_| true).await);
    assert_eq!((&first["online"], &second["online"]), (&json!(false), &json!(false)));
    assert_eq!(second["online_evidence"]["kind"], "never");
    // Heard, it is there, and what waits goes out; the end of the session before, told late, is no news.
    let id = api
        .create("DOCK-1", "debug_mode_open", json!({}), json!({"if_offline": "wait"}))
        .await
        .id();
    is_heard(api, &mut dock, "DOCK-1").await;
    let command = dock.command().await;
    assert_eq!(command.tid(), id);
    plugin.publish("told/c/disconnected", &word(1)).await;
    plugin.publish("told/c/connected", &json!({"clientid": "c"})).await;
    let heard = async {
        while api.figure("uplink_malformed_total").await < 2 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(PATIENCE, heard).await.expect("the last word is never heard");
    let shown = until(api, "DOCK-1", |_| true).await;
    assert_ne!(shown["online_evidence"]["kind"], "disconnected", "{shown:#}");
    dock.reply(&command, json!({"result": 0})).await;
    assert_eq!(api.ended(&id).await["status"], "SUCCEEDED");
    // An end that nobody tells of is found out by silence.
    dock.leave().await;
    let silent = until(api, "DOCK-1", |one| one["online"] == false).await;
    assert_eq!(silent["online_evidence"]["kind"], "silent");
    tokio::time::timeout(PATIENCE, async {
        while api.figure("devices_online").await > 0 {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    })
    .await
    .expect("it never goes");
    server.stop().await;
}

#[tokio::test]
async fn a_last_will_and_what_was_on_its_way_let_no_command_leave_for_a_dock_that_is_gone() {
    let (mosquitto, _place, server) = outside(&TOLD).await;
    let api = &server.api;
    let broker = mosquitto.address();
    let plugin = PretendDock::connect(broker, "PLUGIN").await;
    let mut config = login(broker, "DOCK-1", PASSWORD);
    config.subscriptions = filters("DOCK-1", &[]);
    config.will = Some(Will {
        topic: "thing/product/DOCK-1/osd".to_owned(),
        payload: osd("will").to_string().into_bytes(),
        qos: Qos::AtLeastOnce,
    });
    let mut dock = PretendDock::start(config).await.unwrap();
    is_heard(api, &mut dock, "DOCK-1").await;
    until_figure(api, "devices_online", |there| there == 1).await;
    // The broker tells of the end first, and publishes the will then; what the dock said last was still on its way.
    plugin.publish("told/c/disconnected", &word(1)).await;
    until(api, "DOCK-1", |one| one["online"] == false).await;
    let id = api
        .create("DOCK-1", "debug_mode_open", json!({}), json!({"if_offline": "wait"}))
        .await
        .id();
    drop(dock);
    let gone = until(api, "DOCK-1", |one| one["firmware_version"] == "will").await;
    assert_eq!(
        (&gone["online"], &gone["online_evidence"]["kind"]),
        (&json!(false), &json!("disconnected"))
    );
    for number in 0..3 {
        // Another of its connections: what comes now is late however slow the machine is.
        plugin.publish("told/c/disconnected", &word(2 + number)).await;
        plugin.publish("thing/product/DOCK-1/osd", &osd(&format!("late-{number}"))).await;
        let firmware = format!("late-{number}");
        let late = until(api, "DOCK-1", |one| one["firmware_version"] == *firmware).await;
        assert_eq!(late["online"], false, "{late:#}");
    }
    until_figure(api, "devices_online", |there| there == 0).await;
    assert_eq!(api.figure("commands_published_total").await, 0);
    assert_eq!(
        api.get(&format!("/api/v1/open/downlink/commands/{id}")).await.body["status"],
        "ACCEPTED"
    );
    // Nobody tells of its new session: it goes on to speak, and is there.
    let mut dock = PretendDock::connect(broker, "DOCK-1").await;
    is_heard(api, &mut dock, "DOCK-1").await;
    let command = dock.command().await;
    assert_eq!(command.tid(), id);
    dock.reply(&command, json!({"result": 0})).await;
    assert_eq!(api.ended(&id).await["status"], "SUCCEEDED");
    let figures = (api.figure("devices_came_total").await, api.figure("devices_went_total").await);
    assert_eq!(figures, (2, 1), "told once each, and not for what was late");
    server.stop().await;
}

#[tokio::test]
async fn garbage_is_a_sign_of_life_behind_an_outside_broker_and_costs_no_more_than_it_is() {
    let (mosquitto, _place, server) = outside(&["mqtt.external.liveness_seconds=5"]).await;
    let api = &server.api;
    let mut dock = PretendDock::connect(mosquitto.address(), "DOCK-1").await;
    is_heard(api, &mut dock, "DOCK-1").await;
    dock.drain().await;
    let good = until(api, "DOCK-1", |one| one["online"] == true).await;
    // Longer than what could be read counts: by then its time is over, and it is there all the same.
    let began = tokio::time::Instant::now();
    let lasting = async {
        let mut garbage = 0;
        loop {
            dock.publish_text("thing/product/DOCK-1/osd", "no JSON at all").await;
            garbage += 1;
            let shown = until(api, "DOCK-1", |_| true).await;
            assert_eq!(shown["last_seen_at"], good["last_seen_at"], "{shown:#}");
            if began.elapsed() > Duration::from_secs(7) && shown["online"] == true {
                return garbage;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    let garbage = tokio::time::timeout(PATIENCE, lasting).await.expect("it is not there");
    until_figure(api, "uplink_malformed_total", |all| all == garbage).await;
    let looks = api.figure("devices_looked_at_total").await;
    assert!(looks < 1_000, "it was looked at {looks} times for {garbage} messages");
    server.stop().await;
}
