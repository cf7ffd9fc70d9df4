//! What keeps a dock going: firmware, logs, flight areas, licences, custom data, orbits.

use serde_json::{Map, Value, json};

use super::{
    Dock,
    commands::{Command, Verdict},
    debugging::{Mode, is_dock_job},
    flying::Stage,
    work::{Form, Step},
};
use crate::{flight::Leg, refusal};

/// Custom data to a payload or a program must be shorter than this, in bytes.
const CUSTOM_BYTES_MAX: usize = 256;
/// Orbits: corners of the way round, and its radius in metres.
const ORBIT_CORNERS: u32 = 12;
const ORBIT_RADIUS: f64 = 30.0;
const ORBIT_SPEED: f64 = 5.0;

impl Dock {
    pub(super) fn upkeep(&mut self, command: &Command<'_>) -> Option<Verdict> {
        Some(match command.method {
            "ota_create" => self.update_firmware(command),
            "fileupload_list" => self.list_logs(command),
            "fileupload_start" => self.upload_logs(command),
            "fileupload_update" => {
                if command.text("/status") != Some("cancel") {
                    return Some(Verdict::Refused(refusal::BAD_PARAMETER));
                }
                self.break_jobs("fileupload_start", "canceled", refusal::STOPPED_BY_HAND);
                Verdict::done()
            }
            "flight_areas_update" => {
                let steps = [
                    Step::nameless(1.0, 0).saying("wait_sync"),
                    Step::nameless(2.0, 50).saying("synchronizing"),
                    Step::last(4.0, "synchronized", None),
                ];
                // The dock fetches the list before it brings it to the aircraft.
                self.request("flight_areas_get", &Value::Null);
                let event = "flight_areas_sync_progress";
                self.start_job(command, event, Form::FlightAreas, steps);
                Verdict::started()
            }
            "custom_data_transmission_to_psdk" | "custom_data_transmission_to_esdk" => {
                let value = command.data.get("value").and_then(Value::as_str);
                match value.filter(|value| value.len() < CUSTOM_BYTES_MAX) {
                    Some(_) => Verdict::done(),
                    None => Verdict::Refused(refusal::BAD_PARAMETER),
                }
            }
            "poi_mode_enter" => self.orbit(command),
            "poi_mode_exit" => {
                if !self.break_jobs("poi_mode_enter", "failed", refusal::LEFT_BY_COMMAND) {
                    return Some(Verdict::Refused(refusal::NOTHING_TO_STOP));
                }
                self.hold();
                Verdict::done()
            }
            "poi_circle_speed_set" => {
                if !self.is_working(|method| method == "poi_mode_enter") {
                    return Some(Verdict::Refused(refusal::NOT_SUPPORTED));
                }
                Verdict::done()
            }
            _ => return None,
        })
    }

    fn update_firmware(&mut self, command: &Command<'_>) -> Verdict {
        let devices = command.data.get("devices").and_then(Value::as_array);
        let Some(devices) = devices.filter(|devices| !devices.is_empty()) else {
            return Verdict::Refused(refusal::UPDATE_PARAMETER);
        };
        let own = |sn: &Value| {
            sn.as_str() == Some(self.sn.as_str()) || sn.as_str() == Some(self.aircraft_sn.as_str())
        };
        if !devices.iter().all(|device| device.get("sn").is_some_and(own)) {
            return Verdict::Refused(refusal::UPDATE_PARAMETER);
        }
        let refused = match self.hardware.mode {
            Mode::Updating => Some(refusal::UPDATE_RUNNING),
            Mode::Working => Some(refusal::UPDATE_WHILE_BUSY),
            Mode::Idle | Mode::RemoteDebugging if self.is_working(is_dock_job) => {
                Some(refusal::UPDATE_WHILE_BUSY)
            }
            Mode::Idle | Mode::RemoteDebugging => {
                (self.aircraft.battery < 20.0).then_some(refusal::UPDATE_BATTERY)
            }
        };
        Verdict::unless(refused, || {
            self.hardware.mode = Mode::Updating;
            let downloads = (1..=5).map(|n| Step::at(8.0, n * 10, "download_firmware"));
            let installs = (6..=9).map(|n| Step::at(20.0, n * 10, "upgrade_firmware"));
            let last = Step::last(20.0, "ok", Some(json!("upgrade_firmware")));
            let steps = downloads.chain(installs).chain([last]);
            self.start_job(command, "ota_progress", Form::Dock, steps);
            Verdict::in_progress()
        })
    }

    /// Two switched-on periods of each device asked for. The fields stand beside `result`.
    fn list_logs(&mut self, command: &Command<'_>) -> Verdict {
        let modules = command.data.get("module_list").and_then(Value::as_array);
        let Some(modules) = modules.filter(|modules| !modules.is_empty()) else {
            return Verdict::Refused(refusal::BAD_PARAMETER);
        };
        let now = self.wall().as_millis() / 1_000;
        let files: Vec<Value> = modules
            .iter()
            .filter_map(|module| {
                let (number, sn) = match module.as_str()? {
                    "0" => ("0", self.aircraft_sn.as_str()),
                    "3" => ("3", self.sn.as_str()),
                    _ => return None,
                };
                let period = |n: i64| {
                    json!({
                        "boot_index": 320 + n, "start_time": now - 7_200 * (3 - n),
                        "end_time": now - 7_200 * (2 - n), "size": 400_000 + n * 1_000,
                    })
                };
                // The module is a text, against the table and as the examples have it.
                Some(json!({
                    "device_sn": sn, "result": 0, "module": number, "list": [period(1), period(2)],
                }))
            })
            .collect();
        Verdict::Done(Map::from_iter([("files".to_owned(), Value::Array(files))]))
    }

    /// Tells of an upload. Nothing is uploaded.
    fn upload_logs(&mut self, command: &Command<'_>) -> Verdict {
        let asked = command.data.pointer("/params/files").and_then(Value::as_array);
        let Some(asked) = asked.filter(|files| !files.is_empty()) else {
            return Verdict::Refused(refusal::BAD_PARAMETER);
        };
        if self.hardware.mode == Mode::Working {
            return Verdict::Refused(refusal::NOT_IDLE);
        }
        if self.is_working(|method| method == "fileupload_start") {
            return Verdict::Refused(refusal::UPLOADING_LOGS);
        }
        let files: Vec<Value> = asked
            .iter()
            .map(|file| {
                let module = file.get("module").cloned().unwrap_or_else(|| json!("3"));
                let of_aircraft = module.as_str() == Some("0");
                json!({
                    "device_sn": if of_aircraft { self.aircraft_sn.as_str() } else { self.sn.as_str() },
                    "key": file.get("object_key").cloned().unwrap_or_default(),
                    "module": module, "size": 402_000, "fingerprint": "",
                })
            })
            .collect();
        let steps = [
            Step::nameless(1.0, 10),
            Step::nameless(3.0, 40),
            Step::nameless(3.0, 80),
            Step::last(3.0, "ok", None),
        ];
        self.start_job(command, "fileupload_progress", Form::Logs { files }, steps);
        Verdict::started()
    }

    /// Once round a point, which is enough to see it.
    fn orbit(&mut self, command: &Command<'_>) -> Verdict {
        let (Some(latitude), Some(longitude), Some(height)) =
            (command.number("/latitude"), command.number("/longitude"), command.number("/height"))
        else {
            return Verdict::Refused(refusal::BAD_PARAMETER);
        };
        let form = Form::Orbit { speed: ORBIT_SPEED };
        let busy =
            self.sky.takeoff.is_some() || self.sky.fly_to.is_some() || self.sky.wayline.is_some();
        if self.sky.stage != Stage::Airborne || busy {
            // It answers, and then says why not: 5 is "not in the air".
            let mut step = Step::failing(1.0, "failed", refusal::NOT_SUPPORTED);
            step.step = Some(json!(5));
            self.start_job(command, "poi_status_notify", form, [step]);
            return Verdict::started();
        }
        let centre = crate::Position { latitude, longitude, height };
        if let Some(code) = self.bad_target(centre, ORBIT_SPEED) {
            return Verdict::Refused(code);
        }
        let now = self.flight_clock();
        self.aircraft.advance(now);
        let corners = (0..=ORBIT_CORNERS).map(|n| {
            let angle = f64::from(n) / f64::from(ORBIT_CORNERS) * std::f64::consts::TAU;
            let to = centre.moved(ORBIT_RADIUS * angle.cos(), ORBIT_RADIUS * angle.sin());
            Leg { to, speed: ORBIT_SPEED }
        });
        self.aircraft.follow(corners);
        self.sky.legs = self.aircraft.path().count();
        let round = self.aircraft.time_left();
        let steps = (1..=4).map(|_| Step::nameless(round / 4.0, 0));
        let last = Step::last(1.0, "ok", None);
        self.start_job(command, "poi_status_notify", form, steps.chain([last]));
        Verdict::started()
    }
}
