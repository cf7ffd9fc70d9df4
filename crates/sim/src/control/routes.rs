//! What can be asked and told.

use std::fmt;

use axum::{
    Json, Router,
    body::Bytes,
    extract::{
        Path, Query, State,
        rejection::{BytesRejection, PathRejection, QueryRejection},
    },
    http::StatusCode,
    routing::{delete, get, post},
};
use serde::{
    Deserialize, Deserializer,
    de::{MapAccess, Visitor},
};
use serde_json::{Value, json};

use super::problem::Problem;
use crate::{
    Asking, CommandCopy, ControlError, Controls, List,
    fault::{
        Entry, Problems,
        read::{Fields, Given, Heading, Scalar, entry},
    },
};

/// Commands of a list.
const LATEST: usize = 100;
const LATEST_MAX: usize = 1_000;

type Answer = Result<Json<Value>, Problem>;

/// Every path.
pub fn all() -> Router<Controls> {
    Router::new()
        .route("/docks", get(docks))
        .route("/docks/{sn}", get(dock))
        .route("/docks/{sn}/requests", post(ask))
        .route("/commands", get(commands))
        .route("/commands/{tid}", get(command))
        .route("/faults", get(faults).post(add_fault))
        .route("/faults/{id}", delete(remove_fault))
        .route("/conditions", get(conditions).post(add_condition))
        .route("/conditions/{id}", delete(remove_condition))
        .route("/stop", post(stop))
        .fallback(|| async {
            Problem::path("there is no such path; there are /docks, /commands, /faults, /conditions and /stop")
        })
        .method_not_allowed_fallback(|| async { Problem::method() })
}

async fn docks(State(controls): State<Controls>) -> Answer {
    Ok(Json(json!({"docks": controls.docks().await?})))
}

async fn dock(State(controls): State<Controls>, sn: Result<Path<String>, PathRejection>) -> Answer {
    let Path(sn) = sn.map_err(|err| Problem::path(err.to_string()))?;
    Ok(Json(json!(controls.dock(&sn).await?)))
}

/// Makes a dock ask the cloud for something.
async fn ask(
    State(controls): State<Controls>,
    sn: Result<Path<String>, PathRejection>,
    body: Result<Bytes, BytesRejection>,
) -> Result<(StatusCode, Json<Value>), Problem> {
    let Path(sn) = sn.map_err(|err| Problem::path(err.to_string()))?;
    let body = body.map_err(|_| Problem::too_large())?;
    let asked: Asked = serde_json::from_slice(&body).map_err(|err| {
        let shape = "{\"method\": \"config\", \"data\": {}}";
        Problem::body(format!("the body must be such as {shape}: {err}"))
    })?;
    if asked.method.is_empty() {
        return Err(Problem::body("method must not be empty"));
    }
    let Asked { method, data, tid } = asked;
    let state = controls.ask(&sn, Asking { method, data, tid: tid.clone() }).await?;
    let tid = tid.or_else(|| state.requests.last().map(|last| last.tid.clone()));
    Ok((StatusCode::CREATED, Json(json!({"tid": tid}))))
}

/// What a dock is to ask.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Asked {
    method: String,
    #[serde(default)]
    data: Value,
    tid: Option<String>,
}

/// Which commands are asked for.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Wanted {
    gateway: Option<String>,
    limit: Option<usize>,
}

async fn commands(
    State(controls): State<Controls>,
    wanted: Result<Query<Wanted>, QueryRejection>,
) -> Answer {
    let Query(Wanted { gateway, limit }) = wanted.map_err(|err| Problem::query(err.to_string()))?;
    let limit = limit.unwrap_or(LATEST);
    if !(1..=LATEST_MAX).contains(&limit) {
        return Err(Problem::query(format!("limit must be from 1 to {LATEST_MAX}, not {limit}")));
    }
    let latest = controls.latest(gateway.as_deref(), limit);
    Ok(Json(json!({"commands": latest.iter().map(shown).collect::<Vec<_>>()})))
}

async fn command(
    State(controls): State<Controls>,
    tid: Result<Path<String>, PathRejection>,
) -> Answer {
    let Path(tid) = tid.map_err(|err| Problem::path(err.to_string()))?;
    let (copies, fault) = controls.command(&tid);
    let copies: Vec<Value> = copies.iter().map(shown).collect();
    let fault = fault.map(|fault| fault.name());
    Ok(Json(json!({"tid": tid, "received": copies.len(), "fault": fault, "copies": copies})))
}

/// A command, and what the dock made of it: `outcome`, with a `code` where it refused or failed.
fn shown(copy: &CommandCopy) -> Value {
    let mut value = json!(copy.received);
    value["at"] = json!(copy.received.at.to_string());
    if let (Some(value), Value::Object(outcome)) = (value.as_object_mut(), json!(copy.outcome)) {
        value.extend(outcome);
    }
    value
}

async fn faults(State(controls): State<Controls>) -> Json<Value> {
    Json(json!({"faults": controls.list(List::Faults)}))
}

async fn conditions(State(controls): State<Controls>) -> Json<Value> {
    Json(json!({"conditions": controls.list(List::Conditions)}))
}

async fn add_fault(
    State(controls): State<Controls>,
    body: Result<Bytes, BytesRejection>,
) -> Result<(StatusCode, Json<Value>), Problem> {
    add(&controls, body, Heading::Fault).await
}

async fn add_condition(
    State(controls): State<Controls>,
    body: Result<Bytes, BytesRejection>,
) -> Result<(StatusCode, Json<Value>), Problem> {
    add(&controls, body, Heading::Condition).await
}

async fn add(
    controls: &Controls,
    body: Result<Bytes, BytesRejection>,
    heading: Heading,
) -> Result<(StatusCode, Json<Value>), Problem> {
    let body = body.map_err(|_| Problem::too_large())?;
    let entry = read(&body, heading)?;
    let added = controls.add(entry).await.map_err(|err| {
        let is_of_gateway = matches!(err, ControlError::UnknownDock { .. });
        let problem = Problem::from(err);
        if is_of_gateway { problem.about("gateway") } else { problem }
    })?;
    Ok((StatusCode::CREATED, Json(Value::Object(added))))
}

/// Reads an entry as a scenario would have it, with the same names.
fn read(body: &[u8], heading: Heading) -> Result<Entry, Problem> {
    let Members(members) = serde_json::from_slice(body).map_err(|err| {
        let shape = "{\"kind\": \"never\"}";
        Problem::body(format!("the body must be an object such as {shape}: {err}"))
    })?;
    let given = members.into_iter().map(|(name, value)| Given {
        name,
        value: match value {
            Value::String(text) => Scalar::Text(text),
            Value::Number(number) => Scalar::Number(number.to_string()),
            Value::Bool(_) => Scalar::Other("boolean"),
            Value::Null => Scalar::Other("null"),
            Value::Array(_) => Scalar::Other("array"),
            Value::Object(_) => Scalar::Other("object"),
        },
        line: None,
    });
    entry(&Fields { line: None, given: given.collect() }, heading)
        .map_err(|problems: Problems| Problem::fields(&problems))
}

/// The members of an object, in their order and each as often as it is there: what is said twice is to be refused.
struct Members(Vec<(String, Value)>);

impl<'de> Deserialize<'de> for Members {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Each;
        impl<'de> Visitor<'de> for Each {
            type Value = Members;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Members, A::Error> {
                let mut members = Vec::new();
                while let Some(member) = map.next_entry()? {
                    members.push(member);
                }
                Ok(Members(members))
            }
        }
        from.deserialize_map(Each)
    }
}

async fn remove_fault(
    State(controls): State<Controls>,
    id: Result<Path<u64>, PathRejection>,
) -> Result<StatusCode, Problem> {
    remove(&controls, List::Faults, id).await
}

async fn remove_condition(
    State(controls): State<Controls>,
    id: Result<Path<u64>, PathRejection>,
) -> Result<StatusCode, Problem> {
    remove(&controls, List::Conditions, id).await
}

async fn remove(
    controls: &Controls,
    list: List,
    id: Result<Path<u64>, PathRejection>,
) -> Result<StatusCode, Problem> {
    let Path(id) = id.map_err(|_| Problem::path("the id must be a number, as the list has it"))?;
    controls.remove(list, id).await?;
    Ok(StatusCode::NO_CONTENT)
}

async fn stop(State(controls): State<Controls>) -> StatusCode {
    controls.stop();
    StatusCode::ACCEPTED
}
