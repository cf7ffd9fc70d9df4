//! `GET /api/v1/open/devices`

use std::sync::Arc;

use axum::{
    Json,
    extract::{RawQuery, State},
};
use serde::Serialize;
use utmos_core::{
    credential::Permission,
    device::{Device, DeviceKind},
    id::DeviceSn,
};
use utoipa::ToSchema;

use super::{
    super::{
        App,
        problem::{Problem, ProblemBody},
        query::{LIMIT_MAX, Page, PageParams, Query},
        signed::Signed,
        words::DeviceKindWord,
    },
    DeviceView,
};

/// A page of devices.
#[derive(Debug, Serialize, ToSchema)]
pub struct DevicePage {
    /// In the order of their serial numbers.
    pub items: Vec<DeviceView>,
    /// Where the next page begins; `null` on the last.
    pub next_cursor: Option<String>,
}

/// Lists the tenant's devices, in the order of their serial numbers.
#[utoipa::path(
    get,
    path = "/api/v1/open/devices",
    tag = "devices",
    operation_id = "listDevices",
    params(
        ("kind" = Option<DeviceKindWord>, Query, description = "Of this kind"),
        ("online" = Option<bool>, Query, description = "`true`: those that are there now; `false`: the others"),
        ("label" = Option<String>, Query, description = "With this text in the label, capitals or not"),
        ("tag" = Option<String>, Query, description = "With this tag"),
        PageParams,
    ),
    responses(
        (status = 200, description = "A page", body = DevicePage),
        (status = "default", description = "Refused", body = ProblemBody, content_type = "application/problem+json"),
    ),
    extensions(("x-permission" = json!("open:device:read")))
)]
pub async fn list_devices(
    State(app): State<Arc<App>>,
    RawQuery(query): RawQuery,
    signed: Signed,
) -> Result<Json<DevicePage>, Problem> {
    signed
        .reading(&app, Permission::DeviceRead, async |caller| {
            let Wanted { kind, online, label, tag, page: asked } = read(query.as_deref())?;
            let fits = |device: &&Device| {
                kind.is_none_or(|kind| device.kind == kind)
                    && tag.as_ref().is_none_or(|tag| device.tags.contains(tag))
                    && label.as_ref().is_none_or(|text| device.label.to_lowercase().contains(text))
                    && caller.may_touch(&device.sn)
            };
            let mut items = Vec::new();
            let mut after = asked.cursor.clone();
            // Whether a device is there is looked up outside of the registry, a page at a time.
            while items.len() < asked.to_read() {
                let page: Vec<Device> = app.directory.with_registry(|registry| {
                    let all = registry.devices_of(caller.tenant(), after.as_ref());
                    all.filter(fits).take(LIMIT_MAX + 1).cloned().collect()
                });
                let Some(last) = page.last() else { break };
                after = Some(last.sn.clone());
                let is_wanted = |device: &&Device| {
                    online.is_none_or(|online| app.fleet.shown(device).online == online)
                };
                let room = asked.to_read() - items.len();
                items.extend(page.iter().filter(is_wanted).take(room).cloned());
            }
            let next_cursor = asked.cut(&mut items, |last| last.sn.to_string());
            let items = items.iter().map(|device| DeviceView::of(&app, &caller, device)).collect();
            Ok(Json(DevicePage { items, next_cursor }))
        })
        .await
}

/// What a query asks for.
#[derive(Debug)]
pub struct Wanted {
    /// Of this kind.
    pub kind: Option<DeviceKind>,
    /// There, or not.
    pub online: Option<bool>,
    /// With this in its label, in lower case.
    pub label: Option<String>,
    /// With this tag.
    pub tag: Option<String>,
    /// Which page.
    pub page: Page<DeviceSn>,
}

/// Reads a query.
pub fn read(query: Option<&str>) -> Result<Wanted, Problem> {
    let known = ["kind", "online", "label", "tag", "limit", "cursor"];
    let mut query = Query::read(query, &known);
    let wanted = Wanted {
        kind: query.take("kind", "dock, remote_controller or aircraft", DeviceKind::parse),
        online: query.take("online", "true or false", |text| text.parse::<bool>().ok()),
        label: query.take("label", "a text", |text| Some(text.to_lowercase())),
        tag: query.take("tag", "a tag", |text| Some(text.to_owned())),
        page: query.page(|text| DeviceSn::parse(text).ok()),
    };
    query.finish()?;
    Ok(wanted)
}
