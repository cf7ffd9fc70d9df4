//! Faults of the platform itself, put in on purpose: a net that does not catch them catches nothing.

use clap::ValueEnum;
use serde_json::Value;
use utmos_core::id::CommandId;

use crate::world::{World, gateway};

/// What is made wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Mutation {
    /// A change is stored whatever the version it was decided on.
    NoCompareAndSet,
    /// An answer that was judged on an older state is put on the timeline as evidence and is lost.
    EvidenceNotCompared,
    /// Nonces do not outlive the process.
    NonceInMemoryOnly,
    /// Idempotency keys do not outlive the process.
    KeyInMemoryOnly,
    /// Nothing stands in the way of a second movement.
    MotionsUnchecked,
    /// A command is accepted before it is durable.
    AcceptBeforeDurable,
    /// A claim counts before it is durable.
    ClaimBeforeDurable,
    /// Timers are gone after a restart.
    TimerLostOnRestart,
    /// Open commands are not looked after by the next process.
    OpenForgottenOnRestart,
    /// A restart does not know of emergencies that have been.
    EmergencyForgottenOnRestart,
    /// A command that may have left is found as one that waits.
    UnclearFoundAsWaiting,
    /// The last question before the write is not asked.
    GateIgnored,
    /// What was not acknowledged is sent again when the dock is back.
    ResendOnReconnect,
    /// The broker keeps messages for an absent dock.
    QueueForAbsentDock,
    /// What is lost on the way reads as confirmed.
    ConfirmedThoughLost,
    /// What may have left reads as never sent.
    UnknownReadAsNotSent,
    /// Answers are matched without their gateway.
    GatewayNotCompared,
    /// Answers are matched without their method.
    MethodNotCompared,
    /// An answer that overtakes the acknowledgement finds nobody waiting.
    WaiterAfterPublish,
    /// Deadlines follow the clock on the wall.
    DeadlineOnTheWall,
    /// Servers tell each other deadlines by the clock on the wall of each.
    ToldByTheWall,
    /// Running times of different boots are compared.
    BootsMixedUp,
    /// Emergencies wait for the store like everything else.
    NoJournal,
    /// What is in the journal is not put on record by the next process.
    JournalForgottenOnRestart,
    /// An emergency leaves when it is in the journal, and not yet on the disk.
    JournalNotSynced,
    /// An emergency that is put on record begins anew.
    JournalReplayedAsNew,
    /// An emergency is put on record without the nonce of its request.
    JournalNonceForgotten,
    /// The nonce of a request that was answered from the journal is not remembered.
    JournalAnswerNotRemembered,
    /// What is in the journal changes what is final in the store.
    JournalOverFinalStates,
    /// An emergency whose nonce was spent by another request gets another key.
    JournalKeyRenamed,
    /// A row that cannot be read is taken for a store that is unwell.
    JournalStuckOnDamage,
    /// What devices say in between has no bound of its own.
    JournalFilledByTalk,
    /// What is in the journal stands in nobody's way.
    JournalInNobodysWay,
    /// One of several servers begins a sending in its journal that the store, and so another, knows nothing of.
    JournalClaimsUnfenced,
    /// What is in the journal of a server, and what another has stored, count to one version.
    JournalVersionsMeet,
    /// Of several servers the store asks none whether it holds the gateway: not at a claim, and not of what has to be handed on.
    ClaimsNotFenced,
    /// Commands of another server are taken over in the order of their ids, not of their acceptance.
    TakenOverInOrderOfIds,
    /// What one server accepts for another's gateway is told to nobody.
    HandedForgotten,
    /// What devices say to a server that is gone is not remembered for the next.
    MissedForgotten,
    /// How jobs go and end is not heard.
    JobEventsDropped,
    /// That a dock says something does not count as a sign that it is there.
    PresenceNotHeard,
    /// The task that accepts a command panics: its caller is told that the server stops.
    PanicAtAccept,
    /// Taking in an answer panics.
    PanicAtAnswer,
    /// A start panics.
    PanicAtStart,
    /// The first word of a job's progress is taken for that of its end.
    SucceedsAtFirstProgress,
    /// The broker's word that a dock has a command is not waited for.
    ConfirmedAtTheWrite,
    /// A task gives way for ever, so that time does not pass.
    NeverIdle,
}

/// That a nonce was not kept, whoever finds it out first.
const NONCE_LOST: &[&str] = &[
    "the nonce of wish was good twice",
    "a nonce of wish was answered twice",
    "a nonce of wish is not on record",
];
/// That what stood in a journal is gone.
const JOURNAL_LOST: &[&str] = &[
    "wish lost the command that it was told of",
    "a nonce of wish is not on record",
    "a whole line of the emergency journal cannot be read",
];
/// That what is final, or what another has written, was changed.
const OVERWRITTEN: &[&str] =
    &["went back to an older version", "has a gap in its timeline", "had ended as"];
/// That what was none of its own was taken for its answer.
const ANOTHERS_ANSWER: &[&str] =
    &["Succeeded was said too soon", "Runs was said too soon", "Unmatched was said too soon"];

impl Mutation {
    /// How those violations begin, as [`kind`](crate::kind) tells them, of which it must show one: whatever else a fault upsets,
    /// it is caught by what it does, or not at all.
    #[must_use]
    pub fn shows(self) -> &'static [&'static str] {
        match self {
            Self::NoCompareAndSet | Self::EvidenceNotCompared | Self::JournalOverFinalStates => {
                OVERWRITTEN
            }
            // What had left is found as what waits: its time is over, its dock is away, or it goes once more.
            Self::JournalVersionsMeet => &[
                "reads TimedOut/Some(ExpiredBeforeSending)",
                "reads TimedOut/Some(DeviceOffline)",
                "had ended as",
                "sent more than once",
            ],
            Self::NonceInMemoryOnly
            | Self::JournalNonceForgotten
            | Self::JournalAnswerNotRemembered => NONCE_LOST,
            Self::KeyInMemoryOnly | Self::JournalKeyRenamed => &["and have one key", "wish became"],
            Self::MotionsUnchecked => &["was accepted while was running"],
            Self::AcceptBeforeDurable => {
                &["left before it was on record", "wish lost the command that it was told of"]
            }
            Self::ClaimBeforeDurable => {
                &["left before its claim was on record", "sent more than once", "had ended as"]
            }
            Self::TimerLostOnRestart
            | Self::OpenForgottenOnRestart
            | Self::ClaimsNotFenced
            | Self::HandedForgotten => &["never ended"],
            Self::EmergencyForgottenOnRestart => &["left after emergency"],
            Self::UnclearFoundAsWaiting
            | Self::ResendOnReconnect
            | Self::UnknownReadAsNotSent
            | Self::JournalReplayedAsNew
            | Self::JournalClaimsUnfenced => &["sent more than once"],
            Self::ToldByTheWall => &["left after its deadline"],
            Self::GateIgnored => &["left after its deadline", "left after emergency"],
            Self::QueueForAbsentDock | Self::ConfirmedThoughLost | Self::ConfirmedAtTheWrite => {
                &["Delivered was said too soon"]
            }
            Self::GatewayNotCompared | Self::MethodNotCompared => ANOTHERS_ANSWER,
            Self::WaiterAfterPublish | Self::MissedForgotten => &["its answer was lost"],
            Self::DeadlineOnTheWall | Self::BootsMixedUp => {
                &["left after its deadline", "was never sent"]
            }
            Self::NoJournal => {
                &["emergency of wish was refused", "emergency of wish of was answered"]
            }
            Self::JournalForgottenOnRestart | Self::JournalNotSynced => JOURNAL_LOST,
            Self::JournalStuckOnDamage => &["never ended"],
            Self::JournalFilledByTalk => &["emergency of wish was refused", "emergency of left at"],
            Self::JournalInNobodysWay => &["was accepted beside emergency"],
            Self::TakenOverInOrderOfIds => &["was sent before"],
            Self::JobEventsDropped => &["the word of its end was lost"],
            Self::PresenceNotHeard => &["was never sent"],
            Self::PanicAtAccept | Self::PanicAtAnswer | Self::PanicAtStart => {
                &["it panicked at made so by the trial"]
            }
            Self::SucceedsAtFirstProgress => &["Succeeded was said too soon"],
            Self::NeverIdle => &[],
        }
    }

    /// Whether it is a fault of what the platform does. The others show that a program that breaks down, or does not get on, is
    /// noticed.
    #[must_use]
    pub fn is_of_conduct(self) -> bool {
        !matches!(
            self,
            Self::PanicAtAccept | Self::PanicAtAnswer | Self::PanicAtStart | Self::NeverIdle
        )
    }
}

impl World {
    /// A message of a dock as a mutated platform would understand it: the payload, and who it is taken to come from.
    /// `None` when it is taken for nothing.
    pub(crate) fn understood(
        &self,
        topic: &str,
        dock: u8,
        payload: Vec<u8>,
    ) -> Option<(u8, Vec<u8>)> {
        match (topic, self.mutation) {
            ("events", Some(Mutation::JobEventsDropped))
            | ("osd", Some(Mutation::PresenceNotHeard)) => return None,
            _ => {}
        }
        if topic == "services_reply" && self.mutation == Some(Mutation::PanicAtAnswer) {
            panic!("made so by the trial");
        }
        if self.mutation == Some(Mutation::SucceedsAtFirstProgress)
            && let Ok(text) = str::from_utf8(&payload)
        {
            let ended = text
                .replace("\"in_progress\"", "\"ok\"")
                .replace("\"wayline_progress\"", "\"wayline_ok\"");
            return Some((dock, ended.into_bytes()));
        }
        let is_wanted = matches!(
            self.mutation,
            Some(
                Mutation::GatewayNotCompared
                    | Mutation::MethodNotCompared
                    | Mutation::WaiterAfterPublish
            )
        );
        if !is_wanted || topic != "services_reply" {
            return Some((dock, payload));
        }
        let Ok(mut body) = serde_json::from_slice::<Value>(&payload) else {
            return Some((dock, payload));
        };
        let id: Option<CommandId> = body["tid"].as_str().and_then(|tid| tid.parse().ok());
        let mut state = self.state();
        let known = id.and_then(|id| state.known.get(&id));
        let Some(spec) = known.map(|known| known.spec.clone()) else {
            return Some((dock, payload));
        };
        match self.mutation {
            Some(Mutation::WaiterAfterPublish) => {
                let is_awaited = state.facts(spec.id).acknowledged;
                is_awaited.then_some((dock, payload))
            }
            Some(Mutation::MethodNotCompared) => {
                body["method"] = spec.method.clone().into();
                Some((dock, body.to_string().into_bytes()))
            }
            Some(_) | None => {
                body["gateway"] = spec.gateway.as_str().into();
                let own = (0..self.plan.docks).find(|dock| gateway(*dock) == spec.gateway);
                Some((own.unwrap_or(dock), body.to_string().into_bytes()))
            }
        }
    }
}
