//! Devices that an administrator changes while they are connected.

use reqwest::StatusCode;
use serde_json::json;
use utmos_core::{device::Device, id::DeviceSn, ports::RegistryStore};
use utmos_server::directory::mqtt_secret_hash;

use crate::app::{PATIENCE, TestApp};

/// The device as it is kept, once it is.
async fn kept(app: &TestApp, sn: &str) -> Device {
    let looking = async {
        loop {
            let all = app.store.devices().await.unwrap();
            if let Some(found) = all.into_iter().find(|device| device.sn.as_str() == sn) {
                return found;
            }
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE, looking).await.expect("no such device")
}

#[tokio::test]
async fn a_new_password_another_tenant_or_removal_ends_the_sessions_of_a_device() {
    let app = TestApp::start().await;
    let elsewhere = app.other_tenant("second", "DOCK-9").await.given.tenant;
    let mut neighbour = app.dock("DOCK-2").await;
    for change in ["password", "tenant", "removal"] {
        let sn = DeviceSn::parse(&format!("DOCK-{change}")).unwrap();
        crate::app::put_gateway(&*app.store, app.api.given.tenant, sn.as_str()).await;
        // Whatever comes after it in the store is known no earlier than it is.
        app.credential(|_| {}).await;
        let mut dock = app.dock(sn.as_str()).await;
        let device = kept(&app, sn.as_str()).await;
        match change {
            "password" => {
                let hash = mqtt_secret_hash(&sn, b"another password");
                let device = Device { mqtt_secret_hash: Some(hash), ..device };
                app.store.put_device(device).await.unwrap();
            }
            "tenant" => {
                app.store.put_device(Device { tenant: elsewhere, ..device }).await.unwrap();
            }
            _ => assert!(app.store.remove_device(&sn).await.unwrap()),
        }
        dock.cut().await;
        let answer = app
            .api
            .create(sn.as_str(), "debug_mode_open", json!({}), json!({"if_offline": "fail"}))
            .await;
        if change == "password" {
            let ended = app.api.ended(&answer.id()).await;
            assert_eq!(ended["failure_code"], "DEVICE_OFFLINE", "{ended:#}");
        } else {
            assert_eq!(answer.status, StatusCode::NOT_FOUND, "{change}: {answer:?}");
        }
        dock.leave().await;
    }
    // What concerns nobody's login ends nobody's session.
    let labelled = Device { label: "Roof".to_owned(), ..kept(&app, "DOCK-2").await };
    app.store.put_device(labelled).await.unwrap();
    app.credential(|_| {}).await;
    let id = app.api.create("DOCK-2", "debug_mode_open", json!({}), json!({})).await.id();
    assert_eq!(neighbour.command().await.tid(), id);
    assert!(neighbour.drain().await.is_empty());
    assert!(!neighbour.was_cut);
}

#[tokio::test]
async fn an_aircraft_that_a_stranger_named_first_is_moved_to_its_owner() {
    let app = TestApp::start().await;
    let theirs = app.other_tenant("second", "DOCK-9").await;
    let mut stranger = app.dock("DOCK-9").await;
    stranger.report_aircraft("AIR-1").await;
    let mut dock = app.dock("DOCK-1").await;
    dock.report_aircraft("AIR-1").await;
    let send = async |api: &crate::app::Api| {
        api.create("AIR-1", "return_home", json!({}), json!({})).await
    };
    assert_eq!(send(&app.api).await.status, StatusCode::NOT_FOUND);

    let squatted = kept(&app, "AIR-1").await;
    assert_eq!(squatted.tenant, theirs.given.tenant);
    let moved = Device { tenant: app.api.given.tenant, ..squatted };
    app.store.put_device(moved).await.unwrap();
    // Known once this is: it came after.
    app.credential(|_| {}).await;
    let id = send(&app.api).await.id();
    assert_eq!(dock.command().await.tid(), id);
    assert_eq!(send(&theirs).await.status, StatusCode::NOT_FOUND);
    assert!(stranger.drain().await.is_empty());
}
