//! Files that are damaged, foreign or gone: a clear refusal, or as much as can be done without doing wrong.

use std::{
    fs,
    path::{Path, PathBuf},
};

use reqwest::{Method, StatusCode};
use serde_json::json;
use utmos_mqtt::ProtocolChoice;

use super::{until, until_ready};
use crate::{
    api::{COMMANDS, command},
    place::{Place, fly},
};

/// The length of a page of the database.
const PAGE: usize = 4096;
/// The first byte of a page that holds rows.
const ROWS: u8 = 0x0d;

/// A place whose server was killed, so that its last commands stand in the log.
pub async fn killed_place() -> (Place, Vec<String>) {
    let place = Place::with_gateways(&["DOCK-1"]).await;
    let process = place.spawn(None).await;
    let api = place.api();
    let mut made = Vec::new();
    for _ in 0..40 {
        let more = json!({"timeout_seconds": 1, "if_offline": "fail"});
        let id = api.create("DOCK-1", "debug_mode_open", json!({}), more).await.id();
        made.push(id);
    }
    for id in &made {
        assert_eq!(api.ended(id).await["failure_code"], "DEVICE_OFFLINE");
    }
    process.kill().await;
    (place, made)
}

/// The same after an orderly stop: everything is in the database file.
pub async fn stopped_place() -> (Place, Vec<String>) {
    let (place, made) = killed_place().await;
    place.spawn(None).await.stop().await;
    assert!(!log(&place).exists(), "an orderly stop leaves no log");
    (place, made)
}

pub fn database(place: &Place) -> PathBuf {
    place.data_dir().join("utmos.sqlite")
}

pub fn log(place: &Place) -> PathBuf {
    place.data_dir().join("utmos.sqlite-wal")
}

pub fn change(path: &Path, change: impl FnOnce(&mut Vec<u8>)) {
    let mut bytes = fs::read(path).unwrap();
    change(&mut bytes);
    fs::write(path, bytes).unwrap();
}

/// Zeros one page of those that hold the rows of commands, though not the last.
pub fn damage_commands(path: &Path) {
    change(path, |bytes| {
        let holds = |page: &&mut [u8]| {
            page[0] == ROWS && page.windows(15).any(|bytes| bytes == b"debug_mode_open")
        };
        bytes.chunks_exact_mut(PAGE).find(holds).expect("a page of commands").fill(0);
    });
}

/// The server does not start, and says which file and where to read on; `utmos store check` does not call it well either.
async fn is_refused(place: &Place, names: &[&str]) {
    let told = place.refuses_to_start().await;
    assert!(names.iter().all(|name| told.contains(name)), "{names:?} not in: {told}");
    let check = place.utmos(&["store", "check", "--data-dir", "data"]).output().unwrap();
    assert_eq!(check.status.code(), Some(1), "{check:?}");
}

#[tokio::test]
async fn a_database_that_was_cut_off_is_refused() {
    let (place, _) = stopped_place().await;
    change(&database(&place), |bytes| bytes.truncate(bytes.len() / 2 / PAGE * PAGE));
    is_refused(&place, &["utmos.sqlite is damaged", "docs/recovery.md"]).await;
}

#[tokio::test]
async fn a_database_without_its_beginning_is_refused() {
    let (place, _) = stopped_place().await;
    change(&database(&place), |bytes| bytes[..PAGE].fill(0));
    is_refused(&place, &["utmos.sqlite is not a database of this program", "backup"]).await;
}

#[tokio::test]
async fn damage_in_what_a_start_relies_on_is_refused() {
    let (place, _) = stopped_place().await;
    let api_id = place.given.api_id.to_string();
    change(&database(&place), |bytes| {
        let holds = |page: &[u8]| {
            page[0] != ROWS && page.windows(api_id.len()).any(|bytes| bytes == api_id.as_bytes())
        };
        bytes.chunks_exact_mut(PAGE).filter(|page| holds(page)).for_each(|page| page.fill(0));
    });
    is_refused(&place, &["utmos.sqlite is damaged", "docs/recovery.md"]).await;
}

#[tokio::test]
async fn a_log_that_is_damaged_before_whole_writes_is_refused_and_kept() {
    let (place, made) = killed_place().await;
    let whole = fs::read(log(&place)).unwrap();
    change(&log(&place), |bytes| {
        let middle = bytes.len() / 3;
        bytes[middle..middle + 100].fill(0x55);
    });
    let damaged = fs::read(log(&place)).unwrap();
    is_refused(&place, &["utmos.sqlite-wal is damaged at frame", "docs/recovery.md"]).await;
    assert_eq!(fs::read(log(&place)).unwrap(), damaged, "it is left as it is");
    // The right log put back, everything is there.
    fs::write(log(&place), whole).unwrap();
    let process = place.spawn(None).await;
    assert_eq!(place.api().commands().await.len(), made.len());
    process.stop().await;
}

#[tokio::test]
async fn the_log_of_another_database_is_refused() {
    let (place, _) = killed_place().await;
    let (other, _) = killed_place().await;
    fs::copy(log(&other), log(&place)).unwrap();
    let told = place.refuses_to_start().await;
    assert!(told.contains("utmos.sqlite"), "{told}");
    // Nothing of it came into the database.
    fs::remove_file(log(&place)).unwrap();
    let check = place.utmos(&["store", "check", "--data-dir", "data"]).output().unwrap();
    assert_eq!(check.status.code(), Some(0), "{check:?}");
}

#[tokio::test]
async fn a_missing_master_key_is_named_and_no_other_is_made() {
    let (place, made) = stopped_place().await;
    let key = place.data_dir().join("master.key");
    let kept = fs::read(&key).unwrap();
    fs::remove_file(&key).unwrap();
    let told = place.refuses_to_start().await;
    assert!(told.contains("master.key is missing") && told.contains("put it back"), "{told}");
    assert!(!key.exists(), "a new one would only be in the way");
    fs::write(&key, kept).unwrap();
    use std::os::unix::fs::PermissionsExt;
    fs::set_permissions(&key, fs::Permissions::from_mode(0o600)).unwrap();
    let process = place.spawn(None).await;
    assert_eq!(place.api().commands().await.len(), made.len());
    process.stop().await;
}

#[tokio::test]
async fn a_damaged_emergency_journal_is_copied_and_told_and_holds_nothing_up() {
    let (place, _) = stopped_place().await;
    let journal = place.data_dir().join("emergency.journal");
    change(&journal, |bytes| bytes[..9].copy_from_slice(b"damaged!\n"));
    let process = place.spawn(None).await;
    let told = process.log();
    assert!(told.contains("emergency.journal.damaged-1"), "{told}");
    let copy = fs::read(place.data_dir().join("emergency.journal.damaged-1")).unwrap();
    assert!(copy.starts_with(b"damaged!"));
    until_ready(&place).await;
    process.stop().await;
}

#[tokio::test]
async fn damage_that_is_met_at_work_stops_new_commands_but_no_emergency() {
    let (place, config) = Place::with_fleet(1).await;
    let mut process = place.spawn(None).await;
    let sn = config.docks[0].sn.clone();
    let fleet = fly(&config, (place.address, 1883).into(), ProtocolChoice::Auto).await;
    let api = place.api();
    let mut made = Vec::new();
    for _ in 0..40 {
        made.push(api.create(&sn, "debug_mode_open", json!({}), json!({})).await.id());
    }
    for id in &made {
        api.ended(id).await;
    }
    process.stop().await;
    damage_commands(&database(&place));
    // Nothing that a start needs is damaged.
    process = place.spawn(None).await;
    until_ready(&place).await;
    until("the dock does not come back", async || {
        let asked = api.create(&sn, "debug_mode_open", json!({}), json!({"dry_run": true})).await;
        asked.body["gateway_online"] == true
    })
    .await;
    let mut met = 0;
    for id in &made {
        let answer = api.get(&format!("{COMMANDS}/{id}")).await;
        met += usize::from(answer.status == StatusCode::INTERNAL_SERVER_ERROR);
    }
    assert!(0 < met && met < made.len(), "the others can be read: {met}");
    let ready = api.get("/readyz").await;
    assert_eq!(ready.status, StatusCode::SERVICE_UNAVAILABLE, "{ready:?}");
    assert!(ready.body["message"].as_str().unwrap().contains("utmos store check"), "{ready:?}");
    let body = command(&sn, "debug_mode_open", json!({}), json!({}));
    let refused = api.try_request(Method::POST, COMMANDS, Some(&body)).await.unwrap();
    assert_eq!(refused.code(), "OVERLOADED", "{refused:?}");
    let stop = api.create(&sn, "fly_to_point_stop", json!({}), json!({})).await.id();
    until("the emergency does not go out", async || fleet.count(&stop) == 1).await;
    let told = process.stop().await;
    assert!(told.contains("the database is damaged"), "{told}");
    fleet.shutdown().await;
}
