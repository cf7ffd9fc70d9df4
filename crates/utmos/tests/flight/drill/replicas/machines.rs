//! Servers on a machine each, as far as that can be had on one: each has a boot and a running time of its own (namespaces of
//! mounts and of time), and a wall clock of its own that is wrong by nearly as much as it may be (`faketime`). What they tell
//! each other of deadlines counts by the database's clock, so nothing is late by their walls, and nothing over too early.

use std::{fs, process::Command};

use rustix::process::Signal;
use serde_json::json;

use super::{SERVERS, Several};
use crate::{
    api::{COMMANDS, command},
    drill::{clock::Wall, skipped, until},
    place::Place,
    process::{Process, run_by},
    truth,
};
use utmos_core::time::Clock;
use utmos_server::clock::SystemClock;

/// By how many milliseconds the walls of the servers are ahead.
const AHEAD_MS: [i64; SERVERS] = [1_800, 0, -1_800];
/// Where Linux tells which run of the machine this is.
const BOOT_ID_FILE: &str = "/proc/sys/kernel/random/boot_id";
/// Runs its arguments where that file is the one that is named first.
const UNDER_ITS_BOOT: &str = r#"mount --bind "$1" "$0" && shift && exec "$@""#;
/// Commands of one second, of two, and so on: the time of some is over just before others send in place of a dead server.
const SECONDS: std::ops::RangeInclusive<u64> = 1..=9;
/// Longer than anything takes here.
const LONG_SECONDS: u64 = 240;

/// A machine of its own for a server.
struct Machine {
    number: usize,
    boot: String,
    wall: Wall,
}

impl Machine {
    fn new(place: &Place, number: usize) -> Option<Self> {
        let wall = Wall::named(place, &format!("wall-{number}"))?;
        wall.set_ms(AHEAD_MS[number]);
        let boot = place.path(&format!("boot-{number}"));
        fs::write(&boot, format!("{number}0000000-0000-4000-8000-000000000000\n")).unwrap();
        Some(Self { number, boot: boot.display().to_string(), wall })
    }

    /// What runs a command on it.
    fn run(&self, command: &Command) -> Command {
        let mut on = Command::new("unshare");
        let booted = (self.number + 1) * 100_000;
        on.args(["--mount", "--time", "--boottime", &booted.to_string(), "sh", "-c"]);
        on.args([UNDER_ITS_BOOT, BOOT_ID_FILE, &self.boot]);
        run_by(on, command)
    }
}

/// A machine for each server; `None` where that cannot be had.
fn machines(place: &Place) -> Option<Vec<Machine>> {
    let what = "servers on machines of their own";
    let machines: Option<Vec<Machine>> =
        (0..SERVERS).map(|number| Machine::new(place, number)).collect();
    let Some(machines) = machines else {
        skipped(what, "there is no faketime; run: apt-get install -y faketime");
        return None;
    };
    let mut probe = Command::new("true");
    probe.current_dir(place.path(""));
    let tried = machines[0].run(&probe).output();
    let why = match tried {
        Ok(output) if output.status.success() => return Some(machines),
        Ok(output) => String::from_utf8_lossy(&output.stderr).into_owned(),
        Err(error) => error.to_string(),
    };
    skipped(what, &format!("unshare does not let it (as root it does): {why}"));
    None
}

impl Several {
    async fn bring_up_on(&mut self, machine: &Machine) {
        let number = machine.number;
        let serve = machine.wall.rule(machine.run(&self.serve(number)));
        self.sites[number].process = Some(Process::start(serve).await);
        let api = self.api(number);
        until("it is not ready", async || api.get("/readyz").await.status.is_success()).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_late_nor_over_too_early_by_the_walls_of_servers() {
    let mut several = Several::prepare(48).await;
    let Some(machines) = machines(&several.place) else { return };
    for machine in &machines {
        several.bring_up_on(machine).await;
    }
    several.shared_by(SERVERS).await;

    // The one that is ahead accepts for the one that is behind, which starts anew: what is on record is
    // of later than its wall.
    let docks = several.docks_of(2);
    let more = json!({"timeout_seconds": LONG_SECONDS, "if_offline": "wait"});
    let mut kept = Vec::new();
    for sn in docks.iter().take(4) {
        kept.push(several.api(0).create(sn, "debug_mode_open", json!({}), more.clone()).await.id());
    }
    // Not killed: what it had just claimed would stand in doubt.
    several.sites[2].process.take().unwrap().stop().await;
    kept.push(
        several.api(0).create(&docks[0], "debug_mode_open", json!({}), more.clone()).await.id(),
    );
    several.bring_up_on(&machines[2]).await;
    several.shared_by(SERVERS).await;
    for id in &kept {
        let found = several.api(2).get(&format!("{COMMANDS}/{id}")).await.body;
        assert_eq!(found["status"], "ACCEPTED", "nothing is over too early: {found:#}");
    }
    let fleet = several.fleet().await;
    for id in &kept {
        truth::until(&fleet, |fleet| fleet.count(id) == 1).await;
        assert_eq!(several.api(0).ended(id).await["status"], "SUCCEEDED");
    }

    // One sends nothing any more; what the one that is ahead accepts for its docks the one that is behind takes over as well.
    let docks: Vec<String> = several.docks_of(1).into_iter().take(4).collect();
    several.signal(1, Signal::STOP);
    let mut made = Vec::new();
    for (seconds, sn) in SECONDS.flat_map(|seconds| docks.iter().map(move |sn| (seconds, sn))) {
        let more = json!({"timeout_seconds": seconds, "if_offline": "wait"});
        let body = command(sn, "debug_mode_open", json!({}), more);
        let answer = several.api(0).post(COMMANDS, &body).await;
        made.push((answer.id(), SystemClock::new().now().wall.as_millis()));
    }
    // Walls that are set move nothing either.
    machines[0].wall.set_ms(-AHEAD_MS[0]);
    machines[2].wall.set_ms(-AHEAD_MS[2]);
    let long = several.api(0).create(&docks[0], "debug_mode_open", json!({}), more).await.id();
    several.kill(1).await;
    assert_eq!(several.api(0).ended(&long).await["status"], "SUCCEEDED");
    assert_eq!(fleet.count(&long), 1);
    let mut sent = 0;
    for (id, answered_ms) in &made {
        let ended = several.api(0).ended(id).await;
        truth::must_be_what_happened(&ended, &fleet);
        truth::must_be_in_time(&ended, &fleet, *answered_ms);
        sent += fleet.count(id);
    }
    assert!(sent < made.len(), "the time of some was over before anybody could send them");
    let name = "servers whose walls are 3.6 s apart";
    eprintln!("drill {name}: of {} commands of a dead server {sent} left, none late", made.len());
    several.shared_by(SERVERS - 1).await;
    several.stop(fleet).await;
}
