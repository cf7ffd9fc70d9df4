//! What is told to be durable has been synced before it is told. A power cut cannot be drilled in a process; the order of
//! what the server asks of the system can be looked at: the command or the emergency is written, then synced, and only then
//! does the 202 leave; and what waited is claimed, then synced, and only then do its bytes leave to its dock.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use reqwest::StatusCode;
use serde_json::json;

use super::{disk::let_files_grow, skipped, until, until_ready};
use crate::{
    api::{COMMANDS, command},
    dock::PretendDock,
    place::Place,
    process::Process,
};

const LOG: &str = "/utmos.sqlite-wal>";
const JOURNAL: &str = "/emergency.journal>";
const ACCEPTED: &str = "\"HTTP/1.1 202 ";
/// Of a command on its way to its dock.
const COMMAND: &str = "/DOCK-1/services";
const CALLS: &str =
    "trace=write,writev,pwrite64,pwritev,pwritev2,sendto,sendmsg,fsync,fdatasync,sync_file_range";
/// How often each is done.
const TIMES: usize = 5;

/// The server at a place, with what it asks of the system written to a file; `None` where that cannot be done.
fn serve_watched(place: &Place) -> Option<(Command, PathBuf)> {
    let (serve, file) = (place.serve(), place.path("calls"));
    let watch = |command: &mut Command| {
        // The server stays the process that is started; whoever looks at it is the child.
        command
            .args(["-D", "-f", "-qq", "-yy", "-s", "128", "-e", CALLS, "-o"])
            .arg(&file)
            .arg("--");
    };
    let mut trial = Command::new("strace");
    watch(&mut trial);
    match trial.arg("true").output() {
        Ok(output) if output.status.success() => {}
        Ok(output) => {
            skipped("the order of syncs", &String::from_utf8_lossy(&output.stderr));
            return None;
        }
        Err(_) => {
            skipped("the order of syncs", "there is no strace; run: apt-get install -y strace");
            return None;
        }
    }
    let mut command = Command::new("strace");
    watch(&mut command);
    // Files that may not grow are told of by a signal that would end it.
    command.args(["/bin/sh", "-c", "trap '' XFSZ; exec \"$0\" \"$@\""]).arg(serve.get_program());
    command.args(serve.get_args()).current_dir(place.path("")).env_clear();
    Some((command, file))
}

/// What happened to a file, or to a caller.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Seen {
    /// It was to be written from here on.
    Written,
    /// What had been written was safe from here on.
    Synced,
    /// A 202, or a command, was about to leave.
    Told,
}

/// Reads what was asked of the system, in its order. What takes its time stands there twice, when it begins and when it has
/// ended: a write counts when it has ended, a sync must have begun after it, and counts when it has ended too, an answer when
/// it begins.
fn read(calls: &str, file: &str, told: &str) -> Vec<Seen> {
    let (mut seen, mut syncing) = (Vec::new(), Vec::new());
    for line in calls.lines() {
        let Some((thread, call)) = line.split_once(' ') else { continue };
        let call = call.trim_start();
        let resumed = call.strip_prefix("<... ").and_then(|rest| rest.split(' ').next());
        let name = resumed.unwrap_or_else(|| call.split('(').next().unwrap_or_default());
        let is_sync = ["fsync", "fdatasync"].contains(&name);
        let (is_begun, has_ended) = (resumed.is_none(), !call.ends_with("<unfinished ...>"));
        if is_begun && call.contains(told) {
            seen.push(Seen::Told);
        }
        let is_it = match resumed {
            None => call.contains(file),
            Some(_) => syncing.iter().any(|(by, _)| *by == thread),
        };
        if !is_it {
            continue;
        }
        if is_begun {
            syncing.push((thread, seen.iter().filter(|one| **one == Seen::Written).count()));
        }
        if has_ended {
            let begun = syncing.iter().rposition(|(by, _)| *by == thread).unwrap();
            let (_, written) = syncing.remove(begun);
            let is_all = written == seen.iter().filter(|one| **one == Seen::Written).count();
            match is_sync {
                true if is_all && call.ends_with("= 0") => seen.push(Seen::Synced),
                true => {}
                false => seen.push(Seen::Written),
            }
        }
    }
    seen
}

/// How many answers left after something was written and with all of it synced.
fn told_when_synced(seen: &[Seen]) -> usize {
    let parts: Vec<&[Seen]> = seen.split(|one| *one == Seen::Told).collect();
    let (_, answered) = parts.split_last().unwrap();
    for part in answered {
        assert!(part.contains(&Seen::Written), "nothing was written before it left: {seen:?}");
        assert_eq!(part.last(), Some(&Seen::Synced), "it left before it was synced: {seen:?}");
    }
    answered.len()
}

/// What was seen once so many answers stand there, and the server is gone.
fn calls(path: &Path) -> String {
    fs::read_to_string(path).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_202_leaves_when_its_command_is_synced() {
    // Nobody is there, so that nothing else is written.
    let place = Place::with_gateways(&["DOCK-1"]).await;
    let Some((serve, file)) = serve_watched(&place) else { return };
    let process = Process::start(serve).await;
    until_ready(&place).await;
    let api = place.api();
    let before = calls(&file).len();
    for _ in 0..TIMES {
        let more = json!({"timeout_seconds": 300, "if_offline": "wait"});
        let answer = api.create("DOCK-1", "debug_mode_open", json!({}), more).await;
        assert_eq!(answer.status, StatusCode::ACCEPTED, "{answer:?}");
    }
    process.stop().await;
    assert_eq!(told_when_synced(&read(&calls(&file)[before..], LOG, ACCEPTED)), TIMES);
}

/// The claim is what keeps a command from leaving twice, so it must not be lost in a power cut when its bytes are not.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_command_that_waited_leaves_when_its_claim_is_synced() {
    let place = Place::with_gateways(&["DOCK-1"]).await;
    let Some((serve, file)) = serve_watched(&place) else { return };
    let process = Process::start(serve).await;
    until_ready(&place).await;
    let api = place.api();
    for _ in 0..TIMES {
        let more = json!({"timeout_seconds": 300, "if_offline": "wait"});
        let waits = api.create("DOCK-1", "debug_mode_open", json!({}), more).await.id();
        let before = calls(&file).len();
        let mut dock = PretendDock::connect((place.address, 1883).into(), "DOCK-1").await;
        let command = dock.command().await;
        assert_eq!(command.tid(), waits);
        let seen = read(&calls(&file)[before..], LOG, COMMAND);
        assert_eq!(told_when_synced(&seen), 1, "{seen:?}");
        dock.reply(&command, json!({"result": 0})).await;
        assert_eq!(api.ended(&waits).await["status"], "SUCCEEDED");
        dock.leave().await;
        until("it counts as there", async || {
            let device = api.get("/api/v1/open/devices/DOCK-1").await.body;
            device["online"] == false
        })
        .await;
    }
    process.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_202_leaves_when_its_emergency_is_synced_in_the_journal() {
    let place = Place::with_gateways(&["DOCK-1"]).await;
    let Some((serve, file)) = serve_watched(&place) else { return };
    let process = Process::start(serve).await;
    until_ready(&place).await;
    let api = place.api();
    let_files_grow(&process, false);
    // Space in its log is used up first.
    until("commands are still taken", async || {
        let body = command("DOCK-1", "debug_mode_open", json!({}), json!({"timeout_seconds": 300}));
        api.post(COMMANDS, &body).await.status == StatusCode::SERVICE_UNAVAILABLE
    })
    .await;
    let before = calls(&file).len();
    for _ in 0..TIMES {
        let body = command(
            "DOCK-1",
            "fly_to_point_stop",
            json!({}),
            json!({"timeout_seconds": 300, "if_offline": "wait"}),
        );
        let answer = api.post(COMMANDS, &body).await;
        assert_eq!(answer.status, StatusCode::ACCEPTED, "{answer:?}");
    }
    let_files_grow(&process, true);
    process.stop().await;
    let seen = read(&calls(&file)[before..], JOURNAL, ACCEPTED);
    assert_eq!(told_when_synced(&seen), TIMES);
}

#[test]
fn the_order_of_calls_is_read_and_one_that_is_wrong_is_found() {
    let log = "3<TCP:[127.0.0.1:8080->127.0.0.1:5]>";
    let told = format!("7 sendto({log}, \"HTTP/1.1 202 Acc\"..., 99, 0, NULL, 0) = 99\n");
    let good = format!(
        "9 pwrite64(5</d/utmos.sqlite-wal>, \"\"..., 24, 0) = 24\n\
         9 fdatasync(5</d/utmos.sqlite-wal> <unfinished ...>\n\
         8 write(4</d/other>, \"\", 1) = 1\n\
         9 <... fdatasync resumed>) = 0\n{told}"
    );
    assert_eq!(read(&good, LOG, ACCEPTED), [Seen::Written, Seen::Synced, Seen::Told]);
    assert_eq!(told_when_synced(&read(&good, LOG, ACCEPTED)), 1);
    let unsynced = good.replace("fdatasync", "write");
    let early = format!("9 pwrite64(5</d/utmos.sqlite-wal>, \"\"..., 24, 0) = 24\n{told}");
    let failed = good.replace("resumed>) = 0", "resumed>) = -1 EIO (Input/output error)");
    let other = good.replace("utmos.sqlite-wal", "utmos.sqlite");
    for bad in [unsynced, early, failed, other] {
        let found = std::panic::catch_unwind(|| told_when_synced(&read(&bad, LOG, ACCEPTED)));
        assert!(found.is_err(), "{bad}");
    }
    // A command that leaves while its claim is being synced.
    let sent = "8 sendto(9<TCP:[127.0.0.1:1883->127.0.0.1:6]>, \"2p\\0\\35thing/product/DOCK-1/services\\0\"..., 99, 0, NULL, 0) = 99\n";
    let in_order = good.replace(&told, sent);
    assert_eq!(told_when_synced(&read(&in_order, LOG, COMMAND)), 1);
    let syncs = "8 write(4</d/other>, \"\", 1) = 1\n";
    let too_early = in_order.replace(sent, "").replace(syncs, &format!("{syncs}{sent}"));
    let found = std::panic::catch_unwind(|| told_when_synced(&read(&too_early, LOG, COMMAND)));
    assert!(found.is_err(), "{too_early}");
}
