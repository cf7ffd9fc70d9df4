//! Which requests may be answered before their nonce is in the database, and which of these nonces are not yet. Pure.

use std::collections::VecDeque;

use utmos_core::{
    signing::{NonceUse, RequestTimes},
    time::Timestamp,
};

use super::{
    ring::RECORDS,
    span::{AHEAD, Span, Spans},
};

/// A nonce that is spent.
#[derive(Debug, Clone, Copy)]
pub(super) struct Spent {
    pub(super) nonce: NonceUse,
    pub(super) signed_at: Timestamp,
}

/// How a request is answered.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Way {
    /// Not at all: it may have been answered before, as all that was signed from some time before up to then.
    Unclear(Timestamp),
    /// As soon as its nonce is in the file.
    Quick,
    /// When its nonce is in the database.
    Durable,
}

/// Every nonce that is open, that is to say answered and not known to be in the database, was signed in the span that the
/// database has by then: the one that is renewed or, if that came to nothing, the one before. So a power cut leaves nothing
/// unclear outside of it, and it is never longer than what is around one time of the clock. Three rules see to that:
/// what is signed outside of `span` is never given; from the wish for a new one on, `span` is what that has in common with
/// the old; and the new one is put into the database only in a transaction that leaves nothing open outside of it.
#[derive(Debug)]
pub(super) struct State {
    is_on: bool,
    /// What was signed then is refused.
    refused: Spans,
    /// What was signed then is answered quickly. The database has it, or more.
    span: Span,
    is_renewing: bool,
    /// The last renewal came to nothing.
    is_due: bool,
    /// The database cannot take any in as long as this process lives; they stay in the file.
    is_given_up: bool,
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
            refused: Spans::default(),
            span: Span::NONE,
            is_renewing: false,
            is_due: false,
            is_given_up: false,
            writing: VecDeque::new(),
            unsaved: VecDeque::new(),
            taken: 0,
        }
    }
}

impl State {
    pub(super) fn refuse(&mut self, refused: Spans) {
        self.refused = refused;
    }

    pub(super) fn refused(&self) -> &Spans {
        &self.refused
    }

    pub(super) fn turn_on(&mut self) {
        self.is_on = true;
    }

    pub(super) fn turn_off(&mut self) {
        self.is_on = false;
    }

    /// The database does not take them in: neither these nor any more.
    pub(super) fn give_up(&mut self) {
        (self.is_on, self.is_given_up) = (false, true);
    }

    pub(super) fn is_given_up(&self) -> bool {
        self.is_given_up
    }

    pub(super) fn judge(&self, times: RequestTimes) -> Way {
        let has_room = self.writing.len() + self.unsaved.len() < RECORDS;
        match self.refused.end_of(times.signed_at) {
            Some(up_to) => Way::Unclear(up_to),
            None if self.is_on && has_room && self.span.contains(times.signed_at) => Way::Quick,
            None => Way::Durable,
        }
    }

    /// The span that is to be put into the database now, if one is. That is so every some seconds while anybody reads, and
    /// whenever the clock was set.
    pub(super) fn renewal(&mut self, now: Timestamp) -> Option<Span> {
        let target = Span::around(now);
        let is_low = self.span.to < now.plus(AHEAD / 2);
        let is_high = target.to.plus(AHEAD) < self.span.to;
        if !self.is_on || self.is_renewing || !(is_low || is_high || self.is_due) {
            return None;
        }
        (self.is_renewing, self.is_due) = (true, true);
        self.span = self.span.common(target);
        Some(target)
    }

    /// Whether this span may take the place of the one in the database, in the transaction under way. No nonce outside of it is
    /// given any more, so that a later one may.
    pub(super) fn may_move(&self, target: Span) -> bool {
        let mut open = self.writing.iter().chain(self.unsaved.iter().skip(self.taken));
        open.all(|one| target.contains(one.signed_at))
    }

    /// The database has this span, or the one before.
    pub(super) fn renewed(&mut self, span: Option<Span>) {
        self.is_renewing = false;
        if let Some(span) = span {
            (self.span, self.is_due) = (span, false);
        }
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
        let most = if self.is_given_up { 0 } else { most };
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
        !self.is_given_up && self.taken < self.unsaved.len()
    }

    /// Whether the database has all, once the transaction under way stands.
    pub(super) fn is_done(&self) -> bool {
        self.writing.is_empty() && self.unsaved.len() <= self.taken
    }
}
