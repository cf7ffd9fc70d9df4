//! Path and query parameters: every query parameter known, once, and all that do not fit named at once.

use std::{collections::BTreeMap, convert::Infallible};

use axum::{
    extract::{FromRequestParts, Path},
    http::request::Parts,
};
use utmos_core::ports::StoreError;
use utoipa::IntoParams;

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

/// Longest page.
pub const LIMIT_MAX: usize = 500;
/// A page when nobody asks.
const LIMIT_DEFAULT: usize = 100;

/// Bytes of what the items of one page say. One alone may say more.
const PAGE_BYTES_MAX: usize = 4 * 1024 * 1024;
/// Rows that are read in one go for a page: each may be large, and is in memory before it is known how large.
const ROWS_A_READ: usize = 32;

/// The parameters of every list that comes in pages, as they are documented.
#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
#[expect(dead_code, reason = "describes the parameters in the OpenAPI document")]
pub struct PageParams {
    /// 1 to 500, 100 when absent
    #[param(minimum = 1, maximum = 500)]
    limit: Option<u32>,
    /// `next_cursor` of the page before
    cursor: Option<String>,
}

/// Which page of a list is asked for.
#[derive(Debug)]
pub struct Page<C> {
    /// How many items it has at most.
    pub limit: usize,
    /// Where it begins: right after this. `None` for the first.
    pub cursor: Option<C>,
}

impl<C: Clone> Page<C> {
    /// Reads a page a few rows at a time, until it is full or says as much as one may. Answers what is on it, and where the
    /// next one begins, if there is one. `read` reads so many after a place, and `said` tells how much an item says.
    ///
    /// # Errors
    /// As `read`.
    pub async fn gather<T, F>(
        self,
        said: impl Fn(&T) -> usize,
        place: impl Fn(&T) -> C,
        read: impl Fn(Option<C>, usize) -> F,
    ) -> Result<(Vec<T>, Option<C>), StoreError>
    where
        F: Future<Output = Result<Vec<T>, StoreError>>,
    {
        let (mut items, mut bytes, mut cursor) = (Vec::new(), 0, self.cursor);
        loop {
            let most = (self.limit + 1 - items.len()).min(ROWS_A_READ);
            let found = read(cursor, most).await?;
            let is_last = found.len() < most;
            for one in found {
                bytes += said(&one);
                let is_full = items.len() == self.limit || PAGE_BYTES_MAX < bytes;
                if let Some(last) = items.last().filter(|_| is_full) {
                    let next = place(last);
                    return Ok((items, Some(next)));
                }
                items.push(one);
            }
            cursor = items.last().map(&place);
            if is_last {
                return Ok((items, None));
            }
        }
    }
}

impl<C> Page<C> {
    /// How many items to look for: one more than is shown tells whether there is another page.
    #[must_use]
    pub fn to_read(&self) -> usize {
        self.limit + 1
    }

    /// Cuts what was found down to the page. Answers where the next one begins, if there is one.
    pub fn cut<T>(&self, found: &mut Vec<T>, place: impl FnOnce(&T) -> String) -> Option<String> {
        let has_more = found.len() > self.limit;
        found.truncate(self.limit);
        found.last().filter(|_| has_more).map(place)
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

    /// Takes `limit` and `cursor` out.
    pub fn page<C>(&mut self, parse: impl FnOnce(&str) -> Option<C>) -> Page<C> {
        let limit = self.take("limit", "a whole number from 1 to 500", between(1, LIMIT_MAX));
        let cursor = self.take("cursor", "the next_cursor of a page", parse);
        Page { limit: limit.unwrap_or(LIMIT_DEFAULT), cursor }
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
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]
    use super::*;

    #[test]
    fn a_page_that_is_full_says_where_the_next_begins() {
        let mut query = Query::read(Some("limit=2&cursor=7"), &["limit", "cursor"]);
        let page: Page<u32> = query.page(|text| text.parse().ok());
        assert_eq!((page.to_read(), page.cursor), (3, Some(7)));
        let cut = |mut found: Vec<u32>| (page.cut(&mut found, u32::to_string), found);
        assert_eq!(cut(vec![1, 2, 3]), (Some("2".to_owned()), vec![1, 2]));
        assert_eq!(cut(vec![1, 2]), (None, vec![1, 2]));
        assert_eq!(cut(vec![]), (None, vec![]));
    }

    /// Items of a list, from the last to the first, each as large as its number.
    async fn pages(limit: usize, sizes: Vec<usize>) -> Vec<Vec<usize>> {
        let (mut cursor, mut pages) = (None, Vec::new());
        loop {
            let page = Page { limit, cursor };
            let read = async |after: Option<usize>, most: usize| {
                assert!(most <= ROWS_A_READ);
                let rest = (0..after.unwrap_or(sizes.len())).rev().take(most);
                Ok(rest.map(|number| (number, sizes[number])).collect::<Vec<_>>())
            };
            let read = |after, most| Box::pin(read(after, most));
            let found = page.gather(|(_, size)| *size, |(number, _)| *number, read).await;
            let (items, next) = found.unwrap();
            pages.push(items.into_iter().map(|(number, _)| number).collect());
            cursor = next;
            if cursor.is_none() {
                return pages;
            }
        }
    }

    #[tokio::test]
    async fn a_page_ends_where_it_would_say_too_much_and_every_item_is_on_one() {
        const MIB: usize = 1024 * 1024;
        let counts = |pages: Vec<Vec<usize>>| {
            let all: Vec<usize> = pages.concat();
            assert_eq!(all, (0..all.len()).rev().collect::<Vec<_>>());
            pages.iter().map(Vec::len).collect::<Vec<_>>()
        };
        assert_eq!(counts(pages(500, vec![0; 100]).await), [100]);
        assert_eq!(counts(pages(10, vec![0; 20]).await), [10, 10]);
        assert_eq!(counts(pages(64, vec![1; 129]).await), [64, 64, 1]);
        assert_eq!(counts(pages(500, vec![MIB; 10]).await), [4, 4, 2]);
        assert_eq!(counts(pages(500, vec![5 * MIB; 3]).await), [1, 1, 1]);
        let uneven = [vec![3 * MIB, 3 * MIB], vec![10; 100]].concat();
        assert_eq!(counts(pages(500, uneven).await), [101, 1]);
        assert_eq!(counts(pages(500, Vec::new()).await), [0]);
    }

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
