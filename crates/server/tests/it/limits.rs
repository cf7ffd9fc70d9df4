//! How often callers may ask: what is refused, when it is let through again, and what never is.

use std::time::Duration;

use reqwest::{Method, StatusCode, header::RETRY_AFTER};
use serde_json::json;
use uuid::Uuid;

use crate::{
    app::{Answer, Api, COMMANDS, PATIENCE, TestApp, unix_seconds},
    routes::assert_refused,
};

/// Asks until it is refused for asking too often.
async fn until_limited(api: &Api) -> Answer {
    let ask = async {
        loop {
            let copies = (0..5).map(|_| api.get(COMMANDS));
            for answer in futures_util::future::join_all(copies).await {
                match answer.status {
                    StatusCode::OK => {}
                    _ => return answer,
                }
            }
        }
    };
    tokio::time::timeout(PATIENCE, ask).await.unwrap()
}

const ONE_A_SECOND: &[&str] =
    &["limits.credential_per_second=1", "limits.credential_burst=3", "limits.tenant_per_second=0"];

#[tokio::test]
async fn whoever_asks_too_often_is_told_when_to_come_again_and_then_let_in() {
    let app = TestApp::start_with(ONE_A_SECOND).await;
    let refused = until_limited(&app.api).await;
    assert_refused(&refused, 429, "RATE_LIMITED");
    let seconds: u64 = refused.headers[RETRY_AFTER].to_str().unwrap().parse().unwrap();
    assert_eq!(seconds, 1);
    let message = refused.body["message"].as_str().unwrap();
    assert!(
        message.contains("this credential may ask 1 times a second, 3 times at once"),
        "{message}"
    );
    let remedy = refused.body["details"][0]["problem"].as_str().unwrap();
    assert!(remedy.contains("limits.credential_per_second"), "{remedy}");
    let counted = app.metric("utmos_http_rate_limited_total{whose=\"credential\"}").await;
    assert!(counted.parse::<u64>().unwrap() >= 1);
    assert_eq!(app.metric("utmos_http_rate_limited_total{whose=\"tenant\"}").await, "0");
    // The very same request: what was refused did not use its nonce up.
    let (nonce, at) = (Uuid::new_v4().to_string(), unix_seconds());
    let again = async || app.api.request_with(Method::GET, COMMANDS, None, &nonce, at).await;
    let let_in = async {
        loop {
            let answer = again().await;
            if answer.status != StatusCode::TOO_MANY_REQUESTS {
                return answer;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    let answer = tokio::time::timeout(PATIENCE, let_in).await.unwrap();
    assert_eq!(answer.status, StatusCode::OK, "{answer:?}");
    assert_refused(&again().await, 401, "NONCE_REPLAYED");
}

#[tokio::test]
async fn emergencies_and_cancels_are_never_refused_so() {
    let app = TestApp::start_with(ONE_A_SECOND).await;
    until_limited(&app.api).await;
    for _ in 0..10 {
        let stop = app.api.create("DOCK-1", "return_home", json!({}), json!({})).await;
        assert_eq!(stop.status, StatusCode::ACCEPTED, "{stop:?}");
    }
    for _ in 0..10 {
        let cancel = format!("{COMMANDS}/{}/cancel", Uuid::new_v4());
        assert_refused(
            &app.api.request(Method::POST, &cancel, None).await,
            404,
            "COMMAND_NOT_FOUND",
        );
    }
    // Cancels count, and so nothing came back meanwhile that anything else could use, unless a second went by.
    let limited = until_limited_by(&app.api).await;
    assert_refused(&limited, 429, "RATE_LIMITED");
}

/// The same by commands that are no emergencies: nothing of those that are refused is stored.
async fn until_limited_by(api: &Api) -> Answer {
    let ask = async {
        loop {
            let answer = api.create("DOCK-2", "debug_mode_open", json!({}), json!({})).await;
            if answer.status != StatusCode::ACCEPTED {
                return answer;
            }
        }
    };
    tokio::time::timeout(PATIENCE, ask).await.unwrap()
}

#[tokio::test]
async fn one_tenant_that_asks_too_often_takes_nothing_from_another() {
    let settings =
        &["limits.credential_per_second=0", "limits.tenant_per_second=1", "limits.tenant_burst=60"];
    let app = TestApp::start_with(settings).await;
    let other = app.other_tenant("second", "DOCK-9").await;
    let colleague = app.credential(|_| {}).await;
    let flood = async {
        for _ in 0..20 {
            until_limited(&app.api).await;
        }
    };
    let work = async {
        for _ in 0..20 {
            let id = other.create("DOCK-9", "debug_mode_open", json!({}), json!({})).await.id();
            assert_eq!(other.get(&format!("{COMMANDS}/{id}")).await.status, StatusCode::OK);
        }
    };
    tokio::join!(flood, work);
    let refused = until_limited(&colleague).await;
    assert_refused(&refused, 429, "RATE_LIMITED");
    let message = refused.body["message"].as_str().unwrap();
    assert!(message.contains("the credentials of this tenant together"), "{message}");
    assert_ne!(app.metric("utmos_http_rate_limited_total{whose=\"tenant\"}").await, "0");
    assert_eq!(app.metric("utmos_http_rate_limited_total{whose=\"credential\"}").await, "0");
}

#[tokio::test]
async fn what_a_stranger_sends_in_a_callers_name_counts_for_nobody() {
    let settings = &["limits.credential_per_second=1", "limits.credential_burst=4"];
    let app = TestApp::start_with(settings).await;
    let (nonce, at) = (Uuid::new_v4().to_string(), unix_seconds());
    let answer = app.api.request_with(Method::GET, COMMANDS, None, &nonce, at).await;
    assert_eq!(answer.status, StatusCode::OK);
    for _ in 0..10 {
        let answer = app.api.request_with(Method::GET, COMMANDS, None, &nonce, at).await;
        assert_refused(&answer, 401, "NONCE_REPLAYED");
        let mut headers = app.api.fresh_headers("GET", COMMANDS, b"");
        headers[3].1 = "0".repeat(64);
        let forged = crate::app::with_headers(app.api.bare(Method::GET, COMMANDS), &headers);
        assert_refused(&Api::answer(forged).await, 401, "SIGNATURE_INVALID");
    }
    for _ in 0..3 {
        assert_eq!(app.api.get(COMMANDS).await.status, StatusCode::OK, "they are all its own");
    }
}

#[tokio::test]
async fn a_server_that_may_be_loaded_has_no_limits() {
    let settings =
        &["bench.allow=true", "limits.credential_per_second=1", "limits.credential_burst=1"];
    let app = TestApp::start_with(settings).await;
    for _ in 0..20 {
        assert_eq!(app.api.get(COMMANDS).await.status, StatusCode::OK);
    }
}
