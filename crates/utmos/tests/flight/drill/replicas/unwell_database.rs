//! A PostgreSQL that has no space left, or may not be written: a server does not start on it, one that runs says so and takes
//! emergencies alone, and goes on by itself once it can.

use std::os::unix::fs::{MetadataExt, chown};

use serde_json::json;
use utmos_core::time::Clock;
use utmos_server::clock::SystemClock;

use super::Several;
use crate::{
    api::{Answer, Api, COMMANDS, command},
    drill::{load::Made, mount::SmallDisk, skipped, until},
    postgres_server::Stop,
    process::Process,
};

/// Larger than what the drill writes.
const DISK_MIB: u32 = 96;
/// The same for all of PostgreSQL's data.
const WHOLE_DISK_MIB: u32 = 256;

impl Several {
    /// Waits until the first server says why it cannot store commands, and refuses one. Answers what it took.
    async fn says_and_refuses(&self, why: &str) -> Vec<Made> {
        let (api, mut made) = (self.api(0), Vec::new());
        until("readyz does not say it", async || {
            let ready = api.get("/readyz").await;
            ready.status == 503 && ready.body["message"].as_str().unwrap().contains(why)
        })
        .await;
        let sn = &self.config.docks[0].sn;
        until("it takes commands", async || {
            let answer = asked(&api, sn, "debug_mode_open", &mut made).await;
            if answer.status == 503 {
                assert_eq!((answer.code(), answer.retry_after.is_some()), ("OVERLOADED", true));
            }
            answer.status == 503
        })
        .await;
        let stop = asked(&api, sn, "fly_to_point_stop", &mut made).await;
        assert!(stop.status.is_success(), "an emergency goes all the same: {stop:?}");
        let refused = Process::refuses(self.serve(1)).await;
        assert!(refused.contains(why), "{why}: {refused}");
        made
    }

    async fn goes_on(&self) -> Vec<Made> {
        let (api, mut made) = (self.api(0), Vec::new());
        until("it is not ready again", async || api.get("/readyz").await.status.is_success()).await;
        for dock in &self.config.docks {
            let id = asked(&api, &dock.sn, "debug_mode_open", &mut made).await.id();
            assert_eq!(api.ended(&id).await["status"], "SUCCEEDED");
        }
        made
    }
}

async fn asked(api: &Api, sn: &str, method: &str, made: &mut Vec<Made>) -> Answer {
    let more = json!({"timeout_seconds": 20, "if_offline": "wait"});
    let body = command(sn, method, json!({}), more);
    let answer = api.post(COMMANDS, &body).await;
    if answer.status.is_success() {
        made.push(Made { id: answer.id(), body, answered_ms: now_ms() });
    }
    answer
}

fn now_ms() -> i64 {
    SystemClock::new().now().wall.as_millis()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_postgresql_without_space_is_named_at_the_start_and_by_readyz() {
    let mut several = Several::prepare(2).await;
    let folder = several.postgres.folder().join("small");
    let disk = match SmallDisk::at(folder.clone(), DISK_MIB) {
        Ok(disk) => disk,
        Err(why) => return skipped("a PostgreSQL without space", &why),
    };
    let owner = std::fs::metadata(several.postgres.folder()).unwrap();
    chown(&folder, Some(owner.uid()), Some(owner.gid())).unwrap();
    let name = several.database.url().rsplit('/').next().unwrap().to_owned();
    let server_wide = several.postgres.named("postgres");
    server_wide.sql(&format!("CREATE TABLESPACE small LOCATION '{}'", folder.display()));
    server_wide.sql(&format!("ALTER DATABASE {name} SET TABLESPACE small"));
    several.bring_up(0).await;
    let fleet = several.fleet().await;
    let mut made = several.goes_on().await;
    disk.fill();
    // What is asked for fills the pages that are there.
    let load = several.load_at(0);
    made.extend(several.says_and_refuses("the disk of PostgreSQL is full; free some space").await);
    disk.free();
    made.extend(several.goes_on().await);
    several.judge("a PostgreSQL without space", fleet, vec![load], made).await;
}

/// Its log is on the same disk: that is no error of a statement, PostgreSQL itself ends and does not come up again.
#[tokio::test(flavor = "multi_thread")]
async fn a_postgresql_that_ended_for_want_of_space_has_lost_nothing_when_it_is_back() {
    let mut several = Several::prepare(2).await;
    several.postgres.stop(Stop::Fast);
    let disk = match SmallDisk::beneath(several.postgres.folder().join("data"), WHOLE_DISK_MIB) {
        Ok(disk) => disk,
        Err(why) => return skipped("a PostgreSQL that ends for want of space", &why),
    };
    several.postgres.begin();
    several.bring_up(0).await;
    let fleet = several.fleet().await;
    let mut made = several.goes_on().await;
    let load = several.load_at(0);
    load.more(20).await;
    disk.fill();
    // It may come up a few times before that.
    let runs = several.postgres.folder().join("data/postmaster.pid");
    until("it lives on", async || {
        // Each needs a further file of the log.
        let mut further =
            several.database.psql_in_the_background("SELECT pg_switch_wal(), pg_sleep(0.1)");
        further.wait().unwrap();
        !runs.exists()
    })
    .await;
    let log = several.postgres.log();
    assert!(log.contains("PANIC") && log.contains("No space left on device"), "{log}");
    let why = "look at its log: its disk may be full";
    made.extend(several.says_and_refuses(why).await);
    disk.free();
    several.postgres.begin();
    made.extend(several.goes_on().await);
    several.judge("a PostgreSQL that ended for want of space", fleet, vec![load], made).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_postgresql_that_becomes_read_only_is_named_at_the_start_and_by_readyz() {
    let mut several = Several::prepare(2).await;
    several.bring_up(0).await;
    let fleet = several.fleet().await;
    let mut made = several.goes_on().await;
    let load = several.load_at(0);
    load.more(20).await;
    // As after a fail-over to a standby that was not promoted.
    several.database.sql("ALTER ROLE utmos SET default_transaction_read_only = on");
    several.database.end_connections();
    made.extend(several.says_and_refuses("PostgreSQL is read-only").await);
    several
        .database
        .sql("BEGIN READ WRITE; ALTER ROLE utmos RESET default_transaction_read_only; COMMIT");
    made.extend(several.goes_on().await);
    several.judge("a PostgreSQL that becomes read-only", fleet, vec![load], made).await;
}
