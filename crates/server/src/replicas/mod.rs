//! Several servers as one (LIFECYCLE.md, "Replicas"): each holds a part of the gateways, and sends to those alone.
//!
//! All of them hear everything that devices say, so that presence and telemetry are known everywhere; what it means for
//! commands, and what devices ask, is the holder's. What a store fences stands in [`utmos_core::ports::ReplicaStore`].

mod holdings;
mod lines;
mod membership;
mod missed;

pub use self::{
    holdings::Holdings,
    lines::{LineKey, Lines, LinesError},
    membership::{JoinError, Membership, MembershipParts},
    missed::{Missed, MissedWord, Word},
};
