//! Lines of a timeline as they are kept. Made ready before they are queued, so that the writer only writes.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json, value::RawValue};
use utmos_core::{
    command::Status,
    evidence::{Entry, Proof},
    ports::StoreError,
    time::Timestamp,
};

use crate::{
    codes::Coded,
    seal::{DataKey, Slot},
    sqlite::limits::{EVIDENCE_BYTES_MAX, EVIDENCE_HEAD_BYTES},
};

/// Deepest `data` that is kept as JSON; deeper is kept as text, since no reader could take it apart again.
const DATA_DEPTH_MAX: usize = 100;

/// Lines that share a row at most, and the bytes of text from which on no more come to it: whoever reads a timeline opens it row
/// by row.
const LINES_MAX: usize = 16;
const TOGETHER_BYTES_MAX: usize = EVIDENCE_BYTES_MAX;

/// Lines of one change as they go into the table. Most changes have two, and each row costs a seal, a statement and a place in
/// an index.
#[derive(Debug, Clone)]
pub(crate) struct EntryRow {
    /// Of the first line.
    pub(crate) at: i64,
    /// Of the first line.
    pub(crate) from: i64,
    /// Of the last line.
    pub(crate) to: i64,
    /// The proof of one line, or several [`SealedLine`]s.
    pub(crate) proof: Vec<u8>,
    pub(crate) lines: u32,
    /// How many of them changed no state.
    pub(crate) evidence: u32,
    /// The latest time any of them tells.
    pub(crate) latest: i64,
}

/// A line among others of a row.
#[derive(Serialize, Deserialize)]
struct SealedLine<'a> {
    at: i64,
    from: i64,
    to: i64,
    #[serde(borrow)]
    proof: &'a RawValue,
}

impl EntryRow {
    /// A row of its own for each line.
    pub(crate) fn each(entries: &[Entry], key: &DataKey) -> Result<Vec<Self>, StoreError> {
        entries.iter().map(|entry| Self::of(&[(entry, kept(&entry.proof)?.1)], key)).collect()
    }

    /// As few rows as there can be.
    pub(crate) fn all(entries: &[Entry], key: &DataKey) -> Result<Vec<Self>, StoreError> {
        let (mut rows, mut lines, mut bytes) = (Vec::new(), Vec::new(), 0);
        for entry in entries {
            let text = kept(&entry.proof)?.1;
            if lines.len() == LINES_MAX || bytes + text.get().len() > TOGETHER_BYTES_MAX {
                rows.extend(Self::maybe_of(&mut lines, key)?);
                bytes = 0;
            }
            bytes += text.get().len();
            lines.push((entry, text));
        }
        rows.extend(Self::maybe_of(&mut lines, key)?);
        Ok(rows)
    }

    fn maybe_of(
        lines: &mut Vec<(&Entry, Box<RawValue>)>,
        key: &DataKey,
    ) -> Result<Option<Self>, StoreError> {
        let row = if lines.is_empty() { None } else { Some(Self::of(lines, key)?) };
        lines.clear();
        Ok(row)
    }

    fn of(lines: &[(&Entry, Box<RawValue>)], key: &DataKey) -> Result<Self, StoreError> {
        let proof = match lines {
            [(_, proof)] => key.seal(Slot::Proof, proof.get())?,
            _ => key.seal(Slot::Proofs, &together(lines)?)?,
        };
        let (first, last) = (lines.first(), lines.last());
        let changes_nothing = |(entry, _): &&(&Entry, Box<RawValue>)| entry.from == entry.to;
        let count = |count: usize| u32::try_from(count).unwrap_or(u32::MAX);
        Ok(Self {
            at: first.map_or(0, |(entry, _)| entry.at.as_millis()),
            from: first.map_or(0, |(entry, _)| entry.from.code()),
            to: last.map_or(0, |(entry, _)| entry.to.code()),
            proof,
            lines: count(lines.len()),
            evidence: count(lines.iter().filter(changes_nothing).count()),
            latest: lines.iter().map(|(entry, _)| entry.at.as_millis()).max().unwrap_or(0),
        })
    }
}

fn together(lines: &[(&Entry, Box<RawValue>)]) -> Result<String, StoreError> {
    let lines = lines.iter().map(|(entry, proof)| SealedLine {
        at: entry.at.as_millis(),
        from: entry.from.code(),
        to: entry.to.code(),
        proof,
    });
    serde_json::to_string(&lines.collect::<Vec<_>>())
        .map_err(|err| StoreError::Damaged(format!("timeline entries cannot be written: {err}")))
}

/// What the proof of a row of so many lines is sealed as.
pub(crate) fn slot_of(lines: i64) -> Slot {
    if lines == 1 { Slot::Proof } else { Slot::Proofs }
}

/// The lines of a row of so many, from the text of its proof and, where it is one, its other columns; or what is wrong with it.
pub(crate) fn entries_from(
    lines: i64,
    (at, from, to): (Timestamp, Status, Status),
    text: &str,
) -> Result<Vec<Entry>, String> {
    if lines != 1 {
        return lines_from(text);
    }
    let proof = serde_json::from_str(text).map_err(|err| err.to_string())?;
    Ok(vec![Entry { at, from, to, proof }])
}

fn lines_from(text: &str) -> Result<Vec<Entry>, String> {
    let lines: Vec<SealedLine<'_>> = serde_json::from_str(text).map_err(|err| err.to_string())?;
    let status = |code| Status::from_code(code).ok_or_else(|| format!("no such state: {code}"));
    let entry = |line: SealedLine<'_>| {
        let proof: Proof = serde_json::from_str(line.proof.get()).map_err(|err| err.to_string())?;
        let at = Timestamp::from_millis(line.at);
        Ok(Entry { at, from: status(line.from)?, to: status(line.to)?, proof })
    };
    lines.into_iter().map(entry).collect()
}

/// The line as it is kept, for whoever keeps it elsewhere than in the table.
pub(crate) fn kept_entry(entry: Entry) -> Result<Entry, StoreError> {
    let (proof, _) = kept(&entry.proof)?;
    let proof = proof.into_owned();
    Ok(Entry { proof, ..entry })
}

/// A proof as it is kept, and as JSON: what a device said is cut to a named length, and text where it is nested too
/// deep. Doing so again changes nothing.
fn kept(proof: &Proof) -> Result<(Cow<'_, Proof>, Box<RawValue>), StoreError> {
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
    if whole.get().len() <= EVIDENCE_BYTES_MAX && is_shallow(data, DATA_DEPTH_MAX) {
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

fn with_data(
    proof: &Proof,
    other: Value,
) -> Result<(Cow<'static, Proof>, Box<RawValue>), StoreError> {
    let mut proof = proof.clone();
    if let Proof::Reply { data, .. } | Proof::Progress { data, .. } = &mut proof {
        *data = other;
    }
    let text = json(&proof)?;
    Ok((Cow::Owned(proof), text))
}

fn json(proof: &Proof) -> Result<Box<RawValue>, StoreError> {
    serde_json::value::to_raw_value(proof)
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
    use super::*;
    use crate::{key::MasterKey, seal::Sealer};

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
        assert_eq!(
            (&again, text_again.get()),
            (&proof, text.get()),
            "what was cut is not cut again"
        );
        assert_eq!(serde_json::from_str::<Proof>(text.get()).unwrap(), *proof);
        let at = Timestamp::from_millis(1);
        let (from, to) = (Status::Accepted, Status::Accepted);
        let entry = kept_entry(Entry { at, from, to, proof: proof.clone().into_owned() }).unwrap();
        assert_eq!(entry.proof, *proof);
        let Proof::Progress { data, .. } = proof.into_owned() else { panic!("another proof") };
        data
    }

    #[test]
    fn lines_of_a_change_share_rows_as_long_as_these_stay_small() {
        let key = Sealer::new(&MasterKey::generate().unwrap()).data_key_of(b"a command");
        let entry = |bytes: usize, at: i64| Entry {
            at: Timestamp::from_millis(at),
            from: Status::Accepted,
            to: if at % 2 == 0 { Status::Accepted } else { Status::Delivered },
            proof: progress(Value::String("x".repeat(bytes))),
        };
        let small: Vec<Entry> = (0..40).map(|at| entry(1, at)).collect();
        let rows = EntryRow::all(&small, &key).unwrap();
        let sizes = |rows: &[EntryRow]| rows.iter().map(|row| row.lines).collect::<Vec<_>>();
        assert_eq!(sizes(&rows), [16, 16, 8]);
        assert_eq!(rows.iter().map(|row| row.evidence).sum::<u32>(), 20);
        assert_eq!((rows[1].at, rows[1].latest), (16, 31));
        assert_eq!((rows[1].from, rows[1].to), (Status::Accepted.code(), Status::Delivered.code()));
        let opened = |row: &EntryRow| lines_from(&key.open(Slot::Proofs, &row.proof).unwrap());
        let back: Vec<Entry> = rows.iter().flat_map(|row| opened(row).unwrap()).collect();
        assert_eq!(back, small);
        assert!(key.open(Slot::Proof, &rows[0].proof).is_err(), "several never pass for one");

        let large: Vec<Entry> = (0..4).map(|at| entry(EVIDENCE_BYTES_MAX / 3, at)).collect();
        assert_eq!(sizes(&EntryRow::all(&large, &key).unwrap()), [2, 2]);
        let largest: Vec<Entry> = (0..2).map(|at| entry(2 * EVIDENCE_BYTES_MAX, at)).collect();
        assert_eq!(sizes(&EntryRow::all(&largest, &key).unwrap()), [2], "each was cut");
        assert_eq!(sizes(&EntryRow::each(&small, &key).unwrap()), [1; 40]);
        assert!(EntryRow::all(&[], &key).unwrap().is_empty());
        for bad in ["{}", "[{}]", r#"[{"at":1,"from":99,"to":1,"proof":{}}]"#, "[1"] {
            assert!(lines_from(bad).is_err(), "{bad}");
        }
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
