//! The OpenAPI document and the pages that show it, all served from this binary: nothing is loaded from elsewhere.

use std::{fmt::Write, sync::Arc};

use axum::{
    Router,
    http::header,
    response::{Html, IntoResponse},
    routing::get,
};
use serde_json::json;
use utoipa::openapi::{
    OpenApi,
    security::{ApiKey, ApiKeyValue, SecurityScheme},
};

use super::{App, problem::Code};

const REFERENCE_PAGE: &str = include_str!("../../data/reference.html");
const STYLE: &str = include_str!("../../data/docs.css");
const SCRIPT: &str = include_str!("../../data/reference.js");

/// Paths that need no signature.
const OPEN_PATHS: [&str; 3] = ["/healthz", "/readyz", "/metrics"];

/// Puts in what belongs to every signed operation: the four headers, and how to sign.
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
        }
    }
}

/// The pages.
pub fn router(document: &OpenApi) -> Router<Arc<App>> {
    let json = serde_json::to_string(document).unwrap_or_default();
    let errors = errors_page();
    let vectors = utmos_core::signing::VECTORS;
    Router::new()
        .route("/openapi.json", get(move || serve("application/json", json.clone())))
        .route("/docs", get(|| std::future::ready(Html(REFERENCE_PAGE))))
        .route("/docs/reference.js", get(|| serve("text/javascript", SCRIPT.to_owned())))
        .route("/docs/docs.css", get(|| serve("text/css", STYLE.to_owned())))
        .route("/docs/errors", get(move || std::future::ready(Html(errors.clone()))))
        .route("/docs/errors.json", get(|| serve("application/json", errors_json())))
        .route("/docs/signing-vectors.json", get(|| serve("application/json", vectors.to_owned())))
}

fn serve(kind: &'static str, text: String) -> std::future::Ready<impl IntoResponse> {
    std::future::ready(([(header::CONTENT_TYPE, kind)], text))
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
        let _ = write!(
            rows,
            "<tr id=\"{name}\"><td><code>{name}</code></td><td>{status}</td><td>{}</td><td>{}</td><td>{}</td></tr>",
            in_code(code.title()),
            in_code(code.remedy()),
            in_code(code.retry())
        );
    }
    format!(
        "<!doctype html><html lang=\"en\"><meta charset=\"utf-8\"><title>UTMOS errors</title>\
         <meta name=\"viewport\" content=\"width=device-width\"><link rel=\"stylesheet\" href=\"/docs/docs.css\">\
         <header><a href=\"/docs\">UTMOS Open Platform</a> <span>Errors</span></header><main><h1>Errors</h1>\
         <p>Every failure has one envelope: <code>code</code>, <code>message</code>, <code>request_id</code> and, where \
         values do not fit, <code>details</code> with every problem at once.</p>\
         <table><thead><tr><th>Code</th><th>HTTP</th><th>What happened</th><th>What to do</th><th>Send it again?</th>\
         </tr></thead><tbody>{rows}</tbody></table></main></html>"
    )
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
