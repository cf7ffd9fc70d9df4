//! What has grown, as a table and as JSON.

use std::time::Duration;

use serde_json::{Value, json};

use super::{
    add,
    case::{Pairs, Reads, Round},
};
use crate::{
    command::bench::{
        docks::Judged,
        report::{Middle, short},
    },
    output,
    time::now,
};

/// A read should take no longer, 99 of 100 times, however much is stored.
pub const READ_GOAL_MS: f64 = 5.0;

/// A quantile of reads, in milliseconds.
fn ms(reads: &Reads, at: f64) -> f64 {
    reads.times.value_at_quantile(at) as f64 / 1_000.0
}

fn is_quick(reads: &Reads) -> bool {
    ms(reads, 0.99) <= READ_GOAL_MS
}

/// What two cases say of each other.
pub struct Grown {
    name: &'static str,
    title: &'static str,
    small: u64,
    large: u64,
    pairs: Pairs,
}

impl Grown {
    pub fn new(
        name: &'static str,
        title: &'static str,
        small: u64,
        large: u64,
        pairs: Pairs,
    ) -> Self {
        Self { name, title, small, large, pairs }
    }

    /// Median of the ratios of rounds that came one after the other.
    fn ratio(&self, of: impl Fn(&Round) -> f64) -> Option<Middle> {
        let both = self.pairs.small.iter().zip(&self.pairs.large);
        Middle::of(both.map(|(small, large)| of(large) / of(small)).filter(|it| it.is_finite()))
    }

    fn is_flat(&self, growth_max: f64) -> bool {
        let growth = self.ratio(|round| round.cpu).map(|ratio| (ratio.median - 1.0) * 100.0);
        growth.is_some_and(|growth| growth <= growth_max)
    }
}

/// A figure of rounds.
struct Figure {
    /// Its name in the JSON.
    name: &'static str,
    title: &'static str,
    unit: &'static str,
    of: fn(&Round) -> f64,
}

const FIGURES: [Figure; 4] = [
    Figure {
        name: "cpu_per_command",
        title: "server CPU for a command",
        unit: "µs",
        of: |round| round.cpu,
    },
    Figure {
        name: "loops",
        title: "POST to outcome, in all",
        unit: "/s",
        of: |round| round.per_second,
    },
    Figure { name: "p50", title: "POST to outcome, p50", unit: "ms", of: |round| round.p50 },
    Figure { name: "p99", title: "POST to outcome, p99", unit: "ms", of: |round| round.p99 },
];

/// A figure that stands for itself.
pub struct Fact {
    name: &'static str,
    title: String,
    value: f64,
    unit: &'static str,
}

impl Fact {
    pub fn new(name: &'static str, title: &str, value: f64, unit: &'static str) -> Self {
        Self { name, title: title.to_owned(), value, unit }
    }

    pub fn millis(name: &'static str, title: &str, took: Duration) -> Self {
        Self::new(name, title, took.as_secs_f64() * 1_000.0, "ms")
    }
}

/// Everything that was found.
pub struct Report {
    growth_max: f64,
    rounds: u32,
    seconds: f64,
    began_at: String,
    grown: Vec<Grown>,
    reads: Vec<(Reads, Reads)>,
    facts: Vec<Fact>,
    judged: Judged,
}

impl Report {
    pub fn new(growth_max: f64, rounds: u32, seconds: f64) -> Self {
        Self {
            growth_max,
            rounds,
            seconds,
            began_at: now().to_string(),
            grown: Vec::new(),
            reads: Vec::new(),
            facts: Vec::new(),
            judged: Judged::default(),
        }
    }

    pub fn add(&mut self, grown: Grown) {
        self.grown.push(grown);
    }

    /// Notes reads where little and where much is stored.
    pub fn read(&mut self, few: Reads, many: Reads) {
        self.reads.push((few, many));
    }

    pub fn tell(&mut self, fact: Fact) {
        self.facts.push(fact);
    }

    pub fn judge(&mut self, judged: Judged) {
        add(&mut self.judged, judged);
    }

    /// Whether every command ended as its dock says.
    pub fn is_true(&self) -> bool {
        self.judged.right == self.judged.all
    }

    /// Whether a command costs as much where there is much.
    pub fn is_flat(&self) -> bool {
        self.grown.iter().all(|grown| grown.is_flat(self.growth_max))
    }

    /// Whether all reads meet their goal where there is much.
    pub fn reads_are_quick(&self) -> bool {
        self.reads.iter().all(|(_, many)| is_quick(many))
    }

    pub fn print(&self) {
        for grown in &self.grown {
            output::line(format_args!("\n{} → {} {}:", grown.small, grown.large, grown.title));
            let rows: Vec<_> =
                FIGURES.iter().filter_map(|figure| self.row(grown, figure)).collect();
            output::table(["MEASURE", "SMALL", "LARGE", "RATIO", "MIN – MAX", ""], &rows);
        }
        if !self.reads.is_empty() {
            output::line("\nreads, little stored and much, ms:");
            let rows = self.reads.iter().map(|(few, many)| {
                let goal = if is_quick(many) { "met" } else { "goal missed" };
                let [few_p50, few_p99] = [0.5, 0.99].map(|at| short(ms(few, at)));
                let [many_p50, many_p99] = [0.5, 0.99].map(|at| short(ms(many, at)));
                [
                    few.title.to_owned(),
                    few_p50,
                    few_p99,
                    many_p50,
                    many_p99,
                    many.times.len().to_string(),
                    format!("{READ_GOAL_MS}: {goal}"),
                ]
            });
            let rows: Vec<_> = rows.collect();
            let head = ["READ", "P50", "P99", "P50, MUCH", "P99, MUCH", "SAMPLES", "GOAL OF P99"];
            output::table(head, &rows);
        }
        if !self.facts.is_empty() {
            output::line("");
            let rows = self
                .facts
                .iter()
                .map(|fact| [fact.title.clone(), format!("{} {}", short(fact.value), fact.unit)]);
            output::table(["MEASURE", "FIGURE"], &rows.collect::<Vec<_>>());
        }
        let Judged { right, all } = self.judged;
        output::line(format_args!(
            "\ncommands that arrived once and ended as the dock did: {right} of {all}\n\
             rounds: {}, of {} s each; medians, and of ratios those of rounds that followed each other",
            self.rounds, self.seconds
        ));
    }

    fn row(&self, grown: &Grown, figure: &Figure) -> Option<[String; 6]> {
        let Figure { name, title, unit, of } = *figure;
        let small = Middle::of(grown.pairs.small.iter().map(of))?;
        let large = Middle::of(grown.pairs.large.iter().map(of))?;
        let ratio = grown.ratio(of)?;
        let verdict = match (name, grown.is_flat(self.growth_max)) {
            ("cpu_per_command", true) => format!("flat within {} %", self.growth_max),
            ("cpu_per_command", false) => format!("grows by more than {} %", self.growth_max),
            (_, _) => String::new(),
        };
        Some([
            title.to_owned(),
            format!("{} {unit}", short(small.median)),
            format!("{} {unit}", short(large.median)),
            short(ratio.median),
            format!("{} – {}", short(ratio.min), short(ratio.max)),
            verdict,
        ])
    }

    pub fn to_json(&self) -> Value {
        let grown = self.grown.iter().map(|grown| {
            let figures = FIGURES.iter().filter_map(|figure| {
                let Figure { name, unit, of, .. } = *figure;
                let ratio = grown.ratio(of)?;
                let figure = json!({
                    "unit": unit,
                    "small": grown.pairs.small.iter().map(of).collect::<Vec<_>>(),
                    "large": grown.pairs.large.iter().map(of).collect::<Vec<_>>(),
                    "ratio": ratio.median,
                    "ratio_min": ratio.min,
                    "ratio_max": ratio.max,
                });
                Some((name.to_owned(), figure))
            });
            json!({
                "name": grown.name,
                "small": grown.small,
                "large": grown.large,
                "flat": grown.is_flat(self.growth_max),
                "figures": figures.collect::<serde_json::Map<_, _>>(),
            })
        });
        let reads = self.reads.iter().map(|(few, many)| {
            json!({
                "name": few.name,
                "goal_ms": READ_GOAL_MS,
                "goal_met": is_quick(many),
                "small": {"p50_ms": ms(few, 0.5), "p99_ms": ms(few, 0.99), "samples": few.times.len()},
                "large": {"p50_ms": ms(many, 0.5), "p99_ms": ms(many, 0.99), "samples": many.times.len()},
            })
        });
        let facts = self.facts.iter().map(|fact| {
            json!({"name": fact.name, "title": fact.title, "value": fact.value, "unit": fact.unit})
        });
        json!({
            "version": env!("CARGO_PKG_VERSION"),
            "began_at": self.began_at,
            "rounds": self.rounds,
            "seconds": self.seconds,
            "growth_max": self.growth_max,
            "commands": self.judged.all,
            "commands_right": self.judged.right,
            "grown": grown.collect::<Vec<_>>(),
            "reads": reads.collect::<Vec<_>>(),
            "facts": facts.collect::<Vec<_>>(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn grown(cpus: [(f64, f64); 3]) -> Grown {
        let round = |cpu| Round { cpu, per_second: 1.0, p50: 1.0, p99: 1.0 };
        let pairs = Pairs {
            small: cpus.iter().map(|(small, _)| round(*small)).collect(),
            large: cpus.iter().map(|(_, large)| round(*large)).collect(),
            judged: Judged::default(),
        };
        Grown::new("stored", "stored commands", 1, 2, pairs)
    }

    #[test]
    fn flat_is_what_grows_by_no_more_in_the_middle_of_the_rounds() {
        // A slow moment of the machine befalls both of a pair, or one round of three.
        for (cpus, is_flat) in [
            ([(100.0, 119.0), (300.0, 357.0), (100.0, 119.0)], true),
            ([(100.0, 100.0), (100.0, 500.0), (100.0, 110.0)], true),
            ([(100.0, 121.0), (100.0, 121.0), (100.0, 100.0)], false),
            ([(0.0, 0.0), (0.0, 0.0), (0.0, 0.0)], false),
        ] {
            assert_eq!(grown(cpus).is_flat(20.0), is_flat, "{cpus:?}");
        }
    }

    #[test]
    fn one_that_grows_spoils_the_verdict_on_all() {
        let mut report = Report::new(20.0, 3, 1.0);
        report.add(grown([(100.0, 100.0); 3]));
        assert!(report.is_flat());
        report.add(grown([(100.0, 130.0); 3]));
        assert!(!report.is_flat());
        let json = report.to_json();
        assert_eq!(json["grown"][0]["flat"], true);
        assert_eq!(json["grown"][1]["figures"]["cpu_per_command"]["ratio"], 1.3);
    }
}
