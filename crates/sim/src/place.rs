//! Where in a file something stands, for whoever has to mend it.

use crate::fault::Problem;

/// Characters of a line that are said again at most.
const SHOWN_CHARS_MAX: usize = 20;

/// Takes the bytes of a file as text.
///
/// # Errors
/// With line, column and byte, when they are no UTF-8.
pub fn text_of(bytes: &[u8]) -> Result<&str, Problem> {
    let err = match std::str::from_utf8(bytes) {
        Ok(text) => return Ok(text),
        Err(err) => err,
    };
    let (good, bad) = bytes.split_at_checked(err.valid_up_to()).unwrap_or((bytes, &[]));
    let good = String::from_utf8_lossy(good);
    let place = Place::of(&good, good.len());
    let byte = bad.first().copied().unwrap_or_default();
    let problem =
        format!("byte 0x{byte:02x} at column {} is no UTF-8; save the file as UTF-8", place.column);
    Err(Problem::new(Some(place.line), place.field, problem))
}

/// A place in a text.
#[derive(Debug, PartialEq, Eq)]
pub struct Place<'a> {
    /// From 1.
    pub line: usize,
    /// In characters, from 1.
    pub column: usize,
    /// The key that the line begins with, if it does.
    pub field: Option<&'a str>,
    /// What stands there, up to the end of the line.
    rest: &'a str,
}

impl<'a> Place<'a> {
    /// That of a byte; of the end, where there are not so many.
    pub fn of(text: &'a str, byte: usize) -> Self {
        let byte = (0..=byte.min(text.len())).rev().find(|at| text.is_char_boundary(*at));
        let (before, after) = text.split_at_checked(byte.unwrap_or(0)).unwrap_or((text, ""));
        let begins = before.rfind('\n').map_or(0, |at| at + 1);
        let line = text.get(begins..).unwrap_or_default().lines().next().unwrap_or_default();
        Self {
            line: line_starts(before).len(),
            column: before.get(begins..).unwrap_or_default().chars().count() + 1,
            field: key_of(line),
            rest: after.lines().next().unwrap_or_default(),
        }
    }

    /// What stands there, in words.
    pub fn found(&self) -> String {
        if self.rest.is_empty() {
            return "where the line ends".to_owned();
        }
        let shown: String = self.rest.chars().take(SHOWN_CHARS_MAX).collect();
        let more = if shown.len() < self.rest.len() { "…" } else { "" };
        format!("at {shown:?}{more}")
    }
}

/// The bytes at which lines begin, the first of them 0.
pub fn line_starts(text: &str) -> Vec<usize> {
    let after = text.match_indices('\n').map(|(at, _)| at + 1);
    [0].into_iter().chain(after).collect()
}

/// The key or the heading that a line of TOML begins with.
fn key_of(line: &str) -> Option<&str> {
    let line = line.trim_start();
    let inside = line.trim_start_matches('[').trim_start();
    let is_heading = inside.len() < line.len();
    let is_bare = |letter: char| letter.is_ascii_alphanumeric() || ['_', '-'].contains(&letter);
    let end = inside.find(|letter| !is_bare(letter)).unwrap_or(inside.len());
    let (key, rest) = inside.split_at_checked(end)?;
    let is_key = is_heading || rest.trim_start().starts_with(['=', '.']);
    (is_key && !key.is_empty()).then_some(key)
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]
    use super::*;

    #[test]
    fn a_place_is_a_line_a_column_and_the_key_of_its_line() {
        let text = "seed = 1\n  [[fault]\nkind = \"ü\" ms\n";
        for (byte, line, column, field, found) in [
            (0, 1, 1, Some("seed"), "at \"seed = 1\""),
            (8, 1, 9, Some("seed"), "where the line ends"),
            (18, 2, 10, Some("fault"), "at \"]\""),
            (31, 3, 11, Some("kind"), "at \" ms\""),
            // The middle of a letter is its beginning.
            (29, 3, 9, Some("kind"), "at \"ü\\\" ms\""),
            (99, 4, 1, None, "where the line ends"),
        ] {
            let place = Place::of(text, byte);
            let given = (place.line, place.column, place.field, place.found());
            assert_eq!(given, (line, column, field, found.to_owned()), "{byte}");
        }
    }

    #[test]
    fn what_is_no_utf8_is_named_with_its_byte() {
        let problem = text_of(b"seed = 1\nkind = \"\xc3\xbc\xff\"\n").unwrap_err();
        let expected = "line 2: kind: byte 0xff at column 10 is no UTF-8; save the file as UTF-8";
        assert_eq!(problem.to_string(), expected);
        assert_eq!(text_of(b"seed = 1").unwrap(), "seed = 1");
        assert_eq!(text_of(b"\xf0\x9f").unwrap_err().line(), Some(1));
    }
}
