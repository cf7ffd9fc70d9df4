//! Who is let in: the four headers, the order of checks, nonces, and what a credential may be limited to.

use std::{collections::BTreeSet, time::Duration};

use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use utmos_core::{
    credential::{CredentialSecret, CredentialStatus, IpRange, Permission, Role, Secret},
    id::{ApiId, DeviceSn},
    ports::RegistryStore,
    signing,
    time::Timestamp,
};
use uuid::Uuid;

use crate::{
    app::{Answer, Api, COMMANDS, TestApp, unix_seconds, with_headers},
    wire::{Wire, whole},
};

type Headers = [(&'static str, String); 4];

fn fresh() -> String {
    Uuid::new_v4().to_string()
}

/// A body that would be accepted.
fn good_body() -> String {
    let body = json!({
        "vendor": "dji", "device_id": "DOCK-1", "command_type": "debug_mode_open", "payload": {},
        "idempotency_key": fresh(),
    });
    body.to_string()
}

async fn post(api: &Api, headers: &[(&'static str, String)], body: &str) -> Answer {
    let request = with_headers(api.bare(Method::POST, COMMANDS), headers);
    Api::answer(request.header("Content-Type", "application/json").body(body.to_owned())).await
}

async fn get(api: &Api, target: &str, headers: &[(&'static str, String)]) -> Answer {
    Api::answer(with_headers(api.bare(Method::GET, target), headers)).await
}

/// Another signature of the right form.
fn spoil(headers: &mut Headers) {
    let last = headers[3].1.pop().unwrap();
    headers[3].1.push(if last == '0' { '1' } else { '0' });
}

fn fields(answer: &Answer) -> Vec<&str> {
    let details = answer.body["details"].as_array().map_or(&[][..], Vec::as_slice);
    details.iter().map(|detail| detail["field"].as_str().unwrap()).collect()
}

#[tokio::test]
async fn headers_that_are_missing_doubled_or_malformed_are_all_named_at_once() {
    let app = TestApp::start().await;
    let all: Vec<String> = signing::HEADERS.iter().map(|name| format!("header:{name}")).collect();
    let none = get(&app.api, COMMANDS, &[]).await;
    assert_eq!((none.status, none.code()), (StatusCode::UNAUTHORIZED, "UNAUTHORIZED"));
    assert_eq!(fields(&none), all);

    let good = app.api.fresh_headers("GET", COMMANDS, b"");
    let doubled: Vec<_> = good.iter().cloned().chain(good.clone()).collect();
    let answer = get(&app.api, COMMANDS, &doubled).await;
    assert_eq!(
        (answer.code(), fields(&answer)),
        ("UNAUTHORIZED", all.iter().map(String::as_str).collect())
    );

    let malformed = [
        ("X-Api-Id", vec!["two words".to_owned(), "x".repeat(129)]),
        (
            "X-Api-Timestamp",
            ["", "now", "1.5", "-1", "+1", "007", "0x10", "9999999999999"]
                .map(str::to_owned)
                .to_vec(),
        ),
        ("X-Api-Nonce", vec![String::new(), "two words".to_owned(), "n".repeat(129)]),
        (
            "X-Api-Signature",
            vec!["ab".repeat(31), "AB".repeat(32), "zz".repeat(32), "ab".repeat(33)],
        ),
    ];
    for (name, values) in malformed {
        for value in values {
            let mut headers = app.api.fresh_headers("GET", COMMANDS, b"");
            headers.iter_mut().find(|(header, _)| *header == name).unwrap().1.clone_from(&value);
            let answer = get(&app.api, COMMANDS, &headers).await;
            assert_eq!(answer.code(), "UNAUTHORIZED", "{name}: {value}");
            assert_eq!(fields(&answer), [format!("header:{name}")], "{value}");
        }
    }
    // Bytes that are no text at all, two headers at once.
    let mut wire = Wire::open(app.http).await;
    wire.send(format!("GET {COMMANDS} HTTP/1.1\r\nHost: x\r\nX-Api-Nonce: ").as_bytes()).await;
    wire.send(b"\xff\xfe\r\nX-Api-Id: \xc3\xa9\r\n\r\n").await;
    let answer = wire.answer().await.unwrap();
    assert_eq!((answer.code(), fields(&answer).len()), ("UNAUTHORIZED", 4));
}

#[tokio::test]
async fn an_unknown_api_id_reads_like_a_wrong_signature_and_no_key_is_ever_shown() {
    let app = TestApp::start().await;
    let body = good_body();
    let mut wrong = app.api.fresh_headers("POST", COMMANDS, body.as_bytes());
    spoil(&mut wrong);
    let mut unknown = app.api.fresh_headers("POST", COMMANDS, body.as_bytes());
    unknown[0].1 = "utk_nobody".to_owned();
    let (wrong_answer, unknown_answer) =
        (post(&app.api, &wrong, &body).await, post(&app.api, &unknown, &body).await);
    for (answer, headers) in [(&wrong_answer, &wrong), (&unknown_answer, &unknown)] {
        assert_eq!((answer.status, answer.code()), (StatusCode::UNAUTHORIZED, "SIGNATURE_INVALID"));
        let built = answer.body["details"][0]["given"]["string_to_sign"].as_str().unwrap();
        let lines: Vec<&str> = built.split('\n').collect();
        assert_eq!(lines[..4], ["UTMOS-HMAC-SHA256", "POST", COMMANDS, ""]);
        assert_eq!(lines[4..7], [&headers[0].1, &headers[1].1, &headers[2].1]);
        assert_eq!((lines.len(), lines[7].len()), (8, 64));
    }
    let shape = |answer: &Answer| {
        let mut body = answer.body.clone();
        body["request_id"] = Value::Null;
        body["details"][0]["given"]["string_to_sign"] = Value::Null;
        let names: BTreeSet<String> = answer.headers.keys().map(ToString::to_string).collect();
        (body, names)
    };
    assert_eq!(shape(&wrong_answer), shape(&unknown_answer));
    let credential = app.store.credential(&app.api.given.api_id).await.unwrap().unwrap();
    let shown = format!("{wrong_answer:?}{unknown_answer:?}");
    assert!(!shown.contains(credential.secrets[0].secret.expose()), "the key is in the answer");
}

#[tokio::test]
async fn a_timestamp_must_be_near_the_servers_clock_on_both_sides() {
    let app = TestApp::start().await;
    let strict = app.credential(|one| one.allowed_clock_skew = Duration::from_secs(30)).await;
    let ask = async |api: &Api, off: i64| {
        api.request_with(Method::GET, COMMANDS, None, &fresh(), unix_seconds() + off).await
    };
    for off in [-290, 290] {
        assert_eq!(ask(&app.api, off).await.status, StatusCode::OK, "{off}");
        let refused = ask(&strict, off).await;
        assert_eq!(refused.code(), "TIMESTAMP_EXPIRED", "this credential tolerates less: {off}");
    }
    for off in [-310, 310, -unix_seconds(), 900_000_000_000] {
        let refused = ask(&app.api, off).await;
        assert_eq!(
            (refused.status, refused.code()),
            (StatusCode::UNAUTHORIZED, "TIMESTAMP_EXPIRED")
        );
        assert_eq!(fields(&refused), ["header:X-Api-Timestamp"]);
    }
}

#[tokio::test]
async fn a_captured_request_is_refused_at_once_after_a_restart_and_after_a_crash() {
    let app = TestApp::start().await;
    let body = good_body();
    let captured_post = app.api.fresh_headers("POST", COMMANDS, body.as_bytes());
    let captured_get = app.api.fresh_headers("GET", COMMANDS, b"");
    assert_eq!(post(&app.api, &captured_post, &body).await.status, StatusCode::ACCEPTED);
    assert_eq!(get(&app.api, COMMANDS, &captured_get).await.status, StatusCode::OK);
    let refused = async |api: &Api| {
        for answer in
            [post(api, &captured_post, &body).await, get(api, COMMANDS, &captured_get).await]
        {
            assert_eq!(
                (answer.status, answer.code()),
                (StatusCode::UNAUTHORIZED, "NONCE_REPLAYED"),
                "{answer:?}"
            );
            assert_eq!(fields(&answer), ["header:X-Api-Nonce"]);
        }
    };
    refused(&app.api).await;
    refused(&app.as_if_killed().await.api).await;
    refused(&app.restart().await.api).await;
}

#[tokio::test]
async fn of_simultaneous_copies_of_one_signed_request_one_is_taken() {
    let app = TestApp::start().await;
    let body = good_body();
    let headers = app.api.fresh_headers("POST", COMMANDS, body.as_bytes());
    let answers =
        futures_util::future::join_all((0..30).map(|_| post(&app.api, &headers, &body))).await;
    let taken = answers.iter().filter(|answer| answer.status == StatusCode::ACCEPTED).count();
    let refused = answers.iter().filter(|answer| answer.code() == "NONCE_REPLAYED").count();
    assert_eq!((taken, refused), (1, 29));
    let headers = app.api.fresh_headers("GET", COMMANDS, b"");
    let answers =
        futures_util::future::join_all((0..30).map(|_| get(&app.api, COMMANDS, &headers))).await;
    assert_eq!(answers.iter().filter(|answer| answer.status == StatusCode::OK).count(), 1);
}

#[tokio::test]
async fn a_wrong_signature_spends_no_nonce_and_a_right_one_always_does() {
    let app = TestApp::start().await;
    let reader = app.credential(|one| one.permissions = Role::Viewer.permissions()).await;
    let good = good_body();
    let headers = app.api.fresh_headers("POST", COMMANDS, good.as_bytes());
    let mut spoilt = headers.clone();
    spoil(&mut spoilt);
    assert_eq!(post(&app.api, &spoilt, &good).await.code(), "SIGNATURE_INVALID");
    assert_eq!(post(&app.api, &headers, &good).await.status, StatusCode::ACCEPTED, "still unspent");

    let ghost = format!("{COMMANDS}/{}", Uuid::new_v4());
    let dry = good.replace("\"payload\":{}", "\"payload\":{},\"dry_run\":true");
    let cases = [
        (&app.api, "POST", COMMANDS, "not json", "INVALID_REQUEST_BODY"),
        (&app.api, "POST", COMMANDS, "{}", "VALIDATION_FAILED"),
        (&app.api, "POST", COMMANDS, &dry, ""),
        (&reader, "POST", COMMANDS, &good, "PERMISSION_DENIED"),
        (&app.api, "GET", ghost.as_str(), "", "COMMAND_NOT_FOUND"),
        (&app.api, "GET", "/api/v1/open/downlink/commands?colour=red", "", "VALIDATION_FAILED"),
        (&app.api, "GET", "/api/v1/open/catalog/dji/methods/nothing", "", "UNSUPPORTED_COMMAND"),
    ];
    for (api, method, target, body, code) in cases {
        let headers = api.fresh_headers(method, target, body.as_bytes());
        let send = async || match method {
            "POST" => post(api, &headers, body).await,
            _ => get(api, target, &headers).await,
        };
        assert_eq!(send().await.code(), code, "{method} {target} {body}");
        assert_eq!(send().await.code(), "NONCE_REPLAYED", "{method} {target} {body}");
    }
    // Another credential's nonces are its own.
    let headers = reader.headers("GET", COMMANDS, b"", "the-same", unix_seconds());
    assert_eq!(get(&reader, COMMANDS, &headers).await.status, StatusCode::OK);
    let headers = app.api.headers("GET", COMMANDS, b"", "the-same", unix_seconds());
    assert_eq!(get(&app.api, COMMANDS, &headers).await.status, StatusCode::OK);
}

#[tokio::test]
async fn what_is_wrong_is_told_in_the_order_of_the_checks() {
    let app = TestApp::start().await;
    let reader = app.credential(|one| one.permissions = Role::Viewer.permissions()).await;
    let (bad, good) = ("{}", good_body());
    assert_eq!(
        app.api.request(Method::POST, COMMANDS, Some(good.as_bytes())).await.status,
        StatusCode::ACCEPTED
    );
    let spent = reader.fresh_headers("GET", COMMANDS, b"");
    assert_eq!(get(&reader, COMMANDS, &spent).await.status, StatusCode::OK);
    let spent = &spent[2].1;

    // Each request is wrong in two ways; the earlier check speaks.
    let mut headers = reader.headers("POST", COMMANDS, bad.as_bytes(), "x y", 1);
    assert_eq!(
        post(&reader, &headers, bad).await.code(),
        "UNAUTHORIZED",
        "headers before the timestamp"
    );
    headers = reader.headers("POST", COMMANDS, bad.as_bytes(), spent, 1);
    spoil(&mut headers);
    assert_eq!(
        post(&reader, &headers, bad).await.code(),
        "TIMESTAMP_EXPIRED",
        "timestamp before signature"
    );
    headers = reader.headers("POST", COMMANDS, bad.as_bytes(), spent, unix_seconds());
    spoil(&mut headers);
    assert_eq!(
        post(&reader, &headers, bad).await.code(),
        "SIGNATURE_INVALID",
        "signature before nonce"
    );
    headers = reader.headers("POST", COMMANDS, bad.as_bytes(), spent, unix_seconds());
    assert_eq!(
        post(&reader, &headers, bad).await.code(),
        "NONCE_REPLAYED",
        "nonce before permission"
    );
    headers = reader.fresh_headers("POST", COMMANDS, bad.as_bytes());
    let denied = post(&reader, &headers, bad).await;
    assert_eq!(
        (denied.status, denied.code()),
        (StatusCode::FORBIDDEN, "PERMISSION_DENIED"),
        "before the body"
    );
    assert!(denied.body["message"].as_str().unwrap().contains(Permission::CommandCreate.as_str()));
    let wrong_and_used = good.replace("debug_mode_open", "debug_mode_opn");
    let answer = app.api.request(Method::POST, COMMANDS, Some(wrong_and_used.as_bytes())).await;
    assert_eq!(answer.code(), "UNSUPPORTED_COMMAND", "body before idempotency");
}

#[tokio::test]
async fn a_credential_can_hold_two_secrets_and_one_of_them_for_a_while() {
    let app = TestApp::start().await;
    let secret = |text: &str, until: Option<i64>| CredentialSecret {
        secret: Secret::new(text.to_owned()),
        valid_until: until.map(|seconds| Timestamp::from_millis((unix_seconds() + seconds) * 1000)),
    };
    let secrets =
        |old_until| vec![secret("the new one", None), secret("the old one", Some(old_until))];
    let rotating = app.put_credential(|one| one.secrets = secrets(3_600)).await;
    let rotated = app.credential(|one| one.secrets.extend(secrets(-1))).await;
    let ask = async |api: &Api, text: &str| {
        let mut api = api.clone();
        api.given.key = Secret::new(text.to_owned()).signing_key();
        api.get(COMMANDS).await
    };
    assert_eq!(ask(&rotating, "the new one").await.status, StatusCode::OK);
    assert_eq!(ask(&rotating, "the old one").await.status, StatusCode::OK);
    assert_eq!(ask(&rotating, "another one").await.code(), "SIGNATURE_INVALID");
    assert_eq!(ask(&rotated, "the old one").await.code(), "SIGNATURE_INVALID");
}

#[tokio::test]
async fn a_credential_that_does_not_work_says_so_only_to_its_holder() {
    let app = TestApp::start().await;
    let past = Some(Timestamp::from_millis((unix_seconds() - 1) * 1000));
    let mut all = Vec::new();
    all.push(app.put_credential(|one| one.status = CredentialStatus::Disabled).await);
    all.push(app.put_credential(|one| one.status = CredentialStatus::Deleted).await);
    all.push(app.put_credential(|one| one.expires_at = past).await);
    all.push(
        app.put_credential(|one| one.ip_allow = vec![IpRange::parse("10.0.0.0/8").unwrap()]).await,
    );
    let here = vec![IpRange::parse("10.0.0.0/8").unwrap(), IpRange::parse("127.0.0.0/8").unwrap()];
    let allowed = app.credential(|one| one.ip_allow = here).await;
    assert_eq!(
        allowed.get(COMMANDS).await.status,
        StatusCode::OK,
        "from an address that is allowed"
    );
    for api in all {
        let refused = api.get(COMMANDS).await;
        assert_eq!(
            (refused.status, refused.code()),
            (StatusCode::UNAUTHORIZED, "UNAUTHORIZED"),
            "{refused:?}"
        );
        let mut wrong = api.fresh_headers("GET", COMMANDS, b"");
        spoil(&mut wrong);
        assert_eq!(get(&api, COMMANDS, &wrong).await.code(), "SIGNATURE_INVALID");
        let created = api.create("DOCK-1", "debug_mode_open", json!({}), json!({})).await;
        assert_eq!(created.status, StatusCode::UNAUTHORIZED);
    }
    assert_eq!(app.api.get(COMMANDS).await.body["items"], json!([]), "nothing was stored");
}

#[tokio::test]
async fn a_credential_limited_to_devices_finds_no_others_and_cannot_tell_that_they_exist() {
    let app = TestApp::start().await;
    let only = BTreeSet::from([DeviceSn::parse("DOCK-1").unwrap()]);
    let limited = app.credential(|one| one.devices = Some(only)).await;
    let own = limited.create("DOCK-1", "debug_mode_open", json!({}), json!({})).await.id();
    let others = app.api.create("DOCK-2", "debug_mode_open", json!({}), json!({})).await.id();
    let foreign = limited.create("DOCK-2", "debug_mode_open", json!({}), json!({})).await;
    let missing = limited.create("DOCK-3", "debug_mode_open", json!({}), json!({})).await;
    assert_eq!((foreign.status, foreign.code()), (StatusCode::NOT_FOUND, "DEVICE_NOT_FOUND"));
    let told = |answer: &Answer, sn: &str| {
        let mut body = answer.body.clone();
        body["request_id"] = Value::Null;
        body.to_string().replace(sn, "SN")
    };
    assert_eq!(told(&foreign, "DOCK-2"), told(&missing, "DOCK-3"));
    let listed = limited.get(COMMANDS).await;
    let ids: Vec<&Value> =
        listed.body["items"].as_array().unwrap().iter().map(|one| &one["command_id"]).collect();
    assert_eq!(ids, [&json!(own)]);
    assert_eq!(limited.get(&format!("{COMMANDS}?device_id=DOCK-2")).await.body["items"], json!([]));
    for target in [format!("{COMMANDS}/{others}"), format!("{COMMANDS}/{others}/timeline")] {
        assert_eq!(limited.get(&target).await.code(), "COMMAND_NOT_FOUND");
    }
    let cancel = limited.post(&format!("{COMMANDS}/{others}/cancel"), &Value::Null).await;
    assert_eq!(cancel.code(), "COMMAND_NOT_FOUND");
    assert_eq!(app.api.get(&format!("{COMMANDS}/{others}")).await.body["status"], "ACCEPTED");
}

#[tokio::test]
async fn a_query_is_signed_as_it_was_sent_in_whatever_order() {
    let app = TestApp::start().await;
    let good = format!("{COMMANDS}?status=ACCEPTED&limit=5&device_id=DOCK%2D1");
    assert_eq!(app.api.get(&good).await.status, StatusCode::OK);
    for query in
        ["tag=b&tag=a&tag=", "a%20b=1&a+b=2", "%C3%BC=1&%c3%bc=0", "flag&=x&&other=", "a-b=1&a=2"]
    {
        let answer = app.api.get(&format!("{COMMANDS}?{query}")).await;
        assert_eq!(
            answer.code(),
            "VALIDATION_FAILED",
            "let in, and then not known: {query}: {answer:?}"
        );
    }
    // What is signed is what is sent, not what it means.
    let mut signed = app.api.fresh_headers("GET", &format!("{COMMANDS}?device_id=DOCK-1"), b"");
    assert_eq!(
        get(&app.api, &format!("{COMMANDS}?device_id=DOCK%2D1"), &signed).await.code(),
        "SIGNATURE_INVALID"
    );
    signed = app.api.fresh_headers("GET", &format!("{COMMANDS}?limit=1"), b"");
    assert_eq!(
        get(&app.api, &format!("{COMMANDS}?limit=2"), &signed).await.code(),
        "SIGNATURE_INVALID"
    );
    signed = app.api.fresh_headers("POST", COMMANDS, b"");
    assert_eq!(
        post(&app.api, &signed, &good_body()).await.code(),
        "SIGNATURE_INVALID",
        "the body is signed"
    );
}

#[tokio::test]
async fn the_published_vectors_hold_for_the_server_itself() {
    let vectors: Value = serde_json::from_str(signing::VECTORS).unwrap();
    let vectors = vectors["vectors"].as_array().unwrap();
    assert!(vectors.len() >= 12);
    let keys: BTreeSet<&str> =
        vectors.iter().map(|vector| vector["key"].as_str().unwrap()).collect();
    let secrets = keys
        .iter()
        .map(|key| CredentialSecret { secret: Secret::new((*key).to_owned()), valid_until: None });
    let app = TestApp::start().await;
    let api = app
        .put_credential(|one| {
            one.api_id = ApiId::new(vectors[0]["api_id"].as_str().unwrap());
            one.secrets = secrets.collect();
            one.allowed_clock_skew = Duration::from_secs(1_000_000_000);
        })
        .await;
    app.credential(|_| {}).await;
    let mut fitted = 0;
    for vector in vectors {
        let text = |name: &str| vector[name].as_str().unwrap_or_default().to_owned();
        let query = vector["query"].as_str().map(|query| format!("?{query}")).unwrap_or_default();
        let target = format!("{}{query}", text("path"));
        let timestamp = vector["timestamp"].to_string();
        let send = async |signature: String| {
            let headers: Headers = [
                ("X-Api-Id", text("api_id")),
                ("X-Api-Timestamp", timestamp.clone()),
                ("X-Api-Nonce", text("nonce")),
                ("X-Api-Signature", signature),
            ];
            let mut wire = Wire::open(app.http).await;
            wire.send(&whole(&text("method"), &target, &headers, text("body").as_bytes())).await;
            wire.answer().await.unwrap()
        };
        let refused = send("0".repeat(64)).await;
        if ["NOT_FOUND", "METHOD_NOT_ALLOWED"].contains(&refused.code()) {
            continue;
        }
        fitted += 1;
        let right = send(text("signature")).await;
        let name = &vector["name"];
        // Whatever is said next (many vectors share a nonce), it comes after the signature in the order of checks.
        let before = ["UNAUTHORIZED", "TIMESTAMP_EXPIRED", "SIGNATURE_INVALID"];
        assert!(
            before.contains(&refused.code()) && !before.contains(&right.code()),
            "{name}: {right:?}"
        );
    }
    assert!(fitted >= 18, "only {fitted} vectors have a route here");
    drop(api);
}
