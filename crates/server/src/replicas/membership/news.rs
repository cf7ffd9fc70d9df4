//! What other servers tell, and that it is heeded.

use std::{
    sync::{Arc, Weak},
    time::Duration,
};

use utmos_core::{
    command::{Command, Spec},
    id::CommandId,
    ports::{Answer, Asked, LineHeard, Taken},
    replica::{News, ReplicaId},
};

use super::Membership;
use crate::driver::Look;

/// How often those who wait for commands of other servers are told how these stand, whether or not that was told.
const WATCH_WAIT: Duration = Duration::from_secs(1);
/// Commands that are looked at again one by one; where more were told of, all are.
const CHANGED_MAX: usize = 4_096;

/// Commands of which other servers told, and that have not been looked at.
#[derive(Debug, Default)]
pub(super) struct Told {
    changed: Vec<CommandId>,
    ended: Vec<CommandId>,
}

/// Hears what comes over lines. Not to keep alive what has the lines.
pub(super) struct Heard(pub(super) Weak<Membership>);

impl LineHeard for Heard {
    fn asked(&self, from: ReplicaId, asked: Asked, answer: Answer) {
        match self.0.upgrade() {
            Some(membership) => membership.parts.driver.accept_for(from, asked, answer),
            None => drop(answer(Taken::NotHere)),
        }
    }

    fn accepted(&self, spec: &Arc<Spec>) {
        if let Some(membership) = self.0.upgrade() {
            membership.parts.driver.accepted_elsewhere(spec.clone());
        }
    }

    fn ended(&self, command: Command) {
        if let Some(membership) = self.0.upgrade() {
            membership.parts.driver.ended_elsewhere(command);
        }
    }

    fn news(&self, news: News) {
        if let Some(membership) = self.0.upgrade() {
            membership.hear(news);
        }
    }
}

impl Membership {
    pub(super) fn hear(&self, news: News) {
        match news {
            News::Handed => self.care.notify_one(),
            News::Roll => self.beat.notify_one(),
            News::Changed(ids) => self.note(ids, |told| &mut told.changed),
            News::Ended(ids) => self.note(ids, |told| &mut told.ended),
            News::Missed => {
                self.lock().is_told_off = true;
                self.beat.notify_one();
                self.changed.notify_one();
            }
        }
    }

    fn note(&self, ids: Vec<CommandId>, list: impl FnOnce(&mut Told) -> &mut Vec<CommandId>) {
        {
            let mut state = self.lock();
            let told = &mut state.told;
            match told.changed.len() + told.ended.len() + ids.len() <= CHANGED_MAX {
                true => list(told).extend(ids),
                false => state.is_told_off = true,
            }
        }
        self.changed.notify_one();
    }

    /// Tells those who wait for commands of other servers, and looks at those of this one that others have changed.
    pub(super) async fn look_for_others(&self) {
        let mut watched_at = tokio::time::Instant::now();
        loop {
            tokio::select! {
                biased;
                // However much comes, what is not told is looked at in its time too: that is asked below.
                () = self.changed.notified() => {}
                () = tokio::time::sleep(WATCH_WAIT) => {}
            }
            let (Told { changed, ended }, is_told_off) = {
                let mut state = self.lock();
                (std::mem::take(&mut state.told), std::mem::take(&mut state.is_told_off))
            };
            let is_time = watched_at.elapsed() >= WATCH_WAIT;
            let driver = &self.parts.driver;
            let looked = async {
                if is_told_off {
                    return driver.look_again(Look::All).await;
                }
                if !changed.is_empty() || !ended.is_empty() {
                    driver.look_again(Look::Told { changed: &changed, ended: &ended }).await?;
                }
                if is_time {
                    driver.look_again(Look::Watched).await?;
                }
                Ok(())
            };
            if is_time || is_told_off {
                watched_at = tokio::time::Instant::now();
            }
            if let Err(error) = looked.await {
                tracing::debug!(%error, "could not look at commands of other servers");
                // What was told is not told again.
                self.lock().is_told_off = true;
            }
        }
    }
}
