//! Behind an outside broker only messages tell who speaks: what names a gateway that its device does not stand behind has
//! no effect, and is kept to be looked at.

use std::time::Duration;

use reqwest::StatusCode;
use serde_json::{Value, json};

use crate::{
    api::{Api, PATIENCE},
    dock::PretendDock,
    mosquitto::{Mosquitto, behind},
    mosquitto_access::run,
    place::Place,
};

pub async fn until(api: &Api, sn: &str, holds: impl Fn(&Value) -> bool) -> Value {
    let asking = async {
        loop {
            let answer = api.get(&format!("/api/v1/open/devices/{sn}")).await;
            if answer.status == StatusCode::OK && holds(&answer.body) {
                return answer.body;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(PATIENCE, asking).await.unwrap_or_else(|_| panic!("{sn} never does"))
}

#[tokio::test]
async fn what_names_another_gateway_is_dropped_counted_and_kept_and_silence_ends_presence() {
    let mosquitto = Mosquitto::start().await;
    let mut place = Place::with_gateways(&["DOCK-1", "DOCK-2"]).await;
    place.settings = vec![
        "mqtt.mode=external".to_owned(),
        format!("mqtt.external.host={}", mosquitto.address),
        "mqtt.external.port=1883".to_owned(),
        "mqtt.external.liveness_seconds=5".to_owned(),
        "presence.offline_after_seconds=1".to_owned(),
    ];
    let server = place.start().await;
    let api = &server.api;
    // The server is there once it answers.
    let mut dock = PretendDock::connect((mosquitto.address, 1883).into(), "DOCK-1").await;
    let topology = json!({
        "tid": "t", "bid": "b", "timestamp": 1, "method": "update_topo", "data": {
            "domain": "3", "type": 2, "sub_type": 0,
            "sub_devices": [{"sn": "AIR-1", "domain": "0", "type": 91, "sub_type": 0, "index": "A"}],
        },
    });
    tokio::time::timeout(PATIENCE, async {
        loop {
            dock.publish("sys/product/DOCK-1/status", &topology).await;
            if api.get("/api/v1/open/devices/AIR-1").await.status == StatusCode::OK {
                break;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    })
    .await
    .expect("the server never hears the dock");
    let shown = until(api, "DOCK-1", |one| one["online"] == true).await;
    assert_eq!(shown["online_evidence"]["kind"], "heard");

    let osd = |gateway: &str, firmware: &str| {
        json!({
            "tid": "t", "bid": "b", "timestamp": 1, "gateway": gateway,
            "data": {"firmware_version": firmware, "mode_code": 0},
        })
    };
    dock.publish("thing/product/DOCK-1/osd", &osd("DOCK-2", "forged")).await;
    dock.publish("thing/product/AIR-1/osd", &osd("DOCK-2", "forged")).await;
    dock.publish("thing/product/DOCK-2/osd", &osd("DOCK-1", "forged")).await;
    dock.publish("thing/product/AIR-1/osd", &osd("DOCK-1", "true")).await;
    dock.publish("thing/product/DOCK-1/osd", &osd("DOCK-1", "true")).await;
    dock.drain().await;
    for sn in ["DOCK-1", "AIR-1"] {
        until(api, sn, |one| one["firmware_version"] == "true").await;
    }
    assert_eq!(api.figure("uplink_forged_total").await, 3);
    let second = until(api, "DOCK-2", |_| true).await;
    assert_eq!(second["online_evidence"]["kind"], "never", "{second:#}");
    let kept = tokio::time::timeout(PATIENCE, async {
        loop {
            let kept = api.get("/api/v1/open/unmatched-responses").await.body["items"].clone();
            if kept.as_array().is_some_and(|items| items.len() == 3) {
                return kept;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    });
    let kept = kept.await.expect("they are not kept");
    assert!(kept[0]["reason"].as_str().unwrap().contains("names a gateway"), "{kept:#}");

    // What is nobody's no tenant may see; whoever runs the server does.
    let body = json!({"gateway": "STRANGER", "data": {"mode_code": 0, "password": "hush"}});
    dock.publish("thing/product/STRANGER/osd", &body).await;
    let shown = tokio::time::timeout(PATIENCE, async {
        loop {
            let shown = run(&place, &["device", "strangers", "--json"]);
            if shown.contains("STRANGER") {
                return shown;
            }
            // The server runs here as well.
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    });
    let shown = shown.await.expect("it is not kept");
    let shown: Value = serde_json::from_str(&shown).unwrap();
    assert_eq!(shown[0]["topic"], "thing/product/STRANGER/osd");
    assert_eq!(shown[0]["reason"], "nobody has registered the device STRANGER");
    assert!(!shown.to_string().contains("hush"), "{shown:#}");
    assert!(run(&place, &["device", "strangers"]).contains("nobody has registered"));
    let of_tenant = api.get("/api/v1/open/unmatched-responses").await.body.to_string();
    assert!(!of_tenant.contains("STRANGER"), "{of_tenant}");

    dock.leave().await;
    let silent = until(api, "DOCK-1", |one| one["online"] == false).await;
    assert_eq!(silent["online_evidence"]["kind"], "silent");
    tokio::time::timeout(PATIENCE, async {
        while api.figure("devices_online").await > 0 {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    })
    .await
    .expect("they never go");
    let figures = (api.figure("devices_came_total").await, api.figure("devices_went_total").await);
    assert_eq!(figures, (2, 2), "the dock and its aircraft, once each");
    server.stop().await;
}

/// A server with two docks behind Mosquitto, and a connection that may publish anything there: no access rules.
pub async fn outside(more: &[&str]) -> (Mosquitto, Place, crate::place::Running) {
    let mosquitto = Mosquitto::start().await;
    let mut place = Place::with_gateways(&["DOCK-1", "DOCK-2"]).await;
    behind(&mut place, &mosquitto, "5");
    place.settings.extend(more.iter().map(|one| (*one).to_owned()));
    let server = place.start().await;
    (mosquitto, place, server)
}

/// Publishes until the server, whose link may not be up yet, knows it.
pub async fn is_heard(api: &Api, dock: &mut PretendDock, sn: &str) {
    let body =
        json!({"tid": "t", "bid": "b", "timestamp": 1, "gateway": sn, "data": {"mode_code": 0}});
    let heard = async {
        while api.get(&format!("/api/v1/open/devices/{sn}")).await.body["online"] != true {
            dock.publish(&format!("thing/product/{sn}/osd"), &body).await;
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(PATIENCE, heard).await.unwrap_or_else(|_| panic!("{sn} is never heard"));
}

#[tokio::test]
async fn requests_topologies_and_replies_of_another_gateway_have_no_effect_behind_an_outside_broker()
 {
    let (mosquitto, _place, server) = outside(&[]).await;
    let api = &server.api;
    let broker = mosquitto.address();
    let mut first = PretendDock::connect(broker, "DOCK-1").await;
    let mut second = PretendDock::connect(broker, "DOCK-2").await;
    is_heard(api, &mut first, "DOCK-1").await;
    is_heard(api, &mut second, "DOCK-2").await;
    let id = api.create("DOCK-1", "debug_mode_open", json!({}), json!({})).await.id();
    let command = first.command().await;
    assert_eq!(command.tid(), id);
    let body = |gateway: &str, tid: &str, method: &str, data: Value| json!({"tid": tid, "bid": "b", "timestamp": 1, "gateway": gateway, "method": method, "data": data});
    let aircraft = json!({
        "domain": "3", "type": 3, "sub_type": 0,
        "sub_devices": [{"sn": "AIR-9", "domain": "0", "type": 91, "sub_type": 0, "index": "A"}],
    });
    let no = json!({"result": 314000});
    for (topic, message) in [
        ("thing/product/DOCK-1/requests", body("DOCK-2", "r-1", "config", json!({}))),
        ("sys/product/DOCK-1/status", body("DOCK-2", "t-1", "update_topo", aircraft)),
        ("thing/product/DOCK-1/services_reply", body("DOCK-2", &id, "debug_mode_open", no.clone())),
        ("thing/product/DOCK-1/property/set_reply", body("DOCK-2", &id, "", no.clone())),
        ("thing/product/DOCK-1/drc/up", body("DOCK-2", "", "drone_emergency_stop", no.clone())),
        // Its own topic, another's command; and of a gateway it says that it stands behind it.
        ("thing/product/DOCK-2/services_reply", body("DOCK-2", &id, "debug_mode_open", no)),
        (
            "sys/product/DOCK-2/status",
            body("DOCK-2", "t-2", "update_topo", json!({"sub_devices": [{"sn": "DOCK-1"}]})),
        ),
    ] {
        second.publish(topic, &message).await;
    }
    // Once the last is answered, all of them have been heard.
    second.drain().await;
    assert_eq!(api.figure("uplink_forged_total").await, 7);
    assert_eq!(api.get("/api/v1/open/devices/AIR-9").await.status, StatusCode::NOT_FOUND);
    assert_eq!(api.get("/api/v1/open/devices/DOCK-2").await.body["sub_devices"], json!([]));
    let asked = api.get("/api/v1/open/device-requests").await.body;
    let items = asked["items"].as_array().unwrap();
    assert!(items.iter().all(|one| one["device_id"] == "DOCK-2"), "{asked:#}");
    let kept = tokio::time::timeout(PATIENCE, async {
        loop {
            let kept = api.get("/api/v1/open/unmatched-responses").await.body["items"].clone();
            if kept.as_array().is_some_and(|items| items.len() == 7) {
                return kept;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    });
    let kept = kept.await.expect("they are not kept").to_string();
    for reason in
        ["stand behind", "went to another gateway", "another tenant's, or a gateway itself"]
    {
        assert!(kept.contains(reason), "{kept}");
    }
    // The command knows nothing of them, and ends by its own gateway's word.
    first.reply(&command, json!({"result": 0})).await;
    assert_eq!(api.ended(&id).await["status"], "SUCCEEDED");
    server.stop().await;
}
