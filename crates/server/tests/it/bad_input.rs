//! What must be refused: with the documented code, every problem at once, nothing stored and nothing sent.

use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use crate::{
    app::{Answer, Api, COMMANDS, TestApp, with_headers},
    dock::PretendDock,
    routes::assert_refused,
    wire::{Wire, head},
};

/// A body that would be accepted, with `change` over it.
pub fn with(change: Value) -> Vec<u8> {
    let mut body = json!({
        "vendor": "dji", "device_id": "DOCK-1", "command_type": "battery_maintenance_switch",
        "payload": {"action": 1}, "idempotency_key": "bad-input",
    });
    for (name, value) in change.as_object().unwrap() {
        body[name] = value.clone();
    }
    body.to_string().into_bytes()
}

fn without(name: &str) -> Vec<u8> {
    let mut body: Value = serde_json::from_slice(&with(json!({}))).unwrap();
    body.as_object_mut().unwrap().remove(name);
    body.to_string().into_bytes()
}

pub fn with_raw(name: &str, raw: &str) -> Vec<u8> {
    let text = String::from_utf8(with(json!({name: "PLACE"}))).unwrap();
    text.replace("\"PLACE\"", raw).into_bytes()
}

/// Field and problem of every detail; long problems are cut.
fn details(answer: &Answer) -> Vec<(String, String)> {
    let details = answer.body["details"].as_array().map_or(&[][..], Vec::as_slice);
    let text = |detail: &Value, name: &str| detail[name].as_str().unwrap().to_owned();
    details.iter().map(|detail| (text(detail, "field"), text(detail, "problem"))).collect()
}

pub async fn assert_untouched(app: &TestApp, dock: &mut PretendDock, case: &str) {
    assert_nothing_came_of_it(&app.api, dock, case).await;
}

pub async fn assert_nothing_came_of_it(api: &Api, dock: &mut PretendDock, case: &str) {
    let listed = api.get(COMMANDS).await;
    assert_eq!(listed.body["items"], json!([]), "something was stored: {case}");
    assert!(dock.drain().await.is_empty(), "something was sent: {case}");
}

/// A name for the case, the body, and what is said of it: status, code, the field and words of its problem.
type Fault = (&'static str, Vec<u8>, u16, &'static str, &'static str, &'static str);

/// One value of one member that does not fit.
fn single_faults() -> Vec<Fault> {
    let long_key = "k".repeat(256);
    vec![
        (
            "unknown vendor",
            with(json!({"vendor": "parrot"})),
            400,
            "UNSUPPORTED_VENDOR",
            "/vendor",
            "must be dji",
        ),
        (
            "vendor in capitals",
            with(json!({"vendor": "DJI"})),
            400,
            "UNSUPPORTED_VENDOR",
            "/vendor",
            "must be dji",
        ),
        (
            "vendor of another type",
            with(json!({"vendor": 1})),
            400,
            "VALIDATION_FAILED",
            "/vendor",
            "must be a string",
        ),
        (
            "vendor null",
            with(json!({"vendor": null})),
            400,
            "VALIDATION_FAILED",
            "/vendor",
            "not null",
        ),
        ("no vendor", without("vendor"), 400, "VALIDATION_FAILED", "/vendor", "is required"),
        (
            "unknown method",
            with(json!({"command_type": "self_destruct"})),
            400,
            "UNSUPPORTED_COMMAND",
            "/command_type",
            "is not a method",
        ),
        (
            "misspelt method",
            with(json!({"command_type": "battery_maintenance_swich"})),
            400,
            "UNSUPPORTED_COMMAND",
            "/command_type",
            "did you mean battery_maintenance_switch?",
        ),
        (
            "no method",
            without("command_type"),
            400,
            "VALIDATION_FAILED",
            "/command_type",
            "is required",
        ),
        (
            "method of another type",
            with(json!({"command_type": ["cover_open"]})),
            400,
            "VALIDATION_FAILED",
            "/command_type",
            "not an array",
        ),
        ("no payload", without("payload"), 400, "VALIDATION_FAILED", "/payload", "is required"),
        (
            "payload null",
            with(json!({"payload": null})),
            400,
            "VALIDATION_FAILED",
            "/payload",
            "must be an object",
        ),
        (
            "payload text",
            with(json!({"payload": "{}"})),
            400,
            "VALIDATION_FAILED",
            "/payload",
            "must be an object",
        ),
        (
            "payload list",
            with(json!({"payload": []})),
            400,
            "VALIDATION_FAILED",
            "/payload",
            "must be an object",
        ),
        (
            "field missing",
            with(json!({"payload": {}})),
            400,
            "VALIDATION_FAILED",
            "/payload/action",
            "is required",
        ),
        (
            "field of another type",
            with(json!({"payload": {"action": {}}})),
            400,
            "VALIDATION_FAILED",
            "/payload/action",
            "must be",
        ),
        (
            "field outside its choices",
            with(json!({"payload": {"action": 7}})),
            400,
            "VALIDATION_FAILED",
            "/payload/action",
            "must be one of",
        ),
        (
            "huge number",
            with_raw("payload", "{\"action\":123456789012345678901234567890}"),
            400,
            "VALIDATION_FAILED",
            "/payload/action",
            "must be one of",
        ),
        ("no device", without("device_id"), 400, "VALIDATION_FAILED", "/device_id", "is required"),
        (
            "device of another type",
            with(json!({"device_id": 7})),
            400,
            "VALIDATION_FAILED",
            "/device_id",
            "not a number",
        ),
        (
            "unknown device",
            with(json!({"device_id": "DOCK-77"})),
            404,
            "DEVICE_NOT_FOUND",
            "/device_id",
            "is not a device of this tenant",
        ),
        (
            "another tenant's device",
            with(json!({"device_id": "DOCK-9"})),
            404,
            "DEVICE_NOT_FOUND",
            "/device_id",
            "is not a device of this tenant",
        ),
        (
            "device with a topic wildcard",
            with(json!({"device_id": "+"})),
            400,
            "VALIDATION_FAILED",
            "/device_id",
            "a serial number is",
        ),
        (
            "device with a slash",
            with(json!({"device_id": "DOCK-1/x"})),
            400,
            "VALIDATION_FAILED",
            "/device_id",
            "a serial number is",
        ),
        (
            "device with NUL",
            with(json!({"device_id": "DOCK-1\u{0}"})),
            400,
            "VALIDATION_FAILED",
            "/device_id",
            "a serial number is",
        ),
        (
            "no key",
            without("idempotency_key"),
            400,
            "VALIDATION_FAILED",
            "/idempotency_key",
            "is required",
        ),
        (
            "empty key",
            with(json!({"idempotency_key": ""})),
            400,
            "VALIDATION_FAILED",
            "/idempotency_key",
            "1 to 255",
        ),
        (
            "long key",
            with(json!({"idempotency_key": long_key})),
            400,
            "VALIDATION_FAILED",
            "/idempotency_key",
            "1 to 255",
        ),
        (
            "key with NUL",
            with(json!({"idempotency_key": "a\u{0}b"})),
            400,
            "VALIDATION_FAILED",
            "/idempotency_key",
            "control",
        ),
        (
            "key of another type",
            with(json!({"idempotency_key": 5})),
            400,
            "VALIDATION_FAILED",
            "/idempotency_key",
            "must be a string",
        ),
        (
            "negative timeout",
            with(json!({"timeout_seconds": -1})),
            400,
            "VALIDATION_FAILED",
            "/timeout_seconds",
            "from 0",
        ),
        (
            "timeout too long",
            with(json!({"timeout_seconds": 301})),
            400,
            "VALIDATION_FAILED",
            "/timeout_seconds",
            "to 300",
        ),
        (
            "timeout with a fraction",
            with(json!({"timeout_seconds": 1.5})),
            400,
            "VALIDATION_FAILED",
            "/timeout_seconds",
            "whole",
        ),
        (
            "timeout as text",
            with(json!({"timeout_seconds": "5"})),
            400,
            "VALIDATION_FAILED",
            "/timeout_seconds",
            "whole",
        ),
        (
            "timeout true",
            with(json!({"timeout_seconds": true})),
            400,
            "VALIDATION_FAILED",
            "/timeout_seconds",
            "whole",
        ),
        (
            "huge timeout",
            with_raw("timeout_seconds", "1e300"),
            400,
            "VALIDATION_FAILED",
            "/timeout_seconds",
            "whole",
        ),
        (
            "if_offline",
            with(json!({"if_offline": "later"})),
            400,
            "VALIDATION_FAILED",
            "/if_offline",
            "must be wait or fail",
        ),
        (
            "complete_on",
            with(json!({"complete_on": 1})),
            400,
            "VALIDATION_FAILED",
            "/complete_on",
            "must be outcome or reply",
        ),
        (
            "dry_run",
            with(json!({"dry_run": "yes"})),
            400,
            "VALIDATION_FAILED",
            "/dry_run",
            "must be true or false",
        ),
        (
            "dry_run 1",
            with(json!({"dry_run": 1})),
            400,
            "VALIDATION_FAILED",
            "/dry_run",
            "must be true or false",
        ),
        (
            "unknown member",
            with(json!({"timeout": 5})),
            400,
            "VALIDATION_FAILED",
            "/timeout",
            "is not a member",
        ),
        (
            "member with a slash",
            with(json!({"a/b~c": 5})),
            400,
            "VALIDATION_FAILED",
            "/a~1b~0c",
            "is not a member",
        ),
    ]
}

#[tokio::test]
async fn a_value_that_does_not_fit_is_named_with_its_place() {
    let app = TestApp::start().await;
    app.other_tenant("second", "DOCK-9").await;
    let mut dock = app.dock("DOCK-1").await;
    for (case, body, status, code, field, problem) in single_faults() {
        let answer = app.api.request(Method::POST, COMMANDS, Some(&body)).await;
        assert_refused(&answer, status, code);
        let found = details(&answer);
        assert!(
            found.len() == 1 && found[0].0 == field && found[0].1.contains(problem),
            "{case}: {answer:?}"
        );
        assert_untouched(&app, &mut dock, case).await;
    }
    let good = app.api.request(Method::POST, COMMANDS, Some(&with(json!({})))).await;
    assert_eq!(good.status, StatusCode::ACCEPTED, "and with nothing wrong it is taken: {good:?}");
    let edges = json!({"timeout_seconds": 300.0, "idempotency_key": "ü".repeat(255), "dry_run": null, "if_offline": null});
    let good = app.api.request(Method::POST, COMMANDS, Some(&with(edges))).await;
    assert_eq!(good.status, StatusCode::ACCEPTED, "{good:?}");
}

#[tokio::test]
async fn a_body_that_is_no_json_object_is_refused_whole() {
    let app = TestApp::start().await;
    let mut dock = app.dock("DOCK-1").await;
    let good = with(json!({}));
    let deep = |open: &str, close: &str| {
        let nested = [open.repeat(10_000), "1".to_owned(), close.repeat(10_000)].concat();
        with_raw("payload", &nested)
    };
    let mut bad_utf8 = good.clone();
    bad_utf8[12] = 0xff;
    let mut cases: Vec<(&str, Vec<u8>)> = vec![
        ("empty", Vec::new()),
        ("white space", b" \r\n\t".to_vec()),
        ("list", b"[]".to_vec()),
        ("text", b"\"dji\"".to_vec()),
        ("null", b"null".to_vec()),
        ("truncated", good[..good.len() - 1].to_vec()),
        ("two objects", [good.clone(), good.clone()].concat()),
        ("trailing comma", b"{\"vendor\":\"dji\",}".to_vec()),
        ("comment", b"{/* hello */}".to_vec()),
        ("NaN", with_raw("timeout_seconds", "NaN")),
        ("number beyond all bounds", with_raw("timeout_seconds", "1e999")),
        ("lone surrogate", with_raw("idempotency_key", "\"\\ud800\"")),
        ("bare NUL", with_raw("idempotency_key", "\"\u{0}\"")),
        ("bad UTF-8", bad_utf8),
        ("byte order mark", [b"\xef\xbb\xbf".to_vec(), good.clone()].concat()),
        ("UTF-16", "{}".encode_utf16().flat_map(u16::to_le_bytes).collect()),
        ("lists 10,000 deep", deep("[", "]")),
        ("objects 10,000 deep", deep("{\"a\":", "}")),
        ("opened 10,000 times and never closed", b"[".repeat(10_000)),
        ("form", b"vendor=dji".to_vec()),
        ("a member twice", with_raw("device_id", "\"DOCK-1\",\"device_id\":\"DOCK-2\"")),
    ];
    cases.extend((0..good.len()).step_by(17).map(|end| ("cut", good[..end].to_vec())));
    for (case, body) in cases {
        let answer = app.api.request(Method::POST, COMMANDS, Some(&body)).await;
        assert_refused(&answer, 400, "INVALID_REQUEST_BODY");
        assert_untouched(&app, &mut dock, case).await;
    }
    // Deep, but still JSON that is read: the payload says so itself.
    let nested = format!("{{\"action\":1,\"more\":{}1{}}}", "[".repeat(60), "]".repeat(60));
    let answer = app.api.request(Method::POST, COMMANDS, Some(&with_raw("payload", &nested))).await;
    assert_refused(&answer, 400, "VALIDATION_FAILED");
    assert!(details(&answer)[0].1.contains("nested deeper"), "{answer:?}");
    assert_untouched(&app, &mut dock, "deep").await;
}

#[tokio::test]
async fn several_problems_are_all_named_at_once() {
    let app = TestApp::start().await;
    app.other_tenant("second", "DOCK-9").await;
    let mut dock = app.dock("DOCK-1").await;
    let points: Vec<Value> =
        (0..3).map(|_| json!({"latitude": 91, "longitude": "x", "height": 1})).collect();
    let body = json!({
        "vendor": "dji", "device_id": "DOCK-9", "command_type": "fly_to_point", "colour": "red",
        "payload": {"max_speed": 5000, "fly_to_id": 7, "points": points},
        "idempotency_key": "", "timeout_seconds": 1000, "if_offline": "x", "complete_on": "x", "dry_run": 3,
    });
    let answer = app.api.post(COMMANDS, &body).await;
    assert_refused(&answer, 400, "VALIDATION_FAILED");
    let found = details(&answer);
    let has =
        |field: &str| assert!(found.iter().any(|(name, _)| name == field), "{field}: {answer:#?}");
    for field in
        ["/colour", "/device_id", "/payload/max_speed", "/payload/fly_to_id", "/idempotency_key"]
    {
        has(field);
    }
    for field in [
        "/timeout_seconds",
        "/if_offline",
        "/complete_on",
        "/dry_run",
        "/payload/points/0/latitude",
        "/payload/points/0/longitude",
    ] {
        has(field);
    }
    let all = app
        .api
        .post(
            COMMANDS,
            &json!({"vendor": "x", "command_type": "x", "payload": 1, "device_id": "/"}),
        )
        .await;
    assert_refused(&all, 400, "UNSUPPORTED_VENDOR");
    assert_eq!(details(&all).len(), 5, "{all:?}");

    // However much is wrong, the answer stays small.
    let many: String = (0..50_000).map(|n| format!(",\"m{n}\":0")).collect();
    let flood = with_raw("vendor", &format!("\"dji\"{many}"));
    let answer = app.api.request(Method::POST, COMMANDS, Some(&flood)).await;
    assert_refused(&answer, 400, "VALIDATION_FAILED");
    assert!(answer.body.to_string().len() < 64 * 1024, "{}", answer.body.to_string().len());
    for long in [
        json!({"vendor": "x".repeat(900_000)}),
        json!({"dry_run": vec![0; 300_000]}),
        json!({"x".repeat(900_000): 1}),
    ] {
        let answer = app.api.request(Method::POST, COMMANDS, Some(&with(long))).await;
        assert!(answer.body.to_string().len() < 4_096, "{}", answer.body.to_string().len());
    }
    assert_untouched(&app, &mut dock, "several").await;
}

#[tokio::test]
async fn queries_name_every_parameter_that_does_not_fit() {
    let app = TestApp::start().await;
    let id = app.api.create("DOCK-1", "debug_mode_open", json!({}), json!({})).await.id();
    let one = format!("{COMMANDS}/{id}");
    let unmatched = "/api/v1/open/unmatched-responses".to_owned();
    let list = COMMANDS.to_owned();
    for (path, query, fields) in [
        (&list, "limit=0", &["query:limit"][..]),
        (&list, "limit=501&status=DONE", &["query:status", "query:limit"]),
        (&list, "limit=-1&cursor=x&colour=red", &["query:colour", "query:limit", "query:cursor"]),
        (&list, "limit=5&limit=5", &["query:limit"]),
        (
            &list,
            "accepted_after=yesterday&accepted_before=1",
            &["query:accepted_after", "query:accepted_before"],
        ),
        (&list, "device_id=a/b", &["query:device_id"]),
        (&list, "status=", &["query:status"]),
        (&one, "wait=0", &["query:wait"]),
        (&one, "wait=61&after_version=-1", &["query:wait", "query:after_version"]),
        (&one, "wait=1.5", &["query:wait"]),
        (&one, "after=1", &["query:after"]),
        (&unmatched, "limit=1e2&cursor=%00", &["query:limit", "query:cursor"]),
    ] {
        let answer = app.api.get(&format!("{path}?{query}")).await;
        assert_refused(&answer, 400, "VALIDATION_FAILED");
        let found: Vec<String> = details(&answer).into_iter().map(|(field, _)| field).collect();
        assert_eq!(found, fields, "{query}");
    }
}

#[tokio::test]
async fn only_one_body_of_json_is_taken() {
    let app = TestApp::start().await;
    let mut dock = app.dock("DOCK-1").await;
    let body = with(json!({}));
    for kinds in [
        &[][..],
        &["text/plain"],
        &["application/x-www-form-urlencoded"],
        &["application/json; charset=latin1"],
        &["application/json", "application/json"],
    ] {
        let request = with_headers(
            app.api.bare(Method::POST, COMMANDS),
            &app.api.fresh_headers("POST", COMMANDS, &body),
        );
        let request =
            kinds.iter().fold(request, |request, kind| request.header("Content-Type", *kind));
        let answer = Api::answer(request.body(body.clone())).await;
        assert_refused(&answer, 415, "UNSUPPORTED_MEDIA_TYPE");
        assert_eq!(details(&answer)[0].0, "header:Content-Type");
        assert_untouched(&app, &mut dock, &format!("{kinds:?}")).await;
    }
    // Two lengths, or a length and chunks, are two ways to read one request: neither is taken.
    let signed = head("POST", COMMANDS, &app.api.fresh_headers("POST", COMMANDS, &body));
    let text = String::from_utf8(body).unwrap();
    let length = text.len();
    for framing in [
        format!("Content-Length: {length}\r\nContent-Length: 5\r\n\r\n{text}"),
        format!("Content-Length: -1\r\n\r\n{text}"),
        format!("Content-Length: {length}\r\nTransfer-Encoding: gzip\r\n\r\n{text}"),
    ] {
        let mut wire = Wire::open(app.http).await;
        wire.send(format!("{signed}Content-Type: application/json\r\n{framing}").as_bytes()).await;
        let answer = wire.answer().await;
        assert!(answer.is_none_or(|answer| !answer.status.is_success()), "{framing}");
        assert_untouched(&app, &mut dock, &framing).await;
    }
}
