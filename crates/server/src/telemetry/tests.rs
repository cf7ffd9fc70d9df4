//! One device's entry: what is news, and what finds no room.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use utmos_core::time::{Mono, Timestamp};
use uuid::Uuid;

use super::{budget::BYTES_A_MINUTE_MAX, entry::Taken, *};

fn earlier(data: &str) -> Option<Latest> {
    let mut earlier = Latest::default();
    earlier.merge(data, Source::Osd, now(0)).unwrap();
    Some(earlier)
}

fn now(millis: u64) -> Now {
    let wall = Timestamp::from_millis(1_790_000_000_000 + i64::try_from(millis).unwrap());
    Now { wall, mono: Mono::from_millis(millis) }
}

fn entry() -> Entry {
    Entry::new(TenantId::new(Uuid::from_u128(1)), DeviceKind::Dock, now(0))
}

fn kept(entry: &mut Entry) -> usize {
    let told = entry.hand_over(&DeviceSn::parse("D1").unwrap());
    told.map_or(0, |told| told.samples.iter().map(utmos_core::telemetry::Samples::count).sum())
}

const ROOM: Option<usize> = Some(1 << 30);

#[test]
fn a_state_that_is_sent_again_grows_nothing_and_takes_nothing_back() {
    let mut entry = entry();
    let one = Heard::new(Source::State, Some("tid-1"), r#"{"mode_code_reason":1}"#);
    assert!(entry.take(&one, now(0), ROOM, usize::MAX).pending_bytes > 0);
    let other = Heard::new(Source::State, Some("tid-2"), r#"{"mode_code_reason":2}"#);
    entry.take(&other, now(1_000), ROOM, usize::MAX);
    for copy in 0..1_000 {
        assert_eq!(entry.take(&one, now(2_000 + copy * 8_000), ROOM, usize::MAX), Taken::default());
    }
    let values = entry.latest.to_values();
    assert_eq!(values, r#"{"mode_code_reason":2}"#, "the older statement is not the latest");
    // Also with ids that tell nothing apart.
    let zeros = Some("00000000-0000-0000-0000-000000000000");
    let same = Heard::new(Source::State, zeros, r#"{"mode_code_reason":2}"#);
    for copy in 0..1_000 {
        assert_eq!(
            entry.take(&same, now(2_000 + copy * 8_000), ROOM, usize::MAX),
            Taken::default()
        );
    }
    assert_eq!(kept(&mut entry), 2);
    // Every osd counts, also one that says the same.
    let osd = Heard::new(Source::Osd, Some("tid-1"), r#"{"wind_speed":0}"#);
    for second in 0..3 {
        entry.take(&osd, now(second * 1_000), ROOM, usize::MAX);
    }
    assert_eq!(kept(&mut entry), 3);
    assert_eq!(kept(&mut entry), 0);
}

#[test]
fn a_state_that_found_no_room_is_kept_with_a_copy_as_long_as_it_is_true() {
    let mut entry = entry();
    let one = Heard::new(Source::State, Some("tid-1"), r#"{"rth_mode":1}"#);
    let other = Heard::new(Source::State, Some("tid-2"), r#"{"cover":0}"#);
    for state in [&one, &other] {
        assert_eq!(entry.take(state, now(0), Some(3), usize::MAX).dropped, 1);
    }
    assert_eq!(entry.take(&one, now(1), Some(3), usize::MAX), Taken::default(), "counted once");
    assert_eq!(kept(&mut entry), 0);
    // A newer one says otherwise of the one of them.
    let newer = Heard::new(Source::State, Some("tid-3"), r#"{"cover":1}"#);
    entry.take(&newer, now(2), ROOM, usize::MAX);
    for copy in [3, 4] {
        entry.take(&one, now(copy), ROOM, usize::MAX);
        entry.take(&other, now(copy), ROOM, usize::MAX);
    }
    assert_eq!(kept(&mut entry), 2, "the first and the newer, each once");
    assert_eq!(entry.latest.to_values(), r#"{"cover":1,"rth_mode":1}"#);
}

#[test]
fn what_finds_no_room_is_counted_and_the_latest_goes_on() {
    let mut entry = entry();
    let heard = |data| Heard::new(Source::Osd, None, data);
    assert_eq!(entry.take(&heard(r#"{"a":1}"#), now(0), Some(3), usize::MAX).dropped, 1);
    assert_eq!(entry.take(&heard(r#"{"a":2}"#), now(0), None, usize::MAX), Taken::default());
    assert_eq!(entry.take(&heard("[1]"), now(0), ROOM, usize::MAX).dropped, 1);
    assert_eq!((entry.latest.to_values().as_str(), kept(&mut entry)), (r#"{"a":2}"#, 0));

    // A device that never stops talking.
    let data = format!(r#"{{"text":"{}"}}"#, "x".repeat(10_000));
    let (mut bytes, mut dropped) = (0, 0);
    for message in 0..1_000 {
        let taken = entry.take(&heard(&data), now(message), ROOM, usize::MAX);
        bytes += taken.pending_bytes;
        dropped += taken.dropped;
    }
    assert!((BYTES_A_MINUTE_MAX * 9 / 10..=BYTES_A_MINUTE_MAX).contains(&bytes), "{bytes}");
    assert!(dropped > 800);
    assert!(
        entry.take(&heard(&data), now(60_000), ROOM, usize::MAX).pending_bytes > 0,
        "a new minute"
    );
}

#[test]
fn the_latest_is_kept_only_once_it_is_whole() {
    let mut entry = entry();
    entry.take(&Heard::new(Source::Osd, None, r#"{"a":1}"#), now(0), ROOM, usize::MAX);
    let sn = DeviceSn::parse("D1").unwrap();
    assert!(entry.hand_over(&sn).unwrap().latest.is_none());
    assert!(entry.has_news(), "it is not forgotten either");
    let mut earlier = Latest::default();
    earlier.merge(r#"{"a":0,"b":2}"#, Source::State, now(0)).unwrap();
    entry.recall(Some(earlier), usize::MAX, false);
    let kept = entry.hand_over(&sn).unwrap().latest.unwrap();
    assert_eq!(kept.to_values(), r#"{"a":1,"b":2}"#);
    assert!(!entry.has_news());
}

#[test]
fn what_finds_no_room_in_the_latest_is_kept_in_the_history_and_nothing_old_is_taken_for_it() {
    let mut entry = entry();
    let heard = |data| Heard::new(Source::Osd, None, data);
    assert_eq!(entry.take(&heard(r#"{"a":1,"b":1}"#), now(0), ROOM, 1_000).crowded_out, 0);
    let held = entry.latest.held_bytes();
    let full = entry.take(&heard(r#"{"a":2,"b":"longer"}"#), now(1), ROOM, 0);
    assert_eq!((full.crowded_out, full.dropped), (1, 0), "one that grew");
    assert!(entry.latest.held_bytes() < held);
    let full = entry.take(&heard(r#"{"c":3}"#), now(2), ROOM, 0);
    assert_eq!((full.crowded_out, full.dropped), (1, 0), "a new one");
    assert_eq!(entry.latest.to_values(), r#"{"a":2}"#);
    // What was kept of them earlier is not the latest.
    let mut earlier = Latest::default();
    earlier.merge(r#"{"b":0,"c":0}"#, Source::Osd, now(0)).unwrap();
    assert_eq!(entry.recall(Some(earlier), usize::MAX, false), 0);
    assert_eq!(entry.latest.to_values(), r#"{"a":2}"#);
    assert_eq!(kept(&mut entry), 3);
    // Nor is more recalled than there is room for.
    let mut earlier = Latest::default();
    earlier.merge(r#"{"b":0,"c":0}"#, Source::Osd, now(0)).unwrap();
    let mut entry = Entry::new(entry.tenant, entry.kind, now(2));
    assert_eq!((entry.recall(Some(earlier), 150, false), entry.latest.blocks().count()), (1, 1));
}

#[test]
fn what_another_server_kept_meanwhile_counts_where_it_is_newer() {
    let mut entry = entry();
    entry.take(&Heard::new(Source::Osd, None, r#"{"a":1,"b":1}"#), now(1_000), ROOM, usize::MAX);
    entry.recall(None, usize::MAX, true);
    let told = |entry: &Entry| entry.latest.to_values();
    // Others had the gateway; this server did not reach the broker for a while.
    entry.keeps(false);
    assert!(
        entry.earlier == Earlier::Held,
        "as long as it keeps nothing, nothing takes the place of anything"
    );
    let mut kept = Latest::default();
    kept.merge(r#"{"b":0,"c":3}"#, Source::Osd, now(500)).unwrap();
    kept.merge(r#"{"a":2}"#, Source::Osd, now(5_000)).unwrap();
    let kept = Latest::parse(&kept.to_text()).unwrap();
    entry.keeps(true);
    entry.take(&Heard::new(Source::Osd, None, r#"{"d":4}"#), now(6_000), ROOM, usize::MAX);
    let news = entry.hand_over(&DeviceSn::parse("D1").unwrap()).unwrap();
    assert!(news.latest.is_none(), "before what is kept is known, nothing takes its place");
    entry.recall(Some(kept), usize::MAX, true);
    assert_eq!(told(&entry), r#"{"a":2,"b":1,"c":3,"d":4}"#);
    let news = entry.hand_over(&DeviceSn::parse("D1").unwrap()).unwrap();
    assert_eq!(news.latest.unwrap().to_values(), r#"{"a":2,"b":1,"c":3,"d":4}"#);
}

#[test]
fn what_finds_no_room_takes_nothing_else_from_what_was_kept() {
    let mut entry = entry();
    let sn = DeviceSn::parse("D1").unwrap();
    let heard = |data| Heard::new(Source::Osd, None, data);
    // It comes back where its tenant's share is full.
    let full = entry.take(&heard(r#"{"a":2}"#), now(1), ROOM, 0);
    assert_eq!(full.crowded_out, 1);
    assert!(entry.hand_over(&sn).unwrap().latest.is_none(), "what was kept is not known yet");
    let kept = || earlier(r#"{"a":1,"b":1,"c":[1]}"#);
    assert_eq!(
        entry.whole(kept(), false).to_values(),
        r#"{"b":1,"c":[1]}"#,
        "told is what is still true"
    );
    assert_eq!(entry.recall(kept(), 0, false), 2);
    assert!(entry.latest.is_empty() && entry.keeps_beyond());
    assert!(entry.hand_over(&sn).is_none(), "nothing takes the place of what was kept");
    let kept_now = entry.hand_over_whole(&sn, kept(), false).latest.unwrap();
    assert_eq!(kept_now.to_values(), r#"{"b":1,"c":[1]}"#);
    assert!(!entry.has_news());
    // What is told from then on stands over it, as far as there is room.
    entry.take(&heard(r#"{"b":2}"#), now(2), None, usize::MAX);
    let full = entry.take(&heard(r#"{"c":[2]}"#), now(3), None, 0);
    assert_eq!(full.crowded_out, 1);
    let kept_now = entry.hand_over_whole(&sn, Some(kept_now), false).latest.unwrap();
    assert_eq!(kept_now.to_values(), r#"{"b":2}"#);
    // And once there is room, all of it is in memory again, and what was lost is forgotten.
    assert_eq!(entry.recall(earlier(r#"{"b":0,"d":4}"#), usize::MAX, false), 0);
    assert_eq!(entry.latest.to_values(), r#"{"b":2,"d":4}"#);
    assert_eq!((entry.earlier, entry.held_bytes()), (Earlier::Held, entry.latest.held_bytes()));
    entry.take(&heard(r#"{"d":5}"#), now(4), None, 0);
    assert_eq!(entry.hand_over(&sn).unwrap().latest.unwrap().to_values(), r#"{"b":2,"d":5}"#);
}

#[test]
fn a_device_that_makes_names_up_where_there_is_no_room_is_not_remembered_without_bound() {
    let mut entry = entry();
    for number in 0..5_000 {
        let data = format!(r#"{{"key-{number}":{number}}}"#);
        let state = Heard::new(Source::State, None, &data);
        entry.take(&state, now(number), None, 0);
        assert!(entry.held_bytes() < 16 * 1024);
    }
    assert_eq!(entry.recall(earlier(r#"{"key-1":0,"other":1}"#), usize::MAX, false), 0);
    assert_eq!(entry.latest.to_values(), "{}", "nothing of it can be told apart any more");
}

#[test]
fn a_state_that_finds_no_room_and_comes_again_is_kept_once() {
    let mut entry = entry();
    let states = [r#"{"a":1}"#, r#"{"b":1,"c":2}"#, r#"{"b":1}"#];
    for copy in 0..100 {
        for state in states {
            entry.take(&Heard::new(Source::State, None, state), now(copy * 8_000), ROOM, 0);
        }
    }
    assert_eq!(kept(&mut entry), states.len());
    for (said, count) in [(r#"{"a":2}"#, 1), (r#"{"a":2}"#, 0), (r#"{"a":1}"#, 1)] {
        entry.take(&Heard::new(Source::State, None, said), now(900_000), ROOM, 0);
        assert_eq!(kept(&mut entry), count, "{said}");
    }
}
