//! What devices send, and what is sent to them.

use std::collections::BTreeSet;

use serde_json::value::RawValue;
use utmos_core::{
    id::{DeviceSn, GatewaySn},
    time::Timestamp,
};
use utmos_dji::{
    answer,
    device_side::{self, Downlink},
    downlink::given_seq,
    envelope::{
        self, EVIDENCE_BYTES_MAX, Envelope, ID_BYTES_MAX, METHOD_BYTES_MAX, PAYLOAD_BYTES_MAX,
    },
    hms,
    topic::{DownlinkTopic, NotOurs, UplinkTopic, access},
    uplink::{self, Uplink},
};

use super::{CATALOGUE, MEANINGS, first_line, is_told};

/// Reads what a device published as the link does.
pub fn uplink(input: &[u8]) {
    let (topic, payload) = first_line(input);
    let evidence = envelope::evidence(payload);
    // A byte that is no UTF-8 becomes three, and then there is the mark of a cut.
    assert!(evidence.len() <= 3 * EVIDENCE_BYTES_MAX + 3 && !evidence.contains('\0'));
    envelope_of(payload);
    let Ok(topic) = UplinkTopic::parse(&String::from_utf8_lossy(topic)) else { return };
    match uplink::read(&topic, payload, &*CATALOGUE) {
        Err(refused) => is_told(&refused.to_string()),
        Ok(read) => {
            read_is_answered(&read);
            if let Uplink::Event(event) = &read {
                alarms_have_words(&event.data);
            }
        }
    }
}

/// A list of alarms is bounded, each alarm is there once and reads the same when it was kept, and none is left without
/// words.
fn alarms_have_words(data: &str) {
    let Some(alarms) = hms::read(data) else { return };
    assert!(alarms.len() <= hms::ALARMS_MAX, "{} alarms", alarms.len());
    let keys: BTreeSet<String> = alarms.iter().map(hms::Entry::key).collect();
    assert_eq!(keys.len(), alarms.len(), "an alarm that is there twice: {data}");
    for alarm in alarms {
        is_told(&MEANINGS.of(&alarm).text);
        let again = hms::Entry::read(&alarm.raw).map(|again| again.key());
        assert_eq!(again, Some(alarm.key()), "{}", alarm.raw);
    }
}

fn envelope_of(payload: &[u8]) {
    let text = match envelope::text_of(payload) {
        Ok(text) => text,
        Err(refused) => return is_told(&refused.to_string()),
    };
    assert!(payload.len() <= PAYLOAD_BYTES_MAX);
    let envelope = match Envelope::read(&text) {
        Ok(envelope) => envelope,
        Err(refused) => return is_told(&refused.to_string()),
    };
    for id in [&envelope.tid, &envelope.bid] {
        assert!(id.as_ref().is_none_or(|id| id.len() <= ID_BYTES_MAX), "an id that is too long");
    }
    assert!(envelope.method.as_ref().is_none_or(|method| method.len() <= METHOD_BYTES_MAX));
    let data: Result<&RawValue, _> = serde_json::from_str(envelope.data_or_null());
    assert!(data.is_ok(), "data that is no JSON: {}", envelope.data_or_null());
}

fn read_is_answered(read: &Uplink) {
    let Some(answered) = answer::acknowledge(read, Timestamp::from_millis(0)) else { return };
    let topic = answered.topic.to_string();
    assert_eq!(DownlinkTopic::parse(&topic).as_ref(), Ok(&answered.topic), "{topic}");
    match device_side::read(&answered.topic, &answered.payload) {
        Ok(Downlink::Answer { .. }) => {}
        other => panic!("an answer that reads as {other:?}"),
    }
}

/// Reads a message as its device would.
pub fn downlink(input: &[u8]) {
    let (topic, payload) = first_line(input);
    let Ok(topic) = DownlinkTopic::parse(&String::from_utf8_lossy(topic)) else { return };
    match device_side::read(&topic, payload) {
        Err(refused) => is_told(&refused.to_string()),
        Ok(Downlink::Services { data, .. } | Downlink::PropertySet { data, .. }) => {
            let _looked_for = given_seq(&data);
        }
        Ok(Downlink::Drc { .. } | Downlink::Answer { .. }) => {}
    }
}

/// Reads lines as topics both ways, and as filters.
pub fn topics(input: &[u8]) {
    let (own, sub) = match (GatewaySn::parse("DOCK-1"), DeviceSn::parse("AIR-1")) {
        (Ok(own), Ok(sub)) => (own, [sub]),
        (own, sub) => panic!("{own:?} {sub:?}"),
    };
    for line in input.split(|byte| *byte == b'\n') {
        let text = String::from_utf8_lossy(line);
        let up = UplinkTopic::parse(&text);
        if let Ok(topic) = &up {
            assert_eq!(UplinkTopic::parse(&topic.to_string()).as_ref(), Ok(topic));
            assert_eq!(topic.to_string(), text, "a topic is written as it is read");
        }
        let down = DownlinkTopic::parse(&text);
        if let Ok(topic) = &down {
            assert_eq!(topic.to_string(), text, "a topic is written as it is read");
        }
        for refused in [up.as_ref().err(), down.as_ref().err()].into_iter().flatten() {
            is_told(&refused.to_string());
            if let NotOurs::Name(name) = refused {
                assert!(name.chars().count() <= 64);
            }
        }
        if access::may_publish(&own, &sub, &text) {
            let whose = up.map(|topic| topic.device().to_string());
            assert!(
                matches!(whose.as_deref(), Ok("DOCK-1" | "AIR-1")),
                "published on somebody else's topic: {text}"
            );
        }
        if access::may_subscribe(&own, &sub, &text) {
            let third = text.split('/').nth(2);
            assert!(
                matches!(third, Some("DOCK-1" | "AIR-1")) && !text.starts_with('$'),
                "listens to somebody else: {text}"
            );
        }
    }
}
