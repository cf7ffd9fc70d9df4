//! `GET /api/v1/open/device-requests` and `GET /api/v1/open/device-requests/{request_id}`

use std::sync::Arc;

use axum::{
    Json,
    extract::{RawQuery, State},
};
use serde::Serialize;
use serde_json::Value;
use utmos_core::{
    credential::Permission,
    device_request::{DeviceRequest, RoutingDecision},
    id::{DeviceRequestId, DeviceSn},
    ports::RequestFilter,
    signing::Caller,
};
use utmos_dji::catalogue::{mask_cut_request, mask_request};
use utoipa::ToSchema;

use super::{
    App,
    problem::{Code, Detail, Problem, ProblemBody, cut},
    query::{InPath, Page, PageParams, Query},
    signed::Signed,
    words::{ReplySourceWord, RoutingDecisionWord},
};

/// A page of requests of devices.
#[derive(Debug, Serialize, ToSchema)]
pub struct DeviceRequestPage {
    /// Newest first.
    pub items: Vec<DeviceRequestView>,
    /// Where the next page begins; `null` on the last.
    pub next_cursor: Option<String>,
}

/// What a device asked, and how it was answered.
#[derive(Debug, Serialize, ToSchema)]
#[schema(example = json!({
    "request_id": "0197c2d4-9a10-7c3e-8d21-5b6c7d8e9f01", "vendor": "dji", "device_id": "SIM-DOCK-0001",
    "request_type": "flighttask_resource_get", "inbound_payload": {"flight_id": "task-1"},
    "inbound_payload_is_cut": false, "routing_decision": "AUTO_REPLIED", "reply_code": "0", "reply_message": null,
    "reply_source": "auto",
    "replied_by": null,
    "standardized_reply": {"result": 0, "output": {"file": {"url": "https://files.example/***", "fingerprint": "abc"}}},
    "received_at": "2026-05-21T08:28:04.063Z", "reply_by": "2026-05-21T08:28:34.063Z",
    "replied_at": "2026-05-21T08:28:04.065Z", "sent_at": "2026-05-21T08:28:04.071Z"
}))]
pub struct DeviceRequestView {
    /// Its id.
    #[schema(format = "uuid")]
    pub request_id: String,
    /// Always `dji`.
    #[schema(example = "dji")]
    pub vendor: &'static str,
    /// The gateway that asks.
    pub device_id: String,
    /// DJI's method name; `null` when it named none.
    pub request_type: Option<String>,
    /// The `data` of the request; secrets are masked. Of a long one the beginning, as text.
    #[schema(value_type = Object)]
    pub inbound_payload: Value,
    /// Whether only the beginning was kept: its `data` was longer than 16 KiB.
    pub inbound_payload_is_cut: bool,
    /// How it stands.
    #[schema(value_type = RoutingDecisionWord)]
    pub routing_decision: &'static str,
    /// What the answer says: a caller's code, or the result of an automatic answer.
    pub reply_code: Option<String>,
    /// The same in words.
    pub reply_message: Option<String>,
    /// Who answered.
    #[schema(value_type = Option<ReplySourceWord>)]
    pub reply_source: Option<&'static str>,
    /// The API id of whoever answered by hand.
    pub replied_by: Option<String>,
    /// The `data` of the answer as the device gets it; secrets are masked.
    #[schema(value_type = Option<Object>)]
    pub standardized_reply: Option<Value>,
    /// When it came.
    #[schema(format = "date-time")]
    pub received_at: String,
    /// Until when it may be answered.
    #[schema(format = "date-time")]
    pub reply_by: String,
    /// When the answer was given.
    #[schema(format = "date-time")]
    pub replied_at: Option<String>,
    /// When the broker took the answer; `null` while that is not known.
    #[schema(format = "date-time")]
    pub sent_at: Option<String>,
}

/// Lists what the tenant's devices asked, newest first.
#[utoipa::path(
    get,
    path = "/api/v1/open/device-requests",
    tag = "device requests",
    operation_id = "listDeviceRequests",
    params(
        ("vendor" = Option<String>, Query, description = "`dji`"),
        ("device_id" = Option<String>, Query, description = "Of this gateway"),
        ("request_type" = Option<String>, Query, description = "Of this type, such as `flighttask_resource_get`"),
        ("state" = Option<RoutingDecisionWord>, Query, description = "In this state"),
        PageParams,
    ),
    responses(
        (status = 200, description = "A page", body = DeviceRequestPage),
        (status = "default", description = "Refused", body = ProblemBody, content_type = "application/problem+json"),
    ),
    extensions(("x-permission" = json!("open:device-request:read")))
)]
pub async fn list_device_requests(
    State(app): State<Arc<App>>,
    RawQuery(query): RawQuery,
    signed: Signed,
) -> Result<Json<DeviceRequestPage>, Problem> {
    signed
        .reading(&app, Permission::DeviceRequestRead, async |caller| {
            let (filter, page) = read(query.as_deref())?;
            let filter = RequestFilter { devices: caller.devices().cloned(), ..filter };
            let (store, tenant) = (app.desk.store(), caller.tenant());
            let read = |before, most| store.requests_of(tenant, filter.clone(), before, most);
            let found = page.gather(said, |last| last.asked.id, read).await;
            let (found, next) = found.map_err(|error| Problem::store(&error))?;
            let next_cursor = next.map(|id| id.to_string());
            let items = found.iter().map(DeviceRequestView::of).collect();
            Ok(Json(DeviceRequestPage { items, next_cursor }))
        })
        .await
}

/// How much a request and its answer say.
fn said(request: &DeviceRequest) -> usize {
    request.asked.payload.len() + request.reply.as_ref().map_or(0, |reply| reply.data.len())
}

/// What a query asks for: which requests, and which page of them.
pub fn read(query: Option<&str>) -> Result<(RequestFilter, Page<DeviceRequestId>), Problem> {
    let known = ["vendor", "device_id", "request_type", "state", "limit", "cursor"];
    let mut query = Query::read(query, &known);
    let vendor = query.take("vendor", "a vendor", |text| Some(text.to_owned()));
    let filter = RequestFilter {
        device: query.take("device_id", "a serial number", |text| DeviceSn::parse(text).ok()),
        request_type: query.take("request_type", "a type", |text| Some(text.to_owned())),
        state: query.take(
            "state",
            "one of the five states, such as AWAITING_REPLY",
            RoutingDecision::parse,
        ),
        devices: None,
    };
    let page = query.page(|text| text.parse().ok());
    query.finish()?;
    if let Some(other) = vendor.filter(|vendor| vendor != "dji") {
        let detail = Detail::new("query:vendor", "must be dji").given(cut(&other).into());
        return Err(Problem { code: Code::UnsupportedVendor, ..Problem::invalid(vec![detail]) });
    }
    Ok((filter, page))
}

/// Tells what a device asked, and how that was answered.
#[utoipa::path(
    get,
    path = "/api/v1/open/device-requests/{request_id}",
    tag = "device requests",
    operation_id = "getDeviceRequest",
    params(("request_id" = String, Path, description = "From the list", format = "uuid")),
    responses(
        (status = 200, description = "The request", body = DeviceRequestView),
        (status = "default", description = "Refused", body = ProblemBody, content_type = "application/problem+json"),
    ),
    extensions(("x-permission" = json!("open:device-request:read")))
)]
pub async fn get_device_request(
    State(app): State<Arc<App>>,
    InPath(id): InPath,
    signed: Signed,
) -> Result<Json<DeviceRequestView>, Problem> {
    signed
        .reading(&app, Permission::DeviceRequestRead, async |caller| {
            let found = find(&app, &caller, &id).await?;
            Ok(Json(DeviceRequestView::of(&found)))
        })
        .await
}

/// A request of the caller's devices.
pub async fn find(app: &App, caller: &Caller, id: &str) -> Result<DeviceRequest, Problem> {
    let Ok(parsed) = id.parse::<DeviceRequestId>() else { return Err(unknown(id)) };
    let found = app.desk.store().request(parsed).await.map_err(|error| Problem::store(&error))?;
    let mine = found.filter(|request| {
        request.asked.tenant == caller.tenant() && caller.may_touch(&request.asked.device)
    });
    mine.ok_or_else(|| unknown(id))
}

/// What is no request of this tenant.
pub fn unknown(id: &str) -> Problem {
    let shown: String = id.chars().take(64).collect();
    Problem::new(Code::DeviceRequestNotFound, format!("no device request {shown} in this tenant"))
}

impl DeviceRequestView {
    /// The request as it may be shown.
    #[must_use]
    pub fn of(request: &DeviceRequest) -> Self {
        let (asked, reply) = (&request.asked, request.reply.as_ref());
        let inbound_payload = match asked.payload_is_cut {
            true => mask_cut_request(&asked.payload).into(),
            false => masked(&asked.payload),
        };
        Self {
            request_id: asked.id.to_string(),
            vendor: "dji",
            device_id: asked.device.to_string(),
            request_type: asked.request_type.clone(),
            inbound_payload,
            inbound_payload_is_cut: asked.payload_is_cut,
            routing_decision: request.state.as_str(),
            reply_code: reply.map(|reply| reply.code.clone()),
            reply_message: reply.and_then(|reply| reply.message.clone()),
            reply_source: reply.map(|reply| reply.source.as_str()),
            replied_by: reply.and_then(|reply| Some(reply.by.as_ref()?.to_string())),
            standardized_reply: reply.map(|reply| masked(&reply.data)),
            received_at: asked.received_at.to_string(),
            reply_by: asked.deadline.wall.to_string(),
            replied_at: reply.map(|reply| reply.at.to_string()),
            sent_at: request.sent_at.map(|at| at.to_string()),
        }
    }
}

/// The `data` of an answer as it may be shown.
pub fn masked(text: &str) -> Value {
    serde_json::from_str(text).map_or(Value::Null, |value| mask_request(&value))
}
