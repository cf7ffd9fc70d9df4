//! Bytes: a method, a line feed, and the payload of a command.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| utmos_hostile::payload(input));
