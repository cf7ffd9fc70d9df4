//! How a command stands, as it is kept: its texts sealed before they are queued, so that the writer only writes.

use serde::{Deserialize, Serialize};
use utmos_core::{command::Life, ports::StoreError};

use crate::seal::{DataKey, Slot};

/// What was said of a life in words, kept sealed. A device may repeat a secret it was given.
#[derive(Default, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Texts {
    /// Where it is no number.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) response_code: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) response_message: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) failure_reason: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) execution_state: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) execution_step: Option<String>,
}

impl Texts {
    fn of(life: &Life) -> Option<Self> {
        let (response, execution) = (life.response.as_ref(), life.execution.as_ref());
        let texts = Self {
            response_code: response.and_then(|it| it.code.clone()).filter(|it| !is_number(it)),
            response_message: response.and_then(|it| it.message.clone()),
            failure_reason: life.failure_reason.clone(),
            execution_state: execution.map(|it| it.state.clone()),
            execution_step: execution.and_then(|it| it.step.clone()),
        };
        let is_silent = texts.response_code.is_none()
            && texts.response_message.is_none()
            && texts.failure_reason.is_none()
            && texts.execution_state.is_none();
        (!is_silent).then_some(texts)
    }
}

/// The device's code, where it can stand in clear.
pub(crate) fn clear_code(life: &Life) -> Option<&str> {
    let response = life.response.as_ref();
    response.and_then(|it| it.code.as_deref()).filter(|it| is_number(it))
}

fn is_number(code: &str) -> bool {
    let digits = code.strip_prefix('-').unwrap_or(code);
    (1..=19).contains(&digits.len()) && digits.bytes().all(|byte| byte.is_ascii_digit())
}

/// The texts of a life as they are kept.
pub(crate) struct SealedLife {
    pub(crate) response: Option<Vec<u8>>,
    pub(crate) execution: Option<Vec<u8>>,
    pub(crate) texts: Option<Vec<u8>>,
}

impl SealedLife {
    /// That of a life of which nothing was said.
    pub(crate) const NOTHING: Self = Self { response: None, execution: None, texts: None };

    pub(crate) fn new(life: &Life, key: &DataKey) -> Result<Self, StoreError> {
        let response = life.response.as_ref().map(|response| &response.data);
        let execution = life.execution.as_ref().and_then(|execution| execution.ext.as_ref());
        let texts = Texts::of(life).map(|texts| serde_json::to_string(&texts)).transpose();
        let texts = texts.map_err(|error| StoreError::Damaged(format!("texts: {error}")))?;
        Ok(Self {
            texts: texts.map(|texts| key.seal(Slot::Texts, &texts)).transpose()?,
            response: response.map(|data| key.seal(Slot::Response, data)).transpose()?,
            execution: execution.map(|data| key.seal(Slot::Execution, data)).transpose()?,
        })
    }
}
