//! What the examples that measure have in common: the commands they store, and what they measure by.

use std::{
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use utmos_core::{
    command::{Command, Life, Spec, Status},
    evidence::{Entry, Proof},
    id::{ApiId, Bid, CommandId, DeviceSn, GatewaySn, TenantId},
    method::{Channel, CompleteOn, CompletesBy, IfOffline, Risk},
    ports::NewCommand,
    signing::NonceUse,
    time::{BootId, Deadline, Mono, Timestamp},
};
use uuid::Uuid;

/// Prints how long the disk takes to sync a write to this folder.
pub fn fsync_floor(folder: &Path) {
    use std::io::Write;
    let path = folder.join("floor");
    let mut file = std::fs::File::create(&path).unwrap();
    let start = Instant::now();
    for _ in 0..200 {
        file.write_all(&[7; 4096]).unwrap();
        file.sync_data().unwrap();
    }
    println!(
        "floor: one 4 KiB append with fdatasync takes {:.3} ms",
        start.elapsed().as_secs_f64() * 1000.0 / 200.0
    );
    std::fs::remove_file(path).unwrap();
}

/// User and system time of this process so far.
pub fn cpu_seconds() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
    (fields[11].parse::<f64>().unwrap() + fields[12].parse::<f64>().unwrap()) / 100.0
}

/// A command that comes now for the dock with this number; without `ordered`, under a key that is near no other.
pub fn command(number: usize, ordered: bool) -> Command {
    let id = Uuid::now_v7();
    let key = if ordered { Uuid::now_v7() } else { Uuid::new_v4() };
    let (seconds, nanos) = id.get_timestamp().unwrap().to_unix();
    let accepted_at =
        Timestamp::from_millis((seconds * 1000 + u64::from(nanos) / 1_000_000) as i64);
    let sn = format!("4TADL2100{number:05}");
    let spec = Spec {
        id: CommandId::new(id),
        tenant: TenantId::new(Uuid::from_u128(7)),
        accepted_for: ApiId::new("ak_0123456789"),
        request_id: Uuid::new_v4().to_string(),
        idempotency_key: key.to_string(),
        fingerprint: [7; 32],
        device: DeviceSn::parse(&sn).unwrap(),
        gateway: GatewaySn::parse(&sn).unwrap(),
        aircraft: None,
        method: "cover_open".to_owned(),
        channel: Channel::Services,
        completes_by: CompletesBy::Reply,
        risk: Risk::Ground,
        starts_motion: false,
        reply_without_status_is_final: false,
        if_offline: IfOffline::Wait,
        complete_on: CompleteOn::Outcome,
        bid: Bid::new(Uuid::new_v4()),
        job_ref: None,
        timeout: Duration::from_secs(30),
        silence_wait: Duration::from_secs(60),
        deadline: Deadline {
            boot: BootId([1; 16]),
            mono: Mono::from_millis(1_000_000),
            wall: accepted_at.plus(Duration::from_secs(30)),
        },
        accepted_at,
        payload: r#"{"flight_id":"0190a000-0000-7000-8000-000000000000","target_height":120.5,"max_speed":12}"#.into(),
    };
    let life = Arc::new(Life::accepted(&spec));
    Command { spec: Arc::new(spec), life }
}

/// Its acceptance, with a nonce of its own.
pub fn new(command: &Command) -> (NonceUse, NewCommand) {
    let spec = command.spec.clone();
    let proof =
        Proof::Accepted { api_id: "ak_0123456789".to_owned(), request_id: spec.request_id.clone() };
    let entry = Entry { at: spec.accepted_at, from: Status::Accepted, to: Status::Accepted, proof };
    let new = NewCommand { spec, life: command.life.clone(), entries: vec![entry] };
    (nonce(new.spec.accepted_at), new)
}

/// One that nobody has spent, of a request that is signed now.
pub fn nonce(now: Timestamp) -> NonceUse {
    let key = *Uuid::new_v4().as_bytes();
    NonceUse { key, expires_at: now.plus(Duration::from_secs(600)) }
}
