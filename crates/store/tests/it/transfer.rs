//! From SQLite to PostgreSQL: everything, once, also when it is stopped in the middle.

#![expect(clippy::disallowed_methods, reason = "the killed process is told its databases")]

use std::{
    io::{BufRead, BufReader, Write},
    path::Path,
    process::{Command as Process, Stdio},
    sync::Arc,
};

use proptest::{prelude::*, strategy::ValueTree, test_runner::TestRunner};
use tokio::task::JoinSet;
use utmos_core::{
    command::{Outcome, Phase},
    ports::{Accepted, CommandStore, Joined, Nonce, RegistryStore, ReplicaStore, Store},
    replica::{Member, Roll},
};
use utmos_store::{
    Import, MasterKey, PostgresConfig, PostgresStore, PostgresUrl, TransferError, Transferred,
};

use crate::{
    agreement::{everything, follow, steps},
    contract::FullStore,
    given::{
        accepted, at, change, device, end, evidence, moved, new, nonce, record, register, spec,
        tenant,
    },
    postgres_commands::{PostgresPlace, config},
    postgres_replicas::{every_shard, member},
    registry::credential,
    sqlite::SqlitePlace,
};

const DATABASE: &str = "UTMOS_STORE_IMPORT_FROM";
const URL: &str = "UTMOS_STORE_IMPORT_INTO";

fn import(from: &Path, into: PostgresConfig) -> Import {
    // Small pieces, so that there are many ends of them to be stopped at.
    Import { piece_rows: 50, ..Import::new(from, into) }
}

pub async fn run(from: &SqlitePlace, into: &PostgresPlace) -> Result<Transferred, TransferError> {
    import(&from.path(), config(&into.database.url())).run(|_, _| {}).await
}

async fn refusal(from: &SqlitePlace, into: &PostgresPlace) -> String {
    let error = run(from, into).await.unwrap_err();
    let cause = std::error::Error::source(&error).map(ToString::to_string);
    format!("{error} {}", cause.unwrap_or_default())
}

/// So many commands, some of them ended, with timelines, keys and nonces.
pub async fn fill(place: &SqlitePlace, commands: u32) {
    let store = Arc::new(place.store());
    let port: Arc<dyn Store> = store.clone();
    let all: JoinSet<()> = (0..commands)
        .map(|number| {
            let port = port.clone();
            async move {
                let week = i64::from(number % 5) * 7 * 24 * 3_600_000;
                let spec = spec(week + i64::from(number), &format!("k{number}"));
                let new = new(spec);
                let command =
                    utmos_core::command::Command { spec: new.spec.clone(), life: new.life.clone() };
                let nonce = nonce(number.into(), 1_000);
                assert_eq!(port.accept(Some(nonce), new).await.unwrap(), Accepted::New);
                let line = |text| evidence(command.life.status(), text, 5);
                let lines = vec![line("a line"), line("another")];
                let lines = record(&command, command.life.version, lines);
                port.advance(lines).await.unwrap();
                if number % 3 == 0 {
                    end(&port, &command, Outcome::Succeeded, 900).await;
                }
            }
        })
        .collect();
    all.join_all().await;
    store.put_credential(credential("ak_1", 0)).await.unwrap();
    register(&*store, device("D1", tenant(1))).await;
    drop(port);
    store.close().await;
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 4, ..ProptestConfig::default() })]

    #[test]
    fn whatever_is_taken_over_answers_as_it_did_before(steps in steps()) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let (from, into) = (SqlitePlace::new(), PostgresPlace::new());
            let sqlite: Arc<dyn FullStore> = Arc::new(from.store());
            follow(&steps, &*sqlite).await;
            sqlite.put_credential(credential("ak_1", 0)).await.unwrap();
            run(&from, &into).await.unwrap();
            let postgres: Arc<dyn FullStore> = Arc::new(into.store().await);
            let (before, after) = (everything(&*sqlite).await, everything(&*postgres).await);
            assert_eq!(before, after);
            assert_eq!(postgres.generation().await.unwrap(), sqlite.generation().await.unwrap());
            assert_eq!(
                postgres.rules_generation().await.unwrap(),
                sqlite.rules_generation().await.unwrap()
            );
            let secret = |all: Vec<utmos_core::credential::Credential>| {
                all[0].secrets[0].secret.expose().to_owned()
            };
            assert_eq!(
                secret(postgres.credentials().await.unwrap()),
                secret(sqlite.credentials().await.unwrap())
            );
        });
    }
}

#[tokio::test]
async fn keys_and_nonces_stay_used_and_new_commands_come_after_those_of_before() {
    let (from, into) = (SqlitePlace::new(), PostgresPlace::new());
    fill(&from, 20).await;
    let taken = run(&from, &into).await.unwrap();
    assert_eq!((taken.of("commands"), taken.of("timeline")), (20, 20 + 20 + 7));
    assert_eq!((taken.of("idempotency"), taken.of("nonces")), (20, 20));
    let store: Arc<dyn Store> = Arc::new(into.store().await);
    for number in 0..20_u32 {
        let again = spec(9_999, &format!("k{number}"));
        let answer = store.accept(None, new(again)).await.unwrap();
        assert!(matches!(answer, Accepted::Replayed { .. }), "{answer:?}");
        let spent = store.spend_nonce(nonce(number.into(), 1_000)).await.unwrap();
        assert_eq!(spent, Nonce::Replayed);
    }
    let next = accepted(&store, spec(1, "next")).await;
    let life = moved(&next.life, Phase::Sending, 5);
    store.advance(change(&next, life)).await.unwrap();
    assert_eq!(store.newest_record().await.unwrap(), Some(at(4 * 7 * 24 * 3_600_000 + 19)));
}

#[tokio::test]
async fn a_server_that_was_there_before_does_not_stand_in_the_way_of_the_next() {
    let (from, into) = (SqlitePlace::new(), PostgresPlace::new());
    fill(&from, 3).await;
    let store = into.store().await;
    let killed = Member { alone: true, ..member(1, 1) };
    store.join(killed.clone()).await.unwrap();
    store.take(killed.id, every_shard()).await.unwrap();
    store.close().await;
    drop(store);
    run(&from, &into).await.unwrap();
    let store = into.store().await;
    assert_eq!(store.roll().await.unwrap(), Roll::default());
    assert!(matches!(store.join(member(2, 2)).await.unwrap(), Joined::Yes(_)));
    assert_eq!(store.take(member(2, 2).id, every_shard()).await.unwrap(), every_shard());
}

#[tokio::test]
async fn what_an_older_version_kept_in_clear_is_sealed_first() {
    let (from, into) = (SqlitePlace::new(), PostgresPlace::new());
    fill(&from, 3).await;
    let clear = "UPDATE lives SET texts = NULL, response_code = 'hush-hush', response_message = 'hush-hush',
        response_data = (SELECT response_data FROM lives WHERE response_data IS NOT NULL), failure_reason = 'hush-hush'";
    assert_eq!(from.raw().execute(clear, []).unwrap(), 3);
    run(&from, &into).await.unwrap();
    let (sqlite, postgres) = (from.store(), into.store().await);
    for command in postgres.open_commands(None, 9).await.unwrap() {
        assert_eq!(command.life.failure_reason.as_deref(), Some("hush-hush"));
        assert_eq!(sqlite.command(command.spec.id).await.unwrap(), Some(command));
    }
    assert!(!into.database.dump().contains("hush"));
}

#[tokio::test]
async fn a_target_that_holds_something_else_is_refused_and_left_as_it_was() {
    let (from, other, into) = (SqlitePlace::new(), SqlitePlace::new(), PostgresPlace::new());
    fill(&from, 2).await;
    fill(&other, 2).await;
    let store = into.store().await;
    assert!(refusal(&from, &into).await.contains("stop every server"), "it is open");
    register(&store, device("D1", tenant(1))).await;
    store.close().await;
    drop(store);
    let told = refusal(&from, &into).await;
    assert!(told.contains("devices") && told.contains("empty database"), "{told}");
    let dump = into.database.dump();
    assert!(!dump.contains("cover_open"));

    let into = PostgresPlace::new();
    run(&other, &into).await.unwrap();
    let told = refusal(&from, &into).await;
    assert!(told.contains("another SQLite database"), "{told}");
    let told = refusal(&other, &into).await;
    assert!(told.contains("was filled from this database before"), "{told}");
}

#[tokio::test]
async fn a_source_that_cannot_be_used_is_named() {
    let (from, into) = (SqlitePlace::new(), PostgresPlace::new());
    let told = refusal(&from, &into).await;
    assert!(told.contains("utmos.db"), "{told}");
    assert!(!from.path().exists(), "nothing was made");
    fill(&from, 2).await;
    let other_key = PostgresConfig {
        master_key: MasterKey::from_hex(&"77".repeat(32)).unwrap(),
        ..config(&into.database.url())
    };
    let told = import(&from.path(), other_key).run(|_, _| {}).await.unwrap_err().to_string();
    assert!(told.contains("master key"), "{told}");
    from.raw().execute("UPDATE lives SET phase = 900000", []).unwrap();
    let told = refusal(&from, &into).await;
    assert!(told.contains("lives") && told.contains("phase"), "{told}");
}

#[tokio::test]
async fn a_row_that_arrives_as_another_is_found_and_servers_stay_out() {
    let (from, into) = (SqlitePlace::new(), PostgresPlace::new());
    fill(&from, 5).await;
    // The database itself changes what is written.
    PostgresStore::open(config(&into.database.url())).await.unwrap().close().await;
    into.database.sql(
        "CREATE FUNCTION spoil() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN NEW.label := 'another'; RETURN NEW; END $$;
         CREATE TRIGGER spoil BEFORE INSERT ON devices FOR EACH ROW EXECUTE FUNCTION spoil()",
    );
    let told = refusal(&from, &into).await;
    assert!(told.contains("devices") && told.contains("differ"), "{told}");
    let told = PostgresStore::open(config(&into.database.url())).await.unwrap_err().to_string();
    assert!(told.contains("utmos store import"), "{told}");
}

#[tokio::test]
async fn nobody_writes_to_the_source_meanwhile() {
    let (from, into) = (SqlitePlace::new(), PostgresPlace::new());
    fill(&from, 5).await;
    let mut refused = false;
    let path = from.path();
    let looked = |_, _| {
        let conn = rusqlite::Connection::open(&path).unwrap();
        refused |= conn.execute("DELETE FROM commands", []).is_err();
    };
    import(&from.path(), config(&into.database.url())).run(looked).await.unwrap();
    assert!(refused);
    assert_eq!(into.store().await.open_commands(None, 9).await.unwrap().len(), 3);
}

/// Not a test of its own: what the killed process runs.
#[test]
fn child() {
    let (Ok(path), Ok(url)) = (std::env::var(DATABASE), std::env::var(URL)) else { return };
    let key = MasterKey::from_hex(&"5a".repeat(32)).unwrap();
    let into = PostgresConfig::new(PostgresUrl::parse(&url).unwrap(), key);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let said = |table: &str, rows| {
        let line = format!("{table} {rows}\n");
        std::io::stdout().lock().write_all(line.as_bytes()).unwrap();
    };
    runtime.block_on(import(path.as_ref(), into).run(said)).unwrap();
}

#[tokio::test]
async fn an_import_that_is_killed_again_and_again_goes_on_and_takes_everything_once() {
    let (from, into) = (SqlitePlace::new(), PostgresPlace::new());
    fill(&from, 400).await;
    let mut runner = TestRunner::deterministic();
    let mut kills = 0;
    loop {
        let pieces = 1 + (0..12_usize).new_tree(&mut runner).unwrap().current();
        let (path, url) = (from.path(), into.database.url());
        // Meanwhile the connections of this process come to their end.
        let ended = tokio::task::spawn_blocking(move || run_and_kill(&path, &url, pieces));
        if ended.await.unwrap() {
            break;
        }
        kills += 1;
        let told = PostgresStore::open(config(&into.database.url())).await.unwrap_err().to_string();
        assert!(told.contains("utmos store import"), "a part is no database: {told}");
        assert!(kills < 200);
    }
    assert!(kills > 3, "{kills} kills");
    let (sqlite, postgres): (Arc<dyn FullStore>, Arc<dyn FullStore>) =
        (Arc::new(from.store()), Arc::new(into.store().await));
    assert_eq!(everything(&*sqlite).await, everything(&*postgres).await);
    let count = |table: &str| into.database.sql(&format!("SELECT count(*) FROM {table}"));
    assert_eq!((count("commands"), count("nonces")), ("400".to_owned(), "400".to_owned()));
    assert_eq!(count("idempotency"), "400");
}

/// Kills the child after so many pieces. Answers whether it had come to its end before.
fn run_and_kill(from: &Path, into: &str, pieces: usize) -> bool {
    let mut child = Process::new(std::env::current_exe().unwrap())
        .args(["--exact", "transfer::child", "--nocapture"])
        .env(DATABASE, from)
        .env(URL, into)
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
