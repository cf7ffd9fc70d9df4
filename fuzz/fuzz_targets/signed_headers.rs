//! Bytes: lines: the four headers of a signature, the query, and then the body.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| utmos_hostile::signed_headers(input));
