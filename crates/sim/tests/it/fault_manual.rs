//! The manual of the simulator against what it is about.

use std::{collections::BTreeSet, path::Path};

use utmos_sim::{
    Scenario, ScenarioDocks,
    fault::{AnswerField, FaultFlag, KINDS},
};

fn manual() -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/simulator.md");
    std::fs::read_to_string(path).unwrap()
}

#[test]
fn every_kind_and_every_field_is_in_the_manual_and_no_other_kind_is() {
    let text = manual();
    let mut described = BTreeSet::new();
    for line in text.lines().skip_while(|line| *line != "## Faults of a command") {
        if line.starts_with("## What the server") {
            break;
        }
        let cells: Vec<&str> = line.split('|').map(|cell| cell.trim().trim_matches('`')).collect();
        let Some(kind) = KINDS.iter().find(|kind| cells.get(1) == Some(&kind.name)) else {
            continue;
        };
        // The names of codes have a table of their own.
        if cells[2].parse::<u64>().is_ok() {
            continue;
        }
        for field in kind.required.iter().chain(kind.optional) {
            assert!(cells[2].contains(field), "{line}: {field}");
        }
        described.insert(kind.name);
    }
    assert_eq!(described, KINDS.iter().map(|kind| kind.name).collect());
    for field in AnswerField::ALL {
        assert!(text.contains(&format!("`{}`", field.name())), "{}", field.name());
    }
}

#[test]
fn the_codes_of_the_manual_are_the_ones_plans_take() {
    let text = manual();
    let cells: Vec<&str> = text.split('|').map(|cell| cell.trim().trim_matches('`')).collect();
    let mut found = 0;
    for pair in cells.windows(2) {
        let (name, number) = (pair[0], pair[1]);
        if number.len() == 6 && number.bytes().all(|byte| byte.is_ascii_digit()) {
            let read = |code: &str| format!("kind=result,code={code}").parse::<FaultFlag>();
            assert_eq!(read(name).unwrap(), read(number).unwrap(), "{name}");
            found += 1;
        }
    }
    let told = "kind=result,code=x".parse::<FaultFlag>().unwrap_err().to_string();
    let known = told.rsplit_once("known are ").unwrap().1.split(", ").count();
    assert_eq!(found, known, "{told}");
}

#[test]
fn the_scenario_and_the_flags_of_the_manual_read() {
    let text = manual();
    let file = text.split("```toml\n").nth(1).and_then(|rest| rest.split("```").next()).unwrap();
    let scenario = Scenario::from_toml(file).unwrap();
    assert_eq!((scenario.seed, scenario.docks), (Some(7), Some(ScenarioDocks::Count(3))));
    assert_eq!((scenario.faults.rules.len(), scenario.faults.incidents.len()), (3, 3));
    let flags: Vec<&str> =
        text.split("--fault '").skip(1).filter_map(|rest| rest.split('\'').next()).collect();
    assert!(!flags.is_empty());
    for flag in flags {
        assert!(flag.parse::<FaultFlag>().is_ok(), "{flag}");
    }
}
