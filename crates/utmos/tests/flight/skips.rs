//! What cannot be tried on this machine.

use std::{ffi::OsStr, io::Write};

/// Set to 1 where everything can be tried, as in continuous integration: what would be left out fails there. Not one of the
/// names that the program takes for its configuration, which it inherits.
const NOTHING_IS_SKIPPED: &str = "TESTS_SKIP_NOTHING";

/// Something that is left out here, told where nobody can miss it in the output of the test.
pub fn skipped(what: &str, why: &str) {
    assert!(
        may_skip(std::env::var_os(NOTHING_IS_SKIPPED).as_deref()),
        "{what} is to be tried here, since {NOTHING_IS_SKIPPED} is set, and cannot: {why}"
    );
    // Not by a macro, whose output is kept back where the test passes.
    std::io::stderr().write_all(format!("SKIPPED: {what}: {why}\n").as_bytes()).unwrap();
}

fn may_skip(nothing_is_skipped: Option<&OsStr>) -> bool {
    nothing_is_skipped.is_none_or(|set| set.is_empty() || set == "0")
}

#[test]
fn nothing_is_skipped_where_the_variable_says_so() {
    assert!([None, Some(""), Some("0")].into_iter().all(|set| may_skip(set.map(OsStr::new))));
    assert!(!may_skip(Some(OsStr::new("1"))));
}
