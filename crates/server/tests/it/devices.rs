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
async fn a_new_password_or_another_tenant_ends_the_sessions_of_a_device() {
    let app = TestApp::start().await;
    let elsewhere = app.other_tenant("second", "DOCK-9").await.given.tenant;
    let mut neighbour = app.dock("DOCK-2").await;
    for change in ["password", "tenant"] {
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
            _ => {
                app.store.put_device(Device { tenant: elsewhere, ..device }).await.unwrap();
            }
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
