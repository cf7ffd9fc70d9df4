//! The ways out of damage, step by step as docs/recovery.md tells them.

use std::{fs, path::Path, process::Command};

use super::{
    damage::{change, damage_commands, database, killed_place, log, stopped_place},
    skipped,
};
use crate::place::Place;

const BACKUP: &str = "backup.sqlite";

fn checks(place: &Place) -> Option<i32> {
    place.utmos(&["store", "check", "--data-dir", "data"]).output().unwrap().status.code()
}

/// Runs the block of docs/recovery.md that begins with this line, in the folder of the data.
fn follow(place: &Place, title: &str) -> String {
    let text =
        fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/recovery.md"));
    let text = text.unwrap();
    let begin = format!("```sh\n# {title}\n");
    let (_, rest) = text.split_once(&begin).expect("the block is there");
    let (block, _) = rest.split_once("```").unwrap();
    let ours = Path::new(env!("CARGO_BIN_EXE_utmos")).parent().unwrap();
    let paths = std::env::var_os("PATH").unwrap();
    let paths = std::iter::once(ours.to_owned()).chain(std::env::split_paths(&paths));
    let done = Command::new("bash")
        .args(["-o", "pipefail", "-euc", block])
        .current_dir(place.data_dir())
        .env("PATH", std::env::join_paths(paths).unwrap())
        .env("BACKUP", place.path(BACKUP))
        .output()
        .unwrap();
    assert!(done.status.success(), "{title}: {done:?}");
    String::from_utf8_lossy(&done.stdout).into_owned()
}

#[tokio::test]
async fn a_backup_of_a_running_server_takes_the_place_of_what_was_damaged() {
    let (place, made) = killed_place().await;
    let process = place.spawn(None).await;
    let backup = place.path(BACKUP);
    let backup = backup.to_str().unwrap();
    let copy = || place.utmos(&["store", "backup", backup, "--data-dir", "data"]).output().unwrap();
    let done = copy();
    assert!(done.status.success(), "{done:?}");
    let again = copy();
    assert_eq!(again.status.code(), Some(1), "what is there is not written over: {again:?}");
    let check = place.utmos(&["store", "check", "--file", backup]).output().unwrap();
    assert!(check.status.success(), "{check:?}");
    process.kill().await;
    // Its log would be poured over the backup.
    assert!(log(&place).exists());
    change(&database(&place), |bytes| bytes.truncate(8192));
    follow(&place, "restore");
    let process = place.spawn(None).await;
    assert_eq!(place.api().commands().await.len(), made.len());
    process.stop().await;
    assert_eq!(checks(&place), Some(0));
}

#[tokio::test]
async fn what_can_be_read_of_a_damaged_database_is_saved_into_a_new_one() {
    if Command::new("sqlite3").arg("--version").output().is_err() {
        return skipped(
            "saving what can be read",
            "there is no sqlite3; run: apt-get install -y sqlite3",
        );
    }
    let (place, made) = stopped_place().await;
    damage_commands(&database(&place));
    assert_eq!(checks(&place), Some(1));
    // It tells what is lost, and the server starts with the rest.
    let told = follow(&place, "save");
    assert!(told.contains("states without a command"), "{told}");
    let process = place.spawn(None).await;
    let saved = place.api().commands().await.len();
    assert!(0 < saved && saved < made.len(), "{saved} of {}", made.len());
    process.stop().await;
}

#[tokio::test]
async fn without_its_damaged_log_a_server_starts_with_what_is_in_the_database() {
    let (place, made) = stopped_place().await;
    let process = place.spawn(None).await;
    let more = serde_json::json!({"timeout_seconds": 1, "if_offline": "fail"});
    for _ in 0..20 {
        let api = place.api();
        let id = api.create("DOCK-1", "debug_mode_open", serde_json::json!({}), more.clone()).await;
        api.ended(&id.id()).await;
    }
    process.kill().await;
    change(&log(&place), |bytes| bytes[40..140].fill(0x55));
    let told = place.refuses_to_start().await;
    assert!(told.contains("utmos.sqlite-wal is damaged at frame 1"), "{told}");
    follow(&place, "without the log");
    let process = place.spawn(None).await;
    let there = place.api().commands().await.len();
    assert!(made.len() <= there, "{there}");
    process.stop().await;
    assert_eq!(checks(&place), Some(0));
}

#[tokio::test]
async fn whoever_moves_everything_away_begins_anew() {
    let (place, _) = stopped_place().await;
    std::fs::remove_file(database(&place)).unwrap();
    let told = place.refuses_to_start().await;
    assert!(told.contains("utmos.sqlite is missing"), "{told}");
    follow(&place, "begin anew");
    let process = place.spawn(None).await;
    let ready = place.api().get("/readyz").await;
    assert!(ready.status.is_success(), "{ready:?}");
    process.stop().await;
    assert_eq!(checks(&place), Some(0));
}
