//! A command as callers see it.

use serde::Serialize;
use serde_json::{Value, value::RawValue};
use utmos_core::command::{Command, Execution};
use utmos_dji::catalogue::Catalogue;
use utoipa::ToSchema;

use super::{hidden::Hidden, words::StatusWord};

/// A command and what is known of it.
#[derive(Debug, Serialize, ToSchema)]
#[schema(example = json!({
    "command_id": "0197c2d4-7d0e-7b1a-9c55-1f0a2b3c4d5e", "status": "SUCCEEDED", "vendor": "dji",
    "device_id": "SIM-DOCK-0001", "gateway_id": "SIM-DOCK-0001", "command_type": "cover_open", "payload": {},
    "timeout_seconds": 30, "response_code": "0", "response_message": "success",
    "vendor_response": {"result": 0, "output": {"status": "in_progress"}}, "failure_code": null, "failure_reason": null,
    "execution": {
        "state": "ok", "step": "open_cover", "percent": 100, "updated_at": "2026-05-21T08:28:09.120Z",
        "ext": {"result": 0, "output": {"status": "ok", "progress": {"percent": 100, "step_key": "open_cover"}}}
    },
    "accepted_at": "2026-05-21T08:28:04.063Z", "delivered_at": "2026-05-21T08:28:04.067Z",
    "response_received_at": "2026-05-21T08:28:04.180Z", "completed_at": "2026-05-21T08:28:09.121Z",
    "updated_at": "2026-05-21T08:28:09.121Z", "status_version": 5, "request_id": "7a1f8d7c-1f6e-4b5c-9d53-0e6f6a1b2c3d"
}))]
pub struct CommandView {
    /// Its id, from acceptance on.
    #[schema(format = "uuid")]
    pub command_id: String,
    /// How it stands: never more than was observed.
    #[schema(value_type = StatusWord)]
    pub status: &'static str,
    /// Always `dji`.
    #[schema(example = "dji")]
    pub vendor: &'static str,
    /// The device it is meant for.
    pub device_id: String,
    /// The gateway that carries it.
    pub gateway_id: String,
    /// DJI's method name.
    #[schema(example = "cover_open")]
    pub command_type: String,
    /// As it was or will be sent; secrets are masked.
    #[schema(value_type = Object)]
    pub payload: Box<RawValue>,
    /// How long an answer is waited for.
    pub timeout_seconds: u64,
    /// The device's `data.code`, else `data.result`.
    pub response_code: Option<String>,
    /// The device's words, else the meaning of the code.
    pub response_message: Option<String>,
    /// The reply's `data`, whole; secrets it repeats are masked.
    #[schema(value_type = Option<Object>)]
    pub vendor_response: Option<Box<RawValue>>,
    /// Why it failed or timed out, to program against.
    pub failure_code: Option<&'static str>,
    /// The same in words.
    pub failure_reason: Option<String>,
    /// How its job goes; jobs only.
    pub execution: Option<ExecutionView>,
    /// When it was accepted, RFC 3339.
    #[schema(format = "date-time")]
    pub accepted_at: String,
    /// When the broker confirmed it or the device first showed that it has it.
    #[schema(format = "date-time")]
    pub delivered_at: Option<String>,
    /// When the device's answer came.
    #[schema(format = "date-time")]
    pub response_received_at: Option<String>,
    /// When it ended.
    #[schema(format = "date-time")]
    pub completed_at: Option<String>,
    /// When it last changed.
    #[schema(format = "date-time")]
    pub updated_at: String,
    /// Counts its changes.
    pub status_version: u64,
    /// The request that asked for it.
    pub request_id: String,
}

/// How a job goes.
#[derive(Debug, Serialize, ToSchema)]
pub struct ExecutionView {
    /// The device's own word, such as `in_progress`; `started` before the first event.
    pub state: String,
    /// The step it is at.
    pub step: Option<String>,
    /// 0 to 100.
    pub percent: Option<u8>,
    /// When it was last heard of.
    #[schema(format = "date-time")]
    pub updated_at: String,
    /// The last progress event's `data`, whole; secrets it repeats are masked.
    #[schema(value_type = Option<Object>)]
    pub ext: Option<Box<RawValue>>,
}

impl CommandView {
    /// Shows a command.
    #[must_use]
    pub fn of(command: &Command, catalogue: &Catalogue) -> Self {
        let (spec, life) = (&command.spec, &command.life);
        let hidden = Hidden::of(spec, catalogue);
        let response = life.response.as_ref();
        Self {
            command_id: spec.id.to_string(),
            status: life.status().as_str(),
            vendor: "dji",
            device_id: spec.device.to_string(),
            gateway_id: spec.gateway.to_string(),
            command_type: spec.method.clone(),
            payload: hidden.payload(),
            timeout_seconds: spec.timeout.as_secs(),
            response_code: response
                .and_then(|response| response.code.as_deref().map(|code| hidden.word(code))),
            response_message: response
                .and_then(|response| response.message.as_deref().map(|text| hidden.prose(text))),
            vendor_response: response.and_then(|response| raw(&response.data, &hidden)),
            failure_code: life.phase.failure().map(utmos_core::command::FailureCode::as_str),
            // Before the end it is a mark of the driver's, not a reason.
            failure_reason: life
                .failure_reason
                .as_deref()
                .filter(|_| life.phase.has_ended())
                .map(|reason| hidden.prose(reason)),
            execution: life
                .execution
                .as_ref()
                .map(|execution| ExecutionView::of(execution, &hidden)),
            accepted_at: spec.accepted_at.to_string(),
            delivered_at: life.delivered_at.map(|at| at.to_string()),
            response_received_at: life.response_received_at.map(|at| at.to_string()),
            completed_at: life.completed_at.map(|at| at.to_string()),
            updated_at: life.updated_at.to_string(),
            status_version: life.version.0,
            request_id: spec.request_id.clone(),
        }
    }
}

impl ExecutionView {
    fn of(execution: &Execution, hidden: &Hidden<'_>) -> Self {
        Self {
            state: hidden.word(&execution.state),
            step: execution.step.as_deref().map(|step| hidden.word(step)),
            percent: execution.percent,
            updated_at: execution.updated_at.to_string(),
            ext: execution.ext.as_ref().and_then(|ext| raw(ext, hidden)),
        }
    }
}

fn raw(text: &str, hidden: &Hidden<'_>) -> Option<Box<RawValue>> {
    if hidden.hides_nothing() {
        return RawValue::from_string(text.to_owned()).ok();
    }
    let data: Value = serde_json::from_str(text).ok()?;
    serde_json::value::to_raw_value(&hidden.data(&data)).ok()
}
