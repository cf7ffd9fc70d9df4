//! Accepting connections, and the life of each.

use std::net::SocketAddr;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};

use super::connection::{Connection, End};
use super::hello::hello;
use super::presence::Presence;
use super::{BrokerError, BrokerTls, Shared, Stop};
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
                    let Some((id, stop)) = shared.places().enter(peer.ip()) else {
                        tracing::warn!(%peer, clients_max = shared.clients_max, "mqtt connection closed: too many clients");
                        continue;
                    };
                    running.spawn(serve(Arc::clone(&shared), id, tcp, peer, tls.clone(), stop));
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

async fn serve(
    shared: Arc<Shared>,
    id: u64,
    tcp: TcpStream,
    peer: SocketAddr,
    tls: Option<TlsAcceptor>,
    stop: watch::Receiver<Stop>,
) {
    if let Err(err) = tcp.set_nodelay(true) {
        tracing::debug!(%peer, "cannot set TCP_NODELAY: {err}");
    }
    let mut presence = Presence::new(id, Arc::clone(&shared));
    // A fault of ours in one connection ends that one, as any other end does.
    let life = AssertUnwindSafe(live(&shared, &mut presence, tcp, peer, tls, stop)).catch_unwind();
    if life.await.is_err() {
        tracing::error!(%peer, "an mqtt connection ended by a fault of the broker");
    }
    presence.leave().await;
    shared.places().leave(id);
}

async fn live(
    shared: &Arc<Shared>,
    presence: &mut Presence,
    tcp: TcpStream,
    peer: SocketAddr,
    tls: Option<TlsAcceptor>,
    stop: watch::Receiver<Stop>,
) {
    let must_end = must_end(stop, shared.closing.subscribe());
    tokio::pin!(must_end);
    let caller = tokio::select! {
        caller = hello(tcp, peer, tls, shared.connect_bytes_max) => caller,
        _ = &mut must_end => return,
    };
    let Some(caller) = caller else { return };
    let connection = tokio::select! {
        connection = Connection::begin(shared, presence, caller, peer) => connection,
        _ = &mut must_end => return,
    };
    let Some(mut connection) = connection else { return };
    presence.join().await;
    let end = tokio::select! {
        end = connection.live(presence) => end,
        stop = &mut must_end => stop.into(),
    };
    match &end {
        End::Farewell { .. } | End::Closed | End::Stopped(_) => {
            tracing::debug!(%peer, "mqtt connection ended: {end}");
        }
        End::Broken(_) | End::Fault(..) | End::Silent | End::Overdue | End::Unheard => {
            tracing::info!(%peer, "mqtt connection ended: {end}");
        }
    }
    connection.end(&end, presence).await;
}

/// Waits until the connection must end.
async fn must_end(mut stop: watch::Receiver<Stop>, mut closing: watch::Receiver<bool>) -> Stop {
    tokio::select! {
        stop = async { stop.wait_for(|stop| *stop != Stop::No).await.map_or(Stop::Dismissed, |stop| *stop) } => stop,
        () = stopped(&mut closing) => Stop::Dismissed,
    }
}
