//! What a race came to, as a table and as JSON.

use std::{collections::BTreeMap, net::SocketAddr, time::Duration};

use serde_json::{Value, json};

use super::{
    judge::{Lie, Verdict, Why},
    plan::{CLASSES, UNHARMED_CLASSES},
};
use crate::{command::bench::report::Middle, output};

/// Commands that met nothing and read as unknown all the same: their dock lost its connection through another command's fault.
/// More than one in so many of their class, or than so many of a few, are answers that somebody else loses.
const UNEXPLAINED_ONE_IN: u64 = 100;
const UNEXPLAINED_OF_FEW: u64 = 10;
/// Wrong commands that are shown; all are in the JSON.
const SHOWN_MAX: usize = 20;

/// How many commands were judged how.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Count {
    pub exact: u64,
    pub unknown: u64,
    pub wrong: u64,
}

/// A command whose story is not true, with all that is known of it.
#[derive(Debug, Clone, PartialEq)]
pub struct WrongOne {
    pub id: String,
    pub class: &'static str,
    pub lie: Lie,
    pub details: Value,
}

/// Everything that was found.
#[derive(Debug, Default)]
pub struct Report {
    pub seed: u64,
    pub rate: f64,
    pub time: Duration,
    pub kill_every: Duration,
    pub docks: u32,
    /// Requests that were begun at their intended time.
    pub asked: u64,
    pub accepted: u64,
    pub busy: u64,
    /// Requests refused for another reason, by status and code.
    pub refused: BTreeMap<String, u64>,
    pub unanswered: u64,
    pub repeats: u64,
    pub replays: u64,
    /// From the first intended time to the last answer.
    pub took: Duration,
    /// From each killed server to the next that was ready, in milliseconds.
    pub restarts: Vec<f64>,
    pub classes: BTreeMap<&'static str, Count>,
    /// The same by the gateway's model.
    pub models: BTreeMap<&'static str, Count>,
    /// The broker that is not the race's own.
    pub broker: Option<SocketAddr>,
    /// What the servers work with, by its key.
    pub engine: &'static str,
    pub servers: u8,
    /// States and codes, and how often.
    pub ends: BTreeMap<String, u64>,
    /// With which codes docks refused commands, and how often the platform says just that; and with which their jobs ended
    /// badly, where the platform says that they did.
    pub codes: BTreeMap<i64, u64>,
    pub why: BTreeMap<Why, u64>,
    pub wrong: Vec<WrongOne>,
    /// Accepted and not on record.
    pub lost: u64,
    /// On record, and nobody was told of them.
    pub untold: u64,
    pub unended: u64,
    /// Received more than once.
    pub doubled: u64,
    /// Received after their deadline.
    pub stale: u64,
    /// Received by a dock and not on record.
    pub unasked: u64,
    /// The longest time that a server had an answer and was killed before it stored it.
    pub lost_for_ms: Option<i64>,
    /// Processor time others used, from 0 to 1.
    pub others: f64,
}

impl Count {
    fn add(&mut self, verdict: Verdict) {
        match verdict {
            Verdict::Exact => self.exact += 1,
            Verdict::Unknown(_) => self.unknown += 1,
            Verdict::Wrong(_) => self.wrong += 1,
        }
    }

    fn all(self) -> u64 {
        self.exact + self.unknown + self.wrong
    }

    fn to_json(self, name: &str, value: &str) -> Value {
        json!({
            name: value,
            "commands": self.all(),
            "exact": self.exact,
            "unknown_rightly": self.unknown,
            "wrong": self.wrong,
        })
    }
}

fn sum<'c>(counts: impl Iterator<Item = &'c Count>) -> Count {
    counts.fold(Count::default(), |sum, one| Count {
        exact: sum.exact + one.exact,
        unknown: sum.unknown + one.unknown,
        wrong: sum.wrong + one.wrong,
    })
}

impl Report {
    /// Counts a judged command of a gateway of this model.
    pub fn count_at(&mut self, model: &'static str, verdict: Verdict) {
        self.models.entry(model).or_default().add(verdict);
    }

    /// Counts a judged command.
    pub fn count(&mut self, class: &'static str, verdict: Verdict) {
        self.classes.entry(class).or_default().add(verdict);
        match verdict {
            Verdict::Exact => {}
            Verdict::Unknown(why) => *self.why.entry(why).or_default() += 1,
            Verdict::Wrong(lie) => {
                self.unended += u64::from(lie == Lie::Unended);
                self.doubled += u64::from(lie == Lie::Twice);
            }
        }
    }

    fn total(&self) -> Count {
        sum(self.classes.values())
    }

    /// Commands that met nothing that keeps an answer, and of which nobody knows, where they are more than may be.
    fn unexplained(&self) -> u64 {
        let count = sum(UNHARMED_CLASSES.iter().filter_map(|class| self.classes.get(class)));
        let most = UNEXPLAINED_OF_FEW.max(count.all() / UNEXPLAINED_ONE_IN);
        if count.unknown > most { count.unknown } else { 0 }
    }

    /// What must not be, and how often it was.
    fn faults(&self) -> [(&'static str, u64); 9] {
        [
            ("wrong", self.total().wrong),
            ("lost", self.lost + self.unended),
            ("doubled", self.doubled),
            ("stale", self.stale),
            ("unanswered", self.unanswered),
            ("refused", self.refused.values().sum()),
            ("untold", self.untold),
            ("unasked", self.unasked),
            ("unexplained", self.unexplained()),
        ]
    }

    /// Whether every command's final state was true and nothing else was amiss. A race without commands proves nothing.
    pub fn is_true(&self) -> bool {
        self.total() != Count::default() && self.faults().iter().all(|(_, count)| *count == 0)
    }

    pub fn print(&self) {
        let total = self.total();
        let row = |class: &str, count: &Count| {
            let all = count.exact + count.unknown + count.wrong;
            let cells = [all, count.exact, count.unknown, count.wrong].map(|n| n.to_string());
            let [all, exact, unknown, wrong] = cells;
            [class.to_owned(), all, exact, unknown, wrong]
        };
        let none = Count::default();
        let rows = CLASSES.iter().map(|class| row(class, self.classes.get(class).unwrap_or(&none)));
        let rows: Vec<[String; 5]> = rows.chain([row("all", &total)]).collect();
        output::table(["FAULT", "COMMANDS", "EXACT", "UNKNOWN, RIGHTLY", "WRONG"], &rows);
        output::line(format_args!(
            "\nrace score: {:.3} % of {} commands ended as their dock says ({:.3} % exactly, {:.3} % rightly unknown)",
            share(total.exact + total.unknown, total),
            total.exact + total.unknown + total.wrong,
            share(total.exact, total),
            share(total.unknown, total),
        ));
        let faults = self.faults().map(|(name, count)| format!("{name} {count}"));
        output::line(faults.join(", "));
        let per_second = |count: u64| count as f64 / self.time.as_secs_f64().max(f64::MIN_POSITIVE);
        output::line(format_args!(
            "requests: {} in {:?}, {:.1}/s; accepted {}, {:.1}/s; refused as busy {}; asked again {} times, {} of them were \
             on record",
            self.asked,
            self.time,
            per_second(self.asked),
            self.accepted,
            per_second(self.accepted),
            self.busy,
            self.repeats,
            self.replays
        ));
        for (model, count) in &self.models {
            output::line(format_args!(
                "{model}: {} commands, {} exactly, {} rightly unknown, {} wrong",
                count.all(),
                count.exact,
                count.unknown,
                count.wrong
            ));
        }
        for (reason, count) in &self.refused {
            output::line(format_args!("refused {reason}: {count}"));
        }
        if let Some(Middle { median, max, .. }) = self.restart_times() {
            output::line(format_args!(
                "server killed {} times; ready again after {median:.0} ms (median), {max:.0} ms at most",
                self.restarts.len()
            ));
        }
        let why = |why: Why| self.why.get(&why).copied().unwrap_or(0);
        let died = self
            .lost_for_ms
            .map_or_else(String::new, |millis| format!(" (taken up to {millis} ms before)"));
        output::line(format_args!(
            "unknown because the dock told nothing {}, nothing readable {}, what is too large to be taken {}, or too late \
             {}; because its connection was lost {}, or the server that had the answer was killed {}{died}",
            why(Why::NothingTold),
            why(Why::Unreadable),
            why(Why::TooLarge),
            why(Why::TooLate),
            why(Why::LostOnTheWay),
            why(Why::DiedWithServer),
        ));
        for (end, count) in &self.ends {
            output::line(format_args!("{end}: {count}"));
        }
        let codes: Vec<String> =
            self.codes.iter().map(|(code, count)| format!("{code}: {count}")).collect();
        output::line(format_args!("refused or failed with: {}", codes.join(", ")));
        output::line(format_args!(
            "processor time that neither the server nor this program used: {:.0} %",
            self.others * 100.0
        ));
        for one in self.wrong.iter().take(SHOWN_MAX) {
            output::note(format_args!(
                "wrong: {} ({}): {}: {}",
                one.id,
                one.class,
                one.lie.text(),
                one.details
            ));
        }
        if SHOWN_MAX < self.wrong.len() {
            output::note(format_args!("and {} more", self.wrong.len() - SHOWN_MAX));
        }
    }

    fn restart_times(&self) -> Option<Middle> {
        Middle::of(self.restarts.iter().copied())
    }

    pub fn to_json(&self) -> Value {
        let total = self.total();
        let classes: Vec<Value> = CLASSES
            .iter()
            .map(|class| {
                self.classes.get(class).copied().unwrap_or_default().to_json("fault", class)
            })
            .collect();
        let models = self.models.iter().map(|(model, count)| count.to_json("model", model));
        let models: Vec<Value> = models.collect();
        let wrong: Vec<Value> = self
            .wrong
            .iter()
            .map(|one| {
                json!({"command_id": one.id, "fault": one.class, "why": one.lie.text(), "details": one.details})
            })
            .collect();
        let why: BTreeMap<&str, u64> = Why::ALL
            .iter()
            .map(|why| (why.key(), self.why.get(why).copied().unwrap_or(0)))
            .collect();
        let restarts = self.restart_times();
        json!({
            "version": env!("CARGO_PKG_VERSION"),
            "seed": self.seed,
            "rate": self.rate,
            "seconds": self.time.as_secs_f64(),
            "kill_every_seconds": self.kill_every.as_secs_f64(),
            "docks": self.docks,
            "is_true": self.is_true(),
            "score_percent": share(total.exact + total.unknown, total),
            "commands": total.exact + total.unknown + total.wrong,
            "exact": total.exact,
            "unknown_rightly": total.unknown,
            "wrong": total.wrong,
            "lost": self.lost + self.unended,
            "doubled": self.doubled,
            "stale": self.stale,
            "unanswered": self.unanswered,
            "untold": self.untold,
            "unasked": self.unasked,
            "unexplained": self.unexplained(),
            "refused": self.refused,
            "requests": self.asked,
            "accepted": self.accepted,
            "refused_as_busy": self.busy,
            "asked_again": self.repeats,
            "on_record_when_asked_again": self.replays,
            "answered_after_seconds": self.took.as_secs_f64(),
            "restarts": self.restarts.len(),
            "restart_ms_median": restarts.map(|times| times.median),
            "restart_ms_max": restarts.map(|times| times.max),
            "unknown_because": why,
            "answer_lost_with_server_ms_max": self.lost_for_ms,
            "ends": self.ends,
            "codes": self.codes,
            "share_of_processors_used_by_others": self.others,
            "engine": self.engine,
            "servers": self.servers,
            "broker": self.broker.map_or_else(|| "own".to_owned(), |broker| broker.to_string()),
            "faults": classes,
            "models": models,
            "wrong_commands": wrong,
        })
    }
}

fn share(part: u64, of: Count) -> f64 {
    part as f64 * 100.0 / (of.exact + of.unknown + of.wrong).max(1) as f64
}

#[cfg(test)]
mod tests {
    use super::{super::plan::UNHARMED_CLASS, *};

    fn good() -> Report {
        let mut report = Report::default();
        report.count("none", Verdict::Exact);
        report.count("silent", Verdict::Unknown(Why::NothingTold));
        report
    }

    #[test]
    fn a_race_is_true_when_nothing_at_all_is_amiss() {
        assert!(good().is_true());
        assert!(!Report::default().is_true(), "nothing was proved");
        let spoilt: [fn(&mut Report); 8] = [
            |report| report.count("none", Verdict::Wrong(Lie::NotDone)),
            |report| report.lost += 1,
            |report| report.unended += 1,
            |report| report.stale += 1,
            |report| report.unanswered += 1,
            |report| report.untold += 1,
            |report| report.unasked += 1,
            |report| *report.refused.entry("401 UNAUTHORIZED".to_owned()).or_default() += 1,
        ];
        for spoil in spoilt {
            let mut report = good();
            spoil(&mut report);
            assert!(!report.is_true(), "{report:?}");
        }
    }

    /// A server that loses one answer in forty, and whose docks lose their connections often enough to explain each.
    #[test]
    fn a_race_in_which_too_many_unharmed_commands_are_unknown_is_not_true() {
        let mut report = good();
        for _ in 0..=UNEXPLAINED_OF_FEW {
            report.count(UNHARMED_CLASS, Verdict::Unknown(Why::LostOnTheWay));
        }
        assert!(!report.is_true(), "{report:?}");
        assert_eq!(report.to_json()["unexplained"], json!(UNEXPLAINED_OF_FEW + 1));
        // Few of many.
        for _ in 0..UNEXPLAINED_ONE_IN * (UNEXPLAINED_OF_FEW + 1) {
            report.count(UNHARMED_CLASS, Verdict::Exact);
        }
        assert!(report.is_true(), "{report:?}");
        // What a fault explains.
        for _ in 0..=UNEXPLAINED_OF_FEW {
            report.count("silent", Verdict::Unknown(Why::NothingTold));
        }
        assert!(report.is_true(), "{report:?}");
    }

    #[test]
    fn the_json_has_every_class_and_the_sums() {
        let mut report = good();
        report.count("huge", Verdict::Wrong(Lie::Twice));
        report.restarts = vec![30.0, 10.0, 20.0];
        let json = report.to_json();
        assert_eq!(json["faults"].as_array().map(Vec::len), Some(CLASSES.len()));
        assert_eq!(
            (&json["commands"], &json["wrong"], &json["doubled"]),
            (&json!(3), &json!(1), &json!(1))
        );
        assert_eq!(
            (&json["restart_ms_median"], &json["restart_ms_max"]),
            (&json!(20.0), &json!(30.0))
        );
        assert_eq!(json["is_true"], json!(false));
    }
}
