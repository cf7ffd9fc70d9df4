//! A database that is old: so many commands are written into it as a server would have, so that a start with them can be
//! timed.

use std::{sync::Arc, time::Duration};

use anyhow::{Context, bail};
use tokio::task::JoinSet;
use utmos_core::{
    command::{Command, Life, Spec, Status},
    evidence::{Entry, Proof},
    id::{Bid, CommandId, DeviceSn, TenantId},
    life::{Input, Moment, Presence, decide_all},
    method::{Channel, CompleteOn, CompletesBy, IfOffline, Risk},
    ports::{Accepted, Advance, Ids, NewCommand},
    reply::{Reply, Verdict},
    signing::NonceUse,
    time::{Clock, Deadline, Timestamp},
};
use utmos_server::{clock::SystemClock, ids::SystemIds};
use uuid::Uuid;

use super::child::{Place, Prepared};
use crate::opened::{self, Database};

/// So many ids are answered.
const SOME: u64 = 1_000;
/// Written at a time.
const AT_ONCE: u64 = 500;
/// One of so many that have ended failed, …
const FAILED_OF: u64 = 100;
/// … and one of so many is of a method that few are of.
const RARE_OF: u64 = 1_000;
pub const RARE_METHOD: &str = "cover_open";
/// None is of it.
pub const ABSENT_METHOD: &str = "cover_close";
/// The longest deadline there is: those that are open stay so.
const TIMEOUT: Duration = Duration::from_secs(300);
const SILENCE: Duration = Duration::from_mins(1);
/// How long a nonce is remembered by default.
const NONCE_KEPT: Duration = Duration::from_mins(10);

/// How far a command has come.
#[derive(Debug, Clone, Copy)]
enum Stage {
    Waiting,
    Claimed,
    Delivered,
    Ended,
}

/// What is written.
#[derive(Debug, Clone, Copy)]
pub struct Fill {
    /// Commands that have ended.
    pub ended: u64,
    /// Commands that have not: a half waits, a quarter is claimed, a quarter is delivered.
    pub open: u64,
    /// Whether the nonces of all must still be remembered, as when all came within minutes.
    pub with_nonces: bool,
    /// Of which kind the idempotency keys are.
    pub keys: Keys,
}

/// Idempotency keys, as callers make them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Keys {
    /// UUIDs of version 7, which come in order
    V7,
    /// UUIDs of version 4, each of which lies anywhere among those stored
    Random,
}

impl Keys {
    pub fn make(self, ids: &SystemIds, at: Timestamp) -> Uuid {
        match self {
            Self::V7 => ids.ordered(at),
            Self::Random => ids.random(),
        }
    }
}

impl Fill {
    fn all(self) -> u64 {
        self.ended + self.open
    }
}

/// Fills the database of a server that does not run; answers the ids of some, evenly spread.
pub async fn fill(place: &Place, prepared: &Prepared, fill: Fill) -> anyhow::Result<Vec<String>> {
    let store = opened::store(&place.config()?).await?;
    let tenants = store.tenants().await?;
    let tenant = tenants.first().context("the bench has no tenant")?.id;
    let writer = Arc::new(Writer {
        fill,
        store: store.clone(),
        tenant,
        api_id: prepared.access.api_id.clone(),
        docks: prepared
            .docks
            .iter()
            .map(|dock| DeviceSn::parse(&dock.sn))
            .collect::<Result<_, _>>()?,
        clock: SystemClock::new(),
        ids: SystemIds::new(),
    });
    let every = (fill.all() / SOME).max(1);
    let (mut number, mut some) = (0, Vec::new());
    while number < fill.all() {
        let mut tasks = JoinSet::new();
        for number in number..(number + AT_ONCE).min(fill.all()) {
            let writer = writer.clone();
            tasks.spawn(async move { anyhow::Ok((number, writer.write(number).await?)) });
        }
        for done in tasks.join_all().await {
            let (number, id) = done?;
            if number.is_multiple_of(every) {
                some.push(id.to_string());
            }
        }
        number += AT_ONCE;
    }
    drop(writer);
    store.close().await;
    Ok(some)
}

struct Writer {
    fill: Fill,
    store: Arc<dyn Database>,
    tenant: TenantId,
    api_id: utmos_core::id::ApiId,
    docks: Vec<DeviceSn>,
    clock: SystemClock,
    ids: SystemIds,
}

impl Writer {
    async fn write(&self, number: u64) -> anyhow::Result<CommandId> {
        let stage = match number.checked_sub(self.fill.ended) {
            None => Stage::Ended,
            Some(open) if open % 2 == 0 => Stage::Waiting,
            Some(open) if open % 4 == 1 => Stage::Claimed,
            Some(_) => Stage::Delivered,
        };
        let spec = Arc::new(self.spec(number)?);
        let life = Arc::new(Life::accepted(&spec));
        let mut command = Command { spec: spec.clone(), life };
        let mut entries = vec![Entry {
            at: spec.accepted_at,
            from: Status::Accepted,
            to: Status::Accepted,
            proof: Proof::Accepted {
                api_id: self.api_id.to_string(),
                request_id: spec.request_id.clone(),
            },
        }];
        if !matches!(stage, Stage::Waiting) {
            let (life, more) = self.decide(&command, &[Input::Turn(Presence::Online)])?;
            command.life = life;
            entries.extend(more);
        }
        let nonce = NonceUse {
            key: *self.ids.random().as_bytes(),
            expires_at: spec.accepted_at.plus(NONCE_KEPT),
        };
        let new = NewCommand { spec: spec.clone(), life: command.life.clone(), entries };
        match self.store.accept(self.fill.with_nonces.then_some(nonce), new).await? {
            Accepted::New => {}
            refused @ (Accepted::Elsewhere
            | Accepted::Replayed { .. }
            | Accepted::Conflict { .. }
            | Accepted::Busy { .. }
            | Accepted::NonceReplayed) => bail!("a command was not stored: {refused:?}"),
        }
        let told = match stage {
            Stage::Waiting | Stage::Claimed => return Ok(spec.id),
            Stage::Delivered => vec![confirmed(&spec)],
            Stage::Ended => {
                vec![confirmed(&spec), Input::Reply(reply(&spec, number.is_multiple_of(FAILED_OF)))]
            }
        };
        let (life, entries) = self.decide(&command, &told)?;
        let seen = command.life.version;
        self.store.advance(Advance { id: spec.id, seen, life, entries: entries.into() }).await?;
        Ok(spec.id)
    }

    fn decide(&self, command: &Command, told: &[Input]) -> anyhow::Result<(Arc<Life>, Vec<Entry>)> {
        let (now, boot) = (self.clock.now(), self.clock.boot());
        let moment = Moment { now, told: now.wall, boot, replica: "utmos-bench" };
        let folded = decide_all(command, told, moment).context("a command stood still")?;
        Ok((folded.life, folded.entries))
    }

    fn spec(&self, number: u64) -> anyhow::Result<Spec> {
        let now = self.clock.now();
        let dock = usize::try_from(number)? % self.docks.len();
        let device = self.docks.get(dock).context("the bench has no docks")?.clone();
        // Some of those that wait are movements, for which a start looks for later emergencies.
        let is_motion = self.fill.ended <= number && number.is_multiple_of(8);
        let method = match () {
            () if is_motion => "return_home_cancel",
            () if number % RARE_OF == 1 => RARE_METHOD,
            () => "debug_mode_open",
        };
        Ok(Spec {
            id: CommandId::new(self.ids.ordered(now.wall)),
            tenant: self.tenant,
            accepted_for: self.api_id.clone(),
            request_id: self.ids.random().to_string(),
            idempotency_key: self.fill.keys.make(&self.ids, now.wall).to_string(),
            fingerprint: [7; 32],
            gateway: device.to_gateway(),
            aircraft: None,
            device,
            method: method.to_owned(),
            channel: Channel::Services,
            completes_by: CompletesBy::Reply,
            risk: if is_motion { Risk::Motion } else { Risk::Ground },
            starts_motion: false,
            reply_without_status_is_final: true,
            if_offline: IfOffline::Wait,
            complete_on: CompleteOn::Outcome,
            bid: Bid::new(self.ids.ordered(now.wall)),
            job_ref: None,
            timeout: TIMEOUT,
            silence_wait: SILENCE,
            deadline: Deadline::after(now, self.clock.boot(), TIMEOUT),
            accepted_at: now.wall,
            payload: "{}".into(),
        })
    }
}

fn confirmed(spec: &Spec) -> Input {
    Input::Confirmed(Proof::BrokerConfirmed {
        topic: format!("thing/product/{}/services", spec.gateway),
        qos: 1,
        packet_id: Some(1),
        bytes: 200,
    })
}

fn reply(spec: &Spec, fails: bool) -> Reply {
    let code = if fails { "314000" } else { "0" };
    Reply {
        gateway: spec.gateway.clone(),
        method: Some(spec.method.clone()),
        verdict: if fails { Verdict::Refused } else { Verdict::Ok },
        code: Some(code.to_owned()),
        message: None,
        job: None,
        data: format!(r#"{{"result":{code}}}"#).into(),
    }
}
