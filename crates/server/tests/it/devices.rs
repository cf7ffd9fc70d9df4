//! Devices that an administrator changes while they are connected.

use std::sync::{Arc, Mutex};

use reqwest::StatusCode;
use serde_json::json;
use utmos_core::{
    device::{Device, SubDevice},
    id::DeviceSn,
    ports::{DeviceEdit, DeviceOrder, Ordered, RegistryStore},
    time::Timestamp,
};
use utmos_server::directory::{Directory, mqtt_secret_hash};

use crate::{
    app::{PATIENCE, TestApp, order},
    onboarding::{bind, code, newcomer, outcomes},
};

/// Changes a device past the server.
async fn done(app: &TestApp, change: DeviceOrder) {
    assert!(matches!(order(&*app.store, change).await, Ordered::Done(_)));
}

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
        let tenant = app.api.given.tenant;
        match change {
            "password" => {
                let hash = mqtt_secret_hash(&sn, b"another password");
                let edit = DeviceEdit { mqtt_secret_hash: Some(hash), ..DeviceEdit::default() };
                done(&app, DeviceOrder::Edit { sn: sn.clone(), tenant, edit }).await;
            }
            "tenant" => {
                let order = DeviceOrder::Move { sn: sn.clone(), from: tenant, to: elsewhere };
                done(&app, order).await;
            }
            _ => done(&app, DeviceOrder::Remove { sn: sn.clone(), tenant }).await,
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
    let edit = DeviceEdit { label: Some("Roof".to_owned()), ..DeviceEdit::default() };
    let (sn, tenant) = (DeviceSn::parse("DOCK-2").unwrap(), app.api.given.tenant);
    done(&app, DeviceOrder::Edit { sn, tenant, edit }).await;
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
    let (from, to) = (squatted.tenant, app.api.given.tenant);
    done(&app, DeviceOrder::Move { sn: squatted.sn, from, to }).await;
    // Known once this is: it came after.
    app.credential(|_| {}).await;
    let id = send(&app.api).await.id();
    assert_eq!(dock.command().await.tid(), id);
    assert_eq!(send(&theirs).await.status, StatusCode::NOT_FOUND);
    assert!(stranger.drain().await.is_empty());
}

#[tokio::test]
async fn an_aircraft_that_is_not_on_record_yet_is_not_forgotten_when_the_registry_changes() {
    let app = TestApp::start().await;
    let tenant = app.api.given.tenant;
    let directory = Directory::load(app.store.clone()).await.unwrap();
    let told = Arc::new(Mutex::new(Vec::new()));
    let listening = told.clone();
    directory.tell(move |changes| {
        listening.lock().unwrap().extend(changes.iter().map(ToString::to_string));
    });
    let sn = |text: &str| DeviceSn::parse(text).unwrap();
    let (dock, aircraft) = (sn("DOCK-1").to_gateway(), sn("AIR-1"));
    let sub = SubDevice { sn: aircraft.clone(), model_key: None, index: None };
    let is_known = || directory.device(&aircraft).is_some();
    directory.report_topology(&dock, std::slice::from_ref(&sub), Timestamp::from_millis(1));
    // The registry changes before the report is on record, and again after.
    crate::app::put_gateway(&*app.store, tenant, "DOCK-3").await;
    directory.refresh().await.unwrap();
    assert!(is_known());
    directory.keep_topology(&dock).await.unwrap();
    directory.refresh().await.unwrap();
    assert!(is_known());
    assert_eq!(*told.lock().unwrap(), ["device DOCK-3 was added"], "nothing went and came back");
    // From then on the store's word counts; what could not be kept goes with the next change, and joins anew.
    done(&app, DeviceOrder::Remove { sn: aircraft.clone(), tenant }).await;
    directory.refresh().await.unwrap();
    assert!(!is_known());
    let report = directory.report_topology(&dock, &[sub], Timestamp::from_millis(2));
    let names: Vec<DeviceSn> = report.new.into_iter().map(|device| device.sn).collect();
    directory.settle(&names);
    crate::app::put_gateway(&*app.store, tenant, "DOCK-4").await;
    directory.refresh().await.unwrap();
    assert!(!is_known());
}

#[tokio::test]
async fn a_topology_that_could_not_be_stored_is_stored_later_and_its_aircraft_is_known_meanwhile() {
    let app = TestApp::start().await;
    let dock = app.dock("DOCK-1").await;
    app.unwell.refuse(true);
    let refused = app.unwell.refused();
    let body = json!({
        "tid": "t-1", "bid": "b", "timestamp": 1, "method": "update_topo", "gateway": "DOCK-1",
        "data": {
            "domain": 3, "type": 2, "sub_type": 0,
            "sub_devices": [{"sn": "AIR-1", "domain": 0, "type": 91, "sub_type": 0, "index": "A"}],
        },
    });
    dock.publish("sys/product/DOCK-1/status", &body).await;
    let known = async || app.api.get("/api/v1/open/devices/AIR-1").await.status;
    let tried_again = async {
        while app.unwell.refused() < refused + 2 {
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(PATIENCE, tried_again).await.expect("it is tried again and again");
    // The registry changes, and what is not on record yet stays.
    app.other_tenant("second", "DOCK-9").await;
    assert_eq!(known().await, StatusCode::OK);
    // An equal report is no news, and needs not be: it is stored by itself. So is what stands there no more by then.
    dock.publish("sys/product/DOCK-1/status", &body).await;
    let mut other = body.clone();
    other["data"]["sub_devices"][0]["sn"] = json!("AIR-2");
    dock.publish("sys/product/DOCK-1/status", &other).await;
    let changed = async {
        while app.api.get("/api/v1/open/devices/AIR-2").await.status != StatusCode::OK {
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(PATIENCE, changed).await.expect("the other aircraft is known");
    app.unwell.refuse(false);
    kept(&app, "AIR-2").await;
    kept(&app, "AIR-1").await;
    let stored = async {
        while app.store.topologies().await.unwrap().is_empty() {
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(PATIENCE, stored).await.expect("what stands behind the dock is stored");
    app.other_tenant("third", "DOCK-10").await;
    assert_eq!(known().await, StatusCode::OK);
}

#[tokio::test]
async fn what_was_bound_with_a_code_counts_among_those_that_may_join_over_a_restart_as_well() {
    let app = TestApp::start().await;
    let (code, _) = code(&app.api, json!({})).await;
    let mut dock = newcomer(&app, "NEW-DOCK", &code).await;
    let names: Vec<String> = (1..=7).map(|number| format!("AIR-{number}")).collect();
    let aircraft = names.iter().map(|sn| (sn.as_str(), "0-91-0", ""));
    let devices: Vec<_> = std::iter::once(("NEW-DOCK", "3-2-0", "x")).chain(aircraft).collect();
    let bound = dock.ask("airport_organization_bind", bind(&code, &devices)).await;
    assert!(outcomes(&bound).iter().all(|(_, code)| *code == 0), "{bound}");
    // Nor does one request bind more than may join.
    let (own, _) = self::code(&app.api, json!({})).await;
    let mut other = newcomer(&app, "NEW-2", &own).await;
    let others: Vec<String> = (0..12).map(|number| format!("B-{number}")).collect();
    let aircraft = others.iter().map(|sn| (sn.as_str(), "0-91-0", ""));
    let asked: Vec<_> = std::iter::once(("NEW-2", "3-2-0", "x")).chain(aircraft).collect();
    let bound = other.ask("airport_organization_bind", bind(&own, &asked)).await;
    let refused: Vec<_> = outcomes(&bound).into_iter().filter(|(_, code)| *code != 0).collect();
    assert_eq!(refused.len(), 4, "{bound}");
    assert!(refused.iter().all(|(_, code)| *code == 210_231), "{bound}");
    other.leave().await;
    // What stands behind it now says nothing of those that stood there before.
    dock.report_aircraft("AIR-1").await;
    let told = async {
        let gateway = DeviceSn::parse("NEW-DOCK").unwrap().to_gateway();
        loop {
            let all = app.store.topologies().await.unwrap();
            let subs = all.into_iter().find(|(of, _)| *of == gateway).map(|(_, subs)| subs);
            if subs.is_some_and(|subs| subs.len() == 1) {
                return;
            }
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE, told).await.expect("its topology is not kept");
    dock.leave().await;
    let app = app.restart().await;
    let mut dock = newcomer(&app, "NEW-DOCK", &code).await;
    for (number, joins) in [(8, true), (9, false), (1, true)] {
        let sn = format!("AIR-{number}");
        dock.report_aircraft(&sn).await;
        dock.drain().await;
        let known = app.api.get(&format!("/api/v1/open/devices/{sn}")).await.status;
        assert_eq!(known == StatusCode::OK, joins, "{sn}");
    }
    dock.leave().await;
}

#[tokio::test]
async fn no_more_aircraft_join_by_a_gateway_than_may_over_a_restart_either() {
    let app = TestApp::start().await;
    let mut dock = app.dock("DOCK-1").await;
    for number in 1..=7 {
        dock.report_aircraft(&format!("AIR-{number}")).await;
        kept(&app, &format!("AIR-{number}")).await;
    }
    dock.leave().await;
    let app = app.restart().await;
    let mut dock = app.dock("DOCK-1").await;
    for (number, joins) in [(8, true), (9, false), (1, true)] {
        let sn = format!("AIR-{number}");
        dock.report_aircraft(&sn).await;
        dock.drain().await;
        let known = app.api.get(&format!("/api/v1/open/devices/{sn}")).await.status;
        assert_eq!(known == StatusCode::OK, joins, "{sn}");
    }
    dock.leave().await;
}
