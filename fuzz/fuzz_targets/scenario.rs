//! Bytes: a scenario of the simulator.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| utmos_hostile::scenario(input));
