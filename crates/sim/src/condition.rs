//! Conditions of the simulated world: weather, batteries, people who hold the controls. They are true for the dock, which
//! shows them in what it tells and refuses by its own rules what they forbid.

use serde::Serialize;

/// One of them. Each has its name in scenarios, in brackets.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Condition {
    /// The aircraft's battery holds no more than this (`low_battery`).
    LowBattery {
        /// 0 to 100.
        percent: u8,
    },
    /// It is windy (`wind`).
    Wind {
        /// m/s.
        speed: f64,
    },
    /// It rains (`rain`).
    Rain {
        /// DJI's `rainfall`: 1 light, 2 moderate, 3 heavy.
        level: u8,
    },
    /// Somebody with a remote controller has the aircraft (`no_authority`).
    NoAuthority,
    /// The dock is in remote debugging (`debug_mode`).
    DebugMode,
    /// The aircraft is off and does not switch on (`aircraft_off`).
    AircraftOff,
    /// The dock's clock is wrong (`clock_skew`).
    ClockSkew {
        /// How far it is ahead; negative for behind.
        seconds: i64,
    },
    /// The dock has no connection to its broker (`offline`).
    Offline,
}

impl Condition {
    /// Its name.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::LowBattery { .. } => "low_battery",
            Self::Wind { .. } => "wind",
            Self::Rain { .. } => "rain",
            Self::NoAuthority => "no_authority",
            Self::DebugMode => "debug_mode",
            Self::AircraftOff => "aircraft_off",
            Self::ClockSkew { .. } => "clock_skew",
            Self::Offline => "offline",
        }
    }
}

/// What is true for a dock at one time. The default is a quiet day.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize)]
pub struct Conditions {
    /// What the battery holds at most, in percent.
    pub battery_max: Option<f64>,
    /// m/s; without it, a breeze.
    pub wind: Option<f64>,
    /// DJI's `rainfall`, 0 to 3.
    pub rain: u8,
    /// Somebody else has the aircraft.
    pub no_authority: bool,
    /// The dock is kept in remote debugging.
    pub debug_mode: bool,
    /// The aircraft does not switch on.
    pub aircraft_off: bool,
    /// How far the clock is ahead, in seconds.
    pub clock_ahead: i64,
    /// There is no connection.
    pub offline: bool,
}

impl Conditions {
    /// What these make together. Of two of a kind the later one is true.
    #[must_use]
    pub fn of(all: impl IntoIterator<Item = Condition>) -> Self {
        let mut conditions = Self::default();
        for condition in all {
            match condition {
                Condition::LowBattery { percent } => {
                    conditions.battery_max = Some(f64::from(percent));
                }
                Condition::Wind { speed } => conditions.wind = Some(speed),
                Condition::Rain { level } => conditions.rain = level,
                Condition::NoAuthority => conditions.no_authority = true,
                Condition::DebugMode => conditions.debug_mode = true,
                Condition::AircraftOff => conditions.aircraft_off = true,
                Condition::ClockSkew { seconds } => conditions.clock_ahead = seconds,
                Condition::Offline => conditions.offline = true,
            }
        }
        conditions
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_later_of_two_of_a_kind_is_true() {
        let wind = |speed| Condition::Wind { speed };
        let both = Conditions::of([wind(5.0), Condition::DebugMode, wind(14.0)]);
        let expected = Conditions { wind: Some(14.0), debug_mode: true, ..Conditions::default() };
        assert_eq!(both, expected);
        assert_eq!(Conditions::of([]), Conditions::default());
    }
}
