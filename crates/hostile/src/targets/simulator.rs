//! Files and flags of the simulator and of the trials.

use std::{
    collections::BTreeSet,
    sync::{Arc, LazyLock},
};

use utmos_core::id::GatewaySn;
use utmos_dji::catalogue::Catalogue;
use utmos_sim::{
    Login, Scenario, ScenarioDocks,
    fault::{FaultFlag, FaultPlan, KINDS, KindName, Problems, Sort},
};
use utmos_trials::{Plan, run};

use super::{CATALOGUE, is_told};

/// Plans of more happenings are read and not run.
const HAPPENINGS_RUN_MAX: usize = 4;
/// Nor are those that take longer than this, in milliseconds of their own time.
const MS_RUN_MAX: u64 = 20_000;

/// Every problem has a field, and in a file a line. What is no TOML has a column, and a field where its line begins with
/// one.
fn are_told(problems: &Problems, lines: usize) {
    assert!(!problems.all().is_empty());
    for problem in problems.all() {
        is_told(problem.problem());
        match problem.line() {
            Some(line) => assert!((1..=lines).contains(&line), "{problem}"),
            None => assert_eq!(lines, 0, "{problem}"),
        }
        let is_syntax = ["this is no TOML", "byte 0x"].iter().any(|word| {
            problem.problem().starts_with(word) && problem.problem().contains("at column ")
        });
        assert!(problem.field().is_some() || is_syntax && 0 < lines, "{problem}");
    }
}

/// Reads a scenario.
pub fn scenario(input: &[u8]) {
    let lines = input.iter().filter(|byte| **byte == b'\n').count() + 1;
    let scenario = match Scenario::from_bytes(input) {
        Ok(scenario) => scenario,
        Err(problems) => return are_told(&problems, lines),
    };
    let text = String::from_utf8_lossy(input);
    let at_end = format!("{text}\n[[fault]]\nkind = \"never\"\n");
    if let Ok(more) = Scenario::from_toml(&at_end) {
        let (before, after) = (&scenario.faults, &more.faults);
        assert_eq!(after.rules.get(..before.rules.len()), Some(&before.rules[..]));
        assert_eq!(after.rules.len(), before.rules.len() + 1);
        assert_eq!(after.incidents, before.incidents);
    }
    for rule in &scenario.faults.rules {
        assert!(rule.meets.probability.is_none_or(|share| (0.0..=1.0).contains(&share)));
        assert!(rule.meets.nth != Some(0));
    }
    assert!(scenario.speed.is_none_or(|speed| (0.01..=1_000.0).contains(&speed)));
    if let Some(ScenarioDocks::Named(docks)) = &scenario.docks {
        let names: BTreeSet<&str> = docks.iter().map(|dock| dock.sn.as_str()).collect();
        assert_eq!(names.len(), docks.len(), "a dock stands there twice");
        assert!(
            names.iter().all(|sn| GatewaySn::parse(sn).is_ok()),
            "a dock with no serial number"
        );
    }
}

/// Reads a fault or a condition as a flag, which means what a file with the same fields means.
pub fn fault_flag(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else { return };
    let flag = match text.parse::<FaultFlag>() {
        Ok(flag) => flag,
        Err(problems) => return are_told(&problems, 0),
    };
    let mut plan = FaultPlan::default();
    plan.put_first([flag]);
    assert_eq!(plan.rules.len() + plan.incidents.len(), 1);
    let mut fields = String::new();
    let mut heading = "fault";
    for pair in text.split(',') {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        let (name, value) = (name.trim(), value.trim());
        let is_condition = |kind: &KindName| kind.name == value && kind.sort == Sort::Condition;
        if name == "kind" && KINDS.iter().any(is_condition) {
            heading = "condition";
        }
        let is_number = value.parse::<f64>().is_ok();
        let is_text = ["kind", "gateway", "method", "field", "sn"].contains(&name) || !is_number;
        let value = if is_text { toml::Value::from(value).to_string() } else { value.to_owned() };
        fields.push_str(&format!("{name} = {value}\n"));
    }
    match Scenario::from_toml(&format!("[[{heading}]]\n{fields}")) {
        Ok(same) => assert_eq!(same.faults, plan),
        // TOML is stricter about numbers: 007 and +5 are words to it.
        Err(problems) => is_told(&problems.to_string()),
    }
}

/// Reads a plan of a trial, and runs it when it is a short one.
pub fn trial_plan(input: &[u8]) {
    static SHARED: LazyLock<Arc<Catalogue>> = LazyLock::new(|| Arc::new(CATALOGUE.clone()));
    let Ok(text) = std::str::from_utf8(input) else { return };
    let plan = match Plan::read(text) {
        Ok(plan) => plan,
        Err(refused) => return is_told(&refused.to_string()),
    };
    let written = plan.write();
    assert_eq!(Plan::read(&written).as_ref(), Ok(&plan), "{written}");
    let is_short = plan.happenings.len() <= HAPPENINGS_RUN_MAX
        && plan.happenings.iter().all(|happening| happening.at <= MS_RUN_MAX);
    if is_short && plan.docks <= 3 {
        let report = run(&plan, None, &SHARED);
        assert!(report.violations.is_empty(), "{written}\n{:#?}", report.violations);
    }
}

/// Reads what docks connect with. A password is never told.
pub fn dock_logins(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else { return };
    let logins = match Login::read_all(text) {
        Ok(logins) => logins,
        Err(refused) => {
            is_told(&refused.problem);
            return assert!(refused.line <= text.matches('\n').count() + 1, "{refused}");
        }
    };
    let mut lines = String::new();
    for login in &logins {
        let is_line = !login.password.is_empty()
            && login.password.trim() == login.password
            && login.password.lines().count() == 1;
        if is_line {
            lines.push_str(&format!("{} {}\n", login.sn, login.password));
        }
        let other = Login { password: "another".to_owned(), ..login.clone() };
        assert_eq!(format!("{login:?}"), format!("{other:?}"), "a password is shown");
    }
    let again = Login::read_all(&lines);
    let again = again.unwrap_or_else(|refused| panic!("{refused}"));
    assert!(again.iter().all(|login| logins.contains(login)));
}
