//! The signed HTTP API (API.md) and the pages that describe it.
//!
//! Every answer carries `X-Request-Id`; every refusal, also those of the framework, is a [`problem::Problem`].

mod alarms;
mod bare;
mod body;
mod budget;
mod cancel;
mod catalog;
mod create;
mod devices;
mod docs;
mod events;
mod get;
mod hidden;
mod json;
mod list;
mod metrics;
mod operations;
mod places;
pub mod problem;
mod query;
mod reading_history;
mod request_id;
mod requests;
mod requests_reply;
mod requests_rules;
#[cfg(test)]
mod scripted_history;
mod serve;
mod signed;
mod telemetry;
mod telemetry_history;
mod telemetry_track;
mod timeline;
#[doc(hidden)]
pub mod try_bodies;
#[doc(hidden)]
pub mod try_lists;
mod unmatched;
mod view;
mod words;

use std::{sync::Arc, time::Duration};

use axum::{Router, routing::get as get_of};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use utmos_core::{
    device::Registry,
    ports::{Ids, Store, TelemetryStore},
    signing::Caller,
    time::Clock,
};
use utmos_dji::catalogue::Catalogue;
use utmos_mqtt::Inbound;
use utoipa::OpenApi;
use utoipa_axum::{router::OpenApiRouter, routes};

pub use self::budget::BodyBudget;
pub(crate) use self::hidden::{Hidden, Secrets};
pub use self::metrics::Times;
pub(crate) use self::operations::LOAD_ALLOWED;
pub use self::reading_history::ReadingHistory;
pub use self::serve::{HttpServer, Limits as ServeLimits};
use crate::{
    allowances::Allowances,
    directory::Directory,
    driver::Driver,
    events::Events,
    fleet::{Fleet, Onboarding},
    link::Link,
    outside::Outside,
    requests::Desk,
    telemetry::Telemetry,
};

/// What every endpoint works with.
pub struct App {
    /// The outside broker, where there is one.
    pub outside: Option<Arc<Outside>>,
    /// Moves commands.
    pub driver: Driver,
    /// Where commands are read.
    pub store: Arc<dyn Store>,
    /// How often callers may ask.
    pub allowances: Arc<Allowances>,
    /// Credentials, devices, topology.
    pub directory: Arc<Directory>,
    /// The methods.
    pub catalogue: Arc<Catalogue>,
    /// What devices said, for the metrics.
    pub link: Arc<Link>,
    /// What devices ask.
    pub desk: Arc<Desk>,
    /// What devices tell of themselves.
    pub telemetry: Arc<Telemetry>,
    /// Where that is kept.
    pub history: Arc<dyn TelemetryStore>,
    /// Who reads it.
    pub reading: ReadingHistory,
    /// How long answers take.
    pub times: Times,
    /// What happens at devices.
    pub events: Arc<Events>,
    /// What alarms mean.
    pub alarm_texts: utmos_dji::hms::Meanings,
    /// Which devices are there.
    pub fleet: Arc<Fleet>,
    /// How devices join, for the metrics.
    pub onboarding: Arc<Onboarding>,
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// Fresh ids.
    pub ids: Arc<dyn Ids>,
    /// What devices said and nobody has taken in yet, for the metrics.
    pub inbound: Waiting,
    /// How much all bodies may hold together.
    pub bodies: BodyBudget,
    /// Longest body.
    pub body_bytes_max: usize,
    /// Longest wait for a body.
    pub body_read_wait: Duration,
    /// Cancelled once this server is about to stop.
    pub notice: CancellationToken,
    /// Whether a bench may load this server.
    pub load_allowed: bool,
}

#[derive(OpenApi)]
#[openapi(info(
    title = "UTMOS Open Platform",
    description = "Commands DJI docks and drones through one signed API. A command is stored durably before the 202, \
        sent to its dock at most once, and its `command_id` tells what really happened.",
    license(name = "MIT OR Apache-2.0", identifier = "MIT OR Apache-2.0")
), tags(
    (name = "commands", description = "Send commands and learn what became of them."),
    (name = "device requests", description = "What devices ask of the cloud, and who answers it."),
    (name = "devices", description = "Docks, remote controllers and aircraft of the tenant: how they join it, whether they are there, and what they report: events, alarms."),
    (name = "catalogue", description = "What can be sent: every method with its payload, its reply and its limits."),
    (name = "telemetry", description = "What devices tell of themselves: the latest, its history, and where they flew."),
    (name = "operations", description = "For those who run the server. Not signed."),
))]
struct Document;

/// How full the way in is.
pub struct Waiting {
    /// The way in; ends with those who write to it.
    pub inbound: mpsc::WeakSender<Inbound>,
}

impl Waiting {
    fn depth(&self) -> usize {
        let way = self.inbound.upgrade();
        way.map_or(0, |way| way.max_capacity() - way.capacity())
    }
}

/// Where the metrics are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Metrics {
    /// At the address of the API.
    Here,
    /// At an address of their own ([`metrics_router`]).
    Elsewhere,
}

/// The API, whole, with its OpenAPI document.
pub fn router(app: Arc<App>, metrics: Metrics) -> Router {
    let (router, mut document) = api(metrics).split_for_parts();
    docs::finish(&mut document);
    let router = router.merge(docs::router(&document));
    finished(router, app)
}

/// The metrics alone.
pub fn metrics_router(app: Arc<App>) -> Router {
    finished(Router::new().route("/metrics", get_of(metrics::metrics)), app)
}

/// With the answers to what is not there. What every answer has in common is seen to around it ([`request_id::answer`]).
fn finished(router: Router<Arc<App>>, app: Arc<App>) -> Router {
    router
        .fallback(request_id::no_such_path)
        .method_not_allowed_fallback(request_id::no_such_method)
        .with_state(app)
}

/// The OpenAPI document without a server, for tests and tools.
#[must_use]
pub fn openapi() -> utoipa::openapi::OpenApi {
    let (_, mut document) = api(Metrics::Here).split_for_parts();
    docs::finish(&mut document);
    document
}

/// What `POST …/commands` makes of a body: the command, and whether it is only to be checked. For those who try bodies
/// on it without a server around it.
///
/// # Errors
/// As the endpoint.
#[doc(hidden)]
pub fn try_body(
    catalogue: &Catalogue,
    registry: &Registry,
    caller: &Caller,
    body: &[u8],
) -> Result<(crate::driver::Draft, bool), problem::Problem> {
    let routes = |tenant, sn: &_| registry.route(tenant, sn);
    match body::check(catalogue, &routes, caller, body)? {
        body::Checked::Fits(wanted) => Ok((wanted.draft, wanted.dry_run)),
        body::Checked::Refused { problem, .. } => Err(problem),
    }
}

fn api(metrics: Metrics) -> OpenApiRouter<Arc<App>> {
    let api = OpenApiRouter::with_openapi(Document::openapi())
        .routes(routes!(create::create_command, list::list_commands))
        .routes(routes!(get::get_command))
        .routes(routes!(timeline::get_timeline))
        .routes(routes!(cancel::cancel_command))
        .routes(routes!(catalog::list_methods))
        .routes(routes!(catalog::get_method))
        .routes(routes!(unmatched::list_unmatched))
        .routes(routes!(telemetry::get_telemetry))
        .routes(routes!(telemetry_history::list_samples))
        .routes(routes!(telemetry_track::get_track))
        .routes(routes!(requests::list_device_requests))
        .routes(routes!(requests::get_device_request))
        .routes(routes!(requests_reply::reply_to_device_request))
        .routes(routes!(requests_rules::list_device_request_rules))
        .routes(routes!(
            requests_rules::get_device_request_rule,
            requests_rules::put_device_request_rule,
            requests_rules::delete_device_request_rule
        ))
        .routes(routes!(events::list_device_events))
        .routes(routes!(alarms::list_device_alarms))
        .routes(routes!(alarms::list_alarms))
        .routes(routes!(devices::list::list_devices, devices::register::register_device))
        .routes(routes!(devices::get::get_device, devices::edit::edit_device))
        .routes(routes!(devices::password::new_mqtt_password))
        .routes(routes!(devices::codes::create_binding_code, devices::codes::list_binding_codes))
        .routes(routes!(devices::codes::revoke_binding_code))
        .routes(routes!(operations::healthz))
        .routes(routes!(operations::readyz));
    match metrics {
        Metrics::Here => api.routes(routes!(metrics::metrics)),
        Metrics::Elsewhere => api,
    }
}
