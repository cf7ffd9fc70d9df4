//! Properties that can be set with `property/set`, and their ranges.

use serde_json::{Map, Value, json};
use utmos_dji::uplink::Exchange;

use super::{Dock, Output, Overruled, commands::Answer};
use crate::{Model, Outcome, refusal};

/// The properties of a gateway and its aircraft that can be set somewhere, and what they are set to.
#[derive(Debug)]
pub struct Properties {
    model: Model,
    gateway: Value,
    aircraft: Value,
}

impl Properties {
    pub fn of(model: Model) -> Self {
        Self {
            model,
            gateway: json!({
                "air_transfer_enable": true,
                "silent_mode": 0,
                "user_experience_improvement": 1,
            }),
            aircraft: json!({
                "obstacle_avoidance": {"horizon": 1, "upside": 1, "downside": 1},
                "height_limit": 500,
                "night_lights_state": 0,
                "commander_flight_height": 80.0,
                "commander_flight_mode": 1,
                "commander_mode_lost_action": 1,
                "distance_limit_status": {
                    "state": 0, "distance_limit": 5_000, "is_near_distance_limit": 0},
                "rth_altitude": 100,
                "rc_lost_action": 2,
                "exit_wayline_when_rc_lost": 0,
                "remaining_power_for_return_home": 20,
                "camera_watermark_settings": {
                    "global_enable": 0, "drone_type_enable": 0, "drone_sn_enable": 0,
                    "datetime_enable": 0, "gps_enable": 0, "user_custom_string_enable": 0,
                    "user_custom_string": "", "layout": 0,
                },
            }),
        }
    }

    /// Sets one property; `path` leads to it.
    fn set(&mut self, path: &[&str], value: &Value) -> i64 {
        let settable = [self.model.gateway().settable, self.model.airframe().settable];
        let is_settable = |names: &&[&str]| path.first().is_some_and(|name| names.contains(name));
        let range = range(path).filter(|_| settable.iter().any(is_settable));
        let Some(range) = range else { return FAILED };
        if !fits(range, value) {
            return refusal::BAD_PARAMETER;
        }
        self.put(path, value)
    }

    fn put(&mut self, path: &[&str], value: &Value) -> i64 {
        let pointer = format!("/{}", path.join("/"));
        for half in [&mut self.gateway, &mut self.aircraft] {
            if let Some(place) = half.pointer_mut(&pointer) {
                *place = value.clone();
                return 0;
            }
        }
        FAILED
    }

    pub fn height_limit(&self) -> f64 {
        self.aircraft.get("height_limit").and_then(Value::as_f64).unwrap_or(120.0)
    }

    pub fn night_lights(&self) -> Value {
        self.aircraft.get("night_lights_state").cloned().unwrap_or_default()
    }

    pub fn set_night_lights(&mut self, value: Option<i64>) {
        if let Some(value @ 0..=1) = value {
            self.put(&["night_lights_state"], &json!(value));
        }
    }

    /// Of the gateway.
    pub fn of_gateway(&self) -> &Value {
        &self.gateway
    }

    /// Of the aircraft.
    pub fn of_aircraft(&self) -> &Value {
        &self.aircraft
    }
}

/// What a property may be.
#[derive(Debug, Clone, Copy)]
enum Range {
    Flag,
    Between(f64, f64),
    Text,
}

/// `result` of a property: failed.
const FAILED: i64 = 1;

fn range(path: &[&str]) -> Option<Range> {
    Some(match path {
        ["air_transfer_enable" | "silent_mode" | "night_lights_state"] => Range::Flag,
        ["commander_flight_mode" | "commander_mode_lost_action" | "exit_wayline_when_rc_lost"] => {
            Range::Flag
        }
        ["distance_limit_status", "state"] => Range::Flag,
        ["distance_limit_status", "distance_limit"] => Range::Between(15.0, 8000.0),
        ["rth_altitude"] => Range::Between(20.0, 500.0),
        ["rc_lost_action"] => Range::Between(0.0, 2.0),
        ["remaining_power_for_return_home"] => Range::Between(0.0, 100.0),
        ["user_experience_improvement"] => Range::Between(0.0, 2.0),
        ["obstacle_avoidance", "horizon" | "upside" | "downside"] => Range::Flag,
        ["height_limit"] => Range::Between(20.0, 1500.0),
        ["commander_flight_height"] => Range::Between(2.0, 3000.0),
        ["camera_watermark_settings", "layout"] => Range::Between(0.0, 3.0),
        ["camera_watermark_settings", "user_custom_string"] => Range::Text,
        ["camera_watermark_settings", name] if name.ends_with("_enable") => Range::Flag,
        _ => return None,
    })
}

fn fits(range: Range, value: &Value) -> bool {
    match range {
        Range::Flag => value.is_boolean() || matches!(value.as_i64(), Some(0 | 1)),
        Range::Between(least, most) => {
            value.as_f64().is_some_and(|number| least <= number && number <= most)
        }
        Range::Text => value.is_string(),
    }
}

impl Dock {
    pub(super) fn take_property_set(&mut self, exchange: Exchange, data: &str) {
        let received = self.received(Some(&exchange), None, "property/set");
        self.receipts += 1;
        let receipt = self.receipts;
        let overruled = self.meddling.overruled.take();
        if overruled == Some(Overruled::Ignore) {
            self.out.push(Output::Received { received, receipt, outcome: Outcome::Ignored });
            return;
        }
        let refused = overruled.and_then(Overruled::code);
        let asked: Value = serde_json::from_str(data).unwrap_or_default();
        let mut results = Map::new();
        let mut worst = 0;
        let fields = asked.as_object().cloned().unwrap_or_default();
        for (name, value) in &fields {
            let code = match refused {
                Some(code) => refuse(name, value, code, &mut results),
                None => self.set_property(name, value, &mut results),
            };
            if code != 0 {
                worst = code;
            }
        }
        if fields.is_empty() {
            worst = FAILED;
        }
        let outcome = if worst == 0 { Outcome::Done } else { Outcome::Refused(worst) };
        self.out.push(Output::Received { received, receipt, outcome });
        let wait = self.reply_wait("property/set", worst);
        let data = Value::Object(results).to_string();
        self.answer_in(wait, Answer::Property { exchange, data });
        if worst == 0 {
            self.push_properties(&fields);
        }
    }

    /// Sets one property, or the one inner field of a struct, and puts its result where it stood.
    fn set_property(&mut self, name: &str, value: &Value, results: &mut Map<String, Value>) -> i64 {
        let Some(inner) = value.as_object().filter(|inner| !inner.is_empty()) else {
            let code = self.properties.set(&[name], value);
            results.insert(name.to_owned(), json!({"result": code}));
            return code;
        };
        let mut worst = 0;
        let mut within = Map::new();
        for (key, value) in inner {
            let code = self.properties.set(&[name, key], value);
            within.insert(key.clone(), json!({"result": code}));
            if code != 0 {
                worst = code;
            }
        }
        results.insert(name.to_owned(), Value::Object(within));
        worst
    }

    /// Tells of what was set, on the topic of whose it is.
    fn push_properties(&mut self, fields: &Map<String, Value>) {
        for (name, _) in fields {
            let of_gateway = self.properties.of_gateway().get(name).cloned();
            let of_aircraft = self.properties.of_aircraft().get(name).cloned();
            if let Some(value) = of_gateway {
                self.push_property(self.sn.to_device(), name, value);
            } else if let Some(value) = of_aircraft {
                self.push_property(self.aircraft_sn.clone(), name, value);
            }
        }
    }
}

/// Writes down that a property was not set, or none of a struct's inner fields.
fn refuse(name: &str, value: &Value, code: i64, results: &mut Map<String, Value>) -> i64 {
    let refused = json!({"result": code});
    let of_all = match value.as_object().filter(|inner| !inner.is_empty()) {
        Some(inner) => inner.keys().map(|key| (key.clone(), refused.clone())).collect(),
        None => refused,
    };
    results.insert(name.to_owned(), of_all);
    code
}
