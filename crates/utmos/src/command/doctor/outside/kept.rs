//! Whether a broker keeps commands for a device that is away, and if so, whether it lets go of them when they expire.
//!
//! A persistent session of MQTT 3.1.1, which is what docks speak, subscribes and leaves; somebody publishes as the server does;
//! the session comes back.

use std::time::Duration;

use utmos_mqtt::{ClientConfig, Probe, Protocol, ProtocolChoice, Qos, Session};

use super::{AGAIN_MAX, AGAIN_WAIT, Finding, Outside, client_id, nobody};

/// How long a kept message may take to come once the session is back.
const KEPT_WAIT: Duration = Duration::from_secs(2);
const SHORT_EXPIRY: Duration = Duration::from_secs(1);
/// Past it, a message of short expiry is gone.
const EXPIRED_WAIT: Duration = Duration::from_millis(2500);
const SESSION_WAIT: Duration = Duration::from_secs(60);

/// What was found.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Kept {
    /// Nothing came.
    Nothing,
    /// What had time left came, what had expired did not.
    UntilExpiry,
    /// It came, and there is no expiry, or none that counts.
    Stale,
    /// The same, but not with QoS 0.
    StaleUnlessQos0,
    /// The broker did not let us try.
    Unknown(String),
}

/// Tries it.
pub async fn check(outside: &Outside) -> Finding {
    let found = look(outside).await.unwrap_or_else(Kept::Unknown);
    judge(&found, outside.protocol, outside.is_shared)
}

async fn look(outside: &Outside) -> Result<Kept, String> {
    match outside.protocol {
        Protocol::V311 => {
            let is_kept = tried(outside, outside.command_qos, None).await?;
            Ok(match (is_kept, outside.command_qos) {
                (false, _) => Kept::Nothing,
                (true, Qos::AtLeastOnce | Qos::ExactlyOnce)
                    if !tried(outside, Qos::AtMostOnce, None).await? =>
                {
                    Kept::StaleUnlessQos0
                }
                (true, _) => Kept::Stale,
            })
        }
        Protocol::V5 => {
            let (long, short) = tokio::join!(
                tried(outside, outside.command_qos, None),
                tried(outside, outside.command_qos, Some(SHORT_EXPIRY))
            );
            Ok(match (long?, short?) {
                (_, true) => Kept::Stale,
                (true, false) => Kept::UntilExpiry,
                (false, false) => Kept::Nothing,
            })
        }
    }
}

/// The same as [`once`], again where the broker cut it short: some do so to a client id that was there a moment ago.
async fn tried(outside: &Outside, qos: Qos, expiry: Option<Duration>) -> Result<bool, String> {
    let mut last = once(outside, qos, expiry).await;
    for _ in 1..AGAIN_MAX {
        if last.is_ok() {
            break;
        }
        tokio::time::sleep(AGAIN_WAIT).await;
        last = once(outside, qos, expiry).await;
    }
    last
}

/// Whether a message came to a session that was away; one with an expiry is given the time for it.
async fn once(outside: &Outside, qos: Qos, expiry: Option<Duration>) -> Result<bool, String> {
    let (away, topic) = (client_id(), format!("thing/product/{}/services", nobody()));
    let session = |is_kept: bool| {
        let config = ClientConfig {
            client_id: away.clone(),
            protocol: ProtocolChoice::V311,
            ..outside.login()
        };
        async move {
            let session = if is_kept { Session::Kept(SESSION_WAIT) } else { Session::Clean };
            let mut last = Err(String::new());
            for _ in 0..AGAIN_MAX {
                last = Probe::connect(&config, session).await;
                if last.is_ok() {
                    break;
                }
                tokio::time::sleep(AGAIN_WAIT).await;
            }
            last
        }
    };
    let outcome = async {
        let mut probe =
            session(true).await.map_err(|why| format!("no persistent session: {why}"))?;
        if !probe.subscribe(&topic, Qos::AtLeastOnce).await? {
            return Err("this user may not subscribe to a device's topic".to_owned());
        }
        probe.leave().await;
        let mut sender = outside.open().await?;
        let mut message = outside.command(&topic, "{}").with_qos(qos);
        if let Some(expiry) = expiry {
            message = message.with_expiry(expiry);
        }
        let _told = sender.publish(message).await?;
        sender.leave().await;
        if expiry.is_some() {
            tokio::time::sleep(EXPIRED_WAIT).await;
        }
        let mut probe = session(true).await?;
        let came = !probe.heard(KEPT_WAIT).await?.is_empty();
        probe.leave().await;
        Ok(came)
    }
    .await;
    // Whatever came of it, the session must not stay behind.
    if let Ok(probe) = session(false).await {
        probe.leave().await;
    }
    outcome
}

fn judge(kept: &Kept, protocol: Protocol, is_shared: bool) -> Finding {
    let other = "or use a broker with MQTT 5, or the embedded one";
    match (kept, protocol) {
        (Kept::Nothing, _) => {
            Finding::ok("broker", "keeps no commands for devices that are absent")
        }
        (Kept::UntilExpiry, _) => Finding::warn(
            "broker",
            "keeps commands for devices that are absent; their expiry bounds it to the command's own deadline",
            "where the broker can, let no session outlive its connection (Mosquitto cannot), or use the embedded broker",
        ),
        (Kept::Stale | Kept::StaleUnlessQos0, Protocol::V5) => Finding::fail(
            "broker",
            "keeps commands for devices that are absent, also when they have expired: a dock may act on an old command",
            "let no session outlive its connection, or use another broker",
        ),
        (Kept::StaleUnlessQos0, Protocol::V311) => Finding::fail(
            "broker",
            "keeps commands for devices that are absent, and MQTT 3.1.1 has no expiry: a dock may act on an old command",
            format!("it does not keep QoS 0: mqtt.external.command_qos = 0; {other}"),
        ),
        (Kept::Stale, Protocol::V311) => Finding::fail(
            "broker",
            "keeps commands for devices that are absent, and MQTT 3.1.1 has no expiry: a dock may act on an old command",
            format!(
                "let no session outlive its connection (RabbitMQ: mqtt.subscription_ttl = 1), {other}"
            ),
        ),
        (Kept::Unknown(why), _) => {
            let text = format!("whether it keeps commands for absent devices is not known: {why}");
            let remedy =
                "check it by hand: a persistent session that comes back must not get old messages";
            // Nothing bounds what a dead server left there.
            if protocol == Protocol::V311 && is_shared {
                Finding::fail(
                    "broker",
                    format!("{text}; several servers may work behind it"),
                    remedy,
                )
            } else {
                Finding::warn("broker", text, remedy)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command::doctor::finding::Verdict;

    #[test]
    fn a_broker_that_keeps_commands_without_expiry_fails() {
        let verdict = |kept: &Kept, protocol| judge(kept, protocol, false).verdict;
        assert_eq!(verdict(&Kept::Nothing, Protocol::V311), Verdict::Ok);
        assert_eq!(verdict(&Kept::UntilExpiry, Protocol::V5), Verdict::Warn);
        for protocol in [Protocol::V5, Protocol::V311] {
            assert_eq!(verdict(&Kept::Stale, protocol), Verdict::Fail);
        }
        assert!(
            judge(&Kept::StaleUnlessQos0, Protocol::V311, false).remedy.contains("command_qos = 0")
        );
        let unknown = Kept::Unknown(String::new());
        for (protocol, is_shared, expected) in [
            (Protocol::V5, true, Verdict::Warn),
            (Protocol::V311, false, Verdict::Warn),
            (Protocol::V311, true, Verdict::Fail),
        ] {
            assert_eq!(judge(&unknown, protocol, is_shared).verdict, expected);
        }
    }
}
