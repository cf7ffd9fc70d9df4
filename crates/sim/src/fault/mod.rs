//! Docks that misbehave on purpose, so that an integration can be tried against them.
//!
//! A [`FaultPlan`] says which commands meet which [`Fault`], and which [`Incident`] befalls which docks when. It is read
//! from a [`crate::Scenario`] or from flags, and a running fleet takes more. A [`FaultyDock`] is a [`crate::Dock`] that
//! follows one: pure as the dock is, one seed and one order of commands give the same faults. With an empty plan it is the
//! dock and nothing else.
//!
//! The ledger is never lied to. A fault that spoils an answer leaves what was done as it was done; one that changes what
//! the dock does is written down as that.

mod answer;
mod codes;
mod dock;
mod flag;
mod job;
mod named;
mod names;
mod plan;
pub(crate) mod read;
mod rules;

pub use dock::{Acknowledged, Connection, Deeds, FaultyDock, Met};
pub use flag::FaultFlag;
pub use named::{Named, Thing};
pub use names::{KINDS, KindName, Sort};
pub use plan::{AnswerField, Fault, FaultPlan, Glob, Incident, Meets, Rule, Trouble};
pub use read::{Entry, Problem, Problems};
