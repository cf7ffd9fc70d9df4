//! A line of a timeline as it is kept. Made ready before it is queued, so that the writer only writes.

use serde_json::Value;
use utmos_core::{
    evidence::{Entry, Proof},
    ports::StoreError,
};

use crate::codes::Coded;

/// Deepest `data` that is kept as JSON; deeper is kept as text, since no reader could take it apart again.
const DATA_DEPTH_MAX: usize = 100;

/// A line as it goes into the table.
#[derive(Debug)]
pub(crate) struct EntryRow {
    pub(crate) at: i64,
    pub(crate) from: i64,
    pub(crate) to: i64,
    pub(crate) proof: String,
}

impl EntryRow {
    /// Whether the line changed no state.
    pub(crate) fn is_evidence(&self) -> bool {
        self.from == self.to
    }

    pub(crate) fn new(entry: &Entry) -> Result<Self, StoreError> {
        let proof = match &entry.proof {
            Proof::Reply { data, .. } | Proof::Progress { data, .. }
                if !is_shallow(data, DATA_DEPTH_MAX) =>
            {
                json(&flattened(&entry.proof))?
            }
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
            | Proof::Cancelled { .. }
            | Proof::Preempted { .. } => json(&entry.proof)?,
        };
        Ok(Self { at: entry.at.as_millis(), from: entry.from.code(), to: entry.to.code(), proof })
    }
}

fn json(proof: &Proof) -> Result<String, StoreError> {
    serde_json::to_string(proof)
        .map_err(|err| StoreError::Damaged(format!("a timeline entry cannot be written: {err}")))
}

fn is_shallow(value: &Value, depth: usize) -> bool {
    match value {
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => true,
        Value::Array(items) => depth > 0 && items.iter().all(|item| is_shallow(item, depth - 1)),
        Value::Object(members) => {
            depth > 0 && members.values().all(|member| is_shallow(member, depth - 1))
        }
    }
}

fn flattened(proof: &Proof) -> Proof {
    let mut flat = proof.clone();
    if let Proof::Reply { data, .. } | Proof::Progress { data, .. } = &mut flat {
        *data = Value::String(data.to_string());
    }
    flat
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]
    use utmos_core::{command::Status, time::Timestamp};

    use super::*;

    #[test]
    fn data_nested_too_deep_to_be_read_back_is_kept_as_text() {
        for (depth, stays) in [(100, true), (101, false), (127, false)] {
            let text = format!("{}1{}", "[".repeat(depth), "]".repeat(depth));
            let data: Value = serde_json::from_str(&text).unwrap();
            let proof = Proof::Progress {
                gateway: "G".to_owned(),
                method: "m".to_owned(),
                state: "s".to_owned(),
                step: None,
                percent: None,
                data: data.clone(),
            };
            let at = Timestamp::from_millis(1);
            let row =
                EntryRow::new(&Entry { at, from: Status::Accepted, to: Status::Accepted, proof })
                    .unwrap();
            let Proof::Progress { data: read, .. } = serde_json::from_str(&row.proof).unwrap()
            else {
                panic!("another proof")
            };
            assert_eq!(read, if stays { data } else { Value::String(text) });
        }
    }
}
