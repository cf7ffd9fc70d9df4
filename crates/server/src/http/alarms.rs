//! `GET /api/v1/open/devices/{device_id}/alarms` and `GET /api/v1/open/alarms`

use std::sync::Arc;

use axum::{
    Json,
    extract::{RawQuery, State},
};
use serde::Serialize;
use utmos_core::{credential::Permission, device_event::Alarm};
use utmos_dji::hms::{Entry, Meanings};
use utoipa::ToSchema;

use super::{
    App, devices,
    problem::{Problem, ProblemBody},
    query::{InPath, Page, PageParams, Query},
    signed::Signed,
    words::AlarmLevelWord,
};

/// What an alarm says.
#[derive(Debug, Serialize, ToSchema)]
pub struct AlarmView {
    /// The code, as DJI lists it.
    #[schema(example = "0x16100067")]
    pub code: String,
    /// How serious it is; `null` where the device did not say.
    #[schema(value_type = Option<AlarmLevelWord>)]
    pub level: Option<&'static str>,
    /// The system it comes from, by the first digits of the code.
    #[schema(example = "flight control")]
    pub module: Option<String>,
    /// What is the matter, in English. A code that is not in the table is named with its system.
    pub text: String,
    /// What to do about it, where that is known.
    pub remedy: Option<String>,
    /// Whether the aircraft was in the air.
    pub in_the_sky: Option<bool>,
    /// Whether it passes by itself.
    pub imminent: Option<bool>,
    /// `domain-type-sub_type` of what it concerns, where told.
    #[schema(example = "0-100-0")]
    pub device_type: Option<String>,
}

/// An alarm that is raised now.
#[derive(Debug, Serialize, ToSchema)]
pub struct RaisedView {
    /// What it says.
    #[serde(flatten)]
    pub alarm: AlarmView,
    /// The device that lists it.
    pub device_id: String,
    /// The gateway it came through.
    pub gateway_id: String,
    /// When it was first listed.
    #[schema(format = "date-time")]
    pub since: String,
}

/// The alarms of a device that are raised now.
#[derive(Debug, Serialize, ToSchema)]
#[schema(example = json!({
    "as_of": "2026-05-21T08:28:06.063Z",
    "items": [{
        "code": "0x19110014", "level": "warning", "module": "dock", "text": "The dock's right cover did not open in time",
        "remedy": "See what blocks it (ice, snow), then try again.", "in_the_sky": false, "imminent": false,
        "device_type": "3-2-0", "device_id": "SIM-DOCK-0001", "gateway_id": "SIM-DOCK-0001",
        "since": "2026-05-21T08:28:04.063Z"
    }]
}))]
pub struct DeviceAlarms {
    /// When the device last sent its list; `null` if it has not since the server started. Of a device that is away the
    /// alarms are those it listed last.
    #[schema(format = "date-time")]
    pub as_of: Option<String>,
    /// The most serious first.
    pub items: Vec<RaisedView>,
}

/// A page of alarms of a tenant's devices.
#[derive(Debug, Serialize, ToSchema)]
pub struct AlarmPage {
    /// By device.
    pub items: Vec<RaisedView>,
    /// Where the next page begins; `null` on the last.
    pub next_cursor: Option<String>,
}

/// Tells which alarms of a device are raised now, with what to do about them.
#[utoipa::path(
    get,
    path = "/api/v1/open/devices/{device_id}/alarms",
    tag = "devices",
    operation_id = "listDeviceAlarms",
    params(("device_id" = String, Path, description = "Serial number of a dock, remote controller or aircraft")),
    responses(
        (status = 200, description = "The alarms", body = DeviceAlarms),
        (status = "default", description = "Refused", body = ProblemBody, content_type = "application/problem+json"),
    ),
    extensions(("x-permission" = json!("open:event:read")))
)]
pub async fn list_device_alarms(
    State(app): State<Arc<App>>,
    InPath(device): InPath,
    RawQuery(query): RawQuery,
    signed: Signed,
) -> Result<Json<DeviceAlarms>, Problem> {
    signed
        .reading(&app, Permission::EventRead, async |caller| {
            Query::read(query.as_deref(), &[]).finish()?;
            let device = devices::find(&app, &caller, &device)?.sn;
            let (alarms, heard_at) = app.events.alarms_of(caller.tenant(), &device);
            let mut items: Vec<(Option<_>, RaisedView)> =
                alarms.iter().filter_map(|alarm| RaisedView::of(alarm, &app.alarm_texts)).collect();
            items.sort_by_key(|(level, _)| std::cmp::Reverse(*level));
            let items = items.into_iter().map(|(_, view)| view).collect();
            Ok(Json(DeviceAlarms { as_of: heard_at.map(|at| at.to_string()), items }))
        })
        .await
}

/// Lists the alarms that are raised now at the tenant's devices, by device.
#[utoipa::path(
    get,
    path = "/api/v1/open/alarms",
    tag = "devices",
    operation_id = "listAlarms",
    params(PageParams),
    responses(
        (status = 200, description = "A page", body = AlarmPage),
        (status = "default", description = "Refused", body = ProblemBody, content_type = "application/problem+json"),
    ),
    extensions(("x-permission" = json!("open:event:read")))
)]
pub async fn list_alarms(
    State(app): State<Arc<App>>,
    RawQuery(query): RawQuery,
    signed: Signed,
) -> Result<Json<AlarmPage>, Problem> {
    signed
        .reading(&app, Permission::EventRead, async |caller| {
            let page = read(query.as_deref())?;
            let place = |alarm: &Alarm| (alarm.device.to_string(), alarm.key.clone());
            let mut alarms = app.events.alarms_of_tenant(caller.tenant());
            alarms.retain(|alarm| {
                caller.may_touch(&alarm.device)
                    && page.cursor.as_ref().is_none_or(|after| *after < place(alarm))
            });
            let next_cursor = page.cut(&mut alarms, |last| format!("{} {}", last.device, last.key));
            let views = alarms.iter().filter_map(|alarm| RaisedView::of(alarm, &app.alarm_texts));
            Ok(Json(AlarmPage { items: views.map(|(_, view)| view).collect(), next_cursor }))
        })
        .await
}

/// What a query asks for: which page, after which alarm of which device.
pub fn read(query: Option<&str>) -> Result<Page<(String, String)>, Problem> {
    let mut query = Query::read(query, &["limit", "cursor"]);
    let page = query.page(|text| {
        let (device, key) = text.split_once(' ')?;
        Some((device.to_owned(), key.to_owned()))
    });
    query.finish()?;
    Ok(page)
}

impl AlarmView {
    /// An entry of a list, in words.
    #[must_use]
    pub fn of(entry: &Entry, meanings: &Meanings) -> Self {
        let meaning = meanings.of(entry);
        Self {
            code: entry.code.clone(),
            level: entry.level.map(utmos_dji::hms::Level::as_str),
            module: meaning.module,
            text: meaning.text,
            remedy: meaning.remedy,
            in_the_sky: entry.in_the_sky,
            imminent: entry.imminent,
            device_type: entry.device_type.clone(),
        }
    }
}

impl RaisedView {
    fn of(alarm: &Alarm, meanings: &Meanings) -> Option<(Option<utmos_dji::hms::Level>, Self)> {
        let entry = Entry::read(&alarm.entry)?;
        let view = Self {
            alarm: AlarmView::of(&entry, meanings),
            device_id: alarm.device.to_string(),
            gateway_id: alarm.gateway.to_string(),
            since: alarm.since.to_string(),
        };
        Some((entry.level, view))
    }
}
