//! How the aircraft moves: from point to point with bounded speed and acceleration, by stick, and down to nothing.
//!
//! Counts its own time in fixed steps, so that where it is depends on the time only and not on how often it is asked.

use std::collections::VecDeque;

use crate::{
    Position,
    geo::{bearing, wrapped},
    model::airframe::Performance,
};

/// Length of a step in milliseconds of flight time.
const STEP_MS: u64 = 100;
const STEP: f64 = 0.1;
/// Horizontal acceleration, m/s².
const ACCELERATION: f64 = 3.0;
/// Vertical acceleration, m/s².
const LIFT: f64 = 2.5;
/// How fast it sinks at the ground, m/s, and how many metres higher it may sink 1 m/s faster.
const TOUCHDOWN: f64 = 0.5;
const FLARE: f64 = 5.0;
/// How fast it turns, degrees per second.
const TURN: f64 = 60.0;
/// Near enough to be there, metres.
const NEAR: f64 = 0.05;
/// Slowest approach, m/s.
const CREEP: f64 = 0.4;

/// One stretch of a path.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Leg {
    /// Where to.
    pub to: Position,
    /// How fast at most, m/s over ground.
    pub speed: f64,
}

/// What a stick asks for: m/s forward, right and up, and degrees per second clockwise.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Stick {
    pub forward: f64,
    pub right: f64,
    pub up: f64,
    pub turn: f64,
}

/// What the battery does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Power {
    Flying,
    Charging,
    Resting,
}

/// The aircraft's body.
#[derive(Debug, Clone)]
pub struct Aircraft {
    pub position: Position,
    /// Where it took off, the origin of `elevation`.
    pub takeoff: Position,
    /// -180 to 180 degrees.
    pub heading: f64,
    /// m/s to the north, to the east and up.
    pub velocity: (f64, f64, f64),
    /// Percent.
    pub battery: f64,
    /// What it holds at most.
    pub battery_max: f64,
    pub power: Power,
    /// Metres flown in all.
    pub odometer: f64,
    /// Seconds flown in all.
    pub hours: f64,
    path: VecDeque<Leg>,
    stick: Option<(Stick, u64)>,
    clock_ms: u64,
    performance: Performance,
}

impl Aircraft {
    pub fn parked(
        performance: Performance,
        at: Position,
        heading: f64,
        battery: f64,
        clock_ms: u64,
    ) -> Self {
        Self {
            performance,
            position: at,
            takeoff: at,
            heading,
            velocity: (0.0, 0.0, 0.0),
            battery,
            battery_max: 100.0,
            power: Power::Resting,
            odometer: 0.0,
            hours: 0.0,
            path: VecDeque::new(),
            stick: None,
            clock_ms,
        }
    }

    /// Flies these legs from now on, instead of whatever it did.
    pub fn follow(&mut self, path: impl IntoIterator<Item = Leg>) {
        self.path = path.into_iter().collect();
        self.stick = None;
    }

    /// Stops where it is.
    pub fn hover(&mut self) {
        self.path.clear();
        self.stick = None;
    }

    /// Obeys a stick for so long.
    pub fn steer(&mut self, stick: Stick, milliseconds: u64) {
        self.path.clear();
        self.stick = Some((stick, self.clock_ms + milliseconds));
    }

    /// Is set down somewhere, still.
    pub fn put(&mut self, at: Position) {
        self.hover();
        self.position = at;
        self.velocity = (0.0, 0.0, 0.0);
    }

    /// Whether it has flown its whole path.
    pub fn arrived(&self) -> bool {
        self.path.is_empty()
    }

    pub fn path(&self) -> impl Iterator<Item = Leg> {
        self.path.iter().copied()
    }

    /// Metres left of the path.
    pub fn distance_left(&self) -> f64 {
        let mut at = self.position;
        let mut sum = 0.0;
        for leg in &self.path {
            sum += at.distance(leg.to);
            at = leg.to;
        }
        sum
    }

    /// Seconds left of the path, roughly.
    pub fn time_left(&self) -> f64 {
        let mut at = self.position;
        let mut sum = 0.0;
        for leg in &self.path {
            let level = at.ground_distance(leg.to) / leg.speed.max(CREEP);
            let rate = if at.height < leg.to.height {
                self.performance.climb
            } else {
                self.performance.descent
            };
            sum += level.max((leg.to.height - at.height).abs() / rate);
            at = leg.to;
        }
        sum
    }

    /// Metres above where it took off.
    pub fn elevation(&self) -> f64 {
        self.position.height - self.takeoff.height
    }

    pub fn horizontal_speed(&self) -> f64 {
        self.velocity.0.hypot(self.velocity.1)
    }

    /// Lets the time run to `clock_ms` of flight time.
    pub fn advance(&mut self, clock_ms: u64) {
        while self.clock_ms + STEP_MS <= clock_ms {
            if self.is_still() {
                // Nothing moves, so one long step does what many would.
                let steps = (clock_ms - self.clock_ms) / STEP_MS;
                self.clock_ms += steps * STEP_MS;
                self.use_battery(seconds(steps * STEP_MS));
                return;
            }
            self.clock_ms += STEP_MS;
            self.use_battery(STEP);
            self.step();
        }
    }

    /// How fast it rises or sinks at most. Near the ground it sinks slowly.
    fn rate_max(&self, rise: f64) -> f64 {
        if 0.0 <= rise {
            return self.performance.climb;
        }
        let soft = TOUCHDOWN + self.elevation().max(0.0) / FLARE;
        soft.min(self.performance.descent)
    }

    fn is_still(&self) -> bool {
        self.path.is_empty()
            && self.stick.is_none()
            && self.horizontal_speed() < 1e-9
            && self.velocity.2.abs() < 1e-9
    }

    fn use_battery(&mut self, seconds: f64) {
        let change = match self.power {
            Power::Flying => {
                self.hours += seconds;
                -100.0 / self.performance.endurance
            }
            Power::Charging => 100.0 / self.performance.charge,
            Power::Resting => 0.0,
        };
        self.battery = (self.battery + change * seconds).clamp(0.0, self.battery_max);
    }

    fn step(&mut self) {
        if self.stick.is_some_and(|(_, until)| until < self.clock_ms) {
            self.stick = None;
        }
        match (self.stick, self.path.front().copied()) {
            (Some((stick, _)), _) => self.steered(stick),
            (None, Some(leg)) => self.toward(leg),
            (None, None) => self.drift((0.0, 0.0, 0.0)),
        }
    }

    fn steered(&mut self, stick: Stick) {
        self.heading = wrapped(self.heading + stick.turn * STEP);
        let (sin, cos) = self.heading.to_radians().sin_cos();
        let north = stick.forward * cos - stick.right * sin;
        let east = stick.forward * sin + stick.right * cos;
        let floor = self.position.height <= self.takeoff.height + 2.0;
        let up = if floor { stick.up.max(0.0) } else { stick.up };
        let Performance { climb, descent, .. } = self.performance;
        self.drift((north, east, up.clamp(-descent, climb)));
    }

    /// Brings the velocity nearer to `wanted` and moves with it.
    fn drift(&mut self, wanted: (f64, f64, f64)) {
        self.velocity = (
            nearer(self.velocity.0, wanted.0, ACCELERATION * STEP),
            nearer(self.velocity.1, wanted.1, ACCELERATION * STEP),
            nearer(self.velocity.2, wanted.2, LIFT * STEP),
        );
        let (north, east, up) = self.velocity;
        self.shift(north * STEP, east * STEP, up * STEP);
    }

    fn toward(&mut self, leg: Leg) {
        let (north, east) = self.position.offset_to(leg.to);
        let level = north.hypot(east);
        let rise = leg.to.height - self.position.height;
        if 1.0 < level {
            let wanted = bearing(north, east);
            let turn = wrapped(wanted - self.heading).clamp(-TURN * STEP, TURN * STEP);
            self.heading = wrapped(self.heading + turn);
        }
        let speed = approach(self.horizontal_speed(), level, leg.speed, ACCELERATION);
        let rate = approach(self.velocity.2.abs(), rise.abs(), self.rate_max(rise), LIFT);
        let share = if level < NEAR { 0.0 } else { (speed * STEP).min(level) / level };
        let up = (rate * STEP).min(rise.abs()).copysign(rise);
        self.shift(north * share, east * share, up);
        self.velocity = (north * share / STEP, east * share / STEP, up / STEP);
        if self.position.ground_distance(leg.to) < NEAR
            && (leg.to.height - self.position.height).abs() < NEAR
        {
            self.position = leg.to;
            self.path.pop_front();
            if self.path.is_empty() {
                self.velocity = (0.0, 0.0, 0.0);
            }
        }
    }

    fn shift(&mut self, north: f64, east: f64, up: f64) {
        self.odometer += north.hypot(east).hypot(up);
        self.position = self.position.moved(north, east).at_height(self.position.height + up);
    }
}

/// The speed for the next step: no faster than allowed, and no faster than it can be lost again before `distance`.
fn approach(speed: f64, distance: f64, speed_max: f64, acceleration: f64) -> f64 {
    if distance < NEAR {
        return 0.0;
    }
    let brakeable = (2.0 * acceleration * distance).sqrt();
    (speed + acceleration * STEP).min(speed_max).min(brakeable).max(CREEP)
}

fn nearer(from: f64, to: f64, most: f64) -> f64 {
    from + (to - from).clamp(-most, most)
}

fn seconds(milliseconds: u64) -> f64 {
    std::time::Duration::from_millis(milliseconds).as_secs_f64()
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOME: Position = Position { latitude: 22.5, longitude: 113.9, height: 30.0 };

    fn flying() -> Aircraft {
        let mut aircraft =
            Aircraft::parked(crate::model::airframe::M3D.performance, HOME, 0.0, 90.0, 0);
        aircraft.power = Power::Flying;
        aircraft
    }

    #[test]
    fn it_comes_nearer_all_the_way_and_arrives() {
        let target = HOME.moved(300.0, 200.0).at_height(100.0);
        let mut aircraft = flying();
        aircraft.follow([
            Leg { to: HOME.at_height(60.0), speed: 10.0 },
            Leg { to: target, speed: 10.0 },
        ]);
        let mut left = aircraft.distance_left();
        let mut clock = 0;
        while !aircraft.arrived() {
            clock += 500;
            aircraft.advance(clock);
            assert!(aircraft.distance_left() < left, "at {clock} ms");
            assert!(aircraft.horizontal_speed() <= 10.01);
            left = aircraft.distance_left();
            assert!(clock < 120_000, "never arrives");
        }
        assert_eq!(aircraft.position, target);
        assert!((aircraft.elevation() - 70.0).abs() < 0.1);
        assert!((aircraft.heading - bearing(300.0, 200.0)).abs() < 2.0);
        assert!(aircraft.battery < 90.0);
    }

    #[test]
    fn where_it_is_depends_on_the_time_and_not_on_how_often_it_is_asked() {
        let target = HOME.moved(-500.0, 100.0).at_height(80.0);
        let (mut often, mut once) = (flying(), flying());
        for aircraft in [&mut often, &mut once] {
            aircraft.follow([Leg { to: target, speed: 8.0 }]);
        }
        for clock in 0..2_000 {
            often.advance(clock * 10);
        }
        once.advance(19_990);
        assert_eq!(often.position, once.position);
        assert_eq!(often.battery.to_bits(), once.battery.to_bits());
    }

    #[test]
    fn a_stick_moves_it_forward_and_lets_it_stop_again() {
        let mut aircraft = flying();
        aircraft.put(HOME.at_height(80.0));
        aircraft.heading = 90.0;
        aircraft.steer(Stick { forward: 3.0, ..Stick::default() }, 2_000);
        aircraft.advance(2_000);
        let (north, east) = HOME.offset_to(aircraft.position);
        assert!(3.0 < east && north.abs() < 0.1, "{north} {east}");
        aircraft.advance(6_000);
        assert!(aircraft.horizontal_speed() < 1e-6);
    }

    #[test]
    fn a_charging_battery_gets_full_and_no_fuller() {
        let mut aircraft = flying();
        aircraft.power = Power::Charging;
        aircraft.advance(3_600_000);
        assert!((aircraft.battery - 100.0).abs() < 1e-9);
    }
}
