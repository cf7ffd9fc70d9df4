//! How long it takes until others send what a server that died has not sent, and hold its gateways.

use std::{collections::BTreeSet, sync::mpsc, thread, time::Duration};

use futures_util::future::join_all;
use reqwest::StatusCode;
use rustix::process::Signal;
use serde_json::json;
use utmos_core::{
    replica::Shard,
    time::{Clock, Timestamp},
};
use utmos_server::clock::SystemClock;
use utmos_sim::{DockConfig, Fleet, guide};

use super::{LONG_DOCKS, SERVERS, Several, TIMEOUT_SECONDS};
use crate::{
    api::{Api, COMMANDS, PATIENCE, command},
    drill::{load::Made, times},
    place::CATALOGUE,
    postgres_server::Database,
    truth,
};

/// Commands for each dock.
const EACH: usize = 3;
/// Docks of a server that are asked for something.
const ASKED_DOCKS: usize = 12;
/// How often it is asked who holds them.
const LOOK_WAIT: Duration = Duration::from_millis(10);

#[tokio::test(flavor = "multi_thread")]
async fn what_a_server_that_died_has_not_sent_others_send_in_its_order() {
    unsent(Several::start_with(48).await, 1, "the unsent commands of a server that died").await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "long form: 20 kills, with 200 docks"]
async fn with_200_docks_what_a_server_that_died_has_not_sent_others_send() {
    let several = Several::start_with(LONG_DOCKS).await;
    unsent(several, times() / 5, "the unsent commands of a server that died, 200 docks").await;
}

/// Docks that are away, each with a movement that waits for it and some plain commands behind that.
const AWAY_DOCKS: u32 = 2_000;
const PLAIN_EACH: usize = 4;
/// How many of these are asked for at a time.
const ASKING: usize = 64;
/// As long as a command can wait.
const LONGEST_SECONDS: u64 = 300;

#[tokio::test(flavor = "multi_thread")]
#[ignore = "long form: 3 kills, with 200 docks and 10,000 commands that wait for others"]
async fn with_much_that_waits_what_a_server_that_died_has_not_sent_others_send() {
    let mut several = Several::start_with(LONG_DOCKS + AWAY_DOCKS).await;
    let away = several.config.docks.split_off(usize::try_from(LONG_DOCKS).unwrap());
    several.shared_by(SERVERS).await;
    let waiting = wait_for(&several, away).await;
    let name = format!("the unsent commands of a server that died, {waiting} others waiting");
    unsent(several, 3, &name).await;
}

/// Has all servers accept commands for docks that are away. Answers how many wait.
async fn wait_for(several: &Several, away: Vec<DockConfig>) -> usize {
    let apis: Vec<Api> = (0..SERVERS).map(|number| several.api(number)).collect();
    let takeoff = CATALOGUE.method("takeoff_to_point").unwrap();
    let mut waiting = 0;
    for some in away.chunks(ASKING) {
        let asked = some.iter().zip(apis.iter().cycle()).map(async |(dock, api)| {
            let more = json!({"timeout_seconds": LONGEST_SECONDS, "if_offline": "wait"});
            let payload = guide::payload(takeoff, dock, Timestamp::from_millis(now_ms()));
            let mut bodies = vec![command(&dock.sn, &takeoff.name, payload, more.clone())];
            bodies.resize_with(1 + PLAIN_EACH, || {
                command(&dock.sn, "debug_mode_open", json!({}), more.clone())
            });
            for body in &bodies {
                let answer = api.post(COMMANDS, body).await;
                assert_eq!(answer.status, StatusCode::ACCEPTED, "{answer:?}");
            }
            bodies.len()
        });
        waiting += join_all(asked).await.into_iter().sum::<usize>();
    }
    waiting
}

/// Milliseconds after a server could send no more.
#[derive(Default)]
struct Taken {
    killed: Vec<i64>,
    held: Vec<i64>,
    first: Vec<i64>,
    last: Vec<i64>,
    commands: usize,
}

async fn unsent(mut several: Several, kills: u64, name: &str) {
    let fleet = several.fleet().await;
    let (mut taken, mut made) = (Taken::default(), Vec::new());
    for victim in (0..SERVERS).cycle().skip(1).take(usize::try_from(kills).unwrap()) {
        several.shared_by(SERVERS).await;
        made.extend(one_dies(&mut several, &fleet, victim, &mut taken).await);
        several.shared_by(SERVERS - 1).await;
        several.bring_up(victim).await;
    }
    several.shared_by(SERVERS).await;
    // By others it is known for dead by its silence alone.
    eprintln!(
        "drill {name}: {} kills, {} commands that it had not sent, all sent by others. After a server could send no more, in ms (least, median, most): \
         it was killed {}, all its gateways had another {}, the first command was at its dock {}, the last one {}",
        taken.killed.len(),
        taken.commands,
        spread(taken.killed),
        spread(taken.held),
        spread(taken.first),
        spread(taken.last)
    );
    several.judge(name, fleet, Vec::new(), made).await;
}

/// What it was asked for that others had to send.
async fn one_dies(
    several: &mut Several,
    fleet: &Fleet,
    victim: usize,
    taken: &mut Taken,
) -> Vec<Made> {
    let docks: Vec<String> = several.docks_of(victim).into_iter().take(ASKED_DOCKS).collect();
    assert!(!docks.is_empty());
    let others: Vec<usize> = (0..SERVERS).filter(|number| *number != victim).collect();
    // Those that are still to take it over accept everything.
    let apis: Vec<Api> = others.iter().map(|number| several.api(*number)).collect();
    let (shards, run) = (several.shards_of(victim), several.sites[victim].run());
    // It holds these docks, and sends nothing more: what is accepted elsewhere is handed to it and stays unsent.
    several.signal(victim, Signal::STOP);
    let stopped_ms = now_ms();
    let held = when_held_by_others(several.database.clone(), shards, run);
    let asking = docks.iter().enumerate().map(|(at, sn)| ask_for(apis.clone(), at, sn.clone()));
    let asking: Vec<_> = asking.map(tokio::spawn).collect();
    let mut made: Vec<Made> = Vec::new();
    for dock in asking {
        made.extend(dock.await.unwrap());
    }
    let of_dock = |sn: &str| -> Vec<&str> {
        let own = made.iter().filter(|it| it.body["device_id"] == *sn);
        own.map(|it| it.id.as_str()).collect()
    };
    several.kill(victim).await;
    taken.killed.push(now_ms() - stopped_ms);
    for one in &made {
        truth::until(fleet, |fleet| fleet.count(&one.id) == 1).await;
    }
    let ids: BTreeSet<&str> = made.iter().map(|it| it.id.as_str()).collect();
    let mut received = fleet.received();
    received.retain(|one| one.tid.as_deref().is_some_and(|tid| ids.contains(tid)));
    for sn in &docks {
        let asked = of_dock(sn);
        assert_eq!(asked.len(), EACH, "{:?}", made[0].body);
        let own = received.iter().filter(|one| &*one.sn == sn.as_str());
        let order: Vec<&str> = own.filter_map(|one| one.tid.as_deref()).collect();
        assert_eq!(order, asked, "in the order of acceptance");
    }
    for one in &made {
        assert_eq!(apis[0].ended(&one.id).await["status"], "SUCCEEDED");
    }
    let held = tokio::task::spawn_blocking(move || held.recv_timeout(PATIENCE).unwrap());
    let held_ms = held.await.unwrap();
    taken.held.push(held_ms - stopped_ms);
    // What was accepted later was not left by the dead to anybody.
    let left = made.iter().filter(|it| it.answered_ms < held_ms).map(|it| it.id.as_str());
    let left: BTreeSet<&str> = left.collect();
    received.retain(|one| one.tid.as_deref().is_some_and(|tid| left.contains(tid)));
    let waits = || received.iter().map(|one| one.at.as_millis() - stopped_ms);
    taken.first.extend(waits().min());
    taken.last.extend(waits().max());
    taken.commands += left.len();
    made
}

/// Has the servers that live accept some commands for a dock, one after another.
async fn ask_for(apis: Vec<Api>, dock: usize, sn: String) -> Vec<Made> {
    let mut made = Vec::new();
    for round in 0..EACH {
        let more = json!({"timeout_seconds": 4 * TIMEOUT_SECONDS, "if_offline": "wait"});
        let body = command(&sn, "debug_mode_open", json!({}), more);
        let answer = apis[(round + dock) % apis.len()].post(COMMANDS, &body).await;
        made.push(Made { id: answer.id(), body, answered_ms: now_ms() });
    }
    made
}

/// Tells when none of these shards is free or held by this run, and all are so by members.
fn when_held_by_others(database: Database, shards: Vec<Shard>, run: String) -> mpsc::Receiver<i64> {
    let numbers: Vec<String> = shards.iter().map(|shard| shard.number().to_string()).collect();
    let sql = format!(
        "SELECT count(*) FROM shards s JOIN replicas r ON r.id = s.replica
         WHERE s.shard IN ({}) AND r.name NOT LIKE '{run}%'",
        numbers.join(",")
    );
    let (tell, told) = mpsc::channel();
    thread::spawn(move || {
        while database.sql(&sql) != numbers.len().to_string() {
            thread::sleep(LOOK_WAIT);
        }
        // Nobody may wait for it any more.
        let _told = tell.send(now_ms());
    });
    told
}

fn spread(mut times: Vec<i64>) -> String {
    times.sort_unstable();
    let median = times.get(times.len() / 2).copied().unwrap_or_default();
    let (least, most) = (times.first().unwrap(), times.last().unwrap());
    format!("{least}, {median}, {most}")
}

fn now_ms() -> i64 {
    SystemClock::new().now().wall.as_millis()
}
