//! `GET /api/v1/open/devices/{device_id}/telemetry/track`

use std::{sync::Arc, time::Duration};

use axum::{
    extract::{RawQuery, State},
    response::Response,
};
use serde::Serialize;
use serde_json::Value;
use utmos_core::{
    command::Command,
    credential::Permission,
    evidence::{Entry, Proof},
    id::{CommandId, DeviceSn},
    ports::{SampleRange, SamplesRead, StoreError, TelemetryStore},
    telemetry::{Position, Track, position_of},
    time::Timestamp,
};
use utoipa::ToSchema;

use super::{
    App, devices,
    get::find,
    problem::{Detail, Problem, ProblemBody},
    query::{InPath, Query},
    reading_history::Question,
    signed::Signed,
    telemetry_history::{range_of, take_times},
};

/// Longest range. A flight lasts less than an hour.
const RANGE_MAX: Duration = Duration::from_secs(6 * 3600);
/// Bytes of the history that are read for one track: what an aircraft tells in three hours under direct control, or in a
/// range as long as it may be without. One that never stops talking has four times as much kept of it.
const BYTES_MAX: usize = 96 * 1024 * 1024;

/// A track as a GeoJSON feature (RFC 7946).
#[derive(Debug, Serialize, ToSchema)]
pub struct TrackView {
    /// `Feature`.
    #[serde(rename = "type")]
    #[schema(example = "Feature")]
    pub kind: &'static str,
    /// A `LineString` of `[longitude, latitude, height]`, in degrees and metres above the ellipsoid; a `Point` where only one
    /// position is known, `null` where none is. A position without a known height has two numbers.
    pub geometry: Option<Geometry>,
    /// What it is a track of.
    pub properties: TrackProperties,
}

/// Where it went.
#[derive(Debug, Serialize, ToSchema)]
pub struct Geometry {
    /// `LineString` or `Point`.
    #[serde(rename = "type")]
    #[schema(example = "LineString")]
    pub kind: &'static str,
    /// Positions, oldest first.
    #[schema(value_type = Vec<Vec<f64>>, example = json!([[140.3715, 15.7128, 55.9], [140.3717, 15.713, 56.2]]))]
    pub coordinates: Value,
}

/// What a track is of.
#[derive(Debug, Serialize, ToSchema)]
pub struct TrackProperties {
    /// The device that told these positions.
    pub device_id: String,
    /// The command whose flight it is, where one was asked for.
    #[schema(format = "uuid")]
    pub command_id: Option<String>,
    /// From this time on.
    #[schema(format = "date-time")]
    pub from: String,
    /// Before this time.
    #[schema(format = "date-time")]
    pub to: String,
    /// When each position was told.
    #[serde(rename = "coordTimes")]
    pub coord_times: Vec<String>,
}

/// Draws where a device went, as GeoJSON: in a range of time, or during a command. Nonsense such as 0/0 is left out, and a
/// track of more than 2,000 positions is thinned evenly.
#[utoipa::path(
    get,
    path = "/api/v1/open/devices/{device_id}/telemetry/track",
    tag = "telemetry",
    operation_id = "getTrack",
    params(
        ("device_id" = String, Path, description = "Serial number of an aircraft of the tenant; with `command_id` also that of its gateway"),
        ("from" = Option<String>, Query, description = "From this time (RFC 3339) on; an hour before `to` when absent", format = "date-time"),
        ("to" = Option<String>, Query, description = "Before this time (RFC 3339), at most 6 hours after `from`; now when absent", format = "date-time"),
        ("command_id" = Option<String>, Query, description = "In place of both: from the sending of this command to its end, as far as it has come", format = "uuid"),
    ),
    responses(
        (status = 200, description = "The track", body = TrackView, content_type = "application/geo+json"),
        (status = "default", description = "Refused", body = ProblemBody, content_type = "application/problem+json"),
    ),
    extensions(("x-permission" = json!("open:telemetry:read")))
)]
pub async fn get_track(
    State(app): State<Arc<App>>,
    InPath(device): InPath,
    RawQuery(query): RawQuery,
    signed: Signed,
) -> Result<Response, Problem> {
    signed
        .reading(&app, Permission::TelemetryRead, async |caller| {
            let now = app.clock.now().wall;
            let Wanted { from, to, command } = read(query.as_deref(), now)?;
            let device = devices::find(&app, &caller, &device)?.sn;
            let asked = match command {
                None => Asked { device, from, to, command },
                Some(id) => {
                    let command = find(&app, &caller, id).await?;
                    let timeline = app.store.timeline(id).await;
                    let timeline = timeline.map_err(|error| Problem::store(&error))?;
                    let asked = during(&command, &timeline, device, now)?;
                    // A credential for the dock alone sees nothing of its aircraft.
                    devices::find(&app, &caller, asked.device.as_str())?;
                    asked
                }
            };
            let range = SampleRange {
                tenant: caller.tenant(),
                device: asked.device.clone(),
                from: asked.from,
                to: asked.to,
                begin: None,
            };
            let question = app.reading.begin(caller.tenant()).await?;
            let positions = positions(app.history.clone(), &question, range).await;
            let track = match positions.map_err(|error| Problem::store(&error))? {
                Positions::All(positions) => asked.draw(&positions),
                Positions::TooMuch { until } => return Err(asked.too_much(until)),
            };
            Ok(question.answer("application/geo+json", &track))
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
    /// In place of both.
    pub command: Option<CommandId>,
}

/// Reads a query.
pub fn read(query: Option<&str>, now: Timestamp) -> Result<Wanted, Problem> {
    let mut query = Query::read(query, &["from", "to", "command_id"]);
    let command: Option<CommandId> =
        query.take("command_id", "the id of a command", |text| text.parse().ok());
    let times = take_times(&mut query);
    if command.is_some() && times != (None, None) {
        query.refuse("command_id", "cannot be given together with from or to");
    }
    let (from, to) = range_of(&mut query, times, now);
    if RANGE_MAX < to.since(from) {
        query.refuse("to", "must be at most 6 hours after from");
    }
    query.finish()?;
    Ok(Wanted { from, to, command })
}

struct Asked {
    device: DeviceSn,
    from: Timestamp,
    to: Timestamp,
    command: Option<CommandId>,
}

/// The time of a command, and whose positions are meant: a dock stands where it stands, so its aircraft's.
fn during(
    command: &Command,
    timeline: &[Entry],
    device: DeviceSn,
    now: Timestamp,
) -> Result<Asked, Problem> {
    let (spec, life) = (&command.spec, &command.life);
    let gateway = spec.gateway.to_device();
    let concerned = [Some(&spec.device), Some(&gateway), spec.aircraft.as_ref()];
    if !concerned.contains(&Some(&device)) {
        let problem = "must be a command of this device, its gateway or its aircraft";
        return Err(Problem::invalid(vec![
            Detail::new("query:command_id", problem).given(spec.id.to_string().into()),
        ]));
    }
    let device = match &spec.aircraft {
        Some(aircraft) if device == gateway => aircraft.clone(),
        Some(_) | None => device,
    };
    let sent = timeline.iter().find(|entry| matches!(entry.proof, Proof::SendingClaimed { .. }));
    let from = sent.map_or(spec.accepted_at, |entry| entry.at);
    let to = life.completed_at.unwrap_or(now).min(from.plus(RANGE_MAX));
    Ok(Asked { device, from, to, command: Some(spec.id) })
}

/// What was found in a range.
enum Positions {
    /// Where the device was.
    All(Vec<Position>),
    /// More is kept of the range than is read for a track: before this time it would have been little enough.
    TooMuch { until: Timestamp },
}

async fn positions(
    store: Arc<dyn TelemetryStore>,
    question: &Question,
    mut range: SampleRange,
) -> Result<Positions, StoreError> {
    let (mut track, mut bytes_read) = (Track::default(), 0_usize);
    loop {
        let work = move |read: SamplesRead| {
            let found = read.samples.iter().filter_map(|(_, one)| position_of(&one.values, one.at));
            found.for_each(|position| track.push(position));
            (track, read.rest, read.bytes)
        };
        let bytes;
        (track, range.begin, bytes) = question.read(store.clone(), range.clone(), work).await?;
        bytes_read += bytes;
        match range.begin {
            None => return Ok(Positions::All(track.finish())),
            Some(rest) if BYTES_MAX <= bytes_read => {
                return Ok(Positions::TooMuch { until: rest.first });
            }
            Some(_) => {}
        }
    }
}

impl Asked {
    fn too_much(&self, until: Timestamp) -> Problem {
        let field = if self.command.is_some() { "query:command_id" } else { "query:to" };
        let problem = format!(
            "names a range of which more than {} MiB of telemetry are kept; ask for less of it at a time, with from={} and \
             to={until} first",
            BYTES_MAX >> 20,
            self.from,
        );
        Problem::invalid(vec![Detail::new(field, &problem)])
    }

    fn draw(&self, positions: &[Position]) -> TrackView {
        let coordinates: Vec<Value> = positions.iter().map(coordinates_of).collect();
        let geometry = match coordinates.as_slice() {
            [] => None,
            [only] => Some(Geometry { kind: "Point", coordinates: only.clone() }),
            _ => Some(Geometry { kind: "LineString", coordinates: coordinates.into() }),
        };
        TrackView {
            kind: "Feature",
            geometry,
            properties: TrackProperties {
                device_id: self.device.to_string(),
                command_id: self.command.map(|id| id.to_string()),
                from: self.from.to_string(),
                to: self.to.to_string(),
                coord_times: positions.iter().map(|position| position.at.to_string()).collect(),
            },
        }
    }
}

fn coordinates_of(position: &Position) -> Value {
    let mut numbers = vec![position.longitude, position.latitude];
    numbers.extend(position.height);
    numbers.into()
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]
    use utmos_core::{id::TenantId, ports::SamplePlace};
    use uuid::Uuid;

    use super::{
        super::{
            problem::Code, reading_history::ReadingHistory, scripted_history::ScriptedHistory,
        },
        *,
    };

    const PIECE_BYTES: usize = 4 * 1024 * 1024;

    /// What is drawn of a range of so many pieces, one a minute.
    async fn drawn(pieces: i64) -> Positions {
        let tenant = TenantId::new(Uuid::from_u128(1));
        let minute = |number: i64| Timestamp::from_millis(number * 60_000);
        let history = ScriptedHistory(move |range: SampleRange| {
            let piece = range.begin.map_or(0, |place| place.piece);
            let next = piece + 1;
            let rest = SamplePlace { first: minute(next), piece: next, index: 0 };
            let rest = (next < pieces).then_some(rest);
            let read = SamplesRead { samples: Vec::new(), pieces: 1, bytes: PIECE_BYTES, rest };
            Box::pin(async move { read }) as _
        });
        let range = SampleRange {
            tenant,
            device: DeviceSn::parse("AIR-1").unwrap(),
            from: minute(0),
            to: minute(pieces),
            begin: None,
        };
        let question = ReadingHistory::default().begin(tenant).await.unwrap();
        positions(Arc::new(history), &question, range).await.unwrap()
    }

    #[tokio::test]
    async fn more_than_is_read_for_a_track_is_refused_with_the_range_that_is_not_too_much() {
        let most = (BYTES_MAX / PIECE_BYTES) as i64;
        let Positions::All(none) = drawn(most).await else { panic!("it is not too much") };
        assert!(none.is_empty());
        let Positions::TooMuch { until } = drawn(most + 1).await else { panic!("it is too much") };
        assert_eq!(until, Timestamp::from_millis(most * 60_000));
        let asked = |command| Asked {
            device: DeviceSn::parse("AIR-1").unwrap(),
            from: Timestamp::from_millis(0),
            to: Timestamp::from_millis(1),
            command,
        };
        for (command, field) in
            [(None, "query:to"), (Some(CommandId::new(Uuid::nil())), "query:command_id")]
        {
            let problem = asked(command).too_much(until);
            assert_eq!((problem.code, &*problem.details[0].field), (Code::ValidationFailed, field));
            let text = &problem.details[0].problem;
            let remedy = "with from=1970-01-01T00:00:00.000Z and to=1970-01-01T00:24:00.000Z first";
            assert!(text.ends_with(remedy), "{text}");
        }
    }
}
