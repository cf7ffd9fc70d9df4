//! The control API: HTTP and JSON over [`Controls`], for test programs in any language.
//!
//! It has no credentials. What keeps others out is that it listens on this machine only, and what keeps web pages out that
//! run on this machine: a `Host` that no other site can have, `application/json` for whatever changes something, and no
//! answer at all to requests with an `Origin`.

mod guard;
mod problem;
mod routes;
#[doc(hidden)]
pub mod trying;

use std::{future::IntoFuture, io, net::SocketAddr, time::Duration};

use axum::{Router, extract::DefaultBodyLimit, middleware};
use tokio::{net::TcpListener, sync::oneshot, task::JoinHandle, time::timeout};

use crate::Controls;

/// Largest body of a request, in bytes.
const BODY_BYTES_MAX: usize = 64 * 1024;
/// How long open requests may take when it ends.
const SHUTDOWN_WAIT: Duration = Duration::from_secs(2);

/// Why the control API does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// Others could reach it.
    #[error(
        "the control API has no credentials, and {0} can be reached from other machines; take an address of this machine, such as 127.0.0.1:{port}, or allow it with --control-anywhere",
        port = .0.port()
    )]
    NotLoopback(SocketAddr),
    /// The address cannot be taken.
    #[error("the control API cannot listen on {address}")]
    Listen {
        /// Which one.
        address: SocketAddr,
        /// The system's word.
        #[source]
        source: io::Error,
    },
}

/// A control API that runs. Dropping it ends it at once.
#[derive(Debug)]
pub struct Control {
    address: SocketAddr,
    stop: Option<oneshot::Sender<()>>,
    task: JoinHandle<()>,
}

impl Control {
    /// Starts it on `address`; port 0 takes a free one. An address that is not this machine's own wants `anywhere`.
    ///
    /// # Errors
    /// When others could reach it, or the address cannot be taken.
    pub async fn start(
        address: SocketAddr,
        anywhere: bool,
        controls: Controls,
    ) -> Result<Self, StartError> {
        if !anywhere && !address.ip().is_loopback() {
            return Err(StartError::NotLoopback(address));
        }
        let fail = |source| StartError::Listen { address, source };
        let listener = TcpListener::bind(address).await.map_err(fail)?;
        let local = listener.local_addr().map_err(fail)?;
        let (stop, stopped) = oneshot::channel::<()>();
        let serve =
            axum::serve(listener, router(controls, anywhere)).with_graceful_shutdown(async {
                let _ = stopped.await;
            });
        let task = tokio::spawn(async {
            if let Err(err) = serve.into_future().await {
                tracing::error!("the control API has ended: {err}");
            }
        });
        Ok(Self { address: local, stop: Some(stop), task })
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Ends it, after the requests that are open.
    pub async fn shutdown(mut self) {
        drop(self.stop.take());
        let _ = timeout(SHUTDOWN_WAIT, &mut self.task).await;
    }
}

impl Drop for Control {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn router(controls: Controls, anywhere: bool) -> Router {
    routes::all()
        .with_state(controls)
        .layer(DefaultBodyLimit::max(BODY_BYTES_MAX))
        .layer(middleware::from_fn_with_state(guard::Door { anywhere }, guard::pass))
}
