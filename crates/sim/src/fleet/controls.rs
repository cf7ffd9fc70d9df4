//! The reins of a running fleet: how its docks stand, what they did, what is to go wrong from now on.

use std::sync::Arc;

use futures_util::future::join_all;
use serde_json::{Map, Value};
use tokio::sync::{mpsc, oneshot};
use utmos_core::nearest;

use super::{
    Shared,
    live::{Order, What},
    register::{ADDED_MAX, List},
};
use crate::{
    Asking, DockState, Outcome, Received,
    fault::{Entry, Fault, Named},
};

/// A hold on a running fleet. It can be cloned, and outlives the fleet without keeping it alive.
#[derive(Debug, Clone)]
pub struct Controls {
    pub(super) shared: Arc<Shared>,
    pub(super) docks: Arc<[Reins]>,
}

/// The way to one dock.
#[derive(Debug)]
pub(super) struct Reins {
    pub(super) sn: String,
    pub(super) orders: mpsc::Sender<Order>,
}

/// Why a fleet does not do what it is told.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ControlError {
    /// It has no such dock.
    #[error("there is no dock {sn}{}", meant(.nearest.as_deref()))]
    UnknownDock {
        /// The serial number.
        sn: String,
        /// What was perhaps meant.
        nearest: Option<String>,
    },
    /// It has no such fault or condition, or it is over.
    #[error("there is no {} {number}, or it is over", match .list { List::Faults => "fault", List::Conditions => "condition" })]
    Unknown {
        /// Where it was looked for.
        list: List,
        /// Its number.
        number: u64,
    },
    /// It is under too many already.
    #[error("{ADDED_MAX} faults and conditions were added already; remove some first")]
    TooMany,
    /// The dock has no connection.
    #[error("{sn} is not connected to its broker")]
    NotConnected {
        /// The dock.
        sn: String,
    },
    /// It has been stopped.
    #[error("the fleet has been stopped")]
    Stopped,
}

impl ControlError {
    /// That none of these is this dock, unless one is.
    #[must_use]
    pub fn unknown_dock<'a>(
        sn: &str,
        known: impl Iterator<Item = &'a str> + Clone,
    ) -> Option<Self> {
        if known.clone().any(|known| known == sn) {
            return None;
        }
        let nearest = nearest(sn, known).map(str::to_owned);
        Some(Self::UnknownDock { sn: sn.to_owned(), nearest })
    }
}

fn meant(nearest: Option<&str>) -> String {
    nearest.map(|sn| format!("; did you mean {sn}?")).unwrap_or_default()
}

/// A command as one dock received it, and what became of it.
#[derive(Debug, Clone, PartialEq)]
pub struct CommandCopy {
    /// The command.
    pub received: Received,
    /// What became of it.
    pub outcome: Outcome,
}

impl Controls {
    /// How every dock stands, in the order of the fleet.
    ///
    /// # Errors
    /// When the fleet has been stopped.
    pub async fn docks(&self) -> Result<Vec<DockState>, ControlError> {
        join_all(self.docks.iter().map(|dock| dock.tell(What::Look))).await.into_iter().collect()
    }

    /// How a dock stands.
    ///
    /// # Errors
    /// When there is no such dock, or the fleet has been stopped.
    pub async fn dock(&self, sn: &str) -> Result<DockState, ControlError> {
        self.known(sn)?;
        match self.docks.iter().find(|dock| dock.sn == sn) {
            Some(dock) => dock.tell(What::Look).await,
            None => Err(ControlError::Stopped),
        }
    }

    /// Makes a dock ask the cloud for something. How it stands then tells the request, as the last of `requests`, unless it
    /// has no connection.
    ///
    /// # Errors
    /// When there is no such dock, it has no connection, or the fleet has been stopped.
    pub async fn ask(&self, sn: &str, asking: Asking) -> Result<DockState, ControlError> {
        self.known(sn)?;
        let dock = self.docks.iter().find(|dock| dock.sn == sn).ok_or(ControlError::Stopped)?;
        let state = dock.tell(What::Ask(asking)).await?;
        if !state.connected {
            return Err(ControlError::NotConnected { sn: sn.to_owned() });
        }
        Ok(state)
    }

    /// Every copy of a command that a dock received, in the order of arrival, and the fault that the last one met.
    #[must_use]
    pub fn command(&self, tid: &str) -> (Vec<CommandCopy>, Option<Fault>) {
        let ledger = self.shared.ledger();
        let copies = ledger.copies(tid);
        let copies =
            copies.map(|(received, outcome)| CommandCopy { received: received.clone(), outcome });
        (copies.collect(), ledger.fault(tid).cloned())
    }

    /// The last commands that docks received, or one of them, the newest first.
    #[must_use]
    pub fn latest(&self, sn: Option<&str>, count: usize) -> Vec<CommandCopy> {
        let ledger = self.shared.ledger();
        let latest =
            ledger.latest().filter(|(received, _)| sn.is_none_or(|sn| *received.sn == *sn));
        latest
            .take(count)
            .map(|(received, outcome)| CommandCopy { received: received.clone(), outcome })
            .collect()
    }

    /// What is on a list, each with its number as `id`: faults in the order in which a command looks at them.
    #[must_use]
    pub fn list(&self, list: List) -> Vec<Map<String, Value>> {
        self.shared.register().list(list, self.shared.now_ms())
    }

    /// Adds a fault or a condition. Faults go before those that are there. Every dock knows of it when this returns, and
    /// what begins at once has begun. A `doubt` beside what was added says why it may never happen.
    ///
    /// # Errors
    /// When its dock is not of this fleet, there are too many, or the fleet has been stopped.
    pub async fn add(&self, entry: Entry) -> Result<Map<String, Value>, ControlError> {
        let gateway = match &entry {
            Entry::Rule(rule) => &rule.meets.gateway,
            Entry::Incident(incident) => &incident.gateway,
        };
        if let Some(sn) = gateway {
            self.known(sn)?;
        }
        let gateway = gateway.clone();
        let added = self.shared.register().add(entry.clone(), self.shared.now_ms());
        let number = added.ok_or(ControlError::TooMany)?;
        let shown = self.shared.register().shown(number, self.shared.now_ms());
        let concerned =
            self.docks.iter().filter(|dock| gateway.as_ref().is_none_or(|sn| *sn == dock.sn));
        let told = concerned.map(|dock| dock.tell(What::Add(number, entry.clone())));
        let _states: Vec<DockState> =
            join_all(told).await.into_iter().collect::<Result<_, ControlError>>()?;
        let mut shown = shown.ok_or(ControlError::TooMany)?;
        let doubt = Named::by(&entry).iter().find_map(|one| one.doubt(&self.shared.catalogue));
        shown.extend(doubt.map(|doubt| ("doubt".to_owned(), Value::from(doubt))));
        Ok(shown)
    }

    /// Takes a fault away, or ends a condition. Every dock knows of it when this returns.
    ///
    /// # Errors
    /// When it is not on that list, or the fleet has been stopped.
    pub async fn remove(&self, list: List, number: u64) -> Result<(), ControlError> {
        if !self.shared.register().remove(list, number, self.shared.now_ms()) {
            return Err(ControlError::Unknown { list, number });
        }
        let told = self.docks.iter().map(|dock| dock.tell(What::Remove(number)));
        join_all(told).await.into_iter().try_for_each(|state| state.map(drop))
    }

    /// Tells every dock to say goodbye; [`crate::Fleet::shutdown`] waits for them.
    pub fn stop(&self) {
        self.shared.stop.send_replace(true);
    }

    fn known(&self, sn: &str) -> Result<(), ControlError> {
        let unknown =
            ControlError::unknown_dock(sn, self.docks.iter().map(|dock| dock.sn.as_str()));
        unknown.map_or(Ok(()), Err)
    }
}

impl Reins {
    async fn tell(&self, what: What) -> Result<DockState, ControlError> {
        let (done, answer) = oneshot::channel();
        self.orders.send(Order { what, done }).await.map_err(|_| ControlError::Stopped)?;
        answer.await.map_err(|_| ControlError::Stopped)
    }
}
