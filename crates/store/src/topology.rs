//! What stands behind a gateway, as it is kept.

use serde::{Deserialize, Serialize};
use utmos_core::{device::SubDevice, id::DeviceSn, ports::StoreError};

/// A sub-device as it is kept.
#[derive(Serialize, Deserialize)]
struct SubRow {
    sn: String,
    model_key: Option<String>,
    index: Option<String>,
}

/// `subs` as it is kept.
pub(crate) fn subs_json(subs: &[SubDevice]) -> Result<String, StoreError> {
    let row = |sub: &SubDevice| SubRow {
        sn: sub.sn.to_string(),
        model_key: sub.model_key.clone(),
        index: sub.index.clone(),
    };
    to_json(&subs.iter().map(row).collect::<Vec<_>>())
}

/// Reads `subs`, or says why it cannot.
pub(crate) fn subs_from_json(text: &str) -> Result<Vec<SubDevice>, String> {
    let rows: Vec<SubRow> = serde_json::from_str(text).map_err(|err| err.to_string())?;
    let sub = |row: SubRow| {
        let sn = DeviceSn::parse(&row.sn).map_err(|err| err.to_string())?;
        Ok(SubDevice { sn, model_key: row.model_key, index: row.index })
    };
    rows.into_iter().map(sub).collect()
}

/// `subs` without a device; `None` where it cannot be read.
pub(crate) fn without(text: &str, sn: &DeviceSn) -> Result<Option<String>, StoreError> {
    let Ok(mut subs) = serde_json::from_str::<Vec<SubRow>>(text) else { return Ok(None) };
    subs.retain(|sub| sub.sn != sn.as_str());
    to_json(&subs).map(Some)
}

fn to_json(rows: &[SubRow]) -> Result<String, StoreError> {
    serde_json::to_string(rows)
        .map_err(|err| StoreError::Damaged(format!("a topology cannot be written: {err}")))
}
