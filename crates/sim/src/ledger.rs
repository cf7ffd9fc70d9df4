//! What the docks really received and did: the truth that tests compare the platform's story with.

use std::{
    collections::{BTreeMap, VecDeque},
    fs::File,
    io::Write,
    sync::Arc,
};

use serde::{Deserialize, Serialize};
use utmos_core::time::Timestamp;

pub mod oracle;

use crate::fault::Fault;
use oracle::{Entry, Line};

/// How many commands are remembered; of more, the oldest are forgotten.
pub const RECEIVED_MAX: usize = 200_000;

/// One command as one dock received it. Received twice, it is here twice.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Received {
    /// The dock.
    pub sn: Arc<str>,
    /// The exchange; nothing on `drc/down`, where there is none.
    pub tid: Option<Arc<str>>,
    /// The running number, on `drc/down`.
    pub seq: Option<u64>,
    /// The method; `property/set` for a property, empty where the message has none.
    pub method: Arc<str>,
    /// When it was received, by the true clock and not the dock's own.
    pub at: Timestamp,
}

/// What a dock made of a command.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "outcome", content = "code")]
pub enum Outcome {
    /// Refused with this code; nothing was done.
    Refused(i64),
    /// Done, and answered with result 0.
    Done,
    /// Started, and answered with result 0: a job that has not ended.
    Running,
    /// A job that ended well.
    Succeeded,
    /// A job that ended badly, with this code.
    Failed(i64),
    /// Done, in the protocol's silence.
    Silent,
    /// Not listened to, and not answered: `drc/down` outside of DRC mode, or the fault `never`.
    Ignored,
}

/// The commands of a fleet, in the order of their arrival.
#[derive(Debug, Default)]
pub struct Ledger {
    entries: VecDeque<Slot>,
    first: u64,
    by_tid: BTreeMap<Arc<str>, Vec<u64>>,
    open: BTreeMap<(Arc<str>, u64), u64>,
    /// The fault that the last copy of a command met.
    faults: BTreeMap<Arc<str>, Fault>,
    log: Option<File>,
}

#[derive(Debug)]
struct Slot {
    received: Received,
    receipt: u64,
    outcome: Outcome,
}

impl Ledger {
    /// Makes one that also writes to a file.
    pub(crate) fn with_log(log: Option<File>) -> Self {
        Self { log, ..Self::default() }
    }

    /// Takes down a command and what was made of it. `receipt` is the dock's own number for it.
    pub fn received(&mut self, received: Received, receipt: u64, outcome: Outcome) {
        self.write(&Line {
            received: received.clone(),
            receipt,
            entry: Entry::Received { outcome },
        });
        if RECEIVED_MAX <= self.entries.len() {
            self.forget_first();
        }
        let number = self.first + u64::try_from(self.entries.len()).unwrap_or(u64::MAX);
        if let Some(tid) = &received.tid {
            self.by_tid.entry(Arc::clone(tid)).or_default().push(number);
        }
        if outcome == Outcome::Running {
            self.open.insert((Arc::clone(&received.sn), receipt), number);
        }
        self.entries.push_back(Slot { received, receipt, outcome });
    }

    /// Takes down how a job ended.
    pub fn ended(&mut self, sn: &Arc<str>, receipt: u64, outcome: Outcome) {
        let Some(number) = self.open.remove(&(Arc::clone(sn), receipt)) else { return };
        let Some(slot) = self.slot_mut(number) else { return };
        slot.outcome = outcome;
        let received = slot.received.clone();
        self.write(&Line { received, receipt, entry: Entry::Ended { outcome } });
    }

    /// Takes down which fault a received command met.
    pub fn met(&mut self, tid: &str, fault: Fault) {
        if let Some((tid, _)) = self.by_tid.get_key_value(tid) {
            self.faults.insert(Arc::clone(tid), fault);
        }
    }

    /// The fault that a command met.
    pub fn fault(&self, tid: &str) -> Option<&Fault> {
        self.faults.get(tid)
    }

    /// Every copy of a command with what became of it, in the order of arrival.
    pub fn copies(&self, tid: &str) -> impl Iterator<Item = (&Received, Outcome)> {
        let numbers = self.by_tid.get(tid).map_or(&[][..], Vec::as_slice);
        let slots = numbers.iter().filter_map(|number| self.slot(*number));
        slots.map(|slot| (&slot.received, slot.outcome))
    }

    /// Every command with what became of it, the newest first.
    pub fn latest(&self) -> impl Iterator<Item = (&Received, Outcome)> {
        self.entries.iter().rev().map(|slot| (&slot.received, slot.outcome))
    }

    /// Every command.
    pub fn all(&self) -> Vec<Received> {
        self.entries.iter().map(|slot| slot.received.clone()).collect()
    }

    /// How many commands there are.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// How often a `tid` was received, by all docks together.
    pub fn count(&self, tid: &str) -> usize {
        self.by_tid.get(tid).map_or(0, Vec::len)
    }

    /// What became of every copy of a command, in the order of arrival.
    pub fn outcomes(&self, tid: &str) -> Vec<Outcome> {
        self.copies(tid).map(|(_, outcome)| outcome).collect()
    }

    fn slot(&self, number: u64) -> Option<&Slot> {
        self.entries.get(usize::try_from(number.checked_sub(self.first)?).ok()?)
    }

    fn slot_mut(&mut self, number: u64) -> Option<&mut Slot> {
        self.entries.get_mut(usize::try_from(number.checked_sub(self.first)?).ok()?)
    }

    fn forget_first(&mut self) {
        let Some(slot) = self.entries.pop_front() else { return };
        self.open.remove(&(Arc::clone(&slot.received.sn), slot.receipt));
        if let Some(tid) = &slot.received.tid
            && let Some(numbers) = self.by_tid.get_mut(tid)
        {
            numbers.retain(|number| *number != self.first);
            if numbers.is_empty() {
                self.by_tid.remove(tid);
                self.faults.remove(tid);
            }
        }
        self.first += 1;
    }

    /// One `write` to a file opened for appending, so that a line survives the death of the process, whole.
    fn write(&mut self, line: &Line) {
        let Some(file) = &mut self.log else { return };
        let written =
            serde_json::to_vec(line).map_err(std::io::Error::from).and_then(|mut text| {
                text.push(b'\n');
                file.write_all(&text)
            });
        if let Err(err) = written {
            tracing::error!("the oracle log cannot be written and ends here: {err}");
            self.log = None;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn command(tid: &str) -> Received {
        Received {
            sn: "D".into(),
            tid: Some(tid.into()),
            seq: None,
            method: "cover_open".into(),
            at: Timestamp::from_millis(1),
        }
    }

    #[test]
    fn every_copy_counts_and_has_its_own_outcome() {
        let mut ledger = Ledger::default();
        ledger.received(command("a"), 1, Outcome::Running);
        ledger.received(command("a"), 2, Outcome::Refused(514_116));
        ledger.received(command("b"), 3, Outcome::Done);
        ledger.ended(&"D".into(), 1, Outcome::Succeeded);
        ledger.ended(&"D".into(), 3, Outcome::Failed(1));
        assert_eq!(ledger.count("a"), 2);
        assert_eq!(ledger.outcomes("a"), [Outcome::Succeeded, Outcome::Refused(514_116)]);
        assert_eq!(ledger.outcomes("b"), [Outcome::Done]);
        assert_eq!(ledger.count("c"), 0);
        assert_eq!(ledger.len(), 3);
    }

    #[test]
    fn the_oldest_are_forgotten_at_the_limit() {
        let mut ledger = Ledger::default();
        ledger.met("unknown", Fault::Silent);
        for n in 0..RECEIVED_MAX + 2 {
            ledger.received(command(if n < 2 { "old" } else { "new" }), 0, Outcome::Done);
            if n == 0 {
                ledger.met("old", Fault::Silent);
                assert_eq!(ledger.fault("old"), Some(&Fault::Silent));
            }
        }
        assert_eq!((ledger.fault("old"), ledger.fault("unknown")), (None, None));
        assert_eq!(ledger.len(), RECEIVED_MAX);
        assert_eq!(ledger.count("old"), 0);
        assert_eq!(ledger.count("new"), RECEIVED_MAX);
    }
}
