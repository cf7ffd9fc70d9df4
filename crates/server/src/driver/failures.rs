//! Tells of commands that ended badly though nobody wanted that and no device said so: what an operator must see. A dock
//! that is away fails every command meant for it, so the lines are few, and the rest is only counted.

use std::{
    sync::{Mutex, PoisonError},
    time::Duration,
};

use utmos_core::{
    command::{Command, FailureCode, Outcome, Phase},
    time::Mono,
};

/// Most lines in a span.
const LINES_MAX: u32 = 10;
const SPAN: Duration = Duration::from_secs(10);

/// What was told lately.
#[derive(Debug, Default)]
pub(super) struct Failures(Mutex<Lately>);

#[derive(Debug, Default)]
struct Lately {
    /// When the span began.
    since: Option<Mono>,
    lines: u32,
    untold: u64,
}

impl Failures {
    /// A command has just ended.
    pub(super) fn ended(&self, command: &Command, now: Mono) {
        let (spec, life) = (&command.spec, &command.life);
        if !is_news(life.phase) {
            return;
        }
        let Some(untold) = self.0.lock().unwrap_or_else(PoisonError::into_inner).tell(now) else {
            return;
        };
        if 0 < untold {
            tracing::warn!(count = untold, "more commands ended badly than were told");
        }
        // Not why in words: those may be the device's, and repeat a secret.
        tracing::warn!(
            command.id = %spec.id,
            gateway.sn = %spec.gateway,
            request.id = %spec.request_id,
            "{} for {} ended {}{}",
            spec.method,
            spec.device,
            life.status().as_str(),
            life.phase.failure().map(|code| format!("/{}", code.as_str())).unwrap_or_default(),
        );
    }
}

impl Lately {
    /// Whether to tell, and how many were not told before.
    fn tell(&mut self, now: Mono) -> Option<u64> {
        if self.since.is_none_or(|since| SPAN <= now.since(since)) {
            self.since = Some(now);
            self.lines = 0;
        }
        if LINES_MAX <= self.lines {
            self.untold += 1;
            return None;
        }
        self.lines += 1;
        Some(std::mem::take(&mut self.untold))
    }
}

/// Not what a device refused or a caller withdrew: they know.
fn is_news(phase: Phase) -> bool {
    match phase {
        Phase::Ended(Outcome::TimedOut(_) | Outcome::Unmatched) => true,
        Phase::Ended(Outcome::Failed(code)) => match code {
            FailureCode::DeviceOffline | FailureCode::TransportFailed => true,
            FailureCode::DeviceExecutionFailed
            | FailureCode::Cancelled
            | FailureCode::PreemptedByEmergency
            | FailureCode::ExpiredBeforeSending
            | FailureCode::NoResponse
            | FailureCode::ExecutionUnconfirmed
            | FailureCode::DispatchUncertain => false,
        },
        Phase::Ended(Outcome::Delivered | Outcome::Succeeded)
        | Phase::Waiting
        | Phase::Sending
        | Phase::Delivered => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_few_and_what_was_not_told_is_counted() {
        let mut lately = Lately::default();
        let told = |lately: &mut Lately, millis| lately.tell(Mono::from_millis(millis));
        for _ in 0..LINES_MAX {
            assert_eq!(told(&mut lately, 1_000), Some(0));
        }
        for _ in 0..5 {
            assert_eq!(told(&mut lately, 10_999), None);
        }
        assert_eq!(told(&mut lately, 11_000), Some(5));
        assert_eq!(told(&mut lately, 11_000), Some(0));
    }

    #[test]
    fn what_somebody_knows_already_is_no_news() {
        let news = FailureCode::ALL.map(|code| is_news(Phase::Ended(Outcome::Failed(code))));
        assert_eq!(news.iter().filter(|is_news| **is_news).count(), 2);
        assert!(is_news(Phase::Ended(Outcome::TimedOut(FailureCode::NoResponse))));
        assert!(is_news(Phase::Ended(Outcome::Unmatched)));
        assert!(!is_news(Phase::Ended(Outcome::Succeeded)) && !is_news(Phase::Delivered));
    }
}
