//! `GET /api/v1/open/downlink/commands/{command_id}/timeline`

use std::sync::Arc;

use axum::{Json, extract::State};
use serde::Serialize;
use serde_json::Value;
use utmos_core::{credential::Permission, evidence::Entry};
use utoipa::ToSchema;

use super::{
    App,
    get::{find, parse_id},
    hidden::Hidden,
    problem::{Problem, ProblemBody},
    query::InPath,
    signed::Signed,
    words::StatusWord,
};

/// Everything that happened to a command.
#[derive(Debug, Serialize, ToSchema)]
pub struct Timeline {
    /// The command.
    #[schema(format = "uuid")]
    pub command_id: String,
    /// Oldest first.
    pub items: Vec<EntryView>,
}

/// One thing that happened.
#[derive(Debug, Serialize, ToSchema)]
pub struct EntryView {
    /// When it was decided.
    #[schema(format = "date-time")]
    pub at: String,
    /// The state before.
    #[schema(value_type = StatusWord)]
    pub from: &'static str,
    /// The state after; the same for mere evidence.
    #[schema(value_type = StatusWord)]
    pub to: &'static str,
    /// `cause`, and the proof that goes with it.
    #[serde(flatten)]
    #[schema(value_type = Object)]
    pub proof: Value,
}

/// Lists every transition of a command with its evidence.
#[utoipa::path(
    get,
    path = "/api/v1/open/downlink/commands/{command_id}/timeline",
    tag = "commands",
    operation_id = "getTimeline",
    params(("command_id" = String, Path, description = "From the answer to its creation", format = "uuid")),
    responses(
        (status = 200, description = "The timeline", body = Timeline),
        (status = "default", description = "Refused", body = ProblemBody, content_type = "application/problem+json"),
    ),
    extensions(("x-permission" = json!("open:command:read")))
)]
pub async fn get_timeline(
    State(app): State<Arc<App>>,
    InPath(id): InPath,
    signed: Signed,
) -> Result<Json<Timeline>, Problem> {
    signed
        .reading(&app, Permission::CommandRead, async |caller| {
            let id = parse_id(&id)?;
            let command = find(&app, &caller, id).await?;
            let entries = app.store.timeline(id).await.map_err(|error| Problem::store(&error))?;
            let hidden = Hidden::of(&command.spec, &app.catalogue);
            let items = entries.iter().map(|entry| EntryView::of(entry, &hidden)).collect();
            Ok(Json(Timeline { command_id: id.to_string(), items }))
        })
        .await
}

impl EntryView {
    fn of(entry: &Entry, hidden: &Hidden<'_>) -> Self {
        let mut proof = serde_json::to_value(&entry.proof).unwrap_or(Value::Null);
        hidden.proof(&mut proof);
        Self { at: entry.at.to_string(), from: entry.from.as_str(), to: entry.to.as_str(), proof }
    }
}
