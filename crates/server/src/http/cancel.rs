//! `POST /api/v1/open/downlink/commands/{command_id}/cancel`

use std::sync::Arc;

use axum::{Json, extract::State};
use serde::Serialize;
use serde_json::Value;
use utmos_core::{
    command::{Command, Phase},
    credential::Permission,
    evidence::Proof,
    id::CommandId,
    idempotency::fingerprint,
    life::Input,
    signing::Caller,
};
use utoipa::ToSchema;

use super::{
    App,
    get::{find, parse_id},
    problem::{Code, Problem, ProblemBody},
    query::InPath,
    signed::Signed,
    view::CommandView,
};
use crate::driver::{Cancelled, Draft};

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
    signed
        .acting(&app, Permission::CommandCreate, async |caller, _| {
            let id = parse_id(&id)?;
            find(&app, &caller, id).await?;
            let cancelled =
                app.driver.cancel(&caller, id).await.map_err(|error| Problem::store(&error))?;
            let (command, abort_command_id) = match cancelled {
                Cancelled::Yes(command) => (command, None),
                Cancelled::TooLate(command) => {
                    let abort = abort(&app, &caller, &command).await?;
                    (command, Some(abort))
                }
                Cancelled::Unknown => return Err(too_late("it is no longer there")),
            };
            let command = CommandView::of(&command, &app.catalogue);
            Ok(Json(CancelAnswer {
                command,
                abort_command_id,
                request_id: caller.request_id().to_owned(),
            }))
        })
        .await
}

/// Sends the method that stops a delivered command. One abort per command: a repeated cancel finds the first.
async fn abort(app: &App, caller: &Caller, command: &Command) -> Result<String, Problem> {
    let spec = &command.spec;
    if command.life.phase.has_ended() {
        return Err(too_late(&format!("it has ended as {}", command.life.status().as_str())));
    }
    if command.life.phase == Phase::Sending && !is_unclear(app, spec.id).await? {
        // Its abort could overtake it, and stop nothing.
        return Err(too_late("it is being sent right now; try again in a moment"));
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
    let Some(method) = app.catalogue.method(name) else {
        return Err(too_late(&format!("its abort command {name} is not in the catalogue")));
    };
    let draft = Draft {
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
        // No caller can send a key with a control character, so none can stand in the way of an abort.
        idempotency_key: format!("\u{1}cancel:{}", spec.id),
    };
    let submitted = app.driver.submit(caller, draft, None).await?;
    let abort_command_id = submitted.id.to_string();
    if !submitted.replayed || !is_noted(app, spec.id, &abort_command_id).await {
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

/// Whether a command's timeline names what stops it. Where that cannot be read, it is noted once more.
async fn is_noted(app: &App, id: CommandId, abort: &str) -> bool {
    app.store.timeline(id).await.is_ok_and(|entries| {
        entries.iter().any(|entry| {
            matches!(&entry.proof, Proof::Cancelled { abort_command_id: Some(noted), .. } if noted == abort)
        })
    })
}

/// Whether the sending of a command is over without anybody knowing how: nothing of it is on its way from here.
async fn is_unclear(app: &App, id: CommandId) -> Result<bool, Problem> {
    let entries = app.store.timeline(id).await.map_err(|error| Problem::store(&error))?;
    Ok(entries.iter().any(|entry| {
        matches!(entry.proof, Proof::SendUnclear { .. } | Proof::FoundAfterRestart { .. })
    }))
}

fn too_late(why: &str) -> Problem {
    Problem::new(Code::CommandNotCancellable, format!("the command cannot be cancelled: {why}"))
}
