//! The figures of all runs, as a table and as JSON.

use std::{collections::BTreeMap, time::Duration};

use hdrhistogram::Histogram;
use serde_json::{Value, json};

use super::{
    Plan,
    docks::Judged,
    engine::Kind,
    load::Loaded,
    measure::{Figure, Floor, Measure},
    reply::Reply,
};
use crate::{output, time::now};

/// What one run measured. Times are milliseconds.
#[derive(Debug, Clone, Copy, Default)]
pub struct Sample {
    per_second: Option<f64>,
    p50: Option<f64>,
    p99: Option<f64>,
    p999: Option<f64>,
    max: Option<f64>,
    value: Option<f64>,
}

impl Sample {
    /// A rate and its times.
    pub fn of(loaded: &Loaded) -> Self {
        Self {
            per_second: Some(loaded.done as f64 / loaded.took.as_secs_f64()),
            ..Self::of_times(&loaded.times)
        }
    }

    /// Times alone.
    pub fn of_times(times: &Histogram<u64>) -> Self {
        let at = |quantile| Some(times.value_at_quantile(quantile) as f64 / 1_000.0);
        Self { p50: at(0.5), p99: at(0.99), p999: at(0.999), max: at(1.0), ..Self::default() }
    }

    /// Times of what came so often.
    pub fn at_rate(self, per_second: f64) -> Self {
        Self { per_second: Some(per_second), ..self }
    }

    /// A rate alone.
    pub fn rate(per_second: f64) -> Self {
        Self { per_second: Some(per_second), ..Self::default() }
    }

    /// One figure.
    pub fn value(value: f64) -> Self {
        Self { value: Some(value), ..Self::default() }
    }

    fn figure(&self, figure: Figure) -> Option<f64> {
        match figure {
            Figure::PerSecond => self.per_second,
            Figure::P50 => self.p50,
            Figure::P99 => self.p99,
            Figure::Value => self.value,
        }
    }

    fn to_json(self) -> Value {
        let all = [
            ("per_second", self.per_second),
            ("p50_ms", self.p50),
            ("p99_ms", self.p99),
            ("p999_ms", self.p999),
            ("max_ms", self.max),
            ("value", self.value),
        ];
        all.into_iter().filter_map(|(name, value)| Some((name.to_owned(), json!(value?)))).collect()
    }
}

/// Median, smallest and largest of some figures.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Middle {
    pub median: f64,
    pub min: f64,
    pub max: f64,
}

impl Middle {
    /// Nothing of no figures.
    pub fn of(figures: impl Iterator<Item = f64>) -> Option<Self> {
        let mut sorted: Vec<f64> = figures.collect();
        sorted.sort_by(f64::total_cmp);
        let (min, max) = (*sorted.first()?, *sorted.last()?);
        let (low, high) = (sorted.get((sorted.len() - 1) / 2)?, sorted.get(sorted.len() / 2)?);
        Some(Self { median: f64::midpoint(*low, *high), min, max })
    }
}

/// Everything that was measured.
pub struct Report {
    /// What the server worked with; `None` where nobody knows.
    kind: Option<Kind>,
    runs: u32,
    time: Duration,
    reply: Reply,
    began_at: String,
    samples: BTreeMap<Measure, Vec<Sample>>,
    judged: Judged,
    others: Vec<f64>,
    stored: Vec<u64>,
}

impl Report {
    pub fn new(kind: Option<Kind>, plan: &Plan) -> Self {
        Self {
            kind,
            runs: plan.runs,
            time: plan.time,
            reply: plan.reply,
            began_at: now().to_string(),
            samples: BTreeMap::new(),
            judged: Judged::default(),
            others: Vec::new(),
            stored: Vec::new(),
        }
    }

    pub fn add(&mut self, measure: Measure, sample: Sample) {
        self.samples.entry(measure).or_default().push(sample);
    }

    pub fn judge(&mut self, judged: Judged) {
        self.judged.right += judged.right;
        self.judged.all += judged.all;
    }

    /// Notes the share of the processors that others used.
    pub fn disturbed(&mut self, share: f64) {
        self.others.push(share);
    }

    /// Notes how many commands a run stored.
    pub fn stored(&mut self, commands: u64) {
        self.stored.push(commands);
    }

    /// Whether every command ended as the docks say.
    pub fn is_true(&self) -> bool {
        self.judged.right == self.judged.all
    }

    /// The goal that is no wish and was missed: a server that finds much stored is ready in time after every start.
    pub fn missed(&self) -> Option<String> {
        let measure = Measure::RestartStored;
        let (Some(most), _) = measure.goals() else { return None };
        let longest = self.middle(measure, |sample| sample.figure(measure.figure().0))?.max;
        (most < longest).then(|| {
            format!(
                "goal missed: {}: {} ms at the longest, and not {} ms",
                measure.title(),
                short(longest),
                short(most)
            )
        })
    }

    pub fn print(&self) {
        if let Some(kind) = self.kind {
            output::line(format_args!("{}:", kind.title()));
        }
        let rows: Vec<_> =
            Measure::ALL.into_iter().filter_map(|measure| self.row(measure)).collect();
        output::table(
            [
                "MEASURE",
                "MEDIAN",
                "MIN – MAX",
                "P50",
                "P99",
                "P99.9",
                "MAX ms",
                "FIRST STOP",
                "TARGET",
            ],
            &rows,
        );
        self.print_shares();
        for (measure, asked) in
            Measure::ALL.into_iter().filter_map(|it| Some((it, it.asked_per_second()?)))
        {
            if let Some(reached) = self.middle(measure, |sample| sample.per_second) {
                output::line(format_args!(
                    "{}: {} of {} a second were sent and ended",
                    measure.key(),
                    short(reached.median),
                    short(asked)
                ));
            }
        }
        let Judged { right, all } = self.judged;
        output::line(format_args!(
            "\ncommands that arrived once and ended as the dock did: {right} of {all}"
        ));
        let stored = Middle::of(self.stored.iter().map(|commands| *commands as f64));
        let others = Middle::of(self.others.iter().map(|share| share * 100.0));
        if let (Some(stored), Some(others)) = (stored, others) {
            output::line(format_args!("commands stored at the restart: {:.0}", stored.median));
            output::line(format_args!(
                "processor time that neither the server nor this program used: median {:.0} %, at most {:.0} %",
                others.median, others.max
            ));
        }
        output::line(format_args!(
            "runs: {}, of {:?} each measurement; medians of runs; docks answer {}",
            self.runs,
            self.time,
            self.reply.title()
        ));
        if self.reply != Reply::AtOnce {
            output::line("phases and emergencies are those of a dock that answers at once");
        }
    }

    /// How much of what the floors of the same runs allow.
    fn print_shares(&self) {
        let rows: Vec<_> = Measure::ALL
            .into_iter()
            .flat_map(|measure| {
                let shares = self.shares(measure).into_iter();
                shares.map(move |(floor, share)| {
                    [measure.title().to_owned(), floor, format!("{:.0} %", share * 100.0)]
                })
            })
            .collect();
        if !rows.is_empty() {
            output::line("");
            output::table(["MEASURE", "FLOOR", "SHARE OF IT"], &rows);
        }
    }

    /// The names of the floors of a measure, and its share of each: 1 would be as good as the floor alone.
    fn shares(&self, measure: Measure) -> Vec<(String, f64)> {
        let of = |measure: Measure, figure: Figure| {
            self.middle(measure, |sample| sample.figure(figure)).map(|middle| middle.median)
        };
        if self.reply != Reply::AtOnce {
            return Vec::new();
        }
        let share = |floor: &Floor| match floor {
            Floor::Rate(floor) => {
                let share = of(measure, Figure::PerSecond)? / of(*floor, Figure::PerSecond)?;
                Some((floor.key().to_owned(), share))
            }
            Floor::Times(floors) => {
                let times: Option<Vec<f64>> =
                    floors.iter().map(|floor| of(*floor, Figure::P50)).collect();
                let share = times?.iter().sum::<f64>() / of(measure, Figure::P50)?;
                let names: Vec<&str> = floors.iter().map(|floor| floor.key()).collect();
                Some((names.join(" + "), share))
            }
        };
        measure.floors().iter().filter_map(share).filter(|(_, share)| share.is_finite()).collect()
    }

    /// What a measure should reach: all of that is about docks that answer at once.
    fn goals(&self, measure: Measure) -> (Option<f64>, Option<f64>) {
        if self.reply == Reply::AtOnce { measure.goals() } else { (None, None) }
    }

    fn middle(&self, measure: Measure, figure: impl Fn(&Sample) -> Option<f64>) -> Option<Middle> {
        Middle::of(self.samples.get(&measure)?.iter().filter_map(figure))
    }

    fn row(&self, measure: Measure) -> Option<[String; 9]> {
        let (figure, unit) = measure.figure();
        let main = self.middle(measure, |sample| sample.figure(figure))?;
        let time = |figure: fn(&Sample) -> Option<f64>| {
            self.middle(measure, figure).map_or_else(String::new, |middle| short(middle.median))
        };
        let (first, target) = self.goals(measure);
        let (sign, close) = if figure == Figure::PerSecond { ("≥ ", unit) } else { ("≤ ", "") };
        let space = if close.is_empty() { " " } else { "" };
        let goal = |goal: Option<f64>| {
            goal.map_or_else(String::new, |goal| format!("{sign}{}{space}{unit}", short(goal)))
        };
        let beside = measure.goal_beside().filter(|_| target.is_some());
        let beside = beside.map_or_else(String::new, |(figure, bound)| {
            format!(", {} ≤ {}", figure.key().trim_end_matches("_ms"), short(bound))
        });
        let what = if figure == Figure::P99 { "p99 " } else { "" };
        Some([
            measure.title().to_owned(),
            format!("{what}{}{space}{unit}", short(main.median)),
            format!("{} – {}", short(main.min), short(main.max)),
            time(|sample| sample.p50),
            time(|sample| sample.p99),
            time(|sample| sample.p999),
            time(|sample| sample.max),
            goal(first),
            goal(target) + &beside,
        ])
    }

    pub fn to_json(&self) -> Value {
        let measures = Measure::ALL.into_iter().filter_map(|measure| {
            let (figure, unit) = measure.figure();
            let main = self.middle(measure, |sample| sample.figure(figure))?;
            let (first_stop, target) = self.goals(measure);
            let samples: Vec<Value> =
                self.samples.get(&measure)?.iter().map(|sample| sample.to_json()).collect();
            Some(json!({
                "name": measure.key(),
                "title": measure.title(),
                "unit": unit,
                "of": figure.key(),
                "median": main.median,
                "min": main.min,
                "max": main.max,
                "first_stop": first_stop,
                "target": target,
                "shares_of_floors": self.shares(measure).into_iter()
                    .map(|(floor, share)| json!({"floor": floor, "share": share}))
                    .collect::<Vec<_>>(),
                "runs": samples,
            }))
        });
        json!({
            "version": env!("CARGO_PKG_VERSION"),
            "build": if cfg!(debug_assertions) { "debug" } else { "release" },
            "engine": self.kind.map(|kind| kind.engine.key()),
            "servers": self.kind.map(|kind| kind.servers),
            "began_at": self.began_at,
            "processors": std::thread::available_parallelism().map_or(0, usize::from),
            "runs": self.runs,
            "seconds": self.time.as_secs_f64(),
            "docks_answer": self.reply.title(),
            "commands": self.judged.all,
            "commands_right": self.judged.right,
            "commands_stored": self.stored,
            "share_of_processors_used_by_others": self.others,
            "measures": measures.collect::<Vec<_>>(),
        })
    }
}

/// Several engines side by side: each one's figure, and how it stands to the first one's.
pub fn print_beside(reports: &[Report]) {
    let [first, others @ ..] = reports else { return };
    if others.is_empty() {
        return;
    }
    let title = |report: &Report| report.kind.map_or(String::new(), Kind::title);
    output::line(format_args!("side by side, and in brackets the ratio to {}:", title(first)));
    let figure = |report: &Report, measure: Measure| {
        report.middle(measure, |sample| sample.figure(measure.figure().0)).map(|it| it.median)
    };
    // As many beside the first as a line has room for.
    for others in others.chunks(2) {
        let cell = |report: &Report, measure: Measure| {
            let Some(own) = figure(report, measure) else { return String::new() };
            let unit = measure.figure().1;
            match figure(first, measure).filter(|_| !std::ptr::eq(report, first)) {
                Some(of) if of > 0.0 => format!("{} {unit} ({:.2})", short(own), own / of),
                Some(_) | None => format!("{} {unit}", short(own)),
            }
        };
        let (second, third) = (others.first(), others.get(1));
        let rows: Vec<_> = Measure::ALL
            .into_iter()
            .map(|measure| {
                let of = |report: Option<&Report>| {
                    report.map_or_else(String::new, |report| cell(report, measure))
                };
                [measure.title().to_owned(), of(Some(first)), of(second), of(third)]
            })
            .filter(|[_, cells @ ..]| cells.iter().any(|cell| !cell.is_empty()))
            .collect();
        let name = |report: Option<&Report>| report.map_or_else(String::new, title);
        output::table(["MEASURE", &title(first), &name(second), &name(third)], &rows);
    }
}

/// Three digits that count.
pub fn short(figure: f64) -> String {
    match figure {
        figure if figure >= 100.0 => format!("{figure:.0}"),
        figure if figure >= 10.0 => format!("{figure:.1}"),
        figure => format!("{figure:.2}"),
    }
}

#[cfg(test)]
mod tests {
    use super::{super::engine::Engine, *};

    fn plan() -> Plan {
        let time = Duration::from_secs(1);
        Plan { runs: 1, time, floor_time: time, only: Vec::new(), reply: Reply::AtOnce }
    }

    #[test]
    fn the_median_of_an_even_number_lies_between_the_middle_two() {
        let of = |figures: &[f64]| Middle::of(figures.iter().copied());
        assert_eq!(of(&[]), None);
        assert_eq!(of(&[3.0, 1.0, 2.0]), Some(Middle { median: 2.0, min: 1.0, max: 3.0 }));
        assert_eq!(of(&[4.0, 1.0, 2.0, 3.0]), Some(Middle { median: 2.5, min: 1.0, max: 4.0 }));
    }

    #[test]
    fn a_start_that_takes_longer_than_it_may_misses_the_goal_whatever_the_others_took() {
        let mut report = Report::new(None, &plan());
        assert_eq!(report.missed(), None);
        for millis in [100.0, 1_000.0, 90.0] {
            report.add(Measure::RestartStored, Sample::value(millis));
        }
        // Only of this one.
        report.add(Measure::MemoryIdle, Sample::value(9_000.0));
        assert_eq!(report.missed(), None);
        report.add(Measure::RestartStored, Sample::value(1_001.0));
        let missed = report.missed().unwrap_or_default();
        assert!(missed.starts_with("goal missed: ") && missed.contains("1001"), "{missed}");
    }

    #[test]
    fn every_measure_has_its_row_once_it_is_measured() {
        let mut report = Report::new(Some(Kind::of(Engine::Embedded, 1)), &plan());
        for measure in Measure::ALL {
            let times = Sample {
                p50: Some(1.0),
                p99: Some(2.0),
                per_second: Some(3.0),
                ..Sample::value(4.0)
            };
            report.add(measure, times);
        }
        let shares = report.shares(Measure::Loop1);
        assert_eq!(shares, [("floor_commit + floor_mqtt_1".to_owned(), 2.0)]);
        assert_eq!(report.shares(Measure::Loop64).len(), 2);
        assert!(Measure::ALL.into_iter().all(|measure| report.row(measure).is_some()));
        assert_eq!(report.to_json()["measures"].as_array().map(Vec::len), Some(Measure::ALL.len()));
    }
}
