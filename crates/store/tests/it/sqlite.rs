//! The contract on SQLite, and what is SQLite's own: files, processes, lanes.

use std::{
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use async_trait::async_trait;
use rusqlite::Connection;
use tempfile::TempDir;
use utmos_core::{
    command::{Command, Execution, Life, Outcome, Phase, Response, Spec, Status},
    evidence::{Entry, Proof},
    id::DeviceSn,
    method::Risk,
    ports::{
        Accepted, Advance, Advanced, CommandStore, RegistryStore, Store, StoreError, Unmatched,
    },
};
use utmos_store::{MasterKey, SqliteConfig, SqliteStore};

use crate::{
    contract::{FullPlace, FullStore, Place},
    contract_tests, full_contract_tests,
    given::{
        accepted, at, change, device, end, moved, new, nonce, register, spec, takeoff, tenant,
        unmatched,
    },
    registry::credential,
};

/// A database in a folder of its own.
pub struct SqlitePlace {
    folder: TempDir,
}

impl SqlitePlace {
    pub fn new() -> Self {
        Self { folder: tempfile::tempdir().unwrap() }
    }

    pub fn path(&self) -> PathBuf {
        self.folder.path().join("utmos.db")
    }

    pub fn store(&self) -> SqliteStore {
        SqliteStore::open(config(&self.path())).unwrap()
    }

    /// A connection past the store.
    pub fn raw(&self) -> Connection {
        let conn = Connection::open(self.path()).unwrap();
        conn.busy_timeout(Duration::from_secs(5)).unwrap();
        conn
    }
}

#[async_trait]
impl Place for SqlitePlace {
    async fn open(&self) -> Arc<dyn Store> {
        Arc::new(self.store())
    }
}

#[async_trait]
impl FullPlace for SqlitePlace {
    async fn open_full(&self) -> Arc<dyn FullStore> {
        Arc::new(self.store())
    }

    async fn at_rest(&self) -> Vec<u8> {
        // What is in the WAL is in the file afterwards.
        self.store().close().await;
        let files = std::fs::read_dir(self.folder.path()).unwrap();
        files.flat_map(|file| std::fs::read(file.unwrap().path()).unwrap()).collect()
    }
}

pub fn config(path: &Path) -> SqliteConfig {
    SqliteConfig {
        path: path.to_owned(),
        master_key: MasterKey::from_hex(&"5a".repeat(32)).unwrap(),
    }
}

contract_tests!(SqlitePlace::new());
full_contract_tests!(SqlitePlace::new());

/// A life in which a device has said something everywhere it can.
fn told(life: &Life, words: &str) -> Life {
    Life {
        response: Some(Response {
            code: Some(words.to_owned()),
            message: Some(words.to_owned()),
            data: format!("[\"{words}\"]").into(),
        }),
        failure_reason: Some(words.to_owned()),
        execution: Some(Execution {
            state: words.to_owned(),
            open: true,
            step: Some(words.to_owned()),
            percent: Some(5),
            updated_at: at(5),
            ext: Some(format!("[\"{words}\"]").into()),
        }),
        ..(*moved(life, Phase::Delivered, 5)).clone()
    }
}

#[tokio::test]
async fn what_a_device_says_stands_nowhere_in_clear() {
    let place = SqlitePlace::new();
    let store: Arc<SqliteStore> = Arc::new(place.store());
    let port: Arc<dyn Store> = store.clone();
    let command = accepted(&port, spec(0, "k")).await;
    let life = Arc::new(told(&command.life, "hush-hush"));
    assert_eq!(store.advance(change(&command, life.clone())).await.unwrap(), Advanced::Yes);
    assert_eq!(store.command(command.spec.id).await.unwrap().unwrap().life, life);
    store.close().await;
    let bytes = std::fs::read(place.path()).unwrap();
    assert!(!bytes.windows(9).any(|nine| nine == b"hush-hush"));
}

#[tokio::test]
async fn a_row_from_before_texts_were_sealed_is_read_and_sealed_when_it_changes() {
    let place = SqlitePlace::new();
    let store: Arc<SqliteStore> = Arc::new(place.store());
    let port: Arc<dyn Store> = store.clone();
    let command = accepted(&port, spec(0, "k")).await;
    let life = Arc::new(told(&command.life, "hush-hush"));
    assert_eq!(store.advance(change(&command, life.clone())).await.unwrap(), Advanced::Yes);
    let clear = "UPDATE lives SET texts = NULL, response_code = 'hush-hush', response_message = 'hush-hush',
                 failure_reason = 'hush-hush', execution_state = 'hush-hush', execution_step = 'hush-hush'";
    assert_eq!(place.raw().execute(clear, []).unwrap(), 1);
    let old = store.command(command.spec.id).await.unwrap().unwrap();
    assert_eq!(old.life, life);
    let next = moved(&life, Phase::Delivered, 6);
    assert_eq!(store.advance(change(&old, next.clone())).await.unwrap(), Advanced::Yes);
    assert_eq!(store.command(command.spec.id).await.unwrap().unwrap().life, next);
    let left =
        "SELECT count(*) FROM lives WHERE coalesce(response_code, response_message, failure_reason,
                execution_state, execution_step) IS NOT NULL";
    assert_eq!(place.raw().query_row(left, [], |row| row.get::<_, i64>(0)).unwrap(), 0);
}

#[tokio::test]
async fn everything_is_there_after_closing_and_opening_again() {
    let place = SqlitePlace::new();
    let store: Arc<SqliteStore> = Arc::new(place.store());
    let port: Arc<dyn Store> = store.clone();
    let command = accepted(&port, takeoff(0, "k")).await;
    let command = end(&port, &command, Outcome::Delivered, 10).await;
    store.spend_nonce(nonce(1, 100)).await.unwrap();
    register(&*store, device("D1", tenant(1))).await;
    store.put_credential(credential("ak_1", 0)).await.unwrap();
    let generation = store.generation().await.unwrap();
    store.close().await;
    assert!(
        !place.path().with_extension("db-wal").exists(),
        "the last one out copies and removes the WAL"
    );

    let store = place.open().await;
    assert_eq!(store.command(command.spec.id).await.unwrap(), Some(command.clone()));
    assert_eq!(store.timeline(command.spec.id).await.unwrap().len(), 2);
    assert_eq!(store.spend_nonce(nonce(1, 100)).await.unwrap(), utmos_core::ports::Nonce::Replayed);
    assert_eq!(store.devices().await.unwrap(), [device("D1", tenant(1))]);
    assert_eq!(store.generation().await.unwrap(), generation);
    assert_eq!(store.newest_record().await.unwrap(), Some(at(10)));
    let again = store.accept(None, new(takeoff(0, "k"))).await.unwrap();
    assert!(matches!(again, Accepted::Replayed { .. }), "{again:?}");
}

#[tokio::test]
async fn a_closed_store_refuses_and_may_be_closed_twice() {
    let place = SqlitePlace::new();
    let store = place.store();
    store.close().await;
    store.close().await;
    assert!(matches!(store.accept(None, new(spec(0, "k"))).await, Err(StoreError::Unavailable(_))));
    assert!(matches!(store.generation().await, Err(StoreError::Unavailable(_))));
}

#[tokio::test]
async fn closing_writes_what_is_queued() {
    let place = SqlitePlace::new();
    let store = Arc::new(place.store());
    let lock = place.raw();
    lock.execute_batch("BEGIN IMMEDIATE").unwrap();
    let tasks: Vec<_> = (0..50)
        .map(|number| {
            let store = store.clone();
            tokio::spawn(async move {
                store.accept(None, new(spec(number, &format!("k{number}")))).await
            })
        })
        .collect();
    while store.queue_depth() != (0, 50) {
        tokio::task::yield_now().await;
    }
    lock.execute_batch("COMMIT").unwrap();
    drop(lock);
    store.close().await;
    for task in tasks {
        assert_eq!(task.await.unwrap().unwrap(), Accepted::New);
    }
}

#[tokio::test]
async fn the_files_are_private() {
    let place = SqlitePlace::new();
    let store = place.open().await;
    accepted(&store, spec(0, "k")).await;
    for file in std::fs::read_dir(place.path().parent().unwrap()).unwrap() {
        let file = file.unwrap();
        let mode = file.metadata().unwrap().permissions().mode() & 0o777;
        assert_eq!(mode, 0o600, "{:?}", file.file_name());
    }
}

#[tokio::test]
async fn secrets_are_not_in_the_files() {
    let place = SqlitePlace::new();
    let store = place.store();
    let secret = "SECRET-THAT";
    store.put_credential(credential("ak_1", 0)).await.unwrap();
    // What a caller sent, and a device that repeats it in every way there is.
    let text = format!(r#"{{"password":"{secret}-IS-SENT"}}"#);
    let asked = new(Spec { payload: text.as_str().into(), ..spec(0, "k") });
    let mut command = Command { spec: asked.spec.clone(), life: asked.life.clone() };
    assert_eq!(store.accept(None, asked).await.unwrap(), Accepted::New);
    let entries = vec![reply(&text)];
    let life = Life {
        response: Some(Response { code: None, message: None, data: text.as_str().into() }),
        execution: Some(Execution {
            state: "ok".to_owned(),
            open: false,
            step: None,
            percent: None,
            updated_at: at(1),
            ext: Some(text.as_str().into()),
        }),
        ..(*moved(&command.life, Phase::Delivered, 1)).clone()
    };
    let advance = Advance {
        id: command.spec.id,
        seen: command.life.version,
        life: life.clone().into(),
        entries: entries.clone().into(),
    };
    assert_eq!(store.advance(advance).await.unwrap(), Advanced::Yes);
    command.life = life.into();
    let stray = Unmatched { raw: text.clone(), ..unmatched(1, Some(tenant(1))) };
    store.keep_unmatched(stray.clone()).await.unwrap();

    let search = |what: &str| {
        std::fs::read_dir(place.path().parent().unwrap()).unwrap().any(|file| {
            let bytes = std::fs::read(file.unwrap().path()).unwrap();
            bytes.windows(what.len()).any(|window| window == what.as_bytes())
        })
    };
    for _ in ["in the WAL", "in the database"] {
        assert!(search("integration"), "the search finds what is there");
        assert!(!search(secret));
        assert!(!search("password"));
        assert!(!search(&"5a".repeat(32)));
        store.close().await;
    }
    let store = place.store();
    assert_eq!(store.command(command.spec.id).await.unwrap(), Some(command.clone()));
    assert_eq!(store.timeline(command.spec.id).await.unwrap()[1..], entries);
    assert_eq!(store.unmatched_of(Some(tenant(1)), None, 9).await.unwrap(), [stray]);
}

#[tokio::test]
async fn a_sealed_text_opens_for_no_other_command() {
    let place = SqlitePlace::new();
    let store = place.open().await;
    let (one, other) =
        (accepted(&store, spec(0, "one")).await, accepted(&store, spec(1, "other")).await);
    let swap =
        "UPDATE commands SET payload = (SELECT payload FROM commands WHERE row = 2) WHERE row = 1";
    place.raw().execute_batch(swap).unwrap();
    let err = store.command(one.spec.id).await.unwrap_err();
    assert!(matches!(err, StoreError::Damaged(_)), "{err:?}");
    assert!(err.to_string().contains(&format!("commands {}: payload", one.spec.id)), "{err}");
    assert_eq!(store.command(other.spec.id).await.unwrap(), Some(other));
}

#[tokio::test]
async fn a_long_answer_is_whole_where_it_is_asked_for_and_cut_on_the_timeline() {
    let place = SqlitePlace::new();
    let store = place.open().await;
    let command = accepted(&store, spec(0, "k")).await;
    let text = format!("\"{}\"", "x".repeat(1 << 20));
    let response = Response { code: None, message: None, data: text.as_str().into() };
    let mut life = moved(&command.life, Phase::Delivered, 1);
    Arc::make_mut(&mut life).response = Some(response);
    let (id, seen) = (command.spec.id, command.life.version);
    let advance = Advance { id, seen, life: life.clone(), entries: Arc::from([reply(&text)]) };
    assert_eq!(store.advance(advance).await.unwrap(), Advanced::Yes);
    assert_eq!(store.command(id).await.unwrap().unwrap().life, life);
    let head = &text[..4096];
    let cut = serde_json::json!({"cut": true, "bytes": text.len(), "head": head}).to_string();
    assert_eq!(store.timeline(id).await.unwrap()[1..], [reply(&cut)]);
}

/// A line that a device answered this.
fn reply(data: &str) -> Entry {
    let proof = Proof::Reply {
        gateway: "D1".to_owned(),
        method: None,
        code: None,
        data: serde_json::from_str(data).unwrap(),
        late_response: false,
        duplicate: false,
        mismatch: None,
    };
    Entry { at: at(1), from: Status::Accepted, to: Status::Delivered, proof }
}

#[tokio::test]
async fn an_emergency_goes_past_everything_that_waits() {
    let place = SqlitePlace::new();
    let store = Arc::new(place.store());
    let lock = place.raw();
    lock.execute_batch("BEGIN IMMEDIATE").unwrap();
    let submit = |command| {
        let store = store.clone();
        tokio::spawn(async move { store.accept(None, new(command)).await.unwrap() })
    };
    let mut tasks: Vec<_> =
        (0..1000).map(|number| submit(spec(number, &format!("k{number}")))).collect();
    let mut home = takeoff(2000, "home");
    home.risk = Risk::Emergency;
    let id = home.id;
    tasks.push(submit(home));
    while store.queue_depth() != (1, 1000) {
        tokio::task::yield_now().await;
    }
    lock.execute_batch("COMMIT").unwrap();
    for task in tasks {
        assert_eq!(task.await.unwrap(), Accepted::New);
    }
    let row: i64 = lock
        .query_row("SELECT row FROM lives WHERE id = ?1", [id.uuid().as_bytes()], |row| row.get(0))
        .unwrap();
    assert_eq!(row, 1, "it was written first");
    assert_eq!(
        lock.query_row("SELECT count(*) FROM commands", [], |row| row.get::<_, i64>(0)).unwrap(),
        1001
    );
}

#[tokio::test]
async fn more_writes_than_the_queue_holds_wait_for_their_place() {
    let place = SqlitePlace::new();
    let store = Arc::new(place.store());
    let lock = place.raw();
    lock.execute_batch("BEGIN IMMEDIATE").unwrap();
    let tasks: Vec<_> = (0..6000)
        .map(|number| {
            let store = store.clone();
            tokio::spawn(async move { store.spend_nonce(nonce(number, 100)).await.unwrap() })
        })
        .collect();
    while store.queue_depth() != (0, 4096) {
        tokio::task::yield_now().await;
    }
    lock.execute_batch("COMMIT").unwrap();
    for task in tasks {
        assert_eq!(task.await.unwrap(), utmos_core::ports::Nonce::Spent);
    }
}

#[tokio::test]
async fn reading_does_not_wait_for_writing() {
    let place = SqlitePlace::new();
    let store = place.open().await;
    let command = accepted(&store, spec(0, "k")).await;
    let lock = place.raw();
    lock.execute_batch("BEGIN IMMEDIATE; DELETE FROM commands").unwrap();
    assert_eq!(store.command(command.spec.id).await.unwrap(), Some(command));
    lock.execute_batch("ROLLBACK").unwrap();
}

#[tokio::test]
async fn the_wal_does_not_grow_without_end() {
    let place = SqlitePlace::new();
    let store = Arc::new(place.store());
    let mut spec_wide = spec(0, "k");
    spec_wide.payload = format!("\"{}\"", "x".repeat(60_000)).into();
    for round in 0..12 {
        let tasks: Vec<_> = (0..100)
            .map(|number| {
                let (store, mut wide) = (store.clone(), spec_wide.clone());
                wide.idempotency_key = format!("{round}-{number}");
                wide.id = spec(round, &wide.idempotency_key).id;
                tokio::spawn(async move { store.accept(None, new(wide)).await.unwrap() })
            })
            .collect();
        for task in tasks {
            task.await.unwrap();
        }
    }
    let wal = std::fs::metadata(place.path().with_extension("db-wal")).unwrap().len();
    assert!(wal < 48 * 1024 * 1024, "{wal} bytes of WAL after 72 MB of commands");
    // Nobody writes any more: all of it gets copied.
    let raw = place.raw();
    let copied = || {
        raw.query_row("PRAGMA wal_checkpoint(NOOP)", [], |row| {
            Ok((row.get::<_, i64>(1)?, row.get::<_, i64>(2)?))
        })
        .unwrap()
    };
    let emptied = async {
        loop {
            let (length, done) = copied();
            if length == done {
                break;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), emptied).await.unwrap();
    assert_eq!(
        DeviceSn::parse("D1").unwrap(),
        store.open_commands(None, 1).await.unwrap()[0].spec.device
    );
}
