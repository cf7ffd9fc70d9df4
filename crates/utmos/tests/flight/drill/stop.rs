//! SIGTERM under load.

use serde_json::json;
use utmos_mqtt::ProtocolChoice;
use utmos_sim::ReplyTiming;

use super::{
    ear::{Ear, Since},
    load::{Load, Times, judge},
    unlimited, until,
};
use crate::{
    api::COMMANDS,
    place::{Place, fly},
    process::Process,
};

const STOPS: usize = 4;
/// Most stops until there were so many in which every dock answered in time.
const STOPS_MAX: usize = 12;
/// What the server says of docks that took longer than it waits, as on a machine with too much to do.
const ADMITTED: &str = "were not answered before the stop";
/// Long enough for any answer that comes at all.
const TIMEOUT_SECONDS: u64 = 60;
/// All were known, where the docks had the time to answer.
const KNOWN_PERCENT_MIN: usize = 70;

#[tokio::test]
async fn a_server_that_gives_notice_says_so_and_refuses_nobody() {
    let place = Place::with_gateways(&["DOCK-1"]).await;
    let mut command = place.serve();
    command.args(["--set", "http.notice_seconds=10"]);
    let process = Process::start(command).await;
    let api = place.api();
    process.terminate();
    until("it says nothing", async || api.get("/readyz").await.status == 503).await;
    let said = api.get("/readyz").await.body;
    assert!(said["message"].as_str().unwrap().contains("about to stop"), "{said}");
    // Whoever has not looked yet is served.
    let fields = json!({"if_offline": "wait", "timeout_seconds": 300});
    let id = api.create("DOCK-1", "debug_mode_open", json!({}), fields).await.id();
    let told = process.ends().await;
    assert!(told.contains("/readyz says so until then"), "{told}");
    let next = place.spawn(None).await;
    assert_eq!(api.get("/readyz").await.status, 200);
    let found = api.get(&format!("{COMMANDS}/{id}")).await.body;
    assert_eq!(found["status"], "ACCEPTED", "{found}");
    next.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_is_told_to_stop_finishes_what_it_began() {
    let (mut place, mut config) = Place::with_fleet(3).await;
    place.settings.extend(unlimited());
    config.reply = ReplyTiming::Realistic;
    config.speed = 20.0;
    let mut ear = Ear::at(&mut config);
    let mut process = place.spawn(None).await;
    let fleet = fly(&config, (place.address, 1883).into(), ProtocolChoice::Auto).await;
    let sns: Vec<&str> = config.docks.iter().map(|dock| dock.sn.as_str()).collect();
    let load = Load::start(&place.api(), &sns, TIMEOUT_SECONDS);
    let (mut clear, mut admitted) = (0, 0);
    while clear < STOPS && clear + admitted < STOPS_MAX {
        load.more(40).await;
        let stops = Since::now();
        let told = process.stop().await;
        assert!(!told.contains("stopped before") && !told.contains("ERROR"), "{told}");
        process = place.spawn(None).await;
        ear.nobody_since(stops);
        let started = process.log();
        if told.contains(ADMITTED) {
            admitted += 1;
        } else {
            assert!(started.contains("unclear=0"), "nothing was left in doubt: {told}{started}");
            clear += 1;
        }
    }
    load.more(20).await;
    let made = load.end().await;
    let name = format!("SIGTERM under load, {} times", clear + admitted);
    let ends =
        judge(&name, &place.api(), &fleet, &made, Times::True(&mut ear), KNOWN_PERCENT_MIN).await;
    assert!(clear > 0, "no stop was tried in which the docks answered in time");
    let has_timed_out = ends.keys().any(|end| end.starts_with("TIMED_OUT"));
    assert!(!has_timed_out || admitted > 0, "each had its answer: {ends:?}");
    process.stop().await;
    fleet.shutdown().await;
}
