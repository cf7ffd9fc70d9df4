//! How a server is one of several: it gives signs of life, takes its part of the shards and gives back what is too much,
//! expels who has fallen silent, and looks after what it has come to hold.
//!
//! One task only beats and decides who holds what; what is decided is done beside it, and holds up no sign of life. Others
//! take commands into care, and tell those who wait.

mod changes;
mod news;
mod refusal;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{sync::Notify, task::JoinHandle};
use tokio_util::sync::CancellationToken;
use utmos_core::{
    id::CommandId,
    ports::{DirectLines, ReplicaStore, StoreError},
    replica::{
        BEAT_WAIT, Fitness, Handed, InstanceId, LEASE, Member, News, ReplicaId, Roll, Shard, Share,
        Silences, UNFIT_WAIT, Unfitness, clock_off,
    },
    store_clock::Reading,
    time::{Clock, Mono, Now},
};

pub use self::refusal::JoinError;
use self::{
    news::{Heard, Told},
    refusal::{Refused, let_in},
};
use super::{
    Holdings, Missed, Word,
    holdings::{IsLinked, clock_trouble},
};
use crate::driver::{Driver, READ_PAGE};

/// A sign of life that takes longer is of no use.
const BEAT_PATIENCE: Duration = Duration::from_secs(2);
/// How often it is looked for what others accepted for our gateways, whether or not they told.
const LOOK_WAIT: Duration = Duration::from_millis(250);
/// How long whoever joins looks whether one that works alone still lives.
const ALONE_LOOK_WAIT: Duration = Duration::from_secs(1);
/// How long whoever holds a gateway has to put an answer on record before others do.
const OWN_CHANCE: Duration = Duration::from_secs(1);
/// How often answers are looked for after a server is gone, [`OWN_CHANCE`] apart.
const ANSWER_LOOKS: u32 = 6;
/// How long before a server was known to be gone an answer may have come that it could not save.
const ANSWERS_SINCE: Duration = Duration::from_secs(30);
/// How long a start waits for its part of the gateways.
const FIRST_CHANGE_WAIT: Duration = Duration::from_secs(1);
/// What a membership works with.
pub struct MembershipParts {
    /// Where servers find each other.
    pub store: Arc<dyn ReplicaStore>,
    /// Where they reach each other.
    pub lines: Arc<dyn DirectLines>,
    /// What this server holds.
    pub holdings: Arc<Holdings>,
    /// What devices said to others.
    pub missed: Arc<Missed>,
    /// Who looks after commands.
    pub driver: Driver,
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// This run of the server.
    pub id: ReplicaId,
    /// The server.
    pub instance: InstanceId,
    /// Its name on timelines.
    pub name: String,
    /// Whether it has a broker of its own, and so can share nothing.
    pub alone: bool,
    /// Under which it is known to the broker, where one was chosen for it.
    pub client_id: Option<String>,
    /// Whether the broker is reached now.
    pub is_linked: IsLinked,
}

/// This server among others.
pub struct Membership {
    parts: MembershipParts,
    state: Mutex<State>,
    /// There is something to take into care.
    care: Notify,
    /// The next sign of life need not be waited for.
    beat: Notify,
    /// Commands of other servers stand otherwise.
    changed: Notify,
    /// More gateways are held, or a server is gone: for whoever looks after more than commands.
    taken_over: Notify,
    /// A server is gone.
    gone: Notify,
}

#[derive(Default)]
struct State {
    silences: Silences,
    unfitness: Unfitness,
    is_clock_off: bool,
    /// What devices say is heard.
    is_listening: bool,
    members: BTreeSet<ReplicaId>,
    /// What is held and has not been taken into care.
    owed: BTreeSet<Shard>,
    /// What it held when it joined.
    from_the_start: BTreeSet<Shard>,
    /// When shards were given back, and when they were taken: a roll from before that says no more of them.
    given_back: BTreeMap<Shard, Mono>,
    taken: BTreeMap<Shard, Mono>,
    /// Somebody is being expelled, or shards are being taken.
    is_changing: bool,
    /// Members came or went: what one looked after, or put on record before it joined, may be nobody's.
    has_changed: bool,
    /// What others told of commands, and that more was told than is remembered.
    told: Told,
    is_told_off: bool,
    /// What was handed to this server and cannot be read, as far as it was told of.
    unreadable: BTreeSet<CommandId>,
    /// Emergencies that are looked after no more, and that the store has not said to be handed on.
    passing: BTreeMap<CommandId, Shard>,
    is_passing: bool,
    /// It was told that this server is none of the others any more, and why it does not become one.
    is_out: bool,
    has_said_why: bool,
    /// It gives no sign of life, for what it writes beside these does not reach the store.
    is_silent: bool,
    leaving: Leaving,
}

/// How far a server is on its way out.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum Leaving {
    #[default]
    No,
    /// It only shows that it lives, and takes nothing more.
    Begun,
    /// It is a member no more.
    Done,
}

impl Membership {
    /// Makes this server a member, which takes what nobody else could send. Nothing is in care yet: [`Driver::resume`] and
    /// [`Membership::has_resumed`] must follow, then [`Membership::listens`], and signs of life at once ([`Membership::beat`]).
    ///
    /// # Errors
    /// When the store cannot be asked, or another server is there that shares nothing.
    pub async fn join(parts: MembershipParts) -> Result<Arc<Self>, JoinError> {
        let this = Arc::new(Self {
            parts,
            state: Mutex::default(),
            care: Notify::new(),
            beat: Notify::new(),
            changed: Notify::new(),
            taken_over: Notify::new(),
            gone: Notify::new(),
        });
        // Not to keep the membership alive by its own listener.
        let listener = Arc::downgrade(&this);
        this.parts.store.listen(Box::new(move |news| {
            if let Some(this) = listener.upgrade() {
                this.hear(news);
            }
        }));
        this.parts.lines.listen(Arc::new(Heard(Arc::downgrade(&this))));
        this.parts.holdings.watch_link(this.parts.is_linked.clone());
        let mut silences = Silences::default();
        let mut seen = None;
        loop {
            let asked = this.parts.clock.now();
            let began = asked.mono;
            let joined = let_in(this.parts.store.join(this.member()).await?);
            let Refused { by: other, why } = match joined {
                Ok(roll) => {
                    if let Some(off) = this.note_clock(&roll, asked) {
                        this.leave().await;
                        return Err(JoinError::ClockOff(clock_trouble(off)));
                    }
                    this.parts.holdings.extend(began.plus(LEASE));
                    if let Some(change) = this.follow(&roll, began) {
                        // Others notice a start that takes longer, and what is taken later is looked for by itself.
                        let _late = tokio::time::timeout(FIRST_CHANGE_WAIT, change).await;
                    }
                    {
                        let mut state = this.lock();
                        state.from_the_start = state.owed.clone();
                    }
                    this.parts.store.tell(News::Roll);
                    return Ok(this);
                }
                Err(refused) => *refused,
            };
            // It may have died: whoever does not beat is gone.
            match seen {
                Some((id, beats)) if id == other.id && other.beats > beats => {
                    return Err(why);
                }
                Some(_) => {}
                None => tracing::info!("waiting to see whether server {} still lives", other.name),
            }
            seen = Some((other.id, other.beats));
            let roll = this.parts.store.roll().await?;
            for (id, beats) in silences.note(this.parts.id, &roll, this.parts.clock.now().mono) {
                this.parts.store.expel(id, beats).await?;
            }
            tokio::time::sleep(ALONE_LOOK_WAIT).await;
        }
    }

    fn member(&self) -> Member {
        let MembershipParts { id, instance, name, alone, client_id, lines, .. } = &self.parts;
        let (id, instance, name, alone) = (*id, *instance, name.clone(), *alone);
        let (client_id, fit) = (client_id.clone(), self.is_fit());
        Member { id, instance, name, alone, client_id, line: lines.address(), beats: 0, fit }
    }

    /// Whether this server can do its work.
    fn is_fit(&self) -> bool {
        let (is_clock_off, is_listening) = {
            let state = self.lock();
            (state.is_clock_off, state.is_listening)
        };
        !is_clock_off && is_listening && (self.parts.is_linked)() && self.parts.store.is_written()
    }

    /// From now on this server hears what devices say, and looks after what it comes to hold: it takes its part. Until then
    /// others that can do its work have it, however long the start takes.
    pub fn listens(&self) {
        self.lock().is_listening = true;
        self.beat.notify_one();
    }

    /// Takes note of the store's clock and compares this server's, by a roll that was asked for then. Answers by how much it is
    /// ahead, where that is too much and there is another server.
    fn note_clock(&self, roll: &Roll, asked: Now) -> Option<i64> {
        let answered = self.parts.clock.now();
        // A store that has no clock of its own has that of its server.
        let store = roll.at.unwrap_or(answered.wall);
        let from = if roll.at.is_some() { asked.mono } else { answered.mono };
        let reading = Reading { asked: from, store, answered: answered.mono };
        if let Some(by) = self.parts.holdings.note_store_clock(reading) {
            tracing::warn!(
                "the database's clock was set by {by} ms; commands that other servers accepted before may end as expired: let it run evenly (NTP)"
            );
        }
        let off = roll.at.and_then(|store| clock_off(asked.wall, store, answered.wall));
        let was_off = std::mem::replace(&mut self.lock().is_clock_off, off.is_some());
        let matters = off.filter(|_| roll.is_clock_shared(self.parts.id));
        let is_news = self.parts.holdings.clock_is_off(matters);
        match (off, matters) {
            (_, Some(off)) if is_news => tracing::error!(
                "{}; until then this server sends and takes nothing but emergencies, and others do the rest as far as they can",
                clock_trouble(off)
            ),
            (Some(off), None) if is_news || !was_off => tracing::warn!(
                "{}; this is the only server, so nobody else goes by it",
                clock_trouble(off)
            ),
            (None, _) if was_off => {
                tracing::info!("this machine's clock goes with the database's again");
            }
            (Some(_) | None, _) => {}
        }
        if is_news && matters.is_none() {
            self.parts.driver.link_is_up();
        }
        matters
    }

    /// How many servers are at work, with this one, as far as it knows.
    pub fn servers(&self) -> usize {
        self.lock().members.len().max(1)
    }

    /// What is open in the shards that were held from the start is in care. What was taken since then is looked for anew.
    pub fn has_resumed(&self) {
        let resumed: Vec<Shard> = {
            let mut state = self.lock();
            let from_the_start = std::mem::take(&mut state.from_the_start);
            let owed = std::mem::take(&mut state.owed);
            state.owed = owed.difference(&from_the_start).copied().collect();
            owed.intersection(&from_the_start).copied().collect()
        };
        self.parts.holdings.hold(&resumed);
        self.parts.driver.link_is_up();
        self.care.notify_one();
    }

    /// Gives signs of life until it has left.
    pub async fn beat(self: Arc<Self>) {
        while self.lock().leaving != Leaving::Done {
            tokio::select! {
                biased;
                // First, so that the round that follows answers it too, and no other follows for it.
                () = self.beat.notified() => {}
                () = tokio::time::sleep(BEAT_WAIT) => {}
            }
            self.round().await;
        }
    }

    /// Looks after what it holds until `stopping`.
    pub async fn run(self: Arc<Self>, stopping: CancellationToken) {
        tokio::select! {
            biased;
            () = stopping.cancelled() => {}
            () = self.look_after() => {}
            () = self.look_for_others() => {}
            () = self.look_for_answers() => {}
        }
    }

    /// Returns when this server has taken something over from another since it was asked last.
    pub async fn takes_over(&self) {
        self.taken_over.notified().await;
    }

    /// Gives everything to the others, if there are any: what is under way settles first, as far as that does not take too
    /// long. A server that is the only one keeps what it has to its end, and hears the answers to it.
    pub async fn hand_over(&self) {
        {
            let mut state = self.lock();
            if state.leaving != Leaving::No {
                return;
            }
            state.leaving = Leaving::Begun;
            if state.members.len() <= 1 {
                return;
            }
        }
        let held = self.parts.holdings.held();
        self.parts.holdings.begin_to_leave(&held);
        self.settle(&held).await;
        self.leave().await;
    }

    /// Is a member no more. Whoever could not say so is expelled by the others some seconds later.
    pub async fn leave(&self) {
        if std::mem::replace(&mut self.lock().leaving, Leaving::Done) == Leaving::Done {
            return;
        }
        let left = tokio::time::timeout(BEAT_PATIENCE, self.parts.store.leave(self.parts.id)).await;
        self.drop_shards(&Shard::all().collect::<Vec<_>>());
        self.beat.notify_one();
        match left {
            Ok(Ok(())) => self.parts.store.tell(News::Roll),
            Ok(Err(_)) | Err(_) => {
                tracing::warn!(
                    "could not tell other servers of the stop; they notice in some seconds"
                );
            }
        }
    }

    /// Speaks to no other server any more.
    pub async fn hang_up(&self) {
        self.parts.lines.close().await;
    }

    /// One sign of life, and what follows from the answer.
    async fn round(self: &Arc<Self>) {
        if self.lock().leaving == Leaving::Done || self.keeps_silent() {
            return;
        }
        let asked = self.parts.clock.now();
        let began = asked.mono;
        let beat = self.parts.store.beat(self.parts.id, self.is_fit());
        let roll = match tokio::time::timeout(BEAT_PATIENCE, beat).await {
            Ok(Ok(Some(roll))) => roll,
            Ok(Ok(None)) => return self.join_again().await,
            Ok(Err(error)) => {
                return tracing::debug!(%error, "no sign of life could be given");
            }
            Err(_) => return tracing::debug!("a sign of life took too long"),
        };
        self.note_clock(&roll, asked);
        let was_on = self.parts.holdings.is_lease_on();
        self.parts.holdings.extend(began.plus(LEASE));
        if !was_on {
            tracing::info!("the store is there again; sending goes on");
            self.parts.driver.link_is_up();
        }
        let _change = self.follow(&roll, began);
        self.begin_to_pass_on();
    }

    /// Whether this server gives no sign of life, so that others expel it: it could not give them what it holds, as nothing that it
    /// writes reaches the store. They wait for its last batch on connections that work.
    fn keeps_silent(&self) -> bool {
        let mut state = self.lock();
        state.is_silent &= !self.parts.store.is_written();
        state.is_silent
    }

    /// The others took this server for dead.
    async fn join_again(self: &Arc<Self>) {
        if self.lock().leaving != Leaving::No {
            return;
        }
        if !std::mem::replace(&mut self.lock().is_out, true) {
            tracing::warn!(
                "the other servers have not heard of this one and took over what it held; joining again"
            );
        }
        // It is met with again with every sign of life.
        let is_news = || !std::mem::replace(&mut self.lock().has_said_why, true);
        self.drop_shards(&Shard::all().collect::<Vec<_>>());
        let began = self.parts.clock.now().mono;
        // Two runs of one server cannot live on one machine, so this is a copy of its folder.
        let is_copy = |it: &Member| it.instance == self.parts.instance && it.id != self.parts.id;
        if let Ok(roll) = self.parts.store.roll().await
            && let Some(copy) = roll.members.iter().find(|it| is_copy(it))
        {
            if is_news() {
                tracing::error!(
                    "server {} works under the same instance.id, and nothing is sent from here: give each server a data_dir of its \
                 own, and remove instance.id from one that was copied",
                    copy.name
                );
            }
            return;
        }
        match self.parts.store.join(self.member()).await.map(let_in) {
            Ok(Ok(roll)) => {
                {
                    let mut state = self.lock();
                    (state.is_out, state.has_said_why) = (false, false);
                }
                self.parts.holdings.extend(began.plus(LEASE));
                let _change = self.follow(&roll, began);
            }
            Ok(Err(refused)) if !is_news() => tracing::debug!("{}", refused.why),
            Ok(Err(refused)) => {
                tracing::error!("{}; until then nothing is sent from here", refused.why);
            }
            Err(error) if !is_news() => tracing::debug!(%error, "could not join again"),
            Err(error) => tracing::warn!(%error, "could not join again"),
        }
    }

    /// Does what a roll asks for that was asked for at `began`. Answers what is changed in the store for it, beside this.
    fn follow(self: &Arc<Self>, roll: &Roll, began: Mono) -> Option<JoinHandle<()>> {
        let MembershipParts { holdings, id: me, clock, .. } = &self.parts;
        let held_by_me: Vec<Shard> =
            roll.holders.iter().filter(|(_, id)| *id == me).map(|(shard, _)| *shard).collect();
        let known: BTreeSet<Shard> =
            holdings.held().into_iter().chain(holdings.leaving()).collect();
        let lost: Vec<Shard> = {
            let mut state = self.lock();
            state.taken.retain(|_, at| *at >= began);
            let is_lost =
                |shard: &&Shard| !held_by_me.contains(shard) && !state.taken.contains_key(shard);
            known.iter().filter(is_lost).copied().collect()
        };
        if !lost.is_empty() {
            tracing::warn!(shards = lost.len(), "other servers hold what this one held");
            self.drop_shards(&lost);
        }
        let mut gained: Vec<Shard> =
            held_by_me.into_iter().filter(|shard| !known.contains(shard)).collect();
        {
            let mut state = self.lock();
            gained.retain(|shard| state.given_back.get(shard).is_none_or(|at| *at < began));
            state.given_back.retain(|_, at| *at >= began);
        }
        let is_fit = self.is_fit();
        let (silent, members, fitness) = {
            let mut state = self.lock();
            let fitness = state.unfitness.note(is_fit, clock.now().mono);
            let silent = state.silences.note(*me, roll, clock.now().mono);
            let there: BTreeSet<ReplicaId> = roll.members.iter().map(|it| it.id).collect();
            let before = std::mem::replace(&mut state.members, there);
            state.has_changed |= before != state.members;
            if !before.is_subset(&state.members) {
                self.gone.notify_one();
            }
            (silent, state.members.len(), fitness)
        };
        holdings.has_others(members > 1);
        holdings.follow(roll);
        holdings.is_another_fit(roll.is_another_fit(*me));
        self.hold(&gained);
        let is_going = self.lock().leaving != Leaving::No;
        let share = if is_going { Share::default() } else { Share::of(*me, fitness, roll) };
        let name_of = |id: ReplicaId| {
            let member = roll.members.iter().find(|it| it.id == id);
            member.map_or(String::new(), |it| it.name.clone())
        };
        let silent: Vec<_> =
            silent.into_iter().map(|(id, beats)| (id, beats, name_of(id))).collect();
        let change = self.begin_change(silent, share.take);
        if is_going {
            return change;
        }
        let is_leaving = !holdings.leaving().is_empty();
        if !share.release.is_empty() && !is_leaving {
            if fitness == Fitness::Unfit {
                tracing::warn!(
                    "this server has not reached the broker or, to write, the database, has had a wrong clock, or has been starting, for {} s; its gateways go to others",
                    UNFIT_WAIT.as_secs()
                );
            }
            holdings.begin_to_leave(&share.release);
            let this = self.clone();
            tokio::spawn(async move { this.give_back(share.release).await });
        }
        if self.lock().has_changed {
            self.care.notify_one();
        }
        change
    }

    /// Takes into care what came to be held, and what others accepted for it.
    async fn look_after(&self) {
        loop {
            tokio::select! {
                biased;
                () = self.care.notified() => {}
                () = self.parts.holdings.is_handed() => {}
                () = tokio::time::sleep(LOOK_WAIT) => {}
            }
            if self.parts.holdings.is_cut_off() && self.parts.driver.has_emergencies_waiting() {
                // Others must know first that this server cannot send.
                self.beat.notify_one();
            }
            if let Err(error) = self.take_care().await {
                tracing::debug!(%error, "could not look after what is held");
            }
        }
    }

    async fn take_care(&self) -> Result<(), StoreError> {
        let (owed, has_changed) = {
            let mut state = self.lock();
            (std::mem::take(&mut state.owed), std::mem::take(&mut state.has_changed))
        };
        if !owed.is_empty() || has_changed {
            let before = self.parts.missed.mark();
            let mut missed: Vec<_> =
                owed.iter().flat_map(|shard| self.parts.missed.of(*shard)).collect();
            if has_changed {
                // The emergencies of a server that is gone, to gateways that were held here all the while: what was
                // answered to them was heard here, and they were in nobody's care.
                let held = self.parts.holdings.held().into_iter();
                let held = held.filter(|shard| !owed.contains(shard));
                let said = held.flat_map(|shard| self.parts.missed.of(shard));
                missed.extend(said.filter(|missed| matches!(missed.word, Word::Reply(..))));
            }
            match self.parts.driver.resume_held(&missed).await {
                Ok(adopted) => {
                    // What came while it was read found nothing in care.
                    let meanwhile = owed.iter().flat_map(|it| self.parts.missed.after(*it, before));
                    self.parts.driver.hear_of_jobs(&meanwhile.collect::<Vec<_>>());
                    owed.iter().for_each(|shard| self.parts.missed.forget(*shard));
                    {
                        // One that went away and came back meanwhile is owed anew: others may have accepted in between.
                        let state = self.lock();
                        let owed: Vec<Shard> = owed.difference(&state.owed).copied().collect();
                        self.parts.holdings.hold(&owed);
                    }
                    self.parts.driver.link_is_up();
                    self.taken_over.notify_one();
                    if adopted.open > 0 {
                        tracing::info!(
                            open = adopted.open,
                            unclear = adopted.unclear,
                            "commands of another server are looked after here now"
                        );
                    }
                }
                Err(error) => {
                    let mut state = self.lock();
                    state.owed.extend(owed);
                    state.has_changed |= has_changed;
                    return Err(error);
                }
            }
        }
        let handed = self.parts.store.handed_commands(self.parts.id).await?;
        self.lock().unreadable.retain(|id| handed.iter().any(|(one, _)| one.id == *id));
        let (mut taken, mut urgent) = (Vec::new(), Vec::new());
        let mut failed = None;
        let (mut along, mut behind) = (BTreeMap::new(), BTreeSet::new());
        let handed = handed.into_iter().map(|(one, command)| {
            along.extend(command.map(|command| (one.id, command)));
            one
        });
        // An emergency is behind nothing.
        let (first, then): (Vec<Handed>, Vec<Handed>) = handed.partition(|one| one.urgent);
        let parts = std::iter::once(first.as_slice()).chain(then.chunks(READ_PAGE));
        'all: for some in parts {
            let unread: Vec<Handed> =
                some.iter().filter(|one| !along.contains_key(&one.id)).copied().collect();
            let mut read = match self.parts.driver.read_handed(&unread).await {
                Ok(read) => read,
                Err(error) => {
                    failed = Some(error);
                    break;
                }
            };
            for one in some.iter().copied() {
                let command = along.remove(&one.id).or_else(|| read.remove(&one.id));
                match self.parts.driver.take_in(one, command, &self.parts.missed, &mut behind).await
                {
                    Ok(true) => {
                        taken.push(one);
                        urgent.extend(one.urgent.then_some(one));
                    }
                    // With the next look.
                    Ok(false) => {}
                    // It stays where it is, and holds up no other.
                    Err(error @ StoreError::Damaged(_)) => {
                        // It is met again with every look.
                        if self.lock().unreadable.insert(one.id) {
                            tracing::error!(command.id = %one.id, %error, "a command cannot be looked after");
                        }
                    }
                    Err(error) => {
                        failed = Some(error);
                        break 'all;
                    }
                }
            }
        }
        if !taken.is_empty() {
            let noted = self.parts.store.taken_in(self.parts.id, taken).await;
            // Whoever accepted an emergency may have handed it over after it was looked at and before it was noted: what says
            // so is gone with the note.
            for one in urgent {
                let is_known = noted.is_ok()
                    && self
                        .parts
                        .driver
                        .take_in(one, None, &self.parts.missed, &mut behind)
                        .await
                        .is_ok();
                self.lock().has_changed |= !is_known;
            }
            noted?;
        }
        failed.map_or(Ok(()), Err)
    }

    /// Who held a gateway may be gone without having an answer or the end of a job on record, and whoever holds it now may have
    /// been starting when it came: what was heard here of the gateways of others is put on record, where that has not been done.
    async fn look_for_answers(&self) {
        let MembershipParts { holdings, missed, driver, clock, .. } = &self.parts;
        // Who comes back at once under the same name still has to find its answers, and misses what is said until it listens.
        let mut looks = 0;
        loop {
            match looks {
                0 => {
                    self.gone.notified().await;
                    looks = ANSWER_LOOKS;
                }
                _ => {
                    tokio::select! {
                        biased;
                        // Who is gone just now has all the looks, and none of those of before.
                        () = self.gone.notified() => looks = ANSWER_LOOKS,
                        () = tokio::time::sleep(OWN_CHANCE) => looks -= 1,
                    }
                }
            }
            let (held, now) = (holdings.held(), clock.now().mono);
            let others = Shard::all().filter(|shard| !held.contains(shard));
            let heard: Vec<_> = others
                .flat_map(|shard| missed.of(shard))
                .filter(|word| (OWN_CHANCE..=ANSWERS_SINCE).contains(&now.since(word.at)))
                .collect();
            if let Err(error) = driver.put_on_record(&heard).await {
                tracing::debug!(%error, "could not look for answers to commands of a server that is gone");
                looks = ANSWER_LOOKS;
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
