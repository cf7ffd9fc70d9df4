//! `/api/v1/open/device-binding-codes`: what lets a factory-new dock join the tenant.

use std::{sync::Arc, time::Duration};

use axum::{
    Json,
    extract::{RawQuery, State},
    http::StatusCode,
};
use serde::{Deserialize, Serialize};
use utmos_core::{
    binding::{BindingCode, USES_MAX},
    credential::Permission,
    id::BindingCodeId,
    signing::Caller,
    time::Timestamp,
};
use utoipa::ToSchema;

use super::{
    super::{
        App,
        problem::{Code, Problem, ProblemBody},
        query::{InPath, Page, PageParams, Query},
        signed::{self, Signed},
        words::CodeStateWord,
    },
    fields::{Fields, parse},
    must_touch_all,
};
use crate::fleet::{CODES_PER_TENANT_MAX, CodeAsked};

/// How a binding code is wanted.
#[derive(Debug, Deserialize, ToSchema)]
#[schema(example = json!({"label": "Docks of the north site", "uses_max": 3, "expires_in_seconds": 86400}))]
#[expect(
    dead_code,
    reason = "describes the body; it is read member by member, so that all flaws are told at once"
)]
pub struct CreateBindingCode {
    /// For people, at most 128 characters.
    label: Option<String>,
    /// How many gateways may join with it, 1 to 10000; 1 when absent.
    uses_max: Option<u32>,
    /// How long it is good, 60 to 2592000 (30 days); a day when absent.
    expires_in_seconds: Option<u32>,
}

/// A binding code, without the code itself.
#[derive(Debug, Serialize, ToSchema)]
pub struct BindingCodeView {
    /// Its id.
    #[schema(format = "uuid")]
    pub binding_code_id: String,
    /// For people.
    pub label: String,
    /// How it stands.
    #[schema(value_type = CodeStateWord)]
    pub state: &'static str,
    /// How many gateways may join with it.
    pub uses_max: u32,
    /// How many have.
    pub uses: u32,
    /// Who made it: an API id, or the command line.
    pub created_by: String,
    /// When it was made.
    #[schema(format = "date-time")]
    pub created_at: String,
    /// From when on it is no longer good.
    #[schema(format = "date-time")]
    pub expires_at: String,
    /// Since when it is revoked.
    #[schema(format = "date-time")]
    pub revoked_at: Option<String>,
}

/// A new binding code.
#[derive(Debug, Serialize, ToSchema)]
pub struct CreatedBindingCode {
    /// What is typed into the dock: as the MQTT password, with its serial number as the user, and as the binding code.
    /// Shown this once.
    #[schema(example = "7K2QM-0XW4R-9TZ3E-HB5DA")]
    pub code: String,
    /// The organisation id to type in beside it.
    pub organization_id: String,
    /// What is kept of it.
    pub binding_code: BindingCodeView,
    /// The id of this request.
    pub request_id: String,
}

/// A page of binding codes.
#[derive(Debug, Serialize, ToSchema)]
pub struct BindingCodePage {
    /// Newest first.
    pub items: Vec<BindingCodeView>,
    /// Where the next page begins; `null` on the last.
    pub next_cursor: Option<String>,
}

impl BindingCodeView {
    fn of(code: &BindingCode, now: Timestamp) -> Self {
        Self {
            binding_code_id: code.id.to_string(),
            label: code.label.clone(),
            state: code.state(now).as_str(),
            uses_max: code.uses_max,
            uses: code.uses,
            created_by: code.created_by.clone(),
            created_at: code.created_at.to_string(),
            expires_at: code.expires_at.to_string(),
            revoked_at: code.revoked_at.map(|at| at.to_string()),
        }
    }
}

/// Makes a binding code, with which factory-new docks join the tenant; the code is in the answer, once.
#[utoipa::path(
    post,
    path = "/api/v1/open/device-binding-codes",
    tag = "devices",
    operation_id = "createBindingCode",
    request_body = CreateBindingCode,
    responses(
        (status = 201, description = "Made", body = CreatedBindingCode),
        (status = "default", description = "Refused", body = ProblemBody, content_type = "application/problem+json"),
    ),
    extensions(("x-permission" = json!("open:device:create")))
)]
pub async fn create_binding_code(
    State(app): State<Arc<App>>,
    signed: Signed,
) -> Result<(StatusCode, Json<CreatedBindingCode>), Problem> {
    let (caller, asked) = signed.checking(&app, Permission::DeviceCreate, read).await?;
    signed::spend(&app, &caller).await?;
    let made = app.fleet.make_code(caller.tenant(), asked, caller.api_id().as_str()).await;
    let Some((code, shown)) = made.map_err(|error| Problem::store(&error))? else {
        let message = format!("the tenant has {CODES_PER_TENANT_MAX} binding codes that are good");
        return Err(Problem::new(Code::TooManyBindingCodes, message));
    };
    let answer = CreatedBindingCode {
        code: shown.expose().to_owned(),
        organization_id: app.onboarding.organization(caller.tenant()).id,
        binding_code: BindingCodeView::of(&code, app.clock.now().wall),
        request_id: caller.request_id().to_owned(),
    };
    Ok((StatusCode::CREATED, Json(answer)))
}

/// Reads the body.
pub fn read(caller: &Caller, body: &axum::body::Bytes) -> Result<CodeAsked, Problem> {
    must_touch_all(caller)?;
    let members = parse(body)?;
    let mut fields = Fields::read(&members, &["label", "uses_max", "expires_in_seconds"]);
    let label = fields.label("label").unwrap_or_default();
    let uses_max = fields.number("uses_max", 1, u64::from(USES_MAX));
    let seconds = fields.number("expires_in_seconds", 60, CodeAsked::GOOD_FOR_MAX.as_secs());
    fields.finish()?;
    Ok(CodeAsked {
        label,
        uses_max: uses_max.and_then(|uses| u32::try_from(uses).ok()).unwrap_or(1),
        good_for: seconds.map_or(CodeAsked::GOOD_FOR, Duration::from_secs),
    })
}

/// Lists the tenant's binding codes, newest first, also those that ended in the last 30 days. The codes themselves are not kept.
#[utoipa::path(
    get,
    path = "/api/v1/open/device-binding-codes",
    tag = "devices",
    operation_id = "listBindingCodes",
    params(PageParams),
    responses(
        (status = 200, description = "A page", body = BindingCodePage),
        (status = "default", description = "Refused", body = ProblemBody, content_type = "application/problem+json"),
    ),
    extensions(("x-permission" = json!("open:device:read")))
)]
pub async fn list_binding_codes(
    State(app): State<Arc<App>>,
    RawQuery(query): RawQuery,
    signed: Signed,
) -> Result<Json<BindingCodePage>, Problem> {
    signed
        .reading(&app, Permission::DeviceRead, async |caller| {
            must_touch_all(&caller)?;
            let page = read_query(query.as_deref())?;
            let codes = app.fleet.codes(caller.tenant()).await;
            let mut codes = codes.map_err(|error| Problem::store(&error))?;
            codes.sort_by_key(|code| std::cmp::Reverse(code.id));
            codes.retain(|code| page.cursor.is_none_or(|before| code.id < before));
            let next_cursor = page.cut(&mut codes, |last| last.id.to_string());
            let now = app.clock.now().wall;
            let items = codes.iter().map(|code| BindingCodeView::of(code, now)).collect();
            Ok(Json(BindingCodePage { items, next_cursor }))
        })
        .await
}

/// What a query asks for: which page.
pub fn read_query(query: Option<&str>) -> Result<Page<BindingCodeId>, Problem> {
    let mut query = Query::read(query, &["limit", "cursor"]);
    let page = query.page(|text| text.parse().ok());
    query.finish()?;
    Ok(page)
}

/// Revokes a binding code. Who came with it and has not joined yet has to go; docks that have joined stay.
#[utoipa::path(
    delete,
    path = "/api/v1/open/device-binding-codes/{binding_code_id}",
    tag = "devices",
    operation_id = "revokeBindingCode",
    params(("binding_code_id" = String, Path, description = "From the answer to its creation", format = "uuid")),
    responses(
        (status = 200, description = "As it stands now", body = BindingCodeView),
        (status = "default", description = "Refused", body = ProblemBody, content_type = "application/problem+json"),
    ),
    extensions(("x-permission" = json!("open:device:create")))
)]
pub async fn revoke_binding_code(
    State(app): State<Arc<App>>,
    InPath(text): InPath,
    signed: Signed,
) -> Result<Json<BindingCodeView>, Problem> {
    let caller = signed.acting(&app)?;
    signed::spend(&app, &caller).await?;
    signed::permit(&caller, Permission::DeviceCreate)?;
    must_touch_all(&caller)?;
    let unknown = || {
        let shown: String = text.chars().take(64).collect();
        let message = format!("no binding code {shown} in this tenant");
        Problem::new(Code::BindingCodeNotFound, message)
    };
    let id: BindingCodeId = text.parse().map_err(|_| unknown())?;
    let who = caller.api_id().as_str();
    let known = app.fleet.revoke_code(caller.tenant(), id, who).await;
    if !known.map_err(|error| Problem::store(&error))? {
        return Err(unknown());
    }
    let codes = app.fleet.codes(caller.tenant()).await.map_err(|error| Problem::store(&error))?;
    let code = codes.iter().find(|code| code.id == id).ok_or_else(unknown)?;
    Ok(Json(BindingCodeView::of(code, app.clock.now().wall)))
}
