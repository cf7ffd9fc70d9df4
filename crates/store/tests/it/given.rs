//! What the tests start from.

use std::{sync::Arc, time::Duration};

use utmos_core::{
    command::{Command, Life, Outcome, Phase, Spec, Status, StatusVersion},
    device::{Device, DeviceKind},
    evidence::{Entry, Proof},
    id::{ApiId, Bid, CommandId, DeviceSn, GatewaySn, TenantId},
    method::{Channel, CompleteOn, CompletesBy, IfOffline, Risk},
    ports::{
        Accepted, Advance, Advanced, By, DeviceOrder, FleetStore, NewCommand, Ordered, Store,
        Unmatched,
    },
    signing::NonceUse,
    time::{BootId, Deadline, Mono, Timestamp},
};
use uuid::Uuid;

/// When the tests take place: a time long after the epoch, so that ids can be before it.
pub const START: i64 = 1_790_000_000_000;

pub fn at(millis: i64) -> Timestamp {
    Timestamp::from_millis(START + millis)
}

/// The `number`th id made at START + `millis`.
pub fn id(millis: i64, number: u64) -> Uuid {
    let time = u128::try_from(START + millis).unwrap();
    Uuid::from_u128((time << 80) | (0x7 << 76) | (0b10 << 62) | u128::from(number))
}

pub fn tenant(number: u128) -> TenantId {
    TenantId::new(Uuid::from_u128(number))
}

pub fn sn(text: &str) -> DeviceSn {
    DeviceSn::parse(text).unwrap()
}

pub fn gateway(text: &str) -> GatewaySn {
    GatewaySn::parse(text).unwrap()
}

pub fn nonce(number: u128, expires: i64) -> NonceUse {
    NonceUse { key: number.to_be_bytes(), expires_at: at(expires) }
}

/// A command of tenant 1 for dock `D1`, accepted at START + `millis`.
pub fn spec(millis: i64, key: &str) -> Spec {
    let hash = |sum: u64, byte| sum.wrapping_mul(31).wrapping_add(u64::from(byte));
    let number = key.bytes().fold(7, hash) & (u64::MAX >> 4);
    Spec {
        id: CommandId::new(id(millis, number)),
        tenant: tenant(1),
        accepted_for: ApiId::new("ak_1"),
        request_id: "req-1".to_owned(),
        idempotency_key: key.to_owned(),
        fingerprint: [1; 32],
        device: sn("D1"),
        gateway: gateway("D1"),
        aircraft: None,
        method: "cover_open".to_owned(),
        channel: Channel::Services,
        completes_by: CompletesBy::Job,
        risk: Risk::Ground,
        starts_motion: false,
        reply_without_status_is_final: true,
        if_offline: IfOffline::Wait,
        complete_on: CompleteOn::Outcome,
        bid: Bid::new(Uuid::from_u128(5)),
        job_ref: None,
        timeout: Duration::from_secs(30),
        silence_wait: Duration::from_secs(60),
        deadline: deadline(millis + 30_000),
        accepted_at: at(millis),
        payload: r#"{"a":1}"#.into(),
    }
}

pub fn takeoff(millis: i64, key: &str) -> Spec {
    let method = "takeoff_to_point".to_owned();
    Spec { method, risk: Risk::Motion, starts_motion: true, ..spec(millis, key) }
}

pub fn deadline(millis: i64) -> Deadline {
    let mono = Mono::from_millis(millis.unsigned_abs());
    Deadline { boot: BootId([3; 16]), mono, wall: at(millis) }
}

pub fn new(spec: Spec) -> NewCommand {
    let life = Arc::new(Life::accepted(&spec));
    let proof = Proof::Accepted {
        api_id: spec.accepted_for.to_string(),
        request_id: spec.request_id.clone(),
    };
    let entry = Entry { at: spec.accepted_at, from: Status::Accepted, to: Status::Accepted, proof };
    NewCommand { spec: Arc::new(spec), life, entries: vec![entry] }
}

pub fn of_aircraft(spec: Spec, aircraft: &str) -> NewCommand {
    new(Spec { aircraft: Some(sn(aircraft)), ..spec })
}

/// Stores a command that must be new.
pub async fn accepted(store: &Arc<dyn Store>, spec: Spec) -> Command {
    let new = new(spec);
    let command = Command { spec: new.spec.clone(), life: new.life.clone() };
    assert_eq!(store.accept(None, new).await.unwrap(), Accepted::New);
    command
}

/// The life after `life`, in another phase.
pub fn moved(life: &Life, phase: Phase, millis: i64) -> Arc<Life> {
    let ended = phase.has_ended();
    Arc::new(Life {
        phase,
        version: life.version.next(),
        updated_at: at(millis),
        completed_at: ended.then(|| at(millis)),
        due: life.due.filter(|_| !ended),
        holds_motion: life.holds_motion && !ended,
        ..life.clone()
    })
}

pub fn evidence(status: Status, text: &str, millis: i64) -> Entry {
    Entry {
        at: at(millis),
        from: status,
        to: status,
        proof: Proof::NotSent { reason: text.to_owned() },
    }
}

pub fn transition(from: &Life, to: &Life) -> Entry {
    let proof = Proof::Timer { limit: "a limit".to_owned() };
    Entry { at: to.updated_at, from: from.status(), to: to.status(), proof }
}

/// The change from one life to the next, with its line.
pub fn change(command: &Command, to: impl Into<Arc<Life>>) -> Advance {
    let life = to.into();
    let entries = Arc::from([transition(&command.life, &life)]);
    Advance { id: command.spec.id, seen: command.life.version, life, entries }
}

/// Ends a command that nobody else moves.
pub async fn end(
    store: &Arc<dyn Store>,
    command: &Command,
    outcome: Outcome,
    millis: i64,
) -> Command {
    let life = moved(&command.life, Phase::Ended(outcome), millis);
    let advanced = store.advance(change(command, life.clone())).await.unwrap();
    assert_eq!(advanced, Advanced::Yes);
    Command { spec: command.spec.clone(), life }
}

/// Evidence only: the life stays as it was seen.
pub fn record(command: &Command, seen: StatusVersion, entries: Vec<Entry>) -> Advance {
    let life = Arc::new(Life { version: seen, ..(*command.life).clone() });
    Advance { id: command.spec.id, seen, life, entries: entries.into() }
}

pub fn unmatched(number: u64, tenant: Option<TenantId>) -> Unmatched {
    Unmatched {
        id: id(i64::try_from(number).unwrap(), 1),
        tenant,
        gateway: Some(gateway("D1")),
        topic: "thing/product/D1/services_reply".to_owned(),
        tid: Some("t".to_owned()),
        method: None,
        reason: "no command has this tid".to_owned(),
        raw: format!("{{\"n\":{number}}}"),
        received_at: at(i64::try_from(number).unwrap()),
    }
}

/// Registers a device that is not there yet.
pub async fn register(store: &dyn FleetStore, device: Device) {
    let by = By { who: "test".to_owned(), at: at(0) };
    let ordered = store.order(DeviceOrder::Register(device.clone()), by).await.unwrap();
    assert_eq!(ordered, Ordered::Done(device));
}

pub fn device(text: &str, tenant: TenantId) -> Device {
    Device {
        sn: sn(text),
        tenant,
        kind: DeviceKind::Dock,
        model_key: Some("3-1-0".to_owned()),
        label: "roof".to_owned(),
        tags: std::collections::BTreeSet::new(),
        simulated: false,
        mqtt_secret_hash: Some([9; 32]),
        created_at: at(0),
    }
}
