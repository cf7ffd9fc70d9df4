//! Bytes: a plan of a trial.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| utmos_hostile::trial_plan(input));
