//! Plans in a file: an optional `seed`, and any number of `[[fault]]`.

use std::ops::Range;

use toml::de::{DeTable, DeValue};

use super::{
    FaultPlan, PlanError,
    read::{Fields, Given, Scalar, entry, unknown},
};

impl FaultPlan {
    /// Reads a plan from TOML.
    ///
    /// # Errors
    /// With line and field, when the text is no plan.
    pub fn from_toml(text: &str) -> Result<Self, PlanError> {
        let line = |span: Range<usize>| Some(line_of(text, span.start));
        let document = DeTable::parse(text).map_err(|err| {
            let line = err.span().and_then(line);
            PlanError::new(line, None, format!("this is no TOML: {}", err.message()))
        })?;
        let mut plan = Self::default();
        let mut entries = Vec::new();
        for (name, value) in document.get_ref() {
            let at = line(name.span());
            match (name.get_ref().as_ref(), value.get_ref()) {
                ("seed", seed) => {
                    let seed = Given { name: "seed".to_owned(), value: scalar(seed), line: at };
                    plan.seed = Some(seed.whole(0..=u64::MAX)?);
                }
                ("fault", DeValue::Array(array)) => entries.extend(array.iter()),
                ("fault", other) => {
                    let problem = format!("must be written [[fault]], not as {}", other.type_str());
                    return Err(PlanError::new(at, Some("fault"), problem));
                }
                (name, _) => {
                    let problem = unknown("key", name, &["seed", "fault"]);
                    return Err(PlanError::new(at, Some(name), problem));
                }
            }
        }
        for value in entries {
            let begins = line(value.span());
            let Some(table) = value.get_ref().as_table() else {
                let problem = format!("must be a table, not {}", value.get_ref().type_str());
                return Err(PlanError::new(begins, Some("fault"), problem));
            };
            let given = table.iter().map(|(name, value)| Given {
                name: name.get_ref().clone().into_owned(),
                value: scalar(value.get_ref()),
                line: line(name.span()),
            });
            plan.add(entry(&Fields { line: begins, given: given.collect() })?);
        }
        Ok(plan)
    }
}

fn scalar(value: &DeValue<'_>) -> Scalar {
    match value {
        DeValue::String(text) => Scalar::Text(text.clone().into_owned()),
        DeValue::Integer(number) if number.radix() == 10 => {
            Scalar::Number(number.as_str().to_owned())
        }
        DeValue::Float(number) => Scalar::Number(number.as_str().to_owned()),
        DeValue::Integer(_)
        | DeValue::Boolean(_)
        | DeValue::Datetime(_)
        | DeValue::Array(_)
        | DeValue::Table(_) => Scalar::Other(value.type_str()),
    }
}

/// The line of a byte, from 1.
fn line_of(text: &str, at: usize) -> usize {
    text.bytes().take(at).filter(|byte| *byte == b'\n').count() + 1
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]
    use super::*;
    use crate::fault::{AnswerField, Fault, Glob, Incident, Meets, Rule, Trouble};

    #[test]
    fn a_file_reads_as_it_is_written_and_in_its_order() {
        let text = r#"
            seed = 7

            [[fault]]
            gateway = "SIM-DOCK-0001"
            method = "cover_*"
            nth = 2
            probability = 0.5
            kind = "late"
            ms = 4_000

            [[fault]]
            kind = "result"
            code = "strong_wind"

            [[fault]]
            kind = "result"
            code = 514_116

            [[fault]]
            kind = "missing_field"
            field = "bid"
            probability = 1

            [[fault]]
            kind = "reconnect_storm"
            at_ms = 60_000
            ms = 500
        "#;
        let plan = FaultPlan::from_toml(text).unwrap();
        let faults: Vec<Fault> = plan.rules.iter().map(|rule| rule.fault.clone()).collect();
        assert_eq!(
            faults,
            [
                Fault::Late { ms: 4_000 },
                Fault::Result { code: 514_135 },
                Fault::Result { code: 514_116 },
                Fault::MissingField(AnswerField::Bid),
            ]
        );
        let meets = Meets {
            gateway: Some("SIM-DOCK-0001".into()),
            method: Some(Glob::new("cover_*")),
            nth: Some(2),
            probability: Some(0.5),
        };
        assert_eq!(plan.rules.first(), Some(&Rule { meets, fault: Fault::Late { ms: 4_000 } }));
        let storm = Incident { at_ms: 60_000, trouble: Trouble::ReconnectStorm { ms: 500 } };
        assert_eq!((plan.seed, plan.incidents), (Some(7), vec![storm]));
        assert_eq!(FaultPlan::from_toml("").unwrap(), FaultPlan::default());
    }

    #[test]
    fn a_file_and_flags_read_to_the_same() {
        let file = "[[fault]]\nmethod = \"cover_open\"\nkind = \"late\"\nms = 4000\n";
        let mut flags = FaultPlan::default();
        flags.put_first(["method=cover_open,kind=late,ms=4000".parse().unwrap()]);
        assert_eq!(FaultPlan::from_toml(file).unwrap(), flags);
    }

    #[test]
    fn what_is_wrong_is_named_with_its_line() {
        for (text, expected) in [
            ("seed = \"x\"", "line 1: seed: must be a whole number"),
            ("\nseeds = 1", "line 2: seeds: there is no key \"seeds\"; did you mean seed?"),
            ("fault = 3", "line 1: fault: must be written [[fault]], not as integer"),
            ("\n\n[[fault]]\nmethod = \"a\"", "line 3: kind: must be given: one of late,"),
            (
                "[[fault]]\nkind = \"late\"\nms = \"4000\"",
                "line 3: ms: must be a whole number from 0 to 3600000, not \"4000\"",
            ),
            (
                "[[fault]]\nkind = \"late\"\n\nmss = 4",
                "line 4: mss: there is no field of late \"mss\"; did you mean ms?",
            ),
            ("[[fault]]\nkind = true", "line 2: kind: must be a text, not this boolean"),
            ("[[fault]]\nkind = \"late\"\nms = 4.5", "line 3: ms: must be a whole number"),
            ("seed = 1\n[[fault]\n", "line 2: this is no TOML: "),
            ("fault = [1]", "line 1: fault: must be a table, not integer"),
        ] {
            let told = FaultPlan::from_toml(text).unwrap_err().to_string();
            assert!(told.starts_with(expected), "{text}: {told}");
        }
    }
}
