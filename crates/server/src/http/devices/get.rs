//! `GET /api/v1/open/devices/{device_id}`

use std::sync::Arc;

use axum::{
    Json,
    extract::{RawQuery, State},
};
use utmos_core::credential::Permission;

use super::{
    super::{
        App,
        problem::{Problem, ProblemBody},
        query::{InPath, Query},
        signed::Signed,
    },
    DeviceView, find,
};

/// Reads a device.
#[utoipa::path(
    get,
    path = "/api/v1/open/devices/{device_id}",
    tag = "devices",
    operation_id = "getDevice",
    params(("device_id" = String, Path, description = "Its serial number")),
    responses(
        (status = 200, description = "The device", body = DeviceView),
        (status = "default", description = "Refused", body = ProblemBody, content_type = "application/problem+json"),
    ),
    extensions(("x-permission" = json!("open:device:read")))
)]
pub async fn get_device(
    State(app): State<Arc<App>>,
    InPath(sn): InPath,
    RawQuery(query): RawQuery,
    signed: Signed,
) -> Result<Json<DeviceView>, Problem> {
    signed
        .reading(&app, Permission::DeviceRead, async |caller| {
            Query::read(query.as_deref(), &[]).finish()?;
            let device = find(&app, &caller, &sn)?;
            Ok(Json(DeviceView::of(&app, &caller, &device)))
        })
        .await
}
