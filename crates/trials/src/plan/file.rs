//! A plan as it stands in a file.

use std::{fmt, ops::RangeInclusive};

use serde_json::Value;

use super::{Broker, Lines, Plan, Tidings, VERSION, What, Wish, place::line_of};

/// Most docks of a trial.
const DOCKS: RangeInclusive<u64> = 1..=16;
/// Most servers that share a store.
const SERVERS: RangeInclusive<u64> = 1..=8;
/// Room of an emergency journal, in KiB: less holds no emergency, more is more than any trial writes.
const JOURNAL_KIB: RangeInclusive<u64> = 8..=1_024;
/// Most happenings of a trial.
const HAPPENINGS_MAX: usize = 10_000;
/// An hour, in milliseconds: longest for whatever a plan says of times.
const MS: RangeInclusive<u64> = 0..=3_600_000;
/// Most callers that ask for the same.
const COPIES: RangeInclusive<u64> = 1..=64;
/// Longest patience of a caller, in seconds: that of the API.
const TIMEOUT: RangeInclusive<u64> = 1..=255;
/// A year, in milliseconds: farthest that a clock jumps.
const JUMP_MS_MAX: u64 = 31_536_000_000;

/// Why a text is no plan.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PlanError {
    /// No JSON.
    NotJson(String),
    /// Another program's plan.
    OtherVersion(String),
    /// JSON that says something else.
    NotAPlan {
        /// The field, such as `happenings[3].what`, or the plan as a whole.
        field: String,
        /// What is wrong with it, and at which line and column.
        problem: String,
    },
    /// A value that does not fit.
    BadField {
        /// Its place, such as `happenings[3].what.dock_leaves.wait`.
        field: String,
        /// What it must be.
        problem: String,
        /// Where it stands; nothing where it is left out.
        line: Option<usize>,
    },
}

impl fmt::Display for PlanError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotJson(why) => write!(f, "it is not JSON: {why}"),
            Self::OtherVersion(version) => write!(
                f,
                "it is of version {version}, this program runs version {VERSION}; run it with the program that wrote it"
            ),
            Self::NotAPlan { field, problem } if field == "." => {
                write!(f, "it is no plan: {problem}")
            }
            Self::NotAPlan { field, problem } => write!(f, "it is no plan: {field}: {problem}"),
            Self::BadField { field, problem, line: None } => write!(f, "{field}: {problem}"),
            Self::BadField { field, problem, line: Some(line) } => {
                write!(f, "{field}: {problem} at line {line}")
            }
        }
    }
}

impl std::error::Error for PlanError {}

impl Plan {
    /// Reads a plan.
    ///
    /// # Errors
    /// When the text is no plan, or one that no trial could follow to its end; names the field and its line.
    pub fn read(text: &str) -> Result<Self, PlanError> {
        let value: Value =
            serde_json::from_str(text).map_err(|err| PlanError::NotJson(err.to_string()))?;
        let version = value.get("version").unwrap_or(&Value::Null);
        if *version != VERSION {
            return Err(PlanError::OtherVersion(version.to_string()));
        }
        // From the text, which has lines.
        let reader = &mut serde_json::Deserializer::from_str(text);
        let plan: Self = serde_path_to_error::deserialize(reader).map_err(|err| {
            let (field, problem) = (err.path().to_string(), err.inner().to_string());
            PlanError::NotAPlan { field, problem }
        })?;
        plan.examine().map_err(|Bad { field, problem }| PlanError::BadField {
            line: line_of(text, &field),
            field,
            problem,
        })?;
        Ok(plan)
    }

    /// The plan as [`Plan::read`] reads it.
    #[must_use]
    pub fn write(&self) -> String {
        serde_json::to_string(self).unwrap_or_default()
    }

    fn examine(&self) -> Result<(), Bad> {
        within("docks", self.docks.into(), &DOCKS)?;
        within("servers", self.servers.into(), &SERVERS)?;
        within("journal_kib", self.journal_kib.into(), &JOURNAL_KIB)?;
        if self.broker == Broker::Embedded && self.commands_stray {
            let problem =
                "must be false where the broker is embedded: its connections keep their order";
            return Err(bad("commands_stray", problem.to_owned()));
        }
        if self.broker == Broker::Embedded && self.servers != 1 {
            let problem = "must be 1 where the broker is embedded: each server has its own";
            return Err(bad("servers", problem.to_owned()));
        }
        if self.servers == 1 && self.tidings != Tidings::None {
            let problem = "must be left out where there is one server: nobody would hear it";
            return Err(bad("tidings", problem.to_owned()));
        }
        if self.servers == 1 && self.lines != Lines::None {
            let problem = "must be left out where there is one server: there is nobody to ask";
            return Err(bad("lines", problem.to_owned()));
        }
        let clocks = self.clocks_apart.len();
        if clocks > 0 && (self.servers == 1 || clocks != usize::from(self.servers)) {
            let problem =
                "must name the clock of each server, where there are several, or be left out";
            return Err(bad("clocks_apart", problem.to_owned()));
        }
        for (number, ahead) in self.clocks_apart.iter().enumerate() {
            let field = format!("clocks_apart[{number}]");
            within(field, ahead.unsigned_abs(), &(0..=JUMP_MS_MAX))?;
        }
        if HAPPENINGS_MAX < self.happenings.len() {
            return Err(bad("happenings", format!("must be at most {HAPPENINGS_MAX}")));
        }
        for (number, happening) in self.happenings.iter().enumerate() {
            let name = happening.what.name();
            let at = |field: &str| format!("happenings[{number}].what.{name}.{field}");
            let ms = |field: &str, value: u64| within(at(field), value, &MS);
            let one_of = |field: &str, number: u8, count: u8| {
                within(at(field), number.into(), &(0..=u64::from(count) - 1))
            };
            let dock = |dock: u8| one_of("dock", dock, self.docks);
            within(format!("happenings[{number}].at"), happening.at, &MS)?;
            match &happening.what {
                What::Command(wish) => {
                    dock(wish.dock)?;
                    one_of("aircraft", wish.aircraft, self.docks)?;
                    examine_wish(wish, &at)?;
                }
                What::DockLeaves { dock: which, wait } => {
                    dock(*which)?;
                    ms("wait", *wait)?;
                }
                What::StoreFails { wait, lies, reads: _ } => {
                    ms("wait", *wait)?;
                    within(at("lies"), (*lies).into(), &(0..=100))?;
                }
                What::StoreSlows { wait, by } | What::JournalSlows { wait, by } => {
                    ms("wait", *wait)?;
                    ms("by", *by)?;
                }
                What::JournalDamaged { server, at: place } => {
                    one_of("server", *server, self.servers)?;
                    within(at("at"), (*place).into(), &(0..=100))?;
                }
                What::RowDamaged => {}
                What::ServerDies { server, wait }
                | What::LinkCut { server, wait }
                | What::ServerStandsStill { server, wait }
                | What::ServerCutOff { server, wait } => {
                    one_of("server", *server, self.servers)?;
                    ms("wait", *wait)?;
                }
                What::BrokerFalls { wait }
                | What::MachineRestarts { wait }
                | What::JournalFails { wait } => ms("wait", *wait)?,
                What::ClockJumps { by } => within(at("by"), by.unsigned_abs(), &(0..=JUMP_MS_MAX))?,
            }
        }
        Ok(())
    }
}

fn examine_wish(wish: &Wish, at: &dyn Fn(&str) -> String) -> Result<(), Bad> {
    within(at("timeout"), wish.timeout.into(), &TIMEOUT)?;
    within(at("copies"), wish.copies.into(), &COPIES)?;
    within(at("copying.every"), wish.copying.map_or(0, |copying| copying.every), &MS)?;
    within(at("cancelled_after"), wish.cancelled_after.unwrap_or(0), &MS)?;
    within(at("asks_later"), wish.asks_later.unwrap_or(0), &MS)?;
    within(at("after"), wish.after, &MS)
}

impl What {
    /// As it is called in a file.
    fn name(&self) -> &'static str {
        match self {
            Self::Command(_) => "command",
            Self::DockLeaves { .. } => "dock_leaves",
            Self::BrokerFalls { .. } => "broker_falls",
            Self::StoreFails { .. } => "store_fails",
            Self::JournalFails { .. } => "journal_fails",
            Self::JournalSlows { .. } => "journal_slows",
            Self::JournalDamaged { .. } => "journal_damaged",
            Self::RowDamaged => "row_damaged",
            Self::StoreSlows { .. } => "store_slows",
            Self::ServerDies { .. } => "server_dies",
            Self::ServerCutOff { .. } => "server_cut_off",
            Self::ServerStandsStill { .. } => "server_stands_still",
            Self::LinkCut { .. } => "link_cut",
            Self::MachineRestarts { .. } => "machine_restarts",
            Self::ClockJumps { .. } => "clock_jumps",
        }
    }
}

/// A value that does not fit, and why not.
struct Bad {
    field: String,
    problem: String,
}

fn bad(field: impl Into<String>, problem: String) -> Bad {
    Bad { field: field.into(), problem }
}

fn within(field: impl Into<String>, value: u64, allowed: &RangeInclusive<u64>) -> Result<(), Bad> {
    if allowed.contains(&value) {
        return Ok(());
    }
    Err(bad(field, format!("must be from {} to {}, not {value}", allowed.start(), allowed.end())))
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]
    use super::*;

    #[test]
    fn every_plan_that_is_drawn_is_read_as_it_is_written() {
        for seed in 0..2_000 {
            let plan = Plan::of(seed);
            assert_eq!(Plan::read(&plan.write()).as_ref(), Ok(&plan), "{seed}");
        }
    }

    #[test]
    fn what_no_trial_could_follow_is_refused_by_its_field() {
        let plan = |docks: &str, happening: &str| {
            format!(
                r#"{{"version":{VERSION},"seed":1,"docks":{docks},"broker":"embedded","servers":1,"journal_kib":64,"every_journal":false,"weather":"clear",
                    "happenings":[{{"at":5,"what":{happening}}}]}}"#
            )
        };
        let jump = r#"{"clock_jumps":{"by":5}}"#;
        assert!(Plan::read(&plan("1", jump)).is_ok());
        for (text, expected) in [
            ("{".to_owned(), "it is not JSON: "),
            ("[]".to_owned(), "it is of version null, this program runs version "),
            (plan("1", jump).replace("\"version\":", "\"version\":9"), "it is of version 9"),
            (plan("1", jump).replace("\"servers\":1", "\"servers\":2"), "servers: must be 1"),
            (
                plan("\"x\"", jump),
                "it is no plan: docks: invalid type: string \"x\", expected u8 at line 1 column 33",
            ),
            (
                plan("1", r#"{"clock_jumps":{"by":"5"}}"#),
                "it is no plan: happenings[0].what.clock_jumps.by: invalid type: string \"5\", expected i64 at line 2 column ",
            ),
            (
                plan("1", r#"{"clock_jump":{"by":5}}"#),
                "it is no plan: happenings[0].what: unknown variant `clock_jump`, expected one of ",
            ),
            (
                plan("1", jump).replace("\"docks\":1,", ""),
                "it is no plan: missing field `docks` at line 2 column ",
            ),
            (
                plan("1", jump).replace("\"docks\":1,", "\"docks\":1,\"docks\":1,"),
                "it is no plan: duplicate field `docks` at line 1 column 39",
            ),
            (plan("0", jump), "docks: must be from 1 to 16, not 0 at line 1"),
            (
                plan("1", jump).replace("\"clear\"", "\"clear\",\"commands_stray\":true"),
                "commands_stray: must be false where the broker is embedded: ",
            ),
            (
                plan("1", jump).replace("\"clear\"", "\"clear\",\"clocks_apart\":[5]"),
                "clocks_apart: must name the clock of each server, where there are several, ",
            ),
            (
                plan("1", jump).replace("\"clear\"", "\"clear\",\"tidings\":\"stray\""),
                "tidings: must be left out where there is one server: ",
            ),
            (
                plan("1", jump).replace("\"clear\"", "\"clear\",\"lines\":\"up\""),
                "lines: must be left out where there is one server: ",
            ),
            (
                plan("1", jump).replace("\"at\":5", "\n\"at\":3600001"),
                "happenings[0].at: must be from 0 to 3600000, not 3600001 at line 3",
            ),
            (
                plan("2", r#"{"dock_leaves":{"dock":2,"wait":1}}"#),
                "happenings[0].what.dock_leaves.dock: must be from 0 to 1, not 2 at line 2",
            ),
            (
                plan("1", r#"{"server_dies":{"server":0,"wait":18446744073709551615}}"#),
                "happenings[0].what.server_dies.wait: must be from 0 to 3600000",
            ),
            (
                plan("1", r#"{"server_dies":{"server":1,"wait":1}}"#),
                "happenings[0].what.server_dies.server: must be from 0 to 0, not 1 at line 2",
            ),
            (
                plan("1", r#"{"store_fails":{"wait":1,"lies":101,"reads":true}}"#),
                "happenings[0].what.store_fails.lies: must be from 0 to 100",
            ),
            (plan("1", jump).replace(":64,", ":7,"), "journal_kib: must be from 8 to 1024, not 7"),
            (
                plan(
                    "1",
                    r#"{"command":{"dock":0,"aircraft":0,"kind":"stop","timeout":6,"waits":true,"copies":2,"copying":{"every":3600001,"same":"key"},"replays_nonce":true,"cancelled_after":null,"asks_later":null,"answer":"does","after":1}}"#,
                ),
                "happenings[0].what.command.copying.every: must be from 0 to 3600000",
            ),
            (
                plan("1", r#"{"journal_damaged":{"server":0,"at":101}}"#),
                "happenings[0].what.journal_damaged.at: must be from 0 to 100, not 101 at line 2",
            ),
            (
                plan("1", r#"{"clock_jumps":{"by":-9223372036854775808}}"#),
                "happenings[0].what.clock_jumps.by: must be from 0 to 31536000000",
            ),
        ] {
            let told = Plan::read(&text).unwrap_err().to_string();
            assert!(told.starts_with(expected), "{text}: {told}");
        }
    }
}
