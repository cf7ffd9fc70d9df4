//! `GET /api/v1/open/downlink/commands`

use std::sync::Arc;

use axum::{
    Json,
    extract::{RawQuery, State},
};
use serde::Serialize;
use utmos_core::{
    command::{Command, Status},
    credential::Permission,
    id::{CommandId, DeviceSn},
    ports::CommandFilter,
    time::Timestamp,
};
use utoipa::ToSchema;

use super::{
    App,
    problem::{Problem, ProblemBody},
    query::{Page, PageParams, Query},
    signed::Signed,
    view::CommandView,
    words::StatusWord,
};

/// A page of commands.
#[derive(Debug, Serialize, ToSchema)]
pub struct CommandPage {
    /// Newest first.
    pub items: Vec<CommandView>,
    /// Where the next page begins; `null` on the last. A page may be shorter than `limit`, even empty, and not be the last.
    pub next_cursor: Option<String>,
}

/// Lists the tenant's commands, newest first. A page with `status`, `command_type` or times looks at a thousand commands or so, and
/// says where the next begins.
#[utoipa::path(
    get,
    path = "/api/v1/open/downlink/commands",
    tag = "commands",
    operation_id = "listCommands",
    params(
        ("device_id" = Option<String>, Query, description = "Of this device"),
        ("status" = Option<StatusWord>, Query, description = "In this state"),
        ("command_type" = Option<String>, Query, description = "Of this method"),
        ("accepted_after" = Option<String>, Query, description = "Accepted at this time (RFC 3339) or later", format = "date-time"),
        ("accepted_before" = Option<String>, Query, description = "Accepted before this time (RFC 3339)", format = "date-time"),
        PageParams,
    ),
    responses(
        (status = 200, description = "A page", body = CommandPage),
        (status = "default", description = "Refused", body = ProblemBody, content_type = "application/problem+json"),
    ),
    extensions(("x-permission" = json!("open:command:read")))
)]
pub async fn list_commands(
    State(app): State<Arc<App>>,
    RawQuery(query): RawQuery,
    signed: Signed,
) -> Result<Json<CommandPage>, Problem> {
    signed
        .reading(&app, Permission::CommandRead, async |caller| {
            let (filter, page) = read(query.as_deref())?;
            let filter = CommandFilter { devices: caller.devices().cloned(), ..filter };
            let (store, tenant) = (&app.store, caller.tenant());
            let floor = store.list_floor(tenant, filter.clone(), page.cursor).await;
            let down_to = floor.map_err(|error| Problem::store(&error))?;
            let filter = CommandFilter { down_to, ..filter };
            let read = |before, most| store.commands_of(tenant, filter.clone(), before, most);
            let found = page.gather(said, |last| last.spec.id, read).await;
            let (commands, next) = found.map_err(|error| Problem::store(&error))?;
            let next_cursor = next.or(down_to).map(|id| id.to_string());
            let items =
                commands.iter().map(|command| CommandView::of(command, &app.catalogue)).collect();
            Ok(Json(CommandPage { items, next_cursor }))
        })
        .await
}

/// How much a command says.
fn said(command: &Command) -> usize {
    let (spec, life) = (&command.spec, &command.life);
    let response = life.response.as_ref().map_or(0, |response| response.data.len());
    let progress = life.execution.as_ref().and_then(|execution| execution.ext.as_ref());
    spec.payload.len() + response + progress.map_or(0, |ext| ext.len())
}

/// What a query asks for: which commands, and which page of them.
pub(super) fn read(query: Option<&str>) -> Result<(CommandFilter, Page<CommandId>), Problem> {
    let known = [
        "device_id",
        "status",
        "command_type",
        "accepted_after",
        "accepted_before",
        "limit",
        "cursor",
    ];
    let mut query = Query::read(query, &known);
    let filter = CommandFilter {
        device: query.take("device_id", "a serial number", |text| DeviceSn::parse(text).ok()),
        status: query.take("status", "one of the six states, such as SUCCEEDED", Status::parse),
        method: query.take("command_type", "a method name", |text| Some(text.to_owned())),
        accepted_after: query.take("accepted_after", "an RFC 3339 time", parse_time),
        accepted_before: query.take("accepted_before", "an RFC 3339 time", parse_time),
        devices: None,
        down_to: None,
    };
    let page = query.page(|text| text.parse().ok());
    query.finish()?;
    Ok((filter, page))
}

/// Reads an RFC 3339 time.
pub fn parse_time(text: &str) -> Option<Timestamp> {
    let at: jiff::Timestamp = text.parse().ok()?;
    Some(Timestamp::from_millis(at.as_millisecond()))
}
