//! Takes connections: bounded in number, quick to say no to those that dawdle, and let go gracefully.

use std::{
    convert::Infallible,
    io,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use axum::{Router, body::Body};
use hyper::{Request, body::Incoming, service::service_fn};
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::{conn::auto, graceful::GracefulShutdown},
};
use tokio::{
    net::{TcpListener, TcpStream},
    task::JoinHandle,
    time::Instant,
};
use tokio_util::sync::CancellationToken;
use utmos_core::ports::Ids;

use super::{
    bare::Enveloped,
    places::{Place, Places},
    request_id::answer,
    signed::Peer,
};

/// Pause after the system refused to take a connection (too many open files).
const ACCEPT_RETRY_WAIT: Duration = Duration::from_millis(50);
/// Longest time a connection is kept on which no request is running and none begins. HTTP/1 ends sooner, by the wait for
/// the next head; this bounds HTTP/2, and peers that do not take their answer.
const IDLE_WAIT: Duration = Duration::from_secs(75);
/// Requests at a time on a connection of HTTP/2.
const STREAMS_MAX: u32 = 16;
/// Longest head of a request, and most of what a connection holds of a head that is not all there: twice the longest target
/// that the HTTP library takes, so that one that is too long is told so.
const HEAD_BYTES_MAX: usize = 128 * 1024;

/// Bounds of the HTTP server.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Connections at a time. More take the places of those that never carried a verified request, or wait.
    pub connections_max: usize,
    /// Longest wait for a request's headers, also between two requests of a connection.
    pub header_read_wait: Duration,
}

/// A listening HTTP server.
pub struct HttpServer {
    address: SocketAddr,
    stopping: CancellationToken,
    /// Ends every connection.
    cut: CancellationToken,
    task: JoinHandle<()>,
}

impl HttpServer {
    /// Listens and serves.
    ///
    /// # Errors
    /// When the address cannot be listened on.
    #[expect(
        clippy::unused_async,
        reason = "what it begins runs on the runtime of whoever awaits it"
    )]
    pub async fn start(
        listen: SocketAddr,
        router: Router,
        ids: Arc<dyn Ids>,
        limits: Limits,
    ) -> io::Result<Self> {
        let listener = utmos_mqtt::listen(listen)?;
        let address = listener.local_addr()?;
        let (stopping, cut) = (CancellationToken::new(), CancellationToken::new());
        let serving = Serving { listener, router, ids, limits, cut: cut.clone() };
        let task = tokio::spawn(serving.run(stopping.clone()));
        Ok(Self { address, stopping, cut, task })
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Takes no more connections, and finishes the requests that were begun; what has not ended by then is cut.
    pub async fn stop(mut self, by: Instant) {
        self.stopping.cancel();
        if tokio::time::timeout_at(by, &mut self.task).await.is_err() {
            tracing::warn!("some requests did not end in time; their connections are cut");
            self.cut.cancel();
            let _ = self.task.await;
        }
    }
}

/// What connections are served with.
struct Serving {
    listener: TcpListener,
    router: Router,
    ids: Arc<dyn Ids>,
    limits: Limits,
    cut: CancellationToken,
}

impl Serving {
    /// Serves until `stopping`, and then until the last connection has ended.
    async fn run(self, stopping: CancellationToken) {
        let Self { listener, router, ids, limits, cut } = self;
        let places = Places::new(limits.connections_max);
        let graceful = GracefulShutdown::new();
        let mut builder = auto::Builder::new(TokioExecutor::new());
        builder
            .http1()
            .timer(TokioTimer::new())
            .header_read_timeout(limits.header_read_wait)
            .max_buf_size(HEAD_BYTES_MAX);
        builder
            .http2()
            .timer(TokioTimer::new())
            .keep_alive_interval(limits.header_read_wait)
            .max_concurrent_streams(STREAMS_MAX)
            .max_header_list_size(HEAD_BYTES_MAX as u32);
        loop {
            let taken = tokio::select! {
                biased;
                () = stopping.cancelled() => break,
                taken = take(&listener, &places) => taken,
            };
            let Some((stream, peer, place)) = taken else { continue };
            let activity = Arc::new(Activity::default());
            let place = Arc::new(place);
            let (router, begun, held) = (router.clone(), activity.clone(), place.clone());
            let names = ids.clone();
            let service = service_fn(move |mut request: Request<Incoming>| {
                let (router, running) = (router.clone(), Running::begin(&begun));
                let names = names.clone();
                request.extensions_mut().insert(Peer(peer));
                request.extensions_mut().insert(held.clone());
                async move {
                    let _running = running;
                    let answer = answer(&*names, router, request.map(Body::new)).await;
                    Ok::<_, Infallible>(answer)
                }
            });
            let connection = builder
                .serve_connection(TokioIo::new(Enveloped::new(stream, ids.clone())), service)
                .into_owned();
            let (connection, cut) = (graceful.watch(connection), cut.clone());
            tokio::spawn(async move {
                tokio::select! {
                    biased;
                    ended = connection => if let Err(error) = ended {
                        tracing::debug!(%peer, error, "a connection ended early");
                    },
                    () = activity.idle(limits.header_read_wait) => tracing::debug!(%peer, "closed an idle connection"),
                    () = place.needed() => {}
                    () = cut.cancelled() => {}
                }
            });
        }
        drop(listener);
        tokio::select! {
            biased;
            () = graceful.shutdown() => {}
            () = cut.cancelled() => {}
        }
    }
}

/// What happens on a connection.
#[derive(Default)]
struct Activity {
    begun: AtomicU64,
    running: AtomicU64,
}

impl Activity {
    /// Ends when the connection has been of no use for too long. A peer that does not even get its first request's head
    /// out is let go as quickly as one that dawdles with a later one: nothing else watches it until it is known which
    /// HTTP it speaks.
    async fn idle(&self, first_wait: Duration) {
        tokio::time::sleep(first_wait).await;
        let mut seen = 0;
        loop {
            let begun = self.begun.load(Ordering::Relaxed);
            if begun == seen && self.running.load(Ordering::Relaxed) == 0 {
                return;
            }
            seen = begun;
            tokio::time::sleep(IDLE_WAIT).await;
        }
    }
}

/// A request that is running.
struct Running(Arc<Activity>);

impl Running {
    fn begin(activity: &Arc<Activity>) -> Self {
        activity.begun.fetch_add(1, Ordering::Relaxed);
        activity.running.fetch_add(1, Ordering::Relaxed);
        Self(activity.clone())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.0.running.fetch_sub(1, Ordering::Relaxed);
    }
}

async fn take(
    listener: &TcpListener,
    places: &Arc<Places>,
) -> Option<(TcpStream, SocketAddr, Place)> {
    match listener.accept().await {
        Ok((stream, peer)) => {
            // Without it, an answer in two pieces waits 40 ms for the peer's delayed acknowledgement.
            if let Err(error) = stream.set_nodelay(true) {
                tracing::debug!(%peer, %error, "could not switch Nagle's algorithm off");
            }
            let place = places.take(peer.ip()).await;
            Some((stream, peer, place))
        }
        Err(error) => {
            tracing::warn!(%error, "could not take a connection");
            tokio::time::sleep(ACCEPT_RETRY_WAIT).await;
            None
        }
    }
}
