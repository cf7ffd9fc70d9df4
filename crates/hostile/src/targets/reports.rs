//! What devices tell of themselves: alarms and telemetry.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use serde_json::value::RawValue;
use utmos_core::{
    id::TenantId,
    telemetry::{self, Latest, Sample, Samples, Source, Track},
    time::{Mono, Now, Timestamp},
};
use utmos_dji::{catalogue::mask_members, hms};
use utmos_server::events::raised::{Lister, Raised};
use uuid::Uuid;

use super::{MEANINGS, commands::sn, is_told};

const START: i64 = 1_767_225_600_000;
const SOURCES: [Source; 4] = [Source::Osd, Source::State, Source::Drc, Source::Merged];

/// Takes lists of alarms in, one after another: each alarm is raised once, and is over when it is listed no more.
pub fn alarms(input: &[u8]) {
    let device = sn("SIM-DOCK-0001");
    let gateway = device.to_gateway();
    let tenant = TenantId::new(Uuid::from_u128(7));
    let (mut raised, mut before) = (Raised::default(), BTreeSet::new());
    for (line, millis) in input.split(|byte| *byte == b'\n').zip(0..) {
        let Some(list) = hms::read(&String::from_utf8_lossy(line)) else { continue };
        assert!(list.len() <= hms::ALARMS_MAX, "{} alarms", list.len());
        let now: BTreeSet<String> = list.iter().map(hms::Entry::key).collect();
        assert_eq!(now.len(), list.len(), "an alarm that is there twice");
        for entry in &list {
            is_told(&MEANINGS.of(entry).text);
            let again = hms::Entry::read(&entry.raw).map(|again| again.key());
            assert_eq!(again, Some(entry.key()), "{}", entry.raw);
        }
        let wall = Timestamp::from_millis(START).plus(Duration::from_millis(millis));
        let at = Now { wall, mono: Mono::from_millis(millis) };
        let by = Lister { tenant, device: &device, gateway: &gateway, at };
        let change = raised.listed(&by, list);
        let keys = |alarms: &[utmos_core::device_event::Alarm]| -> BTreeSet<String> {
            alarms.iter().map(|alarm| alarm.key.clone()).collect()
        };
        assert_eq!(keys(&change.raised), &now - &before);
        assert_eq!(keys(&change.cleared), &before - &now);
        let (known, heard_at) = raised.of_device(tenant, &device);
        assert_eq!((keys(&known), heard_at), (now.clone(), Some(wall)));
        before = now;
    }
}

/// Merges messages and keeps them: what is kept reads as it was told, and everything is bounded.
pub fn telemetry(input: &[u8]) {
    // What stands in a history may be damaged.
    if let Ok(samples) = Samples::read(Timestamp::from_millis(START), input) {
        is_kept(&samples);
    }
    let mut latest = Latest::default();
    let (mut samples, mut millis) = (Vec::new(), 0_u64);
    for line in input.split(|byte| *byte == b'\n') {
        let (first, data) = line.split_first().unwrap_or((&b'0', b""));
        let data = String::from_utf8_lossy(data);
        let masked = mask_members(&data);
        let data = masked.as_deref().unwrap_or(&data);
        let source = SOURCES[usize::from(*first) % SOURCES.len()];
        millis += u64::from(*first) * 100;
        let at = Timestamp::from_millis(START).plus(Duration::from_millis(millis));
        let now = Now { wall: at, mono: Mono::from_millis(millis) };
        let merged = latest.merge(data, source, now);
        // Numbers are passed on as they are written, also those that no 64 bits can hold.
        assert_eq!(merged.is_ok(), members(data).is_some(), "{data}");
        is_bounded(&latest);
        if merged.is_ok() {
            samples.push(Sample { at, source, values: data.into() });
        }
    }
    reads_as_it_was_kept(&latest);
    is_kept(&samples);
}

fn is_bounded(latest: &Latest) {
    let (mut blocks, mut bytes) = (0, 0);
    for (key, block) in latest.blocks() {
        assert!(key.len() <= telemetry::KEY_BYTES_MAX, "{key}");
        blocks += 1;
        bytes += key.len() + block.value().len();
    }
    assert!(blocks <= telemetry::BLOCKS_MAX && bytes <= telemetry::BYTES_MAX);
    assert_eq!(bytes, latest.bytes(), "what it holds is counted");
}

fn reads_as_it_was_kept(latest: &Latest) {
    let text = latest.to_text();
    let again = Latest::parse(&text).unwrap_or_else(|err| panic!("{err}: {text}"));
    assert_eq!(again.to_text(), text);
    let mut recalled = Latest::default();
    recalled.recall(again);
    assert_eq!(recalled.to_text(), text, "a process that begins with it knows as much");
    assert_eq!(members(&latest.to_values()), Some(latest.blocks().count()));
}

/// How many different members an object has; `None` when it is none.
fn members(text: &str) -> Option<usize> {
    serde_json::from_str::<BTreeMap<String, &RawValue>>(text).ok().map(|members| members.len())
}

/// Samples are kept in pieces and read again; merged by steps there are no more of them, each in its order.
fn is_kept(samples: &[Sample]) {
    let mut again = Vec::new();
    for piece in Samples::pieces(samples.iter().cloned()) {
        assert!(piece.first() <= piece.last() && piece.count() > 0);
        let read = Samples::read(piece.first(), piece.bytes());
        again.extend(read.unwrap_or_else(|err| panic!("{err}")));
    }
    assert_eq!(again, samples);
    let merged = telemetry::merge_by_step(samples, Duration::from_secs(10));
    assert!(merged.len() <= samples.len());
    assert!(merged.is_sorted_by_key(|sample| sample.at) || !samples.is_sorted_by_key(|one| one.at));
    let mut track = Track::default();
    for sample in samples {
        let Some(position) = telemetry::position_of(&sample.values, sample.at) else { continue };
        assert!((-180.0..=180.0).contains(&position.longitude));
        assert!((-90.0..=90.0).contains(&position.latitude));
        track.push(position);
    }
    assert!(track.finish().len() <= telemetry::POSITIONS_MAX);
}
