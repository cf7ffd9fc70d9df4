//! What a simulated dock needs to say yes: payloads that fit it, and what must come before a command.
//!
//! For tests that go through every method. It tells of the simulator and not of the platform.

use serde_json::{Value, json};
use utmos_core::time::Timestamp;
use utmos_dji::catalogue::Method;

use crate::{DockConfig, Model};

/// A command that must come first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct First {
    /// Its method.
    pub method: &'static str,
    /// How long to wait after it.
    pub until: Until,
}

/// How long to wait after a command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Until {
    /// Until it is answered.
    Reply,
    /// Until its job has ended.
    End,
    /// Until the aircraft's `osd` has `mode_code` 5, in the midst of a wayline.
    Wayline,
}

const fn after(method: &'static str, until: Until) -> First {
    First { method, until }
}

const DEBUG: &[First] = &[after("debug_mode_open", Until::Reply)];
const DRC: &[First] =
    &[after("flight_authority_grab", Until::Reply), after("drc_mode_enter", Until::Reply)];
const AIR: &[First] = &[after("takeoff_to_point", Until::End)];
const UNDER_WAY: &[First] =
    &[after("takeoff_to_point", Until::End), after("fly_to_point", Until::Reply)];
const HOMEWARD: &[First] =
    &[after("takeoff_to_point", Until::End), after("return_home", Until::Reply)];
const PREPARED: &[First] = &[after("flighttask_prepare", Until::Reply)];
const EXECUTED: &[First] =
    &[after("flighttask_prepare", Until::Reply), after("flighttask_execute", Until::Reply)];
const WAYLINE: &[First] =
    &[after("flighttask_prepare", Until::Reply), after("flighttask_execute", Until::Wayline)];
const PAUSED: &[First] = &[
    after("flighttask_prepare", Until::Reply),
    after("flighttask_execute", Until::Wayline),
    after("flighttask_pause", Until::Reply),
];
const STREAM: &[First] = &[after("live_start_push", Until::Reply)];
const RECORDING: &[First] = &[after("camera_recording_start", Until::Reply)];
const ORBIT: &[First] =
    &[after("takeoff_to_point", Until::End), after("poi_mode_enter", Until::Reply)];
const LANDABLE: &[First] = &[
    after("takeoff_to_point", Until::End),
    after("flight_authority_grab", Until::Reply),
    after("drc_mode_enter", Until::Reply),
];

/// What must come before a command to a gateway that is idle with its aircraft on the ground, so that it is carried out.
#[must_use]
pub fn before(method: &Method, model: Model) -> Vec<First> {
    let firsts = before_at_dock(method);
    if model.is_dock() {
        return firsts.to_vec();
    }
    // Sticks are not grabbed from a pilot, who is asked once for everything.
    let firsts = firsts.iter().filter(|first| first.method != "flight_authority_grab");
    let mut firsts: Vec<First> = firsts.copied().collect();
    let asks = |name: &str| {
        matches!(name, "takeoff_to_point" | "drc_mode_enter" | "cloud_control_release")
    };
    if asks(&method.name) || firsts.iter().any(|first| asks(first.method)) {
        firsts.insert(0, after("cloud_control_auth_request", Until::End));
    }
    firsts
}

fn before_at_dock(method: &Method) -> &'static [First] {
    match method.name.as_str() {
        "cover_open"
        | "cover_close"
        | "cover_force_close"
        | "drone_open"
        | "drone_close"
        | "charge_open"
        | "charge_close"
        | "device_reboot"
        | "device_format"
        | "drone_format"
        | "putter_open"
        | "putter_close"
        | "supplement_light_open"
        | "supplement_light_close"
        | "alarm_state_switch"
        | "air_conditioner_mode_switch"
        | "battery_store_mode_switch"
        | "battery_maintenance_switch" => DEBUG,
        "drc_mode_exit" => DRC,
        "fly_to_point" | "return_home" | "return_specific_home" | "poi_mode_enter" => AIR,
        "fly_to_point_update" | "fly_to_point_stop" => UNDER_WAY,
        "return_home_cancel" => HOMEWARD,
        "flighttask_execute" | "flighttask_undo" => PREPARED,
        "flight_setup_abort" => EXECUTED,
        "flighttask_pause" | "flighttask_stop" => WAYLINE,
        "flighttask_recovery" => PAUSED,
        "live_stop_push" | "live_set_quality" | "live_lens_change" => STREAM,
        "camera_recording_stop" => RECORDING,
        "poi_mode_exit" | "poi_circle_speed_set" => ORBIT,
        "drc_force_landing" | "drc_emergency_landing" => LANDABLE,
        _ if method.channel == utmos_core::method::Channel::DrcDown => DRC,
        _ => &[],
    }
}

/// The catalogue's example payload, with the serial numbers, the camera and the times of this gateway.
#[must_use]
pub fn payload(method: &Method, dock: &DockConfig, now: Timestamp) -> Value {
    let mut payload = method.example.clone();
    let Some(fields) = payload.as_object_mut() else { return payload };
    let camera = dock.model.camera();
    if fields.contains_key("video_id") {
        let video = format!("{}/{camera}/normal-0", dock.aircraft_sn);
        fields.insert("video_id".to_owned(), json!(video));
    }
    if fields.contains_key("payload_index") {
        fields.insert("payload_index".to_owned(), json!(camera));
    }
    if method.name == "flighttask_prepare" {
        fields.insert("execute_time".to_owned(), json!(now.as_millis()));
    }
    if fields.contains_key("home_dock_sn") {
        fields.insert("home_dock_sn".to_owned(), json!(dock.sn));
    }
    if let Some(devices) = fields.get_mut("devices").and_then(Value::as_array_mut) {
        for device in devices {
            device["sn"] = json!(dock.sn);
        }
    }
    // Fly-to from where the takeoff ends to where it ends would be no flight.
    if let Some(point) = fields.get_mut("points").and_then(|points| points.get_mut(0)) {
        let to = dock.home.moved(120.0, 90.0);
        *point =
            json!({"latitude": to.latitude, "longitude": to.longitude, "height": to.height + 70.0});
    }
    payload
}
