//! Values that could be true, for reply fields the simulator has no knowledge of its own about.

use rand::{RngExt, rngs::StdRng};
use serde_json::{Map, Value, json};
use utmos_dji::catalogue::{Field, Kind};

/// An object with a value for every field.
pub fn object(fields: &[Field], rng: &mut StdRng) -> Map<String, Value> {
    fields.iter().map(|field| (field.name.clone(), value(field, rng))).collect()
}

fn value(field: &Field, rng: &mut StdRng) -> Value {
    if !field.choices.is_empty() {
        let at = rng.random_range(0..field.choices.len());
        return field.choices.get(at).map_or(Value::Null, |choice| choice.value.clone());
    }
    match field.kind {
        Kind::String => json!(format!("sim-{:08x}", rng.random::<u32>())),
        Kind::Integer => {
            let (least, most) = range(field);
            // The whole part; ranges of DJI's are small.
            json!(rng.random_range(least..=most).round() as i64)
        }
        Kind::Number => {
            let (least, most) = range(field);
            json!((rng.random_range(least..=most) * 10.0).round() / 10.0)
        }
        Kind::Boolean => json!(rng.random::<bool>()),
        Kind::Object => Value::Object(object(&field.fields, rng)),
        Kind::Array => {
            let count = field.min_items.unwrap_or(1).clamp(1, 4);
            let items = field.items.as_deref();
            (0..count).filter_map(|_| items.map(|item| value(item, rng))).collect()
        }
        Kind::Any => json!(1),
    }
}

fn range(field: &Field) -> (f64, f64) {
    let least = field.min.unwrap_or(1.0);
    let most = field.max.unwrap_or(least + 99.0).min(least + 1_000_000.0);
    (least, most.max(least))
}
