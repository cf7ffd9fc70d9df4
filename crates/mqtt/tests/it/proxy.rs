//! A TCP proxy that can hold back the broker's answers and cut connections.
#![expect(clippy::unwrap_used, reason = "a test stops where its assumption fails")]

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

use super::support::here;

pub struct Proxy {
    pub port: u16,
    hold: watch::Sender<bool>,
    cut: watch::Sender<u32>,
    /// Bytes from the client to the broker.
    pub upward: Arc<AtomicUsize>,
}

impl Proxy {
    pub async fn start(target: u16) -> Self {
        let listener = TcpListener::bind(here(0)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let hold = watch::Sender::new(false);
        let cut = watch::Sender::new(0);
        let upward = Arc::new(AtomicUsize::new(0));
        let proxy =
            Self { port, hold: hold.clone(), cut: cut.clone(), upward: Arc::clone(&upward) };
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let Ok(broker) = TcpStream::connect(here(target)).await else { continue };
                client.set_nodelay(true).unwrap();
                broker.set_nodelay(true).unwrap();
                let (mut hold, mut cut, upward) =
                    (hold.subscribe(), cut.subscribe(), Arc::clone(&upward));
                tokio::spawn(async move {
                    let (mut from_client, mut to_client) = client.into_split();
                    let (mut from_broker, mut to_broker) = broker.into_split();
                    let up = async {
                        let mut buf = [0; 4096];
                        while let Ok(bytes @ 1..) = from_client.read(&mut buf).await {
                            upward.fetch_add(bytes, Ordering::SeqCst);
                            if to_broker.write_all(&buf[..bytes]).await.is_err() {
                                break;
                            }
                        }
                    };
                    let down = async {
                        let mut buf = [0; 4096];
                        while let Ok(bytes @ 1..) = from_broker.read(&mut buf).await {
                            if hold.wait_for(|hold| !*hold).await.is_err()
                                || to_client.write_all(&buf[..bytes]).await.is_err()
                            {
                                break;
                            }
                        }
                    };
                    tokio::select! {
                        () = up => {}
                        () = down => {}
                        _ = cut.changed() => {}
                    }
                });
            }
        });
        proxy
    }

    /// Whether the broker's answers are held back.
    pub fn hold(&self, hold: bool) {
        self.hold.send_replace(hold);
    }

    /// Cuts every connection there is.
    pub fn cut(&self) {
        self.cut.send_modify(|cut| *cut += 1);
    }
}
