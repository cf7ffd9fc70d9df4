//! When the docks of the load answer: a platform meets docks that are quick, slow and silent.

use std::time::Duration;

use utmos_sim::fault::{Fault, FaultPlan, Meets, Rule};

/// How long a command that nobody answers is given: as little as there is, in seconds.
const SILENT_TIMEOUT_SECONDS: u32 = 1;
/// The longest that docks may let the load wait, in milliseconds: as long as a method has by default.
const WAIT_MAX_MS: u64 = 25_000;

/// When docks answer the load's commands. The dock beside them, for phases and emergencies, always answers at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Reply {
    /// As soon as they have read them.
    #[default]
    AtOnce,
    /// So long afterwards.
    After(Duration),
    /// Not at all: what ends the commands is their time.
    Never,
}

impl Reply {
    /// Reads it as it is given to the bench: milliseconds, or `never`.
    ///
    /// # Errors
    /// What may be given.
    pub fn parse(text: &str) -> Result<Self, String> {
        match text.parse() {
            _ if text == "never" => Ok(Self::Never),
            Ok(0) => Ok(Self::AtOnce),
            Ok(millis @ ..=WAIT_MAX_MS) => Ok(Self::After(Duration::from_millis(millis))),
            Ok(_) | Err(_) => {
                Err(format!("must be milliseconds from 0 to {WAIT_MAX_MS}, or never"))
            }
        }
    }

    /// For people, and in the JSON.
    pub fn title(self) -> String {
        match self {
            Self::AtOnce => "at once".to_owned(),
            Self::After(wait) => format!("after {} ms", wait.as_millis()),
            Self::Never => "never".to_owned(),
        }
    }

    /// What goes wrong at the docks for it.
    pub fn faults(self) -> FaultPlan {
        let fault = match self {
            Self::AtOnce => return FaultPlan::default(),
            Self::After(wait) => {
                Fault::Late { ms: u64::try_from(wait.as_millis()).unwrap_or(WAIT_MAX_MS) }
            }
            Self::Never => Fault::Silent,
        };
        let rules = vec![Rule { meets: Meets::default(), fault }];
        FaultPlan { rules, ..FaultPlan::default() }
    }

    /// The `timeout_seconds` that the load's commands are given; without one they have their method's.
    pub fn timeout_seconds(self) -> Option<u32> {
        match self {
            Self::AtOnce | Self::After(_) => None,
            Self::Never => Some(SILENT_TIMEOUT_SECONDS),
        }
    }

    /// How long a command takes in any case.
    pub fn wait(self) -> Duration {
        match self {
            Self::AtOnce => Duration::ZERO,
            Self::After(wait) => wait,
            Self::Never => Duration::from_secs(u64::from(SILENT_TIMEOUT_SECONDS)),
        }
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]
    use super::*;

    #[test]
    fn it_is_milliseconds_or_never() {
        assert_eq!(Reply::parse("0").unwrap(), Reply::AtOnce);
        assert_eq!(Reply::parse("20").unwrap(), Reply::After(Duration::from_millis(20)));
        assert_eq!(Reply::parse("never").unwrap(), Reply::Never);
        for wrong in ["", "-1", "25001", "1.5", "soon"] {
            assert!(Reply::parse(wrong).unwrap_err().contains("25000"), "{wrong}");
        }
    }

    #[test]
    fn nothing_goes_wrong_at_docks_that_answer_at_once() {
        assert!(Reply::AtOnce.faults().is_empty());
        assert_eq!(Reply::After(Duration::from_millis(20)).faults().rules.len(), 1);
        assert_eq!(Reply::Never.faults().rules.len(), 1);
    }
}
