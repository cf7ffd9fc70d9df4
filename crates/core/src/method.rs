//! What core needs to know of a method: how it travels, how it ends, how dangerous it is.
//!
//! The catalogue of a protocol crate fills these in; a command keeps its own copy from acceptance on, so that an
//! override of the catalogue never changes a command that is already under way.

use serde::{Deserialize, Serialize};

/// The way a command leaves for its gateway.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Channel {
    /// `thing/product/{gateway_sn}/services`, answered on `services_reply`.
    Services,
    /// `thing/product/{gateway_sn}/drc/down`: `seq` instead of `tid` and `bid`, answered on `drc/up` if at all.
    DrcDown,
    /// `thing/product/{gateway_sn}/property/set`, answered on `property/set_reply`.
    PropertySet,
}

/// What ends a command (LIFECYCLE.md, "How a command completes").
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CompletesBy {
    /// The reply is final.
    Reply,
    /// The reply says that the job started; progress events end it.
    Job,
    /// A job when the reply's `output.status` is open, else as [`CompletesBy::Reply`].
    ReplyOrJob,
    /// An answer on `drc/up`, by method and `seq`.
    DrcAck,
    /// Nothing ever answers; the confirmed delivery is the last that will be known.
    NoReply,
}

/// How much harm a method can do, from the most urgent to the most harmless.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Risk {
    /// Stops or brings home an aircraft; has a lane of its own.
    Emergency,
    /// Moves an aircraft.
    Motion,
    /// Moves hardware of the dock, or changes the dock itself.
    Ground,
    /// Takes or opens control, or a stream.
    Session,
    /// Works a camera, gimbal or other payload.
    Payload,
    /// Changes settings or plans.
    Configuration,
    /// Only reads.
    Read,
}

impl Risk {
    /// The `if_offline` a caller gets who names none.
    #[must_use]
    pub fn default_if_offline(self) -> IfOffline {
        match self {
            Self::Emergency | Self::Motion => IfOffline::Fail,
            Self::Ground | Self::Session | Self::Payload | Self::Configuration | Self::Read => {
                IfOffline::Wait
            }
        }
    }
}

/// What becomes of a command whose gateway is absent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum IfOffline {
    /// It waits for the gateway until its deadline.
    Wait,
    /// It ends at once as `FAILED`/`DEVICE_OFFLINE`.
    Fail,
}

/// What `SUCCEEDED` waits for in job methods.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CompleteOn {
    /// The end of the job, as its progress events tell it.
    Outcome,
    /// The device's answer that it started.
    Reply,
}
