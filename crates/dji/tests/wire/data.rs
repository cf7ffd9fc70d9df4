//! The messages under `tests/data`.

use std::{fs, path::Path, sync::LazyLock};

use serde::Deserialize;
use serde_json::Value;
use utmos_dji::catalogue::Catalogue;

/// The catalogue of the program, read once.
pub static CATALOGUE: LazyLock<Catalogue> = LazyLock::new(|| Catalogue::embedded().unwrap());

/// One recorded message.
#[derive(Debug, Deserialize)]
pub struct Recorded {
    pub direction: String,
    pub topic: String,
    pub payload_text: String,
    /// The folder it is from.
    #[serde(skip)]
    pub group: String,
}

/// One example of DJI's documents.
#[derive(Debug, Deserialize)]
pub struct Example {
    pub file: String,
    pub channel: String,
    /// Nothing for messages that have none.
    pub method: Option<String>,
    pub payload_text: String,
}

/// Every recorded message, file by file, in the order received.
pub fn recordings() -> Vec<Recorded> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/recordings");
    let provenance: Value =
        serde_json::from_str(&fs::read_to_string(root.join("PROVENANCE.json")).unwrap()).unwrap();
    let mut all = Vec::new();
    for group in provenance["groups"].as_array().unwrap() {
        let file = group["file"].as_str().unwrap();
        let mut messages: Vec<Recorded> = lines(&root.join(file));
        assert_eq!(messages.len() as u64, group["messages"].as_u64().unwrap(), "{file}");
        messages.iter_mut().for_each(|message| message.group = file.to_owned());
        all.append(&mut messages);
    }
    all
}

/// Every example of what a device sends or a cloud answers.
pub fn examples() -> Vec<Example> {
    lines(&Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/examples.jsonl"))
}

/// JSON text as a value.
pub fn json(text: &str) -> Value {
    serde_json::from_str(text).expect(text)
}

/// Bytes as a value.
pub fn json_of(bytes: &[u8]) -> Value {
    json(std::str::from_utf8(bytes).unwrap())
}

fn lines<T: for<'a> Deserialize<'a>>(path: &Path) -> Vec<T> {
    let text = fs::read_to_string(path).unwrap();
    text.lines().map(|line| serde_json::from_str(line).expect(line)).collect()
}
