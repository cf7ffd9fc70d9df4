//! `GET /api/v1/open/catalog/dji/methods[/{method}]`

use std::sync::Arc;

use axum::{Json, extract::State};
use serde::Serialize;
use serde_json::Value;
use utmos_core::{
    credential::Permission,
    method::{Channel, CompletesBy, Risk},
};
use utmos_dji::catalogue::Method;
use utoipa::ToSchema;

use super::{
    App,
    problem::{Code, Detail, Problem, ProblemBody},
    query::InPath,
    signed::Signed,
    words::{ChannelWord, CompletesByWord, DomainWord, RiskWord},
};

/// Every method.
#[derive(Debug, Serialize, ToSchema)]
pub struct Methods {
    /// By name.
    pub items: Vec<MethodView>,
}

/// A method in short.
#[derive(Debug, Serialize, ToSchema)]
pub struct MethodView {
    /// What to send as `command_type`.
    #[schema(example = "cover_open")]
    pub method: String,
    /// Its domain; `null` for DJI's methods outside the nine.
    #[schema(value_type = Option<DomainWord>)]
    pub domain: Option<&'static str>,
    /// What it does.
    pub title: String,
    /// How it travels.
    #[schema(value_type = ChannelWord)]
    pub channel: Channel,
    /// What ends it.
    #[schema(value_type = CompletesByWord)]
    pub completes_by: CompletesBy,
    /// How dangerous it is.
    #[schema(value_type = RiskWord)]
    pub risk_class: Risk,
    /// How long its answer is waited for when the caller does not say.
    pub default_timeout_seconds: u64,
}

/// A method, whole.
#[derive(Debug, Serialize, ToSchema)]
pub struct MethodDetail {
    /// In short.
    #[serde(flatten)]
    pub method: MethodView,
    /// How long its job may be silent.
    pub silence_limit_seconds: u64,
    /// Whether it starts a movement, of which one runs at a time.
    pub starts_motion: bool,
    /// The method that stops it once delivered.
    pub abort_command: Option<String>,
    /// Progress events that tell of its job.
    pub progress_events: Vec<String>,
    /// JSON Schema of the payload.
    #[schema(value_type = Object)]
    pub payload_schema: Value,
    /// JSON Schema of the reply's `data`.
    #[schema(value_type = Object)]
    pub reply_schema: Value,
    /// A payload that works.
    #[schema(value_type = Object)]
    pub example: Value,
}

/// Lists every method the platform can send.
#[utoipa::path(
    get,
    path = "/api/v1/open/catalog/dji/methods",
    tag = "catalogue",
    operation_id = "listMethods",
    responses(
        (status = 200, description = "Every method", body = Methods),
        (status = "default", description = "Refused", body = ProblemBody, content_type = "application/problem+json"),
    ),
    extensions(("x-permission" = json!("open:command:read")))
)]
pub async fn list_methods(
    State(app): State<Arc<App>>,
    signed: Signed,
) -> Result<Json<Methods>, Problem> {
    signed
        .reading(&app, Permission::CommandRead, async |_| {
            Ok(Json(Methods { items: app.catalogue.methods().map(MethodView::of).collect() }))
        })
        .await
}

/// Describes a method: JSON Schema of payload and reply, risk class, time limits.
#[utoipa::path(
    get,
    path = "/api/v1/open/catalog/dji/methods/{method}",
    tag = "catalogue",
    operation_id = "getMethod",
    params(("method" = String, Path, description = "A method name")),
    responses(
        (status = 200, description = "The method", body = MethodDetail),
        (status = "default", description = "Refused", body = ProblemBody, content_type = "application/problem+json"),
    ),
    extensions(("x-permission" = json!("open:command:read")))
)]
pub async fn get_method(
    State(app): State<Arc<App>>,
    InPath(name): InPath,
    signed: Signed,
) -> Result<Json<MethodDetail>, Problem> {
    signed
        .reading(&app, Permission::CommandRead, async |_| match app.catalogue.method(&name) {
            Some(method) => Ok(Json(MethodDetail::of(method))),
            None => Err(unknown(&app, &name)),
        })
        .await
}

fn unknown(app: &App, name: &str) -> Problem {
    let hint = match app.catalogue.nearest(name) {
        Some(near) => format!("is not a method of the catalogue; did you mean {near}?"),
        None => "is not a method of the catalogue".to_owned(),
    };
    Problem::new(Code::UnsupportedCommand, format!("the method {hint}"))
        .with(Detail::new("path:method", hint))
}

impl MethodView {
    fn of(method: &Method) -> Self {
        Self {
            method: method.name.clone(),
            domain: method.domain.map(utmos_dji::catalogue::Domain::as_str),
            title: method.title.clone(),
            channel: method.channel,
            completes_by: method.completes_by,
            risk_class: method.risk,
            default_timeout_seconds: method.timeout.as_secs(),
        }
    }
}

impl MethodDetail {
    fn of(method: &Method) -> Self {
        Self {
            method: MethodView::of(method),
            silence_limit_seconds: method.silence.as_secs(),
            starts_motion: method.starts_motion,
            abort_command: method.abort.as_ref().map(|abort| abort.method.clone()),
            progress_events: method.job.as_ref().map(|job| job.events.clone()).unwrap_or_default(),
            payload_schema: method.payload_schema(),
            reply_schema: method.reply_schema(),
            example: method.example().clone(),
        }
    }
}
