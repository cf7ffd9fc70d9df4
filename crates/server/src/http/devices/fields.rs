//! Reads the members of a body: every problem is named at once.

use std::collections::BTreeSet;

use serde_json::{Map, Value};

use super::super::{
    json,
    problem::{Code, Detail, Problem, cut},
};

/// A body that is a JSON object.
pub fn parse(body: &[u8]) -> Result<Map<String, Value>, Problem> {
    let refuse = |message: String| Problem::new(Code::InvalidRequestBody, message);
    let text = std::str::from_utf8(body).map_err(|error| {
        refuse(format!("the body is not UTF-8 from byte {} on", error.valid_up_to()))
    })?;
    match json::read(text) {
        Ok(Value::Object(members)) => Ok(members),
        Ok(_) => Err(refuse("the body must be a JSON object".to_owned())),
        Err(error) => Err(refuse(format!("the body is not JSON: {error}"))),
    }
}

/// The members of a body, each read once.
pub struct Fields<'a> {
    members: &'a Map<String, Value>,
    flaws: Vec<Detail>,
}

impl<'a> Fields<'a> {
    /// Reads these members; any other is a flaw.
    pub fn read(members: &'a Map<String, Value>, known: &[&str]) -> Self {
        let others = members.keys().filter(|name| !known.contains(&name.as_str()));
        let flaws = others.map(|name| {
            let field = format!("/{}", cut(name).replace('~', "~0").replace('/', "~1"));
            let known = known.join(", ");
            Detail::new(field, format!("is not a member of this request; known are {known}"))
        });
        Self { members, flaws: flaws.collect() }
    }

    fn given(&self, name: &str) -> Option<&'a Value> {
        self.members.get(name).filter(|value| !value.is_null())
    }

    fn refuse(&mut self, name: &str, problem: impl Into<String>, given: &Value) {
        self.flaws.push(Detail::new(format!("/{name}"), problem.into()).given_by_caller(given));
    }

    /// A member that must be there.
    pub fn required(&mut self, name: &str, wanted: &str) {
        if self.given(name).is_none() {
            self.flaws.push(Detail::new(format!("/{name}"), format!("is required: {wanted}")));
        }
    }

    /// A text that `parse` takes; `wanted` says which those are.
    pub fn text<T>(
        &mut self,
        name: &str,
        wanted: &str,
        parse: impl FnOnce(&str) -> Option<T>,
    ) -> Option<T> {
        let given = self.given(name)?;
        let parsed = given.as_str().and_then(parse);
        if parsed.is_none() {
            self.refuse(name, format!("must be {wanted}"), given);
        }
        parsed
    }

    /// A text for people.
    pub fn label(&mut self, name: &str) -> Option<String> {
        let max = super::LABEL_CHARS_MAX;
        let wanted = format!("a text of at most {max} characters without control characters");
        self.text(name, &wanted, |text| {
            let fits = text.chars().count() <= max && !text.chars().any(char::is_control);
            fits.then(|| text.to_owned())
        })
    }

    /// A list of tags.
    pub fn tags(&mut self, name: &str) -> Option<BTreeSet<String>> {
        let given = self.given(name)?;
        let (most, longest) = (super::TAGS_MAX, super::TAG_CHARS_MAX);
        let Some(items) = given.as_array().filter(|items| items.len() <= most) else {
            self.refuse(name, format!("must be a list of at most {most} texts"), given);
            return None;
        };
        let mut tags = BTreeSet::new();
        for (at, item) in items.iter().enumerate() {
            let is_tag = |text: &&str| {
                (1..=longest).contains(&text.chars().count()) && !text.chars().any(char::is_control)
            };
            match item.as_str().filter(is_tag) {
                Some(tag) => drop(tags.insert(tag.to_owned())),
                None => {
                    let problem = format!(
                        "must be a text of 1 to {longest} characters without control characters"
                    );
                    self.refuse(&format!("{name}/{at}"), problem, item);
                }
            }
        }
        Some(tags)
    }

    /// A yes or a no.
    pub fn flag(&mut self, name: &str) -> Option<bool> {
        let given = self.given(name)?;
        let flag = given.as_bool();
        if flag.is_none() {
            self.refuse(name, "must be true or false", given);
        }
        flag
    }

    /// A whole number between two bounds.
    pub fn number(&mut self, name: &str, least: u64, most: u64) -> Option<u64> {
        let given = self.given(name)?;
        let number = given.as_u64().filter(|number| (least..=most).contains(number));
        if number.is_none() {
            self.refuse(name, format!("must be a whole number from {least} to {most}"), given);
        }
        number
    }

    /// Adds what is wrong between members.
    pub fn flaw(&mut self, name: &str, problem: &str) {
        self.flaws.push(Detail::new(format!("/{name}"), problem));
    }

    /// All problems at once.
    pub fn finish(self) -> Result<(), Problem> {
        if self.flaws.is_empty() { Ok(()) } else { Err(Problem::invalid(self.flaws)) }
    }
}
