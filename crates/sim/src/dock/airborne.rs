//! In the air: how far the aircraft has come, when it arrives, lands and is stowed away, and what is told on the way.

use serde_json::{Map, Value, json};
use utmos_core::time::Now;

use super::{
    Dock, Due, clock,
    debugging::{Cover, Mode},
    flying::{Stage, point_json, tenths},
    wayline::Wayline,
};
use crate::{
    Kind, Outcome,
    flight::{Leg, Power},
    refusal,
};

/// How often the aircraft is looked at, in milliseconds of flight.
const LOOK_MS: u64 = 500;
/// How often progress is told, in milliseconds of flight.
const TELL_MS: u64 = 2_000;
const BATTERY_TO_RETURN: f64 = 20.0;
/// Until somebody has carried the aircraft back, or has changed its battery, seconds.
const CARRY_SECONDS: f64 = 120.0;
/// Below this a pilot changes the battery between two flights, percent.
const BATTERY_TO_KEEP: f64 = 60.0;
/// What a battery has that was charged elsewhere, percent.
const BATTERY_CHARGED: f64 = 98.0;

impl Dock {
    /// Milliseconds of flight time since the dock was switched on.
    pub(super) fn flight_clock(&self) -> u64 {
        self.flight_clock_at(self.now)
    }

    /// The same at another time.
    pub(super) fn flight_clock_at(&self, now: Now) -> u64 {
        let real = now.mono.as_millis().saturating_sub(self.started);
        let scaled = std::time::Duration::from_millis(real)
            .mul_f64(self.settings.speed.max(clock::SPEED_MIN));
        clock::millis(scaled)
    }

    pub(super) fn look_later(&mut self) {
        self.after_scaled(
            std::time::Duration::from_millis(LOOK_MS).max(std::time::Duration::from_secs_f64(
                self.settings.speed.max(clock::SPEED_MIN) / 1_000.0,
            )),
            Due::Flight,
        );
    }

    /// Looks how far the aircraft has come.
    pub(super) fn look_at_aircraft(&mut self) {
        if !self.sky.is_flying() {
            return;
        }
        let now = self.flight_clock();
        self.aircraft.advance(now);
        self.mind_the_battery();
        self.mind_the_wind();
        // The dock shuts behind it. Where there is none, nothing was ever open.
        if self.sky.stage == Stage::Airborne && 10.0 < self.aircraft.elevation() {
            self.hardware.cover = Cover::Closed;
        }
        match self.sky.stage {
            Stage::Airborne if self.aircraft.arrived() => self.arrived(),
            Stage::Returning if self.aircraft.arrived() => {
                self.sky.stage = Stage::Landing { home: true };
                if self.config.model.is_dock() {
                    self.hardware.cover = Cover::Open;
                }
                self.aircraft.follow([Leg { to: self.config.home, speed: 1.0 }]);
                self.push_aircraft_state();
            }
            Stage::Landing { home } if self.aircraft.arrived() => self.touch_down(home),
            Stage::Docked
            | Stage::Preparing { .. }
            | Stage::Airborne
            | Stage::Returning
            | Stage::Landing { .. }
            | Stage::Stowing
            | Stage::Outside => {}
        }
        if self.sky.told_ms + TELL_MS <= now {
            self.sky.told_ms = now;
            self.tell_progress();
        }
        if self.sky.is_flying() {
            self.look_later();
        }
    }

    fn mind_the_battery(&mut self) {
        if self.sky.stage == Stage::Airborne && self.aircraft.battery < BATTERY_TO_RETURN {
            self.cut_short("wayline_failed", refusal::LEFT_ON_BATTERY);
            self.wayline_must_return(refusal::RETURNED_ON_BATTERY, 773);
            if self.drc.is_some() {
                self.event("joystick_invalid_notify", None, Some(true), &json!({"reason": 1}));
            }
            self.sky.reason = 1;
            self.fly_home();
        }
    }

    fn arrived(&mut self) {
        if let Some(takeoff) = self.sky.takeoff.take() {
            self.tell_flight(&takeoff.flight_id, "wayline_ok", 0, true);
            self.ended(takeoff.receipt, Outcome::Succeeded);
        }
        self.end_fly_to("wayline_ok", 0);
        if self.sky.wayline.as_ref().is_some_and(Wayline::is_running) {
            self.wayline_flown();
            self.fly_home();
        }
    }

    fn touch_down(&mut self, home: bool) {
        self.aircraft.put(self.aircraft.position);
        self.aircraft.power = Power::Resting;
        match (&self.config.model.gateway().station, home) {
            (Some(station), true) => {
                self.sky.stage = Stage::Stowing;
                self.after_scaled(clock::seconds(station.stow_seconds), Due::Stow);
            }
            (Some(_), false) => {
                self.sky.stage = Stage::Outside;
                self.flight_over();
                self.note("the aircraft has landed outside the dock".to_owned());
                self.after_scaled(clock::seconds(CARRY_SECONDS), Due::CarryBack);
            }
            // Beside its pilot or not, it can take off from where it stands.
            (None, _) => {
                self.sky.stage = Stage::Docked;
                self.flight_over();
                self.after_scaled(clock::seconds(CARRY_SECONDS), Due::CarryBack);
            }
        }
        self.push_aircraft_state();
    }

    /// The aircraft is back in the closed dock.
    pub(super) fn stowed(&mut self) {
        self.sky.stage = Stage::Docked;
        self.hardware.cover = Cover::Closed;
        self.hardware.putter_open = false;
        self.flight_over();
        if self.aircraft.battery < 95.0 {
            self.charge(true);
        }
        self.suffer();
    }

    /// Somebody has put it back. The pilot of a remote controller has put in another battery if this one was low.
    pub(super) fn carry_back(&mut self) {
        if !self.config.model.is_dock() {
            if self.sky.stage == Stage::Docked && self.aircraft.battery < BATTERY_TO_KEEP {
                self.aircraft.battery = BATTERY_CHARGED;
                self.note("the pilot has changed the battery".to_owned());
            }
            return;
        }
        if self.sky.stage == Stage::Outside {
            self.aircraft.put(self.config.home);
            self.sky.stage = Stage::Docked;
            self.charge(true);
            self.suffer();
            self.note("somebody has put the aircraft back into the dock".to_owned());
        }
    }

    fn flight_over(&mut self) {
        self.hardware.mode = Mode::Idle;
        self.hardware.jobs_done += 1;
        self.sky.reason = 0;
        self.wayline_over();
        if let Some(flight) = self.sky.one_key.take() {
            let data = json!({
                "flight_id": flight.flight_id, "track_id": flight.track_id, "status": "task_finish",
                "result": 0, "way_point_index": 0, "remaining_distance": 0, "remaining_time": 0,
                "planned_path_points": [],
            });
            self.event("takeoff_to_point_progress", None, Some(true), &data);
        }
        self.sky.track_id.clear();
    }

    fn tell_progress(&mut self) {
        self.happened(Kind::Flight {
            elevation: self.aircraft.elevation(),
            home_distance: self.aircraft.position.ground_distance(self.config.home),
            speed: self.aircraft.horizontal_speed(),
            battery: self.battery(),
        });
        if self.sky.takeoff.is_some() {
            self.tell_takeoff("wayline_progress", 0, false);
        }
        if let Some(id) = self.sky.fly_to.as_ref().map(|fly_to| fly_to.id.clone()) {
            self.tell_fly_to(&id, "wayline_progress", 0, false);
        }
        self.tell_wayline_flying();
    }

    pub(super) fn tell_takeoff(&mut self, word: &str, code: i64, end: bool) {
        let id = self.sky.takeoff.as_ref().map(|takeoff| takeoff.flight_id.clone());
        if let Some(id) = id {
            self.tell_flight(&id, word, code, end);
        }
    }

    pub(super) fn tell_flight(&mut self, flight_id: &str, word: &str, code: i64, end: bool) {
        let mut data = self.way(word, code);
        data.insert("flight_id".to_owned(), json!(flight_id));
        data.insert("track_id".to_owned(), json!(self.sky.track_id));
        self.event("takeoff_to_point_progress", None, Some(end), &Value::Object(data));
        self.told("takeoff_to_point", word);
    }

    pub(super) fn tell_fly_to(&mut self, id: &str, word: &str, code: i64, end: bool) {
        let mut data = self.way(word, code);
        data.insert("fly_to_id".to_owned(), json!(id));
        // Each with a bid of its own: only the fly_to_id ties them to the command.
        self.event("fly_to_point_progress", None, Some(end), &Value::Object(data));
        self.told("fly_to_point", word);
    }

    fn told(&mut self, method: &str, word: &str) {
        let (method, status) = (method.to_owned(), word.to_owned());
        self.happened(Kind::Progress { method, status, step: None, percent: None });
    }

    /// What the progress of a flight to a point says of the way.
    fn way(&self, word: &str, code: i64) -> Map<String, Value> {
        let points: Vec<Value> = self.aircraft.path().map(|leg| point_json(leg.to)).collect();
        let left = points.len();
        let mut data = Map::from_iter([
            ("status".to_owned(), json!(word)),
            ("result".to_owned(), json!(code)),
            ("way_point_index".to_owned(), json!(self.sky.legs.saturating_sub(left))),
            ("remaining_distance".to_owned(), json!(tenths(self.aircraft.distance_left()))),
            ("remaining_time".to_owned(), json!(tenths(self.aircraft.time_left()))),
        ]);
        if 0 < left {
            data.insert("planned_path_points".to_owned(), Value::Array(points));
        }
        data
    }

    pub(super) fn battery(&self) -> i64 {
        self.aircraft.battery.round() as i64
    }

    /// `mode_code` of the aircraft.
    pub(super) fn aircraft_mode(&self) -> i64 {
        let climbing = self.sky.legs == self.aircraft.path().count() && 0 < self.sky.legs;
        match self.sky.stage {
            Stage::Docked | Stage::Stowing | Stage::Outside => 0,
            Stage::Preparing { next } => {
                // Takeoff preparation, and then preparation completed.
                if next <= self.config.model.gateway().preparation.len() / 2 { 1 } else { 2 }
            }
            Stage::Airborne if self.sky.takeoff.is_some() => {
                if climbing {
                    4
                } else {
                    17
                }
            }
            Stage::Airborne if self.sky.fly_to.is_some() => 17,
            Stage::Airborne if self.sky.wayline.as_ref().is_some_and(Wayline::is_running) => 5,
            Stage::Airborne if self.sky.stick => 16,
            Stage::Airborne => 3,
            Stage::Returning => 9,
            Stage::Landing { home: true } => 10,
            Stage::Landing { home: false } => 11,
        }
    }
}
