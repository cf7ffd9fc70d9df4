//! What simulated docks are to go through: a scenario's file, flags, or both.

use std::path::PathBuf;

use anyhow::{Context, anyhow};
use utmos_dji::catalogue::Catalogue;
use utmos_sim::{
    DockConfig, Scenario,
    fault::{FaultFlag, FaultPlan},
};

/// What rules call the setting of properties, which has no method.
const PROPERTY_SET: &str = "property/set";

/// Arguments.
#[derive(Debug, clap::Args)]
pub struct ScenarioArgs {
    /// File in TOML with all of it: seed, speed, docks, conditions, and what goes wrong when. --seed, --speed and --docks go
    /// before what it says
    #[arg(long, value_name = "FILE")]
    scenario: Option<PathBuf>,
    /// One more fault or condition, such as method=cover_open,kind=late,ms=4000; looked at before those of the file. Can be
    /// repeated
    #[arg(long = "fault", value_name = "NAME=VALUE,…")]
    flags: Vec<FaultFlag>,
    /// Fixes the dice of the faults [default: the seed of everything]
    #[arg(long, value_name = "SEED")]
    fault_seed: Option<u64>,
}

impl ScenarioArgs {
    /// The scenario that all of it makes.
    pub fn read(&self) -> anyhow::Result<Scenario> {
        let mut scenario = match &self.scenario {
            Some(path) => {
                let shown = path.display();
                let text = std::fs::read_to_string(path)
                    .with_context(|| format!("{shown} cannot be read"))?;
                // Each on a line of its own: editors find them by it.
                Scenario::from_toml(&text).map_err(|problems| {
                    let all = problems.all().iter().map(|one| format!("in {shown}: {one}"));
                    anyhow!(all.collect::<Vec<_>>().join("\n"))
                })?
            }
            None => Scenario::default(),
        };
        scenario.faults.put_first(self.flags.iter().cloned());
        scenario.faults.seed = self.fault_seed;
        Ok(scenario)
    }
}

/// What of a plan can never come to pass with these docks. No errors: a plan may be made for other docks as well, and a
/// dock may be sent what no catalogue knows.
pub fn doubts(plan: &FaultPlan, docks: &[DockConfig], catalogue: &Catalogue) -> Vec<String> {
    let of_method = |name: &str| {
        if name == PROPERTY_SET || catalogue.method(name).is_some() {
            return None;
        }
        let meant = catalogue
            .nearest(name)
            .map(|name| format!("; did you mean {name}?"))
            .unwrap_or_default();
        Some(format!("the catalogue has no method {name}{meant}"))
    };
    let of_gateway = |sn: &str| {
        let is_there = docks.iter().any(|dock| dock.sn == sn);
        (!is_there).then(|| format!("no dock {sn} is among these"))
    };
    let methods = plan.rules.iter().filter_map(|rule| {
        of_method(rule.meets.method.as_ref().filter(|method| method.is_plain())?.as_str())
    });
    let of_rules = plan.rules.iter().map(|rule| &rule.meets.gateway);
    let gateways = of_rules.chain(plan.incidents.iter().map(|incident| &incident.gateway));
    let gateways = gateways.filter_map(|gateway| of_gateway(gateway.as_deref()?));
    methods.chain(gateways).map(|doubt| format!("this may never happen: {doubt}")).collect()
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]
    use super::*;

    #[test]
    fn a_plan_that_nothing_meets_is_doubted() {
        let mut plan = FaultPlan::default();
        let flags = [
            "kind=never,method=cover_opne",
            "kind=never,method=cover_*",
            "kind=never,method=property/set,gateway=SIM-DOCK-0001",
            "kind=never,method=cover_open,gateway=SIM-DOCK-0009",
            "kind=wind,speed=3,gateway=SIM-DOCK-0008",
        ];
        plan.put_first(flags.map(|flag| flag.parse().unwrap()));
        let docks = [DockConfig::numbered(1, 1)];
        assert_eq!(
            doubts(&plan, &docks, &Catalogue::embedded().unwrap()),
            [
                "this may never happen: the catalogue has no method cover_opne; did you mean cover_open?",
                "this may never happen: no dock SIM-DOCK-0009 is among these",
                "this may never happen: no dock SIM-DOCK-0008 is among these",
            ]
        );
    }
}
