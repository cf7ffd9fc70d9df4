//! A message leaves at most once, whatever happens to the link.

use std::sync::Arc;
use std::time::Duration;

use utmos_mqtt::{BrokerConfig, Sent};

use super::proxy::Proxy;
use super::support::{
    Any, Mosquitto, config, here, is_confirmed, own, own_with, send, soon, until, up, up_as,
};

const TOPIC: &str = "thing/product/observer/services";

/// The broker got the message, its confirmation never came, and the client came back: still once.
async fn cut_before_the_confirmation(broker: Any) {
    let watcher = up_as(broker.port(), "observer", &[TOPIC]).await;
    let proxy = Proxy::start(broker.port()).await;
    let mut settings = config(proxy.port, "observer", &[]);
    "id-sender".clone_into(&mut settings.client_id);
    let sender = up(settings).await;

    for round in 1..=3 {
        proxy.hold(true);
        let message = format!("take off {round}");
        let out = Arc::clone(&sender.out);
        let words = message.clone();
        let publish = tokio::spawn(async move { send(&out, TOPIC, &words).await });
        until("the message at the broker", || {
            watcher.told.count(&format!("{TOPIC} {message}")) == 1
        })
        .await;
        proxy.cut();
        assert_eq!(soon("the result", publish).await.ok(), Some(Sent::Unknown));
        proxy.hold(false);
        until("the next link", || sender.told.ups().len() == round + 1).await;
        assert_eq!(sender.told.downs().len(), round);
        let marker = format!("marker {round}");
        assert!(is_confirmed(&send(&sender.out, TOPIC, &marker).await));
        until("the marker", || watcher.told.count(&format!("{TOPIC} {marker}")) == 1).await;
        assert_eq!(
            watcher.told.count(&format!("{TOPIC} {message}")),
            1,
            "once, also after the reconnect"
        );
    }
}

#[tokio::test]
async fn own_a_publish_cut_before_its_confirmation_is_unknown_and_never_sent_again() {
    cut_before_the_confirmation(Any::Own(own().await)).await;
}

#[tokio::test]
async fn mosquitto_a_publish_cut_before_its_confirmation_is_unknown_and_never_sent_again() {
    cut_before_the_confirmation(Any::Mosquitto(Mosquitto::start().await)).await;
}

/// Publishes in a stream until told to stop; returns each message's result.
fn stream(
    out: Arc<dyn utmos_mqtt::Outlet>,
    stop: Arc<std::sync::atomic::AtomicBool>,
) -> tokio::task::JoinHandle<Vec<Sent>> {
    tokio::spawn(async move {
        let mut results = Vec::new();
        while !stop.load(std::sync::atomic::Ordering::SeqCst) {
            let sent = send(&out, TOPIC, &results.len().to_string()).await;
            if sent == Sent::NotConnected {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            results.push(sent);
        }
        results
    })
}

fn assert_at_most_once(results: &[Sent], received: &[String]) {
    for (number, sent) in results.iter().enumerate() {
        let count =
            received.iter().filter(|message| **message == format!("{TOPIC} {number}")).count();
        assert!(count <= 1, "message {number} ({sent:?}) arrived {count} times");
        assert!(
            count == 0 || *sent != Sent::NotConnected,
            "message {number} arrived although it was not sent"
        );
    }
}

#[tokio::test]
async fn mosquitto_killed_and_restarted_nothing_is_sent_twice() {
    let mut mosquitto = Mosquitto::start().await;
    let watcher = up_as(mosquitto.port, "observer", &[TOPIC]).await;
    let mut settings = config(mosquitto.port, "observer", &[]);
    "id-sender".clone_into(&mut settings.client_id);
    let sender = up(settings).await;
    let stop = Arc::default();
    let results = stream(Arc::clone(&sender.out), Arc::clone(&stop));
    for round in 2..=4 {
        let before = watcher.told.messages().len();
        until("traffic", || watcher.told.messages().len() > before + 50).await;
        mosquitto.kill();
        until("the loss to be noticed", || !sender.client.is_up()).await;
        mosquitto.start_again().await;
        until("both back", || {
            watcher.told.ups().len() == round && sender.told.ups().len() == round
        })
        .await;
    }
    let before = watcher.told.messages().len();
    until("traffic at the end", || watcher.told.messages().len() > before).await;
    stop.store(true, std::sync::atomic::Ordering::SeqCst);
    let results = soon("the stream's end", results).await.unwrap_or_default();
    assert!(results.contains(&Sent::NotConnected) && results.iter().any(is_confirmed));
    assert_at_most_once(&results, &watcher.told.messages());
}

#[tokio::test]
async fn own_broker_stopped_and_restarted_nothing_is_sent_twice() {
    let first = own().await;
    let port = first.broker.local_addr().port();
    let mut settings = config(port, "observer", &[]);
    "id-sender".clone_into(&mut settings.client_id);
    let sender = up(settings).await;
    let stop = Arc::default();
    let results = stream(Arc::clone(&sender.out), Arc::clone(&stop));
    until("traffic", || first.told.messages().len() > 50).await;
    soon("the shutdown", first.broker.shutdown()).await;
    until("the loss to be noticed", || !sender.client.is_up()).await;
    until("a message to a broker that is not there", || !sender.told.downs().is_empty()).await;
    let second = own_with(BrokerConfig::new(here(port))).await;
    until("traffic again", || second.told.messages().len() > 50).await;
    stop.store(true, std::sync::atomic::Ordering::SeqCst);
    let results = soon("the stream's end", results).await.unwrap_or_default();
    let received = [first.told.messages(), second.told.messages()].concat();
    assert_at_most_once(&results, &received);
}
