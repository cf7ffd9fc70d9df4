//! The reader of everything devices send: whatever comes, it answers or refuses, and what it answers can be answered.
//!
//! The first line is the topic, the rest the payload.
#![no_main]

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use utmos_core::time::Timestamp;
use utmos_dji::{answer, catalogue::Catalogue, envelope, topic::UplinkTopic, uplink};

static CATALOGUE: LazyLock<Option<Catalogue>> = LazyLock::new(|| Catalogue::embedded().ok());

fuzz_target!(|input: &[u8]| {
    let split = input.iter().position(|byte| *byte == b'\n').unwrap_or(input.len());
    let (topic, payload) = input.split_at(split);
    let payload = payload.get(1..).unwrap_or_default();
    let _ = envelope::evidence(payload);
    let Ok(topic) = UplinkTopic::parse(&String::from_utf8_lossy(topic)) else { return };
    let Some(catalogue) = CATALOGUE.as_ref() else { return };
    if let Ok(read) = uplink::read(&topic, payload, catalogue)
        && let Some(answered) = answer::acknowledge(&read, Timestamp::from_millis(0))
    {
        assert!(envelope::text_of(&answered.payload).is_ok_and(|text| envelope::Envelope::read(&text).is_ok()));
    }
});
