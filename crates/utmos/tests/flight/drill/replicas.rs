//! Three servers on one PostgreSQL and one broker. One that dies, stands still, is stopped or is cut off is replaced by the
//! others, and database and broker restart under them all; no command is sent twice, none is stuck, none is said to be what
//! it was not.

mod brokers;
mod cut_off;
mod history;
mod joining;
mod limits;
mod lines;
mod machines;
mod packets;
mod restarts;
mod taken_over;
mod unwell_database;
mod wrong_clock;

use std::{
    net::{Ipv4Addr, SocketAddr},
    process::Command,
    time::Duration,
};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use tokio::{
    sync::{Semaphore, SemaphorePermit},
    time::Instant,
};
use utmos_core::replica::Shard;
use utmos_mqtt::ProtocolChoice;
use utmos_sim::{Fleet, FleetConfig};

use self::brokers::Broker;
use super::{
    broker::FORGETS,
    ear::{Ear, Since},
    load::{Load, Made, Times, judge, until_on_record},
    unlimited, until,
};
use crate::{
    api::{Api, PATIENCE},
    forwarder::Forwarder,
    island::Island,
    mosquitto::{Mosquitto, behind},
    place::{Place, fly, own_address},
    postgres_server::{Database, PostgresServer, Stop},
    process::Process,
};

const SERVERS: usize = 3;
const DOCKS: u32 = 12;
/// Of the long form.
const LONG_DOCKS: u32 = 200;
/// Whatever moves, it comes to rest by then.
const SHARED_MAX: Duration = Duration::from_mins(4);
/// Longer than others need to take over.
const TIMEOUT_SECONDS: u64 = 12;
/// Servers that die take answers with them.
const KNOWN_PERCENT_MIN: usize = 50;

/// One of the servers.
struct Site {
    name: String,
    address: Ipv4Addr,
    /// Between it and the database, and between it and the broker.
    to_database: Forwarder,
    to_broker: Forwarder,
    /// In the place of both, where it has a network of its own.
    island: Option<Island>,
    /// More assignments of its own.
    settings: Vec<String>,
    process: Option<Process>,
}

impl Site {
    /// What the names of its runs begin with.
    fn run(&self) -> String {
        format!("utmos-{}-", self.process.as_ref().unwrap().id())
    }
}

/// All of them, and what they share.
struct Several {
    place: Place,
    postgres: PostgresServer,
    database: Database,
    broker: Broker,
    config: FleetConfig,
    ear: Ear,
    sites: Vec<Site>,
    _room: Room,
}

/// Two drills of several servers at a time, of which each takes half a processor and else waits. Each is three servers, a database
/// and a broker, and what more of them would take of the machine is time that their leases run.
const AT_ONCE: u32 = 2;

static ROOM: Semaphore = Semaphore::const_new(AT_ONCE as usize);

type Room = SemaphorePermit<'static>;

/// Waits until there is room for a drill with so many docks. A long form has the machine to itself.
async fn room(docks: u32) -> Room {
    let places = if docks < LONG_DOCKS { 1 } else { AT_ONCE };
    ROOM.acquire_many(places).await.unwrap()
}

impl Several {
    async fn start() -> Self {
        Self::start_with(DOCKS).await
    }

    async fn start_with(docks: u32) -> Self {
        Self::start_behind(docks, FORGETS).await
    }

    /// With more lines of the broker's configuration.
    async fn start_behind(docks: u32, broker: &str) -> Self {
        let mut several = Self::prepare_behind(docks, broker).await;
        several.bring_all_up().await;
        several
    }

    /// Everything but the servers.
    async fn prepare(docks: u32) -> Self {
        Self::prepare_behind(docks, FORGETS).await
    }

    async fn prepare_behind(docks: u32, broker: &str) -> Self {
        let room = room(docks).await;
        let mosquitto = Mosquitto::start_with(broker).await;
        Self::prepare_at(room, docks, mosquitto, PostgresServer::own()).await
    }

    async fn prepare_at(
        room: Room,
        docks: u32,
        mosquitto: Mosquitto,
        postgres: PostgresServer,
    ) -> Self {
        let (mut place, config) = Place::with_fleet(docks).await;
        behind(&mut place, &mosquitto, "5");
        let broker = Broker::Mosquitto(mosquitto, ProtocolChoice::V5);
        Self::prepare_on(room, place, config, broker, postgres).await
    }

    /// At a place that knows its broker.
    async fn prepare_on(
        room: Room,
        mut place: Place,
        mut config: FleetConfig,
        broker: Broker,
        postgres: PostgresServer,
    ) -> Self {
        config.speed = 20.0;
        // While the database is away, callers insist many times a second, and each server counts for all of them.
        place.settings.extend(unlimited());
        let database = postgres.database();
        let mut sites = Vec::new();
        for number in 0..SERVERS {
            sites.push(Site {
                name: format!("server-{number}"),
                address: own_address(),
                to_database: Forwarder::to(database.address()).await,
                to_broker: Forwarder::to(broker.address()).await,
                island: None,
                settings: std::env::var_os("DRILL_LOGS")
                    .map(|_| "log.level=debug".to_owned())
                    .into_iter()
                    .collect(),
                process: None,
            });
        }
        let ear = Ear::at(&mut config).of_several();
        let several = Self { sites, place, postgres, database, broker, config, ear, _room: room };
        let from = several.place.data_dir().join("utmos.sqlite");
        let mut import = several.place.utmos(&["store", "import", "--from"]);
        import.arg(from);
        let importing = several.place.path("importing").display().to_string();
        several.on_postgres(&mut import, &importing, &several.database.url());
        let imported = import.output().unwrap();
        assert!(imported.status.success(), "{}", String::from_utf8_lossy(&imported.stderr));
        several
    }

    fn on_postgres(&self, command: &mut Command, data_dir: &str, url: &str) {
        let key = self.place.data_dir().join("master.key");
        for setting in [
            format!("data_dir={data_dir}"),
            format!("store.url={url}"),
            format!("store.master_key_file={}", key.display()),
        ] {
            command.args(["--set", &setting]);
        }
    }

    /// What starts a server.
    fn serve(&self, number: usize) -> Command {
        let site = &self.sites[number];
        let mut serve = self.place.utmos(&["serve"]);
        let mut url = self.database.url();
        let direct = self.database.address();
        let (mut way, mut broker) = (site.to_database.address, site.to_broker.address.ip());
        if let Some(island) = &site.island {
            way = (island.to_database.outer, direct.port()).into();
            broker = island.to_broker.outer.into();
            url.push_str("?sslmode=disable");
        }
        url = url.replace(&direct.to_string(), &way.to_string());
        self.on_postgres(&mut serve, &self.place.path(&site.name).display().to_string(), &url);
        let listen = format!("http.listen={}:8080", site.address);
        let broker = format!("mqtt.external.host={broker}");
        for setting in self.place.settings.iter().chain([&listen, &broker]).chain(&site.settings) {
            serve.args(["--set", setting]);
        }
        match &site.island {
            Some(island) => island.run(&serve),
            None => serve,
        }
    }

    async fn bring_all_up(&mut self) {
        for number in 0..SERVERS {
            self.bring_up(number).await;
        }
    }

    async fn bring_up(&mut self, number: usize) {
        let process = Process::start(self.serve(number)).await;
        self.sites[number].process = Some(process);
        let api = self.api(number);
        until("it is not ready", async || api.get("/readyz").await.status.is_success()).await;
    }

    fn api(&self, number: usize) -> Api {
        let address = SocketAddr::from((self.sites[number].address, 8080));
        Api::new(address, self.place.given.clone())
    }

    async fn fleet(&self) -> Fleet {
        fly(&self.config, self.broker.address(), self.broker.protocol()).await
    }

    /// Callers at every server. Those of the short form leave the machine time for more servers than one.
    fn load(&self) -> Vec<Load> {
        let is_long = self.config.docks.len() > 100;
        let load = |number| if is_long { self.load_at(number) } else { self.light_load_at(number) };
        (0..SERVERS).map(load).collect()
    }

    fn load_at(&self, number: usize) -> Load {
        let sns: Vec<&str> = self.config.docks.iter().map(|dock| dock.sn.as_str()).collect();
        Load::start(&self.api(number), &sns, TIMEOUT_SECONDS)
    }

    /// The same, with long pauses.
    fn light_load_at(&self, number: usize) -> Load {
        let sns: Vec<&str> = self.config.docks.iter().map(|dock| dock.sn.as_str()).collect();
        Load::light(&self.api(number), &sns, TIMEOUT_SECONDS)
    }

    async fn kill(&mut self, number: usize) {
        self.sites[number].process.take().unwrap().kill().await;
    }

    fn signal(&self, number: usize, signal: Signal) {
        let id = self.sites[number].process.as_ref().unwrap().id();
        let pid = Pid::from_raw(i32::try_from(id).unwrap()).unwrap();
        kill_process(pid, signal).unwrap();
    }

    /// Waits until so many servers share all shards, as long as anything moves: on a machine that does much else servers are
    /// late with their signs of life, are expelled, and join again.
    async fn shared_by(&self, servers: usize) {
        let expected = format!("{servers}|64");
        let sql = "SELECT count(DISTINCT replica) || '|' || count(replica) FROM shards";
        let moves = "SELECT string_agg(coalesce(replica::text, ''), ',' ORDER BY shard) || (
            SELECT string_agg(id::text || fit, ',' ORDER BY id) FROM replicas) FROM shards";
        let shared = async {
            let (mut before, mut moved_at) = (String::new(), Instant::now());
            while self.database.sql(sql) != expected {
                let now = self.database.sql(moves);
                if now != before {
                    (before, moved_at) = (now, Instant::now());
                }
                if moved_at.elapsed() > PATIENCE {
                    return false;
                }
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
            true
        };
        if tokio::time::timeout(SHARED_MAX, shared).await != Ok(true) {
            let logs = self.sites.iter().filter_map(|site| site.process.as_ref());
            let logs: Vec<String> = logs.map(Process::log).collect();
            let roll = self.database.sql("SELECT * FROM replicas");
            panic!("the shards are not shared out by {servers}:\n{roll}\n{}", logs.join("\n\n"));
        }
    }

    /// Which shards a server holds.
    fn shards_of(&self, number: usize) -> Vec<Shard> {
        let sql = format!(
            "SELECT s.shard FROM shards s JOIN replicas r ON r.id = s.replica WHERE r.name LIKE '{}%'",
            self.sites[number].run()
        );
        let held = self.database.sql(&sql);
        held.lines().map(|line| Shard::from_number(line.parse().unwrap()).unwrap()).collect()
    }

    /// With what was asked for beside the loads.
    async fn judge(mut self, name: &str, fleet: Fleet, loads: Vec<Load>, beside: Vec<Made>) {
        let mut made = beside;
        for load in loads {
            made.extend(load.end().await);
        }
        for number in (0..SERVERS).filter(|number| self.sites[*number].process.is_some()) {
            until_on_record(&self.api(number)).await;
        }
        let api = self.api(0);
        let times = Times::True(&mut self.ear);
        let ends = judge(name, &api, &fleet, &made, times, KNOWN_PERCENT_MIN).await;
        assert!(ends["SUCCEEDED"] > made.len() / 3, "most went well: {ends:?}");
        self.stop(fleet).await;
    }

    /// Nothing is left to anybody, and everybody goes.
    async fn stop(mut self, fleet: Fleet) {
        let left = "SELECT count(*) FROM handed WHERE NOT urgent";
        until("something was handed on to nobody", async || self.database.sql(left) == "0").await;
        for site in &mut self.sites {
            if let Some(process) = site.process.take() {
                process.stop().await;
            }
        }
        assert_eq!(self.database.sql("SELECT count(*) FROM replicas"), "0", "who stops says so");
        fleet.shutdown().await;
        self.postgres.stop(Stop::Fast);
    }
}

async fn more(loads: &[Load], but: Option<usize>, count: u64) {
    for (number, load) in loads.iter().enumerate() {
        if Some(number) != but {
            load.more(count).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn each_of_three_servers_is_killed_in_turn() {
    killed_in_turn(Several::start().await, "three servers killed in turn").await;
}

/// Worth running in a release build: the servers of a debug build have enough to do with what so many docks tell.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "long form: with 200 docks"]
async fn with_200_docks_each_of_three_servers_is_killed_in_turn() {
    let several = Several::start_with(LONG_DOCKS).await;
    killed_in_turn(several, "three servers killed in turn, 200 docks").await;
}

async fn killed_in_turn(mut several: Several, name: &str) {
    let fleet = several.fleet().await;
    let loads = several.load();
    several.shared_by(SERVERS).await;
    more(&loads, None, 30).await;
    for number in 0..SERVERS {
        let died = Since::now();
        several.kill(number).await;
        several.shared_by(SERVERS - 1).await;
        several.ear.nobody_since(died);
        more(&loads, Some(number), 15).await;
        several.bring_up(number).await;
        several.shared_by(SERVERS).await;
        more(&loads, None, 15).await;
    }
    several.judge(name, fleet, loads, Vec::new()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_stands_still_for_longer_than_its_lease_and_others_restart() {
    stands_still(Several::start().await, "a server stands still, all else restarts").await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "long form: with 200 docks"]
async fn with_200_docks_a_server_stands_still_and_others_restart() {
    let several = Several::start_with(LONG_DOCKS).await;
    stands_still(several, "a server stands still, all else restarts, 200 docks").await;
}

async fn stands_still(mut several: Several, name: &str) {
    let fleet = several.fleet().await;
    let loads = several.load();
    several.shared_by(SERVERS).await;
    more(&loads, None, 30).await;
    several.signal(1, Signal::STOP);
    several.shared_by(SERVERS - 1).await;
    more(&loads, Some(1), 30).await;
    several.signal(1, Signal::CONT);
    several.shared_by(SERVERS).await;
    more(&loads, None, 15).await;
    several.postgres.stop(Stop::Immediate);
    several.postgres.begin();
    more(&loads, None, 15).await;
    let died = Since::now();
    several.broker.die_and_come_back().await;
    more(&loads, None, 15).await;
    several.ear.nobody_since(died);
    // One after another, as for a new version.
    for number in 0..SERVERS {
        several.sites[number].process.take().unwrap().stop().await;
        several.bring_up(number).await;
        more(&loads, None, 10).await;
    }
    several.judge(name, fleet, loads, Vec::new()).await;
}

/// Whoever is asked, and whoever waits: a command that one server accepts for another's dock is sent once, in its order, and
/// both tell how it ended.
#[tokio::test(flavor = "multi_thread")]
async fn any_server_accepts_and_tells() {
    let several = Several::start().await;
    let fleet = several.fleet().await;
    several.shared_by(SERVERS).await;
    let mut made = Vec::new();
    for dock in &several.config.docks {
        for number in 0..SERVERS {
            let more = json!({"timeout_seconds": TIMEOUT_SECONDS, "if_offline": "wait"});
            let api = several.api(number);
            made.push((dock, api.create(&dock.sn, "debug_mode_open", json!({}), more).await.id()));
        }
    }
    for (number, (_, id)) in made.iter().enumerate() {
        // Not by the server that accepted it.
        let ended: Value = several.api((number + 1) % SERVERS).ended(id).await;
        assert_eq!(ended["status"], "SUCCEEDED", "{ended}");
    }
    for dock in &several.config.docks {
        let own: Vec<&str> =
            made.iter().filter(|it| it.0.sn == dock.sn).map(|it| it.1.as_str()).collect();
        let received = fleet.received();
        let received: Vec<&str> = received
            .iter()
            .filter_map(|one| one.tid.as_deref())
            .filter(|tid| own.contains(tid))
            .collect();
        assert_eq!(received, own, "in the order of acceptance, over all servers");
    }
    several.stop(fleet).await;
}
