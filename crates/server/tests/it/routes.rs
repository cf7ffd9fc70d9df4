//! Every route the OpenAPI document names, against everybody who may come; and the one envelope of every refusal.

use std::collections::BTreeMap;

use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use utmos_core::credential::{Permission, Role};
use uuid::Uuid;

use crate::{
    app::{Answer, Api, COMMANDS, TestApp, with_headers},
    requests::{ask, until_listed},
    wire::{Wire, head},
};

/// What a route is expected to do. `{command_id}` stands for a command of the first tenant.
struct Route {
    method: &'static str,
    path: &'static str,
    permission: Option<Permission>,
    ok: u16,
    foreign: Foreign,
}

/// What somebody of another tenant gets.
#[derive(Clone, Copy)]
enum Foreign {
    /// A refusal that reads as if the object were not there.
    Refused(&'static str),
    /// The same of what is another's to give.
    Conflict(&'static str),
    /// A list without it.
    Nothing,
    /// A list of the other's own, without it.
    Others,
    /// The same: it is nobody's.
    Same,
}

const READ: Option<Permission> = Some(Permission::CommandRead);
const CREATE: Option<Permission> = Some(Permission::CommandCreate);
const TELEMETRY: Option<Permission> = Some(Permission::TelemetryRead);
const NO_DEVICE: Foreign = Foreign::Refused("DEVICE_NOT_FOUND");
const READ_REQUESTS: Option<Permission> = Some(Permission::DeviceRequestRead);
const ANSWER_REQUESTS: Option<Permission> = Some(Permission::DeviceRequestCreate);
const NO_REQUEST: Foreign = Foreign::Refused("DEVICE_REQUEST_NOT_FOUND");
const RULE: &str = "/api/v1/open/device-request-rules/{request_type}";
const EVENTS: Option<Permission> = Some(Permission::EventRead);
const NO_COMMAND: Foreign = Foreign::Refused("COMMAND_NOT_FOUND");

const READ_DEVICES: Option<Permission> = Some(Permission::DeviceRead);
const UPDATE_DEVICES: Option<Permission> = Some(Permission::DeviceUpdate);
const DEVICES: &str = "/api/v1/open/devices";
const CODES: &str = "/api/v1/open/device-binding-codes";

const ROUTES: &[Route] = &[
    route(
        "POST",
        "/api/v1/open/downlink/commands",
        CREATE,
        202,
        Foreign::Refused("DEVICE_NOT_FOUND"),
    ),
    route("GET", "/api/v1/open/downlink/commands", READ, 200, Foreign::Nothing),
    route("GET", "/api/v1/open/downlink/commands/{command_id}", READ, 200, NO_COMMAND),
    route("GET", "/api/v1/open/downlink/commands/{command_id}/timeline", READ, 200, NO_COMMAND),
    route("POST", "/api/v1/open/downlink/commands/{command_id}/cancel", CREATE, 200, NO_COMMAND),
    route("GET", "/api/v1/open/catalog/dji/methods", READ, 200, Foreign::Same),
    route("GET", "/api/v1/open/catalog/dji/methods/{method}", READ, 200, Foreign::Same),
    route("GET", "/api/v1/open/unmatched-responses", READ, 200, Foreign::Nothing),
    route("GET", "/api/v1/open/devices/{device_id}/telemetry", TELEMETRY, 200, NO_DEVICE),
    route("GET", "/api/v1/open/devices/{device_id}/telemetry/history", TELEMETRY, 200, NO_DEVICE),
    route("GET", "/api/v1/open/devices/{device_id}/telemetry/track", TELEMETRY, 200, NO_DEVICE),
    route("GET", "/api/v1/open/device-requests", READ_REQUESTS, 200, Foreign::Nothing),
    route("GET", "/api/v1/open/device-requests/{request_id}", READ_REQUESTS, 200, NO_REQUEST),
    route(
        "POST",
        "/api/v1/open/device-requests/{request_id}/reply",
        ANSWER_REQUESTS,
        202,
        NO_REQUEST,
    ),
    route("GET", "/api/v1/open/device-request-rules", READ_REQUESTS, 200, Foreign::Same),
    route("GET", RULE, READ_REQUESTS, 200, Foreign::Same),
    route("PUT", RULE, ANSWER_REQUESTS, 200, Foreign::Same),
    route("DELETE", RULE, ANSWER_REQUESTS, 200, Foreign::Same),
    route("GET", "/api/v1/open/devices/{device_id}/events", EVENTS, 200, NO_DEVICE),
    route("GET", "/api/v1/open/devices/{device_id}/alarms", EVENTS, 200, NO_DEVICE),
    route("GET", "/api/v1/open/alarms", EVENTS, 200, Foreign::Nothing),
    route("GET", DEVICES, READ_DEVICES, 200, Foreign::Others),
    route(
        "POST",
        DEVICES,
        Some(Permission::DeviceCreate),
        200,
        Foreign::Conflict("DEVICE_CONFLICT"),
    ),
    route("GET", "/api/v1/open/devices/{device_id}", READ_DEVICES, 200, NO_DEVICE),
    route("PATCH", "/api/v1/open/devices/{device_id}", UPDATE_DEVICES, 200, NO_DEVICE),
    route("POST", "/api/v1/open/devices/{device_id}/mqtt-password", UPDATE_DEVICES, 200, NO_DEVICE),
    route("GET", CODES, READ_DEVICES, 200, Foreign::Nothing),
    route(
        "DELETE",
        "/api/v1/open/device-binding-codes/{binding_code_id}",
        Some(Permission::DeviceCreate),
        200,
        Foreign::Refused("BINDING_CODE_NOT_FOUND"),
    ),
    route("POST", CODES, Some(Permission::DeviceCreate), 201, Foreign::Same),
    route("GET", "/healthz", None, 200, Foreign::Same),
    route("GET", "/readyz", None, 200, Foreign::Same),
    route("GET", "/metrics", None, 200, Foreign::Same),
];

const fn route(
    method: &'static str,
    path: &'static str,
    permission: Option<Permission>,
    ok: u16,
    foreign: Foreign,
) -> Route {
    Route { method, path, permission, ok, foreign }
}

impl Route {
    fn target(&self, command: &str, request: &str, code: &str) -> String {
        self.path
            .replace("{command_id}", command)
            .replace("{method}", "cover_open")
            .replace("{device_id}", "DOCK-2")
            .replace("{request_id}", request)
            .replace("{binding_code_id}", code)
            .replace("{request_type}", "config")
    }

    fn body(&self) -> Option<String> {
        match (self.method, self.path) {
            ("POST", DEVICES) => {
                return Some(json!({"device_id": "DOCK-1", "kind": "dock"}).to_string());
            }
            ("POST", CODES) => return Some("{}".to_owned()),
            ("PATCH", _) => return Some(json!({"label": "Roof"}).to_string()),
            _ => {}
        }
        let body = json!({
            "vendor": "dji", "device_id": "DOCK-1", "command_type": "debug_mode_open", "payload": {},
            "idempotency_key": Uuid::new_v4().to_string(),
        });
        let body = match self.path {
            RULE => json!({"mode": "auto"}),
            path if path.ends_with("/reply") => json!({"reply_code": "0"}),
            _ => body,
        };
        ["POST", "PUT"].contains(&self.method).then(|| body.to_string())
    }

    fn content_type(&self) -> &'static str {
        if self.path.ends_with("/track") { "application/geo+json" } else { "application/json" }
    }

    async fn ask(&self, api: &Api, target: &str) -> Answer {
        let body = self.body();
        let method = self.method.parse().unwrap();
        api.request(method, target, body.as_deref().map(str::as_bytes)).await
    }
}

/// Every operation of the document by method and path.
fn documented() -> BTreeMap<(String, String), Value> {
    let document = serde_json::to_value(utmos_server::http::openapi()).unwrap();
    let paths = document["paths"].as_object().unwrap().clone();
    let mut all = BTreeMap::new();
    for (path, item) in paths {
        for (method, operation) in item.as_object().unwrap() {
            all.insert((method.to_uppercase(), path.clone()), operation.clone());
        }
    }
    all
}

/// The one envelope, whole and telling the same thing everywhere.
pub fn assert_refused(answer: &Answer, status: u16, code: &str) {
    let (body, headers) = (&answer.body, &answer.headers);
    assert_eq!((answer.status.as_u16(), answer.code()), (status, code), "{answer:?}");
    assert_eq!(headers["content-type"], "application/problem+json", "{answer:?}");
    assert_eq!(body["status"], status, "{answer:?}");
    assert_eq!(body["request_id"], headers["x-request-id"].to_str().unwrap(), "{answer:?}");
    assert_eq!(body["type"], format!("/docs/errors#{code}"), "{answer:?}");
    for name in ["title", "message", "request_id"] {
        assert!(body[name].as_str().is_some_and(|text| !text.is_empty()), "{name}: {answer:?}");
    }
    let details = body.get("details").map_or(&[][..], |details| details.as_array().unwrap());
    for detail in details {
        assert!(detail["field"].is_string() && detail["problem"].is_string(), "{answer:?}");
    }
    assert_eq!(
        (&headers["cache-control"], &headers["x-content-type-options"]),
        (&"no-store".parse().unwrap(), &"nosniff".parse().unwrap())
    );
}

#[test]
fn the_table_holds_every_documented_route_and_its_permission() {
    let documented = documented();
    let expected: BTreeMap<_, _> = ROUTES
        .iter()
        .map(|one| {
            ((one.method.to_owned(), one.path.to_owned()), one.permission.map(Permission::as_str))
        })
        .collect();
    let found: BTreeMap<_, _> = documented
        .iter()
        .map(|(key, operation)| (key.clone(), operation["x-permission"].as_str()))
        .collect();
    assert_eq!(found, expected);
    for (key, operation) in &documented {
        assert_eq!(operation["security"].is_array(), expected[key].is_some(), "{key:?}");
    }
}

#[tokio::test]
async fn every_route_lets_in_whom_it_should_and_nobody_else() {
    let app = TestApp::start().await;
    let foreign = app.other_tenant("second", "DOCK-9").await;
    let without = |permission: Permission| {
        let rest =
            Role::TenantAdmin.permissions().into_iter().filter(move |one| *one != permission);
        rest.collect::<std::collections::BTreeSet<_>>()
    };
    let mut without_each = BTreeMap::new();
    for permission in ROUTES.iter().filter_map(|route| route.permission) {
        let api = app.put_credential(|one| one.permissions = without(permission)).await;
        without_each.insert(permission, api);
    }
    // It knows all that were put before one it knows.
    app.credential(|_| {}).await;
    let dock = app.dock("DOCK-1").await;
    for (number, route) in ROUTES.iter().enumerate() {
        let name = format!("{} {}", route.method, route.path);
        let command = app.api.create("DOCK-2", "debug_mode_open", json!({}), json!({})).await.id();
        // Of one gateway's requests only so many a second are put on record.
        let mut request = String::new();
        if route.path.contains("{request_id}") {
            let asked = format!("?request_type=something_{number}");
            ask(&dock, &number.to_string(), &format!("something_{number}"), json!({})).await;
            let listed = until_listed(&app.api, &asked, 1).await;
            listed[0]["request_id"].as_str().unwrap().clone_into(&mut request);
        }
        let request = request.as_str();
        let code =
            app.api.post(CODES, &json!({})).await.body["binding_code"]["binding_code_id"].clone();
        let target = route.target(&command, request, code.as_str().unwrap());
        let bare = Api::answer(app.api.bare(route.method.parse().unwrap(), &target)).await;
        let Some(permission) = route.permission else {
            assert_eq!(bare.status.as_u16(), route.ok, "{name}: {bare:?}");
            continue;
        };
        assert_refused(&bare, 401, "UNAUTHORIZED");

        let denied = route.ask(&without_each[&permission], &target).await;
        assert_refused(&denied, 403, "PERMISSION_DENIED");
        assert!(
            denied.body["details"][0]["problem"].as_str().unwrap().contains(permission.as_str())
        );

        let answer = route.ask(&foreign, &target).await;
        match route.foreign {
            Foreign::Refused(code) => assert_refused(&answer, 404, code),
            Foreign::Conflict(code) => assert_refused(&answer, 409, code),
            Foreign::Others => {
                let text = answer.body.to_string();
                assert!(!text.contains("DOCK-1") && text.contains("DOCK-9"), "{name}: {answer:?}");
            }
            Foreign::Nothing => assert_eq!(answer.body["items"], json!([]), "{name}: {answer:?}"),
            Foreign::Same => assert_eq!(answer.status.as_u16(), route.ok, "{name}: {answer:?}"),
        }

        let answer = route.ask(&app.api, &target).await;
        assert_eq!(answer.status.as_u16(), route.ok, "{name}: {answer:?}");
        assert_eq!(answer.headers["content-type"], route.content_type(), "{name}");
        assert_eq!(answer.headers["cache-control"], "no-store", "{name}");
        assert!(answer.headers.contains_key("x-request-id"), "{name}");
    }
}

#[tokio::test]
async fn a_path_that_takes_another_method_says_which_and_head_is_a_get_without_a_body() {
    let app = TestApp::start().await;
    let command = app.api.create("DOCK-1", "debug_mode_open", json!({}), json!({})).await.id();
    for route in ROUTES {
        let target = route.target(&command, &command, &command);
        let is_taken = |method: &&str| {
            ROUTES.iter().any(|other| other.path == route.path && other.method == *method)
        };
        let others = ["DELETE", "PUT", "PATCH", "OPTIONS", "TRACE", "BREW"];
        for method in others.into_iter().filter(|method| !is_taken(method)) {
            let answer = Api::answer(app.api.bare(method.parse().unwrap(), &target)).await;
            assert_refused(&answer, 405, "METHOD_NOT_ALLOWED");
            let allow = answer.headers["allow"].to_str().unwrap();
            assert!(allow.split(',').any(|one| one == route.method), "{target}: {allow}");
        }
        if route.method == "GET" {
            let whole = route.ask(&app.api, &target).await;
            let head = app.api.request(Method::HEAD, &target, None).await;
            assert_eq!((head.status, &head.body), (whole.status, &json!("")), "{target}");
            assert_eq!(head.headers["content-type"], whole.headers["content-type"], "{target}");
        }
    }
    let head = Api::answer(app.api.bare(Method::HEAD, COMMANDS)).await;
    assert_eq!(head.status, StatusCode::UNAUTHORIZED, "a HEAD is signed like every other request");
}

#[tokio::test]
async fn what_the_framework_refuses_reads_like_everything_else() {
    let app = TestApp::start().await;
    let unsigned = |method: Method, target: &str| Api::answer(app.api.bare(method, target));
    for target in [
        "/",
        "/api",
        "/api/v1/open/downlink",
        "/api/v1/open/downlink/commands/",
        "/docs/../etc",
        "/%FF",
        "/a\u{e9}",
    ] {
        assert_refused(&unsigned(Method::GET, target).await, 404, "NOT_FOUND");
    }
    let long = format!("/{}", "x".repeat(20_000));
    let answer = unsigned(Method::GET, &long).await;
    assert_refused(&answer, 404, "NOT_FOUND");
    assert!(answer.body.to_string().len() < 2_000, "an answer does not grow with its request");

    // A path that is not UTF-8 names nothing, which only those who may ask are told.
    for (target, status, code) in [
        ("/api/v1/open/downlink/commands/%FF", 404, "COMMAND_NOT_FOUND"),
        ("/api/v1/open/downlink/commands/%FF/timeline", 404, "COMMAND_NOT_FOUND"),
        ("/api/v1/open/downlink/commands/a%2Fb", 404, "COMMAND_NOT_FOUND"),
        ("/api/v1/open/downlink/commands/not-a-uuid", 404, "COMMAND_NOT_FOUND"),
        ("/api/v1/open/downlink/commands/%00", 404, "COMMAND_NOT_FOUND"),
        ("/api/v1/open/catalog/dji/methods/%FF", 400, "UNSUPPORTED_COMMAND"),
        ("/api/v1/open/catalog/dji/methods/cover_opne", 400, "UNSUPPORTED_COMMAND"),
    ] {
        assert_refused(&unsigned(Method::GET, target).await, 401, "UNAUTHORIZED");
        assert_refused(&app.api.get(target).await, status, code);
    }
    let answer = app.api.get("/api/v1/open/catalog/dji/methods/cover_opne").await;
    assert!(
        answer.body["message"].as_str().unwrap().contains("did you mean cover_open?"),
        "{answer:?}"
    );
    // A request in the form proxies use.
    let mut wire = Wire::open(app.http).await;
    let text = format!("GET http://{}/api/v1/nothing HTTP/1.1\r\nHost: x\r\n\r\n", app.http);
    wire.send(text.as_bytes()).await;
    assert_refused(&wire.answer().await.unwrap(), 404, "NOT_FOUND");
}

#[tokio::test]
async fn a_request_id_is_echoed_when_it_can_be_and_replaced_when_not() {
    let app = TestApp::start().await;
    let ask = async |ids: &[&str]| {
        let mut headers = app.api.fresh_headers("GET", COMMANDS, b"").to_vec();
        headers.extend(ids.iter().map(|id| ("X-Request-Id", (*id).to_owned())));
        let answer = Api::answer(with_headers(app.api.bare(Method::GET, COMMANDS), &headers)).await;
        answer.headers["x-request-id"].to_str().unwrap().to_owned()
    };
    assert_eq!(ask(&["order-66/~{}"]).await, "order-66/~{}");
    let longest = "x".repeat(128);
    assert_eq!(ask(&[&longest]).await, longest);
    let too_long = "x".repeat(129);
    for bad in [&[][..], &[""], &["two words"], &[&too_long], &["one", "two"]] {
        let id = ask(bad).await;
        assert!(Uuid::parse_str(&id).is_ok(), "{bad:?}: {id}");
    }
    // It is on record with the command, as the one who asked knows it.
    let body = json!({
        "vendor": "dji", "device_id": "DOCK-1", "command_type": "debug_mode_open", "payload": {}, "idempotency_key": "k",
    });
    let mut headers = app.api.fresh_headers("POST", COMMANDS, body.to_string().as_bytes()).to_vec();
    headers.push(("X-Request-Id", "mine".to_owned()));
    headers.push(("Content-Type", "application/json".to_owned()));
    let request =
        with_headers(app.api.bare(Method::POST, COMMANDS), &headers).body(body.to_string());
    let created = Api::answer(request).await;
    assert_eq!(created.body["request_id"], "mine");
    let read = app.api.get(&format!("{COMMANDS}/{}", created.id())).await;
    assert_eq!(read.body["request_id"], "mine");
    let mut wire = Wire::open(app.http).await;
    let text = head("GET", "/nothing", &[("X-Request-Id", "raw".to_owned())]);
    wire.send(format!("{text}\r\n").as_bytes()).await;
    assert_eq!(wire.answer().await.unwrap().body["request_id"], "raw");
}
