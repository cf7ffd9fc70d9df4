//! `/api/v1/open/device-request-rules`: who answers what devices ask.

use std::sync::Arc;

use axum::{
    Json,
    extract::{RawQuery, State},
};
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utmos_core::{
    credential::Permission,
    device_request::{Mode, Rule, Scope, SetRule},
    id::DeviceSn,
    ports::RuleSet,
    signing::Caller,
};
use utmos_dji::{answer::AUTOMATIC_TYPES, envelope::METHOD_BYTES_MAX};
use utoipa::ToSchema;

use super::{
    App,
    problem::{Code, Detail, Problem, ProblemBody, cut},
    query::{InPath, Query},
    requests_reply::read_object,
    signed::{self, Signed},
    words::{RuleModeWord, RuleOriginWord},
};
use crate::requests::{Effective, RuleOrigin, Rules, UPDATE_TOPO};

/// Members of the body.
const MEMBERS: [&str; 3] = ["mode", "after_seconds", "reply_seconds"];

/// Who answers requests of a type. Read by hand, so that all problems are named at once.
#[derive(Debug, Deserialize, ToSchema)]
#[schema(example = json!({"mode": "auto_after", "after_seconds": 10, "reply_seconds": 30}))]
#[expect(dead_code, reason = "describes the body in the OpenAPI document")]
pub struct PutDeviceRequestRule {
    /// `auto`: the server, at once. `manual`: you. `auto_after`: you, and the server if you did not.
    #[schema(value_type = RuleModeWord)]
    mode: String,
    /// With `auto_after`: how long the server waits for you; less than `reply_seconds`.
    #[schema(minimum = 1, maximum = 3599)]
    after_seconds: Option<u32>,
    /// How long a request may be answered; 30 when absent.
    #[schema(minimum = 1, maximum = 3600)]
    reply_seconds: Option<u32>,
}

/// Who answers requests of a type.
#[derive(Debug, Serialize, ToSchema)]
#[schema(example = json!({
    "request_type": "flighttask_resource_get", "device_id": null, "mode": "auto", "after_seconds": null,
    "reply_seconds": 30, "origin": "default", "updated_at": null
}))]
pub struct DeviceRequestRule {
    /// DJI's method name.
    pub request_type: String,
    /// The device that was asked about, or that it was set for; `null` for all of the tenant's.
    pub device_id: Option<String>,
    /// Who answers.
    #[schema(value_type = RuleModeWord)]
    pub mode: &'static str,
    /// How long the server waits for an answer by hand; `auto_after` only.
    pub after_seconds: Option<u64>,
    /// How long a request may be answered.
    pub reply_seconds: u64,
    /// Where the rule comes from.
    #[schema(value_type = RuleOriginWord)]
    pub origin: &'static str,
    /// When it was set; `null` for a default.
    #[schema(format = "date-time")]
    pub updated_at: Option<String>,
}

/// Every rule.
#[derive(Debug, Serialize, ToSchema)]
pub struct DeviceRequestRules {
    /// What counts for all of the tenant's devices, by type, and what was set for single devices.
    pub items: Vec<DeviceRequestRule>,
}

/// Lists the rules: one for each type the server can answer, and those that were set.
#[utoipa::path(
    get,
    path = "/api/v1/open/device-request-rules",
    tag = "device requests",
    operation_id = "listDeviceRequestRules",
    responses(
        (status = 200, description = "The rules", body = DeviceRequestRules),
        (status = "default", description = "Refused", body = ProblemBody, content_type = "application/problem+json"),
    ),
    extensions(("x-permission" = json!("open:device-request:read")))
)]
pub async fn list_device_request_rules(
    State(app): State<Arc<App>>,
    signed: Signed,
) -> Result<Json<DeviceRequestRules>, Problem> {
    signed
        .reading(&app, Permission::DeviceRequestRead, async |caller| {
            let set = app.desk.rules().of_tenant(caller.tenant());
            let is_mine = |device: &DeviceSn| caller.may_touch(device);
            let mut items: Vec<_> = AUTOMATIC_TYPES
                .iter()
                .filter(|one| {
                    let is_of = |set: &SetRule| {
                        set.scope.device.is_none() && set.scope.request_type == **one
                    };
                    !set.iter().any(is_of)
                })
                .map(|one| {
                    let effective = app.desk.rules().effective(caller.tenant(), None, one);
                    DeviceRequestRule::of((*one).to_owned(), None, effective)
                })
                .collect();
            items.extend(
                set.into_iter().filter(|set| set.scope.device.as_ref().is_none_or(is_mine)).map(
                    |set| {
                        let origin = match set.scope.device {
                            Some(_) => RuleOrigin::Device,
                            None => RuleOrigin::Tenant,
                        };
                        let updated_at = Some(set.updated_at);
                        let effective = Effective { rule: set.rule, origin, updated_at };
                        DeviceRequestRule::of(set.scope.request_type, set.scope.device, effective)
                    },
                ),
            );
            items.sort_by(|one, other| {
                (&one.request_type, &one.device_id).cmp(&(&other.request_type, &other.device_id))
            });
            Ok(Json(DeviceRequestRules { items }))
        })
        .await
}

/// Tells which rule counts.
#[utoipa::path(
    get,
    path = "/api/v1/open/device-request-rules/{request_type}",
    tag = "device requests",
    operation_id = "getDeviceRequestRule",
    params(
        ("request_type" = String, Path, description = "DJI's method name"),
        ("device_id" = Option<String>, Query, description = "For this device"),
    ),
    responses(
        (status = 200, description = "The rule that counts", body = DeviceRequestRule),
        (status = "default", description = "Refused", body = ProblemBody, content_type = "application/problem+json"),
    ),
    extensions(("x-permission" = json!("open:device-request:read")))
)]
pub async fn get_device_request_rule(
    State(app): State<Arc<App>>,
    InPath(request_type): InPath,
    RawQuery(query): RawQuery,
    signed: Signed,
) -> Result<Json<DeviceRequestRule>, Problem> {
    signed
        .reading(&app, Permission::DeviceRequestRead, async |caller| {
            let scope = scope(&app, &caller, request_type, query.as_deref(), Use::Read)?;
            Ok(Json(effective(&app, scope)))
        })
        .await
}

/// Sets a rule for all of the tenant's devices, or for one.
#[utoipa::path(
    put,
    path = "/api/v1/open/device-request-rules/{request_type}",
    tag = "device requests",
    operation_id = "putDeviceRequestRule",
    params(
        ("request_type" = String, Path, description = "DJI's method name"),
        ("device_id" = Option<String>, Query, description = "For this device alone"),
    ),
    request_body = PutDeviceRequestRule,
    responses(
        (status = 200, description = "It counts for requests from now on", body = DeviceRequestRule),
        (status = "default", description = "Refused", body = ProblemBody, content_type = "application/problem+json"),
    ),
    extensions(("x-permission" = json!("open:device-request:create")))
)]
pub async fn put_device_request_rule(
    State(app): State<Arc<App>>,
    InPath(request_type): InPath,
    RawQuery(query): RawQuery,
    signed: Signed,
) -> Result<Json<DeviceRequestRule>, Problem> {
    let check = |caller: &Caller, body: &Bytes| {
        let scope = scope(&app, caller, request_type, query.as_deref(), Use::Change)?;
        let rule = read(body, &scope.request_type)?;
        Ok((scope, rule))
    };
    let (caller, (scope, rule)) =
        signed.checking(&app, Permission::DeviceRequestCreate, check).await?;
    signed::spend(&app, &caller).await?;
    let set = SetRule { scope: scope.clone(), rule, updated_at: app.clock.now().wall };
    match app.desk.rules().set(set).await.map_err(|error| Problem::store(&error))? {
        RuleSet::Yes => Ok(Json(effective(&app, scope))),
        RuleSet::TooMany => Err(Problem::new(
            Code::ValidationFailed,
            "this tenant has as many rules as it may have; delete some that are not needed",
        )),
    }
}

/// Takes a rule back, so that the next more general one counts.
#[utoipa::path(
    delete,
    path = "/api/v1/open/device-request-rules/{request_type}",
    tag = "device requests",
    operation_id = "deleteDeviceRequestRule",
    params(
        ("request_type" = String, Path, description = "DJI's method name"),
        ("device_id" = Option<String>, Query, description = "The one set for this device"),
    ),
    responses(
        (status = 200, description = "The rule that counts now; also when there was none to take back", body = DeviceRequestRule),
        (status = "default", description = "Refused", body = ProblemBody, content_type = "application/problem+json"),
    ),
    extensions(("x-permission" = json!("open:device-request:create")))
)]
pub async fn delete_device_request_rule(
    State(app): State<Arc<App>>,
    InPath(request_type): InPath,
    RawQuery(query): RawQuery,
    signed: Signed,
) -> Result<Json<DeviceRequestRule>, Problem> {
    let caller = signed.acting(&app)?;
    signed::spend(&app, &caller).await?;
    signed::permit(&caller, Permission::DeviceRequestCreate)?;
    let scope = scope(&app, &caller, request_type, query.as_deref(), Use::Change)?;
    let removed = app.desk.rules().remove(scope.clone()).await;
    removed.map_err(|error| Problem::store(&error))?;
    Ok(Json(effective(&app, scope)))
}

impl DeviceRequestRule {
    fn of(request_type: String, device: Option<DeviceSn>, effective: Effective) -> Self {
        let Effective { rule, origin, updated_at } = effective;
        Self {
            request_type,
            device_id: device.map(|device| device.to_string()),
            mode: rule.mode.as_str(),
            after_seconds: match rule.mode {
                Mode::AutoAfter(after) => Some(after.as_secs()),
                Mode::Auto | Mode::Manual => None,
            },
            reply_seconds: rule.reply_wait.as_secs(),
            origin: match origin {
                RuleOrigin::Device => "device",
                RuleOrigin::Tenant => "tenant",
                RuleOrigin::Default => "default",
            },
            updated_at: updated_at.map(|at| at.to_string()),
        }
    }
}

fn effective(app: &App, scope: Scope) -> DeviceRequestRule {
    let Scope { tenant, request_type, device } = scope;
    let effective = app.desk.rules().effective(tenant, device.as_ref(), &request_type);
    DeviceRequestRule::of(request_type, device, effective)
}

/// What a scope is wanted for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Use {
    Read,
    Change,
}

/// What a rule is about. Whoever may touch some devices only may set none that is for all.
fn scope(
    app: &App,
    caller: &Caller,
    request_type: String,
    query: Option<&str>,
    wanted: Use,
) -> Result<Scope, Problem> {
    let text = read_query(query)?;
    let is_name = (1..=METHOD_BYTES_MAX).contains(&request_type.len())
        && request_type.chars().all(|char| char.is_ascii_graphic());
    if !is_name {
        let problem =
            format!("must be a method name of 1 to {METHOD_BYTES_MAX} visible characters");
        let detail = Detail::new("path:request_type", problem).given(cut(&request_type).into());
        return Err(Problem::invalid(vec![detail]));
    }
    if wanted == Use::Change && request_type == UPDATE_TOPO {
        let problem = "is always answered at once; no rule is asked";
        return Err(Problem::invalid(vec![Detail::new("path:request_type", problem)]));
    }
    match &text {
        Some(device) => {
            let known = app
                .directory
                .device(device)
                .filter(|known| known.tenant == caller.tenant() && caller.may_touch(device));
            if known.is_none() {
                let message = format!("{device} is not a device of this tenant");
                return Err(Problem::new(Code::DeviceNotFound, message));
            }
        }
        None if wanted == Use::Change && caller.devices().is_some() => {
            let message =
                "this credential is limited to some devices: name one of them with device_id";
            return Err(Problem::new(Code::PermissionDenied, message)
                .with(Detail::new("query:device_id", "is required for this credential")));
        }
        None => {}
    }
    Ok(Scope { tenant: caller.tenant(), request_type, device: text })
}

/// Reads the query that says for which device a rule is.
pub fn read_query(query: Option<&str>) -> Result<Option<DeviceSn>, Problem> {
    let mut query = Query::read(query, &["device_id"]);
    let device = query.take("device_id", "a serial number", |text| DeviceSn::parse(text).ok());
    query.finish()?;
    Ok(device)
}

/// Reads the body of a rule for requests of a type.
pub fn read(body: &Bytes, request_type: &str) -> Result<Rule, Problem> {
    let (members, mut details) = read_object(body, &MEMBERS)?;
    let mut seconds = |name: &str| match members.get(name) {
        None | Some(Value::Null) => None,
        Some(given) => {
            let seconds = given.as_u64();
            if seconds.is_none() {
                let problem = "must be a whole number of seconds";
                details.push(Detail::new(format!("/{name}"), problem).given_by_caller(given));
            }
            seconds
        }
    };
    let (after, reply) = (seconds("after_seconds"), seconds("reply_seconds"));
    let mode = members.get("mode").and_then(Value::as_str).unwrap_or_default();
    let is_told_already = |field: &str, details: &[Detail]| {
        details.iter().any(|detail| detail.field == format!("/{field}"))
    };
    match Rule::new(mode, after, reply) {
        Ok(rule) if details.is_empty() => {
            if rule.mode != Mode::Manual && !Rules::has_automatic(request_type) {
                let problem = "must be manual: the server has no answer of its own to this type";
                return Err(Problem::invalid(vec![Detail::new("/mode", problem)]));
            }
            Ok(rule)
        }
        Ok(_) => Err(Problem::invalid(details)),
        Err((field, problem)) => {
            if !is_told_already(field, &details) {
                let given = members.get(field).unwrap_or(&Value::Null);
                details.push(Detail::new(format!("/{field}"), problem).given_by_caller(given));
            }
            Err(Problem::invalid(details))
        }
    }
}
