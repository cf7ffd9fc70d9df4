//! Accepting connections, and the life of each.

use std::io;
use std::net::SocketAddr;
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use futures_util::FutureExt;
use mqtt5::broker::router::{DeliveryLanes, MessageRouter};
use mqtt5::broker::tls_acceptor::TlsAcceptorConfig;
use mqtt5::broker::transport::BrokerTransport;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{broadcast, oneshot, watch};
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;

use super::door::Door;
use super::events::{Events, Listener};
use super::hello::hello;
use super::{BrokerError, BrokerTls, GOODBYE_WAIT, Handler, Shared, Stop};
use crate::stop::stopped;

/// Pause after a failed accept, which usually means that the process has no file descriptors left.
const ACCEPT_RETRY_WAIT: Duration = Duration::from_millis(100);

pub(super) async fn acceptor(tls: &BrokerTls) -> Result<TlsAcceptor, BrokerError> {
    let failed = |err: mqtt5::MqttError| BrokerError::Tls {
        cert: tls.cert.clone(),
        key: tls.key.clone(),
        reason: err.to_string(),
    };
    let cert = TlsAcceptorConfig::load_cert_chain_from_file(&tls.cert).await.map_err(failed)?;
    let key = TlsAcceptorConfig::load_private_key_from_file(&tls.key).await.map_err(failed)?;
    TlsAcceptorConfig::new(cert, key).build_acceptor().map_err(failed)
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
                    running.spawn(connection(Arc::clone(&shared), id, tcp, peer, tls.clone(), stop));
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

async fn connection(
    shared: Arc<Shared>,
    id: u64,
    tcp: TcpStream,
    peer: SocketAddr,
    tls: Option<TlsAcceptor>,
    stop: watch::Receiver<Stop>,
) {
    let session = Arc::new(OnceLock::new());
    let (events, drain) = Events::new(id, Arc::clone(&shared), session);
    let events = Arc::new(events);
    if let Err(err) = tcp.set_nodelay(true) {
        tracing::debug!(%peer, "cannot set TCP_NODELAY: {err}");
    }
    let (tcp, cutter) = match Cutter::of(tcp) {
        Ok(both) => both,
        Err(err) => {
            tracing::warn!(%peer, "mqtt connection closed: {err}");
            shared.places().leave(id);
            return;
        }
    };
    // Beside one another, so that the connection goes on while what it said waits for its turn.
    let live = async {
        let needed = must_end(stop.clone(), shared.closing.subscribe());
        let transport = tokio::select! {
            transport = hello(tcp, peer, tls, shared.connect_bytes_max) => transport,
            _ = needed => None,
        };
        if let Some(transport) = transport {
            serve(&shared, &events, transport, cutter, peer, stop).await;
        }
        events.fall_silent();
    };
    tokio::join!(live, drain.run());
    events.leave().await;
    shared.places().leave(id);
}

/// A second handle on a connection's socket, which the library does not own.
struct Cutter(std::net::TcpStream);

impl Cutter {
    fn of(tcp: TcpStream) -> io::Result<(TcpStream, Self)> {
        let tcp = tcp.into_std()?;
        let cutter = Self(tcp.try_clone()?);
        Ok((TcpStream::from_std(tcp)?, cutter))
    }

    /// The socket throws away what it has not sent, once this is the last handle on it and goes.
    fn cut(self) {
        let cut = TcpStream::from_std(self.0).and_then(|tcp| tcp.set_zero_linger());
        if let Err(err) = cut {
            tracing::warn!("an mqtt connection could not be cut short: {err}");
        }
    }
}

async fn serve(
    shared: &Arc<Shared>,
    events: &Arc<Events>,
    transport: BrokerTransport,
    cutter: Cutter,
    peer: SocketAddr,
    stop: watch::Receiver<Stop>,
) {
    let mut config = shared.library.clone();
    config.event_handler = Some(Arc::new(Listener(Arc::clone(events))));
    // A router for this connection alone: what is put into it reaches this client and nobody else, and its subscriptions
    // cost the others nothing. Whose turn it is, the table says.
    let router = Arc::new(MessageRouter::new());
    let door = Door {
        connection: events.connection,
        shared: Arc::clone(shared),
        session: Arc::clone(&events.session),
        router: Arc::clone(&router),
    };
    // The library's word for "say goodbye and end"; each connection has its own, so that each can be ended.
    let (goodbye, said) = broadcast::channel(1);
    let handler = Handler::new(
        transport,
        peer,
        Arc::new(config),
        Arc::clone(&router),
        Arc::new(door),
        None,
        Arc::clone(&shared.stats),
        Arc::clone(&shared.monitor),
        said,
    );
    let mut run = Box::pin(AssertUnwindSafe(handler.run()).catch_unwind());
    let closing = shared.closing.subscribe();
    let ended = tokio::select! {
        ended = &mut run => Some(ended),
        stop = must_end(stop, closing) => {
            match stop {
                Stop::Cut => None,
                Stop::Displaced => {
                    take_over(&router, events).await;
                    tokio::time::timeout(GOODBYE_WAIT, &mut run).await.ok()
                }
                Stop::Dismissed | Stop::No => {
                    drop(goodbye.send(()));
                    tokio::time::timeout(GOODBYE_WAIT, &mut run).await.ok()
                }
            }
        }
    };
    drop(run);
    if ended.is_none() {
        cutter.cut();
    } else {
        drop(cutter);
    }
    match &ended {
        Some(Ok(Ok(()))) => {}
        Some(Ok(Err(err))) if err.is_normal_disconnect() => {}
        Some(Ok(Err(err))) => tracing::info!(%peer, "mqtt connection ended: {err}"),
        Some(Err(_)) => tracing::error!(%peer, "the mqtt library panicked in a connection"),
        None => tracing::info!(%peer, "mqtt connection cut: it took nothing in time"),
    }
}

/// Waits until the connection must end.
async fn must_end(mut stop: watch::Receiver<Stop>, mut closing: watch::Receiver<bool>) -> Stop {
    tokio::select! {
        stop = async { stop.wait_for(|stop| *stop != Stop::No).await.map_or(Stop::Dismissed, |stop| *stop) } => stop,
        () = stopped(&mut closing) => Stop::Dismissed,
    }
}

/// Has the library tell the client that its session was taken over, as it does when another connection takes the client's
/// place in its router.
async fn take_over(router: &MessageRouter, events: &Events) {
    let Some(session) = events.session.get() else { return };
    let client_id = session.client_id.to_string();
    let queue = router.queue_handle(&client_id);
    let (lanes, _) = DeliveryLanes::channel(1);
    let (disconnect, _) = oneshot::channel();
    router.register_client(client_id, lanes, queue, disconnect).await;
}
