//! What an answer of the device means.

use super::{Case, Decision};
use crate::{
    command::{Execution, FailureCode, Life, Outcome, Phase, Response},
    method::CompletesBy,
    reply::{JobState, Reply, Verdict},
};

/// What an answer says, before it is known what it does to the command.
enum Sense {
    /// The command succeeded.
    Success,
    /// The device refused it, or its job ended badly at once.
    Failure(String),
    /// Its job runs.
    Started,
    /// It cannot be this command's answer.
    Mismatch(String),
}

impl Case<'_> {
    /// The first answer to a command that was, or may have been, sent.
    pub(super) fn judge(self, reply: &Reply) -> Decision {
        let sense = self.sense(reply);
        let now = self.moment.now.wall;
        let mut life = Life {
            response: Some(to_response(reply)),
            response_received_at: Some(now),
            delivered_at: self.life.delivered_at.or(Some(now)),
            ..self.changed()
        };
        let mut mismatch = None;
        match sense {
            Sense::Success => self.close(&mut life, Outcome::Succeeded),
            Sense::Failure(reason) => {
                life.failure_reason = Some(reason);
                self.close(&mut life, Outcome::Failed(FailureCode::DeviceExecutionFailed));
            }
            Sense::Started => {
                life.phase = Phase::Delivered;
                life.due = Some(self.silence_due());
                life.execution = life.execution.or_else(|| Some(self.started(reply)));
                if !self.wants_outcome() {
                    self.close(&mut life, Outcome::Succeeded);
                }
            }
            Sense::Mismatch(reason) => {
                // An answer from elsewhere does not prove that the message arrived.
                life.delivered_at = self.life.delivered_at;
                life.failure_reason = Some(reason.clone());
                mismatch = Some(reason);
                self.close(&mut life, Outcome::Unmatched);
            }
        }
        let proof = self.reply_proof(reply, false, false, mismatch);
        self.moved(life, proof, None)
    }

    /// An answer to a command that has ended: evidence, and the response fields if they were empty.
    pub(super) fn late_reply(self, reply: &Reply) -> Decision {
        let is_duplicate = self.life.response.is_some();
        let mismatch = match self.sense(reply) {
            Sense::Mismatch(reason) => Some(reason),
            Sense::Success | Sense::Failure(_) | Sense::Started => None,
        };
        let proof = self.reply_proof(reply, true, is_duplicate, mismatch.clone());
        if is_duplicate || mismatch.is_some() {
            return self.record(proof);
        }
        let life = Life {
            response: Some(to_response(reply)),
            response_received_at: Some(self.moment.now.wall),
            ..self.changed()
        };
        self.moved(life, proof, None)
    }

    fn sense(self, reply: &Reply) -> Sense {
        if reply.gateway != self.spec.gateway {
            return Sense::Mismatch(format!(
                "the answer came from gateway {}, the command went to {}",
                reply.gateway, self.spec.gateway
            ));
        }
        if let Some(method) = reply.method.as_deref().filter(|method| *method != self.spec.method) {
            return Sense::Mismatch(format!(
                "the answer is for {method}, the command is {}",
                self.spec.method
            ));
        }
        match reply.verdict {
            Verdict::Unreadable => {
                Sense::Mismatch("the answer carries no readable result".to_owned())
            }
            Verdict::Refused => Sense::Failure(refusal(reply)),
            Verdict::Ok => self.sense_of_ok(reply),
        }
    }

    fn sense_of_ok(self, reply: &Reply) -> Sense {
        match self.spec.completes_by {
            CompletesBy::Reply | CompletesBy::DrcAck | CompletesBy::NoReply => Sense::Success,
            CompletesBy::ReplyOrJob => match reply.job {
                Some(JobState::Open | JobState::Paused) => Sense::Started,
                Some(JobState::Failed) => Sense::Failure(refusal(reply)),
                Some(JobState::Succeeded) | None => Sense::Success,
            },
            CompletesBy::Job => match reply.job {
                Some(JobState::Open | JobState::Paused) => Sense::Started,
                Some(JobState::Failed) => Sense::Failure(refusal(reply)),
                Some(JobState::Succeeded) => Sense::Success,
                None if self.spec.reply_without_status_is_final => Sense::Success,
                None => Sense::Started,
            },
        }
    }

    fn started(self, reply: &Reply) -> Execution {
        let state = if reply.job == Some(JobState::Paused) { "paused" } else { "started" };
        Execution {
            state: state.to_owned(),
            open: true,
            step: None,
            percent: None,
            updated_at: self.moment.now.wall,
            ext: None,
        }
    }
}

fn to_response(reply: &Reply) -> Response {
    Response { code: reply.code.clone(), message: reply.message.clone(), data: reply.data.clone() }
}

fn refusal(reply: &Reply) -> String {
    let code = reply.code.as_deref().unwrap_or("none");
    match &reply.message {
        Some(message) => format!("the device answered with code {code}: {message}"),
        None => format!("the device answered with code {code}"),
    }
}
