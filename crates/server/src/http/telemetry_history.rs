//! `GET /api/v1/open/devices/{device_id}/telemetry/history`

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use axum::{
    Json,
    extract::{RawQuery, State},
};
use serde::Serialize;
use serde_json::value::RawValue;
use utmos_core::{
    credential::Permission,
    ports::{SamplePlace, SampleRange, StoreError, TelemetryStore},
    telemetry::{Sample, Steps, pick_blocks},
    time::Timestamp,
};
use utoipa::ToSchema;

use super::{
    App, devices,
    list::parse_time,
    problem::{Problem, ProblemBody},
    query::{InPath, PageParams, Query, between},
    signed::Signed,
    telemetry::{FIELDS_WANTED, parse_fields},
};

/// What is asked for when nobody says from when.
pub const RANGE_DEFAULT: Duration = Duration::from_secs(3600);
/// Longest step, in seconds.
const STEP_SECONDS_MAX: usize = 3_600;
/// Pieces of the history that are read in one go …
pub const PIECES_A_READ: usize = 32;
/// … and for one page: an hour at the default settings. Where that is not enough for a full page, a shorter one tells where
/// the next begins.
const PIECES_A_PAGE: usize = 360;
/// The same while not even one step has come to its end.
const PIECES_A_STEP: usize = 4_096;

/// A page of samples.
#[derive(Debug, Serialize, ToSchema)]
pub struct SamplePage {
    /// Oldest first.
    pub items: Vec<SampleView>,
    /// Where the next page begins; `null` on the last. A page may be shorter than `limit`, even empty, and not be the last.
    pub next_cursor: Option<String>,
}

/// What a device told at one time.
#[derive(Debug, Serialize, ToSchema)]
pub struct SampleView {
    /// When it came, by the server's clock; of merged ones, the last of them.
    #[schema(format = "date-time")]
    pub at: String,
    /// `osd`, `state`, `drc`, or `merged`.
    #[schema(example = "osd")]
    pub source: &'static str,
    /// What it told, as it wrote it.
    #[schema(value_type = Object, example = json!({"mode_code": 4, "height": 55.9}))]
    pub values: Box<RawValue>,
}

/// Lists what a device told in a range of time, oldest first; with `step_seconds` one merged sample for each step.
#[utoipa::path(
    get,
    path = "/api/v1/open/devices/{device_id}/telemetry/history",
    tag = "telemetry",
    operation_id = "listTelemetry",
    params(
        ("device_id" = String, Path, description = "Serial number of a dock, remote controller or aircraft of the tenant"),
        ("from" = Option<String>, Query, description = "From this time (RFC 3339) on; an hour before `to` when absent", format = "date-time"),
        ("to" = Option<String>, Query, description = "Before this time (RFC 3339); now when absent", format = "date-time"),
        ("fields" = Option<String>, Query, description = "Only these properties of the top level, with commas between them, and only samples that have one", example = "battery,mode_code"),
        ("step_seconds" = Option<u32>, Query, description = "Merge into one sample for each step of so many seconds, counted from the epoch", minimum = 1, maximum = 3600),
        PageParams,
    ),
    responses(
        (status = 200, description = "A page", body = SamplePage),
        (status = "default", description = "Refused", body = ProblemBody, content_type = "application/problem+json"),
    ),
    extensions(("x-permission" = json!("open:telemetry:read")))
)]
pub async fn list_samples(
    State(app): State<Arc<App>>,
    InPath(device): InPath,
    RawQuery(query): RawQuery,
    signed: Signed,
) -> Result<Json<SamplePage>, Problem> {
    signed
        .reading(&app, Permission::TelemetryRead, async |caller| {
            let known = ["from", "to", "fields", "step_seconds", "limit", "cursor"];
            let mut query = Query::read(query.as_deref(), &known);
            let times = take_times(&mut query);
            let (from, to) = range_of(&mut query, times, app.clock.now().wall);
            let fields = query.take("fields", FIELDS_WANTED, parse_fields);
            let step = query.take(
                "step_seconds",
                "a whole number of seconds from 1 to 3600",
                between(1, STEP_SECONDS_MAX),
            );
            let page = query.page(parse_place);
            query.finish()?;
            let device = devices::find(&app, &caller, &device)?.sn;
            let asked = Asked {
                range: SampleRange {
                    tenant: caller.tenant(),
                    device,
                    from,
                    to,
                    begin: page.cursor,
                },
                fields,
                limit: page.limit,
            };
            let found = match step {
                None => asked.samples(&*app.history).await,
                Some(seconds) => {
                    asked.steps(&*app.history, Duration::from_secs(seconds as u64)).await
                }
            };
            let (samples, next) = found.map_err(|error| Problem::store(&error))?;
            Ok(Json(SamplePage {
                items: samples.iter().filter_map(SampleView::of).collect(),
                next_cursor: next.map(place_text),
            }))
        })
        .await
}

/// Takes `from` and `to` out of a query.
pub fn take_times(query: &mut Query) -> (Option<Timestamp>, Option<Timestamp>) {
    let mut time = |name| query.take(name, "an RFC 3339 time", parse_time);
    (time("from"), time("to"))
}

/// The range that is meant.
pub fn range_of(
    query: &mut Query,
    (from, to): (Option<Timestamp>, Option<Timestamp>),
    now: Timestamp,
) -> (Timestamp, Timestamp) {
    let to = to.unwrap_or(now);
    let from = from.unwrap_or_else(|| {
        let hour = i64::try_from(RANGE_DEFAULT.as_millis()).unwrap_or(0);
        Timestamp::from_millis(to.as_millis().saturating_sub(hour))
    });
    if to <= from {
        query.refuse("from", &format!("must be before to, which is {to}"));
    }
    (from, to)
}

impl SampleView {
    fn of(sample: &Sample) -> Option<Self> {
        Some(Self {
            at: sample.at.to_string(),
            source: sample.source.as_str(),
            values: RawValue::from_string(sample.values.to_string()).ok()?,
        })
    }
}

/// What is asked for.
struct Asked {
    range: SampleRange,
    fields: Option<BTreeSet<String>>,
    limit: usize,
}

type Found = (Vec<Sample>, Option<SamplePlace>);

impl Asked {
    async fn samples(&self, store: &dyn TelemetryStore) -> Result<Found, StoreError> {
        let (mut items, mut begin, mut pieces) = (Vec::new(), self.range.begin, 0);
        loop {
            let range = SampleRange { begin, ..self.range.clone() };
            let read = store.samples(range, PIECES_A_READ).await?;
            pieces += PIECES_A_READ;
            for (place, sample) in read.samples {
                if items.len() == self.limit {
                    return Ok((items, Some(place)));
                }
                items.extend(self.pick(sample));
            }
            match read.rest {
                Some(rest) if pieces < PIECES_A_PAGE => begin = Some(rest),
                rest => return Ok((items, rest)),
            }
        }
    }

    async fn steps(&self, store: &dyn TelemetryStore, step: Duration) -> Result<Found, StoreError> {
        let (mut items, mut begin, mut pieces) = (Vec::new(), self.range.begin, 0);
        let mut steps = Steps::of(step);
        // Where the step that is being merged begins: a page that ends within it leaves it to the next.
        let mut open: Option<SamplePlace> = None;
        loop {
            let range = SampleRange { begin, ..self.range.clone() };
            let read = store.samples(range, PIECES_A_READ).await?;
            pieces += PIECES_A_READ;
            for (place, sample) in read.samples {
                let Some(sample) = self.pick(sample) else { continue };
                if let Some(done) = steps.push(&sample) {
                    items.push(done);
                    open = Some(place);
                    if items.len() == self.limit {
                        return Ok((items, open));
                    }
                }
                open = open.or(Some(place));
            }
            let Some(rest) = read.rest else {
                items.extend(steps.finish());
                return Ok((items, None));
            };
            match open {
                None if pieces >= PIECES_A_PAGE => return Ok((items, Some(rest))),
                Some(open) if pieces >= PIECES_A_PAGE && !items.is_empty() => {
                    return Ok((items, Some(open)));
                }
                Some(_) if pieces >= PIECES_A_STEP => {
                    items.extend(steps.finish());
                    return Ok((items, Some(rest)));
                }
                Some(_) | None => begin = Some(rest),
            }
        }
    }

    /// A sample as far as it was asked for.
    fn pick(&self, sample: Sample) -> Option<Sample> {
        let Some(fields) = &self.fields else { return Some(sample) };
        let values = pick_blocks(&sample.values, &|key| fields.contains(key))?.into();
        Some(Sample { values, ..sample })
    }
}

fn place_text(place: SamplePlace) -> String {
    format!("{}.{}.{}", place.first.as_millis(), place.piece, place.index)
}

fn parse_place(text: &str) -> Option<SamplePlace> {
    let mut parts = text.split('.');
    let place = SamplePlace {
        first: Timestamp::from_millis(parts.next()?.parse().ok()?),
        piece: parts.next()?.parse().ok()?,
        index: parts.next()?.parse().ok()?,
    };
    parts.next().is_none().then_some(place)
}
