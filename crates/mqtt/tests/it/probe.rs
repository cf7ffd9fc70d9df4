//! The probe before a broker that is late: what it says it has done the broker has taken in.
#![expect(clippy::unwrap_used, reason = "a test stops where its assumption fails")]

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};
use utmos_mqtt::{ClientConfig, Probe, ProtocolChoice, Publish, Qos, Session};

use crate::support::soon;

const PINGREQ: [u8; 2] = [0xc0, 0x00];
const DISCONNECT: [u8; 2] = [0xe0, 0x00];

async fn read_up_to(peer: &mut TcpStream, end: [u8; 2]) {
    let mut read = Vec::new();
    while !read.ends_with(&end) {
        assert_ne!(peer.read_buf(&mut read).await.unwrap(), 0, "{read:?}");
    }
}

/// Doctor took a command of QoS 0 that a busy NATS had not handled yet for one that it had kept.
#[tokio::test]
async fn what_was_published_with_qos_0_and_that_one_has_left_is_known_to_the_broker_afterwards() {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let (took, saw_off) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
    let broker = tokio::spawn({
        let (took, saw_off) = (took.clone(), saw_off.clone());
        async move {
            let (mut peer, _) = listener.accept().await.unwrap();
            let mut connect = Vec::new();
            while connect.len() < 2 || connect.len() < 2 + usize::from(connect[1]) {
                assert_ne!(peer.read_buf(&mut connect).await.unwrap(), 0);
            }
            peer.write_all(&[0x20, 0x02, 0x00, 0x00]).await.unwrap();
            read_up_to(&mut peer, PINGREQ).await;
            took.store(true, Ordering::Relaxed);
            peer.write_all(&[0xd0, 0x00]).await.unwrap();
            read_up_to(&mut peer, DISCONNECT).await;
            saw_off.store(true, Ordering::Relaxed);
        }
    });
    let config = ClientConfig {
        protocol: ProtocolChoice::V311,
        ..ClientConfig::new("127.0.0.1", port, "probe")
    };
    let mut probe = soon("a greeting", Probe::connect(&config, Session::Clean)).await.unwrap();
    let message = Publish::new("thing/product/D1/services", "{}").with_qos(Qos::AtMostOnce);
    soon("a ping's answer", probe.publish(message)).await.unwrap();
    assert!(took.load(Ordering::Relaxed));
    soon("the end", probe.leave()).await;
    assert!(saw_off.load(Ordering::Relaxed));
    broker.await.unwrap();
}
