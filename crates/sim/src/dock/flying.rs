//! Flights: one-key takeoff, fly-to, return home, landing; what the aircraft is about and what is told of it.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use super::{
    Dock, Due, clock,
    commands::{Command, Verdict},
    debugging::{Cover, Mode},
    wayline::{Task, Wayline},
};
use crate::{
    Outcome, Position,
    flight::{Leg, Power},
    model::gateway::Act,
    refusal,
};

/// The aircraft's errands.
#[derive(Debug, Default)]
pub struct Sky {
    pub stage: Stage,
    /// A one-key takeoff that has not arrived.
    pub takeoff: Option<Takeoff>,
    /// The one-key flight that ends with `task_finish` when the aircraft is back.
    pub one_key: Option<OneKey>,
    pub fly_to: Option<FlyTo>,
    pub wayline: Option<Wayline>,
    /// Prepared tasks by `flight_id`.
    pub tasks: BTreeMap<String, Task>,
    pub track_id: String,
    /// Whether a stick steers it.
    pub stick: bool,
    /// `mode_code_reason`.
    pub reason: i64,
    /// How high it flies home, metres above the takeoff point.
    rth_altitude: f64,
    /// Where it is bound for at first: the path of the flight that is being prepared.
    pub plan: Vec<Leg>,
    /// Legs of the path it set out on.
    pub legs: usize,
    /// When progress was told last, in flight time.
    pub told_ms: u64,
    /// Flights so far.
    pub sorties: u64,
}

/// Where a flight stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Stage {
    #[default]
    Docked,
    Preparing {
        next: usize,
    },
    Airborne,
    Returning,
    Landing {
        home: bool,
    },
    Stowing,
    /// On the ground somewhere, until somebody carries it back.
    Outside,
}

#[derive(Debug)]
pub struct Takeoff {
    pub receipt: u64,
    pub flight_id: String,
}

#[derive(Debug)]
pub struct OneKey {
    pub flight_id: String,
    pub track_id: String,
}

#[derive(Debug)]
pub struct FlyTo {
    pub receipt: u64,
    pub id: String,
}

/// Farthest target from the dock, metres.
const REACH: f64 = 15_000.0;
/// Lowest a fly-to sets out, metres above the takeoff point.
const FLY_TO_FLOOR: f64 = 20.0;
/// Nearer to home than this it does not climb to return, metres.
const NEAR_HOME: f64 = 5.0;
const BATTERY_TO_START: f64 = 30.0;
const SPEED_DEFAULT: f64 = 10.0;
const RTH_DEFAULT: f64 = 40.0;

impl Sky {
    pub fn is_docked(&self) -> bool {
        matches!(self.stage, Stage::Docked | Stage::Preparing { .. } | Stage::Stowing)
    }

    pub fn is_flying(&self) -> bool {
        matches!(self.stage, Stage::Airborne | Stage::Returning | Stage::Landing { .. })
    }
}

impl Dock {
    pub(super) fn flying_command(&mut self, command: &Command<'_>) -> Option<Verdict> {
        Some(match command.method {
            "takeoff_to_point" => self.take_off(command),
            "fly_to_point" => self.fly_to(command),
            "fly_to_point_update" => self.fly_elsewhere(command),
            "fly_to_point_stop" => self.stop_fly_to(),
            "return_home" | "return_specific_home" => self.return_home(),
            "return_home_cancel" => self.cancel_return(),
            "flight_authority_grab" => {
                self.authority = true;
                self.push_aircraft_keys(&["control_source"]);
                Verdict::done()
            }
            _ => return None,
        })
    }

    /// Why no flight can be started, if it cannot.
    pub(super) fn not_ready_to_fly(&self) -> Option<i64> {
        match self.hardware.mode {
            Mode::RemoteDebugging => return Some(refusal::IN_DEBUGGING),
            Mode::Updating => return Some(refusal::UPDATING),
            Mode::Idle | Mode::Working => {}
        }
        match self.sky.stage {
            Stage::Docked => {}
            Stage::Outside => return Some(refusal::AIRCRAFT_OUTSIDE),
            Stage::Preparing { .. }
            | Stage::Airborne
            | Stage::Returning
            | Stage::Landing { .. }
            | Stage::Stowing => return Some(refusal::OTHER_TASK),
        }
        if self.is_working(|method| method == "fileupload_start") {
            return Some(refusal::UPLOADING_LOGS);
        }
        let low = (self.aircraft.battery < BATTERY_TO_START).then_some(refusal::BATTERY_LOW);
        low.or_else(|| self.kept_on_the_ground())
    }

    fn take_off(&mut self, command: &Command<'_>) -> Verdict {
        let target = place(command, "/target_latitude", "/target_longitude", "/target_height");
        let (Some(target), Some(flight_id)) = (target, command.text("/flight_id")) else {
            return Verdict::Refused(refusal::BAD_PARAMETER);
        };
        let speed = command.number("/max_speed").unwrap_or(SPEED_DEFAULT);
        if let Some(code) = self.not_ready_to_fly().or_else(|| self.bad_target(target, speed)) {
            return Verdict::Refused(code);
        }
        let home = self.config.home;
        let security = command.number("/security_takeoff_height").unwrap_or(FLY_TO_FLOOR);
        let commander = command.number("/commander_flight_height").unwrap_or(0.0);
        let above = home.at_height(home.height + security.max(commander));
        let over = target.at_height(target.height.max(above.height));
        self.sky.plan = [above, over, target].map(|to| Leg { to, speed }).to_vec();
        self.sky.rth_altitude = command.number("/rth_altitude").unwrap_or(RTH_DEFAULT);
        self.sky.takeoff =
            Some(Takeoff { receipt: command.receipt, flight_id: flight_id.to_owned() });
        self.prepare_flight();
        let track_id = self.sky.track_id.clone();
        self.sky.one_key = Some(OneKey { flight_id: flight_id.to_owned(), track_id });
        Verdict::started()
    }

    pub(super) fn bad_target(&self, target: Position, speed: f64) -> Option<i64> {
        let home = self.config.home;
        if !(0.0..=15.0).contains(&speed) {
            Some(refusal::BAD_SPEED)
        } else if REACH < home.ground_distance(target) {
            Some(refusal::TOO_FAR)
        } else if home.height + self.properties.height_limit() < target.height {
            Some(refusal::TOO_HIGH)
        } else {
            None
        }
    }

    /// Begins to open the dock for a flight along the plan.
    pub(super) fn prepare_flight(&mut self) {
        self.sky.stage = Stage::Preparing { next: 0 };
        self.sky.track_id = self.new_id();
        self.hardware.mode = Mode::Working;
        self.charge(false);
        if !self.hardware.aircraft_on {
            self.hardware.aircraft_on = true;
            self.update_topo();
        }
        // Firmware asks before every flight; the answer holds nothing up here.
        self.request("flight_areas_get", &Value::Null);
        self.prepare_later(0);
    }

    /// Sets the time for a step of getting ready, or for the takeoff after the last of them.
    fn prepare_later(&mut self, next: usize) {
        let gateway = self.config.model.gateway();
        let wait = gateway.preparation.get(next).map_or(gateway.lift_seconds, |step| step.after);
        self.after_scaled(clock::seconds(wait), Due::Prepare);
    }

    /// One step of getting ready.
    pub(super) fn prepare_further(&mut self) {
        let Stage::Preparing { next } = self.sky.stage else { return };
        let Some(step) = self.config.model.gateway().preparation.get(next) else {
            self.lift_off();
            return;
        };
        match step.act {
            Some(Act::MoveCover) => self.hardware.cover = Cover::HalfOpen,
            Some(Act::OpenCover) => {
                self.hardware.cover = Cover::Open;
                self.hardware.putter_open = true;
            }
            Some(Act::Ready) => self.tell_takeoff("task_ready", 0, false),
            None => {}
        }
        if self.sky.wayline.is_some() {
            self.tell_wayline("in_progress", step.mission, step.step, step.percent, 0);
        }
        self.sky.stage = Stage::Preparing { next: next + 1 };
        self.prepare_later(next + 1);
    }

    fn lift_off(&mut self) {
        let now = self.flight_clock();
        self.aircraft.advance(now);
        self.aircraft.power = Power::Flying;
        self.aircraft.takeoff = self.aircraft.position;
        self.sky.stage = Stage::Airborne;
        self.sky.reason = 11;
        self.sky.sorties += 1;
        self.sky.legs = self.sky.plan.len();
        self.aircraft.follow(std::mem::take(&mut self.sky.plan));
        self.wayline_lifts_off();
        self.push_aircraft_state();
        self.look_later();
    }

    fn fly_to(&mut self, command: &Command<'_>) -> Verdict {
        let id = command.text("/fly_to_id").map(str::to_owned);
        let (Some(id), Some(speed)) = (id, command.number("/max_speed")) else {
            return Verdict::Refused(refusal::BAD_PARAMETER);
        };
        let target = match one_point(command) {
            Ok(target) => target,
            Err(code) => return Verdict::Refused(code),
        };
        if let Some(code) = self.not_free_to_fly_to().or_else(|| self.bad_target(target, speed)) {
            return Verdict::Refused(code);
        }
        self.set_out(target, speed);
        self.sky.fly_to = Some(FlyTo { receipt: command.receipt, id });
        Verdict::started()
    }

    fn not_free_to_fly_to(&self) -> Option<i64> {
        match self.sky.stage {
            Stage::Airborne => {}
            Stage::Docked
            | Stage::Preparing { .. }
            | Stage::Returning
            | Stage::Landing { .. }
            | Stage::Stowing
            | Stage::Outside => return Some(refusal::FLY_TO_FAILED),
        }
        let wayline_runs = self.sky.wayline.as_ref().is_some_and(Wayline::is_running);
        if self.sky.takeoff.is_some() || wayline_runs {
            return Some(refusal::OTHER_TASK);
        }
        self.sky.fly_to.is_some().then_some(refusal::FLY_TO_FAILED)
    }

    fn set_out(&mut self, target: Position, speed: f64) {
        let now = self.flight_clock();
        self.aircraft.advance(now);
        // A speed of 0 is allowed and stands for the aircraft's own.
        let speed = if speed < 1.0 { SPEED_DEFAULT } else { speed };
        let floor = self.aircraft.takeoff.height + FLY_TO_FLOOR;
        let here = self.aircraft.position;
        let climb = (here.height < floor).then(|| here.at_height(floor));
        let path: Vec<Leg> =
            climb.into_iter().chain([target]).map(|to| Leg { to, speed }).collect();
        self.sky.legs = path.len();
        self.sky.stick = false;
        self.aircraft.follow(path);
    }

    fn fly_elsewhere(&mut self, command: &Command<'_>) -> Verdict {
        if self.sky.fly_to.is_none() {
            return Verdict::Refused(refusal::FLY_TO_FAILED);
        }
        let speed = command.number("/max_speed").unwrap_or(SPEED_DEFAULT);
        match one_point(command) {
            Ok(target) => Verdict::unless(self.bad_target(target, speed), || {
                self.set_out(target, speed);
                Verdict::done()
            }),
            Err(code) => Verdict::Refused(code),
        }
    }

    fn stop_fly_to(&mut self) -> Verdict {
        if self.sky.fly_to.is_none() {
            return Verdict::Refused(refusal::NO_FLY_TO);
        }
        self.hold();
        self.end_fly_to("wayline_cancel", refusal::LEFT_BY_COMMAND);
        Verdict::done()
    }

    fn return_home(&mut self) -> Verdict {
        if !self.sky.is_flying() {
            return Verdict::Refused(refusal::NOT_IN_THE_AIR);
        }
        if self.sky.stage == Stage::Airborne {
            self.cut_short("wayline_cancel", refusal::LEFT_BY_COMMAND);
            self.wayline_must_return(refusal::STOPPED_BY_RETURN, 1283);
            self.sky.reason = 5;
            self.fly_home();
        }
        Verdict::Done(Map::new())
    }

    fn cancel_return(&mut self) -> Verdict {
        if self.sky.stage != Stage::Returning {
            return Verdict::Refused(refusal::NOT_RETURNING);
        }
        self.sky.stage = Stage::Airborne;
        self.sky.reason = 21;
        self.hold();
        self.push_aircraft_state();
        Verdict::done()
    }

    /// Sets out for home.
    pub(super) fn fly_home(&mut self) {
        let now = self.flight_clock();
        self.aircraft.advance(now);
        let home = self.config.home;
        let here = self.aircraft.position;
        let height = if here.ground_distance(home) < NEAR_HOME {
            here.height
        } else {
            here.height.max(self.aircraft.takeoff.height + self.sky.rth_altitude)
        };
        let path = [here.at_height(height), home.at_height(height)];
        self.sky.stage = Stage::Returning;
        self.sky.stick = false;
        self.sky.legs = path.len();
        self.aircraft.follow(path.map(|to| Leg { to, speed: SPEED_DEFAULT }));
        let flight_id = self.flight_id();
        let points: Vec<Value> = path.iter().map(|point| point_json(*point)).collect();
        let info =
            json!({"flight_id": flight_id, "last_point_type": 0, "planned_path_points": points});
        self.event("return_home_info", None, None, &info);
        self.push_aircraft_state();
    }

    fn flight_id(&self) -> String {
        let wayline = self.sky.wayline.as_ref().map(|wayline| &wayline.flight_id);
        let one_key = self.sky.one_key.as_ref().map(|flight| &flight.flight_id);
        wayline.or(one_key).cloned().unwrap_or_default()
    }

    /// Stays where it is.
    pub(super) fn hold(&mut self) {
        let now = self.flight_clock();
        self.aircraft.advance(now);
        self.aircraft.hover();
        self.sky.stick = false;
    }

    /// Ends a takeoff, a fly-to and an orbit on their way.
    pub(super) fn cut_short(&mut self, word: &str, code: i64) {
        if let Some(takeoff) = self.sky.takeoff.take() {
            self.tell_flight(&takeoff.flight_id, word, code, true);
            self.ended(takeoff.receipt, Outcome::Failed(code));
        }
        self.end_fly_to(word, code);
        self.break_jobs("poi_mode_enter", "failed", code);
    }

    pub(super) fn end_fly_to(&mut self, word: &str, code: i64) {
        let Some(fly_to) = self.sky.fly_to.take() else { return };
        let outcome = if code == 0 { Outcome::Succeeded } else { Outcome::Failed(code) };
        self.tell_fly_to(&fly_to.id, word, code, true);
        self.ended(fly_to.receipt, outcome);
    }

    /// Comes down where it is.
    pub(super) fn land_here(&mut self) {
        self.cut_short("wayline_failed", refusal::STOPPED_BY_HAND);
        self.wayline_must_return(refusal::STOPPED_BY_HAND, 1281);
        let ground = self.config.home.height;
        let spot = self.aircraft.position.at_height(ground);
        self.sky.stage = Stage::Landing { home: spot.ground_distance(self.config.home) < 0.5 };
        self.sky.stick = false;
        self.aircraft.follow([Leg { to: spot, speed: 1.0 }]);
        self.push_aircraft_state();
    }
}

fn place(command: &Command<'_>, latitude: &str, longitude: &str, height: &str) -> Option<Position> {
    Some(Position {
        latitude: command.number(latitude)?,
        longitude: command.number(longitude)?,
        height: command.number(height)?,
    })
}

fn one_point(command: &Command<'_>) -> Result<Position, i64> {
    match command.data.pointer("/points").and_then(Value::as_array).map(Vec::len) {
        Some(1) => place(command, "/points/0/latitude", "/points/0/longitude", "/points/0/height")
            .ok_or(refusal::BAD_TARGET),
        Some(_) => Err(refusal::POINT_COUNT),
        None => Err(refusal::BAD_PARAMETER),
    }
}

pub fn point_json(point: Position) -> Value {
    json!({"latitude": point.latitude, "longitude": point.longitude, "height": point.height})
}

pub fn tenths(value: f64) -> f64 {
    (value * 10.0).round() / 10.0
}
