//! Hides secrets before a payload is shown or kept in a log.

use serde_json::{Map, Value};

use super::{
    check::DEPTH_MAX,
    field::{Field, Kind, Secret},
    method::Method,
};

/// What stands in the place of a secret.
pub const MASKED: &str = "***";

/// A name that holds one of these names a secret, in fields the catalogue does not know.
const SECRET_NAMES: [&str; 7] =
    ["password", "passwd", "secret", "token", "access_key", "api_key", "private_key"];

impl Method {
    /// The payload with its secrets replaced by `***`; also those in fields the catalogue does not know, by their names.
    #[must_use]
    pub fn mask(&self, payload: &Value) -> Value {
        masked(Known::Fields(&self.payload), payload, 1)
    }
}

#[derive(Clone, Copy)]
enum Known<'a> {
    Fields(&'a [Field]),
    One(&'a Field),
    Nothing,
}

fn masked(known: Known<'_>, value: &Value, depth: usize) -> Value {
    // A payload that was checked is never deeper; nothing else may exhaust the stack.
    if DEPTH_MAX < depth {
        return Value::from(MASKED);
    }
    if let Known::One(field) = known
        && let Some(secret) = field.secret
    {
        return hide(secret, value);
    }
    let fields = match known {
        Known::Fields(fields) => fields,
        Known::One(field) if field.kind == Kind::Object => &field.fields,
        Known::One(_) | Known::Nothing => &[],
    };
    match value {
        Value::Object(map) => {
            let shown: Map<String, Value> = map
                .iter()
                .map(|(name, inner)| {
                    let known = fields.iter().find(|field| field.name == *name);
                    let shown = match known {
                        None if names_a_secret(name) => hide(Secret::Value, inner),
                        Some(field) => masked(Known::One(field), inner, depth + 1),
                        None => masked(Known::Nothing, inner, depth + 1),
                    };
                    (name.clone(), shown)
                })
                .collect();
            Value::Object(shown)
        }
        Value::Array(items) => {
            let known = match known {
                Known::One(Field { items: Some(items), .. }) => Known::One(items),
                Known::One(_) | Known::Fields(_) | Known::Nothing => Known::Nothing,
            };
            Value::Array(items.iter().map(|item| masked(known, item, depth + 1)).collect())
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => value.clone(),
    }
}

fn names_a_secret(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    SECRET_NAMES.iter().any(|secret| name.contains(secret))
}

fn hide(secret: Secret, value: &Value) -> Value {
    match (secret, value) {
        (_, Value::Null) => Value::Null,
        (Secret::Url, Value::String(text)) => Value::from(hide_in_url(text)),
        (
            Secret::Value | Secret::Url,
            Value::Bool(_)
            | Value::Number(_)
            | Value::String(_)
            | Value::Array(_)
            | Value::Object(_),
        ) => Value::from(MASKED),
    }
}

/// Leaves scheme and host of an address, or the harmless ones of `key=value` pairs.
fn hide_in_url(text: &str) -> String {
    if let Some((scheme, rest)) = text.split_once("://") {
        let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
        let host = authority.rsplit('@').next().unwrap_or_default();
        return format!("{scheme}://{host}/{MASKED}");
    }
    if !text.contains('=') {
        return MASKED.to_owned();
    }
    let pairs: Vec<String> = text
        .split('&')
        .map(|pair| match pair.split_once('=') {
            Some((key, _)) if names_a_secret(key) => format!("{key}={MASKED}"),
            Some(_) => pair.to_owned(),
            None => MASKED.to_owned(),
        })
        .collect();
    pairs.join("&")
}

/// A value short enough to stand in a message: scalars as they are, others described.
pub(super) fn abridge(value: &Value, chars_max: usize) -> Value {
    match value {
        Value::Null | Value::Bool(_) | Value::Number(_) => value.clone(),
        Value::String(text) if text.chars().count() <= chars_max => value.clone(),
        Value::String(text) => {
            let start: String = text.chars().take(chars_max).collect();
            Value::from(format!("{start}…"))
        }
        Value::Array(items) => Value::from(format!("a list of {}", items.len())),
        Value::Object(map) => Value::from(format!("an object with {} fields", map.len())),
    }
}
