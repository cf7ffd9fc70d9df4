//! What is seen of a command from outside, and what may be said of it.

use std::collections::BTreeMap;

use utmos_core::command::{FailureCode, Life, Outcome, Phase};

use crate::presence::Begun;

/// What a dock really did with a command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Truth {
    Done,
    Refused,
    /// It began and failed.
    Failed,
    /// It began and nobody knows.
    Begun,
}

/// What is said of a command that its dock alone can make true.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Claim {
    /// It has it.
    Delivered,
    /// It works on it.
    Runs,
    Succeeded,
    /// It refused it, or it failed there.
    Failed,
    /// An answer came that cannot be its own.
    Unmatched,
}

impl Claim {
    /// What is claimed of a command that stands so.
    pub(crate) fn all_of(life: &Life) -> Vec<Self> {
        let end = match life.phase {
            Phase::Ended(Outcome::Succeeded) => Some(Self::Succeeded),
            Phase::Ended(Outcome::Failed(FailureCode::DeviceExecutionFailed)) => Some(Self::Failed),
            Phase::Ended(Outcome::Unmatched) => Some(Self::Unmatched),
            Phase::Waiting
            | Phase::Sending
            | Phase::Delivered
            | Phase::Ended(Outcome::Delivered | Outcome::Failed(_) | Outcome::TimedOut(_)) => None,
        };
        let is_delivered = life.delivered_at.is_some() || life.phase == Phase::Delivered;
        let delivered = is_delivered.then_some(Self::Delivered);
        let runs = life.execution.is_some().then_some(Self::Runs);
        delivered.into_iter().chain(runs).chain(end).collect()
    }
}

/// What is seen of one command from outside.
#[derive(Debug, Clone, Default)]
pub(crate) struct Facts {
    /// When its bytes were written, in milliseconds of the trial.
    pub(crate) written: Vec<u64>,
    /// Its dock's acknowledgement has come.
    pub(crate) acknowledged: bool,
    /// When a dock received it.
    pub(crate) received: Vec<u64>,
    /// What it did with it, and when each began to be true.
    pub(crate) truths: Vec<(u64, Truth)>,
    /// What a server first said of it, or wanted on record, and when.
    pub(crate) claims: BTreeMap<Claim, u64>,
    /// When its dock's own good answer or refusal first reached a server, and which runs of servers.
    pub(crate) answered: Option<(u64, Vec<u64>)>,
    /// The same of the first word by which it ends: the last answer, or the last event of its job.
    pub(crate) told_end: Option<(u64, Vec<u64>)>,
    /// The broker has confirmed it, and its dock was not there.
    pub(crate) lost_at_broker: bool,
    /// What each run of a server that began to send it knew of its dock then.
    pub(crate) begun: BTreeMap<u64, Begun>,
    /// How many more of it than were written the link has made.
    pub(crate) copied: usize,
    /// When the first answer was sent that cannot be its own.
    pub(crate) odd_answer: Option<u64>,
    /// When a server first wanted its end on record, whichever way.
    pub(crate) end_wanted: Option<u64>,
}

impl Facts {
    pub(crate) fn was_written(&self) -> bool {
        !self.written.is_empty()
    }

    /// Since when this could be said of it; `None` while it could not.
    pub(crate) fn true_since(&self, claim: Claim) -> Option<u64> {
        let first = |is_it: &dyn Fn(Truth) -> bool| {
            self.truths.iter().find(|(_, truth)| is_it(*truth)).map(|(at, _)| *at)
        };
        match claim {
            // A broker that confirms what nobody gets is believed: a state says no more than that.
            Claim::Delivered => {
                let lost = self.written.first().filter(|_| self.lost_at_broker);
                self.received.first().into_iter().chain(lost).min().copied()
            }
            Claim::Runs => first(&|_| true),
            Claim::Succeeded => first(&|truth| truth == Truth::Done),
            Claim::Failed => first(&|truth| matches!(truth, Truth::Refused | Truth::Failed)),
            Claim::Unmatched => self.odd_answer,
        }
    }
}
