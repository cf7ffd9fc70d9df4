//! When two bodies are the same request: a fingerprint over JSON values, not over bytes.

use serde_json::Value;
use sha2::{Digest, Sha256};

/// Integers up to here are the same number as text and as a float.
const EXACT_INTEGER_MAX: f64 = 9_007_199_254_740_992.0;

/// SHA-256 over `body` as a JSON value, without its members `except`.
///
/// Bodies that differ only in white space, order of members, escapes, or the spelling of a number (`1`, `1.0`, `1e0`)
/// have the same fingerprint.
#[must_use]
pub fn fingerprint(body: &Value, except: &[&str]) -> [u8; 32] {
    let mut hash = Sha256::new();
    feed(&mut hash, body, except);
    hash.finalize().into()
}

fn feed(hash: &mut Sha256, value: &Value, except: &[&str]) {
    match value {
        Value::Null => hash.update(b"n"),
        Value::Bool(false) => hash.update(b"f"),
        Value::Bool(true) => hash.update(b"t"),
        Value::Number(number) => feed_number(hash, number),
        Value::String(text) => feed_text(hash, text),
        Value::Array(items) => {
            hash.update(b"[");
            for item in items {
                feed(hash, item, &[]);
            }
            hash.update(b"]");
        }
        Value::Object(members) => {
            hash.update(b"{");
            let mut names: Vec<_> =
                members.keys().filter(|name| !except.contains(&name.as_str())).collect();
            names.sort_unstable();
            for name in names {
                feed_text(hash, name);
                if let Some(member) = members.get(name) {
                    feed(hash, member, &[]);
                }
            }
            hash.update(b"}");
        }
    }
}

/// The length goes first, so that no text can be mistaken for structure.
fn feed_text(hash: &mut Sha256, text: &str) {
    hash.update(b"s");
    hash.update((text.len() as u64).to_be_bytes());
    hash.update(text.as_bytes());
}

fn feed_number(hash: &mut Sha256, number: &serde_json::Number) {
    let text = match number.as_f64() {
        Some(float)
            if number.is_f64() && float.fract() == 0.0 && float.abs() <= EXACT_INTEGER_MAX =>
        {
            format!("{float:.0}")
        }
        _ => number.to_string(),
    };
    hash.update(b"#");
    hash.update(if text == "-0" { "0" } else { &text });
    hash.update(b";");
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]
    use super::*;

    fn of(text: &str) -> [u8; 32] {
        fingerprint(&serde_json::from_str(text).unwrap(), &["idempotency_key"])
    }

    #[test]
    fn spelling_does_not_matter_and_values_do() {
        let same = [
            r#"{"a":1,"b":[true,null,"x"],"idempotency_key":"k1"}"#,
            r#" {"b":[true,null,"\u0078"], "a":1.0, "idempotency_key":"k2"}"#,
            r#"{"b":[true,null,"x"],"a":1e0}"#,
        ];
        assert!(same.iter().all(|text| of(text) == of(same[0])));
        for other in [
            r#"{"a":2,"b":[true,null,"x"]}"#,
            r#"{"a":"1","b":[true,null,"x"]}"#,
            r#"{"a":1,"b":[null,true,"x"]}"#,
            r#"{"a":1,"b":[true,null,"x"],"c":null}"#,
            r#"{"a":1,"b":[true,[null],"x"]}"#,
            r#"{"a":1,"b":[true,null,"x"],"nested":{"idempotency_key":"k1"}}"#,
        ] {
            assert_ne!(of(other), of(same[0]), "{other}");
        }
        assert_ne!(of(r#"{"a":{"idempotency_key":1}}"#), of(r#"{"a":{"idempotency_key":2}}"#));
        assert_eq!(of(r#"{"a":-0.0}"#), of(r#"{"a":0}"#));
    }
}
