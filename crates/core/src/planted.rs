//! Faults that a trial plants in the code itself, to see that it would find them. Only a debug build can hold one, on the
//! thread that planted it; in a release the question is answered by the compiler, and nothing of this is left.

use std::cell::Cell;

/// What can be planted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// What may have left goes out once more when the gateway is back.
    ResentOnReconnect,
    /// The deadline is not asked for at the write.
    DeadlineNotAsked,
    /// Answers are matched without their gateway.
    GatewayNotCompared,
    /// A change is saved whatever the version it was decided on.
    VersionNotCompared,
    /// The nonce of a repeated request is in memory only until the store is well.
    NonceInMemoryOnly,
    /// An emergency waits in the lane of what is none, behind it.
    EmergencyInOrdinaryLane,
    /// Movements that wait are not pre-empted, only those that are on their way out.
    WaitingNotPreempted,
    /// Of what waits for a gateway, the last that came leaves first.
    LastInFirstOut,
    /// What waits for a gateway that is not there has its turn all the same.
    AbsentTreatedAsOnline,
    /// Whoever was heard once counts as there for good.
    PresenceNeverOver,
    /// An emergency withdraws the movements of every aircraft.
    PreemptsEveryAircraft,
    /// Whoever cancels a command ends another one that waits.
    CancelsAnother,
    /// An answer that comes while its command is being published finds nobody waiting.
    WaiterAfterPublish,
    /// What is found at a start is looked after without its timer.
    TimersIgnoredOnResume,
    /// Answers are matched without their method.
    MethodNotCompared,
    /// What is to be claimed leaves without waiting for its claim.
    ClaimNotAwaited,
    /// How jobs of other servers ended is not put on record for those that were gone meanwhile.
    EndsOfOthersForgotten,
    /// At the write it is not asked whether the server has given a sign of life lately enough.
    LeaseNotAsked,
    /// What another server was asked to accept and gave no answer to is accepted here as something else.
    UnheardAskedAnew,
    /// What another server stored without being heard is not handed to it.
    UnheardNotHanded,
}

impl Fault {
    /// Every one of them.
    pub const ALL: [Self; 20] = [
        Self::ResentOnReconnect,
        Self::DeadlineNotAsked,
        Self::GatewayNotCompared,
        Self::VersionNotCompared,
        Self::NonceInMemoryOnly,
        Self::EmergencyInOrdinaryLane,
        Self::WaitingNotPreempted,
        Self::LastInFirstOut,
        Self::AbsentTreatedAsOnline,
        Self::PresenceNeverOver,
        Self::PreemptsEveryAircraft,
        Self::CancelsAnother,
        Self::WaiterAfterPublish,
        Self::TimersIgnoredOnResume,
        Self::MethodNotCompared,
        Self::ClaimNotAwaited,
        Self::EndsOfOthersForgotten,
        Self::LeaseNotAsked,
        Self::UnheardAskedAnew,
        Self::UnheardNotHanded,
    ];

    /// What it is called.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::ResentOnReconnect => "resent-on-reconnect",
            Self::DeadlineNotAsked => "deadline-not-asked",
            Self::GatewayNotCompared => "gateway-not-compared",
            Self::VersionNotCompared => "version-not-compared",
            Self::NonceInMemoryOnly => "nonce-in-memory-only",
            Self::EmergencyInOrdinaryLane => "emergency-in-ordinary-lane",
            Self::WaitingNotPreempted => "waiting-not-preempted",
            Self::LastInFirstOut => "last-in-first-out",
            Self::AbsentTreatedAsOnline => "absent-treated-as-online",
            Self::PresenceNeverOver => "presence-never-over",
            Self::PreemptsEveryAircraft => "preempts-every-aircraft",
            Self::CancelsAnother => "cancels-another",
            Self::WaiterAfterPublish => "waiter-after-publish",
            Self::TimersIgnoredOnResume => "timers-ignored-on-resume",
            Self::MethodNotCompared => "method-not-compared",
            Self::ClaimNotAwaited => "claim-not-awaited",
            Self::EndsOfOthersForgotten => "ends-of-others-forgotten",
            Self::LeaseNotAsked => "lease-not-asked",
            Self::UnheardAskedAnew => "unheard-asked-anew",
            Self::UnheardNotHanded => "unheard-not-handed",
        }
    }
}

thread_local! {
    static PLANTED: Cell<Option<Fault>> = const { Cell::new(None) };
}

/// Whether this fault is planted here. Never in a release.
#[must_use]
pub fn is_planted(fault: Fault) -> bool {
    cfg!(debug_assertions) && PLANTED.get() == Some(fault)
}

/// It is planted as long as this lives.
#[derive(Debug)]
pub struct Planted(());

/// Plants a fault on this thread, in a debug build.
#[must_use]
pub fn plant(fault: Fault) -> Planted {
    PLANTED.set(Some(fault));
    Planted(())
}

impl Drop for Planted {
    fn drop(&mut self) {
        PLANTED.set(None);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fault_is_there_on_its_thread_for_a_while_and_in_no_release() {
        let fault = Fault::DeadlineNotAsked;
        assert!(!is_planted(fault));
        let planted = plant(fault);
        assert_eq!(is_planted(fault), cfg!(debug_assertions));
        assert!(!is_planted(Fault::ResentOnReconnect));
        std::thread::scope(|scope| {
            let elsewhere = scope.spawn(move || is_planted(fault)).join();
            assert!(matches!(elsewhere, Ok(false)));
        });
        drop(planted);
        assert!(!is_planted(fault));
    }
}
