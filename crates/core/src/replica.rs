//! Several servers as one (LIFECYCLE.md, "Replicas"): who is there, and who sends to which gateways. Pure.
//!
//! Gateways are spread over a fixed number of shards. Each shard is held by one server at a time, which alone sends what is
//! no emergency to its gateways, in order. Whoever is silent for too long is expelled by the others, and its shards are free.

use std::{collections::BTreeMap, net::SocketAddr, time::Duration};

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::{
    id::{CommandId, GatewaySn},
    time::{Mono, Timestamp},
};

/// How many shards there are. Written into stores: it never changes.
pub const SHARDS: u8 = 64;

/// How often a server gives a sign of life.
pub const BEAT_WAIT: Duration = Duration::from_millis(500);
/// How long a server must have been silent before others expel it.
pub const SILENCE_MAX: Duration = Duration::from_secs(3);
/// So much of a silence counts for one look at most. Whoever could not look for longer does not know whether others could
/// give a sign meanwhile, and gives them the time to do so now.
const LOOK_COUNTS_MAX: Duration = Duration::from_secs(1);
/// How long after the beginning of its last sign of life a server sends. Shorter than [`SILENCE_MAX`] by more than what two
/// clocks on two machines drift apart in that time: it has stopped before anybody else begins.
pub const LEASE: Duration = Duration::from_millis(2_500);
/// How long a server that cannot send keeps the shards that another could hold: longer than a broker takes to restart.
pub const UNFIT_WAIT: Duration = Duration::from_secs(3);
/// How far a server's wall clock may be from the store's, in milliseconds. Signatures, nonces, ids and the times on record go by
/// it for all servers; deadlines do not ([`StoreClock`](crate::store_clock::StoreClock)).
pub const CLOCK_OFF_MAX_MS: i64 = 2_000;

/// One run of a server; the next run has another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ReplicaId(pub Uuid);

/// A server over all of its runs: of two runs of one instance only one can live.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct InstanceId(pub Uuid);

/// A part of all gateways.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Shard(u8);

impl Shard {
    /// The shard of a gateway: FNV-1a over its serial number. The same in every version and on every machine.
    #[must_use]
    pub fn of(gateway: &GatewaySn) -> Self {
        let hash = gateway.as_str().bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
        });
        // The low bits alone would follow the last byte too closely.
        let folded = (hash ^ (hash >> 32)) % u64::from(SHARDS);
        Self(u8::try_from(folded).unwrap_or(0))
    }

    /// The shard with this number, if there is one.
    #[must_use]
    pub fn from_number(number: u8) -> Option<Self> {
        (number < SHARDS).then_some(Self(number))
    }

    /// Its number, below [`SHARDS`].
    #[must_use]
    pub fn number(self) -> u8 {
        self.0
    }

    /// Every shard.
    pub fn all() -> impl Iterator<Item = Self> {
        (0..SHARDS).map(Self)
    }
}

/// A server that is there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// This run of it.
    pub id: ReplicaId,
    /// Which server.
    pub instance: InstanceId,
    /// Its name on timelines.
    pub name: String,
    /// It has a broker of its own, which no other server reaches: it works alone.
    pub alone: bool,
    /// Under which it is known to the broker, where one was chosen for it.
    pub client_id: Option<String>,
    /// Where other servers reach it directly ([`DirectLines`](crate::ports::DirectLines)).
    pub line: Option<SocketAddr>,
    /// How many signs of life it has given.
    pub beats: u64,
    /// With the last of these it reached the broker, what it wrote reached the store, and its clock was right.
    pub fit: bool,
}

/// Who is there, and who holds what.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Roll {
    /// The servers.
    pub members: Vec<Member>,
    /// The shards that somebody holds.
    pub holders: BTreeMap<Shard, ReplicaId>,
    /// What the store's own clock showed; `None` for a store that has none but its server's.
    pub at: Option<Timestamp>,
}

impl Roll {
    /// Whether a server beside this one can do its work.
    #[must_use]
    pub fn is_another_fit(&self, me: ReplicaId) -> bool {
        self.members.iter().any(|member| member.fit && member.id != me)
    }

    /// Whether a clock of this server that is off misleads anybody: there is another server, whatever it can do at present.
    /// The store's clock is the judge of each, so that of several whose clocks are off none is in the right.
    #[must_use]
    pub fn is_clock_shared(&self, me: ReplicaId) -> bool {
        self.members.iter().any(|member| member.id != me)
    }
}

/// Whether a server can do its work for the gateways it holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fitness {
    /// It reaches the broker, what it writes reaches the store, and its clock is right.
    Fit,
    /// That is not so, and has been a moment ago, or it has just started.
    Shaken,
    /// That has not been so for as long as [`UNFIT_WAIT`].
    Unfit,
}

/// Since when a server cannot do its work.
#[derive(Debug, Default)]
pub struct Unfitness(Option<Mono>);

impl Unfitness {
    /// Takes note of how it is at `now`.
    pub fn note(&mut self, is_fit: bool, now: Mono) -> Fitness {
        if is_fit {
            self.0 = None;
            return Fitness::Fit;
        }
        let since = *self.0.get_or_insert(now);
        if now.since(since) >= UNFIT_WAIT { Fitness::Unfit } else { Fitness::Shaken }
    }
}

/// By how many milliseconds a server's clock is ahead of the store's at least (behind, where negative), when the store's
/// showed `store` at some time between `asked` and `answered`. `None` where that may be within [`CLOCK_OFF_MAX_MS`].
#[must_use]
pub fn clock_off(asked: Timestamp, store: Timestamp, answered: Timestamp) -> Option<i64> {
    let ahead = asked.as_millis().saturating_sub(store.as_millis());
    let behind = store.as_millis().saturating_sub(answered.as_millis());
    if ahead > CLOCK_OFF_MAX_MS {
        return Some(ahead);
    }
    (behind > CLOCK_OFF_MAX_MS).then_some(-behind)
}

/// A command that one server accepted for a gateway that is another's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Handed {
    /// Which.
    pub id: CommandId,
    /// An emergency: whoever accepted it sends it, and the holder withdraws the movements in its way.
    pub urgent: bool,
}

/// What may have changed at another server. A hint: it may be lost, late, or without a cause.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum News {
    /// Somebody accepted a command for another's gateway.
    Handed,
    /// Servers came or went, or shards are free.
    Roll,
    /// These commands stand otherwise, and go on.
    Changed(Vec<CommandId>),
    /// These commands have ended.
    Ended(Vec<CommandId>),
    /// It could not be heard for a time: any of the others may have been told. Told by no server.
    Missed,
}

/// What a server is to do about its shards.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Share {
    /// Free ones that it takes.
    pub take: Vec<Shard>,
    /// Those it holds beyond its part.
    pub release: Vec<Shard>,
}

impl Share {
    /// A server's part is the same as everybody's who is fit, rounded up. One that is not takes nothing, and gives away what
    /// it has once it has been so for a while. Where nobody is fit, all of them count: somebody must look at the deadlines.
    ///
    /// Those who find the same shards free ask for others each, in the order of their ids: who comes second for a shard gets none
    /// until it looks again.
    #[must_use]
    pub fn of(me: ReplicaId, fitness: Fitness, roll: &Roll) -> Self {
        let is_there = |id: ReplicaId| roll.members.iter().any(|member| member.id == id);
        let fit = roll.members.iter().filter(|member| member.fit).count();
        let sharing = if fit == 0 { roll.members.len() } else { fit };
        let part = match (fitness, roll.is_another_fit(me)) {
            (Fitness::Unfit, true) => 0,
            (Fitness::Fit | Fitness::Shaken | Fitness::Unfit, _) => {
                usize::from(SHARDS).div_ceil(sharing.max(1))
            }
        };
        let held = Shard::all().filter(|shard| roll.holders.get(shard) == Some(&me));
        let mut release: Vec<Shard> = held.collect();
        let room = match fitness {
            Fitness::Shaken | Fitness::Unfit if fit > 0 => 0,
            Fitness::Fit | Fitness::Shaken | Fitness::Unfit => part.saturating_sub(release.len()),
        };
        release.drain(..part.min(release.len()));
        let is_free = |shard: &Shard| !roll.holders.get(shard).is_some_and(|id| is_there(*id));
        let free: Vec<Shard> = Shard::all().filter(is_free).collect();
        let room_of = |id: ReplicaId| {
            part.saturating_sub(roll.holders.values().filter(|holder| **holder == id).count())
        };
        let earlier = roll.members.iter().filter(|it| it.id < me && (it.fit || fit == 0));
        let theirs: usize = earlier.map(|it| room_of(it.id)).sum();
        let start = theirs.checked_rem(free.len()).unwrap_or(0);
        let take = free.iter().cycle().skip(start).take(room.min(free.len())).copied().collect();
        Self { take, release }
    }
}

/// How long others have been silent, as one server sees it: by its own running time and the number of their signs of life, so
/// that no wall clock is asked. Only time counts in which it looked: while the store answers nobody, nobody can give a sign.
#[derive(Debug, Default)]
pub struct Silences {
    others: BTreeMap<ReplicaId, Silence>,
    looked: Option<Mono>,
}

#[derive(Debug)]
struct Silence {
    beats: u64,
    lasts: Duration,
}

impl Silences {
    /// Takes note of a roll that was read at `now`. Answers who has been silent for too long, and at which sign of life.
    pub fn note(&mut self, me: ReplicaId, roll: &Roll, now: Mono) -> Vec<(ReplicaId, u64)> {
        let looked = self.looked.replace(now).map_or(Duration::ZERO, |last| now.since(last));
        let passed = looked.min(LOOK_COUNTS_MAX);
        let others = || roll.members.iter().filter(|member| member.id != me);
        self.others.retain(|id, _| others().any(|member| member.id == *id));
        let mut silent = Vec::new();
        for Member { id, beats, .. } in others() {
            let silence = match self.others.get_mut(id) {
                Some(silence) => silence,
                None => {
                    self.others.insert(*id, Silence { beats: *beats, lasts: Duration::ZERO });
                    continue;
                }
            };
            match silence.beats == *beats {
                true => silence.lasts = silence.lasts.saturating_add(passed),
                false => *silence = Silence { beats: *beats, lasts: Duration::ZERO },
            }
            if silence.lasts >= SILENCE_MAX {
                silent.push((*id, *beats));
            }
        }
        silent
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    fn id(number: u128) -> ReplicaId {
        ReplicaId(Uuid::from_u128(number))
    }

    fn member(number: u128, beats: u64) -> Member {
        let instance = InstanceId(Uuid::from_u128(number));
        let name = format!("server-{number}");
        let id = id(number);
        Member { id, instance, name, alone: false, client_id: None, line: None, beats, fit: true }
    }

    #[test]
    fn a_gateway_is_always_in_the_same_shard() {
        let shard = |sn: &str| Shard::of(&GatewaySn::parse(sn).unwrap()).number();
        // Stores hold these numbers.
        assert_eq!(
            [shard("4TADL210010014"), shard("SIM-DOCK-001"), shard("SIM-DOCK-002")],
            [54, 6, 51]
        );
    }

    #[test]
    fn gateways_whose_serial_numbers_follow_each_other_are_spread() {
        let mut held = BTreeMap::<u8, usize>::new();
        for number in 0..6_400 {
            let sn = GatewaySn::parse(&format!("SIM-DOCK-{number:04}")).unwrap();
            *held.entry(Shard::of(&sn).number()).or_default() += 1;
        }
        assert_eq!(held.len(), usize::from(SHARDS));
        assert!(held.values().all(|count| (50..200).contains(count)), "{held:?}");
    }

    proptest! {
        #[test]
        fn whatever_was_held_the_shares_settle_and_nobody_has_more_than_its_part(
            servers in 1_u128..9,
            unfit in prop::collection::btree_set(1_u128..9, 0..9),
            held in prop::collection::btree_map(0_u8..SHARDS, 1_u128..12, 0..64),
        ) {
            let is_fit = |number: &u128| !unfit.contains(number);
            let mut roll = Roll {
                members: (1..=servers)
                    .map(|number| Member { fit: is_fit(&number), ..member(number, 0) })
                    .collect(),
                holders: held.into_iter().map(|(shard, holder)| (Shard(shard), id(holder))).collect(),
                at: None,
            };
            let share_of = |number: u128, roll: &Roll| {
                let fitness = if is_fit(&number) { Fitness::Fit } else { Fitness::Unfit };
                Share::of(id(number), fitness, roll)
            };
            for _ in 0..3 {
                for number in 1..=servers {
                    let me = id(number);
                    let share = share_of(number, &roll);
                    prop_assert!(share.take.is_empty() || share.release.is_empty());
                    for shard in share.release {
                        roll.holders.remove(&shard);
                    }
                    for shard in share.take {
                        roll.holders.insert(shard, me);
                    }
                }
            }
            let fit = (1..=servers).filter(is_fit).count();
            let sharing = if fit == 0 { usize::try_from(servers).unwrap() } else { fit };
            let part = usize::from(SHARDS).div_ceil(sharing);
            prop_assert_eq!(roll.holders.len(), usize::from(SHARDS));
            for number in 1..=servers {
                let mine = roll.holders.values().filter(|holder| **holder == id(number)).count();
                prop_assert!(mine <= part);
                prop_assert!(mine == 0 || fit == 0 || is_fit(&number), "{number} cannot send");
                prop_assert_eq!(share_of(number, &roll), Share::default());
            }
        }
    }

    proptest! {
        #[test]
        fn those_who_look_at_the_same_moment_ask_for_all_that_is_free_and_for_as_little_as_can_be_twice(
            servers in 1_u128..9,
            held in prop::collection::btree_map(0_u8..SHARDS, 1_u128..12, 0..64),
        ) {
            let roll = Roll {
                members: (1..=servers).map(|number| member(number, 0)).collect(),
                holders: held.into_iter().map(|(shard, holder)| (Shard(shard), id(holder))).collect(),
                at: None,
            };
            let asked: Vec<Shard> = (1..=servers)
                .flat_map(|number| Share::of(id(number), Fitness::Fit, &roll).take)
                .collect();
            let is_held = |shard: &Shard| {
                roll.holders.get(shard).is_some_and(|holder| (1..=servers).any(|it| id(it) == *holder))
            };
            let free: BTreeSet<Shard> = Shard::all().filter(|shard| !is_held(shard)).collect();
            prop_assert_eq!(&asked.iter().copied().collect::<BTreeSet<_>>(), &free);
            let part = usize::from(SHARDS).div_ceil(usize::try_from(servers).unwrap());
            let room = |number| {
                part.saturating_sub(roll.holders.values().filter(|it| **it == id(number)).count())
            };
            let rooms: usize = (1..=servers).map(room).sum();
            for shard in &free {
                let times = asked.iter().filter(|it| *it == shard).count();
                prop_assert!(times <= rooms.div_ceil(free.len()), "{shard:?}: {times} times");
            }
        }
    }

    #[test]
    fn a_broker_that_is_away_for_a_moment_moves_no_shard() {
        let hold = |number| Shard::all().map(move |shard| (shard, id(number)));
        let mut roll = Roll {
            members: vec![member(1, 0), member(2, 0)],
            holders: hold(1).take(32).chain(hold(2).skip(32)).collect(),
            at: None,
        };
        let mut one = Unfitness::default();
        let at = |millis| Mono::from_millis(millis);
        // Nobody reaches it, then the second does again, and the first does not.
        roll.members.iter_mut().for_each(|member| member.fit = false);
        assert_eq!(one.note(false, at(1_000)), Fitness::Shaken);
        assert_eq!(Share::of(id(1), Fitness::Shaken, &roll), Share::default());
        roll.members[1].fit = true;
        assert_eq!(one.note(false, at(3_999)), Fitness::Shaken);
        assert_eq!(Share::of(id(1), Fitness::Shaken, &roll), Share::default());
        assert_eq!(Share::of(id(2), Fitness::Fit, &roll), Share::default());
        assert_eq!(one.note(false, at(4_000)), Fitness::Unfit);
        let all = Share { take: Vec::new(), release: Shard::all().take(32).collect() };
        assert_eq!(Share::of(id(1), Fitness::Unfit, &roll), all);
        // What is free is not for one that could not send to it.
        roll.holders.retain(|shard, _| shard.number() >= 32);
        for fitness in [Fitness::Shaken, Fitness::Unfit] {
            assert_eq!(Share::of(id(1), fitness, &roll), Share::default());
        }
        assert_eq!(Share::of(id(2), Fitness::Fit, &roll).take.len(), 32);
        // Nobody reaches it for long: whoever is there looks at the deadlines.
        roll.members[1].fit = false;
        assert_eq!(Share::of(id(1), Fitness::Unfit, &roll).take.len(), 32);
        assert_eq!(one.note(true, at(5_000)), Fitness::Fit);
        assert_eq!(one.note(false, at(6_000)), Fitness::Shaken);
    }

    #[test]
    fn one_that_was_started_again_without_the_broker_keeps_what_it_held_for_a_moment() {
        let mut roll = Roll { members: vec![member(1, 0), member(2, 0)], ..Roll::default() };
        roll.holders = Shard::all().map(|shard| (shard, id(1))).take(32).collect();
        roll.members[0].fit = false;
        assert_eq!(Share::of(id(1), Fitness::Shaken, &roll), Share::default());
        assert_eq!(Share::of(id(1), Fitness::Unfit, &roll).release.len(), 32);
    }

    #[test]
    fn a_clock_is_off_only_where_the_way_to_the_store_cannot_explain_it() {
        let at = Timestamp::from_millis;
        for (asked, store, answered, off) in [
            (10_000, 10_000, 10_001, None),
            (10_000, 8_000, 10_001, None),
            (10_000, 7_999, 10_001, Some(2_001)),
            (10_000, 12_001, 10_001, None),
            (10_000, 12_002, 10_001, Some(-2_001)),
            // It took long, and the store's clock was read in the end.
            (10_000, 16_000, 15_000, None),
            (10_000, i64::MAX, 10_000, Some(10_000 - i64::MAX)),
        ] {
            assert_eq!(clock_off(at(asked), at(store), at(answered)), off, "{store}");
        }
    }

    /// Others go by the times that this one writes, also while they reach no broker.
    #[test]
    fn a_wrong_clock_matters_beside_any_other_server_and_to_nobody_alone() {
        let mut roll = Roll { members: vec![member(1, 0)], ..Roll::default() };
        assert!(!roll.is_clock_shared(id(1)));
        roll.members.push(Member { fit: false, ..member(2, 0) });
        assert!(!roll.is_another_fit(id(1)), "nobody else can send");
        assert!(roll.is_clock_shared(id(1)));
        // Where both are off, each is wrong by what the store's clock says of it.
        assert!(roll.is_clock_shared(id(2)));
    }

    #[test]
    fn silent_is_who_gave_no_sign_of_life_while_it_was_looked_for() {
        let mut silences = Silences::default();
        let at = |millis| Mono::from_millis(millis);
        let roll =
            |beats| Roll { members: vec![member(1, 9), member(2, beats)], ..Roll::default() };
        for look in 0..12 {
            assert!(silences.note(id(1), &roll(5), at(1_000 + look * 250)).is_empty(), "{look}");
        }
        assert_eq!(silences.note(id(1), &roll(5), at(4_000)), [(id(2), 5)]);
        assert!(silences.note(id(1), &roll(6), at(60_000)).is_empty(), "it was I who was away");
        for look in 1..12 {
            assert!(silences.note(id(1), &roll(6), at(60_000 + look * 250)).is_empty(), "{look}");
        }
        assert_eq!(silences.note(id(1), &roll(6), at(63_000)), [(id(2), 6)]);
        assert!(silences.note(id(1), &Roll::default(), at(63_001)).is_empty());
        assert!(silences.note(id(1), &roll(6), at(70_000)).is_empty(), "it came anew");
    }

    #[test]
    fn while_the_store_answered_nobody_nobody_was_silent() {
        let mut silences = Silences::default();
        let at = |millis| Mono::from_millis(millis);
        let roll =
            |beats| Roll { members: vec![member(1, 9), member(2, beats)], ..Roll::default() };
        assert!(silences.note(id(1), &roll(5), at(1_000)).is_empty());
        // The store is back after half a minute, and whoever asks first reads what was there before.
        for look in 0..8 {
            assert!(silences.note(id(1), &roll(5), at(31_000 + look * 250)).is_empty(), "{look}");
        }
        assert_eq!(
            silences.note(id(1), &roll(5), at(33_000)),
            [(id(2), 5)],
            "it has not come back"
        );
        // Who looks seldom finds out as well.
        let looks = [36_000, 39_000, 42_000].map(|then| silences.note(id(1), &roll(6), at(then)));
        assert_eq!(looks.map(|silent| silent.len()), [0, 0, 0]);
        assert_eq!(silences.note(id(1), &roll(6), at(45_000)), [(id(2), 6)]);
    }
}
