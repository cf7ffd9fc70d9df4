//! A captured request is refused when it comes again, whatever becomes of the server that answered it.

use reqwest::{Method, RequestBuilder, StatusCode};
use serde_json::json;

use crate::{
    api::{COMMANDS, command, send},
    place::Place,
};

const DEVICES: &str = "/api/v1/open/devices";

/// Sends it again; the first time it was answered.
async fn again(request: &RequestBuilder) -> (StatusCode, String) {
    let answer = send(request.try_clone().unwrap()).await.unwrap();
    (answer.status, answer.code().to_owned())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_answered_before_a_kill_or_a_power_cut_is_refused_after_it() {
    let place = Place::new().await;
    let mut process = place.spawn(None).await;
    let api = place.api();
    let refused = |code: &str| (StatusCode::UNAUTHORIZED, code.to_owned());
    let order = command("DOCK-1", "cover_open", json!({}), json!({}));
    let acting = api.signed(Method::POST, COMMANDS, Some(&order));
    send(acting.try_clone().unwrap()).await.unwrap();

    let mut all = Vec::new();
    for _ in 0..3 {
        for _ in 0..20 {
            let request = api.signed(Method::GET, DEVICES, None);
            let answer = send(request.try_clone().unwrap()).await.unwrap();
            assert_eq!(answer.status, StatusCode::OK, "{answer:?}");
            all.push(request);
        }
        // With answers on the wire a moment ago.
        process.kill().await;
        process = place.spawn(None).await;
        for request in &all {
            assert_eq!(again(request).await, refused("NONCE_REPLAYED"));
        }
        assert_eq!(api.get(DEVICES).await.status, StatusCode::OK, "nobody else is shut out");
    }
    assert_eq!(again(&acting).await, refused("NONCE_REPLAYED"));

    // The file of nonces went down with the machine, as far as anybody can tell.
    process.kill().await;
    std::fs::remove_file(place.data_dir().join("utmos.sqlite.nonces")).unwrap();
    process = place.spawn(None).await;
    for request in &all {
        // Of most the database knows.
        let (status, code) = again(request).await;
        assert_eq!(status, StatusCode::UNAUTHORIZED, "{code}");
    }
    let answer = api.get(DEVICES).await;
    assert_eq!(answer.code(), "TIMESTAMP_EXPIRED", "it may be one of them: {answer:?}");
    assert_eq!(answer.body["details"][0]["field"], "header:X-Api-Timestamp");
    // Whoever signs later is let in, and what acts was never in doubt.
    assert_eq!(api.ahead(12).get(DEVICES).await.status, StatusCode::OK);
    assert_eq!(again(&acting).await, refused("NONCE_REPLAYED"));
    let order = command("DOCK-1", "cover_open", json!({}), json!({}));
    assert_ne!(api.post(COMMANDS, &order).await.status, StatusCode::UNAUTHORIZED);

    // After an orderly stop nothing is in doubt, with whatever file.
    process.stop().await;
    std::fs::remove_file(place.data_dir().join("utmos.sqlite.nonces")).unwrap();
    let _process = place.spawn(None).await;
    assert_eq!(api.ahead(13).get(DEVICES).await.status, StatusCode::OK);
}
