//! A disk that is full, and has space again, while the server runs.

use std::process::Command;

use reqwest::StatusCode;
use serde_json::{Value, json};
use utmos_mqtt::ProtocolChoice;
use utmos_sim::{Fleet, FleetConfig};

use super::{
    ear::Ear,
    load::{Load, Made, Times, judge},
    mount::{SmallDisk, run},
    skipped, unlimited, until, until_ready,
};
use crate::{
    api::{Api, COMMANDS, command},
    place::{Place, fly},
    process::Process,
};

/// Big enough for the journal, the database and its log.
pub const DISK_MIB: u32 = 32;

/// All were known, of some runs.
const KNOWN_PERCENT_MIN: usize = 80;

/// Far below what the database's log needs; files that are longer already keep their length.
const FILES_BYTES_MAX: &str = "65536";

/// The server at a place, which can be forbidden to let files grow: the signal that tells of the limit would end it.
pub fn serve_unsignalled(place: &Place) -> Command {
    let serve = place.serve();
    let mut command = Command::new("sh");
    command.args(["-c", "trap '' XFSZ; exec \"$0\" \"$@\""]).arg(serve.get_program());
    command.args(serve.get_args()).current_dir(place.path("")).env_clear();
    command
}

/// Files of a process may not grow, or may again. Needs no rights, so that it is drilled everywhere.
pub fn let_files_grow(process: &Process, may_grow: bool) {
    let bytes = if may_grow { "unlimited" } else { FILES_BYTES_MAX };
    let id = process.id().to_string();
    run("prlimit", &["--pid", &id, &format!("--fsize={bytes}:")]).unwrap();
}

async fn up(place: &Place, config: &FleetConfig, command: Command) -> (Process, Fleet) {
    let process = Process::start(command).await;
    until_ready(place).await;
    (process, fly(config, (place.address, 1883).into(), ProtocolChoice::Auto).await)
}

/// From now on the disk takes nothing: what callers see, and what goes out all the same. Answers what was asked for.
async fn nothing_but_emergencies(api: &Api, sn: &str, fleet: &Fleet, says: &str) -> Vec<Value> {
    let (mut asked, mut refused) = (Vec::new(), 0);
    // Space in its log is used up first.
    until("commands are still taken", async || {
        let body = command(sn, "debug_mode_open", json!({}), json!({"timeout_seconds": 300}));
        let answer = api.post(COMMANDS, &body).await;
        asked.push(body);
        if !answer.status.is_success() {
            let told = (answer.status, answer.code());
            assert_eq!(told, (StatusCode::SERVICE_UNAVAILABLE, "OVERLOADED"), "{answer:?}");
            refused += 1;
        }
        refused >= 5
    })
    .await;
    until("readyz does not say it", async || {
        let ready = api.get("/readyz").await;
        ready.status == StatusCode::SERVICE_UNAVAILABLE
            && ready.body["message"].as_str().unwrap().contains(says)
    })
    .await;
    assert!(api.get("/healthz").await.status.is_success(), "it is alive");
    let body = command(sn, "fly_to_point_stop", json!({}), json!({}));
    let stop = api.post(COMMANDS, &body).await;
    assert_eq!(stop.status, StatusCode::ACCEPTED, "{stop:?}");
    let id = stop.id();
    until("the emergency does not go out", async || fleet.count(&id) == 1).await;
    asked.push(body);
    asked
}

async fn a_disk_is_full(
    name: &str,
    place: &Place,
    config: &FleetConfig,
    command: Command,
    says: &str,
    fill: impl FnOnce(&Process),
    free: impl FnOnce(&Process),
) {
    let mut config = config.clone();
    let mut ear = Ear::at(&mut config);
    let (process, fleet) = up(place, &config, command).await;
    let api = place.api();
    let sns: Vec<&str> = config.docks.iter().map(|dock| dock.sn.as_str()).collect();
    let load = Load::start(&api, &sns, 60);
    load.more(40).await;
    // Callers go on, and insist.
    fill(&process);
    let asked = nothing_but_emergencies(&api, sns[0], &fleet, says).await;
    free(&process);
    until_ready(place).await;
    load.more(40).await;
    let mut made = load.end().await;
    // What was refused is taken under the same key, and what was taken is known under its own.
    for body in asked {
        let id = api.post(COMMANDS, &body).await.id();
        made.push(Made { id, body, answered_ms: 0 });
    }
    let ends = judge(name, &api, &fleet, &made, Times::True(&mut ear), KNOWN_PERCENT_MIN).await;
    assert!(ends["SUCCEEDED"] > 40, "{ends:?}");
    let log = process.stop().await;
    assert!(log.contains("the database can be written again"), "{log}");
    fleet.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_stops_new_commands_but_no_emergency_and_goes_by_without_a_restart() {
    let (mut place, mut config) = Place::with_fleet(2).await;
    place.settings.extend(unlimited());
    config.speed = 20.0;
    let disk = match SmallDisk::under(&place, DISK_MIB) {
        Ok(disk) => disk,
        Err(why) => {
            return skipped(
                "a full disk (its substitute, a limit of file sizes, is drilled)",
                &why,
            );
        }
    };
    let (fill, free) = (|_: &Process| disk.fill(), |_: &Process| disk.free());
    let name = "a full disk";
    a_disk_is_full(name, &place, &config, place.serve(), "free some space", fill, free).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn files_that_may_not_grow_stop_new_commands_but_no_emergency() {
    let (mut place, mut config) = Place::with_fleet(2).await;
    place.settings.extend(unlimited());
    config.speed = 20.0;
    let command = serve_unsignalled(&place);
    let fill = |process: &Process| let_files_grow(process, false);
    let free = |process: &Process| let_files_grow(process, true);
    let name = "files that may not grow";
    a_disk_is_full(name, &place, &config, command, "I/O error", fill, free).await;
}
