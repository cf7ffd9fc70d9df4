//! A request to be bound that waited for its answer: it is carried out and answered in one, or neither.

use std::sync::Arc;

use utmos_core::{
    device_request::{Decision, DeviceRequest, Input, Reply, ReplySource, decide},
    ports::{RequestChanged, StoreError},
};
use utmos_dji::answer::{self, BindDevice, BindingOutcome, Facts, Question};

use super::{Inner, by_hand::ByHand};
use crate::fleet::{Answered, NotAnswered, Outcomes};

/// What became of an attempt to move a request.
pub(super) enum Settled {
    /// It stands so, on disk.
    Moved {
        to: Arc<DeviceRequest>,
        /// Its answer leaves now.
        publish: bool,
    },
    /// Somebody else moved it first.
    Lost,
    /// It does not move.
    Not(Decision),
}

impl Settled {
    pub(super) fn of(changed: RequestChanged, to: Arc<DeviceRequest>, publish: bool) -> Self {
        match changed {
            RequestChanged::Yes => Self::Moved { to, publish },
            RequestChanged::Lost => Self::Lost,
        }
    }
}

/// Who says that devices are to be bound.
#[derive(Clone, Copy)]
pub(super) enum Approval<'a> {
    /// Somebody, by hand.
    ByHand(&'a ByHand),
    /// The rule, for want of anybody.
    Rule,
}

impl Approval<'_> {
    /// The answer, in DJI's shape, that says what became of each device.
    fn input(self, reply: Reply, outcomes: &Outcomes) -> Input {
        match self {
            Self::Rule => Input::Automatic(reply),
            Self::ByHand(by_hand) => {
                let (code, source) = (by_hand.code.clone(), ReplySource::Manual);
                let message = by_hand.message.clone().or_else(|| in_words(outcomes));
                let by = Some(by_hand.who.clone());
                Input::Reply(Reply { code, message, source, by, ..reply })
            }
        }
    }
}

impl Inner {
    /// Binds the devices that a request names as far as they may be, and answers it with what became of each.
    ///
    /// # Errors
    /// When nobody knows whether that is on record.
    pub(super) async fn answer_binding(
        &self,
        request: &DeviceRequest,
        devices: &[BindDevice],
        approval: Approval<'_>,
    ) -> Result<Settled, StoreError> {
        let (asked, onboarding) = (&request.asked, &self.parts.onboarding);
        let plan = onboarding.plan(asked.tenant, &asked.gateway, devices);
        let plan = match approval {
            Approval::ByHand(by_hand) => plan.approved_by(&by_hand.who),
            Approval::Rule => plan,
        };
        let question = Question::Bind { devices: devices.to_vec() };
        let to_answer = |outcomes: &Outcomes| {
            let facts = Facts { outcomes: outcomes.clone(), ..Facts::default() };
            let automatic = answer::automatic(&question, &facts).map_err(|_| Decision::Ignore)?;
            let now = self.parts.clock.now();
            let reply = Reply {
                code: automatic.result.to_string(),
                message: automatic.message.map(str::to_owned),
                source: ReplySource::Auto,
                by: None,
                data: automatic.data.into(),
                at: now.wall,
            };
            let input = approval.input(reply, outcomes);
            match decide(request, input, now, self.parts.clock.boot()) {
                Decision::Move { to, publish: _ } => Ok(Arc::from(to)),
                other @ (Decision::Refuse(_) | Decision::Ignore) => Err(other),
            }
        };
        match onboarding.bind_answering(plan, request.version, &to_answer).await {
            Ok(Answered::Yes(to)) => Ok(Settled::Moved { to, publish: false }),
            Ok(Answered::Lost) => Ok(Settled::Lost),
            Ok(Answered::NothingToBind(to)) => {
                let store = &self.parts.store;
                let changed = store.change_request(request.version, to.clone()).await?;
                Ok(Settled::of(changed, to, false))
            }
            Err(NotAnswered::Refused(decision)) => Ok(Settled::Not(decision)),
            Err(NotAnswered::Store(error)) => Err(error),
        }
    }
}

/// What whoever approves is told where not every device was bound.
fn in_words(outcomes: &Outcomes) -> Option<String> {
    let bound = outcomes.values().filter(|outcome| **outcome == BindingOutcome::Bound).count();
    match outcomes.len() {
        all if all == bound && all > 0 => None,
        0 => Some("no device was bound: the request names none".to_owned()),
        all if bound == 0 => Some(format!("none of its {all} devices was bound")),
        all => Some(format!("{bound} of its {all} devices were bound")),
    }
}
