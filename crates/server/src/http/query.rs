//! Path and query parameters: every query parameter known, once, and all that do not fit named at once.

use std::{collections::BTreeMap, convert::Infallible};

use axum::{
    extract::{FromRequestParts, Path},
    http::request::Parts,
};

use super::problem::{Detail, Problem, cut};

/// The one parameter of a path. What is not UTF-8 is taken as nothing, which is the name of nothing: whether there is
/// such a thing is said only to those who may ask.
pub struct InPath(pub String);

impl<S: Send + Sync> FromRequestParts<S> for InPath {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Infallible> {
        let text = Path::<String>::from_request_parts(parts, state).await;
        Ok(Self(text.map_or(String::new(), |Path(text)| text)))
    }
}

/// The parameters of a request, each taken out once.
pub struct Query {
    values: BTreeMap<String, String>,
    flaws: Vec<Detail>,
}

impl Query {
    /// Reads a raw query. `known` are the parameters the endpoint takes.
    #[must_use]
    pub fn read(raw: Option<&str>, known: &[&str]) -> Self {
        let mut query = Self { values: BTreeMap::new(), flaws: Vec::new() };
        for (name, value) in form_urlencoded::parse(raw.unwrap_or("").as_bytes()) {
            let field = format!("query:{}", cut(&name));
            if !known.contains(&&*name) {
                let problem = format!("is not a parameter here; known are {}", known.join(", "));
                query.flaws.push(Detail::new(field, problem));
            } else if query.values.insert(name.into_owned(), value.into_owned()).is_some() {
                query.flaws.push(Detail::new(field, "was given more than once"));
            }
        }
        query
    }

    /// Takes a parameter out and reads it; `wanted` says what it should be.
    pub fn take<T>(
        &mut self,
        name: &str,
        wanted: &str,
        parse: impl FnOnce(&str) -> Option<T>,
    ) -> Option<T> {
        let value = self.values.remove(name)?;
        let parsed = parse(&value);
        if parsed.is_none() {
            self.flaws.push(
                Detail::new(format!("query:{name}"), format!("must be {wanted}"))
                    .given(cut(&value).into()),
            );
        }
        parsed
    }

    /// Notes what is wrong with a parameter beside others.
    pub fn refuse(&mut self, name: &str, problem: &str) {
        self.flaws.push(Detail::new(format!("query:{name}"), problem));
    }

    /// All problems at once.
    ///
    /// # Errors
    /// When there was any.
    pub fn finish(self) -> Result<(), Problem> {
        if self.flaws.is_empty() { Ok(()) } else { Err(Problem::invalid(self.flaws)) }
    }
}

/// A whole number between two bounds.
pub fn between(least: usize, most: usize) -> impl FnOnce(&str) -> Option<usize> {
    move |text| text.parse().ok().filter(|number| (least..=most).contains(number))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_problem_is_named_at_once() {
        let mut query = Query::read(Some("wait=0&color=red&limit=5&limit=6"), &["wait", "limit"]);
        let wait = query.take("wait", "a whole number from 1 to 60", between(1, 60));
        let limit = query.take("limit", "a whole number from 1 to 500", between(1, 500));
        assert_eq!((wait, limit), (None, Some(6)));
        let details = query.finish().map_err(|problem| problem.details);
        let fields: Vec<String> =
            details.err().into_iter().flatten().map(|detail| detail.field).collect();
        assert_eq!(fields, ["query:color", "query:limit", "query:wait"]);
    }
}
