//! The one way to say no over HTTP (API.md section 3): an envelope that is RFC 9457 and the documented one at once.

use axum::{
    Json,
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use serde::Serialize;
use serde_json::Value;
use utoipa::ToSchema;

use super::words::CodeWord;

macro_rules! codes {
    ($($name:ident = $text:literal, $status:ident, $title:literal, $remedy:literal, $retry:literal;)*) => {
        /// Why a request was not carried out. The table owns the HTTP status.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum Code { $(#[doc = $title] $name,)* }

        impl Code {
            /// Every code, in the order of the reference.
            pub const ALL: &[Self] = &[$(Self::$name,)*];

            /// The code as callers see it.
            #[must_use]
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$name => $text,)* }
            }

            /// The HTTP status that goes with it.
            #[must_use]
            pub fn status(self) -> StatusCode {
                match self { $(Self::$name => StatusCode::$status,)* }
            }

            /// What happened, in a few words.
            #[must_use]
            pub fn title(self) -> &'static str {
                match self { $(Self::$name => $title,)* }
            }

            /// What to do.
            #[must_use]
            pub fn remedy(self) -> &'static str {
                match self { $(Self::$name => $remedy,)* }
            }

            /// Whether sending the same request again is safe and may help.
            #[must_use]
            pub fn retry(self) -> &'static str {
                match self { $(Self::$name => $retry,)* }
            }
        }
    };
}

codes! {
    MalformedRequest = "MALFORMED_REQUEST", BAD_REQUEST, "What came cannot be read as a request of HTTP/1.1", "Look at the request line, the headers and the length; an HTTP client library gets them right.", "No: it will be refused again.";
    InvalidRequestBody = "INVALID_REQUEST_BODY", BAD_REQUEST, "The body is not the JSON object that is asked for", "Send one JSON object in UTF-8 with the documented members.", "No: it will be refused again.";
    ValidationFailed = "VALIDATION_FAILED", BAD_REQUEST, "Some values do not fit", "Mend every field that `details` lists.", "No: it will be refused again.";
    UnsupportedVendor = "UNSUPPORTED_VENDOR", BAD_REQUEST, "The vendor is not supported", "Send `\"vendor\": \"dji\"`.", "No: it will be refused again.";
    UnsupportedCommand = "UNSUPPORTED_COMMAND", BAD_REQUEST, "The method is not in the catalogue", "Take a `command_type` from `GET /api/v1/open/catalog/dji/methods`.", "No: it will be refused again.";
    Unauthorized = "UNAUTHORIZED", UNAUTHORIZED, "The request is not signed, or the credential does not work", "Send the four signing headers; ask the tenant's administrator if the credential is disabled or expired.", "Only after mending it.";
    SignatureInvalid = "SIGNATURE_INVALID", UNAUTHORIZED, "The signature does not match", "Compare `details` with the string you signed, and check the API id and key.", "Only after mending it.";
    TimestampExpired = "TIMESTAMP_EXPIRED", UNAUTHORIZED, "The timestamp is too far from the server's clock", "Set the clock of the caller; sign again with the present time. Where `Retry-After` is given, the clock is right and the server's machine went down: sign again after so many seconds.", "Yes, signed anew.";
    NonceReplayed = "NONCE_REPLAYED", UNAUTHORIZED, "The nonce was used before", "Use a new nonce for every request, also for a repeated one.", "Yes, with a new nonce; a command is not sent twice under the same idempotency key.";
    PermissionDenied = "PERMISSION_DENIED", FORBIDDEN, "The credential may not do this", "Ask for a credential with the permission that `details` names.", "No.";
    ObjectPolicyDenied = "OBJECT_POLICY_DENIED", FORBIDDEN, "The object policy does not allow this", "Ask the tenant's administrator for a resource that covers the object.", "No.";
    NotFound = "NOT_FOUND", NOT_FOUND, "There is nothing at this path", "See the list of paths in `/openapi.json`.", "No.";
    CommandNotFound = "COMMAND_NOT_FOUND", NOT_FOUND, "This tenant has no such command", "Check the command id and the credential's tenant.", "No.";
    DeviceRequestNotFound = "DEVICE_REQUEST_NOT_FOUND", NOT_FOUND, "This tenant has no such device request", "Check the request id and the credential's tenant.", "No.";
    DeviceNotFound = "DEVICE_NOT_FOUND", NOT_FOUND, "This tenant has no such device", "Check the serial number; add the device to the tenant first.", "After the device was added.";
    BindingCodeNotFound = "BINDING_CODE_NOT_FOUND", NOT_FOUND, "This tenant has no such binding code", "Take an id from `GET /api/v1/open/device-binding-codes`.", "No.";
    CallbackNotFound = "CALLBACK_NOT_FOUND", NOT_FOUND, "This tenant has no such callback", "Check the endpoint id.", "No.";
    MethodNotAllowed = "METHOD_NOT_ALLOWED", METHOD_NOT_ALLOWED, "The path does not take this HTTP method", "See `/openapi.json` and the `Allow` header.", "No.";
    RequestTimeout = "REQUEST_TIMEOUT", REQUEST_TIMEOUT, "The body did not arrive in time", "Send the whole body without pauses.", "Yes: nothing was done.";
    IdempotencyConflict = "IDEMPOTENCY_CONFLICT", CONFLICT, "The idempotency key was used with another body", "Use a new key for a new command; repeat a command with exactly the same body.", "No.";
    DeviceRequestAlreadyReplied = "DEVICE_REQUEST_ALREADY_REPLIED", CONFLICT, "The device request has been answered", "Read the request to see the answer.", "No.";
    DeviceRequestExpired = "DEVICE_REQUEST_EXPIRED", CONFLICT, "The device no longer waits for this answer", "Answer before `reply_by`.", "No.";
    CommandNotCancellable = "COMMAND_NOT_CANCELLABLE", CONFLICT, "The command can no longer be cancelled", "It may have reached the device, or has ended: read it, and send the method that stops it.", "Only when `message` says that it is being sent right now.";
    DeviceConflict = "DEVICE_CONFLICT", CONFLICT, "The serial number is registered already, otherwise than asked for", "Check the serial number; if the device is yours, ask the operator of this server to move it to your tenant.", "After the device was moved.";
    TooManyBindingCodes = "TOO_MANY_BINDING_CODES", CONFLICT, "The tenant has as many good binding codes as it may have", "Revoke codes that nobody needs.", "After one was revoked or has ended.";
    DeviceBusy = "DEVICE_BUSY", CONFLICT, "Another movement of the aircraft is running", "Wait for the command that `details` names, or stop it.", "When that command has ended, with the same key.";
    PayloadTooLarge = "PAYLOAD_TOO_LARGE", PAYLOAD_TOO_LARGE, "The body is too large", "Send at most 1 MiB.", "No: it will be refused again.";
    UriTooLong = "URI_TOO_LONG", URI_TOO_LONG, "The path and the query are too long", "Send at most 65534 bytes of them.", "No: it will be refused again.";
    HeadersTooLarge = "HEADERS_TOO_LARGE", REQUEST_HEADER_FIELDS_TOO_LARGE, "The headers are too many or too long", "Send at most 100 headers.", "No: it will be refused again.";
    UnsupportedMediaType = "UNSUPPORTED_MEDIA_TYPE", UNSUPPORTED_MEDIA_TYPE, "The body is not declared as JSON", "Send `Content-Type: application/json`.", "No: it will be refused again.";
    RateLimited = "RATE_LIMITED", TOO_MANY_REQUESTS, "The credential or its tenant asks too often", "Wait for `Retry-After` seconds; spread requests, and let `?wait` wait for outcomes instead of asking again and again.", "Yes, later: nothing was done, and the nonce was not used up.";
    ObjectSigningFailed = "OBJECT_SIGNING_FAILED", INTERNAL_SERVER_ERROR, "The object could not be presigned", "Tell the operator the request id.", "Yes.";
    InternalError = "INTERNAL_ERROR", INTERNAL_SERVER_ERROR, "The server failed", "Tell the operator the request id.", "Yes, with the same idempotency key.";
    Overloaded = "OVERLOADED", SERVICE_UNAVAILABLE, "The server cannot take this now", "Wait for `Retry-After` seconds.", "Yes, later, with the same idempotency key.";
}

/// Most values that do not fit which are named in one answer.
const DETAILS_MAX: usize = 100;
/// Most of a text that is repeated in an answer.
const GIVEN_CHARS_MAX: usize = 200;

/// One value that does not fit.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub struct Detail {
    /// JSON pointer into the body, or `header:NAME`, `query:NAME`.
    #[schema(example = "/payload/points/0/height")]
    pub field: String,
    /// What is wrong with it, and what it should be.
    #[schema(example = "must be between 2 and 10000")]
    pub problem: String,
    /// What was given, where there was anything.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub given: Option<Value>,
}

impl Detail {
    /// A detail without the given value.
    #[must_use]
    pub fn new(field: impl Into<String>, problem: impl Into<String>) -> Self {
        Self { field: field.into(), problem: problem.into(), given: None }
    }

    /// The same with the given value, which is ours or of a known size.
    #[must_use]
    pub fn given(self, given: Value) -> Self {
        Self { given: Some(given), ..self }
    }

    /// The same with a value of the caller's: a long text is cut, a list or an object is only described.
    #[must_use]
    pub fn given_by_caller(self, given: &Value) -> Self {
        let shown = match given {
            Value::Null | Value::Bool(_) | Value::Number(_) => given.clone(),
            Value::String(text) => cut(text).into(),
            Value::Array(items) => format!("a list of {}", items.len()).into(),
            Value::Object(members) => format!("an object with {} members", members.len()).into(),
        };
        self.given(shown)
    }
}

/// The beginning of a text of the caller's.
#[must_use]
pub fn cut(text: &str) -> String {
    match text.char_indices().nth(GIVEN_CHARS_MAX) {
        Some((end, _)) => format!("{}…", text.get(..end).unwrap_or_default()),
        None => text.to_owned(),
    }
}

/// A refusal on its way out. The request id is put in where the answer leaves ([`super::request_id`]).
#[derive(Debug, Clone)]
pub struct Problem {
    /// Why.
    pub code: Code,
    /// In words, for this very request.
    pub message: String,
    /// All that does not fit.
    pub details: Vec<Detail>,
    /// When to come again.
    pub retry_after_seconds: Option<u32>,
}

/// What callers see of a refusal.
#[derive(Debug, Serialize, ToSchema)]
pub struct ProblemBody {
    /// Link into the error reference that this server serves.
    #[serde(rename = "type")]
    #[schema(example = "/docs/errors#VALIDATION_FAILED")]
    pub kind: String,
    /// What happened, the same for every refusal of this code.
    pub title: &'static str,
    /// The HTTP status.
    #[schema(example = 400)]
    pub status: u16,
    /// The code to program against.
    #[schema(value_type = CodeWord)]
    pub code: &'static str,
    /// What is wrong with this very request.
    pub message: String,
    /// The same id as in the `X-Request-Id` header.
    pub request_id: String,
    /// Everything that does not fit, at once.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub details: Vec<Detail>,
}

impl Problem {
    /// A refusal with a message.
    #[must_use]
    pub fn new(code: Code, message: impl ToString) -> Self {
        Self { code, message: message.to_string(), details: Vec::new(), retry_after_seconds: None }
    }

    /// A refusal for values that do not fit. What is wrong is told up to a limit: an answer must not grow beyond its
    /// request.
    #[must_use]
    pub fn invalid(mut details: Vec<Detail>) -> Self {
        let message = match details.as_slice() {
            [only] => format!("{} {}", only.field, only.problem),
            many if many.len() <= DETAILS_MAX => {
                format!("{} values do not fit; see details", many.len())
            }
            many => {
                format!("{} values do not fit; details names the first {DETAILS_MAX}", many.len())
            }
        };
        details.truncate(DETAILS_MAX);
        Self { details, ..Self::new(Code::ValidationFailed, message) }
    }

    /// A failure that is ours: the cause goes to the log, once; the caller gets the request id.
    #[must_use]
    pub fn internal(error: &(dyn std::error::Error + 'static)) -> Self {
        let mut chain = error.to_string();
        let mut source = error.source();
        while let Some(cause) = source {
            chain.push_str(": ");
            chain.push_str(&cause.to_string());
            source = cause.source();
        }
        tracing::error!(error = %chain, "a request failed");
        Self::new(Code::InternalError, "the server failed; tell its operator the request id")
    }

    /// The store cannot be used now: nothing was done, come again.
    #[must_use]
    pub fn store(error: &utmos_core::ports::StoreError) -> Self {
        match error {
            utmos_core::ports::StoreError::Unavailable(_) => {
                tracing::error!(%error, "a request failed");
                Self::new(Code::Overloaded, "the store cannot be used now; send the request again")
                    .retry_after(1)
            }
            utmos_core::ports::StoreError::Damaged(_) => Self::internal(error),
        }
    }

    /// The same with one more detail.
    #[must_use]
    pub fn with(mut self, detail: Detail) -> Self {
        self.details.push(detail);
        self
    }

    /// The same with a `Retry-After` header.
    #[must_use]
    pub fn retry_after(self, seconds: u32) -> Self {
        Self { retry_after_seconds: Some(seconds), ..self }
    }

    /// What the caller sees, as JSON.
    #[must_use]
    pub fn to_json(&self, request_id: &str) -> Vec<u8> {
        serde_json::to_vec(&self.to_body(request_id)).unwrap_or_default()
    }

    fn to_body(&self, request_id: &str) -> ProblemBody {
        ProblemBody {
            kind: format!("/docs/errors#{}", self.code.as_str()),
            title: self.code.title(),
            status: self.code.status().as_u16(),
            code: self.code.as_str(),
            message: self.message.clone(),
            request_id: request_id.to_owned(),
            details: self.details.clone(),
        }
    }

    /// The answer, whole.
    #[must_use]
    pub fn to_response(&self, request_id: &str) -> Response {
        let mut response = (self.code.status(), Json(self.to_body(request_id))).into_response();
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        if let Some(seconds) = self.retry_after_seconds {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        response
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        // Finished by the layer that knows the request id.
        let mut response = self.code.status().into_response();
        response.extensions_mut().insert(self);
        response
    }
}
