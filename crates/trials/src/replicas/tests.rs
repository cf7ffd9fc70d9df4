//! The store of the trials and PostgreSQL are told the same by the same servers, and must answer the same, step by step: what
//! trials of several servers find is worth as much as that.
//!
//! No port of it looks at a clock: a server is silent because others say at which sign of life it was. So no time passes here.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

#[expect(dead_code, reason = "what the store's tests start from")]
#[path = "../../../store/tests/it/given.rs"]
mod given;
#[expect(dead_code, reason = "the store's tests use all of it")]
#[path = "../../../store/tests/it/postgres_server.rs"]
mod postgres_server;

use std::{
    cell::Cell,
    collections::BTreeMap,
    fmt::Debug,
    panic,
    sync::{
        Arc, LazyLock,
        atomic::{AtomicUsize, Ordering},
    },
};

use proptest::{collection::vec, option, prelude::*, strategy::ValueTree, test_runner::TestRunner};
use tokio::runtime::{Builder, Runtime};
use utmos_core::{
    command::{Command, FailureCode, Outcome, Phase, Spec},
    evidence::{Entry, Proof},
    id::{CommandId, GatewaySn},
    method::Risk,
    ports::{Accepted, Advance, CommandStore, Joined, NewCommand, ReplicaStore, StoreError},
    replica::{Handed, InstanceId, Member, ReplicaId, Roll, Shard},
    signing::NonceUse,
};
use utmos_dji::catalogue::Catalogue;
use utmos_store::{PostgresConfig, PostgresStore, PostgresUrl};
use uuid::Uuid;

use self::{
    given::{at, change, evidence, gateway, moved, new, nonce, record, sn, spec, tenant},
    postgres_server::{Database, PostgresServer},
};
use crate::{
    journal::key,
    mutation::Mutation,
    plan::{Broker, Plan, Tidings},
    store::TrialStore,
    world::World,
};

/// Servers that there may be.
const SERVERS: u8 = 3;
/// Shards with gateways.
const SHARDS: u8 = 3;
/// More than any sequence makes.
const ALL: usize = 1_000;

/// What a server does. Small numbers stand for things of which there are few, so that steps meet.
#[derive(Debug, Clone)]
struct Step {
    server: u8,
    /// By the run of it before the last, which does not know that there is another.
    by_the_one_before: bool,
    what: What,
}

#[derive(Debug, Clone)]
enum What {
    /// Its next run takes its place.
    Restart,
    Join {
        alone: bool,
        client_id: Option<u8>,
        beats: u64,
    },
    Beat {
        fit: bool,
    },
    Expel {
        whom: u8,
        is_stale: bool,
    },
    Take(Vec<u8>),
    Release(Vec<u8>),
    Leave,
    Accept(Wanted),
    Advance {
        of: usize,
        how: How,
        is_stale: bool,
    },
    /// Of what is handed to it, those at these places; and one that need not be.
    TakeIn {
        places: Vec<bool>,
        stray: Option<usize>,
    },
    HandOver(Vec<usize>),
    Hand(usize),
    Spend(u8),
    InOrder(Vec<usize>),
}

#[derive(Debug, Clone, Copy)]
enum How {
    Claim,
    Deliver,
    Succeed,
    FliesOn,
    Cancel,
    Evidence,
}

#[derive(Debug, Clone)]
struct Wanted {
    tenant: u8,
    key: u8,
    body: u8,
    shard: u8,
    gateway: u8,
    aircraft: Option<u8>,
    risk: Risk,
    moves: bool,
    is_claimed: bool,
    nonce: Option<u8>,
    /// How far the clock of its server is behind.
    behind: u8,
}

prop_compose! {
    fn wanted()(
        tenant in prop_oneof![9 => Just(0_u8), 1 => Just(1)], key in 0_u8..40, body in prop_oneof![9 => Just(0_u8), 1 => Just(1)],
        shard in 0..SHARDS, gateway in 0_u8..2, aircraft in option::of(0_u8..3),
        risk in proptest::sample::select(vec![Risk::Ground, Risk::Motion, Risk::Emergency]),
        moves in any::<bool>(), is_claimed in any::<bool>(), nonce in option::weighted(0.3, 0_u8..20), behind in 0_u8..9,
    ) -> Wanted {
        Wanted { tenant, key, body, shard, gateway, aircraft, risk, moves: moves && risk == Risk::Motion, is_claimed, nonce, behind }
    }
}

fn how() -> impl Strategy<Value = How> {
    use How::{Cancel, Claim, Deliver, Evidence, FliesOn, Succeed};
    prop_oneof![
        5 => Just(Claim),
        5 => proptest::sample::select(vec![Deliver, Succeed, FliesOn, Cancel, Evidence]),
    ]
}

fn shards() -> impl Strategy<Value = Vec<u8>> {
    vec(0..SHARDS, 0..5)
}

fn what() -> impl Strategy<Value = What> {
    let seldom = || proptest::bool::weighted(0.15);
    let join = (proptest::bool::weighted(0.05), option::weighted(0.2, 0_u8..2), 0_u64..4);
    prop_oneof![
        2 => Just(What::Restart),
        6 => join.prop_map(|(alone, client_id, beats)| What::Join { alone, client_id, beats }),
        2 => any::<bool>().prop_map(|fit| What::Beat { fit }),
        2 => (0..SERVERS, seldom()).prop_map(|(whom, is_stale)| What::Expel { whom, is_stale }),
        8 => shards().prop_map(What::Take),
        3 => shards().prop_map(What::Release),
        1 => Just(What::Leave),
        14 => wanted().prop_map(What::Accept),
        10 => (any::<usize>(), how(), seldom()).prop_map(|(of, how, is_stale)| What::Advance { of, how, is_stale }),
        6 => (vec(any::<bool>(), 1..6), option::weighted(0.2, any::<usize>()))
            .prop_map(|(places, stray)| What::TakeIn { places, stray }),
        2 => vec(any::<usize>(), 0..3).prop_map(What::HandOver),
        1 => any::<usize>().prop_map(What::Hand),
        1 => (0_u8..20).prop_map(What::Spend),
        2 => vec(any::<usize>(), 0..4).prop_map(What::InOrder),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    (0..SERVERS, proptest::bool::weighted(0.1), what())
        .prop_map(|(server, by_the_one_before, what)| Step { server, by_the_one_before, what })
}

/// Most begin with servers that are there and hold something.
fn steps() -> impl Strategy<Value = Vec<Step>> {
    let begin = (0..=SERVERS).prop_map(|servers| {
        let steps = (0..servers)
            .flat_map(|server| [join(None), What::Take(vec![server])].map(|what| by(server, what)));
        steps.collect::<Vec<_>>()
    });
    (begin, vec(step(), 1..60)).prop_map(|(begin, steps)| [begin, steps].concat())
}

/// What comes of a step, for both.
#[derive(Debug, Clone)]
enum Ask {
    Join(Member),
    Beat(ReplicaId, bool),
    Expel(ReplicaId, u64),
    Take(ReplicaId, Vec<Shard>),
    Release(ReplicaId, Vec<Shard>),
    Leave(ReplicaId),
    Accept(Option<NonceUse>, NewCommand),
    Advance(Advance),
    TakenIn(ReplicaId, Vec<Handed>),
    HandOver(Vec<(CommandId, Shard)>),
    Hand(CommandId, Shard),
    Spend(NonceUse),
    InOrder(Vec<CommandId>),
}

/// Of both stores, what servers that share one ask.
trait Shared: CommandStore + ReplicaStore {}

impl Shared for TrialStore {}
impl Shared for PostgresStore {}

/// What a store answered, to be compared. What is no value is only said to be none.
fn said<T: Debug>(answer: Result<T, StoreError>) -> String {
    answer.map_or_else(|_| "no".to_owned(), |value| format!("{value:?}"))
}

/// Whether a store says what its clock shows, and what, is its own affair.
fn timeless(roll: Roll) -> Roll {
    Roll { at: None, ..roll }
}

fn sorted<T: Ord>(mut all: Vec<T>) -> Vec<T> {
    all.sort_unstable();
    all
}

/// Asks one of them.
async fn put(ask: Ask, store: &dyn Shared) -> String {
    match ask {
        Ask::Join(member) => said(store.join(member).await.map(|joined| match joined {
            Joined::Yes(roll) => Joined::Yes(timeless(roll)),
            Joined::NotBeside(_) | Joined::SameClient(_) => joined,
        })),
        Ask::Beat(id, fit) => said(store.beat(id, fit).await.map(|roll| roll.map(timeless))),
        Ask::Expel(id, beats) => said(store.expel(id, beats).await),
        Ask::Take(id, shards) => said(store.take(id, shards).await),
        Ask::Release(id, shards) => said(store.release(id, shards).await),
        Ask::Leave(id) => said(store.leave(id).await),
        Ask::Accept(nonce, new) => said(store.accept(nonce, new).await),
        Ask::Advance(advance) => said(store.advance(advance).await),
        Ask::TakenIn(id, taken) => said(store.taken_in(id, taken).await),
        // In no order.
        Ask::HandOver(emergencies) => said(store.hand_over(emergencies).await.map(sorted)),
        Ask::Hand(id, shard) => said(store.hand(id, shard).await),
        Ask::Spend(nonce) => said(store.spend_nonce(nonce).await),
        Ask::InOrder(ids) => said(store.in_order(ids).await),
    }
}

/// What is handed to a member, where the commands that are read along are those on record.
async fn handed(id: ReplicaId, store: &dyn Shared) -> Result<Vec<Handed>, StoreError> {
    let handed = store.handed(id).await?;
    let along = store.handed_commands(id).await?;
    assert_eq!(along.iter().map(|one| one.0).collect::<Vec<_>>(), handed);
    for (one, command) in along {
        let Some(command) = command else { continue };
        assert_eq!(store.command(one.id).await?, Some(command));
    }
    Ok(handed)
}

/// All that a server can read that is of several servers.
async fn look(id: ReplicaId, store: &dyn Shared) -> Vec<String> {
    vec![
        said(store.roll().await.map(timeless)),
        said(handed(id, store).await),
        said(store.emergencies_elsewhere(id).await),
        said(store.open_commands(None, ALL).await),
        said(store.open_commands_of(&to_shards(&[1]).into_iter().collect(), None, ALL).await),
        said(store.open_commands_of(&to_shards(&[]).into_iter().collect(), None, ALL).await),
    ]
}

/// One run of a server, at both.
struct Run {
    id: ReplicaId,
    model: TrialStore,
    real: PostgresStore,
    /// It has taken something in of which the note may not be written yet.
    has_notes: Cell<bool>,
}

/// A gateway of this shard.
fn gateway_in(shard: u8, number: u8) -> GatewaySn {
    let numbered = (0..).map(|number| gateway(&format!("G{number}")));
    let mut there = numbered.filter(|it| Shard::of(it).number() == shard);
    there.nth(usize::from(number)).unwrap()
}

fn to_shards(numbers: &[u8]) -> Vec<Shard> {
    numbers.iter().map(|number| Shard::from_number(*number).unwrap()).collect()
}

/// An empty database with all tables, quicker than by the migrations.
fn migrated() -> Database {
    static FIRST: LazyLock<()> = LazyLock::new(|| {
        let runtime = Builder::new_current_thread().enable_all().build().unwrap();
        let server = PostgresServer::shared();
        server.named("postgres").sql("CREATE DATABASE migrated TEMPLATE template0");
        let url = server.named("migrated").url();
        drop(runtime.block_on(PostgresStore::open(config(&url))).unwrap());
        drop(runtime);
        // Its connections end a moment after it.
        while server.named("migrated").end_connections() > 0 {}
    });
    static NEXT: AtomicUsize = AtomicUsize::new(1);
    LazyLock::force(&FIRST);
    let (server, number) = (PostgresServer::shared(), NEXT.fetch_add(1, Ordering::Relaxed));
    let name = format!("beside{number}");
    server.named("postgres").sql(&format!("CREATE DATABASE {name} TEMPLATE migrated"));
    server.named(&name)
}

fn config(url: &str) -> PostgresConfig {
    let mut config = PostgresConfig::new(PostgresUrl::parse(url).unwrap(), key());
    config.connections = 1;
    config
}

/// Both stores, and what was told so far.
struct Bench {
    world: Arc<World>,
    database: Database,
    /// The trial's time stands still but for what it waits for itself; PostgreSQL has that of the machine.
    trial_time: Runtime,
    real_time: Runtime,
    /// Of each server its runs, the last of which is the one that should be.
    runs: BTreeMap<u8, Vec<Run>>,
    commands: Vec<Command>,
    /// Counts steps, which is the time as well.
    now: i64,
    run_number: u128,
}

impl Bench {
    fn new(mutation: Option<Mutation>) -> Self {
        let mut plan = Plan::of(1);
        plan.servers = SERVERS;
        (plan.broker, plan.tidings) = (Broker::Outside, Tidings::None);
        plan.clocks_apart.clear();
        let catalogue = Arc::new(Catalogue::embedded().unwrap());
        let paused = Builder::new_current_thread().enable_time().start_paused(true).build();
        let trial_time = paused.unwrap();
        let world = trial_time.block_on(async { World::new(plan, mutation, catalogue, None) });
        let mut bench = Self {
            world,
            database: migrated(),
            trial_time,
            real_time: Builder::new_current_thread().enable_all().build().unwrap(),
            runs: BTreeMap::new(),
            commands: Vec::new(),
            now: 0,
            run_number: 0,
        };
        (0..SERVERS).for_each(|server| bench.restart(server));
        bench
    }

    fn restart(&mut self, server: u8) {
        self.run_number += 1;
        let launch = self.world.begin_launch(server).unwrap();
        let line = self.world.begin_life(server, launch).unwrap();
        let _entered = self.trial_time.enter();
        let model = TrialStore::open(self.world.clone(), line);
        let opening = PostgresStore::open(config(&self.database.url()));
        let real = self.real_time.block_on(opening).unwrap();
        let id = ReplicaId(Uuid::from_u128(0xA000 + self.run_number));
        let run = Run { id, model, real, has_notes: Cell::new(false) };
        self.runs.entry(server).or_default().push(run);
    }

    fn run(&self, step: &Step) -> &Run {
        let runs = &self.runs[&step.server];
        &runs[runs.len().saturating_sub(1 + usize::from(step.by_the_one_before))]
    }

    fn command(&self, of: usize) -> Option<&Command> {
        self.commands.get(of.checked_rem(self.commands.len())?)
    }

    /// Asks both, and answers what both said.
    fn both(&self, step: &Step, ask: &Ask) -> String {
        let run = self.run(step);
        let said = self.trial_time.block_on(put(ask.clone(), &run.model));
        let other = self.real_time.block_on(put(ask.clone(), &run.real));
        assert_eq!(said, other, "{step:?}: {ask:?}");
        said
    }

    /// What servers have taken in is on record. PostgreSQL may write such a note later or never, which the trials' store does not.
    fn write_notes(&self) {
        let runs = self.runs.values().flatten().filter(|run| run.has_notes.take());
        for (number, run) in (0..).zip(runs) {
            let spent =
                nonce(u128::from(u64::MAX) + u128::try_from(self.now * 100 + number).unwrap(), 900);
            self.trial_time.block_on(run.model.spend_nonce(spent)).unwrap();
            self.real_time.block_on(run.real.spend_nonce(spent)).unwrap();
        }
    }

    fn spec(&self, wanted: &Wanted) -> Spec {
        let key = format!("k{}", wanted.key);
        let gateway = gateway_in(wanted.shard, wanted.gateway);
        let base = spec(self.now - i64::from(wanted.behind), &format!("{key} {}", self.now));
        Spec {
            idempotency_key: key,
            tenant: tenant(u128::from(wanted.tenant) + 1),
            fingerprint: [wanted.body; 32],
            device: sn(gateway.as_str()),
            gateway,
            aircraft: wanted.aircraft.map(|number| sn(&format!("A{number}"))),
            risk: wanted.risk,
            starts_motion: wanted.moves,
            ..base
        }
    }

    fn advance(&self, command: &Command, how: How, server: u8) -> Advance {
        let to = |phase| moved(&command.life, phase, self.now);
        let life = match how {
            _ if command.life.phase.has_ended() => None,
            How::Claim => return claim(command, server, self.now),
            How::Deliver => Some(to(Phase::Delivered)),
            How::Succeed => Some(to(Phase::Ended(Outcome::Succeeded))),
            How::FliesOn => {
                let mut life = to(Phase::Ended(Outcome::Succeeded));
                Arc::make_mut(&mut life).holds_motion = command.life.holds_motion;
                Some(life)
            }
            How::Cancel => Some(to(Phase::Ended(Outcome::Failed(FailureCode::Cancelled)))),
            How::Evidence => None,
        };
        life.map_or_else(
            || {
                let line = evidence(command.life.status(), "a line", self.now);
                record(command, command.life.version, vec![line])
            },
            |life| change(command, life),
        )
    }

    fn take(&mut self, step: &Step) {
        let now = self.now;
        let id = self.run(step).id;
        let shard_of = |command: &Command| Shard::of(&command.spec.gateway);
        let mut touched = Vec::new();
        let ask = match &step.what {
            What::Restart => return self.restart(step.server),
            What::Join { alone, client_id, beats } => Ask::Join(Member {
                id,
                instance: InstanceId(Uuid::from_u128(u128::from(step.server) + 1)),
                name: format!("server-{}", step.server),
                alone: *alone,
                client_id: client_id.map(|number| format!("client-{number}")),
                line: None,
                beats: *beats,
                fit: true,
            }),
            What::Beat { fit } => Ask::Beat(id, *fit),
            What::Expel { whom, is_stale } => {
                let whom = self.runs[whom].last().unwrap().id;
                let roll = self.trial_time.block_on(self.run(step).model.roll()).unwrap();
                let given = roll.members.iter().find(|member| member.id == whom);
                let beats = given.map_or(0, |member| member.beats);
                Ask::Expel(whom, beats + u64::from(*is_stale))
            }
            What::Take(numbers) => Ask::Take(id, to_shards(numbers)),
            What::Release(numbers) => Ask::Release(id, to_shards(numbers)),
            What::Leave => Ask::Leave(id),
            What::Accept(wanted) => {
                let mut new = new(self.spec(wanted));
                if wanted.is_claimed {
                    let command = Command { spec: new.spec.clone(), life: new.life.clone() };
                    let claim = claim(&command, step.server, now);
                    (new.life, _) = (claim.life, new.entries.extend(claim.entries.iter().cloned()));
                }
                touched.push(new.spec.id);
                Ask::Accept(wanted.nonce.map(|number| nonce(u128::from(number), 900)), new)
            }
            What::Advance { of, how, is_stale } => {
                let Some(command) = self.command(*of) else { return };
                touched.push(command.spec.id);
                let mut advance = self.advance(command, *how, step.server);
                if *is_stale {
                    advance.seen.0 += 7;
                    Arc::make_mut(&mut advance.life).version.0 += 7;
                }
                Ask::Advance(advance)
            }
            What::TakeIn { places, stray } => {
                let there = self.trial_time.block_on(self.run(step).model.handed(id)).unwrap();
                let chosen = there.into_iter().zip(places).filter(|it| *it.1).map(|it| it.0);
                let stray = stray.and_then(|of| self.command(of)).map(|command| Handed {
                    id: command.spec.id,
                    urgent: command.spec.risk == Risk::Emergency,
                });
                let taken: Vec<Handed> = chosen.chain(stray).collect();
                self.run(step).has_notes.set(true);
                Ask::TakenIn(id, taken)
            }
            What::HandOver(of) => {
                let known = of.iter().filter_map(|of| self.command(*of));
                let urgent = known.filter(|command| command.spec.risk == Risk::Emergency);
                let given: BTreeMap<CommandId, Shard> =
                    urgent.map(|command| (command.spec.id, shard_of(command))).collect();
                Ask::HandOver(given.into_iter().collect())
            }
            What::Hand(of) => {
                // One that nobody knows, where there is none.
                let unknown = CommandId::new(Uuid::from_u128(9));
                let known = self.command(*of).filter(|it| it.spec.risk != Risk::Emergency);
                known.map_or_else(
                    || Ask::Hand(unknown, Shard::all().next().unwrap()),
                    |command| Ask::Hand(command.spec.id, shard_of(command)),
                )
            }
            What::Spend(number) => Ask::Spend(nonce(u128::from(*number), 900)),
            What::InOrder(of) => {
                let known = of.iter().filter_map(|of| self.command(*of)).map(|it| it.spec.id);
                Ask::InOrder(known.chain([CommandId::new(Uuid::from_u128(9))]).collect())
            }
        };
        if matches!(ask, Ask::Join(_) | Ask::Expel(..) | Ask::Release(..) | Ask::Leave(_)) {
            self.write_notes();
        }
        let answer = self.both(step, &ask);
        if let Ask::Accept(_, new) = &ask
            && [Ok(Accepted::New), Ok(Accepted::Elsewhere)].map(said::<Accepted>).contains(&answer)
        {
            let Some(command) = self.on_record(step, new.spec.id) else {
                panic!("{step:?}: it is not on record")
            };
            self.commands.push(command);
        }
        for id in touched {
            let command = self.on_record(step, id);
            let known = self.commands.iter_mut().find(|command| command.spec.id == id);
            if let (Some(known), Some(command)) = (known, command) {
                *known = command;
            }
        }
    }

    /// A command as both have it, with its timeline.
    fn on_record(&self, step: &Step, id: CommandId) -> Option<Command> {
        let run = self.run(step);
        let read = async |store: &dyn Shared| {
            (store.command(id).await.unwrap(), store.timeline(id).await.unwrap())
        };
        let of_model = self.trial_time.block_on(read(&run.model));
        assert_eq!(self.real_time.block_on(read(&run.real)), of_model, "{step:?}");
        of_model.0
    }

    fn looks_the_same(&self, step: &Step) {
        for run in self.runs.values().flatten() {
            let of_model = self.trial_time.block_on(look(run.id, &run.model));
            let of_real = self.real_time.block_on(look(run.id, &run.real));
            assert_eq!(of_model, of_real, "as {:?} sees it after {step:?}", run.id);
        }
    }
}

fn claim(command: &Command, server: u8, millis: i64) -> Advance {
    let life = moved(&command.life, Phase::Sending, millis);
    let proof = Proof::SendingClaimed { replica: format!("server-{server}") };
    let (from, to) = (command.life.status(), life.status());
    let entries = Arc::from([Entry { at: at(millis), from, to, proof }]);
    Advance { id: command.spec.id, seen: command.life.version, life, entries }
}

/// Has both take the steps, and compares every answer, and everything that is to be seen after each.
fn agree(steps: &[Step]) {
    agree_but_for(None, steps);
}

/// The same with a fault in the trials' store.
fn agree_but_for(mutation: Option<Mutation>, steps: &[Step]) {
    let mut bench = Bench::new(mutation);
    for step in steps {
        bench.now += 1;
        bench.take(step);
        bench.looks_the_same(step);
    }
    let wrong = bench.world.state().disk.violations.clone();
    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// Sequences that are tried; `PROPTEST_CASES` raises it.
const CASES_MIN: u32 = 12;

/// Sequences that a fault may survive.
const SEQUENCES_MAX: usize = 40;

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
    fn servers_on_the_trials_store_and_on_postgresql_are_answered_the_same(steps in steps()) {
        agree(&steps);
    }
}

fn by(server: u8, what: What) -> Step {
    Step { server, by_the_one_before: false, what }
}

fn join(client_id: Option<u8>) -> What {
    What::Join { alone: false, client_id, beats: 0 }
}

/// A command of its own key, for the first gateway of the first shard.
fn wants(key: u8, risk: Risk) -> Wanted {
    let (moves, is_claimed) = (risk == Risk::Motion, false);
    let (tenant, body, shard, gateway, behind, aircraft, nonce) = (0, 0, 0, 0, 0, None, None);
    Wanted { tenant, key, body, shard, gateway, aircraft, risk, moves, is_claimed, nonce, behind }
}

/// The trials' store answered twice.
#[test]
fn a_command_that_is_asked_for_twice_has_one_place_in_the_order() {
    agree(&[
        by(0, What::Accept(wants(1, Risk::Ground))),
        by(0, What::Accept(wants(2, Risk::Ground))),
        by(0, What::InOrder(vec![1, 0, 1])),
    ]);
}

/// To the trials' store it was like any other.
#[test]
fn of_two_servers_that_the_broker_knows_under_one_name_the_second_does_not_join() {
    agree(&[by(0, join(Some(1))), by(1, join(Some(1))), by(1, join(Some(0))), by(2, join(None))]);
}

/// The trials' store named the one with the smallest id.
#[test]
fn of_several_emergencies_the_first_of_the_gateway_is_named_and_then_of_the_aircraft() {
    let aircraft = |wanted: Wanted| Wanted { aircraft: Some(1), ..wanted };
    let elsewhere = |wanted: Wanted| Wanted { gateway: 1, ..wanted };
    let claim = || What::Advance { of: 0, how: How::Claim, is_stale: false };
    agree(&[
        by(0, join(None)),
        by(0, What::Take(vec![0])),
        by(0, What::Accept(aircraft(wants(1, Risk::Motion)))),
        by(0, What::Accept(aircraft(elsewhere(wants(2, Risk::Emergency))))),
        by(0, claim()),
        by(0, What::Accept(aircraft(wants(3, Risk::Emergency)))),
        by(0, What::Accept(aircraft(wants(4, Risk::Emergency)))),
        by(0, claim()),
    ]);
}

#[test]
fn what_is_made_wrong_on_purpose_is_found() {
    let mut runner = TestRunner::deterministic();
    for mutation in [
        Mutation::ClaimsNotFenced,
        Mutation::HandedForgotten,
        Mutation::TakenOverInOrderOfIds,
        Mutation::NoCompareAndSet,
        Mutation::MotionsUnchecked,
    ] {
        let is_found = (0..SEQUENCES_MAX).any(|_| {
            let steps = steps().new_tree(&mut runner).unwrap().current();
            panic::catch_unwind(|| agree_but_for(Some(mutation), &steps)).is_err()
        });
        assert!(is_found, "{mutation:?}");
    }
}
