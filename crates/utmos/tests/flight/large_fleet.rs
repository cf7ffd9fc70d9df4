//! A thousand simulated gateways of every model in one process, at the server's own broker: how much memory that takes.

use std::process::{Child, Stdio};

use utmos_sim::Model;

use crate::{
    flood::sockets_for,
    place::{Place, SEED},
    process::{peak_memory_mib, until},
};

const GATEWAYS: usize = 1_000;
/// What they may take, at the most there ever was.
const MEMORY_MIB_MAX: u64 = 200;
const MODELS: [Model; 6] =
    [Model::Dock1, Model::Dock2, Model::Dock3, Model::Dock3M4td, Model::RcPro, Model::RcPlus2];
/// So many messages of each of them have come before it is looked.
const MESSAGES_EACH: u64 = 10;

/// The simulator; it ends with the test.
struct Simulator(Child);

impl Drop for Simulator {
    fn drop(&mut self) {
        let _gone = self.0.kill();
        let _gone = self.0.wait();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_gateways_of_every_model_take_less_than_200_mb() {
    // Each is a connection of the server as well.
    if sockets_for(GATEWAYS) < GATEWAYS {
        return;
    }
    let models: Vec<Model> = MODELS.into_iter().cycle().take(GATEWAYS).collect();
    let (place, _) = Place::with_models(&models).await;
    let _server = place.spawn(None).await;
    let (broker, seed) = (format!("{}:1883", place.address), SEED.to_string());
    let names = MODELS.map(Model::as_str).join(",");
    let count = GATEWAYS.to_string();
    let arguments =
        ["sim", "--broker", &broker, "--docks", &count, "--model", &names, "--seed", &seed];
    let mut simulate = place.utmos(&arguments);
    let simulator =
        Simulator(simulate.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap());
    let api = place.api();
    until("not all of them come", async || {
        api.figure("devices_online").await >= 2 * GATEWAYS as u64
    })
    .await;
    until("they tell nothing", async || {
        api.figure("telemetry_messages_total").await >= MESSAGES_EACH * GATEWAYS as u64
    })
    .await;
    let most = peak_memory_mib(simulator.0.id());
    assert!(most <= MEMORY_MIB_MAX, "{most} MiB");
}
