//! Camera, gimbal, speaker, widgets and live streams.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::{
    Dock,
    commands::{Command, Verdict},
    work::{Form, Step},
};
use crate::{camera::Camera, model::airframe::Airframe, refusal};

/// What the aircraft carries, and who looks at it.
#[derive(Debug)]
pub struct Payloads {
    pub camera: Camera,
    live: BTreeMap<String, Stream>,
}

#[derive(Debug, Clone, PartialEq)]
struct Stream {
    quality: i64,
    lens: String,
}

impl Payloads {
    pub fn of(airframe: &Airframe) -> Self {
        Self { camera: Camera::of(airframe), live: BTreeMap::new() }
    }

    pub fn streams(&self) -> impl Iterator<Item = &str> {
        self.live.keys().map(String::as_str)
    }
}

impl Dock {
    pub(super) fn payload_command(&mut self, command: &Command<'_>) -> Option<Verdict> {
        let method = command.method;
        if method.starts_with("live_") {
            return self.live_command(command);
        }
        if method.starts_with("speaker_") || method.starts_with("psdk_") {
            return self.speaker_command(command);
        }
        let of_camera = ["camera_", "gimbal_", "ir_metering_", "photo_storage_", "video_storage_"];
        let about_camera = of_camera.iter().any(|prefix| method.starts_with(prefix))
            || method == "payload_authority_grab";
        // A method the catalogue does not know is not carried out because of its name.
        if !about_camera || self.catalogue.method(method).is_none() {
            return None;
        }
        Some(Verdict::unless(self.camera_refused(command), || self.camera_command(command)))
    }

    /// Why the camera cannot do it, if it cannot: it is off, or another one is meant.
    pub(super) fn camera_refused(&self, command: &Command<'_>) -> Option<i64> {
        let index = command.data.get("payload_index")?;
        if !self.hardware.aircraft_on {
            return Some(refusal::AIRCRAFT_OFF);
        }
        // A recorded dock takes camera_look_at with an empty index.
        let look_at = command.method.ends_with("camera_look_at") && index.as_str() == Some("");
        (index.as_str() != Some(self.payloads.camera.index) && !look_at)
            .then_some(refusal::BAD_PARAMETER)
    }

    fn camera_command(&mut self, command: &Command<'_>) -> Verdict {
        if command.data.get("payload_index").is_none() {
            return Verdict::Refused(refusal::BAD_PARAMETER);
        }
        let camera = &mut self.payloads.camera;
        let set = |field: &mut i64, value: Option<i64>| {
            if let Some(value) = value {
                *field = value;
            }
        };
        match command.method {
            "payload_authority_grab" => {
                self.push_aircraft_keys(&["payloads"]);
            }
            "camera_mode_switch" => match command.integer("/camera_mode") {
                Some(mode @ 0..=3) => camera.mode = mode,
                Some(_) | None => return Verdict::Refused(refusal::BAD_PARAMETER),
            },
            "camera_recording_start" => {
                if camera.recording {
                    return Verdict::Refused(refusal::RECORDING_NOT_STARTED);
                }
                camera.recording = true;
            }
            "camera_recording_stop" => {
                if !camera.recording {
                    return Verdict::Refused(refusal::RECORDING_NOT_STOPPED);
                }
                camera.recording = false;
            }
            "camera_photo_take" => return self.take_photo(command),
            "camera_photo_stop" => {
                camera.photo_running = false;
                self.break_jobs("camera_photo_take", "fail", refusal::PANORAMA_STOPPED);
            }
            "camera_focal_length_set" => {
                camera.zoom = command.number("/zoom_factor").unwrap_or(camera.zoom);
            }
            "camera_screen_split" => {
                let enable = command.data.get("enable");
                camera.split = enable.and_then(Value::as_bool).unwrap_or(camera.split);
            }
            "camera_exposure_mode_set" => {
                set(&mut camera.exposure_mode, command.integer("/exposure_mode"));
            }
            "camera_exposure_set" => {
                set(&mut camera.exposure_value, command.integer("/exposure_value"));
            }
            "camera_focus_mode_set" => set(&mut camera.focus_mode, command.integer("/focus_mode")),
            "camera_focus_value_set" => {
                set(&mut camera.focus_value, command.integer("/focus_value"));
            }
            "camera_screen_drag" => {
                let pitch = command.number("/pitch_speed").unwrap_or(0.0);
                let yaw = command.number("/yaw_speed").unwrap_or(0.0);
                camera.gimbal_pitch = (camera.gimbal_pitch + pitch.to_degrees()).clamp(-90.0, 35.0);
                camera.gimbal_yaw = (camera.gimbal_yaw + yaw.to_degrees()).clamp(-30.0, 30.0);
            }
            "gimbal_reset" => {
                // 0 both to the middle, 1 down with yaw to the middle, 2 yaw only, 3 pitch down.
                match command.integer("/reset_mode") {
                    Some(0) => (camera.gimbal_pitch, camera.gimbal_yaw) = (0.0, 0.0),
                    Some(1) => (camera.gimbal_pitch, camera.gimbal_yaw) = (-90.0, 0.0),
                    Some(2) => camera.gimbal_yaw = 0.0,
                    Some(3) => camera.gimbal_pitch = -90.0,
                    Some(_) | None => return Verdict::Refused(refusal::BAD_PARAMETER),
                }
            }
            // Aim, look at, focus point, metering, storage: done, and nothing osd would show.
            _ => {}
        }
        Verdict::done()
    }

    /// A single photo is done with the answer; a panorama is a job.
    fn take_photo(&mut self, command: &Command<'_>) -> Verdict {
        const PANORAMA: i64 = 3;
        let camera = &mut self.payloads.camera;
        if camera.mode != PANORAMA {
            camera.photos_left = (camera.photos_left - 1).max(0);
            return Verdict::done_ok();
        }
        if !self.sky.is_flying() {
            return Verdict::Refused(refusal::PANORAMA_ON_GROUND);
        }
        camera.photo_running = true;
        let steps = [
            Step::at(1.0, 10, 3002),
            Step::at(5.0, 40, 3002),
            Step::at(5.0, 70, 3002),
            Step::at(5.0, 90, 3005),
            Step::last(4.0, "ok", Some(json!(3000))),
        ];
        self.start_job(command, "camera_photo_take_progress", Form::Panorama, steps);
        Verdict::in_progress()
    }

    fn speaker_command(&mut self, command: &Command<'_>) -> Option<Verdict> {
        if !self.hardware.aircraft_on {
            return Some(Verdict::Refused(refusal::AIRCRAFT_OFF));
        }
        let index = command.data.get("psdk_index").cloned();
        let slot = command.integer("/psdk_index").filter(|slot| (0..=3).contains(slot));
        let (event, md5, steps, good) = match command.method {
            "speaker_audio_play_start" => (
                "speaker_audio_play_start_progress",
                command.data.pointer("/file/md5").cloned(),
                &["download", "encoding", "change_work_mode", "upload", "play"][..],
                "ok",
            ),
            "speaker_tts_play_start" => (
                "speaker_tts_play_start_progress",
                command.data.pointer("/tts/md5").cloned(),
                &["change_work_mode", "upload", "play"][..],
                // The table says `ok`, the page's example of this one `success`.
                "success",
            ),
            "speaker_play_stop" => {
                let word = "canceled";
                self.break_jobs("speaker_audio_play_start", word, refusal::STOPPED_BY_HAND);
                self.break_jobs("speaker_tts_play_start", word, refusal::STOPPED_BY_HAND);
                return Some(Verdict::done());
            }
            _ => return None,
        };
        let (Some(psdk_index), Some(_), Some(md5)) = (index, slot, md5) else {
            return Some(Verdict::Refused(refusal::BAD_PARAMETER));
        };
        let share = 100 / i64::try_from(steps.len() + 1).unwrap_or(4);
        let progress = (1_i64..).zip(steps).map(|(n, key)| Step::at(1.5, n * share, *key));
        let last = Step::last(1.5, good, Some(json!("play")));
        let form = Form::Speaker { psdk_index, md5 };
        self.start_job(command, event, form, progress.chain([last]));
        Some(Verdict::started())
    }

    fn live_command(&mut self, command: &Command<'_>) -> Option<Verdict> {
        let video = command.text("/video_id").map(str::to_owned);
        Some(match command.method {
            "live_start_push" => self.start_live(command, video),
            "live_stop_push" => match video.and_then(|id| self.payloads.live.remove(&id)) {
                Some(_) => {
                    self.push_live_status();
                    Verdict::done()
                }
                None => Verdict::Refused(refusal::NO_STREAM),
            },
            "live_set_quality" => {
                let Some(quality @ 0..=4) = command.integer("/video_quality") else {
                    return Some(Verdict::Refused(refusal::BAD_QUALITY));
                };
                self.change_live(video.as_deref(), |stream| stream.quality = quality)
            }
            "live_lens_change" => {
                let lens = command.text("/video_type").unwrap_or_default().to_owned();
                let infrared = self.config.model.gateway().infrared;
                if !["normal", "wide", "zoom", infrared].contains(&lens.as_str()) {
                    return Some(Verdict::Refused(refusal::BAD_STREAM));
                }
                // The public platform's method names no stream: then all of them are meant.
                self.change_live(video.as_deref(), |stream| stream.lens.clone_from(&lens))
            }
            _ => return None,
        })
    }

    fn start_live(&mut self, command: &Command<'_>, video: Option<String>) -> Verdict {
        let (Some(video), Some(url_type)) = (video, command.integer("/url_type")) else {
            return Verdict::Refused(refusal::BAD_STREAM);
        };
        if !matches!(url_type, 0 | 1 | 3 | 4) {
            return Verdict::Refused(refusal::BAD_PROTOCOL);
        }
        if command.text("/url").is_none() {
            return Verdict::Refused(refusal::BAD_STREAM);
        }
        let Some(quality @ 0..=4) = command.integer("/video_quality") else {
            return Verdict::Refused(refusal::BAD_QUALITY);
        };
        if !self.has_camera(&video) {
            return Verdict::Refused(refusal::NO_CAMERA);
        }
        if self.payloads.live.contains_key(&video) {
            return Verdict::Refused(refusal::ALREADY_STREAMING);
        }
        self.payloads.live.insert(video, Stream { quality, lens: "wide".to_owned() });
        self.push_live_status();
        Verdict::done()
    }

    /// Whether `{sn}/{camera}/{video}` names a camera of the dock or of its aircraft.
    fn has_camera(&self, video: &str) -> bool {
        let mut parts = video.split('/');
        let (sn, camera) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
        let (gateway, airframe) = (self.config.model.gateway(), self.config.model.airframe());
        if sn == self.sn.as_str() {
            return gateway.station.as_ref().is_some_and(|station| station.camera == camera);
        }
        sn == self.aircraft_sn.as_str()
            && self.hardware.aircraft_on
            && (camera == airframe.camera || airframe.assist == Some(camera))
    }

    fn change_live(&mut self, video: Option<&str>, change: impl Fn(&mut Stream)) -> Verdict {
        let mut changed = false;
        for (id, stream) in &mut self.payloads.live {
            if video.is_none_or(|video| video == id) {
                change(stream);
                changed = true;
            }
        }
        if !changed {
            return Verdict::Refused(refusal::NO_STREAM);
        }
        self.push_live_status();
        Verdict::done()
    }

    fn push_live_status(&mut self) {
        let list = self.live_status();
        self.state(self.sn.to_device(), &json!({"live_status": list}));
    }

    pub(super) fn live_status(&self) -> Vec<Value> {
        self.payloads
            .live
            .iter()
            .map(|(id, stream)| {
                json!({
                    "video_id": id, "video_type": stream.lens, "video_quality": stream.quality,
                    "status": 1, "error_status": 0,
                })
            })
            .collect()
    }

    /// `live_capacity` of the gateway's state: what can be streamed.
    pub(super) fn live_capacity(&self) -> Value {
        let camera = |index: &str, lenses: &[&str]| {
            json!({
                "camera_index": index, "available_video_number": 1, "coexist_video_number_max": 1,
                "video_list": [{
                    "video_index": "normal-0", "video_type": lenses.first(),
                    "switchable_video_types": lenses,
                }],
            })
        };
        let (gateway, airframe) = (self.config.model.gateway(), self.config.model.airframe());
        let device = |sn: &str, cameras: Vec<Value>| {
            json!({
                "sn": sn, "available_video_number": cameras.len(), "coexist_video_number_max": 1,
                "camera_list": cameras,
            })
        };
        let station = gateway.station.iter();
        let mut devices: Vec<Value> = station
            .map(|station| device(self.sn.as_str(), vec![camera(station.camera, &["normal"])]))
            .collect();
        let mut count = devices.len();
        if self.hardware.aircraft_on {
            let lenses = ["wide", "zoom", gateway.infrared];
            let lenses = if airframe.thermal { &lenses[..] } else { &lenses[..2] };
            let assist = airframe.assist.map(|index| camera(index, &["normal"]));
            let cameras: Vec<Value> =
                [camera(airframe.camera, lenses)].into_iter().chain(assist).collect();
            count += cameras.len();
            devices.push(device(self.aircraft_sn.as_str(), cameras));
        }
        json!({
            "available_video_number": count, "coexist_video_number_max": devices.len(),
            "device_list": devices,
        })
    }
}
