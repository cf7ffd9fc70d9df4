//! What happens at a dock, for people who watch.

use std::{fmt, sync::Arc};

use utmos_core::time::Timestamp;

/// Something that happened at a dock. Shown, it is one line: `SIM-DOCK-0001 ← cover_open`.
#[derive(Debug, Clone, PartialEq)]
pub struct Happening {
    /// The dock.
    pub sn: Arc<str>,
    /// When.
    pub at: Timestamp,
    /// What.
    pub kind: Kind,
}

/// What happened.
#[derive(Debug, Clone, PartialEq)]
pub enum Kind {
    /// Connected to the broker.
    Connected,
    /// The connection was lost or could not be made.
    Disconnected {
        /// Why.
        reason: String,
    },
    /// `update_topo` went out: the dock is there for commands.
    Announced {
        /// Whether the aircraft is on.
        aircraft: bool,
    },
    /// A command came.
    Command {
        /// Its method.
        method: String,
    },
    /// A command was answered.
    Reply {
        /// Its method.
        method: String,
        /// 0, or an error code.
        result: i64,
    },
    /// A job told how far it is.
    Progress {
        /// Its method.
        method: String,
        /// DJI's word: `in_progress`, `ok`, …
        status: String,
        /// What it is at.
        step: Option<String>,
        /// 0 to 100.
        percent: Option<i64>,
    },
    /// Where the aircraft is, while it flies.
    Flight {
        /// Metres above where it took off.
        elevation: f64,
        /// Metres over ground from home.
        home_distance: f64,
        /// m/s over ground.
        speed: f64,
        /// Percent.
        battery: i64,
    },
    /// Something else, in words.
    Note(String),
}

impl fmt::Display for Happening {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ", self.sn)?;
        match &self.kind {
            Kind::Connected => write!(f, "connected"),
            Kind::Disconnected { reason } => write!(f, "not connected: {reason}"),
            Kind::Announced { aircraft: true } => write!(f, "→ online, with its aircraft"),
            Kind::Announced { aircraft: false } => write!(f, "→ online, aircraft off"),
            Kind::Command { method } => write!(f, "← {method}"),
            Kind::Reply { method, result: 0 } => write!(f, "→ {method} accepted"),
            Kind::Reply { method, result } => write!(f, "→ {method} refused: {result}"),
            Kind::Progress { method, status, step, percent } => {
                write!(f, "→ {method} {status}")?;
                if let Some(step) = step {
                    write!(f, " {step}")?;
                }
                percent.map_or(Ok(()), |percent| write!(f, " {percent} %"))
            }
            Kind::Flight { elevation, home_distance, speed, battery } => write!(
                f,
                "✈ height {elevation:.0} m, {home_distance:.0} m from home, {speed:.1} m/s, battery {battery} %"
            ),
            Kind::Note(text) => write!(f, "{text}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_happening_reads_as_a_line() {
        let line = |kind| {
            Happening { sn: "SIM-DOCK-0001".into(), at: Timestamp::from_millis(0), kind }
                .to_string()
        };
        assert_eq!(
            line(Kind::Command { method: "cover_open".into() }),
            "SIM-DOCK-0001 ← cover_open"
        );
        assert_eq!(
            line(Kind::Progress {
                method: "cover_open".into(),
                status: "in_progress".into(),
                step: Some("open_cover".into()),
                percent: Some(40),
            }),
            "SIM-DOCK-0001 → cover_open in_progress open_cover 40 %"
        );
    }
}
