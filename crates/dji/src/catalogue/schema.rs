//! Turns the catalogue's fields into JSON Schema 2020-12. What [`Method::check`] makes of a payload always fits.

use serde_json::{Map, Value, json};
use utmos_core::method::Channel;

use super::{
    field::{Field, Kind},
    method::Method,
};

const DIALECT: &str = "https://json-schema.org/draft/2020-12/schema";

impl Method {
    /// JSON Schema of the payload, with the other spellings that are accepted.
    #[must_use]
    pub fn payload_schema(&self) -> Value {
        let mut schema = object_schema(&self.payload);
        self.add_other_spellings(&mut schema);
        if self.one_field {
            limit_to_one(&mut schema);
        }
        self.head(&mut schema, &format!("Payload of {}", self.name), self.description.as_deref());
        schema.insert("examples".to_owned(), json!([self.example]));
        Value::Object(schema)
    }

    /// JSON Schema of the `data` of the reply.
    #[must_use]
    pub fn reply_schema(&self) -> Value {
        let mut schema = object_schema(&self.reply);
        let result = match self.channel {
            Channel::Services | Channel::DrcDown => {
                json!({"type": "integer", "description": "0 is success, anything else an error code."})
            }
            Channel::PropertySet => {
                json!({"type": "integer", "description": "0 is success, 1 failure, 2 no answer in time, anything else an error code."})
            }
        };
        if self.channel == Channel::PropertySet {
            let inner = json!({"type": "object", "properties": {"result": result}});
            schema.insert("additionalProperties".to_owned(), inner);
        }
        let properties = schema.entry("properties").or_insert_with(|| json!({}));
        if let Value::Object(properties) = properties {
            properties.insert("result".to_owned(), result);
            if self.status_in_reply {
                let status = json!({"type": "string", "description": "Where the job stands, such as \"in_progress\" or \"ok\"."});
                properties.insert(
                    "output".to_owned(),
                    json!({"type": "object", "properties": {"status": status}}),
                );
            }
        }
        self.head(&mut schema, &format!("Data of the reply to {}", self.name), None);
        Value::Object(schema)
    }

    fn head(&self, schema: &mut Map<String, Value>, title: &str, more: Option<&str>) {
        let description = match more {
            Some(more) => format!("{}. {more}", self.title),
            None => format!("{}.", self.title),
        };
        schema.insert("$schema".to_owned(), json!(DIALECT));
        schema.insert("title".to_owned(), json!(title));
        schema.insert("description".to_owned(), json!(description));
    }

    /// Another spelling of a required field satisfies the requirement as well.
    fn add_other_spellings(&self, schema: &mut Map<String, Value>) {
        for alias in &self.accepts {
            let shown = json!({"description": alias.note});
            if let Some(Value::Object(properties)) = schema.get_mut("properties") {
                properties.insert(alias.name.clone(), shown);
            }
            let target = alias.to.as_deref().and_then(|to| to.strip_prefix('/'));
            let Some(target) = target else { continue };
            let Some(Value::Array(required)) = schema.get_mut("required") else { continue };
            let before = required.len();
            required.retain(|name| name != target);
            if required.len() < before {
                let either = json!({"anyOf": [{"required": [target]}, {"required": [alias.name]}]});
                push(schema, "allOf", either);
            }
        }
        if schema.get("required").and_then(Value::as_array).is_some_and(Vec::is_empty) {
            schema.remove("required");
        }
    }
}

/// One member, here and in every object that is known below.
fn limit_to_one(schema: &mut Map<String, Value>) {
    schema.insert("minProperties".to_owned(), json!(1));
    schema.insert("maxProperties".to_owned(), json!(1));
    let Some(Value::Object(properties)) = schema.get_mut("properties") else { return };
    let inner = properties.values_mut().filter_map(Value::as_object_mut);
    inner.filter(|one| one.contains_key("properties")).for_each(limit_to_one);
}

fn push(schema: &mut Map<String, Value>, key: &str, item: Value) {
    if let Value::Array(list) = schema.entry(key).or_insert_with(|| json!([])) {
        list.push(item);
    }
}

fn object_schema(fields: &[Field]) -> Map<String, Value> {
    let properties: Map<String, Value> =
        fields.iter().map(|field| (field.name.clone(), field_schema(field))).collect();
    let required: Vec<&str> = fields
        .iter()
        .filter(|field| field.required && field.default.is_none())
        .map(|field| field.name.as_str())
        .collect();
    let mut schema = Map::new();
    schema.insert("type".to_owned(), json!("object"));
    schema.insert("properties".to_owned(), Value::Object(properties));
    if !required.is_empty() {
        schema.insert("required".to_owned(), json!(required));
    }
    for field in fields {
        let Some(when) = &field.required_when else { continue };
        let condition =
            json!({"required": [when.field], "properties": {&when.field: {"enum": when.values}}});
        push(&mut schema, "allOf", json!({"if": condition, "then": {"required": [field.name]}}));
    }
    schema
}

fn field_schema(field: &Field) -> Value {
    let mut schema = match field.kind {
        Kind::Object => object_schema(&field.fields),
        Kind::String | Kind::Integer | Kind::Number | Kind::Boolean | Kind::Array | Kind::Any => {
            Map::new()
        }
    };
    let mut set = |key: &str, value: Option<Value>| {
        if let Some(value) = value {
            schema.insert(key.to_owned(), value);
        }
    };
    set("type", field.kind.as_schema().map(Value::from));
    set("description", describe(field).map(Value::from));
    set("minimum", field.min.map(plain));
    set("maximum", field.max.map(plain));
    set("x-unit", field.unit.as_deref().map(Value::from));
    set("minItems", field.min_items.map(Value::from));
    set("maxItems", field.max_items.map(Value::from));
    set("maxLength", field.max_chars.or(field.max_bytes).map(Value::from));
    set("default", field.default.clone());
    set("deprecated", field.deprecated.then_some(Value::Bool(true)));
    set("writeOnly", field.secret.map(|_| Value::Bool(true)));
    set("x-recommended", field.recommended.then_some(Value::Bool(true)));
    set("items", field.items.as_deref().map(field_schema));
    if !field.choices.is_empty() {
        let values: Vec<&Value> = field.choices.iter().map(|choice| &choice.value).collect();
        set("enum", Some(json!(values)));
    }
    Value::Object(schema)
}

fn describe(field: &Field) -> Option<String> {
    let mut parts: Vec<String> = Vec::new();
    parts.extend(field.description.clone());
    if let Some(unit) = &field.unit {
        parts.push(format!("In {unit}."));
    }
    if !field.choices.is_empty() {
        let choices: Vec<String> = field
            .choices
            .iter()
            .map(|choice| match &choice.value {
                Value::String(text) => format!("{text} = {}", choice.meaning),
                other @ (Value::Null
                | Value::Bool(_)
                | Value::Number(_)
                | Value::Array(_)
                | Value::Object(_)) => {
                    format!("{other} = {}", choice.meaning)
                }
            })
            .collect();
        parts.push(format!("{}.", choices.join("; ")));
    }
    if field.recommended {
        parts.push("DJI asks for it.".to_owned());
    }
    (!parts.is_empty()).then(|| parts.join(" "))
}

/// Whole bounds without a fraction, as people write them.
fn plain(bound: f64) -> Value {
    match format!("{bound}").parse::<i64>() {
        Ok(whole) => Value::from(whole),
        Err(_) => Value::from(bound),
    }
}
