//! How long reading a message takes: `cargo run --release -p utmos-dji --example read_speed`.
#![expect(clippy::print_stdout, reason = "a command for people")]
#![expect(clippy::disallowed_methods, reason = "measures the machine, decides nothing")]

use std::{error::Error, hint::black_box, time::Instant};

use utmos_core::{
    telemetry::{Latest, Samples, Source},
    time::{Mono, Now, Timestamp},
};
use utmos_dji::{
    answer,
    catalogue::Catalogue,
    downlink::{self, Heading},
    topic::UplinkTopic,
    uplink,
};

/// Rounds in a batch, and batches of which the fastest counts: other work on the machine does not.
const ROUNDS: u32 = 500;
const BATCHES: u32 = 300;

fn main() -> Result<(), Box<dyn Error>> {
    let catalogue = Catalogue::embedded()?;
    for (file, line) in [
        ("dock3-flight/osd.jsonl", 0),
        ("dock3-flight/osd.jsonl", 1),
        ("dock3-flight/osd.jsonl", 3),
        ("dock3-flight/services.jsonl", 1),
        ("dock3-flight/events.jsonl", 2),
        ("dock3-flight/events.jsonl", 3),
        ("dock3-flight/state.jsonl", 0),
        ("rc-drc/osd_info_push.jsonl", 0),
    ] {
        let path = format!("{}/tests/data/recordings/{file}", env!("CARGO_MANIFEST_DIR"));
        let text = std::fs::read_to_string(path)?;
        let message: serde_json::Value =
            serde_json::from_str(text.lines().nth(line).ok_or("no such line")?)?;
        let topic = message["topic"].as_str().ok_or("no topic")?;
        let payload = message["payload_text"].as_str().ok_or("no payload")?.as_bytes();
        let micros = timed(|| {
            let topic = UplinkTopic::parse(black_box(topic));
            black_box(topic.map(|topic| uplink::read(&topic, black_box(payload), &catalogue)))
                .is_ok()
        });
        println!("{micros:6.2} µs  {:5} bytes  {topic}", payload.len());
        if topic.ends_with("/osd") {
            merged(payload)?;
        }
    }
    let data = r#"{"max_speed":5,"fly_to_id":"e4d540ef-eeae-4fa1-8de0-4dc4f2762696","points":[{"longitude":140.37249838857797,"latitude":15.7136399578059,"height":91.55882263183594}]}"#;
    let micros = timed(|| {
        let tid = "5a2e32c1-add3-4de4-9fc7-da353cd3e698";
        let heading = Heading { tid, bid: tid, at: Timestamp::from_millis(1_779_352_140_513) };
        black_box(downlink::services(heading, black_box("fly_to_point"), black_box(data), None))
            .is_empty()
    });
    println!("{micros:6.2} µs  services built");
    let topic = UplinkTopic::parse("thing/product/SN1/events")?;
    let event = uplink::read(
        &topic,
        br#"{"tid":"t","bid":"b","method":"hms","need_reply":1,"data":{}}"#,
        &catalogue,
    )?;
    let micros = timed(|| {
        black_box(answer::acknowledge(black_box(&event), Timestamp::from_millis(1))).is_some()
    });
    println!("{micros:6.2} µs  events_reply built");
    Ok(())
}

/// Merging a message into the latest of its device, and putting it beside what will be kept.
fn merged(payload: &[u8]) -> Result<(), Box<dyn Error>> {
    let message: serde_json::Value = serde_json::from_slice(payload)?;
    let data = message["data"].to_string();
    let (mut latest, at) = (Latest::default(), Timestamp::from_millis(1_779_352_140_513));
    let now = Now { wall: at, mono: Mono::from_millis(1) };
    let micros = timed(|| latest.merge(black_box(&data), Source::Osd, now).is_ok());
    println!("{micros:6.2} µs  {:5} bytes  merged", data.len());
    let micros = timed(|| Samples::of(at, Source::Osd, black_box(&data)).count() == 1);
    println!("{micros:6.2} µs  {:5} bytes  put beside others", data.len());
    Ok(())
}

/// Microseconds for one round, in the fastest batch.
fn timed(mut round: impl FnMut() -> bool) -> f64 {
    let batch = || {
        let began = Instant::now();
        for _ in 0..ROUNDS {
            black_box(round());
        }
        began.elapsed()
    };
    let fastest = std::iter::repeat_with(batch).take(BATCHES as usize).min().unwrap_or_default();
    fastest.as_secs_f64() * 1e6 / f64::from(ROUNDS)
}
