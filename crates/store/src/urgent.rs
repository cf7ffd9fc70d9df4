//! Which writes go past the queue: emergencies from their acceptance on.

use std::{
    collections::{BTreeSet, VecDeque},
    sync::{Mutex, PoisonError},
};

use utmos_core::{command::Spec, id::CommandId, method::Risk};

use crate::sqlite::limits::URGENT_COMMANDS_MAX;

/// Which lane a write takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Lane {
    /// Past everything that waits.
    Urgent,
    Normal,
}

/// The latest emergencies of this process, so that their later changes are not held up either.
#[derive(Default)]
pub(crate) struct UrgentCommands(Mutex<Latest>);

#[derive(Default)]
struct Latest {
    ids: BTreeSet<CommandId>,
    order: VecDeque<CommandId>,
}

impl UrgentCommands {
    pub(crate) fn lane_of_new(&self, spec: &Spec) -> Lane {
        if spec.risk != Risk::Emergency {
            return Lane::Normal;
        }
        let mut latest = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if latest.ids.insert(spec.id) {
            latest.order.push_back(spec.id);
        }
        if latest.order.len() > URGENT_COMMANDS_MAX
            && let Some(oldest) = latest.order.pop_front()
        {
            latest.ids.remove(&oldest);
        }
        Lane::Urgent
    }

    pub(crate) fn lane_of(&self, id: CommandId) -> Lane {
        let latest = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if latest.ids.contains(&id) { Lane::Urgent } else { Lane::Normal }
    }
}
