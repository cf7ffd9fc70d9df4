//! A command: what was asked for (fixed at acceptance) and how its life stands (moved only by [`crate::life`]).

use std::{sync::Arc, time::Duration};

use serde::{Deserialize, Serialize};

use crate::{
    id::{ApiId, Bid, CommandId, DeviceSn, GatewaySn, TenantId},
    method::{Channel, CompleteOn, CompletesBy, IfOffline, Risk},
    reply::RawJson,
    time::{Deadline, Timestamp},
};

/// Counts the changes of a command. Every change is a compare-and-set on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct StatusVersion(pub u64);

impl StatusVersion {
    /// The version after this one.
    #[must_use]
    pub fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

/// What was asked for. Never changes after acceptance.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Spec {
    /// Also the `tid` on the wire.
    pub id: CommandId,
    /// Whose it is.
    pub tenant: TenantId,
    /// The credential that asked.
    pub accepted_for: ApiId,
    /// The HTTP request that asked.
    pub request_id: String,
    /// The caller's key; one command per tenant and key.
    pub idempotency_key: String,
    /// SHA-256 over the body as JSON values, without the key.
    pub fingerprint: [u8; 32],
    /// The device it is meant for.
    pub device: DeviceSn,
    /// The gateway it goes to.
    pub gateway: GatewaySn,
    /// The aircraft it concerns, where one is known to have stood behind the gateway.
    pub aircraft: Option<DeviceSn>,
    /// DJI's method name.
    pub method: String,
    /// How it travels.
    pub channel: Channel,
    /// What ends it.
    pub completes_by: CompletesBy,
    /// How dangerous it is.
    pub risk: Risk,
    /// Whether it starts a movement of the aircraft, of which there is one at a time.
    pub starts_motion: bool,
    /// A job's reply with result 0 and no `output.status` is final (the dock's remote-debugging jobs).
    pub reply_without_status_is_final: bool,
    /// What to do while the gateway is absent.
    pub if_offline: IfOffline,
    /// What `SUCCEEDED` waits for in a job.
    pub complete_on: CompleteOn,
    /// Business id on the wire.
    pub bid: Bid,
    /// The job's own id in the payload (`flight_id`, `fly_to_id`, …).
    pub job_ref: Option<String>,
    /// Bounds the wait for the device's answer, from acceptance on.
    pub timeout: Duration,
    /// Bounds the silence of a started job.
    pub silence_wait: Duration,
    /// When `timeout` is over.
    pub deadline: Deadline,
    /// When it became durable.
    pub accepted_at: Timestamp,
    /// The payload as it goes to the device.
    pub payload: RawJson,
}

impl Spec {
    /// Whether two commands concern the same aircraft: by name, or because they go through the same gateway.
    #[must_use]
    pub fn shares_aircraft_with(&self, other: &Self) -> bool {
        let is_same_aircraft = self.aircraft.is_some() && self.aircraft == other.aircraft;
        self.tenant == other.tenant && (self.gateway == other.gateway || is_same_aircraft)
    }
}

/// Where a command stands inside; [`Status`] is what callers see of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Phase {
    /// Durable, and certainly not sent.
    Waiting,
    /// The intent to publish is on disk; the bytes may have left.
    Sending,
    /// The broker confirmed the message, or the device said that the job started.
    Delivered,
    /// Nothing moves it any more.
    Ended(Outcome),
}

/// How a command ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Outcome {
    /// Delivered, and nothing more will ever be known (`no_reply` methods).
    Delivered,
    /// The device said so.
    Succeeded,
    /// The device refused or failed, or it provably never left.
    Failed(FailureCode),
    /// The deadline passed.
    TimedOut(FailureCode),
    /// An answer came that cannot be this command's.
    Unmatched,
}

/// Why a command failed or timed out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum FailureCode {
    /// The device refused it, or its job failed.
    DeviceExecutionFailed,
    /// The gateway was absent; nothing was sent.
    DeviceOffline,
    /// Cancelled by a caller before it was sent.
    Cancelled,
    /// An emergency command of the same aircraft took its place; nothing was sent.
    PreemptedByEmergency,
    /// The broker refused the message; nothing was delivered.
    TransportFailed,
    /// The deadline passed before it could be sent; nothing was sent.
    ExpiredBeforeSending,
    /// Delivered, and no answer came in time; the device may have acted.
    NoResponse,
    /// The job started and fell silent; how it ended is unknown.
    ExecutionUnconfirmed,
    /// It is unknown whether the message left; it was not sent again, and no answer came.
    DispatchUncertain,
}

impl FailureCode {
    /// The code as callers see it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::DeviceExecutionFailed => "DEVICE_EXECUTION_FAILED",
            Self::DeviceOffline => "DEVICE_OFFLINE",
            Self::Cancelled => "CANCELLED",
            Self::PreemptedByEmergency => "PREEMPTED_BY_EMERGENCY",
            Self::TransportFailed => "TRANSPORT_FAILED",
            Self::ExpiredBeforeSending => "EXPIRED_BEFORE_SENDING",
            Self::NoResponse => "NO_RESPONSE",
            Self::ExecutionUnconfirmed => "EXECUTION_UNCONFIRMED",
            Self::DispatchUncertain => "DISPATCH_UNCERTAIN",
        }
    }

    /// Every code, in the order of the documentation.
    pub const ALL: [Self; 9] = [
        Self::DeviceExecutionFailed,
        Self::DeviceOffline,
        Self::Cancelled,
        Self::PreemptedByEmergency,
        Self::TransportFailed,
        Self::ExpiredBeforeSending,
        Self::NoResponse,
        Self::ExecutionUnconfirmed,
        Self::DispatchUncertain,
    ];

    /// Reads a code as [`FailureCode::as_str`] writes it.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|code| code.as_str() == text)
    }
}

/// The six documented states.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum Status {
    /// Durably stored.
    Accepted,
    /// Confirmed by the broker, or started by the device.
    Delivered,
    /// The device said so.
    Succeeded,
    /// Refused, failed, or provably never left.
    Failed,
    /// The deadline passed.
    TimedOut,
    /// An answer came that cannot be this command's.
    UnmatchedResponse,
}

impl Status {
    /// The state as callers see it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Accepted => "ACCEPTED",
            Self::Delivered => "DELIVERED",
            Self::Succeeded => "SUCCEEDED",
            Self::Failed => "FAILED",
            Self::TimedOut => "TIMED_OUT",
            Self::UnmatchedResponse => "UNMATCHED_RESPONSE",
        }
    }

    /// Every state, in the order of a command's life.
    pub const ALL: [Self; 6] = [
        Self::Accepted,
        Self::Delivered,
        Self::Succeeded,
        Self::Failed,
        Self::TimedOut,
        Self::UnmatchedResponse,
    ];

    /// Reads a state as [`Status::as_str`] writes it.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|status| status.as_str() == text)
    }
}

impl Phase {
    /// What callers see of it.
    #[must_use]
    pub fn status(self) -> Status {
        match self {
            Self::Waiting | Self::Sending => Status::Accepted,
            Self::Delivered | Self::Ended(Outcome::Delivered) => Status::Delivered,
            Self::Ended(Outcome::Succeeded) => Status::Succeeded,
            Self::Ended(Outcome::Failed(_)) => Status::Failed,
            Self::Ended(Outcome::TimedOut(_)) => Status::TimedOut,
            Self::Ended(Outcome::Unmatched) => Status::UnmatchedResponse,
        }
    }

    /// Whether nothing moves it any more.
    #[must_use]
    pub fn has_ended(self) -> bool {
        match self {
            Self::Ended(_) => true,
            Self::Waiting | Self::Sending | Self::Delivered => false,
        }
    }

    /// Why it failed or timed out.
    #[must_use]
    pub fn failure(self) -> Option<FailureCode> {
        match self {
            Self::Ended(Outcome::Failed(code) | Outcome::TimedOut(code)) => Some(code),
            Self::Waiting
            | Self::Sending
            | Self::Delivered
            | Self::Ended(Outcome::Delivered | Outcome::Succeeded | Outcome::Unmatched) => None,
        }
    }
}

/// The device's answer as callers see it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Response {
    /// `response_code`.
    pub code: Option<String>,
    /// `response_message`.
    pub message: Option<String>,
    /// `vendor_response`: the reply's `data`, whole.
    pub data: RawJson,
}

/// How a job goes, from its progress events.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Execution {
    /// The device's own word, such as `in_progress`; `started` before the first event.
    pub state: String,
    /// Whether it has not said how it ended.
    pub open: bool,
    /// The step it is at.
    pub step: Option<String>,
    /// 0 to 100.
    pub percent: Option<u8>,
    /// When it was last heard of.
    pub updated_at: Timestamp,
    /// The last event's `data`, whole.
    pub ext: Option<RawJson>,
}

/// How a command's life stands.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Life {
    /// Where it stands.
    pub phase: Phase,
    /// Counts its changes.
    pub version: StatusVersion,
    /// When it must be looked at if nothing happens before; `None` when nothing is due.
    pub due: Option<Deadline>,
    /// When the broker confirmed it or the device first showed that it has it.
    pub delivered_at: Option<Timestamp>,
    /// When the device's answer came.
    pub response_received_at: Option<Timestamp>,
    /// When it ended.
    pub completed_at: Option<Timestamp>,
    /// When it last changed.
    pub updated_at: Timestamp,
    /// The device's answer.
    pub response: Option<Response>,
    /// In words, why it failed or timed out. On a movement that is being sent: why it must stay here should it turn
    /// out not to have left.
    pub failure_reason: Option<String>,
    /// How its job goes.
    pub execution: Option<Execution>,
    /// Whether it stands in the way of other movements of the aircraft; also after its end, for as long as the movement
    /// runs, or may run, on.
    pub holds_motion: bool,
}

/// A command, whole.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Command {
    /// What was asked for.
    pub spec: Arc<Spec>,
    /// How it stands.
    pub life: Arc<Life>,
}

impl Life {
    /// The life of a command that has just been accepted.
    #[must_use]
    pub fn accepted(spec: &Spec) -> Self {
        Self {
            phase: Phase::Waiting,
            version: StatusVersion(1),
            due: Some(spec.deadline),
            delivered_at: None,
            response_received_at: None,
            completed_at: None,
            updated_at: spec.accepted_at,
            response: None,
            failure_reason: None,
            execution: None,
            holds_motion: spec.starts_motion,
        }
    }

    /// What callers see.
    #[must_use]
    pub fn status(&self) -> Status {
        self.phase.status()
    }

    /// Whether the command still needs somebody to look after it: it has not ended, or what it started runs on, or may
    /// run on, beside its end.
    #[must_use]
    pub fn needs_care(&self) -> bool {
        !self.phase.has_ended() || self.due.is_some()
    }
}
