//! Node-RED with a flow of ours: HTTP in, MQTT out, MQTT in, matched by `tid`, HTTP response.

use std::{net::SocketAddr, path::Path};

use anyhow::Context;
use serde_json::{Value, json};

use super::installed::{Installed, Process};
use crate::command::bench::child::free_address;

/// The flow, which its editor can open; broker and function are put in.
const FLOW: &str = include_str!("node_red/flow.json");
/// The one function in it.
const GLUE: &str = include_str!("node_red/glue.js");

/// Starts it; answers where it takes commands.
pub fn start(
    installed: &Installed,
    broker: SocketAddr,
    dir: &Path,
) -> anyhow::Result<(Process, SocketAddr)> {
    let http = free_address()?;
    let settings = dir.join("settings.js");
    std::fs::write(dir.join("flow.json"), flow(broker)?.to_string())?;
    std::fs::write(&settings, format!("module.exports = {};\n", settings_of(http)))?;
    let arguments =
        ["--userDir".as_ref(), dir.as_os_str(), "--settings".as_ref(), settings.as_os_str()];
    let script = installed.package("node-red").join("red.js");
    Ok((installed.start(&script, &arguments, dir)?, http))
}

/// The flow with this broker.
fn flow(broker: SocketAddr) -> anyhow::Result<Value> {
    let mut flow: Value = serde_json::from_str(FLOW).context("the flow cannot be read")?;
    for node in flow.as_array_mut().into_iter().flatten().filter_map(Value::as_object_mut) {
        match node.get("id").and_then(Value::as_str) {
            Some("broker") => {
                node.insert("broker".to_owned(), json!(broker.ip().to_string()));
                node.insert("port".to_owned(), json!(broker.port().to_string()));
            }
            Some("glue") => {
                node.insert("func".to_owned(), json!(GLUE));
            }
            _ => {}
        }
    }
    Ok(flow)
}

/// Its defaults, without the editor and without calls to elsewhere.
fn settings_of(http: SocketAddr) -> Value {
    json!({
        "flowFile": "flow.json",
        "uiHost": http.ip().to_string(),
        "uiPort": http.port(),
        "httpAdminRoot": false,
        "credentialSecret": false,
        "telemetry": {"enabled": false},
        "logging": {"console": {"level": "warn"}},
    })
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]
    use super::*;
    use crate::command::bench::load::COMMANDS;

    #[test]
    fn the_flow_leads_from_the_commands_path_through_this_broker_and_back() {
        let flow = flow("127.0.0.1:18831".parse().unwrap()).unwrap();
        let node = |id: &str| {
            let mut nodes = flow.as_array().unwrap().iter();
            nodes.find(|node| node["id"] == id).cloned().unwrap()
        };
        assert_eq!(node("broker")["broker"], "127.0.0.1");
        assert_eq!(node("broker")["port"], "18831");
        assert_eq!(
            (&node("post")["url"], &node("post")["method"]),
            (&json!(COMMANDS), &json!("post"))
        );
        assert_eq!(node("glue")["func"], GLUE);
        for id in ["reply", "services"] {
            assert_eq!(node(id)["broker"], "broker");
            assert_eq!(node(id)["qos"], "1", "{id}");
        }
        assert_eq!(node("reply")["topic"], "thing/product/+/services_reply");
        // Whatever a wire leads to is there.
        for from in flow.as_array().unwrap() {
            for to in from["wires"].as_array().into_iter().flatten() {
                to.as_array().unwrap().iter().for_each(|to| drop(node(to.as_str().unwrap())));
            }
        }
    }

    #[test]
    fn nobody_elsewhere_reaches_it() {
        let settings = settings_of("127.0.0.1:18880".parse().unwrap());
        assert_eq!(
            (&settings["uiHost"], &settings["uiPort"]),
            (&json!("127.0.0.1"), &json!(18880))
        );
        assert_eq!(settings["httpAdminRoot"], false);
    }
}
