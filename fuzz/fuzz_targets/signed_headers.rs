//! The reader of the signing headers and of the query: whatever comes, it answers or names flaws.
//!
//! Lines are the four headers' values and the query, as bytes.
#![no_main]

use libfuzzer_sys::fuzz_target;
use utmos_core::{
    signing::{self, HEADERS, SignedParts},
    time::Timestamp,
};

fuzz_target!(|input: &[u8]| {
    let lines: Vec<&[u8]> = input.split(|byte| *byte == b'\n').collect();
    let line = |index: usize| lines.get(index).copied();
    let head = signing::read_headers(|name| {
        let index = HEADERS.iter().position(|header| *header == name).unwrap_or(0);
        line(index).into_iter().collect()
    });
    let query = String::from_utf8_lossy(line(4).unwrap_or_default()).into_owned();
    let once = signing::canonical_query(&query);
    assert_eq!(signing::canonical_query(&once), once, "canonical is canonical");
    match head {
        Ok(head) => {
            let parts = SignedParts { method: "POST", path: "/", query: Some(&query), body: input };
            let now = Timestamp::from_millis(head.timestamp.saturating_mul(1000));
            assert!(signing::verify(None, &head, parts, "", None, now).is_err(), "nobody is let in unknown");
        }
        Err(flaws) => assert!(!flaws.is_empty()),
    }
});
