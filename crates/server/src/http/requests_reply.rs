//! `POST /api/v1/open/device-requests/{request_id}/reply`

use std::sync::Arc;

use axum::{Json, extract::State, http::StatusCode};
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use utmos_core::{
    credential::Permission,
    device_request::{CannotReply, DeviceRequest, Reply, RoutingDecision, result_of},
    id::ApiId,
};
use utmos_dji::answer::check_reply;
use utoipa::ToSchema;

use super::{
    App, json,
    problem::{Code, Detail, Problem, ProblemBody, cut},
    query::InPath,
    requests::{find, masked, unknown},
    signed::{self, Signed},
    words::ReplySourceWord,
};
use crate::requests::{BIND, ByHand, ReplyError, Rules};

/// Longest code and message, in characters.
const CODE_CHARS_MAX: usize = 64;
const MESSAGE_CHARS_MAX: usize = 1_024;
/// Longest payload, in bytes of JSON: it must fit into one message.
const PAYLOAD_BYTES_MAX: usize = 256 * 1024;
/// Members of the body.
const MEMBERS: [&str; 3] = ["reply_code", "reply_message", "payload"];

/// An answer to a device. Read by hand, so that all problems are named at once.
#[derive(Debug, Deserialize, ToSchema)]
#[schema(example = json!({
    "reply_code": "0", "payload": {"file": {"url": "https://files.example/task-1.kmz", "fingerprint": "d41d8cd98f00b204e9800998ecf8427e"}}
}))]
#[expect(dead_code, reason = "describes the body in the OpenAPI document")]
pub struct DeviceRequestReply {
    /// `0`, `OK`, `APPROVED` and `SUCCESS` become the result 0; another whole number is the result; anything else is 1.
    #[schema(min_length = 1, max_length = 64)]
    reply_code: String,
    /// In words. A refusal without a payload carries it to the device.
    #[schema(max_length = 1024)]
    reply_message: Option<String>,
    /// DJI's `output`; for `config` the flat answer. With result 0 it must have the shape DJI documents for the type.
    #[schema(value_type = Option<Object>)]
    payload: Option<Value>,
}

/// The answer is on record and leaves once the gateway is there, until `reply_by`.
#[derive(Debug, Serialize, ToSchema)]
pub struct DeviceRequestReplied {
    /// The device request.
    #[schema(format = "uuid")]
    pub request_id: String,
    /// As it was given.
    pub reply_code: String,
    /// As it was given.
    pub reply_message: Option<String>,
    /// Always `manual`.
    #[schema(value_type = ReplySourceWord)]
    pub reply_source: &'static str,
    /// When it became durable.
    #[schema(format = "date-time")]
    pub replied_at: String,
    /// The `data` of the answer as the device gets it; secrets are masked.
    #[schema(value_type = Object)]
    pub standardized_reply: Value,
    /// What an approval of `airport_organization_bind` came to; `null` for everything else.
    pub binding: Option<BindingView>,
}

/// Which devices were bound, and which were not.
#[derive(Debug, Serialize, ToSchema)]
#[schema(example = json!({"bound": ["7CTDM2900B00XX"], "refused": [{"device_id": "1581F5B00XX", "error_code": 210_231}]}))]
pub struct BindingView {
    /// These are devices of the tenant now.
    pub bound: Vec<String>,
    /// These were not bound, whoever approves.
    pub refused: Vec<NotBound>,
}

/// A device that was not bound.
#[derive(Debug, Serialize, ToSchema)]
pub struct NotBound {
    /// Its serial number.
    pub device_id: String,
    /// What the dock is told: 210229 where organisation or code are wrong, 210231 where it is another tenant's, or none
    /// that this gateway may have.
    pub error_code: i64,
}

/// Answers a request of a device by hand. Sent once.
#[utoipa::path(
    post,
    path = "/api/v1/open/device-requests/{request_id}/reply",
    tag = "device requests",
    operation_id = "replyToDeviceRequest",
    params(("request_id" = String, Path, description = "From the list", format = "uuid")),
    request_body = DeviceRequestReply,
    responses(
        (status = 202, description = "Durable, and on its way", body = DeviceRequestReplied),
        (status = "default", description = "Refused", body = ProblemBody, content_type = "application/problem+json"),
    ),
    extensions(("x-permission" = json!("open:device-request:create")))
)]
pub async fn reply_to_device_request(
    State(app): State<Arc<App>>,
    InPath(id): InPath,
    signed: Signed,
) -> Result<(StatusCode, Json<DeviceRequestReplied>), Problem> {
    let (caller, by_hand) = signed
        .checking(&app, Permission::DeviceRequestCreate, |caller, body| read(caller.api_id(), body))
        .await?;
    signed::spend(&app, &caller).await?;
    let request = find(&app, &caller, &id).await?;
    // Whether it can be answered at all is said before what is wrong with the answer.
    let by_hand = match request.state {
        RoutingDecision::AwaitingReply => fitting(request.asked.request_type.as_deref(), by_hand)?,
        RoutingDecision::AutoReplied
        | RoutingDecision::Replied
        | RoutingDecision::Expired
        | RoutingDecision::Unsupported => by_hand,
    };
    let replied = app.desk.reply(request.asked.id, by_hand).await.map_err(|error| match error {
        ReplyError::Unknown => unknown(&id),
        ReplyError::Cannot(CannotReply::AlreadyReplied) => {
            Problem::new(Code::DeviceRequestAlreadyReplied, &error)
        }
        ReplyError::Cannot(CannotReply::Expired | CannotReply::Unsupported) => {
            Problem::new(Code::DeviceRequestExpired, &error)
        }
        ReplyError::NotWhole | ReplyError::NamesNobody | ReplyError::Away => {
            Problem::invalid(vec![Detail::new("/reply_code", error.to_string())])
        }
        ReplyError::Store(cause) => Problem::store(&cause),
    })?;
    let reply = replied.reply.as_ref().ok_or_else(|| unknown(&id))?;
    let answer = DeviceRequestReplied {
        request_id: replied.asked.id.to_string(),
        reply_code: reply.code.clone(),
        reply_message: reply.message.clone(),
        reply_source: reply.source.as_str(),
        replied_at: reply.at.to_string(),
        standardized_reply: masked(&reply.data),
        binding: binding(&replied, reply),
    };
    Ok((StatusCode::ACCEPTED, Json(answer)))
}

/// What became of the devices that were to be bound, out of what their gateway is told.
fn binding(replied: &DeviceRequest, reply: &Reply) -> Option<BindingView> {
    let approves =
        replied.asked.request_type.as_deref() == Some(BIND) && result_of(&reply.code) == 0;
    if !approves {
        return None;
    }
    let data: Value = serde_json::from_str(&reply.data).unwrap_or_default();
    let mut view = BindingView { bound: Vec::new(), refused: Vec::new() };
    for info in data.pointer("/output/err_infos")?.as_array()? {
        let device_id = info["sn"].as_str()?.to_owned();
        match info["err_code"].as_i64()? {
            0 => view.bound.push(device_id),
            error_code => view.refused.push(NotBound { device_id, error_code }),
        }
    }
    Some(view)
}

/// A body that must be a JSON object with these members and no others.
pub fn read_object(
    body: &[u8],
    members: &[&str],
) -> Result<(Map<String, Value>, Vec<Detail>), Problem> {
    let refuse = |message: String| Problem::new(Code::InvalidRequestBody, message);
    let text = std::str::from_utf8(body).map_err(|error| {
        refuse(format!("the body is not UTF-8 from byte {} on", error.valid_up_to()))
    })?;
    let value =
        json::read(text).map_err(|error| refuse(format!("the body is not JSON: {error}")))?;
    let Value::Object(map) = value else {
        return Err(refuse("the body must be a JSON object".to_owned()));
    };
    let strange = map.keys().filter(|name| !members.contains(&name.as_str()));
    let details = strange.map(|name| {
        let field = format!("/{}", cut(name).replace('~', "~0").replace('/', "~1"));
        let known = members.join(", ");
        Detail::new(field, format!("is not a member of this request; known are {known}"))
    });
    let details = details.collect();
    Ok((map, details))
}

/// A good answer to a type that is known must have DJI's shape: a dock could make nothing of another.
pub fn fitting(request_type: Option<&str>, by_hand: ByHand) -> Result<ByHand, Problem> {
    let known = request_type.filter(|name| Rules::has_automatic(name));
    let Some(known) = known.filter(|_| result_of(&by_hand.code) == 0) else { return Ok(by_hand) };
    if known == BIND {
        // What became of each device is what the server says that it did.
        return match by_hand.payload {
            None => Ok(by_hand),
            Some(_) => {
                let problem = "must be left out: reply_code 0 has the server bind the devices whose code is right, and tell the dock \
                               what became of each";
                Err(Problem::invalid(vec![Detail::new("/payload", problem)]))
            }
        };
    }
    let payload = by_hand.payload.as_deref().unwrap_or("{}");
    let payload: Value = serde_json::from_str(payload).unwrap_or_default();
    match check_reply(known, &payload) {
        Ok(payload) => Ok(ByHand { payload: Some(payload.to_string()), ..by_hand }),
        Err(flaws) => {
            let details = flaws.into_iter().map(|flaw| Detail {
                field: format!("/payload{}", flaw.pointer),
                problem: flaw.problem,
                given: Some(flaw.given).filter(|given| !given.is_null()),
            });
            Err(Problem::invalid(details.collect()))
        }
    }
}

/// Reads the body.
pub fn read(who: &ApiId, body: &Bytes) -> Result<ByHand, Problem> {
    let (members, mut details) = read_object(body, &MEMBERS)?;
    let mut text = |name: &str, most: usize| match members.get(name) {
        None | Some(Value::Null) => None,
        Some(Value::String(text)) if text.chars().count() <= most && !text.contains('\0') => {
            Some(text.clone())
        }
        Some(other) => {
            let problem = format!("must be a string of at most {most} characters");
            details.push(Detail::new(format!("/{name}"), problem).given_by_caller(other));
            Some(String::new())
        }
    };
    let code = text("reply_code", CODE_CHARS_MAX);
    let message = text("reply_message", MESSAGE_CHARS_MAX);
    if code.is_none() || members.get("reply_code") == Some(&Value::from("")) {
        let problem = "is required: 0, OK, APPROVED or SUCCESS, or the result of a refusal";
        details.push(Detail::new("/reply_code", problem));
    }
    let payload = match members.get("payload") {
        None | Some(Value::Null) => None,
        Some(payload @ Value::Object(_)) => {
            let payload = payload.to_string();
            if payload.len() > PAYLOAD_BYTES_MAX {
                let problem = format!("must be at most {PAYLOAD_BYTES_MAX} bytes of JSON");
                details.push(Detail::new("/payload", problem));
            }
            Some(payload)
        }
        Some(other) => {
            details.push(Detail::new("/payload", "must be an object").given_by_caller(other));
            None
        }
    };
    match code {
        Some(code) if details.is_empty() => Ok(ByHand { code, message, payload, who: who.clone() }),
        Some(_) | None => Err(Problem::invalid(details)),
    }
}
