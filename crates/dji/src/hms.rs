//! HMS, the health alarms of docks and aircraft: what a message lists, and what the codes mean in English.
//!
//! A message is the full list of its device, every 2 s and mostly empty (DJI, "HMS"). Docks write `list` with the code as
//! hexadecimal text; remote controllers write `output.codes` with the same number as `id`.

use std::collections::{BTreeMap, BTreeSet};

use serde::Deserialize;
use utmos_core::reply::RawJson;

use crate::{
    catalogue::CatalogueError,
    json::{Scalar, at, each_item, pick},
};

const DATA: &str = include_str!("../data/hms.json");

/// The method on the events topics.
pub const METHOD: &str = "hms";
/// Most alarms of one message that are taken. DJI says that there are at most 20.
pub const ALARMS_MAX: usize = 64;
/// Most entries of a message that are looked at: a list may be long without holding many alarms.
const ENTRIES_READ_MAX: usize = 4 * ALARMS_MAX;
/// Longest entry that is kept as it was written, in bytes; of a longer one only what is known.
const RAW_BYTES_MAX: usize = 1_024;
/// Longest code or device type that is kept, in bytes.
const WORD_BYTES_MAX: usize = 64;

/// One alarm of a list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// The code, such as `0x16100067`; as the device wrote it where that is no number.
    pub code: String,
    /// Its number, where it is one.
    pub number: Option<u32>,
    /// How serious it is.
    pub level: Option<Level>,
    /// Whether the aircraft was in the air.
    pub in_the_sky: Option<bool>,
    /// Whether it passes by itself.
    pub imminent: Option<bool>,
    /// `domain-type-sub_type` of what it concerns, where told.
    pub device_type: Option<String>,
    /// Which of several parts, counted from 0.
    pub component_index: Option<i64>,
    /// Which of several sensors, counted from 0.
    pub sensor_index: Option<i64>,
    /// The entry as written.
    pub raw: RawJson,
}

/// How serious an alarm is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// 0: good to know.
    Notice,
    /// 1: to be looked at.
    Caution,
    /// 2: to be acted on.
    Warning,
}

impl Level {
    /// The level as it is written.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Notice => "notice",
            Self::Caution => "caution",
            Self::Warning => "warning",
        }
    }

    fn of(number: i64) -> Option<Self> {
        match number {
            0 => Some(Self::Notice),
            1 => Some(Self::Caution),
            2 => Some(Self::Warning),
            _ => None,
        }
    }
}

impl Entry {
    /// Reads one entry, as it was kept.
    #[must_use]
    pub fn read(raw: &str) -> Option<Self> {
        let [code, id, level, in_the_sky, imminent, device_type, args] =
            pick(raw, ["code", "id", "level", "in_the_sky", "imminent", "device_type", "args"]);
        let (code, number) = match code.scalar() {
            Scalar::Null => {
                let number = u32::try_from(id.scalar().integer()?).ok()?;
                (spelt(number), Some(number))
            }
            scalar @ (Scalar::Bool(_) | Scalar::Number(_) | Scalar::Text(_) | Scalar::Other) => {
                let text = scalar.into_text()?;
                match number_of(&text) {
                    Some(number) => (spelt(number), Some(number)),
                    None => (word(&text)?, None),
                }
            }
        };
        let args = args.raw().unwrap_or("null");
        let [component, sensor] = pick(args, ["component_index", "sensor_index"]);
        let mut entry = Self {
            code,
            number,
            level: level.scalar().integer().and_then(Level::of),
            in_the_sky: in_the_sky.scalar().flag(),
            imminent: imminent.scalar().flag(),
            device_type: device_type.scalar().into_text().and_then(|text| word(&text)),
            component_index: component.scalar().integer(),
            sensor_index: sensor.scalar().integer(),
            raw: raw.into(),
        };
        if RAW_BYTES_MAX < raw.len() {
            entry.raw = entry.known().into();
        }
        Some(entry)
    }

    /// What tells this alarm from others of its device, for as long as it is raised.
    #[must_use]
    pub fn key(&self) -> String {
        let index = |index: Option<i64>| index.map_or(String::new(), |index| index.to_string());
        let device_type = self.device_type.as_deref().unwrap_or_default();
        let (component, sensor) = (index(self.component_index), index(self.sensor_index));
        format!("{} {device_type} {component} {sensor}", self.code)
    }

    /// What is known of the entry, as JSON.
    fn known(&self) -> String {
        let flag = |flag: Option<bool>| flag.map(i64::from);
        let level = self.level.map(|level| match level {
            Level::Notice => 0,
            Level::Caution => 1,
            Level::Warning => 2,
        });
        serde_json::json!({
            "code": self.code, "level": level, "in_the_sky": flag(self.in_the_sky),
            "imminent": flag(self.imminent), "device_type": self.device_type,
            "args": {"component_index": self.component_index, "sensor_index": self.sensor_index},
        })
        .to_string()
    }
}

/// The alarms that a message lists, each once; `None` when it holds no list that can be read.
#[must_use]
pub fn read(data: &str) -> Option<Vec<Entry>> {
    let list = at(data, "/list").or_else(|| at(data, "/output/codes"))?;
    let (mut entries, mut keys, mut read) = (Vec::new(), BTreeSet::new(), 0);
    each_item(list, &mut |item| {
        if entries.len() == ALARMS_MAX || read == ENTRIES_READ_MAX {
            return;
        }
        read += 1;
        if let Some(entry) = Entry::read(item.get())
            && keys.insert(entry.key())
        {
            entries.push(entry);
        }
    })
    .ok()?;
    Some(entries)
}

fn spelt(number: u32) -> String {
    format!("0x{number:08X}")
}

/// A hexadecimal number as DJI writes it, or a decimal one.
fn number_of(text: &str) -> Option<u32> {
    match text.strip_prefix("0x").or_else(|| text.strip_prefix("0X")) {
        Some(digits) if !digits.starts_with('+') => u32::from_str_radix(digits, 16).ok(),
        Some(_) => None,
        None => text.bytes().all(|b| b.is_ascii_digit()).then(|| text.parse().ok()).flatten(),
    }
}

fn word(text: &str) -> Option<String> {
    let fits = !text.is_empty() && text.len() <= WORD_BYTES_MAX;
    (fits && !text.chars().any(char::is_control)).then(|| text.to_owned())
}

/// What an alarm says, for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Meaning {
    /// What is the matter. Never empty.
    pub text: String,
    /// What to do about it, where that is known.
    pub remedy: Option<String>,
    /// The system it comes from, by the first digits of the code.
    pub module: Option<String>,
    /// Whether the table has the code.
    pub known: bool,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct Text {
    text: String,
    #[serde(default)]
    remedy: Option<String>,
    #[serde(default)]
    sky_remedy: Option<String>,
    /// On the ground it keeps the aircraft there.
    #[serde(default)]
    blocks_takeoff: bool,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Table {
    modules: BTreeMap<String, String>,
    codes: BTreeMap<String, Text>,
}

/// The meanings of the codes.
#[derive(Debug, Clone)]
pub struct Meanings {
    /// First digits, and what they stand for.
    modules: BTreeMap<String, String>,
    codes: BTreeMap<u32, Text>,
}

impl Meanings {
    /// The table that is part of the program.
    ///
    /// # Errors
    /// When the data file does not read, which a test of this crate excludes.
    pub fn embedded() -> Result<Self, CatalogueError> {
        let table: Table = serde_json::from_str(DATA)
            .map_err(|source| CatalogueError::Json { file: "table of alarms", source })?;
        let mut codes = BTreeMap::new();
        for (code, text) in table.codes {
            let number = u32::from_str_radix(&code, 16).map_err(|problem| {
                CatalogueError::BadCode { code: code.clone(), problem: problem.to_string() }
            })?;
            codes.insert(number, text);
        }
        Ok(Self { modules: table.modules, codes })
    }

    /// How many codes there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.codes.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.codes.is_empty()
    }

    /// What an alarm says. A code that the table does not have is named with its system.
    #[must_use]
    pub fn of(&self, entry: &Entry) -> Meaning {
        let module = entry.number.and_then(|number| self.module(number));
        let known = entry.number.and_then(|number| self.codes.get(&number));
        let Some(known) = known else {
            let of = module.map_or(String::new(), |module| format!(" of the {module}"));
            return Meaning {
                text: format!("Alarm {}{of}; its meaning is not in the table", entry.code),
                remedy: None,
                module: module.map(str::to_owned),
                known: false,
            };
        };
        let in_the_sky = entry.in_the_sky == Some(true);
        let mut text = filled(&known.text, entry);
        if known.blocks_takeoff && !in_the_sky {
            text.push_str("; the aircraft does not take off");
        }
        let remedy = if in_the_sky {
            known.sky_remedy.as_ref().or(known.remedy.as_ref())
        } else {
            known.remedy.as_ref()
        };
        Meaning {
            text,
            remedy: remedy.map(|remedy| filled(remedy, entry)),
            module: module.map(str::to_owned),
            known: true,
        }
    }

    /// The system a code belongs to; the longest prefix that is known counts.
    fn module(&self, number: u32) -> Option<&str> {
        let digits = format!("{number:08X}");
        (1..=digits.len())
            .rev()
            .find_map(|length| self.modules.get(digits.get(..length)?))
            .map(String::as_str)
    }
}

/// Puts the indices of an alarm into its text. Where it has none, the text does without.
fn filled(text: &str, entry: &Entry) -> String {
    let count = entry.sensor_index.or(entry.component_index);
    let place = |names: &'static [&'static str]| {
        let last = names.last().copied();
        entry.sensor_index.and_then(|index| {
            usize::try_from(index).ok().and_then(|at| names.get(at).copied().or(last))
        })
    };
    let mut text = text.to_owned();
    let parts = [
        ("{n}", count.map(|index| index.saturating_add(1).to_string())),
        ("{side}", place(&["left", "right"]).map(str::to_owned)),
        ("{rod}", place(&["front", "rear", "left", "right"]).map(str::to_owned)),
    ];
    for (mark, value) in parts {
        text = match value {
            Some(value) => text.replace(mark, &value),
            None => text.replace(&format!("{mark} "), "").replace(&format!(" {mark}"), ""),
        };
    }
    text
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test with a wrong message should stop")]

    use super::*;

    fn meaning(raw: &str) -> Meaning {
        Meanings::embedded().unwrap().of(&Entry::read(raw).unwrap())
    }

    #[test]
    fn a_list_is_read_as_docks_and_as_remote_controllers_write_it() {
        let dock = r#"{"list":[{"args":{"component_index":0,"sensor_index":63},"code":"0x1B030019","device_type":"0-100-0","imminent":0,"in_the_sky":1,"level":0,"module":3}]}"#;
        let entries = read(dock).unwrap();
        let [entry] = entries.as_slice() else { panic!("{entries:?}") };
        assert_eq!((entry.code.as_str(), entry.level), ("0x1B030019", Some(Level::Notice)));
        assert_eq!((entry.in_the_sky, entry.imminent), (Some(true), Some(false)));
        assert_eq!(entry.key(), "0x1B030019 0-100-0 0 63");
        assert_eq!(Entry::read(&entry.raw).as_ref(), Some(entry), "kept as written, read again");

        let rc = r#"{"event":"hms","method":"hms","output":{"codes":[{"id":521142273},{"id":521142273}]}}"#;
        let entries = read(rc).unwrap();
        let codes: Vec<&str> = entries.iter().map(|entry| entry.code.as_str()).collect();
        assert_eq!(codes, ["0x1F100001"], "each once");

        assert_eq!(read(r#"{"list":[]}"#), Some(Vec::new()));
        assert_eq!(read(r#"{"output":{"codes":[]}}"#), Some(Vec::new()));
        for no_list in ["null", "[]", "{}", r#"{"list":{}}"#, r#"{"list":null}"#, "7"] {
            assert_eq!(read(no_list), None, "{no_list}");
        }
    }

    #[test]
    fn a_list_of_nonsense_is_bounded_and_keeps_what_can_be_read() {
        let many: Vec<String> = (0..500).map(|n| format!(r#"{{"code":"0x{n:08x}"}}"#)).collect();
        let entries = read(&format!(r#"{{"list":[{}]}}"#, many.join(","))).unwrap();
        assert_eq!(entries.len(), ALARMS_MAX);
        let odd = r#"{"list":[7,null,{},{"code":true},{"code":"\u0000"},{"code":"FOO"},{"code":269484033}]}"#;
        let codes: Vec<String> = read(odd).unwrap().into_iter().map(|one| one.code).collect();
        assert_eq!(codes, ["FOO", "0x10100001"]);
        let long = format!(r#"{{"code":"0x16100067","level":2,"x":"{}"}}"#, "y".repeat(5_000));
        let entry = Entry::read(&long).unwrap();
        assert!(entry.raw.len() < RAW_BYTES_MAX);
        let again = Entry::read(&entry.raw).unwrap();
        assert_eq!((again.key(), again.level), (entry.key(), Some(Level::Warning)));
    }

    #[test]
    fn of_a_list_that_repeats_itself_only_the_beginning_is_looked_at() {
        let list = |copies: usize| {
            let first = (0..ALARMS_MAX - 2).map(|n| format!(r#"{{"code":"c{n}"}}"#));
            let copies = std::iter::repeat_n(r#"{"code":"c0"}"#.to_owned(), copies);
            let last = std::iter::once(r#"{"code":"last"}"#.to_owned());
            let all: Vec<String> = first.chain(copies).chain(last).collect();
            read(&format!(r#"{{"list":[{}]}}"#, all.join(","))).unwrap()
        };
        let before = ENTRIES_READ_MAX - (ALARMS_MAX - 2) - 1;
        assert_eq!(list(before).len(), ALARMS_MAX - 1, "the last one is read still");
        assert_eq!(list(before + 1).len(), ALARMS_MAX - 2, "and now it is not");
        assert_eq!(list(50_000).len(), ALARMS_MAX - 2);
    }

    #[test]
    fn an_alarm_says_what_is_the_matter_and_what_to_do() {
        let ground = meaning(r#"{"code":"0x16100067","in_the_sky":0}"#);
        assert_eq!(ground.text, "The compass is disturbed; the aircraft does not take off");
        assert_eq!(ground.remedy.as_deref(), Some("Calibrate the compass."));
        assert_eq!(ground.module.as_deref(), Some("flight control"));
        let sky = meaning(r#"{"code":"0X16100067","in_the_sky":1}"#);
        assert_eq!(sky.text, "The compass is disturbed");
        assert_eq!(sky.remedy.as_deref(), Some("Fly away from what disturbs it."));
        for (raw, text) in [
            (
                r#"{"code":"0x19110014","args":{"sensor_index":1}}"#,
                "The dock's right cover did not open in time",
            ),
            (
                r#"{"code":"0x19110014","args":{"sensor_index":0}}"#,
                "The dock's left cover did not open in time",
            ),
            (r#"{"code":"0x19110014"}"#, "The dock's cover did not open in time"),
            (
                r#"{"code":"0x1911040b","args":{"sensor_index":2}}"#,
                "The dock's left rod did not close in time",
            ),
            (
                r#"{"code":"0x11000020","args":{"component_index":1}}"#,
                "Voltage for the payload on gimbal 2 is too high",
            ),
            (r#"{"code":"0x11000020"}"#, "Voltage for the payload on gimbal is too high"),
        ] {
            assert_eq!(meaning(raw).text, text, "{raw}");
        }
    }

    #[test]
    fn a_code_nobody_knows_is_named_with_its_system() {
        for (raw, text) in [
            (
                r#"{"code":"0x16FFFFFF"}"#,
                "Alarm 0x16FFFFFF of the flight control; its meaning is not in the table",
            ),
            (
                r#"{"code":"0x1720FFFF"}"#,
                "Alarm 0x1720FFFF of the winch; its meaning is not in the table",
            ),
            (r#"{"code":"0xFF000000"}"#, "Alarm 0xFF000000; its meaning is not in the table"),
            (r#"{"code":"new words"}"#, "Alarm new words; its meaning is not in the table"),
        ] {
            let meaning = meaning(raw);
            assert_eq!((meaning.text.as_str(), meaning.known), (text, false));
        }
    }

    #[test]
    fn every_text_of_the_table_is_one_short_line() {
        let meanings = Meanings::embedded().unwrap();
        assert!(meanings.len() >= 250, "{}", meanings.len());
        for (number, text) in &meanings.codes {
            assert!((10..=120).contains(&text.text.len()), "{number:08X}: {}", text.text);
            assert!(!text.text.ends_with('.'), "{number:08X}: {}", text.text);
            assert!(meanings.module(*number).is_some(), "{number:08X} has no system");
            for remedy in text.remedy.iter().chain(&text.sky_remedy) {
                assert!(remedy.ends_with('.'), "{number:08X}: {remedy}");
            }
            let entry = format!(r#"{{"code":"0x{number:08X}"}}"#);
            let meaning = meanings.of(&Entry::read(&entry).unwrap());
            assert!(!meaning.text.contains(['{', '}']), "{}", meaning.text);
        }
    }
}
