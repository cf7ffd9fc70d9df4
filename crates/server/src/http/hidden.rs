//! What of a command is not shown: the secrets of its payload, wherever a device repeats them.

use std::fmt;

use serde_json::{Value, value::RawValue};
use utmos_core::command::Spec;
use utmos_dji::catalogue::{Catalogue, MASKED, Method};

/// What stands in the place of everything that may hold a secret nobody can tell any more.
const UNKNOWN_METHOD: &str = "hidden: this method is no longer in the catalogue";
/// Prose that holds a shorter secret is hidden whole: what is left around the gaps would tell it. In words to program
/// against it is passed over: it would be found in most of them.
const REPLACED_CHARS_MIN: usize = 4;
/// Pieces of a secret address that are at least so long are secrets of their own, such as the signature in its query.
const PIECE_CHARS_MIN: usize = 8;

/// A command's secrets, hidden.
pub struct Hidden<'a>(Kind<'a>);

/// What a command was told in confidence, to be hidden wherever its device repeats it.
pub struct Secrets(Vec<String>);

impl fmt::Debug for Secrets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secrets(…)")
    }
}

impl Secrets {
    /// Hides them in what a device says. Short ones are passed over: they are found in most texts.
    pub fn hide_in(&self, value: &mut Value) {
        walk(&self.0, value);
    }

    /// How much memory they take, in bytes.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.0.iter().map(String::len).sum()
    }
}

enum Kind<'a> {
    /// It has none.
    Nothing { payload: &'a str },
    /// It has these, longest first.
    Secrets { payload: Value, method: &'a Method, secrets: Vec<String> },
    /// Its method left the catalogue: it may have had some, and nobody can tell which.
    All,
}

impl<'a> Hidden<'a> {
    /// Finds what is secret in a command's payload.
    #[must_use]
    pub fn of(spec: &'a Spec, catalogue: &'a Catalogue) -> Self {
        let Some(method) = catalogue.method(&spec.method) else { return Self(Kind::All) };
        let nothing = Self(Kind::Nothing { payload: &spec.payload });
        // Most commands are not taken apart to learn that they have none.
        if !method.may_hold_secrets(&spec.payload) {
            return nothing;
        }
        let payload: Value = serde_json::from_str(&spec.payload).unwrap_or(Value::Null);
        let shown = method.mask(&payload);
        if shown == payload {
            return nothing;
        }
        let mut secrets = Vec::new();
        gather(&payload, &shown, &mut secrets);
        secrets.sort_by_key(|secret| std::cmp::Reverse(secret.len()));
        secrets.dedup();
        Self(Kind::Secrets { payload: shown, method, secrets })
    }

    /// The secrets themselves, where there are any and they are known.
    #[must_use]
    pub fn secrets(self) -> Option<Secrets> {
        match self.0 {
            Kind::Secrets { secrets, .. } if !secrets.is_empty() => Some(Secrets(secrets)),
            Kind::Secrets { .. } | Kind::Nothing { .. } | Kind::All => None,
        }
    }

    /// Whether all may be shown as it is.
    #[must_use]
    pub fn hides_nothing(&self) -> bool {
        matches!(self.0, Kind::Nothing { .. })
    }

    /// The payload as it may be shown; null where it is no JSON.
    #[must_use]
    pub fn payload(&self) -> Box<RawValue> {
        let shown = match &self.0 {
            Kind::Nothing { payload } => RawValue::from_string((*payload).to_owned()),
            Kind::Secrets { payload, .. } => serde_json::value::to_raw_value(payload),
            Kind::All => serde_json::value::to_raw_value(UNKNOWN_METHOD),
        };
        shown.unwrap_or_else(|_| RawValue::NULL.to_owned())
    }

    /// A device's prose, or prose about it, as it may be shown.
    #[must_use]
    pub fn prose(&self, text: &str) -> String {
        match &self.0 {
            Kind::Nothing { .. } => text.to_owned(),
            Kind::Secrets { secrets, .. }
                if secrets.iter().any(|one| is_short(one) && text.contains(one.as_str())) =>
            {
                MASKED.to_owned()
            }
            Kind::Secrets { secrets, .. } => without(secrets, text),
            Kind::All => UNKNOWN_METHOD.to_owned(),
        }
    }

    /// A device's word to program against, such as a code or a state, as it may be shown.
    #[must_use]
    pub fn word(&self, text: &str) -> String {
        match &self.0 {
            Kind::Nothing { .. } | Kind::All => text.to_owned(),
            Kind::Secrets { secrets, .. } => without(secrets, text),
        }
    }

    /// A device's data as it may be shown.
    #[must_use]
    pub fn data(&self, data: &Value) -> Value {
        match &self.0 {
            Kind::Nothing { .. } => data.clone(),
            Kind::Secrets { method, secrets, .. } => {
                let mut shown = method.mask(data);
                walk(secrets, &mut shown);
                shown
            }
            Kind::All => UNKNOWN_METHOD.into(),
        }
    }

    /// What a line of the timeline proves, as it may be shown.
    pub fn proof(&self, proof: &mut Value) {
        if let Kind::Nothing { .. } = self.0 {
            return;
        }
        for (name, value) in proof.as_object_mut().into_iter().flatten() {
            match (name.as_str(), &*value) {
                ("data", _) => *value = self.data(value),
                ("mismatch", Value::String(text)) => *value = self.prose(text).into(),
                ("code" | "state" | "step", Value::String(text)) => *value = self.word(text).into(),
                _ => {}
            }
        }
    }
}

/// Gathers every text of `value` that `shown` does not show.
fn gather(value: &Value, shown: &Value, secrets: &mut Vec<String>) {
    match (value, shown) {
        _ if value == shown => {}
        (Value::Object(members), _) => {
            for (name, inner) in members {
                gather(inner, shown.get(name).unwrap_or(&Value::Null), secrets);
            }
        }
        (Value::Array(items), _) => {
            for (at, inner) in items.iter().enumerate() {
                gather(inner, shown.get(at).unwrap_or(&Value::Null), secrets);
            }
        }
        (Value::String(text), _) => {
            let mut add = |secret: &str| {
                secrets.push(secret.to_owned());
                let quoted = Value::from(secret).to_string();
                secrets.extend(quoted.get(1..quoted.len() - 1).map(str::to_owned));
            };
            add(text);
            // What an address shows of itself is no secret, so its pieces are found from where that ends.
            let part = shown.as_str().and_then(|shown| shown.strip_suffix(MASKED));
            let same = part.map_or(0, |part| {
                text.char_indices()
                    .zip(part.chars())
                    .find(|((_, one), other)| one != other)
                    .map_or(part.len().min(text.len()), |((at, _), _)| at)
            });
            if 0 < same {
                let rest = text.get(same..).unwrap_or_default();
                rest.split(['/', '?', '&', '=', '#', '@', ':'])
                    .filter(|piece| PIECE_CHARS_MIN <= piece.chars().count())
                    .for_each(add);
            }
        }
        (Value::Number(number), _) => secrets.push(number.to_string()),
        (Value::Null | Value::Bool(_), _) => {}
    }
    secrets.retain(|secret| !secret.is_empty());
}

fn is_short(secret: &str) -> bool {
    secret.chars().count() < REPLACED_CHARS_MIN
}

/// A text without these secrets, short ones excepted.
fn without(secrets: &[String], text: &str) -> String {
    secrets
        .iter()
        .filter(|secret| !is_short(secret))
        .fold(text.to_owned(), |text, secret| text.replace(secret.as_str(), MASKED))
}

fn walk(secrets: &[String], value: &mut Value) {
    match value {
        Value::String(text) => *text = without(secrets, text),
        Value::Array(items) => items.iter_mut().for_each(|item| walk(secrets, item)),
        Value::Object(members) => members.values_mut().for_each(|inner| walk(secrets, inner)),
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn secrets_of(value: &Value, shown: &Value) -> Vec<String> {
        let mut secrets = Vec::new();
        gather(value, shown, &mut secrets);
        secrets.sort_by_key(|secret| std::cmp::Reverse(secret.len()));
        secrets
    }

    #[test]
    fn what_is_masked_in_a_payload_is_found_in_prose_however_it_is_written() {
        let payload = json!({
            "name": "dock", "password": "hush \"a\"", "more": {"keys": ["hush-key"]}, "pin": 12345,
            "url": "https://user:hush-user@host/path?sig=hush-signature",
        });
        let shown = json!({
            "name": "dock", "password": "***", "more": "***", "pin": "***", "url": "https://host/***",
        });
        let secrets = secrets_of(&payload, &shown);
        for text in [
            "no hush \"a\" here",
            r#"no {"password":"hush \"a\""} here"#,
            "hush-key refused",
            "cannot reach https://user:hush-user@host/path?sig=hush-signature",
            "bad signature hush-signature",
            "who is hush-user?",
        ] {
            let left = without(&secrets, text);
            assert!(left.contains("***") && !left.contains("hush"), "{text}: {left}");
        }
        assert_eq!(without(&secrets, "pin 12345 of dock"), "pin *** of dock");
        assert_eq!(without(&secrets, "host dock is away"), "host dock is away");
    }
}
