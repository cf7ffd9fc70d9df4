//! `utmos bench compare`: the figures of two files beside each other, and whether they differ by more than runs do.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, bail};
use serde::Deserialize;

use super::{reply::Reply, report::short};
use crate::{exit::Exit, output};

/// Of fewer runs nobody knows how far they lie apart by chance.
const RUNS_MIN: u32 = 3;

/// Arguments.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// What `utmos bench --json` wrote before
    old: PathBuf,
    /// What it wrote afterwards
    new: PathBuf,
}

#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Written {
    Several { engines: Vec<Figures> },
    One(Figures),
}

#[derive(Debug, Deserialize)]
struct Figures {
    /// Not in files of earlier versions.
    #[serde(default)]
    build: Option<String>,
    #[serde(default)]
    engine: Option<String>,
    #[serde(default)]
    servers: Option<u32>,
    #[serde(default = "at_once")]
    docks_answer: String,
    runs: u32,
    seconds: f64,
    measures: Vec<Measured>,
}

#[derive(Debug, Clone, Deserialize)]
struct Measured {
    name: String,
    title: String,
    unit: String,
    of: String,
    median: f64,
    min: f64,
    max: f64,
}

/// What two figures say of each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    /// Their runs overlap: this may be chance.
    Same,
    Better,
    Worse,
}

impl Verdict {
    /// More is better of rates, less of everything else.
    fn of(old: &Measured, new: &Measured) -> Self {
        let (is_less, is_more) = (new.max < old.min, old.max < new.min);
        match (is_less, is_more, old.of == "per_second") {
            (false, false, _) => Self::Same,
            (true, _, false) | (false, true, true) => Self::Better,
            (true, _, true) | (false, true, false) => Self::Worse,
        }
    }

    fn as_str(self) -> &'static str {
        match self {
            Self::Same => "",
            Self::Better => "better",
            Self::Worse => "worse",
        }
    }
}

/// Compares them.
pub fn run(args: &Args) -> anyhow::Result<Exit> {
    let (old, new) = (read(&args.old)?, read(&args.new)?);
    if old.runs.min(new.runs) < RUNS_MIN {
        output::note("fewer than three runs do not say what is chance: utmos bench --runs 5");
    }
    for (what, old, new) in
        [("engine", &old.engine, &new.engine), ("build", &old.build, &new.build)]
    {
        if let (Some(old), Some(new)) = (old, new)
            && old != new
        {
            output::note(format_args!("the {what} is {old} in one file and {new} in the other"));
        }
    }
    let is_comparable = old.docks_answer == new.docks_answer;
    if !is_comparable {
        output::note(format_args!(
            "docks answer {} in one file and {} in the other: nothing is called better or worse",
            old.docks_answer, new.docks_answer
        ));
    }
    if (old.seconds - new.seconds).abs() > f64::EPSILON {
        output::note(format_args!(
            "the measurements took {} s each in one file and {} s in the other",
            old.seconds, new.seconds
        ));
    }
    let is_enough = old.runs.min(new.runs) >= RUNS_MIN && is_comparable;
    let rows = rows(&old.measures, &new.measures, is_enough);
    if rows.is_empty() {
        bail!(
            "{} and {} have no measure in common; measure the same again with --only",
            args.old.display(),
            args.new.display()
        );
    }
    let titles = ["MEASURE", "BEFORE", "MIN – MAX", "AFTER", "MIN – MAX", "RATIO", ""];
    output::table(titles, &rows);
    output::line("better and worse: no run of one lies among those of the other");
    Ok(Exit::Done)
}

/// How docks answered in files of earlier versions.
fn at_once() -> String {
    Reply::AtOnce.title()
}

fn read(file: &Path) -> anyhow::Result<Figures> {
    let text =
        fs::read_to_string(file).with_context(|| format!("{} cannot be read", file.display()))?;
    parse(&text)
        .with_context(|| format!("{} is not what utmos bench --json writes", file.display()))
}

/// Figures of one engine, or those of several, of which each has names of its own.
fn parse(text: &str) -> anyhow::Result<Figures> {
    let written: Written = serde_json::from_str(text)?;
    let several = match written {
        Written::One(figures) => return Ok(figures),
        Written::Several { engines } => engines,
    };
    let first = several.first().context("no engine")?;
    let (build, runs, seconds) = (first.build.clone(), first.runs, first.seconds);
    let docks_answer = first.docks_answer.clone();
    let mut measures = Vec::new();
    for mut figures in several {
        let mut engine = figures.engine.take().unwrap_or_default();
        if let Some(servers @ 2..) = figures.servers {
            engine = format!("{engine} x{servers}");
        }
        for measured in &mut figures.measures {
            measured.name = format!("{engine} {}", measured.name);
            measured.title = format!("{engine}: {}", measured.title);
        }
        measures.extend(figures.measures);
    }
    Ok(Figures { build, engine: None, servers: None, docks_answer, runs, seconds, measures })
}

fn rows(old: &[Measured], new: &[Measured], is_enough: bool) -> Vec<[String; 7]> {
    let by_name: BTreeMap<&str, &Measured> =
        new.iter().map(|measured| (measured.name.as_str(), measured)).collect();
    let row = |old: &Measured| {
        let new = by_name.get(old.name.as_str()).filter(|new| new.of == old.of)?;
        let figure = |of: &Measured| format!("{} {}", short(of.median), of.unit);
        let spread = |of: &Measured| format!("{} – {}", short(of.min), short(of.max));
        let ratio = if old.median == 0.0 {
            String::new()
        } else {
            format!("{:.2}", new.median / old.median)
        };
        let verdict = if is_enough { Verdict::of(old, new).as_str() } else { "" }.to_owned();
        let title = old.title.clone();
        Some([title, figure(old), spread(old), figure(new), spread(new), ratio, verdict])
    };
    old.iter().filter_map(row).collect()
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]
    use super::*;

    fn measured(name: &str, of: &str, [min, median, max]: [f64; 3]) -> Measured {
        let (name, title) = (name.to_owned(), name.to_uppercase());
        Measured { name, title, unit: "u".to_owned(), of: of.to_owned(), median, min, max }
    }

    #[test]
    fn what_overlaps_may_be_chance() {
        let rate = |of| measured("rate", "per_second", of);
        let time = |of| measured("time", "p50_ms", of);
        let verdicts = [
            (rate([1.0, 2.0, 3.0]), rate([3.0, 4.0, 5.0]), Verdict::Same),
            (rate([1.0, 2.0, 3.0]), rate([3.1, 4.0, 5.0]), Verdict::Better),
            (rate([3.1, 4.0, 5.0]), rate([1.0, 2.0, 3.0]), Verdict::Worse),
            (time([1.0, 2.0, 3.0]), time([3.1, 4.0, 5.0]), Verdict::Worse),
            (time([3.1, 4.0, 5.0]), time([1.0, 2.0, 3.0]), Verdict::Better),
        ];
        for (old, new, verdict) in verdicts {
            assert_eq!(Verdict::of(&old, &new), verdict, "{old:?} {new:?}");
        }
    }

    #[test]
    fn engines_in_one_file_are_told_apart() {
        let one = r#"{"engine": "ENGINE", "runs": 3, "seconds": 1.0, "measures": [{"name": "n", "title": "t",
            "unit": "u", "of": "value", "median": 1.0, "min": 1.0, "max": 1.0}]}"#;
        let names = |text: &str| {
            let figures = parse(text).unwrap();
            let names =
                figures.measures.into_iter().map(|one| format!("{} {}", one.name, one.title));
            names.collect::<Vec<_>>()
        };
        assert_eq!(names(one), ["n t"]);
        let (a, b) = (one.replace("ENGINE", "a"), one.replace("ENGINE", "b"));
        let both = format!(r#"{{"version": "1", "engines": [{a}, {b}]}}"#);
        assert_eq!(names(&both), ["a n a: t", "b n b: t"]);
        assert!(parse(r#"{"engines": []}"#).is_err() && parse("{}").is_err());
    }

    #[test]
    fn only_what_both_have_in_one_unit_is_compared() {
        let old = [
            measured("both", "p50_ms", [1.0, 2.0, 3.0]),
            measured("old", "p50_ms", [1.0; 3]),
            measured("changed", "p50_ms", [1.0; 3]),
        ];
        let new = [
            measured("new", "p50_ms", [1.0; 3]),
            measured("changed", "p99_ms", [1.0; 3]),
            measured("both", "p50_ms", [4.0, 5.0, 6.0]),
        ];
        let rows = rows(&old, &new, true);
        assert_eq!(rows.len(), 1);
        assert_eq!(
            rows[0],
            ["BOTH", "2.00 u", "1.00 – 3.00", "5.00 u", "4.00 – 6.00", "2.50", "worse"]
        );
    }
}
