//! Checks a payload against the catalogue, finding all problems at once, and makes of it what will be sent.
//!
//! Tolerant where devices and documents are: whole numbers for numbers, 0 and 1 for false and true, numbers for texts
//! that count. Unknown fields are kept.

use std::fmt;

use serde_json::{Map, Number, Value};
use utmos_core::nearest;

use super::{
    field::{Choice, Field, Kind},
    mask,
    method::{Alias, Method},
};

/// Deepest nesting of a payload that is taken, the payload itself counting as one.
pub const DEPTH_MAX: usize = 32;

/// Most values a payload may hold, counting every object, list and scalar.
pub const VALUES_MAX: usize = 20_000;

/// Most problems that are reported of one payload.
const FLAWS_MAX: usize = 100;

const CHOICES_SHOWN_MAX: usize = 12;
const GIVEN_CHARS_MAX: usize = 200;

/// A payload that passed.
#[derive(Debug, Clone, PartialEq)]
pub struct Checked {
    /// As it will be sent.
    pub payload: Value,
    /// What could be better and what was changed.
    pub hints: Vec<Hint>,
}

/// A remark on a payload that passed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hint {
    /// Pointer relative to the payload, such as `/points/0/height`.
    pub pointer: String,
    /// What there is to say, such as "is not sent".
    pub hint: String,
}

/// A problem of a payload.
#[derive(Debug, Clone, PartialEq)]
pub struct Flaw {
    /// Pointer relative to the payload, such as `/points/0/height`; empty for the payload itself.
    pub pointer: String,
    /// What is wrong, such as "must be between 2 and 10000".
    pub problem: String,
    /// The value at fault; long ones are shortened, secret ones hidden, `null` for missing ones.
    pub given: Value,
}

impl fmt::Display for Flaw {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} {}",
            if self.pointer.is_empty() { "the payload" } else { &self.pointer },
            self.problem
        )
    }
}

impl Method {
    /// Checks a payload.
    ///
    /// # Errors
    /// With every problem there is, at most a hundred of them.
    pub fn check(&self, payload: &Value) -> Result<Checked, Vec<Flaw>> {
        check(&self.accepts, &self.payload, self.one_field, payload)
    }
}

/// Checks an object against the fields it should have.
///
/// # Errors
/// As [`Method::check`].
pub fn check_object(fields: &[Field], payload: &Value) -> Result<Checked, Vec<Flaw>> {
    check(&[], fields, false, payload)
}

fn check(
    accepts: &[Alias],
    fields: &[Field],
    one_field: bool,
    payload: &Value,
) -> Result<Checked, Vec<Flaw>> {
    if let Some(problem) = too_large(payload) {
        return Err(vec![Flaw { pointer: String::new(), problem, given: Value::Null }]);
    }
    let Value::Object(given) = payload else {
        let given = mask::abridge(payload, GIVEN_CHARS_MAX);
        return Err(vec![Flaw {
            pointer: String::new(),
            problem: "must be an object".to_owned(),
            given,
        }]);
    };
    let mut found = Found::default();
    let mut sent = given.clone();
    for alias in accepts {
        found.rename(alias, &mut sent);
    }
    found.object(fields, &mut sent, "");
    if one_field {
        found.one_field(fields, &sent);
    }
    found.finish(Value::Object(sent))
}

/// Why a payload is too large, found without recursion.
fn too_large(payload: &Value) -> Option<String> {
    let mut open = vec![(payload, 1)];
    let mut values = 0;
    while let Some((value, depth)) = open.pop() {
        values += 1;
        if DEPTH_MAX < depth {
            return Some(format!("must not be nested deeper than {DEPTH_MAX} levels"));
        }
        if VALUES_MAX < values + open.len() {
            return Some(format!("must not hold more than {VALUES_MAX} values"));
        }
        match value {
            Value::Array(items) if items.len() <= VALUES_MAX => {
                open.extend(items.iter().map(|item| (item, depth + 1)))
            }
            Value::Object(map) if map.len() <= VALUES_MAX => {
                open.extend(map.values().map(|item| (item, depth + 1)))
            }
            Value::Array(_) | Value::Object(_) => {
                return Some(format!("must not hold more than {VALUES_MAX} values"));
            }
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
        }
    }
    None
}

#[derive(Default)]
struct Found {
    flaws: Vec<Flaw>,
    hints: Vec<Hint>,
    /// Pointer as sent, and as given.
    renamed: Vec<(String, String)>,
}

impl Found {
    fn finish(mut self, payload: Value) -> Result<Checked, Vec<Flaw>> {
        if self.flaws.is_empty() {
            return Ok(Checked { payload, hints: self.hints });
        }
        for flaw in &mut self.flaws {
            let given_as = self.renamed.iter().find_map(|(sent, given)| {
                let rest = flaw.pointer.strip_prefix(sent.as_str())?;
                (rest.is_empty() || rest.starts_with('/')).then(|| format!("{given}{rest}"))
            });
            flaw.pointer = given_as.unwrap_or_else(|| std::mem::take(&mut flaw.pointer));
        }
        self.flaws.truncate(FLAWS_MAX);
        Err(self.flaws)
    }

    fn flaw(&mut self, at: &str, problem: impl Into<String>, given: Value) {
        self.flaws.push(Flaw { pointer: at.to_owned(), problem: problem.into(), given });
    }

    fn hint(&mut self, at: &str, hint: impl Into<String>) {
        self.hints.push(Hint { pointer: at.to_owned(), hint: hint.into() });
    }

    /// Puts a field with another spelling where it belongs.
    fn rename(&mut self, alias: &Alias, sent: &mut Map<String, Value>) {
        let Some(value) = sent.remove(&alias.name) else { return };
        let at = below("", &alias.name);
        let Some(to) = &alias.to else {
            return self.hint(&at, "is not sent: the device does not know it");
        };
        let value = if alias.as_text { as_text(value) } else { value };
        let Some(place) = place(sent, to) else {
            return self.flaw(
                &at,
                format!("is another name of {to}, which cannot be filled in"),
                Value::Null,
            );
        };
        match place {
            Value::Null => {
                *place = value;
                self.hint(&at, format!("is sent as {to}"));
                self.renamed.push((to.clone(), at));
            }
            there if *there == value => {}
            Value::Bool(_)
            | Value::Number(_)
            | Value::String(_)
            | Value::Array(_)
            | Value::Object(_) => {
                let given = mask::abridge(&value, GIVEN_CHARS_MAX);
                self.flaw(
                    &at,
                    format!("is another name of {to}, which says something else"),
                    given,
                );
            }
        }
    }

    /// A second field would be set or not without anybody knowing which of both the answer is about.
    fn one_field(&mut self, fields: &[Field], sent: &Map<String, Value>) {
        let (mut at, mut here, mut known) = (String::new(), sent, Some(fields));
        loop {
            let mut members = here.iter();
            let (Some((name, value)), None) = (members.next(), members.next()) else {
                let problem = match here.len() {
                    0 => "must hold one property with a value".to_owned(),
                    more => format!("must hold one field, not {more}: send one command for each"),
                };
                return self.flaw(&at, problem, Value::Null);
            };
            at = below(&at, name);
            let field = known.and_then(|fields| fields.iter().find(|field| field.name == *name));
            if let (None, Some(fields)) = (field, known) {
                let meant = nearest(name, fields.iter().map(|field| field.name.as_str()));
                let meant = meant.map(|meant| format!("; did you mean {meant}?"));
                self.hint(
                    &at,
                    format!(
                        "is not in the catalogue and is sent as it is{}",
                        meant.unwrap_or_default()
                    ),
                );
            }
            known = field.map(|field| field.fields.as_slice()).filter(|fields| !fields.is_empty());
            match value {
                Value::Object(inner) => here = inner,
                Value::Null => return self.flaw(&at, "must have a value", Value::Null),
                Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_) => return,
            }
        }
    }

    fn object(&mut self, fields: &[Field], map: &mut Map<String, Value>, at: &str) {
        for field in fields {
            // A null says as much as a field left out.
            if map.get(&field.name).is_some_and(Value::is_null) && field.kind != Kind::Any {
                map.remove(&field.name);
            }
            match (map.get_mut(&field.name), &field.default) {
                (Some(value), _) => self.value(field, value, &below(at, &field.name)),
                (None, Some(default)) => {
                    map.insert(field.name.clone(), default.clone());
                }
                (None, None) => {}
            }
        }
        for field in fields.iter().filter(|field| !map.contains_key(&field.name)) {
            let wanted = field.required_when.as_ref().filter(|when| {
                map.get(&when.field).is_some_and(|value| when.values.contains(value))
            });
            if field.required {
                self.flaw(&below(at, &field.name), "is required", Value::Null);
            } else if let Some(when) = wanted {
                let values: Vec<String> = when.values.iter().map(ToString::to_string).collect();
                let problem =
                    format!("is required while {} is {}", when.field, values.join(" or "));
                self.flaw(&below(at, &field.name), problem, Value::Null);
            } else if field.recommended {
                self.hint(&below(at, &field.name), "is left out, though DJI asks for it");
            }
        }
    }

    fn value(&mut self, field: &Field, value: &mut Value, at: &str) {
        let problem = match field.kind {
            Kind::Any => None,
            Kind::Boolean => boolean(value),
            Kind::Integer => integer(field, value),
            Kind::Number => number(field, value),
            Kind::String => text(field, value),
            Kind::Array => match value {
                Value::Array(items) => self.array(field, items, at),
                Value::Null
                | Value::Bool(_)
                | Value::Number(_)
                | Value::String(_)
                | Value::Object(_) => Some("must be a list".to_owned()),
            },
            Kind::Object => match value {
                Value::Object(map) => {
                    self.object(&field.fields, map, at);
                    None
                }
                Value::Null
                | Value::Bool(_)
                | Value::Number(_)
                | Value::String(_)
                | Value::Array(_) => Some("must be an object".to_owned()),
            },
        };
        if let Some(problem) = problem {
            let given = match field.secret {
                Some(_) => Value::from(mask::MASKED),
                None => mask::abridge(value, GIVEN_CHARS_MAX),
            };
            self.flaw(at, problem, given);
        }
    }

    fn array(&mut self, field: &Field, items: &mut [Value], at: &str) -> Option<String> {
        if self.flaws.len() < FLAWS_MAX {
            for (index, item) in items.iter_mut().enumerate() {
                if let Some(known) = &field.items {
                    self.value(known, item, &format!("{at}/{index}"));
                }
            }
        }
        let (min, max) = (field.min_items.unwrap_or(0), field.max_items.unwrap_or(usize::MAX));
        if (min..=max).contains(&items.len()) {
            return None;
        }
        let plural = |count: usize| if count == 1 { "item" } else { "items" };
        Some(match (field.min_items, field.max_items) {
            (Some(min), Some(max)) if min == max => {
                format!("must have exactly {min} {}", plural(min))
            }
            (Some(min), Some(max)) => format!("must have between {min} and {max} items"),
            (Some(min), None) => format!("must have at least {min} {}", plural(min)),
            (None, max) => {
                let max = max.unwrap_or(0);
                format!("must have at most {max} {}", plural(max))
            }
        })
    }
}

fn boolean(value: &mut Value) -> Option<String> {
    let normal = match value {
        Value::Bool(flag) => *flag,
        Value::Number(number) if number.as_f64() == Some(0.0) => false,
        Value::Number(number) if number.as_f64() == Some(1.0) => true,
        Value::Null | Value::Number(_) | Value::String(_) | Value::Array(_) | Value::Object(_) => {
            return Some("must be true or false".to_owned());
        }
    };
    *value = Value::Bool(normal);
    None
}

fn integer(field: &Field, value: &mut Value) -> Option<String> {
    if !field.choices.is_empty() {
        return choice(field, value);
    }
    let Value::Number(number) = &*value else {
        return Some(
            if value.is_string() { "must be an integer, not text" } else { "must be an integer" }
                .to_owned(),
        );
    };
    if let Some(problem) = out_of_range(field, number) {
        return Some(problem);
    }
    if number.as_i64().is_none() && number.is_u64() {
        return Some(format!("must be at most {}", i64::MAX));
    }
    let Some(whole) = whole(number) else {
        return Some("must be an integer".to_owned());
    };
    *value = Value::from(whole);
    None
}

fn number(field: &Field, value: &mut Value) -> Option<String> {
    match &*value {
        _ if !field.choices.is_empty() => choice(field, value),
        Value::Number(number) => out_of_range(field, number),
        Value::String(_) => Some("must be a number, not text".to_owned()),
        Value::Null | Value::Bool(_) | Value::Array(_) | Value::Object(_) => {
            Some("must be a number".to_owned())
        }
    }
}

fn text(field: &Field, value: &mut Value) -> Option<String> {
    if !field.choices.is_empty() {
        return choice(field, value);
    }
    let Value::String(text) = &*value else {
        return Some("must be text".to_owned());
    };
    if let Some(max) = field.max_chars.filter(|max| *max < text.chars().count()) {
        return Some(format!("must be at most {max} characters long"));
    }
    let max = field.max_bytes.filter(|max| *max < text.len())?;
    Some(format!("must be at most {max} bytes long in UTF-8"))
}

/// Puts one of the choices in the place of the value that means it.
fn choice(field: &Field, value: &mut Value) -> Option<String> {
    let count = counted(field, value);
    let meant = field.choices.iter().find(|choice| {
        choice.value == *value || (count.is_some() && count == plain_number(&choice.value))
    });
    match meant {
        Some(choice) => {
            *value = choice.value.clone();
            None
        }
        None if field.choices.len() == 1 => Some(format!("must be {}", list(&field.choices))),
        None => Some(format!("must be one of {}", list(&field.choices))),
    }
}

/// The number a value stands for among choices that are numbers or spell them.
fn counted(field: &Field, value: &Value) -> Option<f64> {
    match value {
        Value::Bool(flag) => {
            let switch = field.kind == Kind::Integer
                && field.choices.iter().all(|choice| matches!(choice.value.as_i64(), Some(0 | 1)));
            switch.then(|| f64::from(u8::from(*flag)))
        }
        Value::Number(_) | Value::String(_) => plain_number(value),
        Value::Null | Value::Array(_) | Value::Object(_) => None,
    }
}

fn plain_number(value: &Value) -> Option<f64> {
    match value {
        Value::Number(number) => number.as_f64(),
        Value::String(text) => {
            let plain = text.len() <= 20
                && text.bytes().all(|b| b.is_ascii_digit() || matches!(b, b'.' | b'-'));
            plain.then(|| text.parse().ok()).flatten()
        }
        Value::Null | Value::Bool(_) | Value::Array(_) | Value::Object(_) => None,
    }
}

fn list(choices: &[Choice]) -> String {
    let mut shown: Vec<String> = choices
        .iter()
        .take(CHOICES_SHOWN_MAX)
        .map(|choice| {
            if choice.meaning.is_empty() {
                choice.value.to_string()
            } else {
                format!("{} ({})", choice.value, choice.meaning)
            }
        })
        .collect();
    if CHOICES_SHOWN_MAX < choices.len() {
        shown.push(format!("and {} more", choices.len() - CHOICES_SHOWN_MAX));
    }
    shown.join(", ")
}

fn out_of_range(field: &Field, number: &Number) -> Option<String> {
    let value = number.as_f64()?;
    let below = field.min.is_some_and(|min| value < min);
    let above = field.max.is_some_and(|max| max < value);
    if !below && !above {
        return None;
    }
    match (field.min, field.max) {
        (Some(min), Some(max)) => Some(format!("must be between {min} and {max}")),
        (Some(min), None) => Some(format!("must be at least {min}")),
        (None, Some(max)) => Some(format!("must be at most {max}")),
        (None, None) => None,
    }
}

/// The whole number a JSON number is. Fractions and what 64 bits cannot hold are none.
fn whole(number: &Number) -> Option<i64> {
    /// Up to here every whole number has a double of its own.
    const EXACT_MAX: f64 = 9_007_199_254_740_992.0;
    if number.is_i64() || number.is_u64() {
        return number.as_i64();
    }
    let value = number.as_f64().filter(|value| value.fract() == 0.0 && value.abs() <= EXACT_MAX)?;
    format!("{value:.0}").parse().ok()
}

fn as_text(value: Value) -> Value {
    match value {
        Value::String(_) | Value::Null => value,
        Value::Bool(_) | Value::Number(_) | Value::Array(_) | Value::Object(_) => {
            Value::String(value.to_string())
        }
    }
}

/// The place a pointer names, made where there is none yet. `None` when something else stands in the way.
fn place<'a>(map: &'a mut Map<String, Value>, pointer: &str) -> Option<&'a mut Value> {
    let mut names = pointer.strip_prefix('/')?.split('/');
    let mut here = map.entry(names.next()?).or_insert(Value::Null);
    for name in names {
        if here.is_null() {
            *here = Value::Object(Map::new());
        }
        here = here.as_object_mut()?.entry(name).or_insert(Value::Null);
    }
    Some(here)
}

fn below(at: &str, name: &str) -> String {
    format!("{at}/{}", name.replace('~', "~0").replace('/', "~1"))
}
