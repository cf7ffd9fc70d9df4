//! `kill -9` of the server while its database takes nothing, and its emergencies are in the journal alone: what a dock
//! received is on record after the restart and ends as it was, and nothing is sent by two processes.

use std::process::Command;

use reqwest::StatusCode;
use utmos_mqtt::ProtocolChoice;
use utmos_sim::{FleetConfig, ReplyTiming};

use super::{
    disk::{DISK_MIB, let_files_grow, serve_unsignalled},
    ear::{Ear, Since},
    kill::Dice,
    load::{Load, Times, judge},
    mount::SmallDisk,
    read_only::Frozen,
    skipped, times, unlimited, until, until_ready,
};
use crate::{
    place::{Place, fly},
    process::Process,
    truth,
};

const DOCKS: u32 = 3;
/// Kills of the short form.
const FEW: u64 = 2;
/// Most emergencies that are accepted before a kill.
const BEFORE_MAX: u64 = 12;
/// How long a command lives: what nobody knows the end of has one in time.
const TIMEOUT_SECONDS: u64 = 3;

/// Every kill takes answers with it. Of some hundred kills 77 to 79 % were known.
const KNOWN_PERCENT_MIN: usize = 40;

/// A way in which a database takes nothing.
struct Illness<'a> {
    name: &'a str,
    serve: &'a dyn Fn() -> Command,
    begin: &'a mut dyn FnMut(&Process),
    /// While there may be no process.
    end: &'a mut dyn FnMut(),
    /// What a server says that is started meanwhile, where it outlasts the process.
    refuses: Option<&'a [&'a str]>,
}

async fn place() -> (Place, FleetConfig) {
    let (mut place, mut config) = Place::with_fleet(DOCKS).await;
    place.settings.extend(unlimited());
    // Some of what was sent is answered to nobody.
    config.reply = ReplyTiming::Realistic;
    config.speed = 20.0;
    (place, config)
}

async fn killed_while_unwell(times: u64, place: &Place, config: &FleetConfig, ill: Illness<'_>) {
    let mut config = config.clone();
    let mut ear = Ear::at(&mut config);
    let mut process = Process::start((ill.serve)()).await;
    until_ready(place).await;
    let fleet = fly(&config, (place.address, 1883).into(), ProtocolChoice::Auto).await;
    let api = place.api();
    let sns: Vec<&str> = config.docks.iter().map(|dock| dock.sn.as_str()).collect();
    let mut dice = Dice(0x5eed_2026);
    let (mut made, mut stopped) = (Vec::new(), 0);
    for _ in 0..times {
        // Callers of both kinds insist all the while, over the kill too.
        let all = Load::without_jobs(&api, &sns, TIMEOUT_SECONDS);
        all.more(20).await;
        (ill.begin)(&process);
        until("readyz does not say that nothing can be stored", async || {
            api.get("/readyz").await.status == StatusCode::SERVICE_UNAVAILABLE
        })
        .await;
        let received = fleet.received().len();
        let emergencies = Load::of_emergencies(&api, &sns, TIMEOUT_SECONDS);
        emergencies.more(dice.throw(BEFORE_MAX)).await;
        truth::until(&fleet, |fleet| fleet.received().len() > received).await;
        let died = Since::now();
        process.kill().await;
        if let Some(says) = ill.refuses {
            let told = place.refuses_to_start().await;
            assert!(says.iter().any(|words| told.contains(words)), "{told}");
        }
        (ill.end)();
        process = Process::start((ill.serve)()).await;
        let told = process.log();
        assert!(told.contains("emergencies of an earlier run were put on record"), "{told}");
        until_ready(place).await;
        ear.nobody_since(died);
        emergencies.more(5).await;
        let urgent = emergencies.end().await;
        stopped += urgent.len();
        made.extend(urgent);
        made.extend(all.end().await);
    }
    let name = format!("kill -9 with emergencies in the journal, {times} times, {}", ill.name);
    let ends = judge(&name, &api, &fleet, &made, Times::True(&mut ear), KNOWN_PERCENT_MIN).await;
    eprintln!("drill {name}: {stopped} emergencies");
    assert!(ends["SUCCEEDED"] > 20, "some went well, or nothing was proved: {ends:?}");
    process.stop().await;
    fleet.shutdown().await;
}

async fn a_full_disk(times: u64) {
    let (place, config) = place().await;
    let disk = match SmallDisk::under(&place, DISK_MIB) {
        Ok(disk) => disk,
        Err(why) => return skipped("kill -9 on a full disk", &why),
    };
    let ill = Illness {
        name: "a full disk",
        serve: &|| place.serve(),
        begin: &mut |_| disk.fill(),
        end: &mut || disk.free(),
        // Of the database or of the history, whichever needs room first.
        refuses: Some(&["full", "no space left"]),
    };
    killed_while_unwell(times, &place, &config, ill).await;
}

/// The limit goes with the process.
async fn files_that_may_not_grow(times: u64) {
    let (place, config) = place().await;
    let ill = Illness {
        name: "files that may not grow",
        serve: &|| serve_unsignalled(&place),
        begin: &mut |process| let_files_grow(process, false),
        end: &mut || {},
        refuses: None,
    };
    killed_while_unwell(times, &place, &config, ill).await;
}

async fn a_database_that_becomes_read_only(times: u64) {
    let (place, config) = place().await;
    let frozen = std::cell::RefCell::new(None);
    // Whether it can be done here at all.
    let file = place.data_dir().join("utmos.sqlite");
    if let Err(why) = super::mount::run("chattr", &["+i", file.to_str().unwrap()]) {
        return skipped("kill -9 with a database that is read-only", &why);
    }
    super::mount::run("chattr", &["-i", file.to_str().unwrap()]).unwrap();
    let ill = Illness {
        name: "a read-only database",
        serve: &|| place.serve(),
        begin: &mut |_| *frozen.borrow_mut() = Some(Frozen::freeze(&place).unwrap()),
        end: &mut || drop(frozen.borrow_mut().take()),
        refuses: Some(&["read-only"]),
    };
    killed_while_unwell(times, &place, &config, ill).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_on_a_full_disk_no_emergency_is_lost_or_sent_twice() {
    a_full_disk(FEW).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_while_files_may_not_grow_no_emergency_is_lost_or_sent_twice() {
    files_that_may_not_grow(FEW).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_while_the_database_is_read_only_no_emergency_is_lost_or_sent_twice() {
    a_database_that_becomes_read_only(FEW).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "the long form, some minutes"]
async fn killed_many_times_while_the_database_is_unwell() {
    a_full_disk(times() / 3).await;
    files_that_may_not_grow(times() / 3).await;
    a_database_that_becomes_read_only(times() / 3).await;
}
