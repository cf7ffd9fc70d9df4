//! Whether commands are retained: each dock that subscribes would get one, at any time.
//!
//! A subscription to the command topics of all devices tells, and is taken back at once: while it lasts, some ms, a command for an
//! absent dock has somebody who listens.

use std::collections::BTreeSet;

use utmos_mqtt::Qos;

use super::{Finding, MESSAGE_WAIT, Outside};

const FILTERS: [&str; 3] =
    ["thing/product/+/services", "thing/product/+/property/set", "thing/product/+/drc/down"];
/// Topics that are named.
const NAMED_MAX: usize = 3;

/// Looks for them.
pub async fn check(outside: &Outside) -> Finding {
    match look(outside).await {
        Ok(topics) => judge(&topics),
        Err(why) => Finding::warn(
            "broker",
            format!("whether commands are retained is not known: {why}"),
            "let the server's user read thing/product/+/services, property/set and drc/down, for utmos doctor",
        ),
    }
}

async fn look(outside: &Outside) -> Result<BTreeSet<String>, String> {
    let mut probe = outside.open().await?;
    for filter in FILTERS {
        let is_granted = probe.subscribe(filter, Qos::AtMostOnce).await?;
        if !is_granted {
            return Err(format!("the server's user may not subscribe to {filter}"));
        }
    }
    let mut heard = probe.heard(std::time::Duration::ZERO).await?;
    for filter in FILTERS {
        probe.unsubscribe(filter).await?;
    }
    heard.extend(probe.heard(MESSAGE_WAIT).await?);
    probe.leave().await;
    Ok(heard.into_iter().filter(|message| message.retained).map(|message| message.topic).collect())
}

fn judge(topics: &BTreeSet<String>) -> Finding {
    if topics.is_empty() {
        return Finding::ok("broker", "no commands are retained");
    }
    let named: Vec<_> = topics.iter().take(NAMED_MAX).map(String::as_str).collect();
    Finding::fail(
        "broker",
        format!(
            "retained commands wait for whoever subscribes: {} topics, such as {}",
            topics.len(),
            named.join(", ")
        ),
        "delete each by publishing an empty retained message to it (mosquitto_pub -r -n -t TOPIC), and let nobody but the server \
         publish there",
    )
}
