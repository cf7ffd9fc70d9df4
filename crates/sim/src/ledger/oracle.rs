//! The file in which a fleet writes what its docks received and did, for tests that outlive the process or run beside it.
//!
//! One JSON object a line. A command makes one line with `"entry":"received"` the moment it arrives, and a job that was
//! started makes one more with `"entry":"ended"`. Count commands by the first kind only.

use std::{io, path::Path};

use serde::{Deserialize, Serialize};

use super::{Outcome, Received};

/// One line.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Line {
    /// The command.
    #[serde(flatten)]
    pub received: Received,
    /// The dock's own number for it, the same in both lines of a job.
    pub receipt: u64,
    /// What the line says of it.
    #[serde(flatten)]
    pub entry: Entry,
}

/// What a line says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "entry")]
pub enum Entry {
    /// The command arrived, and this was made of it at once.
    Received {
        /// What was made of it.
        #[serde(flatten)]
        outcome: Outcome,
    },
    /// The job it started has ended.
    Ended {
        /// How it ended.
        #[serde(flatten)]
        outcome: Outcome,
    },
}

/// Reads a file. A last line that was cut off in the middle is left out.
///
/// # Errors
/// When the file cannot be read, or another line is none of ours.
pub fn read(path: &Path) -> io::Result<Vec<Line>> {
    let text = std::fs::read_to_string(path)?;
    let whole = text.rfind('\n').map_or("", |end| text.get(..end).unwrap_or_default());
    whole
        .lines()
        .map(|line| serde_json::from_str(line).map_err(|err| io::Error::other(err.to_string())))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use utmos_core::time::Timestamp;

    #[test]
    fn a_line_goes_round() {
        for outcome in [
            Outcome::Refused(514_153),
            Outcome::Done,
            Outcome::Running,
            Outcome::Failed(1),
            Outcome::Ignored,
        ] {
            for entry in [Entry::Received { outcome }, Entry::Ended { outcome }] {
                let line = Line {
                    received: Received {
                        sn: "D".into(),
                        tid: Some("t".into()),
                        seq: None,
                        method: "m".into(),
                        at: Timestamp::from_millis(5),
                    },
                    receipt: 7,
                    entry,
                };
                let text = serde_json::to_string(&line).unwrap_or_default();
                assert_eq!(serde_json::from_str::<Line>(&text).ok(), Some(line), "{text}");
            }
        }
    }
}
