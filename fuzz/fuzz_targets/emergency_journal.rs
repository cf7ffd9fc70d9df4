//! Bytes: lines of the emergency journal; one that begins with { is sealed first.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| utmos_hostile::emergency_journal(input));
