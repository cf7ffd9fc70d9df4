//! What must not arrive any more once its time is over. A publish may be on its way for long: in the kernel's buffer, which goes on
//! trying to send while packets are lost. That the broker has read it is known by its word, or by its answer to a ping that was
//! sent behind it. Where neither comes in time, only the end of the connection keeps it from arriving late.

use std::collections::{BTreeSet, VecDeque};
use std::time::Duration;

use tokio::time::Instant;

/// An answer that has come may not be read yet.
const READ_WAIT: Duration = Duration::from_millis(250);
/// The least time that a publish has, as on the wire.
const TIME_MIN: Duration = Duration::from_secs(1);

/// When a publish is asked after that has no word, and when its time is over.
#[derive(Debug, Clone, Copy)]
pub(super) struct Time {
    ask_at: Instant,
    until: Instant,
}

impl Time {
    /// Of one that leaves now.
    pub(super) fn of(expiry: Duration) -> Option<Self> {
        let (now, expiry) = (Instant::now(), expiry.max(TIME_MIN));
        let until = now.checked_add(expiry)?;
        Some(Self { ask_at: now + expiry / 2, until })
    }
}

#[derive(Debug, Default)]
pub(super) struct Late {
    /// Publishes that wait for their confirmation, by when they are asked after.
    flights: BTreeSet<(Instant, u16)>,
    /// Pings that are not answered, in their order, each with when the time of something before it is over.
    pings: VecDeque<Option<Instant>>,
    /// The same of what has left since the last ping.
    behind: Option<Instant>,
    give_up_at: Option<Instant>,
}

impl Late {
    /// A publish left that the broker is to confirm.
    pub(super) fn flies(&mut self, id: u16, time: Time) {
        self.flights.insert((time.ask_at, id));
    }

    /// It is confirmed.
    pub(super) fn landed(&mut self, id: u16, time: Time) {
        self.flights.remove(&(time.ask_at, id));
    }

    /// One that is to be asked after now.
    pub(super) fn next_due(&mut self, now: Instant) -> Option<u16> {
        let (_, id) = self.flights.first().filter(|(ask_at, _)| *ask_at <= now)?;
        let id = *id;
        self.flights.pop_first();
        Some(id)
    }

    /// Whether a ping has to be sent for it. One at a time is under way: what leaves meanwhile is asked after with the next.
    pub(super) fn must_ask(&mut self, time: Time) -> bool {
        self.behind = Some(self.behind.map_or(time.until, |until| until.min(time.until)));
        self.pings.iter().all(Option::is_none)
    }

    /// A ping leaves.
    pub(super) fn asked(&mut self) {
        self.pings.push_back(self.behind.take());
    }

    /// A ping was answered. Says whether another one is to follow.
    pub(super) fn answered(&mut self) -> bool {
        self.pings.pop_front();
        self.give_up_at = None;
        self.behind.is_some() && self.pings.iter().all(Option::is_none)
    }

    /// Whether the end of the link is near. What leaves now may never be known to have arrived.
    pub(super) fn has_doubts(&self) -> bool {
        self.give_up_at.is_some()
    }

    /// Whether it is asked whether something was read.
    pub(super) fn is_asking(&self) -> bool {
        self.behind.is_some() || self.pings.iter().any(Option::is_some)
    }

    /// When there is something to do.
    pub(super) fn wake_at(&self) -> Option<Instant> {
        let ask = self.flights.first().map(|(ask_at, _)| *ask_at);
        let over = self.give_up_at.or_else(|| self.over_at());
        [ask, over].into_iter().flatten().min()
    }

    fn over_at(&self) -> Option<Instant> {
        self.pings.iter().copied().chain([self.behind]).flatten().min()
    }

    /// Whether something may be on its way whose time is over. What has come must have been read for that.
    pub(super) fn is_over(&mut self, now: Instant, reads: bool) -> bool {
        if self.over_at().is_none_or(|over_at| now < over_at) {
            self.give_up_at = None;
            return false;
        }
        if !reads {
            self.give_up_at = None;
        }
        now >= *self.give_up_at.get_or_insert(now + READ_WAIT)
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[tokio::test(start_paused = true)]
    async fn what_is_confirmed_in_half_its_time_is_not_asked_after() {
        let (mut late, start) = (Late::default(), Instant::now());
        let time = Time::of(4 * SECOND).unwrap();
        late.flies(7, time);
        assert_eq!(late.wake_at(), Some(start + 2 * SECOND));
        assert_eq!(late.next_due(start + SECOND), None);
        late.landed(7, time);
        assert_eq!((late.wake_at(), late.is_asking()), (None, false));
    }

    #[tokio::test(start_paused = true)]
    async fn what_was_not_read_in_its_time_is_over_once_all_that_came_is_read() {
        let (mut late, start) = (Late::default(), Instant::now());
        let time = Time::of(2 * SECOND).unwrap();
        late.flies(7, time);
        assert_eq!(late.next_due(start + SECOND), Some(7));
        assert!(late.must_ask(time));
        late.asked();
        assert_eq!(late.wake_at(), Some(start + 2 * SECOND));
        assert!(!late.has_doubts());
        assert!(!late.is_over(start + 2 * SECOND, true) && late.has_doubts());
        assert_eq!(late.wake_at(), Some(start + 2 * SECOND + READ_WAIT));
        // Meanwhile nothing is read.
        assert!(!late.is_over(start + 9 * SECOND, false));
        assert!(late.is_over(start + 10 * SECOND, true));
        assert!(!late.answered() && !late.is_over(start + 10 * SECOND, true));
        assert!(!late.has_doubts());
    }

    #[tokio::test(start_paused = true)]
    async fn one_ping_at_a_time_asks_after_all_that_left() {
        let (mut late, start) = (Late::default(), Instant::now());
        let time = |seconds| Time::of(seconds * SECOND).unwrap();
        // One of the keep-alive, which asks for nothing.
        late.asked();
        assert!(late.must_ask(time(5)));
        late.asked();
        assert!(!late.must_ask(time(9)) && !late.must_ask(time(3)) && late.is_asking());
        assert_eq!(late.wake_at(), Some(start + 3 * SECOND));
        assert!(!late.answered(), "that of the keep-alive");
        assert!(late.answered(), "what left since is asked after");
        late.asked();
        assert!(!late.answered() && !late.is_asking());
        assert_eq!(late.wake_at(), None);
    }
}
