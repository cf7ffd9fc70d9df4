//! What a device said, in core's words. A protocol crate reads the wire and makes these.

use std::sync::Arc;

use crate::id::GatewaySn;

/// JSON text exactly as it arrived, or as it will be sent. Always one valid JSON value.
pub type RawJson = Arc<str>;

/// The answer to a command (`services_reply`, `property/set_reply`, or an acknowledgement on `drc/up`).
#[derive(Debug, Clone, PartialEq)]
pub struct Reply {
    /// The gateway on whose topic it came.
    pub gateway: GatewaySn,
    /// The method it repeats, where it repeats one.
    pub method: Option<String>,
    /// What it says of the command.
    pub verdict: Verdict,
    /// `data.code`, else `data.result`, as text.
    pub code: Option<String>,
    /// The device's own words, else the meaning of the code in the error catalogue.
    pub message: Option<String>,
    /// What `data.output.status` says of a job, where there is one.
    pub job: Option<JobState>,
    /// The reply's `data`, whole (`null` when there was none).
    pub data: RawJson,
}

/// What a reply says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Result 0.
    Ok,
    /// Any other readable result.
    Refused,
    /// No result that can be read as a number.
    Unreadable,
}

/// Where a job stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum JobState {
    /// Sent, running or paused: it has not said how it ends.
    Open,
    /// Paused: open as well, but shown as such.
    Paused,
    /// Ended well.
    Succeeded,
    /// Ended badly.
    Failed,
}

impl JobState {
    /// Whether more is to be expected.
    #[must_use]
    pub fn is_open(self) -> bool {
        match self {
            Self::Open | Self::Paused => true,
            Self::Succeeded | Self::Failed => false,
        }
    }
}

/// A progress event of a job.
#[derive(Debug, Clone, PartialEq)]
pub struct Progress {
    /// The gateway that reports it.
    pub gateway: GatewaySn,
    /// The event's method, such as `fly_to_point_progress`.
    pub event_method: String,
    /// Methods of the commands it can belong to.
    pub command_methods: Vec<String>,
    /// The business id of the event, where it carries one.
    pub bid: Option<String>,
    /// The job's own id (`flight_id`, `fly_to_id`, …), where it carries one.
    pub job_ref: Option<String>,
    /// Where the job stands.
    pub state: JobState,
    /// The device's own word for it, such as `in_progress` or `wayline_ok`.
    pub state_word: String,
    /// `step_key`, or the number and meaning of `current_step`.
    pub step: Option<String>,
    /// 0 to 100.
    pub percent: Option<u8>,
    /// `data.result` as text, where it is not 0.
    pub code: Option<String>,
    /// The device's words or the code's meaning.
    pub message: Option<String>,
    /// The event's `data`, whole.
    pub data: RawJson,
}
