//! Which requests may be answered before their nonce is in the database, and which of these nonces are not yet. Pure.

use std::{collections::VecDeque, time::Duration};

use utmos_core::{
    signing::{NonceUse, RequestTimes},
    time::Timestamp,
};

use super::ring::RECORDS;

/// How far ahead of the clock the mark is set. It is renewed at half of that, while anybody reads.
pub(super) const AHEAD: Duration = Duration::from_secs(10);

/// A nonce that is spent.
#[derive(Debug, Clone, Copy)]
pub(super) struct Spent {
    pub(super) nonce: NonceUse,
    pub(super) signed_at: Timestamp,
}

/// How a request is answered.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Way {
    /// Not at all: what was signed up to then may have been answered before.
    Unclear(Timestamp),
    /// As soon as its nonce is in the file.
    Quick,
    /// When its nonce is in the database.
    Durable,
}

#[derive(Debug)]
pub(super) struct State {
    is_on: bool,
    /// What was signed up to here is refused.
    floor: Option<Timestamp>,
    /// What was signed after this is not answered quickly. The database has this mark, or a later one.
    mark: Timestamp,
    is_renewing: bool,
    /// On their way to the file.
    writing: VecDeque<Spent>,
    /// In the file, and not known to be in the database; in the order of the file.
    unsaved: VecDeque<Spent>,
    /// How many of them are in the transaction under way.
    taken: usize,
}

impl Default for State {
    fn default() -> Self {
        Self {
            is_on: false,
            floor: None,
            mark: Timestamp::from_millis(i64::MIN),
            is_renewing: false,
            writing: VecDeque::new(),
            unsaved: VecDeque::new(),
            taken: 0,
        }
    }
}

impl State {
    pub(super) fn set_floor(&mut self, floor: Option<Timestamp>) {
        self.floor = floor;
    }

    pub(super) fn turn_on(&mut self) {
        self.is_on = true;
    }

    pub(super) fn turn_off(&mut self) {
        self.is_on = false;
    }

    pub(super) fn judge(&self, times: RequestTimes) -> Way {
        let has_room = self.writing.len() + self.unsaved.len() < RECORDS;
        match self.floor {
            Some(floor) if times.signed_at <= floor => Way::Unclear(floor),
            _ if self.is_on && has_room && times.signed_at <= self.mark => Way::Quick,
            _ => Way::Durable,
        }
    }

    /// The mark that is to be put into the database now, if one is.
    pub(super) fn renewal(&mut self, now: Timestamp) -> Option<Timestamp> {
        let target = now.plus(AHEAD);
        let is_low = self.mark < now.plus(AHEAD / 2);
        // The clock was set back. A mark far ahead would shut out everybody after a power cut until the clock is there.
        let is_high = target.plus(AHEAD) < self.mark;
        if !self.is_on || self.is_renewing || !(is_low || is_high) {
            return None;
        }
        self.is_renewing = true;
        self.mark = self.mark.min(target);
        Some(target)
    }

    /// The mark that may take the place of the one in the database, in the transaction under way: none that is lower as long
    /// as a nonce above it is in the file alone.
    pub(super) fn lasting(&self, target: Timestamp, stored: Option<Timestamp>) -> Timestamp {
        let open = self.writing.iter().chain(self.unsaved.iter().skip(self.taken));
        match stored {
            Some(stored) if open.into_iter().any(|one| target < one.signed_at) => {
                stored.max(target)
            }
            _ => target,
        }
    }

    /// The database has the mark, or not.
    pub(super) fn renewed(&mut self, mark: Option<Timestamp>) {
        self.is_renewing = false;
        self.mark = mark.unwrap_or(self.mark);
    }

    /// A nonce goes to the file.
    pub(super) fn give(&mut self, spent: Spent) {
        self.writing.push_back(spent);
    }

    /// The first `count` of those that went to the file are in it, or are not and never will be.
    pub(super) fn written(&mut self, count: usize, is_in_file: bool) {
        let written = self.writing.drain(..count.min(self.writing.len()));
        if is_in_file {
            self.unsaved.extend(written);
        }
    }

    /// What goes into the transaction that begins.
    pub(super) fn take(&mut self, most: usize) -> Vec<NonceUse> {
        let taken: Vec<_> = self.unsaved.iter().take(most).map(|one| one.nonce).collect();
        self.taken = taken.len();
        taken
    }

    /// The transaction stands.
    pub(super) fn saved(&mut self) {
        self.unsaved.drain(..std::mem::take(&mut self.taken));
    }

    /// It came to nothing.
    pub(super) fn not_saved(&mut self) {
        self.taken = 0;
    }

    /// Whether some wait for the next transaction.
    pub(super) fn is_waiting(&self) -> bool {
        self.taken < self.unsaved.len()
    }

    /// Whether the database has all, once the transaction under way stands.
    pub(super) fn is_done(&self) -> bool {
        self.writing.is_empty() && !self.is_waiting()
    }
}
