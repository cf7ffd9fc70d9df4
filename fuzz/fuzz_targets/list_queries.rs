//! Bytes: the query of a list.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| utmos_hostile::list_queries(input));
