//! The metrics: those that are documented, where they are wanted.

use std::collections::BTreeSet;

use reqwest::{Method, StatusCode};
use serde_json::json;

use crate::{
    app::{Api, COMMANDS, TestApp},
    routes::assert_refused,
    wire::{Wire, whole},
};

const ARCHITECTURE: &str = include_str!("../../../../ARCHITECTURE.md");

async fn metrics(api: &Api) -> String {
    let answer = Api::answer(api.bare(Method::GET, "/metrics")).await;
    assert_eq!(answer.status, StatusCode::OK, "{answer:?}");
    answer.body.as_str().unwrap().to_owned()
}

/// The value of a line that begins so.
fn value(text: &str, name: &str) -> f64 {
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    line.unwrap_or_else(|| panic!("no {name} in {text}")).parse().unwrap()
}

#[tokio::test]
async fn what_is_served_is_what_is_documented() {
    let app = TestApp::start().await;
    let text = metrics(&app.api).await;
    let served: BTreeSet<&str> =
        text.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next()).collect();
    let section = ARCHITECTURE.split("## Metrics").nth(1).unwrap().split("\n## ").next().unwrap();
    let documented: BTreeSet<&str> =
        section.split('`').filter(|word| word.starts_with("utmos_")).collect();
    assert_eq!(served, documented);
}

#[tokio::test]
async fn queues_and_ports_are_measured() {
    let app = TestApp::start().await;
    let mut dock = app.dock("DOCK-1").await;
    let id = app.api.create("DOCK-1", "debug_mode_open", json!({}), json!({})).await.id();
    let command = dock.command().await;
    dock.reply(&command, json!({"result": 0})).await;
    app.api.ended(&id).await;
    app.api.create("DOCK-2", "debug_mode_open", json!({}), json!({})).await.id();
    app.api.get("/api/v1/open/devices/DOCK-1/telemetry").await;
    let text = metrics(&app.api).await;
    assert!(value(&text, "utmos_store_nonce_seconds_count") >= 1.0);
    for (name, count) in [("store_accept", 2.0), ("publish", 1.0), ("http_latest", 1.0)] {
        let name = format!("utmos_{name}_seconds");
        assert_eq!(value(&text, &format!("{name}_count")), count);
        assert_eq!(value(&text, &format!("{name}_bucket{{le=\"+Inf\"}}")), count);
        assert!(value(&text, &format!("{name}_sum")) >= 0.0);
    }
    assert!(value(&text, "utmos_store_advance_seconds_count") >= 1.0);
    assert_eq!(value(&text, "utmos_commands_waiting"), 1.0, "the one for the dock that is away");
    assert!(value(&text, "utmos_lanes") >= 1.0);

    // An emergency in the journal, while a write hangs.
    app.unwell.hold_acceptances(true);
    app.api.create("DOCK-1", "return_home", json!({}), json!({})).await.id();
    assert_eq!(value(&metrics(&app.api).await, "utmos_journal_unsettled"), 1.0);
    app.unwell.hold_acceptances(false);
    app.unwell.release();
}

#[tokio::test]
async fn the_metrics_have_an_address_of_their_own_where_it_is_set() {
    let app = TestApp::start_with(&["metrics.listen=127.0.0.1:0"]).await;
    assert_eq!(app.api.get(COMMANDS).await.status, StatusCode::OK);
    assert_refused(&Api::answer(app.api.bare(Method::GET, "/metrics")).await, 404, "NOT_FOUND");
    let document = Api::answer(app.api.bare(Method::GET, "/openapi.json")).await.body;
    assert!(document["paths"]["/metrics"].is_null());
    let there = Api::new(app.server.metrics_addr().unwrap(), app.api.given.clone());
    assert!(metrics(&there).await.contains("utmos_commands_open 0"));
    assert_refused(&there.get(COMMANDS).await, 404, "NOT_FOUND");
    assert_refused(
        &Api::answer(there.bare(Method::PUT, "/metrics")).await,
        405,
        "METHOD_NOT_ALLOWED",
    );
    app.server.stop().await;
}

// Fewer than the API has; and they are connections of their own.
#[tokio::test]
async fn the_address_of_the_metrics_has_few_connections_and_they_take_none_of_the_api() {
    let settings = &["metrics.listen=127.0.0.1:0", "http.header_read_seconds=300"];
    let app = TestApp::start_with(settings).await;
    let there = app.server.metrics_addr().unwrap();
    let mut on_api = Wire::open(app.http).await;
    let mut first = Wire::open(there).await;
    let mut more = Vec::new();
    // From several addresses, since one alone has a share.
    for number in 0..64_u8 {
        more.push(Wire::open_from([127, 0, 4, number / 8 + 1], there).await);
    }
    first.closed().await;
    let watching = Api::new(there, app.api.given.clone());
    assert!(metrics(&watching).await.contains("utmos_commands_open 0"));
    let headers = app.api.fresh_headers("GET", COMMANDS, b"");
    on_api.send(&whole("GET", COMMANDS, &headers, b"")).await;
    assert_eq!(
        on_api.answer().await.unwrap().status,
        StatusCode::OK,
        "nobody of the API had to go"
    );
    drop(more);
}
