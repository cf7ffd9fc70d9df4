//! One field of a payload or a reply: what it may hold and what it means.

use serde::Deserialize;
use serde_json::Value;

/// A field, as the catalogue describes it.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Field {
    /// Name in the JSON object. Empty for the items of an array.
    #[serde(default)]
    pub name: String,
    /// What kind of value DJI expects.
    #[serde(rename = "type")]
    pub kind: Kind,
    /// Whether a payload without it is refused.
    #[serde(default)]
    pub required: bool,
    /// Whether DJI asks for it though the public platform does not document it: its absence is worth a hint.
    #[serde(default)]
    pub recommended: bool,
    /// Makes it required while a field beside it has one of some values.
    #[serde(default)]
    pub required_when: Option<When>,
    /// Whether DJI has given it up.
    #[serde(default)]
    pub deprecated: bool,
    /// What is sent when it is left out.
    #[serde(default)]
    pub default: Option<Value>,
    /// Least value of a number.
    #[serde(default)]
    pub min: Option<f64>,
    /// Greatest value of a number.
    #[serde(default)]
    pub max: Option<f64>,
    /// Unit of a number.
    #[serde(default)]
    pub unit: Option<String>,
    /// Least number of items.
    #[serde(default)]
    pub min_items: Option<usize>,
    /// Greatest number of items.
    #[serde(default)]
    pub max_items: Option<usize>,
    /// Greatest length of a text in characters.
    #[serde(default)]
    pub max_chars: Option<usize>,
    /// Greatest length of a text in bytes of UTF-8.
    #[serde(default)]
    pub max_bytes: Option<usize>,
    /// Whether and how the value is hidden wherever it is shown.
    #[serde(default)]
    pub secret: Option<Secret>,
    /// The only values there are, when not empty.
    #[serde(default, rename = "enum")]
    pub choices: Vec<Choice>,
    /// What it means.
    #[serde(default)]
    pub description: Option<String>,
    /// What the items of an array hold.
    #[serde(default)]
    pub items: Option<Box<Field>>,
    /// The known fields of an object.
    #[serde(default)]
    pub fields: Vec<Field>,
}

/// Kinds of value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// Text.
    String,
    /// A whole number.
    Integer,
    /// A number.
    Number,
    /// True or false.
    Boolean,
    /// An object with known fields, which may hold others as well.
    Object,
    /// A list.
    Array,
    /// Anything.
    Any,
}

impl Kind {
    /// The name JSON Schema has for it; `None` for [`Kind::Any`].
    #[must_use]
    pub fn as_schema(self) -> Option<&'static str> {
        match self {
            Self::String => Some("string"),
            Self::Integer => Some("integer"),
            Self::Number => Some("number"),
            Self::Boolean => Some("boolean"),
            Self::Object => Some("object"),
            Self::Array => Some("array"),
            Self::Any => None,
        }
    }
}

/// How a secret is hidden.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Secret {
    /// The whole value.
    Value,
    /// An address whose path, user and key parameters may hold a key: the host stays visible.
    Url,
}

/// One of the values a field may have.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(from = "(Value, String)")]
pub struct Choice {
    /// As DJI lists it, and as it is sent.
    pub value: Value,
    /// What it means.
    pub meaning: String,
}

impl From<(Value, String)> for Choice {
    fn from((value, meaning): (Value, String)) -> Self {
        Self { value, meaning }
    }
}

/// A condition on a field beside the one it stands at.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct When {
    /// Name of the field beside.
    pub field: String,
    /// Values it has to have one of.
    #[serde(rename = "in")]
    pub values: Vec<Value>,
}

impl Field {
    /// What is wrong with the description itself, if anything.
    pub(super) fn fault(&self) -> Option<String> {
        let name = &self.name;
        if self.kind == Kind::Array && self.items.is_none() {
            return Some(format!("array {name:?} says nothing of its items"));
        }
        if self.kind != Kind::Array && self.items.is_some() {
            return Some(format!("{name:?} has items but is no array"));
        }
        if self.kind != Kind::Object && !self.fields.is_empty() {
            return Some(format!("{name:?} has fields but is no object"));
        }
        if self.min.zip(self.max).is_some_and(|(min, max)| max < min) {
            return Some(format!("{name:?} has a range that nothing fits"));
        }
        let fits = |value: &Value| match self.kind {
            Kind::String => value.is_string(),
            Kind::Integer => value.is_i64(),
            Kind::Number => value.is_number(),
            Kind::Boolean | Kind::Object | Kind::Array | Kind::Any => false,
        };
        if let Some(odd) = self.choices.iter().find(|choice| !fits(&choice.value)) {
            return Some(format!("{name:?} cannot be {}", odd.value));
        }
        let nameless = self.fields.iter().any(|field| field.name.is_empty());
        if nameless {
            return Some(format!("{name:?} has a field without a name"));
        }
        self.items.iter().map(|items| &**items).chain(&self.fields).find_map(Self::fault)
    }
}
