//! Bytes: the length of a piece, and packets in such pieces.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| utmos_hostile::mqtt_packets(input));
