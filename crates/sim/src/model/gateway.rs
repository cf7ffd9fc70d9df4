//! Docks and remote controllers: what they are to the cloud, what they say of themselves, and how they get an aircraft
//! into the air.
//!
//! Keys of `osd` and `state` are those of DJI's property pages; where a recording of a real gateway has more, those too.

use utmos_dji::{
    catalogue::GatewayModel,
    device_side::{Described, Kind},
    topic::StatusRoot,
};

/// A kind of gateway.
#[derive(Debug)]
pub struct Gateway {
    /// As the catalogue of methods names it.
    pub model: GatewayModel,
    /// Its numbers in `update_topo`.
    pub kind: Kind,
    /// How it writes `update_topo`.
    pub described: Described,
    /// Where it publishes `update_topo`.
    pub status_root: StatusRoot,
    pub firmware: &'static str,
    /// What it writes into `tid` and `bid` of `osd`, `state` and `events`.
    pub ids: Ids,
    /// How it tells of alarms.
    pub alarms: Alarms,
    /// Who lets the cloud fly.
    pub control: Control,
    /// The dock, if it is one.
    pub station: Option<Station>,
    /// Keys of its `osd`, one list for each message.
    pub osd: &'static [&'static [&'static str]],
    /// Keys of its `state`.
    pub state: &'static [&'static str],
    /// Its properties that can be set.
    pub settable: &'static [&'static str],
    /// What is done before a takeoff.
    pub preparation: &'static [Preparation],
    /// From the end of that to the takeoff, seconds.
    pub lift_seconds: f64,
    /// How long it stays in direct control without a heartbeat.
    pub drc_silence_ms: u64,
    /// What `osd_info_push` tells.
    pub pilot: Pilot,
    /// What it calls infrared when a lens is chosen.
    pub infrared: &'static str,
}

/// What stands in `tid` and `bid`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ids {
    /// New ones.
    Fresh,
    /// Zeros, always (DJI-Cloud-API-Demo#11). What is not told apart is not sent again.
    Zero,
}

/// Where alarms go, and in which form.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Alarms {
    /// While a task runs, on the gateway's and the aircraft's topics, each with a list.
    Listed,
    /// Always, on the aircraft's topic, with the method inside `data`.
    Within,
}

/// Who lets the cloud fly the aircraft.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Control {
    /// Nobody has to. Sticks need `flight_authority_grab`.
    Grabbed,
    /// The pilot, who is asked with `cloud_control_auth_request`.
    Granted,
}

/// The fields of `osd_info_push`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pilot {
    /// As docks tell it.
    Dock,
    /// As a recorded remote controller tells it.
    RemoteController,
}

/// What a dock has and a remote controller has not.
#[derive(Debug)]
pub struct Station {
    /// Its own camera.
    pub camera: &'static str,
    /// How it numbers the steps of a task.
    pub steps: Steps,
    /// From the landing until it is closed, seconds.
    pub stow_seconds: f64,
}

/// Numbers of `current_step` in `flighttask_progress` from the takeoff on.
#[derive(Debug)]
pub struct Steps {
    pub running: i64,
    pub returning: i64,
    pub landing: i64,
    pub done: i64,
    /// The percentage it stands at while the wayline is flown; docks of the first two generations count.
    pub percent: Option<i64>,
}

/// A step before the takeoff.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Preparation {
    /// Seconds from the step before it.
    pub after: f64,
    /// `current_step`, `percent` and `wayline_mission_state` of `flighttask_progress`.
    pub step: i64,
    pub percent: i64,
    pub mission: i64,
    /// What the dock does with it.
    pub act: Option<Act>,
}

/// What a dock does while it gets ready.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Act {
    MoveCover,
    OpenCover,
    /// The task is ready; a one-key takeoff tells it.
    Ready,
}

const fn step(after: f64, step: i64, percent: i64, mission: i64, act: Option<Act>) -> Preparation {
    Preparation { after, step, percent, mission, act }
}

const MINUTE_MS: u64 = 60_000;

/// First of the three messages of a dock's `osd`: weather, place and hardware.
const PLACE: [&str; 27] = [
    "network_state",
    "drone_charge_state",
    "drone_in_dock",
    "rainfall",
    "wind_speed",
    "environment_temperature",
    "temperature",
    "humidity",
    "heading",
    "home_position_is_valid",
    "latitude",
    "longitude",
    "height",
    "alternate_land_point",
    "first_power_on",
    "position_state",
    "storage",
    "silent_mode",
    "emergency_stop_state",
    "sub_device",
    "mode_code",
    "cover_state",
    "putter_state",
    "supplement_light_state",
    "alarm_state",
    "battery_store_mode",
    "air_conditioner",
];
/// The same of a first dock, which looks nowhere and knows no valid home.
const PLACE_1: [&str; 24] = [
    "network_state",
    "drone_charge_state",
    "drone_in_dock",
    "rainfall",
    "wind_speed",
    "environment_temperature",
    "temperature",
    "humidity",
    "latitude",
    "longitude",
    "height",
    "alternate_land_point",
    "first_power_on",
    "position_state",
    "storage",
    "emergency_stop_state",
    "sub_device",
    "mode_code",
    "cover_state",
    "putter_state",
    "supplement_light_state",
    "alarm_state",
    "battery_store_mode",
    "air_conditioner",
];
/// The second: upkeep and power.
const UPKEEP: [&str; 8] = [
    "job_number",
    "activation_time",
    "maintain_status",
    "electric_supply_voltage",
    "working_voltage",
    "working_current",
    "backup_battery",
    "drone_battery_maintenance_info",
];
/// The same of a third dock, as recorded.
const UPKEEP_3: [&str; 17] = [
    "job_number",
    "acc_time",
    "activation_time",
    "deployment_mode",
    "relative_alternate_land_point",
    "self_converge_coordinate",
    "maintain_status",
    "electric_supply_voltage",
    "working_voltage",
    "working_current",
    "acdc_power_input",
    "poe_link_status",
    "poe_power_output",
    "backup_battery",
    "gimbal_holder_state",
    "drone_battery_maintenance_info",
    "temp_mode_state",
];
/// The third: links and the task.
const LINKS: [&str; 6] = [
    "drc_state",
    "flighttask_prepare_capacity",
    "flighttask_step_code",
    "media_file_detail",
    "user_experience_improvement",
    "wireless_link",
];
const LINKS_1: [&str; 5] = [
    "drc_state",
    "drone_authority_info",
    "flighttask_step_code",
    "media_file_detail",
    "wireless_link",
];
const LINKS_3: [&str; 10] = [
    "departure_point",
    "departure_point_status",
    "drc_state",
    "flighttask_prepare_capacity",
    "flighttask_step_code",
    "media_file_detail",
    "sdr",
    "tilt_angle",
    "user_experience_improvement",
    "wireless_link",
];
const DOCK_STATE: [&str; 12] = [
    "rtcm_info",
    "wireless_link_topo",
    "air_transfer_enable",
    "silent_mode",
    "user_experience_improvement",
    "dongle_infos",
    "compatible_status",
    "acc_time",
    "live_capacity",
    "live_status",
    "firmware_upgrade_status",
    "firmware_version",
];
const DOCK_SETTABLE: [&str; 3] =
    ["air_transfer_enable", "silent_mode", "user_experience_improvement"];

/// A first dock. Its numbers of steps are one lower than a Dock 2's from 8 on, two from the start of the wayline on.
pub static DOCK_1: Gateway = Gateway {
    model: GatewayModel::Dock,
    kind: Kind { domain: 3, device_type: 1, sub_type: 0 },
    described: Described::Dock { thing_version: "1.1.2" },
    status_root: StatusRoot::Sys,
    firmware: "06.02.0608",
    ids: Ids::Fresh,
    alarms: Alarms::Listed,
    control: Control::Grabbed,
    station: Some(Station {
        camera: "165-0-7",
        steps: Steps { running: 23, returning: 24, landing: 25, done: 33, percent: None },
        stow_seconds: 30.0,
    }),
    osd: &[&PLACE_1, &UPKEEP, &LINKS_1],
    state: &[
        "firmware_version",
        "firmware_upgrade_status",
        "live_status",
        "live_capacity",
        "acc_time",
        "compatible_status",
        "wpmz_version",
        "user_experience_improvement",
        "silent_mode",
    ],
    settable: &["user_experience_improvement", "silent_mode"],
    preparation: &[
        step(1.0, 5, 1, 2, None),
        step(2.0, 6, 2, 2, None),
        step(3.0, 7, 4, 2, Some(Act::MoveCover)),
        step(20.0, 12, 7, 2, Some(Act::OpenCover)),
        step(4.0, 13, 8, 2, None),
        step(4.0, 16, 9, 2, None),
        step(5.0, 17, 10, 3, None),
        step(4.0, 19, 12, 3, None),
        step(2.0, 21, 14, 4, None),
        step(2.0, 22, 15, 4, Some(Act::Ready)),
    ],
    lift_seconds: 3.0,
    drc_silence_ms: 5 * MINUTE_MS,
    pilot: Pilot::Dock,
    infrared: "ir",
};

/// A Dock 2.
pub static DOCK_2: Gateway = Gateway {
    model: GatewayModel::Dock2,
    kind: Kind { domain: 3, device_type: 2, sub_type: 0 },
    described: Described::Dock { thing_version: "1.1.2" },
    status_root: StatusRoot::Sys,
    firmware: "10.01.1609",
    ids: Ids::Fresh,
    alarms: Alarms::Listed,
    control: Control::Grabbed,
    station: Some(Station {
        camera: "165-0-7",
        steps: Steps { running: 25, returning: 26, landing: 27, done: 35, percent: None },
        stow_seconds: 20.0,
    }),
    osd: &[&PLACE, &UPKEEP, &LINKS],
    state: &DOCK_STATE,
    settable: &DOCK_SETTABLE,
    preparation: &[
        step(1.0, 5, 1, 2, None),
        step(1.0, 6, 2, 2, None),
        step(2.0, 7, 4, 2, Some(Act::MoveCover)),
        step(16.0, 13, 7, 2, Some(Act::OpenCover)),
        step(4.0, 14, 8, 2, None),
        step(4.0, 17, 9, 2, None),
        step(5.0, 18, 10, 3, None),
        step(4.0, 20, 12, 4, None),
        step(3.0, 23, 14, 4, None),
        step(2.0, 24, 15, 4, Some(Act::Ready)),
    ],
    lift_seconds: 3.0,
    drc_silence_ms: MINUTE_MS,
    pilot: Pilot::Dock,
    infrared: "ir",
};

/// A Dock 3. In a recorded flight the wayline runs in step 27 at 90 %, so from there on its numbers are taken for two
/// higher than a Dock 2's; no page has them. It says a `thing_version` that not every receiver has in its list.
pub static DOCK_3: Gateway = Gateway {
    model: GatewayModel::Dock3,
    kind: Kind { domain: 3, device_type: 3, sub_type: 0 },
    described: Described::Dock { thing_version: "1.3.1" },
    status_root: StatusRoot::Sys,
    firmware: "14.01.0013",
    ids: Ids::Fresh,
    alarms: Alarms::Listed,
    control: Control::Grabbed,
    station: Some(Station {
        camera: "165-0-7",
        steps: Steps { running: 27, returning: 28, landing: 29, done: 37, percent: Some(90) },
        stow_seconds: 15.0,
    }),
    osd: &[&PLACE, &UPKEEP_3, &LINKS_3],
    state: &DOCK_STATE,
    settable: &DOCK_SETTABLE,
    preparation: &[
        step(0.5, 5, 1, 2, None),
        step(0.5, 6, 2, 2, None),
        step(1.0, 7, 4, 2, Some(Act::MoveCover)),
        step(4.0, 13, 7, 2, Some(Act::OpenCover)),
        step(1.0, 14, 8, 2, None),
        step(1.0, 17, 9, 2, None),
        step(1.0, 18, 10, 3, None),
        step(1.0, 20, 12, 4, None),
        step(0.5, 25, 14, 4, None),
        step(0.5, 26, 15, 4, Some(Act::Ready)),
    ],
    lift_seconds: 2.0,
    drc_silence_ms: MINUTE_MS,
    pilot: Pilot::Dock,
    infrared: "ir",
};

/// Starting the motors.
const HAND: [Preparation; 2] = [step(2.0, 0, 0, 2, None), step(1.0, 0, 0, 2, Some(Act::Ready))];

/// An RC Pro Enterprise. Its page prints the topic of `update_topo` under `thing/`.
pub static RC_PRO: Gateway = Gateway {
    model: GatewayModel::RcPro,
    kind: Kind { domain: 2, device_type: 144, sub_type: 0 },
    described: Described::RemoteController { version: 1 },
    status_root: StatusRoot::Thing,
    firmware: "02.01.0511",
    ids: Ids::Zero,
    alarms: Alarms::Within,
    control: Control::Granted,
    station: None,
    osd: &[&["capacity_percent", "country", "height", "latitude", "longitude", "wireless_link"]],
    state: &[
        "live_capacity",
        "dongle_infos",
        "live_status",
        "firmware_version",
        "is_cloud_control_auth",
    ],
    settable: &[],
    preparation: &HAND,
    lift_seconds: 2.0,
    drc_silence_ms: MINUTE_MS,
    pilot: Pilot::RemoteController,
    infrared: "thermal",
};

/// An RC Plus 2. A recorded remote controller had `update_topo` under `sys/`, as docks have it.
pub static RC_PLUS_2: Gateway = Gateway {
    model: GatewayModel::RcPlus2,
    kind: Kind { domain: 2, device_type: 174, sub_type: 0 },
    described: Described::RemoteController { version: 1 },
    status_root: StatusRoot::Sys,
    firmware: "01.02.0501",
    ids: Ids::Zero,
    alarms: Alarms::Within,
    control: Control::Granted,
    station: None,
    osd: &[&["capacity_percent", "drc_state", "height", "latitude", "longitude", "wireless_link"]],
    state: &[
        "live_capacity",
        "dongle_infos",
        "live_status",
        "firmware_version",
        "cloud_control_auth",
    ],
    settable: &[],
    preparation: &HAND,
    lift_seconds: 2.0,
    drc_silence_ms: MINUTE_MS,
    pilot: Pilot::RemoteController,
    infrared: "thermal",
};
