//! What the life of a command may and may not do: a table of every phase with every input, the stories behind the
//! harder cells, and properties over arbitrary commands and scripts.

mod properties;
mod stories;
mod table;

use std::time::Duration;

use uuid::Uuid;

use super::*;
use crate::{
    command::{Status, StatusVersion},
    id::{ApiId, Bid, CommandId, DeviceSn, GatewaySn, TenantId},
    method::Channel,
    reply::{JobState, Verdict},
    time::Mono,
};

const BOOT: BootId = BootId([1; 16]);
const ACCEPTED_AT: u64 = 1_000;
const TIMEOUT: u64 = 30_000;
const SILENCE: u64 = 60_000;
/// Mono time at which the deadline passes.
const DEADLINE: u64 = ACCEPTED_AT + TIMEOUT;
const WALL: i64 = 1_767_225_600_000;

fn at(mono: u64) -> Now {
    let wall = WALL + i64::try_from(mono).unwrap_or(0);
    Now { wall: Timestamp::from_millis(wall), mono: Mono::from_millis(mono) }
}

fn moment(now: Now) -> Moment<'static> {
    Moment { now, told: now.wall, boot: BOOT, replica: "replica-1" }
}

fn gateway(sn: &str) -> GatewaySn {
    DeviceSn::parse(sn).map_or_else(|_| unreachable!("a good serial number"), |sn| sn.to_gateway())
}

/// A movement that is a job and waits for its gateway.
fn takeoff() -> Spec {
    Spec {
        id: CommandId::new(Uuid::from_u128(1)),
        tenant: TenantId::new(Uuid::from_u128(2)),
        accepted_for: ApiId::new("ak_test"),
        request_id: "req-1".to_owned(),
        idempotency_key: "k-1".to_owned(),
        fingerprint: [0; 32],
        device: gateway("DOCK1").to_device(),
        gateway: gateway("DOCK1"),
        aircraft: None,
        method: "takeoff_to_point".to_owned(),
        channel: Channel::Services,
        completes_by: CompletesBy::Job,
        risk: Risk::Motion,
        starts_motion: true,
        reply_without_status_is_final: false,
        if_offline: IfOffline::Wait,
        complete_on: CompleteOn::Outcome,
        bid: Bid::new(Uuid::from_u128(3)),
        job_ref: Some("flight-1".to_owned()),
        timeout: Duration::from_millis(TIMEOUT),
        silence_wait: Duration::from_millis(SILENCE),
        deadline: Deadline::after(at(ACCEPTED_AT), BOOT, Duration::from_millis(TIMEOUT)),
        accepted_at: at(ACCEPTED_AT).wall,
        payload: "{}".into(),
    }
}

/// Ends with its answer, while the aircraft flies on.
fn return_home() -> Spec {
    Spec {
        method: "return_home".to_owned(),
        completes_by: CompletesBy::Reply,
        risk: Risk::Emergency,
        if_offline: IfOffline::Fail,
        ..takeoff()
    }
}

/// Nothing ever answers it.
fn stick_control() -> Spec {
    Spec {
        method: "stick_control".to_owned(),
        channel: Channel::DrcDown,
        completes_by: CompletesBy::NoReply,
        starts_motion: false,
        ..takeoff()
    }
}

/// A job of the dock, whose answer is documented to say how it stands.
fn cover_open() -> Spec {
    Spec {
        method: "cover_open".to_owned(),
        risk: Risk::Ground,
        starts_motion: false,
        reply_without_status_is_final: true,
        ..takeoff()
    }
}

fn reply(spec: &Spec, verdict: Verdict) -> Reply {
    let code = match verdict {
        Verdict::Ok => Some("0"),
        Verdict::Refused => Some("314000"),
        Verdict::Unreadable => None,
    };
    Reply {
        gateway: spec.gateway.clone(),
        method: Some(spec.method.clone()),
        verdict,
        code: code.map(str::to_owned),
        message: None,
        job: None,
        data: r#"{"result":0}"#.into(),
    }
}

fn ok(spec: &Spec) -> Reply {
    reply(spec, Verdict::Ok)
}

fn job_reply(spec: &Spec, job: JobState) -> Reply {
    Reply { job: Some(job), ..ok(spec) }
}

fn progress(spec: &Spec, state: JobState, percent: u8) -> Progress {
    let state_word = match state {
        JobState::Open => "in_progress",
        JobState::Paused => "paused",
        JobState::Succeeded => "ok",
        JobState::Failed => "failed",
    };
    Progress {
        gateway: spec.gateway.clone(),
        event_method: format!("{}_progress", spec.method),
        command_methods: vec![spec.method.clone()],
        bid: Some(spec.bid.to_string()),
        job_ref: None,
        state,
        state_word: state_word.to_owned(),
        step: Some("step".to_owned()),
        percent: Some(percent),
        code: None,
        message: None,
        data: "{}".into(),
    }
}

fn broker_confirmed() -> Input {
    Input::Confirmed(Proof::BrokerConfirmed {
        topic: "thing/product/DOCK1/services".to_owned(),
        qos: 1,
        packet_id: Some(7),
        bytes: 120,
    })
}

fn cancel() -> Input {
    Input::Cancel { api_id: "ak_test".to_owned(), request_id: "req-2".to_owned() }
}

fn preempt() -> Input {
    Input::Preempt { emergency_command_id: "e-1".to_owned() }
}

const ONLINE: Input = Input::Turn(Presence::Online);
const TICK: Input = Input::Tick(Presence::Online);
const ABSENT: Presence = Presence::Absent { last_heard_at: None };

/// A command and the clock it lives by.
#[derive(Debug, Clone)]
struct Story {
    spec: Spec,
    life: Arc<Life>,
    entries: Vec<Entry>,
    publishes: usize,
    mono: u64,
}

impl Story {
    fn new(spec: Spec) -> Self {
        let life = Arc::new(Life::accepted(&spec));
        Self { spec, life, entries: Vec::new(), publishes: 0, mono: ACCEPTED_AT + 10 }
    }

    fn at(mut self, mono: u64) -> Self {
        self.mono = mono;
        self
    }

    fn after(self, wait: u64) -> Self {
        let mono = self.mono + wait;
        self.at(mono)
    }

    fn decide(&self, input: &Input) -> Decision {
        decide(&self.spec, &self.life, input, moment(at(self.mono)))
    }

    fn given(mut self, input: Input) -> Self {
        match self.decide(&input) {
            Decision::Move { life, entries, effect } => {
                self.life = life;
                self.entries.extend(entries);
                self.publishes += usize::from(effect == Some(Effect::Publish));
            }
            Decision::Record(entry) => self.entries.push(entry),
            Decision::Ignore => {}
        }
        self
    }

    fn reply(self, reply: Reply) -> Self {
        self.given(Input::Reply(reply))
    }

    fn progress(self, state: JobState, percent: u8) -> Self {
        let progress = progress(&self.spec, state, percent);
        self.given(Input::Progress(progress))
    }

    fn sending(spec: Spec) -> Self {
        Self::new(spec).given(ONLINE)
    }

    fn delivered(spec: Spec) -> Self {
        Self::sending(spec).given(broker_confirmed())
    }

    /// Answered that it started.
    fn started(spec: Spec) -> Self {
        let answer = job_reply(&spec, JobState::Open);
        Self::delivered(spec).reply(answer)
    }

    fn status(&self) -> Status {
        self.life.status()
    }

    fn failure(&self) -> Option<FailureCode> {
        self.life.phase.failure()
    }

    fn last(&self) -> Option<&Proof> {
        self.entries.last().map(|entry| &entry.proof)
    }
}

/// The tag a proof has on the timeline.
fn cause(proof: &Proof) -> String {
    let value = serde_json::to_value(proof).unwrap_or_default();
    value["cause"].as_str().unwrap_or_default().to_owned()
}
