//! Behind an outside broker only messages tell who speaks: what names a gateway that its device does not stand behind has
//! no effect, and is kept to be looked at.

use std::time::Duration;

use reqwest::StatusCode;
use serde_json::{Value, json};

use crate::{
    api::{Api, PATIENCE},
    dock::PretendDock,
    mosquitto::Mosquitto,
    place::Place,
};

async fn until(api: &Api, sn: &str, holds: impl Fn(&Value) -> bool) -> Value {
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
