//! What the lists make of a query, for those who try queries on them without a server around them.

use utmos_core::{ports::CommandFilter, time::Timestamp};
use uuid::Uuid;

use super::{
    alarms, devices, events, list, problem::Problem, query::Page, requests, requests_rules,
    telemetry_history as history, telemetry_track as track, unmatched,
};

/// What is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed {
    /// Which.
    pub filter: CommandFilter,
    /// How many.
    pub limit: usize,
    /// Before which one.
    pub before: Option<Uuid>,
}

/// Of commands.
///
/// # Errors
/// As the endpoint.
pub fn commands(query: Option<&str>) -> Result<Listed, Problem> {
    let (filter, page) = list::read(query)?;
    Ok(Listed { filter, limit: page.limit, before: page.cursor.map(|id| id.uuid()) })
}

/// Of messages that belong to nothing.
///
/// # Errors
/// As the endpoint.
pub fn unmatched(query: Option<&str>) -> Result<Listed, Problem> {
    let page = unmatched::read(query)?;
    Ok(Listed { filter: CommandFilter::default(), limit: page.limit, before: page.cursor })
}

/// What one of the other endpoints is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Asked {
    /// All of it, as Rust shows it.
    pub shown: String,
    /// How many, where it comes in pages.
    pub limit: Option<usize>,
    /// From when until when, where it must have a range.
    pub range: Option<(Timestamp, Timestamp)>,
    /// The query that asks for the same.
    pub written: Vec<(&'static str, String)>,
}

/// Reads the query of an endpoint.
pub type Read = fn(Option<&str>) -> Result<Asked, Problem>;

/// The other endpoints that take a query.
pub const OTHERS: [(&str, Read); 8] = [
    ("telemetry history", telemetry_history),
    ("track", telemetry_track),
    ("events", device_events),
    ("alarms", raised_alarms),
    ("device requests", device_requests),
    ("rules", device_request_rules),
    ("devices", device_list),
    ("binding codes", binding_codes),
];

/// When it is asked.
const NOW: Timestamp = Timestamp::from_millis(1_790_000_000_000);

type Written = Vec<(&'static str, String)>;

fn put(written: &mut Written, name: &'static str, value: Option<impl ToString>) {
    written.extend(value.map(|value| (name, value.to_string())));
}

fn of_page<C: std::fmt::Debug>(
    page: &Page<C>,
    cursor: impl Fn(&C) -> String,
    shown: String,
    mut written: Written,
) -> Asked {
    put(&mut written, "limit", Some(page.limit));
    put(&mut written, "cursor", page.cursor.as_ref().map(cursor));
    Asked { shown, limit: Some(page.limit), range: None, written }
}

fn telemetry_history(query: Option<&str>) -> Result<Asked, Problem> {
    let wanted = history::read(query, NOW)?;
    let mut written = Written::new();
    put(&mut written, "from", Some(wanted.from));
    put(&mut written, "to", Some(wanted.to));
    let fields = wanted.fields.as_ref();
    let fields = fields.map(|fields| fields.iter().cloned().collect::<Vec<_>>().join(","));
    put(&mut written, "fields", fields);
    put(&mut written, "step_seconds", wanted.step);
    let shown = format!("{wanted:?}");
    let asked = of_page(&wanted.page, |place| history::place_text(*place), shown, written);
    Ok(Asked { range: Some((wanted.from, wanted.to)), ..asked })
}

fn telemetry_track(query: Option<&str>) -> Result<Asked, Problem> {
    let wanted = track::read(query, NOW)?;
    let mut written = Written::new();
    put(&mut written, "command_id", wanted.command);
    if wanted.command.is_none() {
        put(&mut written, "from", Some(wanted.from));
        put(&mut written, "to", Some(wanted.to));
    }
    let range = Some((wanted.from, wanted.to));
    Ok(Asked { shown: format!("{wanted:?}"), limit: None, range, written })
}

fn device_events(query: Option<&str>) -> Result<Asked, Problem> {
    let (filter, page) = events::read(query)?;
    let mut written = Written::new();
    let kinds: Vec<&str> = filter.kinds.iter().map(|kind| kind.as_str()).collect();
    put(&mut written, "types", (!kinds.is_empty()).then(|| kinds.join(",")));
    put(&mut written, "method", filter.method.as_ref());
    put(&mut written, "from", filter.from);
    put(&mut written, "to", filter.to);
    Ok(of_page(&page, Uuid::to_string, format!("{filter:?}{page:?}"), written))
}

fn raised_alarms(query: Option<&str>) -> Result<Asked, Problem> {
    let page = alarms::read(query)?;
    let cursor = |(device, key): &(String, String)| format!("{device} {key}");
    Ok(of_page(&page, cursor, format!("{page:?}"), Written::new()))
}

fn device_requests(query: Option<&str>) -> Result<Asked, Problem> {
    let (filter, page) = requests::read(query)?;
    let mut written = Written::new();
    put(&mut written, "device_id", filter.device.as_ref());
    put(&mut written, "request_type", filter.request_type.as_ref());
    put(&mut written, "state", filter.state.map(|state| state.as_str()));
    Ok(of_page(&page, ToString::to_string, format!("{filter:?}{page:?}"), written))
}

fn device_request_rules(query: Option<&str>) -> Result<Asked, Problem> {
    let device = requests_rules::read_query(query)?;
    let mut written = Written::new();
    put(&mut written, "device_id", device.as_ref());
    Ok(Asked { shown: format!("{device:?}"), limit: None, range: None, written })
}

fn device_list(query: Option<&str>) -> Result<Asked, Problem> {
    let wanted = devices::list::read(query)?;
    let mut written = Written::new();
    put(&mut written, "kind", wanted.kind.map(|kind| kind.as_str()));
    put(&mut written, "online", wanted.online);
    put(&mut written, "label", wanted.label.as_ref());
    put(&mut written, "tag", wanted.tag.as_ref());
    let shown = format!("{wanted:?}");
    Ok(of_page(&wanted.page, ToString::to_string, shown, written))
}

fn binding_codes(query: Option<&str>) -> Result<Asked, Problem> {
    let page = devices::codes::read_query(query)?;
    Ok(of_page(&page, ToString::to_string, format!("{page:?}"), Written::new()))
}
