//! A change in the journal, fitted to what is in the store by then: an attempt of which the store never told, or another
//! server, may have come first. What was acted on goes on record all the same, as far as no final state changes. Pure.

use utmos_core::{command::Life, evidence::Entry, ports::Advance};

/// The change as it goes onto a command that stands as `stored` says. `None` when it does not.
pub(super) fn fit(advance: &Advance, stored: &Life) -> Option<Advance> {
    let is_as_it_was = stored.version == advance.seen
        && !stored.phase.has_ended()
        && advance.entries.first().is_none_or(|entry| entry.from == stored.status());
    if is_as_it_was {
        return Some(advance.clone());
    }
    let moves = advance.life.version != advance.seen && !stored.phase.has_ended();
    let mut status = stored.status();
    let mut entries = Vec::new();
    for entry in &advance.entries {
        let to = if moves && entry.from != entry.to { entry.to } else { status };
        entries.push(Entry { from: status, to, ..entry.clone() });
        status = to;
    }
    let mut life = stored.clone();
    if moves {
        life = advance.life.clone();
        life.version = stored.version.next();
    }
    let fits = status == life.status() && (moves || !entries.is_empty());
    fits.then_some(Advance { id: advance.id, seen: stored.version, life, entries })
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]
    use utmos_core::command::{Outcome, Phase, Status};

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
        let fitted = fit(&ended, &delivered).unwrap();
        assert_eq!(fitted.seen, delivered.version);
        assert_eq!(fitted.life.version, delivered.version.next());
        assert_eq!(fitted.life.status(), Status::Succeeded);
        assert_eq!(fitted.entries.first().unwrap().from, Status::Delivered);
        assert_eq!(fitted.entries.last().unwrap().to, Status::Succeeded);

        let failed = moved(&begun, Phase::Ended(Outcome::Succeeded), 4);
        let evidence = fit(&change(&command, delivered), &failed).unwrap();
        assert_eq!((evidence.seen, &evidence.life), (failed.version, &failed));
        assert!(evidence.entries.iter().all(|entry| entry.to == Status::Succeeded));
    }
}
