//! `PATCH /api/v1/open/devices/{device_id}`

use std::sync::Arc;

use axum::{Json, extract::State};
use serde::Deserialize;
use utmos_core::{
    credential::Permission,
    ports::{DeviceEdit, DeviceOrder, Ordered},
};
use utoipa::ToSchema;

use super::{
    super::{
        App,
        problem::{Problem, ProblemBody},
        query::InPath,
        signed::{self, Signed},
    },
    DeviceView,
    fields::{Fields, parse},
    find, unknown,
};

/// What is to be changed. What is left out stays.
#[derive(Debug, Deserialize, ToSchema)]
#[schema(example = json!({"label": "South roof", "tags": ["south", "test"]}))]
#[expect(
    dead_code,
    reason = "describes the body; it is read member by member, so that all flaws are told at once"
)]
pub struct EditDevice {
    /// For people, at most 128 characters.
    label: Option<String>,
    /// All tags from now on: at most 32, each of 1 to 64 characters.
    tags: Option<Vec<String>>,
}

/// Changes a device's label and tags.
#[utoipa::path(
    patch,
    path = "/api/v1/open/devices/{device_id}",
    tag = "devices",
    operation_id = "editDevice",
    params(("device_id" = String, Path, description = "Its serial number")),
    request_body = EditDevice,
    responses(
        (status = 200, description = "As it stands now", body = DeviceView),
        (status = "default", description = "Refused; nothing changed", body = ProblemBody, content_type = "application/problem+json"),
    ),
    extensions(("x-permission" = json!("open:device:update")))
)]
pub async fn edit_device(
    State(app): State<Arc<App>>,
    InPath(sn): InPath,
    signed: Signed,
) -> Result<Json<DeviceView>, Problem> {
    let (caller, (device, edit)) = signed
        .checking(&app, Permission::DeviceUpdate, |caller, body| {
            let device = find(&app, caller, &sn)?;
            let members = parse(body)?;
            let mut fields = Fields::read(&members, &["label", "tags"]);
            let edit = DeviceEdit {
                label: fields.label("label"),
                tags: fields.tags("tags"),
                mqtt_secret_hash: None,
            };
            fields.finish()?;
            Ok((device, edit))
        })
        .await?;
    signed::spend(&app, &caller).await?;
    let order = DeviceOrder::Edit { sn: device.sn, tenant: caller.tenant(), edit };
    let ordered = app.fleet.order(order, caller.api_id().as_str()).await;
    match ordered.map_err(|error| Problem::store(&error))? {
        Ordered::Done(device) | Ordered::Known(device) => {
            Ok(Json(DeviceView::of(&app, &caller, &device)))
        }
        Ordered::Taken | Ordered::Unknown => Err(unknown(&sn)),
    }
}
