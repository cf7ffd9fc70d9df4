//! Packets between a server and the database, or the broker, are lost: what it says, what it is told, or both. Here the kernels
//! of either end find out by themselves, or do not: what was written waits to be sent again, connections stay open at one end,
//! and the end of a connection gets lost as well.

use std::{collections::BTreeSet, fs::OpenOptions, io::Write, time::Duration};

use futures_util::future::join_all;
use utmos_sim::Fleet;

use super::{
    FORGETS, LONG_DOCKS, SERVERS, Several, TIMEOUT_SECONDS,
    cut_off::{EMERGENCIES, now_ms},
    more, room,
};
use crate::{
    drill::{
        load::{Load, Made},
        skipped, until,
    },
    island::{Island, Lost},
    mosquitto::Mosquitto,
    postgres_server::{PostgresServer, Stop},
    truth,
};

/// The server whose packets are lost.
const FAR: usize = 1;
/// Nobody notices that so short a time nothing came through.
const BLINK: Duration = Duration::from_millis(1_500);
/// In which a server makes sure that nobody answered in time. Its kernel tries again later than that.
const MOMENT: Duration = Duration::from_millis(500);

impl Several {
    /// With one server on a network of its own, if that can be had.
    async fn with_an_island(docks: u32) -> Option<Self> {
        Self::with_an_island_where(docks, &[]).await
    }

    /// With more assignments of that server.
    async fn with_an_island_where(docks: u32, settings: &[&str]) -> Option<Self> {
        let room = room(docks).await;
        let island = match Island::new() {
            Ok(island) => island,
            Err(why) => {
                skipped("packets that are lost on the way", &why);
                return None;
            }
        };
        let listens = format!("{FORGETS}\nlistener 1883 {}", island.to_broker.outer);
        let mosquitto = Mosquitto::start_with(&listens).await;
        let postgres = PostgresServer::own();
        listens_there_too(&postgres, &island);
        let mut several = Self::prepare_at(room, docks, mosquitto, postgres).await;
        several.sites[FAR].address = island.to_callers.inner;
        several.sites[FAR].island = Some(island);
        several.sites[FAR].settings.extend(settings.iter().map(|&setting| setting.to_owned()));
        several.bring_all_up().await;
        Some(several)
    }

    fn island(&self) -> &Island {
        self.sites[FAR].island.as_ref().unwrap()
    }

    /// How many connections the database believes to have from there.
    fn connections_from_there(&self) -> usize {
        let from = self.island().to_database.inner;
        let sql = format!("SELECT count(*) FROM pg_stat_activity WHERE client_addr = '{from}'");
        self.database.sql(&sql).parse().unwrap()
    }

    /// Answers what was asked for, and from when until when the server had no database.
    async fn loses_the_database(
        &self,
        lost: Lost,
        fleet: &Fleet,
        loads: &[Load],
    ) -> (Vec<Made>, (i64, i64)) {
        let docks: Vec<String> = self.docks_of(FAR).into_iter().take(12).collect();
        let from = now_ms();
        self.island().to_database.lose(lost);
        let name = format!("packets between a server and the database are lost, {lost:?}");
        let mut made = self.taken_over(fleet, &docks, &name).await;
        more(loads, None, 15).await;
        // Its own emergencies go on.
        let stop = self.ask(FAR, &docks[0], EMERGENCIES[0]).await;
        truth::until(fleet, |fleet| fleet.count(&stop.id) == 1).await;
        made.push(stop);
        let unready = self.api(FAR).get("/readyz").await;
        assert_eq!(unready.code(), "OVERLOADED", "{unready:?}");
        let until = now_ms();
        self.island().to_database.mend();
        self.shared_by(SERVERS).await;
        more(loads, None, 15).await;
        (made, (from, until))
    }

    async fn loses_the_broker(&self, lost: Lost, fleet: &Fleet, loads: &[Load]) -> Vec<Made> {
        let docks: Vec<String> = self.docks_of(FAR).into_iter().take(6).collect();
        let run = self.sites[FAR].run();
        self.island().to_broker.lose(lost);
        // The first of them it still begins to send itself.
        let asked =
            docks.iter().map(|sn| self.ask_within(TIMEOUT_SECONDS, 0, sn, "debug_mode_open"));
        let begun = join_all(asked).await;
        self.shared_by(SERVERS - 1).await;
        assert_eq!(self.shards_of(FAR), [], "it holds nothing");
        let name = format!("packets between a server and the broker are lost, {lost:?}");
        let mut made = self.taken_over(fleet, &docks, &name).await;
        let unready = self.api(FAR).get("/readyz").await;
        assert_eq!(unready.code(), "OVERLOADED", "{unready:?}");
        let stop = self.ask(FAR, &docks[0], EMERGENCIES[0]).await;
        truth::until(fleet, |fleet| fleet.count(&stop.id) == 1).await;
        made.push(stop);
        let mut never = BTreeSet::new();
        for one in &begun {
            let ended = self.api(0).ended(&one.id).await;
            if ended["status"] == "TIMED_OUT" && fleet.count(&one.id) == 0 {
                let timeline = self.api(0).timeline(&one.id).await.to_string();
                assert!(timeline.contains(&run), "{timeline}");
                never.insert(one.id.clone());
            }
        }
        eprintln!("drill {name}: {} of {} were lost on the way", never.len(), begun.len());
        self.island().to_broker.mend();
        self.shared_by(SERVERS).await;
        more(loads, None, 30).await;
        for id in &never {
            assert_eq!(fleet.count(id), 0, "nothing stale arrives");
        }
        made.extend(begun);
        made
    }
}

/// Where the cable ends, beside where everybody else finds it.
fn listens_there_too(postgres: &PostgresServer, island: &Island) {
    let cable = &island.to_database;
    let append = |file: &str, line: String| {
        let mut file = OpenOptions::new().append(true).open(postgres.folder().join(file)).unwrap();
        writeln!(file, "{line}").unwrap();
    };
    let own = postgres.named("postgres").address().ip();
    append("more.conf", format!("listen_addresses = '{own}, {}'", cable.outer));
    append("data/pg_hba.conf", format!("host all all {}/32 trust", cable.inner));
    postgres.stop(Stop::Fast);
    postgres.begin();
}

#[tokio::test(flavor = "multi_thread")]
async fn packets_that_are_lost_between_a_server_and_the_database_send_nothing_twice() {
    let Some(several) = Several::with_an_island(24).await else { return };
    // What it writes is written, and it hears nothing of that.
    no_database(several, &[Lost::Back], "lost packets at the database").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn packets_that_are_lost_between_a_server_and_the_broker_send_nothing_twice() {
    let Some(several) = Several::with_an_island(24).await else { return };
    // It hears everything, and nothing that it says arrives.
    no_broker(several, &[Lost::There], "lost packets at the broker").await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "long form: with 200 docks"]
async fn with_200_docks_packets_are_lost_each_way_between_a_server_and_the_database() {
    let Some(several) = Several::with_an_island(LONG_DOCKS).await else { return };
    let name = "lost packets at the database, 200 docks";
    no_database(several, &[Lost::There, Lost::Back, Lost::Both], name).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "long form: with 200 docks"]
async fn with_200_docks_packets_are_lost_each_way_between_a_server_and_the_broker() {
    let Some(several) = Several::with_an_island(LONG_DOCKS).await else { return };
    let name = "lost packets at the broker, 200 docks";
    no_broker(several, &[Lost::There, Lost::Back, Lost::Both], name).await;
}

async fn no_database(several: Several, each: &[Lost], name: &str) {
    let fleet = several.fleet().await;
    several.shared_by(SERVERS).await;
    let loads = vec![several.light_load_at(0)];
    more(&loads, None, 30).await;
    let (mut beside, mut gone) = (Vec::new(), Vec::new());
    for lost in each {
        let (made, (from, until)) = several.loses_the_database(*lost, &fleet, &loads).await;
        beside.extend(made);
        gone.push((several.sites[FAR].run(), from, until));
    }
    several.island().to_database.lose(Lost::Both);
    tokio::time::sleep(BLINK).await;
    several.island().to_database.mend();
    more(&loads, None, 15).await;
    several.sent_by_others(&fleet, &gone).await;
    several.judge(name, fleet, loads, beside).await;
}

async fn no_broker(several: Several, each: &[Lost], name: &str) {
    let fleet = several.fleet().await;
    several.shared_by(SERVERS).await;
    let loads = vec![several.light_load_at(0)];
    more(&loads, None, 60).await;
    let mut beside = Vec::new();
    for lost in each {
        beside.extend(several.loses_the_broker(*lost, &fleet, &loads).await);
    }
    several.island().to_broker.lose(Lost::Both);
    tokio::time::sleep(BLINK).await;
    several.island().to_broker.mend();
    more(&loads, None, 15).await;
    several.judge(name, fleet, loads, beside).await;
}

/// What a server wrote waits in its kernel, which sends it as soon as it can: not when its time is over, though nothing was
/// silent for long enough to be given up.
#[tokio::test(flavor = "multi_thread")]
async fn what_waits_in_a_kernel_to_be_sent_again_never_arrives_late() {
    for qos in ["1", "0"] {
        let qos = format!("mqtt.external.command_qos={qos}");
        let Some(several) = Several::with_an_island_where(24, &[&qos]).await else { return };
        let fleet = several.fleet().await;
        several.shared_by(SERVERS).await;
        let docks: Vec<String> = several.docks_of(FAR).into_iter().take(4).collect();
        several.island().to_broker.lose(Lost::There);
        let asked = docks.iter().map(|sn| several.ask_within(2, FAR, sn, "debug_mode_open"));
        let asked = join_all(asked).await;
        let api = several.api(FAR);
        for one in &asked {
            assert_eq!(api.ended(&one.id).await["failure_code"], "DISPATCH_UNCERTAIN", "{qos}");
        }
        tokio::time::sleep(MOMENT).await;
        several.island().to_broker.mend();
        // What is sent after it comes after it, on the same connection.
        for sn in &docks {
            let next = several.ask_within(60, FAR, sn, "debug_mode_open").await;
            truth::until(&fleet, |fleet| fleet.count(&next.id) == 1).await;
        }
        for one in &asked {
            assert_eq!(fleet.count(&one.id), 0, "{qos}: it came when its time was over");
        }
        several.stop(fleet).await;
    }
}

/// The database hears nothing of the end of connections, and lets go of them all the same.
#[tokio::test(flavor = "multi_thread")]
async fn the_database_lets_go_of_connections_whose_server_is_gone_without_a_word() {
    let Some(mut several) = Several::with_an_island(2).await else { return };
    several.shared_by(SERVERS).await;
    assert!(several.connections_from_there() > 0);
    several.island().to_database.lose(Lost::Both);
    several.kill(FAR).await;
    until("the database holds on to them", async || several.connections_from_there() == 0).await;
    let fleet = several.fleet().await;
    several.stop(fleet).await;
}
