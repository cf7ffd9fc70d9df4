//! An answer by hand. Load, decide, save; that it leaves is `tend`'s.

use std::sync::Arc;

use utmos_core::{
    device_request::{
        CannotReply, Decision, DeviceRequest, Input, Reply, ReplySource, decide, result_of,
    },
    id::{ApiId, DeviceRequestId},
    ports::StoreError,
    time::Now,
};
use utmos_dji::answer::{self, Question};

use super::{
    Desk, Inner, Whose,
    binding::{Approval, Settled},
    count, kept_question,
};
use crate::crash_point;

/// How often an answer by hand is tried while others change the request.
const TRIES_MAX: usize = 8;

/// The request for which a good answer is more than words.
pub const BIND: &str = "airport_organization_bind";

/// An answer by hand.
#[derive(Debug, Clone)]
pub struct ByHand {
    /// `reply_code`.
    pub code: String,
    /// `reply_message`.
    pub message: Option<String>,
    /// `payload`, as JSON.
    pub payload: Option<String>,
    /// Who answers.
    pub who: ApiId,
}

/// Why an answer by hand is not taken.
#[derive(Debug, thiserror::Error)]
pub enum ReplyError {
    /// There is no such request.
    #[error("there is no such device request")]
    Unknown,
    /// It can have none.
    #[error("the device request cannot be answered: {0}")]
    Cannot(CannotReply),
    /// It approves a binding of which too little is on record.
    #[error(
        "cannot be approved: of the request's data, which is too long, only the beginning was kept, so that the server cannot \
         bind the devices it names; answer with another reply_code, and have the device name fewer devices"
    )]
    NotWhole,
    /// It approves a binding that does not say what is to be bound.
    #[error(
        "cannot be approved: it cannot be read from the request's data which devices are to be bound; answer with another \
         reply_code"
    )]
    NamesNobody,
    /// It approves the binding of a dock that nobody has registered and that is not known to be there.
    #[error(
        "cannot be approved now: nobody has registered this dock, and it has not come again with its binding code since the \
         server started or the code was taken back; approve it once the dock is connected, or register it"
    )]
    Away,
    /// It could not be stored, or its word was lost.
    #[error("the answer could not be stored")]
    Store(#[source] StoreError),
}

impl Desk {
    /// Answers a request by hand. The answer is durable when this returns, and leaves once the gateway is there. It goes
    /// to its end also when nobody waits for it any more.
    ///
    /// # Errors
    /// See [`ReplyError`].
    pub async fn reply(
        &self,
        id: DeviceRequestId,
        by_hand: ByHand,
    ) -> Result<Arc<DeviceRequest>, ReplyError> {
        let desk = self.inner.clone();
        let replying = self.inner.tasks.spawn(async move {
            let replied = desk.reply(id, by_hand).await;
            // It may be on record without a word of that.
            if let Err(ReplyError::Store(_)) = &replied {
                desk.look_again(id);
            }
            replied
        });
        replying.await.unwrap_or_else(|error| {
            let why = format!("the answer was broken off: {error}");
            Err(ReplyError::Store(StoreError::Unavailable(why)))
        })
    }
}

impl Inner {
    async fn reply(
        self: &Arc<Self>,
        id: DeviceRequestId,
        by_hand: ByHand,
    ) -> Result<Arc<DeviceRequest>, ReplyError> {
        for _ in 0..TRIES_MAX {
            let found = self.parts.store.request(id).await.map_err(ReplyError::Store)?;
            let request = found.ok_or(ReplyError::Unknown)?;
            if self.whose(&request.asked) == Whose::Anothers {
                match self.settle(&request, Input::Gone).await.map_err(ReplyError::Store)? {
                    Settled::Lost => continue,
                    Settled::Moved { to, .. } => {
                        self.note(&request, &to);
                        self.look_again(id);
                    }
                    Settled::Not(_) => {}
                }
                return Err(ReplyError::Cannot(CannotReply::Expired));
            }
            match self.settle_by_hand(&request, &by_hand).await? {
                Settled::Moved { to, .. } => {
                    crash_point::reached("device_request_replied");
                    count(&self.figures.by_hand);
                    self.look_after(&to);
                    self.look_again(id);
                    return Ok(to);
                }
                Settled::Lost => {}
                Settled::Not(Decision::Refuse(why)) => return Err(ReplyError::Cannot(why)),
                Settled::Not(Decision::Ignore | Decision::Move { .. }) => {
                    return Err(ReplyError::Unknown);
                }
            }
        }
        let why = "the device request changes all the time".to_owned();
        Err(ReplyError::Store(StoreError::Unavailable(why)))
    }

    /// Saves the answer; what approves a binding, together with that.
    async fn settle_by_hand(
        &self,
        request: &DeviceRequest,
        by_hand: &ByHand,
    ) -> Result<Settled, ReplyError> {
        let now = self.parts.clock.now();
        let words = Input::Reply(to_reply(request, by_hand, now));
        if !binds(request, by_hand) {
            return self.settle(request, words).await.map_err(ReplyError::Store);
        }
        // Whether it can be answered at all is said before what is wrong with the answer.
        match decide(request, words, now, self.parts.clock.boot()) {
            Decision::Move { .. } => {}
            other @ (Decision::Refuse(_) | Decision::Ignore) => return Ok(Settled::Not(other)),
        }
        let Question::Bind { devices } = kept_question(&request.asked) else {
            return Err(match request.asked.payload_is_cut {
                true => ReplyError::NotWhole,
                false => ReplyError::NamesNobody,
            });
        };
        if self.whose(&request.asked) == Whose::Nobodys {
            return Err(ReplyError::Away);
        }
        let approval = Approval::ByHand(by_hand);
        self.answer_binding(request, &devices, approval).await.map_err(ReplyError::Store)
    }
}

/// Whether an answer by hand approves a binding.
fn binds(request: &DeviceRequest, by_hand: &ByHand) -> bool {
    request.asked.request_type.as_deref() == Some(BIND) && result_of(&by_hand.code) == 0
}

/// The answer by hand in DJI's shape. A refusal without a payload carries its reason, as DJI's own cloud code does.
fn to_reply(request: &DeviceRequest, by_hand: &ByHand, now: Now) -> Reply {
    let result = result_of(&by_hand.code);
    let reason = by_hand.message.as_deref().filter(|_| result != 0);
    let reason = reason.map(utmos_dji::downlink::json_text);
    let output = by_hand.payload.as_deref().or(reason.as_deref());
    let method = request.asked.request_type.as_deref().unwrap_or("");
    Reply {
        code: by_hand.code.clone(),
        message: by_hand.message.clone(),
        source: ReplySource::Manual,
        by: Some(by_hand.who.clone()),
        data: answer::compose(method, result, output).into(),
        at: now.wall,
    }
}
