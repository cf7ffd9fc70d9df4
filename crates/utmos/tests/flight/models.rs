//! Every kind of gateway, end to end: it comes up against a real server that knows nothing of its aircraft, is listed as
//! what it is, carries commands addressed to the aircraft to their true ends, and refuses what it does not know.

use std::{process::Command, time::Duration};

use reqwest::StatusCode;
use serde_json::{Value, json};
use utmos_core::time::Clock;
use utmos_mqtt::ProtocolChoice;
use utmos_server::clock::SystemClock;
use utmos_sim::{DockConfig, Fleet, FleetConfig, Model, guide};

use crate::{
    api::{Api, PATIENCE},
    place::{CATALOGUE, Place, Running, fleet_of, fly, kind_of},
    truth,
};

/// How many times faster than real they live.
const SPEED: f64 = 20.0;
/// Before it is asked again whether the server knows the aircraft by now.
const LOOK_WAIT: Duration = Duration::from_millis(50);

/// A place with these gateways and none of their aircraft, its server, and the gateways at it.
async fn up(models: &[Model]) -> (Place, Running, FleetConfig, Fleet) {
    let place = Place::new().await;
    let mut config = fleet_of(models);
    config.speed = SPEED;
    for dock in &config.docks {
        let kind = kind_of(dock.model);
        place.put_gateway(place.given.tenant, &dock.sn, kind, &dock.password, &[]).await;
    }
    let server = place.start().await;
    let fleet = fly(&config, server.mqtt(), ProtocolChoice::Auto).await;
    (place, server, config, fleet)
}

/// Sends a command as soon as the server knows the device, which may be later than the broker; answers how it ended.
async fn end(api: &Api, fleet: &Fleet, device: &str, method: &str, payload: Value) -> Value {
    let created = async {
        loop {
            let answer =
                api.create(device, method, payload.clone(), json!({"if_offline": "wait"})).await;
            if answer.code() != "DEVICE_NOT_FOUND" {
                return answer;
            }
            tokio::time::sleep(LOOK_WAIT).await;
        }
    };
    let created = tokio::time::timeout(PATIENCE, created).await;
    let created = created.unwrap_or_else(|_| panic!("{device} never becomes known"));
    assert_eq!(created.status, StatusCode::ACCEPTED, "{method}: {created:?}");
    let command = api.ended(&created.id()).await;
    truth::must_be_true(&command, fleet);
    command
}

/// The same with what must come before, all addressed to the aircraft.
async fn willing(api: &Api, fleet: &Fleet, dock: &DockConfig, method: &str) -> Value {
    let wanted = CATALOGUE.method(method).unwrap();
    let now = || SystemClock::new().now().wall;
    for first in guide::before(wanted, dock.model) {
        let first = CATALOGUE.method(first.method).unwrap();
        let payload = guide::payload(first, dock, now());
        let command = end(api, fleet, &dock.aircraft_sn, &first.name, payload).await;
        assert_eq!(command["status"], "SUCCEEDED", "{} at {}: {command:#}", first.name, dock.model);
    }
    let payload = guide::payload(wanted, dock, now());
    let command = end(api, fleet, &dock.aircraft_sn, method, payload).await;
    assert_eq!(command["gateway_id"], dock.sn.as_str(), "{command:#}");
    assert_eq!(command["status"], "SUCCEEDED", "{method} at {}: {command:#}", dock.model);
    command
}

async fn refused(api: &Api, fleet: &Fleet, dock: &DockConfig, method: &str) {
    let payload =
        guide::payload(CATALOGUE.method(method).unwrap(), dock, SystemClock::new().now().wall);
    let command = end(api, fleet, &dock.sn, method, payload).await;
    let told = (&command["status"], &command["failure_code"], &command["response_code"]);
    assert_eq!(
        told,
        (&json!("FAILED"), &json!("DEVICE_EXECUTION_FAILED"), &json!("314000")),
        "{method} at {}: {command:#}",
        dock.model
    );
}

/// What `utmos device list` shows of a device.
fn listed(place: &Place, sn: &str) -> Value {
    let output = Command::new(env!("CARGO_BIN_EXE_utmos"))
        .args(["device", "list", "--json", "--data-dir"])
        .arg(place.data_dir())
        .current_dir(place.path(""))
        .env_clear()
        .output()
        .unwrap();
    let list: Value = serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|_| panic!("{}", String::from_utf8_lossy(&output.stderr)));
    let mut items = list.as_array().unwrap().iter();
    items.find(|item| item["sn"] == sn).unwrap_or_else(|| panic!("{sn} is not in {list:#}")).clone()
}

fn is_listed_as_it_is(place: &Place, dock: &DockConfig) {
    let gateway = listed(place, &dock.sn);
    let kind = if dock.model.is_dock() { "dock" } else { "remote_controller" };
    assert_eq!(gateway["kind"], kind, "{gateway:#}");
    assert_eq!(gateway["sub_devices"], json!([dock.aircraft_sn]), "{gateway:#}");
    let aircraft = listed(place, &dock.aircraft_sn);
    assert_eq!(aircraft["kind"], "aircraft", "{aircraft:#}");
    assert_eq!(aircraft["model_key"], dock.model.aircraft_key(), "{aircraft:#}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_kind_of_dock_flies_its_aircraft_and_is_told_apart() {
    let models = [Model::Dock1, Model::Dock2M3td, Model::Dock3M4td];
    let (place, server, config, fleet) = up(&models).await;
    let api = &server.api;
    let flights = config.docks.iter().map(async |dock| {
        let photo = willing(api, &fleet, dock, "camera_photo_take").await;
        assert_eq!(photo["execution"], Value::Null, "{photo:#}");
        willing(api, &fleet, dock, "flighttask_execute").await
    });
    // The last step by its dock's own number, with its meaning where a page gives one.
    let last = ["33 (reporting the result)", "35 (reporting the result)", "37"];
    let flown = futures_util::future::join_all(flights).await;
    for ((dock, command), expected) in config.docks.iter().zip(flown).zip(last) {
        let step = command["execution"]["step"].as_str().unwrap();
        assert_eq!(step, expected, "{command:#}");
        is_listed_as_it_is(&place, dock);
    }
    let [first, second, third] = &config.docks[..] else { panic!("three docks") };
    refused(api, &fleet, first, "rtk_calibration").await;
    refused(api, &fleet, first, "flighttask_stop").await;
    refused(api, &fleet, second, "putter_open").await;
    refused(api, &fleet, third, "poi_mode_enter").await;
    refused(api, &fleet, third, "cloud_control_auth_request").await;
    fleet.shutdown().await;
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn remote_controllers_ask_their_pilots_and_then_carry_commands() {
    let (place, server, config, fleet) = up(&[Model::RcPro, Model::RcPlus2, Model::RcProM3t]).await;
    let api = &server.api;
    let [pro, plus, thermal] = &config.docks[..] else { panic!("three remote controllers") };
    // Nothing in the pilot's consent tells which command it belongs to: its ids are zeros.
    for dock in [pro, plus] {
        let consent = willing(api, &fleet, dock, "cloud_control_auth_request").await;
        assert_eq!(consent["response_code"], "0");
    }
    let photo = willing(api, &fleet, pro, "camera_photo_take").await;
    assert_eq!(photo["response_code"], "0");
    willing(api, &fleet, thermal, "camera_photo_take").await;
    willing(api, &fleet, pro, "drc_mode_enter").await;
    willing(api, &fleet, plus, "fly_to_point").await;
    let home = end(api, &fleet, &plus.aircraft_sn, "return_home", json!({})).await;
    assert_eq!((&home["status"], &home["gateway_id"]), (&json!("SUCCEEDED"), &json!(plus.sn)));
    for dock in &config.docks {
        is_listed_as_it_is(&place, dock);
        refused(api, &fleet, dock, "cover_open").await;
        refused(api, &fleet, dock, "flighttask_prepare").await;
    }
    refused(api, &fleet, pro, "takeoff_to_point").await;
    // Of the aircraft's events, states and telemetry nothing was unreadable.
    assert_eq!(api.figure("uplink_malformed_total").await, 0);
    assert_eq!(api.figure("uplink_unmatched_total").await, 0);
    fleet.shutdown().await;
    server.stop().await;
}
