//! Hides secrets before a payload is shown or kept in a log.

use serde_json::{Map, Value, value::RawValue};

use super::{
    check::DEPTH_MAX,
    field::{Field, Kind, Secret},
    method::Method,
};
use crate::json::each_field;

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

    /// Whether anything of a payload could be replaced, by a look at its text alone: most commands hold no secret, and
    /// need not be taken apart to know that.
    #[must_use]
    pub fn may_hold_secrets(&self, payload: &str) -> bool {
        self.payload.iter().any(holds_a_secret) || may_name_a_secret(payload)
    }
}

fn holds_a_secret(field: &Field) -> bool {
    let mut inner = field.items.as_deref().into_iter().chain(&field.fields);
    field.secret.is_some() || inner.any(holds_a_secret)
}

/// The same of what devices say, ask and are told: licences, binding codes, temporary credentials.
const SECRET_NAMES_OF_DEVICES: [&str; 5] =
    ["app_key", "license", "licence", "binding_code", "nonce"];

/// A request of a device, or its answer, with what is secret in it replaced: by name, and what follows the host in every
/// address, which may be signed.
#[must_use]
pub fn mask_request(value: &Value) -> Value {
    masked_request(value, 1)
}

fn masked_request(value: &Value, depth: usize) -> Value {
    if DEPTH_MAX < depth {
        return Value::from(MASKED);
    }
    match value {
        Value::Object(map) => {
            let shown = |(name, inner): (&String, &Value)| {
                let is_address = inner.is_string() && name.to_ascii_lowercase().contains("url");
                let shown = if names_a_secret_of_devices(name) {
                    hide(Secret::Value, inner)
                } else if is_address {
                    hide(Secret::Url, inner)
                } else {
                    masked_request(inner, depth + 1)
                };
                (name.clone(), shown)
            };
            Value::Object(map.iter().map(shown).collect())
        }
        Value::Array(items) => {
            Value::Array(items.iter().map(|item| masked_request(item, depth + 1)).collect())
        }
        Value::String(text) if text.contains("://") && text.contains('?') => {
            Value::from(hide_in_url(text))
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => value.clone(),
    }
}

fn names_a_secret_of_devices(name: &str) -> bool {
    let lower = name.to_ascii_lowercase();
    names_a_secret(name) || SECRET_NAMES_OF_DEVICES.iter().any(|secret| lower.contains(secret))
}

/// The beginning of a text up to where a secret of a request could stand: for what was cut and cannot be read any more.
#[must_use]
pub fn mask_cut_request(text: &str) -> String {
    let lower = text.to_ascii_lowercase();
    let names = SECRET_NAMES.iter().chain(&SECRET_NAMES_OF_DEVICES).chain(&["url", "://", "\\"]);
    let end = names.filter_map(|name| lower.find(name)).min();
    match end.and_then(|end| text.get(..end)) {
        Some(start) => format!("{start}{MASKED}"),
        None => text.to_owned(),
    }
}

/// A message of a device as it may be shown, whether it can be read or not. Where nothing can be a
/// secret it stays as it was written.
#[must_use]
pub fn mask_message(text: &str) -> String {
    match serde_json::from_str::<Value>(text) {
        Ok(message) => {
            let shown = mask_request(&message);
            // A member that stands there twice is read once.
            let is_safe = shown == message && !may_name_a_secret(text);
            if is_safe { text.to_owned() } else { shown.to_string() }
        }
        Err(_) => mask_cut_request(text),
    }
}

/// An object that a device tells of itself, with its secrets replaced as far as their names tell; `None` where there is
/// nothing to replace. Members without secrets stay as they were written. Cheap where no name of a secret occurs at all.
#[must_use]
pub fn mask_members(object: &str) -> Option<String> {
    if !may_name_a_secret(object) {
        return None;
    }
    let (mut shown, mut is_masked) = (Vec::new(), false);
    let mut add = |name: &str, value: &RawValue| {
        let masked = masked_member(name, value.get());
        is_masked |= masked.is_some();
        let value = masked.as_deref().unwrap_or(value.get());
        shown.push(format!("{}:{value}", Value::from(name)));
    };
    // What cannot be read is nothing that is kept.
    each_field(object, &mut add).ok()?;
    is_masked.then(|| format!("{{{}}}", shown.join(",")))
}

fn masked_member(name: &str, value: &str) -> Option<String> {
    if names_a_secret_of_devices(name) {
        return (value != "null").then(|| Value::from(MASKED).to_string());
    }
    if !may_name_a_secret(value) {
        return None;
    }
    match serde_json::from_str::<Value>(value) {
        Ok(value) => {
            let shown = mask_by_name(&value);
            (shown != value).then(|| shown.to_string())
        }
        // Nested too deeply to be looked through.
        Err(_) => Some(Value::from(MASKED).to_string()),
    }
}

/// Whether a secret may be named in a text of JSON, in which a name can also be spelt with escapes.
fn may_name_a_secret(text: &str) -> bool {
    let lower = text.to_ascii_lowercase();
    let mut names = SECRET_NAMES.iter().chain(&SECRET_NAMES_OF_DEVICES);
    lower.contains('\\') || names.any(|name| lower.contains(name))
}

/// A value of which nothing is known, with its secrets replaced by `***`, as far as their names tell.
#[must_use]
pub fn mask_by_name(value: &Value) -> Value {
    masked(Known::Nothing, value, 1)
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
                        None if names_a_secret_of_devices(name) => hide(Secret::Value, inner),
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

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]
    use serde_json::json;

    use super::*;

    #[test]
    fn secrets_of_requests_and_their_answers_are_masked_wherever_they_stand() {
        let shown = mask_request(&json!({
            "app_id": "1", "app_key": "hush", "app_license": "hush", "nonce": "hush",
            "bind_devices": [{"sn": "A", "device_binding_code": "hush", "device_secret": "hush"}],
            "output": {
                "bucket": "b", "endpoint": "https://s3.example",
                "credentials": {"access_key_id": "hush", "access_key_secret": "hush", "security_token": "hush", "expire": 3600},
                "file": {"url": "https://files.example/a.kmz?sig=hush", "fingerprint": "f"},
            },
            "note": "see https://host/x?token=hush", "empty": null,
        }));
        let text = shown.to_string();
        assert!(!text.contains("hush"), "{text}");
        for kept in ["app_id", "fingerprint", "s3.example", "files.example", "3600", "\"b\""] {
            assert!(text.contains(kept), "{kept}: {text}");
        }
    }

    #[test]
    fn a_payload_of_which_something_is_hidden_looks_like_it_from_outside() {
        let catalogue = crate::catalogue::Catalogue::embedded().unwrap();
        let values = [
            json!({}),
            json!({"height": 5, "list": [{"x": 1}]}),
            json!({"unknown": [{"Device_Password": "hush"}]}),
            json!({"url": "https://host/x?sig=hush", "file": {"url": "https://host/x", "fingerprint": "f"}}),
            json!({"mqtt_broker": {"password": "hush"}, "url_type": 1}),
        ];
        let (mut hidden, mut passed_over) = (0, 0);
        for method in catalogue.methods() {
            for value in &values {
                let is_hidden = method.mask(value) != *value;
                let may = method.may_hold_secrets(&value.to_string());
                assert!(may || !is_hidden, "{}: {value}", method.name);
                hidden += usize::from(is_hidden);
                passed_over += usize::from(!may);
            }
            assert!(method.may_hold_secrets(r#"{"s\u0065cret":1}"#));
        }
        assert!(hidden > 0 && passed_over > catalogue.methods().count(), "{hidden} {passed_over}");
    }

    #[test]
    fn what_a_device_tells_of_itself_is_masked_by_name_and_else_stays_as_it_was_written() {
        for plain in
            [r#"{"height": 55.10, "sub_device":{"device_model_key":"0-100-1"}}"#, "{}", "7"]
        {
            assert_eq!(mask_members(plain), None, "{plain}");
        }
        let told = r#"{"h": 55.10,"wireless_link_topo":{"Secret_Code":[4711],"x":1},"s\u0065cret":4711,"token":null}"#;
        assert_eq!(
            mask_members(told).as_deref(),
            Some(
                r#"{"h":55.10,"wireless_link_topo":{"Secret_Code":"***","x":1},"secret":"***","token":null}"#
            )
        );
        let deep = format!(r#"{{"a":{}"token"{}}}"#, "[".repeat(200), "]".repeat(200));
        assert_eq!(mask_members(&deep).as_deref(), Some(r#"{"a":"***"}"#));
    }

    #[test]
    fn secrets_of_devices_are_masked_in_what_is_known_of_by_name_alone() {
        let shown = mask_by_name(&json!({
            "nonce": "hush", "app_key": "hush", "app_license": "hush", "license": "hush", "flight_id": "f",
            "list": [{"binding_code": "hush", "device_binding_code": "hush", "device_secret": "hush"}],
        }));
        let text = shown.to_string();
        assert!(!text.contains("hush") && text.contains("flight_id"), "{text}");
    }

    #[test]
    fn a_message_is_shown_as_it_came_but_for_its_secrets() {
        let plain = r#"{"tid": "t",  "data": {"result": 0}}"#;
        assert_eq!(mask_message(plain), plain);
        for told in [r#"{"tid":"t","device_binding_code":"hush"}"#, r#"{"tid":"t","token":"hush"#] {
            let shown = mask_message(told);
            assert!(!shown.contains("hush") && shown.contains(r#""tid":"t""#), "{shown}");
        }
    }

    #[test]
    fn of_a_cut_text_only_what_stands_before_the_first_secret_is_shown() {
        let text = r#"{"a":1,"Device_Binding_Code":"hush"}"#;
        assert_eq!(mask_cut_request(text), r#"{"a":1,"Device_***"#);
        assert_eq!(mask_cut_request(r#"{"a":1,"b":"#), r#"{"a":1,"b":"#);
        assert!(!mask_cut_request(r#"{"to\u006ben":"hush"}"#).contains("hush"));
    }
}
