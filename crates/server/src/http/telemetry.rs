//! `GET /api/v1/open/devices/{device_id}/telemetry`

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use axum::{
    Json,
    extract::{RawQuery, State},
};
use serde::Serialize;
use serde_json::value::RawValue;
use utmos_core::{
    credential::Permission,
    telemetry::{Block, KEY_BYTES_MAX},
    time::Now,
};
use utoipa::ToSchema;

use super::{
    App, devices,
    problem::{Problem, ProblemBody},
    query::{InPath, Query},
    signed::Signed,
};

/// Names in one `fields`.
const FIELDS_MAX: usize = 100;
/// What `fields` should be.
pub const FIELDS_WANTED: &str =
    "1 to 100 names of blocks with commas between them, such as battery,mode_code";

/// Everything a device has told last.
#[derive(Debug, Serialize, ToSchema)]
pub struct TelemetryView {
    /// The device.
    #[schema(example = "4TADL2E001")]
    pub device_id: String,
    /// Each property of the top level of its `osd` and `state`, by DJI's name for it.
    pub blocks: BTreeMap<String, BlockView>,
    /// When the last message came; `null` when the device has told nothing yet.
    #[schema(format = "date-time")]
    pub updated_at: Option<String>,
}

/// One property.
#[derive(Debug, Serialize, ToSchema)]
pub struct BlockView {
    /// As the device wrote it.
    #[schema(value_type = serde_json::Value, example = json!({"capacity_percent": 94, "state": 0}))]
    pub value: Box<RawValue>,
    /// `osd`, `state`, or `drc` for what is pushed under direct control.
    #[schema(example = "osd")]
    pub source: &'static str,
    /// When it was told last, by the server's clock.
    #[schema(format = "date-time")]
    pub updated_at: String,
    /// How long ago that is.
    #[schema(example = 1.25)]
    pub age_seconds: f64,
}

/// Tells everything a device has told last, each property with its age. Properties come in parts; what a message does not
/// name is unchanged.
#[utoipa::path(
    get,
    path = "/api/v1/open/devices/{device_id}/telemetry",
    tag = "telemetry",
    operation_id = "getTelemetry",
    params(
        ("device_id" = String, Path, description = "Serial number of a dock, remote controller or aircraft of the tenant"),
        ("fields" = Option<String>, Query, description = "Only these properties of the top level, with commas between them", example = "battery,mode_code"),
    ),
    responses(
        (status = 200, description = "The latest of each property", body = TelemetryView),
        (status = "default", description = "Refused", body = ProblemBody, content_type = "application/problem+json"),
    ),
    extensions(("x-permission" = json!("open:telemetry:read")))
)]
pub async fn get_telemetry(
    State(app): State<Arc<App>>,
    InPath(device): InPath,
    RawQuery(query): RawQuery,
    signed: Signed,
) -> Result<Json<TelemetryView>, Problem> {
    let answer = signed.reading(&app, Permission::TelemetryRead, async |caller| {
        let mut query = Query::read(query.as_deref(), &["fields"]);
        let fields = query.take("fields", FIELDS_WANTED, parse_fields);
        query.finish()?;
        let device = devices::find(&app, &caller, &device)?.sn;
        let latest = app.telemetry.latest(caller.tenant(), &device).await;
        let latest = latest.map_err(|error| Problem::store(&error))?;
        let now = app.clock.now();
        let wanted = |key: &str| fields.as_ref().is_none_or(|fields| fields.contains(key));
        let blocks = latest
            .blocks()
            .filter(|(key, _)| wanted(key))
            .filter_map(|(key, block)| Some((key.to_owned(), BlockView::of(block, now)?)))
            .collect();
        Ok(Json(TelemetryView {
            device_id: device.to_string(),
            blocks,
            updated_at: latest.updated_at().map(|at| at.to_string()),
        }))
    });
    app.times.latest.of(answer).await
}

impl BlockView {
    fn of(block: &Block, now: Now) -> Option<Self> {
        Some(Self {
            value: RawValue::from_string(block.value().to_owned()).ok()?,
            source: block.source().as_str(),
            updated_at: block.at().to_string(),
            age_seconds: block.age(now).as_secs_f64(),
        })
    }
}

/// Reads a list of names.
pub fn parse_fields(text: &str) -> Option<BTreeSet<String>> {
    let fields: BTreeSet<String> = text.split(',').map(|name| name.trim().to_owned()).collect();
    let fits = |name: &String| !name.is_empty() && name.len() <= KEY_BYTES_MAX;
    (fields.len() <= FIELDS_MAX && fields.iter().all(fits)).then_some(fields)
}

#[cfg(test)]
mod tests {
    use super::parse_fields;

    #[test]
    fn names_are_taken_apart_at_commas() {
        let names = |text| parse_fields(text).map(|names| names.into_iter().collect::<Vec<_>>());
        let expected = |names: &[&str]| Some(names.iter().map(ToString::to_string).collect());
        assert_eq!(names("battery"), expected(&["battery"]));
        assert_eq!(names("b,52-0-0, a ,b"), expected(&["52-0-0", "a", "b"]));
        let many = (0..101).map(|n| n.to_string()).collect::<Vec<_>>().join(",");
        for bad in ["", ",", "a,", "a,,b", &"x".repeat(129), &many] {
            assert_eq!(names(bad), None, "{bad}");
        }
    }
}
