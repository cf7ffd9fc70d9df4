//! The broker, our own or another.

use std::{fs, time::Duration};

use tokio::sync::mpsc;
use utmos_mqtt::{Client, ClientConfig, ClientTls, Inbound, Password, Protocol, Qos};
use utmos_server::config::{EmbeddedBroker, ExternalBroker};
use uuid::Uuid;

use super::{
    finding::Finding,
    ports::{Port, ask, port},
    queueing::{self, CONNACK, Queueing, connect_packet},
};

const CONNECT_WAIT: Duration = Duration::from_secs(10);
const INBOUND_MAX: usize = 64;

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
            let greeting = connect_packet("utmos-doctor", None, true);
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

/// Connects as the server would, and tries whether commands are kept for absent devices.
pub async fn external(broker: &ExternalBroker) -> Vec<Finding> {
    let password = match broker.password_file.as_ref().map(fs::read_to_string).transpose() {
        Ok(password) => password.map(|text| text.trim_end_matches(['\r', '\n']).to_owned()),
        Err(err) => {
            let text = format!("the password file cannot be read: {err}");
            return vec![Finding::fail(
                "broker",
                text,
                "check mqtt.external.password_file and its permissions",
            )];
        }
    };
    let connected = connect(broker, password.as_deref()).await;
    let mut findings = vec![judge_connection(broker, &connected)];
    if let Ok(protocol) = connected {
        let queueing = if broker.tls {
            Queueing::Unknown("over TLS this is not tried".to_owned())
        } else {
            queueing::probe(
                &broker.host,
                broker.port,
                broker.username.as_deref(),
                password.as_deref(),
            )
            .await
        };
        findings.push(judge_queueing(&queueing, protocol));
    }
    findings
}

async fn connect(broker: &ExternalBroker, password: Option<&str>) -> Result<Protocol, String> {
    // Not the server's own client id: that would cut its connection.
    let mut config =
        ClientConfig::new(&broker.host, broker.port, format!("utmos-doctor-{}", Uuid::new_v4()));
    config.username.clone_from(&broker.username);
    config.password = password.map(|password| Password::new(password.as_bytes()));
    config.protocol = broker.protocol;
    config.tls =
        broker.tls.then(|| ClientTls { ca_file: broker.ca_file.clone(), server_name: None });
    config.subscriptions = broker.filters().map(|filter| (filter, Qos::AtLeastOnce)).collect();
    let (sender, mut inbound) = mpsc::channel(INBOUND_MAX);
    let client = Client::start(config, sender);
    let outcome = tokio::time::timeout(CONNECT_WAIT, async {
        loop {
            match inbound.recv().await {
                Some(Inbound::LinkUp { protocol }) => return Ok(protocol),
                Some(Inbound::LinkDown { reason }) => return Err(reason),
                Some(
                    Inbound::Message { .. }
                    | Inbound::Joined { .. }
                    | Inbound::Subscribed { .. }
                    | Inbound::Left { .. },
                ) => {}
                None => return Err("the client ended".to_owned()),
            }
        }
    });
    let outcome = outcome
        .await
        .unwrap_or_else(|_| Err(format!("no answer within {} s", CONNECT_WAIT.as_secs())));
    client.shutdown().await;
    outcome
}

fn judge_connection(broker: &ExternalBroker, connected: &Result<Protocol, String>) -> Finding {
    let address = format!("{}:{}", broker.host, broker.port);
    match connected {
        Ok(Protocol::V5) => {
            Finding::ok("broker", format!("{address} speaks MQTT 5 and grants every subscription"))
        }
        Ok(Protocol::V311) => Finding::warn(
            "broker",
            format!(
                "{address} speaks MQTT 3.1.1: commands cannot carry an expiry, and nobody tells who is absent"
            ),
            "use a broker with MQTT 5, such as mosquitto 2",
        ),
        Err(reason) => Finding::fail(
            "broker",
            format!("{address}: {reason}"),
            "check mqtt.external.host, port, username, password_file and tls, and the broker's access rules",
        ),
    }
}

fn judge_queueing(queueing: &Queueing, protocol: Protocol) -> Finding {
    // Mosquitto 2 keeps at least one message whatever its limits say, so that no setting of it is named here.
    let remedy_v5 = "where the broker can, let no session outlive its connection (Mosquitto cannot), or use the embedded broker";
    let remedy_v311 = "let the server speak MQTT 5 to it (mqtt.external.protocol = \"auto\"), or use the embedded broker";
    match (queueing, protocol) {
        (Queueing::No, _) => Finding::ok("broker", "keeps no commands for devices that are absent"),
        (Queueing::Yes, Protocol::V5) => Finding::warn(
            "broker",
            "keeps commands for devices that are absent; their expiry bounds it to the command's own deadline",
            remedy_v5,
        ),
        (Queueing::Yes, Protocol::V311) => Finding::fail(
            "broker",
            "keeps commands for devices that are absent, and MQTT 3.1.1 has no expiry: a dock may act on an old command",
            remedy_v311,
        ),
        (Queueing::Unknown(why), _) => Finding::warn(
            "broker",
            format!("whether it keeps commands for absent devices is not known: {why}"),
            "check it by hand: a persistent session that comes back must not get old messages",
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command::doctor::finding::Verdict;

    #[test]
    fn a_broker_that_keeps_commands_without_expiry_fails() {
        let verdict = |queueing: &Queueing, protocol| judge_queueing(queueing, protocol).verdict;
        assert_eq!(verdict(&Queueing::No, Protocol::V311), Verdict::Ok);
        assert_eq!(verdict(&Queueing::Yes, Protocol::V5), Verdict::Warn);
        assert_eq!(verdict(&Queueing::Yes, Protocol::V311), Verdict::Fail);
        assert_eq!(verdict(&Queueing::Unknown(String::new()), Protocol::V5), Verdict::Warn);
    }
}
