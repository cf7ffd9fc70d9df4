//! The control API without its socket, for those who try requests on it.

use axum::{
    Router,
    body::{Body, to_bytes},
    http::{Request, header},
};
use tokio::runtime::{Builder, Runtime};
use tower::ServiceExt;

use super::router;
use crate::{BrokerAddress, Fleet, FleetConfig};

/// The control API of a fleet that finds no broker.
#[derive(Debug)]
pub struct Trying {
    runtime: Runtime,
    routes: Router,
    _fleet: Fleet,
}

impl Trying {
    /// Starts that of no docks.
    ///
    /// # Errors
    /// As [`Trying::of`].
    pub fn start() -> Result<Self, String> {
        Self::of(0)
    }

    /// Starts that of so many docks.
    ///
    /// # Errors
    /// Why it does not start, which is a bug.
    pub fn of(docks: u32) -> Result<Self, String> {
        let runtime =
            Builder::new_current_thread().enable_all().build().map_err(|err| err.to_string())?;
        let config = FleetConfig::new(BrokerAddress::new("127.0.0.1", 1), docks, 1);
        let fleet =
            runtime.block_on(async { Fleet::start(config) }).map_err(|err| err.to_string())?;
        let routes = router(fleet.controls(), false);
        Ok(Self { runtime, routes, _fleet: fleet })
    }

    /// Sends one request; the status and the body of its answer. `None` where no client can send such a request.
    #[must_use]
    pub fn ask(&self, method: &str, target: &str, body: &[u8]) -> Option<(u16, Vec<u8>)> {
        let request = Request::builder()
            .method(method)
            .uri(target)
            .header(header::HOST, "127.0.0.1:80")
            .header(header::CONTENT_TYPE, "application/json")
            .body(Body::from(body.to_vec()))
            .ok()?;
        self.runtime.block_on(async {
            let answer = self.routes.clone().oneshot(request).await.ok()?;
            let status = answer.status().as_u16();
            Some((status, to_bytes(answer.into_body(), usize::MAX).await.ok()?.to_vec()))
        })
    }
}
