//! A command's way out and back.

use reqwest::StatusCode;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::app::{COMMANDS, TestApp};

#[tokio::test]
async fn a_command_flies_to_its_dock_and_comes_back_true() {
    let app = TestApp::start().await;
    let mut dock = app.dock("DOCK-1").await;
    let created = app.api.create("DOCK-1", "debug_mode_open", json!({}), json!({})).await;
    assert_eq!(created.status, StatusCode::ACCEPTED, "{created:?}");
    assert_eq!(created.body["status"], "ACCEPTED");
    let command = dock.command().await;
    assert_eq!((command.tid(), command.method()), (created.id().as_str(), "debug_mode_open"));
    assert_eq!(command.body["data"], json!({}));
    dock.reply(&command, json!({"result": 0, "output": {"status": "ok"}})).await;
    let ended = app.api.ended(&created.id()).await;
    assert_eq!(ended["status"], "SUCCEEDED", "{ended:#}");
    assert_eq!((&ended["response_code"], &ended["gateway_id"]), (&json!("0"), &json!("DOCK-1")));
    assert_eq!(ended["vendor_response"], json!({"result": 0, "output": {"status": "ok"}}));
    let causes = app.api.causes(&created.id()).await;
    assert!(causes.starts_with(&["accepted".into(), "sending_claimed".into()]), "{causes:?}");
    assert!(
        causes.contains(&"reply".into()) && causes.contains(&"broker_confirmed".into()),
        "{causes:?}"
    );
    assert!(dock.drain().await.is_empty(), "sent once");
}

#[tokio::test]
async fn a_refusal_of_the_device_reads_as_failed_with_its_code_and_meaning() {
    let app = TestApp::start().await;
    let mut dock = app.dock("DOCK-1").await;
    let id = app.api.create("DOCK-1", "return_home", json!({}), json!({})).await.id();
    let command = dock.command().await;
    dock.reply(&command, json!({"result": 314000})).await;
    let ended = app.api.ended(&id).await;
    assert_eq!(
        (&ended["status"], &ended["failure_code"]),
        (&json!("FAILED"), &json!("DEVICE_EXECUTION_FAILED"))
    );
    assert_eq!(ended["response_code"], "314000");
    assert!(ended["response_message"].as_str().is_some_and(|text| !text.is_empty()), "{ended:#}");
}

#[tokio::test]
async fn a_job_stays_delivered_until_its_progress_says_how_it_ended() {
    let app = TestApp::start().await;
    let mut dock = app.dock("DOCK-1").await;
    let id = app.api.create("DOCK-1", "cover_open", json!({}), json!({})).await.id();
    let command = dock.command().await;
    dock.reply(&command, json!({"result": 0, "output": {"status": "in_progress"}})).await;
    let started = app.api.until(&id, |command| command["execution"]["state"] == "started").await;
    assert_eq!((&started["status"], &started["response_code"]), (&json!("DELIVERED"), &json!("0")));
    let progress = |status: &str, percent: u8| json!({"result": 0, "output": {"status": status, "progress": {"percent": percent, "step_key": "open_cover"}}});
    dock.event("cover_open", &command.body["bid"], progress("in_progress", 40), 0).await;
    let running = app.api.until(&id, |command| command["execution"]["percent"] == 40).await;
    assert_eq!(
        (&running["status"], &running["execution"]["step"]),
        (&json!("DELIVERED"), &json!("open_cover"))
    );
    dock.event("cover_open", &command.body["bid"], progress("ok", 100), 1).await;
    let answered = dock.message("/events_reply").await;
    assert_eq!(
        answered.body["data"],
        json!({"result": 0}),
        "a message that needs a reply gets one"
    );
    assert_eq!(app.api.ended(&id).await["status"], "SUCCEEDED");
}

#[tokio::test]
async fn one_hundred_copies_of_a_request_make_one_command() {
    let app = TestApp::start().await;
    let mut dock = app.dock("DOCK-1").await;
    let key = Uuid::new_v4().to_string();
    let copies = (0..100).map(|_| {
        app.api.create("DOCK-1", "debug_mode_open", json!({}), json!({"idempotency_key": key}))
    });
    let answers = futures_util::future::join_all(copies).await;
    let (new, old): (Vec<_>, Vec<_>) =
        answers.iter().partition(|answer| answer.status == StatusCode::ACCEPTED);
    assert_eq!((new.len(), old.len()), (1, 99));
    assert!(old.iter().all(|answer| answer.status == StatusCode::OK));
    assert!(old.iter().all(|answer| answer.headers["idempotency-replayed"] == "true"));
    let facts = |answer: &crate::app::Answer| {
        (answer.body["command_id"].clone(), answer.body["accepted_at"].clone())
    };
    assert!(answers.iter().all(|answer| facts(answer) == facts(&answers[0])));
    dock.command().await;
    assert!(dock.drain().await.is_empty(), "one message for a hundred requests");
    let other = app
        .api
        .create("DOCK-1", "debug_mode_close", json!({}), json!({"idempotency_key": key}))
        .await;
    assert_eq!((other.status, other.code()), (StatusCode::CONFLICT, "IDEMPOTENCY_CONFLICT"));
}

#[tokio::test]
async fn an_absent_dock_fails_a_motion_at_once_and_lets_the_rest_wait() {
    let app = TestApp::start().await;
    let motion = app.api.create("DOCK-1", "flighttask_recovery", json!({}), json!({})).await.id();
    let ended = app.api.ended(&motion).await;
    assert_eq!(
        (&ended["status"], &ended["failure_code"]),
        (&json!("FAILED"), &json!("DEVICE_OFFLINE"))
    );
    let waiting = app.api.create("DOCK-1", "debug_mode_open", json!({}), json!({})).await.id();
    let mut dock = app.dock("DOCK-1").await;
    let command = dock.command().await;
    assert_eq!(command.tid(), waiting, "it left when the dock came, and the motion did not");
    dock.reply(&command, json!({"result": 0})).await;
    assert_eq!(app.api.ended(&waiting).await["status"], "SUCCEEDED");
}

#[tokio::test]
async fn a_command_whose_dock_does_not_come_in_time_is_never_sent() {
    let app = TestApp::start().await;
    let id = app
        .api
        .create("DOCK-1", "debug_mode_open", json!({}), json!({"timeout_seconds": 1}))
        .await
        .id();
    let ended = app.api.ended(&id).await;
    assert_eq!(
        (&ended["status"], &ended["failure_code"]),
        (&json!("TIMED_OUT"), &json!("DEVICE_OFFLINE"))
    );
    let mut dock = app.dock("DOCK-1").await;
    assert!(dock.drain().await.is_empty(), "nothing old is ever sent");
}

#[tokio::test]
async fn silence_after_delivery_reads_as_no_response_and_a_late_answer_is_kept_as_evidence() {
    let app = TestApp::start().await;
    let mut dock = app.dock("DOCK-1").await;
    let id = app
        .api
        .create("DOCK-1", "debug_mode_open", json!({}), json!({"timeout_seconds": 1}))
        .await
        .id();
    let command = dock.command().await;
    let ended = app.api.ended(&id).await;
    assert_eq!(
        (&ended["status"], &ended["failure_code"]),
        (&json!("TIMED_OUT"), &json!("NO_RESPONSE"))
    );
    dock.reply(&command, json!({"result": 0})).await;
    dock.drain().await;
    let filled = app.api.until(&id, |command| !command["response_code"].is_null()).await;
    assert_eq!((&filled["status"], &filled["response_code"]), (&json!("TIMED_OUT"), &json!("0")));
    let timeline = app.api.get(&format!("{COMMANDS}/{id}/timeline")).await;
    let late = timeline.body["items"].as_array().unwrap().last().unwrap().clone();
    assert_eq!((&late["cause"], &late["late_response"]), (&json!("reply"), &json!(true)));
}

#[tokio::test]
async fn answers_that_cannot_be_the_commands_own_end_it_as_unmatched() {
    let app = TestApp::start().await;
    let mut dock = app.dock("DOCK-1").await;
    let other = app.dock("DOCK-2").await;
    for case in ["method", "gateway", "result"] {
        let id = app.api.create("DOCK-1", "debug_mode_open", json!({}), json!({})).await.id();
        let mut command = dock.command().await;
        match case {
            "method" => {
                command.body["method"] = json!("debug_mode_close");
                dock.reply(&command, json!({"result": 0})).await;
            }
            "gateway" => other.reply(&command, json!({"result": 0})).await,
            _ => dock.reply(&command, json!({"result": "soon"})).await,
        }
        let ended = app.api.ended(&id).await;
        assert_eq!(ended["status"], "UNMATCHED_RESPONSE", "{case}: {ended:#}");
    }
}

#[tokio::test]
async fn a_reply_to_nothing_is_listed_with_its_raw_text_and_only_for_its_tenant() {
    let app = TestApp::start().await;
    let other = app.other_tenant("second", "DOCK-9").await;
    let dock = app.dock("DOCK-1").await;
    let stray =
        json!({"tid": Uuid::new_v4().to_string(), "method": "cover_open", "data": {"result": 0}});
    dock.publish("thing/product/DOCK-1/services_reply", &stray).await;
    dock.publish_raw("thing/product/DOCK-1/events", b"{\"broken").await;
    let target = "/api/v1/open/unmatched-responses";
    let listed = wait_for(async || {
        let items = app.api.get(target).await.body["items"].as_array().unwrap().clone();
        (items.len() == 2).then_some(items)
    })
    .await;
    assert!(listed.iter().any(
        |one| one["tid"] == stray["tid"] && one["raw"].as_str().unwrap().contains("cover_open")
    ));
    assert!(listed.iter().any(|one| one["raw"] == "{\"broken"));
    assert_eq!(other.get(target).await.body["items"], json!([]));
}

#[tokio::test]
async fn a_device_of_another_tenant_cannot_end_a_command_by_its_id() {
    let app = TestApp::start().await;
    app.other_tenant("second", "DOCK-9").await;
    let mut dock = app.dock("DOCK-1").await;
    let foreign = app.dock("DOCK-9").await;
    let id = app.api.create("DOCK-1", "debug_mode_open", json!({}), json!({})).await.id();
    let command = dock.command().await;
    foreign.reply(&command, json!({"result": 0})).await;
    dock.reply(&command, json!({"result": 0})).await;
    assert_eq!(app.api.ended(&id).await["status"], "SUCCEEDED");
    let causes = app.api.causes(&id).await;
    assert_eq!(causes.iter().filter(|cause| *cause == "reply").count(), 1);
}

#[tokio::test]
async fn the_aircraft_is_addressable_through_its_dock() {
    let app = TestApp::start().await;
    let mut dock = app.dock("DOCK-1").await;
    let unknown = app.api.create("DRONE-1", "debug_mode_open", json!({}), json!({})).await;
    assert_eq!((unknown.status, unknown.code()), (StatusCode::NOT_FOUND, "DEVICE_NOT_FOUND"));
    dock.report_aircraft("DRONE-1").await;
    let id = app.api.create("DRONE-1", "return_home", json!({}), json!({})).await.id();
    let command = dock.command().await;
    assert_eq!(command.topic, "thing/product/DOCK-1/services");
    dock.reply(&command, json!({"result": 0})).await;
    assert_eq!(app.api.ended(&id).await["gateway_id"], "DOCK-1");
}

#[tokio::test]
async fn a_restart_resumes_what_waits_and_closes_what_may_have_been_sent() {
    let app = TestApp::start().await;
    let mut dock = app.dock("DOCK-1").await;
    let sent = app
        .api
        .create("DOCK-1", "debug_mode_open", json!({}), json!({"timeout_seconds": 3}))
        .await
        .id();
    let command = dock.command().await;
    assert_eq!(command.tid(), sent);
    app.api.until(&sent, |command| command["status"] == "DELIVERED").await;
    let waiting = app.api.create("DOCK-2", "debug_mode_open", json!({}), json!({})).await.id();
    dock.leave().await;
    let app = app.restart().await;
    let mut dock_2 = app.dock("DOCK-2").await;
    let command = dock_2.command().await;
    assert_eq!(command.tid(), waiting);
    dock_2.reply(&command, json!({"result": 0})).await;
    assert_eq!(app.api.ended(&waiting).await["status"], "SUCCEEDED");
    let mut dock = app.dock("DOCK-1").await;
    assert!(dock.drain().await.is_empty(), "what was sent is not sent again");
    let ended = app.api.ended(&sent).await;
    assert_eq!(
        (&ended["status"], &ended["failure_code"]),
        (&json!("TIMED_OUT"), &json!("NO_RESPONSE"))
    );
}

#[tokio::test]
async fn a_cancelled_command_is_never_sent_and_a_delivered_one_is_aborted_if_its_method_can_be() {
    let app = TestApp::start().await;
    let waiting = app.api.create("DOCK-1", "debug_mode_open", json!({}), json!({})).await.id();
    let cancelled = app.api.post(&format!("{COMMANDS}/{waiting}/cancel"), &Value::Null).await;
    assert_eq!(cancelled.status, StatusCode::OK, "{cancelled:?}");
    assert_eq!(cancelled.body["command"]["failure_code"], "CANCELLED");
    let mut dock = app.dock("DOCK-1").await;
    assert!(dock.drain().await.is_empty());
    let again = app.api.post(&format!("{COMMANDS}/{waiting}/cancel"), &Value::Null).await;
    assert_eq!((again.status, again.code()), (StatusCode::CONFLICT, "COMMAND_NOT_CANCELLABLE"));

    let delivered = app.api.create("DOCK-1", "debug_mode_open", json!({}), json!({})).await.id();
    dock.command().await;
    app.api.until(&delivered, |command| command["status"] == "DELIVERED").await;
    let refused = app.api.post(&format!("{COMMANDS}/{delivered}/cancel"), &Value::Null).await;
    assert_eq!(
        refused.code(),
        "COMMAND_NOT_CANCELLABLE",
        "debug_mode_open has no abort command: {refused:?}"
    );

    let fly = json!({"fly_to_id": "f-1", "max_speed": 5, "points": [{"latitude": 1.0, "longitude": 2.0, "height": 60.0}]});
    let flying = app.api.create("DOCK-1", "fly_to_point", fly, json!({})).await.id();
    let command = dock.command().await;
    dock.reply(&command, json!({"result": 0})).await;
    app.api.until(&flying, |command| command["status"] == "DELIVERED").await;
    let aborted = app.api.post(&format!("{COMMANDS}/{flying}/cancel"), &Value::Null).await;
    let abort = aborted.body["abort_command_id"].as_str().unwrap().to_owned();
    let command = dock.command().await;
    assert_eq!((command.tid(), command.method()), (abort.as_str(), "fly_to_point_stop"));
    let told = wait_for(async || {
        let timeline = app.api.get(&format!("{COMMANDS}/{flying}/timeline")).await;
        let entries = timeline.body["items"].as_array().unwrap().clone();
        entries.into_iter().find(|entry| entry["cause"] == "cancelled")
    });
    assert_eq!(told.await["abort_command_id"], abort.as_str());
    let again = app.api.post(&format!("{COMMANDS}/{flying}/cancel"), &Value::Null).await;
    assert_eq!(again.body["abort_command_id"], abort.as_str(), "one abort for one command");
}

/// Asks until there is an answer.
async fn wait_for<T>(ask: impl AsyncFn() -> Option<T>) -> T {
    tokio::time::timeout(crate::app::PATIENCE, async {
        loop {
            if let Some(found) = ask().await {
                return found;
            }
        }
    })
    .await
    .expect("it did not come")
}
