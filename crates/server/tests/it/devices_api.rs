//! Devices over the API: what is shown, who may register what, and what is refused.

use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use utmos_core::{
    id::DeviceSn,
    ports::{FleetStore, Recorded},
};

use crate::{
    app::{Answer, Api, PATIENCE, TestApp},
    dock::{PretendDock, lets_in},
    routes::assert_refused,
};

pub const DEVICES: &str = "/api/v1/open/devices";

async fn patch(api: &Api, sn: &str, body: Value) -> Answer {
    let target = format!("{DEVICES}/{sn}");
    api.request(Method::PATCH, &target, Some(body.to_string().as_bytes())).await
}

/// The device, once `holds` is true of it.
pub async fn shown(api: &Api, sn: &str, holds: impl Fn(&Value) -> bool) -> Value {
    let asking = async {
        loop {
            let answer = api.get(&format!("{DEVICES}/{sn}")).await;
            if answer.status == StatusCode::OK && holds(&answer.body) {
                return answer.body;
            }
            tokio::task::yield_now().await;
        }
    };
    match tokio::time::timeout(PATIENCE, asking).await {
        Ok(device) => device,
        Err(_) => panic!("it never came to that: {:?}", api.get(&format!("{DEVICES}/{sn}")).await),
    }
}

fn ids(page: &Value) -> Vec<&str> {
    page["items"].as_array().unwrap().iter().map(|one| one["device_id"].as_str().unwrap()).collect()
}

#[tokio::test]
async fn a_device_that_is_registered_connects_with_its_password_and_is_shown_as_it_is() {
    let app = TestApp::start().await;
    let body =
        json!({"device_id": "7CTDM-1", "kind": "dock", "label": "Roof", "tags": ["north", "a b"]});
    let made = app.api.post(DEVICES, &body).await;
    assert_eq!(made.status, StatusCode::CREATED, "{made:?}");
    assert_eq!(made.body["mqtt"]["username"], "7CTDM-1");
    assert_eq!(made.body["device"]["online_evidence"], json!({"kind": "never", "at": null}));
    let password = made.body["mqtt"]["password"].as_str().unwrap().to_owned();

    let again = app.api.post(DEVICES, &body).await;
    assert_eq!(
        (again.status, &again.headers["idempotency-replayed"]),
        (StatusCode::OK, &"true".parse().unwrap())
    );
    assert_eq!(again.body["mqtt"], Value::Null, "a password is shown once");
    let mut other = body.clone();
    other["kind"] = json!("remote_controller");
    assert_refused(&app.api.post(DEVICES, &other).await, 409, "DEVICE_CONFLICT");

    let filters = ["thing/product/{sn}/#", "sys/product/{sn}/#"];
    let mut dock = PretendDock::connect_with(app.mqtt, "7CTDM-1", &password, &filters).await;
    dock.report_aircraft("AIR-1").await;
    dock.osd("7CTDM-1", json!({"firmware_version": "10.01.1609", "drone_charge_state": {}})).await;
    let device = shown(&app.api, "7CTDM-1", |one| one["firmware_version"] == "10.01.1609").await;
    assert_eq!(device["product_name"], "DJI Dock 2");
    assert_eq!(
        (&device["online"], &device["online_evidence"]["kind"]),
        (&json!(true), &json!("connected"))
    );
    assert_eq!(device["tags"], json!(["a b", "north"]));
    assert_eq!(
        device["sub_devices"],
        json!([{"device_id": "AIR-1", "product_name": "DJI Matrice 3D", "model_key": "0-91-0", "index": "A", "present": true}])
    );
    assert!(device["first_seen_at"].is_string() && device["last_seen_at"].is_string());
    let aircraft = shown(&app.api, "AIR-1", |one| one["online"] == true).await;
    assert_eq!(aircraft["kind"], "aircraft");
    assert_eq!(aircraft["gateway_ids"], json!(["7CTDM-1"]));
    assert_eq!(aircraft["online_evidence"]["kind"], "listed_by_gateway");
    dock.report_nobody().await;
    let aircraft = shown(&app.api, "AIR-1", |one| one["online"] == false).await;
    assert_eq!(aircraft["online_evidence"]["kind"], "left_gateway", "the dock is still there");
    assert_eq!(
        shown(&app.api, "7CTDM-1", |one| one["online"] == true).await["sub_devices"][0]["present"],
        false
    );

    // A new password ends the connection of before.
    let new = app.api.post(&format!("{DEVICES}/7CTDM-1/mqtt-password"), &json!({})).await;
    assert_eq!(new.status, StatusCode::OK, "{new:?}");
    dock.cut().await;
    dock.leave().await;
    assert!(!lets_in(app.mqtt, "7CTDM-1", "7CTDM-1", &password).await);
    assert!(
        lets_in(app.mqtt, "7CTDM-1", "7CTDM-1", new.body["mqtt"]["password"].as_str().unwrap())
            .await
    );
    let gone = shown(&app.api, "7CTDM-1", |one| one["online"] == false).await;
    assert_eq!(gone["online_evidence"]["kind"], "disconnected");
    let refused = app.api.post(&format!("{DEVICES}/AIR-1/mqtt-password"), &json!({})).await;
    assert_refused(&refused, 400, "VALIDATION_FAILED");

    let record = app.store.device_record(&DeviceSn::parse("7CTDM-1").unwrap()).await.unwrap();
    let lines: Vec<(Recorded, &str)> =
        record.iter().map(|line| (line.what, line.by.who.as_str())).collect();
    let who = app.api.given.api_id.as_str();
    assert_eq!(lines, [(Recorded::Password, who), (Recorded::Registered, who)]);
}

#[tokio::test]
async fn label_and_tags_change_and_devices_are_found_by_them() {
    let app = TestApp::start().await;
    for (sn, kind) in [("AIR-1", "aircraft"), ("RC-1", "remote_controller")] {
        let made = app.api.post(DEVICES, &json!({"device_id": sn, "kind": kind})).await;
        assert_eq!(made.status, StatusCode::CREATED, "{made:?}");
    }
    let changed =
        patch(&app.api, "DOCK-2", json!({"label": "Süd Roof", "tags": ["south", "test"]})).await;
    assert_eq!(
        (changed.status, &changed.body["label"]),
        (StatusCode::OK, &json!("Süd Roof")),
        "{changed:?}"
    );
    assert_eq!(patch(&app.api, "DOCK-2", json!({})).await.body["tags"], json!(["south", "test"]));
    assert_eq!(patch(&app.api, "AIR-1", json!({"tags": ["test"]})).await.status, StatusCode::OK);
    let dock = app.dock("DOCK-1").await;
    shown(&app.api, "DOCK-1", |one| one["online"] == true).await;
    for (query, expected) in [
        ("", &["AIR-1", "DOCK-1", "DOCK-2", "RC-1"][..]),
        ("?kind=dock", &["DOCK-1", "DOCK-2"]),
        ("?tag=test", &["AIR-1", "DOCK-2"]),
        ("?tag=test&kind=dock", &["DOCK-2"]),
        ("?label=s%C3%BCd", &["DOCK-2"]),
        ("?tag=tes", &[]),
        ("?online=true", &["DOCK-1"]),
        ("?online=false&kind=dock", &["DOCK-2"]),
    ] {
        let page = app.api.get(&format!("{DEVICES}{query}")).await;
        assert_eq!(ids(&page.body), expected, "{query}");
        assert_eq!(page.body["next_cursor"], Value::Null);
    }
    let mut all = Vec::new();
    let mut target = format!("{DEVICES}?limit=3");
    loop {
        let page = app.api.get(&target).await.body;
        all.extend(ids(&page).into_iter().map(str::to_owned));
        let Some(cursor) = page["next_cursor"].as_str() else { break };
        target = format!("{DEVICES}?limit=3&cursor={cursor}");
    }
    assert_eq!(all, ["AIR-1", "DOCK-1", "DOCK-2", "RC-1"]);
    dock.leave().await;
}

#[tokio::test]
async fn a_credential_of_some_devices_sees_and_registers_no_others() {
    let app = TestApp::start().await;
    let limited = app
        .credential(|one| {
            one.devices =
                Some(BTreeSet::from(["DOCK-1", "NEW-1"].map(|sn| DeviceSn::parse(sn).unwrap())));
        })
        .await;
    assert_eq!(ids(&limited.get(DEVICES).await.body), ["DOCK-1"]);
    assert_refused(&limited.get(&format!("{DEVICES}/DOCK-2")).await, 404, "DEVICE_NOT_FOUND");
    assert_refused(
        &patch(&limited, "DOCK-2", json!({"label": "x"})).await,
        404,
        "DEVICE_NOT_FOUND",
    );
    let register =
        async |sn: &str| limited.post(DEVICES, &json!({"device_id": sn, "kind": "dock"})).await;
    assert_refused(&register("NEW-2").await, 403, "PERMISSION_DENIED");
    assert_eq!(register("NEW-1").await.status, StatusCode::CREATED);
    let codes = "/api/v1/open/device-binding-codes";
    assert_refused(&limited.post(codes, &json!({})).await, 403, "PERMISSION_DENIED");
    assert_refused(&limited.get(codes).await, 403, "PERMISSION_DENIED");
}

#[tokio::test]
async fn what_does_not_fit_is_named_at_once_and_changes_nothing() {
    let app = TestApp::start().await;
    let long: Vec<String> = (0..33).map(|n| n.to_string()).collect();
    for (body, fields) in [
        (json!({}), &["/device_id", "/kind"][..]),
        (
            json!({"device_id": "a/b", "kind": "car", "colour": 1}),
            &["/colour", "/device_id", "/kind"],
        ),
        (json!({"device_id": "A", "kind": "dock", "model_key": "0-91-0"}), &["/kind"]),
        (json!({"device_id": "A", "model_key": "1-2-3"}), &["/kind"]),
        (
            json!({"device_id": "A", "kind": "dock", "tags": [1, "", "ok"], "label": "\u{7}"}),
            &["/label", "/tags/0", "/tags/1"],
        ),
        (
            json!({"device_id": "A", "kind": "dock", "tags": long, "simulated": "yes"}),
            &["/tags", "/simulated"],
        ),
    ] {
        let answer = app.api.post(DEVICES, &body).await;
        assert_refused(&answer, 400, "VALIDATION_FAILED");
        let named: Vec<&str> = answer.body["details"]
            .as_array()
            .unwrap()
            .iter()
            .map(|detail| detail["field"].as_str().unwrap())
            .collect();
        assert_eq!(named, fields, "{body}");
    }
    for body in [&b""[..], b"[]", b"{", b"\xff"] {
        let answer = app.api.request(Method::POST, DEVICES, Some(body)).await;
        assert_refused(&answer, 400, "INVALID_REQUEST_BODY");
    }
    assert_refused(
        &app.api.get(&format!("{DEVICES}?kind=car&x=1")).await,
        400,
        "VALIDATION_FAILED",
    );
    assert_refused(&app.api.get(&format!("{DEVICES}/DOCK-1?x=1")).await, 400, "VALIDATION_FAILED");
    for sn in ["NOBODY", "%FF", "a%2Fb"] {
        assert_refused(&app.api.get(&format!("{DEVICES}/{sn}")).await, 404, "DEVICE_NOT_FOUND");
    }
    assert_eq!(ids(&app.api.get(DEVICES).await.body), ["DOCK-1", "DOCK-2"]);
}

#[tokio::test]
async fn a_serial_number_of_another_tenant_is_refused_without_a_word_about_whose_it_is() {
    let app = TestApp::start().await;
    let other = app.other_tenant("second", "DOCK-9").await;
    let answer = other.post(DEVICES, &json!({"device_id": "DOCK-1", "kind": "dock"})).await;
    assert_refused(&answer, 409, "DEVICE_CONFLICT");
    let text = answer.body.to_string();
    assert!(!text.contains("first") && !text.contains(&app.api.given.tenant.to_string()), "{text}");
}
