//! What simulated docks are to go through: a scenario's file, flags, or both.

use std::path::PathBuf;

use anyhow::{Context, anyhow, bail};
use utmos_dji::catalogue::Catalogue;
use utmos_sim::{
    ControlError, DockConfig, Scenario,
    fault::{FaultFlag, Named, Thing},
};

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
                let bytes =
                    std::fs::read(path).with_context(|| format!("{shown} cannot be read"))?;
                // Each on a line of its own: editors find them by it.
                Scenario::from_bytes(&bytes).map_err(|problems| {
                    let all = problems.all().iter().map(|one| format!("in {shown}: {one}"));
                    anyhow!(all.collect::<Vec<_>>().join("\n"))
                })?
            }
            None => Scenario::default(),
        };
        let of_flags = self.flags.iter().flat_map(|flag| Named::by(flag.entry()));
        scenario.named.splice(..0, of_flags);
        scenario.faults.put_first(self.flags.iter().cloned());
        scenario.faults.seed = self.fault_seed;
        Ok(scenario)
    }

    /// Refuses faults and conditions of docks that are not there, as the control API does; what it says beside that is
    /// which methods may never be met.
    pub fn check(
        &self,
        named: &[Named],
        docks: &[DockConfig],
        catalogue: &Catalogue,
    ) -> anyhow::Result<Vec<String>> {
        let known = || docks.iter().map(|dock| dock.sn.as_str());
        let strangers = named.iter().filter(|one| one.what == Thing::Gateway).filter_map(|one| {
            let stranger = ControlError::unknown_dock(&one.name, known())?;
            Some(format!("{}{stranger}", self.place(one)))
        });
        let strangers: Vec<String> = strangers.collect();
        if !strangers.is_empty() {
            bail!(strangers.join("\n"));
        }
        let doubts = named.iter().filter_map(|one| {
            one.doubt(catalogue).map(|doubt| format!("{}{doubt}", self.place(one)))
        });
        Ok(doubts.collect())
    }

    /// Where something is named.
    fn place(&self, named: &Named) -> String {
        let field = named.what.field();
        match (&self.scenario, named.line) {
            (Some(path), Some(line)) => format!("in {}: line {line}: {field}: ", path.display()),
            (Some(_) | None, _) => format!("in --fault: {field}: "),
        }
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]
    use super::*;

    fn check(file: &str, flags: &[&str]) -> Result<Vec<String>, String> {
        let args = ScenarioArgs {
            scenario: Some("a.toml".into()),
            flags: flags.iter().map(|flag| flag.parse().unwrap()).collect(),
            fault_seed: None,
        };
        let mut named: Vec<Named> =
            args.flags.iter().flat_map(|flag| Named::by(flag.entry())).collect();
        named.extend(Scenario::from_toml(file).unwrap().named);
        let docks = [DockConfig::numbered(1, 1)];
        let catalogue = Catalogue::embedded().unwrap();
        args.check(&named, &docks, &catalogue).map_err(|err| err.to_string())
    }

    #[test]
    fn a_dock_that_is_not_there_is_refused_with_its_place_and_a_method_is_doubted() {
        let good =
            "[[fault]]\nkind = \"never\"\nmethod = \"cover_*\"\ngateway = \"SIM-DOCK-0001\"\n";
        assert_eq!(check(good, &["kind=never,method=property/set"]), Ok(vec![]));
        let file = "[[fault]]\nkind = \"never\"\nmethod = \"cover_opne\"\n";
        let doubt = "this may never happen: the catalogue has no method cover_opne; did you mean cover_open?";
        let expected = vec![
            format!("in --fault: method: {doubt}"),
            format!("in a.toml: line 3: method: {doubt}"),
        ];
        assert_eq!(check(file, &["kind=never,method=cover_opne"]), Ok(expected));
        let file = "[[condition]]\nkind = \"offline\"\n\ngateway = \"SIM-DOCK-0008\"\n";
        let refused = check(file, &["kind=never,gateway=D9"]).unwrap_err();
        let expected = "in --fault: gateway: there is no dock D9\n\
            in a.toml: line 4: gateway: there is no dock SIM-DOCK-0008; did you mean SIM-DOCK-0001?";
        assert_eq!(refused, expected);
    }
}
