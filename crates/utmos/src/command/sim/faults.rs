//! What is to go wrong at simulated docks: a file, flags, or both.

use std::path::PathBuf;

use anyhow::Context;
use utmos_dji::catalogue::Catalogue;
use utmos_sim::{
    DockConfig,
    fault::{FaultFlag, FaultPlan, Rule},
};

/// What rules call the setting of properties, which has no method.
const PROPERTY_SET: &str = "property/set";

/// Arguments.
#[derive(Debug, clap::Args)]
pub struct FaultArgs {
    /// File with a fault plan in TOML: what is to go wrong at the docks, and when
    #[arg(long, value_name = "FILE")]
    faults: Option<PathBuf>,
    /// One more fault, such as method=cover_open,kind=late,ms=4000; looked at before those of the file. Can be repeated
    #[arg(long = "fault", value_name = "NAME=VALUE,…")]
    flags: Vec<FaultFlag>,
    /// Fixes the dice of the faults [default: that of the file, else --seed]
    #[arg(long, value_name = "SEED")]
    fault_seed: Option<u64>,
}

impl FaultArgs {
    /// The plan that all of it makes.
    pub fn plan(&self) -> anyhow::Result<FaultPlan> {
        let mut plan = match &self.faults {
            Some(path) => {
                let shown = path.display();
                let text = std::fs::read_to_string(path)
                    .with_context(|| format!("{shown} cannot be read"))?;
                FaultPlan::from_toml(&text).with_context(|| format!("in {shown}"))?
            }
            None => FaultPlan::default(),
        };
        plan.put_first(self.flags.iter().cloned());
        plan.seed = self.fault_seed.or(plan.seed);
        Ok(plan)
    }
}

/// What of a plan can never come to pass with these docks. No errors: a plan may be made for other docks as well, and a
/// dock may be sent what no catalogue knows.
pub fn doubts(plan: &FaultPlan, docks: &[DockConfig], catalogue: &Catalogue) -> Vec<String> {
    let of_method = |rule: &Rule| {
        let name = rule.meets.method.as_ref().filter(|method| method.is_plain())?.as_str();
        if name == PROPERTY_SET || catalogue.method(name).is_some() {
            return None;
        }
        let meant = catalogue
            .nearest(name)
            .map(|name| format!("; did you mean {name}?"))
            .unwrap_or_default();
        Some(format!("the catalogue has no method {name}{meant}"))
    };
    let of_gateway = |rule: &Rule| {
        let sn = rule.meets.gateway.as_deref()?;
        let is_there = docks.iter().any(|dock| dock.sn == sn);
        (!is_there).then(|| format!("no dock {sn} is among these"))
    };
    let doubts = plan.rules.iter().flat_map(|rule| [of_method(rule), of_gateway(rule)]);
    doubts.flatten().map(|doubt| format!("a fault may never happen: {doubt}")).collect()
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
        ];
        plan.put_first(flags.map(|flag| flag.parse().unwrap()));
        let docks = [DockConfig::numbered(1, 1)];
        assert_eq!(
            doubts(&plan, &docks, &Catalogue::embedded().unwrap()),
            [
                "a fault may never happen: the catalogue has no method cover_opne; did you mean cover_open?",
                "a fault may never happen: no dock SIM-DOCK-0009 is among these",
            ]
        );
    }
}
