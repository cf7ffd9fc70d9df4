//! Wayline tasks: prepared, executed, paused, resumed, stopped. `flighttask_progress` with the task's id as its `bid`.
//!
//! No wayline file is fetched: every task flies a square around the dock.

use serde_json::{Value, json};

use super::{
    Dock,
    commands::{Command, Verdict},
    flying::Stage,
};
use crate::{Kind, Outcome, flight::Leg, model::gateway::Steps, refusal};

/// A task that was prepared or created and not executed.
#[derive(Debug, Clone, PartialEq)]
pub struct Task {
    /// How high to fly, metres above the dock.
    height: f64,
}

/// A task on its way.
#[derive(Debug)]
pub struct Wayline {
    pub flight_id: String,
    receipt: u64,
    state: State,
    /// What the end will say; 0 is well.
    code: i64,
    word: &'static str,
    /// The whole path: up, and along the waypoints.
    path: Vec<Leg>,
    /// How many legs of it are behind.
    flown: usize,
    /// Where it was broken off last.
    break_point: Option<Value>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Preparing,
    Running,
    Paused,
    Ending,
}

impl Wayline {
    pub fn is_running(&self) -> bool {
        self.state == State::Running
    }

    /// The waypoint it is at or has passed; the way up leads to none.
    fn waypoint(&self) -> usize {
        self.flown.saturating_sub(1)
    }
}

/// How far an immediate task's time may be from the dock's clock, in milliseconds.
const CLOCK_TOLERANCE_MS: i64 = 30_000;
/// Prepared tasks that are kept; of more, the first in order of their ids is dropped.
const TASKS_MAX: usize = 64;
/// Half the side of the square that is flown, metres.
const HALF_SIDE: f64 = 40.0;
const HEIGHT: f64 = 60.0;
const SPEED: f64 = 8.0;
/// How far a task is when its wayline has been flown.
const RETURNING_PERCENT: i64 = 90;
/// `break_reason`: user exit.
const USER_EXIT: i64 = 1281;
/// `break_reason`: user interruption.
const USER_INTERRUPTION: i64 = 1282;

impl Dock {
    pub(super) fn wayline_command(&mut self, command: &Command<'_>) -> Option<Verdict> {
        Some(match command.method {
            "flighttask_create" | "flighttask_prepare" => self.prepare_task(command),
            "flighttask_execute" => self.execute_task(command),
            "flighttask_pause" => self.pause_task(),
            "flighttask_recovery" => self.resume_task(),
            "flighttask_undo" => self.undo_tasks(command),
            "flighttask_stop" | "flight_setup_abort" => self.stop_task(command),
            _ => return None,
        })
    }

    fn prepare_task(&mut self, command: &Command<'_>) -> Verdict {
        let id = command.text("/flight_id").or_else(|| command.text("/flighttask_id"));
        let Some(id) = id.map(str::to_owned) else {
            return Verdict::Refused(refusal::BAD_PARAMETER);
        };
        let immediate = command.integer("/task_type") == Some(0);
        let off = command.integer("/execute_time").is_some_and(|time| {
            CLOCK_TOLERANCE_MS < time.saturating_sub(self.wall().as_millis()).saturating_abs()
        });
        if command.method == "flighttask_prepare" && immediate && off {
            return Verdict::Refused(refusal::CLOCK_OFF);
        }
        if self.sky.wayline.as_ref().is_some_and(|wayline| wayline.flight_id == id) {
            return Verdict::Refused(refusal::OTHER_TASK);
        }
        let height = HEIGHT.min(self.properties.height_limit());
        self.sky.tasks.insert(id, Task { height });
        if TASKS_MAX < self.sky.tasks.len() {
            self.sky.tasks.pop_first();
        }
        Verdict::done()
    }

    fn execute_task(&mut self, command: &Command<'_>) -> Verdict {
        let Some(id) = command.text("/flight_id") else {
            return Verdict::Refused(refusal::BAD_PARAMETER);
        };
        if let Some(code) = self.not_ready_to_fly() {
            return Verdict::Refused(code);
        }
        let Some(task) = self.sky.tasks.remove(id) else {
            return Verdict::Refused(refusal::UNKNOWN_TASK);
        };
        let home = self.config.home;
        let start = home.at_height(home.height + task.height);
        let corners = [(1.0, 1.0), (1.0, -1.0), (-1.0, -1.0), (-1.0, 1.0), (1.0, 1.0)];
        let corners = corners.map(|(north, east)| start.moved(north * HALF_SIDE, east * HALF_SIDE));
        self.sky.plan =
            [start].into_iter().chain(corners).map(|to| Leg { to, speed: SPEED }).collect();
        self.sky.wayline = Some(Wayline {
            flight_id: id.to_owned(),
            receipt: command.receipt,
            state: State::Preparing,
            code: 0,
            word: "ok",
            path: self.sky.plan.clone(),
            flown: 0,
            break_point: None,
        });
        self.prepare_flight();
        Verdict::started()
    }

    fn pause_task(&mut self) -> Verdict {
        let airborne = self.sky.stage == Stage::Airborne;
        match self.sky.wayline.as_ref().map(|wayline| wayline.state) {
            None => Verdict::Refused(refusal::NOT_STARTED),
            Some(State::Preparing) => Verdict::Refused(refusal::TASK_PREPARING),
            Some(State::Running) if airborne => {
                self.interrupt_wayline(USER_EXIT);
                Verdict::done()
            }
            Some(State::Running | State::Paused | State::Ending) => {
                Verdict::Refused(refusal::PAUSE_FAILED)
            }
        }
    }

    fn resume_task(&mut self) -> Verdict {
        let free = self.sky.stage == Stage::Airborne && self.sky.fly_to.is_none();
        let Some(wayline) = &mut self.sky.wayline else {
            return Verdict::Refused(refusal::NOT_PAUSED);
        };
        if wayline.state != State::Paused || !free {
            return Verdict::Refused(refusal::NOT_PAUSED);
        }
        wayline.state = State::Running;
        let rest: Vec<Leg> = wayline.path.iter().skip(wayline.flown).copied().collect();
        self.hold();
        self.sky.legs = rest.len();
        self.aircraft.follow(rest);
        // A recorded dock says it twice within a millisecond.
        let running = self.steps().running;
        self.tell_wayline("in_progress", 5, running, self.wayline_percent(), 0);
        self.tell_wayline("in_progress", 5, running, self.wayline_percent(), 0);
        Verdict::done()
    }

    fn undo_tasks(&mut self, command: &Command<'_>) -> Verdict {
        let ids: Vec<&str> = command
            .data
            .pointer("/flight_ids")
            .and_then(Value::as_array)
            .into_iter()
            .flatten()
            .filter_map(Value::as_str)
            .collect();
        if ids.is_empty() {
            return Verdict::Refused(refusal::BAD_PARAMETER);
        }
        let running = self.sky.wayline.as_ref().map(|wayline| wayline.flight_id.as_str());
        if running.is_some_and(|running| ids.contains(&running)) {
            return Verdict::Refused(refusal::TASK_RUNNING);
        }
        if ids.iter().all(|id| self.sky.tasks.remove(*id).is_none()) {
            return Verdict::Refused(refusal::UNKNOWN_TASK);
        }
        Verdict::done()
    }

    fn stop_task(&mut self, command: &Command<'_>) -> Verdict {
        let Some(wayline) = &mut self.sky.wayline else {
            return Verdict::Refused(refusal::NOTHING_TO_STOP);
        };
        let named = command.text("/flight_id");
        if named.is_some_and(|id| id != wayline.flight_id) {
            return Verdict::Refused(refusal::UNKNOWN_TASK);
        }
        wayline.word = "canceled";
        wayline.code = refusal::STOPPED_BY_HAND;
        match wayline.state {
            State::Preparing => {
                self.timers.cancel(|due| matches!(due, super::Due::Prepare));
                self.sky.plan.clear();
                self.sky.stage = Stage::Stowing;
                self.stowed();
            }
            State::Running | State::Paused => {
                wayline.state = State::Ending;
                self.cut_short("wayline_cancel", refusal::LEFT_BY_COMMAND);
                self.fly_home();
            }
            State::Ending => {}
        }
        Verdict::done()
    }

    pub(super) fn wayline_lifts_off(&mut self) {
        if let Some(wayline) = &mut self.sky.wayline {
            wayline.state = State::Running;
        }
    }

    /// Stops the wayline where it is; it can be resumed.
    pub(super) fn interrupt_wayline(&mut self, reason: i64) {
        if !self.sky.wayline.as_ref().is_some_and(Wayline::is_running) {
            return;
        }
        self.follow_wayline();
        let (here, heading, home) =
            (self.aircraft.position, self.aircraft.heading, self.config.home);
        self.hold();
        if let Some(wayline) = &mut self.sky.wayline {
            let before = wayline.flown.checked_sub(1).and_then(|n| wayline.path.get(n));
            let from = before.map_or(home, |leg| leg.to);
            let to = wayline.path.get(wayline.flown).map_or(here, |leg| leg.to);
            let share = 1.0 - here.distance(to) / from.distance(to).max(0.1);
            wayline.state = State::Paused;
            wayline.break_point = Some(json!({
                "attitude_head": heading, "break_reason": reason, "height": here.height,
                "index": wayline.waypoint(), "latitude": here.latitude, "longitude": here.longitude,
                "progress": share.clamp(0.0, 1.0), "state": 0, "wayline_id": 0,
            }));
        }
        self.tell_wayline("paused", 2, self.steps().running, self.wayline_percent(), 0);
    }

    /// Takes note of how far the aircraft has come on the wayline.
    fn follow_wayline(&mut self) {
        let now = self.flight_clock();
        self.aircraft.advance(now);
        let left = self.aircraft.path().count();
        if let Some(wayline) = self.sky.wayline.as_mut().filter(|wayline| wayline.is_running()) {
            wayline.flown = wayline.path.len().saturating_sub(left);
        }
    }

    /// As by an emergency stop.
    pub(super) fn freeze_wayline(&mut self) {
        self.interrupt_wayline(USER_INTERRUPTION);
    }

    /// The wayline will not be flown to its end.
    pub(super) fn wayline_must_return(&mut self, code: i64, reason: i64) {
        self.interrupt_wayline(reason);
        if let Some(wayline) = &mut self.sky.wayline
            && wayline.state != State::Ending
        {
            wayline.state = State::Ending;
            if wayline.code == 0 {
                wayline.code = code;
                wayline.word = "failed";
            }
        }
    }

    pub(super) fn wayline_flown(&mut self) {
        self.follow_wayline();
        self.tell_wayline("in_progress", 9, self.steps().returning, RETURNING_PERCENT, 0);
        if let Some(wayline) = &mut self.sky.wayline {
            wayline.state = State::Ending;
        }
    }

    /// The flight is over, and with it the task.
    pub(super) fn wayline_over(&mut self) {
        let Some(wayline) = &self.sky.wayline else { return };
        let (word, code, receipt) = (wayline.word, wayline.code, wayline.receipt);
        // Frozen at 15 % when it ends before the takeoff, as recorded.
        let (mission, percent) = match (code, wayline.state) {
            (0, _) => (9, 100),
            (_, State::Preparing) => (2, 15),
            (_, State::Running | State::Paused | State::Ending) => (2, 95),
        };
        self.tell_wayline(word, mission, self.steps().done, percent, code);
        self.sky.wayline = None;
        let outcome = if code == 0 { Outcome::Succeeded } else { Outcome::Failed(code) };
        self.ended(receipt, outcome);
    }

    pub(super) fn tell_wayline_flying(&mut self) {
        self.follow_wayline();
        let Some(wayline) = &self.sky.wayline else { return };
        // One that was broken off says no more before its end, as recorded.
        if wayline.state == State::Ending && wayline.code != 0 {
            return;
        }
        let Steps { running, returning, landing, .. } = *self.steps();
        let first_leg = self.sky.legs == self.aircraft.path().count();
        match (wayline.state, self.sky.stage) {
            (State::Running, _) => {
                let mission = if first_leg { 5 } else { 6 };
                self.tell_wayline("in_progress", mission, running, self.wayline_percent(), 0);
            }
            (State::Ending, Stage::Returning) => {
                self.tell_wayline("in_progress", 9, returning, 93, 0);
            }
            (State::Ending, Stage::Landing { .. }) => {
                self.tell_wayline("in_progress", 9, landing, 97, 0);
            }
            (
                State::Ending | State::Preparing | State::Paused,
                Stage::Docked
                | Stage::Preparing { .. }
                | Stage::Airborne
                | Stage::Returning
                | Stage::Landing { .. }
                | Stage::Stowing
                | Stage::Outside,
            ) => {}
        }
    }

    /// The dock's own numbers. Who has no dock flies no task, so nobody hears these.
    fn steps(&self) -> &'static Steps {
        const NONE: &Steps =
            &Steps { running: 0, returning: 0, landing: 0, done: 0, percent: None };
        self.config.model.gateway().station.as_ref().map_or(NONE, |station| &station.steps)
    }

    fn wayline_percent(&self) -> i64 {
        if let Some(percent) = self.steps().percent {
            return percent;
        }
        let Some(wayline) = &self.sky.wayline else { return 0 };
        let flown = i64::try_from(wayline.flown).unwrap_or(0);
        let legs = i64::try_from(wayline.path.len().max(1)).unwrap_or(1);
        20 + (RETURNING_PERCENT - 20) * flown / legs
    }

    pub(super) fn tell_wayline(
        &mut self,
        word: &str,
        mission: i64,
        step: i64,
        percent: i64,
        result: i64,
    ) {
        let Some(wayline) = &self.sky.wayline else { return };
        let flight_id = wayline.flight_id.clone();
        let done = matches!(word, "ok" | "failed" | "canceled");
        let mut ext = json!({
            "current_waypoint_index": wayline.waypoint(),
            "flight_id": flight_id,
            "track_id": if done { "" } else { self.sky.track_id.as_str() },
            "wayline_id": if wayline.state == State::Preparing { 65_535 } else { 0 },
            "wayline_mission_state": mission,
        });
        if done {
            ext["media_count"] = json!(0);
        }
        if let Some(broken) = &wayline.break_point
            && ((done && result != 0) || word == "paused")
        {
            ext["break_point"] = broken.clone();
        }
        let data = json!({"result": result, "output": {
            "status": word, "progress": {"current_step": step, "percent": percent}, "ext": ext}});
        // 0 while it runs, 1 when it pauses or ends, as recorded.
        let need_reply = done || word == "paused";
        self.event("flighttask_progress", Some(&flight_id), Some(need_reply), &data);
        self.happened(Kind::Progress {
            method: "flighttask_execute".to_owned(),
            status: word.to_owned(),
            step: Some(step.to_string()),
            percent: Some(percent),
        });
    }
}
