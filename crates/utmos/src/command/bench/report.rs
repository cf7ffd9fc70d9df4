//! The figures of all runs, as a table and as JSON.

use std::{collections::BTreeMap, time::Duration};

use hdrhistogram::Histogram;
use serde_json::{Value, json};

use super::{docks::Judged, load::Loaded};
use crate::{output, time::now};

/// Everything that is measured, in the order of the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Measure {
    Sync,
    Mqtt1,
    Mqtt64,
    Healthz,
    Accept1,
    Accept64,
    Loop1,
    Loop16,
    Loop64,
    Loop256,
    Cpu,
    OwnCpu,
    Written,
    PhaseAccept,
    PhaseHandOver,
    PhaseSeen,
    Paced500,
    Paced2000,
    Emergency,
    MemoryIdle,
    MemoryDocks,
    MemoryLoad,
    Restart,
    RestartStored,
    Telemetry,
    TelemetryCpu,
    TelemetryCommandsSilent,
    TelemetryCommands,
    TelemetryRepliesSilent,
    TelemetryReplies,
    TelemetryLatest,
    TelemetryMemory,
    TelemetryDisk,
}

/// Which figure of a measure its goals and its spread are about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Figure {
    PerSecond,
    P50,
    P99,
    Value,
}

impl Measure {
    const ALL: [Self; 33] = [
        Self::Sync,
        Self::Mqtt1,
        Self::Mqtt64,
        Self::Healthz,
        Self::Accept1,
        Self::Accept64,
        Self::Loop1,
        Self::Loop16,
        Self::Loop64,
        Self::Loop256,
        Self::Cpu,
        Self::OwnCpu,
        Self::Written,
        Self::PhaseAccept,
        Self::PhaseHandOver,
        Self::PhaseSeen,
        Self::Paced500,
        Self::Paced2000,
        Self::Emergency,
        Self::MemoryIdle,
        Self::MemoryDocks,
        Self::MemoryLoad,
        Self::Restart,
        Self::RestartStored,
        Self::Telemetry,
        Self::TelemetryCpu,
        Self::TelemetryCommandsSilent,
        Self::TelemetryCommands,
        Self::TelemetryRepliesSilent,
        Self::TelemetryReplies,
        Self::TelemetryLatest,
        Self::TelemetryMemory,
        Self::TelemetryDisk,
    ];

    fn key(self) -> &'static str {
        match self {
            Self::Sync => "floor_fdatasync",
            Self::Mqtt1 => "floor_mqtt_1",
            Self::Mqtt64 => "floor_mqtt_64",
            Self::Healthz => "floor_http_64",
            Self::Accept1 => "accept_1",
            Self::Accept64 => "accept_64",
            Self::Loop1 => "loop_1",
            Self::Loop16 => "loop_16",
            Self::Loop64 => "loop_64",
            Self::Loop256 => "loop_256",
            Self::Cpu => "server_cpu_per_loop_64",
            Self::OwnCpu => "bench_cpu_per_loop_64",
            Self::Written => "written_per_loop_64",
            Self::PhaseAccept => "phase_accept",
            Self::PhaseHandOver => "phase_hand_over",
            Self::PhaseSeen => "phase_seen",
            Self::Paced500 => "paced_500",
            Self::Paced2000 => "paced_2000",
            Self::Emergency => "emergency",
            Self::MemoryIdle => "memory_idle",
            Self::MemoryDocks => "memory_100_docks",
            Self::MemoryLoad => "memory_after_load",
            Self::Restart => "restart",
            Self::RestartStored => "restart_stored_100k",
            Self::Telemetry => "telemetry",
            Self::TelemetryCpu => "telemetry_cpu",
            Self::TelemetryCommandsSilent => "telemetry_commands_silent",
            Self::TelemetryCommands => "telemetry_commands",
            Self::TelemetryRepliesSilent => "telemetry_replies_silent",
            Self::TelemetryReplies => "telemetry_replies",
            Self::TelemetryLatest => "telemetry_latest",
            Self::TelemetryMemory => "telemetry_memory",
            Self::TelemetryDisk => "telemetry_disk",
        }
    }

    /// Reads a name as it stands in the JSON.
    pub fn parse(text: &str) -> Result<Self, String> {
        let found = Self::ALL.into_iter().find(|measure| measure.key() == text);
        found.ok_or_else(|| format!("is none of {}", Self::ALL.map(Self::key).join(", ")))
    }

    fn title(self) -> &'static str {
        match self {
            Self::Sync => "floor: 4 KiB written and synced",
            Self::Mqtt1 => "floor: MQTT QoS 1 round trip, 1 in flight",
            Self::Mqtt64 => "floor: MQTT QoS 1 round trips, 64 in flight",
            Self::Healthz => "floor: GET /healthz, 64 clients",
            Self::Accept1 => "POST to 202, 1 client",
            Self::Accept64 => "POST to 202, 64 clients",
            Self::Loop1 => "POST to outcome, 1 client",
            Self::Loop16 => "POST to outcome, 16 clients",
            Self::Loop64 => "POST to outcome, 64 clients",
            Self::Loop256 => "POST to outcome, 256 clients",
            Self::Cpu => "server CPU for each loop, 64 clients",
            Self::OwnCpu => "this program's CPU for each loop (load, docks)",
            Self::Written => "server's writes to the disk for each loop, 64 clients",
            Self::PhaseAccept => "1 client: POST to its 202",
            Self::PhaseHandOver => "1 client: POST to bytes at the dock",
            Self::PhaseSeen => "1 client: bytes at the dock to outcome seen",
            Self::Paced500 => "POST to outcome, 500 a second",
            Self::Paced2000 => "POST to outcome, 2,000 a second",
            Self::Emergency => "emergency POST to bytes at the dock, under load",
            Self::MemoryIdle => "server memory, idle",
            Self::MemoryDocks => "server memory, 101 docks online",
            Self::MemoryLoad => "server memory, after the load",
            Self::Restart => "restart until ready",
            Self::RestartStored => "restart until ready, 100,000 commands stored and 1,000 open",
            Self::Telemetry => "osd of 1,000 docks taken in",
            Self::TelemetryCpu => "server CPU meanwhile, of one processor",
            Self::TelemetryCommandsSilent => "POST to outcome, 100 a second, 1,000 silent docks",
            Self::TelemetryCommands => "POST to outcome, 100 a second, under their osd",
            Self::TelemetryRepliesSilent => "request of a dock to answer, 1,000 silent docks",
            Self::TelemetryReplies => "request of a dock to answer, under their osd",
            Self::TelemetryLatest => "GET of a device's latest, 1 client, under their osd",
            Self::TelemetryMemory => {
                "server memory, 10,001 docks registered, 1,000 of them telling"
            }
            Self::TelemetryDisk => "history of a device for a day, two messages a second",
        }
    }

    fn figure(self) -> (Figure, &'static str) {
        match self {
            Self::Accept1
            | Self::Loop1
            | Self::Mqtt1
            | Self::PhaseAccept
            | Self::PhaseHandOver
            | Self::PhaseSeen => (Figure::P50, "ms"),
            Self::Emergency
            | Self::Paced500
            | Self::Paced2000
            | Self::TelemetryCommandsSilent
            | Self::TelemetryCommands
            | Self::TelemetryRepliesSilent
            | Self::TelemetryReplies => (Figure::P99, "ms"),
            Self::TelemetryLatest => (Figure::P50, "ms"),
            Self::TelemetryCpu => (Figure::Value, "%"),
            Self::TelemetryMemory | Self::TelemetryDisk => (Figure::Value, "MB"),
            Self::Sync
            | Self::Telemetry
            | Self::Mqtt64
            | Self::Healthz
            | Self::Accept64
            | Self::Loop16
            | Self::Loop64
            | Self::Loop256 => (Figure::PerSecond, "/s"),
            Self::Cpu | Self::OwnCpu => (Figure::Value, "µs"),
            Self::Written => (Figure::Value, "KiB"),
            Self::MemoryIdle | Self::MemoryDocks | Self::MemoryLoad => (Figure::Value, "MB"),
            Self::Restart | Self::RestartStored => (Figure::Value, "ms"),
        }
    }

    /// First stop and target, in the unit of [`Measure::figure`].
    fn goals(self) -> (Option<f64>, Option<f64>) {
        match self {
            Self::Accept1 => (Some(1.5), Some(0.7)),
            Self::Accept64 => (Some(5_000.0), Some(15_000.0)),
            Self::Loop1 => (Some(3.0), Some(1.2)),
            Self::Loop64 => (Some(3_000.0), Some(8_000.0)),
            Self::Loop256 => (Some(3_000.0), Some(10_000.0)),
            Self::Cpu => (Some(350.0), Some(120.0)),
            Self::Emergency => (Some(20.0), Some(10.0)),
            Self::Paced2000 => (Some(50.0), Some(10.0)),
            Self::MemoryIdle => (Some(50.0), Some(40.0)),
            Self::RestartStored => (Some(1_000.0), Some(1_000.0)),
            Self::Telemetry => (None, Some(2_000.0)),
            Self::TelemetryReplies => (None, Some(10.0)),
            Self::TelemetryLatest => (None, Some(1.0)),
            Self::TelemetryMemory => (None, Some(200.0)),
            Self::Sync
            | Self::TelemetryCpu
            | Self::TelemetryCommandsSilent
            | Self::TelemetryCommands
            | Self::TelemetryRepliesSilent
            | Self::TelemetryDisk
            | Self::Mqtt1
            | Self::Mqtt64
            | Self::Healthz
            | Self::Loop16
            | Self::OwnCpu
            | Self::Written
            | Self::PhaseAccept
            | Self::PhaseHandOver
            | Self::PhaseSeen
            | Self::Paced500
            | Self::MemoryDocks
            | Self::MemoryLoad
            | Self::Restart => (None, None),
        }
    }
}

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
    runs: u32,
    time: Duration,
    began_at: String,
    samples: BTreeMap<Measure, Vec<Sample>>,
    judged: Judged,
    others: Vec<f64>,
    stored: Vec<u64>,
}

impl Report {
    pub fn new(runs: u32, time: Duration) -> Self {
        Self {
            runs,
            time,
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

    pub fn print(&self) {
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
            "runs: {}, of {:?} each measurement; medians of runs",
            self.runs, self.time
        ));
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
        let (first, target) = measure.goals();
        let (sign, close) = if figure == Figure::PerSecond { ("≥ ", unit) } else { ("≤ ", "") };
        let space = if close.is_empty() { " " } else { "" };
        let goal = |goal: Option<f64>| {
            goal.map_or_else(String::new, |goal| format!("{sign}{}{space}{unit}", short(goal)))
        };
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
            goal(target),
        ])
    }

    pub fn to_json(&self) -> Value {
        let measures = Measure::ALL.into_iter().filter_map(|measure| {
            let (figure, unit) = measure.figure();
            let main = self.middle(measure, |sample| sample.figure(figure))?;
            let (first_stop, target) = measure.goals();
            let samples: Vec<Value> =
                self.samples.get(&measure)?.iter().map(|sample| sample.to_json()).collect();
            Some(json!({
                "name": measure.key(),
                "title": measure.title(),
                "unit": unit,
                "of": match figure {
                    Figure::PerSecond => "per_second",
                    Figure::P50 => "p50_ms",
                    Figure::P99 => "p99_ms",
                    Figure::Value => "value",
                },
                "median": main.median,
                "min": main.min,
                "max": main.max,
                "first_stop": first_stop,
                "target": target,
                "runs": samples,
            }))
        });
        json!({
            "version": env!("CARGO_PKG_VERSION"),
            "began_at": self.began_at,
            "processors": std::thread::available_parallelism().map_or(0, usize::from),
            "runs": self.runs,
            "seconds": self.time.as_secs_f64(),
            "commands": self.judged.all,
            "commands_right": self.judged.right,
            "commands_stored": self.stored,
            "share_of_processors_used_by_others": self.others,
            "measures": measures.collect::<Vec<_>>(),
        })
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
    use super::*;

    #[test]
    fn the_median_of_an_even_number_lies_between_the_middle_two() {
        let of = |figures: &[f64]| Middle::of(figures.iter().copied());
        assert_eq!(of(&[]), None);
        assert_eq!(of(&[3.0, 1.0, 2.0]), Some(Middle { median: 2.0, min: 1.0, max: 3.0 }));
        assert_eq!(of(&[4.0, 1.0, 2.0, 3.0]), Some(Middle { median: 2.5, min: 1.0, max: 4.0 }));
    }

    #[test]
    fn every_measure_has_its_row_once_it_is_measured() {
        let mut report = Report::new(1, Duration::from_secs(1));
        for measure in Measure::ALL {
            let times = Sample {
                p50: Some(1.0),
                p99: Some(2.0),
                per_second: Some(3.0),
                ..Sample::value(4.0)
            };
            report.add(measure, times);
        }
        assert!(Measure::ALL.into_iter().all(|measure| report.row(measure).is_some()));
        assert_eq!(report.to_json()["measures"].as_array().map(Vec::len), Some(Measure::ALL.len()));
    }
}
