//! Which faults the docks of a race have, drawn from its seed, and what each is called in the report.

use std::time::Duration;

use rand::{RngExt, SeedableRng, rngs::StdRng, seq::SliceRandom};
use utmos_sim::{
    Condition, DockConfig,
    fault::{AnswerField, Fault, FaultPlan, Glob, Incident, Meets, Rule, Trouble},
};

use super::{errand, witness::TOO_LARGE_BYTES};

/// An answer that is late and yet in time.
const LATE_MS: u64 = 600;
/// One that is later than any timeout of the race.
const TOO_LATE_MS: u64 = 7_000;
/// An answer that is large and yet taken.
const LARGE_BYTES: usize = 60_000;
/// How long a dock that loses its connection stays away.
const AWAY_MS: u64 = 200;
const STORM_MS: u64 = 300;
const FLAP_MS: u64 = 150;
const FLAPS: u64 = 2;
/// An acknowledgement that is late, and comes after the answer.
const LATE_ACK_MS: u64 = 400;
const SKEW_SECONDS: i64 = 86_400;
/// Stronger than any aircraft is started in, m/s.
const STORMY: f64 = 15.0;
/// DJI's `rainfall` for heavy rain.
const HEAVY_RAIN: u8 = 3;
/// A battery that starts no flight, and brings home who flies.
const LOW_PERCENT: u8 = 15;
/// Longest that docks are offline: with time to spare, they are back before an answer that was lost with their connection would
/// count as one that the broker swallowed.
const OFFLINE_MS_MAX: i64 = 800;
/// DJI's code for a zone that may not be flown in. No dock of the race refuses with it unless the plan has it do so.
const REFUSAL: i64 = 321_515;
/// Commands without a fault, beside one for each kind of fault.
const UNHARMED: usize = 17;
/// Jobs without a fault, for each that has one.
const JOBS_UNHARMED: usize = 1;
/// One in so many gateways that fly answers as it should.
const SPARED_EVERY: usize = 2;
/// The jobs whose events are meddled with.
pub const JOBS: &str = "cover_*";
/// How often all docks are befallen by each condition.
const ROUND: Duration = Duration::from_secs(60);
/// How long before and after an incident a command counts as touched by it.
const TOUCH_MS: i64 = 500;

/// What met no fault, came there, and was befallen by nothing.
pub const UNHARMED_CLASS: &str = "none";
/// The classes of those that met nothing which keeps an answer from its way.
pub const UNHARMED_CLASSES: [&str; 6] =
    [UNHARMED_CLASS, "wind", "rain", "low_battery", "no_authority", "debug_mode"];
/// What nobody received, although nothing befell all docks or the server.
const UNSENT: &str = "never arrived";
/// Every class of the report, in its order.
pub const CLASSES: [&str; 46] = [
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
    "wind",
    "rain",
    "low_battery",
    "no_authority",
    "debug_mode",
    "aircraft_off",
    "offline",
    UNSENT,
    "never arrived, server killed",
    "never arrived, reconnect_storm",
    "never arrived, topology_flap",
    "never arrived, clock_skew",
    "never arrived, offline",
];

/// What befell all docks while a command was under way, if anything did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Beside {
    Nothing,
    Death,
    Storm,
    Flap,
    Skew,
    Wind,
    Rain,
    LowBattery,
    NoAuthority,
    DebugMode,
    AircraftOff,
    Offline,
}

/// The conditions of a round, in their order.
const CONDITIONS: [Beside; 8] = [
    Beside::Skew,
    Beside::Wind,
    Beside::Offline,
    Beside::NoAuthority,
    Beside::Rain,
    Beside::LowBattery,
    Beside::AircraftOff,
    Beside::DebugMode,
];

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
        let mut flying = 0;
        for (number, dock) in docks.iter().enumerate() {
            if errand::flies(number, dock.model) {
                flying += 1;
                // A movement whose answer is lost keeps others from its aircraft for as long as it may go on. Half of
                // those who fly lose none, so that flights go on.
                if flying % SPARED_EVERY == 0 {
                    continue;
                }
            }
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
            incidents: incidents.iter().filter_map(in_plan).collect(),
        };
        Self { faults, incidents }
    }

    /// What befell the docks while a command was under way. Times are counted from their start.
    pub fn beside(&self, from: i64, until: i64, deaths: &[i64]) -> Beside {
        if deaths.iter().any(|death| from <= *death && *death <= until) {
            return Beside::Death;
        }
        let touches = |(begin, end, what): &&(i64, i64, Beside)| {
            // The weather is over when it is over; what was hidden or away still has to come back.
            let after = if what.is_of_weather() { 0 } else { TOUCH_MS };
            from <= end + after && begin - TOUCH_MS <= until.min(from + TOUCH_MS)
        };
        let mut touched: Vec<Beside> =
            self.incidents.iter().filter(touches).map(|(_, _, what)| *what).collect();
        // Of several, what can keep a command from its dock; then what its dock may refuse it for.
        touched.sort_by_key(|what| (!what.is_of_connections(), !what.is_of_weather()));
        touched.first().copied().unwrap_or(Beside::Nothing)
    }
}

/// Each condition in every round, at a drawn moment of its own part, and behind it a storm or a flap.
fn incidents(dice: &mut StdRng, lead: Duration, time: Duration) -> Vec<(i64, i64, Beside)> {
    let millis = |time: Duration| i64::try_from(time.as_millis()).unwrap_or(i64::MAX);
    let (lead, time) = (millis(lead), millis(time));
    let rounds = (time / millis(ROUND)).max(1);
    let parts = rounds * i64::try_from(CONDITIONS.len()).unwrap_or(1);
    let length = time / parts;
    let mut all = Vec::new();
    for (part, what) in (0..parts).zip(CONDITIONS.into_iter().cycle()) {
        let mut at = |from: i64, until: i64| {
            let (from, until) = (length * from / 100, length * until / 100);
            lead + part * length + dice.random_range(from..=until)
        };
        let (from, until) = (at(8, 14), at(42, 48));
        let until = if what == Beside::Offline { until.min(from + OFFLINE_MS_MAX) } else { until };
        all.push((from, until, what));
        let short = at(75, 85);
        if part % 2 == 0 {
            let storm = i64::try_from(STORM_MS).unwrap_or(0);
            all.push((short, short + storm, Beside::Storm));
        } else {
            let flaps = i64::try_from(FLAP_MS * 2 * FLAPS).unwrap_or(0);
            all.push((short, short + flaps, Beside::Flap));
        }
    }
    all
}

fn in_plan((from, until, what): &(i64, i64, Beside)) -> Option<Incident> {
    let at = |at: i64| u64::try_from(at).unwrap_or(0);
    let trouble = match what.condition() {
        Some(condition) => Trouble::Condition { condition, ms: Some(at(until - from)) },
        None if *what == Beside::Storm => Trouble::ReconnectStorm { ms: STORM_MS, times: 1 },
        None if *what == Beside::Flap => Trouble::TopologyFlap { ms: FLAP_MS, times: FLAPS },
        None => return None,
    };
    Some(Incident { at_ms: at(*from), gateway: None, trouble })
}

impl Beside {
    fn condition(self) -> Option<Condition> {
        match self {
            Self::Nothing | Self::Death | Self::Storm | Self::Flap => None,
            Self::Skew => Some(Condition::ClockSkew { seconds: SKEW_SECONDS }),
            Self::Wind => Some(Condition::Wind { speed: STORMY }),
            Self::Rain => Some(Condition::Rain { level: HEAVY_RAIN }),
            Self::LowBattery => Some(Condition::LowBattery { percent: LOW_PERCENT }),
            Self::NoAuthority => Some(Condition::NoAuthority),
            Self::DebugMode => Some(Condition::DebugMode),
            Self::AircraftOff => Some(Condition::AircraftOff),
            Self::Offline => Some(Condition::Offline),
        }
    }

    /// Whether docks lose their connections to it.
    fn is_of_connections(self) -> bool {
        matches!(self, Self::Storm | Self::Offline)
    }

    /// Whether it changes what docks refuse, and nothing else.
    fn is_of_weather(self) -> bool {
        self.condition().is_some() && !matches!(self, Self::Skew | Self::Offline)
    }
}

/// The class of a command by the fault it met at its dock, by whether it came there, and by what befell all docks.
pub fn class_of(fault: Option<&Fault>, has_arrived: bool, beside: Beside) -> &'static str {
    let Some(fault) = fault else {
        return match (beside, has_arrived) {
            (Beside::Nothing, true) => UNHARMED_CLASS,
            (Beside::Death, true) => "none, server killed",
            (Beside::Death, false) => "never arrived, server killed",
            (Beside::Storm, true) => "reconnect_storm",
            (Beside::Storm, false) => "never arrived, reconnect_storm",
            (Beside::Flap, true) => "topology_flap",
            (Beside::Flap, false) => "never arrived, topology_flap",
            (Beside::Skew, true) => "clock_skew",
            (Beside::Skew, false) => "never arrived, clock_skew",
            (Beside::Offline, true) => "offline",
            (Beside::Offline, false) => "never arrived, offline",
            (Beside::Wind, true) => "wind",
            (Beside::Rain, true) => "rain",
            (Beside::LowBattery, true) => "low_battery",
            (Beside::NoAuthority, true) => "no_authority",
            (Beside::DebugMode, true) => "debug_mode",
            (Beside::AircraftOff, true) => "aircraft_off",
            // They keep no command from its dock.
            (
                Beside::Nothing
                | Beside::Wind
                | Beside::Rain
                | Beside::LowBattery
                | Beside::NoAuthority
                | Beside::DebugMode
                | Beside::AircraftOff,
                false,
            ) => UNSENT,
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
        | Fault::MissingField(AnswerField::Timestamp) => true,
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

    use utmos_sim::fault::KINDS;

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
        let plan = plan(1, 9);
        let faults = plan.faults.rules.iter().map(|rule| &rule.fault);
        let mut classes: BTreeSet<&str> =
            faults.map(|fault| class_of(Some(fault), true, Beside::Nothing)).collect();
        classes.extend(plan.incidents.iter().map(|(_, _, what)| class_of(None, true, *what)));
        for kind in KINDS {
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
