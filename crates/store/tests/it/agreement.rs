//! Two adapters that are told the same answer the same, whatever it is: random sequences over all ports, step by step.

use std::{collections::BTreeSet, fmt::Debug, sync::Arc, time::Duration};

use proptest::{collection::vec, option, prelude::*};
use utmos_core::{
    binding::BindingCode,
    command::{Command, FailureCode, Outcome, Phase, Spec, Status, StatusVersion},
    device::{Device, DeviceKind, SubDevice},
    device_request::{
        Asked, AskedOn, DeviceRequest, Mode, RoutingDecision, Rule, Scope, Sending, SetRule,
    },
    id::{BindingCodeId, DeviceRequestId, DeviceSn, TenantId},
    method::Risk,
    ports::{
        Accepted, Advance, Advanced, Bind, By, CommandFilter, DeviceEdit, DeviceOrder,
        RequestFilter, Sighting, StoreError, Tenant,
    },
    replica::Shard,
    signing::NonceUse,
};
use uuid::Uuid;

use crate::{
    contract::{FullPlace, FullStore},
    given::{
        at, change, deadline, device, evidence, gateway, id, moved, new, nonce, record, sn, spec,
        tenant, transition, unmatched,
    },
};

/// Something that is asked of a store. Small numbers stand for things of which there are few, so that steps meet.
#[derive(Debug, Clone)]
pub enum Step {
    Accept(Wanted),
    Foresee(Wanted),
    /// A change of a command that was accepted; `is_stale` where it was judged on an older version.
    Advance {
        of: usize,
        phase: Phase,
        flies_on: bool,
        is_stale: bool,
    },
    Evidence {
        of: usize,
        lines: usize,
        is_stale: bool,
    },
    SpendNonce(u8, u8),
    ForgetNonces(u8),
    Command {
        of: usize,
        tenant: u8,
    },
    Commands {
        tenant: u8,
        device: Option<u8>,
        status: Option<usize>,
        devices: Option<Vec<u8>>,
        after: bool,
        limit: usize,
    },
    Open {
        after: Option<usize>,
        limit: usize,
    },
    EmergencyAfter(usize),
    Unmatched {
        number: u8,
        tenant: Option<u8>,
    },
    Reopen,
    Fleet(FleetStep),
    Request(RequestStep),
}

/// What concerns devices and their owners.
#[derive(Debug, Clone)]
pub enum FleetStep {
    Tenant { number: u8, name: u8 },
    Topology { gateway: u8, subs: Vec<u8>, tenant: u8 },
    Register { device: u8, tenant: u8, label: u8 },
    Edit { device: u8, tenant: u8, label: Option<u8>, tag: Option<u8>, password: bool },
    Move { device: u8, from: u8, to: u8 },
    Remove { device: u8, tenant: u8 },
    Bind { gateway: u8, tenant: u8, code: Option<u8>, aircraft: Vec<u8>, late: bool },
    AddCode { number: u8, tenant: u8, uses: u32 },
    RevokeCode { number: u8, tenant: u8 },
    Sightings(Vec<(u8, u8)>),
}

/// What concerns requests of devices.
#[derive(Debug, Clone)]
pub enum RequestStep {
    KeepRequest {
        key: Option<u8>,
        tenant: u8,
        device: u8,
        waits: bool,
    },
    ChangeRequest {
        of: usize,
        state: usize,
        is_stale: bool,
    },
    Requests {
        tenant: u8,
        device: Option<u8>,
        waits: Option<bool>,
        devices: Option<Vec<u8>>,
        limit: usize,
    },
    PutRule {
        tenant: u8,
        request_type: u8,
        device: Option<u8>,
        after: bool,
    },
    RemoveRule {
        tenant: u8,
        request_type: u8,
        device: Option<u8>,
    },
}

#[derive(Debug, Clone)]
pub struct Wanted {
    tenant: u8,
    key: u8,
    body: u8,
    gateway: u8,
    aircraft: Option<u8>,
    moves: bool,
    is_emergency: bool,
    nonce: Option<u8>,
    has_zero: bool,
}

fn few() -> impl Strategy<Value = u8> {
    0_u8..3
}

prop_compose! {
    fn wanted()(
        tenant in few(), key in 0_u8..12, body in 0_u8..2, gateway in few(), aircraft in option::of(few()),
        kind in 0_u8..4, nonce in option::of(0_u8..20), has_zero in proptest::bool::weighted(0.1),
    ) -> Wanted {
        Wanted { tenant, key, body, gateway, aircraft, moves: kind > 1, is_emergency: kind == 3, nonce, has_zero }
    }
}

fn phase() -> impl Strategy<Value = Phase> {
    proptest::sample::select(vec![
        Phase::Sending,
        Phase::Delivered,
        Phase::Ended(Outcome::Succeeded),
        Phase::Ended(Outcome::Failed(FailureCode::Cancelled)),
        Phase::Ended(Outcome::TimedOut(FailureCode::NoResponse)),
    ])
}

fn command_step() -> impl Strategy<Value = Step> {
    let stale = || proptest::bool::weighted(0.2);
    prop_oneof![
        6 => wanted().prop_map(Step::Accept),
        1 => wanted().prop_map(Step::Foresee),
        4 => (any::<usize>(), phase(), any::<bool>(), stale())
            .prop_map(|(of, phase, flies_on, is_stale)| Step::Advance { of, phase, flies_on, is_stale }),
        2 => (any::<usize>(), 0_usize..40, stale()).prop_map(|(of, lines, is_stale)| Step::Evidence { of, lines, is_stale }),
        2 => (0_u8..20, 0_u8..9).prop_map(|(number, expires)| Step::SpendNonce(number, expires)),
        1 => (0_u8..10).prop_map(Step::ForgetNonces),
        1 => (any::<usize>(), few()).prop_map(|(of, tenant)| Step::Command { of, tenant }),
        1 => (few(), option::of(few()), option::of(0..Status::ALL.len()), option::of(vec(few(), 0..3)), any::<bool>(), 0_usize..6)
            .prop_map(|(tenant, device, status, devices, after, limit)| {
                Step::Commands { tenant, device, status, devices, after, limit }
            }),
        1 => (option::of(any::<usize>()), 0_usize..6).prop_map(|(after, limit)| Step::Open { after, limit }),
        1 => any::<usize>().prop_map(Step::EmergencyAfter),
        1 => (0_u8..9, option::of(few())).prop_map(|(number, tenant)| Step::Unmatched { number, tenant }),
        1 => Just(Step::Reopen),
    ]
}

fn fleet_step() -> impl Strategy<Value = FleetStep> {
    prop_oneof![
        (few(), few()).prop_map(|(number, name)| FleetStep::Tenant { number, name }),
        (few(), vec(few(), 0..3), few()).prop_map(|(gateway, subs, tenant)| FleetStep::Topology {
            gateway,
            subs,
            tenant
        }),
        (few(), few(), few()).prop_map(|(device, tenant, label)| FleetStep::Register {
            device,
            tenant,
            label
        }),
        (few(), few(), option::of(few()), option::of(few()), any::<bool>()).prop_map(
            |(device, tenant, label, tag, password)| FleetStep::Edit {
                device,
                tenant,
                label,
                tag,
                password
            }
        ),
        (few(), few(), few()).prop_map(|(device, from, to)| FleetStep::Move { device, from, to }),
        (few(), few()).prop_map(|(device, tenant)| FleetStep::Remove { device, tenant }),
        (few(), few(), option::of(few()), vec(few(), 0..3), any::<bool>()).prop_map(
            |(gateway, tenant, code, aircraft, late)| FleetStep::Bind {
                gateway,
                tenant,
                code,
                aircraft,
                late
            }
        ),
        (few(), few(), 1_u32..3).prop_map(|(number, tenant, uses)| FleetStep::AddCode {
            number,
            tenant,
            uses
        }),
        (few(), few()).prop_map(|(number, tenant)| FleetStep::RevokeCode { number, tenant }),
        vec((few(), any::<u8>()), 0..4).prop_map(FleetStep::Sightings),
    ]
}

fn request_step() -> impl Strategy<Value = RequestStep> {
    prop_oneof![
        3 => (option::of(0_u8..6), few(), few(), any::<bool>())
            .prop_map(|(key, tenant, device, waits)| RequestStep::KeepRequest { key, tenant, device, waits }),
        2 => (any::<usize>(), 0..RoutingDecision::ALL.len(), proptest::bool::weighted(0.2))
            .prop_map(|(of, state, is_stale)| RequestStep::ChangeRequest { of, state, is_stale }),
        2 => (few(), option::of(few()), option::of(any::<bool>()), option::of(vec(few(), 0..3)), 0_usize..6)
            .prop_map(|(tenant, device, waits, devices, limit)| RequestStep::Requests { tenant, device, waits, devices, limit }),
        1 => (few(), few(), option::of(few()), any::<bool>())
            .prop_map(|(tenant, request_type, device, after)| RequestStep::PutRule { tenant, request_type, device, after }),
        1 => (few(), few(), option::of(few()))
            .prop_map(|(tenant, request_type, device)| RequestStep::RemoveRule { tenant, request_type, device }),
    ]
}

pub fn steps() -> impl Strategy<Value = Vec<Step>> {
    vec(
        prop_oneof![5 => command_step(), 3 => fleet_step().prop_map(Step::Fleet),
        2 => request_step().prop_map(Step::Request)],
        1..60,
    )
}

/// What was told so far: the same for both.
#[derive(Default)]
struct Told {
    commands: Vec<Command>,
    requests: Vec<DeviceRequest>,
    /// Counts steps, which is the time as well.
    now: i64,
    /// Nonces from before some were forgotten are not asked for again.
    forgotten: u128,
}

/// What a store answered, to be compared. What is no value is only said to be none.
fn said<T: Debug>(answer: Result<T, StoreError>) -> String {
    answer.map_or_else(|_| "no".to_owned(), |value| format!("{value:?}"))
}

fn owner(number: u8) -> TenantId {
    tenant(u128::from(number) + 1)
}

fn named(number: u8) -> DeviceSn {
    sn(&format!("D{number}"))
}

fn aircraft(number: u8, of: u8) -> Device {
    let label = String::new();
    Device {
        kind: DeviceKind::Aircraft,
        label,
        mqtt_secret_hash: None,
        ..device(&format!("A{number}"), owner(of))
    }
}

fn sub(number: u8) -> SubDevice {
    SubDevice { sn: sn(&format!("A{number}")), model_key: None, index: Some("A".to_owned()) }
}

fn code_id(number: u8) -> BindingCodeId {
    BindingCodeId::new(Uuid::from_u128(u128::from(number) + 1))
}

impl Told {
    fn by(&self) -> By {
        By { who: format!("step {}", self.now), at: at(self.now) }
    }

    fn nonce(&self, number: u8, expires: u8) -> NonceUse {
        nonce(self.forgotten + u128::from(number), self.now + i64::from(expires))
    }

    fn spec(&self, wanted: &Wanted) -> Spec {
        let key = format!("k{}", wanted.key);
        let base = spec(self.now, &format!("{key} {}", self.now));
        let zero = if wanted.has_zero { "\0\u{FFFF}" } else { "" };
        Spec {
            idempotency_key: key,
            tenant: owner(wanted.tenant),
            fingerprint: [wanted.body; 32],
            device: named(wanted.gateway),
            gateway: gateway(&format!("D{}", wanted.gateway)),
            aircraft: wanted.aircraft.map(|number| sn(&format!("A{number}"))),
            method: format!("method{zero}"),
            job_ref: wanted.has_zero.then(|| format!("job{zero}")),
            risk: if wanted.is_emergency { Risk::Emergency } else { Risk::Ground },
            starts_motion: wanted.moves,
            ..base
        }
    }

    fn command(&self, of: usize) -> Option<&Command> {
        self.commands.get(of.checked_rem(self.commands.len())?)
    }

    /// Takes a step on one store. `first` tells whether it is the first to take it: what comes of it is noted once.
    async fn take(&mut self, step: &Step, store: &dyn FullStore, first: bool) -> String {
        match step {
            Step::Accept(wanted) => {
                let new = new(self.spec(wanted));
                let command = Command { spec: new.spec.clone(), life: new.life.clone() };
                let nonce = wanted.nonce.map(|number| self.nonce(number, 5));
                let answer = store.accept(nonce, new).await;
                if first && matches!(answer, Ok(Accepted::New)) {
                    self.commands.push(command);
                }
                said(answer)
            }
            Step::Foresee(wanted) => said(store.foresee(new(self.spec(wanted))).await),
            Step::Advance { of, phase, flies_on, is_stale } => {
                let Some(command) = self.command(*of).cloned() else { return String::new() };
                let mut life = moved(&command.life, *phase, self.now);
                Arc::make_mut(&mut life).holds_motion =
                    command.life.holds_motion && (life.holds_motion || *flies_on);
                let mut advance = change(&command, life.clone());
                // The version after the next has not been: a store must not take it either.
                if *is_stale {
                    advance.seen = StatusVersion(advance.seen.0 + 7);
                }
                let answer = store.advance(advance).await;
                if !first && matches!(answer, Ok(Advanced::Yes)) {
                    let at = of % self.commands.len();
                    self.commands[at].life = life;
                }
                said(answer)
            }
            Step::Evidence { of, lines, is_stale } => {
                let Some(command) = self.command(*of) else { return String::new() };
                let entries = (0..*lines)
                    .map(|line| evidence(command.life.status(), &line.to_string(), self.now))
                    .chain([transition(&command.life, &command.life)]);
                let seen = StatusVersion(command.life.version.0 + u64::from(*is_stale));
                let advance: Advance = record(command, seen, entries.collect());
                said(store.advance(advance).await)
            }
            Step::SpendNonce(number, expires) => {
                said(store.spend_nonce(self.nonce(*number, *expires)).await)
            }
            Step::ForgetNonces(later) => {
                let answer = store.forget_nonces(at(self.now + i64::from(*later))).await;
                // How many are kept longer than they must be is a store's own affair.
                if !first {
                    self.forgotten += 100;
                }
                answer.map_or_else(|_| "no".to_owned(), |_| "forgotten".to_owned())
            }
            Step::Command { of, tenant } => {
                let Some(command) = self.command(*of) else { return String::new() };
                let id = command.spec.id;
                said(store.command_of(owner(*tenant), id).await) + &said(store.timeline(id).await)
            }
            Step::Commands { tenant, device, status, devices, after, limit } => {
                let filter = CommandFilter {
                    device: device.map(named),
                    status: status.map(|at| Status::ALL[at]),
                    devices: devices
                        .as_ref()
                        .map(|all| all.iter().map(|one| named(*one)).collect()),
                    accepted_after: after.then(|| at(self.now / 2)),
                    ..CommandFilter::default()
                };
                said(store.commands_of(owner(*tenant), filter, None, *limit).await)
            }
            Step::Open { after, limit } => {
                let after = after.and_then(|of| self.command(of)).map(|command| command.spec.id);
                said(store.open_commands(after, *limit).await)
            }
            Step::EmergencyAfter(of) => {
                let Some(command) = self.command(*of) else { return String::new() };
                said(store.emergency_after(&command.spec).await)
            }
            Step::Unmatched { number, tenant } => {
                let message = unmatched((*number).into(), tenant.map(owner));
                let kept = said(store.keep_unmatched(message).await);
                kept + &said(store.unmatched_of(tenant.map(owner), None, 5).await)
            }
            Step::Reopen => String::new(),
            Step::Fleet(step) => {
                let before = store.generation().await.unwrap();
                let answer = self.take_fleet(step, store).await;
                let rose = store.generation().await.unwrap() > before;
                format!("{answer}, generation rose: {rose}")
            }
            Step::Request(step) => self.take_request(step, store, first).await,
        }
    }

    async fn take_fleet(&self, step: &FleetStep, store: &dyn FullStore) -> String {
        match step {
            FleetStep::Tenant { number, name } => {
                let created_at = at(0);
                let named = Tenant { id: owner(*number), name: format!("name {name}"), created_at };
                said(store.put_tenant(named).await)
            }
            FleetStep::Topology { gateway: which, subs, tenant } => {
                let unique: BTreeSet<u8> = subs.iter().copied().collect();
                let new = unique.iter().map(|number| aircraft(*number, *tenant)).collect();
                let subs = unique.iter().map(|number| sub(*number)).collect();
                said(store.put_topology(&gateway(&format!("D{which}")), new, subs).await)
            }
            FleetStep::Register { device: which, tenant, label } => {
                let device = device(&format!("D{which}"), owner(*tenant));
                let device = Device { label: format!("label {label}\0"), ..device };
                said(store.order(DeviceOrder::Register(device), self.by()).await)
            }
            FleetStep::Edit { device, tenant, label, tag, password } => {
                let edit = DeviceEdit {
                    label: label.map(|number| format!("label {number}")),
                    tags: tag.map(|number| BTreeSet::from([format!("tag {number}")])),
                    mqtt_secret_hash: password.then_some([7; 32]),
                };
                let order = DeviceOrder::Edit { sn: named(*device), tenant: owner(*tenant), edit };
                said(store.order(order, self.by()).await)
            }
            FleetStep::Move { device, from, to } => {
                let order =
                    DeviceOrder::Move { sn: named(*device), from: owner(*from), to: owner(*to) };
                said(store.order(order, self.by()).await)
            }
            FleetStep::Remove { device, tenant } => {
                let order = DeviceOrder::Remove { sn: named(*device), tenant: owner(*tenant) };
                said(store.order(order, self.by()).await)
            }
            FleetStep::Bind { gateway: which, tenant, code, aircraft: with, late } => {
                let with: BTreeSet<u8> = with.iter().copied().collect();
                let bind = Bind {
                    gateway: device(&format!("D{which}"), owner(*tenant)),
                    code: code.map(code_id),
                    aircraft: with.iter().map(|number| aircraft(*number, *tenant)).collect(),
                    subs: with.iter().map(|number| sub(*number)).collect(),
                    by: By { at: at(if *late { 50_000 } else { self.now }), ..self.by() },
                };
                said(store.bind(bind).await)
            }
            FleetStep::AddCode { number, tenant, uses } => {
                let code = BindingCode {
                    id: code_id(*number),
                    tenant: owner(*tenant),
                    label: "the roof".to_owned(),
                    hash: [7; 32],
                    uses_max: *uses,
                    uses: 0,
                    created_at: at(self.now),
                    created_by: "command line".to_owned(),
                    expires_at: at(10_000),
                    revoked_at: None,
                };
                said(store.add_binding_code(code, 2).await)
            }
            FleetStep::RevokeCode { number, tenant } => said(
                store.revoke_binding_code(owner(*tenant), code_id(*number), at(self.now)).await,
            ),
            FleetStep::Sightings(seen) => {
                let one = |(device, n): &(u8, u8)| Sighting {
                    sn: named(*device),
                    tenant: owner(n % 3),
                    first_seen_at: at((*n).into()),
                    last_seen_at: at(self.now),
                    firmware: (n % 3 > 0).then(|| format!("10.{n}")),
                    model_key: None,
                    online: n % 2 == 0,
                };
                said(store.keep_sightings(seen.iter().map(one).collect()).await)
            }
        }
    }

    async fn take_request(
        &mut self,
        step: &RequestStep,
        store: &dyn FullStore,
        first: bool,
    ) -> String {
        match step {
            RequestStep::KeepRequest { key, tenant, device, waits } => {
                let asked = Asked {
                    id: DeviceRequestId::new(id(self.now, 77)),
                    tenant: owner(*tenant),
                    device: named(*device),
                    gateway: gateway(&format!("D{device}")),
                    request_type: (*device > 0).then(|| format!("type{device}")),
                    tid: Some("t\0".to_owned()),
                    bid: None,
                    asked_on: AskedOn::Requests,
                    repeat_key: key.map(|key| u128::from(key).to_be_bytes()),
                    payload: "{}".into(),
                    payload_is_cut: false,
                    received_at: at(self.now),
                    deadline: deadline(self.now + 30),
                    reply_wait: Duration::from_secs(3),
                    automatic_after: None,
                };
                let state = if *waits {
                    RoutingDecision::AwaitingReply
                } else {
                    RoutingDecision::Unsupported
                };
                let request = DeviceRequest::new(Arc::new(asked), state);
                let answer = store.keep_request(Arc::new(request.clone())).await;
                if first && format!("{answer:?}") == "Ok(New)" {
                    self.requests.push(request);
                }
                let repeated =
                    store.request_repeated(u128::from(key.unwrap_or(0)).to_be_bytes()).await;
                said(answer) + &said(repeated)
            }
            RequestStep::ChangeRequest { of, state, is_stale } => {
                let Some(at) = of.checked_rem(self.requests.len()) else { return String::new() };
                let before = self.requests[at].clone();
                let seen = StatusVersion(before.version.0 + u64::from(*is_stale));
                let after = DeviceRequest {
                    state: RoutingDecision::ALL[*state].0,
                    sending: Sending::Claimed,
                    version: before.version.next(),
                    ..before
                };
                let answer = store.change_request(seen, Arc::new(after.clone())).await;
                if !first && !is_stale {
                    self.requests[at] = after;
                }
                said(answer)
            }
            RequestStep::Requests { tenant, device, waits, devices, limit } => {
                let filter = RequestFilter {
                    device: device.map(named),
                    request_type: device.filter(|it| it % 2 == 1).map(|it| format!("type{it}")),
                    state: waits.map(|waits| match waits {
                        true => RoutingDecision::AwaitingReply,
                        false => RoutingDecision::Unsupported,
                    }),
                    devices: devices
                        .as_ref()
                        .map(|all| all.iter().map(|one| named(*one)).collect()),
                };
                let before = self.requests.last().map(|request| request.asked.id);
                said(store.requests_of(owner(*tenant), filter, before, *limit).await)
                    + &said(store.requests_in_care(None, *limit).await)
            }
            RequestStep::PutRule { tenant, request_type, device, after } => {
                let mode =
                    if *after { Mode::AutoAfter(Duration::from_secs(9)) } else { Mode::Manual };
                let set = SetRule {
                    scope: scope(*tenant, *request_type, *device),
                    rule: Rule { mode, reply_wait: Duration::from_secs(30) },
                    updated_at: at(self.now),
                };
                said(store.put_rule(set).await) + &said(store.rules().await)
            }
            RequestStep::RemoveRule { tenant, request_type, device } => {
                said(store.remove_rule(scope(*tenant, *request_type, *device)).await)
            }
        }
    }
}

fn scope(tenant: u8, request_type: u8, device: Option<u8>) -> Scope {
    let request_type = format!("type{request_type}");
    Scope { tenant: owner(tenant), request_type, device: device.map(named) }
}

/// Everything that can be read, at the end.
pub async fn everything(store: &dyn FullStore) -> Vec<String> {
    let mut all = vec![
        said(store.tenants().await),
        said(store.devices().await),
        said(store.topologies().await),
        said(store.sightings().await),
        said(store.joined().await),
        said(store.binding_codes().await),
        said(store.rules().await),
        said(store.newest_record().await),
        said(store.open_commands(None, 1_000).await),
        said(store.open_commands_of(&Shard::all().step_by(2).collect(), None, 1_000).await),
        said(store.requests_in_care(None, 1_000).await),
        said(store.credentials().await),
    ];
    for number in 0..3 {
        all.push(said(store.device_record(&named(number)).await));
        all.push(said(store.device_record(&sn(&format!("A{number}"))).await));
        let commands =
            store.commands_of(owner(number), CommandFilter::default(), None, 1_000).await;
        for command in commands.as_ref().unwrap() {
            all.push(said(store.timeline(command.spec.id).await));
        }
        all.push(said(commands));
        all.push(said(
            store.requests_of(owner(number), RequestFilter::default(), None, 1_000).await,
        ));
        all.push(said(store.unmatched_of(Some(owner(number)), None, 1_000).await));
    }
    all.push(said(store.unmatched_of(None, None, 1_000).await));
    all
}

/// Has both take the steps, and compares every answer.
async fn agree(steps: &[Step], one: &dyn FullPlace, other: &dyn FullPlace) {
    let (mut left, mut right) = (one.open_full().await, other.open_full().await);
    let mut told = Told::default();
    for step in steps {
        told.now += 1;
        if matches!(step, Step::Reopen) {
            (left, right) = (one.open_full().await, other.open_full().await);
        }
        let answer = told.take(step, &*left, true).await;
        assert_eq!(told.take(step, &*right, false).await, answer, "{step:?}");
    }
    let (left, right) = (everything(&*left).await, everything(&*right).await);
    for (left, right) in left.iter().zip(&right) {
        assert_eq!(left, right);
    }
    assert_eq!(left.len(), right.len());
}

/// Has one take them.
pub async fn follow(steps: &[Step], store: &dyn FullStore) {
    let mut told = Told::default();
    for step in steps {
        told.now += 1;
        for is_first in [true, false] {
            // The second time shows what becomes of what was there.
            told.take(step, store, is_first).await;
        }
    }
}

/// Sequences that are tried; `PROPTEST_CASES` raises it.
const CASES_MIN: u32 = 12;

/// Each takes a database of its own.
#[expect(
    clippy::disallowed_methods,
    reason = "what proptest is asked for; its own default would be 256"
)]
fn cases() -> ProptestConfig {
    let wanted = std::env::var("PROPTEST_CASES").ok().and_then(|cases| cases.parse().ok());
    let cases = wanted.map_or(CASES_MIN, |wanted: u32| wanted.max(CASES_MIN));
    ProptestConfig { cases, ..ProptestConfig::default() }
}

proptest! {
    #![proptest_config(cases())]

    #[test]
    fn sqlite_and_postgresql_answer_the_same(steps in steps()) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let (sqlite, postgres) =
                (crate::sqlite::SqlitePlace::new(), crate::postgres_commands::PostgresPlace::new());
            agree(&steps, &sqlite, &postgres).await;
        });
    }
}
