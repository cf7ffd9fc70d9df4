//! Requests that only read, answered before their nonce is in the database: they are refused when they come again, after a
//! crash and after a power cut.

use std::{fs, os::unix::fs::FileExt, path::Path, time::Duration};

use rusqlite::Connection;
use utmos_core::{
    method::Risk,
    ports::{Accepted, CommandStore, Nonce, ReadNonce, RegistryStore},
    signing::{NonceUse, RequestTimes},
    time::{BootId, Timestamp},
};
use utmos_store::SqliteStore;

use crate::{
    given::{device, new, register, spec, tenant},
    registry::credential,
    sqlite::{SqlitePlace, config},
};

/// What the clock shows, in seconds.
const NOW: i64 = 1_800_000_000;
const BOOT: BootId = BootId([1; 16]);
const NEXT_BOOT: BootId = BootId([2; 16]);

fn nonce(number: u64) -> NonceUse {
    let mut key = [0; 16];
    key[..8].copy_from_slice(&number.to_be_bytes());
    NonceUse { key, expires_at: Timestamp::from_millis((NOW + 660) * 1000) }
}

fn signed(at: i64) -> RequestTimes {
    RequestTimes {
        signed_at: Timestamp::from_millis(at * 1000),
        came_at: Timestamp::from_millis(NOW * 1000),
    }
}

async fn read(store: &SqliteStore, number: u64, at: i64) -> ReadNonce {
    store.spend_nonce_to_read(nonce(number), signed(at)).await.unwrap()
}

/// A store that answers quickly: the first request waits for the database, and the mark with it.
async fn begun(path: &Path) -> SqliteStore {
    let store = SqliteStore::open(config(path)).unwrap();
    store.read_quickly(BOOT).await.unwrap();
    assert_eq!(read(&store, 0, NOW).await, ReadNonce::Spent);
    store
}

/// What a process that dies now leaves behind; with `file`, what the file of nonces holds by then.
fn left_behind(from: &Path, file: Option<&[u8]>) -> (tempfile::TempDir, std::path::PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let to = folder.path().join("store.sqlite");
    for part in ["", "-wal", ".nonces"] {
        let name = |path: &Path| format!("{}{part}", path.display());
        fs::copy(name(from), name(&to)).unwrap();
    }
    if let Some(bytes) = file {
        fs::write(to.with_added_extension("nonces"), bytes).unwrap();
    }
    (folder, to)
}

async fn restarted(path: &Path, boot: BootId) -> SqliteStore {
    let store = SqliteStore::open(config(path)).unwrap();
    store.read_quickly(boot).await.unwrap();
    store
}

#[tokio::test]
async fn a_reader_is_answered_while_the_database_is_busy_and_refused_after_a_crash() {
    let place = SqlitePlace::new();
    let store = begun(&place.path()).await;
    let ring_before = fs::read(place.path().with_added_extension("nonces")).unwrap();
    let other = Connection::open(place.path()).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    // Nothing gets into the database, and it is answered.
    assert_eq!(read(&store, 1, NOW).await, ReadNonce::Spent);
    assert_eq!(read(&store, 1, NOW).await, ReadNonce::Replayed);
    assert!(store.knows_nonce(&nonce(1)));

    let (_folder, killed) = left_behind(&place.path(), None);
    let (_folder, cut) = left_behind(&place.path(), Some(&ring_before));
    let (_folder, moved) = left_behind(&place.path(), None);
    fs::remove_file(moved.with_added_extension("nonces")).unwrap();
    other.execute_batch("ROLLBACK").unwrap();

    let after = restarted(&killed, BOOT).await;
    for number in [0, 1] {
        assert_eq!(read(&after, number, NOW).await, ReadNonce::Replayed, "{number}");
        assert_eq!(after.spend_nonce(nonce(number)).await.unwrap(), Nonce::Replayed);
    }
    assert_eq!(read(&after, 2, NOW).await, ReadNonce::Spent, "a crash shuts nobody out");

    // The machine went down, with or without what was in the file; or the file is gone.
    for (path, boot) in [(&cut, NEXT_BOOT), (&moved, BOOT)] {
        let after = restarted(path, boot).await;
        let ReadNonce::Unclear { up_to } = read(&after, 1, NOW).await else {
            panic!("it may have been answered")
        };
        let reach = up_to.since(Timestamp::from_millis(NOW * 1000));
        assert!(reach <= Duration::from_secs(10), "{reach:?}");
        assert_eq!(read(&after, 0, NOW).await, ReadNonce::Unclear { up_to });
        let later = up_to.as_millis() / 1000 + 1;
        assert_eq!(read(&after, 2, later).await, ReadNonce::Spent, "signed later");
        // What acts is not concerned: its nonce is in the database before it is answered.
        assert_eq!(after.spend_nonce(nonce(3)).await.unwrap(), Nonce::Spent);
        after.close().await;
        // It stays refused, whatever comes then.
        let after = restarted(path, boot).await;
        assert_eq!(read(&after, 1, NOW).await, ReadNonce::Unclear { up_to });
        assert_eq!(read(&after, 2, later).await, ReadNonce::Replayed);
    }
    store.close().await;
}

#[tokio::test]
async fn an_orderly_stop_shuts_nobody_out_after_a_boot() {
    let place = SqlitePlace::new();
    let store = begun(&place.path()).await;
    for number in 1..2_000 {
        assert_eq!(read(&store, number, NOW).await, ReadNonce::Spent);
    }
    store.close().await;
    let after = restarted(&place.path(), NEXT_BOOT).await;
    for number in 0..2_000 {
        assert_eq!(read(&after, number, NOW).await, ReadNonce::Replayed, "{number}");
    }
    assert_eq!(read(&after, 2_000, NOW).await, ReadNonce::Spent);
    let forgotten = after.forget_nonces(Timestamp::from_millis(i64::MAX)).await.unwrap();
    assert_eq!(forgotten, 2_000, "all but the newest were in the database");
}

#[tokio::test(flavor = "multi_thread")]
async fn of_many_at_once_with_one_nonce_one_is_answered() {
    let place = SqlitePlace::new();
    let store = std::sync::Arc::new(begun(&place.path()).await);
    let ask = |number: u64| {
        let store = store.clone();
        tokio::spawn(async move {
            let nonce = nonce(1 + number / 4);
            match number % 4 {
                // One of four acts, on the same nonce.
                0 => store.spend_nonce(nonce).await.map(ReadNonce::from),
                // And one was signed beyond the mark.
                1 => store.spend_nonce_to_read(nonce, signed(NOW + 100)).await,
                _ => store.spend_nonce_to_read(nonce, signed(NOW)).await,
            }
        })
    };
    let asking: Vec<_> = (0..4_000).map(ask).collect();
    let mut spent = 0;
    for answer in asking {
        spent += usize::from(answer.await.unwrap().unwrap() == ReadNonce::Spent);
    }
    assert_eq!(spent, 1_000);
    store.close().await;
}

#[tokio::test]
async fn a_file_that_cannot_be_used_leaves_readers_to_the_database() {
    let place = SqlitePlace::new();
    fs::create_dir(place.path().with_added_extension("nonces")).unwrap();
    let store = SqliteStore::open(config(&place.path())).unwrap();
    store.read_quickly(BOOT).await.unwrap();
    assert_eq!(read(&store, 1, NOW).await, ReadNonce::Spent);
    assert_eq!(read(&store, 1, NOW).await, ReadNonce::Replayed);
    store.close().await;
}

#[tokio::test]
async fn a_nonce_that_was_forgotten_and_is_used_again_is_refused_after_a_crash() {
    let place = SqlitePlace::new();
    let store = begun(&place.path()).await;
    let at = |seconds: i64| Timestamp::from_millis((NOW + seconds) * 1000);
    let early = NonceUse { expires_at: at(1), ..nonce(1) };
    let spent = store.spend_nonce_to_read(early, signed(NOW)).await.unwrap();
    assert_eq!(spent, ReadNonce::Spent);
    store.spend_nonce(nonce(2)).await.unwrap();
    assert_eq!(store.forget_nonces(at(2)).await.unwrap(), 1);
    // Its record is still in the file, and the next one is in the file alone.
    let other = Connection::open(place.path()).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    assert_eq!(read(&store, 1, NOW).await, ReadNonce::Spent);
    let (_folder, killed) = left_behind(&place.path(), None);
    other.execute_batch("ROLLBACK").unwrap();
    store.close().await;

    let after = restarted(&killed, BOOT).await;
    after.spend_nonce(nonce(3)).await.unwrap();
    assert_eq!(after.forget_nonces(at(2)).await.unwrap(), 0);
    assert_eq!(read(&after, 1, NOW).await, ReadNonce::Replayed);
    after.close().await;
}

#[tokio::test]
async fn a_damaged_page_of_nonces_holds_up_no_other_write() {
    let place = SqlitePlace::new();
    let store = begun(&place.path()).await;
    register(&store, device("D1", tenant(1))).await;
    let raw = place.raw();
    // The page is read again only when another process has written.
    let sql = "PRAGMA wal_checkpoint(TRUNCATE)";
    assert_eq!(raw.query_row(sql, [], |row| row.get::<_, i64>(0)).unwrap(), 0, "all is copied");
    let sql = "SELECT rootpage FROM sqlite_schema WHERE name = 'nonces'";
    let page: u32 = raw.query_row(sql, [], |row| row.get(0)).unwrap();
    let file = fs::OpenOptions::new().write(true).open(place.path()).unwrap();
    file.write_all_at(&[0; 4096], u64::from(page - 1) * 4096).unwrap();
    raw.execute_batch("INSERT OR REPLACE INTO meta (name, value) VALUES ('write_probe', 1)")
        .unwrap();

    assert_eq!(read(&store, 1, NOW).await, ReadNonce::Spent, "it is in the file");
    store.put_credential(credential("ak_1", 0)).await.unwrap();
    assert!(store.trouble().is_some_and(|text| text.contains("damaged")));
    let mut stop = spec(1, "k1");
    stop.risk = Risk::Emergency;
    let accepted = store.accept(None, new(stop)).await.unwrap();
    assert!(matches!(accepted, Accepted::New), "{accepted:?}");
    // Whoever has a nonce is told, and nobody beside.
    let mut with_nonce = spec(2, "k2");
    with_nonce.risk = Risk::Emergency;
    let (refused, kept) = tokio::join!(
        store.accept(Some(nonce(5)), new(with_nonce)),
        store.put_credential(credential("ak_2", 0)),
    );
    assert!(refused.is_err(), "{refused:?}");
    kept.unwrap();
    assert!(
        store.spend_nonce_to_read(nonce(1), signed(NOW)).await.is_err(),
        "and not answered again"
    );
    store.close().await;

    // Nothing says that all is in the database.
    let sql = "SELECT count(*) FROM meta WHERE name IN ('reads_quick_from', 'reads_quick_up_to')";
    assert_eq!(raw.query_row(sql, [], |row| row.get::<_, i64>(0)).unwrap(), 2);
}

#[tokio::test]
async fn who_signed_long_before_a_power_cut_is_not_refused_for_it() {
    let place = SqlitePlace::new();
    let store = begun(&place.path()).await;
    assert_eq!(read(&store, 1, NOW - 40).await, ReadNonce::Spent, "the durable way");
    let (_folder, cut) = left_behind(&place.path(), None);
    store.close().await;
    let after = restarted(&cut, NEXT_BOOT).await;
    assert_eq!(read(&after, 1, NOW - 40).await, ReadNonce::Replayed);
    assert_eq!(read(&after, 2, NOW - 31).await, ReadNonce::Spent);
    let refused = read(&after, 3, NOW - 30).await;
    assert!(matches!(refused, ReadNonce::Unclear { .. }), "{refused:?}");
    assert_eq!(after.reads_refused_up_to(), Some(Timestamp::from_millis((NOW + 10) * 1000)));
    after.close().await;
}
