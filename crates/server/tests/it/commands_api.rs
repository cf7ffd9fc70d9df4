//! Commands as callers see them: dry runs, lists, waits, masked secrets, the catalogue, repeated requests.

use futures_util::future::join_all;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use std::sync::Arc;

use utmos_core::{
    command::{Command, Phase, Spec, Status},
    evidence::{Entry, Proof},
    id::{CommandId, DeviceSn},
    method::CompleteOn,
    ports::{Accepted, CommandStore, NewCommand},
};
use uuid::Uuid;

use crate::app::{COMMANDS, TestApp};

fn ids(page: &Value) -> Vec<String> {
    let items = page["items"].as_array().unwrap();
    items.iter().map(|item| item["command_id"].as_str().unwrap().to_owned()).collect()
}

fn drc_mode() -> Value {
    json!({
        "mqtt_broker": {
            "address": "mqtt.example.com:8883", "client_id": "c", "username": "u", "password": "hush-password",
            "expire_time": 1_900_000_000, "enable_tls": true,
        },
        "hsi_frequency": 1, "osd_frequency": 10,
    })
}

fn upload() -> Value {
    json!({
        "bucket": "b", "region": "r", "endpoint": "https://s3.example.com", "provider": "aws",
        "credentials": {
            "access_key_id": "hush-id", "access_key_secret": "hush-secret", "expire": 3600,
            "security_token": "hush-token",
        },
        "params": {"files": [{"list": [{"boot_index": 1}], "module": "0", "object_key": "logs/1"}]},
    })
}

#[tokio::test]
async fn a_dry_run_shows_what_would_be_sent_and_stores_and_sends_nothing() {
    let app = TestApp::start().await;
    let dry = json!({"dry_run": true});
    let absent = app.api.create("DOCK-1", "flighttask_recovery", json!({}), dry.clone()).await;
    assert_eq!(absent.status, StatusCode::OK, "{absent:?}");
    let shown = |name: &str| absent.body[name].clone();
    assert_eq!((shown("dry_run"), shown("gateway_online")), (json!(true), json!(false)));
    assert_eq!((shown("risk_class"), shown("if_offline")), (json!("motion"), json!("fail")));
    let mut dock = app.dock("DOCK-1").await;
    let renamed = app
        .api
        .create("DOCK-1", "custom_data_transmission_to_psdk", json!({"data": "x"}), dry.clone())
        .await;
    assert_eq!(renamed.body["payload"], json!({"value": "x"}), "{renamed:?}");
    assert!(
        renamed.body["hints"][0].as_str().unwrap().starts_with("/payload/data is sent as /value"),
        "{renamed:?}"
    );
    assert_eq!(renamed.body["gateway_online"], true);
    assert_eq!(
        (&renamed.body["if_offline"], &renamed.body["complete_on"]),
        (&json!("wait"), &json!("outcome"))
    );
    let timeout = json!({"dry_run": true, "timeout_seconds": 0});
    let default = app.api.create("DOCK-1", "debug_mode_open", json!({}), timeout).await;
    assert!(
        default.body["timeout_seconds"].as_u64().is_some_and(|seconds| seconds > 0),
        "{default:?}"
    );
    let secret = app.api.create("DOCK-1", "drc_mode_enter", drc_mode(), dry.clone()).await;
    assert_eq!(secret.body["payload"]["mqtt_broker"]["password"], "***", "{secret:?}");
    assert!(!secret.body.to_string().contains("hush"));
    let refused = app.api.create("DOCK-1", "drc_mode_enter", json!({}), dry).await;
    assert_eq!(refused.code(), "VALIDATION_FAILED", "every check is run");
    assert!(ids(&app.api.get(COMMANDS).await.body).is_empty());
    assert!(dock.drain().await.is_empty());
}

#[tokio::test]
async fn a_dry_run_foresees_a_used_key_and_a_movement_in_the_way() {
    let app = TestApp::start().await;
    let _dock = app.dock("DOCK-1").await;
    let fly = json!({"fly_to_id": "f-1", "max_speed": 5, "points": [{"latitude": 1.0, "longitude": 2.0, "height": 60.0}]});
    let real = json!({"idempotency_key": "k-1"});
    let dry = json!({"idempotency_key": "k-1", "dry_run": true});
    let first = app.api.create("DOCK-1", "fly_to_point", fly.clone(), dry.clone()).await;
    assert_eq!((first.status, &first.body["replays"]), (StatusCode::OK, &Value::Null), "{first:?}");
    let made = app.api.create("DOCK-1", "fly_to_point", fly.clone(), real).await.id();
    let same = app.api.create("DOCK-1", "fly_to_point", fly.clone(), dry.clone()).await;
    assert_eq!((same.status, &same.body["replays"]), (StatusCode::OK, &json!(made)));
    let spelt = json!({"idempotency_key": "k-2", "dry_run": false});
    let spelt = app.api.create("DOCK-2", "debug_mode_open", json!({}), spelt).await.id();
    let again = json!({"idempotency_key": "k-2", "dry_run": true});
    let again = app.api.create("DOCK-2", "debug_mode_open", json!({}), again).await;
    assert_eq!((again.status, &again.body["replays"]), (StatusCode::OK, &json!(spelt)));
    let other = app.api.create("DOCK-1", "debug_mode_open", json!({}), dry).await;
    assert_eq!((other.status, other.code()), (StatusCode::CONFLICT, "IDEMPOTENCY_CONFLICT"));
    let busy = app.api.create("DOCK-1", "fly_to_point", fly, json!({"dry_run": true})).await;
    assert_eq!((busy.status, busy.code()), (StatusCode::CONFLICT, "DEVICE_BUSY"));
    assert_eq!(ids(&app.api.get(COMMANDS).await.body), [spelt, made]);
}

#[tokio::test]
async fn a_full_lane_refuses_what_is_new_and_knows_what_it_has() {
    let app = TestApp::start_with(&["commands.waiting_per_gateway_max=1"]).await;
    let key = json!({"idempotency_key": "k-1"});
    let first = app.api.create("DOCK-1", "debug_mode_open", json!({}), key.clone()).await;
    let full = app.api.create("DOCK-1", "debug_mode_open", json!({}), json!({})).await;
    assert_eq!((full.status, full.code()), (StatusCode::SERVICE_UNAVAILABLE, "OVERLOADED"));
    let again = app.api.create("DOCK-1", "debug_mode_open", json!({}), key.clone()).await;
    assert_eq!((again.status, again.id()), (StatusCode::OK, first.id()));
    let other = app.api.create("DOCK-1", "debug_mode_close", json!({}), key).await;
    assert_eq!((other.status, other.code()), (StatusCode::CONFLICT, "IDEMPOTENCY_CONFLICT"));
}

#[tokio::test]
async fn secrets_of_a_payload_go_to_the_device_and_are_shown_nowhere() {
    let app = TestApp::start().await;
    let mut dock = app.dock("DOCK-1").await;
    for (method, payload) in [("drc_mode_enter", drc_mode()), ("fileupload_start", upload())] {
        let created = app.api.create("DOCK-1", method, payload.clone(), json!({})).await;
        let id = created.id();
        let command = dock.command().await;
        assert_eq!(command.body["data"], payload, "the device gets them");
        // A device that repeats what it was given.
        dock.reply(
            &command,
            json!({"result": 0, "output": {"status": "in_progress", "echo": payload}}),
        )
        .await;
        let read = app.api.until(&id, |command| !command["response_code"].is_null()).await;
        assert_eq!(read["vendor_response"]["result"], 0);
        dock.event("fileupload_progress", &command.body["bid"], json!({
            "result": 0, "output": {"status": "ok", "progress": {"percent": 100}, "ext": {"echo": payload}},
        }), 0).await;
        dock.drain().await;
        let one = format!("{COMMANDS}/{id}");
        for target in
            [one.clone(), format!("{one}/timeline"), COMMANDS.to_owned(), format!("{one}?wait=1")]
        {
            let answer = app.api.get(&target).await;
            assert_eq!(answer.status, StatusCode::OK, "{answer:?}");
            let text = answer.body.to_string();
            assert!(!text.contains("hush") && text.contains("***"), "{target}: {text}");
        }
    }
    let fields = json!({"payload": {"mqtt_broker": {"password": ["hush"], "address": 5}}});
    let refused = app.api.create("DOCK-1", "drc_mode_enter", json!({}), fields).await;
    assert!(
        !refused.body.to_string().contains("hush"),
        "a refusal names a secret's field, not the secret: {refused:?}"
    );
}

#[tokio::test]
async fn lists_are_filtered_cut_into_pages_and_end() {
    let app = TestApp::start().await;
    let other = app.other_tenant("second", "DOCK-9").await;
    let foreign = other.create("DOCK-9", "debug_mode_open", json!({}), json!({})).await.id();
    let mut made = Vec::new();
    for n in 0..7 {
        let (device, method) =
            if n < 4 { ("DOCK-1", "debug_mode_open") } else { ("DOCK-2", "debug_mode_close") };
        made.push(app.api.create(device, method, json!({}), json!({})).await.id());
    }
    made.reverse();
    let cancel = format!("{COMMANDS}/{}/cancel", made[0]);
    assert_eq!(app.api.post(&cancel, &Value::Null).await.status, StatusCode::OK);
    let list = async |query: &str| app.api.get(&format!("{COMMANDS}?{query}")).await.body;
    assert_eq!(ids(&list("").await), made, "newest first");
    assert_eq!(ids(&list("device_id=DOCK-2").await), made[..3]);
    assert_eq!(ids(&list("command_type=debug_mode_open").await), made[3..]);
    assert_eq!(ids(&list("status=FAILED").await), made[..1]);
    assert_eq!(ids(&list("status=ACCEPTED&device_id=DOCK-2").await), made[1..3]);
    assert!(ids(&list("status=SUCCEEDED").await).is_empty());
    assert!(ids(&list("device_id=DOCK-9").await).is_empty(), "another tenant's");
    let at = app.api.get(&format!("{COMMANDS}/{}", made[3])).await.body["accepted_at"]
        .as_str()
        .unwrap()
        .to_owned();
    let (after, before) =
        (list(&format!("accepted_after={at}")).await, list(&format!("accepted_before={at}")).await);
    assert!(ids(&after).contains(&made[3]) && !ids(&before).contains(&made[3]));
    assert_eq!(ids(&after).len() + ids(&before).len(), 7);

    for limit in [1, 2, 3, 7, 500] {
        let (mut seen, mut cursor) = (Vec::new(), String::new());
        loop {
            let page = list(&format!("limit={limit}{cursor}")).await;
            assert!(!ids(&page).is_empty(), "no page is empty when there was something before it");
            seen.extend(ids(&page));
            let Some(next) = page["next_cursor"].as_str() else { break };
            cursor = format!("&cursor={next}");
        }
        assert_eq!(seen, made, "limit {limit}");
    }
    // Another tenant's id as a cursor shows nothing of it.
    assert!(!ids(&list(&format!("cursor={foreign}")).await).contains(&foreign));
    assert_eq!(ids(&other.get(COMMANDS).await.body), [foreign]);
}

/// More than a page looks at.
const MANY: usize = 1_300;
/// Of these are on their way at once.
const AT_ONCE: usize = 20;

#[tokio::test]
async fn few_among_many_are_found_where_short_pages_say_to_go_on() {
    let unlimited = &["limits.credential_per_second=0", "limits.tenant_per_second=0"];
    let app = TestApp::start_with(unlimited).await;
    let cancelled = async |method: &str| {
        let id = app.api.create("DOCK-1", method, json!({}), json!({})).await.id();
        let cancel = format!("{COMMANDS}/{id}/cancel");
        assert_eq!(app.api.post(&cancel, &Value::Null).await.status, StatusCode::OK);
        id
    };
    let mut rare = vec![cancelled("debug_mode_open").await, cancelled("debug_mode_open").await];
    for _ in 0..MANY / AT_ONCE {
        join_all((0..AT_ONCE).map(|_| cancelled("debug_mode_close"))).await;
    }
    rare.reverse();
    let (mut pages, mut cursor) = (Vec::new(), String::new());
    loop {
        let query = format!("{COMMANDS}?command_type=debug_mode_open{cursor}");
        let page = app.api.get(&query).await.body;
        pages.push(ids(&page));
        let Some(next) = page["next_cursor"].as_str() else { break };
        cursor = format!("&cursor={next}");
    }
    assert_eq!(pages.first(), Some(&Vec::new()), "the first page looks at none of them");
    assert_eq!(pages.concat(), rare);
}

#[tokio::test]
async fn a_wait_ends_with_the_first_version_that_is_news() {
    let app = TestApp::start().await;
    let id = app.api.create("DOCK-1", "debug_mode_open", json!({}), json!({})).await.id();
    let target = format!("{COMMANDS}/{id}");
    let now = app.api.get(&target).await.body;
    let version = now["status_version"].as_u64().unwrap();
    // Already past: at once. A version that will never come: unchanged, at the end of the wait.
    assert_eq!(
        app.api.get(&format!("{target}?wait=60&after_version={}", version - 1)).await.body,
        now
    );
    let unchanged = app.api.get(&format!("{target}?wait=1&after_version={version}")).await;
    assert_eq!((unchanged.status, &unchanged.body), (StatusCode::OK, &now));
    assert_eq!(app.api.get(&format!("{target}?wait=1")).await.body, now, "it has not ended");
    assert_eq!(
        app.api.get(&format!("{target}?after_version=99")).await.body,
        now,
        "without a wait there is none"
    );
    // On a change: as soon as there is one.
    let waiting = format!("{target}?wait=60&after_version={version}");
    let to_the_end = format!("{target}?wait=60");
    let (changed, ended, ()) =
        tokio::join!(app.api.get(&waiting), app.api.get(&to_the_end), async {
            let mut dock = app.dock("DOCK-1").await;
            let command = dock.command().await;
            dock.reply(&command, json!({"result": 0})).await;
        });
    assert!(changed.body["status_version"].as_u64().unwrap() > version);
    assert_eq!(ended.body["status"], "SUCCEEDED");
    let again = app.api.get(&format!("{target}?wait=60&after_version=99")).await;
    assert_eq!(again.body, ended.body, "nothing is waited for that has ended");
    let nobody = app.api.get(&format!("{COMMANDS}/{}?wait=60", uuid::Uuid::new_v4())).await;
    assert_eq!(nobody.code(), "COMMAND_NOT_FOUND");
}

#[tokio::test]
async fn a_repeated_request_finds_its_command_as_it_stands_today() {
    let app = TestApp::start().await;
    let mut dock = app.dock("DOCK-1").await;
    let body = r#"{"vendor":"dji","device_id":"DOCK-1","command_type":"battery_maintenance_switch","payload":{"action":1},"idempotency_key":"k"}"#;
    let same = r#" {"idempotency_key":"k","payload":{"action":1.0},"command_type":"battery_maintenance_switch","device_id":"DOCK\u002d1","vendor":"dji"}"#;
    let send =
        async |text: &str| app.api.request(Method::POST, COMMANDS, Some(text.as_bytes())).await;
    let first = send(body).await;
    assert_eq!(first.status, StatusCode::ACCEPTED);
    assert!(!first.headers.contains_key("idempotency-replayed"));
    let command = dock.command().await;
    dock.reply(&command, json!({"result": 0})).await;
    app.api.ended(&first.id()).await;
    for text in [body, same] {
        let again = send(text).await;
        assert_eq!(
            (again.status, &again.headers["idempotency-replayed"]),
            (StatusCode::OK, &"true".parse().unwrap())
        );
        assert_eq!(
            (again.id(), &again.body["accepted_at"]),
            (first.id(), &first.body["accepted_at"])
        );
        assert_eq!(again.body["status"], "SUCCEEDED", "today's");
        assert_ne!(again.body["request_id"], first.body["request_id"]);
    }
    for other in ["\"timeout_seconds\":30,", "\"if_offline\":\"wait\",", "\"dry_run\":false,"] {
        let conflict = send(&body.replacen('{', &format!("{{{other}"), 1)).await;
        assert_eq!(
            (conflict.status, conflict.code()),
            (StatusCode::CONFLICT, "IDEMPOTENCY_CONFLICT"),
            "{other}"
        );
        assert_eq!(
            conflict.body["details"][0]["given"],
            first.id(),
            "it names the command of that time"
        );
    }
    // Another tenant's keys are its own, and no key stands in the way of an abort.
    let other = app.other_tenant("second", "DOCK-9").await;
    let own =
        other.create("DOCK-9", "debug_mode_open", json!({}), json!({"idempotency_key": "k"})).await;
    assert_eq!(own.status, StatusCode::ACCEPTED);
    let fly = json!({"fly_to_id": "f", "max_speed": 5, "points": [{"latitude": 1.0, "longitude": 2.0, "height": 60.0}]});
    let flying = app.api.create("DOCK-1", "fly_to_point", fly, json!({})).await.id();
    let key = json!({"idempotency_key": format!("cancel:{flying}")});
    app.api.create("DOCK-1", "debug_mode_open", json!({}), key).await.id();
    let command = dock.command().await;
    dock.reply(&command, json!({"result": 0})).await;
    app.api.until(&flying, |command| command["status"] == "DELIVERED").await;
    let cancel = format!("{COMMANDS}/{flying}/cancel");
    let (one, two) =
        (app.api.post(&cancel, &Value::Null).await, app.api.post(&cancel, &Value::Null).await);
    assert_eq!((one.status, two.status), (StatusCode::OK, StatusCode::OK), "{one:?}");
    assert_eq!(
        one.body["abort_command_id"], two.body["abort_command_id"],
        "one abort however often it is asked for"
    );
}

#[tokio::test]
async fn a_repeated_request_finds_its_command_also_when_it_would_be_refused_today() {
    let app = TestApp::start().await;
    let mut dock = app.dock("DOCK-1").await;
    dock.report_aircraft("DRONE-1").await;
    let key = json!({"idempotency_key": "k-1"});
    let dry = json!({"idempotency_key": "k-1", "dry_run": true});
    let create = async |more: &Value| {
        app.api.create("DRONE-1", "flighttask_recovery", json!({}), more.clone()).await
    };
    let first = create(&key).await;
    assert_eq!(first.status, StatusCode::ACCEPTED, "{first:?}");
    assert_eq!(dock.command().await.tid(), first.id());
    // From here on no one gateway leads to the aircraft.
    let mut other = app.dock("DOCK-2").await;
    other.report_aircraft("DRONE-1").await;
    let refused = create(&json!({"idempotency_key": "k-2"})).await;
    assert_eq!((refused.status, refused.code()), (StatusCode::BAD_REQUEST, "VALIDATION_FAILED"));
    let again = create(&key).await;
    assert_eq!((again.status, again.id()), (StatusCode::OK, first.id()), "{again:?}");
    assert_eq!(again.headers["idempotency-replayed"], "true");
    assert_eq!(again.body["accepted_at"], first.body["accepted_at"]);
    let foreseen = create(&dry).await;
    assert_eq!((foreseen.status, &foreseen.body["replays"]), (StatusCode::OK, &json!(first.id())));
    assert_eq!(
        (&foreseen.body["gateway_id"], &foreseen.body["command_type"]),
        (&json!("DOCK-1"), &json!("flighttask_recovery")),
        "as it went out then"
    );
    // Another body is refused for what is wrong with it, and others learn nothing of the key.
    let body = json!({"idempotency_key": "k-1", "timeout_seconds": 9});
    assert_eq!(create(&body).await.code(), "VALIDATION_FAILED");
    let narrow =
        app.credential(|one| one.devices = Some([DeviceSn::parse("DOCK-2").unwrap()].into())).await;
    let hidden = narrow.create("DRONE-1", "flighttask_recovery", json!({}), key.clone()).await;
    assert_eq!(hidden.code(), "DEVICE_NOT_FOUND", "{hidden:?}");
    let foreign = app.other_tenant("second", "DOCK-9").await;
    let theirs = foreign.create("DRONE-1", "flighttask_recovery", json!({}), key).await;
    assert_eq!(theirs.code(), "DEVICE_NOT_FOUND", "{theirs:?}");
    assert!(dock.drain().await.is_empty() && other.drain().await.is_empty());
}

#[tokio::test]
async fn the_caller_chooses_what_succeeded_waits_for_and_what_an_absent_gateway_means() {
    let app = TestApp::start().await;
    let simple = app.credential(|one| one.complete_on = CompleteOn::Reply).await;
    let mut dock = app.dock("DOCK-1").await;
    for (api, more, status) in [
        (&app.api, json!({"complete_on": "reply"}), "SUCCEEDED"),
        (&simple, json!({}), "SUCCEEDED"),
        (&simple, json!({"complete_on": "outcome"}), "DELIVERED"),
        (&app.api, json!({}), "DELIVERED"),
    ] {
        let id = api.create("DOCK-1", "cover_open", json!({}), more.clone()).await.id();
        let command = dock.command().await;
        dock.reply(&command, json!({"result": 0, "output": {"status": "in_progress"}})).await;
        let read = api.until(&id, |command| !command["response_code"].is_null()).await;
        assert_eq!(read["status"], status, "{more}");
        let end = json!({"result": 0, "output": {"status": "ok", "progress": {"percent": 100}}});
        dock.event("cover_open", &command.body["bid"], end, 0).await;
        let read = api.until(&id, |command| command["execution"]["percent"] == 100).await;
        assert_eq!(read["status"], "SUCCEEDED", "and execution goes on being updated");
    }
    // DOCK-2 is away: the class decides, unless the caller does.
    for (method, more, status) in [
        ("debug_mode_open", json!({}), "ACCEPTED"),
        ("debug_mode_open", json!({"if_offline": "fail"}), "FAILED"),
        ("flighttask_recovery", json!({}), "FAILED"),
        ("flighttask_recovery", json!({"if_offline": "wait"}), "ACCEPTED"),
    ] {
        let created = app.api.create("DOCK-2", method, json!({}), more.clone()).await;
        assert_eq!(
            (created.status, &created.body["status"]),
            (StatusCode::ACCEPTED, &json!("ACCEPTED"))
        );
        let read = if status == "FAILED" {
            app.api.ended(&created.id()).await
        } else {
            app.api.get(&format!("{COMMANDS}/{}", created.id())).await.body
        };
        assert_eq!(read["status"], status, "{method} {more}");
        assert_eq!(read["failure_code"] == "DEVICE_OFFLINE", status == "FAILED", "{read:#}");
    }
}

#[tokio::test]
async fn the_catalogue_tells_everything_about_the_83_documented_methods() {
    let app = TestApp::start().await;
    let list = app.api.get("/api/v1/open/catalog/dji/methods").await.body;
    let methods = list["items"].as_array().unwrap();
    assert_eq!(methods.iter().filter(|one| !one["domain"].is_null()).count(), 83);
    let api = &app.api;
    let answers = methods.iter().map(|method| async move {
        let name = method["method"].as_str().unwrap().to_owned();
        (method, api.get(&format!("/api/v1/open/catalog/dji/methods/{name}")).await)
    });
    for (method, answer) in futures_util::future::join_all(answers).await {
        assert_eq!(answer.status, StatusCode::OK, "{answer:?}");
        let detail = answer.body;
        for (name, value) in method.as_object().unwrap() {
            assert_eq!(&detail[name], value, "the list and the method say the same");
        }
        let (payload, reply) = (&detail["payload_schema"], &detail["reply_schema"]);
        let schema = jsonschema::validator_for(payload).unwrap();
        assert!(schema.is_valid(&detail["example"]), "{method}");
        assert!(
            jsonschema::validator_for(reply).unwrap().is_valid(&json!({"result": 0})),
            "{method}"
        );
        assert!(
            detail["default_timeout_seconds"].as_u64().is_some_and(|seconds| seconds > 0),
            "{method}"
        );
    }
    // What the catalogue shows as an example is taken.
    let detail = app.api.get("/api/v1/open/catalog/dji/methods/fly_to_point").await.body;
    let dry = app
        .api
        .create("DOCK-1", "fly_to_point", detail["example"].clone(), json!({"dry_run": true}))
        .await;
    assert_eq!(dry.body["payload"], detail["example"], "{dry:?}");
}

/// Puts a changed copy of a command on record, beside the driver. Answers with its id.
async fn put_copy(
    app: &TestApp,
    id: &str,
    change: impl FnOnce(&mut Command),
    proof: Proof,
) -> String {
    let mut copy = app.store.command(id.parse().unwrap()).await.unwrap().unwrap();
    let fresh = CommandId::new(Uuid::new_v4());
    let key = Uuid::new_v4().to_string();
    copy.spec = Arc::new(Spec { id: fresh, idempotency_key: key, ..(*copy.spec).clone() });
    change(&mut copy);
    let entry =
        Entry { at: copy.spec.accepted_at, from: Status::Accepted, to: Status::Accepted, proof };
    let Command { spec, life } = copy;
    let new = NewCommand { spec, life, entries: vec![entry] };
    assert_eq!(app.store.accept(None, new).await.unwrap(), Accepted::New);
    fresh.to_string()
}

#[tokio::test]
async fn what_a_device_says_of_a_secret_is_masked_and_of_an_unknown_method_hidden() {
    let app = TestApp::start().await;
    let mut dock = app.dock("DOCK-1").await;
    let id = app.api.create("DOCK-1", "drc_mode_enter", drc_mode(), json!({})).await.id();
    let command = dock.command().await;
    let said = "cannot log in with hush-password";
    let data = json!({"result": 514_100, "message": said, "output": {"tried": [said]}});
    dock.reply(&command, data.clone()).await;
    let read = app.api.ended(&id).await;
    assert_eq!(read["response_message"], "cannot log in with ***");
    assert_eq!(read["vendor_response"]["output"]["tried"], json!(["cannot log in with ***"]));
    assert!(read["failure_reason"].as_str().unwrap().contains("***"), "{read:#}");
    assert_eq!((&read["response_code"], &read["status"]), (&json!("514100"), &json!("FAILED")));

    let reply = Proof::Reply {
        gateway: "DOCK-1".to_owned(),
        method: None,
        code: Some("514100".to_owned()),
        data,
        late_response: false,
        duplicate: false,
        mismatch: None,
    };
    let gone = |copy: &mut Command| {
        copy.spec = Arc::new(Spec { method: "left".to_owned(), ..(*copy.spec).clone() });
    };
    let left = put_copy(&app, &id, gone, reply).await;
    for id in [&id, &left] {
        for target in [format!("{COMMANDS}/{id}"), format!("{COMMANDS}/{id}/timeline")] {
            let text = app.api.get(&target).await.body.to_string();
            assert!(!text.contains("hush") && text.contains("514100"), "{target}: {text}");
        }
    }
    let read = app.api.get(&format!("{COMMANDS}/{left}")).await.body;
    for name in ["payload", "vendor_response", "response_message", "failure_reason"] {
        let text = read[name].as_str().unwrap();
        assert!(text.starts_with("hidden: this method is no longer"), "{name}: {read:#}");
    }
}

#[tokio::test]
async fn nothing_is_sent_to_stop_what_is_being_sent_right_now() {
    let app = TestApp::start().await;
    let mut dock = app.dock("DOCK-1").await;
    let fly = json!({"fly_to_id": "f", "max_speed": 5, "points": [{"latitude": 1.0, "longitude": 2.0, "height": 60.0}]});
    let flying = app.api.create("DOCK-1", "fly_to_point", fly, json!({})).await.id();
    dock.command().await;
    app.api.until(&flying, |command| command["status"] == "DELIVERED").await;
    let proof = Proof::SendingClaimed { replica: "another".to_owned() };
    let to_sending = |copy: &mut Command| {
        let life = Arc::make_mut(&mut copy.life);
        life.phase = Phase::Sending;
        // The one it is a copy of is flying.
        life.holds_motion = false;
        copy.spec = Arc::new(Spec { starts_motion: false, ..(*copy.spec).clone() });
    };
    let sending = put_copy(&app, &flying, to_sending, proof).await;
    let refused = app.api.post(&format!("{COMMANDS}/{sending}/cancel"), &Value::Null).await;
    assert_eq!((refused.status, refused.code()), (StatusCode::CONFLICT, "COMMAND_NOT_CANCELLABLE"));
    let message = refused.body["message"].as_str().unwrap();
    assert!(message.contains("being sent right now; try again in a moment"), "{message}");
    assert!(dock.drain().await.is_empty());
    // What was delivered, or may have been in a sending that is over, is stopped at the device.
    let proof = Proof::SendUnclear { reason: "the link was lost".to_owned() };
    let unclear = put_copy(&app, &flying, to_sending, proof).await;
    for id in [flying, unclear] {
        let stopped = app.api.post(&format!("{COMMANDS}/{id}/cancel"), &Value::Null).await;
        assert_eq!(stopped.status, StatusCode::OK, "{stopped:?}");
        let stop = dock.command().await;
        assert_eq!(stop.method(), "fly_to_point_stop");
        assert_eq!(stopped.body["abort_command_id"], stop.tid());
    }
}
