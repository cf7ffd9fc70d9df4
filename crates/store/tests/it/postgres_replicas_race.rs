//! Many commands at three servers whose shards change hands all the time: each is claimed once, by its holder, and none is
//! forgotten.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use utmos_core::{
    command::{Command, Phase},
    id::CommandId,
    ports::{Accepted, Advanced, CommandStore, ReplicaStore},
    replica::{Handed, ReplicaId, Shard},
};
use utmos_store::PostgresStore;

use crate::{
    given::{new, spec},
    postgres_commands::{PostgresPlace, config, whole},
    postgres_replicas::{claim, claimed, every_shard, gateway_in, joined, member},
};

const SERVERS: usize = 3;
const COMMANDS: usize = 240;

/// One server, as its driver would go about it.
struct Server {
    name: String,
    id: ReplicaId,
    store: Arc<PostgresStore>,
    /// What it looks after.
    care: Mutex<BTreeMap<CommandId, Command>>,
    claimed: Mutex<Vec<CommandId>>,
}

/// The same numbers in every run.
struct Dice(u64);

impl Dice {
    fn below(&mut self, n: usize) -> usize {
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(self.0 >> 33).unwrap() % n
    }

    fn some_shards(&mut self) -> Vec<Shard> {
        (0..16)
            .map(|_| Shard::from_number(u8::try_from(self.below(64)).unwrap()).unwrap())
            .collect()
    }
}

impl Server {
    fn look_after(&self, command: Command) {
        if command.life.phase == Phase::Waiting {
            self.care.lock().unwrap().insert(command.spec.id, command);
        }
    }

    async fn accept(&self, number: usize, shard: Shard) {
        let spec = spec(i64::try_from(number).unwrap(), &format!("k{number}"));
        let spec = utmos_core::command::Spec { gateway: gateway_in(shard), ..spec };
        let is_claimed = number.is_multiple_of(2);
        let new = if is_claimed { claimed(spec, &self.name) } else { new(spec) };
        let id = new.spec.id;
        let command = Command { spec: new.spec.clone(), life: new.life.clone() };
        match self.store.accept(None, new).await.unwrap() {
            Accepted::New if is_claimed => self.claimed.lock().unwrap().push(id),
            Accepted::New => self.look_after(command),
            Accepted::Elsewhere => {}
            other @ (Accepted::Replayed { .. }
            | Accepted::Conflict { .. }
            | Accepted::Busy { .. }
            | Accepted::NonceReplayed) => panic!("{other:?}"),
        }
    }

    /// Whatever is open in shards that were taken.
    async fn take(&self, shards: Vec<Shard>) {
        let taken: BTreeSet<Shard> =
            self.store.take(self.id, shards).await.unwrap().into_iter().collect();
        if !taken.is_empty() {
            for command in self.store.open_commands(None, 10_000).await.unwrap() {
                if taken.contains(&Shard::of(&command.spec.gateway)) {
                    self.look_after(command);
                }
            }
        }
    }

    async fn take_in(&self) {
        assert!(self.store.beat(self.id, true).await.unwrap().is_some());
        let handed = self.store.handed(self.id).await.unwrap();
        for Handed { id, .. } in &handed {
            self.look_after(self.store.command(*id).await.unwrap().unwrap());
        }
        self.store.taken_in(self.id, handed).await.unwrap();
    }

    async fn claim_all(self: &Arc<Self>) {
        let care: Vec<Command> = self.care.lock().unwrap().values().cloned().collect();
        let tasks: Vec<_> = care
            .into_iter()
            .map(|command| {
                let this = self.clone();
                tokio::spawn(async move {
                    let answer = this.store.advance(claim(&command, &this.name)).await.unwrap();
                    let id = command.spec.id;
                    this.care.lock().unwrap().remove(&id);
                    match answer {
                        Advanced::Yes => this.claimed.lock().unwrap().push(id),
                        // Whoever takes its shard finds it.
                        Advanced::Elsewhere | Advanced::Lost => {}
                        Advanced::Preempted(_) => panic!("no emergency came"),
                    }
                })
            })
            .collect();
        for task in tasks {
            task.await.unwrap();
        }
    }

    async fn work(self: Arc<Self>, seed: u64, is_over: Arc<AtomicBool>, turns: Arc<AtomicUsize>) {
        let mut dice = Dice(seed);
        while !is_over.load(Ordering::SeqCst) {
            match dice.below(3) {
                0 => self.store.release(self.id, dice.some_shards()).await.unwrap(),
                _ => self.take(dice.some_shards()).await,
            }
            // What it looked after may be another's by now: that is for the store to say.
            tokio::join!(self.take_in(), self.claim_all());
            turns.fetch_add(1, Ordering::SeqCst);
        }
    }
}

/// A claim is refused by PostgreSQL where the server that writes it does not hold the shard at that moment.
const JUDGE: &str = "
    CREATE TABLE servers (name text PRIMARY KEY, id uuid NOT NULL);
    CREATE TABLE docks (gateway text COLLATE \"C\" PRIMARY KEY, shard smallint NOT NULL);
    CREATE FUNCTION judge() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
        IF NEW.phase = 2 AND NOT EXISTS (
            SELECT FROM commands c JOIN docks d ON d.gateway = c.gateway JOIN shards s ON s.shard = d.shard
                JOIN servers v ON v.id = s.replica JOIN replicas r ON r.id = v.id
            WHERE c.id = NEW.id AND v.name = current_setting('application_name')) THEN
            RAISE EXCEPTION 'claimed by % which does not hold the shard', current_setting('application_name');
        END IF;
        RETURN NEW;
    END $$;
    CREATE TRIGGER judge BEFORE INSERT OR UPDATE ON lives FOR EACH ROW EXECUTE FUNCTION judge()";

#[tokio::test(flavor = "multi_thread")]
async fn each_command_is_claimed_once_by_the_holder_of_its_shard_and_none_is_forgotten() {
    let place = PostgresPlace::new();
    let mut servers = Vec::new();
    for number in 1..=SERVERS {
        let name = format!("server-{number}");
        let url = format!("{}?application_name={name}", place.database.url());
        let store = PostgresStore::open(config(&url)).await.unwrap();
        let run = member(number as u128, number as u128);
        joined(&store, run.clone()).await;
        servers.push(Arc::new(Server {
            name,
            id: run.id,
            store: Arc::new(store),
            care: Mutex::default(),
            claimed: Mutex::default(),
        }));
    }
    place.database.sql(JUDGE);
    for server in &servers {
        let (name, id) = (&server.name, server.id.0);
        place.database.sql(&format!("INSERT INTO servers VALUES ('{name}', '{id}')"));
    }
    let docks: Vec<String> = Shard::all()
        .map(|shard| format!("('{}', {})", gateway_in(shard), shard.number()))
        .collect();
    place.database.sql(&format!("INSERT INTO docks VALUES {}", docks.join(", ")));

    let (is_over, turns) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let working: Vec<_> = (1..)
        .zip(&servers)
        .map(|(seed, server)| {
            tokio::spawn(server.clone().work(seed, is_over.clone(), turns.clone()))
        })
        .collect();
    let mut dice = Dice(99);
    for number in 0..COMMANDS {
        // Spread over what the servers do meanwhile.
        if number.is_multiple_of(40) {
            let after = turns.load(Ordering::SeqCst) + SERVERS;
            while turns.load(Ordering::SeqCst) < after {
                assert!(working.iter().all(|task| !task.is_finished()));
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        }
        let shard = Shard::from_number(u8::try_from(dice.below(64)).unwrap()).unwrap();
        let server = servers[dice.below(SERVERS)].clone();
        if number.is_multiple_of(3) {
            server.accept(number, shard).await;
        } else {
            tokio::spawn(async move { server.accept(number, shard).await });
        }
    }
    let all_claimed =
        || -> usize { servers.iter().map(|server| server.claimed.lock().unwrap().len()).sum() };
    let done = async {
        while all_claimed() < COMMANDS {
            assert!(working.iter().all(|task| !task.is_finished()));
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    let in_time = tokio::time::timeout(Duration::from_secs(90), done).await;
    is_over.store(true, Ordering::SeqCst);
    for task in working {
        task.await.unwrap();
    }
    assert!(in_time.is_ok(), "{} of {COMMANDS} were claimed", all_claimed());
    let claimed: Vec<CommandId> =
        servers.iter().flat_map(|server| server.claimed.lock().unwrap().clone()).collect();
    let each: BTreeSet<CommandId> = claimed.iter().copied().collect();
    assert_eq!((claimed.len(), each.len()), (COMMANDS, COMMANDS));
    // Each server claimed some, and what is left over is taken in by whoever holds everything in the end.
    assert!(servers.iter().all(|server| !server.claimed.lock().unwrap().is_empty()));
    for server in &servers[1..] {
        server.store.leave(server.id).await.unwrap();
    }
    servers[0].take(every_shard()).await;
    servers[0].take_in().await;
    assert!(servers[0].care.lock().unwrap().is_empty());
    // What was taken in is noted by then.
    servers[0].store.close().await;
    assert_eq!(place.database.sql("SELECT count(*) FROM handed"), "0");
    assert_eq!(place.database.sql("SELECT count(*) FROM lives WHERE phase <> 2"), "0");
    place.database.sql("DROP TRIGGER judge ON lives");
    whole(&place.database).await;
}
