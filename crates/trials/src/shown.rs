//! What faults in the platform's own code must show, so that they count as caught.

use utmos_core::planted::Fault;

use crate::{mutation::Mutation, shrink::kind};

/// How those violations begin, as [`kind`] tells them, of which a fault must show one.
#[must_use]
pub fn shown_by(fault: Fault) -> &'static [&'static str] {
    match fault {
        Fault::ResentOnReconnect => Mutation::ResendOnReconnect.shows(),
        Fault::DeadlineNotAsked => &["left after its deadline"],
        Fault::GatewayNotCompared => Mutation::GatewayNotCompared.shows(),
        // Found beside the store of the trials, which compares by itself.
        Fault::VersionNotCompared => &["of moving from"],
        Fault::NonceInMemoryOnly => Mutation::NonceInMemoryOnly.shows(),
        Fault::EmergencyInOrdinaryLane => &["emergency of left at"],
        Fault::WaitingNotPreempted => &["left after emergency"],
        Fault::LastInFirstOut => &["was sent before"],
        Fault::AbsentTreatedAsOnline | Fault::PresenceNeverOver => {
            &["was published to an absent dock"]
        }
        Fault::PreemptsEveryAircraft => &["was withdrawn for no emergency of its own"],
        Fault::CancelsAnother => &["was cancelled by nobody"],
        Fault::WaiterAfterPublish => Mutation::WaiterAfterPublish.shows(),
        Fault::TimersIgnoredOnResume => Mutation::TimerLostOnRestart.shows(),
        Fault::MethodNotCompared => Mutation::MethodNotCompared.shows(),
        Fault::EndsOfOthersForgotten => &["the word of its end was lost"],
        Fault::LeaseNotAsked => &["left by a server that does not hold its gateway"],
        Fault::UnheardAskedAnew => Mutation::KeyInMemoryOnly.shows(),
        Fault::UnheardNotHanded => &["was never sent"],
        Fault::ClaimNotAwaited => &["left before its claim was on record"],
    }
}

/// Whether one of these was found. What a fault upsets besides does not count.
#[must_use]
pub fn shows(any: &[&str], violations: &[String]) -> bool {
    let is_it = |one: &String| any.iter().any(|begins| kind(one).starts_with(begins));
    violations.iter().any(is_it)
}
