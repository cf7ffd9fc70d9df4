//! A scenario: one file that says which docks there are, how fast they live, what they are under and what goes wrong.

use std::{collections::BTreeMap, ops::Range};

use toml::{
    Spanned,
    de::{DeArray, DeTable, DeValue},
};

use crate::{
    DockConfig, Model,
    fault::{
        FaultPlan, Named, Problem, Problems,
        read::{Fields, Given, Heading, Scalar, entry, serial, unknown},
    },
    place::{Place, line_starts, text_of},
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
    /// The docks and methods that faults and conditions name, each with its line.
    pub named: Vec<Named>,
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
    /// Reads one from the bytes of a file.
    ///
    /// # Errors
    /// As [`Scenario::from_toml`], and when they are no text.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, Problems> {
        Self::from_toml(text_of(bytes)?)
    }

    /// Reads one from TOML.
    ///
    /// # Errors
    /// With line and field, and everything that is wrong at once, when the text is none.
    pub fn from_toml(text: &str) -> Result<Self, Problems> {
        let (document, errors) = DeTable::parse_recoverable(text);
        let mut problems = Problems::default();
        for err in errors {
            let begins = err.span().map_or_else(|| placeless_at(text), |span| span.start);
            let place = Place::of(text, begins);
            let (column, found) = (place.column, place.found());
            let problem = format!("this is no TOML: {} at column {column}, {found}", err.message());
            problems.push(Problem::new(Some(place.line), place.field, problem));
        }
        // Of half a document everything else would be said wrongly.
        problems.or(())?;
        let mut reader = Reader {
            lines: line_starts(text),
            scenario: Self::default(),
            docks: Vec::new(),
            problems: Problems::default(),
        };
        for (name, value) in document.get_ref() {
            reader.key(name.get_ref(), name.span(), value);
        }
        reader.settle_docks(&document);
        let Reader { mut scenario, problems, .. } = reader;
        scenario.named.sort_by_key(|one| one.line);
        problems.or(scenario)
    }
}

/// A dock, and the lines of its serial numbers.
struct WrittenDock {
    dock: ScenarioDock,
    line: Option<usize>,
    sn_line: Option<usize>,
    aircraft_line: Option<usize>,
}

struct Reader {
    /// Where each line begins.
    lines: Vec<usize>,
    scenario: Scenario,
    docks: Vec<WrittenDock>,
    problems: Problems,
}

impl Reader {
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
            Ok(entry) => {
                let line = |field| fields.get(field).and_then(|given| given.line);
                let named = Named::by(&entry).into_iter();
                let named = named.map(|one| Named { line: line(one.what.field()), ..one });
                self.scenario.named.extend(named);
                self.scenario.faults.add(entry);
            }
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
            let line = |field| fields.get(field).and_then(|given| given.line);
            self.docks.push(WrittenDock {
                dock: ScenarioDock { sn, aircraft_sn, model },
                line: fields.line,
                sn_line: line("sn"),
                aircraft_line: line("aircraft_sn"),
            });
        }
    }

    fn settle_docks(&mut self, document: &Spanned<DeTable<'_>>) {
        if self.docks.is_empty() {
            return;
        }
        if let Some((key, _)) = document.get_ref().get_key_value("docks") {
            let problem = "is said by [[dock]] as well; keep one of them".to_owned();
            let line = self.line(&key.span());
            self.problems.push(Problem::new(Some(line), Some("docks"), problem));
        }
        if let Some(first) = self.docks.get(DOCKS_MAX as usize) {
            let problem =
                format!("is written {} times; there may be {DOCKS_MAX}", self.docks.len());
            self.problems.push(Problem::new(first.line, Some("dock"), problem));
        }
        self.each_device_once();
        let named = self.docks.drain(..).map(|written| written.dock).collect();
        self.scenario.docks = Some(ScenarioDocks::Named(named));
    }

    /// Refuses a serial number of two devices: what is written goes before what is made of it.
    fn each_device_once(&mut self) {
        let mut seen = BTreeMap::new();
        for WrittenDock { dock, sn_line, aircraft_line, .. } in &self.docks {
            let both = [
                (Some(&dock.sn), "sn", sn_line),
                (dock.aircraft_sn.as_ref(), "aircraft_sn", aircraft_line),
            ];
            for (sn, field, line) in both {
                let Some(sn) = sn else { continue };
                if seen.insert(sn.clone(), (field, *line)).is_some() {
                    let problem = format!("{sn} is the serial number of two devices");
                    self.problems.push(Problem::new(*line, Some(field), problem));
                }
            }
        }
        let usual = self.scenario.model.unwrap_or_default();
        for WrittenDock { dock, .. } in
            self.docks.iter().filter(|one| one.dock.aircraft_sn.is_none())
        {
            let made = DockConfig::aircraft_of(dock.model.unwrap_or(usual), &dock.sn);
            if let Some((field, line)) = seen.get(&made) {
                let problem = format!(
                    "{made} is the serial number of the aircraft of {} too, which has no aircraft_sn of its own",
                    dock.sn
                );
                self.problems.push(Problem::new(*line, Some(field), problem));
            }
        }
    }

    fn line(&self, span: &Range<usize>) -> usize {
        self.lines.partition_point(|begins| *begins <= span.start)
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

/// Where an error is that the library gives no place to, as of brackets that are too deep: at the last letter that can be
/// left out without it.
fn placeless_at(text: &str) -> usize {
    let is_met = |bytes: usize| {
        let (_, errors) = DeTable::parse_recoverable(text.get(..bytes).unwrap_or(text));
        errors.iter().any(|err| err.span().is_none())
    };
    let (mut without, mut with) = (0, text.len());
    while with - without > 1 {
        let middle = without + (with - without) / 2;
        let Some(letter) = (without + 1..=middle).rev().find(|at| text.is_char_boundary(*at))
        else {
            break;
        };
        if is_met(letter) { with = letter } else { without = letter }
    }
    without
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
                "line 4: sn: A is the serial number of two devices",
            ),
            (
                "[[dock]]\nsn = \"A\"\n[[dock]]\nsn = \"B\"\n\naircraft_sn = \"A\"",
                "line 6: aircraft_sn: A is the serial number of two devices",
            ),
            (
                "model = \"dock3\"\n[[dock]]\nsn = \"A\"\n[[dock]]\nsn = \"A-M4D\"",
                "line 5: sn: A-M4D is the serial number of the aircraft of A too, which has no",
            ),
            (
                "[[dock]]\nsn = \"A\"\naircraft_sn = \"B-M30\"\n[[dock]]\nsn = \"B\"\nmodel = \"dock1\"",
                "line 3: aircraft_sn: B-M30 is the serial number of the aircraft of B too,",
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
            (
                "seed = 1\n[[fault]\n",
                "line 2: fault: this is no TOML: unclosed array table, expected `]` at column 9, where the line ends",
            ),
            (
                "seed = 1\nseed = 2",
                "line 2: seed: this is no TOML: duplicate key at column 1, at \"seed = 2\"",
            ),
            ("speed =\n", "line 1: speed: this is no TOML: "),
            ("fault = [1]", "line 1: fault: must be a table, not integer"),
        ] {
            let told = Scenario::from_toml(text).unwrap_err().to_string();
            assert!(told.starts_with(expected), "{text}: {told}");
        }
    }

    #[test]
    fn what_is_no_toml_and_no_text_is_told_with_line_and_column() {
        let deep = format!("seed = 1\nmodel = {}", "[".repeat(500));
        let told = Scenario::from_toml(&deep).unwrap_err();
        for problem in told.all() {
            assert_eq!((problem.line(), problem.field()), (Some(2), Some("model")), "{told}");
            assert!(problem.problem().contains("at column"), "{told}");
        }
        let told = Scenario::from_bytes(b"seed = 1\nmodel = \"dock\xff\"").unwrap_err();
        let expected = "line 2: model: byte 0xff at column 14 is no UTF-8; save the file as UTF-8";
        assert_eq!(told.to_string(), expected);
        assert!(Scenario::from_bytes(b"seed = 1").is_ok());
    }

    #[test]
    fn a_file_names_no_more_docks_than_a_fleet_may_have() {
        let docks = |count: u64| -> String {
            (0..count).map(|n| format!("[[dock]]\nsn = \"D{n}\"\n")).collect()
        };
        assert!(Scenario::from_toml(&docks(DOCKS_MAX)).is_ok());
        let told = Scenario::from_toml(&docks(DOCKS_MAX + 2)).unwrap_err().to_string();
        assert_eq!(told, "line 20001: dock: is written 10002 times; there may be 10000");
    }

    #[test]
    fn whom_faults_and_conditions_name_is_kept_with_its_line() {
        let file = "[[fault]]\nkind = \"never\"\nmethod = \"a_b\"\ngateway = \"D1\"\n\
                    [[condition]]\nkind = \"offline\"\ngateway = \"D2\"\n";
        let named = Scenario::from_toml(file).unwrap().named;
        let named: Vec<_> =
            named.iter().map(|one| (one.line, one.what.field(), one.name.as_str())).collect();
        let expected =
            [(Some(3), "method", "a_b"), (Some(4), "gateway", "D1"), (Some(7), "gateway", "D2")];
        assert_eq!(named, expected);
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
