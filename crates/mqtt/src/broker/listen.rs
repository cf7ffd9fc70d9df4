//! Accepting connections, and the life of each.

use std::net::SocketAddr;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};

use super::connection::{Connection, End};
use super::hello::hello;
use super::leave::Leave;
use super::presence::Presence;
use super::{BrokerError, BrokerTls, Shared};
use crate::stop::stopped;

/// Pause after a failed accept, which usually means that the process has no file descriptors left.
const ACCEPT_RETRY_WAIT: Duration = Duration::from_millis(100);

pub(super) fn acceptor(tls: &BrokerTls) -> Result<TlsAcceptor, BrokerError> {
    let failed =
        |reason: String| BrokerError::Tls { cert: tls.cert.clone(), key: tls.key.clone(), reason };
    // Once, before anything runs that it could hold up.
    let read = |file| std::fs::read(file).map_err(|err| failed(err.to_string()));
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&read(&tls.cert)?).collect();
    let chain = chain.map_err(|err| failed(format!("the certificate is no PEM: {err}")))?;
    if chain.is_empty() {
        return Err(failed("there is no certificate in its file".to_owned()));
    }
    let key = PrivateKeyDer::from_pem_slice(&read(&tls.key)?)
        .map_err(|err| failed(format!("there is no key in its file: {err}")))?;
    let mut config = ServerConfig::builder()
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .map_err(|err| failed(err.to_string()))?;
    config.alpn_protocols = vec![b"mqtt".to_vec()];
    Ok(TlsAcceptor::from(Arc::new(config)))
}

/// Accepts until the broker closes, then waits for its connections to end.
pub(super) async fn accept(shared: Arc<Shared>, listener: TcpListener, tls: Option<TlsAcceptor>) {
    let mut closing = shared.closing.subscribe();
    let mut running = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((tcp, peer)) => {
                    let Some((id, leave)) = shared.places().enter(peer.ip()) else {
                        tracing::warn!(%peer, clients_max = shared.clients_max, "mqtt connection closed: too many clients");
                        continue;
                    };
                    running.spawn(serve(Arc::clone(&shared), id, tcp, peer, tls.clone(), leave));
                }
                Err(err) => {
                    tracing::warn!("cannot accept an mqtt connection: {err}");
                    tokio::time::sleep(ACCEPT_RETRY_WAIT).await;
                }
            },
            Some(ended) = running.join_next(), if !running.is_empty() => log_end(&ended),
            () = stopped(&mut closing) => break,
        }
    }
    drop(listener);
    while let Some(ended) = running.join_next().await {
        log_end(&ended);
    }
}

fn log_end(ended: &Result<(), tokio::task::JoinError>) {
    if let Err(err) = ended {
        tracing::error!("an mqtt connection's task failed: {err}");
    }
}

/// The task of a connection. There is one for each, most of them idle: it holds what a connection that has logged in needs,
/// and what it does once, at its beginning and at its end, has a place of its own meanwhile.
async fn serve(
    shared: Arc<Shared>,
    id: u64,
    tcp: TcpStream,
    peer: SocketAddr,
    tls: Option<TlsAcceptor>,
    leave: Arc<Leave>,
) {
    let mut presence = Presence::new(id, Arc::clone(&shared));
    // A fault of ours in one connection ends that one, as any other end does.
    let entering = Box::pin(enter(&shared, &mut presence, tcp, peer, tls, &leave));
    let mut is_at_fault = false;
    match AssertUnwindSafe(entering).catch_unwind().await {
        Ok(None) => {}
        Ok(Some(connection)) => {
            let life = live(connection, &mut presence, peer, &leave);
            is_at_fault = AssertUnwindSafe(life).catch_unwind().await.is_err();
        }
        Err(_) => is_at_fault = true,
    }
    if is_at_fault {
        tracing::error!(%peer, "an mqtt connection ended by a fault of the broker");
    }
    Box::pin(presence.leave()).await;
    shared.places().leave(id);
}

/// Lets it in, or not.
async fn enter(
    shared: &Arc<Shared>,
    presence: &mut Presence,
    tcp: TcpStream,
    peer: SocketAddr,
    tls: Option<TlsAcceptor>,
    leave: &Leave,
) -> Option<Box<Connection>> {
    if let Err(err) = tcp.set_nodelay(true) {
        tracing::debug!(%peer, "cannot set TCP_NODELAY: {err}");
    }
    let caller = tokio::select! {
        caller = hello(tcp, peer, tls, shared.connect_bytes_max) => caller?,
        _ = leave.told() => return None,
    };
    let connection = tokio::select! {
        connection = Connection::begin(shared, presence, caller, peer) => connection?,
        _ = leave.told() => return None,
    };
    presence.join().await;
    // Moved from future to future, it would stand in each of them.
    Some(Box::new(connection))
}

async fn live(
    mut connection: Box<Connection>,
    presence: &mut Presence,
    peer: SocketAddr,
    leave: &Leave,
) {
    let end = tokio::select! {
        end = connection.live(presence) => end,
        stop = leave.told() => stop.into(),
    };
    match &end {
        End::Farewell { .. } | End::Closed | End::Stopped(_) => {
            tracing::debug!(%peer, "mqtt connection ended: {end}");
        }
        End::Broken(_) | End::Fault(..) | End::Silent | End::Overdue | End::Unheard => {
            tracing::info!(%peer, "mqtt connection ended: {end}");
        }
    }
    Box::pin(connection.end(&end, presence)).await;
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]
    use tokio::sync::mpsc;

    use super::*;
    use crate::broker::{Broker, BrokerConfig, Doorkeeper, Entry};

    struct Nobody;

    impl Doorkeeper for Nobody {
        fn authenticate(
            &self,
            _: &str,
            _: Option<&str>,
            _: Option<&[u8]>,
            _: Option<SocketAddr>,
        ) -> Entry {
            Entry::Refused
        }

        fn may_publish(&self, _: &str, _: &str) -> bool {
            false
        }

        fn may_subscribe(&self, _: &str, _: &str) -> bool {
            false
        }
    }

    // Each of ten thousand idle docks has one. A wait that grows it belongs into a box where it is rare.
    #[tokio::test]
    async fn the_task_of_a_connection_is_small() {
        const BYTES_MAX: usize = 1_024;
        let (inbound, _heard) = mpsc::channel(1);
        let config = BrokerConfig::new("127.0.0.1:0".parse().unwrap());
        let broker = Broker::start(config, Arc::new(Nobody), inbound).await.unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let _client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (tcp, peer) = listener.accept().await.unwrap();
        let task = serve(Arc::clone(&broker.shared), 1, tcp, peer, None, Leave::new());
        let bytes = size_of_val(&task);
        assert!(bytes <= BYTES_MAX, "{bytes} bytes");
    }
}
