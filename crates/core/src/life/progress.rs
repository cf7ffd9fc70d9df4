//! What a progress event of a job means.

use super::{Case, Decision, later, to_value};
use std::sync::Arc;

use crate::{
    command::{Execution, FailureCode, Life, Outcome, Phase},
    evidence::Proof,
    id::Bid,
    reply::{JobState, Progress},
};

impl Case<'_> {
    /// An event of a job that has not ended.
    pub(super) fn progress(self, progress: &Progress) -> Decision {
        let mut life = Life { failure_reason: None, ..self.with_execution(progress) };
        life.delivered_at = life.delivered_at.or(Some(self.moment.now.wall));
        match progress.state {
            JobState::Open | JobState::Paused => {
                life.phase = Phase::Delivered;
                // Before its answer has come, the answer's own deadline goes on counting as well; the later one holds.
                life.due =
                    Some(later(self.silence_due(), life.due.filter(|_| life.response.is_none())));
            }
            JobState::Succeeded => self.close(&mut life, Outcome::Succeeded),
            JobState::Failed => {
                life.failure_reason = Some(self.job_failure(progress));
                self.close(&mut life, Outcome::Failed(FailureCode::DeviceExecutionFailed));
            }
        }
        self.progressed(life, progress)
    }

    /// An event that comes after the end: shown beside it, and no more.
    pub(super) fn late_progress(self, progress: &Progress) -> Decision {
        if self.life.execution.as_ref().is_some_and(|execution| !execution.open) {
            return Decision::Ignore;
        }
        // What provably never left has no job; only an event that names it can say otherwise.
        if self.never_left() && !self.names_job_of(progress) {
            return Decision::Ignore;
        }
        let mut life = self.with_execution(progress);
        if progress.state.is_open() {
            // A job that runs on, or may run on, beside its end still holds the aircraft; one that was let go does not
            // take it back.
            life.due = self.life.due.map(|_| self.silence_due());
        } else {
            life.due = None;
            life.holds_motion = false;
        }
        self.progressed(life, progress)
    }

    /// Whether an event can be of this command's job. One without an id of its own is taken as the caller matched it.
    pub(super) fn is_of_job(self, progress: &Progress) -> bool {
        let names_another = match (&progress.job_ref, &self.spec.job_ref) {
            (Some(its), Some(ours)) => its != ours,
            (None, _) | (_, None) => false,
        };
        self.comes_from_there(progress) && (self.has_our_bid(progress) || !names_another)
    }

    /// Whether an event names this command's job by id.
    pub(super) fn names_job_of(self, progress: &Progress) -> bool {
        let has_our_ref = progress.job_ref.is_some() && progress.job_ref == self.spec.job_ref;
        self.comes_from_there(progress) && (self.has_our_bid(progress) || has_our_ref)
    }

    fn comes_from_there(self, progress: &Progress) -> bool {
        progress.gateway == self.spec.gateway
            && progress.command_methods.contains(&self.spec.method)
    }

    fn has_our_bid(self, progress: &Progress) -> bool {
        let bid = progress.bid.as_deref().and_then(|bid| bid.parse::<Bid>().ok());
        bid == Some(self.spec.bid)
    }

    fn never_left(self) -> bool {
        match self.life.phase.failure() {
            Some(
                FailureCode::DeviceOffline
                | FailureCode::Cancelled
                | FailureCode::PreemptedByEmergency
                | FailureCode::TransportFailed
                | FailureCode::ExpiredBeforeSending,
            ) => true,
            Some(
                FailureCode::DeviceExecutionFailed
                | FailureCode::NoResponse
                | FailureCode::ExecutionUnconfirmed
                | FailureCode::DispatchUncertain,
            )
            | None => false,
        }
    }

    fn with_execution(self, progress: &Progress) -> Life {
        Life {
            execution: Some(Execution {
                state: progress.state_word.clone(),
                open: progress.state.is_open(),
                step: progress.step.clone(),
                percent: progress.percent,
                updated_at: self.moment.now.wall,
                ext: Some(progress.data.clone()),
            }),
            ..self.changed()
        }
    }

    /// A flight reports every second; the timeline keeps what is news.
    fn progressed(self, life: Life, progress: &Progress) -> Decision {
        let is_news = match (&self.life.execution, &life.execution) {
            (Some(old), Some(new)) => {
                old.state != new.state
                    || old.step != new.step
                    || old.percent.map(|p| p / 10) != new.percent.map(|p| p / 10)
                    || life.phase != self.life.phase
            }
            (None, _) | (_, None) => true,
        };
        let proof = Proof::Progress {
            gateway: progress.gateway.to_string(),
            method: progress.event_method.clone(),
            state: progress.state_word.clone(),
            step: progress.step.clone(),
            percent: progress.percent,
            data: to_value(&progress.data),
        };
        let entries = if is_news { vec![self.entry(&life, proof)] } else { Vec::new() };
        Decision::Move { life: Arc::new(life), entries, effect: None }
    }

    fn job_failure(self, progress: &Progress) -> String {
        let at =
            progress.step.as_deref().map(|step| format!(" at step {step}")).unwrap_or_default();
        let code =
            progress.code.as_deref().map(|code| format!(", code {code}")).unwrap_or_default();
        let words =
            progress.message.as_deref().map(|message| format!(": {message}")).unwrap_or_default();
        format!("the device reported {}{at}{code}{words}", progress.state_word)
    }
}
