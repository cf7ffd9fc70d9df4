//! `POST /api/v1/open/devices`

use std::{collections::BTreeSet, sync::Arc};

use axum::{
    Json,
    extract::State,
    http::{HeaderValue, StatusCode},
    response::{IntoResponse, Response},
};
use serde::{Deserialize, Serialize};
use utmos_core::{
    credential::Permission,
    device::{Device, DeviceKind},
    id::DeviceSn,
    ports::{DeviceOrder, Ordered},
    signing::Caller,
};
use utmos_dji::product;
use utoipa::ToSchema;

use super::{
    super::{
        App,
        problem::{Code, Problem, ProblemBody},
        signed::{self, Signed},
        words::DeviceKindWord,
    },
    DeviceView, MqttLogin,
    fields::{Fields, parse},
};
use crate::{directory::mqtt_secret_hash, fleet::secrets};

/// A device to be registered. An aircraft needs none of this: it joins the tenant of the first dock that reports it.
#[derive(Debug, Deserialize, ToSchema)]
#[schema(example = json!({"device_id": "7CTDM2900B00XX", "kind": "dock", "label": "North roof", "tags": ["north"]}))]
#[expect(
    dead_code,
    reason = "describes the body; it is read member by member, so that all flaws are told at once"
)]
pub struct RegisterDevice {
    /// Its serial number, as it is printed on it.
    device_id: String,
    /// What it is. May be left out where `model_key` says so.
    #[schema(value_type = Option<DeviceKindWord>)]
    kind: Option<DeviceKind>,
    /// DJI's numbers of the product, such as `3-2-0`; the device tells them itself when it connects.
    model_key: Option<String>,
    /// For people, at most 128 characters.
    label: Option<String>,
    /// To find devices by: at most 32, each of 1 to 64 characters.
    tags: Option<Vec<String>>,
    /// Mark it as simulated.
    simulated: Option<bool>,
}

/// A registered device.
#[derive(Debug, Serialize, ToSchema)]
pub struct Registered {
    /// As it is on record.
    pub device: DeviceView,
    /// What is typed into a gateway, shown this once. `null` for an aircraft, and for a device that was registered before.
    pub mqtt: Option<MqttLogin>,
    /// The id of this request.
    pub request_id: String,
}

/// Registers a device of the tenant; a gateway's MQTT password is in the answer, once.
///
/// A serial number belongs to one tenant at a time. One that is the caller's already is answered as it is, with
/// `Idempotency-Replayed: true` and without a password.
#[utoipa::path(
    post,
    path = "/api/v1/open/devices",
    tag = "devices",
    operation_id = "registerDevice",
    request_body = RegisterDevice,
    responses(
        (status = 201, description = "Registered", body = Registered),
        (status = 200, description = "It was the tenant's already (`Idempotency-Replayed: true`); nothing changed", body = Registered,
            headers(("Idempotency-Replayed" = bool, description = "`true` when it was registered before"))),
        (status = "default", description = "Refused; `DEVICE_CONFLICT` when it is another tenant's, or of another kind", body = ProblemBody, content_type = "application/problem+json"),
    ),
    extensions(("x-permission" = json!("open:device:create")))
)]
pub async fn register_device(
    State(app): State<Arc<App>>,
    signed: Signed,
) -> Result<Response, Problem> {
    let (caller, wanted) = signed.checking(&app, Permission::DeviceCreate, read).await?;
    signed::spend(&app, &caller).await?;
    let (sn, kind) = (wanted.sn, wanted.kind);
    let password = match kind.is_gateway() {
        true => Some(secrets::mqtt_password().map_err(|error| Problem::internal(&error))?),
        false => None,
    };
    let device = Device {
        tenant: caller.tenant(),
        kind,
        model_key: wanted.model_key,
        label: wanted.label,
        tags: wanted.tags,
        simulated: wanted.simulated,
        mqtt_secret_hash: password
            .as_ref()
            .map(|password| mqtt_secret_hash(&sn, password.expose().as_bytes())),
        created_at: app.clock.now().wall,
        sn: sn.clone(),
    };
    let order = DeviceOrder::Register(device);
    let ordered = app.fleet.order(order, caller.api_id().as_str()).await;
    let request_id = caller.request_id().to_owned();
    match ordered.map_err(|error| Problem::store(&error))? {
        Ordered::Done(device) => {
            let mqtt = password.map(|password| MqttLogin::new(&sn, &password));
            let device = DeviceView::of(&app, &caller, &device);
            let answer = Registered { device, mqtt, request_id };
            Ok((StatusCode::CREATED, Json(answer)).into_response())
        }
        Ordered::Known(device) if device.kind == kind => {
            let device = DeviceView::of(&app, &caller, &device);
            let mut answer = Json(Registered { device, mqtt: None, request_id }).into_response();
            let yes = HeaderValue::from_static("true");
            answer.headers_mut().insert("idempotency-replayed", yes);
            Ok(answer)
        }
        Ordered::Known(device) => Err(Problem::new(
            Code::DeviceConflict,
            format!("{sn} is registered as {}, not as {}", device.kind.as_str(), kind.as_str()),
        )),
        Ordered::Taken | Ordered::Unknown => Err(Problem::new(
            Code::DeviceConflict,
            format!(
                "{sn} is not free: it is registered to another tenant; if it is yours, ask the operator to move it"
            ),
        )),
    }
}

/// The device that is to be registered.
pub struct Wanted {
    /// Its serial number.
    pub sn: DeviceSn,
    /// What it is.
    pub kind: DeviceKind,
    model_key: Option<String>,
    /// For people.
    pub label: String,
    /// The same.
    pub tags: BTreeSet<String>,
    simulated: bool,
}

/// Reads the body.
pub fn read(caller: &Caller, body: &axum::body::Bytes) -> Result<Wanted, Problem> {
    let members = parse(body)?;
    let known = ["device_id", "kind", "model_key", "label", "tags", "simulated"];
    let mut fields = Fields::read(&members, &known);
    fields.required("device_id", "the serial number, as it is printed on the device");
    let wanted = "a serial number: 1 to 64 letters, digits, '-', '_' or '.'";
    let sn = fields.text("device_id", wanted, |text| DeviceSn::parse(text).ok());
    let kind = fields.text("kind", "dock, remote_controller or aircraft", DeviceKind::parse);
    let is_key = |text: &str| product::is_key(text).then(|| text.to_owned());
    let model_key = fields.text("model_key", "DJI's three numbers, such as 3-2-0", is_key);
    let told = model_key.as_deref().and_then(product::kind_of);
    match (kind, told) {
        (Some(kind), Some(told)) if kind != told => {
            let word = told.as_str();
            fields.flaw("kind", &format!("does not go with model_key, which is that of a {word}"));
        }
        (None, None) => {
            fields.required("kind", "dock, remote_controller or aircraft");
        }
        (Some(_), Some(_) | None) | (None, Some(_)) => {}
    }
    let label = fields.label("label").unwrap_or_default();
    let tags = fields.tags("tags").unwrap_or_default();
    let simulated = fields.flag("simulated").unwrap_or(false);
    fields.finish()?;
    // What is missing was told just now.
    let (Some(sn), Some(kind)) = (sn, kind.or(told)) else {
        return Err(Problem::new(Code::ValidationFailed, "kind does not fit"));
    };
    if !caller.may_touch(&sn) {
        let message =
            format!("this credential is limited to some devices, and {sn} is not one of them");
        return Err(Problem::new(Code::PermissionDenied, message));
    }
    Ok(Wanted { sn, kind, model_key, label, tags, simulated })
}
