//! From PostgreSQL to SQLite: everything, once, also when it is stopped in the middle.

#![expect(clippy::disallowed_methods, reason = "the killed process is told its databases")]

use std::{
    io::{BufRead, BufReader, Write},
    path::{Path, PathBuf},
    process::{Command as Process, Stdio},
    sync::Arc,
};

use proptest::{prelude::*, strategy::ValueTree, test_runner::TestRunner};
use tempfile::TempDir;
use utmos_core::{
    command::{Command, Phase},
    ports::{Accepted, Advanced, CommandStore, Nonce, ReplicaStore, Store},
};
use utmos_store::{
    Export, MasterKey, PostgresConfig, PostgresStore, PostgresUrl, SqliteConfig, SqliteStore,
    TransferError, Transferred, examine,
};

use crate::{
    agreement::{everything, follow, steps},
    contract::FullStore,
    given::{accepted, at, change, moved, new, nonce, spec, tenant},
    postgres_commands::{PostgresPlace, config},
    postgres_replicas::{claim, every_shard, joined, member},
    registry::credential,
    sqlite::SqlitePlace,
    transfer,
};

const URL: &str = "UTMOS_STORE_EXPORT_FROM";
const FILE: &str = "UTMOS_STORE_EXPORT_INTO";

fn export(from: PostgresConfig, into: &Path) -> Export {
    // Small pieces, so that there are many ends of them to be stopped at.
    Export { piece_rows: 50, ..Export::new(from, into) }
}

async fn run(from: &PostgresPlace, into: &Path) -> Result<Transferred, TransferError> {
    export(config(&from.database.url()), into).run(|_, _| {}).await
}

async fn refusal(from: &PostgresPlace, into: &Path) -> String {
    run(from, into).await.unwrap_err().to_string()
}

fn file(folder: &TempDir) -> PathBuf {
    folder.path().join("utmos.sqlite")
}

fn opened(path: &Path) -> SqliteStore {
    let master_key = MasterKey::from_hex(&"5a".repeat(32)).unwrap();
    SqliteStore::open(SqliteConfig { path: path.to_owned(), master_key }).unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 4, ..ProptestConfig::default() })]

    #[test]
    fn whatever_is_taken_back_answers_as_it_did_before(steps in steps()) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let (from, folder) = (PostgresPlace::new(), tempfile::tempdir().unwrap());
            let store = Arc::new(from.store().await);
            let postgres: Arc<dyn FullStore> = store.clone();
            follow(&steps, &*postgres).await;
            postgres.put_credential(credential("ak_1", 0)).await.unwrap();
            let before = everything(&*postgres).await;
            let generations =
                (postgres.generation().await.unwrap(), postgres.rules_generation().await.unwrap());
            let secret = |all: Vec<utmos_core::credential::Credential>| {
                all[0].secrets[0].secret.expose().to_owned()
            };
            let told = secret(postgres.credentials().await.unwrap());
            drop(postgres);
            store.close().await;
            drop(store);
            run(&from, &file(&folder)).await.unwrap();
            let sqlite: Arc<dyn FullStore> = Arc::new(opened(&file(&folder)));
            assert_eq!(before, everything(&*sqlite).await);
            assert_eq!(
                generations,
                (sqlite.generation().await.unwrap(), sqlite.rules_generation().await.unwrap())
            );
            assert_eq!(told, secret(sqlite.credentials().await.unwrap()));
        });
    }
}

#[tokio::test]
async fn what_went_there_and_back_is_what_it_was_and_commands_go_on_after_it() {
    let (origin, between) = (SqlitePlace::new(), PostgresPlace::new());
    let folder = tempfile::tempdir().unwrap();
    transfer::fill(&origin, 20).await;
    let there = transfer::run(&origin, &between).await.unwrap();
    let back = run(&between, &file(&folder)).await.unwrap();
    assert_eq!(there, back);
    assert!(!export(config(&between.database.url()), &file(&folder)).part().exists());
    let found = examine(&file(&folder)).unwrap();
    assert_eq!((found.faults, found.commands), (Vec::<String>::new(), Some(20)));
    let (first, last): (Arc<dyn FullStore>, Arc<dyn FullStore>) =
        (Arc::new(origin.store()), Arc::new(opened(&file(&folder))));
    assert_eq!(everything(&*first).await, everything(&*last).await);
    let store: Arc<dyn Store> = Arc::new(opened(&file(&folder)));
    for number in 0..20_u32 {
        let again = spec(9_999, &format!("k{number}"));
        let answer = store.accept(None, new(again)).await.unwrap();
        assert!(matches!(answer, Accepted::Replayed { .. }), "{answer:?}");
        let spent = store.spend_nonce(nonce(number.into(), 1_000)).await.unwrap();
        assert_eq!(spent, Nonce::Replayed);
    }
    let next = accepted(&store, spec(1, "next")).await;
    store.advance(change(&next, moved(&next.life, Phase::Sending, 5))).await.unwrap();
    assert_eq!(store.newest_record().await.unwrap(), Some(at(4 * 7 * 24 * 3_600_000 + 19)));
    assert_eq!(store.devices().await.unwrap()[0].tenant, tenant(1));
}

#[tokio::test]
async fn a_database_that_servers_use_is_refused_and_one_that_was_exported_lets_none_in() {
    let (origin, from) = (SqlitePlace::new(), PostgresPlace::new());
    let folder = tempfile::tempdir().unwrap();
    transfer::fill(&origin, 3).await;
    transfer::run(&origin, &from).await.unwrap();
    let store = from.store().await;
    let told = refusal(&from, &file(&folder)).await;
    assert!(told.contains("stop every server"), "{told}");
    assert!(!file(&folder).exists());
    store.close().await;
    drop(store);
    // Nothing was closed by that.
    from.store().await.close().await;

    std::fs::write(file(&folder), "mine").unwrap();
    let told = refusal(&from, &file(&folder)).await;
    assert!(told.contains("is there already"), "{told}");
    assert_eq!(std::fs::read_to_string(file(&folder)).unwrap(), "mine");
    std::fs::remove_file(file(&folder)).unwrap();

    run(&from, &file(&folder)).await.unwrap();
    let told = PostgresStore::open(config(&from.database.url())).await.unwrap_err().to_string();
    assert!(told.contains("sent twice"), "{told}");
    // Once more, for whoever lost the file.
    let other = folder.path().join("other.sqlite");
    run(&from, &other).await.unwrap();
    assert_eq!(opened(&other).open_commands(None, 9).await.unwrap().len(), 2);
    // What the error says lets it be used again.
    from.database.sql("DELETE FROM meta WHERE name = 'exported'");
    assert_eq!(from.store().await.open_commands(None, 9).await.unwrap().len(), 2);
}

/// A member that holds everything, and a command that waits for it.
async fn holder(store: &PostgresStore) -> Command {
    joined(store, member(1, 1)).await;
    assert_eq!(store.take(member(1, 1).id, every_shard()).await.unwrap(), every_shard());
    let open = store.open_commands(None, 9).await.unwrap();
    open.into_iter().find(|command| command.life.phase == Phase::Waiting).unwrap()
}

#[tokio::test]
async fn a_server_that_was_cut_off_during_an_export_comes_back_to_nothing() {
    let (origin, from) = (SqlitePlace::new(), PostgresPlace::new());
    let folder = tempfile::tempdir().unwrap();
    transfer::fill(&origin, 3).await;
    transfer::run(&origin, &from).await.unwrap();
    let store = from.store().await;
    let waiting = holder(&store).await;
    // To PostgreSQL it is gone; by itself it would be back with its next sign of life.
    from.database.end_connections();
    run(&from, &file(&folder)).await.unwrap();

    let beat = store.beat(member(1, 1).id, true).await.map(|roll| roll.is_some());
    let claimed = store.advance(claim(&waiting, "server-1")).await;
    let new = store.accept(None, new(spec(7, "late"))).await;
    let again = store.join(member(1, 1)).await;
    let told = [
        beat.unwrap_err().to_string(),
        claimed.unwrap_err().to_string(),
        new.unwrap_err().to_string(),
        again.unwrap_err().to_string(),
    ];
    for told in told {
        assert!(told.contains("exported") && told.contains("stop this server"), "{told}");
    }
    assert!(store.trouble().unwrap().contains("exported"), "readyz says it");
    let left = "SELECT (SELECT count(*) FROM replicas), count(replica), count(*) FROM shards";
    assert_eq!(from.database.sql(left), "0|0|64");
}

/// Such as one whose connections go by another name, so that the export does not see them.
#[tokio::test]
async fn a_server_that_an_export_does_not_see_begins_to_send_nothing_and_joins_no_more() {
    let (origin, from) = (SqlitePlace::new(), PostgresPlace::new());
    let folder = tempfile::tempdir().unwrap();
    transfer::fill(&origin, 3).await;
    transfer::run(&origin, &from).await.unwrap();
    let url = format!("{}?application_name=unseen", from.database.url());
    let store = PostgresStore::open(config(&url)).await.unwrap();
    let waiting = holder(&store).await;
    assert!(store.beat(member(1, 1).id, true).await.unwrap().is_some());
    run(&from, &file(&folder)).await.unwrap();

    assert_eq!(store.beat(member(1, 1).id, true).await.unwrap(), None, "it is no member");
    let claimed = store.advance(claim(&waiting, "server-1")).await.unwrap();
    assert_eq!(claimed, Advanced::Elsewhere);
    assert!(store.take(member(1, 1).id, every_shard()).await.unwrap().is_empty());
    let told = store.join(member(1, 2)).await.unwrap_err().to_string();
    assert!(told.contains("exported") && told.contains("stop this server"), "{told}");
}

#[tokio::test]
async fn a_server_that_was_cut_off_during_an_import_sends_nothing_of_what_is_half_there() {
    let (origin, into) = (SqlitePlace::new(), PostgresPlace::new());
    transfer::fill(&origin, 3).await;
    let store = into.store().await;
    joined(&store, member(1, 1)).await;
    into.database.end_connections();
    // As an import leaves it that was killed.
    into.database.sql("INSERT INTO meta (name, value) VALUES ('importing', '\\x00')");
    let told = store.beat(member(1, 1).id, true).await.unwrap_err().to_string();
    assert!(told.contains("utmos store import"), "{told}");
    let told = store.join(member(1, 2)).await.unwrap_err().to_string();
    assert!(told.contains("utmos store import"), "{told}");
    into.database.sql("DELETE FROM meta WHERE name = 'importing'");
    assert!(store.beat(member(1, 1).id, true).await.unwrap().is_some(), "it goes on by itself");
}

/// Not a test of its own: what the killed process runs.
#[test]
fn child() {
    let (Ok(url), Ok(path)) = (std::env::var(URL), std::env::var(FILE)) else { return };
    let key = MasterKey::from_hex(&"5a".repeat(32)).unwrap();
    let from = PostgresConfig::new(PostgresUrl::parse(&url).unwrap(), key);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let said = |table: &str, rows| {
        let line = format!("{table} {rows}\n");
        std::io::stdout().lock().write_all(line.as_bytes()).unwrap();
    };
    runtime.block_on(export(from, path.as_ref()).run(said)).unwrap();
}

#[tokio::test]
async fn an_export_that_is_killed_again_and_again_goes_on_and_takes_everything_once() {
    let (origin, from) = (SqlitePlace::new(), PostgresPlace::new());
    let folder = tempfile::tempdir().unwrap();
    transfer::fill(&origin, 400).await;
    transfer::run(&origin, &from).await.unwrap();
    let mut runner = TestRunner::deterministic();
    let mut kills = 0;
    loop {
        let pieces = 1 + (0..12_usize).new_tree(&mut runner).unwrap().current();
        let (url, path) = (from.database.url(), file(&folder));
        let ended = tokio::task::spawn_blocking(move || run_and_kill(&url, &path, pieces));
        if ended.await.unwrap() {
            break;
        }
        kills += 1;
        assert!(!file(&folder).exists(), "a part is no database");
        let told = PostgresStore::open(config(&from.database.url())).await.unwrap_err().to_string();
        assert!(told.contains("exported"), "{told}");
        assert!(kills < 200);
    }
    assert!(kills > 3, "{kills} kills");
    let (first, last): (Arc<dyn FullStore>, Arc<dyn FullStore>) =
        (Arc::new(origin.store()), Arc::new(opened(&file(&folder))));
    assert_eq!(everything(&*first).await, everything(&*last).await);
    assert_eq!(examine(&file(&folder)).unwrap().faults, Vec::<String>::new());
}

#[tokio::test]
async fn a_row_that_is_there_as_another_is_found_and_what_belongs_elsewhere_is_refused() {
    let (origin, from, other) = (SqlitePlace::new(), PostgresPlace::new(), PostgresPlace::new());
    let folder = tempfile::tempdir().unwrap();
    transfer::fill(&origin, 200).await;
    for into in [&from, &other] {
        transfer::run(&origin, into).await.unwrap();
    }
    let (url, path) = (from.database.url(), file(&folder));
    // Devices are written by then.
    let ended = tokio::task::spawn_blocking(move || run_and_kill(&url, &path, 6)).await.unwrap();
    assert!(!ended);
    let told = refusal(&other, &file(&folder)).await;
    assert!(told.contains("begun with another database"), "{told}");
    let part = export(config(&from.database.url()), &file(&folder)).part();
    let changed = rusqlite::Connection::open(&part)
        .unwrap()
        .execute("UPDATE devices SET label = 'another'", [])
        .unwrap();
    assert_eq!(changed, 1);
    let told = refusal(&from, &file(&folder)).await;
    assert!(told.contains("devices") && told.contains("differ"), "{told}");
    assert!(!file(&folder).exists());
    // As it says.
    std::fs::remove_file(&part).unwrap();
    for beside in ["-wal", "-shm"] {
        drop(std::fs::remove_file(format!("{}{beside}", part.display())));
    }
    run(&from, &file(&folder)).await.unwrap();
}

/// Kills the child after so many pieces. Answers whether it had come to its end before.
fn run_and_kill(from: &str, into: &Path, pieces: usize) -> bool {
    let mut child = Process::new(std::env::current_exe().unwrap())
        .args(["--exact", "transfer_export::child", "--nocapture"])
        .env(URL, from)
        .env(FILE, into)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok);
    let mut seen = 0;
    for line in lines {
        seen += usize::from(
            line.contains(' ') && !line.starts_with("test ") && !line.starts_with("running"),
        );
        if seen == pieces {
            child.kill().unwrap();
        }
    }
    let ended = child.wait().unwrap();
    assert!(ended.success() || seen >= pieces, "it ended by itself");
    ended.success()
}
