//! `GET /api/v1/open/devices/{device_id}/events`

use std::{collections::BTreeSet, sync::Arc};

use axum::{
    Json,
    extract::{RawQuery, State},
};
use serde::Serialize;
use serde_json::{Value, value::RawValue};
use utmos_core::{
    credential::Permission,
    device_event::{DeviceEvent, EventKind},
    ports::EventFilter,
};
use utmos_dji::hms;
use utoipa::ToSchema;
use uuid::Uuid;

use super::{
    App,
    alarms::AlarmView,
    devices,
    list::parse_time,
    problem::{Problem, ProblemBody},
    query::{InPath, Page, PageParams, Query},
    signed::Signed,
    words::EventKindWord,
};

/// A page of device events.
#[derive(Debug, Serialize, ToSchema)]
pub struct EventPage {
    /// Newest first.
    pub items: Vec<EventView>,
    /// Where the next page begins; `null` on the last.
    pub next_cursor: Option<String>,
}

/// Something that happened at a device.
#[derive(Debug, Serialize, ToSchema)]
#[schema(example = json!({
    "event_id": "0197c2d4-7d0e-7b1a-9c55-1f0a2b3c4d5e", "type": "device.alarm_raised", "device_id": "SIM-DOCK-0001",
    "gateway_id": "SIM-DOCK-0001", "method": "hms", "received_at": "2026-05-21T08:28:04.063Z",
    "device_time": "2026-05-21T08:28:03.571Z", "need_reply": false,
    "data": {"list": [{"code": "0x19110014", "level": 2, "module": 3, "in_the_sky": 0, "imminent": 0,
        "device_type": "3-2-0", "args": {"component_index": 0, "sensor_index": 1}}]},
    "data_cut": false,
    "alarms": [{
        "code": "0x19110014", "level": "warning", "module": "dock", "text": "The dock's right cover did not open in time",
        "remedy": "See what blocks it (ice, snow), then try again.", "in_the_sky": false, "imminent": false,
        "device_type": "3-2-0"
    }],
    "command_id": null
}))]
pub struct EventView {
    /// Its id; later events have greater ones.
    #[schema(format = "uuid")]
    pub event_id: String,
    /// What kind it is.
    #[serde(rename = "type")]
    #[schema(value_type = EventKindWord)]
    pub kind: &'static str,
    /// The device.
    pub device_id: String,
    /// The gateway it came through.
    pub gateway_id: String,
    /// DJI's method, where there is one.
    #[schema(example = "flighttask_progress")]
    pub method: Option<String>,
    /// When it came.
    #[schema(format = "date-time")]
    pub received_at: String,
    /// The device's own clock, which may be wrong.
    #[schema(format = "date-time")]
    pub device_time: Option<String>,
    /// Whether the device asked for an answer. It got one for every copy.
    pub need_reply: bool,
    /// What the device said, as it said it; secrets are masked. Of alarms only those that changed.
    #[schema(value_type = Value)]
    pub data: Box<RawValue>,
    /// Whether `data` is only the beginning, as text.
    pub data_cut: bool,
    /// The alarms of the list, in words; only where the type speaks of alarms.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub alarms: Option<Vec<AlarmView>>,
    /// The command it belongs to, where that is known.
    #[schema(format = "uuid")]
    pub command_id: Option<String>,
}

/// Lists what happened at a device: what it told by itself, each once, alarms raised and over, comings and goings.
#[utoipa::path(
    get,
    path = "/api/v1/open/devices/{device_id}/events",
    tag = "devices",
    operation_id = "listDeviceEvents",
    params(
        ("device_id" = String, Path, description = "Serial number of a dock, remote controller or aircraft"),
        ("types" = Option<String>, Query, description = "Of these types, separated by commas: `device.event`, `device.alarm_raised`, `device.alarm_cleared`, `device.online`, `device.offline`"),
        ("method" = Option<String>, Query, description = "Of this method of DJI's"),
        ("from" = Option<String>, Query, description = "Received at this time (RFC 3339) or later", format = "date-time"),
        ("to" = Option<String>, Query, description = "Received before this time (RFC 3339)", format = "date-time"),
        PageParams,
    ),
    responses(
        (status = 200, description = "A page", body = EventPage),
        (status = "default", description = "Refused", body = ProblemBody, content_type = "application/problem+json"),
    ),
    extensions(("x-permission" = json!("open:event:read")))
)]
pub async fn list_device_events(
    State(app): State<Arc<App>>,
    InPath(device): InPath,
    RawQuery(query): RawQuery,
    signed: Signed,
) -> Result<Json<EventPage>, Problem> {
    signed
        .reading(&app, Permission::EventRead, async |caller| {
            let (filter, page) = read(query.as_deref())?;
            let device = devices::find(&app, &caller, &device)?.sn;
            let (store, tenant) = (app.events.store(), caller.tenant());
            let read = |before, most| {
                store.events_of(tenant, device.clone(), filter.clone(), before, most)
            };
            let found = page.gather(|event| event.data.len(), |last| last.id, read).await;
            let (found, next) = found.map_err(|error| Problem::store(&error))?;
            let next_cursor = next.map(|id| id.to_string());
            let items = found.iter().map(|event| EventView::of(event, &app)).collect();
            Ok(Json(EventPage { items, next_cursor }))
        })
        .await
}

/// What a query asks for: which events, and which page of them.
pub fn read(query: Option<&str>) -> Result<(EventFilter, Page<Uuid>), Problem> {
    let known = ["types", "method", "from", "to", "limit", "cursor"];
    let mut query = Query::read(query, &known);
    let types = "types of events separated by commas, such as device.event,device.alarm_raised";
    let filter = EventFilter {
        kinds: query.take("types", types, kinds).unwrap_or_default(),
        method: query.take("method", "a method name", |text| Some(text.to_owned())),
        from: query.take("from", "an RFC 3339 time", parse_time),
        to: query.take("to", "an RFC 3339 time", parse_time),
    };
    let page = query.page(|text| text.parse::<Uuid>().ok());
    query.finish()?;
    Ok((filter, page))
}

fn kinds(text: &str) -> Option<BTreeSet<EventKind>> {
    text.split(',').map(EventKind::parse).collect()
}

impl EventView {
    fn of(event: &DeviceEvent, app: &App) -> Self {
        let alarms = match event.kind {
            EventKind::AlarmRaised | EventKind::AlarmCleared => {
                let entries = hms::read(&event.data).unwrap_or_default();
                Some(entries.iter().map(|entry| AlarmView::of(entry, &app.alarm_texts)).collect())
            }
            EventKind::Event | EventKind::Online | EventKind::Offline => None,
        };
        // It was checked when it came; what cannot be shown all the same reads as nothing.
        let data = RawValue::from_string(event.data.to_string())
            .or_else(|_| RawValue::from_string(Value::Null.to_string()));
        Self {
            event_id: event.id.to_string(),
            kind: event.kind.as_str(),
            device_id: event.device.to_string(),
            gateway_id: event.gateway.to_string(),
            method: event.method.clone(),
            received_at: event.received_at.to_string(),
            device_time: event.device_time.map(|at| at.to_string()),
            need_reply: event.need_reply,
            data: data.unwrap_or_default(),
            data_cut: event.is_cut,
            alarms,
            command_id: event.command.map(|id| id.to_string()),
        }
    }
}
