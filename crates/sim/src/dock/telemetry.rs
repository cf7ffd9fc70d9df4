//! What is told by itself: `osd` of the dock in three parts and of the aircraft in one, at 0.5 Hz each, `state` when
//! something changes, alarms while a task runs.

use rand::RngExt;
use serde_json::{Value, json};
use utmos_dji::{device_side, downlink::Heading, topic::UplinkTopic};
use utmos_mqtt::Qos;

use super::{
    Dock, Due,
    debugging::Mode,
    flying::{Stage, tenths},
    link::AIRCRAFT_KEY,
};

/// 0.5 Hz.
const OSD_PERIOD_MS: u64 = 2_000;
const PARTS: usize = 3;
const FIRMWARE_DOCK: &str = "10.01.1609";
const FIRMWARE_AIRCRAFT: &str = "10.01.1609";

impl Dock {
    pub(super) fn start_telemetry(&mut self) {
        self.stop_telemetry();
        if self.settings.quiet {
            return;
        }
        // The docks of a fleet do not speak in chorus.
        let phase = self.rng.random_range(0..OSD_PERIOD_MS / 2);
        for part in 0..PARTS {
            let lag = u64::try_from(part).unwrap_or(0) * 150;
            self.after(phase + lag, Due::DockOsd(part));
        }
        self.after(phase + 900, Due::AircraftOsd);
        self.after(phase + 500, Due::Alarms);
    }

    pub(super) fn stop_telemetry(&mut self) {
        self.timers.cancel(|due| matches!(due, Due::DockOsd(_) | Due::AircraftOsd | Due::Alarms));
    }

    pub(super) fn push_dock_osd(&mut self, part: usize) {
        let now = self.flight_clock();
        self.aircraft.advance(now);
        let data = match part {
            0 => self.surroundings(),
            1 => self.upkeep_osd(),
            _ => self.links(),
        };
        let device = self.sn.to_device();
        self.push_osd(UplinkTopic::Osd { device }, &data);
        self.after(OSD_PERIOD_MS, Due::DockOsd(part));
    }

    pub(super) fn push_aircraft_osd(&mut self) {
        if self.hardware.aircraft_on {
            let now = self.flight_clock();
            self.aircraft.advance(now);
            let data = self.aircraft_osd();
            self.push_osd(UplinkTopic::Osd { device: self.aircraft_sn.clone() }, &data);
        }
        self.after(OSD_PERIOD_MS, Due::AircraftOsd);
    }

    /// An empty list while all is well, without `need_reply`, as a recorded dock sends it during a flight.
    pub(super) fn push_alarms(&mut self) {
        if self.hardware.mode == Mode::Working {
            self.event("hms", None, None, &json!({"list": []}));
        }
        self.after(OSD_PERIOD_MS, Due::Alarms);
    }

    fn push_osd(&mut self, topic: UplinkTopic, data: &Value) {
        let (tid, bid) = (self.new_id(), self.new_id());
        let heading = Heading { tid: &tid, bid: &bid, at: self.wall() };
        let payload = device_side::osd(heading, &self.sn, &data.to_string());
        self.publish(&topic, payload, Qos::AtMostOnce);
    }

    /// A slow wave around a middle, another for every dock: weather and currents that change a little.
    fn reading(&self, middle: f64, reach: f64, minutes: f64) -> f64 {
        let phase = f64::from(u8::try_from(self.behind.rem_euclid(200)).unwrap_or(0));
        let at = self.now.mono.as_millis() as f64 / 60_000.0 / minutes;
        tenths(middle + reach * (at * std::f64::consts::TAU + phase).sin())
    }

    fn surroundings(&self) -> Value {
        let home = self.config.home;
        let mut data = json!({
            "network_state": {"type": 2, "quality": 0, "rate": self.reading(400.0, 150.0, 3.0)},
            "drone_charge_state": {
                "state": i64::from(self.hardware.charging), "capacity_percent": self.battery()},
            "rainfall": self.conditions.rain,
            "wind_speed": self.conditions.wind.unwrap_or_else(|| self.reading(2.0, 1.5, 7.0)),
            "environment_temperature": self.reading(26.0, 3.0, 60.0),
            "temperature": self.reading(25.0, 2.0, 60.0),
            "humidity": self.reading(65.0, 8.0, 60.0).round(),
            "heading": self.hardware.heading,
            "home_position_is_valid": 1,
            "latitude": home.latitude, "longitude": home.longitude, "height": home.height,
            "alternate_land_point": {
                "latitude": home.moved(12.0, 0.0).latitude, "longitude": home.longitude,
                "height": 0, "safe_land_height": 30, "is_configured": 1},
            "first_power_on": 1_631_945_855_969_i64,
            "position_state": {
                "is_calibration": 1, "is_fixed": 2, "quality": 5, "gps_number": 9, "rtk_number": 32},
            "storage": {"total": 53_082_240, "used": 20_184},
            "silent_mode": self.properties.of_dock()["silent_mode"],
            "emergency_stop_state": 0,
        });
        // The model is there with the aircraft on, and gone with it off.
        let mut sub_device = json!({
            "device_sn": self.aircraft_sn.as_str(),
            "device_online_status": i64::from(self.hardware.aircraft_on),
            "device_paired": 1,
        });
        if self.hardware.aircraft_on {
            sub_device["device_model_key"] = json!(AIRCRAFT_KEY);
        }
        data["sub_device"] = sub_device;
        if let (Value::Object(data), Value::Object(hardware)) = (&mut data, self.hardware_osd()) {
            data.extend(hardware);
        }
        data
    }

    fn upkeep_osd(&self) -> Value {
        json!({
            "job_number": self.hardware.jobs_done,
            "activation_time": 1_704_067_200,
            "maintain_status": {"maintain_status_array": [
                {"state": 0, "last_maintain_type": 17, "last_maintain_time": 0, "last_maintain_work_sorties": 0},
                {"state": 0, "last_maintain_type": 18, "last_maintain_time": 0, "last_maintain_work_sorties": 0}]},
            "electric_supply_voltage": self.reading(230.0, 4.0, 5.0).round(),
            "working_voltage": self.reading(47_400.0, 80.0, 2.0).round(),
            "working_current": self.reading(3_100.0, 200.0, 2.0).round(),
            "backup_battery": {"voltage": 26_600, "temperature": self.reading(28.0, 1.0, 30.0), "switch": 1},
            "drone_battery_maintenance_info": {
                "maintenance_state": if self.hardware.battery_maintenance { 2 } else { 0 },
                "maintenance_time_left": 0, "heat_state": 0,
                "batteries": [{
                    "index": 0, "capacity_percent": self.battery(),
                    "voltage": self.cell_voltage(), "temperature": self.reading(30.0, 1.0, 20.0)}]},
        })
    }

    fn links(&self) -> Value {
        let step = match self.sky.stage {
            Stage::Preparing { .. } => 0,
            Stage::Airborne | Stage::Returning | Stage::Landing { .. } => 1,
            Stage::Stowing => 2,
            Stage::Docked | Stage::Outside => 5,
        };
        json!({
            "drc_state": if self.drc.is_some() { 2 } else { 0 },
            "flighttask_prepare_capacity": 1,
            "flighttask_step_code": step,
            "media_file_detail": {"remain_upload": 0},
            "user_experience_improvement": self.properties.of_dock()["user_experience_improvement"],
            "wireless_link": {
                "4g_freq_band": 5.8, "4g_gnd_quality": 0, "4g_link_state": 0, "4g_quality": 0,
                "4g_uav_quality": 0, "dongle_number": 0,
                "link_workmode": self.hardware.link_workmode, "sdr_freq_band": 2.4,
                "sdr_link_state": i64::from(self.hardware.aircraft_on),
                "sdr_quality": if self.hardware.aircraft_on { 5 } else { 0 }},
        })
    }

    fn cell_voltage(&self) -> i64 {
        (21_000.0 + self.aircraft.battery * 40.0).round() as i64
    }

    fn aircraft_osd(&self) -> Value {
        let aircraft = &self.aircraft;
        let at = aircraft.position;
        let camera = &self.payloads.camera;
        let properties = self.properties.of_aircraft();
        let flight_left = (aircraft.battery * 24.0).round();
        let mut data = json!({
            "activation_time": 1_704_067_200,
            "attitude_head": tenths(aircraft.heading),
            "attitude_pitch": tenths(-aircraft.horizontal_speed()),
            "attitude_roll": 0,
            "battery": {
                "batteries": [{
                    "capacity_percent": self.battery(), "firmware_version": "10.01.1609",
                    "high_voltage_storage_days": 3, "index": 0, "loop_times": 44,
                    "sn": format!("{}-B1", self.aircraft_sn), "sub_type": 0,
                    "temperature": self.reading(31.0, 2.0, 15.0), "type": 0,
                    "voltage": self.cell_voltage()}],
                "capacity_percent": self.battery(), "landing_power": 7,
                "remain_flight_time": if self.sky.is_flying() { flight_left } else { 0.0 },
                "return_home_power": 20},
            "cameras": [camera.osd()],
            "country": "CN",
            "distance_limit_status": {"distance_limit": 15_000, "is_near_distance_limit": 0, "state": 0},
            "elevation": if self.sky.is_flying() { tenths(aircraft.elevation()) } else { 0.0 },
            "gear": 1,
            "height": at.height,
            "height_limit": properties["height_limit"],
            "home_distance": aircraft.position.ground_distance(self.config.home),
            "horizontal_speed": tenths(aircraft.horizontal_speed()),
            "is_near_area_limit": 0, "is_near_height_limit": 0,
            "latitude": at.latitude, "longitude": at.longitude,
            "maintain_status": {"maintain_status_array": [{
                "last_maintain_flight_sorties": 0, "last_maintain_flight_time": 0,
                "last_maintain_time": 0, "last_maintain_type": 1, "state": 0}]},
            "mode_code": self.aircraft_mode(),
            "night_lights_state": properties["night_lights_state"],
            "obstacle_avoidance": properties["obstacle_avoidance"],
            "position_state": {"gps_number": 30, "is_fixed": 2, "quality": 5, "rtk_number": 36},
            "storage": {"total": 60_382_000, "used": 851_000},
            "total_flight_distance": aircraft.odometer,
            "total_flight_sorties": self.sky.sorties,
            "total_flight_time": aircraft.hours,
            "track_id": self.sky.track_id,
            "vertical_speed": tenths(aircraft.velocity.2),
            "wind_direction": 2,
            // In tenths, as recorded.
            "wind_speed": self.conditions.wind.map_or_else(
                || self.reading(20.0, 15.0, 7.0).round(), |wind| (wind * 10.0).round()),
        });
        data[crate::camera::PAYLOAD] = camera.gimbal_osd(aircraft.heading);
        data
    }

    /// Everything `state` holds, after coming online.
    pub(super) fn push_whole_state(&mut self) {
        let mut dock = json!({
            "acc_time": 3_600,
            "compatible_status": 0,
            "dongle_infos": [],
            "firmware_upgrade_status": i64::from(self.hardware.mode == Mode::Updating),
            "firmware_version": FIRMWARE_DOCK,
            "live_capacity": self.live_capacity(),
            "live_status": self.live_status(),
            "rtcm_info": {
                "mount_point": "", "port": "", "host": "", "rtcm_device_type": 1, "source_type": 1},
        });
        merge(&mut dock, self.properties.of_dock());
        self.state(self.sn.to_device(), &dock);
        self.push_aircraft_state();
    }

    /// What the aircraft's state holds; after it was switched on and when a flight changes its stage.
    pub(super) fn push_aircraft_state(&mut self) {
        if !self.hardware.aircraft_on {
            return;
        }
        let home = self.aircraft.takeoff;
        let mut data = json!({
            "best_link_gateway": self.sn.as_str(),
            "compatible_status": 0,
            "control_source": self.control_source(),
            "current_rth_mode": 1,
            "dongle_infos": [],
            "firmware_upgrade_status": 0,
            "firmware_version": FIRMWARE_AIRCRAFT,
            "home_latitude": home.latitude,
            "home_longitude": home.longitude,
            "low_battery_warning_threshold": 20,
            "serious_low_battery_warning_threshold": 10,
            "mode_code_reason": self.sky.reason,
            "offline_map_enable": false,
            "payloads": [{"control_source": "A", "payload_index": crate::camera::PAYLOAD}],
            "rth_mode": 1,
        });
        for name in [
            "commander_flight_height",
            "commander_flight_mode",
            "commander_mode_lost_action",
            "camera_watermark_settings",
        ] {
            data[name] = self.properties.of_aircraft()[name].clone();
        }
        self.state(self.aircraft_sn.clone(), &data);
    }
}

fn merge(into: &mut Value, from: &Value) {
    if let (Value::Object(into), Value::Object(from)) = (into, from) {
        into.extend(from.clone());
    }
}
