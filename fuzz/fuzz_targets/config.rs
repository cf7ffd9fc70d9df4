//! Bytes: the configuration file; after a line that reads [--set], one assignment a line.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| utmos_hostile::config(input));
