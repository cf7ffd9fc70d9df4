//! By which rule requests of a type are answered.

use std::time::Duration;

use crate::{
    id::{DeviceSn, TenantId},
    time::Timestamp,
};

/// How long a request may be answered where no rule says otherwise, in seconds.
pub const REPLY_SECONDS_DEFAULT: u64 = 30;
/// Shortest time a rule may give, in seconds.
pub const REPLY_SECONDS_MIN: u64 = 1;
/// Longest time a rule may give, in seconds.
pub const REPLY_SECONDS_MAX: u64 = 3_600;
/// Longest wait before an automatic answer, in seconds: it must end before the time to answer does.
pub const AFTER_SECONDS_MAX: u64 = REPLY_SECONDS_MAX - 1;

/// Who answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// The server, at once.
    Auto,
    /// Somebody.
    Manual,
    /// Somebody, and the server if nobody did after this time.
    AutoAfter(Duration),
}

impl Mode {
    /// The word callers see.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Manual => "manual",
            Self::AutoAfter(_) => "auto_after",
        }
    }
}

/// How requests of one type are answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rule {
    /// Who answers.
    pub mode: Mode,
    /// How long it may be answered.
    pub reply_wait: Duration,
}

impl Rule {
    /// What counts where nobody set a rule. `has_automatic` says whether the server knows an answer.
    #[must_use]
    pub fn default_for(has_automatic: bool) -> Self {
        let mode = if has_automatic { Mode::Auto } else { Mode::Manual };
        Self { mode, reply_wait: Duration::from_secs(REPLY_SECONDS_DEFAULT) }
    }

    /// Checks the times of a rule and puts it together.
    ///
    /// # Errors
    /// Names the field that does not fit, and why.
    pub fn new(
        mode: &str,
        after_seconds: Option<u64>,
        reply_seconds: Option<u64>,
    ) -> Result<Self, (&'static str, String)> {
        let reply = reply_seconds.unwrap_or(REPLY_SECONDS_DEFAULT);
        if !(REPLY_SECONDS_MIN..=REPLY_SECONDS_MAX).contains(&reply) {
            let problem =
                format!("must be a whole number from {REPLY_SECONDS_MIN} to {REPLY_SECONDS_MAX}");
            return Err(("reply_seconds", problem));
        }
        let mode = match (mode, after_seconds) {
            ("auto", None) => Mode::Auto,
            ("manual", None) => Mode::Manual,
            ("auto_after", Some(after)) if (1..reply).contains(&after) => {
                Mode::AutoAfter(Duration::from_secs(after))
            }
            ("auto_after", Some(_)) => {
                let problem =
                    format!("must be at least 1 and less than reply_seconds, which is {reply}");
                return Err(("after_seconds", problem));
            }
            ("auto_after", None) => {
                let problem = "is required with the mode auto_after".to_owned();
                return Err(("after_seconds", problem));
            }
            ("auto" | "manual", Some(_)) => {
                return Err(("after_seconds", "goes with the mode auto_after only".to_owned()));
            }
            _ => return Err(("mode", "must be auto, manual or auto_after".to_owned())),
        };
        Ok(Self { mode, reply_wait: Duration::from_secs(reply) })
    }
}

/// What a rule is about.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Scope {
    /// Whose.
    pub tenant: TenantId,
    /// Requests of this type.
    pub request_type: String,
    /// Of this device alone; of all of the tenant's where there is none.
    pub device: Option<DeviceSn>,
}

/// A rule that somebody set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SetRule {
    /// What it is about.
    pub scope: Scope,
    /// The rule.
    pub rule: Rule,
    /// When it was set.
    pub updated_at: Timestamp,
}
