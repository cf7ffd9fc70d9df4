//! The control API over real HTTP, and what it does to docks over real MQTT.

use std::net::{Ipv4Addr, SocketAddr};

use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};
use utmos_mqtt::{Broker, Publish};
use utmos_sim::{Fleet, FleetConfig, control::Control};

use crate::mqtt::{Cloud, LONG, fleet_config};

const JSON: &str = "Content-Type: application/json";
const SN: &str = "SIM-DOCK-0001";

/// A fleet with a broker, a cloud and a control API.
struct Place {
    broker: Broker,
    cloud: Cloud,
    fleet: Fleet,
    control: Control,
}

impl Place {
    async fn start(docks: u32, flags: &[&str]) -> Self {
        let mut config = FleetConfig { quiet: true, ..fleet_config(docks) };
        config.faults.put_first(flags.iter().map(|flag| flag.parse().unwrap()));
        config.broker.reconnect_wait_min = std::time::Duration::from_millis(10);
        let (broker, cloud) = Cloud::start(&config, Cloud::here()).await;
        config.broker.port = broker.local_addr().port();
        let fleet = Fleet::start(config).unwrap();
        timeout(LONG, fleet.ready()).await.expect("up");
        let control = Control::start(Cloud::here(), false, fleet.controls()).await.unwrap();
        Self { broker, cloud, fleet, control }
    }

    async fn get(&self, path: &str) -> Value {
        let (status, body) = ask(self.control.address(), "GET", path, &[], "").await;
        assert_eq!(status, 200, "{path}: {body}");
        body
    }

    async fn post(&self, path: &str, body: Value) -> (u16, Value) {
        ask(self.control.address(), "POST", path, &[JSON], &body.to_string()).await
    }

    /// Adds something; its id.
    async fn add(&self, path: &str, body: Value) -> u64 {
        let (status, added) = self.post(path, body.clone()).await;
        assert_eq!(status, 201, "{body}: {added}");
        for (name, value) in body.as_object().unwrap() {
            let same = added[name] == *value || added[name].as_f64() == value.as_f64();
            assert!(same, "{added} has not {name} {value}");
        }
        added["id"].as_u64().unwrap()
    }

    async fn delete(&self, path: &str) -> u16 {
        ask(self.control.address(), "DELETE", path, &[JSON], "").await.0
    }

    /// Waits until a dock is as it should be.
    async fn until(&self, sn: &str, is_so: impl Fn(&Value) -> bool) -> Value {
        let wait = async {
            loop {
                let dock = self.get(&format!("/docks/{sn}")).await;
                if is_so(&dock) {
                    return dock;
                }
                tokio::task::yield_now().await;
            }
        };
        timeout(LONG, wait).await.unwrap_or_else(|_| panic!("{sn} never gets there"))
    }

    async fn stop(self) {
        self.control.shutdown().await;
        self.fleet.shutdown().await;
        self.broker.shutdown().await;
    }
}

/// One request, in bytes, so that nothing is put in that a test does not say.
async fn ask(
    address: SocketAddr,
    method: &str,
    path: &str,
    headers: &[&str],
    body: &str,
) -> (u16, Value) {
    let host = format!("Host: {address}");
    let has_host = headers.iter().any(|header| header.starts_with("Host:"));
    let mut head = vec![format!("{method} {path} HTTP/1.1"), "Connection: close".to_owned()];
    head.extend(headers.iter().map(|header| (*header).to_owned()));
    head.extend((!has_host).then_some(host));
    head.push(format!("Content-Length: {}", body.len()));
    let text = format!("{}\r\n\r\n{body}", head.join("\r\n"));
    let exchange = async {
        let mut tcp = TcpStream::connect(address).await.unwrap();
        tcp.write_all(text.as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        tcp.read_to_end(&mut answer).await.unwrap();
        String::from_utf8(answer).unwrap()
    };
    let answer = timeout(LONG, exchange).await.expect("an answer");
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    (status, serde_json::from_str(body).unwrap_or(Value::Null))
}

#[tokio::test]
async fn docks_and_what_they_did_can_be_seen() {
    let place = Place::start(2, &["method=cover_*,kind=silent"]).await;
    let docks = place.get("/docks").await;
    let sns: Vec<_> = docks["docks"].as_array().unwrap().iter().map(|dock| &dock["sn"]).collect();
    assert_eq!(sns, [SN, "SIM-DOCK-0002"]);
    let dock = place.until(SN, |dock| dock["online"] == json!(true)).await;
    let fields = ["connected", "mode", "model"].map(|name| dock[name].clone());
    assert_eq!(fields, [json!(true), json!("idle"), json!("dock2")]);
    let aircraft = ["sn", "on", "stage"].map(|name| dock["aircraft"][name].clone());
    assert_eq!(aircraft, [json!("SIM-M3D-0001"), json!(true), json!("docked")]);
    assert!(dock["aircraft"]["battery"].as_f64().is_some_and(|battery| 80.0 < battery));

    place.cloud.services(SN, "t-1", "debug_mode_open", json!({})).await;
    place.until(SN, |dock| dock["mode"] == "remote_debugging").await;
    place.cloud.services(SN, "t-2", "drone_open", json!({})).await;
    let command = place.get("/commands/t-2").await;
    assert_eq!((&command["received"], &command["fault"]), (&json!(1), &Value::Null));
    let wait =
        async { while place.get("/commands/t-2").await["copies"][0]["outcome"] != "succeeded" {} };
    timeout(LONG, wait).await.expect("the job ends");
    // What was never answered was done all the same.
    let message = json!({"tid": "t-3", "bid": "b", "method": "cover_close", "data": {}});
    let topic = format!("thing/product/{SN}/services");
    place.broker.outlet().publish(Publish::new(topic, message.to_string())).await;
    let wait = async { while place.get("/commands/t-3").await["received"] != json!(1) {} };
    timeout(LONG, wait).await.expect("it arrives");
    assert_eq!(place.get("/commands/t-3").await["fault"], "silent");
    assert_eq!(place.get("/commands/never").await["received"], json!(0));
    let latest = place.get(&format!("/commands?gateway={SN}&limit=2")).await;
    let tids: Vec<_> =
        latest["commands"].as_array().unwrap().iter().map(|one| &one["tid"]).collect();
    assert_eq!(tids, ["t-3", "t-2"]);
    assert_eq!(place.get("/commands?gateway=SIM-DOCK-0002").await["commands"], json!([]));
    place.stop().await;
}

#[tokio::test]
async fn faults_and_conditions_are_added_and_taken_away_while_docks_run() {
    let place = Place::start(2, &["kind=result,code=dock_busy,gateway=SIM-DOCK-0001"]).await;
    let result = async |tid: &str, sn: &str, method: &str| {
        let reply = place.cloud.services(sn, tid, method, json!({})).await;
        reply["data"]["result"].as_i64().unwrap()
    };
    let other = "SIM-DOCK-0002";
    assert_eq!(result("t-1", SN, "debug_mode_open").await, 514_116);
    assert_eq!(result("t-2", other, "debug_mode_open").await, 0);
    let fault = json!({"kind": "result", "code": 314_000, "method": "debug_*"});
    let id = place.add("/faults", fault).await;
    assert_eq!(result("t-3", SN, "debug_mode_open").await, 314_000, "it goes before the plan's");
    assert_eq!(result("t-4", other, "debug_mode_open").await, 314_000);
    let faults = place.get("/faults").await;
    let met: Vec<_> = faults["faults"]
        .as_array()
        .unwrap()
        .iter()
        .map(|fault| (fault["id"].as_u64().unwrap(), fault["met"].as_u64().unwrap()))
        .collect();
    assert_eq!(met, [(id, 2), (1, 1)]);
    assert_eq!(place.delete(&format!("/faults/{id}")).await, 204);
    assert_eq!(place.delete(&format!("/faults/{id}")).await, 404);
    assert_eq!(place.delete("/faults/1").await, 204);
    assert_eq!(result("t-5", SN, "debug_mode_close").await, 0);

    let id = place.add("/conditions", json!({"kind": "debug_mode", "gateway": SN})).await;
    let dock = place.get(&format!("/docks/{SN}")).await;
    assert_eq!(dock["mode"], "remote_debugging", "it has begun when the request is answered");
    assert_eq!(dock["conditions"]["debug_mode"], json!(true));
    assert_eq!(result("t-6", SN, "takeoff_to_point").await, 325_001, "no payload was sent");
    let listed = place.get("/conditions").await;
    let expected =
        json!([{"id": id, "kind": "debug_mode", "gateway": SN, "at_ms": 0, "has_begun": true}]);
    assert_eq!(listed["conditions"], expected);
    assert_eq!(place.delete(&format!("/conditions/{id}")).await, 204);
    assert_eq!(place.get(&format!("/docks/{SN}")).await["mode"], "idle");

    // A connection is cut until it is given back, and one that is cut for a while comes back by itself.
    let id = place.add("/conditions", json!({"kind": "offline", "gateway": SN})).await;
    assert_eq!(place.get(&format!("/docks/{SN}")).await["connected"], json!(false));
    assert_eq!(place.get(&format!("/docks/{other}")).await["connected"], json!(true));
    assert_eq!(place.delete(&format!("/conditions/{id}")).await, 204);
    place.until(SN, |dock| dock["online"] == json!(true)).await;
    place.add("/conditions", json!({"kind": "offline", "gateway": SN, "ms": 50})).await;
    place.until(SN, |dock| dock["online"] == json!(true)).await;
    assert_eq!(result("t-7", SN, "debug_mode_open").await, 0);

    let flap = json!({"kind": "topology_flap", "gateway": SN, "ms": 30, "times": 2});
    let mark = place.cloud.count();
    place.add("/faults", flap).await;
    place
        .cloud
        .wait_for_after(mark, "an aircraft that comes back", 4, |topic, json| {
            topic.contains(SN) && json["method"] == "update_topo"
        })
        .await;
    place.stop().await;
}

#[tokio::test]
async fn what_does_not_fit_is_refused_with_field_and_remedy() {
    let place = Place::start(1, &[]).await;
    let (status, body) = place
        .post("/faults", json!({"kind": "late", "mss": 4, "nth": "x", "probability": 2}))
        .await;
    assert_eq!((status, body["code"].as_str()), (400, Some("VALIDATION_FAILED")));
    let mut fields: Vec<_> = body["details"]
        .as_array()
        .unwrap()
        .iter()
        .map(|one| one["field"].as_str().unwrap())
        .collect();
    fields.sort_unstable();
    assert_eq!(fields, ["ms", "mss", "nth", "probability"], "{body}");
    for (path, sent, status, message) in [
        ("/faults", json!({"kind": "lat"}), 400, "did you mean late?"),
        ("/faults", json!({"kind": "wind", "speed": 3}), 400, "wind is a condition, not a fault"),
        ("/conditions", json!({"kind": "never"}), 400, "never is a fault, not a condition"),
        (
            "/conditions",
            json!({"kind": "wind", "speed": true}),
            400,
            "must be a number from 0 to 60",
        ),
        ("/conditions", json!([]), 400, "must be an object"),
        (
            "/conditions",
            json!({"kind": "rain", "gateway": "SIM-DOCK-0002"}),
            404,
            "there is no dock SIM-DOCK-0002; did you mean SIM-DOCK-0001?",
        ),
        ("/fault", json!({}), 404, "there are /docks,"),
        ("/docks", json!({}), 405, "does not take this method"),
    ] {
        let (given, body) = place.post(path, sent.clone()).await;
        assert_eq!(given, status, "{path} {sent}: {body}");
        assert!(body["message"].as_str().unwrap().contains(message), "{body}");
    }
    let address = place.control.address();
    let (status, body) = ask(address, "POST", "/faults", &[JSON], "{").await;
    assert_eq!((status, body["code"].as_str()), (400, Some("BAD_BODY")));
    let twice = r#"{"kind": "late", "ms": 4, "kind": "never", "ms": 5}"#;
    let (status, body) = ask(address, "POST", "/faults", &[JSON], twice).await;
    assert_eq!((status, body["code"].as_str()), (400, Some("VALIDATION_FAILED")), "{body}");
    let problem = "stands there twice; keep one of them";
    let expected =
        json!([{"field": "kind", "problem": problem}, {"field": "ms", "problem": problem}]);
    assert_eq!(body["details"], expected);
    for (path, kind) in [("/conditions", "rain"), ("/faults", "never")] {
        let stranger = json!({"kind": kind, "gateway": "SIM-DOCK-0002"});
        let (status, body) = place.post(path, stranger).await;
        assert_eq!((status, &body["details"][0]["field"]), (404, &json!("gateway")), "{body}");
    }
    let huge = format!("{{\"kind\": \"{}\"}}", "x".repeat(70_000));
    assert_eq!(ask(address, "POST", "/faults", &[JSON], &huge).await.0, 413);
    for path in ["/docks/SIM-DOCK-0009", "/commands?limit=0", "/commands?gatewy=A"] {
        let (status, body) = ask(address, "GET", path, &[], "").await;
        assert!(status == 404 || status == 400, "{path}: {status} {body}");
        assert!(body["message"].is_string(), "{path}: {body}");
    }
    assert_eq!(place.get("/faults").await["faults"], json!([]), "nothing of it was added");
    // Not refused, for a dock may be sent what no catalogue knows; but said.
    let (status, body) =
        place.post("/faults", json!({"kind": "never", "method": "cover_opne"})).await;
    assert_eq!(status, 201, "{body}");
    let doubt = body["doubt"].as_str().unwrap_or_default();
    assert!(doubt.ends_with("no method cover_opne; did you mean cover_open?"), "{body}");
    let (_, body) = place.post("/faults", json!({"kind": "never", "method": "cover_*"})).await;
    assert_eq!(body.get("doubt"), None, "{body}");
    place.stop().await;
}

#[tokio::test]
async fn a_web_page_can_do_nothing() {
    let place = Place::start(1, &[]).await;
    let address = place.control.address();
    let fault = json!({"kind": "never"}).to_string();
    for (headers, status, code) in [
        // A page can send these without asking first.
        (&["Content-Type: text/plain"][..], 415, "NOT_JSON"),
        (&["Content-Type: application/x-www-form-urlencoded"], 415, "NOT_JSON"),
        (&[], 415, "NOT_JSON"),
        // This is how a page of another site asks.
        (&[JSON, "Origin: https://evil.example"], 403, "FOREIGN_ORIGIN"),
        (&[JSON, "Origin: null"], 403, "FOREIGN_ORIGIN"),
        // And this is one whose name was made to lead here.
        (&[JSON, "Host: evil.example"], 403, "FOREIGN_HOST"),
        (&[JSON, "Host: evil.example:80"], 403, "FOREIGN_HOST"),
        (&[JSON, "Host: "], 403, "FOREIGN_HOST"),
    ] {
        let (given, body) = ask(address, "POST", "/faults", headers, &fault).await;
        assert_eq!((given, body["code"].as_str()), (status, Some(code)), "{headers:?}: {body}");
    }
    // It reads nothing either, and deletes nothing.
    let (status, _) = ask(address, "GET", "/docks", &["Host: evil.example"], "").await;
    assert_eq!(status, 403);
    let (status, _) = ask(address, "GET", "/docks", &["Origin: https://evil.example"], "").await;
    assert_eq!(status, 403);
    assert_eq!(ask(address, "DELETE", "/faults/1", &[], "").await.0, 415);
    assert_eq!(ask(address, "OPTIONS", "/faults", &[], "").await.0, 415, "no page is told yes");
    for host in ["Host: localhost", "Host: 127.0.0.1:1", "Host: [::1]"] {
        assert_eq!(ask(address, "GET", "/docks", &[host], "").await.0, 200, "{host}");
    }
    assert_eq!(place.get("/faults").await["faults"], json!([]));
    place.stop().await;
}

#[tokio::test]
async fn others_cannot_reach_it_unless_it_is_meant_and_names_stay_out_all_the_same() {
    let place = Place::start(1, &[]).await;
    let everywhere = SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0));
    let refused = Control::start(everywhere, false, place.fleet.controls()).await.unwrap_err();
    assert!(refused.to_string().contains("--control-anywhere"), "{refused}");
    let control = Control::start(everywhere, true, place.fleet.controls()).await.unwrap();
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, control.address().port()));
    for (host, expected) in
        [("Host: 192.168.1.7:80", 200), ("Host: sim:9000", 200), ("Host: evil.example", 403)]
    {
        assert_eq!(ask(address, "GET", "/docks", &[host], "").await.0, expected, "{host}");
    }
    control.shutdown().await;
    place.stop().await;
}

#[tokio::test]
async fn a_fleet_is_stopped_from_aside() {
    let place = Place::start(1, &[]).await;
    assert_eq!(place.post("/stop", json!({})).await.0, 202);
    timeout(LONG, place.fleet.stopped()).await.expect("it is told");
    let gone =
        async { while ask(place.control.address(), "GET", "/docks", &[], "").await.0 != 410 {} };
    timeout(LONG, gone).await.expect("the docks say goodbye");
    let (status, body) = place.post("/faults", json!({"kind": "never"})).await;
    assert_eq!((status, body["code"].as_str()), (410, Some("STOPPED")));
    place.stop().await;
}

#[tokio::test]
async fn a_dock_asks_what_it_is_told_to_and_shows_what_it_was_answered() {
    let place = Place::start(1, &[]).await;
    let path = format!("/docks/{SN}/requests");
    let asked = json!({"method": "flight_areas_get", "data": {}});
    let (status, told) = place.post(&path, asked).await;
    assert_eq!(status, 201, "{told}");
    let tid = told["tid"].as_str().unwrap();
    let is_answered = |times: usize| {
        move |dock: &Value| {
            dock["requests"][0]["answers"].as_array().is_some_and(|all| all.len() == times)
        }
    };
    let dock = place.until(SN, is_answered(1)).await;
    assert_eq!(dock["requests"][0]["method"], "flight_areas_get");
    assert_eq!(dock["requests"][0]["answers"][0]["result"], 0);
    let again = json!({"method": "flight_areas_get", "data": {}, "tid": tid});
    assert_eq!(place.post(&path, again).await, (201, json!({"tid": tid})));
    let dock = place.until(SN, is_answered(2)).await;
    assert_eq!(dock["requests"].as_array().unwrap().len(), 1);
    for (body, code) in [
        (json!({"method": ""}), "BAD_BODY"),
        (json!({"data": {}}), "BAD_BODY"),
        (json!({"method": "a", "date": {}}), "BAD_BODY"),
    ] {
        let (status, refused) = place.post(&path, body).await;
        assert_eq!((status, &refused["code"]), (400, &json!(code)), "{refused}");
    }
    let (status, _) = place.post("/docks/SIM-DOCK-9/requests", json!({"method": "a"})).await;
    assert_eq!(status, 404);
    place.stop().await;
}
