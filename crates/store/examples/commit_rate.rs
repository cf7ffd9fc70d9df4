//! Prints how many commands the store accepts, and how many whole lives it writes, per second.
//!
//! `cargo run --release -p utmos-store --example commit_rate [folder or postgres://…] [seconds] [v4|v7] [joined]`
//!
//! On PostgreSQL, in an empty database; with `joined` as a server that works with others and holds every gateway. The floor is then that of the folder for temporary files: name one on PostgreSQL's
//! own disk with TMPDIR.

#![expect(clippy::print_stdout, reason = "a program that prints its measurements")]
#![expect(clippy::disallowed_methods, reason = "a measurement needs the clock and fresh ids")]
#![expect(clippy::unwrap_used, reason = "a measurement that cannot be made may panic")]

mod measured;

use std::{
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

use utmos_core::{
    command::{Outcome, Phase, Response, StatusVersion},
    evidence::{Entry, Proof},
    ports::{Accepted, Advance, Advanced, CommandStore, ReplicaStore},
    replica::{InstanceId, Member, ReplicaId, Shard},
};
use utmos_store::{
    MasterKey, PostgresConfig, PostgresStore, PostgresUrl, SqliteConfig, SqliteStore,
};
use uuid::Uuid;

use self::measured::{command, cpu_seconds, fsync_floor, new};

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
                let (alone, client_id, line, beats, fit) = (false, None, None, 0, true);
                let member = Member { id, instance, name, alone, client_id, line, beats, fit };
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

async fn one_life(store: &dyn CommandStore, number: usize, steps: usize, ordered: bool) {
    let command = command(number, ordered);
    let spec = command.spec.clone();
    let (nonce, new) = new(&command);
    assert_eq!(store.accept(Some(nonce), new).await.unwrap(), Accepted::New);
    let mut life = (*command.life).clone();
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
        let change = Advance {
            id: spec.id,
            seen,
            life: Arc::new(life.clone()),
            entries: Arc::from([entry]),
        };
        assert_eq!(store.advance(change).await.unwrap(), Advanced::Yes);
    }
}
