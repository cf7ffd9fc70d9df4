//! Overrides of the catalogue.

use serde_json::json;
use utmos_core::method::Risk;

use crate::{catalogue, method};

#[test]
fn an_override_changes_single_keys_and_adds_methods() {
    let changes = json!({
        "methods": {
            "cover_open": {"timeout_seconds": 90, "note": "slow cover"},
            "release_terminal_control_area": {"title": "Release the area", "channel": "services",
                "completes_by": "reply", "risk": "configuration", "example": {}}
        },
        "codes": {"999001": {"meaning": "own code"}}
    });
    let catalogue = catalogue().with_override(&changes.to_string()).unwrap();
    let cover = method(&catalogue, "cover_open");
    assert_eq!(cover.timeout.as_secs(), 90);
    assert_eq!(cover.risk, Risk::Ground);
    assert!(cover.job.is_some());
    assert_eq!(catalogue.methods().count(), 168);
    assert_eq!(
        catalogue.nearest("release_terminal_control_aera"),
        Some("release_terminal_control_area")
    );
    assert_eq!(catalogue.meaning(999_001), Some("own code"));
    let back = catalogue
        .with_override(r#"{"methods": {"cover_open": {"timeout_seconds": null}}}"#)
        .unwrap();
    assert_eq!(method(&back, "cover_open").timeout.as_secs(), 30);
}

#[test]
fn a_bad_override_is_refused_by_method_and_key() {
    let cases = [
        (
            json!({"methods": {"cover_open": {"risk": "harmless"}}}),
            "method \"cover_open\", key \"risk\"",
        ),
        (
            json!({"methods": {"cover_open": {"timeout_second": 3}}}),
            "unknown key \"timeout_second\", perhaps \"timeout_seconds\"",
        ),
        (
            json!({"methods": {"cover_open": {"timeout_seconds": 0}}}),
            "must be between 1 and 300, got 0",
        ),
        (
            json!({"methods": {"new_one": {"title": "New"}}}),
            "method \"new_one\" has no \"channel\"",
        ),
        (
            json!({"methods": {"fly_to_point": {"abort": {"method": "stop_it"}}}}),
            "there is no method \"stop_it\"",
        ),
        (
            json!({"methods": {"fly_to_point": {"example": {}}}}),
            "method \"fly_to_point\", key \"example\": /fly_to_id is required",
        ),
        (
            json!({"methods": {"fly_to_point": {"payload": [{"name": "a", "type": "text"}]}}}),
            "key \"payload\"",
        ),
        (
            json!({"methods": {"fly_to_point": {"payload": [{"name": "a", "type": "array"}]}}}),
            "says nothing of its items",
        ),
        (json!({"methods": {"cover_open": {"job": null}}}), "key \"job\""),
        (json!({"methods": {"cover_open": 1}}), "method \"cover_open\" must be an object"),
        (json!({"method": {}}), "no \"method\" at its top"),
        (json!({"codes": {"x": {"meaning": "y"}}}), "error code \"x\""),
        (json!([]), "must be an object"),
    ];
    for (changes, expected) in cases {
        let error =
            catalogue().with_override(&changes.to_string()).expect_err(expected).to_string();
        assert!(error.contains(expected), "{error}");
    }
    assert!(catalogue().with_override("{").is_err());
}
