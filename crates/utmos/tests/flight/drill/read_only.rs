//! A database that may not be written: when the server starts, and while it runs.

use std::path::PathBuf;

use reqwest::StatusCode;
use serde_json::json;
use utmos_mqtt::ProtocolChoice;

use super::{
    ear::Ear,
    load::{Load, Times, judge},
    mount::{SmallDisk, run},
    skipped, unlimited, until, until_ready,
};
use crate::{
    api::{COMMANDS, command},
    place::{Place, fly},
};

/// All were known.
const KNOWN_PERCENT_MIN: usize = 80;

#[tokio::test]
async fn a_server_that_may_not_write_its_database_says_so_and_does_not_start() {
    let (place, _config) = Place::with_fleet(1).await;
    let disk = match SmallDisk::under(&place, 32) {
        Ok(disk) => disk,
        Err(why) => return skipped("a read-only disk at the start", &why),
    };
    disk.make_read_only(true);
    let told = place.refuses_to_start().await;
    assert!(told.contains("utmos.sqlite is read-only") && told.contains("writable"), "{told}");
    disk.make_read_only(false);
    place.spawn(None).await.stop().await;
}

/// Nobody may write to the files, root included.
pub struct Frozen(Vec<PathBuf>);

impl Frozen {
    pub fn freeze(place: &Place) -> Result<Self, String> {
        let mut frozen = Self(Vec::new());
        for name in ["utmos.sqlite", "utmos.sqlite-wal"] {
            let path = place.data_dir().join(name);
            run("chattr", &["+i", path.to_str().unwrap()])?;
            frozen.0.push(path);
        }
        Ok(frozen)
    }
}

impl Drop for Frozen {
    fn drop(&mut self) {
        for path in &self.0 {
            let _thawed = run("chattr", &["-i", path.to_str().unwrap()]);
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_database_that_becomes_read_only_stops_new_commands_until_it_is_writable_again() {
    let (mut place, mut config) = Place::with_fleet(2).await;
    place.settings.extend(unlimited());
    config.speed = 20.0;
    let mut ear = Ear::at(&mut config);
    let process = place.spawn(None).await;
    until_ready(&place).await;
    let fleet = fly(&config, (place.address, 1883).into(), ProtocolChoice::Auto).await;
    let api = place.api();
    let sns: Vec<&str> = config.docks.iter().map(|dock| dock.sn.as_str()).collect();
    let load = Load::start(&api, &sns, 60);
    load.more(20).await;
    let frozen = match Frozen::freeze(&place) {
        Ok(frozen) => frozen,
        Err(why) => {
            load.end().await;
            return skipped("a database that becomes read-only", &why);
        }
    };
    until("readyz does not say it", async || {
        let ready = api.get("/readyz").await;
        ready.status == StatusCode::SERVICE_UNAVAILABLE
            && ready.body["message"].as_str().unwrap().contains("read-only")
    })
    .await;
    let body = command(sns[0], "debug_mode_open", json!({}), json!({}));
    let refused = api.post(COMMANDS, &body).await;
    assert_eq!(refused.code(), "OVERLOADED", "{refused:?}");
    drop(frozen);
    until_ready(&place).await;
    load.more(20).await;
    let made = load.end().await;
    judge(
        "a database that becomes read-only",
        &api,
        &fleet,
        &made,
        Times::True(&mut ear),
        KNOWN_PERCENT_MIN,
    )
    .await;
    process.stop().await;
    fleet.shutdown().await;
}
