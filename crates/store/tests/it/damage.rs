//! Damage: every page of a file in turn, and a copy that must work like its original.

use std::{fs, sync::Arc};

use rusqlite::Connection;
use utmos_core::{
    command::Spec,
    method::Risk,
    ports::{Accepted, CommandStore, RegistryStore, StoreError},
};
use utmos_store::{JournalledStore, OpenError, SqliteStore, back_up, examine};

use crate::{
    given::{device, new, nonce, register, spec, tenant},
    registry::credential,
    sqlite::{SqlitePlace, config},
};

const PAGE: usize = 4096;

async fn filled() -> SqlitePlace {
    let place = SqlitePlace::new();
    let store = place.store();
    store.put_credential(credential("ak_1", 0)).await.unwrap();
    register(&store, device("D1", tenant(1))).await;
    for number in 0..600_i64 {
        let spent = nonce(u128::from(number.unsigned_abs()), 9);
        store.accept(Some(spent), new(spec(number, &format!("k{number}")))).await.unwrap();
    }
    store.close().await;
    place
}

/// Reads what a start reads.
async fn start(store: &SqliteStore) -> Result<(), StoreError> {
    store.credentials().await?;
    store.devices().await?;
    store.topologies().await?;
    store.open_commands(None, 1_000).await.map(drop)
}

#[tokio::test]
async fn no_page_can_be_damaged_unnoticed() {
    let place = filled().await;
    let whole = fs::read(place.path()).unwrap();
    assert!(examine(&place.path()).unwrap().faults.is_empty());
    let pages = whole.len() / PAGE;
    assert!(pages > 20, "{pages} pages");
    for page in 0..pages {
        let mut bytes = whole.clone();
        bytes[page * PAGE..][..PAGE].fill(0);
        fs::write(place.path(), &bytes).unwrap();
        match examine(&place.path()) {
            Ok(found) => assert!(!found.faults.is_empty(), "page {page}"),
            Err(err) => assert!(matches!(err, OpenError::NotADatabase(_)), "page {page}: {err}"),
        }
        match SqliteStore::open(config(&place.path())) {
            Ok(store) => {
                // What a start reads is damaged, or it stands where only later work comes by.
                if let Err(error) = start(&store).await {
                    assert!(error.to_string().contains("docs/recovery.md"), "page {page}: {error}");
                    assert!(store.trouble().is_some(), "page {page}");
                }
                store.close().await;
            }
            Err(err) => {
                let told = err.to_string();
                assert!(told.contains(place.path().to_str().unwrap()), "page {page}: {told}");
                assert!(
                    matches!(err, OpenError::Damaged { .. } | OpenError::NotADatabase(_)),
                    "page {page}: {told}"
                );
            }
        }
        let _none = fs::remove_file(place.path().with_extension("db-wal"));
        let _none = fs::remove_file(place.path().with_extension("db-shm"));
    }
}

#[tokio::test]
async fn a_store_that_has_met_damage_takes_no_new_commands() {
    let place = filled().await;
    let mut bytes = fs::read(place.path()).unwrap();
    let rows = |page: &&mut [u8]| page[0] == 0x0d && page.windows(10).any(|at| at == b"cover_open");
    bytes.chunks_exact_mut(PAGE).find(rows).unwrap().fill(0);
    fs::write(place.path(), &bytes).unwrap();
    let store = place.store();
    assert_eq!(store.trouble(), None);
    let damaged = store.command(spec(0, "k0").id).await;
    assert!(matches!(damaged, Err(StoreError::Damaged(_))), "{damaged:?}");
    let trouble = store.trouble().unwrap();
    assert!(trouble.contains(place.path().to_str().unwrap()), "{trouble}");
    let refused = store.accept(None, new(spec(500, "new"))).await;
    assert!(matches!(refused, Err(StoreError::Unavailable(_))), "{refused:?}");
    let known = store.accept(None, new(spec(501, "again"))).await;
    assert!(known.is_err(), "{known:?}");
    // What was begun is brought to its end where it can be.
    register(&store, device("D2", tenant(1))).await;
    assert!(store.trouble().is_some(), "damage does not go away");
}

#[tokio::test]
async fn an_emergency_takes_the_journal_when_a_damaged_file_cannot_keep_it() {
    let place = filled().await;
    let mut bytes = fs::read(place.path()).unwrap();
    let rows = |page: &&mut [u8]| page[0] == 0x0d && page.windows(10).any(|at| at == b"cover_open");
    bytes.chunks_exact_mut(PAGE).filter(rows).for_each(|page| page.fill(0));
    fs::write(place.path(), &bytes).unwrap();
    let journal = place.path().with_extension("journal");
    let key = config(&place.path()).master_key;
    let store = JournalledStore::open(Arc::new(place.store()), &key, &journal).unwrap();
    let stop = Spec { risk: Risk::Emergency, ..spec(900, "stop") };
    assert_eq!(store.accept(None, new(stop.clone())).await.unwrap(), Accepted::New);
    assert_eq!(store.unsettled(), 1);
    assert!(store.command(stop.id).await.unwrap().is_some());
    assert!(store.trouble().is_some(), "what is behind it is asked");
    assert!(store.accept(None, new(spec(901, "other"))).await.is_err());
}

#[tokio::test]
async fn a_full_disk_is_told_until_a_write_goes_well() {
    let place = SqlitePlace::new();
    let store = place.store();
    store.limit_pages(1).await.unwrap();
    let mut number = 0;
    while store.trouble().is_none() {
        number += 1;
        drop(store.accept(None, new(spec(number, &format!("k{number}")))).await);
    }
    let told = store.trouble().unwrap();
    assert!(told.contains("the disk is full"), "{told}");
    store.limit_pages(1_000_000).await.unwrap();
    assert_eq!(store.trouble(), None);
}

#[tokio::test]
async fn a_store_tries_by_itself_whether_it_can_write_again() {
    let place = SqlitePlace::new();
    let store = place.store();
    let lock = place.raw();
    lock.execute_batch("BEGIN IMMEDIATE").unwrap();
    assert!(store.accept(None, new(spec(0, "k"))).await.is_err());
    assert!(store.trouble().unwrap().contains("another process"));
    lock.execute_batch("ROLLBACK").unwrap();
    let well = async {
        while store.trouble().is_some() {
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
    };
    let wait = tokio::time::timeout(std::time::Duration::from_secs(60), well).await;
    assert!(wait.is_ok(), "it is still told: {:?}", store.trouble());
}

#[tokio::test]
async fn a_copy_made_at_work_works_like_its_original() {
    let place = filled().await;
    let store = place.store();
    let copy = place.path().with_extension("copy");
    store.accept(None, new(spec(900, "latest"))).await.unwrap();
    back_up(&place.path(), &copy).unwrap();
    assert!(back_up(&place.path(), &copy).is_err(), "what is there is not written over");
    assert!(examine(&copy).unwrap().faults.is_empty());
    let copied = SqliteStore::open(config(&copy)).unwrap();
    assert!(copied.command(spec(900, "latest").id).await.unwrap().is_some());
    assert_eq!(copied.credentials().await.unwrap().len(), 1);
    let mode: String = Connection::open(&copy)
        .unwrap()
        .query_row("PRAGMA journal_mode", [], |row| row.get(0))
        .unwrap();
    assert_eq!(mode, "wal");
    copied.close().await;
    store.close().await;
}
