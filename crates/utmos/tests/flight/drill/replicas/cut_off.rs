//! A server that does not reach the broker any more, or the database.

use std::{collections::BTreeSet, time::Duration};

use futures_util::future::join_all;
use serde_json::{Value, json};
use tokio::time::Instant;
use utmos_core::{id::DeviceSn, replica::Shard, time::Clock};
use utmos_server::clock::SystemClock;
use utmos_sim::Fleet;

use super::{LONG_DOCKS, SERVERS, Several, TIMEOUT_SECONDS, more};
use crate::{
    api::{COMMANDS, command},
    drill::{load::Made, until},
    truth,
};

/// Others have taken over by then, on a busy machine.
const TAKEN_OVER_MAX: Duration = Duration::from_secs(15);
/// A server that is cut off from the database sends no longer than this. Its lease is 2.5 s; what it had written by then may
/// arrive a moment later.
const LEASE_MAX_MS: i64 = 3_000;
pub(super) const EMERGENCIES: [&str; 2] = ["fly_to_point_stop", "flighttask_pause"];

impl Several {
    /// Docks of a server, by their serial numbers.
    pub(super) fn docks_of(&self, number: usize) -> Vec<String> {
        let shards: BTreeSet<Shard> = self.shards_of(number).into_iter().collect();
        let shard = |sn: &str| Shard::of(&DeviceSn::parse(sn).unwrap().to_gateway());
        let docks = self.config.docks.iter().map(|dock| dock.sn.clone());
        docks.filter(|sn| shards.contains(&shard(sn))).collect()
    }

    pub(super) async fn ask(&self, number: usize, sn: &str, method: &str) -> Made {
        self.ask_within(60, number, sn, method).await
    }

    pub(super) async fn ask_within(
        &self,
        seconds: u64,
        number: usize,
        sn: &str,
        method: &str,
    ) -> Made {
        let more = json!({"timeout_seconds": seconds, "if_offline": "wait"});
        let body = command(sn, method, json!({}), more);
        let answer = self.api(number).post(COMMANDS, &body).await;
        Made { id: answer.id(), body, answered_ms: now_ms() }
    }

    /// Asks the first server for commands for docks of one that has just been cut off, and waits until they are sent.
    pub(super) async fn taken_over(
        &self,
        fleet: &Fleet,
        docks: &[String],
        name: &str,
    ) -> Vec<Made> {
        let (api, began) = (self.api(0), Instant::now());
        let expected = format!("{}|64", SERVERS - 1);
        let sql = "SELECT count(DISTINCT replica) || '|' || count(replica) FROM shards";
        let (database, told) = (self.database.clone(), name.to_owned());
        std::thread::spawn(move || {
            while database.sql(sql) != expected {
                std::thread::sleep(Duration::from_millis(50));
            }
            eprintln!("drill {told}: shards taken after {:?}", began.elapsed());
        });
        let asked = docks.iter().map(|sn| self.ask(0, sn, "debug_mode_open"));
        let made = join_all(asked).await;
        eprintln!("drill {name}: {} commands asked for after {:?}", made.len(), began.elapsed());
        let mut waits = Vec::new();
        for one in &made {
            truth::until(fleet, |fleet| fleet.count(&one.id) == 1).await;
            waits.push(began.elapsed());
        }
        tell(name, &waits);
        for one in &made {
            assert_eq!(api.ended(&one.id).await["status"], "SUCCEEDED");
        }
        made
    }
}

pub(super) fn now_ms() -> i64 {
    SystemClock::new().now().wall.as_millis()
}

fn tell(name: &str, waits: &[Duration]) {
    let (first, longest) = (waits.first().unwrap(), waits.last().unwrap());
    eprintln!(
        "drill {name}: others sent to {} docks of it, {} to {} ms after the cut",
        waits.len(),
        first.as_millis(),
        longest.as_millis()
    );
    assert!(*longest < TAKEN_OVER_MAX, "{longest:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_server_without_the_broker_would_send_others_send() {
    without_the_broker(Several::start_with(48).await).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "long form: with 200 docks"]
async fn with_200_docks_others_send_for_a_server_without_the_broker() {
    without_the_broker(Several::start_with(LONG_DOCKS).await).await;
}

async fn without_the_broker(several: Several) {
    let fleet = several.fleet().await;
    several.shared_by(SERVERS).await;
    let loads = vec![several.light_load_at(0)];
    more(&loads, None, 30).await;
    let docks: Vec<String> = several.docks_of(1).into_iter().take(12).collect();
    several.sites[1].to_broker.cut();
    let mut beside = several.taken_over(&fleet, &docks, "a server without the broker").await;
    assert_eq!(several.shards_of(1), [], "it holds nothing");
    several.shared_by(SERVERS - 1).await;
    let unready = several.api(1).get("/readyz").await;
    assert_eq!(unready.code(), "OVERLOADED", "{unready:?}");
    // What it accepts itself the others send.
    let accepted = several.ask(1, &docks[0], "debug_mode_close").await;
    assert_eq!(several.api(2).ended(&accepted.id).await["status"], "SUCCEEDED");
    beside.push(accepted);
    more(&loads, None, 30).await;
    several.sites[1].to_broker.mend();
    several.shared_by(SERVERS).await;
    more(&loads, None, 15).await;
    several.judge("a server without the broker", fleet, loads, beside).await;
}

/// The server that is asked cannot send it, so another does, whether or not the dock is its own.
#[tokio::test(flavor = "multi_thread")]
async fn an_emergency_asked_of_a_server_without_the_broker_goes_through_another_at_once() {
    let several = Several::start_with(48).await;
    let fleet = several.fleet().await;
    several.shared_by(SERVERS).await;
    let (own, others) = (several.docks_of(1), several.docks_of(2));
    for sn in own.iter().chain(&others) {
        // It is heard by then.
        several.api(1).create(sn, "debug_mode_open", json!({}), json!({})).await;
    }
    several.sites[1].to_broker.cut();
    let api = several.api(1);
    until("it is ready", async || !api.get("/readyz").await.status.is_success()).await;
    let (mut made, began) = (Vec::new(), Instant::now());
    for sn in own.iter().take(4).chain(others.iter().take(4)) {
        // It waits for nobody.
        let more = json!({"timeout_seconds": 60, "if_offline": "fail"});
        made.push(api.create(sn, EMERGENCIES[0], json!({}), more).await.id());
    }
    for id in &made {
        truth::until(&fleet, |fleet| fleet.count(id) == 1).await;
    }
    eprintln!("drill: {} emergencies left through others after {:?}", made.len(), began.elapsed());
    let run = several.sites[1].run();
    for id in &made {
        // The one that accepted it tells how it ended.
        let ended = api.ended(id).await;
        truth::must_be_true(&ended, &fleet);
        assert!(ended["response_code"].is_string(), "its dock answered: {ended}");
        let timeline = api.timeline(id).await;
        let is_claim = |it: &&Value| it["cause"] == "sending_claimed";
        let claims: Vec<&Value> = timeline.as_array().unwrap().iter().filter(is_claim).collect();
        assert_eq!(claims.len(), 1, "{timeline}");
        assert!(!claims[0].to_string().contains(&run), "{timeline}");
    }
    several.sites[1].to_broker.mend();
    several.shared_by(SERVERS).await;
    for id in &made {
        assert_eq!(fleet.count(id), 1, "once");
    }
    several.stop(fleet).await;
}

/// Nobody tells it that nothing comes through any more. What it wrote in that time never arrives.
#[tokio::test(flavor = "multi_thread")]
async fn a_server_whose_broker_falls_silent_is_replaced_and_sends_nothing_stale_when_it_wakes() {
    silent_broker(Several::start_with(48).await).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "long form: with 200 docks"]
async fn with_200_docks_a_server_whose_broker_falls_silent_is_replaced() {
    silent_broker(Several::start_with(LONG_DOCKS).await).await;
}

pub(super) async fn silent_broker(several: Several) {
    let fleet = several.fleet().await;
    several.shared_by(SERVERS).await;
    let loads = vec![several.light_load_at(0)];
    more(&loads, None, 60).await;
    let docks: Vec<String> = several.docks_of(1).into_iter().take(6).collect();
    let (run, began) = (several.sites[1].run(), Instant::now());
    several.sites[1].to_broker.fall_silent();
    let asked =
        docks.iter().map(|sn| several.ask_within(TIMEOUT_SECONDS, 0, sn, "debug_mode_open"));
    let mut beside = join_all(asked).await;
    several.shared_by(SERVERS - 1).await;
    eprintln!(
        "drill: a silent broker was noticed and others took over after {:?}",
        began.elapsed()
    );
    assert_eq!(several.shards_of(1), [], "it holds nothing");
    let unready = several.api(1).get("/readyz").await;
    assert_eq!(unready.code(), "OVERLOADED", "{unready:?}");
    let name = "a server with a silent broker";
    beside.extend(several.taken_over(&fleet, &docks, name).await);
    // What it began and nobody got is told as such, and stays so.
    let mut lost = Vec::new();
    for one in &beside {
        let ended = several.api(0).ended(&one.id).await;
        if ended["status"] == "TIMED_OUT" && fleet.count(&one.id) == 0 {
            let timeline = several.api(0).timeline(&one.id).await.to_string();
            assert!(timeline.contains(&run), "{timeline}");
            lost.push(one.id.clone());
        }
    }
    eprintln!("drill: {} commands were lost in the silence", lost.len());
    several.sites[1].to_broker.mend();
    several.shared_by(SERVERS).await;
    more(&loads, None, 60).await;
    for id in &lost {
        assert_eq!(fleet.count(id), 0, "nothing stale arrives");
    }
    several.judge(name, fleet, loads, beside).await;
}

/// Its signs of life go on, and so does what it reads.
#[tokio::test(flavor = "multi_thread")]
async fn a_server_whose_writes_do_not_reach_the_database_is_replaced() {
    let several = Several::start_with(48).await;
    let fleet = several.fleet().await;
    several.shared_by(SERVERS).await;
    let loads = vec![several.light_load_at(0)];
    more(&loads, None, 30).await;
    let docks: Vec<String> = several.docks_of(1).into_iter().take(12).collect();
    let name = "a server whose writes are lost";
    several.sites[1].to_database.silence_writers();
    let mut beside = several.taken_over(&fleet, &docks, name).await;
    several.shared_by(SERVERS - 1).await;
    assert_eq!(several.shards_of(1), [], "it holds nothing");
    assert_eq!(several.database.sql("SELECT count(*) FROM replicas"), SERVERS.to_string());
    let unready = several.api(1).get("/readyz").await;
    assert_eq!(unready.code(), "OVERLOADED", "{unready:?}");
    // Its emergencies go by its journal.
    let stop = several.ask(1, &docks[0], EMERGENCIES[0]).await;
    truth::until(&fleet, |fleet| fleet.count(&stop.id) == 1).await;
    beside.push(stop);
    more(&loads, None, 30).await;
    several.sites[1].to_database.mend();
    several.shared_by(SERVERS).await;
    more(&loads, None, 15).await;
    several.judge(name, fleet, loads, beside).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_without_the_database_sends_nothing_but_emergencies() {
    without_the_database(Several::start_with(48).await).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "long form: with 200 docks"]
async fn with_200_docks_a_server_without_the_database_sends_nothing_but_emergencies() {
    without_the_database(Several::start_with(LONG_DOCKS).await).await;
}

async fn without_the_database(several: Several) {
    let fleet = several.fleet().await;
    several.shared_by(SERVERS).await;
    let loads = vec![several.light_load_at(0)];
    more(&loads, None, 30).await;
    let (mut gone, mut beside) = (Vec::new(), Vec::new());
    for (number, is_silent) in [(1, true), (2, false)] {
        let docks: Vec<String> = several.docks_of(number).into_iter().take(12).collect();
        let from = now_ms();
        match is_silent {
            true => several.sites[number].to_database.fall_silent(),
            false => several.sites[number].to_database.cut(),
        }
        let how = if is_silent { "a silent" } else { "no" };
        let name = format!("a server with {how} database");
        beside.extend(several.taken_over(&fleet, &docks, &name).await);
        more(&loads, None, 30).await;
        // Its own emergencies go on.
        let stop = several.ask(number, &docks[0], EMERGENCIES[0]).await;
        truth::until(&fleet, |fleet| fleet.count(&stop.id) == 1).await;
        beside.push(stop);
        gone.push((several.sites[number].run(), from, now_ms()));
        several.sites[number].to_database.mend();
        several.shared_by(SERVERS).await;
        more(&loads, None, 10).await;
    }
    // Commits that are made, and nobody hears of it.
    several.sites[0].to_database.lose_commits(6);
    until("nothing is committed", async || several.sites[0].to_database.commits_to_lose() == 0)
        .await;
    several.shared_by(SERVERS).await;
    more(&loads, None, 10).await;
    several.sent_by_others(&fleet, &gone).await;
    several.judge("a server without the database, twice", fleet, loads, beside).await;
}

impl Several {
    /// Between these times nothing but emergencies left a server.
    pub(super) async fn sent_by_others(&self, fleet: &Fleet, gone: &[(String, i64, i64)]) {
        let api = self.api(0);
        let mut looked_at = 0;
        for (run, from, to) in gone {
            for one in fleet.received() {
                let at = one.at.as_millis();
                let is_urgent = EMERGENCIES.contains(&&*one.method);
                if is_urgent || at < from + LEASE_MAX_MS || at > *to {
                    continue;
                }
                let timeline = api.timeline(one.tid.as_deref().unwrap()).await.to_string();
                assert!(!timeline.contains(&format!("\"{run}")), "{run} sent {one:?}: {timeline}");
                looked_at += 1;
            }
        }
        eprintln!(
            "drill: {looked_at} commands left others while a server was without the database"
        );
        assert!(looked_at > 20, "{looked_at}");
    }
}
