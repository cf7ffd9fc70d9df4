//! A request of a device (API.md section 5): what it asked, how it is answered, and how that answer leaves. Pure.
//!
//! [`decide`] is the only place that moves one. What it answers is saved if the request is still at the version it was
//! decided on, and only then acted upon. An answer given by hand is claimed on disk before it is published, so that no
//! crash sends it twice; an automatic one may leave before its record, since a dock must not wait for a store.

mod rule;
#[cfg(test)]
mod tests;

use std::{sync::Arc, time::Duration};

use serde::{Deserialize, Serialize};

pub use self::rule::{
    AFTER_SECONDS_MAX, Mode, REPLY_SECONDS_DEFAULT, REPLY_SECONDS_MAX, REPLY_SECONDS_MIN, Rule,
    Scope, SetRule,
};
use crate::{
    command::StatusVersion,
    id::{ApiId, DeviceRequestId, DeviceSn, GatewaySn, TenantId},
    reply::RawJson,
    time::{BootId, Deadline, Mono, Now, Timestamp},
};

/// How a request stands; `routing_decision` of the API.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum RoutingDecision {
    /// The server answered it.
    AutoReplied,
    /// Somebody is to answer it.
    AwaitingReply,
    /// Somebody answered it.
    Replied,
    /// Nobody answered it in time.
    Expired,
    /// It cannot be answered: it names no method.
    Unsupported,
}

impl RoutingDecision {
    /// Each with its word.
    pub const ALL: [(Self, &'static str); 5] = [
        (Self::AutoReplied, "AUTO_REPLIED"),
        (Self::AwaitingReply, "AWAITING_REPLY"),
        (Self::Replied, "REPLIED"),
        (Self::Expired, "EXPIRED"),
        (Self::Unsupported, "UNSUPPORTED"),
    ];

    /// The word callers see.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::AutoReplied => "AUTO_REPLIED",
            Self::AwaitingReply => "AWAITING_REPLY",
            Self::Replied => "REPLIED",
            Self::Expired => "EXPIRED",
            Self::Unsupported => "UNSUPPORTED",
        }
    }

    /// Reads a word.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|(_, word)| *word == text).map(|(state, _)| state)
    }
}

/// Who gave an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum ReplySource {
    /// The server.
    Auto,
    /// A caller of the API.
    Manual,
}

impl ReplySource {
    /// The word callers see.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Manual => "manual",
        }
    }
}

/// How far an answer has come on its way to the device.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Sending {
    /// There is none yet, or it certainly has not left.
    Unsent,
    /// The intent to publish is on disk; it may have left.
    Claimed,
    /// The broker took it.
    Sent,
    /// It did not leave in time, and will not any more.
    GivenUp,
}

/// Where a request came in, which is where its answer goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum AskedOn {
    /// `thing/…/requests`.
    Requests,
    /// `sys/…/status`.
    Status,
    /// `thing/…/status`.
    StatusOfThing,
}

/// An answer. Its data may hold secrets and are shown masked.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reply {
    /// What the caller said, or the result of an automatic answer.
    pub code: String,
    /// In words.
    pub message: Option<String>,
    /// Who gave it.
    pub source: ReplySource,
    /// The API id of whoever answered by hand; `None` where the server did, and where it is not on record.
    pub by: Option<ApiId>,
    /// `data` of the message to the device, in DJI's shape.
    pub data: RawJson,
    /// When it was given.
    pub at: Timestamp,
}

impl std::fmt::Debug for Reply {
    /// Without the data, which may hold secrets.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { code, source, at, .. } = self;
        f.debug_struct("Reply")
            .field("code", code)
            .field("source", source)
            .field("at", at)
            .finish_non_exhaustive()
    }
}

/// What a device asked. Never changes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Asked {
    /// Its id.
    pub id: DeviceRequestId,
    /// Whose device asks.
    pub tenant: TenantId,
    /// The gateway that asks.
    pub gateway: GatewaySn,
    /// The same as a device.
    pub device: DeviceSn,
    /// DJI's method.
    pub request_type: Option<String>,
    /// The exchange, repeated in the answer.
    pub tid: Option<String>,
    /// The job, repeated in the answer.
    pub bid: Option<String>,
    /// Where it asked.
    pub asked_on: AskedOn,
    /// What tells its repetitions, where its `tid` tells it from others: one record has it.
    pub repeat_key: Option<[u8; 16]>,
    /// `data` as written, whole; of a long one, see [`Asked::payload_is_cut`], the beginning.
    pub payload: RawJson,
    /// Whether only the beginning of `data` was kept.
    pub payload_is_cut: bool,
    /// When it came.
    pub received_at: Timestamp,
    /// Until when it may be answered.
    pub deadline: Deadline,
    /// How long that was when it came.
    pub reply_wait: Duration,
    /// How long an answer by hand is waited for before the automatic one goes out.
    pub automatic_after: Option<Duration>,
}

/// A request of a device, and how it stands.
#[derive(Debug, Clone, PartialEq)]
pub struct DeviceRequest {
    /// What was asked.
    pub asked: Arc<Asked>,
    /// How it stands.
    pub state: RoutingDecision,
    /// The answer.
    pub reply: Option<Reply>,
    /// How far the answer has come.
    pub sending: Sending,
    /// When the broker took the answer.
    pub sent_at: Option<Timestamp>,
    /// Counts its changes.
    pub version: StatusVersion,
}

impl DeviceRequest {
    /// One that was just asked and has no answer.
    #[must_use]
    pub fn new(asked: Arc<Asked>, state: RoutingDecision) -> Self {
        Self {
            asked,
            state,
            reply: None,
            sending: Sending::Unsent,
            sent_at: None,
            version: StatusVersion(1),
        }
    }

    /// One that was answered automatically as it came.
    #[must_use]
    pub fn answered(asked: Arc<Asked>, reply: Reply) -> Self {
        Self {
            reply: Some(reply),
            sending: Sending::Claimed,
            ..Self::new(asked, RoutingDecision::AutoReplied)
        }
    }

    /// Whether somebody has to look after it: it has no answer yet, or one that still has to leave.
    #[must_use]
    pub fn needs_care(&self) -> bool {
        match (self.state, self.sending) {
            (RoutingDecision::AwaitingReply, _) => true,
            (RoutingDecision::Replied | RoutingDecision::AutoReplied, Sending::Unsent) => true,
            (
                RoutingDecision::Replied | RoutingDecision::AutoReplied,
                Sending::Claimed | Sending::Sent | Sending::GivenUp,
            )
            | (RoutingDecision::Expired | RoutingDecision::Unsupported, _) => false,
        }
    }

    /// When it is due next, in the running time of `boot`: its automatic answer, else its deadline.
    #[must_use]
    pub fn due(&self, now: Now, boot: BootId) -> Mono {
        let (asked, end) = (&self.asked, self.end(now, boot));
        match (self.state, asked.automatic_after) {
            (RoutingDecision::AwaitingReply, Some(after)) => {
                let early = asked.reply_wait.saturating_sub(after);
                let early = u64::try_from(early.as_millis()).unwrap_or(u64::MAX);
                Mono::from_millis(end.as_millis().saturating_sub(early))
            }
            (
                RoutingDecision::AwaitingReply
                | RoutingDecision::AutoReplied
                | RoutingDecision::Replied
                | RoutingDecision::Expired
                | RoutingDecision::Unsupported,
                _,
            ) => end,
        }
    }

    /// Until when it may be answered, in the running time of `boot`.
    #[must_use]
    pub fn end(&self, now: Now, boot: BootId) -> Mono {
        let asked = &self.asked;
        asked.deadline.found_again(now, boot, asked.reply_wait, asked.received_at).mono
    }

    fn is_over(&self, now: Now, boot: BootId) -> bool {
        self.end(now, boot) <= now.mono
    }
}

/// What happened to a request.
#[derive(Debug, Clone)]
pub enum Input {
    /// Somebody answers it.
    Reply(Reply),
    /// The server answers it, for want of another answer.
    Automatic(Reply),
    /// Time passed.
    Tick,
    /// The gateway is there: its answer may leave.
    Turn,
    /// The broker took the answer.
    Left,
    /// The answer certainly did not leave.
    Stayed,
    /// The gateway is another tenant's by now, or nobody's.
    Gone,
}

/// Why an answer is not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum CannotReply {
    /// It has one.
    #[error("it was answered before")]
    AlreadyReplied,
    /// Nobody waits for it any more.
    #[error(
        "it could be answered until reply_by, and that has passed, or its device has left the tenant"
    )]
    Expired,
    /// It is none that can be answered.
    #[error("it cannot be answered: it does not say what it asks for")]
    Unsupported,
}

/// What an input means.
#[derive(Debug, Clone, PartialEq)]
pub enum Decision {
    /// It stands like this now. Saved first; where `publish` says so, its answer is published after that.
    Move {
        /// How it stands.
        to: Box<DeviceRequest>,
        /// Whether the answer leaves now.
        publish: bool,
    },
    /// The answer is not taken.
    Refuse(CannotReply),
    /// Nothing changes.
    Ignore,
}

/// Decides what `input` means for a request at `now`, on a machine of boot `boot`.
#[must_use]
pub fn decide(request: &DeviceRequest, input: Input, now: Now, boot: BootId) -> Decision {
    let over = request.is_over(now, boot);
    let version = request.version.next();
    let moved = |change: DeviceRequest, publish| Decision::Move {
        to: Box::new(DeviceRequest { version, ..change }),
        publish,
    };
    match (request.state, input) {
        (RoutingDecision::AwaitingReply, Input::Reply(_)) if over => {
            Decision::Refuse(CannotReply::Expired)
        }
        (RoutingDecision::AwaitingReply, Input::Reply(reply)) => {
            let to = DeviceRequest {
                state: RoutingDecision::Replied,
                reply: Some(reply),
                ..request.clone()
            };
            moved(to, false)
        }
        (RoutingDecision::AwaitingReply, Input::Automatic(_) | Input::Tick) if over => {
            moved(DeviceRequest { state: RoutingDecision::Expired, ..request.clone() }, false)
        }
        (RoutingDecision::AwaitingReply, Input::Gone) => {
            moved(DeviceRequest { state: RoutingDecision::Expired, ..request.clone() }, false)
        }
        (RoutingDecision::AwaitingReply, Input::Automatic(reply)) => {
            let to = DeviceRequest {
                state: RoutingDecision::AutoReplied,
                reply: Some(reply),
                ..request.clone()
            };
            moved(to, false)
        }
        (RoutingDecision::AutoReplied | RoutingDecision::Replied, Input::Reply(_)) => {
            Decision::Refuse(CannotReply::AlreadyReplied)
        }
        (RoutingDecision::Expired, Input::Reply(_)) => Decision::Refuse(CannotReply::Expired),
        (RoutingDecision::Unsupported, Input::Reply(_)) => {
            Decision::Refuse(CannotReply::Unsupported)
        }
        (RoutingDecision::AutoReplied | RoutingDecision::Replied, input) => {
            match (request.sending, input) {
                (Sending::Unsent, Input::Turn | Input::Tick) if over => {
                    moved(DeviceRequest { sending: Sending::GivenUp, ..request.clone() }, false)
                }
                (Sending::Unsent, Input::Gone) => {
                    moved(DeviceRequest { sending: Sending::GivenUp, ..request.clone() }, false)
                }
                (Sending::Unsent, Input::Turn) => {
                    moved(DeviceRequest { sending: Sending::Claimed, ..request.clone() }, true)
                }
                (Sending::Claimed, Input::Left) => {
                    let sent_at = Some(now.wall);
                    moved(
                        DeviceRequest { sending: Sending::Sent, sent_at, ..request.clone() },
                        false,
                    )
                }
                // It certainly did not leave, so it may be tried again.
                (Sending::Claimed, Input::Stayed) => {
                    moved(DeviceRequest { sending: Sending::Unsent, ..request.clone() }, false)
                }
                (
                    Sending::Unsent | Sending::Claimed | Sending::Sent | Sending::GivenUp,
                    Input::Reply(_)
                    | Input::Automatic(_)
                    | Input::Tick
                    | Input::Turn
                    | Input::Left
                    | Input::Stayed
                    | Input::Gone,
                ) => Decision::Ignore,
            }
        }
        (
            RoutingDecision::AwaitingReply,
            Input::Tick | Input::Turn | Input::Left | Input::Stayed,
        )
        | (
            RoutingDecision::Expired | RoutingDecision::Unsupported,
            Input::Automatic(_)
            | Input::Tick
            | Input::Turn
            | Input::Left
            | Input::Stayed
            | Input::Gone,
        ) => Decision::Ignore,
    }
}

/// `data.result` for a caller's `reply_code`: `0`, `OK`, `APPROVED` and `SUCCESS` are 0, another whole number is itself,
/// anything else is 1.
#[must_use]
pub fn result_of(reply_code: &str) -> i64 {
    match reply_code {
        "0" | "OK" | "APPROVED" | "SUCCESS" => 0,
        other => other.parse().unwrap_or(1),
    }
}
