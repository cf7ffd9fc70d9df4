//! A captured request is refused when it comes again, whatever becomes of the server that answered it.

use reqwest::{Method, RequestBuilder, StatusCode};
use serde_json::{Value, json};

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
        // The earlier ones are in the database.
        let answer = again(request).await;
        let codes = ["TIMESTAMP_EXPIRED", "NONCE_REPLAYED"];
        assert!(answer.0 == StatusCode::UNAUTHORIZED && codes.contains(&&*answer.1), "{answer:?}");
    }
    // Whoever signed around the last answer, however long ago that is by now: it may be one of them.
    let mut told = Vec::new();
    for off in (-100..=0).step_by(5) {
        let answer = api.ahead(off).signed(Method::GET, DEVICES, None).send().await.unwrap();
        if answer.status() == StatusCode::UNAUTHORIZED {
            told.push(answer.headers()["Retry-After"].to_str().unwrap().parse::<u64>().unwrap());
            let body: Value = answer.json().await.unwrap();
            assert_eq!(body["code"], "TIMESTAMP_EXPIRED");
            assert_eq!(body["details"][0]["field"], "header:X-Api-Timestamp");
        }
    }
    assert!((1..=9).contains(&told.len()) && told.iter().all(|wait| *wait <= 41), "{told:?}");
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

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_nobody_knows_to_be_answered_is_not_taken_to_postgresql() {
    let place = Place::new().await;
    let process = place.spawn(None).await;
    assert_eq!(place.api().get(DEVICES).await.status, StatusCode::OK);
    process.kill().await;
    std::fs::remove_file(place.data_dir().join("utmos.sqlite.nonces")).unwrap();
    // Asked twice: the first time must not make it forget.
    for _ in 0..2 {
        let mut import = place.utmos(&["store", "import"]);
        for assignment in place.assignments() {
            import.args(["--set", &assignment]);
        }
        import.args(["--set", "store.url=postgres://nobody@127.0.0.1:1/none"]);
        let done = import.output().unwrap();
        let said = String::from_utf8(done.stderr).unwrap();
        assert!(!done.status.success() && said.contains("import after"), "{said}");
    }
}
