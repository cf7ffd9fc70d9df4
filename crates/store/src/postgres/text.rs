//! Texts as PostgreSQL takes them: it refuses the zero byte, which a caller's JSON may hold.
//!
//! U+FFFF, which no text of men holds, stands before what was escaped. A text without either is kept as it is.

use std::borrow::Cow;

const ESCAPE: char = '\u{FFFF}';

/// The text as it is kept.
pub(crate) fn kept(text: &str) -> Cow<'_, str> {
    if !text.contains(['\0', ESCAPE]) {
        return Cow::Borrowed(text);
    }
    let mut kept = String::with_capacity(text.len() + 8);
    for c in text.chars() {
        match c {
            '\0' => kept.extend([ESCAPE, '0']),
            ESCAPE => kept.extend([ESCAPE, '1']),
            other => kept.push(other),
        }
    }
    Cow::Owned(kept)
}

/// The text as it was; `None` when [`kept`] did not make it.
pub(crate) fn read(kept: String) -> Option<String> {
    if !kept.contains(ESCAPE) {
        return Some(kept);
    }
    let mut text = String::with_capacity(kept.len());
    let mut rest = kept.chars();
    while let Some(c) = rest.next() {
        if c != ESCAPE {
            text.push(c);
            continue;
        }
        text.push(match rest.next() {
            Some('0') => '\0',
            Some('1') => ESCAPE,
            Some(_) | None => return None,
        });
    }
    Some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_text_comes_back_and_none_holds_a_zero_byte() {
        for text in ["", "plain", "é\u{1F681}", "\0", "a\0b\0", "\u{FFFF}", "\u{FFFF}0\0\u{FFFF}"]
        {
            let kept = kept(text).into_owned();
            assert!(!kept.contains('\0'), "{text:?}");
            assert_eq!(read(kept).as_deref(), Some(text));
        }
        assert_eq!(read("\u{FFFF}".to_owned()), None);
        assert_eq!(read("\u{FFFF}2".to_owned()), None);
    }
}
