//! Bytes: lines: a topic or a filter each.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| utmos_hostile::topics(input));
