//! FIWARE's IoT agent: a command of the context broker in NGSI v2, to MQTT, and the dock's reply back as the command's result. The
//! script is ours, since FIWARE's own agents are not in npm's registry; their library, which does all but the way to MQTT, is.

mod context_broker;

use std::{net::SocketAddr, path::Path};

use anyhow::{Context, bail};
use serde_json::json;
use tokio::time::{Instant, sleep};

pub use self::context_broker::ContextBroker;
use super::{
    START_WAIT, TRIAL_PAUSE,
    calls::Way,
    installed::{Installed, Process},
};
use crate::command::bench::{child::free_address, http::Connection};

const AGENT: &str = include_str!("fiware/agent.js");
/// Where it takes commands.
pub const UPDATES: &str = "/v2/op/update";
/// Whose docks they are; it takes no request without.
pub const HEADERS: &str = "Fiware-Service: bench\r\nFiware-ServicePath: /docks\r\n";
const ENTITY: &str = "Dock";
const COMMAND: &str = "services";

/// Starts it, and tells it of the docks; answers where it takes commands, and how their ends are heard.
pub async fn start(
    installed: &Installed,
    broker: SocketAddr,
    docks: &[String],
    dir: &Path,
) -> anyhow::Result<(Process, SocketAddr, Way)> {
    let (http, context_broker) = (free_address()?, ContextBroker::start().await?);
    let script = dir.join("agent.js");
    std::fs::write(&script, AGENT)?;
    let arguments = [
        installed.package("").display().to_string(),
        http.port().to_string(),
        broker.ip().to_string(),
        broker.port().to_string(),
        context_broker.address.port().to_string(),
    ];
    let mut process = installed.start(&script, &arguments, dir)?;
    let by = Instant::now() + START_WAIT;
    let mut connection = loop {
        process.must_run()?;
        match Connection::open(http).await {
            Ok(connection) => break connection,
            Err(_) if Instant::now() < by => sleep(TRIAL_PAUSE).await,
            Err(error) => return Err(error).context("it does not come up"),
        }
    };
    let answer = connection.post("/iot/devices", HEADERS, devices(docks).as_bytes()).await?;
    if answer.status != 201 {
        let told = String::from_utf8_lossy(answer.body);
        bail!("the docks were answered {}: {told}", answer.status);
    }
    Ok((process, http, Way::ContextBroker(context_broker)))
}

/// The docks as it wants to be told of them.
fn devices(docks: &[String]) -> String {
    let device = |sn: &String| {
        json!({
            "device_id": sn,
            "entity_name": sn,
            "entity_type": ENTITY,
            "commands": [{"name": COMMAND, "type": "command"}],
        })
    };
    json!({"devices": docks.iter().map(device).collect::<Vec<_>>()}).to_string()
}

/// A command as a context broker would pass it on.
pub fn update(dock: &str, tid: &str, method: &str, payload: &str) -> String {
    format!(
        r#"{{"actionType":"update","entities":[{{"id":"{dock}","type":"{ENTITY}","{COMMAND}":{{"type":"command","value":{{"tid":"{tid}","method":"{method}","data":{payload}}}}}}}]}}"#
    )
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]
    use serde_json::Value;

    use super::*;

    #[test]
    fn a_dock_and_its_commands_go_by_the_same_names() {
        let devices: Value = serde_json::from_str(&devices(&["DOCK1".to_owned()])).unwrap();
        let device = &devices["devices"][0];
        let update: Value =
            serde_json::from_str(&update("DOCK1", "t-1", "cover_open", r#"{"a":1}"#)).unwrap();
        let entity = &update["entities"][0];
        assert_eq!(
            (&device["entity_name"], &device["entity_type"]),
            (&entity["id"], &entity["type"])
        );
        let name = device["commands"][0]["name"].as_str().unwrap();
        let value = json!({"tid": "t-1", "method": "cover_open", "data": {"a": 1}});
        assert_eq!(entity[name]["value"], value);
    }
}
