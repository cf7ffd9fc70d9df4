//! Whether the largest command fits.

use utmos_mqtt::{Qos, Sent};

use super::{Finding, MESSAGE_WAIT, Outside, nobody};

/// What a message carries beside a command's payload: topic, envelope, properties.
const ENVELOPE_BYTES: usize = 512;
/// What nearly every command fits in.
const USUAL_BYTES: usize = 64 * 1024;

const REMEDY: &str = "raise the broker's limit (Mosquitto: message_size_limit, EMQX: mqtt.max_packet_size, NATS: max_payload), or lower http.body_bytes_max";

/// Sends messages of the sizes that commands may have, to nobody, and looks whether they arrive.
pub async fn check(outside: &Outside, command_bytes_max: usize) -> Finding {
    let largest = command_bytes_max + ENVELOPE_BYTES;
    match passes(outside, largest).await {
        Ok(()) => Finding::ok(
            "broker",
            format!("takes messages of {largest} bytes, the largest that is sent"),
        ),
        Err(why) => match passes(outside, USUAL_BYTES.min(largest)).await {
            Ok(()) => Finding::warn(
                "broker",
                format!("takes no message of {largest} bytes, the largest that can be sent: {why}"),
                REMEDY,
            ),
            Err(why) => Finding::fail(
                "broker",
                format!("takes no message of {} bytes: {why}", USUAL_BYTES.min(largest)),
                REMEDY,
            ),
        },
    }
}

async fn passes(outside: &Outside, bytes: usize) -> Result<(), String> {
    let mut probe = outside.open().await?;
    if let Some(max) = probe.packet_bytes_max().filter(|max| *max < bytes) {
        probe.leave().await;
        return Err(format!("it says that {max} is its limit"));
    }
    let topic = format!("thing/product/{}/services", nobody());
    if !probe.subscribe(&topic, Qos::AtLeastOnce).await? {
        return Err(format!("the server's user may not subscribe to {topic}"));
    }
    let sent = probe
        .publish(outside.command(&topic, vec![b' '; bytes]).with_qos(Qos::AtLeastOnce))
        .await?;
    if let Sent::Refused(why) = sent {
        return Err(why);
    }
    let heard = probe.heard(MESSAGE_WAIT).await?;
    probe.leave().await;
    if heard.iter().any(|message| message.payload.len() == bytes) {
        Ok(())
    } else {
        Err("it did not arrive".to_owned())
    }
}
