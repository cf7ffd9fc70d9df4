//! What an answer of the device means.

use super::{Case, Decision};
use crate::{
    command::{Execution, FailureCode, Life, Outcome, Phase, Response},
    method::CompletesBy,
    planted::{self, Fault},
    reply::{JobState, Reply, Verdict},
};

const NO_RESULT: &str = "the answer carries no readable result";

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
            failure_reason: None,
            ..self.changed()
        };
        // An answer that is final for the job closes what its events have opened.
        if let Some(execution) = &mut life.execution
            && let Sense::Success | Sense::Failure(_) = sense
            && let Some(state) = final_word(reply)
        {
            execution.open = false;
            execution.state = state.to_owned();
            execution.updated_at = now;
        }
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

    /// Another answer while the job runs: evidence.
    pub(super) fn further_reply(self, reply: &Reply) -> Decision {
        let mismatch = self.mismatch(reply);
        self.record(self.reply_proof(reply, false, mismatch.is_none(), mismatch))
    }

    /// An answer to a command that has ended: evidence, and the response fields if they were empty. A refusal shows
    /// that no movement began, unless the events of its job have shown that one did; an acceptance is a sign of life of
    /// one that may have begun.
    pub(super) fn late_reply(self, reply: &Reply) -> Decision {
        let has_answer = self.life.response.is_some();
        let mismatch = self.mismatch(reply);
        let is_other = mismatch.is_some();
        let proof = self.reply_proof(reply, true, has_answer && !is_other, mismatch);
        if has_answer || is_other {
            // What came first was somebody else's, and this is the device's own word on what began.
            let bears_on_hold = self.life.phase == Phase::Ended(Outcome::Unmatched)
                && self.life.holds_motion
                && !is_other;
            let holds_on = match reply.verdict {
                Verdict::Refused if bears_on_hold && !self.has_started() => false,
                Verdict::Ok if bears_on_hold => true,
                Verdict::Refused | Verdict::Ok | Verdict::Unreadable => return self.record(proof),
            };
            let due = holds_on.then(|| self.silence_due());
            let life = Life { due, holds_motion: holds_on, ..self.changed() };
            return self.moved(life, proof, None);
        }
        let mut life = Life {
            response: Some(to_response(reply)),
            response_received_at: Some(self.moment.now.wall),
            ..self.changed()
        };
        match reply.verdict {
            Verdict::Ok => life.due = life.due.map(|_| self.silence_due()),
            Verdict::Refused if !self.has_started() => {
                life.due = None;
                life.holds_motion = false;
            }
            Verdict::Refused | Verdict::Unreadable => {}
        }
        self.moved(life, proof, None)
    }

    fn sense(self, reply: &Reply) -> Sense {
        if let Some(reason) = self.mismatch(reply) {
            return Sense::Mismatch(reason);
        }
        match reply.verdict {
            Verdict::Ok => self.sense_of_ok(reply),
            Verdict::Refused => Sense::Failure(refusal(reply)),
            Verdict::Unreadable => Sense::Mismatch(NO_RESULT.to_owned()),
        }
    }

    /// Why this cannot be the command's answer.
    fn mismatch(self, reply: &Reply) -> Option<String> {
        let is_elsewhere = reply.gateway != self.spec.gateway;
        if is_elsewhere && !planted::is_planted(Fault::GatewayNotCompared) {
            return Some(format!(
                "the answer came from gateway {}, the command went to {}",
                reply.gateway, self.spec.gateway
            ));
        }
        let another = reply.method.as_deref().filter(|method| *method != self.spec.method);
        if let Some(method) = another.filter(|_| !planted::is_planted(Fault::MethodNotCompared)) {
            return Some(format!(
                "the answer is for {method}, the command is {}",
                self.spec.method
            ));
        }
        match reply.verdict {
            Verdict::Unreadable => Some(NO_RESULT.to_owned()),
            Verdict::Ok | Verdict::Refused => None,
        }
    }

    fn sense_of_ok(self, reply: &Reply) -> Sense {
        match self.spec.completes_by {
            CompletesBy::Reply | CompletesBy::DrcAck | CompletesBy::NoReply => Sense::Success,
            CompletesBy::ReplyOrJob => match reply.job {
                Some(JobState::Open | JobState::Paused) => Sense::Started,
                Some(JobState::Failed) => Sense::Failure(refusal(reply)),
                Some(JobState::Succeeded) => Sense::Success,
                None if self.has_started() => Sense::Started,
                None => Sense::Success,
            },
            CompletesBy::Job => match reply.job {
                Some(JobState::Open | JobState::Paused) => Sense::Started,
                Some(JobState::Failed) => Sense::Failure(refusal(reply)),
                Some(JobState::Succeeded) => Sense::Success,
                // Its own events have shown that it runs, so this answer cannot be the end.
                None if self.has_started() => Sense::Started,
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

/// DJI's word for a job that the answer itself calls finished.
fn final_word(reply: &Reply) -> Option<&'static str> {
    match reply.job? {
        JobState::Succeeded => Some("ok"),
        JobState::Failed => Some("failed"),
        JobState::Open | JobState::Paused => None,
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
