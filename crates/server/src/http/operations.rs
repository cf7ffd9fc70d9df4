//! `GET /healthz`, `GET /readyz`: for those who run the server.

use std::sync::Arc;

use axum::{Json, extract::State};
use serde::Serialize;
use utmos_core::ports::StoreError;
use utoipa::ToSchema;

use super::{
    App,
    problem::{Code, Problem, ProblemBody},
};

/// What a server says that may be loaded.
pub(crate) const LOAD_ALLOWED: &str = "bench.allow is true: nobody's requests are limited, and `utmos bench` may load this server; never with real docks";

/// It is there.
#[derive(Debug, Serialize, ToSchema)]
pub struct Health {
    /// Always `ok`.
    #[schema(example = "ok")]
    pub status: &'static str,
    /// The version of the server.
    pub version: &'static str,
    /// Whether `utmos bench --server` may load this server (`bench.allow`); never one with real devices.
    pub load_allowed: bool,
    /// What does not keep commands from being taken and sent, and should be seen to; absent where there is nothing.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schema(required = false)]
    pub warnings: Vec<String>,
}

impl Health {
    fn of(app: &App) -> Self {
        let version = env!("CARGO_PKG_VERSION");
        Self { status: "ok", version, load_allowed: app.load_allowed, warnings: Vec::new() }
    }
}

/// Says that the process is alive. Touches nothing else.
#[utoipa::path(
    get,
    path = "/healthz",
    tag = "operations",
    operation_id = "healthz",
    responses((status = 200, description = "Alive", body = Health))
)]
pub async fn healthz(State(app): State<Arc<App>>) -> Json<Health> {
    std::future::ready(Json(Health::of(&app))).await
}

/// Says whether commands can be accepted and sent: the store answers, what was written last was written, and an outside broker is
/// connected and lets the server do its work, which is not about to stop.
#[utoipa::path(
    get,
    path = "/readyz",
    tag = "operations",
    operation_id = "readyz",
    responses(
        (status = 200, description = "Ready", body = Health),
        (status = 503, description = "Not ready", body = ProblemBody, content_type = "application/problem+json"),
    )
)]
pub async fn readyz(State(app): State<Arc<App>>) -> Result<Json<Health>, Problem> {
    if app.notice.is_cancelled() {
        let message = "this server is about to stop; ask another";
        return Err(Problem::new(Code::Overloaded, message).retry_after(1));
    }
    if let Some(why) = app.store.trouble() {
        return Err(cannot_store(&why));
    }
    match app.store.generation().await {
        Ok(_) => {}
        Err(StoreError::Unavailable(why)) => return Err(cannot_store(&why)),
        Err(error @ StoreError::Damaged(_)) => return Err(Problem::store(&error)),
    }
    if let Some(why) = app.driver.trouble() {
        let message = format!("commands cannot be accepted now: {why}");
        return Err(Problem::new(Code::Overloaded, message).retry_after(1));
    }
    if let Some(why) = app.outside.as_ref().and_then(|outside| outside.trouble()) {
        let message = format!("commands cannot be sent now: {why}");
        return Err(Problem::new(Code::Overloaded, message).retry_after(1));
    }
    Ok(Json(Health { warnings: warnings(&app), ..Health::of(&app) }))
}

fn cannot_store(why: &str) -> Problem {
    let message = format!("commands cannot be stored now: {why}");
    Problem::new(Code::Overloaded, message).retry_after(1)
}

/// Names no tenant: anybody may ask.
fn warnings(app: &App) -> Vec<String> {
    let full = app.telemetry.full_tenants();
    let text = format!(
        "telemetry: of {full} tenant(s) the latest is not complete, since their share of telemetry.latest_bytes_max is full; \
         raise it (the log names them)"
    );
    let lacks = app.outside.as_ref().map_or(Vec::new(), |outside| outside.lacks());
    let lacks = lacks.into_iter().map(|lack| format!("broker: {lack}"));
    let load = app.load_allowed.then(|| LOAD_ALLOWED.to_owned());
    (full > 0).then_some(text).into_iter().chain(load).chain(lacks).collect()
}
