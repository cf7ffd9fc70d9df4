//! What faults may do to a dock beside changing what it says. Each is small, so that a faulty dock is still this dock.

use utmos_core::time::Now;
use utmos_dji::catalogue::Job;

use super::{Dock, Output, fingerprint};

/// What faults have done to a dock.
#[derive(Debug, Default)]
pub struct Meddling {
    /// What is made of the command that comes next.
    pub overruled: Option<Overruled>,
    /// Whether the aircraft is kept out of `update_topo`.
    pub hides_aircraft: bool,
}

/// What is made of a command whatever the dock would make of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Overruled {
    /// It is received, and nothing comes of it.
    Ignore,
    /// It is refused with this code.
    Refuse(i64),
}

impl Overruled {
    pub fn code(self) -> Option<i64> {
        match self {
            Self::Ignore => None,
            Self::Refuse(code) => Some(code),
        }
    }
}

impl Dock {
    /// Decides about the next message, if it is a command.
    pub(crate) fn overrule(&mut self, overruled: Overruled) {
        self.meddling.overruled = Some(overruled);
    }

    /// Takes the aircraft out of `update_topo` or puts it back, and tells so. To the dock itself it is where it was.
    pub(crate) fn show_aircraft(&mut self, is_shown: bool, now: Now) -> Vec<Output> {
        self.now = now;
        self.meddling.hides_aircraft = !is_shown;
        self.update_topo();
        std::mem::take(&mut self.out)
    }

    /// Tells those who watch.
    pub(crate) fn remark(&mut self, text: String, now: Now) -> Vec<Output> {
        self.now = now;
        self.note(text);
        std::mem::take(&mut self.out)
    }

    pub(crate) fn is_connected(&self) -> bool {
        !self.link.is_down()
    }

    pub(crate) fn now_ms(&self) -> u64 {
        self.now.mono.as_millis()
    }

    pub(crate) fn sn(&self) -> &str {
        self.sn.as_str()
    }

    /// How the progress of a method is told.
    pub(crate) fn job_of(&self, method: &str) -> Option<&Job> {
        self.catalogue.method(method)?.job.as_ref()
    }

    /// A seed of the fleet, made this dock's own.
    pub(crate) fn own_seed(&self, seed: u64) -> u64 {
        seed ^ fingerprint(self.sn.as_str())
    }
}
