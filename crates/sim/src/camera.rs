//! The aircraft's camera and gimbal, as far as a dock tells of them.

use serde_json::{Value, json};

use crate::model::airframe::Airframe;

/// How the camera stands.
#[derive(Debug, Clone, PartialEq)]
pub struct Camera {
    /// Its `payload_index`.
    pub index: &'static str,
    /// Whether it sees heat.
    thermal: bool,
    /// 0 photo, 1 video, 2 low light, 3 panorama.
    pub mode: i64,
    pub recording: bool,
    pub photo_running: bool,
    pub photos_left: i64,
    pub zoom: f64,
    pub split: bool,
    pub gimbal_pitch: f64,
    pub gimbal_yaw: f64,
    pub exposure_mode: i64,
    pub exposure_value: i64,
    pub focus_mode: i64,
    pub focus_value: i64,
}

impl Camera {
    pub fn of(airframe: &Airframe) -> Self {
        Self {
            index: airframe.camera,
            thermal: airframe.thermal,
            mode: 0,
            recording: false,
            photo_running: false,
            photos_left: 9_000,
            zoom: 2.0,
            split: false,
            gimbal_pitch: 0.0,
            gimbal_yaw: 0.0,
            exposure_mode: 1,
            exposure_value: 16,
            focus_mode: 2,
            focus_value: 31,
        }
    }

    /// The one item of `cameras` in the aircraft's osd.
    pub fn osd(&self) -> Value {
        let mut camera = json!({
            "payload_index": self.index,
            "camera_mode": self.mode,
            "photo_state": i64::from(self.photo_running),
            "recording_state": i64::from(self.recording),
            "record_time": 0,
            "remain_photo_num": self.photos_left,
            "remain_record_duration": 4_000,
            "screen_split_enable": self.split,
            "zoom_factor": self.zoom,
            "liveview_world_region": {"bottom": 0.56, "left": 0.43, "right": 0.56, "top": 0.43},
            "photo_storage_settings": ["current"],
            "video_storage_settings": ["current"],
            "wide_exposure_mode": self.exposure_mode,
            "wide_exposure_value": self.exposure_value,
            "wide_iso": 3,
            "wide_shutter_speed": 8,
            "zoom_exposure_mode": self.exposure_mode,
            "zoom_exposure_value": self.exposure_value,
            "zoom_iso": 3,
            "zoom_shutter_speed": 8,
            "zoom_focus_mode": self.focus_mode,
            "zoom_focus_state": 0,
            "zoom_focus_value": self.focus_value,
            "zoom_max_focus_value": 98,
            "zoom_min_focus_value": 0,
            "zoom_calibrate_farthest_focus_value": 31,
            "zoom_calibrate_nearest_focus_value": 65,
        });
        if self.thermal {
            camera["ir_metering_mode"] = json!(0);
            camera["ir_metering_point"] = json!({"temperature": 22.2, "x": 0.5, "y": 0.5});
            camera["ir_zoom_factor"] = json!(2);
        }
        camera
    }

    /// The gimbal's part of the aircraft's osd, which stands under the payload's index.
    pub fn gimbal_osd(&self, heading: f64) -> Value {
        let mut gimbal = json!({
            "payload_index": self.index,
            "gimbal_pitch": self.gimbal_pitch,
            "gimbal_roll": 0,
            "gimbal_yaw": crate::geo::wrapped(heading + self.gimbal_yaw),
            "zoom_factor": self.zoom,
        });
        if self.thermal {
            gimbal["thermal_current_palette_style"] = json!(0);
            gimbal["thermal_gain_mode"] = json!(2);
            gimbal["thermal_global_temperature_max"] = json!(49.8);
            gimbal["thermal_global_temperature_min"] = json!(19.3);
            gimbal["thermal_isotherm_state"] = json!(0);
        }
        gimbal
    }
}
