//! Sorts what was told to a lane by command.

use std::{collections::BTreeMap, sync::Arc};

use tokio::sync::oneshot;
use utmos_core::{
    command::Command,
    id::CommandId,
    life::{Input, Presence},
};

use super::{Told, lane::Lane};

/// What was told of one command.
pub(super) struct Gathered {
    pub(super) id: CommandId,
    pub(super) inputs: Vec<Input>,
    pub(super) done: Vec<oneshot::Sender<Arc<Command>>>,
    /// Of messages of devices among the inputs.
    pub(super) bytes: usize,
}

/// Everything told, by command, each in the order it was told. With a turn, those who wait come last, in the order of
/// acceptance, and the turn is the last they are told: one that comes back with this batch is before them.
///
/// A confirmation that was kept back comes first of all: it was there before.
/// Turns count where the server `may_send`.
pub(super) fn gather(
    told: Vec<Told>,
    lane: &mut Lane,
    presence: Presence,
    may_send: bool,
) -> Vec<Gathered> {
    let is_turn = may_send && told.iter().any(|one| matches!(one, Told::Turn));
    let mut gathered: Vec<Gathered> = Vec::new();
    let mut places: BTreeMap<CommandId, usize> = BTreeMap::new();
    for one in told {
        let (id, input, done, bytes) = match one {
            Told::Input { id, input, done } => (id, input, done, 0),
            Told::Said { id, input, bytes } => (id, input, None, bytes),
            Told::Turn | Told::Stands(_) => continue,
        };
        let place = *places.entry(id).or_insert_with(|| {
            gathered.push(Gathered { id, inputs: Vec::new(), done: Vec::new(), bytes: 0 });
            gathered.len() - 1
        });
        let Some(own) = gathered.get_mut(place) else { continue };
        // A tick carries the presence of its moment.
        own.inputs.push(if matches!(*input, Input::Tick(_)) {
            Input::Tick(presence)
        } else {
            *input
        });
        own.done.extend(done);
        own.bytes += bytes;
    }
    if is_turn {
        let (mut waiting, others): (Vec<_>, Vec<_>) =
            gathered.into_iter().partition(|one| lane.is_waiting(one.id));
        gathered = others;
        for id in lane.in_order() {
            let told = waiting.iter().position(|one| one.id == id);
            let told = told.map(|place| waiting.swap_remove(place));
            let mut own = told.unwrap_or_else(|| Gathered {
                id,
                inputs: Vec::new(),
                done: Vec::new(),
                bytes: 0,
            });
            own.inputs.push(Input::Turn(presence));
            gathered.push(own);
        }
    }
    for one in &mut gathered {
        one.inputs.splice(..0, lane.kept_back(one.id));
    }
    gathered
}
