//! Bytes: a topic, a line feed, and what a device published there.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| utmos_hostile::uplink(input));
