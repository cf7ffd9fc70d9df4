//! Commands on PostgreSQL: the contract, and what only several servers on one database can do to each other.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use utmos_core::{
    command::{Phase, Spec},
    ports::{Accepted, Advanced, CommandStore, Nonce, Store, StoreError},
};
use utmos_store::{MasterKey, PostgresConfig, PostgresStore, PostgresUrl};

use crate::{
    contract::Place,
    given::{accepted, at, change, gateway, id, moved, new, nonce, of_aircraft, sn, spec, takeoff},
    postgres_server::{Database, PostgresServer},
};

pub struct PostgresPlace {
    pub database: Database,
}

impl PostgresPlace {
    pub fn new() -> Self {
        Self { database: PostgresServer::shared().database() }
    }

    pub async fn store(&self) -> PostgresStore {
        PostgresStore::open(config(&self.database.url())).await.unwrap()
    }
}

#[async_trait]
impl Place for PostgresPlace {
    async fn open(&self) -> Arc<dyn Store> {
        Arc::new(self.store().await)
    }
}

pub fn config(url: &str) -> PostgresConfig {
    let key = MasterKey::from_hex(&"5a".repeat(32)).unwrap();
    let mut config = PostgresConfig::new(PostgresUrl::parse(url).unwrap(), key);
    config.connections = 4;
    config
}

crate::contract_tests!(PostgresPlace::new());

/// Two servers on one database.
async fn pair(place: &PostgresPlace) -> [Arc<PostgresStore>; 2] {
    let (one, two) = tokio::join!(place.store(), place.store());
    [Arc::new(one), Arc::new(two)]
}

#[tokio::test(flavor = "multi_thread")]
async fn copies_of_one_key_at_two_servers_make_one_command() {
    let place = PostgresPlace::new();
    let stores = pair(&place).await;
    for round in 0..5_i64 {
        let copies = (0..40_usize).map(|number| {
            let store = stores[number % 2].clone();
            let mut copy = spec(round * 100 + 50, &format!("k{round}"));
            // Each server makes an id of its own.
            copy.id = utmos_core::id::CommandId::new(id(round * 100 + 50, number as u64 + 1));
            let spent = nonce(u128::try_from(round * 1000).unwrap() + number as u128, 900);
            tokio::spawn(async move {
                let id = copy.id;
                (id, store.accept(Some(spent), new(copy)).await.unwrap())
            })
        });
        let mut made = Vec::new();
        let mut replayed = Vec::new();
        for copy in copies.collect::<Vec<_>>() {
            match copy.await.unwrap() {
                (id, Accepted::New) => made.push(id),
                (_, Accepted::Replayed { id, .. }) => replayed.push(id),
                other => panic!("{other:?}"),
            }
        }
        assert_eq!(made.len(), 1);
        assert_eq!(replayed, vec![made[0]; 39]);
        assert_eq!(stores[0].command(made[0]).await.unwrap().unwrap().spec.id, made[0]);
    }
    assert_eq!(place.database.sql("SELECT count(*) FROM idempotency"), "5");
    assert_eq!(place.database.sql("SELECT count(*) FROM commands"), "5");
}

#[tokio::test]
async fn a_clock_that_is_ahead_makes_no_other_server_forget_a_nonce() {
    let place = PostgresPlace::new();
    let stores = pair(&place).await;
    // Good until the year 2100; the second server has 2101.
    let (until, ahead) = (4_102_444_800_000, 4_133_980_800_000);
    let spent = nonce(1, until);
    assert_eq!(stores[0].spend_nonce(spent).await.unwrap(), Nonce::Spent);
    assert_eq!(stores[1].forget_nonces(at(ahead)).await.unwrap(), 0);
    let third = place.store().await;
    assert_eq!(third.spend_nonce(spent).await.unwrap(), Nonce::Replayed);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_nonce_at_two_servers_is_good_once() {
    let place = PostgresPlace::new();
    let stores = pair(&place).await;
    // In opposite orders, so that batches cross.
    let spend = |store: Arc<PostgresStore>, backwards: bool| {
        tokio::spawn(async move {
            let tasks: Vec<_> = (0..300_u128)
                .map(|number| if backwards { 299 - number } else { number })
                .map(|number| {
                    let store = store.clone();
                    tokio::spawn(
                        async move { store.spend_nonce(nonce(number, 900)).await.unwrap() },
                    )
                })
                .collect();
            let mut spent = 0;
            for task in tasks {
                spent += usize::from(task.await.unwrap() == Nonce::Spent);
            }
            spent
        })
    };
    let (one, two) = (spend(stores[0].clone(), false), spend(stores[1].clone(), true));
    assert_eq!(one.await.unwrap() + two.await.unwrap(), 300);
}

#[tokio::test(flavor = "multi_thread")]
async fn one_movement_of_an_aircraft_starts_at_two_servers() {
    let place = PostgresPlace::new();
    let stores = pair(&place).await;
    for round in 0..5_i64 {
        let aircraft = format!("A{round}");
        let tasks: Vec<_> = (0..20_usize)
            .map(|number| {
                let store = stores[number % 2].clone();
                let spec = takeoff(round * 100 + 1, &format!("k{round}-{number}"));
                // Through two gateways, as one that knows its aircraft and as one that does not.
                let dock = gateway(if number % 3 == 0 { "DOCK" } else { "RC" });
                let spec = Spec { gateway: dock, ..spec };
                let command = of_aircraft(spec, &aircraft);
                tokio::spawn(async move { store.accept(None, command).await.unwrap() })
            })
            .collect();
        let mut made = 0;
        for task in tasks {
            match task.await.unwrap() {
                Accepted::New => made += 1,
                Accepted::Busy { .. } => {}
                other @ (Accepted::Elsewhere
                | Accepted::Replayed { .. }
                | Accepted::Conflict { .. }
                | Accepted::NonceReplayed) => panic!("{other:?}"),
            }
        }
        assert_eq!(made, 1);
    }
    assert_eq!(place.database.sql("SELECT count(*) FROM motions"), "5");
    assert_eq!(
        place.database.sql("SELECT count(*) FROM idempotency"),
        "5",
        "of the refused none stays"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn one_of_many_changes_at_two_servers_wins_each_time() {
    let place = PostgresPlace::new();
    let stores = pair(&place).await;
    let port: Arc<dyn Store> = stores[0].clone();
    let mut command = accepted(&port, spec(0, "k")).await;
    for round in 1..=10_i64 {
        let tasks: Vec<_> = (0..20_usize)
            .map(|number| {
                let store = stores[number % 2].clone();
                let life = moved(&command.life, Phase::Sending, round);
                let change = change(&command, life.clone());
                tokio::spawn(async move { (store.advance(change).await.unwrap(), life) })
            })
            .collect();
        let mut winners = Vec::new();
        for task in tasks {
            if let (Advanced::Yes, life) = task.await.unwrap() {
                winners.push(life);
            }
        }
        assert_eq!(winners.len(), 1);
        command.life = winners.remove(0);
        assert_eq!(stores[1].command(command.spec.id).await.unwrap().unwrap().life, command.life);
    }
    assert_eq!(stores[1].timeline(command.spec.id).await.unwrap().len(), 11);
}

#[tokio::test(flavor = "multi_thread")]
async fn batches_that_cross_in_every_way_end_without_an_error() {
    let place = PostgresPlace::new();
    let stores = pair(&place).await;
    let port: Arc<dyn Store> = stores[0].clone();
    let mut known = Vec::new();
    for number in 0..20 {
        known.push(accepted(&port, spec(number, &format!("known{number}"))).await);
    }
    let tasks: Vec<_> = (0..600_usize)
        .map(|number| {
            let store = stores[number % 2].clone();
            // A few keys, nonces, aircraft and commands, in an order of its own at each server.
            let mixed = number.wrapping_mul(7919) % 601;
            let command = known[mixed % 20].clone();
            tokio::spawn(async move {
                match mixed % 3 {
                    0 => {
                        let spec = takeoff(100, &format!("k{}", mixed % 40));
                        let spec = Spec { gateway: gateway(&format!("G{}", mixed % 7)), ..spec };
                        let command = of_aircraft(spec, &format!("A{}", mixed % 5));
                        store.accept(Some(nonce(mixed as u128 % 50, 900)), command).await.map(drop)
                    }
                    1 => {
                        let life = moved(&command.life, Phase::Sending, 1);
                        store.advance(change(&command, life)).await.map(drop)
                    }
                    _ => store.spend_nonce(nonce(mixed as u128 % 50, 900)).await.map(drop),
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap().unwrap();
    }
    whole(&place.database).await;
}

/// Nothing contradicts anything.
pub async fn whole(database: &Database) {
    let found = PostgresStore::examine(&config(&database.url())).await.unwrap();
    assert!(found.faults.is_empty(), "{found:?}");
}

#[tokio::test]
async fn tables_that_contradict_each_other_are_found() {
    let place = PostgresPlace::new();
    let store = place.store().await;
    assert_eq!(store.accept(None, new(spec(0, "k"))).await.unwrap(), Accepted::New);
    let moving = of_aircraft(takeoff(1, "moving"), "A");
    assert_eq!(store.accept(None, moving).await.unwrap(), Accepted::New);
    let found = PostgresStore::examine(&config(&place.database.url())).await.unwrap();
    assert_eq!((found.faults, found.commands, found.open), (Vec::new(), Some(2), Some(2)));
    for (damage, words) in [
        ("DELETE FROM motions", "do not stand in the way: 1"),
        ("DELETE FROM idempotency", "without their idempotency key: 2"),
        ("DELETE FROM timeline", "lacks lines: 2"),
        ("DELETE FROM lives", "without a state: 2"),
    ] {
        place.database.sql(damage);
        let found = PostgresStore::examine(&config(&place.database.url())).await.unwrap();
        assert!(found.faults.iter().any(|fault| fault.contains(words)), "{damage}: {found:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_emergency_of_another_server_is_found_whatever_its_clock_says() {
    let place = PostgresPlace::new();
    let stores = pair(&place).await;
    let [here, there] = stores;
    let port: Arc<dyn Store> = here.clone();
    const WEEK: i64 = 7 * 24 * 60 * 60 * 1_000;
    let movement = takeoff(WEEK, "movement");
    let movement = accepted(&port, Spec { aircraft: Some(sn("A")), ..movement }).await.spec;
    // The other server's clock is a week behind: its id sorts before the movement's, and lies in another partition.
    let port: Arc<dyn Store> = there;
    let risk = utmos_core::method::Risk::Emergency;
    let stop = Spec { risk, aircraft: Some(sn("A")), ..spec(10, "stop") };
    let stop = accepted(&port, stop).await.spec;
    assert!(stop.id < movement.id);
    assert_eq!(here.emergency_after(&movement).await.unwrap(), Some(stop.id));
    assert_eq!(here.emergency_after(&stop).await.unwrap(), None);
    assert_eq!(here.newest_record().await.unwrap(), Some(at(WEEK)));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_without_space_refuses_whole_commands_and_is_forgotten_once_there_is_some() {
    let place = PostgresPlace::new();
    let store = place.store().await;
    assert_eq!(store.accept(None, new(spec(0, "before"))).await.unwrap(), Accepted::New);
    // What PostgreSQL says when its disk is full, said by a trigger.
    place.database.sql(
        "CREATE FUNCTION no_space() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
             RAISE EXCEPTION 'could not extend file: No space left on device' USING ERRCODE = '53100'; END $$;
         CREATE TRIGGER no_space BEFORE INSERT ON timeline FOR EACH ROW EXECUTE FUNCTION no_space();
         CREATE TRIGGER no_space BEFORE INSERT ON clocks FOR EACH ROW EXECUTE FUNCTION no_space()",
    );
    let refused = store.accept(Some(nonce(1, 900)), new(spec(1, "k"))).await.unwrap_err();
    assert!(
        matches!(&refused, StoreError::Unavailable(text) if text.contains("free some space")),
        "{refused}"
    );
    assert!(store.trouble().unwrap().contains("full"));
    place.database.sql("DROP TRIGGER no_space ON timeline; DROP TRIGGER no_space ON clocks");
    // Its end is noticed by itself.
    tokio::time::timeout(Duration::from_secs(30), async {
        while store.trouble().is_some() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await
    .unwrap();
    assert_eq!(store.newest_record().await.unwrap(), Some(at(0)), "a probe leaves no time");
    assert_eq!(store.command(spec(1, "k").id).await.unwrap(), None);
    // The nonce of a refused command was not spent either.
    let again = store.accept(Some(nonce(1, 900)), new(spec(1, "k"))).await.unwrap();
    assert_eq!(again, Accepted::New);
}

#[tokio::test(flavor = "multi_thread")]
async fn one_bad_write_does_not_harm_those_beside_it() {
    let place = PostgresPlace::new();
    let store = Arc::new(place.store().await);
    assert_eq!(store.accept(None, new(spec(0, "first"))).await.unwrap(), Accepted::New);
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
    for (number, task) in (1..).zip(tasks) {
        let answer = task.await.unwrap();
        if number % 10 == 0 {
            assert!(matches!(answer, Err(StoreError::Damaged(_))), "{answer:?}");
        } else {
            assert_eq!(answer.unwrap(), Accepted::New);
        }
    }
    assert_eq!(store.open_commands(None, 100).await.unwrap().len(), 46);
    assert_eq!(place.database.sql("SELECT count(*) FROM idempotency"), "46");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lock_that_is_held_for_long_is_unavailable_and_then_available_again() {
    let place = PostgresPlace::new();
    let store = place.store().await;
    let (holder, connection) =
        tokio_postgres::connect(&place.database.url(), tokio_postgres::NoTls).await.unwrap();
    tokio::spawn(connection);
    holder.batch_execute("BEGIN; LOCK TABLE idempotency IN EXCLUSIVE MODE").await.unwrap();
    let refused = store.accept(Some(nonce(1, 900)), new(spec(0, "k"))).await.unwrap_err();
    assert!(
        matches!(&refused, StoreError::Unavailable(text) if text.contains("lock")),
        "{refused}"
    );
    holder.batch_execute("ROLLBACK").await.unwrap();
    let again = store.accept(Some(nonce(1, 900)), new(spec(0, "k"))).await.unwrap();
    assert_eq!(again, Accepted::New);
    assert_eq!(store.trouble(), None);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_commit_that_waits_for_a_standby_that_is_gone_is_told_of_and_keeps_nothing_waiting_behind_it()
 {
    let server = PostgresServer::own();
    let place = PostgresPlace { database: server.database() };
    let store = Arc::new(place.store().await);
    let patience = std::time::Duration::from_secs(60);
    place.database.sql("ALTER SYSTEM SET synchronous_standby_names = 'gone'");
    place.database.sql("SELECT pg_reload_conf()");
    // Which of them is the first for which it counts is PostgreSQL's affair.
    let mut number = 0;
    let mut waiting = loop {
        number += 1;
        let (store, one) = (store.clone(), spec(number, &format!("k{number}")));
        let mut accepting = tokio::spawn(async move { store.accept(None, new(one)).await });
        let moment = std::time::Duration::from_millis(300);
        match tokio::time::timeout(moment, &mut accepting).await {
            Ok(answer) => assert_eq!(answer.unwrap().unwrap(), Accepted::New),
            Err(_) => break accepting,
        }
    };
    let told = async {
        loop {
            match store.trouble() {
                Some(told) => return told,
                None => tokio::time::sleep(std::time::Duration::from_millis(50)).await,
            }
        }
    };
    let told = tokio::time::timeout(patience, told).await.unwrap();
    assert!(told.contains("standby"), "{told}");
    let behind = store.accept(Some(nonce(2, 900)), new(spec(0, "behind"))).await.unwrap_err();
    assert!(
        matches!(&behind, StoreError::Unavailable(text) if text.contains("standby")),
        "{behind}"
    );
    // It is confirmed after all.
    place.database.sql("ALTER SYSTEM RESET synchronous_standby_names");
    place.database.sql("SELECT pg_reload_conf()");
    let answer = tokio::time::timeout(patience, &mut waiting).await.unwrap().unwrap();
    assert_eq!(answer.unwrap(), Accepted::New);
    assert_eq!(store.trouble(), None);
    assert_eq!(store.accept(None, new(spec(0, "next"))).await.unwrap(), Accepted::New);
}

#[tokio::test(flavor = "multi_thread")]
async fn commands_of_many_weeks_lie_in_partitions_of_their_own_and_are_found() {
    let place = PostgresPlace::new();
    let stores = pair(&place).await;
    let week = 7 * 24 * 60 * 60 * 1000;
    let tasks: Vec<_> = (0..24_usize)
        .map(|number| {
            let store = stores[number % 2].clone();
            let weeks = i64::try_from(number / 4).unwrap();
            let spec = spec(weeks * week, &format!("k{number}"));
            tokio::spawn(async move {
                let id = spec.id;
                assert_eq!(store.accept(None, new(spec)).await.unwrap(), Accepted::New);
                id
            })
        })
        .collect();
    let mut ids = Vec::new();
    for task in tasks {
        ids.push(task.await.unwrap());
    }
    let partitions = "SELECT count(*) FROM pg_inherits WHERE inhparent = 'commands'::regclass";
    assert_eq!(place.database.sql(partitions), "6");
    ids.sort();
    let open = stores[0].open_commands(None, 100).await.unwrap();
    assert_eq!(open.iter().map(|command| command.spec.id).collect::<Vec<_>>(), ids);
    for id in ids {
        assert!(stores[1].command(id).await.unwrap().is_some());
    }
}
