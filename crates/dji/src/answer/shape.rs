//! DJI's shapes of answers to requests, as data, for answers that somebody gives by hand.

use std::{collections::BTreeMap, sync::LazyLock};

use serde_json::Value;

use crate::catalogue::{Checked, Field, Flaw, check_object};

type Shapes = BTreeMap<String, Vec<Field>>;

/// A test reads it, so that it is never empty.
static SHAPES: LazyLock<Shapes> = LazyLock::new(|| {
    serde_json::from_str(include_str!("../../data/request_replies.json")).unwrap_or_default()
});

/// Checks what answers a request of this type well: DJI's `output`, for `config` the flat answer. Types that are not known
/// may be answered with anything.
///
/// # Errors
/// With every problem there is, at most a hundred of them.
pub fn check_reply(request_type: &str, payload: &Value) -> Result<Value, Vec<Flaw>> {
    match SHAPES.get(request_type) {
        Some(fields) => check_object(fields, payload).map(|Checked { payload, .. }| payload),
        None => Ok(payload.clone()),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::answer::AUTOMATIC_TYPES;

    #[test]
    fn every_type_has_its_shape() {
        let types: Vec<&str> = SHAPES.keys().map(String::as_str).collect();
        assert_eq!(types, AUTOMATIC_TYPES);
    }

    #[test]
    fn what_does_not_fit_is_named_at_once_and_strange_types_take_anything() {
        let flaws = check_reply("flighttask_resource_get", &json!({"file": {"url": 5}}));
        let flaws = flaws.err().unwrap_or_default();
        let pointers: Vec<&str> = flaws.iter().map(|flaw| flaw.pointer.as_str()).collect();
        assert_eq!(pointers, ["/file/url", "/file/fingerprint"]);
        assert!(check_reply("something_get", &json!({"file": 5})).is_ok());
        let whole = json!({"offline_map_enable": 0, "files": [], "more": 1});
        let sent = json!({"offline_map_enable": false, "files": [], "more": 1});
        let checked = check_reply("offline_map_get", &whole);
        assert!(checked == Ok(whole) || checked == Ok(sent));
    }
}
