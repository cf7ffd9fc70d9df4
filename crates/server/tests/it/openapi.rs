//! The OpenAPI document and the pages that show it.

use std::{collections::BTreeSet, path::Path};

use reqwest::{Method, StatusCode};
use serde_json::Value;

use crate::app::{Api, TestApp};

/// The document as it was agreed on. A change is a change of the contract: look at it, then copy the new one over it.
const AGREED: &str = include_str!("golden/openapi.json");

fn document() -> Value {
    serde_json::to_value(utmos_server::http::openapi()).unwrap()
}

fn operations(document: &Value) -> Vec<(String, &Value)> {
    let paths = document["paths"].as_object().unwrap().iter();
    paths
        .flat_map(|(path, item)| {
            item.as_object().unwrap().values().map(move |one| (path.clone(), one))
        })
        .collect()
}

/// Every value under a key of this name, wherever it stands.
fn all_under<'a>(name: &str, value: &'a Value, found: &mut Vec<&'a Value>) {
    match value {
        Value::Object(members) => {
            for (key, inner) in members {
                if key == name {
                    found.push(inner);
                }
                all_under(name, inner, found);
            }
        }
        Value::Array(items) => items.iter().for_each(|item| all_under(name, item, found)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

#[test]
fn the_document_is_the_one_that_was_agreed_on() {
    let now = format!("{}\n", serde_json::to_string_pretty(&document()).unwrap());
    if now != AGREED {
        let new = Path::new(env!("CARGO_TARGET_TMPDIR")).join("openapi.json");
        std::fs::write(&new, now).unwrap();
        panic!(
            "the OpenAPI document changed; compare {} with tests/it/golden/openapi.json",
            new.display()
        );
    }
}

#[test]
fn the_document_is_openapi_3_1_and_whole() {
    let document = document();
    assert!(document["openapi"].as_str().unwrap().starts_with("3.1."));
    let mut refs = Vec::new();
    all_under("$ref", &document, &mut refs);
    assert!(!refs.is_empty());
    for one in refs {
        let pointer =
            one.as_str().unwrap().strip_prefix('#').expect("nothing refers to another document");
        assert!(document.pointer(pointer).is_some(), "{pointer} leads nowhere");
    }
    let schemes = document["components"]["securitySchemes"].as_object().unwrap();
    let tags: BTreeSet<Option<&str>> =
        document["tags"].as_array().unwrap().iter().map(|tag| tag["name"].as_str()).collect();
    let mut names = BTreeSet::new();
    for (path, operation) in operations(&document) {
        let name = operation["operationId"].as_str().unwrap();
        assert!(names.insert(name), "{name} stands twice");
        assert!(operation["summary"].as_str().is_some_and(|text| text.ends_with('.')), "{name}");
        let own: BTreeSet<Option<&str>> =
            operation["tags"].as_array().unwrap().iter().map(Value::as_str).collect();
        assert!(own.is_subset(&tags), "{name}: a tag without a description");
        let responses = operation["responses"].as_object().unwrap();
        assert!(responses.keys().any(|status| status.starts_with('2')), "{name}");
        for (status, response) in responses {
            assert!(response["description"].is_string(), "{name} {status}");
            let kinds: Vec<&String> = response["content"].as_object().unwrap().keys().collect();
            let is_refusal = status == "default" || status.starts_with(['4', '5']);
            assert_eq!(kinds == ["application/problem+json"], is_refusal, "{name} {status}");
        }
        let is_signed = path.starts_with("/api/");
        assert_eq!(responses.contains_key("default"), is_signed, "{name} says how it refuses");
        let required = operation["security"][0].as_object().map_or(0, serde_json::Map::len);
        assert_eq!(required, if is_signed { schemes.len() } else { 0 }, "{name}");
        let inside: BTreeSet<&str> = path.split(['{', '}']).skip(1).step_by(2).collect();
        let parameters = operation["parameters"].as_array().map_or(&[][..], Vec::as_slice);
        let described: BTreeSet<&str> = parameters
            .iter()
            .filter(|one| one["in"] == "path")
            .map(|one| one["name"].as_str().unwrap())
            .collect();
        assert_eq!(described, inside, "{name}");
        assert!(
            parameters
                .iter()
                .all(|one| one["description"].is_string() && one["schema"].is_object()),
            "{name}"
        );
    }
    for (name, schema) in document["components"]["schemas"].as_object().unwrap() {
        assert!(schema["description"].is_string(), "{name}");
        for (field, inner) in schema["properties"].as_object().into_iter().flatten() {
            let has_words = inner["description"].is_string()
                || inner["$ref"].is_string()
                || inner["oneOf"].is_array();
            assert!(has_words, "{name}.{field}");
        }
    }
}

#[tokio::test]
async fn what_is_served_is_the_document_and_pages_that_load_nothing_from_elsewhere() {
    let app = TestApp::start().await;
    let fetch = async |path: &str| {
        let answer = Api::answer(app.api.bare(Method::GET, path)).await;
        assert_eq!(answer.status, StatusCode::OK, "{path}: {answer:?}");
        assert_eq!(answer.headers["x-content-type-options"], "nosniff", "{path}");
        assert!(answer.headers.contains_key("x-request-id"), "{path}");
        answer
    };
    let served = fetch("/openapi.json").await;
    assert_eq!(
        (&served.body, &served.headers["content-type"]),
        (&document(), &"application/json".parse().unwrap())
    );
    let vectors = fetch("/docs/signing-vectors.json").await;
    assert!(vectors.body["vectors"].as_array().unwrap().len() >= 12);
    let errors = fetch("/docs/errors.json").await;

    let mut seen = BTreeSet::new();
    let mut open = vec!["/docs".to_owned(), "/docs/errors".to_owned()];
    while let Some(path) = open.pop() {
        if !seen.insert(path.clone()) {
            continue;
        }
        let answer = fetch(&path).await;
        let policy = answer.headers["content-security-policy"].to_str().unwrap();
        assert!(policy.starts_with("default-src 'none'") && !policy.contains("unsafe"), "{policy}");
        let Value::String(text) = answer.body else { continue };
        for foreign in [
            "http://",
            "https://",
            "//cdn",
            "@import",
            "url(",
            " style=",
            "<style",
            " onclick=",
            "innerHTML",
            "eval(",
        ] {
            assert!(!text.contains(foreign), "{path} has {foreign}");
        }
        let kind = answer.headers["content-type"].to_str().unwrap().to_owned();
        if kind.starts_with("text/html") {
            assert!(text.starts_with("<!doctype html>") && !text.contains("<script>"), "{path}");
            for link in [" href=\"/", " src=\"/"] {
                let rests =
                    text.split(link).skip(1).map(|rest| rest.split(['"', '#']).next().unwrap());
                open.extend(rests.map(|rest| format!("/{rest}")));
            }
        }
    }
    for path in [
        "/docs/reference.js",
        "/docs/docs.css",
        "/openapi.json",
        "/docs/signing-vectors.json",
        "/docs/errors.json",
    ] {
        assert!(seen.contains(path), "a page leads to {path}");
    }
    // Every code an answer's `type` may lead to has its place.
    let page = fetch("/docs/errors").await;
    let codes = errors.body.as_array().unwrap();
    assert!(codes.len() >= 26);
    for code in codes {
        let anchor = format!("id=\"{}\"", code["code"].as_str().unwrap());
        assert!(page.body.as_str().unwrap().contains(&anchor), "{anchor}");
        for name in ["title", "remedy", "retry"] {
            assert!(code[name].as_str().is_some_and(|text| !text.is_empty()), "{code}");
        }
    }
}
