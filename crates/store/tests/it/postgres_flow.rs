//! A writer whose connection carries nothing any more, while signs of life are answered on another.

use std::{sync::Arc, time::Duration};

use utmos_core::{
    ports::{Accepted, Advanced, CommandStore, ReplicaStore, StoreError},
    replica::ReplicaId,
};
use utmos_store::PostgresStore;

use crate::{
    given::{new, spec},
    postgres_commands::{PostgresPlace, config, whole},
    postgres_faults::{Cut, Wire},
    postgres_replicas::{claim, every_shard, joined, member},
};

const PATIENCE: Duration = Duration::from_secs(60);

/// Gives signs of life, each answered, until `is_so`. Answers whether what is written counted as written all the while.
async fn beat_until(store: &PostgresStore, id: ReplicaId, is_so: impl Fn() -> bool) -> bool {
    let beating = async {
        let mut is_written = true;
        while !is_so() {
            assert!(store.beat(id, true).await.unwrap().is_some());
            is_written &= store.is_written();
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        is_written
    };
    tokio::time::timeout(PATIENCE, beating).await.unwrap()
}

async fn behind(place: &PostgresPlace) -> (Arc<PostgresStore>, Wire) {
    let wire = Wire::to(place.database.address()).await;
    let address = place.database.address().to_string();
    let url = place.database.url().replace(&address, &wire.address().to_string());
    (Arc::new(PostgresStore::open(config(&url)).await.unwrap()), wire)
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_written_into_silence_is_given_up_and_another_server_does_it() {
    let place = PostgresPlace::new();
    let (mute, wire) = behind(&place).await;
    let other = place.store().await;
    let (first, second) = (member(1, 1).id, member(2, 2).id);
    joined(&mute, member(1, 1)).await;
    joined(&other, member(2, 2)).await;
    mute.take(first, every_shard()).await.unwrap();
    let waits = new(spec(1, "k"));
    assert_eq!(mute.accept(None, waits.clone()).await.unwrap(), Accepted::New);
    let waits = mute.command(waits.spec.id).await.unwrap().unwrap();

    wire.cut(Cut::Writers);
    let claiming = {
        let (mute, change) = (mute.clone(), claim(&waits, "1"));
        tokio::spawn(async move { mute.advance(change).await })
    };
    assert!(!beat_until(&mute, first, || claiming.is_finished()).await);
    let answer = claiming.await.unwrap();
    assert!(matches!(answer, Err(StoreError::Unavailable(_))), "{answer:?}");
    assert!(!mute.is_written(), "no other connection carries more");
    assert!(mute.trouble().is_some());
    // On its other connections it gives back what it holds.
    mute.release(first, every_shard()).await.unwrap();
    assert_eq!(other.take(second, every_shard()).await.unwrap(), every_shard());
    assert_eq!(other.advance(claim(&waits, "2")).await.unwrap(), Advanced::Yes);

    wire.cut(Cut::Nowhere);
    beat_until(&mute, first, || mute.trouble().is_none()).await;
    assert!(mute.is_written());
    assert_eq!(mute.advance(claim(&waits, "1")).await.unwrap(), Advanced::Lost);
    whole(&place.database).await;
}

/// All servers would be as slow.
#[tokio::test(flavor = "multi_thread")]
async fn a_writer_that_waits_for_a_lock_counts_as_one_that_writes() {
    let place = PostgresPlace::new();
    let store = Arc::new(place.store().await);
    let id = member(1, 1).id;
    joined(&store, member(1, 1)).await;
    store.take(id, every_shard()).await.unwrap();
    let (blocker, connection) =
        tokio_postgres::connect(&place.database.url(), tokio_postgres::NoTls).await.unwrap();
    tokio::spawn(connection);
    blocker.batch_execute("BEGIN; LOCK TABLE idempotency IN ACCESS EXCLUSIVE MODE").await.unwrap();
    let accepting = {
        let (store, command) = (store.clone(), new(spec(1, "k")));
        tokio::spawn(async move { store.accept(None, command).await })
    };
    assert!(beat_until(&store, id, || accepting.is_finished()).await);
    let answer = accepting.await.unwrap();
    assert!(
        matches!(&answer, Err(StoreError::Unavailable(why)) if why.contains("lock")),
        "{answer:?}"
    );
    blocker.batch_execute("ROLLBACK").await.unwrap();
    assert!(beat_until(&store, id, || store.trouble().is_none()).await);
    assert_eq!(store.accept(None, new(spec(2, "l"))).await.unwrap(), Accepted::New);
}
