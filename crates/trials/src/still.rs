//! A process that stands still, as of `kill -STOP`: none of its tasks has a turn, and its machine's running time goes on.
//!
//! Tasks of a trial cannot be kept from running, so whatever they do by their timers meanwhile they do as of the moment in which it
//! stopped: that is what their clock shows. Nothing of it leaves and nothing reaches them until it goes on, when everything they were
//! about to do is done, at the time it is by then.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::sync::Notify;
use utmos_mqtt::Inbound;

use crate::world::{Trouble, World};

/// So long after it goes on it is known who holds what, in milliseconds: it has met the others again by then.
const AGAIN_WAIT_MAX: u64 = 1_500;

/// Whether a run of a server stands still.
#[derive(Debug, Default)]
pub(crate) struct Stillness {
    /// Since when, in milliseconds of the trial.
    since: Mutex<Option<u64>>,
    /// Lets go on who waits, in the order in which they came to wait.
    over: Notify,
    /// What it would have heard meanwhile.
    unheard: Mutex<Vec<Inbound>>,
}

impl Stillness {
    pub(crate) fn since(&self) -> Option<u64> {
        *self.since.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn set(&self, since: Option<u64>) {
        *self.since.lock().unwrap_or_else(PoisonError::into_inner) = since;
        if since.is_none() {
            self.over.notify_waiters();
        }
    }

    /// Returns at once where it does not stand still.
    pub(crate) async fn is_over(&self) {
        while self.since().is_some() {
            self.over.notified().await;
        }
    }

    /// Keeps what came for it, if it stands still.
    pub(crate) fn keep(&self, came: &Inbound) -> bool {
        let is_still = self.since().is_some();
        if is_still {
            self.unheard().push(came.clone());
        }
        is_still
    }

    fn unheard(&self) -> MutexGuard<'_, Vec<Inbound>> {
        self.unheard.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl World {
    /// A server stands still, and goes on after a while. One that has not been started does neither.
    pub(crate) fn stand_still(self: &Arc<Self>, server: u8, wait: u64) {
        let post = usize::from(server);
        let line = self.state().posts.get(post).and_then(|post| post.line.clone());
        let Some(line) = line.filter(|line| line.still().since().is_none()) else { return };
        let now = self.clock.elapsed();
        line.still().set(Some(now));
        self.trouble(wait + AGAIN_WAIT_MAX);
        self.note_trouble(Trouble::Still, wait);
        let world = self.clone();
        tokio::spawn(async move {
            tokio::time::sleep(Duration::from_millis(wait)).await;
            line.still().set(None);
            world.trace(|| format!("server {} goes on", line.number));
            let unheard = std::mem::take(&mut *line.still().unheard());
            let platform = world.standing().into_iter().find(|it| it.line.number == line.number);
            if let Some(platform) = platform {
                world.state().rare.stood_still += 1;
                unheard.into_iter().for_each(|came| world.tell(&platform, came));
            }
        });
    }
}
