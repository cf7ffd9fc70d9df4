//! Three servers on one PostgreSQL and one broker. One that dies, stands still or is stopped is replaced by the others, and
//! database and broker restart under them all; no command is sent twice, none is stuck, none is said to be what it was not.

use std::{
    net::{Ipv4Addr, SocketAddr},
    process::Command,
};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use utmos_sim::{Fleet, FleetConfig};

use super::{
    load::{Load, Made, Times, judge},
    until,
};
use crate::{
    api::Api,
    mosquitto::{Mosquitto, behind, choice},
    place::{Place, fly, own_address},
    postgres_server::{Database, PostgresServer, Stop},
    process::Process,
};

const SERVERS: usize = 3;
const DOCKS: u32 = 12;
/// Longer than others need to take over.
const TIMEOUT_SECONDS: u64 = 12;
/// Servers that die take answers with them.
const KNOWN_PERCENT_MIN: usize = 50;

/// One of the servers.
struct Site {
    name: String,
    address: Ipv4Addr,
    process: Option<Process>,
}

/// All of them, and what they share.
struct Several {
    place: Place,
    postgres: PostgresServer,
    database: Database,
    mosquitto: Mosquitto,
    config: FleetConfig,
    sites: Vec<Site>,
}

impl Several {
    async fn start() -> Self {
        let mosquitto = Mosquitto::start().await;
        let (mut place, mut config) = Place::with_fleet(DOCKS).await;
        config.speed = 20.0;
        behind(&mut place, &mosquitto, "5");
        let postgres = PostgresServer::own();
        let database = postgres.database();
        let sites = (0..SERVERS).map(|number| Site {
            name: format!("server-{number}"),
            address: own_address(),
            process: None,
        });
        let mut several =
            Self { sites: sites.collect(), place, postgres, database, mosquitto, config };
        let from = several.place.data_dir().join("utmos.sqlite");
        let mut import = several.place.utmos(&["store", "import", "--from"]);
        import.arg(from);
        several.on_postgres(&mut import, &several.place.path("importing").display().to_string());
        let imported = import.output().unwrap();
        assert!(imported.status.success(), "{}", String::from_utf8_lossy(&imported.stderr));
        for number in 0..SERVERS {
            several.bring_up(number).await;
        }
        several
    }

    fn on_postgres(&self, command: &mut Command, data_dir: &str) {
        let key = self.place.data_dir().join("master.key");
        for setting in [
            format!("data_dir={data_dir}"),
            format!("store.url={}", self.database.url()),
            format!("store.master_key_file={}", key.display()),
        ] {
            command.args(["--set", &setting]);
        }
    }

    async fn bring_up(&mut self, number: usize) {
        let site = &self.sites[number];
        let mut serve = self.place.utmos(&["serve"]);
        self.on_postgres(&mut serve, &self.place.path(&site.name).display().to_string());
        serve.args(["--set", &format!("http.listen={}:8080", site.address)]);
        for setting in &self.place.settings {
            serve.args(["--set", setting]);
        }
        let process = Process::start(serve).await;
        self.sites[number].process = Some(process);
        let api = self.api(number);
        until("it is not ready", async || api.get("/readyz").await.status.is_success()).await;
    }

    fn api(&self, number: usize) -> Api {
        let address = SocketAddr::from((self.sites[number].address, 8080));
        Api::new(address, self.place.given.clone())
    }

    async fn fleet(&self) -> Fleet {
        fly(&self.config, self.mosquitto.address(), choice("5")).await
    }

    /// Callers at every server.
    fn load(&self) -> Vec<Load> {
        let sns: Vec<&str> = self.config.docks.iter().map(|dock| dock.sn.as_str()).collect();
        (0..SERVERS).map(|number| Load::start(&self.api(number), &sns, TIMEOUT_SECONDS)).collect()
    }

    async fn kill(&mut self, number: usize) {
        self.sites[number].process.take().unwrap().kill().await;
    }

    fn signal(&self, number: usize, signal: Signal) {
        let id = self.sites[number].process.as_ref().unwrap().id();
        let pid = Pid::from_raw(i32::try_from(id).unwrap()).unwrap();
        kill_process(pid, signal).unwrap();
    }

    /// Waits until so many servers share all shards.
    async fn shared_by(&self, servers: usize) {
        let expected = format!("{servers}|64");
        let sql = "SELECT count(DISTINCT replica) || '|' || count(replica) FROM shards";
        until("the shards are not shared out", async || self.database.sql(sql) == expected).await;
    }

    async fn judge(self, name: &str, fleet: Fleet, loads: Vec<Load>) {
        let mut made: Vec<Made> = Vec::new();
        for load in loads {
            made.extend(load.end().await);
        }
        let ends = judge(name, &self.api(0), &fleet, &made, Times::True, KNOWN_PERCENT_MIN).await;
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
    let mut several = Several::start().await;
    let fleet = several.fleet().await;
    let loads = several.load();
    several.shared_by(SERVERS).await;
    more(&loads, None, 30).await;
    for number in 0..SERVERS {
        several.kill(number).await;
        several.shared_by(SERVERS - 1).await;
        more(&loads, Some(number), 15).await;
        several.bring_up(number).await;
        several.shared_by(SERVERS).await;
        more(&loads, None, 15).await;
    }
    several.judge("three servers killed in turn", fleet, loads).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_stands_still_for_longer_than_its_lease_and_others_restart() {
    let mut several = Several::start().await;
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
    several.mosquitto.die_and_come_back().await;
    more(&loads, None, 15).await;
    // One after another, as for a new version.
    for number in 0..SERVERS {
        several.sites[number].process.take().unwrap().stop().await;
        several.bring_up(number).await;
        more(&loads, None, 10).await;
    }
    several.judge("a server stands still, all else restarts", fleet, loads).await;
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
