//! A line of a timeline as it is kept. Made ready before it is queued, so that the writer only writes.

use std::borrow::Cow;

use serde_json::{Value, json};
use utmos_core::{
    evidence::{Entry, Proof},
    ports::StoreError,
};

use crate::{
    codes::Coded,
    seal::{DataKey, Slot},
    sqlite::limits::{EVIDENCE_BYTES_MAX, EVIDENCE_HEAD_BYTES},
};

/// Deepest `data` that is kept as JSON; deeper is kept as text, since no reader could take it apart again.
const DATA_DEPTH_MAX: usize = 100;

/// A line as it goes into the table.
#[derive(Debug)]
pub(crate) struct EntryRow {
    pub(crate) at: i64,
    pub(crate) from: i64,
    pub(crate) to: i64,
    pub(crate) proof: Vec<u8>,
}

impl EntryRow {
    /// Whether the line changed no state.
    pub(crate) fn is_evidence(&self) -> bool {
        self.from == self.to
    }

    pub(crate) fn new(entry: &Entry, key: &DataKey) -> Result<Self, StoreError> {
        let proof = key.seal(Slot::Proof, &kept(&entry.proof)?.1)?;
        Ok(Self { at: entry.at.as_millis(), from: entry.from.code(), to: entry.to.code(), proof })
    }

    pub(crate) fn all(entries: &[Entry], key: &DataKey) -> Result<Vec<Self>, StoreError> {
        entries.iter().map(|entry| Self::new(entry, key)).collect()
    }
}

/// The line as it is kept, for whoever keeps it elsewhere than in the table.
pub(crate) fn kept_entry(entry: Entry) -> Result<Entry, StoreError> {
    let (proof, _) = kept(&entry.proof)?;
    let proof = proof.into_owned();
    Ok(Entry { proof, ..entry })
}

/// A proof as it is kept, and as JSON: what a device said is cut to a named length, and text where it is nested too
/// deep. Doing so again changes nothing.
fn kept(proof: &Proof) -> Result<(Cow<'_, Proof>, String), StoreError> {
    let data = match proof {
        Proof::Reply { data, .. } | Proof::Progress { data, .. } => data,
        Proof::Accepted { .. }
        | Proof::SendingClaimed { .. }
        | Proof::BrokerConfirmed { .. }
        | Proof::NotSent { .. }
        | Proof::SendUnclear { .. }
        | Proof::FoundAfterRestart { .. }
        | Proof::Timer { .. }
        | Proof::GatewayAbsent { .. }
        | Proof::Cancelled { .. }
        | Proof::Preempted { .. } => return Ok((Cow::Borrowed(proof), json(proof)?)),
    };
    let whole = json(proof)?;
    if whole.len() <= EVIDENCE_BYTES_MAX && is_shallow(data, DATA_DEPTH_MAX) {
        return Ok((Cow::Borrowed(proof), whole));
    }
    let text = data.to_string();
    if text.len() <= EVIDENCE_BYTES_MAX {
        if is_shallow(data, DATA_DEPTH_MAX) {
            return Ok((Cow::Borrowed(proof), whole));
        }
        let flat = Value::String(text.clone());
        if flat.to_string().len() <= EVIDENCE_BYTES_MAX {
            return with_data(proof, flat);
        }
    }
    let head = &text[..text.floor_char_boundary(EVIDENCE_HEAD_BYTES)];
    with_data(proof, json!({"cut": true, "bytes": text.len(), "head": head}))
}

fn with_data(proof: &Proof, other: Value) -> Result<(Cow<'static, Proof>, String), StoreError> {
    let mut proof = proof.clone();
    if let Proof::Reply { data, .. } | Proof::Progress { data, .. } = &mut proof {
        *data = other;
    }
    let text = json(&proof)?;
    Ok((Cow::Owned(proof), text))
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

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]
    use utmos_core::{command::Status, time::Timestamp};

    use super::*;

    fn progress(data: Value) -> Proof {
        Proof::Progress {
            gateway: "G".to_owned(),
            method: "m".to_owned(),
            state: "s".to_owned(),
            step: None,
            percent: None,
            data,
        }
    }

    /// The data as it is read back from what is kept of it.
    fn read_back(data: &Value) -> Value {
        let proof = progress(data.clone());
        let (proof, text) = kept(&proof).unwrap();
        let (again, text_again) = kept(&proof).unwrap();
        assert_eq!((&again, &text_again), (&proof, &text), "what was cut is not cut again");
        assert_eq!(serde_json::from_str::<Proof>(&text).unwrap(), *proof);
        let at = Timestamp::from_millis(1);
        let (from, to) = (Status::Accepted, Status::Accepted);
        let entry = kept_entry(Entry { at, from, to, proof: proof.clone().into_owned() }).unwrap();
        assert_eq!(entry.proof, *proof);
        let Proof::Progress { data, .. } = proof.into_owned() else { panic!("another proof") };
        data
    }

    #[test]
    fn data_nested_too_deep_to_be_read_back_is_kept_as_text() {
        for (depth, stays) in [(100, true), (101, false), (127, false)] {
            let text = format!("{}1{}", "[".repeat(depth), "]".repeat(depth));
            let data: Value = serde_json::from_str(&text).unwrap();
            assert_eq!(read_back(&data), if stays { data } else { Value::String(text) });
        }
    }

    #[test]
    fn data_of_more_than_its_length_is_cut() {
        // The quotation marks of a text are two bytes of it.
        for (filling, count) in [("x", EVIDENCE_BYTES_MAX - 2), ("é", EVIDENCE_BYTES_MAX / 2 - 1)]
        {
            let most = Value::String(filling.repeat(count));
            assert_eq!(read_back(&most), most);
            let more = Value::String(filling.repeat(count + 1));
            let text = more.to_string();
            let head: String = text.chars().take(1 + 4095 / filling.len()).collect();
            let cut = json!({"cut": true, "bytes": text.len(), "head": head});
            assert_eq!(read_back(&more), cut);
        }
        let quotes = Value::String("\"\\\u{1}".repeat(1 << 20));
        assert_eq!(read_back(&quotes)["cut"], true);
        let deep = format!("{}\"{}\"{}", "[".repeat(120), "x".repeat(20_000), "]".repeat(120));
        assert_eq!(read_back(&serde_json::from_str(&deep).unwrap())["bytes"], deep.len());
        let deep = format!("{}\"{}\"{}", "[".repeat(120), "\\\\".repeat(3000), "]".repeat(120));
        assert_eq!(read_back(&serde_json::from_str(&deep).unwrap()), Value::String(deep));
        let deep = format!("{}\"{}\"{}", "[".repeat(120), "\\\\".repeat(5000), "]".repeat(120));
        assert_eq!(read_back(&serde_json::from_str(&deep).unwrap())["cut"], true);
    }
}
