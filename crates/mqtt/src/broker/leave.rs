//! The word to a connection that it must end. Every connection has one, most are never told: so it is small.

use std::future::poll_fn;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::task::{Context, Poll};

use futures_util::task::AtomicWaker;

/// Why a connection must end, and what its client is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Stop {
    /// Another connection has its client id.
    Displaced = 1,
    /// It is sent away.
    Dismissed = 2,
    /// At once and without a word: what its socket still holds must not reach it.
    Cut = 3,
    /// The broker ends.
    Closing = 4,
}

/// One connection's word; the one said last counts. Only the connection's own task waits for it.
#[derive(Debug, Default)]
pub(super) struct Leave {
    said: AtomicU8,
    task: AtomicWaker,
}

impl Leave {
    pub(super) fn new() -> Arc<Self> {
        Arc::default()
    }

    pub(super) fn say(&self, stop: Stop) {
        self.said.store(stop as u8, Ordering::Release);
        self.task.wake();
    }

    /// What was said; `None` while it may stay.
    pub(super) fn said(&self) -> Option<Stop> {
        const ALL: [Stop; 4] = [Stop::Displaced, Stop::Dismissed, Stop::Cut, Stop::Closing];
        let said = self.said.load(Ordering::Acquire);
        ALL.into_iter().find(|stop| *stop as u8 == said)
    }

    /// Waits until it must end. Safe to drop at any point.
    pub(super) async fn told(&self) -> Stop {
        poll_fn(|cx| self.poll_told(cx)).await
    }

    fn poll_told(&self, cx: &mut Context<'_>) -> Poll<Stop> {
        if let Some(stop) = self.said() {
            return Poll::Ready(stop);
        }
        self.task.register(cx.waker());
        // It may have been said before there was somebody to wake.
        self.said().map_or(Poll::Pending, Poll::Ready)
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    #[tokio::test]
    async fn a_word_is_heard_before_and_while_it_is_waited_for_and_the_last_counts() {
        let leave = Leave::new();
        assert_eq!((leave.said(), leave.told().now_or_never()), (None, None));
        leave.say(Stop::Displaced);
        assert_eq!(leave.told().now_or_never(), Some(Stop::Displaced));
        for stop in [Stop::Dismissed, Stop::Closing, Stop::Cut] {
            leave.say(stop);
            assert_eq!(leave.told().await, stop);
        }
        let other = Leave::new();
        let (told, ()) = tokio::join!(other.told(), async { other.say(Stop::Dismissed) });
        assert_eq!(told, Stop::Dismissed);
    }
}
