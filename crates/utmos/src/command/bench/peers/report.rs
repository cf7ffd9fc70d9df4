//! What the server and its peers did, side by side.

use std::{collections::BTreeMap, time::Duration};

use serde_json::{Value, json};

use super::{Args, Installed, Peer};
use crate::{
    command::bench::{
        docks::Judged,
        load::Loaded,
        reply::Reply,
        report::{Middle, short},
    },
    output,
    time::now,
};

/// The clients at which goals count.
const GOAL_CLIENTS: usize = 64;

/// One measurement.
#[derive(Debug, Clone, Copy)]
pub struct Figures {
    per_second: f64,
    p50_ms: f64,
    p99_ms: f64,
    /// Microseconds of the server's process for each loop.
    cpu: f64,
    /// Of the broker beside it, where it has none of its own.
    cpu_beside: Option<f64>,
    memory_mb: f64,
    /// The share of the processors that others used, from 0 to 1.
    others: f64,
}

impl Figures {
    pub fn of(
        loaded: &Loaded,
        cpu: Duration,
        beside: Option<Duration>,
        memory_mb: f64,
        others: f64,
    ) -> Self {
        let at = |quantile| loaded.times.value_at_quantile(quantile) as f64 / 1_000.0;
        let each = |time: Duration| time.as_secs_f64() * 1e6 / loaded.done.max(1) as f64;
        Self {
            per_second: loaded.done as f64 / loaded.took.as_secs_f64(),
            p50_ms: at(0.5),
            p99_ms: at(0.99),
            cpu: each(cpu),
            cpu_beside: beside.map(each),
            memory_mb,
            others,
        }
    }

    fn to_json(self) -> Value {
        json!({
            "per_second": self.per_second,
            "p50_ms": self.p50_ms,
            "p99_ms": self.p99_ms,
            "server_cpu_per_loop_us": self.cpu,
            "broker_cpu_per_loop_us": self.cpu_beside,
            "server_memory_mb": self.memory_mb,
            "share_of_processors_used_by_others": self.others,
        })
    }
}

/// Who was measured; `None` is this server.
type Who = Option<Peer>;

/// Everything that was measured.
pub struct Report {
    runs: u32,
    seconds: f64,
    /// Whether the peers were left with Nagle's algorithm.
    nagle: bool,
    reply: Reply,
    began_at: String,
    versions: BTreeMap<Peer, String>,
    /// Of each with so many clients, run by run.
    samples: BTreeMap<(usize, Who), Vec<Figures>>,
    judged: BTreeMap<Who, Judged>,
}

impl Report {
    pub fn new(args: &Args, installed: &Installed) -> Self {
        Self {
            runs: args.runs,
            seconds: args.seconds,
            nagle: args.nagle,
            reply: args.reply,
            began_at: now().to_string(),
            versions: installed.peers.iter().cloned().collect(),
            samples: BTreeMap::new(),
            judged: BTreeMap::new(),
        }
    }

    pub fn add(&mut self, who: Who, clients: usize, figures: Figures, judged: Judged) {
        self.samples.entry((clients, who)).or_default().push(figures);
        let all = self.judged.entry(who).or_default();
        all.right += judged.right;
        all.all += judged.all;
    }

    /// Whether every command ended as the docks say, at this server and at the peers: a rate of wrong ends says nothing.
    pub fn is_true(&self) -> bool {
        self.judged.values().all(|judged| judged.right == judged.all)
    }

    fn title(&self, who: Who) -> String {
        match who {
            None => format!("utmos {}", env!("CARGO_PKG_VERSION")),
            Some(peer) => {
                let version = self.versions.get(&peer).map_or("", String::as_str);
                format!("{} {version}", peer.title())
            }
        }
    }

    fn middle(&self, clients: usize, who: Who, of: impl Fn(&Figures) -> f64) -> Option<Middle> {
        Middle::of(self.samples.get(&(clients, who))?.iter().map(of))
    }

    /// How many times a peer's loops this server does in a second: of each run, since both had the same minute.
    fn ratio(&self, clients: usize, peer: Peer) -> Option<Middle> {
        let ours = self.samples.get(&(clients, None))?;
        let theirs = self.samples.get(&(clients, Some(peer)))?;
        let each =
            ours.iter().zip(theirs).map(|(ours, theirs)| ours.per_second / theirs.per_second);
        Middle::of(each.filter(|ratio| ratio.is_finite()))
    }

    fn rows(&self) -> Vec<[String; 10]> {
        self.samples.keys().map(|(clients, who)| self.row(*clients, *who)).collect()
    }

    fn row(&self, clients: usize, who: Who) -> [String; 10] {
        let of = |figure: fn(&Figures) -> f64| {
            self.middle(clients, who, figure).map_or_else(String::new, |it| short(it.median))
        };
        let between = |it: Middle| format!("{} – {}", short(it.min), short(it.max));
        let rate = self.middle(clients, who, |figures| figures.per_second);
        let beside = self.samples.get(&(clients, who)).into_iter().flatten();
        let beside = Middle::of(beside.filter_map(|figures| figures.cpu_beside));
        let ratio = who.and_then(|peer| self.ratio(clients, peer));
        let ratio = ratio.map(|it| format!("{} × ({})", short(it.median), between(it)));
        let goal = who.filter(|_| clients == GOAL_CLIENTS).map(|peer| {
            let (first, target) = peer.goals();
            format!("≥ {first} ×, ≥ {target} ×")
        });
        [
            self.title(who),
            clients.to_string(),
            of(|figures| figures.per_second),
            rate.map_or_else(String::new, between),
            of(|figures| figures.p50_ms),
            of(|figures| figures.p99_ms),
            format!(
                "{} + {}",
                of(|figures| figures.cpu),
                beside.map_or_else(|| "0".to_owned(), |it| short(it.median))
            ),
            of(|figures| figures.memory_mb),
            ratio.unwrap_or_default(),
            goal.unwrap_or_default(),
        ]
    }

    pub fn print(&self) {
        output::table(
            [
                "POST to outcome",
                "CLIENTS",
                "LOOPS/S",
                "MIN – MAX",
                "P50 ms",
                "P99 ms",
                "CPU µs: SERVER + BROKER",
                "MEMORY MB",
                "UTMOS DOES",
                "FIRST STOP, TARGET",
            ],
            &self.rows(),
        );
        output::line("");
        for (who, judged) in &self.judged {
            output::line(format_args!(
                "{}: {} of {} commands arrived once and ended as the dock did",
                self.title(*who),
                judged.right,
                judged.all
            ));
        }
        output::line(
            "utmos is commanded by signed requests, two for each loop (POST, and GET that waits), and its broker is its own; \
             a peer by one that is not signed, at a Mosquitto. The docks are the same.",
        );
        output::line(match self.nagle {
            true => "Nagle's algorithm is on in the peers (--nagle), as their MQTT client has it.",
            false => {
                "Nagle's algorithm, which their MQTT client leaves on, is off in the peers (--nagle leaves it on)."
            }
        });
        for peer in self.versions.keys() {
            output::line(format_args!("{}: {}.", peer.title(), peer.does_not()));
        }
        let others = self.samples.values().flatten().map(|figures| figures.others * 100.0);
        if let Some(others) = Middle::of(others) {
            output::line(format_args!(
                "processor time that neither server, broker nor this program used: median {:.0} %, at most {:.0} %",
                others.median, others.max
            ));
        }
        output::line(format_args!(
            "runs: {}, of {} s each measurement; medians of runs, ratios within each run; docks answer {}",
            self.runs,
            self.seconds,
            self.reply.title()
        ));
    }

    pub fn to_json(&self) -> Value {
        let measures = self.samples.iter().map(|((clients, who), runs)| {
            let middle = self.middle(*clients, *who, |figures| figures.per_second);
            let ratio = who.and_then(|peer| self.ratio(*clients, peer));
            json!({
                "name": who.map_or("utmos", Peer::key),
                "title": self.title(*who),
                "clients": clients,
                "median_per_second": middle.map(|it| it.median),
                "utmos_does_times": ratio.map(|it| it.median),
                "target_times": who.filter(|_| *clients == GOAL_CLIENTS).map(|peer| peer.goals().1),
                "runs": runs.iter().map(|figures| figures.to_json()).collect::<Vec<_>>(),
            })
        });
        let judged = self.judged.iter().map(|(who, judged)| {
            json!({
                "name": who.map_or("utmos", Peer::key),
                "commands": judged.all,
                "commands_right": judged.right,
                "does_not": who.map(Peer::does_not),
            })
        });
        json!({
            "version": env!("CARGO_PKG_VERSION"),
            "began_at": self.began_at,
            "processors": std::thread::available_parallelism().map_or(0, usize::from),
            "runs": self.runs,
            "seconds": self.seconds,
            "docks_answer": self.reply.title(),
            "nagle_in_peers": self.nagle,
            "contestants": judged.collect::<Vec<_>>(),
            "measures": measures.collect::<Vec<_>>(),
        })
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]
    use super::*;

    fn figures(per_second: f64, cpu_beside: Option<f64>) -> Figures {
        let (p50_ms, p99_ms, cpu) = (5.0, 9.0, 110.0);
        Figures { per_second, p50_ms, p99_ms, cpu, cpu_beside, memory_mb: 80.0, others: 0.1 }
    }

    /// Three runs in which this server was slower from one to the next, and the peer with it.
    fn report() -> Report {
        let mut report = Report {
            runs: 3,
            seconds: 5.0,
            nagle: false,
            reply: Reply::AtOnce,
            began_at: String::new(),
            versions: [(Peer::NodeRed, "5.0.7".to_owned())].into(),
            samples: BTreeMap::new(),
            judged: BTreeMap::new(),
        };
        for (ours, theirs) in [(9_000.0, 900.0), (8_000.0, 1_000.0), (4_000.0, 400.0)] {
            let right = Judged { right: 10, all: 10 };
            report.add(None, 64, figures(ours, None), right);
            report.add(Some(Peer::NodeRed), 64, figures(theirs, Some(50.0)), right);
        }
        report
    }

    #[test]
    fn a_peer_is_held_against_the_server_of_the_same_run() {
        let report = report();
        let ratio = report.ratio(64, Peer::NodeRed).unwrap();
        assert_eq!((ratio.median, ratio.min, ratio.max), (10.0, 8.0, 10.0));
        let rows = report.rows();
        assert_eq!(rows[0][0], format!("utmos {}", env!("CARGO_PKG_VERSION")));
        assert_eq!((rows[0][2].as_str(), rows[0][6].as_str()), ("8000", "110 + 0"));
        assert_eq!((rows[0][8].as_str(), rows[0][9].as_str()), ("", ""));
        assert_eq!((rows[1][0].as_str(), rows[1][2].as_str()), ("Node-RED 5.0.7", "900"));
        assert_eq!(rows[1][6], "110 + 50.0");
        assert_eq!(rows[1][8], "10.0 × (8.00 – 10.0)");
        assert_eq!(rows[1][9], "≥ 3 ×, ≥ 8 ×");
        let json = report.to_json();
        assert_eq!(json["measures"][1]["name"], "node-red");
        assert_eq!(json["measures"][1]["utmos_does_times"], 10.0);
        assert_eq!(json["measures"][1]["target_times"], 8.0);
        assert_eq!(json["measures"][0]["utmos_does_times"], Value::Null);
    }

    #[test]
    fn one_wrong_end_at_anybody_makes_the_figures_untrue() {
        let mut report = report();
        assert!(report.is_true());
        report.add(Some(Peer::NodeRed), 64, figures(1.0, None), Judged { right: 9, all: 10 });
        assert!(!report.is_true());
        assert_eq!(report.to_json()["contestants"][1]["commands_right"], 39);
    }

    #[test]
    fn goals_count_at_64_clients() {
        let mut report = report();
        report.add(Some(Peer::NodeRed), 1, figures(500.0, None), Judged::default());
        assert_eq!(report.rows()[0][9], "");
    }
}
