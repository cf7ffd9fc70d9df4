//! What every store of telemetry must do, and what is the file's own.

use std::time::Duration;

use utmos_core::{
    device::DeviceKind,
    device_event::{Alarm, DeviceEvent, EventKind},
    id::{DeviceSn, TenantId},
    ports::{
        DeviceTelemetry, EventBatch, EventFilter, History, SamplePlace, SampleRange,
        TelemetryRules, TelemetryStore,
    },
    telemetry::{Latest, Sample, Samples, Source},
    time::{Mono, Now},
};
use utmos_store::HistoryFile;

use crate::given::{at, sn, tenant};

const DAY: Duration = Duration::from_secs(24 * 3600);
const ALL: usize = 1 << 40;

pub fn rules() -> TelemetryRules {
    TelemetryRules {
        dock: 7 * DAY,
        remote_controller: 7 * DAY,
        aircraft: 7 * DAY,
        full_rate: DAY,
        step: Duration::from_secs(60),
        bytes_max: u64::MAX,
    }
}

pub fn sample(millis: i64, values: &str) -> Sample {
    Sample { at: at(millis), source: Source::Osd, values: values.into() }
}

pub fn told(owner: u128, device: &str, kind: DeviceKind, samples: Vec<Sample>) -> DeviceTelemetry {
    DeviceTelemetry {
        tenant: tenant(owner),
        device: sn(device),
        kind,
        samples: Samples::pieces(samples),
        latest: None,
    }
}

pub fn of_dock(samples: Vec<Sample>) -> DeviceTelemetry {
    told(1, "D1", DeviceKind::Dock, samples)
}

fn range(tenant: TenantId, device: DeviceSn) -> SampleRange {
    SampleRange { tenant, device, from: at(-i64::MAX / 2), to: at(i64::MAX / 4), begin: None }
}

/// Everything of a device.
pub async fn all_of(store: &dyn TelemetryStore, owner: u128, device: &str) -> Vec<Sample> {
    let read = store.samples(range(tenant(owner), sn(device)), ALL, ALL).await.unwrap();
    assert_eq!(read.rest, None);
    read.samples.into_iter().map(|(_, sample)| sample).collect()
}

pub async fn tidy(
    store: &dyn TelemetryStore,
    rules: &TelemetryRules,
    millis: i64,
) -> (usize, usize) {
    let (mut removed, mut merged) = (0, 0);
    loop {
        let did = store.tidy_telemetry(rules, at(millis)).await.unwrap();
        removed += did.removed;
        merged += did.merged;
        if !did.more {
            return (removed, merged);
        }
    }
}

/// The suite.
pub async fn holds(store: &dyn TelemetryStore) {
    let wanted: Vec<Sample> =
        (0..30).map(|n| sample(n * 500, &format!(r#"{{"n":{n},"odd \"key\"":1.50}}"#))).collect();
    // Three pieces, kept in another order than they were told.
    for part in [1, 0, 2] {
        store.keep_telemetry(vec![of_dock(wanted[part * 10..][..10].to_vec())]).await.unwrap();
    }
    assert_eq!(all_of(store, 1, "D1").await, wanted);
    assert_eq!(all_of(store, 2, "D1").await, [], "another tenant sees nothing of before");
    assert_eq!(all_of(store, 1, "D2").await, []);

    // In pages, by piece and from a place within one.
    let (mut begin, mut pages): (Option<SamplePlace>, Vec<Vec<Sample>>) = (None, Vec::new());
    loop {
        let part = SampleRange { begin, ..range(tenant(1), sn("D1")) };
        let read = store.samples(part, 1, ALL).await.unwrap();
        let (fifth, _) = read.samples[5];
        let inner = SampleRange { begin: Some(fifth), ..range(tenant(1), sn("D1")) };
        let rest = store.samples(inner, 1, ALL).await.unwrap().samples;
        assert_eq!(rest, read.samples[5..]);
        pages.push(read.samples.into_iter().map(|(_, sample)| sample).collect());
        begin = read.rest;
        if begin.is_none() {
            break;
        }
    }
    assert_eq!((pages.len(), pages.concat()), (3, wanted.clone()));

    // By size: as many pieces as fit, and one in any case.
    let sized = async |bytes_max| {
        let read = store.samples(range(tenant(1), sn("D1")), ALL, bytes_max).await.unwrap();
        (read.pieces, read.samples.len(), read.bytes, read.rest.is_some())
    };
    let (_, _, all, _) = sized(ALL).await;
    let (one, _, first, _) = sized(0).await;
    assert_eq!((one, sized(first * 2 - 1).await), (1, (1, 10, first, true)));
    assert_eq!(sized(all).await, (3, 30, all, false));
    let (pieces, samples, bytes, has_rest) = sized(all - 1).await;
    assert_eq!((pieces, samples, bytes < all, has_rest), (2, 20, true, true));

    // By time: the first moment counts, the last does not.
    let some = SampleRange { from: at(2_000), to: at(7_500), ..range(tenant(1), sn("D1")) };
    let read = store.samples(some, ALL, ALL).await.unwrap().samples;
    let read: Vec<_> = read.into_iter().map(|(_, sample)| sample).collect();
    assert_eq!(read, wanted[4..15]);

    // The latest state of each.
    let mut latest = Latest::default();
    let now = Now { wall: at(9_000), mono: Mono::from_millis(1) };
    latest.merge(r#"{"a":1,"b":{"c":[]}}"#, Source::State, now).unwrap();
    let keep =
        |latest: &Latest| DeviceTelemetry { latest: Some(latest.clone()), ..of_dock(Vec::new()) };
    store.keep_telemetry(vec![keep(&latest)]).await.unwrap();
    latest.merge(r#"{"a":2}"#, Source::Osd, now).unwrap();
    store.keep_telemetry(vec![keep(&latest)]).await.unwrap();
    let asked = [(1, "D1"), (2, "D1"), (1, "D2")].map(|(one, device)| (tenant(one), sn(device)));
    let found = store.latest_telemetry(asked[..1].to_vec()).await.unwrap();
    assert_eq!(found[&sn("D1")].to_text(), latest.to_text());
    assert!(store.latest_telemetry(asked[1..].to_vec()).await.unwrap().is_empty());
    assert!(store.history_bytes().await.unwrap() > 0);
}

/// Ageing.
pub async fn ages(store: &dyn TelemetryStore) {
    let day = 24 * 3_600_000;
    // Two hours of one device in pieces of ten seconds, a sample a second.
    for piece in 0..720 {
        let samples: Vec<_> =
            (0..10).map(|n| sample((piece * 10 + n) * 1_000, &format!(r#"{{"n":{n}}}"#))).collect();
        store.keep_telemetry(vec![of_dock(samples)]).await.unwrap();
    }
    let other = told(2, "A1", DeviceKind::Aircraft, vec![sample(0, r#"{"n":0}"#)]);
    store.keep_telemetry(vec![other]).await.unwrap();

    // Nothing is old yet; what lies before a full hour, which comes 2,800 s after the start; all of it.
    assert_eq!(tidy(store, &rules(), day).await, (0, 0));
    assert_eq!(tidy(store, &rules(), day + 2_799_999).await, (0, 0));
    assert_eq!(tidy(store, &rules(), day + 3_600_000).await, (0, 280 + 1));
    assert_eq!(tidy(store, &rules(), day + 3 * 3_600_000).await, (0, 440));
    let left = all_of(store, 1, "D1").await;
    // Minutes are counted from the epoch, and the first sample came within one.
    assert_eq!(left.len(), 121);
    assert!(left.iter().all(|one| one.source == Source::Merged && &*one.values == r#"{"n":9}"#));
    let pieces = store.samples(range(tenant(1), sn("D1")), 3, ALL).await.unwrap();
    assert_eq!((pieces.samples.len(), pieces.rest), (121, None), "an hour is one piece");
    assert!(left.is_sorted_by_key(|one| one.at));
    assert_eq!(left.last().unwrap().at, at(7_199_000));
    assert_eq!(all_of(store, 2, "A1").await.len(), 1);

    // Each kind has a time of its own.
    let short = TelemetryRules { aircraft: 2 * DAY, ..rules() };
    tidy(store, &short, 3 * day).await;
    assert_eq!(all_of(store, 2, "A1").await, []);
    assert_eq!(all_of(store, 1, "D1").await, left);
    // A store may keep a day until all of it is old.
    tidy(store, &rules(), 9 * day + 3_600_000).await;
    assert_eq!(all_of(store, 1, "D1").await, []);
}

async fn with_file(work: impl AsyncFnOnce(&HistoryFile)) {
    let folder = tempfile::tempdir().unwrap();
    let file = HistoryFile::open(&folder.path().join("history.sqlite")).unwrap();
    work(&file).await;
    file.close().await;
}

#[tokio::test]
async fn sqlite_keeps_what_it_is_given() {
    with_file(async |file| holds(file).await).await;
}

#[tokio::test]
async fn sqlite_lets_what_is_old_become_less_and_go() {
    with_file(async |file| ages(file).await).await;
}

/// A sample that does not pack.
fn noise(n: i64) -> Sample {
    let hash = |k: i64| (n * 7_919 + k).wrapping_mul(0x9E37_79B9_7F4A_7C15_u64 as i64);
    let noise = (0..500).map(|k| format!("{:016x}", hash(k))).collect::<String>();
    sample(n * 1_000, &format!(r#"{{"noise":"{noise}"}}"#))
}

/// Whoever talks much pushes out itself. `left_in` counts the rows of one of these tables.
pub async fn is_fair(file: &dyn History, tables: &[&str], left_in: impl Fn(&str) -> i64) {
    // The quiet ones were first, so that by age alone they would go first. The loud one was the second tenant's before.
    let dock = |owner, device, n| told(owner, device, DeviceKind::Dock, vec![noise(n)]);
    for n in 0..60 {
        let quiet = ["QUIET-1", "QUIET-2"].map(|device| dock(1, device, n));
        let others = [dock(2, "OTHER", n), dock(2, "LOUD", n)];
        file.keep_telemetry(quiet.into_iter().chain(others).collect()).await.unwrap();
    }
    for n in 60..860 {
        file.keep_telemetry(vec![dock(1, "LOUD", n)]).await.unwrap();
    }
    let before = file.history_bytes().await.unwrap();
    let small = |bytes_max| TelemetryRules { bytes_max, ..rules() };
    tidy(file, &small(before / 2), 0).await;
    assert!(file.history_bytes().await.unwrap() <= before / 2);
    let left = all_of(file, 1, "LOUD").await;
    assert!(left.len() < 450 && left.len() > 100, "{}", left.len());
    assert_eq!(left.last().unwrap().at, at(859_000), "the newest stays");
    let quiet = [(1, "QUIET-1"), (1, "QUIET-2"), (2, "OTHER"), (2, "LOUD")];
    for (owner, device) in quiet {
        assert_eq!(all_of(file, owner, device).await.len(), 60, "{owner} {device}");
    }
    // Events count as well: a dock whose events are most of what there is loses those, and no telemetry.
    let event = |n: u32| DeviceEvent {
        id: uuid::Uuid::from_u128(u128::from(n)),
        tenant: tenant(3),
        device: sn("EVENTFUL"),
        gateway: sn("EVENTFUL").to_gateway(),
        kind: if n == 0 { EventKind::AlarmRaised } else { EventKind::Event },
        method: None,
        tid: None,
        data: noise(i64::from(n)).values,
        is_cut: false,
        received_at: at(0),
        device_time: None,
        need_reply: false,
        command: None,
    };
    for chunk in 0..20 {
        let events = (0..50).map(|n| event(chunk * 50 + n)).collect();
        let batch = EventBatch { events, alarms: Vec::new(), per_device_max: 10_000 };
        file.keep_events(batch).await.unwrap();
    }
    let filled = file.history_bytes().await.unwrap();
    tidy(file, &small(filled - 4_000_000), 0).await;
    assert!(file.history_bytes().await.unwrap() <= filled - 4_000_000);
    let filter = EventFilter::default();
    let events = file.events_of(tenant(3), sn("EVENTFUL"), filter, None, 2_000).await.unwrap();
    assert!(events.len() < 700 && events.len() > 300, "{}", events.len());
    assert_eq!(
        (events[0].id, events.last().unwrap().kind),
        (uuid::Uuid::from_u128(999), EventKind::AlarmRaised)
    );
    assert_eq!(all_of(file, 1, "LOUD").await, left);
    // Nothing is left of what counts when nothing is left.
    tidy(file, &small(0), 0).await;
    for table in tables {
        assert_eq!(left_in(table), 0, "{table}");
    }
}

#[tokio::test]
async fn who_talks_much_pushes_out_itself_and_neither_a_neighbour_nor_another_tenant() {
    with_file(async |file| {
        let tables = ["held", "event_counts", "events", "telemetry", "telemetry_latest", "alarms"];
        let conn = rusqlite::Connection::open(file.path()).unwrap();
        let left_in = |table: &str| {
            let sql = format!("SELECT COUNT(*) FROM {table}");
            conn.query_row(&sql, [], |row| row.get(0)).unwrap()
        };
        is_fair(file, &tables, left_in).await;
    })
    .await;
}

/// What devices told last and their alarms are charged to their tenant. `check` is told what is in use.
pub async fn charges(file: &dyn History, check: impl FnOnce(u64)) {
    let now = Now { wall: at(0), mono: Mono::from_millis(0) };
    let latest = |n: i64, bytes: usize| {
        let mut latest = Latest::default();
        let parts = (0..bytes.div_ceil(8_000)).map(|part| noise(n * 100 + part as i64));
        for (number, part) in parts.enumerate() {
            let text = part.values.replace("noise", &format!("noise_{number}"));
            latest.merge(&text, Source::Osd, now).unwrap();
        }
        latest
    };
    // A tenant with many devices, of which hardly more than the latest is kept.
    for n in 0..40 {
        let of = told(2, &format!("MANY-{n}"), DeviceKind::Dock, vec![]);
        let of = DeviceTelemetry { latest: Some(latest(n, 100_000)), ..of };
        // Kept again, it is charged once.
        file.keep_telemetry(vec![of.clone()]).await.unwrap();
        file.keep_telemetry(vec![of]).await.unwrap();
    }
    let alarm = |key: usize| Alarm {
        tenant: tenant(2),
        device: sn("MANY-0"),
        gateway: sn("MANY-0").to_gateway(),
        key: key.to_string(),
        entry: "x".repeat(1_000).into(),
        since: at(0),
    };
    let alarms = vec![(sn("MANY-0"), (0..64).map(alarm).collect())];
    let batch = EventBatch { events: Vec::new(), alarms, per_device_max: 10 };
    file.keep_events(batch.clone()).await.unwrap();
    file.keep_events(batch).await.unwrap();
    let quiet = told(1, "QUIET", DeviceKind::Dock, (0..100).map(noise).collect());
    let quiet = DeviceTelemetry { latest: Some(latest(900, 8_000)), ..quiet };
    file.keep_telemetry(vec![quiet]).await.unwrap();
    let used = file.history_bytes().await.unwrap();
    check(used);
    // All that is too much is theirs, and the other tenant loses nothing.
    let small = |bytes_max| TelemetryRules { bytes_max, ..rules() };
    tidy(file, &small(used / 2), 0).await;
    assert!(file.history_bytes().await.unwrap() <= used / 2);
    assert_eq!(all_of(file, 1, "QUIET").await.len(), 100);
    let asked = vec![(tenant(1), sn("QUIET"))];
    assert_eq!(file.latest_telemetry(asked).await.unwrap().len(), 1);
    tidy(file, &small(0), 0).await;
    assert_eq!(file.alarms().await.unwrap(), []);
}

#[tokio::test]
async fn what_devices_told_last_and_their_alarms_are_charged_to_their_tenant() {
    with_file(async |file| {
        let held = |what: &str, owner: u128| -> i64 {
            let conn = rusqlite::Connection::open(file.path()).unwrap();
            let sql = format!("SELECT COALESCE(SUM({what}), 0) FROM held WHERE tenant = ?1");
            conn.query_row(&sql, [tenant(owner).uuid().as_bytes()], |row| row.get(0)).unwrap()
        };
        charges(file, |used| {
            assert_eq!(held("alarms", 2), 64 * 1_150);
            let charged = held("telemetry + events + latest + alarms", 1)
                + held("telemetry + events + latest + alarms", 2);
            let charged = u64::try_from(charged).unwrap();
            assert!(used * 8 / 10 < charged && charged < used * 11 / 10, "{charged} of {used}");
        })
        .await;
        assert_eq!((held("1", 1), held("1", 2)), (0, 0));
    })
    .await;
}

#[tokio::test]
async fn what_is_too_much_goes_oldest_first_and_its_room_is_given_back() {
    with_file(async |file| {
        for n in 0..1_200 {
            file.keep_telemetry(vec![of_dock(vec![noise(n)])]).await.unwrap();
        }
        let before = file.history_bytes().await.unwrap();
        let size = || std::fs::metadata(file.path()).unwrap().len();
        let small = TelemetryRules { bytes_max: before / 2, ..rules() };
        tidy(file, &small, 0).await;
        let left = all_of(file, 1, "D1").await;
        assert!(left.len() < 1_000 && !left.is_empty(), "{}", left.len());
        assert_eq!(left.last().unwrap().at, at(1_199_000), "the newest stays");
        assert!(file.history_bytes().await.unwrap() <= before / 2);
        // What is free beyond a little goes back to the disk, once the log is copied.
        let none = TelemetryRules { bytes_max: 0, ..rules() };
        tidy(file, &none, 0).await;
        file.close().await;
        assert!(size() < before * 3 / 4, "{} of {before}", size());
    })
    .await;
}

#[tokio::test]
async fn a_process_that_dies_loses_nothing_that_was_kept() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    let file = HistoryFile::open(&path("history.sqlite")).unwrap();
    let wanted = vec![sample(0, r#"{"a":1}"#)];
    file.keep_telemetry(vec![of_dock(wanted.clone())]).await.unwrap();
    // Its files as they are, unclosed.
    std::fs::copy(path("history.sqlite"), path("copy.sqlite")).unwrap();
    std::fs::copy(path("history.sqlite-wal"), path("copy.sqlite-wal")).unwrap();
    let copy = HistoryFile::open(&path("copy.sqlite")).unwrap();
    assert_eq!(all_of(&copy, 1, "D1").await, wanted);
    copy.close().await;
    file.close().await;
}

#[tokio::test]
async fn a_row_with_damage_hides_no_other() {
    with_file(async |file| {
        let piece = |n: i64| vec![of_dock(vec![sample(n * 1_000, &format!(r#"{{"n":{n}}}"#))])];
        for n in 0..3 {
            file.keep_telemetry(piece(n)).await.unwrap();
        }
        let conn = rusqlite::Connection::open(file.path()).unwrap();
        conn.execute("UPDATE telemetry SET body = x'ff00' WHERE id = 2", []).unwrap();
        let left = all_of(file, 1, "D1").await;
        let left: Vec<&str> = left.iter().map(|one| &*one.values).collect();
        assert_eq!(left, [r#"{"n":0}"#, r#"{"n":2}"#]);
        let (_, merged) = tidy(file, &rules(), 48 * 3_600_000).await;
        assert_eq!((merged, all_of(file, 1, "D1").await.len()), (3, 1));
    })
    .await;
}

#[tokio::test]
async fn it_is_all_there_when_it_is_opened_again() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("history.sqlite");
    let file = HistoryFile::open(&path).unwrap();
    let wanted = vec![sample(0, r#"{"a":1}"#)];
    file.keep_telemetry(vec![of_dock(wanted.clone())]).await.unwrap();
    file.close().await;
    let refused = file.keep_telemetry(vec![of_dock(wanted.clone())]).await;
    assert!(refused.unwrap_err().to_string().contains("closed"));
    let file = HistoryFile::open(&path).unwrap();
    assert_eq!(all_of(&file, 1, "D1").await, wanted);
    file.close().await;
}
