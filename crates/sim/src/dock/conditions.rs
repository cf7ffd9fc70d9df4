//! How a dock and its aircraft stand what the world does to them.

use serde_json::json;
use utmos_core::time::Now;

use super::{
    Dock, Output,
    debugging::{Mode, is_dock_job},
    flying::Stage,
};
use crate::{Conditions, refusal};

/// Strongest wind a Matrice 3D is started in, m/s.
const WIND_MAX: f64 = 12.0;
/// DJI's `rainfall` for heavy rain.
const HEAVY: u8 = 3;
/// `reason` of `joystick_invalid_notify`: a remote controller took over.
const TAKEN_OVER: i64 = 4;

/// What only whoever has the aircraft may ask for. Coming home and stopping are everybody's.
const WITH_AUTHORITY: [&str; 9] = [
    "flight_authority_grab",
    "takeoff_to_point",
    "fly_to_point",
    "fly_to_point_update",
    "return_home_cancel",
    "flighttask_execute",
    "flighttask_recovery",
    "poi_mode_enter",
    "poi_circle_speed_set",
];

impl Dock {
    /// Makes these conditions true from `now` on. Those that were true before and are not among them are over.
    pub fn put_under(&mut self, conditions: Conditions, now: Now) -> Vec<Output> {
        self.now = now;
        let before = std::mem::replace(&mut self.conditions, conditions);
        if before.battery_max != conditions.battery_max {
            self.limit_battery(conditions.battery_max);
        }
        if before.no_authority != conditions.no_authority {
            self.authority_moves(conditions.no_authority);
        }
        if before.debug_mode
            && !conditions.debug_mode
            && self.hardware.mode == Mode::RemoteDebugging
            && !self.is_working(is_dock_job)
        {
            self.hardware.mode = Mode::Idle;
        }
        if before.aircraft_off && !conditions.aircraft_off {
            self.switch_aircraft(true);
        }
        self.suffer();
        std::mem::take(&mut self.out)
    }

    /// What is true for it now.
    #[must_use]
    pub fn conditions(&self) -> Conditions {
        self.conditions
    }

    /// Lets take hold what could not while the dock was busy.
    pub(super) fn suffer(&mut self) {
        if self.conditions.debug_mode && self.hardware.mode == Mode::Idle {
            self.hardware.mode = Mode::RemoteDebugging;
        }
        if self.conditions.aircraft_off && self.sky.stage == Stage::Docked {
            self.switch_aircraft(false);
        }
    }

    /// Why a command is refused whatever it is for.
    pub(super) fn forbidden(&self, method: &str) -> Option<i64> {
        let needs_authority = self.conditions.no_authority && WITH_AUTHORITY.contains(&method);
        needs_authority.then_some(refusal::NO_AUTHORITY)
    }

    /// Why the weather, or an aircraft that does not answer, lets no flight start.
    pub(super) fn kept_on_the_ground(&self) -> Option<i64> {
        if self.conditions.aircraft_off {
            Some(refusal::AIRCRAFT_OFF)
        } else if self.is_too_windy() {
            Some(refusal::STRONG_WIND)
        } else if self.conditions.rain == HEAVY {
            Some(refusal::HEAVY_RAIN)
        } else {
            None
        }
    }

    /// Comes home when the wind has become too strong.
    pub(super) fn mind_the_wind(&mut self) {
        if self.sky.stage == Stage::Airborne && self.is_too_windy() {
            self.cut_short("wayline_failed", refusal::RETURNED_ON_WIND);
            self.wayline_must_return(refusal::RETURNED_ON_WIND, 0);
            self.fly_home();
        }
    }

    fn is_too_windy(&self) -> bool {
        self.conditions.wind.is_some_and(|wind| WIND_MAX < wind)
    }

    /// The battery has what it had when the limit goes, or what it has come to.
    fn limit_battery(&mut self, max: Option<f64>) {
        let now = self.flight_clock();
        self.aircraft.advance(now);
        let before = *self.battery_before.get_or_insert(self.aircraft.battery);
        self.aircraft.battery_max = max.unwrap_or(100.0);
        match max {
            Some(max) => self.aircraft.battery = before.min(max),
            None => {
                self.aircraft.battery = self.aircraft.battery.max(before);
                self.battery_before = None;
            }
        }
    }

    fn authority_moves(&mut self, is_taken: bool) {
        if is_taken {
            self.authority = false;
            if self.drc.is_some() {
                let data = json!({"reason": TAKEN_OVER});
                self.event("joystick_invalid_notify", None, Some(true), &data);
            }
            if self.sky.stage == Stage::Airborne {
                self.cut_short("wayline_failed", refusal::LEFT_BY_STICK);
                self.freeze_wayline();
                self.hold();
            }
        }
        let state = json!({"control_source": self.control_source()});
        self.state(self.aircraft_sn.clone(), &state);
    }

    /// `control_source` of the aircraft.
    pub(super) fn control_source(&self) -> &'static str {
        if self.conditions.no_authority { "B" } else { "A" }
    }
}
