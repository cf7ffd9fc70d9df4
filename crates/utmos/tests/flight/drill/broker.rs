//! `kill -9` of an outside broker under load, with and without a memory of its own.

use tokio::time::Instant;
use utmos_mqtt::ProtocolChoice;

use super::{
    Waits,
    ear::{Ear, Since},
    load::{Load, Times, judge},
    times, unlimited, until_ready,
};
use crate::{
    mosquitto::{Mosquitto, behind, choice},
    place::{Place, fly},
    truth,
};

/// Kills of the short form.
const FEW: u64 = 3;
/// A kill takes answers with it. Of some dozens 93 % were known.
const KNOWN_PERCENT_MIN: usize = 50;
/// Of so many commands it must be possible to see whether their answers were heeded, for each kill.
const JUDGEABLE_MIN: u64 = 25;
pub(super) const FORGETS: &str = "persistence false";
/// Commands that must come to the docks before the next kill.
const GO_ON: usize = 10;
/// Written to disk at every change.
pub(super) const REMEMBERS: &str =
    "persistence true\nautosave_interval 1\nautosave_on_changes true";

async fn the_broker_is_killed(times: u64, memory: &str, protocol: &str) {
    let mut mosquitto = Mosquitto::start_with(memory).await;
    let (mut place, mut config) = Place::with_fleet(2).await;
    config.speed = 20.0;
    behind(&mut place, &mosquitto, protocol);
    place.settings.extend(unlimited());
    let mut ear = Ear::at(&mut config);
    let process = place.spawn(None).await;
    until_ready(&place).await;
    let dock_protocol: ProtocolChoice = choice(protocol);
    let fleet = fly(&config, mosquitto.address(), dock_protocol).await;
    let sns: Vec<&str> = config.docks.iter().map(|dock| dock.sn.as_str()).collect();
    let load = Load::start(&place.api(), &sns, 2);
    let mut back = Waits::default();
    for life in 0..times {
        load.live_on_in_some(life).await;
        load.more(40).await;
        let died = Since::now();
        mosquitto.die_and_come_back().await;
        let (began, before) = (Instant::now(), fleet.received().len());
        // The next death finds docks and server at work again.
        truth::until(&fleet, |fleet| fleet.received().len() >= before + GO_ON).await;
        back.note(began);
        ear.nobody_since(died);
    }
    load.more(40).await;
    let made = load.end().await;
    let memory = memory.lines().next().unwrap();
    let name = format!("kill -9 of Mosquitto, {times} times, {memory}, MQTT {protocol}");
    let ends =
        judge(&name, &place.api(), &fleet, &made, Times::True(&mut ear), KNOWN_PERCENT_MIN).await;
    eprintln!("drill {name}: docks get commands again: {}", back.tell());
    assert!(
        ear.judgeable() as u64 >= times * JUDGEABLE_MIN,
        "of {} commands it could be seen whether their answers were heeded",
        ear.judgeable()
    );
    assert!(ends["SUCCEEDED"] > 20, "some went well, or nothing was proved: {ends:?}");
    process.stop().await;
    fleet.shutdown().await;
}

#[tokio::test]
async fn a_broker_that_forgets_is_killed_under_load() {
    the_broker_is_killed(FEW, FORGETS, "5").await;
}

#[tokio::test]
async fn a_broker_that_remembers_is_killed_under_load() {
    the_broker_is_killed(FEW, REMEMBERS, "5").await;
}

#[tokio::test]
async fn a_broker_that_remembers_is_killed_under_load_in_mqtt_3_1_1() {
    the_broker_is_killed(FEW, REMEMBERS, "3.1.1").await;
}

#[tokio::test]
#[ignore = "the long form, some minutes"]
async fn a_broker_is_killed_many_times_under_load() {
    for memory in [FORGETS, REMEMBERS] {
        for protocol in ["5", "3.1.1"] {
            the_broker_is_killed(times() / 4, memory, protocol).await;
        }
    }
}
