//! A broker that is not ours: whether it can be reached, and whether anything about it would let a command reach a device late,
//! twice, or the wrong one. Everything is tried on topics of no device.

mod kept;
mod retained;
mod shared;
mod size;
mod strangers;

use std::time::Duration;

use tokio::sync::mpsc;
use utmos_mqtt::{
    Client, ClientConfig, Inbound, Probe, Protocol, ProtocolChoice, Publish, Qos, Session,
};
use utmos_server::{config::ExternalBroker, outside_client};
use uuid::Uuid;

use super::finding::Finding;

pub use self::strangers::Login;

const CONNECT_WAIT: Duration = Duration::from_secs(10);
const INBOUND_MAX: usize = 64;
/// How long a message may take through a broker that is well.
const MESSAGE_WAIT: Duration = Duration::from_secs(1);
/// Some brokers (NATS) turn away a client id that was there a moment ago.
const AGAIN_WAIT: Duration = Duration::from_millis(1500);
const AGAIN_MAX: usize = 3;

/// The broker, and how the server logs in there.
struct Outside {
    client: ClientConfig,
    protocol: Protocol,
    command_qos: Qos,
    /// Whether several servers may work behind it.
    is_shared: bool,
}

impl Outside {
    /// How the server connects, under a client id of its own: the server's would cut the server off.
    fn login(&self) -> ClientConfig {
        ClientConfig { client_id: client_id(), ..self.client.clone() }
    }

    async fn open(&self) -> Result<Probe, String> {
        Probe::connect(&self.login(), Session::Clean).await
    }

    /// A message as the server sends its commands.
    fn command(&self, topic: &str, payload: impl Into<Vec<u8>>) -> Publish {
        Publish::new(topic, payload.into())
            .with_qos(self.command_qos)
            .with_expiry(Duration::from_secs(120))
    }
}

fn client_id() -> String {
    format!("utmos-doctor-{}", Uuid::new_v4().simple())
}

/// The serial number of no device.
fn nobody() -> String {
    format!("UTMOS-DOCTOR-{}", Uuid::new_v4().simple())
}

/// Looks at it. `command_bytes_max` is the largest command that can be sent; `other` a second login, which may be a dock's;
/// `is_shared` whether several servers may work behind it.
pub async fn check(
    broker: &ExternalBroker,
    command_bytes_max: usize,
    other: Option<&Login>,
    is_shared: bool,
) -> Vec<Finding> {
    let client = match outside_client(broker) {
        Ok(client) => client,
        Err(err) => {
            let cause = std::error::Error::source(&err).map(|cause| format!(": {cause}"));
            return vec![Finding::fail(
                "broker",
                format!("{err}{}", cause.unwrap_or_default()),
                "mend the file or the setting, then run utmos doctor again",
            )];
        }
    };
    let connected = connect(client.clone()).await;
    let mut findings = vec![judge_connection(broker, &connected, is_shared)];
    let Ok(protocol) = connected else { return findings };
    let mut client = client;
    // What was agreed on is not asked for again at every step.
    client.protocol = match protocol {
        Protocol::V5 => ProtocolChoice::V5,
        Protocol::V311 => ProtocolChoice::V311,
    };
    let outside = Outside { client, protocol, command_qos: broker.command_qos, is_shared };
    findings.push(kept::check(&outside).await);
    findings.push(retained::check(&outside).await);
    findings.extend(strangers::check(&outside, other).await);
    findings.push(size::check(&outside, command_bytes_max).await);
    findings.extend(shared::check(&outside).await);
    findings
}

/// Connects exactly as the server does, with all its subscriptions.
async fn connect(config: ClientConfig) -> Result<Protocol, String> {
    let (sender, mut inbound) = mpsc::channel(INBOUND_MAX);
    let client = Client::start(ClientConfig { client_id: client_id(), ..config }, sender);
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

fn judge_connection(
    broker: &ExternalBroker,
    connected: &Result<Protocol, String>,
    is_shared: bool,
) -> Finding {
    let shared =
        if is_shared { "; what a server sent before it died no other can take back" } else { "" };
    let address = format!("{}:{}", broker.host, broker.port);
    match connected {
        Ok(Protocol::V5) => {
            Finding::ok("broker", format!("{address} speaks MQTT 5 and grants every subscription"))
        }
        Ok(Protocol::V311) => Finding::warn(
            "broker",
            format!(
                "{address} speaks MQTT 3.1.1: commands cannot carry an expiry, and nobody tells who is absent{shared}"
            ),
            "use a broker with MQTT 5, such as mosquitto 2; or see docs/outside-broker.md for what makes this one safe",
        ),
        Err(reason) => Finding::fail("broker", format!("{address}: {reason}"), remedy(reason)),
    }
}

/// The settings that a reason for not being connected points to.
fn remedy(reason: &str) -> String {
    let keys = ["ca_file", "client_cert_file", "client_key_file", "host", "username", "client_id"];
    let named: Vec<_> = keys
        .into_iter()
        .filter(|key| {
            reason.split(|c: char| !c.is_alphanumeric() && c != '_').any(|word| word == *key)
        })
        .map(|key| format!("mqtt.external.{key}"))
        .collect();
    if reason.contains("refused the subscription") {
        "give the server's user the topics in docs/outside-broker.md; `utmos broker config` writes the rules".to_owned()
    } else if named.is_empty() {
        "check mqtt.external.host, port, username, password_file and tls, and the broker's access rules".to_owned()
    } else {
        format!("check {}", named.join(", "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_remedy_names_the_settings_that_the_reason_names() {
        assert_eq!(
            remedy("not signed by the authority in ca_file (/x)"),
            "check mqtt.external.ca_file"
        );
        assert!(
            remedy("set client_cert_file and client_key_file")
                .contains("mqtt.external.client_key_file")
        );
        assert!(remedy("cannot connect to localhost:1: refused").contains("password_file"));
        assert!(
            remedy("the broker refused the subscription to x: y").contains("utmos broker config")
        );
    }
}
