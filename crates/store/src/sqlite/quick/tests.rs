//! The state, the file and what the database keeps, put together without threads, in a world in which processes are killed,
//! machines lose what was not synced, and clocks jump: whatever was answered is never answered again.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{collections::BTreeSet, time::Duration};

use proptest::prelude::*;
use utmos_core::{
    signing::{NonceUse, RequestTimes},
    time::{BootId, Timestamp},
};

use super::{
    kept::Kept,
    ring::{self, RingId},
    state::{AHEAD, Spent, State, Way},
};

/// Beginning of the world, in seconds.
const START: i64 = 1_800_000_000;

#[derive(Debug, Clone)]
enum Step {
    /// A request signed so many seconds from what the server's clock shows.
    Ask(i64),
    /// What was given to the file is written, unsynced.
    Write,
    /// A transaction that stands, or not.
    Commit(bool),
    /// The process dies, and the next begins.
    Kill,
    /// The machine dies: of what was not synced to the file every so many writes are there.
    PowerCut(usize),
    /// The clock is moved.
    Clock(i64),
    /// An orderly stop and start.
    Restart,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        8 => (-20_i64..20).prop_map(Step::Ask),
        6 => Just(Step::Write),
        5 => prop::bool::weighted(0.7).prop_map(Step::Commit),
        1 => Just(Step::Kill),
        1 => (1_usize..4).prop_map(Step::PowerCut),
        2 => (0_i64..8).prop_map(Step::Clock),
        1 => (-3_000_i64..3_000).prop_map(Step::Clock),
        1 => Just(Step::Restart),
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
    renewal: Option<Timestamp>,
    // What outlives it: the file as the system shows it, as it is on the platter, and writes that are only in the one.
    shown: Vec<u8>,
    platter: Vec<u8>,
    dirty: Vec<(usize, [u8; 32])>,
    // The database, whose transactions are synced.
    nonces: BTreeSet<[u8; 16]>,
    kept: Kept,
    // Outside.
    asked: u64,
    answered: Vec<Spent>,
    quick: usize,
}

impl World {
    fn begin() -> Self {
        let mut world = Self { now: START, ..Self::default() };
        world.start();
        world
    }

    fn start(&mut self) {
        self.state = State::default();
        self.known.clone_from(&self.nonces);
        (self.given, self.durable, self.renewal) = (Vec::new(), Vec::new(), None);
        let boot = BootId([self.boot; 16]);
        let found = ring::read(&self.shown);
        if let Some((_, nonces)) = &found {
            let keys: Vec<_> = nonces.iter().map(|nonce| nonce.key).collect();
            self.nonces.extend(&keys);
            self.known.extend(&keys);
        }
        let floor = self.kept.floor_at_start(boot, found.as_ref().map(|(id, _)| id));
        self.rings += 1;
        (self.id, self.number) = ([self.rings; 16], 0);
        self.kept = Kept { floor, mark: None, boot: Some(boot.0), ring: Some(self.id) };
        self.state.set_floor(floor);
        self.shown = ring::blank(&self.id);
        self.platter.clone_from(&self.shown);
        self.dirty.clear();
        self.state.turn_on();
    }

    fn times(&self, signed_at: Timestamp) -> RequestTimes {
        RequestTimes { signed_at, came_at: Timestamp::from_millis(self.now * 1000) }
    }

    fn ask(&mut self, off: i64) {
        self.asked += 1;
        let mut key = [0; 16];
        key[..8].copy_from_slice(&self.asked.to_be_bytes());
        let nonce = NonceUse { key, expires_at: Timestamp::from_millis((self.now + 660) * 1000) };
        let signed_at = Timestamp::from_millis((self.now + off) * 1000);
        let times = self.times(signed_at);
        if let Some(target) = self.state.renewal(times.came_at) {
            self.renewal = Some(target);
        }
        let spent = Spent { nonce, signed_at };
        match self.state.judge(times) {
            Way::Unclear(_) => {}
            Way::Durable => self.durable.push(spent),
            Way::Quick => {
                assert!(self.known.insert(key));
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
        let target = self.renewal.take();
        let mark = target.map(|target| self.state.lasting(target, self.kept.mark));
        if stands {
            self.nonces.extend(taken.iter().map(|nonce| nonce.key));
            self.nonces.extend(durable.iter().map(|spent| spent.nonce.key));
            self.known.extend(durable.iter().map(|spent| spent.nonce.key));
            self.answered.extend(durable);
            self.state.saved();
            self.kept.mark = mark.or(self.kept.mark);
        } else {
            self.state.not_saved();
        }
        if target.is_some() {
            self.state.renewed(mark.filter(|mark| stands && Some(*mark) == target));
        }
    }

    fn step(&mut self, step: &Step) {
        match step {
            Step::Ask(off) => self.ask(*off),
            Step::Write => self.write(),
            Step::Commit(stands) => self.commit(*stands),
            Step::Clock(by) => self.now += by,
            Step::Kill => self.start(),
            Step::PowerCut(every) => {
                self.boot += 1;
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
                self.kept.mark = None;
                self.start();
            }
        }
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
    fn after_a_quiet_start_whoever_signs_later_is_let_in(steps in steps()) {
        let mut world = World::begin();
        for step in &steps {
            world.step(step);
        }
        // Whatever the clock did before: it is right from now on, and a mark that it left far ahead is taken back.
        for _ in 0..4 {
            for _ in 0..=steps.len() {
                world.write();
                world.commit(true);
            }
            world.now += 6;
            world.ask(0);
            world.commit(true);
        }
        let refused_before = world.kept.floor;
        world.step(&Step::PowerCut(1));
        let reach = Timestamp::from_millis(world.now * 1000).plus(AHEAD * 2);
        prop_assert!(world.kept.floor <= refused_before.max(Some(reach)));
    }
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
