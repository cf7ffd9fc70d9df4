//! Docks that misbehave on purpose, so that an integration can be tried against them.
//!
//! A [`FaultPlan`] says which commands meet which [`Fault`], and which [`Incident`] befalls the whole fleet when. It is read
//! from TOML or from flags. A [`FaultyDock`] is a [`crate::Dock`] that follows one: pure as the dock is, one seed and one
//! order of commands give the same faults. With an empty plan it is the dock and nothing else.
//!
//! The ledger is never lied to. A fault that spoils an answer leaves what was done as it was done; one that changes what
//! the dock does is written down as that.

mod answer;
mod codes;
mod dock;
mod flag;
mod job;
mod names;
mod plan;
mod read;
mod rules;
mod toml;

pub use dock::{Deeds, FaultyDock};
pub use flag::FaultFlag;
pub use names::{KINDS, KindName};
pub use plan::{AnswerField, Fault, FaultPlan, Glob, Incident, Meets, Rule, Trouble};
pub use read::PlanError;
