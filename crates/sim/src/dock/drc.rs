//! Direct control: `drc_mode_enter`, then what comes on `drc/down` and goes on `drc/up`.
//!
//! A real dock connects to the broker it is given for this; this one stays on its own connection. Outside of DRC mode it
//! hears nothing on `drc/down`, as a real one does, which is not connected there.

use serde_json::{Value, json};
use utmos_core::method::{Channel, CompletesBy};
use utmos_dji::{catalogue::Placement, device_side, topic::UplinkTopic};
use utmos_mqtt::Qos;

use super::{
    Dock, Due, Output, Overruled,
    commands::{Answer, Command, Verdict},
    flying::Stage,
};
use crate::{Kind, Outcome, flight::Stick, model::gateway::Pilot, plausible, refusal};

/// An open direct control.
#[derive(Debug)]
pub struct Drc {
    /// Of the `drc_mode_enter` it belongs to; the events repeat it.
    bid: String,
    osd_period_ms: u64,
    hsi_period_ms: u64,
    heard_ms: u64,
    last: Option<Control>,
    pushed: u64,
}

/// What `drone_control` asked for last.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Control {
    seq: u64,
    stick: Stick,
}

/// What is pushed by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Push {
    Osd,
    Hsi,
    Delay,
}

const DELAY_PERIOD_MS: u64 = 1_000;
/// How long one stick command moves the aircraft, in milliseconds of real time.
const STICK_MS: f64 = 500.0;
/// From "connecting" to "connected".
const CONNECT_MS: u64 = 150;

/// Middle and reach of a stick of `stick_control`, and what it stands for at the end.
const STICK_MIDDLE: f64 = 1024.0;
const STICK_REACH: f64 = 660.0;
const STICK_SPEED: f64 = 15.0;
const STICK_CLIMB: f64 = 5.0;
const STICK_TURN: f64 = 90.0;

impl Dock {
    pub(super) fn drc_session(&mut self, command: &Command<'_>) -> Option<Verdict> {
        Some(match command.method {
            "drc_mode_enter" => self.enter_drc(command),
            "drc_mode_exit" => {
                if self.drc.is_none() {
                    return Some(Verdict::Refused(refusal::DRC_NOT_LEFT));
                }
                self.tell_drc(0, 0);
                self.drop_drc();
                Verdict::done()
            }
            _ => return None,
        })
    }

    fn enter_drc(&mut self, command: &Command<'_>) -> Verdict {
        let frequency = |pointer| command.integer(pointer).filter(|hertz| (1..=30).contains(hertz));
        let (Some(osd), Some(hsi)) = (frequency("/osd_frequency"), frequency("/hsi_frequency"))
        else {
            return Verdict::Refused(refusal::BAD_PARAMETER);
        };
        if command.text("/mqtt_broker/address").is_none() {
            return Verdict::Refused(refusal::BAD_PARAMETER);
        }
        self.drop_drc();
        let period = |hertz: i64| 1_000 / u64::try_from(hertz).unwrap_or(1).max(1);
        self.drc = Some(Drc {
            bid: command.bid.to_owned(),
            osd_period_ms: period(osd),
            hsi_period_ms: period(hsi),
            heard_ms: self.now.mono.as_millis(),
            last: None,
            pushed: 0,
        });
        self.after(self.drc_silence_ms(), Due::DrcSilence);
        // "Connecting" is told with the answer, "connected" a little later.
        let wait = self.reply_wait(command.method, 0);
        self.after(wait + 1, Due::DrcLink(1));
        self.after(wait + CONNECT_MS, Due::DrcLink(2));
        Verdict::done()
    }

    pub(super) fn drc_link(&mut self, state: u8) {
        self.tell_drc(0, state);
        if state == 2 && !self.settings.quiet {
            self.after(1, Due::DrcPush(Push::Osd));
            self.after(2, Due::DrcPush(Push::Hsi));
            self.after(3, Due::DrcPush(Push::Delay));
        }
    }

    fn tell_drc(&mut self, result: i64, state: u8) {
        if let Some(bid) = self.drc.as_ref().map(|drc| drc.bid.clone()) {
            let data = json!({"result": result, "drc_state": state});
            self.event("drc_status_notify", Some(&bid), Some(true), &data);
        }
    }

    pub(super) fn drop_drc(&mut self) {
        self.drc = None;
        self.timers
            .cancel(|due| matches!(due, Due::DrcPush(_) | Due::DrcLink(_) | Due::DrcSilence));
    }

    fn drc_silence_ms(&self) -> u64 {
        self.config.model.gateway().drc_silence_ms
    }

    /// Looks whether a heartbeat came lately.
    pub(super) fn drc_silence(&mut self) {
        let patience = self.drc_silence_ms();
        let Some(drc) = &self.drc else { return };
        let silent = self.now.mono.as_millis().saturating_sub(drc.heard_ms);
        if silent < patience {
            self.after(patience - silent, Due::DrcSilence);
            return;
        }
        self.tell_drc(refusal::DRC_SILENT, 0);
        self.drop_drc();
    }

    pub(super) fn take_drc(&mut self, method: String, seq: Option<u64>, data: &str) {
        let received = self.received(None, seq, &method);
        self.receipts += 1;
        let receipt = self.receipts;
        let data: Value = serde_json::from_str(data).unwrap_or_default();
        let said = std::mem::take(&mut self.out);
        let overruled = self.meddling.overruled.take();
        let (outcome, answer) = if self.drc.is_none() {
            (Outcome::Ignored, None)
        } else {
            match overruled {
                Some(Overruled::Ignore) => (Outcome::Ignored, None),
                Some(Overruled::Refuse(code)) => {
                    (Outcome::Refused(code), self.drc_refusal(&method, seq, code))
                }
                None => {
                    self.control(&Command { method: &method, data: &data, bid: "", receipt }, seq)
                }
            }
        };
        let effects = std::mem::replace(&mut self.out, said);
        self.out.push(Output::Received { received, receipt, outcome });
        if let Some((result, data)) = answer {
            self.happened(Kind::Reply { method: method.clone(), result });
            // A gateway repeats seq where it is wont to get it.
            let beside = seq.filter(|_| self.repeats_seq_beside(&method));
            let wait = self.reply_wait(&method, result);
            let data = data.to_string();
            self.answer_in(wait, Answer::Drc { method, data, seq: beside });
        }
        self.out.extend(effects);
    }

    fn repeats_seq_beside(&self, method: &str) -> bool {
        let seq = self.catalogue.method(method).and_then(|method| method.seq.as_ref());
        let model = Some(self.config.model.gateway_model());
        // What is unknown here is refused with its number.
        seq.is_none_or(|seq| seq.placement(model) == Placement::Beside)
    }

    /// How a command is refused that has an answer at all.
    fn drc_refusal(&self, method: &str, seq: Option<u64>, code: i64) -> Option<(i64, Value)> {
        let known = self.catalogue.method(method);
        if known.is_some_and(|method| method.completes_by == CompletesBy::NoReply) {
            return None;
        }
        let output = (method == "drone_control").then(|| json!({"seq": seq}));
        let mut data = json!({"result": code});
        if let Some(output) = output {
            data["output"] = output;
        }
        Some((code, data))
    }

    /// Carries out a command under direct control: what became of it, and the answer's result and data if it has one.
    fn control(
        &mut self,
        command: &Command<'_>,
        seq: Option<u64>,
    ) -> (Outcome, Option<(i64, Value)>) {
        let answered = |code: i64| {
            let outcome = if code == 0 { Outcome::Done } else { Outcome::Refused(code) };
            (outcome, Some((code, json!({"result": code}))))
        };
        let known = self.catalogue.method(command.method).is_some_and(|method| {
            method.channel == Channel::DrcDown && self.config.model.knows(method)
        });
        if !known {
            return answered(refusal::NOT_SUPPORTED);
        }
        match command.method {
            "heart_beat" => {
                let now = self.now.mono.as_millis();
                if let Some(drc) = &mut self.drc {
                    drc.heard_ms = now;
                }
                (Outcome::Done, Some((0, heart_beat(command.data))))
            }
            "drone_control" => {
                let code = self.drone_control(command, seq);
                let (outcome, _) = answered(code);
                (outcome, Some((code, json!({"result": code, "output": {"seq": seq}}))))
            }
            "stick_control" => (self.stick_control(command), None),
            "drone_emergency_stop" => {
                self.emergency_stop();
                answered(0)
            }
            "drc_force_landing" | "drc_emergency_landing" => {
                let flies = matches!(self.sky.stage, Stage::Airborne | Stage::Returning);
                if flies {
                    self.land_here();
                }
                answered(if flies { 0 } else { refusal::NOT_IN_THE_AIR })
            }
            "drc_initial_state_subscribe" => {
                self.push_drone_state();
                answered(0)
            }
            other => self.control_by_catalogue(other, command),
        }
    }

    fn control_by_catalogue(
        &mut self,
        name: &str,
        command: &Command<'_>,
    ) -> (Outcome, Option<(i64, Value)>) {
        let catalogue = std::sync::Arc::clone(&self.catalogue);
        let method = catalogue.method(name).filter(|method| method.channel == Channel::DrcDown);
        let Some(method) = method else {
            let code = refusal::NOT_SUPPORTED;
            return (Outcome::Refused(code), Some((code, json!({"result": code}))));
        };
        let code = self.camera_refused(command).unwrap_or(0);
        if code != 0 {
            return (Outcome::Refused(code), Some((code, json!({"result": code}))));
        }
        if name == "drc_night_lights_state_set" {
            self.properties.set_night_lights(command.integer("/night_lights_state"));
        }
        if method.completes_by == CompletesBy::NoReply {
            return (Outcome::Silent, None);
        }
        let mut data = plausible::object(&method.reply, &mut self.rng);
        data.insert("result".to_owned(), json!(0));
        (Outcome::Done, Some((0, Value::Object(data))))
    }

    /// `x` forward and `y` right in m/s, `h` up in m/s, `w` clockwise in degrees per second.
    fn drone_control(&mut self, command: &Command<'_>, seq: Option<u64>) -> i64 {
        if !self.authority {
            return refusal::NO_AUTHORITY;
        }
        let axis = |name: &str| command.number(name).unwrap_or(0.0);
        let stick = Stick {
            forward: axis("/x").clamp(-17.0, 17.0),
            right: axis("/y").clamp(-17.0, 17.0),
            up: axis("/h").clamp(-4.0, 5.0),
            turn: axis("/w").clamp(-90.0, 90.0),
        };
        let Some(drc) = &mut self.drc else { return refusal::NO_AUTHORITY };
        if let (Some(last), Some(seq)) = (drc.last, seq) {
            // The number starts again when the wish changes.
            if last.stick == stick && seq < last.seq {
                return refusal::SEQ_WENT_BACK;
            }
        }
        drc.last = seq.map(|seq| Control { seq, stick });
        self.steer(stick);
        0
    }

    fn stick_control(&mut self, command: &Command<'_>) -> Outcome {
        if !self.authority {
            return Outcome::Ignored;
        }
        let axis = |name: &str| {
            let value = command.number(name).unwrap_or(STICK_MIDDLE);
            ((value - STICK_MIDDLE) / STICK_REACH).clamp(-1.0, 1.0)
        };
        self.steer(Stick {
            forward: axis("/pitch") * STICK_SPEED,
            right: axis("/roll") * STICK_SPEED,
            up: axis("/throttle") * STICK_CLIMB,
            turn: axis("/yaw") * STICK_TURN,
        });
        Outcome::Silent
    }

    /// Moves the aircraft if it flies and nothing but a fly-to has it.
    fn steer(&mut self, stick: Stick) {
        let wayline_runs =
            self.sky.wayline.as_ref().is_some_and(super::wayline::Wayline::is_running);
        if self.sky.stage != Stage::Airborne || self.sky.takeoff.is_some() || wayline_runs {
            return;
        }
        let now = self.flight_clock();
        self.aircraft.advance(now);
        self.end_fly_to("wayline_failed", refusal::LEFT_BY_STICK);
        self.sky.stick = true;
        // As long in flight as it takes the sender to send the next one.
        let flight_ms = (STICK_MS * self.settings.speed).clamp(STICK_MS, 60_000.0) as u64;
        self.aircraft.steer(stick, flight_ms);
    }

    fn emergency_stop(&mut self) {
        match self.sky.stage {
            Stage::Airborne => {
                self.cut_short("wayline_cancel", refusal::LEFT_BY_COMMAND);
                self.freeze_wayline();
                self.hold();
            }
            Stage::Returning => {
                self.sky.stage = Stage::Airborne;
                self.hold();
            }
            Stage::Docked
            | Stage::Preparing { .. }
            | Stage::Landing { .. }
            | Stage::Stowing
            | Stage::Outside => {}
        }
    }

    pub(super) fn drc_push(&mut self, push: Push) {
        let now = self.flight_clock();
        self.aircraft.advance(now);
        let Some(drc) = &self.drc else { return };
        let (period, method, data) = match push {
            Push::Osd => (drc.osd_period_ms, "osd_info_push", self.osd_info()),
            Push::Hsi => (drc.hsi_period_ms, "hsi_info_push", self.hsi_info()),
            Push::Delay => (DELAY_PERIOD_MS, "delay_info_push", self.delay_info()),
        };
        self.push_drc(method, &data);
        self.after(period, Due::DrcPush(push));
    }

    fn push_drone_state(&mut self) {
        let data = json!({
            "stealth_state": 0,
            "night_lights_state": self.properties.night_lights(),
            "mode_code": self.aircraft_mode(),
            "landing_type": 0,
            "landing_protection_type": 0,
        });
        self.push_drc("drc_drone_state_push", &data);
    }

    fn push_drc(&mut self, method: &str, data: &Value) {
        let Some(drc) = &mut self.drc else { return };
        drc.pushed += 1;
        let payload = device_side::drc_up(method, &data.to_string(), Some(drc.pushed));
        self.publish(&UplinkTopic::DrcUp { gateway: self.sn.clone() }, payload, Qos::AtMostOnce);
    }

    fn osd_info(&self) -> Value {
        let at = self.aircraft.position;
        let (north, east, up) = self.aircraft.velocity;
        if self.config.model.gateway().pilot == Pilot::RemoteController {
            return json!({
                "attitude_head": super::flying::tenths(self.aircraft.heading),
                "elevation": super::flying::tenths(self.aircraft.elevation()),
                "height": at.height, "latitude": at.latitude, "longitude": at.longitude,
                "home_distance": at.ground_distance(self.config.home),
                "horizontal_speed": super::flying::tenths(self.aircraft.horizontal_speed()),
                "vertical_speed": super::flying::tenths(up),
                "speed_x": super::flying::tenths(north), "speed_y": super::flying::tenths(east),
                "speed_z": super::flying::tenths(-up),
                "ultrasonic_height": -1, "wind_direction": 0, "wind_speed": 0,
            });
        }
        json!({
            "attitude_head": super::flying::tenths(self.aircraft.heading),
            "latitude": at.latitude, "longitude": at.longitude, "height": at.height,
            "speed_x": super::flying::tenths(north), "speed_y": super::flying::tenths(east),
            // Down is positive, as recorded.
            "speed_z": super::flying::tenths(-up),
            "gimbal_pitch": 0, "gimbal_roll": 0,
            "gimbal_yaw": super::flying::tenths(self.aircraft.heading),
        })
    }

    /// Open air on all sides, and the ground below, in the sensors' millimetres. `around_distance` as in the page's
    /// examples; its table says `around_distances`.
    fn hsi_info(&self) -> Value {
        let down = (self.aircraft.elevation().clamp(0.0, 30.0) * 1_000.0).round() as i64;
        let mut data = json!({
            "up_distance": 30_000, "down_distance": down,
            "around_distance": vec![60_000; 36],
        });
        for side in ["up", "down", "left", "right", "front", "back", "vertical", "horizontal"] {
            data[format!("{side}_enable")] = json!(true);
            data[format!("{side}_work")] = json!(true);
        }
        data
    }

    fn delay_info(&self) -> Value {
        let list: Vec<Value> = self
            .payloads
            .streams()
            .map(|id| json!({"video_id": id, "liveview_delay_time": 120}))
            .collect();
        json!({"sdr_cmd_delay": 12, "liveview_delay_list": list})
    }
}

/// The heartbeat's own data, which is its answer. A missing time stays missing.
fn heart_beat(data: &Value) -> Value {
    let mut echo = json!({});
    for name in ["seq", "timestamp"] {
        if let Some(value) = data.get(name) {
            echo[name] = value.clone();
        }
    }
    echo
}
