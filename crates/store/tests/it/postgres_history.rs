//! The history on PostgreSQL: the suites that the file passes, what its partitions are for, and what several servers that
//! write one history see of each other.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use utmos_core::{
    device::DeviceKind,
    device_event::Alarm,
    ports::{
        Accepted, CommandStore, DeviceTelemetry, EventBatch, EventFilter, EventStore,
        RegistryStore, StoreError, TelemetryRules, TelemetryStore, Tenant,
    },
    telemetry::{Latest, Source},
    time::{Mono, Now, Timestamp},
};
use utmos_store::{PostgresHistory, PostgresStore};

use crate::{
    event_tests,
    events::{HistoryPlace, Opened, batch, event},
    given::{at, new, sn, spec, tenant},
    postgres_commands::{PostgresPlace, config},
    postgres_faults::{Cut, Wire},
    telemetry::{ages, all_of, charges, holds, is_fair, of_dock, rules, sample, tidy, told},
};

const DAY_MS: i64 = 24 * 3_600_000;
const WEEK_MS: i64 = 7 * DAY_MS;

#[async_trait]
impl Opened for PostgresHistory {
    async fn end(&self) {
        self.close();
    }
}

#[async_trait]
impl HistoryPlace for PostgresPlace {
    async fn open(&self) -> Arc<dyn Opened> {
        Arc::new(self.history().await)
    }

    fn unit(&self) -> i64 {
        WEEK_MS
    }
}

impl PostgresPlace {
    async fn history(&self) -> PostgresHistory {
        PostgresHistory::open(&config(&self.database.url())).await.unwrap()
    }

    /// Rows of a table of the history.
    fn count(&self, table: &str) -> i64 {
        self.database.sql(&format!("SELECT count(*) FROM history_{table}")).parse().unwrap()
    }

    /// Its partitions.
    fn parts(&self, table: &str) -> String {
        self.database.sql(&format!(
            "SELECT string_agg(relname, ' ' ORDER BY relname) FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
             WHERE i.inhparent = 'history_{table}'::regclass"
        ))
    }

    /// What is counted is what is there.
    fn counts_are_right(&self) {
        let wrong = "
            SELECT count(*) FROM (
                SELECT tenant, device, what, span, n, bytes FROM history_held
                EXCEPT
                (SELECT tenant, device, 0, first_ms / 86400000, count(*), sum(octet_length(body) + 200)
                 FROM history_telemetry GROUP BY 1, 2, 3, 4
                 UNION ALL
                 SELECT tenant, device, CASE WHEN lasting THEN 2 ELSE 1 END, (received_at + 259200000) / 604800000,
                     count(*), sum(octet_length(data) + 400)
                 FROM history_events GROUP BY 1, 2, 3, 4)) AS x";
        assert_eq!(self.database.sql(wrong), "0");
        let missing = "
            SELECT (SELECT coalesce(sum(n), 0) FROM history_held)
                 - (SELECT count(*) FROM history_telemetry) - (SELECT count(*) FROM history_events)";
        assert_eq!(self.database.sql(missing), "0");
        let keys = "SELECT (SELECT count(*) FROM history_events_once)
                         - (SELECT count(*) FROM history_events WHERE once IS NOT NULL)";
        assert_eq!(self.database.sql(keys), "0");
    }
}

event_tests!(PostgresPlace::new());

#[tokio::test]
async fn it_keeps_what_it_is_given() {
    let place = PostgresPlace::new();
    holds(&place.history().await).await;
    place.counts_are_right();
}

#[tokio::test]
async fn what_is_old_becomes_less_and_goes() {
    let place = PostgresPlace::new();
    ages(&place.history().await).await;
    place.counts_are_right();
    assert_eq!((place.parts("telemetry"), place.count("held")), (String::new(), 0));
}

#[tokio::test]
async fn who_talks_much_pushes_out_itself_and_neither_a_neighbour_nor_another_tenant() {
    let place = PostgresPlace::new();
    let tables = ["held", "events", "events_once", "telemetry", "latest", "alarms"];
    is_fair(&place.history().await, &tables, |table| place.count(table)).await;
}

#[tokio::test]
async fn what_devices_told_last_and_their_alarms_are_charged_to_their_tenant() {
    let place = PostgresPlace::new();
    let history = place.history().await;
    charges(&history, |_| place.counts_are_right()).await;
    assert_eq!(history.history_bytes().await.unwrap(), 0);
}

#[tokio::test]
async fn a_day_goes_whole_once_nothing_of_it_is_to_be_kept_and_a_kind_before_it_row_by_row() {
    let place = PostgresPlace::new();
    let history = place.history().await;
    // START is a Monday's afternoon; days are those of the world.
    let piece = |day: i64, n: i64| sample(day * DAY_MS + n, r#"{"a":1}"#);
    for day in 0..4 {
        let dock = of_dock(vec![piece(day, 0)]);
        let aircraft = told(1, "A1", DeviceKind::Aircraft, vec![piece(day, 1)]);
        history.keep_telemetry(vec![dock, aircraft]).await.unwrap();
    }
    assert_eq!(place.parts("telemetry").split(' ').count(), 4);
    let days = |days: u64| Duration::from_secs(days * 24 * 3600);
    let rules = TelemetryRules { dock: days(3), aircraft: days(1), full_rate: days(9), ..rules() };
    let rules = TelemetryRules { remote_controller: days(1), ..rules };
    tidy(&history, &rules, 3 * DAY_MS + 60_000).await;
    place.counts_are_right();
    let left = async |device| all_of(&history, 1, device).await.len();
    assert_eq!((left("D1").await, left("A1").await), (4, 1));
    assert_eq!(place.parts("telemetry").split(' ').count(), 4);
    // A day and the hour that a piece may reach into the next.
    tidy(&history, &rules, 4 * DAY_MS).await;
    place.counts_are_right();
    assert_eq!((left("D1").await, place.parts("telemetry").split(' ').count()), (3, 3));
    // Whoever has known of that day makes it again.
    history.keep_telemetry(vec![of_dock(vec![piece(0, 0)])]).await.unwrap();
    assert_eq!(left("D1").await, 4);
    place.counts_are_right();
}

fn latest(millis: i64, values: &str) -> DeviceTelemetry {
    let mut latest = Latest::default();
    let now = Now { wall: at(millis), mono: Mono::from_millis(1) };
    latest.merge(values, Source::Osd, now).unwrap();
    DeviceTelemetry { latest: Some(latest), ..of_dock(Vec::new()) }
}

async fn latest_of(history: &PostgresHistory) -> String {
    let found = history.latest_telemetry(vec![(tenant(1), sn("D1"))]).await.unwrap();
    found[&sn("D1")].to_values()
}

#[tokio::test]
async fn what_a_device_told_one_server_last_is_read_at_the_other_and_the_last_word_is_the_newest() {
    let place = PostgresPlace::new();
    let (a, b) = (place.history().await, place.history().await);
    a.keep_telemetry(vec![latest(1_000, r#"{"n":1}"#)]).await.unwrap();
    assert_eq!(latest_of(&b).await, r#"{"n":1}"#);
    // B took over, and what A had still to say comes late.
    b.keep_telemetry(vec![latest(3_000, r#"{"n":3}"#)]).await.unwrap();
    a.keep_telemetry(vec![latest(2_000, r#"{"n":2}"#)]).await.unwrap();
    assert_eq!(
        (latest_of(&a).await, latest_of(&b).await),
        (r#"{"n":3}"#.into(), r#"{"n":3}"#.into())
    );
    // A clock that was ahead by a century has no last word.
    a.keep_telemetry(vec![latest(100 * 365 * DAY_MS, r#"{"n":4}"#)]).await.unwrap();
    b.keep_telemetry(vec![latest(4_000, r#"{"n":5}"#)]).await.unwrap();
    assert_eq!(latest_of(&a).await, r#"{"n":5}"#);
    // The samples of both are one history.
    for (history, n) in [(&a, 0), (&b, 1), (&a, 2)] {
        let told = of_dock(vec![sample(n * 1_000, &format!(r#"{{"n":{n}}}"#))]);
        history.keep_telemetry(vec![told]).await.unwrap();
    }
    let all = all_of(&b, 1, "D1").await;
    assert_eq!(all.len(), 3);
    assert!(all.is_sorted_by_key(|sample| sample.at));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_that_two_servers_heard_at_once_is_there_once() {
    let place = PostgresPlace::new();
    let histories = [Arc::new(place.history().await), Arc::new(place.history().await)];
    let tasks: Vec<_> = (0..20_u32)
        .flat_map(|round| [(round, 0_usize), (round, 1)])
        .map(|(round, server)| {
            let history = histories[server].clone();
            tokio::spawn(async move {
                // The same exchanges in opposite orders, so that batches cross; ids are each server's own.
                let mut events: Vec<_> = (0..10).map(|n| event(round * 10 + n, 1_000)).collect();
                if server == 1 {
                    events.reverse();
                    for event in &mut events {
                        event.id = uuid::Uuid::from_u128(event.id.as_u128() + 10_000);
                    }
                }
                // Room for all: what went to make room is new when it comes again.
                let batch = EventBatch { per_device_max: 1_000, ..batch(events) };
                history.keep_events(batch).await.unwrap()
            })
        })
        .collect();
    let mut new = 0;
    for task in tasks {
        new += task.await.unwrap();
    }
    assert_eq!(new, 200);
    let filter = EventFilter::default();
    let owner = event(1, 1).tenant;
    let kept = histories[0].events_of(owner, sn("DOCK-1"), filter, None, 1_000).await.unwrap();
    let tids: std::collections::BTreeSet<_> = kept.iter().map(|event| &event.tid).collect();
    assert_eq!(tids.len(), kept.len());
    place.counts_are_right();
}

#[tokio::test]
async fn alarms_that_one_server_heard_of_are_raised_at_the_other() {
    let place = PostgresPlace::new();
    let (a, b) = (place.history().await, place.history().await);
    let alarm = |key: &str| Alarm {
        tenant: tenant(1),
        device: sn("D1"),
        gateway: sn("D1").to_gateway(),
        key: key.to_owned(),
        entry: r#"{"code":"0x16100067"}"#.into(),
        since: at(5),
    };
    let of =
        |alarms: Vec<Alarm>| EventBatch { alarms: vec![(sn("D1"), alarms)], ..batch(Vec::new()) };
    // A key of any length, with a byte that PostgreSQL does not take.
    let odd = alarm(&format!("z\0{}", "k".repeat(5_000)));
    a.keep_events(of(vec![odd.clone(), alarm("x"), alarm("x")])).await.unwrap();
    assert_eq!(b.alarms().await.unwrap(), [alarm("x"), odd]);
    b.keep_events(of(vec![alarm("y")])).await.unwrap();
    assert_eq!(a.alarms().await.unwrap(), [alarm("y")]);
}

#[tokio::test]
async fn a_history_that_is_held_up_holds_up_no_command() {
    let place = PostgresPlace::new();
    let store = place.store().await;
    let history = Arc::new(place.history().await);
    let hold = "BEGIN; LOCK TABLE history_latest, history_telemetry; SELECT pg_sleep(60)";
    let mut holder = place.database.psql_in_the_background(hold);
    let is_held =
        "SELECT count(*) FROM pg_locks WHERE relation = 'history_latest'::regclass AND granted
                       AND mode = 'AccessExclusiveLock'";
    let held = async {
        while place.database.sql(is_held) == "0" {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), held).await.unwrap();
    let keeping = tokio::spawn({
        let history = history.clone();
        async move { history.keep_telemetry(vec![latest(0, r#"{"n":1}"#)]).await }
    });
    for n in 0..20 {
        let accepted = store.accept(None, new(spec(n, &format!("k{n}")))).await.unwrap();
        assert_eq!(accepted, Accepted::New);
    }
    // It is told why, by PostgreSQL's own time-out.
    let refused = keeping.await.unwrap().unwrap_err().to_string();
    assert!(refused.contains("holding a lock"), "{refused}");
    holder.kill().unwrap();
    holder.wait().unwrap();
    place.database.sql(
        "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE query LIKE '%pg_sleep%' AND pid <> pg_backend_pid()",
    );
    history.keep_telemetry(vec![latest(0, r#"{"n":1}"#)]).await.unwrap();
}

/// What a silent PostgreSQL is answered with. Time is made to pass while nothing else happens.
async fn silence<T: std::fmt::Debug>(work: impl Future<Output = Result<T, StoreError>>) -> String {
    tokio::time::pause();
    let told = work.await.unwrap_err().to_string();
    tokio::time::resume();
    told
}

#[tokio::test]
async fn a_database_that_falls_silent_holds_no_reader_for_ever_and_the_next_one_is_answered() {
    let place = PostgresPlace::new();
    let wire = Wire::to(place.database.address()).await;
    let address = place.database.address().to_string();
    let url = place.database.url().replace(&address, &wire.address().to_string());
    let mut config = config(&url);
    // One connection, so that the next reader has the one of before, if anybody has.
    config.connections = 1;
    let store = PostgresStore::open(config.clone()).await.unwrap();
    let history = PostgresHistory::open(&config).await.unwrap();
    let tenant_of = |name: &str| Tenant {
        id: tenant(9),
        name: name.to_owned(),
        created_at: Timestamp::from_millis(0),
    };
    store.put_tenant(tenant_of("before")).await.unwrap();
    assert_eq!(store.tenants().await.unwrap().len(), 1);
    let owner = (tenant(1), sn("D1"));
    history.latest_telemetry(vec![owner.clone()]).await.unwrap();
    history.keep_telemetry(vec![latest(0, r#"{"n":1}"#)]).await.unwrap();
    history.tidy_telemetry(&rules(), at(0)).await.unwrap();

    wire.cut(Cut::Silent);
    let told = [
        silence(store.tenants()).await,
        silence(history.latest_telemetry(vec![owner.clone()])).await,
        silence(history.keep_telemetry(vec![latest(1, r#"{"n":2}"#)])).await,
        silence(history.tidy_telemetry(&rules(), at(0))).await,
    ];
    for told in told {
        assert!(told.contains("has not answered for 20 s"), "{told}");
    }
    wire.cut(Cut::Nowhere);
    assert_eq!(store.tenants().await.unwrap()[0].name, "before");
    wire.cut(Cut::Silent);
    let told = silence(store.credentials()).await;
    assert!(told.contains("has not answered"), "{told}");
    wire.cut(Cut::Nowhere);
    store.put_tenant(tenant_of("after")).await.unwrap();
    wire.cut(Cut::Silent);
    let told = silence(store.put_tenant(tenant_of("never"))).await;
    assert!(told.contains("has not answered"), "{told}");
    wire.cut(Cut::Nowhere);
    assert_eq!(store.tenants().await.unwrap()[0].name, "after");
    history.keep_telemetry(vec![latest(1, r#"{"n":2}"#)]).await.unwrap();
    assert_eq!(latest_of(&history).await, r#"{"n":2}"#);
    // Nobody is left who holds the turn to tidy.
    history.tidy_telemetry(&rules(), at(0)).await.unwrap();
}
