//! Bytes: a request to the control API of the simulator.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| utmos_hostile::sim_control(input));
