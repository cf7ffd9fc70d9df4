//! The machine's clock set forward and back under a running server. The library of the program `faketime` stands between
//! the server and the wall clock, as an administrator's hand would; the running time, by which deadlines count, the server
//! asks of the kernel itself.

use std::{fs, path::PathBuf, process::Command, sync::atomic::Ordering};

use reqwest::Method;
use serde_json::json;
use utmos_mqtt::ProtocolChoice;

use super::{
    load::{Load, Times, judge},
    skipped, unlimited,
};
use crate::{
    api::{Api, COMMANDS},
    dock::PretendDock,
    place::{Place, fly},
    process::Process,
};

const HOUR: i64 = 3_600;
/// Long enough for any answer on a busy machine, and short against every step of the clock.
const TIMEOUT_SECONDS: u64 = 60;
/// All were known.
const KNOWN_PERCENT_MIN: usize = 90;
const LIBRARIES: [&str; 3] = [
    "/usr/lib/x86_64-linux-gnu/faketime/libfaketimeMT.so.1",
    "/usr/lib/aarch64-linux-gnu/faketime/libfaketimeMT.so.1",
    "/usr/lib/faketime/libfaketimeMT.so.1",
];

/// The wall clock of one process.
pub(super) struct Wall {
    file: PathBuf,
    library: &'static str,
}

impl Wall {
    pub(super) fn new(place: &Place) -> Option<Self> {
        Self::named(place, "wall")
    }

    /// One of several at a place.
    pub(super) fn named(place: &Place, name: &str) -> Option<Self> {
        let library = LIBRARIES.into_iter().find(|path| fs::exists(path).unwrap_or(false))?;
        let wall = Self { file: place.path(name), library };
        wall.set(0);
        Some(wall)
    }

    /// From now on it shows so many seconds more than the time.
    pub(super) fn set(&self, ahead: i64) {
        self.set_ms(ahead * 1_000);
    }

    pub(super) fn set_ms(&self, ahead: i64) {
        let (sign, ahead) = (if ahead < 0 { '-' } else { '+' }, ahead.unsigned_abs());
        let draft = self.file.with_extension("new");
        fs::write(&draft, format!("{sign}{}.{:03}\n", ahead / 1_000, ahead % 1_000)).unwrap();
        fs::rename(draft, &self.file).unwrap();
    }

    pub(super) fn rule(&self, mut command: Command) -> Command {
        command.env("LD_PRELOAD", self.library).env("FAKETIME_TIMESTAMP_FILE", &self.file);
        command.env("FAKETIME_NO_CACHE", "1").env("FAKETIME_DONT_FAKE_MONOTONIC", "1");
        command.env("DONT_FAKE_MONOTONIC", "1").env("FAKETIME_DONT_RESET", "1");
        command
    }
}

pub(super) fn wall_of(place: &Place) -> Option<Wall> {
    let wall = Wall::new(place);
    if wall.is_none() {
        skipped("a clock that is set", "there is no faketime; run: apt-get install -y faketime");
    }
    wall
}

/// The server's clock is where it was put: only a signature of that time is taken.
async fn shows(api: &Api, ahead: i64) {
    assert!(api.ahead(ahead).get(COMMANDS).await.status.is_success(), "{ahead} s ahead");
    let away = api.ahead(ahead + HOUR / 2).try_request(Method::GET, COMMANDS, None).await.unwrap();
    assert_eq!(away.code(), "TIMESTAMP_EXPIRED", "{away:?}");
}

#[tokio::test]
async fn a_clock_that_is_set_moves_no_deadline() {
    let place = Place::with_gateways(&["DOCK-1"]).await;
    let Some(wall) = wall_of(&place) else { return };
    let process = Process::start(wall.rule(place.serve())).await;
    let api = place.api();
    shows(&api, 0).await;
    let long = json!({"timeout_seconds": 300});
    let short = json!({"timeout_seconds": 2});
    let kept = api.create("DOCK-1", "debug_mode_open", json!({}), long).await.id();
    for ahead in [HOUR, -HOUR, 0] {
        let late = api.create("DOCK-1", "debug_mode_close", json!({}), short.clone()).await.id();
        wall.set(ahead);
        let api = api.ahead(ahead);
        shows(&api, ahead).await;
        let ended = api.ended(&late).await;
        assert_eq!(ended["failure_code"], "DEVICE_OFFLINE", "its time passes: {ended:#}");
        let waiting = api.get(&format!("{COMMANDS}/{kept}")).await.body;
        assert_eq!(waiting["status"], "ACCEPTED", "nothing expires early: {waiting:#}");
        // The next command is accepted under the clock as it is.
        wall.set(0);
    }
    let mut dock = PretendDock::connect((place.address, 1883).into(), "DOCK-1").await;
    let command = dock.command().await;
    assert_eq!(command.tid(), kept);
    dock.reply(&command, json!({"result": 0})).await;
    assert_eq!(api.ended(&kept).await["status"], "SUCCEEDED");
    assert!(dock.drain_commands().await.is_empty(), "nothing late is sent");
    process.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_clock_that_is_set_under_load_makes_nothing_late_or_lost() {
    let (mut place, mut config) = Place::with_fleet(2).await;
    place.settings.extend(unlimited());
    config.speed = 20.0;
    let Some(wall) = wall_of(&place) else { return };
    let process = Process::start(wall.rule(place.serve())).await;
    let fleet = fly(&config, (place.address, 1883).into(), ProtocolChoice::Auto).await;
    let sns: Vec<&str> = config.docks.iter().map(|dock| dock.sn.as_str()).collect();
    let load = Load::start(&place.api(), &sns, TIMEOUT_SECONDS);
    for ahead in [HOUR, -HOUR, 24 * HOUR, 0] {
        load.more(30).await;
        wall.set(ahead);
        load.ahead.store(ahead, Ordering::SeqCst);
    }
    load.more(30).await;
    let made = load.end().await;
    let name = "a clock set forward and back, 4 times";
    let ends = judge(name, &place.api(), &fleet, &made, Times::Moved, KNOWN_PERCENT_MIN).await;
    assert!(ends["SUCCEEDED"] > 60, "{ends:?}");
    assert!(!ends.keys().any(|end| end.starts_with("TIMED_OUT")), "no time was up: {ends:?}");
    process.stop().await;
    fleet.shutdown().await;
}
