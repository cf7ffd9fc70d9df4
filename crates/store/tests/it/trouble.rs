//! A full disk, a locked database, damaged rows: errors that say so, nothing half done, and life goes on afterwards.

use std::sync::Arc;

use utmos_core::{
    command::Phase,
    ports::{Accepted, Advanced, CommandFilter, CommandStore, RegistryStore, Store, StoreError},
};
use utmos_store::SqliteStore;

use crate::{
    given::{
        accepted, change, device, moved, new, nonce, register, spec, takeoff, tenant, unmatched,
    },
    registry::credential,
    sqlite::SqlitePlace,
};

#[tokio::test]
async fn a_full_disk_refuses_whole_commands_and_is_forgotten_once_there_is_space() {
    let place = SqlitePlace::new();
    let store = Arc::new(place.store());
    let port: Arc<dyn Store> = store.clone();
    let moving = accepted(&port, spec(0, "before")).await;
    let pages: u32 = place.raw().query_row("PRAGMA page_count", [], |row| row.get(0)).unwrap();
    store.limit_pages(pages + 40).await.unwrap();

    let submit = |number: i64| {
        let store = store.clone();
        let mut wide = takeoff(number, &format!("k{number}"));
        wide.tenant = tenant(u128::from(number.unsigned_abs()));
        wide.payload = format!("\"{}\"", "x".repeat(3000)).into();
        tokio::spawn(async move {
            (wide.id, store.accept(Some(nonce(wide.id.uuid().as_u128(), 9)), new(wide)).await)
        })
    };
    let (mut made, mut refused) = (Vec::new(), Vec::new());
    for round in 0..10 {
        let tasks: Vec<_> = (1..=20).map(|number| submit(round * 100 + number)).collect();
        for task in tasks {
            match task.await.unwrap() {
                (id, Ok(Accepted::New)) => made.push(id),
                (id, Err(StoreError::Unavailable(text))) => {
                    assert!(text.contains("full"), "{text}");
                    refused.push(id);
                }
                (_, other) => panic!("{other:?}"),
            }
        }
    }
    assert!(!refused.is_empty());
    whole(&place, made.len() + 1);
    for id in &refused {
        assert_eq!(store.command(*id).await.unwrap(), None);
    }

    store.limit_pages(1_000_000).await.unwrap();
    let life = moved(&moving.life, Phase::Sending, 1);
    assert_eq!(store.advance(change(&moving, life)).await.unwrap(), Advanced::Yes);
    for id in refused {
        // The nonce of a refused command was not spent either.
        let mut again = takeoff(1, &id.to_string());
        again.tenant = tenant(u128::MAX - id.uuid().as_u128());
        again.id = id;
        let nonce = nonce(id.uuid().as_u128(), 9);
        assert_eq!(store.accept(Some(nonce), new(again)).await.unwrap(), Accepted::New);
        made.push(id);
    }
    whole(&place, made.len() + 1);
}

/// Every table holds as many of its parts as there are commands.
fn whole(place: &SqlitePlace, commands: usize) {
    let raw = place.raw();
    for sql in [
        "SELECT count(*) FROM commands",
        "SELECT count(*) FROM lives",
        "SELECT count(*) FROM idempotency",
        "SELECT count(*) FROM timeline WHERE n = 0",
        "SELECT coalesce(sum(length(keys)), 0) / 16 + 1 FROM nonces",
        "SELECT count(*) + 1 FROM motions",
    ] {
        let count: i64 = raw.query_row(sql, [], |row| row.get(0)).unwrap();
        assert_eq!(usize::try_from(count).unwrap(), commands, "{sql}");
    }
    assert_eq!(
        raw.query_row("PRAGMA integrity_check", [], |row| row.get::<_, String>(0)).unwrap(),
        "ok"
    );
}

#[tokio::test]
async fn a_database_locked_for_long_is_unavailable_and_then_available_again() {
    let place = SqlitePlace::new();
    let store = place.store();
    let lock = place.raw();
    lock.execute_batch("BEGIN IMMEDIATE").unwrap();
    let refused = store.accept(None, new(spec(0, "k"))).await;
    assert!(matches!(refused, Err(StoreError::Unavailable(_))), "{refused:?}");
    lock.execute_batch("ROLLBACK").unwrap();
    assert_eq!(store.accept(None, new(spec(0, "k"))).await.unwrap(), Accepted::New);
}

#[tokio::test]
async fn one_bad_write_does_not_harm_those_beside_it() {
    let place = SqlitePlace::new();
    let store = Arc::new(place.store());
    let port: Arc<dyn Store> = store.clone();
    accepted(&port, spec(0, "first")).await;
    let lock = place.raw();
    lock.execute_batch("BEGIN IMMEDIATE").unwrap();
    let tasks: Vec<_> = (1..=50)
        .map(|number| {
            let mut command = spec(number, &format!("k{number}"));
            if number % 10 == 0 {
                // An id that is taken: never made by a healthy server.
                command.id = spec(0, "first").id;
            }
            let store = store.clone();
            tokio::spawn(async move { store.accept(None, new(command)).await })
        })
        .collect();
    while store.queue_depth() != (0, 50) {
        tokio::task::yield_now().await;
    }
    lock.execute_batch("COMMIT").unwrap();
    for (number, task) in (1..).zip(tasks) {
        let answer = task.await.unwrap();
        if number % 10 == 0 {
            assert!(matches!(answer, Err(StoreError::Damaged(_))), "{answer:?}");
        } else {
            assert_eq!(answer.unwrap(), Accepted::New);
        }
    }
    assert_eq!(store.open_commands(None, 100).await.unwrap().len(), 46);
}

#[tokio::test]
async fn damaged_rows_are_errors_that_name_table_and_row() {
    let good = spec(0, "k").id.to_string();
    // What is damaged, how, and what its error names.
    let cases = [
        ("UPDATE commands SET device = 'a/b'", vec!["commands", &good, "device"]),
        ("UPDATE commands SET gateway = ''", vec!["commands", &good, "gateway"]),
        ("UPDATE commands SET channel = 77", vec!["commands", &good, "channel"]),
        ("UPDATE commands SET risk = -1", vec!["commands", &good, "risk"]),
        ("UPDATE commands SET tenant = x'00'", vec![]),
        ("UPDATE commands SET fingerprint = x'00'", vec!["commands", &good, "fingerprint"]),
        ("UPDATE commands SET bid = x''", vec!["commands", &good, "bid"]),
        ("UPDATE commands SET timeout_ms = -5", vec!["commands", &good, "timeout_ms"]),
        ("UPDATE commands SET deadline_boot = x'01'", vec!["commands", &good, "deadline"]),
        ("UPDATE commands SET payload = x'ff'", vec!["commands", &good, "payload"]),
        ("UPDATE lives SET response_data = x'01'", vec!["commands", &good, "response_data"]),
        ("UPDATE lives SET execution_ext = zeroblob(99)", vec!["commands", &good, "execution_ext"]),
        ("UPDATE unmatched SET raw = randomblob(99)", vec!["unmatched", "raw"]),
        ("UPDATE lives SET phase = 77", vec!["commands", &good, "phase"]),
        ("UPDATE lives SET failure = 1", vec!["commands", &good, "phase"]),
        ("UPDATE lives SET due_mono = NULL", vec!["commands", &good, "due"]),
        ("UPDATE lives SET texts = x'01'", vec!["commands", &good, "texts"]),
        ("UPDATE lives SET execution_open = 1", vec!["commands", &good, "execution"]),
        ("UPDATE lives SET execution_state = 'x'", vec!["commands", &good, "execution"]),
        ("UPDATE lives SET execution_percent = 1000", vec!["commands", &good, "execution_percent"]),
        ("UPDATE timeline SET proof = x'01ff'", vec!["timeline", &good, "proof"]),
        ("UPDATE timeline SET status_to = 99", vec!["timeline", &good, "status_to"]),
        ("UPDATE unmatched SET gateway = '/'", vec!["unmatched", "gateway"]),
        ("UPDATE devices SET kind = 99", vec!["devices D1", "kind"]),
        ("UPDATE devices SET mqtt_secret_hash = x'00'", vec!["devices D1", "mqtt_secret_hash"]),
        ("UPDATE topologies SET subs = '[{}]'", vec!["topologies D1", "subs"]),
        ("UPDATE topologies SET subs = '[{\"sn\":\"/\"}]'", vec!["topologies D1", "subs"]),
        ("UPDATE credentials SET permissions = '[\"x\"]'", vec!["credentials ak_1", "permissions"]),
        ("UPDATE credentials SET ip_allow = '[1]'", vec!["credentials ak_1", "ip_allow"]),
        (
            "UPDATE credential_secrets SET slot = slot + 5",
            vec!["credential_secrets ak_1", "slot 5"],
        ),
        ("UPDATE credential_secrets SET nonce = x'00'", vec!["credential_secrets ak_1", "nonce"]),
        ("UPDATE tenants SET id = x'00'", vec!["tenants"]),
    ];
    for (damage, names) in cases {
        let place = SqlitePlace::new();
        let store = place.store();
        fill(&store).await;
        place.raw().execute_batch(damage).unwrap();
        let errors = read_everything(&store).await;
        assert!(!errors.is_empty() || names.is_empty(), "{damage}: nothing was noticed");
        for error in errors {
            assert!(matches!(error, StoreError::Damaged(_)), "{damage}: {error:?}");
            let text = error.to_string();
            assert!(names.iter().all(|name| text.contains(*name)), "{damage}: {text}");
        }
        // Writing goes on beside it.
        let mut other = spec(50, "other");
        other.tenant = tenant(2);
        assert_eq!(store.accept(None, new(other)).await.unwrap(), Accepted::New, "{damage}");
    }
}

async fn fill(store: &SqliteStore) {
    store.accept(None, new(spec(0, "k"))).await.unwrap();
    store.keep_unmatched(unmatched(1, Some(tenant(1)))).await.unwrap();
    register(store, device("D1", tenant(1))).await;
    store.put_credential(credential("ak_1", 0)).await.unwrap();
    let subs = Vec::new();
    store.put_topology(&crate::given::gateway("D1"), Vec::new(), subs).await.unwrap();
    let created_at = crate::given::at(0);
    let named = utmos_core::ports::Tenant { id: tenant(1), name: "one".to_owned(), created_at };
    store.put_tenant(named).await.unwrap();
}

async fn read_everything(store: &SqliteStore) -> Vec<StoreError> {
    let id = spec(0, "k").id;
    let all = CommandFilter::default();
    [
        store.command(id).await.err(),
        store.command_of(tenant(1), id).await.err(),
        store.commands_of(tenant(1), all, None, 10).await.err(),
        store.open_commands(None, 10).await.err(),
        store.timeline(id).await.err(),
        store.unmatched_of(Some(tenant(1)), None, 10).await.err(),
        store.tenants().await.err(),
        store.devices().await.err(),
        store.topologies().await.err(),
        store.credentials().await.err(),
        store.credential(&utmos_core::id::ApiId::new("ak_1")).await.err(),
    ]
    .into_iter()
    .flatten()
    .collect()
}

#[tokio::test]
async fn a_database_damaged_as_a_whole_is_an_error_and_no_panic() {
    let place = SqlitePlace::new();
    let store = place.store();
    for number in 0..200 {
        store.accept(None, new(spec(number, &format!("k{number}")))).await.unwrap();
    }
    store.close().await;
    let mut bytes = std::fs::read(place.path()).unwrap();
    let from = 8192.min(bytes.len());
    for (at, byte) in bytes.iter_mut().enumerate().skip(from) {
        *byte ^= u8::try_from(at % 251).unwrap();
    }
    std::fs::write(place.path(), bytes).unwrap();
    let Ok(store) = SqliteStore::open(crate::sqlite::config(&place.path())) else { return };
    for number in 0..20 {
        let id = spec(number, &format!("k{number}")).id;
        assert!(store.command(id).await.is_err() || store.timeline(id).await.is_err());
    }
    assert!(store.accept(None, new(spec(900, "new"))).await.is_err());
    store.close().await;
}
