//! The OpenAPI document and the pages that show it, all served from this binary: nothing is loaded from elsewhere.

use std::{fmt::Write, sync::Arc};

use axum::{
    Router,
    http::header,
    response::IntoResponse,
    routing::{MethodRouter, get},
};
use bytes::Bytes;
use serde_json::json;
use utoipa::openapi::{
    Content, Header, Object, OpenApi, Ref, RefOr, Response, ResponseBuilder, Type,
    security::{ApiKey, ApiKeyValue, SecurityScheme},
};

use super::{App, problem::Code};

const REFERENCE_PAGE: &str = include_str!("../../data/reference.html");
const ERRORS_PAGE: &str = include_str!("../../data/errors.html");
const STYLE: &str = include_str!("../../data/docs.css");
const SCRIPT: &str = include_str!("../../data/reference.js");

/// The pages run their own script and look like their own style sheet; nothing else is loaded, sent or framed.
const SECURITY_POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; \
    base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// Paths that need no signature.
const OPEN_PATHS: [&str; 3] = ["/healthz", "/readyz", "/metrics"];

/// The operation that is not refused however often its caller asks. Nor are emergencies.
const NEVER_LIMITED: &str = "cancelCommand";

/// Puts in what belongs to every signed operation: the four headers, how to sign, and what is said to whoever asks too often.
pub fn finish(document: &mut OpenApi) {
    let components = document.components.get_or_insert_default();
    for (name, header, about) in [
        ("ApiId", "X-Api-Id", "The API id of a credential"),
        ("Timestamp", "X-Api-Timestamp", "Unix time in whole seconds"),
        ("Nonce", "X-Api-Nonce", "1 to 128 visible ASCII characters, new for every request"),
        (
            "Signature",
            "X-Api-Signature",
            "HMAC-SHA256 in lower-case hex over eight lines joined by \\n: UTMOS-HMAC-SHA256, method, path, sorted \
             query, X-Api-Id, X-Api-Timestamp, X-Api-Nonce, lower-case hex SHA-256 of the raw body",
        ),
    ] {
        let scheme =
            SecurityScheme::ApiKey(ApiKey::Header(ApiKeyValue::with_description(header, about)));
        components.add_security_scheme(name, scheme);
    }
    let all: [(&str, [String; 0]); 4] =
        [("ApiId", []), ("Timestamp", []), ("Nonce", []), ("Signature", [])];
    let signed = all
        .into_iter()
        .fold(utoipa::openapi::SecurityRequirement::default(), |requirement, (name, scopes)| {
            requirement.add(name, scopes)
        });
    for (path, item) in &mut document.paths.paths {
        if OPEN_PATHS.contains(&path.as_str()) {
            continue;
        }
        let operations =
            [&mut item.get, &mut item.post, &mut item.put, &mut item.patch, &mut item.delete];
        for operation in operations.into_iter().flatten() {
            operation.security = Some(vec![signed.clone()]);
            if operation.operation_id.as_deref() != Some(NEVER_LIMITED) {
                let responses = &mut operation.responses.responses;
                responses.insert("429".to_owned(), RefOr::T(rate_limited()));
            }
        }
    }
}

fn rate_limited() -> Response {
    let seconds = Header::new(Object::with_type(Type::Integer));
    ResponseBuilder::new()
        .description("`RATE_LIMITED`: the credential or its tenant asks too often; nothing was done. `Retry-After` says when to come again. Emergencies are never refused so")
        .header("Retry-After", seconds)
        .content(
            "application/problem+json",
            Content::new(Some(Ref::from_schema_name("ProblemBody"))),
        )
        .build()
}

/// The pages.
pub fn router(document: &OpenApi) -> Router<Arc<App>> {
    let json = serde_json::to_string(document).unwrap_or_default();
    Router::new()
        .route("/openapi.json", page("application/json", json))
        .route("/docs", page("text/html; charset=utf-8", REFERENCE_PAGE))
        .route("/docs/reference.js", page("text/javascript; charset=utf-8", SCRIPT))
        .route("/docs/docs.css", page("text/css; charset=utf-8", STYLE))
        .route("/docs/errors", page("text/html; charset=utf-8", errors_page()))
        .route("/docs/errors.json", page("application/json", errors_json()))
        .route("/docs/signing-vectors.json", page("application/json", utmos_core::signing::VECTORS))
}

/// Something that never changes while the server runs. Asked for again each time, since a new version has another.
fn page<S>(kind: &'static str, text: impl Into<Bytes>) -> MethodRouter<S>
where
    S: Clone + Send + Sync + 'static,
{
    let text = text.into();
    let headers = [
        (header::CONTENT_TYPE, kind),
        (header::CACHE_CONTROL, "no-cache"),
        (header::CONTENT_SECURITY_POLICY, SECURITY_POLICY),
        (header::REFERRER_POLICY, "no-referrer"),
    ];
    get(move || std::future::ready((headers, text.clone()).into_response()))
}

fn errors_json() -> String {
    let all = Code::ALL.iter().map(|code| {
        json!({
            "code": code.as_str(), "status": code.status().as_u16(), "title": code.title(),
            "remedy": code.remedy(), "retry": code.retry(),
        })
    });
    serde_json::Value::Array(all.collect()).to_string()
}

fn errors_page() -> String {
    let mut rows = String::new();
    for code in Code::ALL {
        let (name, status) = (code.as_str(), code.status().as_u16());
        let _ = writeln!(
            rows,
            "<tr id=\"{name}\"><td class=\"name\"><code>{name}</code></td><td>{status}</td><td>{}</td><td>{}</td><td>{}</td></tr>",
            in_code(code.title()),
            in_code(code.remedy()),
            in_code(code.retry())
        );
    }
    ERRORS_PAGE.replace("<!-- rows -->", &rows)
}

/// Our own words, with back-ticked parts as code.
fn in_code(text: &str) -> String {
    let escaped = text.replace('&', "&amp;").replace('<', "&lt;");
    let mut html = String::new();
    for (index, part) in escaped.split('`').enumerate() {
        if index % 2 == 1 {
            let _ = write!(html, "<code>{part}</code>");
        } else {
            html.push_str(part);
        }
    }
    html
}
