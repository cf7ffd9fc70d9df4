//! When a device has come and when it has gone: each told once, and not for one that is back soon. Pure.
//!
//! Nothing here goes through all devices: one is looked at when something is heard of it, or when its time has come.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use utmos_core::{
    id::DeviceSn,
    time::{Mono, Now, Timestamp},
};

/// How long after a start a device that was there before may take to come back before it counts as gone.
const RETURN_WAIT: Duration = Duration::from_secs(60);
/// Looked at so much later than its time would be over: at that moment it is still there.
const A_MOMENT: Duration = Duration::from_millis(1);

/// Whether a device is there at this moment, as far as anybody knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// It is; unless something is heard of it, until then.
    There {
        /// Until then; `None` until something says otherwise.
        until: Option<Mono>,
    },
    /// It is not.
    Gone,
}

/// Devices that are there, or were until just now.
#[derive(Debug)]
pub struct Book {
    offline_after: Duration,
    devices: BTreeMap<DeviceSn, State>,
    /// When to look at which device again.
    due: BTreeSet<(Mono, DeviceSn)>,
    online: usize,
    /// How often a device was looked at, for tests of what it costs.
    #[cfg(test)]
    looks: u64,
}

#[derive(Debug, Clone, Copy, Default)]
struct State {
    online: bool,
    /// When it came, or went.
    since: Option<Timestamp>,
    /// When it counts as gone, while it seems to be.
    gone_by: Option<Mono>,
    look_at: Option<Mono>,
}

impl Book {
    /// A book in which a device counts as gone after so much time without it.
    #[must_use]
    pub fn new(offline_after: Duration) -> Self {
        Self {
            offline_after,
            devices: BTreeMap::new(),
            due: BTreeSet::new(),
            online: 0,
            #[cfg(test)]
            looks: 0,
        }
    }

    /// A device was there when an earlier process ended: that was told, and counts until it had time to come back.
    pub fn was_there(&mut self, sn: &DeviceSn, since: Timestamp, now: Now) {
        let gone_by = now.mono.plus(RETURN_WAIT.max(self.offline_after));
        let state =
            State { online: true, since: Some(since), gone_by: Some(gone_by), look_at: None };
        self.online += 1;
        self.devices.insert(sn.clone(), state);
        self.look_again(sn, gone_by);
    }

    /// Takes how a device stands. Answers whether it has come or gone with that.
    pub fn look(&mut self, sn: &DeviceSn, standing: Standing, now: Now) -> Option<bool> {
        #[cfg(test)]
        {
            self.looks += 1;
        }
        let known = self.devices.get(sn).copied();
        match (standing, known) {
            (Standing::Gone, None) => None,
            (Standing::Gone, Some(state)) if !state.online => None,
            (Standing::Gone, Some(state)) => match state.gone_by {
                Some(by) if by <= now.mono => self.end(sn, now).then_some(false),
                Some(by) => {
                    self.look_again(sn, by);
                    None
                }
                None => {
                    let by = now.mono.plus(self.offline_after);
                    self.change(sn, |state| state.gone_by = Some(by));
                    self.look_again(sn, by);
                    None
                }
            },
            (Standing::There { until }, known) => {
                let came = !known.is_some_and(|state| state.online);
                let was_going = known.is_some_and(|state| state.gone_by.is_some());
                if came {
                    let state = State { online: true, since: Some(now.wall), ..State::default() };
                    self.forget(sn);
                    self.devices.insert(sn.clone(), state);
                    self.online += 1;
                } else if was_going {
                    self.change(sn, |state| state.gone_by = None);
                    self.look_no_more(sn);
                }
                // One look that is due is enough; it finds out whether something was heard meanwhile.
                let is_due = self.devices.get(sn).is_some_and(|state| state.look_at.is_some());
                if let Some(until) = until.filter(|_| !is_due) {
                    self.look_again(sn, until.plus(A_MOMENT));
                }
                came.then_some(true)
            }
        }
    }

    /// A device has gone, without any doubt. Answers whether it was there.
    pub fn end(&mut self, sn: &DeviceSn, now: Now) -> bool {
        self.look_no_more(sn);
        let Some(state) = self.devices.get_mut(sn).filter(|state| state.online) else {
            return false;
        };
        *state = State { online: false, since: Some(now.wall), gone_by: None, look_at: None };
        self.online -= 1;
        true
    }

    /// A device is none of ours any more.
    pub fn forget(&mut self, sn: &DeviceSn) {
        self.look_no_more(sn);
        if self.devices.remove(sn).is_some_and(|state| state.online) {
            self.online -= 1;
        }
    }

    /// The devices whose time has come, each to be looked at. They are taken out.
    pub fn take_due(&mut self, now: Mono) -> Vec<DeviceSn> {
        let mut taken = Vec::new();
        while let Some((at, sn)) = self.due.pop_first() {
            if now < at {
                self.due.insert((at, sn));
                break;
            }
            if let Some(state) = self.devices.get_mut(&sn) {
                state.look_at = None;
            }
            taken.push(sn);
        }
        taken
    }

    /// When the next device is to be looked at.
    #[must_use]
    pub fn next_due(&self) -> Option<Mono> {
        self.due.first().map(|(at, _)| *at)
    }

    /// Whether a device counts as there, and since when it does or does not.
    #[must_use]
    pub fn told(&self, sn: &DeviceSn) -> (bool, Option<Timestamp>) {
        self.devices.get(sn).map_or((false, None), |state| (state.online, state.since))
    }

    /// Whether nothing is to be done about a device that is there: it counts as there, and is looked at again in time
    /// where that is needed.
    #[must_use]
    pub fn is_settled(&self, sn: &DeviceSn, is_for_good: bool) -> bool {
        let state = self.devices.get(sn);
        state.is_some_and(|state| {
            state.online && state.gone_by.is_none() && (is_for_good || state.look_at.is_some())
        })
    }

    /// How many count as there.
    #[must_use]
    pub fn online(&self) -> usize {
        self.online
    }

    fn change(&mut self, sn: &DeviceSn, change: impl FnOnce(&mut State)) {
        if let Some(state) = self.devices.get_mut(sn) {
            change(state);
        }
    }

    fn look_again(&mut self, sn: &DeviceSn, at: Mono) {
        self.look_no_more(sn);
        if let Some(state) = self.devices.get_mut(sn) {
            state.look_at = Some(at);
            self.due.insert((at, sn.clone()));
        }
    }

    fn look_no_more(&mut self, sn: &DeviceSn) {
        let at = self.devices.get_mut(sn).and_then(|state| state.look_at.take());
        if let Some(at) = at {
            self.due.remove(&(at, sn.clone()));
        }
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]
    use super::*;

    const THERE: Standing = Standing::There { until: None };

    fn at(millis: u64) -> Now {
        Now {
            wall: Timestamp::from_millis(1_000_000 + millis as i64),
            mono: Mono::from_millis(millis),
        }
    }

    fn sn(text: &str) -> DeviceSn {
        DeviceSn::parse(text).unwrap()
    }

    fn book() -> Book {
        Book::new(Duration::from_secs(10))
    }

    /// Looks at whatever is due; `there` says who is there.
    fn due(book: &mut Book, millis: u64, there: &[&DeviceSn]) -> Vec<(String, bool)> {
        let now = at(millis);
        let taken = book.take_due(now.mono);
        let mut told = Vec::new();
        for sn in taken {
            let standing = if there.contains(&&sn) { THERE } else { Standing::Gone };
            told.extend(book.look(&sn, standing, now).map(|came| (sn.to_string(), came)));
        }
        told
    }

    #[test]
    fn coming_and_going_are_told_once_each() {
        let (mut book, dock) = (book(), sn("DOCK"));
        assert_eq!(book.look(&dock, Standing::Gone, at(0)), None, "it was never there");
        assert_eq!(book.look(&dock, THERE, at(0)), Some(true));
        assert_eq!(book.look(&dock, THERE, at(1)), None);
        assert_eq!(book.look(&dock, Standing::Gone, at(1_000)), None);
        assert_eq!(
            book.look(&dock, Standing::Gone, at(5_000)),
            None,
            "the time runs since the first"
        );
        assert_eq!(book.next_due(), Some(Mono::from_millis(11_000)));
        assert!(due(&mut book, 10_999, &[]).is_empty());
        assert_eq!(due(&mut book, 11_000, &[]), [("DOCK".to_owned(), false)]);
        assert_eq!(book.told(&dock), (false, Some(at(11_000).wall)));
        assert_eq!((book.online(), book.next_due()), (0, None));
        assert_eq!(book.look(&dock, Standing::Gone, at(12_000)), None);
        assert_eq!(book.look(&dock, THERE, at(20_000)), Some(true));
        assert_eq!(book.told(&dock), (true, Some(at(20_000).wall)));
    }

    #[test]
    fn a_wall_clock_that_is_set_makes_nobody_come_or_go() {
        for set_by in [-3_600_000, 3_600_000] {
            let (mut book, dock, heard) = (book(), sn("DOCK"), sn("HEARD"));
            let set = |millis| {
                let now = at(millis);
                Now { wall: Timestamp::from_millis(now.wall.as_millis() + set_by), ..now }
            };
            let until = |millis| Standing::There { until: Some(Mono::from_millis(millis)) };
            book.was_there(&sn("BEFORE"), at(0).wall, at(0));
            assert_eq!(book.look(&dock, THERE, at(0)), Some(true));
            assert_eq!(book.look(&heard, until(60_000), at(0)), Some(true));
            assert_eq!(book.look(&dock, Standing::Gone, at(1_000)), None);
            // The clock is set.
            assert_eq!(book.look(&dock, Standing::Gone, set(10_999)), None);
            assert!(book.take_due(set(10_999).mono).is_empty());
            assert_eq!(book.take_due(set(11_000).mono), std::slice::from_ref(&dock));
            assert_eq!(book.look(&dock, Standing::Gone, set(11_000)), Some(false));
            assert_eq!(book.look(&heard, until(60_000), set(59_999)), None);
            assert_eq!(book.take_due(set(60_001).mono), [sn("BEFORE"), heard]);
        }
    }

    #[test]
    fn one_that_flaps_was_never_away() {
        let (mut book, dock) = (book(), sn("DOCK"));
        book.look(&dock, THERE, at(0));
        let mut told = Vec::new();
        for second in 1..100 {
            let standing = if second % 9 == 0 { THERE } else { Standing::Gone };
            told.extend(book.look(&dock, standing, at(second * 1_000)));
            told.extend(due(&mut book, second * 1_000 + 500, &[]).into_iter().map(|one| one.1));
        }
        assert!(told.is_empty(), "{told:?}");
        assert_eq!(book.told(&dock), (true, Some(at(0).wall)));
    }

    #[test]
    fn one_that_is_only_heard_is_looked_at_when_its_time_is_over() {
        let (mut book, dock) = (book(), sn("DOCK"));
        let until = |millis| Standing::There { until: Some(Mono::from_millis(millis)) };
        assert_eq!(book.look(&dock, until(60_000), at(0)), Some(true));
        assert_eq!(book.look(&dock, until(90_000), at(30_000)), None);
        assert_eq!(book.next_due(), Some(Mono::from_millis(60_001)), "heard again costs nothing");
        assert_eq!(book.take_due(Mono::from_millis(60_001)), std::slice::from_ref(&dock));
        assert_eq!(book.look(&dock, until(90_000), at(60_001)), None);
        assert_eq!(book.take_due(Mono::from_millis(90_001)), std::slice::from_ref(&dock));
        assert_eq!(book.look(&dock, Standing::Gone, at(90_001)), None);
        assert_eq!(due(&mut book, 100_001, &[]), [("DOCK".to_owned(), false)]);
    }

    #[test]
    fn one_that_was_there_before_a_restart_has_time_to_come_back() {
        let (mut book, back, gone) = (book(), sn("BACK"), sn("GONE"));
        for sn in [&back, &gone] {
            book.was_there(sn, at(0).wall, at(1_000));
        }
        assert_eq!(book.look(&back, THERE, at(2_000)), None, "its coming was told before");
        assert!(due(&mut book, 60_999, &[&back]).is_empty());
        assert_eq!(due(&mut book, 61_000, &[&back]), [("GONE".to_owned(), false)]);
        assert_eq!(book.online(), 1);
    }

    #[test]
    fn what_is_not_ours_any_more_is_forgotten_without_a_word() {
        let (mut book, dock) = (book(), sn("DOCK"));
        book.look(&dock, THERE, at(0));
        book.look(&dock, Standing::Gone, at(1));
        book.forget(&dock);
        assert_eq!((book.online(), book.next_due()), (0, None));
        assert!(due(&mut book, 100_000, &[]).is_empty());
    }

    #[test]
    fn ten_thousand_devices_cost_no_more_than_those_that_change() {
        let mut book = book();
        let all: Vec<DeviceSn> = (0..10_000).map(|n| sn(&format!("DOCK-{n:05}"))).collect();
        for sn in &all {
            book.look(sn, THERE, at(0));
        }
        let before = book.looks;
        for second in 1..1_000 {
            assert!(due(&mut book, second * 1_000, &[]).is_empty());
        }
        assert_eq!(book.looks, before, "nothing is due, so nothing is looked at");
        book.look(&all[5_000], Standing::Gone, at(1_000_000));
        assert_eq!(due(&mut book, 1_010_000, &[]), [("DOCK-05000".to_owned(), false)]);
        assert_eq!(book.looks, before + 2);
        assert_eq!(book.online(), 9_999);
    }

    #[test]
    fn those_that_are_only_heard_cost_one_look_a_window_however_much_they_say() {
        let mut book = book();
        let all: Vec<DeviceSn> = (0..1_000).map(|n| sn(&format!("DOCK-{n:04}"))).collect();
        let until =
            |second| Standing::There { until: Some(Mono::from_millis((second + 60) * 1_000)) };
        let mut told = 0;
        for second in 0..180 {
            let now = at(second * 1_000);
            for sn in book.take_due(now.mono) {
                told += usize::from(book.look(&sn, until(second - 1), now).is_some());
            }
            for sn in &all {
                if !book.is_settled(sn, false) {
                    told += usize::from(book.look(sn, until(second), now).is_some());
                }
            }
        }
        assert_eq!((told, book.online()), (1_000, 1_000), "each came once");
        assert!(book.looks <= 4 * 1_000, "{} looks after 180,000 messages", book.looks);
    }
}
