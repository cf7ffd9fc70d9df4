//! A change in the journal, fitted to what is in the store by then: an attempt of which the store never told, or another
//! server, may have come first. What was acted on goes on record all the same, as far as no final state changes. Pure.

use std::sync::Arc;

use utmos_core::{
    command::{FailureCode, Life, Outcome, Phase},
    evidence::Entry,
    ports::Advance,
};

/// The change as it goes onto a command that stands as `stored` says; with `is_shared`, also by what other servers have done.
/// Where the two have parted, the version rises above both: whoever decided on either of them meets that by comparing it.
/// `None` when nothing of it is to be stored.
pub(super) fn fit(advance: &Advance, stored: &Life, is_shared: bool) -> Option<Advance> {
    let is_as_it_was = stored.version == advance.seen
        && !stored.phase.has_ended()
        && advance.entries.first().is_none_or(|entry| entry.from == stored.status());
    if is_as_it_was {
        return Some(advance.clone());
    }
    let moves = advance.life.version != advance.seen
        && !stored.phase.has_ended()
        && (!is_shared || goes_on(stored, &advance.life));
    let mut status = stored.status();
    let mut entries = Vec::new();
    for entry in advance.entries.iter() {
        let to = if moves && entry.from != entry.to { entry.to } else { status };
        entries.push(Entry { from: status, to, ..entry.clone() });
        status = to;
    }
    let mut life = if moves { &*advance.life } else { stored }.clone();
    if moves && is_shared {
        remember(&mut life, stored);
    }
    if moves || is_shared {
        life.version = stored.version.max(advance.life.version).next();
    }
    let fits = status == life.status() && (life.version != stored.version || !entries.is_empty());
    fits.then(|| Advance {
        id: advance.id,
        seen: stored.version,
        life: Arc::new(life),
        entries: entries.into(),
    })
}

/// Whether a command that another server has moved goes on to where this one's journal has it: what its device said counts,
/// and so does that nobody knows. That it did not leave from here says nothing of what another server has begun since.
fn goes_on(stored: &Life, to: &Life) -> bool {
    match to.phase {
        Phase::Waiting | Phase::Sending => stored.phase == Phase::Waiting,
        Phase::Delivered => stored.response.is_none() && stored.execution.is_none(),
        Phase::Ended(
            Outcome::Delivered
            | Outcome::Succeeded
            | Outcome::Unmatched
            | Outcome::Failed(FailureCode::DeviceExecutionFailed)
            | Outcome::TimedOut(
                FailureCode::NoResponse
                | FailureCode::ExecutionUnconfirmed
                | FailureCode::DispatchUncertain,
            ),
        ) => true,
        Phase::Ended(Outcome::Failed(_) | Outcome::TimedOut(_)) => stored.phase == Phase::Waiting,
    }
}

/// What the other server has heard is not forgotten.
fn remember(life: &mut Life, stored: &Life) {
    life.delivered_at = life.delivered_at.or(stored.delivered_at);
    life.response_received_at = life.response_received_at.or(stored.response_received_at);
    life.response = life.response.take().or_else(|| stored.response.clone());
    life.execution = life.execution.take().or_else(|| stored.execution.clone());
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]
    use utmos_core::command::Status;

    use super::{
        super::tests::given::{change, moved, new, spec},
        *,
    };

    #[test]
    fn what_was_acted_on_goes_on_record_and_no_final_state_changes() {
        let new = new(spec(0, "k"));
        let (command, begun) =
            (utmos_core::command::Command { spec: new.spec, life: new.life.clone() }, new.life);
        let delivered = moved(&begun, Phase::Delivered, 3);
        let ended = change(&command, moved(&begun, Phase::Ended(Outcome::Succeeded), 5));
        let fitted = fit(&ended, &delivered, false).unwrap();
        assert_eq!(fitted.seen, delivered.version);
        assert_eq!(fitted.life.version, delivered.version.next());
        assert_eq!(fitted.life.status(), Status::Succeeded);
        assert_eq!(fitted.entries.first().unwrap().from, Status::Delivered);
        assert_eq!(fitted.entries.last().unwrap().to, Status::Succeeded);

        let failed = moved(&begun, Phase::Ended(Outcome::Succeeded), 4);
        let evidence = fit(&change(&command, delivered), &failed, false).unwrap();
        assert_eq!((evidence.seen, &evidence.life), (failed.version, &failed));
        assert!(evidence.entries.iter().all(|entry| entry.to == Status::Succeeded));
    }

    #[test]
    fn of_what_another_server_has_moved_what_the_device_said_counts_and_not_that_it_never_left() {
        let new = new(spec(0, "k"));
        let (spec, waiting) = (new.spec, new.life);
        let claimed = moved(&waiting, Phase::Sending, 1);
        let anothers = moved(&moved(&claimed, Phase::Waiting, 2), Phase::Sending, 3);
        let command = utmos_core::command::Command { spec, life: claimed.clone() };
        let fitted = |phase: Phase, stored: &Life| {
            let fitted = fit(&change(&command, moved(&claimed, phase, 5)), stored, true).unwrap();
            assert!(fitted.life.version > stored.version.max(claimed.version.next()), "{phase:?}");
            assert_eq!(fitted.seen, stored.version);
            fitted.life.phase
        };
        let unsent = Phase::Ended(Outcome::TimedOut(FailureCode::ExpiredBeforeSending));
        let unknown = Phase::Ended(Outcome::TimedOut(FailureCode::DispatchUncertain));
        let done = Phase::Ended(Outcome::Succeeded);
        for phase in [unsent, Phase::Waiting, Phase::Ended(Outcome::Failed(FailureCode::Cancelled))]
        {
            assert_eq!(fitted(phase, &anothers), Phase::Sending);
        }
        for phase in [Phase::Delivered, unknown, done] {
            assert_eq!(fitted(phase, &anothers), phase);
        }
        let given_back = moved(&anothers, Phase::Waiting, 4);
        assert_eq!(fitted(unsent, &given_back), unsent);
        let mut runs = moved(&anothers, Phase::Delivered, 4);
        Arc::make_mut(&mut runs).delivered_at = Some(runs.updated_at);
        assert_eq!(fitted(Phase::Delivered, &runs), Phase::Delivered);
        let ended = fit(&change(&command, moved(&claimed, unknown, 5)), &runs, true).unwrap();
        assert_eq!(ended.life.delivered_at, runs.delivered_at, "what the other heard stays");
        for phase in [unsent, unknown, Phase::Delivered] {
            assert_eq!(fitted(phase, &moved(&anothers, done, 4)), done);
        }
    }
}
