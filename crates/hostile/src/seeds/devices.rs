//! Seeds of what devices ask and tell.

use serde_json::{Value, json};

use super::{Seeds, message, read, text};

pub(super) const REQUEST_BODIES: [(&str, &str); 12] = [
    (
        "bind-status",
        "reply airport_bind_status\n{\"reply_code\": \"0\", \"payload\": {\"bind_status\": [{\"sn\": \"D1\", \
         \"is_device_bind_organization\": true, \"organization_id\": \"o\", \"organization_name\": \"n\", \"device_callsign\": \"c\"}]}}",
    ),
    (
        "bind",
        "reply airport_organization_bind\n{\"reply_code\": \"OK\", \"payload\": {\"err_infos\": [{\"sn\": \"D1\", \"err_code\": 0}]}}",
    ),
    (
        "organization",
        "reply airport_organization_get\n{\"reply_code\": \"SUCCESS\", \"payload\": {\"organization_name\": \"o\"}}",
    ),
    (
        "config",
        "reply config\n{\"reply_code\": \"APPROVED\", \"payload\": {\"ntp_server_host\": \"h\", \"ntp_server_port\": 123, \
         \"app_id\": \"1\", \"app_key\": \"k\", \"app_license\": \"l\"}}",
    ),
    (
        "areas",
        "reply flight_areas_get\n{\"reply_code\": \"0\", \"payload\": {\"files\": [{\"name\": \"g.json\", \"url\": \"u\", \
         \"checksum\": \"c\", \"size\": 5}]}}",
    ),
    (
        "resource",
        "reply flighttask_resource_get\n{\"reply_code\": \"0\", \"payload\": {\"file\": {\"url\": \"u\", \"fingerprint\": \"f\"}}}",
    ),
    (
        "refused",
        "reply storage_config_get\n{\"reply_code\": \"-314000\", \"reply_message\": \"no\\nroom\"}",
    ),
    ("other", "reply some_other_get\n{\"reply_code\": \"x\", \"payload\": {\"a\": [1, null]}}"),
    (
        "broken",
        "reply config\n{\"reply_code\": 0, \"reply_message\": {}, \"payload\": [], \"~/\": 1}",
    ),
    (
        "rule-after",
        "rule config\n{\"mode\": \"auto_after\", \"after_seconds\": 10, \"reply_seconds\": 30}",
    ),
    ("rule-manual", "rule some_other_get\n{\"mode\": \"manual\"}"),
    ("rule-broken", "rule config\n{\"mode\": 1, \"after_seconds\": -1, \"reply_seconds\": 1e9}"),
];

pub(super) const BODIES: [(&str, &str); 8] = [
    (
        "dock",
        "device\n{\"device_id\": \"SIM-DOCK-0001\", \"kind\": \"dock\", \"model_key\": \"3-2-0\", \"label\": \"North roof\", \
         \"tags\": [\"north\", \"a\"], \"simulated\": true}",
    ),
    ("aircraft", "device\n{\"device_id\": \"SIM-M3D-0001\", \"kind\": \"aircraft\"}"),
    ("another", "device\n{\"device_id\": \"D-9\", \"kind\": \"remote_controller\", \"tags\": []}"),
    ("by-model", "device\n{\"device_id\": \"D-9\", \"model_key\": \"0-91-1\"}"),
    (
        "broken",
        "device\n{\"device_id\": \"a/b\", \"kind\": \"dock\", \"model_key\": \"0-91-1\", \"tags\": [1, \"\"], \"x\": 1}",
    ),
    ("code", "code\n{\"label\": \"for the roofs\", \"uses_max\": 5, \"expires_in_seconds\": 3600}"),
    ("code-bare", "code\n{}"),
    ("code-broken", "code\n{\"label\": \"\\u0000\", \"uses_max\": 0, \"expires_in_seconds\": 59}"),
];

pub(super) const ALARMS: [(&str, &str); 5] = [
    (
        "come-and-go",
        "{\"list\":[{\"code\":\"0x16100067\",\"level\":1,\"in_the_sky\":0,\"imminent\":0,\"device_type\":\"0-91-1\",\
         \"args\":{\"component_index\":0,\"sensor_index\":1}}]}\n\
         {\"list\":[{\"code\":\"0x16100067\",\"level\":2,\"args\":{\"sensor_index\":1}},{\"code\":\"0x1A420BC0\"}]}\n{\"list\":[]}",
    ),
    (
        "controller",
        "{\"output\":{\"codes\":[{\"id\":370147431,\"level\":0}]}}\n{\"output\":{\"codes\":[]}}",
    ),
    ("twice", "{\"list\":[{\"code\":\"0x1\"},{\"code\":\"0x01\"},{\"code\":1}]}"),
    ("words", "{\"list\":[{\"code\":\"no number\",\"level\":9},{\"code\":null},null,[],5]}"),
    ("none", "{\"list\":{}}\n[]\n\n{\"list\":[{}]}"),
];

/// Requests and reports of a newcomer, after the good code and after others.
pub(super) fn joining() -> anyhow::Result<Seeds> {
    let code = utmos_core::binding::code_of(b"a good code!!").expose().to_owned();
    let on = |typed: &str, end: &str, payload: &Value| {
        let root = if end == "status" { "sys" } else { "thing" };
        let topic = format!("{root}/product/NEW-DOCK/{end}");
        [typed.as_bytes(), b"\n", &message(&topic, &payload.to_string())].concat()
    };
    let asks = |method: &str, data: Value| json!({"tid": "t", "bid": "b", "timestamp": 1_767_225_600_000_u64, "method": method, "data": data});
    let bind = json!({"bind_devices": [
        {"sn": "NEW-DOCK", "organization_id": "o", "device_binding_code": code, "device_callsign": "c", "device_model_key": "3-2-0"},
        {"sn": "NEW-AIR", "organization_id": "o", "device_binding_code": code, "device_callsign": "c", "device_model_key": "0-91-1"},
        {"sn": "THIRD", "device_binding_code": "x"},
    ]});
    let topology = json!({"domain": "3", "type": 2, "sub_type": 0, "thing_version": "1.1.2", "device_secret": "s", "nonce": "n",
        "sub_devices": [
            {"sn": "NEW-AIR", "domain": "0", "type": 91, "sub_type": 1, "index": "A", "thing_version": "1.1.2"},
            {"sn": "OTHERS-AIR", "domain": 0, "type": 91, "sub_type": 1, "index": "B"}, {"sn": "OWN-DOCK"}, {}]});
    let mut seeds = Seeds::from([
        ("bind".to_owned(), on(&code, "requests", &asks("airport_organization_bind", bind))),
        (
            "small-letters".to_owned(),
            on(
                &code.to_lowercase().replace('-', " "),
                "requests",
                &asks(
                    "airport_bind_status",
                    json!({"devices": [{"sn": "NEW-DOCK"}, {"sn": "NEW-AIR"}]}),
                ),
            ),
        ),
        (
            "organization".to_owned(),
            on(
                "00000-00000-00000-00000",
                "requests",
                &asks(
                    "airport_organization_get",
                    json!({"organization_id": "o", "device_binding_code": code}),
                ),
            ),
        ),
        ("topology".to_owned(), on("a password", "status", &asks("update_topo", topology))),
    ]);
    for (method, data) in [
        ("config", json!({"config_type": "json", "config_scope": "product"})),
        ("flight_areas_get", json!({})),
        ("offline_map_get", Value::Null),
        ("storage_config_get", json!({"module": 0})),
        ("flighttask_resource_get", json!({"flight_id": "f"})),
        ("flighttask_progress_get", json!({"target_sn": "D2", "flight_id": "f"})),
    ] {
        seeds.insert(method.replace('_', "-"), on("", "requests", &asks(method, data)));
    }
    Ok(seeds)
}

/// What recorded and documented devices told, message after message.
pub(super) fn telemetry() -> anyhow::Result<Seeds> {
    const LINES: usize = 3;
    const BYTES_MAX: usize = 900;
    let mut seeds = Seeds::new();
    let mut lines = Vec::new();
    for line in read("crates/dji/tests/data/examples.jsonl")?.lines() {
        let line: Value = serde_json::from_str(line)?;
        let channel = text(&line, "channel")?;
        let payload: Value = serde_json::from_str(text(&line, "payload_text")?).unwrap_or_default();
        let data = payload["data"].to_string();
        if ["osd", "state"].contains(&channel) && data.len() <= BYTES_MAX {
            lines.push(format!("{}{data}", if channel == "osd" { 0 } else { 1 }));
        }
    }
    for (number, lines) in (1..).zip(lines.chunks(LINES).take(12)) {
        seeds.insert(format!("told-{number:02}"), lines.join("\n").into_bytes());
    }
    let place = "0{\"longitude\":113.5,\"latitude\":22.5,\"height\":40.1}\nz{\"longitude\":0,\"latitude\":0,\"a\":[1,{}]}\n5{}";
    seeds.insert("places".to_owned(), place.into());
    let kept = utmos_core::telemetry::Samples::of(
        utmos_core::time::Timestamp::from_millis(1_767_225_600_000),
        utmos_core::telemetry::Source::Osd,
        "{\"a\":1}",
    );
    seeds.insert("kept".to_owned(), kept.bytes().to_vec());
    Ok(seeds)
}
