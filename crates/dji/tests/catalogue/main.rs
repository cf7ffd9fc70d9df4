//! The catalogue against the documents, the rules and arbitrary payloads.
#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a test may fail by panicking")]

mod check;
mod examples;
mod meaning;
mod overrides;
mod property;

use std::{fs, path::Path, sync::LazyLock};

use serde_json::Value;
use utmos_dji::catalogue::{Catalogue, Method};

static EMBEDDED: LazyLock<Catalogue> =
    LazyLock::new(|| Catalogue::embedded().expect("the embedded catalogue reads"));

fn catalogue() -> Catalogue {
    EMBEDDED.clone()
}

fn data(name: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data").join(name)).unwrap()
}

fn method<'a>(catalogue: &'a Catalogue, name: &str) -> &'a Method {
    catalogue.method(name).unwrap_or_else(|| panic!("no method {name}"))
}

/// The problems of a payload as `pointer problem`.
fn problems(name: &str, payload: &Value) -> Vec<String> {
    let catalogue = catalogue();
    let flaws = method(&catalogue, name).check(payload).err().unwrap_or_default();
    flaws.iter().map(|flaw| format!("{} {}", flaw.pointer, flaw.problem)).collect()
}

fn sent(name: &str, payload: &Value) -> Value {
    let catalogue = catalogue();
    match method(&catalogue, name).check(payload) {
        Ok(checked) => checked.payload,
        Err(flaws) => panic!("{name}: {flaws:?}"),
    }
}
