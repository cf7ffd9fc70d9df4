//! SIGTERM under load.

use utmos_mqtt::ProtocolChoice;
use utmos_sim::ReplyTiming;

use super::load::{Load, Times, judge};
use crate::place::{Place, fly};

const STOPS: usize = 4;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_is_told_to_stop_finishes_what_it_began() {
    let (place, mut config) = Place::with_fleet(3).await;
    config.reply = ReplyTiming::Realistic;
    config.speed = 20.0;
    let mut process = place.spawn(None).await;
    let fleet = fly(&config, (place.address, 1883).into(), ProtocolChoice::Auto).await;
    let sns: Vec<&str> = config.docks.iter().map(|dock| dock.sn.as_str()).collect();
    let load = Load::start(&place.api(), &sns, 10);
    for _ in 0..STOPS {
        load.more(40).await;
        let told = process.stop().await;
        assert!(!told.contains("stopped before") && !told.contains("ERROR"), "{told}");
        process = place.spawn(None).await;
        let started = process.log();
        assert!(started.contains("unclear=0"), "nothing was left in doubt: {started}");
    }
    load.more(20).await;
    let made = load.end().await;
    let name = format!("SIGTERM under load, {STOPS} times");
    let ends = judge(&name, &place.api(), &fleet, &made, Times::True).await;
    assert!(!ends.keys().any(|end| end.starts_with("TIMED_OUT")), "each had its answer: {ends:?}");
    process.stop().await;
    fleet.shutdown().await;
}
