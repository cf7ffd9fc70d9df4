//! Prints what each operation of a store takes, on SQLite and on PostgreSQL, as a table for `docs/postgresql.md`.
//!
//! `cargo run --release -p utmos-store --example operation_costs [seconds of each]`
//!
//! It starts a PostgreSQL of its own; both engines keep their files in the folder for temporary ones, so that TMPDIR names the disk.
//! PostgreSQL's store is that of a server that works with others.

#![expect(clippy::print_stdout, reason = "a program that prints its measurements")]
#![expect(clippy::disallowed_methods, reason = "a measurement needs the clock and fresh ids")]
#![expect(clippy::unwrap_used, reason = "a measurement that cannot be made may panic")]

mod measured;
#[expect(dead_code, reason = "the store's tests use all of it")]
#[path = "../tests/it/postgres_server.rs"]
mod postgres_server;

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
    pin::Pin,
    sync::Arc,
    time::{Duration, Instant},
};

use utmos_core::{
    command::{Command, Phase, Spec, StatusVersion},
    device::{Device, DeviceKind, SubDevice},
    device_event::{DeviceEvent, EventKind},
    device_request::{Asked, AskedOn, DeviceRequest, Reply, ReplySource, RoutingDecision, Sending},
    evidence::{Entry, Proof},
    id::{CommandId, DeviceRequestId, DeviceSn, GatewaySn, TenantId},
    ports::{
        Accepted, Advance, Advanced, CommandFilter, DeviceTelemetry, EventBatch, History, Joined,
        NewCommand, Nonce, ReadNonce, ReplicaStore, RequestChanged, RequestKept, RequestStore,
        Store,
    },
    replica::{Handed, InstanceId, Member, ReplicaId, Shard},
    signing::{NonceUse, RequestTimes},
    telemetry::{Latest, Sample, Samples, Source},
    time::{Mono, Now, Timestamp},
};
use utmos_store::{
    HistoryFile, MasterKey, PostgresConfig, PostgresHistory, PostgresStore, PostgresUrl,
    SqliteConfig, SqliteStore,
};
use uuid::Uuid;

use self::{
    measured::{command, cpu_seconds, fsync_floor, new, nonce},
    postgres_server::PostgresServer,
};

/// Callers at once, where there are many.
const MANY: usize = 64;
/// Commands that there are before anything is measured.
const BEFORE: usize = 2_000;
/// Commands that one caller changes in turn.
const OWN: usize = 16;
/// Devices of a batch of telemetry, and events of one of events.
const BATCH: usize = 64;
const PAGE: usize = 50;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Operation {
    Accept,
    AcceptElsewhere,
    Claim,
    Advance,
    Nonce,
    NonceToRead,
    Command,
    Timeline,
    OfTenant,
    OfDevice,
    KeepRequest,
    ChangeRequest,
    Topology,
    Beat,
    Handed,
    KeepTelemetry,
    Latest,
    KeepEvents,
}

impl Operation {
    const ALL: [(Self, &str); 18] = [
        (Self::Accept, "accept"),
        (Self::AcceptElsewhere, "accept for another server's gateway, which takes it in"),
        (Self::Claim, "advance that claims"),
        (Self::Advance, "advance"),
        (Self::Nonce, "nonce alone"),
        (Self::NonceToRead, "nonce of a request that reads"),
        (Self::Command, "command"),
        (Self::Timeline, "timeline"),
        (Self::OfTenant, "page of 50 commands of a tenant"),
        (Self::OfDevice, "page of 50 commands of a device"),
        (Self::KeepRequest, "request of a device with its answer"),
        (Self::ChangeRequest, "answer to a request that waits"),
        (Self::Topology, "registry: topology of a gateway"),
        (Self::Beat, "sign of life"),
        (Self::Handed, "look at what was handed on, where there is nothing"),
        (Self::KeepTelemetry, "telemetry of 64 devices, 8 samples each"),
        (Self::Latest, "latest of a device"),
        (Self::KeepEvents, "64 device events"),
    ];

    fn is_of_several(self) -> bool {
        matches!(self, Self::AcceptElsewhere | Self::Beat | Self::Handed)
    }

    /// A server does one after another.
    fn is_done_by_one(self) -> bool {
        matches!(self, Self::Beat | Self::Handed | Self::KeepTelemetry | Self::KeepEvents)
    }
}

#[tokio::main]
async fn main() {
    let seconds: u64 = std::env::args().nth(1).map_or(3, |text| text.parse().unwrap());
    let time = Duration::from_secs(seconds);
    let folder = tempfile::tempdir().unwrap();
    fsync_floor(folder.path());
    let sqlite = {
        let bench = Bench::sqlite(folder.path()).await;
        measure_all(&bench, time).await
    };
    let server = PostgresServer::own();
    let postgres = {
        let bench = Bench::postgres(&server).await;
        measure_all(&bench, time).await
    };
    print(&sqlite, &postgres);
}

/// Both stores of one engine, and what is in them.
struct Bench {
    store: Arc<dyn Whole>,
    history: Arc<dyn History>,
    /// On PostgreSQL: the store as a member, and its server.
    shared: Option<(Arc<PostgresStore>, Postmaster)>,
    known: Vec<Command>,
}

trait Whole: Store + RequestStore {}
impl<T: Store + RequestStore> Whole for T {}

fn key() -> MasterKey {
    MasterKey::from_hex(&"07".repeat(32)).unwrap()
}

impl Bench {
    async fn sqlite(folder: &Path) -> Self {
        let config = SqliteConfig { path: folder.join("utmos.sqlite"), master_key: key() };
        let store = Arc::new(SqliteStore::open(config).unwrap());
        let history = Arc::new(HistoryFile::open(&folder.join("history.sqlite")).unwrap());
        Self { known: fill(&*store).await, store, history, shared: None }
    }

    async fn postgres(server: &PostgresServer) -> Self {
        let url = PostgresUrl::parse(&server.database().url()).unwrap();
        let config = PostgresConfig::new(url, key());
        let store = Arc::new(PostgresStore::open(config.clone()).await.unwrap());
        let others = Shard::of(&elsewhere());
        let own = Shard::all().filter(|shard| *shard != others).collect();
        join(&store, 1, own).await;
        let other = PostgresStore::open(config.clone()).await.unwrap();
        join(&other, 2, vec![others]).await;
        tokio::spawn(take_in(other));
        let history = Arc::new(PostgresHistory::open(&config).await.unwrap());
        let shared = Some((store.clone(), Postmaster::of(server)));
        Self { known: fill(&*store).await, store, history, shared }
    }
}

fn run(number: u128) -> ReplicaId {
    ReplicaId(Uuid::from_u128(number))
}

async fn join(store: &PostgresStore, number: u128, shards: Vec<Shard>) {
    let (id, instance) = (run(number), InstanceId(Uuid::from_u128(number)));
    let (name, client_id, line, alone) = (format!("server-{number}"), None, None, false);
    let member = Member { id, instance, name, alone, client_id, line, beats: 0, fit: true };
    assert!(matches!(store.join(member).await.unwrap(), Joined::Yes(_)));
    assert_eq!(store.take(id, shards.clone()).await.unwrap(), shards);
}

/// What the other server does with what is handed to it, as often as servers look.
async fn take_in(other: PostgresStore) {
    // Until PostgreSQL is gone.
    while let Ok(handed) = other.handed_commands(run(2)).await {
        let handed: Vec<Handed> = handed.into_iter().map(|one| one.0).collect();
        if !handed.is_empty() {
            other.taken_in(run(2), handed).await.unwrap();
        }
        tokio::time::sleep(Duration::from_millis(250)).await;
    }
}

/// The gateway of the other server.
fn elsewhere() -> GatewaySn {
    GatewaySn::parse("4TADL21ELSEWHERE").unwrap()
}

/// Commands of docks whose gateways are this server's.
fn own(number: usize) -> Command {
    let others = Shard::of(&elsewhere());
    let mut numbers = (0..).map(|more| command(number + more * 1_000, true));
    numbers.find(|command| Shard::of(&command.spec.gateway) != others).unwrap()
}

async fn fill<S: Store + ?Sized>(store: &S) -> Vec<Command> {
    let known: Vec<Command> = (0..BEFORE).map(|number| own(number % MANY)).collect();
    for command in &known {
        let (nonce, new) = new(command);
        assert_eq!(store.accept(Some(nonce), new).await.unwrap(), Accepted::New);
    }
    known
}

/// What one caller does again and again.
type Turn = Box<dyn FnMut() -> Pin<Box<dyn Future<Output = ()> + Send>> + Send>;

fn turn<F: Future<Output = ()> + Send + 'static>(
    mut work: impl FnMut() -> F + Send + 'static,
) -> Turn {
    Box::new(move || Box::pin(work()))
}

fn now() -> Timestamp {
    own(0).spec.accepted_at
}

async fn caller(bench: &Bench, operation: Operation, number: usize) -> Turn {
    let (store, history) = (bench.store.clone(), bench.history.clone());
    let known = bench.known.clone();
    let mut next = number;
    let mut known_next = move || {
        next += MANY + 1;
        known[next % known.len()].spec.clone()
    };
    let shared = || bench.shared.as_ref().unwrap().0.clone();
    match operation {
        Operation::Accept => turn(move || accept(store.clone(), new(&own(number)), Accepted::New)),
        Operation::AcceptElsewhere => turn(move || {
            let command = own(number);
            let spec = Spec { gateway: elsewhere(), ..(*command.spec).clone() };
            let command = Command { spec: Arc::new(spec), life: command.life };
            accept(store.clone(), new(&command), Accepted::Elsewhere)
        }),
        Operation::Claim | Operation::Advance => {
            let mut own: Vec<Command> = (0..OWN).map(|_| own(number)).collect();
            for command in &own {
                accept(store.clone(), new(command), Accepted::New).await;
            }
            let mut place = 0;
            turn(move || {
                place = (place + 1) % own.len();
                let change = change(&mut own[place], operation == Operation::Claim);
                let store = store.clone();
                async move { assert_eq!(store.advance(change).await.unwrap(), Advanced::Yes) }
            })
        }
        Operation::Nonce => turn(move || {
            let (store, nonce) = (store.clone(), nonce(now()));
            async move { assert_eq!(store.spend_nonce(nonce).await.unwrap(), Nonce::Spent) }
        }),
        Operation::NonceToRead => turn(move || {
            let (store, now) = (store.clone(), now());
            let (nonce, times) = (nonce(now), RequestTimes { signed_at: now, came_at: now });
            async move {
                let spent = store.spend_nonce_to_read(nonce, times).await.unwrap();
                assert_eq!(spent, ReadNonce::Spent);
            }
        }),
        Operation::Command => turn(move || {
            let (store, spec) = (store.clone(), known_next());
            async move { assert!(store.command(spec.id).await.unwrap().is_some()) }
        }),
        Operation::Timeline => turn(move || {
            let (store, spec) = (store.clone(), known_next());
            async move { assert!(!store.timeline(spec.id).await.unwrap().is_empty()) }
        }),
        Operation::OfTenant | Operation::OfDevice => turn(move || {
            let (store, spec) = (store.clone(), known_next());
            let device = (operation == Operation::OfDevice).then(|| spec.device.clone());
            let filter = CommandFilter { device, ..CommandFilter::default() };
            async move {
                let page = store.commands_of(spec.tenant, filter, None, PAGE).await.unwrap();
                assert!(!page.is_empty());
            }
        }),
        Operation::KeepRequest => turn(move || {
            let request = Arc::new(DeviceRequest::answered(Arc::new(asked(number)), reply()));
            keep(store.clone(), request)
        }),
        Operation::ChangeRequest => {
            let waits = DeviceRequest::new(Arc::new(asked(number)), RoutingDecision::AwaitingReply);
            let mut request = waits;
            keep(store.clone(), Arc::new(request.clone())).await;
            turn(move || {
                let (store, seen) = (store.clone(), request.version);
                request.state = RoutingDecision::Replied;
                (request.reply, request.sending) = (Some(reply()), Sending::Sent);
                request.version = StatusVersion(seen.0 + 1);
                let request = Arc::new(request.clone());
                async move {
                    let changed = store.change_request(seen, request).await.unwrap();
                    assert_eq!(changed, RequestChanged::Yes);
                }
            })
        }
        Operation::Topology => {
            let mut is_first = false;
            turn(move || {
                // Otherwise than before, or nothing is written.
                is_first = !is_first;
                let (store, gateway) = (store.clone(), own(number).spec.gateway.clone());
                let sub = SubDevice {
                    sn: DeviceSn::parse(format!("1581F{number}").as_str()).unwrap(),
                    model_key: Some("0-91-0".to_owned()),
                    index: Some(if is_first { "A" } else { "B" }.to_owned()),
                };
                let device = aircraft(&sub.sn);
                async move { store.put_topology(&gateway, vec![device], vec![sub]).await.unwrap() }
            })
        }
        Operation::Beat => {
            let shared = shared();
            turn(move || {
                let shared = shared.clone();
                async move { assert!(shared.beat(run(1), true).await.unwrap().is_some()) }
            })
        }
        Operation::Handed => {
            let shared = shared();
            turn(move || {
                let shared = shared.clone();
                async move { assert!(shared.handed_commands(run(1)).await.unwrap().is_empty()) }
            })
        }
        Operation::KeepTelemetry => turn(move || {
            let (history, told) = (history.clone(), (0..BATCH).map(told).collect());
            async move { history.keep_telemetry(told).await.unwrap() }
        }),
        Operation::Latest => turn(move || {
            let (history, told) = (history.clone(), told(number));
            async move {
                let found = history.latest_telemetry(vec![(told.tenant, told.device)]).await;
                assert_eq!(found.unwrap().len(), 1);
            }
        }),
        Operation::KeepEvents => turn(move || {
            let (history, events) = (history.clone(), (0..BATCH).map(event).collect());
            let batch = EventBatch { events, alarms: Vec::new(), per_device_max: 10_000 };
            async move { assert_eq!(history.keep_events(batch).await.unwrap(), BATCH) }
        }),
    }
}

async fn accept(store: Arc<dyn Whole>, (nonce, new): (NonceUse, NewCommand), answer: Accepted) {
    assert_eq!(store.accept(Some(nonce), new).await.unwrap(), answer);
}

/// The next change of a command, which goes to and fro.
fn change(command: &mut Command, is_claim: bool) -> Advance {
    let (seen, from) = (command.life.version, command.life.status());
    let life = Arc::make_mut(&mut command.life);
    life.version = StatusVersion(seen.0 + 1);
    let spec = &command.spec;
    let proof = match is_claim {
        true => {
            life.phase = Phase::Sending;
            Proof::SendingClaimed { replica: "server-1".to_owned() }
        }
        false => {
            life.phase = Phase::Delivered;
            life.delivered_at = Some(spec.accepted_at);
            let topic = format!("thing/product/{}/services", spec.gateway);
            Proof::BrokerConfirmed { topic, qos: 1, packet_id: Some(7), bytes: 420 }
        }
    };
    let entry = Entry { at: spec.accepted_at, from, to: life.status(), proof };
    Advance { id: spec.id, seen, life: command.life.clone(), entries: Arc::from([entry]) }
}

fn tenant() -> TenantId {
    own(0).spec.tenant
}

fn asked(number: usize) -> Asked {
    let Command { spec, .. } = own(number);
    let id = Uuid::now_v7();
    Asked {
        id: DeviceRequestId::new(id),
        tenant: spec.tenant,
        device: spec.device.clone(),
        gateway: spec.gateway.clone(),
        request_type: Some("config".to_owned()),
        tid: Some(id.to_string()),
        bid: Some(id.to_string()),
        asked_on: AskedOn::Requests,
        repeat_key: Some(*id.as_bytes()),
        payload: r#"{"config_scope":"product","config_type":"json"}"#.into(),
        payload_is_cut: false,
        received_at: spec.accepted_at,
        deadline: spec.deadline,
        reply_wait: Duration::from_secs(30),
        automatic_after: Some(Duration::from_secs(3)),
    }
}

fn reply() -> Reply {
    Reply {
        code: "0".to_owned(),
        message: None,
        source: ReplySource::Auto,
        by: None,
        data: r#"{"ntp_server_host":"ntp.example.org","ntp_server_port":123}"#.into(),
        at: now(),
    }
}

async fn keep(store: Arc<dyn Whole>, request: Arc<DeviceRequest>) {
    assert_eq!(store.keep_request(request).await.unwrap(), RequestKept::New);
}

fn aircraft(sn: &DeviceSn) -> Device {
    Device {
        sn: sn.clone(),
        tenant: tenant(),
        kind: DeviceKind::Aircraft,
        model_key: Some("0-91-0".to_owned()),
        label: String::new(),
        tags: BTreeSet::new(),
        simulated: false,
        mqtt_secret_hash: None,
        created_at: now(),
    }
}

const TOLD: &str = r#"{"mode_code":0,"latitude":47.376887,"longitude":8.541694,"height":408.5,"environment_temperature":21.4,"humidity":48,"wind_speed":1.2,"rainfall":0,"cover_state":0,"putter_state":0,"supplement_light_state":0,"network_state":{"type":2,"quality":4,"rate":512.5},"storage":{"total":30000000,"used":1200000},"first_power_on":1700000000000}"#;

fn told(number: usize) -> DeviceTelemetry {
    let (wall, spec) = (now(), own(number).spec);
    let sample = |number: u64| Sample {
        at: wall.plus(Duration::from_millis(number * 500)),
        source: Source::Osd,
        values: TOLD.into(),
    };
    let mut latest = Latest::default();
    latest.merge(TOLD, Source::Osd, Now { wall, mono: Mono::from_millis(1) }).unwrap();
    DeviceTelemetry {
        tenant: spec.tenant,
        device: spec.device.clone(),
        kind: DeviceKind::Dock,
        samples: Samples::pieces((0..8).map(sample).collect::<Vec<_>>()),
        latest: Some(latest),
    }
}

fn event(number: usize) -> DeviceEvent {
    let (spec, id) = (own(number).spec, Uuid::now_v7());
    DeviceEvent {
        id,
        tenant: spec.tenant,
        device: spec.device.clone(),
        gateway: spec.gateway.clone(),
        kind: EventKind::Event,
        method: Some("flighttask_progress".to_owned()),
        tid: Some(id.to_string()),
        data: r#"{"output":{"progress":{"current_step":19,"percent":42},"status":"in_progress"}}"#
            .into(),
        is_cut: false,
        received_at: spec.accepted_at,
        device_time: Some(spec.accepted_at),
        need_reply: true,
        command: Some(CommandId::new(id)),
    }
}

/// What came of an operation with so many callers.
struct Figure {
    p50: f64,
    p99: f64,
    /// Microseconds of a processor for each call: of this program, and of PostgreSQL.
    own: f64,
    database: Option<f64>,
}

type Figures = BTreeMap<&'static str, (Figure, Option<Figure>)>;

async fn measure_all(bench: &Bench, time: Duration) -> Figures {
    let mut figures = Figures::new();
    for (operation, name) in Operation::ALL {
        if operation.is_of_several() && bench.shared.is_none() {
            continue;
        }
        let alone = measure(bench, operation, 1, time).await;
        let many = match operation.is_done_by_one() {
            true => None,
            false => Some(measure(bench, operation, MANY, time).await),
        };
        figures.insert(name, (alone, many));
    }
    figures
}

async fn measure(bench: &Bench, operation: Operation, callers: usize, time: Duration) -> Figure {
    let mut turns = Vec::new();
    for number in 0..callers {
        turns.push(caller(bench, operation, number).await);
    }
    let database = || bench.shared.as_ref().map(|shared| shared.1.cpu_seconds());
    let (own_before, before) = (cpu_seconds(), database());
    let start = Instant::now();
    let tasks = turns.into_iter().map(|mut turn| {
        tokio::spawn(async move {
            let mut taken = Vec::new();
            while taken.is_empty() || start.elapsed() < time {
                let call = turn();
                let begin = Instant::now();
                call.await;
                taken.push(begin.elapsed().as_secs_f64() * 1e3);
            }
            taken
        })
    });
    let mut taken = Vec::new();
    for task in tasks.collect::<Vec<_>>() {
        taken.extend(task.await.unwrap());
    }
    let each = |seconds: f64| seconds * 1e6 / taken.len() as f64;
    let own = each(cpu_seconds() - own_before);
    let database = database().zip(before).map(|(after, before)| each(after - before));
    taken.sort_unstable_by(f64::total_cmp);
    let at = |share: f64| taken[((taken.len() - 1) as f64 * share) as usize];
    Figure { p50: at(0.5), p99: at(0.99), own, database }
}

/// The first process of a PostgreSQL, whose children are all others.
struct Postmaster(u32);

impl Postmaster {
    fn of(server: &PostgresServer) -> Self {
        let text = fs::read_to_string(server.folder().join("data/postmaster.pid")).unwrap();
        Self(text.lines().next().unwrap().trim().parse().unwrap())
    }

    /// Of those of its processes that live.
    fn cpu_seconds(&self) -> f64 {
        let of = |process: &Path| -> Option<f64> {
            let stat = fs::read_to_string(process.join("stat")).ok()?;
            let parent: u32 = stat.rsplit(')').next()?.split_whitespace().nth(1)?.parse().ok()?;
            let ran = fs::read_to_string(process.join("schedstat")).ok()?;
            let nanos: f64 = ran.split_whitespace().next()?.parse().ok()?;
            (parent == self.0).then_some(nanos / 1e9)
        };
        let processes = fs::read_dir("/proc").unwrap().filter_map(Result::ok);
        processes.filter_map(|process| of(&process.path())).sum()
    }
}

fn print(sqlite: &Figures, postgres: &Figures) {
    let times = |figure: Option<&Figure>| {
        figure.map_or("–".to_owned(), |it| format!("{}, {}", short(it.p50), short(it.p99)))
    };
    let whole = |number: Option<f64>| number.map_or("–".to_owned(), |it| format!("{it:.0}"));
    println!(
        "| Operation | SQLite, 1 caller | {MANY} callers | CPU | PostgreSQL, 1 caller | {MANY} callers | CPU | the database's |"
    );
    println!("|---|---|---|---|---|---|---|---|");
    for (_, name) in Operation::ALL {
        let cells = |figures: &Figures| {
            let Some((alone, many)) = figures.get(name) else {
                return ["–", "–", "–", "–"].map(str::to_owned);
            };
            let busy = many.as_ref().unwrap_or(alone);
            let (own, database) = (whole(Some(busy.own)), whole(busy.database));
            [times(Some(alone)), times(many.as_ref()), own, database]
        };
        let [alone, many, own, _] = cells(sqlite);
        let [postgres_alone, postgres_many, postgres_own, database] = cells(postgres);
        println!(
            "| {name} | {alone} | {many} | {own} | {postgres_alone} | {postgres_many} | {postgres_own} | {database} |"
        );
    }
}

/// With as many digits as mean something.
fn short(millis: f64) -> String {
    match millis {
        ..1.0 => format!("{millis:.2}"),
        ..100.0 => format!("{millis:.1}"),
        _ => format!("{millis:.0}"),
    }
}
