//! An answer to a device request as it is kept: sealed JSON.

use serde::{Deserialize, Serialize};
use utmos_core::{
    device_request::{Reply, ReplySource},
    id::ApiId,
    ports::StoreError,
    time::Timestamp,
};

use crate::seal::{DataKey, Slot};

#[derive(Serialize, Deserialize)]
struct KeptReply {
    code: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    message: Option<String>,
    source: ReplySource,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    by: Option<ApiId>,
    data: String,
    at: Timestamp,
}

pub(crate) fn seal(reply: &Reply, key: &DataKey) -> Result<Vec<u8>, StoreError> {
    let kept = KeptReply {
        code: reply.code.clone(),
        message: reply.message.clone(),
        source: reply.source,
        by: reply.by.clone(),
        data: reply.data.to_string(),
        at: reply.at,
    };
    let text = serde_json::to_string(&kept);
    let text = text.map_err(|error| StoreError::Damaged(format!("a reply: {error}")))?;
    key.seal(Slot::RequestReply, &text)
}

/// Reads what was sealed.
pub(crate) fn read(text: &str) -> Result<Reply, serde_json::Error> {
    let kept: KeptReply = serde_json::from_str(text)?;
    Ok(Reply {
        code: kept.code,
        message: kept.message,
        source: kept.source,
        by: kept.by,
        data: kept.data.into(),
        at: kept.at,
    })
}
