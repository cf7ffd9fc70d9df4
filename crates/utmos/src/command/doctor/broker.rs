//! The broker of our own.

use std::fs;

use utmos_server::config::EmbeddedBroker;

use super::{
    finding::Finding,
    greeting::{CONNACK, connect_packet},
    ports::{Port, ask, port},
};

/// Looks at the ports of the embedded broker and the files of its TLS.
pub async fn embedded(broker: &EmbeddedBroker) -> Vec<Finding> {
    let mut findings = Vec::new();
    let address = broker.listen;
    findings.push(match port(address).await {
        Port::Free => Finding::ok("mqtt port", format!("{address} is free: the broker can start")),
        Port::Refused(reason) => Finding::fail(
            "mqtt port",
            format!("{address} cannot be listened on: {reason}"),
            "choose an address of this machine and a port this user may use (mqtt.embedded.listen)",
        ),
        Port::Taken => {
            let greeting = connect_packet("utmos-doctor");
            // Without a password the broker refuses, and that is an answer.
            let answers = ask(address, &greeting)
                .await
                .is_some_and(|answer| answer.first() == Some(&CONNACK));
            if answers {
                Finding::ok("mqtt port", format!("a broker answers at {address}"))
            } else {
                Finding::fail(
                    "mqtt port",
                    format!("another program uses {address}"),
                    "stop it, or choose another port (mqtt.embedded.listen)",
                )
            }
        }
    });
    if address.ip().is_loopback() && broker.tls.is_none() {
        findings.push(Finding::warn(
            "mqtt port",
            format!("{address} lets in devices of this machine only, which are simulated ones"),
            "for real docks: mqtt.embedded.listen = \"0.0.0.0:1883\", or tls_listen",
        ));
    }
    for (key, file) in broker
        .tls
        .iter()
        .flat_map(|tls| [("tls_cert_file", &tls.cert_file), ("tls_key_file", &tls.key_file)])
    {
        if let Err(err) = fs::read(file) {
            findings.push(Finding::fail(
                "mqtt tls",
                format!("{} cannot be read: {err}", file.display()),
                format!("check mqtt.embedded.{key}"),
            ));
        }
    }
    findings
}
