//! Whether what the platform says of a command is what the dock did. Pure.
//!
//! A state is true when it names what the dock did, or when it says that nobody knows and nobody could. It is a lie when
//! it names something else, claims what no answer said, or says "unknown" although an answer was there to be heeded.

use utmos_core::command::{FailureCode, Status};
use utmos_sim::Outcome;

/// Time a server has to heed an answer, and clocks of one machine to agree, in milliseconds. An answer that came less than
/// this before the command's end or before the server was killed counts as one that may have been lost.
pub const CHANCE_MS: i64 = 1_000;
/// How much the server's timers may be early by the wall clock, which is adjusted now and then.
const EARLY_MS: i64 = 100;
/// Time a broker has to take an answer, in milliseconds: one that it has not taken by then was not lost with a connection that
/// broke just when it was on its way.
pub const TAKEN_WAIT_MS: i64 = 2_000;
/// A command whose dock is connected for this long, with a server that lives, has had the time to be sent.
const SENT_WAIT_MS: i64 = 2_000;

/// A command as the platform tells it once everything has settled. Times are Unix milliseconds.
#[derive(Debug, Clone, PartialEq)]
pub struct Story {
    pub status: Status,
    pub failure: Option<FailureCode>,
    pub response_code: Option<String>,
    pub accepted_at: i64,
    pub ended_at: Option<i64>,
    pub timeout_ms: i64,
}

/// A message that left the dock about a command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Answer {
    /// When it was handed to the connection.
    pub at: i64,
    /// When its fate was known.
    pub settled_at: i64,
    pub fate: Fate,
    pub says: Says,
}

/// What became of such a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// The broker took it.
    Taken,
    /// It is larger than the broker takes, or than the platform reads.
    TooLarge,
    /// It was lost with its dock's connection.
    Lost,
    /// The broker said that it does not take it, or hands it to nobody.
    Refused,
    /// The broker said nothing to it, and as far as is known the connection lived.
    Dropped,
}

/// What such a message says to whoever reads it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Says {
    /// How the command ended.
    Ended,
    /// That its job runs.
    Runs,
    /// It has the command's id and cannot be its answer.
    Nonsense,
}

/// One command, from all sides.
#[derive(Debug, Clone, Copy)]
pub struct Case<'a> {
    pub story: &'a Story,
    /// What became of every copy that a dock received.
    pub outcomes: &'a [Outcome],
    pub answers: &'a [Answer],
    /// When the server was killed.
    pub deaths: &'a [i64],
    /// Whether it is done with its job and not with its answer.
    pub is_job: bool,
    /// How long its job may be silent.
    pub silence_ms: i64,
    /// Whether nothing ever answers it, so that it is done when the broker says that the dock has it.
    pub is_unanswered: bool,
    /// Whether the dock was not connected at some moment while it was under way, or at about the time it began or ended.
    pub was_cut: bool,
    /// The longest that the dock was connected without a break while the command could be sent, and a server lived.
    pub was_there_ms: i64,
    /// Whether somebody asked that it be cancelled.
    pub was_cancelled: bool,
    /// Whether an emergency of its aircraft was accepted while it was under way, and it is a movement.
    pub was_preempted: bool,
    /// Whether its dock met nothing that keeps it from saying how it ended.
    pub is_owed: bool,
}

/// What is to be said of a story.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It names what the dock did.
    Exact,
    /// It says that nobody knows, and so it is.
    Unknown(Why),
    /// It is not true.
    Wrong(Lie),
}

/// Why nobody can know.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Why {
    /// The dock told nothing of how it ended.
    NothingTold,
    /// What it told cannot be read as an answer to this command.
    Unreadable,
    /// The answer is larger than the broker takes, or than the platform reads.
    TooLarge,
    /// The answer was lost with the dock's connection.
    LostOnTheWay,
    /// The server that took the answer was killed before it had its time to store it.
    DiedWithServer,
    /// The answer came when the command had ended, or too shortly before.
    TooLate,
}

/// What is wrong with a story.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Lie {
    /// The command never ended.
    Unended,
    /// A dock received it more than once.
    Twice,
    /// "Done", and the dock did not do it.
    NotDone,
    /// "Refused or failed", and the dock did neither.
    NotFailed,
    /// "Refused", with another code than the dock's.
    OtherCode,
    /// "It never left", and it arrived.
    Arrived,
    /// "It never left", for a reason that there was not.
    NoReason,
    /// "It may have left", and it never did, though nothing was in its way.
    NotSent,
    /// It claims what no answer said.
    Unfounded,
    /// "Unknown", and the answer was there in time.
    Unheeded,
    /// "Unknown", and its answer was lost although no connection was, and no server died.
    Swallowed,
    /// "The time is over", and it was not.
    TooSoon,
    /// No end that there is.
    NoEnd,
}

impl Why {
    pub const ALL: [Self; 6] = [
        Self::NothingTold,
        Self::Unreadable,
        Self::TooLarge,
        Self::LostOnTheWay,
        Self::DiedWithServer,
        Self::TooLate,
    ];

    pub fn key(self) -> &'static str {
        match self {
            Self::NothingTold => "nothing_told",
            Self::Unreadable => "unreadable",
            Self::TooLarge => "too_large",
            Self::LostOnTheWay => "lost_on_the_way",
            Self::DiedWithServer => "died_with_server",
            Self::TooLate => "too_late",
        }
    }
}

impl Lie {
    pub fn text(self) -> &'static str {
        match self {
            Self::Unended => "never ended",
            Self::Twice => "received twice",
            Self::NotDone => "said to be done, and was not",
            Self::NotFailed => "said to have failed, and did not",
            Self::OtherCode => "said to be refused with another code",
            Self::Arrived => "said never to have left, and arrived",
            Self::NoReason => "said never to have left, and the reason was not there",
            Self::NotSent => "said to be unknown, and it never left for no reason",
            Self::Unfounded => "claims what no answer said",
            Self::Unheeded => "said to be unknown, and its answer was there",
            Self::Swallowed => "said to be unknown, and its answer was lost for no reason",
            Self::TooSoon => "timed out before its time",
            Self::NoEnd => "no end that there is",
        }
    }
}

/// Judges a story.
pub fn judge(case: &Case<'_>) -> Verdict {
    let Case { story, outcomes, .. } = *case;
    let Some(ended_at) = story.ended_at else { return Verdict::Wrong(Lie::Unended) };
    let outcome = match outcomes {
        [] => None,
        [outcome] => Some(*outcome),
        [_, _, ..] => return Verdict::Wrong(Lie::Twice),
    };
    let said = |wanted: Says| {
        let mut heard = case.answers.iter().filter(|one| one.may_be_heard());
        heard.any(|one| one.says == wanted && one.at <= ended_at + CHANCE_MS)
    };
    let founded = |says: Says, otherwise: Verdict| {
        if said(says) { otherwise } else { Verdict::Wrong(Lie::Unfounded) }
    };
    match (story.status, story.failure) {
        (Status::Succeeded, None) => match outcome {
            Some(outcome) if is_done(outcome, case.is_job) => founded(Says::Ended, Verdict::Exact),
            Some(_) | None => Verdict::Wrong(Lie::NotDone),
        },
        (Status::Failed, Some(FailureCode::DeviceExecutionFailed)) => match outcome {
            Some(Outcome::Refused(code)) => {
                if story.response_code.as_deref() == Some(code.to_string().as_str()) {
                    founded(Says::Ended, Verdict::Exact)
                } else {
                    Verdict::Wrong(Lie::OtherCode)
                }
            }
            Some(Outcome::Failed(_)) if case.is_job => founded(Says::Ended, Verdict::Exact),
            Some(_) | None => Verdict::Wrong(Lie::NotFailed),
        },
        (
            Status::Failed,
            Some(
                reason @ (FailureCode::DeviceOffline
                | FailureCode::Cancelled
                | FailureCode::PreemptedByEmergency
                | FailureCode::TransportFailed),
            ),
        )
        | (
            Status::TimedOut,
            Some(reason @ (FailureCode::DeviceOffline | FailureCode::ExpiredBeforeSending)),
        ) => match outcome {
            Some(_) => Verdict::Wrong(Lie::Arrived),
            None if story.status == Status::TimedOut && is_too_soon(story, ended_at) => {
                Verdict::Wrong(Lie::TooSoon)
            }
            None if has_reason(case, reason, ended_at) => Verdict::Exact,
            None => Verdict::Wrong(Lie::NoReason),
        },
        (Status::TimedOut, Some(FailureCode::NoResponse | FailureCode::DispatchUncertain)) => {
            if is_too_soon(story, ended_at) {
                return Verdict::Wrong(Lie::TooSoon);
            }
            if outcome.is_none() && !is_excused(case, ended_at) {
                return Verdict::Wrong(Lie::NotSent);
            }
            unknown(case, ended_at, &[Says::Ended, Says::Runs])
        }
        (Status::TimedOut, Some(FailureCode::ExecutionUnconfirmed)) => {
            if !case.is_job || !said(Says::Runs) {
                return Verdict::Wrong(Lie::Unfounded);
            }
            let signs = case
                .answers
                .iter()
                .filter(|one| one.says == Says::Runs && one.is_heeded(case.deaths, ended_at));
            let last = signs.map(|one| one.at).max().unwrap_or(i64::MIN);
            if ended_at + EARLY_MS < last.saturating_add(case.silence_ms) {
                return Verdict::Wrong(Lie::TooSoon);
            }
            unknown(case, ended_at, &[Says::Ended])
        }
        (Status::UnmatchedResponse, None) => {
            founded(Says::Nonsense, unknown(case, ended_at, &[Says::Ended]))
        }
        // The dock's connection may have taken it, and have gone before the dock heard it.
        (Status::Delivered, None) if case.is_unanswered => match outcome {
            Some(_) => Verdict::Exact,
            None if case.was_cut => Verdict::Unknown(Why::LostOnTheWay),
            None => Verdict::Wrong(Lie::NotDone),
        },
        // Nothing that the race sends ends so.
        (
            Status::Accepted
            | Status::Delivered
            | Status::Succeeded
            | Status::Failed
            | Status::TimedOut
            | Status::UnmatchedResponse,
            _,
        ) => Verdict::Wrong(Lie::NoEnd),
    }
}

/// Whether a dock received any of these times later than the command could have been of use.
pub fn is_stale(story: &Story, received_at: &[i64]) -> bool {
    received_at.iter().any(|at| story.accepted_at + story.timeout_ms + CHANCE_MS < *at)
}

/// How long before its death the server had taken the answer that was lost with it, at the longest.
pub fn lost_for(case: &Case<'_>) -> Option<i64> {
    let is_it = |one: &&Answer| one.fate == Fate::Taken && one.says == Says::Ended;
    let taken = case.answers.iter().filter(is_it);
    taken.filter_map(|one| Some(one.death(case.deaths)?.saturating_sub(one.settled_at))).max()
}

fn is_too_soon(story: &Story, ended_at: i64) -> bool {
    ended_at + EARLY_MS < story.accepted_at + story.timeout_ms
}

/// Whether that for which a command is said never to have left was really so.
fn has_reason(case: &Case<'_>, reason: FailureCode, ended_at: i64) -> bool {
    match reason {
        FailureCode::Cancelled => case.was_cancelled,
        FailureCode::PreemptedByEmergency => case.was_preempted,
        FailureCode::ExpiredBeforeSending => case.was_there_ms < SENT_WAIT_MS,
        FailureCode::DeviceOffline | FailureCode::TransportFailed => is_excused(case, ended_at),
        FailureCode::DeviceExecutionFailed
        | FailureCode::NoResponse
        | FailureCode::ExecutionUnconfirmed
        | FailureCode::DispatchUncertain => false,
    }
}

/// Whether a connection was lost or a server died while a command was under way.
fn is_excused(case: &Case<'_>, ended_at: i64) -> bool {
    let (from, until) = (case.story.accepted_at - CHANCE_MS, ended_at + CHANCE_MS);
    case.was_cut || case.deaths.iter().any(|death| from <= *death && *death <= until)
}

fn is_done(outcome: Outcome, is_job: bool) -> bool {
    match outcome {
        Outcome::Done | Outcome::Succeeded => true,
        // The answer ended it, whatever became of what it started.
        Outcome::Running | Outcome::Failed(_) => !is_job,
        Outcome::Refused(_) | Outcome::Silent | Outcome::Ignored => false,
    }
}

/// Whether "unknown" is right, where any answer that says one of `telling` would have told.
fn unknown(case: &Case<'_>, ended_at: i64, telling: &[Says]) -> Verdict {
    let told = case.answers.iter().filter(|one| telling.contains(&one.says));
    let told: Vec<&Answer> = told.collect();
    if told.iter().any(|one| one.is_heeded(case.deaths, ended_at)) {
        return Verdict::Wrong(Lie::Unheeded);
    }
    let has_died = |one: &&Answer| one.is_taken() && one.death(case.deaths).is_some();
    let why = if told.iter().any(|one| has_died(one) && one.at <= ended_at) {
        Why::DiedWithServer
    } else if told.iter().any(|one| one.is_taken()) {
        Why::TooLate
    } else if told.iter().any(|one| one.is_swallowed(case.deaths, ended_at)) {
        return Verdict::Wrong(Lie::Swallowed);
    } else if told.iter().any(|one| one.fate != Fate::TooLarge) {
        Why::LostOnTheWay
    } else if !told.is_empty() {
        Why::TooLarge
    } else if case.answers.iter().any(|one| one.says == Says::Nonsense) {
        Why::Unreadable
    } else if is_due(case, ended_at) {
        return Verdict::Wrong(Lie::Swallowed);
    } else {
        Why::NothingTold
    };
    Verdict::Unknown(why)
}

/// Whether something that says how it ended must have left its dock: it had an end there, met nothing that keeps a dock from
/// saying so, and neither a connection nor a server was lost.
fn is_due(case: &Case<'_>, ended_at: i64) -> bool {
    let has_ended = |outcome: &Outcome| match outcome {
        Outcome::Done | Outcome::Succeeded | Outcome::Refused(_) | Outcome::Failed(_) => true,
        Outcome::Running | Outcome::Silent | Outcome::Ignored => false,
    };
    case.is_owed && case.outcomes.iter().any(has_ended) && !is_excused(case, ended_at)
}

impl Answer {
    pub fn is_taken(&self) -> bool {
        self.fate == Fate::Taken
    }

    /// Whether a server may have had it.
    fn may_be_heard(&self) -> bool {
        match self.fate {
            Fate::Taken | Fate::Lost | Fate::Dropped => true,
            Fate::TooLarge | Fate::Refused => false,
        }
    }

    /// Whether a server had all the time it needs to take it into account before the command ended.
    pub fn is_heeded(&self, deaths: &[i64], ended_at: i64) -> bool {
        self.is_taken() && self.settled_at + CHANCE_MS <= ended_at && self.death(deaths).is_none()
    }

    /// Whether the broker was there, had the time to take it before the command ended, and did not.
    fn is_swallowed(&self, deaths: &[i64], ended_at: i64) -> bool {
        let meets = |death: &i64| (self.at - CHANCE_MS..=self.at + TAKEN_WAIT_MS).contains(death);
        matches!(self.fate, Fate::Dropped | Fate::Refused)
            && self.at + TAKEN_WAIT_MS <= ended_at
            && !deaths.iter().any(meets)
    }

    /// The death of the server that had it, if it came before the server had its time.
    fn death(&self, deaths: &[i64]) -> Option<i64> {
        let meets = |death: &&i64| self.at <= **death && **death <= self.settled_at + CHANCE_MS;
        deaths.iter().find(meets).copied()
    }
}

#[cfg(test)]
#[path = "judge/tests.rs"]
mod tests;
