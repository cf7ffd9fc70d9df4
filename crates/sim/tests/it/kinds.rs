//! Every kind of fault, incident and condition, in each of the ways in which it can be set.

use serde_json::{Map, Value, json};
use utmos_sim::{
    Scenario,
    control::trying::Trying,
    fault::{FaultFlag, FaultPlan, KINDS, KindName, Sort},
};

/// Every field that a kind can have.
fn fields(kind: &KindName) -> Map<String, Value> {
    let names = kind.required.iter().chain(kind.optional).chain(kind.sort.fields());
    let values = names.map(|name| {
        let value = match *name {
            "code" => json!(514_135),
            "field" => json!("result"),
            "sn" => json!("D2"),
            "gateway" => json!("SIM-DOCK-0001"),
            "method" => json!("cover_*"),
            "probability" => json!(0.5),
            "level" => json!(2),
            // Long enough to be on the list when it is looked for.
            "at_ms" | "ms" => json!(60_000),
            _ => json!(7),
        };
        ((*name).to_owned(), value)
    });
    [("kind".to_owned(), json!(kind.name))].into_iter().chain(values).collect()
}

fn from_file(kind: &KindName, fields: &Map<String, Value>) -> FaultPlan {
    let heading = if kind.sort == Sort::Condition { "condition" } else { "fault" };
    let lines = fields.iter().map(|(name, value)| format!("{name} = {value}\n"));
    let text = format!("[[{heading}]]\n{}", lines.collect::<String>());
    Scenario::from_toml(&text).unwrap_or_else(|problems| panic!("{text}{problems}")).faults
}

fn from_flag(fields: &Map<String, Value>) -> FaultPlan {
    let pairs = fields.iter().map(|(name, value)| match value.as_str() {
        Some(text) => format!("{name}={text}"),
        None => format!("{name}={value}"),
    });
    let text = pairs.collect::<Vec<_>>().join(",");
    let flag = text.parse::<FaultFlag>().unwrap_or_else(|problems| panic!("{text}: {problems}"));
    let mut plan = FaultPlan::default();
    plan.put_first([flag]);
    plan
}

/// What a plan of one entry is shown as.
fn shown(plan: &FaultPlan) -> Map<String, Value> {
    let rules = plan.rules.iter().map(|rule| rule.fields());
    let all: Vec<_> = rules.chain(plan.incidents.iter().map(|one| one.fields())).collect();
    let [one] = <[_; 1]>::try_from(all).unwrap();
    one
}

#[test]
fn every_kind_is_the_same_from_file_flag_and_control_api_and_is_listed_and_taken_away() {
    let control = Trying::of(1).unwrap();
    let ask = |method: &str, path: &str, body: &str| {
        let (status, body) = control.ask(method, path, body.as_bytes()).unwrap();
        (status, serde_json::from_slice(&body).unwrap_or(Value::Null))
    };
    for kind in KINDS {
        let fields = fields(&kind);
        let plan = from_file(&kind, &fields);
        assert_eq!(from_flag(&fields), plan, "{}", kind.name);
        let said = shown(&plan);
        for (name, value) in &fields {
            assert_eq!(said[name].as_f64(), value.as_f64(), "{}: {name}", kind.name);
            assert_eq!(said[name].as_str(), value.as_str(), "{}: {name}", kind.name);
        }

        let (path, other) = match kind.sort {
            Sort::Condition => ("/conditions", "/faults"),
            Sort::Rule | Sort::Incident => ("/faults", "/conditions"),
        };
        let body = Value::Object(fields).to_string();
        assert_eq!(ask("POST", other, &body).0, 400, "{} under the wrong heading", kind.name);
        let (status, added) = ask("POST", path, &body);
        assert_eq!(status, 201, "{}: {added}", kind.name);
        let of_plan = |one: &Value| {
            let one = one.as_object().unwrap().clone();
            one.into_iter().filter(|(name, _)| said.contains_key(name)).collect::<Map<_, _>>()
        };
        assert_eq!(of_plan(&added), said, "{}", kind.name);
        let listed = || ask("GET", path, "").1[path.trim_start_matches('/')].clone();
        let list = listed();
        let [one] = list.as_array().unwrap().as_slice() else { panic!("{}: {list}", kind.name) };
        assert_eq!((of_plan(one), &one["id"]), (said, &added["id"]));
        let one = format!("{path}/{}", added["id"]);
        assert_eq!(ask("DELETE", &one, "").0, 204, "{}", kind.name);
        assert_eq!(listed(), json!([]), "{}", kind.name);
        assert_eq!(ask("DELETE", &one, "").0, 404, "{}", kind.name);
    }
}
