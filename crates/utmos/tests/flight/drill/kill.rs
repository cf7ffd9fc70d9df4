//! `kill -9` of the server, again and again, under load.

use tokio::time::Instant;
use utmos_mqtt::ProtocolChoice;
use utmos_sim::ReplyTiming;

use super::{
    Waits,
    ear::{Ear, Since},
    load::{Load, Times, judge},
    times, unlimited, until_ready,
};
use crate::place::{Place, fly};

const DOCKS: u32 = 3;
/// Kills of the short form.
const FEW: u64 = 10;
/// Most commands that are accepted between two kills.
const BETWEEN_MAX: u64 = 40;

/// Every kill takes answers with it. Of a hundred kills 75 % were known.
const KNOWN_PERCENT_MIN: usize = 40;

/// Of so many commands it must be possible to see whether their answers were heeded, for each kill.
const JUDGEABLE_MIN: u64 = 12;

/// Dice for the moments of death.
pub struct Dice(pub u64);

impl Dice {
    pub fn throw(&mut self, most: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        1 + self.0 % most
    }
}

async fn killed(times: u64) {
    let (mut place, mut config) = Place::with_fleet(DOCKS).await;
    // In the end all of it is read at once, more than a caller may ask for in a second.
    place.settings.extend(unlimited());
    config.reply = ReplyTiming::Realistic;
    config.speed = 20.0;
    let mut ear = Ear::at(&mut config);
    let mut process = place.spawn(None).await;
    let fleet = fly(&config, (place.address, 1883).into(), ProtocolChoice::Auto).await;
    let sns: Vec<&str> = config.docks.iter().map(|dock| dock.sn.as_str()).collect();
    let load = Load::start(&place.api(), &sns, 3);
    let mut dice = Dice(0x5eed_2026);
    let mut starts = Waits::default();
    for life in 0..times {
        load.live_on_in_some(life).await;
        load.more(dice.throw(BETWEEN_MAX)).await;
        let died = Since::now();
        process.kill().await;
        let began = Instant::now();
        process = place.spawn(None).await;
        until_ready(&place).await;
        starts.note(began);
        ear.nobody_since(died);
    }
    // What comes after the last of them goes well.
    load.more(20).await;
    let made = load.end().await;
    let name = format!("kill -9 of the server, {times} times");
    let ends =
        judge(&name, &place.api(), &fleet, &made, Times::True(&mut ear), KNOWN_PERCENT_MIN).await;
    eprintln!("drill {name}: ready again: {}", starts.tell());
    assert!(
        ear.judgeable() as u64 >= times * JUDGEABLE_MIN,
        "of {} commands it could be seen whether their answers were heeded",
        ear.judgeable()
    );
    assert!(ends["SUCCEEDED"] > 20, "most went well, or nothing was proved: {ends:?}");
    drop(process);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_again_and_again_under_load() {
    killed(FEW).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "the long form, some minutes"]
async fn killed_a_hundred_times_under_load() {
    killed(times()).await;
}
