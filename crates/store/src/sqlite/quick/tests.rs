//! The state, the file and what the database keeps, put together without threads, in a world in which processes are killed,
//! machines lose what was not synced, clocks jump, and nonces are used again: whatever was answered is never answered again, and
//! whatever was not signed around a power cut is never refused for one.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use proptest::prelude::*;
use utmos_core::{
    signing::{NonceUse, RequestTimes},
    time::{BootId, Timestamp},
};

use super::{
    kept::Kept,
    ring::{self, RingId},
    span::{AHEAD, Span, Spans},
    state::{Spent, State, Way},
};

/// Beginning of the world, in seconds.
const START: i64 = 1_800_000_000;

#[derive(Debug, Clone)]
enum Step {
    /// A request signed so many seconds from what the server's clock shows, with a nonce that may have been used before.
    Ask(i64, u64),
    /// What was given to the file is written, unsynced.
    Write,
    /// A transaction that stands, or not.
    Commit(bool),
    /// The process dies, and the next begins.
    Kill,
    /// The machine dies: of what was not synced to the file every so many writes are there.
    PowerCut(usize),
    /// What is over is forgotten, in a transaction that stands, or not.
    Forget(bool),
    /// The clock is moved.
    Clock(i64),
    /// An orderly stop and start.
    Restart,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        8 => (-50_i64..20, 0_u64..12).prop_map(|(off, key)| Step::Ask(off, key)),
        6 => Just(Step::Write),
        5 => prop::bool::weighted(0.7).prop_map(Step::Commit),
        1 => Just(Step::Kill),
        1 => (1_usize..4).prop_map(Step::PowerCut),
        2 => (0_i64..8).prop_map(Step::Clock),
        1 => (-3_000_i64..3_000).prop_map(Step::Clock),
        1 => Just(Step::Restart),
        2 => prop::bool::weighted(0.7).prop_map(Step::Forget),
    ];
    prop::collection::vec(step, 1..120)
}

#[derive(Default)]
struct World {
    now: i64,
    boot: u8,
    rings: u8,
    // The process.
    state: State,
    known: BTreeSet<[u8; 16]>,
    id: RingId,
    number: u64,
    given: Vec<Spent>,
    /// Wait for the next transaction.
    durable: Vec<Spent>,
    /// With what the clock showed.
    renewal: Option<(Span, i64)>,
    // What outlives it: the file as the system shows it, as it is on the platter, and writes that are only in the one.
    shown: Vec<u8>,
    platter: Vec<u8>,
    dirty: Vec<(usize, [u8; 32])>,
    // The database, whose transactions are synced.
    nonces: BTreeMap<[u8; 16], Timestamp>,
    kept: Kept,
    /// What the clock showed when the span in the database was made.
    renewed_at: Option<i64>,
    // Outside.
    asked: u64,
    answered: Vec<Spent>,
    quick: usize,
    /// And when that of each power cut was.
    cut_at: Vec<i64>,
}

impl World {
    fn begin() -> Self {
        let mut world = Self { now: START, ..Self::default() };
        world.start();
        world
    }

    fn start(&mut self) {
        self.state = State::default();
        (self.given, self.durable, self.renewal) = (Vec::new(), Vec::new(), None);
        let boot = BootId([self.boot; 16]);
        let found = ring::read(&self.shown);
        if let Some((_, nonces)) = &found {
            for nonce in nonces {
                self.nonces.entry(nonce.key).or_insert(nonce.expires_at);
            }
        }
        self.known = self.nonces.keys().copied().collect();
        let refused = self.kept.refused_at_start(boot, found.as_ref().map(|(id, _)| id));
        self.rings += 1;
        (self.id, self.number) = ([self.rings; 16], 0);
        self.state.refuse(refused.clone());
        self.kept = Kept { refused, quick: None, boot: Some(boot.0), ring: Some(self.id) };
        self.renewed_at = None;
        self.shown = ring::blank(&self.id);
        self.platter.clone_from(&self.shown);
        self.dirty.clear();
        self.state.turn_on();
    }

    fn times(&self, signed_at: Timestamp) -> RequestTimes {
        RequestTimes { signed_at, came_at: Timestamp::from_millis(self.now * 1000) }
    }

    /// With a nonce of its own.
    fn ask(&mut self, off: i64) {
        self.asked += 1;
        self.ask_with(off, 1_000 + self.asked);
    }

    fn ask_with(&mut self, off: i64, number: u64) {
        let mut key = [0; 16];
        key[..8].copy_from_slice(&number.to_be_bytes());
        let nonce = NonceUse { key, expires_at: Timestamp::from_millis((self.now + 660) * 1000) };
        let signed_at = Timestamp::from_millis((self.now + off) * 1000);
        let times = self.times(signed_at);
        if let Some(target) = self.state.renewal(times.came_at) {
            self.renewal = Some((target, self.now));
        }
        let spent = Spent { nonce, signed_at };
        match self.state.judge(times) {
            Way::Unclear(_) => {}
            Way::Durable => self.durable.push(spent),
            Way::Quick if !self.known.insert(key) => {}
            Way::Quick => {
                self.state.give(spent);
                self.given.push(spent);
                self.quick += 1;
            }
        }
    }

    fn write(&mut self) {
        let given = std::mem::take(&mut self.given);
        for spent in &given {
            let at = usize::try_from(ring::place(self.number)).unwrap();
            let record = ring::record(&self.id, &spent.nonce);
            self.shown[at..at + record.len()].copy_from_slice(&record);
            self.dirty.push((at, record));
            self.number += 1;
        }
        self.state.written(given.len(), true);
        self.answered.extend(given);
    }

    fn commit(&mut self, stands: bool) {
        let taken = self.state.take(2);
        let durable = std::mem::take(&mut self.durable);
        let renewal = self.renewal.take();
        let put = renewal.filter(|(target, _)| self.state.may_move(*target));
        if stands {
            self.nonces.extend(taken.iter().map(|nonce| (nonce.key, nonce.expires_at)));
            for spent in durable {
                if self.known.insert(spent.nonce.key) {
                    self.nonces.insert(spent.nonce.key, spent.nonce.expires_at);
                    self.answered.push(spent);
                }
            }
            self.state.saved();
            if let Some((span, at)) = put {
                (self.kept.quick, self.renewed_at) = (Some(span), Some(at));
            }
        } else {
            self.state.not_saved();
        }
        if renewal.is_some() {
            self.state.renewed(put.filter(|_| stands).map(|(span, _)| span));
        }
    }

    fn forget(&mut self, stands: bool) {
        let now = Timestamp::from_millis(self.now * 1000);
        if stands {
            let known = &mut self.known;
            self.nonces.retain(|key, expires_at| {
                let stays = *expires_at >= now;
                stays || {
                    known.remove(key);
                    false
                }
            });
            // That long, and no longer, it was to be remembered.
            self.answered.retain(|spent| spent.nonce.expires_at >= now);
        }
    }

    fn step(&mut self, step: &Step) {
        match step {
            Step::Ask(off, number) => self.ask_with(*off, *number),
            Step::Write => self.write(),
            Step::Commit(stands) => self.commit(*stands),
            Step::Clock(by) => self.now += by,
            Step::Forget(stands) => self.forget(*stands),
            Step::Kill => self.start(),
            Step::PowerCut(every) => {
                self.boot += 1;
                self.cut_at.extend(self.renewed_at);
                for (at, record) in self.dirty.iter().step_by(*every).skip(1) {
                    self.platter[*at..*at + record.len()].copy_from_slice(record);
                }
                self.shown.clone_from(&self.platter);
                self.start();
            }
            Step::Restart => {
                self.write();
                while !self.state.is_done() {
                    self.commit(true);
                }
                self.state.turn_off();
                self.kept.quick = None;
                self.start();
            }
        }
    }

    /// Who is refused for a power cut signed around it, by the clock of then; whatever that clock did.
    fn is_fair(&self) -> bool {
        let clocks = self.cut_at.iter().copied().chain([self.now]);
        let mut times = clocks.flat_map(|clock| clock - 45..clock + 45);
        times.all(|at| {
            let signed_at = Timestamp::from_millis(at * 1000);
            let is_near = self.cut_at.iter().any(|cut| (cut - 30..=cut + 10).contains(&at));
            is_near || !matches!(self.state.judge(self.times(signed_at)), Way::Unclear(_))
        })
    }

    /// Nothing that was answered would be answered again.
    fn is_sound(&self) -> bool {
        self.answered.iter().all(|spent| {
            self.known.contains(&spent.nonce.key)
                || matches!(self.state.judge(self.times(spent.signed_at)), Way::Unclear(_))
        })
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn what_was_answered_is_refused_whatever_happens(steps in steps()) {
        let mut world = World::begin();
        for step in &steps {
            world.step(step);
            prop_assert!(world.is_sound(), "after {step:?}");
        }
    }

    #[test]
    fn who_did_not_sign_around_a_power_cut_is_never_refused_for_one(steps in steps()) {
        let mut world = World::begin();
        for step in &steps {
            world.step(step);
            if matches!(step, Step::PowerCut(_)) {
                prop_assert!(world.is_fair(), "after {step:?}");
            }
        }
    }

    #[test]
    fn when_the_clock_is_right_again_readers_are_quick_again(steps in steps()) {
        let mut world = World::begin();
        for step in &steps {
            world.step(step);
        }
        for _ in 0..=steps.len() {
            world.write();
            world.commit(true);
        }
        world.ask(0);
        world.commit(true);
        world.ask(0);
        let asked_now = world.times(Timestamp::from_millis(world.now * 1000));
        prop_assert!(matches!(world.state.judge(asked_now), Way::Quick | Way::Unclear(_)));
    }
}

#[test]
fn a_clock_that_was_ahead_before_a_power_cut_shuts_nobody_out() {
    let mut world = World::begin();
    world.ask(0);
    world.commit(true);
    world.ask(0);
    world.now += 3_600;
    for _ in 0..3 {
        world.ask(0);
        world.write();
        world.commit(true);
    }
    assert_eq!(world.renewed_at, Some(START + 3_600), "and it was quick then");
    world.now -= 3_600;
    world.step(&Step::PowerCut(1));
    assert!(world.is_fair() && world.is_sound());
    let signed_now = world.times(Timestamp::from_millis(world.now * 1000));
    assert!(!matches!(world.state.judge(signed_now), Way::Unclear(_)));
}

#[test]
fn a_nonce_that_was_over_and_is_used_again_is_remembered_as_long_as_the_second_request() {
    let mut world = World::begin();
    world.ask(0);
    world.commit(true);
    world.ask_with(0, 1);
    world.write();
    world.commit(true);
    world.now += 700;
    world.forget(true);
    world.ask(0);
    world.commit(true);
    world.ask_with(0, 1);
    world.write();
    world.step(&Step::Kill);
    world.forget(true);
    assert!(world.is_sound() && world.quick == 2);
}

#[test]
fn spans_are_apart_and_none_is_left_out() {
    let at = |second: i64| Timestamp::from_millis(second * 1000);
    let span = |from, to| Span { from: at(from), to: at(to) };
    let spans = [span(50, 60), span(0, 10), span(11, 20), span(15, 17), span(22, 23)];
    let all = spans.iter().fold(Spans::default(), |all, span| all.with(*span));
    for (second, end) in [(0, 20), (10, 20), (11, 20), (20, 20), (22, 23), (50, 60), (60, 60)] {
        assert_eq!(all.end_of(at(second)), Some(at(end)), "{second}");
    }
    for second in [-1, 21, 24, 49, 61] {
        assert_eq!(all.end_of(at(second)), None, "{second}");
    }
    assert_eq!((all.last(), Spans::default().last()), (Some(at(60)), None));
    assert_eq!(Spans::from_bytes(&all.to_bytes()), all);
    // More than can be remembered apart.
    let many = (0..100).map(|number| span(number * 100, number * 100 + 40));
    let all = many.clone().fold(Spans::default(), Spans::with);
    assert!(many.into_iter().all(|span| all.end_of(span.from).is_some()));
    assert!(all.to_bytes().len() <= 32 * 16);
}

#[test]
fn what_the_database_does_not_take_stays_in_the_file_and_is_not_done() {
    let mut world = World::begin();
    world.ask(0);
    world.commit(true);
    world.ask(0);
    world.write();
    world.state.give_up();
    assert!(world.state.take(9).is_empty() && !world.state.is_waiting());
    assert!(!world.state.is_done(), "so the span stays in the database");
}

#[test]
fn who_reads_often_is_answered_quickly_and_the_mark_goes_along() {
    let mut world = World::begin();
    for _ in 0..1_000 {
        world.now += 1;
        for _ in 0..10 {
            world.ask(0);
        }
        world.write();
        (0..8).for_each(|_| world.commit(true));
    }
    assert!(world.quick >= 9_980, "{}", world.quick);
    assert!(world.is_sound() && world.number > ring::RECORDS as u64);
}

#[test]
fn the_file_has_room_for_so_many_and_no_record_is_lost_for_a_newer_one() {
    let mut world = World::begin();
    world.ask(0);
    world.commit(true);
    for _ in 0..ring::RECORDS + 100 {
        world.ask(0);
    }
    world.write();
    assert_eq!(world.quick, ring::RECORDS, "the others wait for the database");
    world.step(&Step::Kill);
    assert!(world.is_sound());
}

#[test]
fn a_record_in_part_or_of_another_ring_is_none() {
    let (id, other) = ([1; 16], [2; 16]);
    let nonce = NonceUse { key: [7; 16], expires_at: Timestamp::from_millis(9) };
    let mut bytes = ring::blank(&id);
    let at = |number| usize::try_from(ring::place(number)).unwrap();
    bytes[at(0)..at(1)].copy_from_slice(&ring::record(&id, &nonce));
    bytes[at(1)..at(2)].copy_from_slice(&ring::record(&other, &nonce));
    bytes[at(2)..at(2) + 31].copy_from_slice(&ring::record(&id, &nonce)[..31]);
    assert_eq!(ring::read(&bytes), Some((id, vec![nonce])));
    assert_eq!(ring::read(&bytes[..at(1)]), Some((id, vec![nonce])));
    for wrong in [&bytes[..20], &bytes[1..], &[]] {
        assert_eq!(ring::read(wrong), None);
    }
    assert_eq!((ring::in_a_row(0), ring::in_a_row(ring::RECORDS as u64 - 1)), (ring::RECORDS, 1));
    assert_eq!(bytes.len(), ring::BYTES);
    assert!(Duration::from_secs(1) < AHEAD);
}
