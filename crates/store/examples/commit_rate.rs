//! Prints how many commands the store accepts, and how many whole lives it writes, per second.
//!
//! `cargo run --release -p utmos-store --example commit_rate [folder or postgres://…] [seconds] [v4|v7] [joined]`
//!
//! On PostgreSQL, in an empty database; with `joined` as a server that works with others and holds every gateway. The floor is then that of the folder for temporary files: name one on PostgreSQL's
//! own disk with TMPDIR.

#![expect(clippy::print_stdout, reason = "a program that prints its measurements")]
#![expect(clippy::disallowed_methods, reason = "a measurement needs the clock and fresh ids")]
#![expect(clippy::unwrap_used, reason = "a measurement that cannot be made may panic")]

use std::{
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

use utmos_core::{
    command::{Command, Life, Outcome, Phase, Response, Spec, Status, StatusVersion},
    evidence::{Entry, Proof},
    id::{ApiId, Bid, CommandId, DeviceSn, GatewaySn, TenantId},
    method::{Channel, CompleteOn, CompletesBy, IfOffline, Risk},
    ports::{Accepted, Advance, Advanced, CommandStore, NewCommand, ReplicaStore},
    replica::{InstanceId, Member, ReplicaId, Shard},
    signing::NonceUse,
    time::{BootId, Deadline, Mono, Timestamp},
};
use utmos_store::{
    MasterKey, PostgresConfig, PostgresStore, PostgresUrl, SqliteConfig, SqliteStore,
};
use uuid::Uuid;

#[tokio::main]
async fn main() {
    let mut args = std::env::args().skip(1);
    let temporary = tempfile::tempdir().unwrap();
    let place = args.next().unwrap_or_else(|| temporary.path().to_string_lossy().into_owned());
    let seconds: u64 = args.next().map_or(3, |text| text.parse().unwrap());
    let ordered = args.next().as_deref() != Some("v4");
    let is_joined = args.next().as_deref() == Some("joined");
    let place = match place.starts_with("postgres") {
        true => Place::Postgres { url: place, is_joined },
        false => Place::Folder(place.into()),
    };
    fsync_floor(match &place {
        Place::Folder(folder) => folder,
        Place::Postgres { .. } => temporary.path(),
    });
    for (steps, name) in [(0, "accept"), (3, "accept + 3 advances")] {
        for submitters in [1, 16, 64, 256] {
            measure(&place, Duration::from_secs(seconds), steps, name, submitters, ordered).await;
        }
    }
}

fn fsync_floor(folder: &std::path::Path) {
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

/// Where the store keeps its rows.
enum Place {
    Folder(PathBuf),
    Postgres { url: String, is_joined: bool },
}

async fn measure(
    place: &Place,
    time: Duration,
    steps: usize,
    name: &str,
    submitters: usize,
    ordered: bool,
) {
    let master_key = MasterKey::from_hex(&"07".repeat(32)).unwrap();
    let store: Arc<dyn CommandStore> = match place {
        Place::Folder(folder) => {
            let path = folder.join(format!("rate-{steps}-{submitters}.db"));
            Arc::new(SqliteStore::open(SqliteConfig { path, master_key }).unwrap())
        }
        Place::Postgres { url, is_joined } => {
            let config = PostgresConfig::new(PostgresUrl::parse(url).unwrap(), master_key);
            let store = PostgresStore::open(config).await.unwrap();
            if *is_joined {
                let (id, instance) = (ReplicaId(Uuid::new_v4()), InstanceId(Uuid::from_u128(1)));
                let name = "commit_rate".to_owned();
                let (alone, client_id, beats, fit) = (false, None, 0, true);
                let member = Member { id, instance, name, alone, client_id, beats, fit };
                store.join(member).await.unwrap();
                assert_eq!(store.take(id, Shard::all().collect()).await.unwrap().len(), 64);
            }
            Arc::new(store)
        }
    };
    let (start, cpu) = (Instant::now(), cpu_seconds());
    let tasks: Vec<_> = (0..submitters)
        .map(|number| {
            let store = store.clone();
            tokio::spawn(async move {
                let mut taken = Vec::new();
                while start.elapsed() < time {
                    let begin = Instant::now();
                    one_life(&*store, number, steps, ordered).await;
                    taken.push(begin.elapsed());
                }
                taken
            })
        })
        .collect();
    let mut taken = Vec::new();
    for task in tasks {
        taken.extend(task.await.unwrap());
    }
    let (elapsed, cpu) = (start.elapsed().as_secs_f64(), cpu_seconds() - cpu);
    taken.sort_unstable();
    let at = |share: f64| taken[((taken.len() - 1) as f64 * share) as usize].as_secs_f64() * 1000.0;
    println!(
        "{name}, {submitters} at once: {:.0}/s; p50 {:.2}, p99 {:.2}, max {:.1} ms; {:.0} µs of CPU each",
        taken.len() as f64 / elapsed,
        at(0.5),
        at(0.99),
        at(1.0),
        cpu * 1e6 / taken.len() as f64,
    );
}

/// User and system time of this process so far.
fn cpu_seconds() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
    (fields[11].parse::<f64>().unwrap() + fields[12].parse::<f64>().unwrap()) / 100.0
}

async fn one_life(store: &dyn CommandStore, number: usize, steps: usize, ordered: bool) {
    let command = command(number, ordered);
    let spec = command.spec.clone();
    let mut key = [0; 16];
    key.copy_from_slice(Uuid::new_v4().as_bytes());
    let nonce = NonceUse { key, expires_at: spec.accepted_at.plus(Duration::from_secs(600)) };
    let proof =
        Proof::Accepted { api_id: "ak_0123456789".to_owned(), request_id: spec.request_id.clone() };
    let entry = Entry { at: spec.accepted_at, from: Status::Accepted, to: Status::Accepted, proof };
    let life = command.life.clone();
    let new = NewCommand { spec: spec.clone(), life, entries: vec![entry] };
    assert_eq!(store.accept(Some(nonce), new).await.unwrap(), Accepted::New);
    let mut life = command.life;
    for step in 0..steps {
        let (seen, from) = (life.version, life.status());
        life.version = StatusVersion(seen.0 + 1);
        let proof = match step {
            0 => {
                life.phase = Phase::Sending;
                Proof::SendingClaimed { replica: "server-1".to_owned() }
            }
            1 => {
                life.phase = Phase::Delivered;
                life.delivered_at = Some(spec.accepted_at);
                let topic = format!("thing/product/{}/services", spec.gateway);
                Proof::BrokerConfirmed { topic, qos: 1, packet_id: Some(7), bytes: 420 }
            }
            _ => {
                life.phase = Phase::Ended(Outcome::Succeeded);
                life.due = None;
                let data: Arc<str> = r#"{"result":0,"output":{"status":"ok"}}"#.into();
                life.response = Some(Response {
                    code: Some("0".to_owned()),
                    message: None,
                    data: data.clone(),
                });
                Proof::Reply {
                    gateway: spec.gateway.to_string(),
                    method: Some(spec.method.clone()),
                    code: Some("0".to_owned()),
                    data: serde_json::from_str(&data).unwrap(),
                    late_response: false,
                    duplicate: false,
                    mismatch: None,
                }
            }
        };
        let entry = Entry { at: spec.accepted_at, from, to: life.status(), proof };
        let change = Advance { id: spec.id, seen, life: life.clone(), entries: vec![entry] };
        assert_eq!(store.advance(change).await.unwrap(), Advanced::Yes);
    }
}

fn command(number: usize, ordered: bool) -> Command {
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
    let life = Life::accepted(&spec);
    Command { spec: Arc::new(spec), life }
}
