//! A database whose schema is older than the program, or newer: nobody is at work on it while it is changed, and nobody works on it
//! who does not know what it became.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use utmos_core::{
    ports::{Joined, ReplicaStore, StoreError},
    replica::{Member, Roll},
};
use utmos_store::{PostgresOpenError, PostgresStore};

use crate::{
    postgres_commands::{PostgresPlace, config},
    postgres_replicas::{every_shard, joined, member},
    postgres_server::Database,
};

/// What a server does that knows the schema before members were told apart by their versions.
const JOIN_OF_10: &str = "INSERT INTO replicas (id, instance, name, alone, beats, fit)
    VALUES (gen_random_uuid(), gen_random_uuid(), 'old-server', false, 0, true)";
const TO_10: &str =
    "ALTER TABLE replicas DROP COLUMN version, DROP COLUMN client_id, DROP COLUMN line;
    ALTER TABLE timeline DROP COLUMN lines;
    ALTER TYPE timeline_line DROP ATTRIBUTE lines;
    DELETE FROM schema_migrations WHERE version > 10";

fn give_signs(database: &Database, until: &AtomicBool) {
    while !until.load(Ordering::Relaxed) {
        database.sql("UPDATE replicas SET beats = beats + 1");
        std::thread::sleep(Duration::from_millis(100));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_schema_is_not_changed_under_a_server_and_is_once_that_one_is_gone() {
    let place = PostgresPlace::new();
    let (database, config) = (place.database.clone(), config(&place.database.url()));
    PostgresStore::migrate(&config).await.unwrap();
    database.sql(TO_10);
    database.sql(JOIN_OF_10);
    database.sql("UPDATE shards SET replica = (SELECT id FROM replicas)");
    let is_gone = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let living = scope.spawn(|| give_signs(&database, &is_gone));
        let refused = tokio::task::block_in_place(|| {
            let migrating = async {
                [
                    PostgresStore::migrate(&config).await.unwrap_err(),
                    PostgresStore::open(config.clone()).await.unwrap_err(),
                ]
            };
            tokio::runtime::Handle::current().block_on(migrating)
        });
        is_gone.store(true, Ordering::Relaxed);
        living.join().unwrap();
        for refused in refused {
            assert!(matches!(refused, PostgresOpenError::AtWork { found: 10, .. }), "{refused}");
            let text = refused.to_string();
            assert!(text.contains("old-server") && text.contains("stop every server"), "{text}");
        }
    });
    assert_eq!(database.sql("SELECT max(version) FROM schema_migrations"), "10");
    // It died, and nobody has expelled it.
    let store = PostgresStore::open(config).await.unwrap();
    assert_eq!(store.roll().await.unwrap(), Roll::default());
    let late = format!(
        "DO $$ BEGIN {JOIN_OF_10}; RAISE EXCEPTION 'it joined'; EXCEPTION WHEN not_null_violation THEN NULL; END $$"
    );
    database.sql(&late);
    joined(&store, member(1, 1)).await;
    assert_eq!(store.take(member(1, 1).id, every_shard()).await.unwrap(), every_shard());
    assert_eq!(database.sql("SELECT version FROM replicas"), env!("CARGO_PKG_VERSION"));
}

#[tokio::test(flavor = "multi_thread")]
async fn who_was_cut_off_while_the_schema_was_changed_does_not_come_back() {
    let place = PostgresPlace::new();
    let store = place.store().await;
    joined(&store, member(1, 1)).await;
    place.database.sql("DELETE FROM replicas; INSERT INTO schema_migrations VALUES (99, '\\x00')");
    assert_eq!(store.beat(member(1, 1).id, true).await.unwrap(), None);
    let refused = store.join(member(1, 1)).await.unwrap_err();
    let StoreError::Unavailable(text) = refused else { panic!("{refused}") };
    assert!(text.contains("schema 99") && text.contains("stop it"), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn two_servers_of_one_name_at_the_broker_are_told_apart() {
    let place = PostgresPlace::new();
    let (one, two) = (place.store().await, place.store().await);
    let named = |member: Member, name: &str| Member { client_id: Some(name.to_owned()), ..member };
    joined(&one, named(member(1, 1), "copied")).await;
    let refused = two.join(named(member(2, 2), "copied")).await.unwrap();
    assert_eq!(refused, Joined::SameClient(named(member(1, 1), "copied")));
    // The next run of the same server, and those that have another or none.
    joined(&one, named(member(1, 3), "copied")).await;
    joined(&two, named(member(2, 2), "its own")).await;
    joined(&place.store().await, member(3, 5)).await;
    let roll = joined(&place.store().await, member(4, 6)).await;
    assert_eq!(roll.members.len(), 4);
}
