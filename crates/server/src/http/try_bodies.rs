//! What some endpoints make of a body, for those who try bodies on them without a server around them. The errors are those
//! of the endpoints.

use std::collections::BTreeSet;

use bytes::Bytes;
use utmos_core::{
    device::DeviceKind,
    device_request::Rule,
    id::{ApiId, DeviceSn},
    signing::Caller,
};

use super::{devices, problem::Problem, requests_reply, requests_rules};
use crate::{fleet::CodeAsked, requests::ByHand};

/// A device that is to be registered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Registering {
    /// Its serial number.
    pub sn: DeviceSn,
    /// What it is.
    pub kind: DeviceKind,
    /// For people.
    pub label: String,
    /// The same.
    pub tags: BTreeSet<String>,
}

/// `POST …/device-requests/{request_id}/reply`, of a request of this type that waits.
///
/// # Errors
/// As the endpoint.
pub fn reply(request_type: &str, body: &Bytes) -> Result<ByHand, Problem> {
    let who = ApiId::new("utk_nobody");
    requests_reply::fitting(Some(request_type), requests_reply::read(&who, body)?)
}

/// `PUT …/device-request-rules/{request_type}`.
///
/// # Errors
/// As the endpoint.
pub fn rule(request_type: &str, body: &Bytes) -> Result<Rule, Problem> {
    requests_rules::read(body, request_type)
}

/// `POST …/devices`.
///
/// # Errors
/// As the endpoint.
pub fn device(caller: &Caller, body: &Bytes) -> Result<Registering, Problem> {
    let wanted = devices::register::read(caller, body)?;
    Ok(Registering { sn: wanted.sn, kind: wanted.kind, label: wanted.label, tags: wanted.tags })
}

/// `POST …/device-binding-codes`.
///
/// # Errors
/// As the endpoint.
pub fn binding_code(caller: &Caller, body: &Bytes) -> Result<CodeAsked, Problem> {
    devices::codes::read(caller, body)
}
