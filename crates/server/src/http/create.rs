//! `POST /api/v1/open/downlink/commands`

use std::{sync::Arc, time::Duration};

use axum::{
    Json,
    extract::State,
    http::{HeaderValue, StatusCode},
    response::{IntoResponse, Response},
};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utmos_core::{
    command::Command,
    credential::Permission,
    id::GatewaySn,
    life::Presence,
    method::{CompleteOn, IfOffline, Risk},
    ports::StoreError,
    signing::Caller,
};
use utoipa::ToSchema;

use super::{
    App,
    body::{self, Checked, Sought, Wanted},
    get,
    problem::{Code, Detail, Problem, ProblemBody},
    signed::{self, Signed},
    words::{CompleteOnWord, IfOfflineWord, RiskWord, StatusWord},
};
use crate::driver::{Draft, SubmitError, Submitted};

/// A command to be sent. Read by hand ([`body`]), so that all problems are named at once.
#[derive(Debug, Deserialize, ToSchema)]
#[expect(dead_code, reason = "describes the body in the OpenAPI document")]
pub struct CreateCommand {
    /// Always `dji`.
    #[schema(example = "dji")]
    vendor: String,
    /// Serial number of a dock, remote controller or aircraft of this tenant.
    #[schema(example = "SIM-DOCK-0001")]
    device_id: String,
    /// A method of the catalogue.
    #[schema(example = "cover_open")]
    command_type: String,
    /// The method's payload; `{}` when it takes nothing.
    #[schema(value_type = Object)]
    payload: Value,
    /// Makes a repeated request the same command. A UUID of version 7 is a good one.
    #[schema(min_length = 1, max_length = 255)]
    idempotency_key: String,
    /// How long the device's answer is waited for; absent or 0 = the method's default.
    #[schema(minimum = 0, maximum = 300)]
    timeout_seconds: Option<u32>,
    /// `wait` or `fail` while the gateway is absent; `fail` for motion and emergency, else `wait`.
    #[schema(value_type = Option<IfOfflineWord>)]
    if_offline: Option<IfOffline>,
    /// What `SUCCEEDED` waits for in jobs: `outcome`, or the `reply` that it started.
    #[schema(value_type = Option<CompleteOnWord>)]
    complete_on: Option<CompleteOn>,
    /// Check everything, store and send nothing.
    dry_run: Option<bool>,
}

/// A command that is on record.
#[derive(Debug, Serialize, ToSchema)]
pub struct Created {
    /// Ask for it under this id.
    #[schema(format = "uuid")]
    pub command_id: String,
    /// `ACCEPTED`; today's state when the request was a repeated one.
    #[schema(value_type = StatusWord)]
    pub status: &'static str,
    /// When it became durable.
    #[schema(format = "date-time")]
    pub accepted_at: String,
    /// The id of this request.
    pub request_id: String,
}

/// What would be sent.
#[derive(Debug, Serialize, ToSchema)]
pub struct DryRun {
    /// Always true.
    pub dry_run: bool,
    /// The command that the key and the body belong to already: nothing new would be made.
    #[schema(format = "uuid")]
    pub replays: Option<String>,
    /// The gateway it would go to.
    pub gateway_id: String,
    /// DJI's method name.
    pub command_type: String,
    /// The payload as it would be sent; secrets are masked.
    #[schema(value_type = Object)]
    pub payload: Value,
    /// How dangerous the method is.
    #[schema(value_type = RiskWord)]
    pub risk_class: Risk,
    /// The timeout that would apply.
    pub timeout_seconds: u64,
    /// What would become of it while the gateway is absent.
    #[schema(value_type = IfOfflineWord)]
    pub if_offline: IfOffline,
    /// What `SUCCEEDED` would wait for.
    #[schema(value_type = CompleteOnWord)]
    pub complete_on: CompleteOn,
    /// Whether the gateway is there now.
    pub gateway_online: bool,
    /// What was renamed, left out or could be better.
    pub hints: Vec<String>,
    /// The id of this request.
    pub request_id: String,
}

/// The answer to a repeated request, or to a dry run.
#[derive(Debug, Serialize, ToSchema)]
#[serde(untagged)]
pub enum CreatedOrDryRun {
    /// The command of that time.
    Created(Created),
    /// What would be sent.
    DryRun(DryRun),
}

/// Creates a command: stored durably before the answer, sent at most once.
#[utoipa::path(
    post,
    path = "/api/v1/open/downlink/commands",
    tag = "commands",
    operation_id = "createCommand",
    request_body = CreateCommand,
    responses(
        (status = 202, description = "Durable, and on its way", body = Created),
        (status = 200, description = "The key was used before with an equal body (`Idempotency-Replayed: true`), or a dry run", body = CreatedOrDryRun,
            headers(("Idempotency-Replayed" = bool, description = "`true` when the key was used before"))),
        (status = "default", description = "Refused; nothing is stored", body = ProblemBody, content_type = "application/problem+json"),
    ),
    extensions(("x-permission" = json!("open:command:create")))
)]
pub async fn create_command(
    State(app): State<Arc<App>>,
    signed: Signed,
) -> Result<Response, Problem> {
    let (caller, checked) = signed
        .checking_but(
            &app,
            Permission::CommandCreate,
            |caller, body| {
                let routes =
                    |tenant, sn: &_| app.directory.with_registry(|known| known.route(tenant, sn));
                body::check(&app.catalogue, &routes, caller, body)
            },
            is_emergency,
        )
        .await?;
    let wanted = match checked {
        Checked::Fits(wanted) => *wanted,
        Checked::Refused { problem, sought } => {
            signed::spend(&app, &caller).await?;
            let found = match sought {
                Some(sought) => find_again(&app, &caller, sought).await?,
                None => None,
            };
            return found.ok_or(problem);
        }
    };
    if wanted.dry_run {
        signed::spend(&app, &caller).await?;
        let found = foresee(&app, &caller, &wanted).await?;
        let would_be = WouldBe::of_draft(&wanted.draft, wanted.hints);
        let answer = dry_run_answer(&app, &caller, would_be, found);
        return Ok(Json(CreatedOrDryRun::DryRun(answer)).into_response());
    }
    let nonce = Some(caller.nonce());
    let submitted = app.driver.submit(&caller, wanted.draft, nonce).await?;
    let created = Created::of(&submitted, &caller);
    match submitted.replayed {
        true => Ok(replayed(created)),
        false => Ok((StatusCode::ACCEPTED, Json(created)).into_response()),
    }
}

/// Whether it would go out as an emergency.
fn is_emergency(checked: &Checked) -> bool {
    match checked {
        Checked::Fits(wanted) => wanted.draft.risk == Risk::Emergency && !wanted.dry_run,
        Checked::Refused { .. } => false,
    }
}

impl Created {
    fn of(submitted: &Submitted, caller: &Caller) -> Self {
        Self {
            command_id: submitted.id.to_string(),
            status: submitted.status.as_str(),
            accepted_at: submitted.accepted_at.to_string(),
            request_id: caller.request_id().to_owned(),
        }
    }
}

fn replayed(created: Created) -> Response {
    let mut response = Json(CreatedOrDryRun::Created(created)).into_response();
    response.headers_mut().insert("idempotency-replayed", HeaderValue::from_static("true"));
    response
}

/// The answer to a request that does not fit any more and was accepted before.
async fn find_again(
    app: &App,
    caller: &Caller,
    sought: Sought,
) -> Result<Option<Response>, Problem> {
    let Sought { device, idempotency_key, fingerprints, dry_run } = sought;
    let store = |error: StoreError| Problem::store(&error);
    let mut found = None;
    for fingerprint in fingerprints {
        let (device, key) = (device.clone(), idempotency_key.clone());
        found = app.driver.find(caller, device, key, fingerprint).await.map_err(store)?;
        if found.is_some() {
            break;
        }
    }
    let Some(found) = found else { return Ok(None) };
    if !dry_run {
        app.driver.asked_again(&found).await.map_err(store)?;
        return Ok(Some(replayed(Created::of(&found, caller))));
    }
    let command = get::find(app, caller, found.id).await?;
    let would_be = WouldBe::of_command(&command);
    let answer = dry_run_answer(app, caller, would_be, Some(found));
    Ok(Some(Json(CreatedOrDryRun::DryRun(answer)).into_response()))
}

/// The command that the real request would find. It may leave `dry_run` out, or say that it is none.
async fn foresee(
    app: &App,
    caller: &Caller,
    wanted: &Wanted,
) -> Result<Option<Submitted>, SubmitError> {
    let mut found = app.driver.foresee(caller, wanted.draft.clone()).await;
    for twin in &wanted.twins {
        if let Err(SubmitError::KeyReused(_)) = found {
            let draft = Draft { fingerprint: *twin, ..wanted.draft.clone() };
            found = app.driver.foresee(caller, draft).await;
        }
    }
    found
}

/// What a dry run shows of a command.
struct WouldBe<'a> {
    gateway: &'a GatewaySn,
    method: &'a str,
    payload: &'a str,
    risk: Risk,
    timeout: Duration,
    if_offline: IfOffline,
    complete_on: CompleteOn,
    hints: Vec<String>,
}

impl<'a> WouldBe<'a> {
    fn of_draft(draft: &'a Draft, hints: Vec<String>) -> Self {
        Self {
            gateway: &draft.gateway,
            method: &draft.method,
            payload: &draft.payload,
            risk: draft.risk,
            timeout: draft.timeout,
            if_offline: draft.if_offline,
            complete_on: draft.complete_on,
            hints,
        }
    }

    /// The command of that time, where today's request would find it and could not be made anew.
    fn of_command(command: &'a Command) -> Self {
        let spec = &command.spec;
        Self {
            gateway: &spec.gateway,
            method: &spec.method,
            payload: &spec.payload,
            risk: spec.risk,
            timeout: spec.timeout,
            if_offline: spec.if_offline,
            complete_on: spec.complete_on,
            hints: Vec::new(),
        }
    }
}

fn dry_run_answer(
    app: &App,
    caller: &Caller,
    would_be: WouldBe<'_>,
    found: Option<Submitted>,
) -> DryRun {
    let payload: Value = serde_json::from_str(would_be.payload).unwrap_or(Value::Null);
    let method = app.catalogue.method(would_be.method);
    DryRun {
        dry_run: true,
        replays: found.map(|found| found.id.to_string()),
        gateway_id: would_be.gateway.to_string(),
        command_type: would_be.method.to_owned(),
        payload: method.map_or(Value::Null, |method| method.mask(&payload)),
        risk_class: would_be.risk,
        timeout_seconds: would_be.timeout.as_secs(),
        if_offline: would_be.if_offline,
        complete_on: would_be.complete_on,
        gateway_online: app.driver.is_present(would_be.gateway) == Presence::Online,
        hints: would_be.hints,
        request_id: caller.request_id().to_owned(),
    }
}

impl From<SubmitError> for Problem {
    fn from(error: SubmitError) -> Self {
        match &error {
            SubmitError::NonceReplayed => signed::replayed(),
            SubmitError::KeyReused(id) => Self::new(Code::IdempotencyConflict, &error).with(
                Detail::new("/idempotency_key", "was used before with another body")
                    .given(id.to_string().into()),
            ),
            SubmitError::Busy { id, method } => Self::new(Code::DeviceBusy, &error).with(
                Detail::new("/command_type", format!("{method} of this aircraft is still running"))
                    .given(id.to_string().into()),
            ),
            SubmitError::LaneFull(_) => Self::new(Code::Overloaded, &error).retry_after(5),
            SubmitError::ClockOff(_) => Self::new(Code::Overloaded, &error).retry_after(5),
            SubmitError::Stopping => Self::new(Code::Overloaded, &error).retry_after(2),
            SubmitError::Store(cause) => Self::store(cause),
        }
    }
}
