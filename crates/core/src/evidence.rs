//! The timeline of a command: what happened, from which state to which, and the proof.

use serde::{Deserialize, Serialize};

use crate::{command::Status, time::Timestamp};

/// One line of a command's timeline. Lines are only ever appended.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Entry {
    /// When it was decided.
    pub at: Timestamp,
    /// The state before.
    pub from: Status,
    /// The state after; the same as `from` for mere evidence.
    pub to: Status,
    /// What happened, and how it is known.
    pub proof: Proof,
}

/// What happened, with what proves it. The tag is the timeline's `cause`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "cause", rename_all = "snake_case")]
pub enum Proof {
    /// Stored for a signed request.
    Accepted {
        /// The credential.
        api_id: String,
        /// The HTTP request.
        request_id: String,
    },
    /// The intent to publish was recorded; the publish follows.
    SendingClaimed {
        /// The server that sends.
        replica: String,
    },
    /// The broker confirmed the message.
    BrokerConfirmed {
        /// Topic it went to.
        topic: String,
        /// MQTT quality of service.
        qos: u8,
        /// MQTT packet id, where there is one.
        packet_id: Option<u16>,
        /// Bytes of the message.
        bytes: usize,
    },
    /// The message certainly did not reach anybody.
    NotSent {
        /// Why.
        reason: String,
    },
    /// The link was cut after the bytes may have left.
    SendUnclear {
        /// What is known.
        reason: String,
    },
    /// A server found the command possibly sent when it started.
    FoundAfterRestart {
        /// The server that found it.
        replica: String,
    },
    /// The device answered.
    Reply {
        /// The gateway on whose topic it came.
        gateway: String,
        /// The method it repeats.
        method: Option<String>,
        /// Its code.
        code: Option<String>,
        /// Its `data`, whole.
        data: serde_json::Value,
        /// It came after the command had ended.
        #[serde(default)]
        late_response: bool,
        /// It repeats an answer that was there already.
        #[serde(default)]
        duplicate: bool,
        /// Why it cannot be this command's answer.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        mismatch: Option<String>,
    },
    /// A progress event of the job.
    Progress {
        /// The gateway that reported it.
        gateway: String,
        /// The event's method.
        method: String,
        /// The device's own word.
        state: String,
        /// The step.
        step: Option<String>,
        /// 0 to 100.
        percent: Option<u8>,
        /// Its `data`, whole.
        data: serde_json::Value,
    },
    /// A time limit passed.
    Timer {
        /// Which, in words.
        limit: String,
    },
    /// The gateway was absent when it was the command's turn.
    GatewayAbsent {
        /// When it was last heard of.
        last_heard_at: Option<Timestamp>,
    },
    /// A caller cancelled it.
    Cancelled {
        /// The credential.
        api_id: String,
        /// The HTTP request.
        request_id: String,
        /// The abort command that was sent for it, where it was delivered already.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        abort_command_id: Option<String>,
    },
    /// An emergency command of the same aircraft took its place.
    Preempted {
        /// That command.
        emergency_command_id: String,
    },
}
