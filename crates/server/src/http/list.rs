//! `GET /api/v1/open/downlink/commands`

use std::sync::Arc;

use axum::{
    Json,
    extract::{RawQuery, State},
};
use serde::Serialize;
use utmos_core::{
    command::Status,
    credential::Permission,
    id::{CommandId, DeviceSn},
    ports::CommandFilter,
    time::Timestamp,
};
use utoipa::ToSchema;

use super::{
    App,
    problem::{Problem, ProblemBody},
    query::{Query, between},
    signed::Signed,
    view::CommandView,
    words::StatusWord,
};

/// Longest page.
pub const LIMIT_MAX: usize = 500;
/// A page when nobody asks.
pub const LIMIT_DEFAULT: usize = 100;

/// A page of commands.
#[derive(Debug, Serialize, ToSchema)]
pub struct CommandPage {
    /// Newest first.
    pub items: Vec<CommandView>,
    /// Where the next page begins; `null` on the last.
    pub next_cursor: Option<String>,
}

/// Lists the tenant's commands, newest first.
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
        ("limit" = Option<u32>, Query, description = "1 to 500, 100 when absent", minimum = 1, maximum = 500),
        ("cursor" = Option<String>, Query, description = "`next_cursor` of the page before"),
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
            let (filter, limit, before) = read(query.as_deref())?;
            let filter = CommandFilter { devices: caller.devices().cloned(), ..filter };
            // One more than is shown tells whether there is another page.
            let commands = app.store.commands_of(caller.tenant(), filter, before, limit + 1).await;
            let mut commands = commands.map_err(|error| Problem::store(&error))?;
            let has_more = commands.len() > limit;
            commands.truncate(limit);
            let next_cursor =
                commands.last().filter(|_| has_more).map(|last| last.spec.id.to_string());
            let items =
                commands.iter().map(|command| CommandView::of(command, &app.catalogue)).collect();
            Ok(Json(CommandPage { items, next_cursor }))
        })
        .await
}

/// What a query asks for: which commands, how many, and before which one.
pub(super) fn read(
    query: Option<&str>,
) -> Result<(CommandFilter, usize, Option<CommandId>), Problem> {
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
    };
    let limit = query.take("limit", "a whole number from 1 to 500", between(1, LIMIT_MAX));
    let before = query.take("cursor", "the next_cursor of a page", |text| text.parse().ok());
    query.finish()?;
    Ok((filter, limit.unwrap_or(LIMIT_DEFAULT), before))
}

/// Reads an RFC 3339 time.
pub fn parse_time(text: &str) -> Option<Timestamp> {
    let at: jiff::Timestamp = text.parse().ok()?;
    Some(Timestamp::from_millis(at.as_millisecond()))
}
