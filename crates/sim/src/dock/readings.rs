//! What stands behind each key of `osd` and `state`, of the gateway and of its aircraft.

use serde_json::{Value, json};

use super::{
    Dock,
    debugging::Mode,
    flying::{Stage, tenths},
};

/// What a recorded remote controller gives as the home of an aircraft that has none (DJI-Cloud-API-Demo#11).
const NO_HOME: f64 = 26_836_624.610_466;
/// `fts_status`, `remain_job_time` and the like where there is nothing to tell.
const NOTHING: i64 = 65_535;

impl Dock {
    /// A slow wave around a middle, another for every dock: weather and currents that change a little.
    fn reading(&self, middle: f64, reach: f64, minutes: f64) -> f64 {
        let phase = f64::from(u8::try_from(self.behind.rem_euclid(200)).unwrap_or(0));
        let at = self.now.mono.as_millis() as f64 / 60_000.0 / minutes;
        tenths(middle + reach * (at * std::f64::consts::TAU + phase).sin())
    }

    /// What the gateway tells under a key; null where it has nothing to tell.
    pub(super) fn gateway_value(&self, key: &str) -> Value {
        let hardware = &self.hardware;
        match key {
            "mode_code" => json!(hardware.mode as i64),
            "cover_state" => json!(hardware.cover as i64),
            "putter_state" => json!(i64::from(hardware.putter_open)),
            "drone_in_dock" => json!(i64::from(self.sky.is_docked())),
            "supplement_light_state" => json!(i64::from(hardware.supplement_light)),
            "alarm_state" => json!(i64::from(hardware.alarm)),
            "battery_store_mode" => json!(hardware.battery_store_mode),
            "air_conditioner" => {
                json!({"air_conditioner_state": hardware.air_conditioner, "switch_time": 0})
            }
            "emergency_stop_state"
            | "poe_link_status"
            | "poe_power_output"
            | "gimbal_holder_state"
            | "departure_point_status"
            | "compatible_status" => json!(0),
            "temp_mode_state" => json!(false),
            "deployment_mode" | "home_position_is_valid" | "flighttask_prepare_capacity" => {
                json!(1)
            }
            "drone_charge_state" => {
                json!({"state": i64::from(hardware.charging), "capacity_percent": self.battery()})
            }
            "heading" => json!(hardware.heading),
            "latitude" => json!(self.config.home.latitude),
            "longitude" => json!(self.config.home.longitude),
            "height" => json!(self.config.home.height),
            "sub_device" => self.sub_device(),
            "job_number" => json!(hardware.jobs_done),
            "drone_battery_maintenance_info" => json!({
                "maintenance_state": if hardware.battery_maintenance { 2 } else { 0 },
                "maintenance_time_left": 0, "heat_state": 0,
                "batteries": [{
                    "index": 0, "capacity_percent": self.battery(),
                    "voltage": self.cell_voltage(),
                    "temperature": self.reading(30.0, 1.0, 20.0)}]}),
            "drc_state" => json!(if self.drc.is_some() { 2 } else { 0 }),
            "drone_authority_info" => self.authority_info(),
            "flighttask_step_code" => json!(self.task_step()),
            "media_file_detail" => json!({"remain_upload": 0}),
            "capacity_percent" => json!(self.reading(82.0, 3.0, 240.0).round()),
            "country" => json!("CN"),
            "firmware_version" => json!(self.config.model.gateway().firmware),
            "firmware_upgrade_status" => json!(i64::from(hardware.mode == Mode::Updating)),
            "live_capacity" => self.live_capacity(),
            "live_status" => json!(self.live_status()),
            "cloud_control_auth" => {
                json!(if self.authority { &["flight"][..] } else { &[] })
            }
            "is_cloud_control_auth" => json!(self.authority),
            other => self.fixture(other).unwrap_or_else(|| {
                self.properties.of_gateway().get(other).cloned().unwrap_or_default()
            }),
        }
    }

    /// The weather, the links, the wires and the site.
    fn fixture(&self, key: &str) -> Option<Value> {
        let home = self.config.home;
        Some(match key {
            "network_state" => {
                json!({"type": 2, "quality": 0, "rate": self.reading(400.0, 150.0, 3.0)})
            }
            "rainfall" => json!(self.conditions.rain),
            "wind_speed" => {
                json!(self.conditions.wind.unwrap_or_else(|| self.reading(2.0, 1.5, 7.0)))
            }
            "environment_temperature" => json!(self.reading(26.0, 3.0, 60.0)),
            "temperature" => json!(self.reading(25.0, 2.0, 60.0)),
            "humidity" => json!(self.reading(65.0, 8.0, 60.0).round()),
            "alternate_land_point" => json!({
                "latitude": home.moved(12.0, 0.0).latitude, "longitude": home.longitude,
                "height": 0, "safe_land_height": 30, "is_configured": 1}),
            "relative_alternate_land_point" => {
                json!({"longitude": 0, "latitude": 0, "safe_land_height": 30, "status": 1})
            }
            "self_converge_coordinate" => json!({
                "longitude": home.longitude, "latitude": home.latitude, "height": home.height}),
            "departure_point" => json!({"height": 0, "latitude": 0, "longitude": 0}),
            "tilt_angle" => json!({"valid": 1, "value": 0.7}),
            "first_power_on" => json!(1_631_945_855_969_i64),
            "activation_time" => json!(1_704_067_200),
            "acc_time" => json!(3_600),
            "position_state" => json!({
                "is_calibration": 1, "is_fixed": 2, "quality": 5, "gps_number": 9,
                "rtk_number": 32}),
            "storage" => json!({"total": 53_082_240, "used": 20_184}),
            "maintain_status" => json!({"maintain_status_array": [
                {"state": 0, "last_maintain_type": 17, "last_maintain_time": 0,
                 "last_maintain_work_sorties": 0},
                {"state": 0, "last_maintain_type": 18, "last_maintain_time": 0,
                 "last_maintain_work_sorties": 0}]}),
            "electric_supply_voltage" => json!(self.reading(230.0, 4.0, 5.0).round()),
            "working_voltage" => json!(self.reading(47_400.0, 80.0, 2.0).round()),
            "working_current" => json!(self.reading(3_100.0, 200.0, 2.0).round()),
            "acdc_power_input" => json!(self.reading(165.0, 8.0, 2.0)),
            "backup_battery" => json!({
                "voltage": 26_600, "temperature": self.reading(28.0, 1.0, 30.0), "switch": 1}),
            "sdr" => json!({"down_quality": 100, "frequency_band": 2.4, "up_quality": 100}),
            "wireless_link" => json!({
                "4g_freq_band": 5.8, "4g_gnd_quality": 0, "4g_link_state": 0, "4g_quality": 0,
                "4g_uav_quality": 0, "dongle_number": 0,
                "link_workmode": self.hardware.link_workmode, "sdr_freq_band": 2.4,
                "sdr_link_state": i64::from(self.hardware.aircraft_on),
                "sdr_quality": if self.hardware.aircraft_on { 5 } else { 0 }}),
            "wireless_link_topo" => self.link_topology(),
            "wpmz_version" => json!("1.0.2"),
            "dongle_infos" => json!([]),
            "rtcm_info" => json!({
                "mount_point": "", "port": "", "host": "", "rtcm_device_type": 1,
                "source_type": 1}),
            _ => return None,
        })
    }

    fn link_topology(&self) -> Value {
        json!({
            "secret_code": vec![0; 28],
            "center_node": {"sdr_id": 1, "sn": self.aircraft_sn.as_str()},
            "leaf_nodes": [{"sdr_id": 2, "sn": self.sn.as_str(), "control_source_index": 1}],
        })
    }

    /// The model is there with the aircraft on, and gone with it off.
    fn sub_device(&self) -> Value {
        let mut sub_device = json!({
            "device_sn": self.aircraft_sn.as_str(),
            "device_online_status": i64::from(self.hardware.aircraft_on),
            "device_paired": 1,
        });
        if self.hardware.aircraft_on {
            sub_device["device_model_key"] = json!(self.config.model.aircraft_key());
        }
        sub_device
    }

    fn authority_info(&self) -> Value {
        let is_held = self.authority || self.conditions.no_authority;
        let source = if is_held { self.control_source() } else { "" };
        let camera = self.payloads.camera.index;
        json!({"control_source": source, "locked": false,
            "payloads": [{"control_source": source, "payload_index": camera, "sn": "",
                "locked": false}]})
    }

    fn task_step(&self) -> i64 {
        match self.sky.stage {
            Stage::Preparing { .. } => 0,
            Stage::Airborne | Stage::Returning | Stage::Landing { .. } => 1,
            Stage::Stowing => 2,
            Stage::Docked | Stage::Outside => 5,
        }
    }

    fn cell_voltage(&self) -> i64 {
        (21_000.0 + self.aircraft.battery * 40.0).round() as i64
    }

    /// What the aircraft tells under a key; null where it has nothing to tell.
    pub(super) fn aircraft_value(&self, key: &str) -> Value {
        let aircraft = &self.aircraft;
        match key {
            "activation_time" => json!(1_704_067_200),
            "attitude_head" => json!(tenths(aircraft.heading)),
            "attitude_pitch" => json!(tenths(-aircraft.horizontal_speed())),
            "attitude_roll" => json!(0),
            "battery" => self.batteries(),
            "cameras" => json!([self.payloads.camera.osd()]),
            "elevation" => {
                json!(if self.sky.is_flying() { tenths(aircraft.elevation()) } else { 0.0 })
            }
            "height" => json!(aircraft.position.height),
            "latitude" => json!(aircraft.position.latitude),
            "longitude" => json!(aircraft.position.longitude),
            "home_distance" => json!(aircraft.position.ground_distance(self.config.home)),
            "horizontal_speed" => json!(tenths(aircraft.horizontal_speed())),
            "vertical_speed" => json!(tenths(aircraft.velocity.2)),
            "mode_code" => json!(self.aircraft_mode()),
            "mode_code_reason" => json!(self.sky.reason),
            "total_flight_distance" => json!(aircraft.odometer),
            "total_flight_sorties" => json!(self.sky.sorties),
            "total_flight_time" => json!(aircraft.hours),
            "track_id" => json!(self.sky.track_id),
            "wind_direction" => json!(2),
            // In tenths, as recorded.
            "wind_speed" => {
                let recorded = || self.reading(20.0, 15.0, 7.0);
                json!(self.conditions.wind.map_or_else(recorded, |wind| wind * 10.0).round())
            }
            "home_latitude" => json!(self.home_point().0),
            "home_longitude" => json!(self.home_point().1),
            "best_link_gateway" => json!(self.sn.as_str()),
            "firmware_version" => json!(self.config.model.airframe().firmware),
            "control_source" => {
                let is_ours = self.authority || self.config.model.is_dock();
                let is_taken = self.conditions.no_authority;
                json!(if is_taken || is_ours { self.control_source() } else { "" })
            }
            "payloads" => json!([
                {"control_source": "A", "payload_index": self.payloads.camera.index, "sn": ""}]),
            "wireless_link_topo" => self.link_topology(),
            other => aircraft_fixture(other).unwrap_or_else(|| {
                self.properties.of_aircraft().get(other).cloned().unwrap_or_default()
            }),
        }
    }

    /// Where it took off. Beside a remote controller it is nonsense before the first flight.
    fn home_point(&self) -> (f64, f64) {
        if !self.config.model.is_dock() && self.sky.sorties == 0 {
            return (NO_HOME, NO_HOME);
        }
        (self.aircraft.takeoff.latitude, self.aircraft.takeoff.longitude)
    }

    fn batteries(&self) -> Value {
        let minutes = self.config.model.airframe().performance.endurance / 60.0;
        let left = (self.aircraft.battery / 100.0 * minutes * 60.0).round();
        json!({
            "batteries": [{
                "capacity_percent": self.battery(), "firmware_version": "10.01.1609",
                "high_voltage_storage_days": 3, "index": 0, "loop_times": 44,
                "sn": format!("{}-B1", self.aircraft_sn), "sub_type": 0,
                "temperature": self.reading(31.0, 2.0, 15.0), "type": 0,
                "voltage": self.cell_voltage()}],
            "capacity_percent": self.battery(), "landing_power": 7,
            "remain_flight_time": if self.sky.is_flying() { left } else { 0.0 },
            "return_home_power": 20})
    }
}

/// What an aircraft tells and nothing here changes.
fn aircraft_fixture(key: &str) -> Option<Value> {
    Some(match key {
        "country" => json!("CN"),
        "gear" => json!(1),
        "is_near_area_limit"
        | "is_near_height_limit"
        | "compatible_status"
        | "firmware_upgrade_status" => json!(0),
        "current_rth_mode" | "rth_mode" | "current_commander_flight_mode" => json!(1),
        "rid_state" => json!(true),
        "offline_map_enable" | "is_beidou_version" => json!(false),
        "dongle_infos" | "ai_model_list" => json!([]),
        "low_battery_warning_threshold" => json!(20),
        "serious_low_battery_warning_threshold" => json!(10),
        "geo_caging_status" => json!({"state": 0}),
        "flysafe_database_version" => json!("01.00.01.39"),
        "wpmz_version" => json!("1.0.2"),
        "psdk_ui_resource" => {
            json!([{"object_key": "default", "psdk_index": 2, "psdk_ready": 1}])
        }
        "psdk_widget_values" => json!([{
            "psdk_index": 2, "psdk_lib_version": "", "psdk_name": "Speaker", "psdk_sn": "",
            "psdk_type": 5, "psdk_version": "01.00.01.11",
            "speaker": {"play_file_md5": "", "play_file_name": "", "play_mode": 0,
                "play_volume": 30, "system_state": 0, "work_mode": 0},
            "values": []}]),
        "fts_info" => json!({
            "fts_firmware_version": "", "fts_sn": "", "fts_status": NOTHING,
            "fts_timestamp": 0, "fts_valid_duration": 0, "fts_verification_code": ""}),
        "maintain_status" => json!({"maintain_status_array": [{
            "last_maintain_flight_sorties": 0, "last_maintain_flight_time": 0,
            "last_maintain_time": 0, "last_maintain_type": 1, "state": 0}]}),
        "position_state" => {
            json!({"gps_number": 30, "is_fixed": 2, "quality": 5, "rtk_number": 36})
        }
        "storage" => json!({"total": 60_382_000, "used": 851_000}),
        _ => return None,
    })
}
