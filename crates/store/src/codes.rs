//! The small numbers that stand for enums in the tables. A number that has shipped never gets another meaning.

use utmos_core::{
    command::{FailureCode, Outcome, Phase, Status},
    credential::CredentialStatus,
    device::DeviceKind,
    device_event::EventKind,
    device_request::{AskedOn, RoutingDecision, Sending},
    method::{Channel, CompleteOn, CompletesBy, IfOffline, Risk},
    ports::Recorded,
};

/// An enum that is kept as a number.
pub(crate) trait Coded: Sized {
    fn code(self) -> i64;
    fn from_code(code: i64) -> Option<Self>;
}

macro_rules! coded {
    ($($name:ident { $($variant:ident = $code:literal,)* })*) => {
        $(impl Coded for $name {
            fn code(self) -> i64 {
                match self { $(Self::$variant => $code,)* }
            }

            fn from_code(code: i64) -> Option<Self> {
                match code { $($code => Some(Self::$variant),)* _ => None }
            }
        })*
    };
}

coded! {
    Channel { Services = 1, DrcDown = 2, PropertySet = 3, }
    CompletesBy { Reply = 1, Job = 2, ReplyOrJob = 3, DrcAck = 4, NoReply = 5, }
    Risk { Emergency = 1, Motion = 2, Ground = 3, Session = 4, Payload = 5, Configuration = 6, Read = 7, }
    IfOffline { Wait = 1, Fail = 2, }
    CompleteOn { Outcome = 1, Reply = 2, }
    Status { Accepted = 1, Delivered = 2, Succeeded = 3, Failed = 4, TimedOut = 5, UnmatchedResponse = 6, }
    FailureCode {
        DeviceExecutionFailed = 1, DeviceOffline = 2, Cancelled = 3, PreemptedByEmergency = 4, TransportFailed = 5,
        ExpiredBeforeSending = 6, NoResponse = 7, ExecutionUnconfirmed = 8, DispatchUncertain = 9,
    }
    CredentialStatus { Active = 1, Disabled = 2, Deleted = 3, }
    RoutingDecision { AutoReplied = 1, AwaitingReply = 2, Replied = 3, Expired = 4, Unsupported = 5, }
    Sending { Unsent = 1, Claimed = 2, Sent = 3, GivenUp = 4, }
    AskedOn { Requests = 1, Status = 2, StatusOfThing = 3, }
    EventKind { Event = 1, AlarmRaised = 2, AlarmCleared = 3, Online = 4, Offline = 5, }
    DeviceKind { Dock = 1, RemoteController = 2, Aircraft = 3, }
    Recorded { Registered = 1, Bound = 2, Joined = 3, Edited = 4, Password = 5, Moved = 6, Removed = 7, }
}

pub(crate) const WAITING: i64 = 1;
pub(crate) const SENDING: i64 = 2;
const DELIVERED: i64 = 3;
pub(crate) const ENDED_DELIVERED: i64 = 4;
const SUCCEEDED: i64 = 5;
const FAILED: i64 = 6;
const TIMED_OUT: i64 = 7;
const UNMATCHED: i64 = 8;

/// The columns `phase` and `failure`.
pub(crate) fn phase_codes(phase: Phase) -> (i64, Option<i64>) {
    match phase {
        Phase::Waiting => (WAITING, None),
        Phase::Sending => (SENDING, None),
        Phase::Delivered => (DELIVERED, None),
        Phase::Ended(Outcome::Delivered) => (ENDED_DELIVERED, None),
        Phase::Ended(Outcome::Succeeded) => (SUCCEEDED, None),
        Phase::Ended(Outcome::Failed(code)) => (FAILED, Some(code.code())),
        Phase::Ended(Outcome::TimedOut(code)) => (TIMED_OUT, Some(code.code())),
        Phase::Ended(Outcome::Unmatched) => (UNMATCHED, None),
    }
}

/// Reads the columns `phase` and `failure`.
pub(crate) fn phase_from(phase: i64, failure: Option<i64>) -> Option<Phase> {
    let failure = match failure {
        Some(code) => Some(FailureCode::from_code(code)?),
        None => None,
    };
    match (phase, failure) {
        (WAITING, None) => Some(Phase::Waiting),
        (SENDING, None) => Some(Phase::Sending),
        (DELIVERED, None) => Some(Phase::Delivered),
        (ENDED_DELIVERED, None) => Some(Phase::Ended(Outcome::Delivered)),
        (SUCCEEDED, None) => Some(Phase::Ended(Outcome::Succeeded)),
        (FAILED, Some(code)) => Some(Phase::Ended(Outcome::Failed(code))),
        (TIMED_OUT, Some(code)) => Some(Phase::Ended(Outcome::TimedOut(code))),
        (UNMATCHED, None) => Some(Phase::Ended(Outcome::Unmatched)),
        _ => None,
    }
}

/// The phases a caller sees as this state.
pub(crate) fn phases_of(status: Status) -> &'static [i64] {
    match status {
        Status::Accepted => &[WAITING, SENDING],
        Status::Delivered => &[DELIVERED, ENDED_DELIVERED],
        Status::Succeeded => &[SUCCEEDED],
        Status::Failed => &[FAILED],
        Status::TimedOut => &[TIMED_OUT],
        Status::UnmatchedResponse => &[UNMATCHED],
    }
}

/// The ends that few commands come to.
pub(crate) const RARE_ENDS: [i64; 4] = [ENDED_DELIVERED, FAILED, TIMED_OUT, UNMATCHED];

/// Whether a command ended as few do, so that lists of those must not read all the others.
pub(crate) fn is_rare_end(phase: Phase) -> bool {
    RARE_ENDS.contains(&phase_codes(phase).0)
}

/// Whether a command that stands so may have reached its device.
pub(crate) fn may_have_left(phase: Phase) -> bool {
    match phase {
        Phase::Waiting => false,
        Phase::Sending | Phase::Delivered => true,
        Phase::Ended(outcome) => match outcome {
            Outcome::Failed(code) | Outcome::TimedOut(code) => match code {
                FailureCode::DeviceOffline
                | FailureCode::Cancelled
                | FailureCode::PreemptedByEmergency
                | FailureCode::TransportFailed
                | FailureCode::ExpiredBeforeSending => false,
                FailureCode::DeviceExecutionFailed
                | FailureCode::NoResponse
                | FailureCode::ExecutionUnconfirmed
                | FailureCode::DispatchUncertain => true,
            },
            Outcome::Delivered | Outcome::Succeeded | Outcome::Unmatched => true,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn phases() -> Vec<Phase> {
        let mut all = vec![
            Phase::Waiting,
            Phase::Sending,
            Phase::Delivered,
            Phase::Ended(Outcome::Delivered),
            Phase::Ended(Outcome::Succeeded),
            Phase::Ended(Outcome::Unmatched),
        ];
        for code in FailureCode::ALL {
            all.push(Phase::Ended(Outcome::Failed(code)));
            all.push(Phase::Ended(Outcome::TimedOut(code)));
        }
        all
    }

    #[test]
    fn every_phase_reads_back_and_is_listed_under_its_state() {
        for phase in phases() {
            let (code, failure) = phase_codes(phase);
            assert_eq!(phase_from(code, failure), Some(phase));
            assert!(phases_of(phase.status()).contains(&code), "{phase:?}");
        }
        assert_eq!(phase_from(FAILED, None), None);
        assert_eq!(phase_from(WAITING, Some(1)), None);
        assert_eq!(phase_from(0, None), None);
    }

    #[test]
    fn rare_ends_are_those_that_statements_name() {
        // PostgreSQL's `update_lives`, and the indexes of both stores.
        assert_eq!(RARE_ENDS, [4, 6, 7, 8]);
    }

    #[test]
    fn every_state_reads_back() {
        for status in Status::ALL {
            assert_eq!(Status::from_code(status.code()), Some(status));
        }
    }
}
