//! Whether the broker has shared subscriptions, which servers do without: every one of them hears everything.

use utmos_mqtt::{Protocol, Qos};

use super::{Finding, MESSAGE_WAIT, Outside, nobody};

const MESSAGES: usize = 4;

/// Two listen as one; each message must come to one of them.
pub async fn check(outside: &Outside) -> Option<Finding> {
    match outside.protocol {
        // What looks like a shared subscription is a topic like any other there.
        Protocol::V311 => None,
        Protocol::V5 => Some(match look(outside).await {
            Ok(true) => Finding::ok("broker", "has shared subscriptions; servers do not use them"),
            Ok(false) | Err(_) => {
                Finding::ok("broker", "has no shared subscriptions; servers do not use them")
            }
        }),
    }
}

async fn look(outside: &Outside) -> Result<bool, String> {
    let topic = format!("thing/product/{}/services", nobody());
    let filter = format!("$share/{}/{topic}", super::client_id());
    let (mut first, mut second) = (outside.open().await?, outside.open().await?);
    if !first.subscribe(&filter, Qos::AtLeastOnce).await?
        || !second.subscribe(&filter, Qos::AtLeastOnce).await?
    {
        return Ok(false);
    }
    let mut sender = outside.open().await?;
    for _ in 0..MESSAGES {
        let _told =
            sender.publish(outside.command(&topic, "shared").with_qos(Qos::AtLeastOnce)).await?;
    }
    let (first_heard, second_heard) =
        tokio::join!(first.heard(MESSAGE_WAIT), second.heard(MESSAGE_WAIT));
    let count = first_heard?.len() + second_heard?.len();
    for probe in [first, second, sender] {
        probe.leave().await;
    }
    Ok(count == MESSAGES)
}
