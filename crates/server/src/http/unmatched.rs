//! `GET /api/v1/open/unmatched-responses`

use std::sync::Arc;

use axum::{
    Json,
    extract::{RawQuery, State},
};
use serde::Serialize;
use utmos_core::{credential::Permission, ports::Unmatched};
use utmos_dji::catalogue::mask_message;
use utoipa::ToSchema;
use uuid::Uuid;

use super::{
    App,
    problem::{Problem, ProblemBody},
    query::{Page, PageParams, Query},
    signed::Signed,
};

/// A page of messages that belong to no command.
#[derive(Debug, Serialize, ToSchema)]
pub struct UnmatchedPage {
    /// Newest first.
    pub items: Vec<UnmatchedView>,
    /// Where the next page begins; `null` on the last.
    pub next_cursor: Option<String>,
}

/// A message that belongs to no command, or could not be read.
#[derive(Debug, Serialize, ToSchema)]
pub struct UnmatchedView {
    /// Its id.
    #[schema(format = "uuid")]
    pub id: String,
    /// The gateway it came from.
    pub gateway_id: Option<String>,
    /// The topic it came on.
    pub topic: String,
    /// Its `tid`, where readable.
    pub tid: Option<String>,
    /// Its method, where readable.
    pub method: Option<String>,
    /// Why it belongs to nothing.
    pub reason: String,
    /// What came, cut to 4 KiB; secrets are masked.
    pub raw: String,
    /// When it came.
    #[schema(format = "date-time")]
    pub received_at: String,
}

/// Lists replies of the tenant's devices that belong to no command, and messages that could not be read.
#[utoipa::path(
    get,
    path = "/api/v1/open/unmatched-responses",
    tag = "commands",
    operation_id = "listUnmatchedResponses",
    params(PageParams),
    responses(
        (status = 200, description = "A page", body = UnmatchedPage),
        (status = "default", description = "Refused", body = ProblemBody, content_type = "application/problem+json"),
    ),
    extensions(("x-permission" = json!("open:command:read")))
)]
pub async fn list_unmatched(
    State(app): State<Arc<App>>,
    RawQuery(query): RawQuery,
    signed: Signed,
) -> Result<Json<UnmatchedPage>, Problem> {
    signed
        .reading(&app, Permission::CommandRead, async |caller| {
            let page = read(query.as_deref())?;
            let (store, tenant) = (&app.store, caller.tenant());
            let read = |before, most| store.unmatched_of(Some(tenant), before, most);
            let found = page.gather(|one| one.raw.len(), |last| last.id, read).await;
            let (found, next) = found.map_err(|error| Problem::store(&error))?;
            let next_cursor = next.map(|id| id.to_string());
            // A credential that is limited to some devices sees the gateways among them, and nothing without one.
            let is_shown = |one: &&Unmatched| match &one.gateway {
                Some(gateway) => caller.may_touch(&gateway.to_device()),
                None => caller.devices().is_none(),
            };
            let items = found.iter().filter(is_shown).map(UnmatchedView::of).collect();
            Ok(Json(UnmatchedPage { items, next_cursor }))
        })
        .await
}

impl UnmatchedView {
    fn of(unmatched: &Unmatched) -> Self {
        Self {
            id: unmatched.id.to_string(),
            gateway_id: unmatched.gateway.as_ref().map(ToString::to_string),
            topic: unmatched.topic.clone(),
            tid: unmatched.tid.clone(),
            method: unmatched.method.clone(),
            reason: unmatched.reason.clone(),
            raw: mask_message(&unmatched.raw),
            received_at: unmatched.received_at.to_string(),
        }
    }
}

/// What a query asks for: which page.
pub(super) fn read(query: Option<&str>) -> Result<Page<Uuid>, Problem> {
    let mut query = Query::read(query, &["limit", "cursor"]);
    let page = query.page(|text| text.parse().ok());
    query.finish()?;
    Ok(page)
}
