//! Bytes: a topic, a line feed, and a message to a device, as simulated docks read it.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| utmos_hostile::downlink(input));
