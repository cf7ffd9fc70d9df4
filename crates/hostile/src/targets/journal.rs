//! The emergency journal, as a start finds it.

use std::sync::LazyLock;

use utmos_store::{
    MasterKey,
    try_journal::{self, Found},
};

static KEY: LazyLock<MasterKey> =
    LazyLock::new(|| MasterKey::from_hex(&"5a".repeat(32)).unwrap_or_else(|err| panic!("{err}")));

fn read(lines: &[u8]) -> Found {
    try_journal::read(&KEY, lines).unwrap_or_else(|err| panic!("{err}"))
}

fn sealed(record: &str) -> String {
    try_journal::sealed(&KEY, record).unwrap_or_else(|err| panic!("{err}"))
}

/// Reads a journal. Each line is a record or damaged, never both and never lost; what is read is settled to the end.
pub fn emergency_journal(input: &[u8]) {
    let mut lines = Vec::new();
    for line in input.split(|byte| *byte == b'\n') {
        match std::str::from_utf8(line) {
            Ok(text) if text.starts_with('{') => lines.extend_from_slice(sealed(text).as_bytes()),
            Ok(_) | Err(_) => {
                lines.extend_from_slice(line);
                lines.push(b'\n');
            }
        }
    }
    let count = lines.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()).count();
    let found = read(&lines);
    assert_eq!(found.records.len() + found.damaged.len(), count);
    assert!(found.damaged.iter().all(|(line, why)| (1..=count).contains(line) && !why.is_empty()));
    assert!(found.settled <= found.records.len());
    let kept: String = found.records.iter().map(|record| sealed(record)).collect();
    let again = read(kept.as_bytes());
    assert_eq!((&again.records, again.settled), (&found.records, found.settled));
    assert!(again.damaged.is_empty(), "{:?}", again.damaged);
    // What was cut off in the middle of its last line loses nothing but that line.
    let cut = read(&kept.as_bytes()[..kept.len().saturating_sub(7)]);
    assert_eq!(cut.records.len(), found.records.len().saturating_sub(1));
}
