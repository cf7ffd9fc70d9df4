//! The life of a command, decided in one place (LIFECYCLE.md). Nothing here sends, saves or waits.
//!
//! [`decide`] says what an [`Input`] means for a command at a moment. The driver is its only caller in the product and
//! keeps the order: load, decide, save, then act.

mod progress;
mod reply;

use std::{sync::Arc, time::Duration};

use crate::{
    command::{Command, FailureCode, Life, Outcome, Phase, Spec},
    evidence::{Entry, Proof},
    method::{CompleteOn, CompletesBy, IfOffline, Risk},
    planted::{self, Fault},
    reply::{Progress, Reply},
    time::{BootId, Deadline, Now, Timestamp},
};

/// Whether the gateway is there (LIFECYCLE.md, "Only to a device that is there").
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Presence {
    /// Heard from inside the liveness window, or connected and subscribed at our own broker.
    Online,
    /// Known not to be there.
    Absent {
        /// When it was last heard of.
        last_heard_at: Option<Timestamp>,
    },
    /// Registered, never heard of, and behind a broker that does not tell who is connected.
    NeverHeard,
    /// The same, at a server that has not listened for as long as the liveness window: whoever is there may not have had a
    /// reason to speak, so nothing says that it is not.
    NotHeardYet,
}

impl Presence {
    /// Whether nothing is known of a gateway, be it that it is there or that it is not.
    #[must_use]
    pub fn is_unknown(self) -> bool {
        match self {
            Self::NeverHeard | Self::NotHeardYet => true,
            Self::Online | Self::Absent { .. } => false,
        }
    }
}

/// Something that may matter to a command.
#[derive(Debug, Clone, PartialEq)]
pub enum Input {
    /// It is first in its lane, and the gateway stands as told.
    Turn(Presence),
    /// Time has passed; the gateway stands as told.
    Tick(Presence),
    /// The broker confirmed the message.
    Confirmed(Proof),
    /// The message certainly reached nobody.
    NotSent(NotSent),
    /// The link was cut after the bytes may have left.
    SendUnclear {
        /// What is known.
        reason: String,
    },
    /// A server found it in [`Phase::Sending`] when it started.
    FoundAfterRestart,
    /// The device answered.
    Reply(Reply),
    /// The device's job reported.
    Progress(Progress),
    /// A caller wants it gone.
    Cancel {
        /// The credential.
        api_id: String,
        /// The HTTP request.
        request_id: String,
    },
    /// A caller wanted it gone, and what stops it at the device was accepted.
    Aborted {
        /// The credential.
        api_id: String,
        /// The HTTP request.
        request_id: String,
        /// The command that stops it.
        abort_command_id: String,
    },
    /// The store did not confirm that it was accepted, so its caller was told that it was not; nobody asked again, and nobody
    /// has sent it.
    Disowned,
    /// An emergency of the same aircraft was accepted.
    Preempt {
        /// That command.
        emergency_command_id: String,
    },
    /// The aircraft's own telemetry shows that the movement this command started, or may have started, is over.
    MovementOver,
}

/// Why a message certainly reached nobody.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NotSent {
    /// There was no connection to a broker.
    NotConnected,
    /// The broker said that nobody listens there.
    NoSubscriber,
    /// A command that was accepted before it turned out not to have left, and must leave first.
    OutOfTurn,
    /// It was kept back between the claim and the write: its deadline had passed, or an emergency had come first.
    Withheld,
    /// Another server sends to its gateway by now.
    NotOurs,
    /// Its server had claimed it without hearing that the claim was written, and so has not begun.
    NotBegun,
    /// The broker refused it.
    Refused(String),
    /// Its gateway was moved to another tenant, or removed.
    GatewayGone,
}

/// What to do once the decision is saved.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Effect {
    /// Publish the command. Comes out at most once in a claim; every other move has none.
    Publish,
}

impl Input {
    /// Whether a device said it.
    #[must_use]
    pub fn is_of_device(&self) -> bool {
        match self {
            Self::Reply(_) | Self::Progress(_) => true,
            Self::Turn(_)
            | Self::Tick(_)
            | Self::Confirmed(_)
            | Self::NotSent(_)
            | Self::SendUnclear { .. }
            | Self::FoundAfterRestart
            | Self::Cancel { .. }
            | Self::Aborted { .. }
            | Self::Disowned
            | Self::Preempt { .. }
            | Self::MovementOver => false,
        }
    }
}

/// What an input means.
#[derive(Debug, Clone, PartialEq)]
pub enum Decision {
    /// The command changes: save it with its timeline, if it is still at the version it had; then act.
    Move {
        /// How it stands afterwards.
        life: Arc<Life>,
        /// What goes on the timeline; empty for a mere sign of life.
        entries: Vec<Entry>,
        /// What to do then.
        effect: Option<Effect>,
    },
    /// Nothing moves; what arrived goes on the timeline as evidence.
    Record(Entry),
    /// It means nothing to this command.
    Ignore,
}

/// Who decides, and when.
#[derive(Debug, Clone, Copy)]
pub struct Moment<'a> {
    /// The time.
    pub now: Now,
    /// The same on the clock by which deadlines are found again ([`Deadline::wall`]).
    pub told: Timestamp,
    /// The boot the running time counts from.
    pub boot: BootId,
    /// The name of this server, for the timeline.
    pub replica: &'a str,
}

/// Decides what `input` means for the command at this moment.
#[must_use]
pub fn decide(spec: &Spec, life: &Life, input: &Input, moment: Moment<'_>) -> Decision {
    let case = Case { spec, life, moment };
    if let Input::Aborted { api_id, request_id, abort_command_id } = input {
        return case.record(Proof::Cancelled {
            api_id: api_id.clone(),
            request_id: request_id.clone(),
            abort_command_id: Some(abort_command_id.clone()),
        });
    }
    match life.phase {
        Phase::Waiting => case.waiting(input),
        Phase::Sending => case.sending(input),
        Phase::Delivered => case.delivered(input),
        Phase::Ended(_) => case.ended(input),
    }
}

/// One command at one moment.
#[derive(Clone, Copy)]
struct Case<'a> {
    spec: &'a Spec,
    life: &'a Life,
    moment: Moment<'a>,
}

impl Case<'_> {
    fn waiting(self, input: &Input) -> Decision {
        match input {
            Input::Turn(presence) | Input::Tick(presence) if self.overdue() => {
                let code = match presence {
                    Presence::Online => FailureCode::ExpiredBeforeSending,
                    Presence::Absent { .. } | Presence::NeverHeard | Presence::NotHeardYet => {
                        FailureCode::DeviceOffline
                    }
                };
                self.time_out(code, "its deadline passed before it could be sent; nothing was sent")
            }
            Input::Turn(Presence::Online) => self.claim(),
            Input::Turn(Presence::Absent { .. })
                if planted::is_planted(Fault::AbsentTreatedAsOnline) =>
            {
                self.claim()
            }
            // An outside broker does not tell who is connected; its own "no matching subscribers" will.
            Input::Turn(Presence::NeverHeard | Presence::NotHeardYet)
                if self.spec.risk != Risk::Motion =>
            {
                self.claim()
            }
            Input::Turn(Presence::NotHeardYet) => Decision::Ignore,
            Input::Turn(Presence::NeverHeard) => self.absent(None),
            Input::Turn(Presence::Absent { last_heard_at }) => self.absent(*last_heard_at),
            Input::Cancel { api_id, request_id } => {
                let proof = Proof::Cancelled {
                    api_id: api_id.clone(),
                    request_id: request_id.clone(),
                    abort_command_id: None,
                };
                self.end(
                    Outcome::Failed(FailureCode::Cancelled),
                    "cancelled before it was sent",
                    proof,
                )
            }
            Input::Disowned => self.disown(),
            Input::Preempt { emergency_command_id } if self.spec.risk == Risk::Motion => {
                let reason = preempted_by(emergency_command_id);
                let proof = Proof::Preempted { emergency_command_id: emergency_command_id.clone() };
                self.end(Outcome::Failed(FailureCode::PreemptedByEmergency), &reason, proof)
            }
            // Claimed once, held not to have left, and yet somebody has it: it must not go out again.
            Input::Confirmed(proof) if self.was_claimed() => self.confirmed(proof),
            Input::Reply(reply) if self.was_claimed() => self.judge(reply),
            Input::Progress(progress) if self.was_claimed() && self.names_job_of(progress) => {
                self.progress(progress)
            }
            // Nobody can end a command by guessing its id: an answer to what was never sent proves nothing.
            Input::Reply(reply) => self.record(self.reply_proof(
                reply,
                false,
                false,
                Some("the command had not been sent".to_owned()),
            )),
            Input::Tick(_)
            | Input::Preempt { .. }
            | Input::Confirmed(_)
            | Input::NotSent(_)
            | Input::SendUnclear { .. }
            | Input::FoundAfterRestart
            | Input::Progress(_)
            | Input::Aborted { .. }
            | Input::MovementOver => Decision::Ignore,
        }
    }

    fn sending(self, input: &Input) -> Decision {
        match input {
            Input::Confirmed(proof) => self.confirmed(proof),
            Input::NotSent(why) => self.not_sent(why),
            Input::Disowned => self.disown(),
            Input::SendUnclear { reason } => self.record(Proof::SendUnclear { reason: reason.clone() }),
            Input::FoundAfterRestart => {
                self.record(Proof::FoundAfterRestart { replica: self.moment.replica.to_owned() })
            }
            Input::Tick(_) if self.due() => self.time_out(
                FailureCode::DispatchUncertain,
                "it is unknown whether the message left; it was not sent again and no answer came; the device may have acted",
            ),
            // An answer may overtake the broker's own confirmation.
            Input::Reply(reply) => self.judge(reply),
            Input::Progress(progress) if self.is_of_job(progress) => self.progress(progress),
            Input::Preempt { emergency_command_id }
                if self.spec.risk == Risk::Motion && !self.is_given_up() =>
            {
                self.give_up(emergency_command_id)
            }
            // Possibly sent: it can no longer be taken back here.
            Input::Turn(_)
            | Input::Tick(_)
            | Input::Progress(_)
            | Input::Cancel { .. }
            | Input::Aborted { .. }
            | Input::Preempt { .. }
            | Input::MovementOver => Decision::Ignore,
        }
    }

    fn delivered(self, input: &Input) -> Decision {
        match input {
            Input::Tick(_) if self.due() && self.has_started() => self.time_out(
                FailureCode::ExecutionUnconfirmed,
                "the job started and then fell silent; how it ended is unknown",
            ),
            Input::Tick(_) if self.due() => self.time_out(
                FailureCode::NoResponse,
                "the message was delivered and no answer came in time; the device may have acted",
            ),
            // A job that reported before its answer came still waits for that answer.
            Input::Reply(reply) if self.life.response.is_none() => self.judge(reply),
            Input::Reply(reply) => self.further_reply(reply),
            Input::Progress(progress) if self.is_of_job(progress) => self.progress(progress),
            Input::Confirmed(proof) => self.record(proof.clone()),
            Input::NotSent(why) => self.record(Proof::NotSent { reason: why.text() }),
            Input::SendUnclear { reason } => {
                self.record(Proof::SendUnclear { reason: reason.clone() })
            }
            Input::MovementOver
            | Input::Progress(_)
            | Input::FoundAfterRestart
            | Input::Disowned
            | Input::Turn(_)
            | Input::Tick(_)
            | Input::Cancel { .. }
            | Input::Aborted { .. }
            | Input::Preempt { .. } => Decision::Ignore,
        }
    }

    /// The state never changes again; answers and the job's further course are kept beside it.
    fn ended(self, input: &Input) -> Decision {
        match input {
            Input::Reply(reply) => self.late_reply(reply),
            Input::Progress(progress) if self.is_of_job(progress) => self.late_progress(progress),
            Input::Confirmed(proof) => self.record(proof.clone()),
            // Nothing began, if nothing speaks against it.
            Input::NotSent(why) if self.life.holds_motion && self.is_unheard_of() => {
                let life = Life { due: None, holds_motion: false, ..self.changed() };
                self.moved(life, Proof::NotSent { reason: why.text() }, None)
            }
            Input::NotSent(why) => self.record(Proof::NotSent { reason: why.text() }),
            Input::SendUnclear { reason } => {
                self.record(Proof::SendUnclear { reason: reason.clone() })
            }
            Input::Tick(_) if self.due() => self.let_go(),
            Input::MovementOver if self.life.holds_motion => self.let_go(),
            Input::MovementOver
            | Input::Progress(_)
            | Input::FoundAfterRestart
            | Input::Disowned
            | Input::Turn(_)
            | Input::Tick(_)
            | Input::Cancel { .. }
            | Input::Aborted { .. }
            | Input::Preempt { .. } => Decision::Ignore,
        }
    }

    fn overdue(self) -> bool {
        self.is_over(self.spec.deadline)
    }

    fn due(self) -> bool {
        self.life.due.is_some_and(|due| self.is_over(due))
    }

    /// A deadline of another boot that nobody found again cannot be compared; nothing may be sent on its word.
    fn is_over(self, deadline: Deadline) -> bool {
        deadline.boot != self.moment.boot || deadline.passed(self.moment.now)
    }

    /// A waiting command changes only by being claimed and coming back.
    fn was_claimed(self) -> bool {
        self.life.version > Life::accepted(self.spec).version
    }

    /// Nobody has shown to have it: no confirmation, no answer, no event.
    fn is_unheard_of(self) -> bool {
        let life = self.life;
        life.delivered_at.is_none() && life.response.is_none() && life.execution.is_none()
    }

    fn has_started(self) -> bool {
        self.life.execution.is_some()
    }

    fn claim(self) -> Decision {
        let life = Life { phase: Phase::Sending, ..self.changed() };
        let proof = Proof::SendingClaimed { replica: self.moment.replica.to_owned() };
        self.moved(life, proof, Some(Effect::Publish))
    }

    fn absent(self, last_heard_at: Option<Timestamp>) -> Decision {
        match self.spec.if_offline {
            IfOffline::Wait => Decision::Ignore,
            IfOffline::Fail => self.end(
                Outcome::Failed(FailureCode::DeviceOffline),
                "the gateway is not connected; nothing was sent",
                Proof::GatewayAbsent { last_heard_at },
            ),
        }
    }

    fn disown(self) -> Decision {
        let reason = "the store did not confirm its acceptance, and nobody took it up before its deadline; nothing was sent";
        let proof = Proof::NotSent { reason: reason.to_owned() };
        self.end(Outcome::TimedOut(FailureCode::ExpiredBeforeSending), reason, proof)
    }

    /// An emergency came first while this was being sent: should it turn out not to have left, it stays here. The
    /// reason is the mark, so that it outlives a restart.
    fn give_up(self, emergency_command_id: &str) -> Decision {
        let life =
            Life { failure_reason: Some(preempted_by(emergency_command_id)), ..self.changed() };
        let proof = Proof::Preempted { emergency_command_id: emergency_command_id.to_owned() };
        self.moved(life, proof, None)
    }

    fn is_given_up(self) -> bool {
        self.life.failure_reason.is_some()
    }

    fn confirmed(self, proof: &Proof) -> Decision {
        let mut life = Life {
            delivered_at: Some(self.moment.now.wall),
            phase: Phase::Delivered,
            failure_reason: None,
            ..self.changed()
        };
        if self.spec.completes_by == CompletesBy::NoReply {
            self.close(&mut life, Outcome::Delivered);
        }
        self.moved(life, proof.clone(), None)
    }

    fn not_sent(self, why: &NotSent) -> Decision {
        let proof = Proof::NotSent { reason: why.text() };
        match why {
            NotSent::OutOfTurn | NotSent::NotOurs | NotSent::NotBegun
                if self.life.failure_reason.is_none() =>
            {
                self.moved(Life { phase: Phase::Waiting, ..self.changed() }, proof, None)
            }
            NotSent::NotConnected
            | NotSent::NoSubscriber
            | NotSent::OutOfTurn
            | NotSent::NotOurs
            | NotSent::NotBegun => {
                match (self.spec.if_offline, &self.life.failure_reason) {
                    // Provably nothing left, so the one publish is still ahead.
                    (IfOffline::Wait, None) => {
                        self.moved(Life { phase: Phase::Waiting, ..self.changed() }, proof, None)
                    }
                    (_, Some(reason)) => {
                        self.end(Outcome::Failed(FailureCode::PreemptedByEmergency), reason, proof)
                    }
                    // A movement that could not leave now must not leave later, when nobody expects it.
                    (IfOffline::Fail, None) => {
                        let reason = format!("{}; nothing was sent", why.text());
                        self.end(Outcome::Failed(FailureCode::DeviceOffline), &reason, proof)
                    }
                }
            }
            NotSent::Withheld => match &self.life.failure_reason {
                Some(reason) => {
                    let proof = Proof::NotSent { reason: format!("it was withdrawn: {reason}") };
                    self.end(Outcome::Failed(FailureCode::PreemptedByEmergency), reason, proof)
                }
                None => self.end(
                    Outcome::TimedOut(FailureCode::ExpiredBeforeSending),
                    "its deadline passed at the moment of sending; nothing was sent",
                    proof,
                ),
            },
            NotSent::Refused(reason) => self.end(
                Outcome::Failed(FailureCode::TransportFailed),
                &format!("the broker refused the message: {reason}"),
                proof,
            ),
            NotSent::GatewayGone => self.end(
                Outcome::Failed(FailureCode::TransportFailed),
                "its gateway was moved to another tenant or removed; nothing was sent",
                proof,
            ),
        }
    }

    /// Ends `life`, which may go on holding the aircraft while the movement it started runs on, or may run on.
    fn close(self, life: &mut Life, outcome: Outcome) {
        let runs_on = match outcome {
            Outcome::Succeeded => match &life.execution {
                Some(execution) => execution.open,
                // The answer to "return home" ends the command, not the flight home.
                None => self.spec.starts_motion && self.spec.completes_by == CompletesBy::Reply,
            },
            // Nobody knows whether it flies, so nothing else may start for as long as it might.
            Outcome::TimedOut(
                FailureCode::NoResponse
                | FailureCode::DispatchUncertain
                | FailureCode::ExecutionUnconfirmed,
            )
            | Outcome::Unmatched => life.holds_motion,
            Outcome::TimedOut(_) | Outcome::Delivered | Outcome::Failed(_) => false,
        };
        life.phase = Phase::Ended(outcome);
        life.completed_at = Some(self.moment.now.wall);
        life.due = runs_on.then(|| self.silence_due());
        life.holds_motion = life.holds_motion && runs_on;
    }

    fn end(self, outcome: Outcome, reason: &str, proof: Proof) -> Decision {
        let mut life = Life { failure_reason: Some(reason.to_owned()), ..self.changed() };
        self.close(&mut life, outcome);
        self.moved(life, proof, None)
    }

    fn time_out(self, code: FailureCode, reason: &str) -> Decision {
        self.end(Outcome::TimedOut(code), reason, Proof::Timer { limit: reason.to_owned() })
    }

    /// Stops looking after a command that has ended.
    fn let_go(self) -> Decision {
        let life = Life { due: None, holds_motion: false, ..self.changed() };
        Decision::Move { life: Arc::new(life), entries: Vec::new(), effect: None }
    }

    fn silence_due(self) -> Deadline {
        let Moment { now, told, boot, .. } = self.moment;
        Deadline::after(Now { wall: told, ..now }, boot, self.spec.silence_wait)
    }

    fn changed(self) -> Life {
        Life {
            version: self.life.version.next(),
            updated_at: self.moment.now.wall,
            ..self.life.clone()
        }
    }

    fn entry(self, after: &Life, proof: Proof) -> Entry {
        Entry { at: self.moment.now.wall, from: self.life.status(), to: after.status(), proof }
    }

    fn moved(self, life: Life, proof: Proof, effect: Option<Effect>) -> Decision {
        let entries = vec![self.entry(&life, proof)];
        Decision::Move { life: Arc::new(life), entries, effect }
    }

    fn record(self, proof: Proof) -> Decision {
        Decision::Record(self.entry(self.life, proof))
    }
}

impl NotSent {
    fn text(&self) -> String {
        match self {
            Self::NotConnected => "there was no connection to the broker".to_owned(),
            Self::NoSubscriber => {
                "the broker knows of nobody listening on the gateway's topic".to_owned()
            }
            Self::OutOfTurn => "a command that was accepted before it had not left".to_owned(),
            Self::NotBegun => "its server did not hear in time that it might send".to_owned(),
            Self::NotOurs => "another server sends to its gateway by now".to_owned(),
            Self::Withheld => "the deadline passed before the bytes were written".to_owned(),
            Self::Refused(reason) => format!("the broker refused the message: {reason}"),
            Self::GatewayGone => {
                "the gateway was moved to another tenant or removed meanwhile".to_owned()
            }
        }
    }
}

/// What several inputs that came together mean for a command.
#[derive(Debug, Clone, PartialEq)]
pub struct Folded {
    /// How it stands afterwards.
    pub life: Arc<Life>,
    /// What goes on the timeline.
    pub entries: Vec<Entry>,
    /// Whether to publish once this is saved.
    pub effect: Option<Effect>,
}

/// Decides several inputs one after another, so that they are saved together.
///
/// Turns are decided last: whatever arrived with a turn arrived before the publish it allows, so an answer among it
/// answers nothing, and a cancellation or an emergency still comes in time. An effect therefore always belongs to the
/// life beside it.
///
/// Ticks come after everything else and before the turns: a tick asks what the time is now, and whatever was told was told
/// before now. So an answer that a store has kept from being saved is not overtaken by its own deadline.
///
/// `None` when none of them means anything. The version of the result is the old one plus the number of moves; a mere
/// record leaves it alone.
#[must_use]
pub fn decide_all<'a>(
    command: &Command,
    inputs: impl IntoIterator<Item = &'a Input>,
    moment: Moment<'_>,
) -> Option<Folded> {
    let mut folded = Folded { life: command.life.clone(), entries: Vec::new(), effect: None };
    let mut meant_something = false;
    let is_turn = |input: &&Input| matches!(input, Input::Turn(_));
    let (turns, others): (Vec<_>, Vec<_>) = inputs.into_iter().partition(is_turn);
    let is_tick = |input: &&Input| matches!(input, Input::Tick(_));
    let (ticks, words): (Vec<_>, Vec<_>) = others.into_iter().partition(is_tick);
    for input in words.into_iter().chain(ticks).chain(turns) {
        match decide(&command.spec, &folded.life, input, moment) {
            Decision::Move { life, entries, effect } => {
                folded.life = life;
                folded.entries.extend(entries);
                folded.effect = folded.effect.or(effect);
                meant_something = true;
            }
            Decision::Record(entry) => {
                folded.entries.push(entry);
                meant_something = true;
            }
            Decision::Ignore => {}
        }
    }
    meant_something.then_some(folded)
}

/// The time a job of `spec` may be silent, or its answer may take, whichever is longer: no open command outlives it
/// without being looked at.
#[must_use]
pub fn longest_wait(spec: &Spec) -> Duration {
    spec.timeout.max(spec.silence_wait)
}

fn preempted_by(emergency_command_id: &str) -> String {
    format!("emergency command {emergency_command_id} of the same aircraft came first")
}

fn later(one: Deadline, other: Option<Deadline>) -> Deadline {
    other.filter(|other| other.mono > one.mono).unwrap_or(one)
}

fn to_value(raw: &str) -> serde_json::Value {
    serde_json::from_str(raw).unwrap_or_else(|_| serde_json::Value::String(raw.to_owned()))
}

impl Case<'_> {
    fn reply_proof(
        self,
        reply: &Reply,
        late: bool,
        duplicate: bool,
        mismatch: Option<String>,
    ) -> Proof {
        Proof::Reply {
            gateway: reply.gateway.to_string(),
            method: reply.method.clone(),
            code: reply.code.clone(),
            data: to_value(&reply.data),
            late_response: late,
            duplicate,
            mismatch,
        }
    }

    fn wants_outcome(self) -> bool {
        self.spec.complete_on == CompleteOn::Outcome
    }
}

#[cfg(test)]
mod tests;
