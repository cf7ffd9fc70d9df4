//! Properties of the check, on payloads near the examples and far from them.

use jsonschema::Validator;
use proptest::prelude::*;
use serde_json::Value;
use utmos_dji::catalogue::Method;

use crate::catalogue;

/// Numbers at and beside the bounds of the catalogue.
const NEAR_BOUNDS: [i64; 26] = [
    -181, -91, -17, -4, -1, 0, 1, 2, 5, 6, 15, 16, 17, 20, 30, 31, 90, 91, 100, 101, 180, 200, 201,
    364, 1500, 10_001,
];

fn leaf() -> impl Strategy<Value = Value> {
    prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        prop::sample::select(NEAR_BOUNDS.to_vec()).prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        (-2.0f64..2.0).prop_map(Value::from),
        "[ -~]{0,12}".prop_map(Value::from),
        (0i64..40).prop_map(|n| Value::from(n.to_string())),
        prop::sample::select(vec!["wide", "zoom", "ir", "current", "0.7", "ä", ""])
            .prop_map(Value::from),
    ]
}

fn anything() -> impl Strategy<Value = Value> {
    leaf().prop_recursive(4, 32, 6, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..6).prop_map(Value::Array),
            prop::collection::btree_map("[a-z_/~]{1,8}", inner, 0..6)
                .prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    })
}

fn count(value: &Value) -> usize {
    1 + match value {
        Value::Array(items) => items.iter().map(count).sum(),
        Value::Object(map) => map.values().map(count).sum(),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => 0,
    }
}

/// Puts `value` in the place of the `at`-th value of `target`, counting in order of appearance.
fn replace(target: &mut Value, at: &mut usize, value: &Value) -> bool {
    if *at == 0 {
        *target = value.clone();
        return true;
    }
    *at -= 1;
    match target {
        Value::Array(items) => items.iter_mut().any(|item| replace(item, at, value)),
        Value::Object(map) => map.values_mut().any(|item| replace(item, at, value)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => false,
    }
}

/// Each value of each example in turn becomes each number near a bound.
#[test]
fn no_value_near_a_bound_passes_the_check_and_not_the_schema() {
    for method in catalogue().methods() {
        let schema = jsonschema::validator_for(&method.payload_schema()).unwrap();
        for at in 1..count(method.example()) {
            for number in NEAR_BOUNDS {
                let mut payload = method.example().clone();
                replace(&mut payload, &mut at.clone(), &Value::from(number));
                if let Ok(checked) = method.check(&payload) {
                    assert!(schema.is_valid(&checked.payload), "{} {payload}", method.name);
                }
            }
        }
    }
}

#[test]
fn what_passes_the_check_fits_the_schema_and_passes_again() {
    let catalogue = catalogue();
    let methods: Vec<(&Method, Validator)> = catalogue
        .methods()
        .map(|method| (method, jsonschema::validator_for(&method.payload_schema()).unwrap()))
        .collect();
    let value = prop_oneof![4 => leaf(), 1 => anything()];
    let changes = prop::collection::vec((any::<prop::sample::Index>(), value), 0..3);
    let config =
        ProptestConfig { cases: 500, failure_persistence: None, ..ProptestConfig::default() };
    proptest!(config, |(index in any::<prop::sample::Index>(), changes in changes, other in anything())| {
        let (method, schema) = &methods[index.index(methods.len())];
        let mut payload = method.example().clone();
        for (at, value) in changes {
            let mut at = at.index(count(&payload));
            replace(&mut payload, &mut at, &value);
        }
        for given in [payload, other] {
            let masked = method.mask(&given);
            prop_assert_eq!(masked.is_object(), given.is_object());
            match method.check(&given) {
                Ok(checked) => {
                    prop_assert!(schema.is_valid(&checked.payload), "{} {}", method.name, checked.payload);
                    prop_assert_eq!(method.check(&checked.payload).map(|again| again.payload), Ok(checked.payload));
                }
                Err(flaws) => {
                    prop_assert!(!flaws.is_empty());
                    for flaw in flaws {
                        prop_assert!(flaw.pointer.is_empty() || flaw.pointer.starts_with('/'));
                    }
                }
            }
        }
    });
}
