//! The rules of telemetry on what devices have really sent, and on anything.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{collections::BTreeMap, time::Duration};

use proptest::prelude::*;

use super::*;
use crate::time::{Mono, Now};

fn now(millis: u64) -> Now {
    let wall = Timestamp::from_millis(1_790_000_000_000 + i64::try_from(millis).unwrap());
    Now { wall, mono: Mono::from_millis(millis) }
}

fn values(latest: &Latest) -> BTreeMap<&str, &str> {
    latest.blocks().map(|(key, block)| (key, block.value())).collect()
}

#[test]
fn parts_are_merged_by_key_and_an_object_that_lost_a_member_has_lost_it() {
    let mut latest = Latest::default();
    let parts = [
        r#"{"mode_code":4,"sub_device":{"device_sn":"A","device_model_key":"0-100-1"},"52-0-0":{"zoom":1.50}}"#,
        r#"{"job_number":298,"sdr":{"up_quality":100}}"#,
        r#"{"mode_code":0,"sub_device":{"device_sn":"A"}}"#,
    ];
    for (second, part) in (0..).zip(parts) {
        latest.merge(part, Source::Osd, now(second * 1_000)).unwrap();
    }
    let expected = [
        ("mode_code", "0"),
        ("sub_device", r#"{"device_sn":"A"}"#),
        ("52-0-0", r#"{"zoom":1.50}"#),
        ("job_number", "298"),
        ("sdr", r#"{"up_quality":100}"#),
    ];
    assert_eq!(values(&latest), expected.into_iter().collect());
    let ages: Vec<_> =
        latest.blocks().map(|(key, block)| (key, block.age(now(5_000)).as_secs())).collect();
    let expected =
        [("52-0-0", 5), ("job_number", 4), ("mode_code", 3), ("sdr", 4), ("sub_device", 3)];
    assert_eq!(ages, expected);
}

#[test]
fn the_same_again_changes_only_its_age() {
    let mut latest = Latest::default();
    let data = r#"{"rth_mode":1,"geo_caging_status":{"state":0}}"#;
    assert_eq!(latest.merge(data, Source::State, now(0)).unwrap().changed, 2);
    let bytes = latest.bytes();
    assert_eq!(latest.merge(data, Source::State, now(8_000)).unwrap(), Merged::default());
    assert_eq!(latest.bytes(), bytes);
    assert!(latest.blocks().all(|(_, block)| block.age(now(9_000)) == Duration::from_secs(1)));
    assert!(latest.merge("[]", Source::State, now(0)).is_err());
}

#[test]
fn a_device_that_makes_keys_up_fills_no_memory_and_its_known_ones_go_on() {
    let mut latest = Latest::default();
    latest.merge(r#"{"mode_code":0}"#, Source::Osd, now(0)).unwrap();
    let mut left_out = 0;
    for number in 0..2 * BLOCKS_MAX {
        let data = format!(r#"{{"key-{number}":{number}}}"#);
        left_out += latest.merge(&data, Source::Osd, now(1)).unwrap().left_out;
    }
    assert_eq!((latest.blocks().count(), left_out), (BLOCKS_MAX, BLOCKS_MAX + 1));
    latest.merge(r#"{"mode_code":4}"#, Source::Osd, now(2)).unwrap();
    assert_eq!(values(&latest)["mode_code"], "4");

    // A value too long to be kept takes the former one with it: that is not true any more.
    let data = format!(r#"{{"mode_code":"{}"}}"#, "x".repeat(BYTES_MAX));
    assert_eq!(latest.merge(&data, Source::Osd, now(3)).unwrap().left_out, 1);
    assert!(!values(&latest).contains_key("mode_code"));
    let long = format!(r#"{{"{}":1}}"#, "k".repeat(KEY_BYTES_MAX + 1));
    assert_eq!(latest.merge(&long, Source::Osd, now(3)).unwrap().left_out, 1);
}

#[test]
fn what_is_recalled_stands_behind_what_was_told_since() {
    let mut earlier = Latest::default();
    earlier.merge(r#"{"a":1,"b":{"c":[1.0]}}"#, Source::Osd, now(0)).unwrap();
    let mut latest = Latest::default();
    latest.merge(r#"{"a":2}"#, Source::State, now(60_000)).unwrap();
    latest.recall(Latest::parse(&earlier.to_text()).unwrap());
    assert_eq!(values(&latest), [("a", "2"), ("b", r#"{"c":[1.0]}"#)].into_iter().collect());
    let ages: Vec<_> = latest.blocks().map(|(_, one)| one.age(now(61_000)).as_secs()).collect();
    assert_eq!(ages, [1, 61]);
}

#[test]
fn samples_never_go_back_in_time_and_begin_anew_where_the_clock_does() {
    let mut samples = Samples::of(now(5_000).wall, Source::Osd, "{}");
    assert!(samples.add(now(5_000).wall, Source::State, r#"{"a":1}"#));
    assert!(!samples.add(now(4_999).wall, Source::Osd, "{}"));
    assert!(!samples.add(now(5_000 + 3_600_001).wall, Source::Osd, "{}"));
    assert!(samples.add(now(5_000 + 3_600_000).wall, Source::Drc, "{}"));
    assert_eq!((samples.count(), samples.first()), (3, now(5_000).wall));
}

#[test]
fn a_step_holds_what_was_known_last_within_it() {
    let sample = |millis, values: &str| Sample {
        at: now(millis).wall,
        source: Source::Osd,
        values: values.into(),
    };
    let told = [
        sample(0, r#"{"a":1,"b":1}"#),
        sample(900, r#"{"a":2}"#),
        sample(1_000, r#"{"a":3}"#),
        sample(1_500, "[]"),
        sample(7_000, r#"{"c":{"d":1}}"#),
    ];
    let merged: Vec<_> = merge_by_step(&told, Duration::from_secs(1))
        .into_iter()
        .map(|one| (one.at, one.source, one.values.to_string()))
        .collect();
    let expected = [(900, r#"{"a":2,"b":1}"#), (1_000, r#"{"a":3}"#), (7_000, r#"{"c":{"d":1}}"#)]
        .map(|(millis, values)| (now(millis).wall, Source::Merged, values.to_owned()));
    assert_eq!(merged, expected);
}

#[test]
fn nonsense_is_no_position() {
    let check = |values: &str, expected: Option<(f64, f64, Option<f64>)>| {
        let found = position_of(values, now(0).wall);
        assert_eq!(found.map(|at| (at.longitude, at.latitude, at.height)), expected, "{values}");
    };
    check(r#"{"latitude":15.5,"longitude":140,"height":55.9}"#, Some((140.0, 15.5, Some(55.9))));
    check(r#"{"latitude":15.5,"longitude":140,"height":"?"}"#, Some((140.0, 15.5, None)));
    check(r#"{"latitude":15.5,"longitude":140,"height":1e9}"#, Some((140.0, 15.5, None)));
    check(r#"{"latitude":0,"longitude":0.0,"height":10}"#, None);
    check(r#"{"latitude":26836624.6,"longitude":26836624.6}"#, None);
    check(r#"{"latitude":15.5}"#, None);
    check(r#"{"latitude":null,"longitude":140}"#, None);
    check(r#"{"latitude":1e999,"longitude":140}"#, None);
    check("[]", None);
}

#[test]
fn a_long_track_is_thinned_evenly_and_keeps_its_ends() {
    for count in [0, 1, 2, 1_999, 2_000, 2_001, 5_000, 100_000] {
        let mut track = Track::default();
        let position = |number: u32| Position {
            at: now(u64::from(number)).wall,
            longitude: f64::from(number) / 1_000.0,
            latitude: 1.0,
            height: None,
        };
        (0..count).for_each(|number| track.push(position(number)));
        let found = track.finish();
        assert!(found.len() <= POSITIONS_MAX, "{count}: {}", found.len());
        assert!(found.len() >= usize::try_from(count).unwrap().min(POSITIONS_MAX / 2), "{count}");
        assert_eq!(found.first().copied(), (0 < count).then(|| position(0)));
        assert_eq!(found.last().copied(), count.checked_sub(1).map(position));
        assert!(found.is_sorted_by(|one, other| one.at < other.at), "{count}");
    }
}

fn key() -> impl Strategy<Value = String> {
    prop_oneof![Just("a".to_owned()), Just("b\"\u{e9}".to_owned()), "[a-f]{1,3}"]
}

fn object() -> impl Strategy<Value = serde_json::Map<String, serde_json::Value>> {
    let value = prop_oneof![
        any::<i64>().prop_map(serde_json::Value::from),
        "[\\PC]{0,20}".prop_map(serde_json::Value::from),
        Just(serde_json::json!({"x": [1, {"y": null}]})),
    ];
    prop::collection::btree_map(key(), value, 0..6).prop_map(|map| map.into_iter().collect())
}

proptest! {
    #[test]
    fn merging_by_key_is_what_a_map_does(objects in prop::collection::vec(object(), 0..20)) {
        let (mut latest, mut model) = (Latest::default(), serde_json::Map::new());
        for (second, object) in (0..).zip(&objects) {
            let text = serde_json::Value::from(object.clone()).to_string();
            latest.merge(&text, Source::Osd, now(second * 1_000)).unwrap();
            model.extend(object.clone());
        }
        let read: serde_json::Value = serde_json::from_str(&latest.to_values()).unwrap();
        prop_assert_eq!(read, serde_json::Value::from(model));
        let bytes: usize = latest.blocks().map(|(key, one)| key.len() + one.value().len()).sum();
        prop_assert_eq!(bytes, latest.bytes());
        let kept = Latest::parse(&latest.to_text()).unwrap();
        prop_assert_eq!(values(&kept), values(&latest));
        prop_assert_eq!(kept.bytes(), bytes);
    }

    #[test]
    fn samples_come_back_as_they_went_in(told in prop::collection::vec((0_u64..2_000_000, 0_usize..4, object()), 0..20)) {
        let mut millis = 0;
        let told: Vec<Sample> = told
            .into_iter()
            .map(|(wait, source, object)| {
                millis += wait;
                let values = serde_json::Value::from(object).to_string().into();
                Sample { at: now(millis).wall, source: Source::ALL[source], values }
            })
            .collect();
        let read: Vec<Sample> = Samples::pieces(told.clone())
            .iter()
            .flat_map(|piece| Samples::read(piece.first(), piece.bytes()).unwrap())
            .collect();
        prop_assert_eq!(read, told);
    }

    #[test]
    fn any_bytes_are_samples_or_damage_and_no_panic(bytes in prop::collection::vec(any::<u8>(), 0..60), text in "\\PC{0,60}") {
        drop(Samples::read(now(0).wall, &bytes));
        drop(Latest::parse(&text));
        let _ = position_of(&text, now(0).wall);
        drop(pick_blocks(&text, &|_| true));
    }
}
