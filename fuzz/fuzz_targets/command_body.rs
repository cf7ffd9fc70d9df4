//! Bytes: the body of a command, as the API takes it.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| utmos_hostile::command_body(input));
