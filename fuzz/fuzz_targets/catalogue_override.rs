//! Bytes: the file of changes to the catalogue.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| utmos_hostile::catalogue_override(input));
