//! Exit codes. A contract: scripts tell outcomes apart by them.

use std::process::ExitCode;

use utmos_core::command::Status;

/// How the program ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// Done; for `send`: succeeded, or delivered where nothing answers.
    Done = 0,
    /// The program could not do it.
    Failure = 1,
    /// Arguments that make no sense; clap uses the same.
    Usage = 2,
    /// The API refused the request.
    Refused = 3,
    /// The command ended `FAILED`.
    Failed = 10,
    /// The command ended `TIMED_OUT`.
    TimedOut = 11,
    /// The command ended `UNMATCHED_RESPONSE`.
    Unmatched = 12,
    /// The server cannot be reached, or cannot serve now.
    Unreachable = 20,
}

impl Exit {
    /// The exit code of a command that has ended in this state.
    pub fn of(status: Status) -> Self {
        match status {
            Status::Succeeded | Status::Delivered => Self::Done,
            Status::Failed => Self::Failed,
            Status::TimedOut => Self::TimedOut,
            Status::UnmatchedResponse => Self::Unmatched,
            Status::Accepted => Self::Failure,
        }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exit_codes_are_the_documented_ones() {
        let codes = [
            (Status::Succeeded, 0),
            (Status::Delivered, 0),
            (Status::Failed, 10),
            (Status::TimedOut, 11),
            (Status::UnmatchedResponse, 12),
        ];
        for (status, code) in codes {
            assert_eq!(Exit::of(status) as u8, code, "{}", status.as_str());
        }
        let others = [Exit::Failure, Exit::Usage, Exit::Refused, Exit::Unreachable];
        assert_eq!(others.map(|exit| exit as u8), [1, 2, 3, 20]);
    }
}
