//! Listens to what docks and broker say to each other, so that "nobody knows" can be judged: it is a fault where a server that
//! was there was told in time. The rules are those of the race.

use std::collections::BTreeMap;

use serde_json::Value;
use tokio::sync::mpsc::{self, UnboundedReceiver};
use utmos_core::{
    command::{FailureCode, Status},
    method::Risk,
    time::Clock,
};
use utmos_server::clock::SystemClock;
use utmos_sim::{Fleet, FleetConfig, Outcome, Wire};

use self::{
    judge::{Answer, CHANCE_MS, Case, Lie, Says, Story, Verdict},
    witness::Witness,
};
use crate::{place::CATALOGUE, truth::millis};

#[expect(dead_code, reason = "the race has more to say")]
#[path = "../../../src/command/bench/race/judge.rs"]
mod judge;
#[expect(dead_code, reason = "the race asks it more")]
#[path = "../../../src/command/bench/race/witness.rs"]
mod witness;

/// An answer counts as lost where nobody was there within a second; of a longer absence each half second is noted.
const STEP_MS: usize = 500;

/// Somebody who hears all of it, and knows when nobody else did.
pub struct Ear {
    heard: UnboundedReceiver<Wire>,
    witness: Witness,
    /// In Unix milliseconds.
    absent: Vec<i64>,
    /// Whether it is no lie that nobody knows where the broker took no answer.
    of_several: bool,
    /// Commands whose dock said in time how they ended, to a server that lived on: had it not heeded that, it would be found.
    judgeable: usize,
}

/// When something began after which nobody may have listened.
#[derive(Clone, Copy)]
pub struct Since(i64);

impl Since {
    pub fn now() -> Self {
        Self(SystemClock::new().now().wall.as_millis())
    }
}

impl Ear {
    /// At docks that have yet to start.
    pub fn at(config: &mut FleetConfig) -> Self {
        let (tell, heard) = mpsc::unbounded_channel();
        config.on_wire = Some(tell);
        let witness = Witness::default();
        Self { heard, witness, absent: Vec::new(), of_several: false, judgeable: 0 }
    }

    /// At docks of several servers: what never came to the broker is not judged here. What came to it was heard by some server,
    /// and counts.
    pub fn of_several(self) -> Self {
        Self { of_several: true, ..self }
    }

    /// From then until now what was said may have been heard by nobody, or be lost with whoever heard it.
    pub fn nobody_since(&mut self, since: Since) {
        let now = Since::now().0;
        self.absent.extend((since.0..now).step_by(STEP_MS).chain([now]));
    }

    /// Of how many commands that were judged so far a server that had ignored their answers would have been found.
    pub fn judgeable(&self) -> usize {
        self.judgeable
    }

    /// Everything that was said of each command, by its id.
    pub fn answers(&mut self) -> BTreeMap<String, Vec<Answer>> {
        while let Ok(seen) = self.heard.try_recv() {
            self.witness.see(&seen, &CATALOGUE);
        }
        let answers = self.witness.answers(&CATALOGUE);
        answers.into_iter().map(|(tid, answers)| (tid.to_owned(), answers)).collect()
    }

    /// What is wrong with what the platform says of a command: a state claims no more and no less than what could be known.
    pub fn lie(&mut self, command: &Value, fleet: &Fleet, answers: &[Answer]) -> Option<String> {
        let outcomes = fleet.outcomes(command["command_id"].as_str().unwrap());
        self.judgeable += usize::from(is_judgeable(command, answers, &self.absent));
        let verdict = verdict(command, &outcomes, answers, &self.absent, &self.witness);
        // Which of several servers heard what of a dock, and when, is not known here.
        let of_servers = [Lie::Swallowed, Lie::NotSent, Lie::NoReason];
        let is_excused =
            self.of_several && of_servers.iter().any(|lie| verdict == Verdict::Wrong(*lie));
        let is_lie = !is_excused && matches!(verdict, Verdict::Wrong(_));
        is_lie.then(|| {
            format!(
                "{verdict:?}: the dock did {outcomes:?} and said {answers:?}, nobody listened at {:?}, the platform says {command:#}",
                self.absent
            )
        })
    }
}

/// Whether a server that ignored what was said of it would be found.
fn is_judgeable(command: &Value, answers: &[Answer], absent: &[i64]) -> bool {
    let timeout_ms = command["timeout_seconds"].as_i64().unwrap() * 1_000;
    let due = millis(command["accepted_at"].as_str().unwrap()) + timeout_ms;
    answers.iter().any(|one| one.says == Says::Ended && one.is_heeded(absent, due))
}

fn verdict(
    command: &Value,
    outcomes: &[Outcome],
    answers: &[Answer],
    absent: &[i64],
    witness: &Witness,
) -> Verdict {
    let text = |name: &str| command[name].as_str();
    let method = CATALOGUE.method(text("command_type").unwrap()).unwrap();
    let story = Story {
        status: text("status").and_then(Status::parse).unwrap(),
        failure: text("failure_code").and_then(FailureCode::parse),
        response_code: text("response_code").map(str::to_owned),
        accepted_at: millis(text("accepted_at").unwrap()),
        ended_at: text("completed_at").map(millis),
        timeout_ms: command["timeout_seconds"].as_i64().unwrap() * 1_000,
    };
    let gateway = text("gateway_id").unwrap();
    let (accepted_at, ended_at) = (story.accepted_at, story.ended_at.unwrap_or(i64::MAX));
    let (from, until) = (accepted_at - CHANCE_MS, ended_at.saturating_add(CHANCE_MS));
    judge::judge(&Case {
        story: &story,
        outcomes,
        answers,
        deaths: absent,
        is_job: method.job.is_some(),
        silence_ms: i64::try_from(method.silence.as_millis()).unwrap(),
        is_unanswered: false,
        was_cut: witness.was_away(gateway, from, until),
        was_there_ms: witness.was_there_for(
            gateway,
            accepted_at,
            accepted_at + story.timeout_ms,
            absent,
        ),
        // Who cancels, and what an emergency withdraws, is the drill's to know.
        was_cancelled: true,
        was_preempted: method.risk == Risk::Motion,
        is_owed: method.job.is_none(),
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::{
        judge::{Fate, Why},
        *,
    };

    fn told(failure: &str) -> Value {
        json!({
            "command_type": "debug_mode_open", "gateway_id": "D1", "timeout_seconds": 5, "status": "TIMED_OUT", "failure_code": failure,
            "accepted_at": "2026-11-27T00:00:00.000Z", "completed_at": "2026-11-27T00:00:05.000Z",
        })
    }

    /// Of a dock that is always there.
    fn witness() -> Witness {
        let mut witness = Witness::default();
        let at = utmos_core::time::Timestamp::from_millis(0);
        witness.see(&Wire::Linked { sn: "D1".into(), at }, &CATALOGUE);
        witness
    }

    fn answer(settled_at: i64, fate: Fate, says: Says) -> Answer {
        Answer { at: settled_at - 5, settled_at, fate, says }
    }

    /// Each that was planted is found: "nobody knows" of what somebody was told in time.
    #[test]
    fn nobody_knows_is_a_fault_where_a_server_was_told_in_time_and_nowhere_else() {
        let accepted = millis("2026-11-27T00:00:00.000Z");
        let judged = |failure: &str, answers: &[Answer], absent: &[i64]| {
            verdict(&told(failure), &[Outcome::Done], answers, absent, &witness())
        };
        let in_time = [answer(accepted + 800, Fate::Taken, Says::Ended)];
        let unheeded = Verdict::Wrong(Lie::Unheeded);
        for failure in ["NO_RESPONSE", "DISPATCH_UNCERTAIN"] {
            assert_eq!(judged(failure, &in_time, &[]), unheeded, "{failure}");
            assert_eq!(judged(failure, &in_time, &[accepted - 9_000]), unheeded, "long before");
            let died = judged(failure, &in_time, &[accepted + 1_200]);
            assert_eq!(died, Verdict::Unknown(Why::DiedWithServer), "{failure}");
            let late = [answer(accepted + 4_900, Fate::Taken, Says::Ended)];
            assert_eq!(judged(failure, &late, &[]), Verdict::Unknown(Why::TooLate));
            let lost = [answer(accepted + 800, Fate::Lost, Says::Ended)];
            assert_eq!(judged(failure, &lost, &[]), Verdict::Unknown(Why::LostOnTheWay));
            let dropped = [answer(accepted + 800, Fate::Dropped, Says::Ended)];
            assert_eq!(judged(failure, &dropped, &[]), Verdict::Wrong(Lie::Swallowed));
            let odd = [answer(accepted + 800, Fate::Taken, Says::Nonsense)];
            assert_eq!(judged(failure, &odd, &[]), Verdict::Unknown(Why::Unreadable));
            assert_eq!(judged(failure, &[], &[]), Verdict::Wrong(Lie::Swallowed), "it did it");
            let died = judged(failure, &[], &[accepted]);
            assert_eq!(died, Verdict::Unknown(Why::NothingTold));
        }
        let early = Value::from("2026-11-27T00:00:02.000Z");
        let mut too_soon = told("NO_RESPONSE");
        too_soon["completed_at"] = early;
        let verdict = verdict(&too_soon, &[Outcome::Done], &[], &[], &witness());
        assert_eq!(verdict, Verdict::Wrong(Lie::TooSoon));
    }

    #[test]
    fn what_never_left_had_a_reason() {
        let accepted = millis("2026-11-27T00:00:00.000Z");
        let mut never = told("EXPIRED_BEFORE_SENDING");
        let judged = |never: &Value, absent: &[i64], witness: &Witness| {
            verdict(never, &[], &[], absent, witness)
        };
        let no_reason = Verdict::Wrong(Lie::NoReason);
        assert_eq!(judged(&never, &[], &witness()), no_reason);
        let dies = [accepted + 1_500, accepted + 3_400];
        assert_eq!(judged(&never, &dies, &witness()), Verdict::Exact, "never two seconds");
        assert_eq!(judged(&never, &[], &Witness::default()), Verdict::Exact, "never there");
        let not_sent = verdict(&told("NO_RESPONSE"), &[], &[], &[], &witness());
        assert_eq!(not_sent, Verdict::Wrong(Lie::NotSent));
        never["status"] = "FAILED".into();
        never["failure_code"] = "DEVICE_OFFLINE".into();
        assert_eq!(judged(&never, &[], &witness()), no_reason);
        assert_eq!(judged(&never, &[accepted + 1_000], &witness()), Verdict::Exact);
    }

    #[test]
    fn what_died_with_its_server_or_came_late_cannot_be_judged() {
        let accepted = millis("2026-11-27T00:00:00.000Z");
        let is = |at: i64, says: Says, absent: &[i64]| {
            is_judgeable(&told("NO_RESPONSE"), &[answer(accepted + at, Fate::Taken, says)], absent)
        };
        assert!(is(800, Says::Ended, &[]) && is(4_000, Says::Ended, &[accepted + 9_000]));
        assert!(!is(4_001, Says::Ended, &[]), "too late");
        assert!(!is(800, Says::Ended, &[accepted + 1_800]), "its server died");
        assert!(!is(800, Says::Runs, &[]) && !is(800, Says::Nonsense, &[]));
    }

    #[test]
    fn a_job_whose_end_was_told_is_not_unknown() {
        let mut job = told("EXECUTION_UNCONFIRMED");
        job["command_type"] = "cover_open".into();
        job["completed_at"] = "2026-11-27T00:02:00.000Z".into();
        let accepted = millis("2026-11-27T00:00:00.000Z");
        let runs = answer(accepted + 100, Fate::Taken, Says::Runs);
        let ended = answer(accepted + 900, Fate::Taken, Says::Ended);
        let judged = |answers: &[Answer], absent: &[i64]| {
            verdict(&job, &[Outcome::Succeeded], answers, absent, &witness())
        };
        assert_eq!(judged(&[runs, ended], &[]), Verdict::Wrong(Lie::Unheeded));
        assert_eq!(
            judged(&[runs, ended], &[accepted + 1_500]),
            Verdict::Unknown(Why::DiedWithServer)
        );
        assert_eq!(judged(&[runs], &[]), Verdict::Unknown(Why::NothingTold));
    }

    #[test]
    fn an_absence_is_noted_from_its_beginning_to_its_end() {
        let mut config = FleetConfig::new(utmos_sim::BrokerAddress::new("127.0.0.1", 0), 0, 1);
        let mut ear = Ear::at(&mut config);
        let now = Since::now();
        ear.nobody_since(Since(now.0 - 1_200));
        assert!(ear.absent.len() >= 4, "{:?}", ear.absent);
        assert!(ear.absent.windows(2).all(|pair| pair[1] - pair[0] <= 500), "{:?}", ear.absent);
        assert!(ear.absent.last() >= Some(&now.0));
    }
}
