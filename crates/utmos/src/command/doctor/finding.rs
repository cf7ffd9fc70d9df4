//! What a check found.

/// How serious it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Verdict {
    /// As it should be.
    Ok,
    /// It works, and could be better or will not last.
    Warn,
    /// It does not work.
    Fail,
}

impl Verdict {
    /// The word at the head of a line.
    pub fn word(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Warn => "warn",
            Self::Fail => "FAIL",
        }
    }
}

/// One line of the report.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// What was looked at.
    pub subject: &'static str,
    /// How serious it is.
    pub verdict: Verdict,
    /// What was found.
    pub text: String,
    /// What to do; empty when nothing.
    pub remedy: String,
}

impl Finding {
    /// As it should be.
    pub fn ok(subject: &'static str, text: impl Into<String>) -> Self {
        Self { subject, verdict: Verdict::Ok, text: text.into(), remedy: String::new() }
    }

    /// Works, and could be better.
    pub fn warn(subject: &'static str, text: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { subject, verdict: Verdict::Warn, text: text.into(), remedy: remedy.into() }
    }

    /// Does not work.
    pub fn fail(subject: &'static str, text: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { subject, verdict: Verdict::Fail, text: text.into(), remedy: remedy.into() }
    }
}
