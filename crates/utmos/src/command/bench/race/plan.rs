//! Which faults the docks of a race have, drawn from its seed, and what each is called in the report.

use std::time::Duration;

use rand::{RngExt, SeedableRng, rngs::StdRng, seq::SliceRandom};
use utmos_sim::{
    Condition, DockConfig,
    fault::{AnswerField, Fault, FaultPlan, Glob, Incident, Meets, Rule, Trouble},
};

/// An answer that is late and yet in time.
const LATE_MS: u64 = 600;
/// One that is later than any timeout of the race.
const TOO_LATE_MS: u64 = 7_000;
/// An answer that is large and yet taken.
const LARGE_BYTES: usize = 60_000;
const TOO_LARGE_BYTES: usize = 2 * 1024 * 1024;
/// How long a dock that loses its connection stays away.
const AWAY_MS: u64 = 200;
const STORM_MS: u64 = 300;
const FLAP_MS: u64 = 300;
const FLAPS: u64 = 2;
/// An acknowledgement that is late, and comes after the answer.
const LATE_ACK_MS: u64 = 400;
const SKEW_SECONDS: i64 = 86_400;
/// DJI's "too strong wind".
const REFUSAL: i64 = 514_134;
/// Commands without a fault, beside one for each kind of fault.
const UNHARMED: usize = 17;
/// Jobs without a fault, for each that has one.
const JOBS_UNHARMED: usize = 1;
/// The jobs whose events are meddled with.
pub const JOBS: &str = "cover_*";
/// How often all docks are befallen by something.
const ROUND: Duration = Duration::from_secs(20);
/// How long before and after an incident a command counts as touched by it.
const TOUCH_MS: i64 = 500;

/// What met no fault, came there, and was befallen by nothing.
pub const UNHARMED_CLASS: &str = "none";
/// What nobody received, although nothing befell all docks or the server.
pub const UNSENT: &str = "never arrived";
/// Every class of the report, in its order.
pub const CLASSES: [&str; 39] = [
    UNHARMED_CLASS,
    "none, server killed",
    "late, in time",
    "late, too late",
    "never",
    "silent",
    "duplicate",
    "wrong_tid",
    "wrong_bid",
    "wrong_method",
    "wrong_gateway",
    "result",
    "string_numbers",
    "missing_field result",
    "missing_field tid",
    "missing_field bid",
    "missing_field method",
    "missing_field data",
    "missing_field timestamp",
    "missing_field gateway",
    "truncated",
    "binary",
    "huge, taken",
    "huge",
    "disconnect",
    "early",
    "late_ack",
    "no_ack",
    "progress_out_of_order",
    "progress_stops",
    "resend_events",
    "reconnect_storm",
    "topology_flap",
    "clock_skew",
    UNSENT,
    "never arrived, server killed",
    "never arrived, reconnect_storm",
    "never arrived, topology_flap",
    "never arrived, clock_skew",
];

/// What befell all docks while a command was under way, if anything did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Beside {
    Nothing,
    Death,
    Storm,
    Flap,
    Skew,
}

/// The faults of one race.
#[derive(Debug, Clone)]
pub struct Plan {
    pub faults: FaultPlan,
    /// From and until when, in milliseconds since the docks were started.
    incidents: Vec<(i64, i64, Beside)>,
}

/// The faults of answers, each once.
fn of_answers() -> Vec<Fault> {
    let missing = AnswerField::ALL.into_iter().map(Fault::MissingField);
    [
        Fault::Late { ms: LATE_MS },
        Fault::Late { ms: TOO_LATE_MS },
        Fault::Never,
        Fault::Silent,
        Fault::Duplicate,
        Fault::WrongTid,
        Fault::WrongBid,
        Fault::WrongMethod,
        Fault::WrongGateway { sn: None },
        Fault::Result { code: REFUSAL },
        Fault::StringNumbers,
        Fault::Truncated,
        Fault::Binary,
        Fault::Huge { bytes: LARGE_BYTES },
        Fault::Huge { bytes: TOO_LARGE_BYTES },
        Fault::Disconnect { ms: AWAY_MS },
        Fault::Early,
        Fault::LateAck { ms: LATE_ACK_MS },
        Fault::NoAck,
    ]
    .into_iter()
    .chain(missing)
    .collect()
}

impl Plan {
    /// Draws a plan for docks that get `each` commands, in `time` after a lead of `lead`. The first command of each dock
    /// prepares it, and meets no fault.
    pub fn draw(
        seed: u64,
        docks: &[DockConfig],
        each: usize,
        lead: Duration,
        time: Duration,
    ) -> Self {
        let mut dice = StdRng::seed_from_u64(seed);
        let mut answers: Vec<Option<Fault>> = of_answers().into_iter().map(Some).collect();
        answers.resize(answers.len() + UNHARMED, None);
        answers.shuffle(&mut dice);
        let jobs = [Fault::ProgressOutOfOrder, Fault::ProgressStops, Fault::ResendEvents];
        let mut jobs: Vec<Option<Fault>> = jobs.into_iter().map(Some).collect();
        jobs.resize(jobs.len() * (1 + JOBS_UNHARMED), None);
        jobs.shuffle(&mut dice);
        let mut rules = Vec::new();
        for (number, dock) in docks.iter().enumerate() {
            // Each dock begins elsewhere, so that a short race meets all faults too.
            let mut put = |cycle: &[Option<Fault>], method: Option<&str>, first: u64| {
                let start = number * cycle.len() / docks.len().max(1);
                let faults = cycle.iter().cycle().skip(start).take(each);
                rules.extend((first..).zip(faults).filter_map(|(nth, fault)| {
                    let meets = Meets {
                        gateway: Some(dock.sn.clone()),
                        method: method.map(Glob::new),
                        nth: Some(nth),
                        probability: None,
                    };
                    fault.clone().map(|fault| Rule { meets, fault })
                }));
            };
            put(&jobs, Some(JOBS), 1);
            put(&answers, None, 2);
        }
        let incidents = incidents(&mut dice, lead, time);
        let faults = FaultPlan {
            seed: Some(seed),
            rules,
            incidents: incidents.iter().flat_map(in_plan).collect(),
        };
        Self { faults, incidents }
    }

    /// What befell the docks while a command was under way. Times are counted from their start.
    pub fn beside(&self, from: i64, until: i64, deaths: &[i64]) -> Beside {
        if deaths.iter().any(|death| from <= *death && *death <= until) {
            return Beside::Death;
        }
        let touched = self.incidents.iter().find(|(begin, end, _)| {
            from <= end + TOUCH_MS && begin - TOUCH_MS <= until.min(from + TOUCH_MS)
        });
        touched.map_or(Beside::Nothing, |(_, _, what)| *what)
    }
}

/// One of each in every round, at a drawn moment of its own part.
fn incidents(dice: &mut StdRng, lead: Duration, time: Duration) -> Vec<(i64, i64, Beside)> {
    let millis = |time: Duration| i64::try_from(time.as_millis()).unwrap_or(i64::MAX);
    let (lead, time) = (millis(lead), millis(time));
    let rounds = (time / millis(ROUND)).max(1);
    let length = time / rounds;
    let mut all = Vec::new();
    for round in 0..rounds {
        let mut part = |from: i64, until: i64| {
            let (from, until) = (length * from / 100, length * until / 100);
            lead + round * length + dice.random_range(from..=until)
        };
        let storm = part(15, 25);
        all.push((storm, storm + i64::try_from(STORM_MS).unwrap_or(0), Beside::Storm));
        let flap = part(40, 50);
        let flaps = i64::try_from(FLAP_MS * 2 * FLAPS).unwrap_or(0);
        all.push((flap, flap + flaps, Beside::Flap));
        all.push((part(65, 70), part(85, 90), Beside::Skew));
    }
    all
}

fn in_plan((from, until, what): &(i64, i64, Beside)) -> Vec<Incident> {
    let at = |at: i64| u64::try_from(at).unwrap_or(0);
    let one = |trouble| vec![Incident { at_ms: at(*from), gateway: None, trouble }];
    match what {
        Beside::Storm => one(Trouble::ReconnectStorm { ms: STORM_MS, times: 1 }),
        Beside::Flap => one(Trouble::TopologyFlap { ms: FLAP_MS, times: FLAPS }),
        Beside::Skew => one(Trouble::Condition {
            condition: Condition::ClockSkew { seconds: SKEW_SECONDS },
            ms: Some(at(until - from)),
        }),
        Beside::Nothing | Beside::Death => Vec::new(),
    }
}

/// The class of a command by the fault it met at its dock, by whether it came there, and by what befell all docks.
pub fn class_of(fault: Option<&Fault>, has_arrived: bool, beside: Beside) -> &'static str {
    let Some(fault) = fault else {
        return match (has_arrived, beside) {
            (true, Beside::Nothing) => UNHARMED_CLASS,
            (true, Beside::Death) => "none, server killed",
            (true, Beside::Storm) => "reconnect_storm",
            (true, Beside::Flap) => "topology_flap",
            (true, Beside::Skew) => "clock_skew",
            (false, Beside::Nothing) => UNSENT,
            (false, Beside::Death) => "never arrived, server killed",
            (false, Beside::Storm) => "never arrived, reconnect_storm",
            (false, Beside::Flap) => "never arrived, topology_flap",
            (false, Beside::Skew) => "never arrived, clock_skew",
        };
    };
    match fault {
        Fault::Late { ms } if *ms < TOO_LATE_MS => "late, in time",
        Fault::Late { .. } => "late, too late",
        Fault::Never => "never",
        Fault::Silent => "silent",
        Fault::Duplicate => "duplicate",
        Fault::WrongTid => "wrong_tid",
        Fault::WrongBid => "wrong_bid",
        Fault::WrongMethod => "wrong_method",
        Fault::WrongGateway { .. } => "wrong_gateway",
        Fault::Result { .. } => "result",
        Fault::StringNumbers => "string_numbers",
        Fault::MissingField(AnswerField::Result) => "missing_field result",
        Fault::MissingField(AnswerField::Tid) => "missing_field tid",
        Fault::MissingField(AnswerField::Bid) => "missing_field bid",
        Fault::MissingField(AnswerField::Method) => "missing_field method",
        Fault::MissingField(AnswerField::Data) => "missing_field data",
        Fault::MissingField(AnswerField::Timestamp) => "missing_field timestamp",
        Fault::MissingField(AnswerField::Gateway) => "missing_field gateway",
        Fault::Truncated => "truncated",
        Fault::Binary => "binary",
        Fault::Huge { bytes } if *bytes < TOO_LARGE_BYTES => "huge, taken",
        Fault::Huge { .. } => "huge",
        Fault::Disconnect { .. } => "disconnect",
        Fault::Early => "early",
        Fault::LateAck { .. } => "late_ack",
        Fault::NoAck => "no_ack",
        Fault::ProgressOutOfOrder => "progress_out_of_order",
        Fault::ProgressStops => "progress_stops",
        Fault::ResendEvents => "resend_events",
    }
}

/// Whether a dock that met this, or nothing, says how a command ended, in words that are its own and are read.
pub fn leaves_an_answer(fault: Option<&Fault>) -> bool {
    let Some(fault) = fault else { return true };
    match fault {
        Fault::Duplicate
        | Fault::Result { .. }
        | Fault::StringNumbers
        | Fault::Early
        | Fault::LateAck { .. }
        | Fault::ProgressOutOfOrder
        | Fault::ResendEvents
        | Fault::MissingField(AnswerField::Timestamp | AnswerField::Gateway) => true,
        Fault::Late { .. }
        | Fault::Never
        | Fault::Silent
        | Fault::WrongTid
        | Fault::WrongBid
        | Fault::WrongMethod
        | Fault::WrongGateway { .. }
        | Fault::MissingField(
            AnswerField::Result
            | AnswerField::Tid
            | AnswerField::Bid
            | AnswerField::Method
            | AnswerField::Data,
        )
        | Fault::Truncated
        | Fault::Binary
        | Fault::Huge { .. }
        | Fault::Disconnect { .. }
        | Fault::NoAck
        | Fault::ProgressStops => false,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use utmos_sim::fault::{KINDS, KindName, Sort};

    use super::*;

    const LEAD: Duration = Duration::from_secs(3);

    fn docks(count: u32) -> Vec<DockConfig> {
        (1..=count).map(|number| DockConfig::numbered(1, number)).collect()
    }

    fn plan(seed: u64, each: usize) -> Plan {
        Plan::draw(seed, &docks(10), each, LEAD, Duration::from_secs(60))
    }

    #[test]
    fn every_kind_of_fault_is_in_a_plan_and_has_its_class() {
        let plan = plan(1, 8);
        let faults = plan.faults.rules.iter().map(|rule| &rule.fault);
        let mut classes: BTreeSet<&str> =
            faults.map(|fault| class_of(Some(fault), true, Beside::Nothing)).collect();
        classes.extend(plan.incidents.iter().map(|(_, _, what)| class_of(None, true, *what)));
        // Weather and the like change what a dock refuses, and no answer: that is "result".
        let is_raced = |kind: &KindName| kind.sort != Sort::Condition || kind.name == "clock_skew";
        for kind in KINDS.into_iter().filter(is_raced) {
            assert!(classes.iter().any(|class| class.starts_with(kind.name)), "{}", kind.name);
        }
        assert!(classes.iter().all(|class| CLASSES.contains(class)), "{classes:?}");
        let is_fault = |class: &&&str| !class.starts_with("none") && !class.starts_with("never a");
        let planned = CLASSES.iter().filter(is_fault).count();
        assert_eq!(classes.iter().filter(is_fault).count(), planned);
    }

    #[test]
    fn the_first_command_of_a_dock_meets_no_fault() {
        let plan = plan(1, 100);
        let first = |rule: &&Rule| rule.meets.nth == Some(1) && rule.meets.method.is_none();
        assert_eq!(plan.faults.rules.iter().filter(first).count(), 0);
    }

    #[test]
    fn a_seed_fixes_a_plan() {
        assert_eq!(plan(7, 30).faults, plan(7, 30).faults);
        assert_ne!(plan(7, 30).faults, plan(8, 30).faults);
    }

    #[test]
    fn a_command_is_touched_by_what_befell_the_docks_when_it_came() {
        let plan = plan(1, 1);
        let (from, until, what) = plan.incidents[0];
        assert_eq!(plan.beside(from - 10, from, &[]), what);
        assert_eq!(plan.beside(until, until + 10, &[]), what);
        assert_eq!(plan.beside(from - 5_000, from + 5_000, &[]), Beside::Nothing);
        assert_eq!(plan.beside(until + 600, until + 700, &[]), Beside::Nothing);
        assert_eq!(plan.beside(from, from + 10, &[from + 5]), Beside::Death);
    }
}
