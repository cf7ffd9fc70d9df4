//! The only way in which the control API says no.

use axum::{
    Json,
    http::StatusCode,
    response::{IntoResponse, Response},
};
use serde_json::{Value, json};

use super::BODY_BYTES_MAX;
use crate::{ControlError, fault::Problems};

/// A refusal: a code for programs, a message for people, and everything that is wrong with the body.
#[derive(Debug)]
pub struct Problem {
    status: StatusCode,
    code: &'static str,
    message: String,
    details: Vec<Value>,
}

impl Problem {
    fn new(status: StatusCode, code: &'static str, message: impl Into<String>) -> Self {
        Self { status, code, message: message.into(), details: Vec::new() }
    }

    /// A `Host` that is not ours.
    pub fn host(given: &str, anywhere: bool) -> Self {
        let remedy = if anywhere {
            "ask by address, localhost or a name without a dot"
        } else {
            "ask by 127.0.0.1, [::1] or localhost"
        };
        let message = format!("the Host {given:?} could be another site's; {remedy}");
        Self::new(StatusCode::FORBIDDEN, "FOREIGN_HOST", message)
    }

    /// A request of a web page.
    pub fn origin(given: &str, host: &str) -> Self {
        let message =
            format!("a web page of {given} asks {host}, and pages may not; leave out Origin");
        Self::new(StatusCode::FORBIDDEN, "FOREIGN_ORIGIN", message)
    }

    /// A change whose body is not announced as JSON.
    pub fn content_type(given: Option<&str>) -> Self {
        let given = given.map_or("none".to_owned(), |given| format!("{given:?}"));
        let message =
            format!("whatever changes something needs Content-Type: application/json, not {given}");
        Self::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "NOT_JSON", message)
    }

    /// A body that cannot be read.
    pub fn body(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "BAD_BODY", message)
    }

    /// A body that is too large.
    pub fn too_large() -> Self {
        let message = format!("the body has more than {BODY_BYTES_MAX} bytes");
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, "BODY_TOO_LARGE", message)
    }

    /// Fields of a body that do not fit, all of them.
    pub fn fields(problems: &Problems) -> Self {
        let details = problems.all().iter();
        let details = details.map(|one| json!({"field": one.field(), "problem": one.problem()}));
        let message = problems.to_string().replace('\n', "; ");
        let new = Self::new(StatusCode::BAD_REQUEST, "VALIDATION_FAILED", message);
        Self { details: details.collect(), ..new }
    }

    /// This one, which is about a field of the body.
    pub fn about(self, field: &str) -> Self {
        Self { details: vec![json!({"field": field, "problem": self.message})], ..self }
    }

    /// A path or a query that is none.
    pub fn path(message: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, "NOT_FOUND", message)
    }

    /// A parameter of the query that does not fit.
    pub fn query(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "BAD_QUERY", message)
    }

    /// A method that the path does not have.
    pub fn method() -> Self {
        let message = "this path does not take this method; see docs/simulator.md";
        Self::new(StatusCode::METHOD_NOT_ALLOWED, "METHOD_NOT_ALLOWED", message)
    }
}

impl From<ControlError> for Problem {
    fn from(err: ControlError) -> Self {
        let (status, code) = match &err {
            ControlError::UnknownDock { .. } => (StatusCode::NOT_FOUND, "UNKNOWN_DOCK"),
            ControlError::Unknown { .. } => (StatusCode::NOT_FOUND, "NOT_FOUND"),
            ControlError::TooMany => (StatusCode::CONFLICT, "TOO_MANY"),
            ControlError::NotConnected { .. } => (StatusCode::CONFLICT, "NOT_CONNECTED"),
            ControlError::Stopped => (StatusCode::GONE, "STOPPED"),
        };
        Self::new(status, code, err.to_string())
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let mut body = json!({"code": self.code, "message": self.message});
        if !self.details.is_empty() {
            body["details"] = Value::Array(self.details);
        }
        (self.status, Json(body)).into_response()
    }
}
