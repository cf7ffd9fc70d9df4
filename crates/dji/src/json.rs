//! Reading JSON that devices wrote, without trusting its types: one level at a time, values kept as raw text.
//!
//! Never builds a tree: a tree would cost memory, lose the spelling of numbers, and fail as a whole on one odd value.
//! Every function is linear in its input and does not recurse.

use std::{borrow::Cow, fmt};

use serde::de::{Deserializer as _, SeqAccess, Visitor};
use serde_json::value::RawValue;

pub(crate) use utmos_core::json::each_field;

/// Calls `each` for every item of the array `text`.
///
/// # Errors
/// When `text` is not exactly one JSON array.
pub(crate) fn each_item<'a>(
    text: &'a str,
    each: &mut dyn FnMut(&'a RawValue),
) -> Result<(), serde_json::Error> {
    let mut reader = serde_json::Deserializer::from_str(text);
    reader.deserialize_seq(ItemVisitor { each })?;
    reader.end()
}

struct ItemVisitor<'f, 'a> {
    each: &'f mut dyn FnMut(&'a RawValue),
}

impl<'a> Visitor<'a> for ItemVisitor<'_, 'a> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an array")
    }

    fn visit_seq<A: SeqAccess<'a>>(self, mut seq: A) -> Result<(), A::Error> {
        while let Some(item) = seq.next_element()? {
            (self.each)(item);
        }
        Ok(())
    }
}

/// One field that was asked for. Of a repeated key the last one counts.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Field<'a> {
    raw: Option<&'a RawValue>,
    contradicted: bool,
}

impl<'a> Field<'a> {
    /// The value as written; nothing for an absent field.
    pub(crate) fn raw(self) -> Option<&'a str> {
        self.raw.map(RawValue::get)
    }

    /// The value; [`Scalar::Null`] for an absent field.
    pub(crate) fn scalar(self) -> Scalar<'a> {
        self.raw().map_or(Scalar::Null, Scalar::of)
    }

    /// Whether the key was there more than once, with different values.
    pub(crate) fn contradicts_itself(self) -> bool {
        self.contradicted
    }

    fn put(&mut self, value: &'a RawValue) {
        self.contradicted |= self.raw.is_some_and(|earlier| earlier.get() != value.get());
        self.raw = Some(value);
    }
}

/// The named fields of the object `text`; none of them where `text` is something else.
pub(crate) fn pick<'a, const N: usize>(text: &'a str, names: [&str; N]) -> [Field<'a>; N] {
    let mut fields = [Field::default(); N];
    let read = each_field(text, &mut |key, value| {
        if let Some(at) = names.iter().position(|name| *name == key) {
            fields[at].put(value);
        }
    });
    if read.is_err() { [Field::default(); N] } else { fields }
}

/// The value at a JSON pointer through objects, such as `/output/ext/flight_id`.
pub(crate) fn at<'a>(text: &'a str, pointer: &str) -> Option<&'a str> {
    pointer.strip_prefix('/')?.split('/').try_fold(text, |level, key| {
        let [field] = pick(level, [key]);
        field.raw()
    })
}

/// A value that has no parts, or the fact that it has.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Scalar<'a> {
    /// `null`, or not there at all.
    Null,
    /// `true` or `false`.
    Bool(bool),
    /// A number as it is spelt.
    Number(&'a str),
    /// A string, unescaped.
    Text(Cow<'a, str>),
    /// An object, an array, or a string that is no text (half a surrogate pair).
    Other,
}

impl<'a> Scalar<'a> {
    /// Reads one valid JSON value.
    pub(crate) fn of(raw: &'a str) -> Self {
        match raw.as_bytes().first() {
            Some(b'n') => Self::Null,
            Some(b't') => Self::Bool(true),
            Some(b'f') => Self::Bool(false),
            Some(b'-' | b'0'..=b'9') => Self::Number(raw),
            Some(b'"') => Self::string(raw),
            _ => Self::Other,
        }
    }

    fn string(raw: &'a str) -> Self {
        let inner = raw.strip_prefix('"').and_then(|rest| rest.strip_suffix('"'));
        match inner {
            Some(inner) if !inner.contains('\\') => Self::Text(Cow::Borrowed(inner)),
            _ => serde_json::from_str::<String>(raw)
                .map_or(Self::Other, |text| Self::Text(Cow::Owned(text))),
        }
    }

    /// A string, or a number as it is spelt; nothing for an empty string.
    pub(crate) fn into_text(self) -> Option<Cow<'a, str>> {
        match self {
            Self::Text(text) if !text.is_empty() => Some(text),
            Self::Number(number) => Some(Cow::Borrowed(number)),
            Self::Text(_) | Self::Null | Self::Bool(_) | Self::Other => None,
        }
    }

    /// A number, also one written as a string.
    pub(crate) fn number(&self) -> Option<Number<'_>> {
        match self {
            Self::Number(text) => Number::of(text),
            Self::Text(text) => Number::of(text.trim()),
            Self::Null | Self::Bool(_) | Self::Other => None,
        }
    }

    /// A whole number: 3, 3.0, "3", and 1 or 0 for `true` or `false`.
    pub(crate) fn integer(&self) -> Option<i64> {
        match self {
            Self::Bool(flag) => Some(i64::from(*flag)),
            Self::Null | Self::Number(_) | Self::Text(_) | Self::Other => {
                self.number().and_then(|n| n.integer())
            }
        }
    }

    /// Yes or no: `true`, 1, "1" and "true", and their opposites.
    pub(crate) fn flag(&self) -> Option<bool> {
        match self {
            Self::Bool(flag) => Some(*flag),
            Self::Text(text) if text.eq_ignore_ascii_case("true") => Some(true),
            Self::Text(text) if text.eq_ignore_ascii_case("false") => Some(false),
            Self::Null | Self::Number(_) | Self::Text(_) | Self::Other => {
                self.number().map(|n| !n.is_zero())
            }
        }
    }
}

/// A number by its spelling, so that nothing is rounded away: `1e-400` is not zero.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Number<'a>(&'a str);

impl<'a> Number<'a> {
    /// Takes what JSON would take as a number.
    pub(crate) fn of(text: &'a str) -> Option<Self> {
        let spelt = matches!(text.as_bytes(), [b'-' | b'0'..=b'9', ..]);
        (spelt && serde_json::from_str::<&RawValue>(text).is_ok()).then_some(Self(text))
    }

    /// Whether it is nought, in any spelling.
    pub(crate) fn is_zero(self) -> bool {
        let digits = self.0.split(['e', 'E']).next().unwrap_or_default();
        !digits.bytes().any(|byte| matches!(byte, b'1'..=b'9'))
    }

    /// The whole number it stands for, if it is one.
    pub(crate) fn integer(self) -> Option<i64> {
        /// Up to here every whole number has a float of its own.
        const EXACT_MAX: f64 = 9_007_199_254_740_992.0;
        if let Ok(integer) = self.0.parse() {
            return Some(integer);
        }
        let float: f64 = self.0.parse().ok()?;
        let whole =
            float.fract() == 0.0 && float.abs() <= EXACT_MAX && (float != 0.0 || self.is_zero());
        #[expect(clippy::cast_possible_truncation, reason = "whole, and within ±2^53")]
        whole.then_some(float as i64)
    }

    /// The whole number as DJI writes codes, else as it was spelt.
    pub(crate) fn to_code(self) -> String {
        self.integer().map_or_else(|| self.0.to_owned(), |integer| integer.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_read_in_every_spelling_a_device_uses() {
        for (raw, integer, zero) in [
            ("0", Some(0), Some(true)),
            ("-0", Some(0), Some(true)),
            ("0.0", Some(0), Some(true)),
            ("0e5", Some(0), Some(true)),
            ("\"0\"", Some(0), Some(true)),
            ("\" 3 \"", Some(3), Some(false)),
            ("3.0", Some(3), Some(false)),
            ("\"514100\"", Some(514_100), Some(false)),
            ("1e3", Some(1000), Some(false)),
            ("0.5", None, Some(false)),
            ("1e-400", None, Some(false)),
            ("1e400", None, Some(false)),
            ("99999999999999999999", None, Some(false)),
            ("\"+1\"", None, None),
            ("\"0x10\"", None, None),
            ("\"1 2\"", None, None),
            ("\"NaN\"", None, None),
            ("\"\"", None, None),
            ("null", None, None),
            ("{}", None, None),
        ] {
            let scalar = Scalar::of(raw);
            assert_eq!(scalar.integer(), integer, "{raw}");
            assert_eq!(scalar.number().map(Number::is_zero), zero, "{raw}");
        }
        assert_eq!(Scalar::of("true").integer(), Some(1));
    }

    #[test]
    fn flags_are_read_as_numbers_words_and_booleans() {
        for (raw, flag) in [
            ("1", Some(true)),
            ("0", Some(false)),
            ("true", Some(true)),
            ("\"1\"", Some(true)),
            ("\"True\"", Some(true)),
            ("\"false\"", Some(false)),
            ("null", None),
            ("\"yes\"", None),
            ("[]", None),
        ] {
            assert_eq!(Scalar::of(raw).flag(), flag, "{raw}");
        }
    }

    #[test]
    fn the_last_of_a_repeated_key_counts_and_the_contradiction_shows() {
        let [a, b] = pick(r#"{"a":1,"b":2,"a":1,"b":3}"#, ["a", "b"]);
        assert_eq!((a.raw(), a.contradicts_itself()), (Some("1"), false));
        assert_eq!((b.raw(), b.contradicts_itself()), (Some("3"), true));
    }

    #[test]
    fn a_pointer_is_followed_through_objects_only() {
        let text = r#"{"output":{"ext":{"flight_id":"x"},"list":[1]}}"#;
        assert_eq!(at(text, "/output/ext/flight_id"), Some("\"x\""));
        assert_eq!(at(text, "/output/list/0"), None);
        assert_eq!(at(text, "output"), None);
        assert_eq!(at("[]", "/output"), None);
    }

    #[test]
    fn half_a_surrogate_pair_is_no_text_and_no_panic() {
        assert_eq!(Scalar::of(r#""\ud800""#), Scalar::Other);
        assert_eq!(Scalar::of(r#""a\u00e9""#), Scalar::Text("aé".into()));
    }
}
