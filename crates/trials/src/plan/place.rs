//! Where a field stands in a text that is known to be JSON.

/// The line of a field such as `happenings[3].what.dock_leaves.wait`, counted from one. `None` where it is not there.
pub(super) fn line_of(text: &str, field: &str) -> Option<usize> {
    let mut scan = Scan { text: text.as_bytes(), at: 0 };
    for part in field.split('.') {
        let (name, places) = part.split_once('[').unwrap_or((part, ""));
        scan.enter_member(name)?;
        if let Some(place) = places.strip_suffix(']') {
            scan.enter_element(place.parse().ok()?)?;
        }
    }
    scan.skip_blanks();
    let before = scan.text.get(..scan.at)?;
    Some(1 + before.iter().filter(|byte| **byte == b'\n').count())
}

/// Goes through a text, at the beginning of a value.
struct Scan<'a> {
    text: &'a [u8],
    at: usize,
}

impl Scan<'_> {
    fn byte(&self) -> Option<u8> {
        self.text.get(self.at).copied()
    }

    fn skip_blanks(&mut self) {
        while self.byte().is_some_and(|byte| byte.is_ascii_whitespace()) {
            self.at += 1;
        }
    }

    /// Goes past this byte, where it comes next.
    fn take(&mut self, wanted: u8) -> Option<()> {
        self.skip_blanks();
        (self.byte()? == wanted).then(|| self.at += 1)
    }

    /// Goes past a string. What stands in it, as it is written.
    fn string(&mut self) -> Option<&[u8]> {
        self.take(b'"')?;
        let from = self.at;
        loop {
            match self.byte()? {
                b'"' => break,
                b'\\' => self.at += 2,
                _ => self.at += 1,
            }
        }
        self.at += 1;
        self.text.get(from..self.at - 1)
    }

    /// Goes past a value, whole.
    fn skip_value(&mut self) -> Option<()> {
        let mut depth = 0_usize;
        loop {
            self.skip_blanks();
            match self.byte()? {
                b'"' => drop(self.string()?),
                b'{' | b'[' => {
                    depth += 1;
                    self.at += 1;
                }
                b'}' | b']' => {
                    depth = depth.checked_sub(1)?;
                    self.at += 1;
                }
                b',' | b':' => self.at += 1,
                _ => {
                    let is_of_it =
                        |byte: u8| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte);
                    let from = self.at;
                    while self.byte().is_some_and(is_of_it) {
                        self.at += 1;
                    }
                    (from < self.at).then_some(())?;
                }
            }
            if depth == 0 {
                return Some(());
            }
        }
    }

    fn enter_member(&mut self, name: &str) -> Option<()> {
        self.take(b'{')?;
        loop {
            let is_it = self.string()? == name.as_bytes();
            self.take(b':')?;
            if is_it {
                return Some(());
            }
            self.skip_value()?;
            self.take(b',')?;
        }
    }

    fn enter_element(&mut self, place: usize) -> Option<()> {
        self.take(b'[')?;
        for _ in 0..place {
            self.skip_value()?;
            self.take(b',')?;
        }
        Some(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_field_is_found_at_its_line_whatever_stands_before_it() {
        let text = "{\n \"b\": [\"]}\\\"\", {\"a\": -1.5e3}, [],\n true],\n\"a\" :\n[{\"a\":1},\n{\"c\":{\"a\":\n\n7}}]}";
        for (field, line) in [
            ("b", Some(2)),
            ("b[0]", Some(2)),
            ("b[3]", Some(3)),
            ("b[1].a", Some(2)),
            ("a", Some(5)),
            ("a[1]", Some(6)),
            ("a[1].c", Some(6)),
            ("a[1].c.a", Some(8)),
            ("a[2]", None),
            ("a[1].d", None),
            ("b.a", None),
            ("c", None),
            ("b[x]", None),
        ] {
            assert_eq!(line_of(text, field), line, "{field}");
        }
        assert_eq!(line_of("{", "a"), None);
        assert_eq!(line_of("", "a"), None);
    }
}
