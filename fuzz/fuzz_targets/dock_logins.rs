//! Bytes: the file of what simulated docks connect with.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| utmos_hostile::dock_logins(input));
