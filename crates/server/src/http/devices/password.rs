//! `POST /api/v1/open/devices/{device_id}/mqtt-password`

use std::sync::Arc;

use axum::{Json, extract::State};
use serde::Serialize;
use utmos_core::{
    credential::Permission,
    ports::{DeviceEdit, DeviceOrder, Ordered},
};
use utoipa::ToSchema;

use super::{
    super::{
        App,
        problem::{Code, Problem, ProblemBody},
        query::InPath,
        signed::{self, Signed},
    },
    MqttLogin, find, unknown,
};
use crate::{directory::mqtt_secret_hash, fleet::secrets};

/// A new password.
#[derive(Debug, Serialize, ToSchema)]
pub struct NewPassword {
    /// What is typed into the gateway, shown this once.
    pub mqtt: MqttLogin,
    /// The id of this request.
    pub request_id: String,
}

/// Gives a gateway a new MQTT password. The old one no longer works, and a connection made with it ends.
#[utoipa::path(
    post,
    path = "/api/v1/open/devices/{device_id}/mqtt-password",
    tag = "devices",
    operation_id = "newMqttPassword",
    params(("device_id" = String, Path, description = "Its serial number")),
    responses(
        (status = 200, description = "The new password", body = NewPassword),
        (status = "default", description = "Refused; the old password works on", body = ProblemBody, content_type = "application/problem+json"),
    ),
    extensions(("x-permission" = json!("open:device:update")))
)]
pub async fn new_mqtt_password(
    State(app): State<Arc<App>>,
    InPath(sn): InPath,
    signed: Signed,
) -> Result<Json<NewPassword>, Problem> {
    let caller = signed.acting(&app)?;
    signed::spend(&app, &caller).await?;
    signed::permit(&caller, Permission::DeviceUpdate)?;
    let device = find(&app, &caller, &sn)?;
    if !device.kind.is_gateway() {
        let message = format!(
            "{} is an aircraft: it has no connection of its own, its dock or remote controller has",
            device.sn
        );
        return Err(Problem::new(Code::ValidationFailed, message));
    }
    let password = secrets::mqtt_password().map_err(|error| Problem::internal(&error))?;
    let hash = mqtt_secret_hash(&device.sn, password.expose().as_bytes());
    let edit = DeviceEdit { mqtt_secret_hash: Some(hash), ..DeviceEdit::default() };
    let order = DeviceOrder::Edit { sn: device.sn, tenant: caller.tenant(), edit };
    let ordered = app.fleet.order(order, caller.api_id().as_str()).await;
    match ordered.map_err(|error| Problem::store(&error))? {
        Ordered::Done(device) | Ordered::Known(device) => Ok(Json(NewPassword {
            mqtt: MqttLogin::new(&device.sn, &password),
            request_id: caller.request_id().to_owned(),
        })),
        Ordered::Taken | Ordered::Unknown => Err(unknown(&sn)),
    }
}
