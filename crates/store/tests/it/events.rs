//! Device events in the history: kept once, in order, newest first, and no more than there is room for. One suite for every
//! store of them.

use std::{
    collections::BTreeSet,
    sync::{Arc, LazyLock},
};

use async_trait::async_trait;
use tempfile::TempDir;
use utmos_core::{
    device_event::{Alarm, DeviceEvent, EventKind},
    id::{CommandId, DeviceSn, GatewaySn, TenantId},
    ports::{EventBatch, EventFilter, History},
    time::Timestamp,
};
use utmos_store::HistoryFile;
use uuid::Uuid;

static TENANT: LazyLock<TenantId> = LazyLock::new(|| TenantId::new(Uuid::from_u128(1)));

/// A history that is open.
#[async_trait]
pub trait Opened: History {
    async fn end(&self);
}

#[async_trait]
impl Opened for HistoryFile {
    async fn end(&self) {
        self.close().await;
    }
}

/// Where a history is kept.
#[async_trait]
pub trait HistoryPlace: Sync {
    async fn open(&self) -> Arc<dyn Opened>;

    /// Milliseconds between events of which one may be forgotten and the other not.
    fn unit(&self) -> i64;
}

struct FilePlace(TempDir);

impl FilePlace {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }
}

#[async_trait]
impl HistoryPlace for FilePlace {
    async fn open(&self) -> Arc<dyn Opened> {
        Arc::new(HistoryFile::open(&self.0.path().join("history.sqlite")).unwrap())
    }

    fn unit(&self) -> i64 {
        1_000
    }
}

/// Makes a test of each case.
#[macro_export]
macro_rules! event_tests {
    ($place:expr) => {
        $crate::event_tests!($place, [
            an_event_comes_back_as_it_was_kept_and_once,
            a_page_holds_what_is_asked_for_newest_first,
            what_a_device_tells_all_the_time_pushes_out_itself_and_no_alarm,
            what_is_old_is_forgotten_whatever_came_before_it,
            what_happened_in_another_tenants_time_is_neither_pushed_out_nor_in_the_way,
            the_alarms_of_a_device_are_those_it_listed_last,
        ]);
    };
    ($place:expr, [$($case:ident,)*]) => {
        mod event_contract {
            use super::*;
            $(
                #[tokio::test]
                async fn $case() {
                    $crate::events::$case(&$place).await;
                }
            )*
        }
    };
}

event_tests!(FilePlace::new());

fn sn(text: &str) -> DeviceSn {
    DeviceSn::parse(text).unwrap()
}

pub fn event(n: u32, unit: i64) -> DeviceEvent {
    DeviceEvent {
        id: Uuid::from_u128(u128::from(n)),
        tenant: *TENANT,
        device: sn("DOCK-1"),
        gateway: GatewaySn::parse("DOCK-1").unwrap(),
        kind: EventKind::Event,
        method: Some("flighttask_progress".to_owned()),
        tid: Some(format!("tid-{n}")),
        data: format!(r#"{{"n":{n}}}"#).into(),
        is_cut: false,
        received_at: Timestamp::from_millis(i64::from(n) * unit),
        device_time: Some(Timestamp::from_millis(7)),
        need_reply: n.is_multiple_of(2),
        command: Some(CommandId::new(Uuid::from_u128(99))),
    }
}

pub fn batch(events: Vec<DeviceEvent>) -> EventBatch {
    EventBatch { events, alarms: Vec::new(), per_device_max: 100 }
}

async fn listed(history: &Arc<dyn Opened>, filter: EventFilter) -> Vec<DeviceEvent> {
    history.events_of(*TENANT, sn("DOCK-1"), filter, None, 1_000).await.unwrap()
}

fn numbers(events: &[DeviceEvent]) -> Vec<u128> {
    events.iter().map(|event| event.id.as_u128()).collect()
}

pub async fn an_event_comes_back_as_it_was_kept_and_once(place: &dyn HistoryPlace) {
    let history = place.open().await;
    let event = |n| event(n, place.unit());
    let bare = DeviceEvent {
        method: None,
        tid: None,
        device_time: None,
        command: None,
        is_cut: true,
        ..event(2)
    };
    let again = DeviceEvent { id: Uuid::from_u128(3), ..event(1) };
    let other_kind =
        DeviceEvent { id: Uuid::from_u128(4), kind: EventKind::AlarmRaised, ..event(1) };
    let nameless = DeviceEvent { id: Uuid::from_u128(5), ..bare.clone() };
    let kept = batch(vec![event(1), bare.clone(), again, other_kind.clone(), nameless.clone()]);
    assert_eq!(history.keep_events(kept).await.unwrap(), 4, "the repeated one is passed over");
    let expected = [nameless, other_kind, bare, event(1)];
    assert_eq!(listed(&history, EventFilter::default()).await, expected);

    // Also after a restart.
    history.end().await;
    let history = place.open().await;
    let again = DeviceEvent { id: Uuid::from_u128(6), ..event(1) };
    assert_eq!(history.keep_events(batch(vec![again])).await.unwrap(), 0);
    assert_eq!(listed(&history, EventFilter::default()).await, expected);
    history.end().await;
}

pub async fn a_page_holds_what_is_asked_for_newest_first(place: &dyn HistoryPlace) {
    let history = place.open().await;
    let event = |n| event(n, place.unit());
    let foreign = DeviceEvent { tenant: TenantId::new(Uuid::from_u128(2)), ..event(20) };
    let other_device = DeviceEvent { device: sn("DOCK-2"), ..event(21) };
    let alarm =
        DeviceEvent { kind: EventKind::AlarmRaised, method: Some("hms".to_owned()), ..event(5) };
    let mut events: Vec<DeviceEvent> = (1..=4).map(event).collect();
    events.extend([alarm, foreign, other_device]);
    history.keep_events(batch(events)).await.unwrap();
    for (filter, expected) in [
        (EventFilter::default(), &[5, 4, 3, 2, 1][..]),
        (
            EventFilter {
                kinds: BTreeSet::from([EventKind::AlarmRaised]),
                ..EventFilter::default()
            },
            &[5],
        ),
        (
            EventFilter {
                kinds: BTreeSet::from([EventKind::Event, EventKind::Online]),
                ..EventFilter::default()
            },
            &[4, 3, 2, 1],
        ),
        (EventFilter { method: Some("hms".to_owned()), ..EventFilter::default() }, &[5]),
        (
            EventFilter {
                from: Some(Timestamp::from_millis(2 * place.unit())),
                to: Some(Timestamp::from_millis(4 * place.unit())),
                ..EventFilter::default()
            },
            &[3, 2],
        ),
    ] {
        assert_eq!(numbers(&listed(&history, filter.clone()).await), expected, "{filter:?}");
    }
    let before = Some(Uuid::from_u128(4));
    let page = history.events_of(*TENANT, sn("DOCK-1"), EventFilter::default(), before, 2).await;
    assert_eq!(numbers(&page.unwrap()), [3, 2]);
    history.end().await;
}

pub async fn what_a_device_tells_all_the_time_pushes_out_itself_and_no_alarm(
    place: &dyn HistoryPlace,
) {
    let history = place.open().await;
    let event = |n| event(n, place.unit());
    let alarms = (1..=3).map(|n| DeviceEvent { kind: EventKind::AlarmRaised, ..event(n) });
    let quiet = DeviceEvent { device: sn("DOCK-2"), ..event(4) };
    let first: Vec<DeviceEvent> = alarms.chain([quiet]).collect();
    for chunk in [first].into_iter().chain(
        (0..12).map(|c| (0..10).map(|n| event(10 + c * 10 + n)).collect::<Vec<DeviceEvent>>()),
    ) {
        let batch = EventBatch { events: chunk, alarms: Vec::new(), per_device_max: 20 };
        history.keep_events(batch).await.unwrap();
    }
    let kept = numbers(&listed(&history, EventFilter::default()).await);
    let ordinary = kept.iter().filter(|n| **n >= 10).count();
    assert!((20..=22).contains(&ordinary), "{kept:?}");
    assert_eq!(kept.first(), Some(&129), "the newest are kept");
    assert!(kept.ends_with(&[3, 2, 1]), "{kept:?}");
    let quiet = history.events_of(*TENANT, sn("DOCK-2"), EventFilter::default(), None, 10).await;
    assert_eq!(numbers(&quiet.unwrap()), [4]);

    assert_eq!(
        history.forget_events(Timestamp::from_millis(3 * place.unit()), 1_000).await.unwrap(),
        2
    );
    assert_eq!(
        history.forget_events(Timestamp::from_millis(1_000 * place.unit()), 5).await.unwrap(),
        5
    );
    let left =
        history.forget_events(Timestamp::from_millis(1_000 * place.unit()), 1_000).await.unwrap();
    assert_eq!(left, kept.len() + 1 - 7);
    assert_eq!(listed(&history, EventFilter::default()).await, []);
    // A device that was emptied can be filled again.
    assert_eq!(history.keep_events(batch(vec![event(1)])).await.unwrap(), 1);
    history.end().await;
}

pub async fn what_is_old_is_forgotten_whatever_came_before_it(place: &dyn HistoryPlace) {
    let history = place.open().await;
    let event = |n| event(n, place.unit());
    // A clock that was ahead for a while: more than are looked at in one go stand before what is old.
    let ahead = (1..=60)
        .map(|n| DeviceEvent { received_at: Timestamp::from_millis(i64::MAX / 4), ..event(n) });
    history.keep_events(batch(ahead.collect())).await.unwrap();
    history.keep_events(batch((61..=90).map(event).collect())).await.unwrap();
    let before = Timestamp::from_millis(81 * place.unit());
    assert_eq!(history.forget_events(before, 15).await.unwrap(), 15);
    assert_eq!(history.forget_events(before, 15).await.unwrap(), 5);
    assert_eq!(history.forget_events(before, 15).await.unwrap(), 0);
    let left = numbers(&listed(&history, EventFilter::default()).await);
    assert_eq!((left.len(), left[0], left[9], left[10]), (70, 90, 81, 60));
    history.end().await;
}

pub async fn what_happened_in_another_tenants_time_is_neither_pushed_out_nor_in_the_way(
    place: &dyn HistoryPlace,
) {
    let history = place.open().await;
    let event = |n| event(n, place.unit());
    history.keep_events(batch((1..=20).map(event).collect())).await.unwrap();
    // The device was moved, and its new tenant's time is loud, with the same tids at first.
    let moved = |n: u32| DeviceEvent {
        id: Uuid::from_u128(1_000 + u128::from(n)),
        tenant: TenantId::new(Uuid::from_u128(2)),
        ..event(n)
    };
    for chunk in 0..10 {
        let events = (1..=20).map(|n| moved(chunk * 20 + n)).collect();
        let batch = EventBatch { events, alarms: Vec::new(), per_device_max: 50 };
        assert_eq!(history.keep_events(batch).await.unwrap(), 20);
    }
    assert_eq!(listed(&history, EventFilter::default()).await.len(), 20);
    history.end().await;
}

pub async fn the_alarms_of_a_device_are_those_it_listed_last(place: &dyn HistoryPlace) {
    let history = place.open().await;
    let alarm = |device: &str, key: &str| Alarm {
        tenant: *TENANT,
        device: sn(device),
        gateway: GatewaySn::parse("DOCK-1").unwrap(),
        key: key.to_owned(),
        entry: r#"{"code":"0x16100067"}"#.into(),
        since: Timestamp::from_millis(5),
    };
    let keep = async |alarms: Vec<(DeviceSn, Vec<Alarm>)>| {
        let batch = EventBatch { events: Vec::new(), alarms, per_device_max: 100 };
        history.keep_events(batch).await.unwrap();
        history.alarms().await.unwrap()
    };
    let (a, b, c) = (alarm("DOCK-1", "a"), alarm("DOCK-1", "b"), alarm("DOCK-2", "a"));
    let both = vec![(sn("DOCK-1"), vec![a.clone(), b.clone()]), (sn("DOCK-2"), vec![c.clone()])];
    assert_eq!(keep(both).await, [a, b.clone(), c.clone()]);
    assert_eq!(keep(vec![(sn("DOCK-1"), vec![b.clone()])]).await, [b, c.clone()]);
    assert_eq!(keep(vec![(sn("DOCK-1"), Vec::new())]).await, [c]);
    history.end().await;
}
