//! The ways out of damage, step by step as docs/recovery.md tells them.

use std::{fs, process::Command};

use super::{
    damage::{change, damage_commands, database, killed_place, log, stopped_place},
    skipped,
};
use crate::place::Place;

fn checks(place: &Place) -> Option<i32> {
    place.utmos(&["store", "check", "--data-dir", "data"]).output().unwrap().status.code()
}

/// Database, log and index of the log go together.
fn put_aside(place: &Place) {
    let aside = place.path("damaged");
    fs::create_dir(&aside).unwrap();
    for name in ["utmos.sqlite", "utmos.sqlite-wal", "utmos.sqlite-shm"] {
        let from = place.data_dir().join(name);
        if from.exists() {
            fs::rename(from, aside.join(name)).unwrap();
        }
    }
}

#[tokio::test]
async fn a_backup_of_a_running_server_takes_the_place_of_what_was_damaged() {
    let (place, made) = killed_place().await;
    let process = place.spawn(None).await;
    let backup = place.path("backup.sqlite");
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
    put_aside(&place);
    fs::copy(backup, database(&place)).unwrap();
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
    let step = "sqlite3 data/utmos.sqlite .recover | sqlite3 saved.sqlite
                sqlite3 saved.sqlite 'PRAGMA application_id = 1431588179'";
    let done = Command::new("sh").args(["-c", step]).current_dir(place.path("")).output().unwrap();
    assert!(done.status.success(), "{done:?}");
    put_aside(&place);
    fs::rename(place.path("saved.sqlite"), database(&place)).unwrap();
    // It tells what is lost, and the server starts with the rest.
    let check = place.utmos(&["store", "check", "--data-dir", "data"]).output().unwrap();
    let told = String::from_utf8_lossy(&check.stdout).into_owned();
    assert!(told.contains("states without a command"), "{check:?}");
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
    fs::rename(log(&place), place.path("log-damaged")).unwrap();
    let process = place.spawn(None).await;
    let there = place.api().commands().await.len();
    assert!(made.len() <= there, "{there}");
    process.stop().await;
    assert_eq!(checks(&place), Some(0));
}
