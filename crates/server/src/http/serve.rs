//! Takes connections: bounded in number, quick to say no to those that dawdle, and let go gracefully.

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use axum::{Extension, Router};
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::{conn::auto, graceful::GracefulShutdown},
    service::TowerToHyperService,
};
use tokio::{
    net::TcpListener,
    sync::{OwnedSemaphorePermit, Semaphore},
    task::JoinHandle,
};
use tokio_util::sync::CancellationToken;
use tower::ServiceExt;

use super::signed::Peer;

/// Pause after the system refused to take a connection (too many open files).
const ACCEPT_RETRY_WAIT: Duration = Duration::from_millis(50);

/// Bounds of the HTTP server.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Connections at a time; more wait to be taken.
    pub connections_max: usize,
    /// Longest wait for a request's headers, also between two requests of a connection.
    pub header_read_wait: Duration,
    /// Longest wait for requests that were begun when the server stops.
    pub shutdown_wait: Duration,
}

/// A listening HTTP server.
pub struct HttpServer {
    address: SocketAddr,
    stopping: CancellationToken,
    task: JoinHandle<()>,
}

impl HttpServer {
    /// Listens and serves.
    ///
    /// # Errors
    /// When the address cannot be listened on.
    pub async fn start(listen: SocketAddr, router: Router, limits: Limits) -> io::Result<Self> {
        let listener = TcpListener::bind(listen).await?;
        let address = listener.local_addr()?;
        let stopping = CancellationToken::new();
        let task = tokio::spawn(serve(listener, router, limits, stopping.clone()));
        Ok(Self { address, stopping, task })
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Takes no more connections, and finishes the requests that were begun.
    pub async fn stop(self) {
        self.stopping.cancel();
        let _ = self.task.await;
    }
}

async fn serve(listener: TcpListener, router: Router, limits: Limits, stopping: CancellationToken) {
    let places = Arc::new(Semaphore::new(limits.connections_max));
    let graceful = GracefulShutdown::new();
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new()).header_read_timeout(limits.header_read_wait);
    builder
        .http2()
        .timer(TokioTimer::new())
        .keep_alive_interval(limits.header_read_wait)
        .max_concurrent_streams(256)
        .max_header_list_size(64 * 1024);
    loop {
        let taken = tokio::select! {
            biased;
            () = stopping.cancelled() => break,
            taken = take(&listener, &places) => taken,
        };
        let Some((stream, peer, place)) = taken else { continue };
        let service = router.clone().layer(Extension(Peer(peer)));
        let service = TowerToHyperService::new(service.into_service().map_request(|request: hyper::Request<_>| {
            request.map(axum::body::Body::new)
        }));
        let connection = builder.serve_connection(TokioIo::new(stream), service).into_owned();
        let connection = graceful.watch(connection);
        tokio::spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(%peer, error, "a connection ended early");
            }
            drop(place);
        });
    }
    drop(listener);
    if tokio::time::timeout(limits.shutdown_wait, graceful.shutdown()).await.is_err() {
        tracing::warn!("some requests did not end in time; their connections are cut");
    }
}

async fn take(
    listener: &TcpListener,
    places: &Arc<Semaphore>,
) -> Option<(tokio::net::TcpStream, SocketAddr, OwnedSemaphorePermit)> {
    let place = places.clone().acquire_owned().await.ok()?;
    match listener.accept().await {
        Ok((stream, peer)) => {
            // Without it, an answer in two pieces waits 40 ms for the peer's delayed acknowledgement.
            if let Err(error) = stream.set_nodelay(true) {
                tracing::debug!(%peer, %error, "could not switch Nagle's algorithm off");
            }
            Some((stream, peer, place))
        }
        Err(error) => {
            tracing::warn!(%error, "could not take a connection");
            tokio::time::sleep(ACCEPT_RETRY_WAIT).await;
            None
        }
    }
}
