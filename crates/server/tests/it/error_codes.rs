//! Every error code of devices that is known reads as a refusal with its meaning in words.

use std::collections::BTreeMap;

use futures_util::future::join_all;
use serde_json::{Value, json};

use crate::app::TestApp;

const TABLE: &str = include_str!("../../../dji/data/error_codes.json");

#[tokio::test]
async fn every_known_code_reads_as_failed_with_its_meaning() {
    let table: Value = serde_json::from_str(TABLE).unwrap();
    let meanings: BTreeMap<i64, &str> = table["codes"]
        .as_object()
        .unwrap()
        .iter()
        .map(|(code, entry)| (code.parse().unwrap(), entry["meaning"].as_str().unwrap()))
        .filter(|(code, _)| *code != 0)
        .collect();
    assert!(meanings.len() > 400, "{}", meanings.len());
    let app = TestApp::start().await;
    let mut dock = app.dock("DOCK-1").await;
    let codes: Vec<i64> = meanings.keys().copied().collect();
    for codes in codes.chunks(100) {
        let created = join_all(
            codes.iter().map(|_| app.api.create("DOCK-1", "debug_mode_open", json!({}), json!({}))),
        );
        let ids: Vec<String> = created.await.iter().map(crate::app::Answer::id).collect();
        let by_id: BTreeMap<&str, i64> =
            ids.iter().map(String::as_str).zip(codes.iter().copied()).collect();
        for _ in codes {
            let command = dock.command().await;
            dock.reply(&command, json!({"result": by_id[command.tid()]})).await;
        }
        let ended = join_all(ids.iter().map(|id| app.api.ended(id))).await;
        for (command, code) in ended.iter().zip(codes) {
            assert_eq!(
                (&command["status"], &command["failure_code"]),
                (&json!("FAILED"), &json!("DEVICE_EXECUTION_FAILED")),
                "{code}"
            );
            assert_eq!(command["response_code"], code.to_string());
            assert_eq!(command["response_message"], meanings[code], "{code}");
        }
    }
    // One that nobody knows is a refusal all the same, without words of ours.
    let id = app.api.create("DOCK-1", "debug_mode_open", json!({}), json!({})).await.id();
    let command = dock.command().await;
    dock.reply(&command, json!({"result": 987_654_321})).await;
    let ended = app.api.ended(&id).await;
    assert_eq!(
        (&ended["status"], &ended["response_code"]),
        (&json!("FAILED"), &json!("987654321"))
    );
    assert_eq!(ended["response_message"], Value::Null);
}
