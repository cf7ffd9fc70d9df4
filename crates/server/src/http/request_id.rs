//! The outermost layer: every request has an id, every answer carries it, every refusal is finished here.

use std::{any::Any, sync::Arc};

use axum::{
    body::Body,
    extract::{Request, State},
    http::{HeaderName, HeaderValue, StatusCode},
    middleware::Next,
    response::{IntoResponse, Response},
};

use super::{
    App,
    problem::{Code, Problem},
};

/// The header, both ways.
pub const HEADER: HeaderName = HeaderName::from_static("x-request-id");
/// Longest id that is taken over from a caller.
const BYTES_MAX: usize = 128;

/// The id of a request, in its extensions.
#[derive(Debug, Clone)]
pub struct RequestId(pub Arc<str>);

/// Gives the request its id, and finishes the answer.
pub async fn layer(State(app): State<Arc<App>>, mut request: Request, next: Next) -> Response {
    let given = request.headers().get(&HEADER).and_then(|value| value.to_str().ok());
    let is_fine = |id: &&str| (1..=BYTES_MAX).contains(&id.len()) && id.bytes().all(|b| b.is_ascii_graphic());
    let id: Arc<str> = match given.filter(is_fine) {
        Some(id) => id.into(),
        None => app.ids.random().to_string().into(),
    };
    request.extensions_mut().insert(RequestId(id.clone()));
    let mut response = next.run(request).await;
    if let Some(problem) = response.extensions_mut().remove::<Problem>() {
        let allow = response.headers().get(axum::http::header::ALLOW).cloned();
        response = problem.to_response(&id);
        if let Some(allow) = allow {
            response.headers_mut().insert(axum::http::header::ALLOW, allow);
        }
    }
    if let Ok(value) = HeaderValue::from_str(&id) {
        response.headers_mut().insert(HEADER, value);
    }
    response
}

pub(super) async fn no_such_path(request: Request) -> Problem {
    std::future::ready(Problem::new(Code::NotFound, format!("there is nothing at {}", request.uri().path()))).await
}

pub(super) async fn no_such_method(request: Request) -> Problem {
    let message = format!("{} does not take {}", request.uri().path(), request.method());
    std::future::ready(Problem::new(Code::MethodNotAllowed, message)).await
}

/// A panic is a bug of ours; the caller gets an envelope all the same.
pub(super) fn panicked(_: Box<dyn Any + Send + 'static>) -> axum::http::Response<Body> {
    tracing::error!("a request panicked");
    let mut response = StatusCode::INTERNAL_SERVER_ERROR.into_response();
    let problem = Problem::new(Code::InternalError, "the server failed; tell its operator the request id");
    response.extensions_mut().insert(problem);
    response
}
