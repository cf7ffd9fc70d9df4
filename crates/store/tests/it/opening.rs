//! Opening what is not as it should be.

use std::{error::Error, time::Duration};

use rusqlite::Connection;
use utmos_core::{
    command::{Command, Outcome, Spec},
    evidence::Entry,
    ports::{CommandFilter, CommandStore, RegistryStore},
    time::BootId,
};
use utmos_store::{MasterKey, OpenError, SqliteConfig, SqliteStore, examine};

use crate::{
    contract::Place,
    given::{accepted, device, end, new, register, sn, spec, tenant},
    lists::{listed, many_accepted},
    registry::credential,
    sqlite::{SqlitePlace, config},
};

fn refused(place: &SqlitePlace) -> OpenError {
    let err = SqliteStore::open(config(&place.path())).unwrap_err();
    assert!(
        err.to_string().contains(place.path().to_str().unwrap()),
        "the error names the file: {err}"
    );
    err
}

#[tokio::test]
async fn another_master_key_is_refused_and_changes_nothing() {
    let place = SqlitePlace::new();
    let store = place.store();
    store.put_credential(credential("ak_1", 0)).await.unwrap();
    store.close().await;
    let other =
        SqliteConfig { master_key: MasterKey::generate().unwrap(), ..config(&place.path()) };
    let err = SqliteStore::open(other).unwrap_err();
    assert!(matches!(err, OpenError::WrongMasterKey(_)), "{err:?}");
    assert!(err.to_string().contains("another master key"), "{err}");
    let kept = place.store().credentials().await.unwrap();
    assert_eq!(kept[0].secrets[0].secret.expose(), "SECRET-THAT-IS-NEW");
}

#[test]
fn a_newer_schema_is_refused() {
    let place = SqlitePlace::new();
    drop(place.store());
    place.raw().execute("INSERT INTO schema_migrations (version) VALUES (999)", []).unwrap();
    let err = refused(&place);
    assert!(matches!(err, OpenError::NewerSchema { found: 999, .. }), "{err:?}");
}

#[test]
fn a_file_that_is_no_database_is_refused_and_left_alone() {
    let place = SqlitePlace::new();
    let text = "not a database, and long enough not to be taken for an empty one; ".repeat(20);
    std::fs::write(place.path(), &text).unwrap();
    assert!(matches!(refused(&place), OpenError::NotADatabase(_)));
    assert_eq!(std::fs::read_to_string(place.path()).unwrap(), text);
}

#[test]
fn the_database_of_another_program_is_refused_and_left_alone() {
    let place = SqlitePlace::new();
    Connection::open(place.path()).unwrap().execute_batch("CREATE TABLE theirs (x)").unwrap();
    assert!(matches!(refused(&place), OpenError::NotADatabase(_)));
    let tables: i64 =
        place.raw().query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0)).unwrap();
    assert_eq!(tables, 1);
}

#[test]
fn a_missing_folder_is_named_with_its_cause() {
    let place = SqlitePlace::new();
    let path = place.path().with_file_name("missing").join("utmos.db");
    let err = SqliteStore::open(config(&path)).unwrap_err();
    assert!(matches!(err, OpenError::File { .. }), "{err:?}");
    assert!(err.source().is_some());
}

#[test]
fn a_database_that_another_process_locks_for_long_is_refused() {
    let place = SqlitePlace::new();
    let lock = place.raw();
    lock.execute_batch("PRAGMA journal_mode = WAL; BEGIN IMMEDIATE").unwrap();
    assert!(matches!(refused(&place), OpenError::Locked(_)));
    lock.execute_batch("ROLLBACK").unwrap();
    drop(lock);
    drop(place.store());
}

#[test]
fn a_database_that_is_up_to_date_opens_while_another_process_writes() {
    let place = SqlitePlace::new();
    drop(place.store());
    let lock = place.raw();
    lock.execute_batch("BEGIN IMMEDIATE").unwrap();
    drop(place.store());
}

#[test]
fn processes_that_start_together_make_one_schema() {
    for _ in 0..5 {
        let place = SqlitePlace::new();
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| drop(place.store()));
            }
        });
        let versions: i64 = place
            .raw()
            .query_row("SELECT count(*) FROM schema_migrations", [], |row| row.get(0))
            .unwrap();
        let migrations = concat!(env!("CARGO_MANIFEST_DIR"), "/migrations/sqlite");
        assert_eq!(versions, std::fs::read_dir(migrations).unwrap().count() as i64);
    }
}

/// SQLite does not wait here by itself, so that of two processes that made one database at once, one was refused.
#[test]
fn a_new_database_that_another_process_is_making_is_waited_for() {
    let place = SqlitePlace::new();
    let other = place.raw();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    std::thread::scope(|scope| {
        let opening = scope.spawn(|| SqliteStore::open(config(&place.path())).map(drop));
        // However long it looks, up to what the store waits for others, the store opens.
        std::thread::sleep(Duration::from_millis(100));
        other.execute_batch("COMMIT").unwrap();
        opening.join().unwrap().unwrap();
    });
}

#[tokio::test]
async fn two_stores_at_once_see_each_others_work() {
    let place = SqlitePlace::new();
    let (server, admin) = (place.store(), place.store());
    for number in 0..20 {
        server.accept(None, new(spec(number, &format!("s{number}")))).await.unwrap();
        admin.accept(None, new(spec(number, &format!("a{number}")))).await.unwrap();
    }
    register(&admin, device("D1", tenant(1))).await;
    assert_eq!(server.open_commands(None, 100).await.unwrap().len(), 40);
    assert_eq!(server.devices().await.unwrap().len(), 1);
    admin.close().await;
    server.accept(None, new(spec(100, "after"))).await.unwrap();
    drop(server);
    assert_eq!(place.store().open_commands(None, 100).await.unwrap().len(), 41);
}

/// Shorter than one page or not: what was in it is not replaced by a new one.
#[tokio::test]
async fn a_database_cut_to_any_length_is_refused() {
    let place = SqlitePlace::new();
    let store = place.store();
    store.put_credential(credential("ak_1", 0)).await.unwrap();
    store.read_quickly(BootId([7; 16])).await.unwrap();
    store.close().await;
    let whole = std::fs::read(place.path()).unwrap();
    for length in [0, 1, 17, 99, 100, 511, 512, 4_095, 4_096, 8_192, whole.len() - 4_096] {
        std::fs::write(place.path(), &whole[..length]).unwrap();
        let err = refused(&place);
        let is_lost = matches!(err, OpenError::Lost { how: "empty", .. });
        assert_eq!(is_lost, length <= 1, "{length}: {err}");
        assert_eq!(
            std::fs::read(place.path()).unwrap(),
            &whole[..length],
            "{length}: it is left as it is"
        );
    }
}

async fn timelines(place: &SqlitePlace, of: &[Command]) -> Vec<Vec<Entry>> {
    let store = place.open().await;
    let mut all = Vec::new();
    for command in of {
        all.push(store.timeline(command.spec.id).await.unwrap());
    }
    all
}

/// Schema 8 had an index where the newest commands are looked through today.
#[tokio::test]
async fn lists_stay_what_they_were_when_an_older_schema_is_brought_up_to_date() {
    let place = SqlitePlace::new();
    let mut all = many_accepted(&place.open().await).await;
    for command in &mut all[..100] {
        *command = end(&place.open().await, command, Outcome::Succeeded, 9_000).await;
    }
    let timelines = timelines(&place, &all[..200]).await;
    let raw = place.raw();
    let sorted = "SELECT value FROM meta WHERE name = 'sorted'";
    let sorted_by_itself: i64 = raw.query_row(sorted, [], |row| row.get(0)).unwrap();
    assert!((700..1_280).contains(&sorted_by_itself), "{sorted_by_itself} of 1280 are sorted");
    raw.execute_batch(
        "CREATE INDEX commands_by_tenant ON commands (tenant, id);
         CREATE INDEX commands_by_device ON commands (tenant, device, id);
         DROP TABLE commands_of_tenants;
         DROP TABLE commands_of_devices;
         DELETE FROM meta WHERE name = 'sorted';
         CREATE TABLE lines (row INTEGER NOT NULL, n INTEGER NOT NULL, at INTEGER NOT NULL, status_from INTEGER NOT NULL,
             status_to INTEGER NOT NULL, proof BLOB NOT NULL, PRIMARY KEY (row, n)) STRICT, WITHOUT ROWID;
         INSERT INTO lines SELECT row, n, at, status_from, status_to, proof FROM timeline;
         DROP TABLE timeline;
         ALTER TABLE lines RENAME TO timeline;
         ALTER TABLE lives DROP COLUMN last_line;
         DROP TABLE nonces;
         CREATE TABLE nonces (n INTEGER PRIMARY KEY, key BLOB NOT NULL, expires_at INTEGER NOT NULL) STRICT;
         CREATE INDEX nonces_by_expiry ON nonces (expires_at);
         DELETE FROM schema_migrations WHERE version > 8",
    )
    .unwrap();
    let of_one = CommandFilter { device: Some(sn("D2")), ..CommandFilter::default() };
    let mut expected = all.clone();
    expected.retain(|command| command.spec.device == sn("D2"));
    let store = place.open().await;
    assert_eq!(listed(&store, &of_one).await, expected);
    assert_eq!(listed(&store, &CommandFilter::default()).await, all);
    assert_eq!(raw.query_row(sorted, [], |row| row.get(0)), Ok(1_280));
    let after = self::timelines(&place, &all[..200]).await;
    assert_eq!(after, timelines);
    assert_eq!((after[0].len(), after[199].len()), (2, 1));
    end(&store, &all[150], Outcome::Succeeded, 9_000).await;
    assert_eq!(store.timeline(all[150].spec.id).await.unwrap().len(), 2);
    expected.retain(|command| command.spec.id != all[150].spec.id);
    let newest = Spec { device: sn("D2"), ..spec(5_000, "newest") };
    expected.insert(0, accepted(&store, newest).await);
    let mut found = listed(&store, &of_one).await;
    found.retain(|command| command.spec.id != all[150].spec.id);
    assert_eq!(found, expected);
    assert!(examine(&place.path()).unwrap().faults.is_empty());
}

/// Sorting for lists is no part of any write: where it cannot be done nobody's write fails, and lists find everything.
#[tokio::test]
async fn commands_that_cannot_be_sorted_are_stored_and_listed() {
    let place = SqlitePlace::new();
    let store = place.open().await;
    let harm = "CREATE TRIGGER harm BEFORE INSERT ON commands_of_devices BEGIN SELECT RAISE(ABORT, 'no room'); END";
    place.raw().execute_batch(harm).unwrap();
    let all = many_accepted(&store).await;
    assert_eq!(listed(&store, &CommandFilter::default()).await, all);
    let of_one = CommandFilter { device: Some(sn("D2")), ..CommandFilter::default() };
    let mut expected = all;
    expected.retain(|command| command.spec.device == sn("D2"));
    assert_eq!(listed(&store, &of_one).await, expected);
    assert!(examine(&place.path()).unwrap().faults.is_empty());
}

/// As a copy of what could be saved may lack it.
#[tokio::test]
async fn a_database_that_does_not_say_what_is_sorted_works() {
    let place = SqlitePlace::new();
    let all = many_accepted(&place.open().await).await;
    let reset = "DELETE FROM meta WHERE name = 'sorted'; DELETE FROM commands_of_tenants; DELETE FROM commands_of_devices";
    place.raw().execute_batch(reset).unwrap();
    let store = place.open().await;
    assert_eq!(listed(&store, &CommandFilter::default()).await, all);
    accepted(&store, spec(9_000, "one more")).await;
    assert_eq!(listed(&store, &CommandFilter::default()).await.len(), all.len() + 1);
    assert!(examine(&place.path()).unwrap().faults.is_empty());
}

/// A backup of before an upgrade is no damaged database.
#[tokio::test]
async fn the_pages_of_an_older_schema_are_looked_at_and_not_what_is_between_its_tables() {
    let place = SqlitePlace::new();
    drop(place.store());
    assert_eq!(examine(&place.path()).unwrap().older, None);
    let older = "DELETE FROM schema_migrations WHERE version > 8; DROP TABLE commands_of_tenants";
    place.raw().execute_batch(older).unwrap();
    let found = examine(&place.path()).unwrap();
    assert_eq!((found.older, found.faults.is_empty()), (Some(8), true), "{found:?}");
}

#[tokio::test]
async fn what_nothing_leads_to_is_found_by_an_examination() {
    for harm in [
        "DELETE FROM commands_of_devices WHERE row = 7",
        "UPDATE commands_of_devices SET device = 'D9' WHERE row = 7",
        "UPDATE meta SET value = value + 1 WHERE name = 'sorted'",
        "UPDATE meta SET value = value - 1 WHERE name = 'sorted'",
        "DELETE FROM commands_of_tenants WHERE row = 7",
        "UPDATE lives SET last_line = 8 WHERE row = 7",
        "UPDATE lives SET last_line = NULL WHERE row = 7",
        "UPDATE timeline SET before = 6 WHERE row = 7",
        "UPDATE commands_of_tenants SET row = 8 WHERE row = 7",
    ] {
        let place = SqlitePlace::new();
        many_accepted(&place.open().await).await;
        assert!(examine(&place.path()).unwrap().faults.is_empty());
        place.raw().execute(harm, []).unwrap();
        let faults = examine(&place.path()).unwrap().faults;
        assert!(
            faults
                .iter()
                .any(|fault| fault.contains("that lists of a") || fault.contains("lines that")),
            "{harm}: {faults:?}"
        );
    }
}
