//! A thousand simulated gateways of every model in one process, at the server's own broker: how much memory that takes, with
//! some of them in the air, faults and conditions, and all connections lost and made again.

use std::{
    net::SocketAddr,
    process::{Child, Stdio},
};

use futures_util::future::join_all;
use serde_json::{Value, json};
use utmos_core::time::Timestamp;
use utmos_sim::{DockConfig, Model, guide};

use crate::{
    flood::sockets_for,
    place::{CATALOGUE, Place, SEED},
    process::{peak_memory_bytes, until},
};

const GATEWAYS: usize = 1_000;
/// What they may take, at the most there ever was: 200 MB.
const MEMORY_BYTES_MAX: u64 = 200_000_000;
const MODELS: [Model; 6] =
    [Model::Dock1, Model::Dock2, Model::Dock3, Model::Dock3M4td, Model::RcPro, Model::RcPlus2];
/// So many messages of each of them have come before it is looked.
const MESSAGES_EACH: u64 = 10;
/// One dock in so many flies.
const FLIES_EVERY: usize = 9;
/// Takeoffs that are asked for at a time.
const AT_ONCE: usize = 8;
/// Fast enough to be in the air soon, and slow enough to be there when it is looked.
const SPEED: &str = "4";

/// What goes wrong meanwhile.
const SCENARIO: &str = r#"
[[condition]]
kind = "wind"
speed = 8

[[condition]]
kind = "rain"
level = 1

[[fault]]
method = "takeoff_to_point"
probability = 0.5
kind = "duplicate"

[[fault]]
method = "takeoff_to_point"
probability = 0.5
kind = "resend_events"
"#;

/// The simulator, and its control API; it ends with the test.
struct Simulator {
    child: Child,
    control: SocketAddr,
    client: reqwest::Client,
}

impl Drop for Simulator {
    fn drop(&mut self) {
        let _gone = self.child.kill();
        let _gone = self.child.wait();
    }
}

impl Simulator {
    async fn get(&self, path: &str) -> Value {
        let answer = self.client.get(format!("http://{}{path}", self.control)).send().await;
        let text = answer.unwrap().text().await.unwrap();
        serde_json::from_str(&text).unwrap_or_else(|err| panic!("{path}: {err}: {text}"))
    }

    async fn add_fault(&self, fault: Value) {
        let posted = self.client.post(format!("http://{}/faults", self.control));
        let posted = posted.header("Content-Type", "application/json").body(fault.to_string());
        assert_eq!(posted.send().await.unwrap().status(), 201, "{fault}");
    }

    /// How many aircraft are off the ground.
    async fn in_the_air(&self) -> usize {
        let docks = self.get("/docks").await;
        let flies = |dock: &&Value| dock["aircraft"]["stage"] == "airborne";
        docks["docks"].as_array().unwrap().iter().filter(flies).count()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_gateways_of_every_model_take_less_than_200_mb() {
    // Each is a connection of the server as well, which has the limit of this process.
    if sockets_for(GATEWAYS) < GATEWAYS {
        return;
    }
    let models: Vec<Model> = MODELS.into_iter().cycle().take(GATEWAYS).collect();
    let (place, _) = Place::with_models(&models).await;
    let _server = place.spawn(None).await;
    let api = place.api();
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let (broker, seed) = (format!("{}:1883", place.address), SEED.to_string());
    let control = SocketAddr::from((place.address, 9100));
    let names = MODELS.map(Model::as_str).join(",");
    let scenario = place.path("scenario.toml");
    std::fs::write(&scenario, SCENARIO).unwrap();
    let count = GATEWAYS.to_string();
    let mut simulate = place.utmos(&[
        "sim", "--broker", &broker, "--docks", &count, "--model", &names, "--seed", &seed,
        "--speed", SPEED,
    ]);
    simulate.arg("--scenario").arg(&scenario).args(["--control", &control.to_string()]);
    let child = simulate.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let simulator = Simulator { child, control, client };
    let all_are_there = async || {
        until("not all of them come", async || {
            api.figure("devices_online").await >= 2 * GATEWAYS as u64
        })
        .await;
    };
    all_are_there().await;
    // All are away at once, and come back.
    simulator.add_fault(json!({"kind": "reconnect_storm", "ms": 500})).await;
    until("the storm goes on", async || {
        let faults = simulator.get("/faults").await;
        faults["faults"].as_array().unwrap().iter().all(|fault| fault["kind"] != "reconnect_storm")
    })
    .await;
    all_are_there().await;

    let method = CATALOGUE.method("takeoff_to_point").unwrap();
    let docks = (1..).zip(&models).map(|(n, model)| DockConfig::numbered_as(*model, SEED, n));
    let docks: Vec<DockConfig> = docks
        .filter(|dock| dock.model.gateway_key().starts_with("3-"))
        .step_by(FLIES_EVERY)
        .collect();
    for some in docks.chunks(AT_ONCE) {
        join_all(some.iter().map(async |dock| {
            let payload = guide::payload(method, dock, Timestamp::from_millis(0));
            let more = json!({"if_offline": "wait", "timeout_seconds": 60});
            api.create(&dock.aircraft_sn, "takeoff_to_point", payload, more).await.id()
        }))
        .await;
    }
    until("too few fly", async || simulator.in_the_air().await >= docks.len() * 9 / 10).await;
    until("they tell nothing", async || {
        api.figure("telemetry_messages_total").await >= MESSAGES_EACH * GATEWAYS as u64
    })
    .await;
    let met = simulator.get("/faults").await;
    let met = met["faults"].as_array().unwrap().iter().all(|fault| fault["met"] != 0);
    assert!(met, "every fault met some");
    let most = peak_memory_bytes(simulator.child.id());
    eprintln!("{GATEWAYS} gateways, {} of them flying: {most} bytes at the most", docks.len());
    assert!(most <= MEMORY_BYTES_MAX, "{most} bytes");
}
