//! Around the router: every request has an id, every answer carries it, every refusal is finished here.

use std::{panic::AssertUnwindSafe, sync::Arc};

use axum::{
    Router,
    extract::Request,
    http::{HeaderMap, HeaderName, HeaderValue, header},
    response::{IntoResponse, Response},
};
use futures_util::FutureExt;
use tower::ServiceExt;
use utmos_core::ports::Ids;

use super::problem::{Code, Problem, cut};

/// The header, both ways.
pub const HEADER: HeaderName = HeaderName::from_static("x-request-id");
/// Longest id that is taken over from a caller.
const BYTES_MAX: usize = 128;

/// The id of a request, in its extensions.
#[derive(Debug, Clone)]
pub struct RequestId(pub Arc<str>);

/// Gives the request its id, has it answered, and finishes the answer. Not a layer of the router: those cost every request
/// an allocation or two for each, and a copy of its route.
pub async fn answer(ids: &dyn Ids, router: Router, mut request: Request) -> Response {
    let id: Arc<str> = match given(request.headers()) {
        Some(id) => id.into(),
        None => ids.random().to_string().into(),
    };
    request.extensions_mut().insert(RequestId(id.clone()));
    // Nothing is left half done by a panic that the next request could meet: what is shared guards itself.
    let answering = AssertUnwindSafe(async { router.oneshot(request).await });
    let mut response = match answering.catch_unwind().await {
        Ok(Ok(response)) => response,
        Ok(Err(never)) => match never {},
        Err(_) => panicked(),
    };
    if let Some(problem) = response.extensions_mut().remove::<Problem>() {
        let allow = response.headers_mut().remove(header::ALLOW);
        response = problem.to_response(&id);
        if let Some(allow) = allow {
            response.headers_mut().insert(header::ALLOW, allow);
        }
    }
    let headers = response.headers_mut();
    if let Ok(value) = HeaderValue::from_str(&id) {
        headers.insert(HEADER, value);
    }
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.entry(header::CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
    response
}

/// The caller's own id, if there is one and only one and it is fit to stand in headers, answers and logs.
fn given(headers: &HeaderMap) -> Option<&str> {
    let mut values = headers.get_all(&HEADER).iter();
    let (Some(value), None) = (values.next(), values.next()) else { return None };
    let is_fine =
        |id: &&str| (1..=BYTES_MAX).contains(&id.len()) && id.bytes().all(|b| b.is_ascii_graphic());
    value.to_str().ok().filter(is_fine)
}

pub(super) async fn no_such_path(request: Request) -> Problem {
    std::future::ready(Problem::new(
        Code::NotFound,
        format!("there is nothing at {}", path_of(&request)),
    ))
    .await
}

pub(super) async fn no_such_method(request: Request) -> Problem {
    let message = format!("{} does not take {}", path_of(&request), request.method());
    std::future::ready(Problem::new(Code::MethodNotAllowed, message)).await
}

fn path_of(request: &Request) -> String {
    cut(request.uri().path())
}

/// A panic is a bug of ours; the caller gets an envelope all the same.
fn panicked() -> Response {
    tracing::error!("a request panicked");
    Problem::new(Code::InternalError, "the server failed; tell its operator the request id")
        .into_response()
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]
    use axum::{body::Body, routing::get};
    use http_body_util::BodyExt;
    use serde_json::Value;

    use super::*;
    use crate::ids::SystemIds;

    async fn panics() -> &'static str {
        panic!("a bug")
    }

    #[tokio::test]
    async fn a_panic_reads_like_every_other_refusal() {
        let router = Router::new().route("/panic", get(panics));
        let request =
            Request::get("/panic").header("X-Request-Id", "mine").body(Body::empty()).unwrap();
        let response = answer(&SystemIds::new(), router, request).await;
        assert_eq!(
            (response.status().as_u16(), &response.headers()[HEADER]),
            (500, &HeaderValue::from_static("mine"))
        );
        assert_eq!(response.headers()[header::CONTENT_TYPE], "application/problem+json");
        let body: Value =
            serde_json::from_slice(&response.into_body().collect().await.unwrap().to_bytes())
                .unwrap();
        assert_eq!(
            (&body["code"], &body["request_id"]),
            (&"INTERNAL_ERROR".into(), &"mine".into())
        );
    }

    #[test]
    fn a_callers_id_is_taken_over_only_when_it_is_one_and_fit_to_be_shown() {
        let check = |values: &[&[u8]]| {
            let mut headers = HeaderMap::new();
            for value in values {
                headers.append(HEADER, HeaderValue::from_bytes(value).unwrap());
            }
            given(&headers).map(str::to_owned)
        };
        assert_eq!(check(&[b"abc-123/~"]).as_deref(), Some("abc-123/~"));
        assert_eq!(check(&[&[b'x'; BYTES_MAX]]).map(|id| id.len()), Some(BYTES_MAX));
        let too_long = [b'x'; BYTES_MAX + 1];
        let bad: [&[&[u8]]; 6] =
            [&[], &[b""], &[b"two words"], &[b"\xc3\xa9"], &[&too_long], &[b"one", b"two"]];
        for bad in bad {
            assert_eq!(check(bad), None, "{bad:?}");
        }
    }
}
