//! Bytes: the first bytes of a client of the embedded broker.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| utmos_hostile::mqtt_hello(input));
