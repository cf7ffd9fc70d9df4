//! The emergency journal, as a start finds it.

use std::sync::LazyLock;

use utmos_store::{
    MasterKey,
    try_journal::{self, Found},
};

use super::first_line;

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

/// Opens a journal's file. Whatever stands in it a start gets through, and loses nothing that can be read: not by opening it
/// once more, not by writing to it, and not by emptying it.
pub fn journal_file(input: &[u8]) {
    let (aside_lines, rest) = first_line(input);
    let count = std::str::from_utf8(aside_lines).ok().and_then(|text| text.trim().parse().ok());
    let (mut aside, mut own) = (Vec::new(), Vec::new());
    for (number, line) in rest.split_inclusive(|byte| *byte == b'\n').enumerate() {
        let to = if number < count.unwrap_or(0) { &mut aside } else { &mut own };
        let text = line.strip_suffix(b"\n").and_then(|line| std::str::from_utf8(line).ok());
        match text.filter(|text| text.starts_with('{')) {
            Some(text) => to.extend_from_slice(sealed(text).as_bytes()),
            None => to.extend_from_slice(line),
        }
    }
    let tried = try_journal::open(&KEY, &own, &aside).unwrap_or_else(|err| panic!("{err}"));
    // What the lines by themselves would give, where they have an end and nothing says that they no longer count.
    let end = own.iter().rposition(|byte| *byte == b'\n').map_or(0, |last| last + 1);
    let (alone, set_aside) = (read(&own[..end]), read(&aside));
    let has = |known: &[String], record: &String| known.contains(record);
    assert!(set_aside.records.iter().all(|record| has(&tried.records, record)));
    assert!(
        tried
            .records
            .iter()
            .all(|record| { has(&alone.records, record) || has(&set_aside.records, record) })
    );
    // The mark of a file that is being emptied is no byte of a line: before a good line it is damage of that line alone.
    let is_lost = alone.records.iter().any(|record| !has(&tried.records, record));
    let is_marked = own.first() == Some(&try_journal::EMPTIED_MARK);
    assert!(!is_lost || is_marked, "a good line is lost");
    assert!(tried.copies.iter().all(|copy| *copy == aside || own.starts_with(copy)));
    let is_damaged = !set_aside.damaged.is_empty() || (!is_marked && !alone.damaged.is_empty());
    assert!(!is_damaged || !tried.copies.is_empty(), "no copy is kept");
    let same = |left: &[String], right: &[String]| {
        left.len() == right.len() && left.iter().all(|record| has(right, record))
    };
    assert!(same(&tried.again, &tried.records), "opened once more it holds something else");
    if let Some(appended) = &tried.appended {
        assert_eq!(appended.len(), tried.records.len() + 1, "a record that was written is lost");
    }
    if let Some(set_aside) = &tried.set_aside {
        assert!(same(set_aside, &tried.records), "what was set aside is something else");
    }
    assert!(tried.emptied.is_empty(), "{:?}", tried.emptied);
}
