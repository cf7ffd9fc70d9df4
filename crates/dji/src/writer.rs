//! Writing JSON objects by hand: what is already JSON is copied, what is text is escaped, nothing is parsed again.

use std::fmt::Write as _;

/// An object under construction.
pub(crate) struct ObjectWriter {
    out: String,
}

impl ObjectWriter {
    /// Starts an object that will have about `capacity` bytes.
    pub(crate) fn with_capacity(capacity: usize) -> Self {
        let mut out = String::with_capacity(capacity);
        out.push('{');
        Self { out }
    }

    /// Adds a field whose value is valid JSON already.
    #[must_use]
    pub(crate) fn raw(mut self, key: &str, json: &str) -> Self {
        self.key(key);
        self.out.push_str(json);
        self
    }

    /// Adds a field whose value is text.
    #[must_use]
    pub(crate) fn text(mut self, key: &str, text: &str) -> Self {
        self.key(key);
        push_text(&mut self.out, text);
        self
    }

    /// Adds a field whose value is text, if there is one.
    #[must_use]
    pub(crate) fn maybe_text(self, key: &str, text: Option<&str>) -> Self {
        match text {
            Some(text) => self.text(key, text),
            None => self,
        }
    }

    /// Adds a whole number.
    #[must_use]
    pub(crate) fn number(mut self, key: &str, number: impl Into<i128>) -> Self {
        self.key(key);
        // Writing to a String does not fail.
        let _ = write!(self.out, "{}", number.into());
        self
    }

    /// Adds `true` or `false`.
    #[must_use]
    pub(crate) fn flag(self, key: &str, flag: bool) -> Self {
        self.raw(key, if flag { "true" } else { "false" })
    }

    /// The finished object.
    pub(crate) fn finish(mut self) -> String {
        self.out.push('}');
        self.out
    }

    fn key(&mut self, key: &str) {
        if self.out.len() > 1 {
            self.out.push(',');
        }
        push_text(&mut self.out, key);
        self.out.push(':');
    }
}

/// Joins finished JSON values to an array.
pub(crate) fn array<I: IntoIterator<Item = String>>(items: I) -> String {
    let mut out = String::from("[");
    for item in items {
        if out.len() > 1 {
            out.push(',');
        }
        out.push_str(&item);
    }
    out.push(']');
    out
}

/// Appends `text` as a JSON string.
pub(crate) fn push_text(out: &mut String, text: &str) {
    out.push('"');
    let mut clean_from = 0;
    for (at, byte) in text.bytes().enumerate() {
        if byte >= 0x20 && byte != b'"' && byte != b'\\' {
            continue;
        }
        out.push_str(&text[clean_from..at]);
        clean_from = at + 1;
        match byte {
            b'"' => out.push_str("\\\""),
            b'\\' => out.push_str("\\\\"),
            b'\n' => out.push_str("\\n"),
            b'\r' => out.push_str("\\r"),
            b'\t' => out.push_str("\\t"),
            // Writing to a String does not fail.
            control => drop(write!(out, "\\u{control:04x}")),
        }
    }
    out.push_str(&text[clean_from..]);
    out.push('"');
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_text_survives_being_written() {
        for text in ["", "plain", "q\"b\\n\nr\rt\t", "\u{0}\u{1f}\u{7f}", "é 無 \u{1f6f8} \u{2028}"]
        {
            let object = ObjectWriter::with_capacity(8)
                .text(text, text)
                .number("n", -1)
                .flag("f", true)
                .finish();
            let read: serde_json::Value = serde_json::from_str(&object).unwrap_or_default();
            assert_eq!(read, serde_json::json!({ text: text, "n": -1, "f": true }), "{object}");
        }
    }

    #[test]
    fn arrays_and_empty_objects_are_well_formed() {
        assert_eq!(array(Vec::new()), "[]");
        assert_eq!(array(["1".to_owned(), "{}".to_owned()]), "[1,{}]");
        assert_eq!(ObjectWriter::with_capacity(0).finish(), "{}");
    }
}
