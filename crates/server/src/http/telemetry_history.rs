//! `GET /api/v1/open/devices/{device_id}/telemetry/history`

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use axum::{
    extract::{RawQuery, State},
    response::Response,
};
use serde::Serialize;
use serde_json::value::RawValue;
use utmos_core::{
    credential::Permission,
    ports::{SamplePlace, SampleRange, SamplesRead, StoreError, TelemetryStore},
    telemetry::{Sample, Steps, pick_blocks},
    time::Timestamp,
};
use utoipa::ToSchema;

use super::{
    App, devices,
    list::parse_time,
    problem::{Problem, ProblemBody},
    query::{InPath, Page, PageParams, Query, between},
    reading_history::Question,
    signed::Signed,
    telemetry::{FIELDS_WANTED, parse_fields},
};

/// What is asked for when nobody says from when.
pub const RANGE_DEFAULT: Duration = Duration::from_secs(3600);
/// Longest step, in seconds.
const STEP_SECONDS_MAX: usize = 3_600;
/// Bytes of values in one page. One sample alone may have more. Where a page would have more, a shorter one tells where the
/// next begins; so it does when that much of the history was read for it:
const PAGE_BYTES_MAX: usize = 4 * 1024 * 1024;
/// pieces, which are an hour at the default settings of one that speaks all the time, …
const PIECES_A_PAGE: usize = 360;
/// … and bytes.
const READ_BYTES_A_PAGE: usize = 16 * 1024 * 1024;
/// The same while not even one step has come to its end. What is kept of a device in an hour, the longest step, is less.
const PIECES_A_STEP: usize = 4_096;
const READ_BYTES_A_STEP: usize = 96 * 1024 * 1024;

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
) -> Result<Response, Problem> {
    signed
        .reading(&app, Permission::TelemetryRead, async |caller| {
            let wanted = read(query.as_deref(), app.clock.now().wall)?;
            let device = devices::find(&app, &caller, &device)?.sn;
            let range = SampleRange {
                tenant: caller.tenant(),
                device,
                from: wanted.from,
                to: wanted.to,
                begin: wanted.page.cursor,
            };
            let question = app.reading.begin(caller.tenant()).await?;
            let found = wanted.gather(app.history.clone(), &question, range).await;
            let page = found.map_err(|error| Problem::store(&error))?;
            Ok(question.answer("application/json", &page))
        })
        .await
}

/// What a query asks for.
#[derive(Debug)]
pub struct Wanted {
    /// From this time on.
    pub from: Timestamp,
    /// Before this time.
    pub to: Timestamp,
    /// Only these blocks.
    pub fields: Option<BTreeSet<String>>,
    /// One sample for each so many seconds.
    pub step: Option<usize>,
    /// Which page.
    pub page: Page<SamplePlace>,
}

/// Reads a query.
pub fn read(query: Option<&str>, now: Timestamp) -> Result<Wanted, Problem> {
    let known = ["from", "to", "fields", "step_seconds", "limit", "cursor"];
    let mut query = Query::read(query, &known);
    let times = take_times(&mut query);
    let (from, to) = range_of(&mut query, times, now);
    let fields = query.take("fields", FIELDS_WANTED, parse_fields);
    let step = query.take(
        "step_seconds",
        "a whole number of seconds from 1 to 3600",
        between(1, STEP_SECONDS_MAX),
    );
    let page = query.page(parse_place);
    query.finish()?;
    Ok(Wanted { from, to, fields, step, page })
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

impl Wanted {
    async fn gather(
        self,
        store: Arc<dyn TelemetryStore>,
        question: &Question,
        range: SampleRange,
    ) -> Result<SamplePage, StoreError> {
        let mut begin = range.begin;
        let mut page = Gathered::new(self);
        loop {
            let range = SampleRange { begin, ..range.clone() };
            let work = move |read| {
                let goes_on = page.add(read);
                (page, goes_on)
            };
            let goes_on;
            (page, goes_on) = question.read(store.clone(), range, work).await?;
            match goes_on {
                GoesOn::At(place) => begin = Some(place),
                GoesOn::InNextPage(next) => {
                    return Ok(SamplePage { items: page.items, next_cursor: next.map(place_text) });
                }
            }
        }
    }
}

/// A page as far as it has come.
struct Gathered {
    fields: Option<BTreeSet<String>>,
    limit: usize,
    steps: Option<Steps>,
    /// Where the step that is being merged begins: a page that ends within it leaves it to the next.
    open: Option<SamplePlace>,
    items: Vec<SampleView>,
    bytes: usize,
    /// What was read for it.
    pieces: usize,
    read_bytes: usize,
}

/// Where a page goes on.
enum GoesOn {
    /// There is room for more.
    At(SamplePlace),
    /// It has ended; the next begins there, if there is one.
    InNextPage(Option<SamplePlace>),
}

impl Gathered {
    fn new(wanted: Wanted) -> Self {
        let step = |seconds| Steps::of(Duration::from_secs(seconds as u64));
        Self {
            fields: wanted.fields,
            limit: wanted.page.limit,
            steps: wanted.step.map(step),
            open: None,
            items: Vec::new(),
            bytes: 0,
            pieces: 0,
            read_bytes: 0,
        }
    }

    /// Takes in what was read.
    fn add(&mut self, read: SamplesRead) -> GoesOn {
        self.pieces += read.pieces;
        self.read_bytes += read.bytes;
        let had_enough = match self.steps.take() {
            None => self.add_samples(read.samples),
            Some(mut steps) => {
                let had_enough = self.add_steps(&mut steps, read.samples);
                self.steps = Some(steps);
                had_enough
            }
        };
        if let Some(next) = had_enough {
            return GoesOn::InNextPage(Some(next));
        }
        let Some(rest) = read.rest else { return self.end(None) };
        let is_long = self.pieces >= PIECES_A_PAGE || self.read_bytes >= READ_BYTES_A_PAGE;
        let is_too_long = self.pieces >= PIECES_A_STEP || self.read_bytes >= READ_BYTES_A_STEP;
        match self.open {
            None if is_long => GoesOn::InNextPage(Some(rest)),
            Some(open) if is_long && !self.items.is_empty() => GoesOn::InNextPage(Some(open)),
            Some(_) if is_too_long => self.end(Some(rest)),
            Some(_) | None => GoesOn::At(rest),
        }
    }

    /// Ends with the step that is being merged, as far as it has come.
    fn end(&mut self, rest: Option<SamplePlace>) -> GoesOn {
        match self.steps.as_mut().and_then(Steps::finish) {
            Some(last) if !self.push(&last) => GoesOn::InNextPage(self.open),
            Some(_) | None => GoesOn::InNextPage(rest),
        }
    }

    /// Answers where the next page begins, if this one is full.
    fn add_samples(&mut self, samples: Vec<(SamplePlace, Sample)>) -> Option<SamplePlace> {
        for (place, sample) in samples {
            let is_full = self.items.len() == self.limit;
            if is_full || self.pick(sample).is_some_and(|sample| !self.push(&sample)) {
                return Some(place);
            }
        }
        None
    }

    fn add_steps(
        &mut self,
        steps: &mut Steps,
        samples: Vec<(SamplePlace, Sample)>,
    ) -> Option<SamplePlace> {
        for (place, sample) in samples {
            let Some(sample) = self.pick(sample) else { continue };
            if let Some(done) = steps.push(&sample) {
                if !self.push(&done) {
                    return self.open;
                }
                self.open = Some(place);
                if self.items.len() == self.limit {
                    return self.open;
                }
            }
            self.open = self.open.or(Some(place));
        }
        None
    }

    /// Adds one, if there is room for it.
    fn push(&mut self, sample: &Sample) -> bool {
        let bytes = self.bytes + sample.values.len();
        if PAGE_BYTES_MAX < bytes && !self.items.is_empty() {
            return false;
        }
        self.bytes = bytes;
        self.items.extend(SampleView::of(sample));
        true
    }

    /// A sample as far as it was asked for.
    fn pick(&self, sample: Sample) -> Option<Sample> {
        let Some(fields) = &self.fields else { return Some(sample) };
        let values = pick_blocks(&sample.values, &|key| fields.contains(key))?.into();
        Some(Sample { values, ..sample })
    }
}

/// How a place is written as a cursor.
pub fn place_text(place: SamplePlace) -> String {
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
