//! What must hold of every step, and is checked when the step is made: a trial ends at its first wrong one, so that what is shown,
//! and made smaller, is the cause and not what came of it.
//!
//! What takes two steps to be wrong is checked when the second is made: of two commands that left in the wrong order, and of a movement
//! that left after an emergency, at the write of the later one. What is wrong because something did not happen (an emergency that was
//! late, a command that was lost, or that never ended) is judged when everything has ended.

use utmos_core::{
    command::{FailureCode, Life, Status},
    evidence::{Entry, Proof},
    id::CommandId,
    method::Risk,
    ports::Advance,
    replica::CLOCK_OFF_MAX_MS,
};

use crate::{
    disk::Record,
    facts::{Claim, Facts},
    life::LifeLine,
    oracle::deadline,
    world::{State, Trouble, World, number_of},
};

/// So long after another has joined a server knows that its clock is off, or that it cannot know: its share has run out by then, in
/// milliseconds.
const CLOCK_NOTICED_WAIT_MAX: u64 = 3_500;

impl State {
    /// Something that must not be; the trial ends.
    pub(crate) fn violate(&mut self, what: String) {
        self.violations.push(what);
        self.went_wrong.notify_one();
    }

    /// Whether nothing can be said of a command: what it stood in was damaged on purpose.
    pub(crate) fn is_lost(&self, id: CommandId) -> bool {
        let record = self.disk.records.get(&id);
        record.is_some_and(|record| record.is_damaged) || self.spoiled.contains(&id)
    }

    /// After writes to the store: what the store itself found, and what ended with them.
    pub(crate) fn check_written(&mut self, now: u64) {
        let has_just_ended = |record: &&Record| record.ended == Some(now);
        let ended = self.disk.records.values().filter(has_just_ended);
        let nothing = Facts::default();
        let wrong =
            ended.filter(|record| !self.is_lost(record.command.spec.id)).filter_map(|record| {
                let spec = &record.command.spec;
                let facts = self.facts.get(&spec.id).unwrap_or(&nothing);
                let why = is_borne_out(&record.command.life, facts).err()?;
                Some(format!("{} ({}): {why}", spec.id, spec.method))
            });
        let wrong: Vec<String> = wrong.collect();
        wrong.into_iter().for_each(|why| self.violate(why));
        if self.disk.went_wrong() {
            self.went_wrong.notify_one();
        }
    }
}

impl World {
    /// Its bytes are written by a server, or by the broker of a mutation.
    pub(crate) fn note_written(&self, id: CommandId, by: Option<&LifeLine>, is_lost: bool) {
        let now = self.clock.elapsed();
        let mut state = self.state();
        let facts = state.facts(id);
        facts.written.push(now);
        facts.lost_at_broker |= is_lost;
        let is_first = facts.written.len() == 1;
        let Some(known) = state.known.get(&id).cloned() else { return };
        let is_other = by.is_some_and(|by| self.ahead(by.server) != self.ahead(known.server));
        state.rare.sent_by_other_clock += usize::from(is_other);
        let spec = &known.spec;
        let mut wrong = Vec::new();
        if !is_first {
            wrong.push(format!("sent more than once, the last time at {now}"));
        }
        // Only an emergency leaves before it is on record, and only while the store was unwell, or cannot read a row of its wish, or did
        // not answer a server that stood still.
        let is_unwell = || {
            let wish = number_of(&spec.idempotency_key);
            !state.was_well(Trouble::Store, known.asked, now)
                || !state.was_well(Trouble::Still, known.asked, now)
                || wish.is_some_and(|wish| state.is_spoiled(wish))
        };
        let may_be_ahead = spec.risk == Risk::Emergency && is_unwell();
        if !may_be_ahead && !state.disk.records.contains_key(&id) {
            wrong.push(format!("left before it was on record: at {now}"));
        }
        // That of an emergency may stand in a journal.
        if let (Some(by), true) = (by, spec.risk != Risk::Emergency)
            && let Some(record) = state.disk.records.get(&id)
            && !record.entries.iter().any(|entry| is_claim_of(by, entry))
        {
            wrong.push(format!("left before its claim was on record: at {now}"));
        }
        // Whoever sends it, and whatever the clocks on the wall show.
        if let Some(deadline) = deadline(self, &state, spec).filter(|deadline| now >= *deadline)
            && !self.clock.is_lost_between(known.asked, now)
        {
            wrong.push(format!("left after its deadline: at {now}, and not by {deadline}"));
        }
        // Whoever holds it may be about to send what was accepted after this.
        if let Some(by) = by
            && spec.risk != Risk::Emergency
            && state.disk.replicas.holds_not(by.number, &spec.gateway)
        {
            wrong.push(format!("left by a server that does not hold its gateway: at {now}"));
        }
        let is_off = |by: &&LifeLine| {
            let ahead = self.clock.still_ahead(self.ahead(by.server));
            ahead.abs() > CLOCK_OFF_MAX_MS
        };
        if let Some(by) = by.filter(is_off)
            && spec.risk != Risk::Emergency
            && let Some(since) = state.disk.replicas.beside_since(by.number)
            && since + CLOCK_NOTICED_WAIT_MAX < now
        {
            wrong.push(format!(
                "left by a server whose clock is off: at {now}, beside another since {since}"
            ));
        }
        let named = |why| format!("{id} ({}): {why}", spec.method);
        let wrong = wrong.into_iter().map(named);
        let out_of_order = if is_first { self.out_of_order(&state, spec, now) } else { Vec::new() };
        wrong.chain(out_of_order).for_each(|why| state.violate(why));
    }

    /// It has come to a dock. What the link has made of one message is not the platform's.
    pub(crate) fn note_received(&self, id: CommandId) {
        let now = self.clock.elapsed();
        let mut state = self.state();
        let facts = state.facts(id);
        facts.received.push(now);
        if facts.received.len() > 1 + facts.copied {
            state.violate(format!("{id}: came to a dock more than once, the last time at {now}"));
        }
    }

    /// A server wants this on record.
    pub(crate) fn note_decided(&self, line: &LifeLine, advance: &Advance) {
        let now = self.clock.elapsed();
        let spec = self.state().known.get(&advance.id).map(|known| known.spec.clone());
        if let Some(spec) = &spec {
            self.note_begun(line, spec, &advance.entries);
        }
        let mut state = self.state();
        let is_lost = state.is_lost(advance.id);
        if let Some(spec) = &spec {
            let before = state.disk.records.get(&advance.id);
            let before = before.into_iter().flat_map(|record| &record.entries);
            let cause =
                self.has_cause(&state, spec, &advance.life, before.chain(&*advance.entries));
            if let (false, Err(why)) = (is_lost, cause) {
                state.violate(format!("{} ({}): {why}, at {now}", advance.id, spec.method));
            }
        }
        let facts = state.facts(advance.id);
        let mut too_soon = Vec::new();
        for claim in Claim::all_of(&advance.life) {
            facts.claims.entry(claim).or_insert(now);
            too_soon.extend(facts.true_since(claim).is_none().then_some(claim));
        }
        if advance.life.phase.has_ended() {
            facts.end_wanted.get_or_insert(now);
        }
        for claim in too_soon.into_iter().filter(|_| !is_lost) {
            state.violate(format!("{}: {claim:?} was said too soon, at {now}", advance.id));
        }
    }
}

/// Whether a run of a server has claimed a command with this entry.
fn is_claim_of(line: &LifeLine, entry: &Entry) -> bool {
    matches!(&entry.proof, Proof::SendingClaimed { replica } if *replica == line.name())
}

/// Whether what is said of a command claims no more than what was done with it.
pub(crate) fn is_borne_out(life: &Life, facts: &Facts) -> Result<(), String> {
    let (status, failure) = (life.status(), life.phase.failure());
    let claim = || format!("reads {status:?}/{failure:?}, and the truth is {facts:?}");
    let could_be_said = |what| facts.true_since(what).is_some();
    if life.delivered_at.is_some() && !could_be_said(Claim::Delivered) {
        return Err(format!("reads as delivered: {}", claim()));
    }
    let was_never_sent = facts.written.is_empty() && facts.received.is_empty();
    let is_so = match (status, failure) {
        (Status::Accepted, _) => false,
        (Status::Delivered, _) => could_be_said(Claim::Delivered),
        (Status::Succeeded, _) => could_be_said(Claim::Succeeded),
        (Status::Failed, Some(FailureCode::DeviceExecutionFailed)) => could_be_said(Claim::Failed),
        (Status::Failed, _) => was_never_sent,
        (
            Status::TimedOut,
            Some(FailureCode::DeviceOffline | FailureCode::ExpiredBeforeSending),
        ) => was_never_sent,
        (Status::TimedOut, _) => true,
        (Status::UnmatchedResponse, _) => could_be_said(Claim::Unmatched),
    };
    if is_so { Ok(()) } else { Err(claim()) }
}
