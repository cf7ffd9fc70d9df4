//! Faults and conditions on a command line: `method=cover_open,kind=late,ms=4000`.

use std::str::FromStr;

use super::{
    FaultPlan, Problems,
    read::{Entry, Fields, Given, Heading, Problem, Scalar, entry},
};

/// A fault or a condition, written as a flag.
#[derive(Debug, Clone, PartialEq)]
pub struct FaultFlag(Entry);

impl FromStr for FaultFlag {
    type Err = Problems;

    fn from_str(text: &str) -> Result<Self, Problems> {
        let mut given: Vec<Given> = Vec::new();
        for pair in text.split(',') {
            let Some((name, value)) = pair.split_once('=') else {
                let problem = "must be name=value, as in method=cover_open,kind=late,ms=4000";
                return Err(Problem::new(None, Some(pair.trim()), problem.to_owned()).into());
            };
            let (name, value) = (name.trim().to_owned(), value.trim().to_owned());
            given.push(Given { name, value: Scalar::Word(value), line: None });
        }
        entry(&Fields { line: None, given }, Heading::Any).map(Self)
    }
}

impl FaultFlag {
    /// What it says.
    #[must_use]
    pub fn entry(&self) -> &Entry {
        &self.0
    }
}

impl FaultPlan {
    /// Puts flags in front of what is there, in their order: who writes a flag means it.
    pub fn put_first(&mut self, flags: impl IntoIterator<Item = FaultFlag>) {
        let mut whole = Self { seed: self.seed, ..Self::default() };
        for FaultFlag(entry) in flags {
            whole.add(entry);
        }
        whole.rules.append(&mut self.rules);
        whole.incidents.append(&mut self.incidents);
        *self = whole;
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]
    use super::*;
    use crate::{
        Condition,
        fault::{Fault, Glob, Incident, KINDS, Meets, Rule, Sort, Trouble},
    };

    fn read(text: &str) -> FaultPlan {
        let mut plan = FaultPlan::default();
        plan.put_first([text.parse().unwrap()]);
        plan
    }

    #[test]
    fn a_flag_reads_as_a_rule_or_an_incident() {
        let late = Rule {
            meets: Meets { method: Some(Glob::new("cover_open")), ..Meets::default() },
            fault: Fault::Late { ms: 4_000 },
        };
        assert_eq!(read("method=cover_open,kind=late,ms=4000").rules, [late]);
        let strict = Meets {
            gateway: Some("D1".into()),
            method: Some(Glob::new("cover_*")),
            nth: Some(2),
            probability: Some(0.25),
        };
        let text =
            "gateway=D1, method=cover_*, nth=2, probability=0.25, kind=result, code=low_battery";
        let refused = Rule { meets: strict, fault: Fault::Result { code: 316_009 } };
        assert_eq!(read(text).rules, [refused]);
        let flap = Trouble::TopologyFlap { ms: 500, times: 3 };
        let incident = Incident { at_ms: 1_000, gateway: None, trouble: flap };
        assert_eq!(read("kind=topology_flap,at_ms=1000,ms=500,times=3").incidents, [incident]);
        let condition = Condition::ClockSkew { seconds: -90 };
        let trouble = Trouble::Condition { condition, ms: Some(50) };
        let skew = Incident { at_ms: 0, gateway: Some("D2".into()), trouble };
        assert_eq!(read("kind=clock_skew,gateway=D2,seconds=-90,ms=50").incidents, [skew]);
    }

    #[test]
    fn every_kind_reads_with_all_its_fields() {
        for kind in KINDS {
            let fields = kind.required.iter().chain(kind.optional).map(|name| match *name {
                "code" => "code=514135".to_owned(),
                "field" => "field=result".to_owned(),
                "sn" => "sn=D2".to_owned(),
                "level" => "level=2".to_owned(),
                name => format!("{name}=7"),
            });
            let text: Vec<String> =
                [format!("kind={}", kind.name)].into_iter().chain(fields).collect();
            let plan = read(&text.join(","));
            let expected = if kind.sort == Sort::Rule { (1, 0) } else { (0, 1) };
            assert_eq!((plan.rules.len(), plan.incidents.len()), expected, "{}", kind.name);
            // And what it is shown as reads to the same.
            let shown = plan.rules.iter().map(Rule::fields);
            let shown = shown.chain(plan.incidents.iter().map(Incident::fields)).next().unwrap();
            let again = shown.iter().map(|(name, value)| match value.as_str() {
                Some(text) => format!("{name}={text}"),
                None => format!("{name}={value}"),
            });
            assert_eq!(read(&again.collect::<Vec<_>>().join(",")), plan, "{shown:?}");
        }
    }

    #[test]
    fn what_is_wrong_is_named_with_what_would_be_right() {
        for (text, expected) in [
            (
                "kind=lat,ms=1",
                "kind: there is no kind \"lat\"; did you mean late? known are late, never,",
            ),
            ("kind=explode", "kind: there is no kind \"explode\"; known are late, never,"),
            ("method=cover_open", "kind: must be given: one of late, never,"),
            ("kind=late", "ms: must be given with kind late"),
            ("kind=late,ms=soon", "ms: must be a whole number from 0 to 3600000, not soon"),
            ("kind=late,ms=-1", "ms: must be a whole number from 0 to 3600000, not -1"),
            (
                "kind=late,ms=1,methd=x",
                "methd: there is no field of late \"methd\"; did you mean method?",
            ),
            ("kind=wind,speed=61", "speed: must be a number from 0 to 60, not 61"),
            (
                "kind=never,ms=1",
                "ms: there is no field of never \"ms\"; known are kind, gateway, method,",
            ),
            (
                "kind=clock_skew,at_ms=1,seconds=1,method=x",
                "method: there is no field of clock_skew",
            ),
            ("kind=never,nth=0", "nth: must be a whole number from 1 to"),
            ("kind=never,probability=2", "probability: must be a number from 0 to 1, not 2"),
            ("kind=never,probability=NaN", "probability: must be a number from 0 to 1, not NaN"),
            ("kind=result,code=0", "code: must be a refusal, which 0 is none of, not 0"),
            (
                "kind=result,code=low_batery",
                "code: there is no refusal \"low_batery\"; did you mean low_battery?",
            ),
            ("kind=missing_field,field=time", "field: there is no field \"time\""),
            ("kind=missing_field,field=gateway", "field: there is no field \"gateway\""),
            ("kind=wrong_gateway,sn=a/b", "sn: must be a serial number"),
            ("kind=never,method=", "method: must be a text"),
            ("kind=never,kind=silent", "kind: stands there twice"),
            ("never", "never: must be name=value, as in"),
            ("kind=never,", ": must be name=value, as in"),
        ] {
            let told = text.parse::<FaultFlag>().unwrap_err();
            assert!(told.to_string().starts_with(expected), "{text}: {told}");
            let has_field =
                |problem: &Problem| problem.line().is_none() && problem.field().is_some();
            assert!(told.all().iter().all(has_field), "{text}: {told}");
        }
    }

    #[test]
    fn all_that_is_wrong_is_told_at_once() {
        let told = "kind=result,cod=1,nth=x,probability=7".parse::<FaultFlag>().unwrap_err();
        let fields: Vec<_> = told.all().iter().filter_map(|problem| problem.field()).collect();
        assert_eq!(fields, ["cod", "code", "nth", "probability"]);
    }

    #[test]
    fn flags_come_before_what_is_there_and_keep_their_order() {
        let mut plan = read("kind=never");
        plan.seed = Some(5);
        plan.put_first(["kind=silent", "kind=binary"].map(|text| text.parse().unwrap()));
        let faults: Vec<&Fault> = plan.rules.iter().map(|rule| &rule.fault).collect();
        assert_eq!(faults, [&Fault::Silent, &Fault::Binary, &Fault::Never]);
        assert_eq!(plan.seed, Some(5));
    }
}
