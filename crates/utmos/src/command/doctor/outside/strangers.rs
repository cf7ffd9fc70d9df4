//! Whether somebody else, one without a login or with that of a dock, reads or writes the topics of a device that is not theirs.

use std::time::Duration;

use utmos_mqtt::{ClientConfig, Password, Probe, Publish, Qos, Session};

use super::{Finding, MESSAGE_WAIT, Outside, client_id, nobody};

const REMEDY: &str = "give every user its own topics and nothing else: `utmos broker config mosquitto` and `emqx` write such rules";

/// A second login.
pub struct Login {
    /// User name.
    pub username: String,
    /// Password, where it has one.
    pub password: Option<String>,
}

/// What a stranger can do to a device that is not theirs.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Reach {
    reads: bool,
    commands: bool,
    speaks: bool,
}

/// Tries it without a login, and with the second one.
pub async fn check(outside: &Outside, other: Option<&Login>) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut anonymous = ClientConfig { client_id: client_id(), ..outside.client.clone() };
    (anonymous.username, anonymous.password) = (None, None);
    if let Some(tls) = &mut anonymous.tls {
        tls.client_certificate = None;
    }
    match Probe::connect(&anonymous, Session::Clean).await {
        Err(_) => findings.push(Finding::ok("broker", "lets in nobody without a login")),
        Ok(probe) => {
            probe.leave().await;
            findings.push(judge("anybody, without a login,", trespass(outside, &anonymous).await));
        }
    }
    let Some(other) = other else { return findings };
    // A dock that is there has its serial number as its client id, and must not be thrown out.
    let mut login = ClientConfig { client_id: client_id(), ..anonymous };
    login.username = Some(other.username.clone());
    login.password = other.password.as_ref().map(|password| Password::new(password.as_bytes()));
    findings.push(match Probe::connect(&login, Session::Clean).await {
        Ok(probe) => {
            probe.leave().await;
            judge(&format!("user {}", other.username), trespass(outside, &login).await)
        }
        Err(why) => Finding::fail(
            "broker",
            format!("user {}: {why}", other.username),
            "check --as-user and --as-password-file",
        ),
    });
    findings
}

async fn trespass(outside: &Outside, stranger: &ClientConfig) -> Result<Reach, String> {
    let topic = |end: &str, sn: &str| format!("thing/product/{sn}/{end}");
    let sn = nobody();
    let mut server = outside.open().await?;
    for end in ["services", "services_reply"] {
        if !server.subscribe(&topic(end, &sn), Qos::AtLeastOnce).await? {
            return Err(format!("the server's user may not subscribe to {}", topic(end, &sn)));
        }
    }
    let mut spy = Probe::connect(stranger, Session::Clean).await?;
    let may_listen =
        spy.subscribe(&topic("services", &sn), Qos::AtLeastOnce).await.unwrap_or(false);
    let _told = server.publish(outside.command(&topic("services", &sn), "read")).await?;
    let heard = server.heard(MESSAGE_WAIT).await?;
    if heard.is_empty() {
        return Err("the server's own message did not come back to it".to_owned());
    }
    // A broker that cuts off whoever asks for too much lets nothing through either.
    let reads = may_listen && spy.heard(MESSAGE_WAIT).await.is_ok_and(|heard| !heard.is_empty());
    for (end, word) in [("services", "command"), ("services_reply", "speak")] {
        let config = ClientConfig { client_id: client_id(), ..stranger.clone() };
        if let Ok(mut forger) = Probe::connect(&config, Session::Clean).await {
            let _refused = forger.publish(Publish::new(topic(end, &sn), word)).await;
            forger.leave().await;
        }
    }
    let forged = server.heard(MESSAGE_WAIT + Duration::from_millis(500)).await?;
    server.leave().await;
    let came = |word: &str| forged.iter().any(|message| message.payload == word.as_bytes());
    Ok(Reach { reads, commands: came("command"), speaks: came("speak") })
}

fn judge(who: &str, reach: Result<Reach, String>) -> Finding {
    match reach {
        Err(why) => Finding::warn(
            "broker",
            format!("what {who} reaches of other devices is not known: {why}"),
            "let the server's user read thing/product/+/services, for utmos doctor",
        ),
        Ok(reach) if reach == Reach::default() => {
            Finding::ok("broker", format!("{who} reaches no topic of another device"))
        }
        Ok(Reach { reads, commands, speaks }) => {
            let what: Vec<_> = [
                (commands, "can command other devices"),
                (speaks, "can speak for other devices"),
                (reads, "can read what other devices are told"),
            ]
            .into_iter()
            .filter_map(|(is_so, what)| is_so.then_some(what))
            .collect();
            Finding::fail("broker", format!("{who} {}", what.join(", ")), REMEDY)
        }
    }
}
