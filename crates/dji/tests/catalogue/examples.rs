//! The catalogue against the documents: counts, examples, codes.

use std::{collections::BTreeMap, fs, path::Path};

use serde_json::{Value, json};
use utmos_core::method::{Channel, CompletesBy};
use utmos_dji::catalogue::Domain;

use crate::{catalogue, data, method};

#[test]
fn the_nine_domains_hold_the_eighty_three_documented_methods() {
    let catalogue = catalogue();
    let mut counts: BTreeMap<Domain, usize> = BTreeMap::new();
    for domain in catalogue.methods().filter_map(|method| method.domain) {
        *counts.entry(domain).or_default() += 1;
    }
    let expected = [
        (Domain::Device, 21),
        (Domain::Camera, 17),
        (Domain::Drc, 12),
        (Domain::Wayline, 9),
        (Domain::Psdk, 10),
        (Domain::Safety, 5),
        (Domain::Live, 4),
        (Domain::File, 4),
        (Domain::Firmware, 1),
    ];
    assert_eq!(counts, BTreeMap::from(expected));
    assert_eq!(counts.values().sum::<usize>(), 83);
    assert_eq!(catalogue.methods().count(), 167);
    let jobs =
        catalogue.methods().filter(|m| m.domain.is_some() && m.completes_by == CompletesBy::Job);
    assert_eq!(jobs.count(), 20);
}

#[test]
fn every_example_passes_its_check_and_its_schema() {
    for method in catalogue().methods() {
        let checked = method.check(method.example());
        let checked = checked.unwrap_or_else(|flaws| panic!("{}: {flaws:?}", method.name));
        assert_eq!(
            &checked.payload,
            method.example(),
            "{} sends its example unchanged",
            method.name
        );
        let schema = jsonschema::validator_for(&method.payload_schema()).unwrap();
        assert!(schema.is_valid(method.example()), "{}", method.name);
        let reply = jsonschema::validator_for(&method.reply_schema()).unwrap();
        assert!(reply.is_valid(&json!({"result": 0})), "{}", method.name);
    }
}

#[test]
fn every_documented_example_message_is_accepted() {
    let catalogue = catalogue();
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/commands");
    let mut seen = 0;
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_stem().unwrap().to_str().unwrap().to_owned();
        let mut parts = name.split("__");
        let (channel, method_name) = (parts.nth(1).unwrap(), parts.next().unwrap());
        let message: Value = serde_json::from_str(&fs::read_to_string(&path).unwrap()).unwrap();
        let known = method(&catalogue, method_name);
        // Some documents write null where the others write {}.
        let payload = if message["data"].is_null() { json!({}) } else { message["data"].clone() };
        let checked = known.check(&payload).unwrap_or_else(|flaws| panic!("{name}: {flaws:?}"));
        let schema = jsonschema::validator_for(&known.payload_schema()).unwrap();
        assert!(schema.is_valid(&checked.payload), "{name}");
        let expected = if channel == "services" { Channel::Services } else { Channel::DrcDown };
        assert_eq!(known.channel, expected, "{name}");
        seen += 1;
    }
    assert_eq!(seen, 99);
}

#[test]
fn every_payload_of_the_public_documentation_is_accepted() {
    let catalogue = catalogue();
    let payloads: BTreeMap<String, Value> =
        serde_json::from_str(&data("public_payloads.json")).unwrap();
    for known in catalogue.methods().filter(|method| method.domain.is_some()) {
        let payload =
            payloads.get(&known.name).unwrap_or_else(|| panic!("no payload for {}", known.name));
        let checked =
            known.check(payload).unwrap_or_else(|flaws| panic!("{}: {flaws:?}", known.name));
        let schema = jsonschema::validator_for(&known.payload_schema()).unwrap();
        assert!(schema.is_valid(payload), "{} as given", known.name);
        assert!(schema.is_valid(&checked.payload), "{} as sent", known.name);
    }
    assert_eq!(payloads.len(), 83);
}

#[test]
fn every_error_code_has_a_meaning_and_live_codes_share_theirs() {
    let catalogue = catalogue();
    let file: Value = serde_json::from_str(include_str!("../../data/error_codes.json")).unwrap();
    let codes = file["codes"].as_object().unwrap();
    assert_eq!(codes.len(), 472);
    for code in codes.keys() {
        let meaning = catalogue.meaning(code.parse().unwrap()).unwrap();
        assert!(!meaning.is_empty(), "{code}");
    }
    assert_eq!(catalogue.meaning(613_003), Some("already streaming"));
    assert_eq!(catalogue.meaning(513_003), Some("already streaming"));
    assert_eq!(catalogue.remedy(514_153), Some("send debug_mode_open first"));
    for unknown in [13_003, 999_999, -1, i64::MIN, i64::MAX] {
        assert_eq!(catalogue.meaning(unknown), None, "{unknown}");
    }
}

#[test]
fn no_text_of_the_data_is_longer_than_a_line_or_empty() {
    for known in catalogue().methods() {
        assert!((3..=80).contains(&known.title.len()), "{}", known.title);
    }
}
