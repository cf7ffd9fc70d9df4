//! Bytes: a fault or a condition of the simulator as a flag.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| utmos_hostile::fault_flag(input));
