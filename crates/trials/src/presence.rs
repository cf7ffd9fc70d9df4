//! Whom each run of a server can know to be there, noted from what it is told and from nothing that it says; and that it sends to
//! nobody else (LIFECYCLE.md, "Only to a device that is there").
//!
//! It is asked when a sending is begun: what a server holds for there was there until its broker has told otherwise, or the window
//! is over, and a dock that is gone meanwhile may still be tried. What was begun while the dock was known to be gone must not be
//! published at all, also where a broker would say that nobody listens, or would believe that somebody does.

use utmos_core::{command::Spec, evidence::Entry};
use utmos_core::{evidence::Proof, id::CommandId, method::Risk, ports::NewCommand};
use utmos_mqtt::Inbound;

use crate::{
    life::{LifeLine, Platform},
    plan::{Broker, WINDOW_MS},
    world::{World, gateway},
};

/// What one run of a server was told of one dock.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Told {
    /// When the last message of it came.
    heard: Option<u64>,
    /// Our own broker says that it listens for commands.
    listens: bool,
}

/// Whether a dock is there, as far as one run of a server can know.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Knows {
    There,
    /// Nothing was ever heard of it, and its broker does not tell.
    Nothing,
    /// It is not there, and was heard of last then.
    Absent(Option<u64>),
}

/// A sending that one run of a server has begun.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Begun {
    at: u64,
    knew: Knows,
}

impl World {
    /// Something reaches a server.
    pub(crate) fn tell(&self, platform: &Platform, came: Inbound) {
        if platform.line.still().keep(&came) {
            return;
        }
        let of = |name: &str| (0..self.plan.docks).find(|dock| gateway(*dock).as_str() == name);
        let now = self.clock.elapsed();
        let change = |dock: Option<u8>, change: &dyn Fn(&mut Told)| {
            if let Some(dock) = dock {
                change(self.state().told.entry((platform.line.number, dock)).or_default());
            }
        };
        match &came {
            Inbound::Message { topic, .. } => {
                change(topic.split('/').nth(2).and_then(of), &|told| told.heard = Some(now));
            }
            // A session begins without subscriptions.
            Inbound::Joined { user, .. } | Inbound::Left { user, .. } => {
                change(of(user), &|told| told.listens = false);
            }
            Inbound::Subscribed { user, .. } => change(of(user), &|told| told.listens = true),
            Inbound::LinkUp { .. } | Inbound::LinkDown { .. } => {}
        }
        platform.link.take_in(came);
    }

    /// What a run of a server takes for now, in milliseconds of the trial.
    fn now_of(&self, line: &LifeLine) -> u64 {
        line.still().since().unwrap_or_else(|| self.clock.elapsed())
    }

    fn knows(&self, line: &LifeLine, spec: &Spec) -> Knows {
        let dock = (0..self.plan.docks).find(|dock| gateway(*dock) == spec.gateway);
        let told = dock.and_then(|dock| self.state().told.get(&(line.number, dock)).copied());
        let told = told.unwrap_or_default();
        match (self.plan.broker, told.heard) {
            (Broker::Embedded, _) if told.listens => Knows::There,
            (Broker::Embedded, heard) => Knows::Absent(heard),
            (Broker::Outside | Broker::Outside311, None) => Knows::Nothing,
            (Broker::Outside | Broker::Outside311, Some(at)) => {
                match self.now_of(line) <= at + WINDOW_MS {
                    true => Knows::There,
                    false => Knows::Absent(Some(at)),
                }
            }
        }
    }

    /// A server wants these entries on record: whether that begins a sending, and whom it knows to be there.
    pub(crate) fn note_begun(&self, line: &LifeLine, spec: &Spec, entries: &[Entry]) {
        if entries.iter().any(|entry| matches!(entry.proof, Proof::SendingClaimed { .. })) {
            let begun = Begun { at: self.now_of(line), knew: self.knows(line, spec) };
            self.state().facts(spec.id).begun.insert(line.number, begun);
        }
    }

    /// A command is to be accepted. One that is not sent at once, since its dock is known to be gone, is what a server that
    /// does not care would publish.
    pub(crate) fn note_asked(&self, line: &LifeLine, new: &NewCommand) {
        self.note_begun(line, &new.spec, &new.entries);
        if !matches!(self.knows(line, &new.spec), Knows::Absent(_)) {
            return;
        }
        let is_older = self.plan.broker == Broker::Outside311;
        let rare = &mut self.state().rare;
        rare.for_absent += 1;
        rare.for_absent_at_older += usize::from(is_older);
    }

    /// A server hands a command to its broker.
    pub(crate) fn note_handed(&self, id: CommandId, line: &LifeLine, is_there: bool) {
        let now = self.clock.elapsed();
        let mut state = self.state();
        state.rare.tried_absent += usize::from(!is_there);
        let Some(begun) = state.facts(id).begun.get(&line.number).copied() else { return };
        let Some(spec) = state.known.get(&id).map(|known| known.spec.clone()) else { return };
        let wrong = match begun.knew {
            Knows::There => None,
            // Others may be tried.
            Knows::Nothing if spec.risk != Risk::Motion => None,
            Knows::Nothing => Some("never heard of".to_owned()),
            Knows::Absent(None) => Some("not there since the start".to_owned()),
            Knows::Absent(Some(heard)) => Some(format!("heard of last at {heard}")),
        };
        if let Some(wrong) = wrong {
            let method = &spec.method;
            state.violate(format!(
                "{id} ({method}): was published to an absent dock: at {now}, begun at {}, {wrong}",
                begun.at
            ));
        }
    }
}
