//! Weeks of commands: made ahead, dropped when they are old, kept while they are needed.

use std::{sync::Arc, time::Duration};

use utmos_core::{
    command::Outcome,
    ports::{Accepted, Store},
};
use utmos_store::{PostgresStore, WeeksTidied};

use crate::{
    given::{accepted, at, end, new, spec},
    postgres_commands::{PostgresPlace, config},
};

const WEEK_MS: i64 = 7 * 24 * 3_600_000;

#[tokio::test]
async fn old_weeks_go_whole_with_their_keys_and_those_that_are_needed_stay() {
    let place = PostgresPlace::new();
    let store: Arc<dyn Store> = Arc::new(place.store().await);
    let tidy = async |week: i64, weeks_kept: u32| {
        let keep = Duration::from_hours(24 * 7) * weeks_kept;
        let config = config(&place.database.url());
        PostgresStore::tidy_weeks(&config, at(week * WEEK_MS), keep).await.unwrap()
    };
    let mut commands = Vec::new();
    for week in 0..4 {
        commands.push(accepted(&store, spec(week * WEEK_MS, &format!("k{week}"))).await);
    }
    for week in [0, 2, 3] {
        end(&store, &commands[week], Outcome::Succeeded, 4 * WEEK_MS).await;
    }
    assert_eq!(tidy(3, 5).await, WeeksTidied::default());
    let is_there = "SELECT count(*) FROM pg_inherits WHERE inhparent = 'commands'::regclass";
    assert_eq!(place.database.sql(is_there), "5", "one is made ahead");

    // Ended before the third week began, one of them with a command that is not.
    let tidied = WeeksTidied { dropped: 1, needed: 1, busy: 0, ..WeeksTidied::default() };
    assert_eq!(tidy(3, 1).await, tidied);
    let left = store.commands_of(commands[0].spec.tenant, Default::default(), None, 9).await;
    let left: Vec<_> = left.unwrap().into_iter().map(|command| command.spec.id).collect();
    assert_eq!(left, [3, 2, 1].map(|week| commands[week].spec.id));
    assert_eq!(store.command(commands[0].spec.id).await.unwrap(), None);
    assert!(store.timeline(commands[0].spec.id).await.unwrap().is_empty());
    // A key lives as long as its command.
    for (week, is_new) in [(0, true), (1, false), (2, false)] {
        let again = spec(3 * WEEK_MS + week, &format!("k{week}"));
        let answer = store.accept(None, new(again)).await.unwrap();
        assert_eq!(answer == Accepted::New, is_new, "{week}: {answer:?}");
    }
    end(&store, &commands[1], Outcome::Succeeded, 4 * WEEK_MS).await;
    // The one that was made ahead goes with them; the key that was used anew keeps its week.
    assert_eq!(
        tidy(9, 1).await,
        WeeksTidied { dropped: 3, needed: 1, busy: 0, ..WeeksTidied::default() }
    );
    let found = PostgresStore::examine(&config(&place.database.url())).await.unwrap();
    assert_eq!(found.faults, Vec::<String>::new());
}

/// Several servers drop weeks, and one that is ahead of the others drops nothing that these need.
#[tokio::test]
async fn weeks_go_at_one_server_at_a_time_and_never_before_the_database_finds_them_old() {
    let place = PostgresPlace::new();
    let store: Arc<dyn Store> = Arc::new(place.store().await);
    let today: i64 =
        place.database.sql("SELECT extract(epoch FROM now())::bigint").parse().unwrap();
    for (millis, key) in [(0, "old"), (today * 1_000, "today")] {
        let command = accepted(&store, spec(millis, key)).await;
        end(&store, &command, Outcome::Succeeded, millis + 5).await;
    }
    let (config, url) = (config(&place.database.url()), place.database.url());
    let keep = Duration::from_hours(24 * 7);
    let tidy = || PostgresStore::tidy_weeks(&config, at(i64::MAX / 2), keep);
    let (other, connection) = tokio_postgres::connect(&url, tokio_postgres::NoTls).await.unwrap();
    tokio::spawn(connection);
    other.batch_execute("SELECT pg_advisory_lock(6148624410145193991)").await.unwrap();
    let expected = WeeksTidied { is_under_way: true, ..WeeksTidied::default() };
    assert_eq!(tidy().await.unwrap(), expected);
    other.batch_execute("SELECT pg_advisory_unlock_all()").await.unwrap();
    assert_eq!(PostgresStore::look(&config.url).await.unwrap().weeks.weeks, 2);
    assert_eq!(tidy().await.unwrap(), WeeksTidied { dropped: 1, ..WeeksTidied::default() });
    let left = store.commands_of(spec(0, "old").tenant, Default::default(), None, 9).await.unwrap();
    assert_eq!(left.len(), 1, "that of today");
}

#[tokio::test]
async fn a_week_that_others_are_at_work_on_waits_and_stops_nobody() {
    let place = PostgresPlace::new();
    let store: Arc<dyn Store> = Arc::new(place.store().await);
    let command = accepted(&store, spec(0, "k")).await;
    end(&store, &command, Outcome::Succeeded, 5).await;
    // A transaction of somebody else that reads it and does not end.
    let (url, sql) = (place.database.url(), "BEGIN; SELECT * FROM commands; SELECT pg_sleep(60)");
    let mut reader = place.database.psql_in_the_background(sql);
    let reads = "SELECT count(*) FROM pg_locks WHERE relation = 'commands'::regclass AND pid <> pg_backend_pid() AND mode = 'AccessShareLock'";
    let began = tokio::time::Instant::now();
    while place.database.sql(reads) == "0" {
        assert!(began.elapsed() < Duration::from_secs(60));
        tokio::task::yield_now().await;
    }
    let tidied =
        PostgresStore::tidy_weeks(&config(&url), at(9 * WEEK_MS), Duration::from_secs(1)).await;
    assert_eq!(
        tidied.unwrap(),
        WeeksTidied { dropped: 0, needed: 0, busy: 1, ..WeeksTidied::default() }
    );
    assert!(store.command(command.spec.id).await.unwrap().is_some());
    reader.kill().unwrap();
    reader.wait().unwrap();
}

#[tokio::test]
async fn weeks_are_counted_by_whoever_runs_and_by_whoever_only_looks() {
    let place = PostgresPlace::new();
    let store: Arc<dyn Store> = Arc::new(place.store().await);
    for week in 0..41 {
        accepted(&store, spec(week * WEEK_MS, &format!("k{week}"))).await;
        let kept = PostgresStore::weeks_kept(&config(&place.database.url()).url).await.unwrap();
        assert_eq!(kept.weeks, u64::try_from(week).unwrap() + 1);
        assert_eq!(kept.are_too_many(), week == 40, "{kept}");
    }
    let url = config(&place.database.url()).url;
    let kept = PostgresStore::weeks_kept(&url).await.unwrap();
    assert_eq!(PostgresStore::look(&url).await.unwrap().weeks, kept);
    assert!(kept.to_string().contains("max_locks_per_transaction = 64"), "{kept}");
}
