//! Aircraft: their numbers, what they carry, what they tell of themselves, and how well they fly.

use utmos_dji::device_side::Kind;

/// A kind of aircraft.
#[derive(Debug)]
pub struct Airframe {
    pub name: &'static str,
    /// Its numbers in `update_topo`.
    pub kind: Kind,
    pub firmware: &'static str,
    /// `payload_index` of its camera.
    pub camera: &'static str,
    /// Whether that sees heat.
    pub thermal: bool,
    /// The camera it is flown by, where that can be streamed.
    pub assist: Option<&'static str>,
    /// Keys of its `osd`, beside the one that is the index of the camera.
    pub osd: &'static [&'static str],
    /// Keys of its `state`.
    pub state: &'static [&'static str],
    /// Its properties that can be set.
    pub settable: &'static [&'static str],
    pub performance: Performance,
}

/// How an aircraft flies. Round figures after DJI's specifications: climb and descent in normal mode, hovering in still
/// air, charging in its dock.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Performance {
    /// Fastest climb, m/s.
    pub climb: f64,
    /// Fastest descent, m/s.
    pub descent: f64,
    /// From full to empty in the air, seconds.
    pub endurance: f64,
    /// From empty to full, seconds.
    pub charge: f64,
}

const MINUTE: f64 = 60.0;

const M30_FLIES: Performance = Performance {
    climb: 6.0,
    descent: 5.0,
    endurance: 36.0 * MINUTE,
    // 10 to 90 % in 25 minutes.
    charge: 31.0 * MINUTE,
};
const M3D_FLIES: Performance = Performance {
    climb: 6.0,
    descent: 6.0,
    endurance: 40.0 * MINUTE,
    // 20 to 90 % in 32 minutes.
    charge: 46.0 * MINUTE,
};
const M4D_FLIES: Performance = Performance {
    climb: 10.0,
    descent: 8.0,
    endurance: 47.0 * MINUTE,
    // 15 to 95 % in 27 minutes.
    charge: 34.0 * MINUTE,
};
// Beside a remote controller nothing charges; the pilot changes the battery.
const M3E_FLIES: Performance =
    Performance { climb: 6.0, descent: 6.0, endurance: 38.0 * MINUTE, charge: MINUTE };
const M4E_FLIES: Performance =
    Performance { climb: 10.0, descent: 8.0, endurance: 42.0 * MINUTE, charge: MINUTE };

const M30_OSD: [&str; 36] = [
    "activation_time",
    "attitude_head",
    "attitude_pitch",
    "attitude_roll",
    "battery",
    "cameras",
    "country",
    "distance_limit_status",
    "elevation",
    "exit_wayline_when_rc_lost",
    "firmware_version",
    "gear",
    "height",
    "height_limit",
    "home_distance",
    "horizontal_speed",
    "is_near_area_limit",
    "is_near_height_limit",
    "latitude",
    "longitude",
    "maintain_status",
    "mode_code",
    "night_lights_state",
    "obstacle_avoidance",
    "position_state",
    "rc_lost_action",
    "rid_state",
    "rth_altitude",
    "storage",
    "total_flight_distance",
    "total_flight_sorties",
    "total_flight_time",
    "track_id",
    "vertical_speed",
    "wind_direction",
    "wind_speed",
];
const M3D_OSD: [&str; 32] = [
    "activation_time",
    "attitude_head",
    "attitude_pitch",
    "attitude_roll",
    "battery",
    "cameras",
    "country",
    "distance_limit_status",
    "elevation",
    "gear",
    "height",
    "height_limit",
    "home_distance",
    "horizontal_speed",
    "is_near_area_limit",
    "is_near_height_limit",
    "latitude",
    "longitude",
    "maintain_status",
    "mode_code",
    "night_lights_state",
    "obstacle_avoidance",
    "position_state",
    "storage",
    "total_flight_distance",
    "total_flight_sorties",
    "total_flight_time",
    "track_id",
    "vertical_speed",
    "wind_direction",
    "wind_speed",
    "firmware_version",
];
const M4D_OSD: [&str; 36] = [
    "activation_time",
    "attitude_head",
    "attitude_pitch",
    "attitude_roll",
    "battery",
    "best_link_gateway",
    "cameras",
    "country",
    "distance_limit_status",
    "elevation",
    "fts_info",
    "gear",
    "height",
    "height_limit",
    "home_distance",
    "horizontal_speed",
    "is_near_area_limit",
    "is_near_height_limit",
    "latitude",
    "longitude",
    "maintain_status",
    "mode_code",
    "night_lights_state",
    "obstacle_avoidance",
    "position_state",
    "rc_lost_action",
    "rid_state",
    "rth_altitude",
    "storage",
    "total_flight_distance",
    "total_flight_sorties",
    "total_flight_time",
    "track_id",
    "vertical_speed",
    "wind_direction",
    "wind_speed",
];
const M3E_OSD: [&str; 31] = [
    "activation_time",
    "attitude_head",
    "attitude_pitch",
    "attitude_roll",
    "battery",
    "cameras",
    "country",
    "distance_limit_status",
    "elevation",
    "firmware_version",
    "gear",
    "height",
    "height_limit",
    "home_distance",
    "horizontal_speed",
    "is_near_area_limit",
    "is_near_height_limit",
    "latitude",
    "longitude",
    "maintain_status",
    "mode_code",
    "night_lights_state",
    "obstacle_avoidance",
    "position_state",
    "storage",
    "total_flight_distance",
    "total_flight_time",
    "track_id",
    "vertical_speed",
    "wind_direction",
    "wind_speed",
];
const M4E_OSD: [&str; 30] = [
    "activation_time",
    "attitude_head",
    "attitude_pitch",
    "attitude_roll",
    "battery",
    "elevation",
    "firmware_version",
    "gear",
    "height",
    "height_limit",
    "home_distance",
    "horizontal_speed",
    "is_near_area_limit",
    "is_near_height_limit",
    "latitude",
    "longitude",
    "maintain_status",
    "mode_code",
    "night_lights_state",
    "obstacle_avoidance",
    "position_state",
    "storage",
    "total_flight_distance",
    "total_flight_sorties",
    "total_flight_time",
    "track_id",
    "vertical_speed",
    "wind_direction",
    "wind_speed",
    "cameras",
];

const M30_STATE: [&str; 17] = [
    "payloads",
    "wpmz_version",
    "commander_mode_lost_action",
    "current_commander_flight_mode",
    "commander_flight_height",
    "mode_code_reason",
    "firmware_version",
    "compatible_status",
    "firmware_upgrade_status",
    "home_longitude",
    "home_latitude",
    "control_source",
    "low_battery_warning_threshold",
    "serious_low_battery_warning_threshold",
    "current_rth_mode",
    "psdk_ui_resource",
    "psdk_widget_values",
];
const M3D_STATE: [&str; 21] = [
    "best_link_gateway",
    "wireless_link_topo",
    "flysafe_database_version",
    "offline_map_enable",
    "dongle_infos",
    "current_rth_mode",
    "rth_mode",
    "serious_low_battery_warning_threshold",
    "low_battery_warning_threshold",
    "control_source",
    "home_latitude",
    "home_longitude",
    "firmware_upgrade_status",
    "compatible_status",
    "firmware_version",
    "mode_code_reason",
    "commander_flight_height",
    "commander_flight_mode",
    "commander_mode_lost_action",
    "camera_watermark_settings",
    "payloads",
];
const M4D_STATE: [&str; 28] = [
    "best_link_gateway",
    "wireless_link_topo",
    "flysafe_database_version",
    "offline_map_enable",
    "dongle_infos",
    "current_rth_mode",
    "rth_mode",
    "serious_low_battery_warning_threshold",
    "low_battery_warning_threshold",
    "control_source",
    "home_latitude",
    "home_longitude",
    "firmware_upgrade_status",
    "compatible_status",
    "firmware_version",
    "mode_code_reason",
    "commander_flight_height",
    "commander_flight_mode",
    "current_commander_flight_mode",
    "commander_mode_lost_action",
    "camera_watermark_settings",
    "payloads",
    "psdk_ui_resource",
    "psdk_widget_values",
    "remaining_power_for_return_home",
    "geo_caging_status",
    "is_beidou_version",
    "ai_model_list",
];
const M3E_STATE: [&str; 12] = [
    "mode_code_reason",
    "dongle_infos",
    "serious_low_battery_warning_threshold",
    "low_battery_warning_threshold",
    "control_source",
    "home_latitude",
    "home_longitude",
    "firmware_upgrade_status",
    "compatible_status",
    "firmware_version",
    "camera_watermark_settings",
    "payloads",
];
const M4E_STATE: [&str; 18] = [
    "offline_map_enable",
    "dongle_infos",
    "current_rth_mode",
    "rth_mode",
    "serious_low_battery_warning_threshold",
    "low_battery_warning_threshold",
    "control_source",
    "home_latitude",
    "home_longitude",
    "firmware_upgrade_status",
    "compatible_status",
    "mode_code_reason",
    "commander_flight_height",
    "commander_flight_mode",
    "current_commander_flight_mode",
    "commander_mode_lost_action",
    "camera_watermark_settings",
    "payloads",
];

const M30_SETTABLE: [&str; 9] = [
    "distance_limit_status",
    "rth_altitude",
    "rc_lost_action",
    "exit_wayline_when_rc_lost",
    "commander_mode_lost_action",
    "commander_flight_height",
    "night_lights_state",
    "height_limit",
    "obstacle_avoidance",
];
const M3D_SETTABLE: [&str; 7] = [
    "obstacle_avoidance",
    "height_limit",
    "night_lights_state",
    "commander_flight_height",
    "commander_flight_mode",
    "commander_mode_lost_action",
    "camera_watermark_settings",
];
const M4D_SETTABLE: [&str; 10] = [
    "obstacle_avoidance",
    "height_limit",
    "night_lights_state",
    "commander_flight_height",
    "commander_flight_mode",
    "commander_mode_lost_action",
    "camera_watermark_settings",
    "distance_limit_status",
    "rth_altitude",
    "remaining_power_for_return_home",
];
const M3E_SETTABLE: [&str; 4] =
    ["obstacle_avoidance", "height_limit", "night_lights_state", "camera_watermark_settings"];
const M4E_SETTABLE: [&str; 6] = [
    "height_limit",
    "night_lights_state",
    "commander_flight_height",
    "commander_flight_mode",
    "commander_mode_lost_action",
    "camera_watermark_settings",
];

/// A Matrice 30.
pub const M30: Airframe = Airframe {
    name: "M30",
    kind: Kind { domain: 0, device_type: 67, sub_type: 0 },
    firmware: "09.02.0508",
    camera: "52-0-0",
    thermal: false,
    assist: Some("39-0-7"),
    osd: &M30_OSD,
    state: &M30_STATE,
    settable: &M30_SETTABLE,
    performance: M30_FLIES,
};

/// A Matrice 30T.
pub const M30T: Airframe = Airframe {
    name: "M30T",
    kind: Kind { sub_type: 1, ..M30.kind },
    camera: "53-0-0",
    thermal: true,
    ..M30
};

/// A Matrice 3D.
pub const M3D: Airframe = Airframe {
    name: "M3D",
    kind: Kind { domain: 0, device_type: 91, sub_type: 0 },
    firmware: "10.01.1609",
    camera: "80-0-0",
    thermal: false,
    assist: Some("176-0-0"),
    osd: &M3D_OSD,
    state: &M3D_STATE,
    settable: &M3D_SETTABLE,
    performance: M3D_FLIES,
};

/// A Matrice 3TD.
pub const M3TD: Airframe = Airframe {
    name: "M3TD",
    kind: Kind { sub_type: 1, ..M3D.kind },
    camera: "81-0-0",
    thermal: true,
    ..M3D
};

/// A Matrice 4D.
pub const M4D: Airframe = Airframe {
    name: "M4D",
    kind: Kind { domain: 0, device_type: 100, sub_type: 0 },
    firmware: "16.01.0013",
    camera: "98-0-0",
    thermal: false,
    assist: Some("176-0-0"),
    osd: &M4D_OSD,
    state: &M4D_STATE,
    settable: &M4D_SETTABLE,
    performance: M4D_FLIES,
};

/// A Matrice 4TD.
pub const M4TD: Airframe = Airframe {
    name: "M4TD",
    kind: Kind { sub_type: 1, ..M4D.kind },
    camera: "99-0-0",
    thermal: true,
    ..M4D
};

/// A Mavic 3E.
pub const M3E: Airframe = Airframe {
    name: "M3E",
    kind: Kind { domain: 0, device_type: 77, sub_type: 0 },
    firmware: "07.01.2001",
    camera: "66-0-0",
    thermal: false,
    assist: None,
    osd: &M3E_OSD,
    state: &M3E_STATE,
    settable: &M3E_SETTABLE,
    performance: M3E_FLIES,
};

/// A Mavic 3T.
pub const M3T: Airframe = Airframe {
    name: "M3T",
    kind: Kind { sub_type: 1, ..M3E.kind },
    camera: "67-0-0",
    thermal: true,
    ..M3E
};

/// A Matrice 4E.
pub const M4E: Airframe = Airframe {
    name: "M4E",
    kind: Kind { domain: 0, device_type: 99, sub_type: 0 },
    firmware: "14.01.0002",
    camera: "88-0-0",
    thermal: false,
    assist: None,
    osd: &M4E_OSD,
    state: &M4E_STATE,
    settable: &M4E_SETTABLE,
    performance: M4E_FLIES,
};

/// A Matrice 4T.
pub const M4T: Airframe = Airframe {
    name: "M4T",
    kind: Kind { sub_type: 1, ..M4E.kind },
    camera: "89-0-0",
    thermal: true,
    ..M4E
};
