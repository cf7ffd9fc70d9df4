//! Simulated docks that nobody has registered join by themselves, through the flow of real ones, or are refused as real
//! ones would be.

use reqwest::StatusCode;
use serde_json::{Value, json};
use tokio::sync::mpsc;
use utmos_core::device::DeviceKind;
use utmos_mqtt::ProtocolChoice;
use utmos_sim::{Binding, Happening, Model};

use crate::{
    api::{Api, PATIENCE},
    place::{PASSWORD, Place, fleet_of, fly, start_docks},
    truth,
};

const DEVICES: &str = "/api/v1/open/devices";

async fn code(api: &Api, uses_max: u32) -> String {
    let made =
        api.post("/api/v1/open/device-binding-codes", &json!({ "uses_max": uses_max })).await;
    assert_eq!(made.status, StatusCode::CREATED, "{made:?}");
    made.body["code"].as_str().unwrap().to_owned()
}

/// The device, once `holds` is true of it.
async fn device(api: &Api, sn: &str, holds: impl Fn(&Value) -> bool) -> Value {
    let asking = async {
        loop {
            let answer = api.get(&format!("{DEVICES}/{sn}")).await;
            if answer.status == StatusCode::OK && holds(&answer.body) {
                return answer.body;
            }
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
    };
    let found = tokio::time::timeout(PATIENCE, asking).await;
    found.unwrap_or_else(|_| panic!("{sn} never comes to that"))
}

/// What a dock says happened, once it says this.
async fn until_told(happenings: &mut mpsc::Receiver<Happening>, words: &str) {
    let waiting = async {
        while let Some(happening) = happenings.recv().await {
            if happening.to_string().contains(words) {
                return;
            }
        }
        panic!("nothing more happens");
    };
    tokio::time::timeout(PATIENCE, waiting).await.unwrap_or_else(|_| panic!("never: {words}"));
}

#[tokio::test(flavor = "multi_thread")]
async fn factory_new_docks_join_with_a_code_are_commanded_and_come_back() {
    let place = Place::new().await;
    let server = place.start().await;
    let code = code(&server.api, 2).await;
    for protocol in [ProtocolChoice::V5, ProtocolChoice::V311] {
        let number = if protocol == ProtocolChoice::V5 { 0 } else { 1 };
        let mut config = fleet_of(&[Model::Dock3, Model::Dock2]);
        config.docks = vec![config.docks.swap_remove(number)];
        // Typed in small letters and without dashes, which is as good.
        config.docks[0].be_factory_new("utmos", &code.to_lowercase().replace('-', ""));
        let dock = config.docks[0].clone();
        let fleet = fly(&config, server.mqtt(), protocol).await;
        let shown = device(&server.api, &dock.sn, |one| one["online"] == true).await;
        let names = ["DJI Dock 3", "DJI Dock 2"];
        assert_eq!(shown["product_name"], names[number], "{shown:#}");
        assert_eq!(shown["simulated"], true, "it says so itself: {shown:#}");
        let told = |one: &Value| one["online"] == true && one["firmware_version"].is_string();
        let aircraft = device(&server.api, &dock.aircraft_sn, told).await;
        assert_eq!(aircraft["simulated"], true, "{aircraft:#}");
        device(&server.api, &dock.sn, |one| one["firmware_version"].is_string()).await;
        let created = server.api.create(&dock.sn, "debug_mode_open", json!({}), json!({})).await;
        let ended = server.api.ended(&created.id()).await;
        assert_eq!(ended["status"], "SUCCEEDED", "{ended:#}");
        truth::must_be_true(&ended, &fleet);
        fleet.shutdown().await;
        // With the same words it comes back, though the code lets nobody else in; it is bound, and asks no more.
        let fleet = fly(&config, server.mqtt(), protocol).await;
        let created = server
            .api
            .create(
                &dock.aircraft_sn,
                "flight_authority_grab",
                json!({}),
                json!({"if_offline": "wait"}),
            )
            .await;
        let ended = server.api.ended(&created.id()).await;
        assert_eq!(ended["status"], "SUCCEEDED", "{ended:#}");
        fleet.shutdown().await;
    }
    assert_eq!(server.api.figure("devices_bound_total").await, 2);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dock_with_a_wrong_code_does_not_join() {
    let place = Place::new().await;
    let server = place.start().await;
    let code = code(&server.api, 1).await;
    let (sender, mut happenings) = mpsc::channel(1_000);
    let mut config = fleet_of(&[Model::Dock2]);
    config.on_event = Some(sender);
    // The password is right, the binding code is not.
    config.docks[0].be_factory_new("utmos", &code);
    let wrong = "AAAAA-AAAAA-AAAAA-AAAAA".to_owned();
    config.docks[0].binding =
        Some(Binding { organization_id: "utmos".to_owned(), code: wrong.clone() });
    let fleet = start_docks(&config, server.mqtt(), ProtocolChoice::Auto);
    until_told(&mut happenings, "the binding was refused: 210229").await;
    fleet.shutdown().await;
    // Neither is the password.
    config.docks[0].be_factory_new("utmos", &wrong);
    let fleet = start_docks(&config, server.mqtt(), ProtocolChoice::Auto);
    until_told(&mut happenings, "not connected").await;
    fleet.shutdown().await;
    let found = server.api.get(&format!("{DEVICES}/{}", config.docks[0].sn)).await;
    assert_eq!(found.code(), "DEVICE_NOT_FOUND", "{found:?}");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_another_tenants_is_not_bound() {
    let place = Place::new().await;
    let other = place.other_tenant().await;
    let (sender, mut happenings) = mpsc::channel(1_000);
    let mut config = fleet_of(&[Model::Dock2]);
    config.on_event = Some(sender);
    let dock = config.docks[0].clone();
    // Another dock has the aircraft, as another tenant's.
    let aircraft = [dock.aircraft_sn.as_str()];
    place.put_gateway(other.tenant, "THEIR-DOCK", DeviceKind::Dock, PASSWORD, &aircraft).await;
    let server = place.start().await;
    let code = code(&server.api, 1).await;
    config.docks[0].be_factory_new("utmos", &code);
    let fleet = start_docks(&config, server.mqtt(), ProtocolChoice::Auto);
    until_told(&mut happenings, "the binding was refused: 210231").await;
    device(&server.api, &dock.sn, |one| one["online"] == true).await;
    let found = server.api.get(&format!("{DEVICES}/{}", dock.aircraft_sn)).await;
    assert_eq!(found.code(), "DEVICE_NOT_FOUND", "{found:?}");
    fleet.shutdown().await;
    server.stop().await;
}
