//! A scenario: one file that says which docks there are, how fast they live, what they are under and what goes wrong.

use std::{collections::BTreeSet, ops::Range};

use toml::{
    Spanned,
    de::{DeArray, DeTable, DeValue},
};

use crate::{
    Model,
    fault::{
        FaultPlan, Problem, Problems,
        read::{Fields, Given, Heading, Scalar, entry, serial, unknown},
    },
};

/// What a file may hold. Whatever is left out is as without a file.
const KEYS: [&str; 7] = ["seed", "speed", "model", "docks", "dock", "fault", "condition"];
/// What an entry of `[[dock]]` may hold.
const DOCK_FIELDS: [&str; 3] = ["sn", "aircraft_sn", "model"];
/// Most docks of a file; as many as a fleet may have.
const DOCKS_MAX: u64 = 10_000;
/// Slowest and fastest that docks live.
const SPEED_MIN: f64 = 0.01;
const SPEED_MAX: f64 = 1_000.0;

/// A scenario as it was written.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Scenario {
    /// Fixes every id, delay and reading, and all dice.
    pub seed: Option<u64>,
    /// How many times faster than real docks they live.
    pub speed: Option<f64>,
    /// What they are, where they do not say it themselves.
    pub model: Option<Model>,
    /// Which docks there are.
    pub docks: Option<ScenarioDocks>,
    /// What goes wrong, and the conditions.
    pub faults: FaultPlan,
}

/// The docks of a scenario.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ScenarioDocks {
    /// So many numbered ones.
    Count(u32),
    /// These.
    Named(Vec<ScenarioDock>),
}

/// A dock of a scenario. What it logs in with is no part of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ScenarioDock {
    /// Its serial number.
    pub sn: String,
    /// That of its aircraft; without it, one made from the dock's.
    pub aircraft_sn: Option<String>,
    /// What it is.
    pub model: Option<Model>,
}

impl Scenario {
    /// Reads one from TOML.
    ///
    /// # Errors
    /// With line and field, and everything that is wrong at once, when the text is none.
    pub fn from_toml(text: &str) -> Result<Self, Problems> {
        let (document, errors) = DeTable::parse_recoverable(text);
        let mut problems = Problems::default();
        for err in errors {
            let line = err.span().map(|span| line_of(text, &span));
            let problem = format!("this is no TOML: {}", err.message());
            problems.push(Problem::new(line, None, problem));
        }
        // Of half a document everything else would be said wrongly.
        problems.or(())?;
        let mut reader = Reader {
            text,
            scenario: Self::default(),
            named: Vec::new(),
            problems: Problems::default(),
        };
        for (name, value) in document.get_ref() {
            reader.key(name.get_ref(), name.span(), value);
        }
        reader.settle_docks(&document);
        let Reader { scenario, problems, .. } = reader;
        problems.or(scenario)
    }
}

struct Reader<'a> {
    text: &'a str,
    scenario: Scenario,
    named: Vec<(usize, ScenarioDock)>,
    problems: Problems,
}

impl Reader<'_> {
    fn key(&mut self, name: &str, at: Range<usize>, value: &Spanned<DeValue<'_>>) {
        let line = self.line(&at);
        let given =
            || Given { name: name.to_owned(), value: scalar(value.get_ref()), line: Some(line) };
        match name {
            "seed" => self.scenario.seed = self.problems.take(given().whole(0..=u64::MAX)),
            "speed" => {
                self.scenario.speed = self.problems.take(given().number(SPEED_MIN..=SPEED_MAX));
            }
            "model" => self.scenario.model = self.problems.take(model(&given())),
            "docks" => {
                let count = self.problems.take(given().whole(1..=DOCKS_MAX));
                let count = count.and_then(|count| u32::try_from(count).ok());
                self.scenario.docks = count.map(ScenarioDocks::Count);
            }
            "dock" => self.each(name, line, value, Self::dock),
            "fault" => self.each(name, line, value, |reader, fields| {
                reader.entry(fields, Heading::Fault);
            }),
            "condition" => self.each(name, line, value, |reader, fields| {
                reader.entry(fields, Heading::Condition);
            }),
            other => {
                let problem = unknown("key", other, &KEYS);
                self.problems.push(Problem::new(Some(line), Some(other), problem));
            }
        }
    }

    /// Reads every table of a list.
    fn each(
        &mut self,
        name: &str,
        line: usize,
        value: &Spanned<DeValue<'_>>,
        read: impl Fn(&mut Self, &Fields),
    ) {
        let none = DeArray::new();
        let list = value.get_ref().as_array().unwrap_or(&none);
        if value.get_ref().as_array().is_none() {
            let problem =
                format!("must be written [[{name}]], not as {}", value.get_ref().type_str());
            self.problems.push(Problem::new(Some(line), Some(name), problem));
        }
        for one in list.iter() {
            let begins = self.line(&one.span());
            let Some(table) = one.get_ref().as_table() else {
                let problem = format!("must be a table, not {}", one.get_ref().type_str());
                self.problems.push(Problem::new(Some(begins), Some(name), problem));
                continue;
            };
            let given = table.iter().map(|(name, value)| Given {
                name: name.get_ref().clone().into_owned(),
                value: scalar(value.get_ref()),
                line: Some(self.line(&name.span())),
            });
            let fields = Fields { line: Some(begins), given: given.collect() };
            read(self, &fields);
        }
    }

    fn entry(&mut self, fields: &Fields, heading: Heading) {
        match entry(fields, heading) {
            Ok(entry) => self.scenario.faults.add(entry),
            Err(problems) => self.problems.append(problems),
        }
    }

    fn dock(&mut self, fields: &Fields) {
        fields.only("field of a dock", &DOCK_FIELDS, &mut self.problems);
        let mut read = |name| fields.get(name).and_then(|given| self.problems.take(serial(given)));
        let (sn, aircraft_sn) = (read("sn"), read("aircraft_sn"));
        let model = fields.get("model").and_then(|given| self.problems.take(model(given)));
        if fields.get("sn").is_none() {
            let problem = "must be given: the dock's serial number".to_owned();
            self.problems.push(Problem::new(fields.line, Some("sn"), problem));
        }
        if let Some(sn) = sn {
            self.named.push((fields.line.unwrap_or(0), ScenarioDock { sn, aircraft_sn, model }));
        }
    }

    fn settle_docks(&mut self, document: &Spanned<DeTable<'_>>) {
        if self.named.is_empty() {
            return;
        }
        if let Some((key, _)) = document.get_ref().get_key_value("docks") {
            let problem = "is said by [[dock]] as well; keep one of them".to_owned();
            let line = self.line(&key.span());
            self.problems.push(Problem::new(Some(line), Some("docks"), problem));
        }
        let mut seen = BTreeSet::new();
        for (line, dock) in &self.named {
            for sn in [Some(&dock.sn), dock.aircraft_sn.as_ref()].into_iter().flatten() {
                if !seen.insert(sn.clone()) {
                    let problem = format!("{sn} is the serial number of two devices");
                    self.problems.push(Problem::new(Some(*line), Some("sn"), problem));
                }
            }
        }
        let named = self.named.iter().map(|(_, dock)| dock.clone()).collect();
        self.scenario.docks = Some(ScenarioDocks::Named(named));
    }

    fn line(&self, span: &Range<usize>) -> usize {
        line_of(self.text, span)
    }
}

fn model(given: &Given) -> Result<Model, Problem> {
    let name = given.text()?;
    name.parse().map_err(|_| {
        let known = Model::ALL.map(Model::as_str);
        Problem::new(given.line, Some(&given.name), unknown("model", name, &known))
    })
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

/// The line where a span begins, from 1.
fn line_of(text: &str, span: &Range<usize>) -> usize {
    text.bytes().take(span.start).filter(|byte| *byte == b'\n').count() + 1
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]
    use super::*;
    use crate::{
        Condition,
        fault::{AnswerField, Fault, Glob, Incident, Meets, Rule, Trouble},
    };

    #[test]
    fn a_model_that_is_none_is_named_with_the_nearest() {
        let said = |text: &str| Scenario::from_toml(text).unwrap_err().to_string();
        let why = said("model = \"dock33\"\n");
        assert!(why.contains("line 1") && why.contains("dock3"), "{why}");
        let why = said("[[dock]]\nsn = \"D1\"\nmodel = \"dok2\"\n");
        assert!(why.contains("line 3") && why.contains("dock2"), "{why}");
        assert_eq!(Scenario::from_toml("model = \"rc\"").unwrap().model, Some(Model::RcPro));
    }

    #[test]
    fn a_file_reads_as_it_is_written_and_in_its_order() {
        let text = r#"
            seed = 7
            speed = 2.5

            [[dock]]
            sn = "SIM-DOCK-0001"

            [[dock]]
            sn = "4TADL"
            aircraft_sn = "1581F"
            model = "dock3"

            [[condition]]
            kind = "wind"
            speed = 14

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

            [[condition]]
            kind = "low_battery"
            gateway = "4TADL"
            percent = 25
            at_ms = 1_000
            ms = 2_000
        "#;
        let scenario = Scenario::from_toml(text).unwrap();
        assert_eq!((scenario.seed, scenario.speed), (Some(7), Some(2.5)));
        let dock = |sn: &str, aircraft: Option<&str>, model| ScenarioDock {
            sn: sn.to_owned(),
            aircraft_sn: aircraft.map(str::to_owned),
            model,
        };
        let docks = vec![
            dock("SIM-DOCK-0001", None, None),
            dock("4TADL", Some("1581F"), Some(Model::Dock3)),
        ];
        assert_eq!(scenario.docks, Some(ScenarioDocks::Named(docks)));
        let plan = scenario.faults;
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
        let at = |at_ms, gateway: Option<&str>, trouble| Incident {
            at_ms,
            gateway: gateway.map(str::to_owned),
            trouble,
        };
        let condition = |condition, ms| Trouble::Condition { condition, ms };
        let low = condition(Condition::LowBattery { percent: 25 }, Some(2_000));
        let mut incidents = plan.incidents;
        incidents.sort_by_key(|incident| incident.at_ms);
        assert_eq!(
            incidents,
            [
                at(0, None, condition(Condition::Wind { speed: 14.0 }, None)),
                at(1_000, Some("4TADL"), low),
                at(60_000, None, Trouble::ReconnectStorm { ms: 500, times: 1 }),
            ]
        );
        assert_eq!(Scenario::from_toml("").unwrap(), Scenario::default());
        let docks = Scenario::from_toml("docks = 3").unwrap().docks;
        assert_eq!(docks, Some(ScenarioDocks::Count(3)));
    }

    #[test]
    fn a_file_and_flags_read_to_the_same() {
        let file = "[[fault]]\nmethod = \"cover_open\"\nkind = \"late\"\nms = 4000\n";
        let mut flags = FaultPlan::default();
        flags.put_first(["method=cover_open,kind=late,ms=4000".parse().unwrap()]);
        assert_eq!(Scenario::from_toml(file).unwrap().faults, flags);
    }

    #[test]
    fn what_is_wrong_is_named_with_its_line() {
        for (text, expected) in [
            ("seed = \"x\"", "line 1: seed: must be a whole number"),
            ("\nseeds = 1", "line 2: seeds: there is no key \"seeds\"; did you mean seed?"),
            ("speed = 0", "line 1: speed: must be a number from 0.01 to 1000, not 0"),
            ("docks = 0", "line 1: docks: must be a whole number from 1 to 10000, not 0"),
            ("docks = 1\n[[dock]]\nsn = \"A\"", "line 1: docks: is said by [[dock]] as well"),
            ("[[dock]]\nsnn = \"A\"", "line 1: sn: must be given: the dock's serial number"),
            ("[[dock]]\nsn = \"a/b\"", "line 2: sn: must be a serial number: "),
            (
                "[[dock]]\nsn = \"A\"\n[[dock]]\nsn = \"A\"",
                "line 3: sn: A is the serial number of two devices",
            ),
            ("fault = 3", "line 1: fault: must be written [[fault]], not as integer"),
            ("\n\n[[fault]]\nmethod = \"a\"", "line 3: kind: must be given: one of late,"),
            (
                "[[fault]]\nkind = \"late\"\nms = \"4000\"",
                "line 3: ms: must be a whole number from 0 to 3600000, not \"4000\"",
            ),
            (
                "[[fault]]\nkind = \"late\"\nms = 4\n\nmss = 4",
                "line 5: mss: there is no field of late \"mss\"; did you mean ms?",
            ),
            ("[[fault]]\nkind = \"wind\"", "line 2: kind: wind is a condition, not a fault"),
            ("[[condition]]\nkind = \"late\"", "line 2: kind: late is a fault, not a condition"),
            (
                "[[condition]]\nkind = \"winds\"",
                "line 2: kind: there is no kind \"winds\"; did you mean wind? known are low_battery,",
            ),
            ("[[fault]]\nkind = true", "line 2: kind: must be a text, not this boolean"),
            ("[[fault]]\nkind = \"late\"\nms = 4.5", "line 3: ms: must be a whole number"),
            ("seed = 1\n[[fault]\n", "line 2: this is no TOML: "),
            ("fault = [1]", "line 1: fault: must be a table, not integer"),
        ] {
            let told = Scenario::from_toml(text).unwrap_err().to_string();
            assert!(told.starts_with(expected), "{text}: {told}");
        }
    }

    #[test]
    fn everything_that_is_wrong_is_told_at_once_in_the_order_of_lines() {
        let text = "sed = 1\nspeed = \"fast\"\n[[condition]]\nkind = \"wind\"\nsped = 3\n\
                    [[fault]]\nkind = \"late\"\n[[fault]]\nkind = \"lat\"\n";
        let told = Scenario::from_toml(text).unwrap_err();
        let places: Vec<_> =
            told.all().iter().map(|one| (one.line().unwrap(), one.field().unwrap())).collect();
        let expected =
            [(1, "sed"), (2, "speed"), (3, "speed"), (5, "sped"), (6, "ms"), (9, "kind")];
        assert_eq!(places, expected, "{told}");
    }
}
