//! `POST /api/v1/open/downlink/commands/{command_id}/cancel`

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use axum::{Json, extract::State};
use serde::Serialize;
use serde_json::Value;
use utmos_core::{
    command::{Command, Phase, Spec, Status},
    credential::Permission,
    evidence::Proof,
    id::CommandId,
    idempotency::fingerprint,
    life::Input,
    method::Risk,
    signing::{Caller, NonceUse},
};
use utmos_dji::catalogue::Method;
use utoipa::ToSchema;

use super::{
    App,
    get::{find, parse_id},
    problem::{Code, Problem, ProblemBody},
    query::InPath,
    signed::{self, Signed},
    view::CommandView,
};
use crate::driver::{Cancelled, Draft, SubmitError};

/// How long a cancel waits for the database before it goes on without, where what it sends is an emergency.
const STORE_PATIENCE: Duration = Duration::from_millis(250);

/// What became of it.
#[derive(Debug, Serialize, ToSchema)]
pub struct CancelAnswer {
    /// The command as it stands now.
    pub command: CommandView,
    /// The command that stops it at the device, when it had been delivered; ask for its outcome under this id.
    #[schema(format = "uuid")]
    pub abort_command_id: Option<String>,
    /// The id of this request.
    pub request_id: String,
}

/// Cancels a command that has not been sent; stops one that was delivered, if its method has an abort command.
#[utoipa::path(
    post,
    path = "/api/v1/open/downlink/commands/{command_id}/cancel",
    tag = "commands",
    operation_id = "cancelCommand",
    params(("command_id" = String, Path, description = "From the answer to its creation", format = "uuid")),
    responses(
        (status = 200, description = "Cancelled before it was sent, or its abort command is on its way", body = CancelAnswer),
        (status = "default", description = "Refused", body = ProblemBody, content_type = "application/problem+json"),
    ),
    extensions(("x-permission" = json!("open:command:create")))
)]
pub async fn cancel_command(
    State(app): State<Arc<App>>,
    InPath(id): InPath,
    signed: Signed,
) -> Result<Json<CancelAnswer>, Problem> {
    let caller = signed.into_caller(&app);
    // Asked before it is spent: what is known after that may be our own.
    if app.store.knows_nonce(&caller.nonce()) {
        return Err(signed::replayed());
    }
    let (command, abort_command_id) = {
        let spending = signed::spend(&app, &caller);
        tokio::pin!(spending);
        match tokio::time::timeout(STORE_PATIENCE, &mut spending).await {
            Ok(Ok(())) => cancel(&app, &caller, &id).await?,
            // A database that refuses, or is damaged. What speaks against the request in memory is said another time: its
            // nonce is not on record, so that it may be sent again.
            Ok(Err(problem)) if is_unwell(&problem) => {
                cancel_urgently(&app, &caller, &id).await.ok().flatten().ok_or(problem)?
            }
            Ok(Err(problem)) => return Err(problem),
            Err(_) => match cancel_urgently(&app, &caller, &id).await {
                Ok(Some(done)) => done,
                Ok(None) | Err(_) => {
                    spending.await?;
                    cancel(&app, &caller, &id).await?
                }
            },
        }
    };
    let command = CommandView::of(&command, &app.catalogue);
    Ok(Json(CancelAnswer { command, abort_command_id, request_id: caller.request_id().to_owned() }))
}

fn is_unwell(problem: &Problem) -> bool {
    matches!(problem.code, Code::Overloaded | Code::InternalError)
}

/// What became of it: the command, and what stops it where it has left.
type Done = (Arc<Command>, Option<String>);

async fn cancel(app: &App, caller: &Caller, id: &str) -> Result<Done, Problem> {
    signed::permit(caller, Permission::CommandCreate)?;
    let id = parse_id(id)?;
    find(app, caller, id).await?;
    let cancelled = app.driver.cancel(caller, id).await.map_err(|error| Problem::store(&error))?;
    match cancelled {
        Cancelled::Yes(command) => Ok((command, None)),
        Cancelled::TooLate(command) => {
            let stop = Stop::of(app, &command)?;
            if is_leaving(app, &command).await? {
                return Err(being_sent());
            }
            let abort = abort(app, caller, &command, stop, None).await?;
            Ok((command, Some(abort)))
        }
        Cancelled::Unknown => Err(too_late("it is no longer there")),
    }
}

/// The same without the database, which is unwell: for what has left and is stopped by an emergency. The request's nonce
/// goes on record together with that. `None` for everything else, which must wait for the database.
async fn cancel_urgently(app: &App, caller: &Caller, id: &str) -> Result<Option<Done>, Problem> {
    signed::permit(caller, Permission::CommandCreate)?;
    let known = app.driver.cared_for(parse_id(id)?).filter(|command| {
        command.spec.tenant == caller.tenant() && caller.may_touch(&command.spec.device)
    });
    let Some(command) = known else { return Ok(None) };
    match command.life.phase {
        Phase::Waiting => return Ok(None),
        Phase::Sending if app.driver.is_leaving(command.spec.id) != Some(false) => {
            return Err(being_sent());
        }
        Phase::Sending | Phase::Delivered | Phase::Ended(_) => {}
    }
    let stop = Stop::of(app, &command)?;
    if stop.method.risk != Risk::Emergency {
        return Ok(None);
    }
    let abort = abort(app, caller, &command, stop, Some(caller.nonce())).await?;
    Ok(Some((Arc::new(command), Some(abort))))
}

/// What stops a command at the device.
struct Stop<'a> {
    method: &'a Method,
    payload: Value,
}

impl<'a> Stop<'a> {
    /// Also for one that has ended while what it started runs on, or may run on.
    fn of(app: &'a App, command: &Command) -> Result<Self, Problem> {
        let spec = &command.spec;
        if !command.life.needs_care() {
            return Err(too_late(&format!("it has ended as {}", command.life.status().as_str())));
        }
        let payload: Value = serde_json::from_str(&spec.payload).unwrap_or(Value::Null);
        let abort =
            app.catalogue.method(&spec.method).and_then(|method| method.abort_command(&payload));
        let Some((name, payload)) = abort else {
            return Err(too_late(&format!(
                "it may have reached the device, and {} has no abort command",
                spec.method
            )));
        };
        let method = app.catalogue.method(name).ok_or_else(|| {
            too_late(&format!("its abort command {name} is not in the catalogue"))
        })?;
        Ok(Self { method, payload })
    }
}

/// Whether a command may be on its way out at this moment: its abort could overtake it, and stop nothing.
async fn is_leaving(app: &App, command: &Command) -> Result<bool, Problem> {
    match command.life.phase {
        // Nobody looks after it here, or it would have been cancelled.
        Phase::Waiting => return Ok(true),
        Phase::Sending => {}
        Phase::Delivered | Phase::Ended(_) => return Ok(false),
    }
    if let Some(is_leaving) = app.driver.is_leaving(command.spec.id) {
        return Ok(is_leaving);
    }
    let timeline = app.store.timeline(command.spec.id).await;
    let entries = timeline.map_err(|error| Problem::store(&error))?;
    Ok(!entries.iter().any(|entry| {
        matches!(entry.proof, Proof::SendUnclear { .. } | Proof::FoundAfterRestart { .. })
    }))
}

/// Sends what stops a command that has left, unless that is on its way already, or done. One that ended in another way
/// stopped nothing, and another follows it. Whoever cancels at the same moment finds the same one, by its key.
async fn abort(
    app: &App,
    caller: &Caller,
    command: &Command,
    stop: Stop<'_>,
    nonce: Option<NonceUse>,
) -> Result<String, Problem> {
    let spec = &command.spec;
    let noted = aborts_noted(app, spec.id).await;
    let draft = to_draft(caller, spec, stop);
    let mut number = noted.len().max(1);
    let submitted = loop {
        let draft = Draft { idempotency_key: key_of(spec.id, number), ..draft.clone() };
        let submitted = match app.driver.submit(caller, draft.clone(), nonce).await {
            // Stored just now by ourselves, though the database did not say so in time.
            Err(SubmitError::NonceReplayed) => app.driver.submit(caller, draft, None).await?,
            submitted => submitted?,
        };
        match submitted.status {
            Status::Failed | Status::TimedOut | Status::UnmatchedResponse => number += 1,
            Status::Accepted | Status::Delivered | Status::Succeeded => break submitted,
        }
    };
    let abort_command_id = submitted.id.to_string();
    if !noted.contains(&abort_command_id) {
        let aborted = Input::Aborted {
            api_id: caller.api_id().to_string(),
            request_id: caller.request_id().to_owned(),
            abort_command_id: abort_command_id.clone(),
        };
        if let Err(error) = app.driver.tell(spec.tenant, spec.id, aborted).await {
            // It is on its way all the same; whoever cancels again has it noted then.
            tracing::warn!(command.id = %spec.id, %error, "could not note what stops a command");
        }
    }
    Ok(abort_command_id)
}

/// The key of a command's abort. No caller can send a key with a control character, so none can stand in its way.
fn key_of(id: CommandId, number: usize) -> String {
    match number {
        1 => format!("\u{1}cancel:{id}"),
        _ => format!("\u{1}cancel:{id}:{number}"),
    }
}

fn to_draft(caller: &Caller, spec: &Spec, stop: Stop<'_>) -> Draft {
    let Stop { method, payload } = stop;
    Draft {
        device: spec.device.clone(),
        gateway: spec.gateway.clone(),
        aircraft: spec.aircraft.clone(),
        method: method.name.clone(),
        channel: method.channel,
        completes_by: method.completes_by,
        risk: method.risk,
        starts_motion: method.starts_motion,
        reply_without_status_is_final: method.result_zero_without_status_is_final,
        if_offline: method.risk.default_if_offline(),
        complete_on: caller.complete_on(),
        job_ref: method.job_ref(&payload),
        timeout: method.timeout,
        silence_wait: method.silence,
        fingerprint: fingerprint(&payload, &[]),
        payload: payload.to_string().into(),
        idempotency_key: String::new(),
    }
}

/// The aborts that a command's timeline names. None where it cannot be read soon: then they are found by their keys, one
/// after another, and the last is noted once more.
async fn aborts_noted(app: &App, id: CommandId) -> BTreeSet<String> {
    let reading = tokio::time::timeout(STORE_PATIENCE, app.store.timeline(id)).await;
    let entries = reading.ok().and_then(Result::ok).unwrap_or_default();
    let named = entries.into_iter().filter_map(|entry| match entry.proof {
        Proof::Cancelled { abort_command_id, .. } => abort_command_id,
        Proof::Accepted { .. }
        | Proof::SendingClaimed { .. }
        | Proof::BrokerConfirmed { .. }
        | Proof::NotSent { .. }
        | Proof::SendUnclear { .. }
        | Proof::FoundAfterRestart { .. }
        | Proof::Reply { .. }
        | Proof::Progress { .. }
        | Proof::Timer { .. }
        | Proof::GatewayAbsent { .. }
        | Proof::Preempted { .. } => None,
    });
    named.collect()
}

fn being_sent() -> Problem {
    too_late("it is being sent right now; try again in a moment")
}

fn too_late(why: &str) -> Problem {
    Problem::new(Code::CommandNotCancellable, format!("the command cannot be cancelled: {why}"))
}
