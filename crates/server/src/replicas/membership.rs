//! How a server is one of several: it gives signs of life, takes its part of the shards and gives back what is too much,
//! expels who has fallen silent, and looks after what it has come to hold.
//!
//! Two tasks: one only beats and decides who holds what, so that nothing slow delays a sign of life; the other takes
//! commands into care.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use utmos_core::{
    id::{CommandId, GatewaySn},
    ports::{Joined, ReplicaStore, StoreError},
    replica::{
        BEAT_WAIT, InstanceId, LEASE, Member, News, ReplicaId, Roll, SILENCE_MAX, Shard, Share,
        Silences,
    },
    time::{Clock, Mono},
};

use super::{Holdings, Missed};
use crate::driver::Driver;

/// A sign of life that takes longer is of no use.
const BEAT_PATIENCE: Duration = Duration::from_secs(2);
/// How often it is looked for what others accepted for our gateways, whether or not they told.
const LOOK_WAIT: Duration = Duration::from_millis(250);
/// How often those who wait for commands of other servers are told how these stand, whether or not that was told.
const WATCH_WAIT: Duration = Duration::from_secs(1);
/// How long what is under way at a gateway may take to settle before its shard is given back.
const SETTLE_WAIT: Duration = Duration::from_secs(2);
const SETTLE_LOOK_WAIT: Duration = Duration::from_millis(5);
/// Commands that are looked at again for one piece of news at most; a second later all are.
const CHANGED_MAX: usize = 4_096;

/// What a membership works with.
pub struct MembershipParts {
    /// Where servers find each other.
    pub store: Arc<dyn ReplicaStore>,
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
}

/// Why a server did not become a member.
#[derive(Debug, thiserror::Error)]
pub enum JoinError {
    /// The store cannot be asked.
    #[error("the store cannot be read or written")]
    Store(#[from] StoreError),
    /// It cannot work beside another.
    #[error(
        "server {0} is at work on this database, and servers share one only where they share an outside broker: stop it, or set mqtt.mode = \"external\" for all of them"
    )]
    NotBeside(String),
}

/// This server among others.
pub struct Membership {
    parts: MembershipParts,
    state: Mutex<State>,
    /// There is something to take into care.
    care: Notify,
    /// The next sign of life need not be waited for.
    beat: Notify,
    /// More gateways are held, or a server is gone: for whoever looks after more than commands.
    taken_over: Notify,
}

#[derive(Default)]
struct State {
    silences: Silences,
    members: BTreeSet<ReplicaId>,
    /// What is held and has not been taken into care.
    owed: BTreeSet<Shard>,
    /// When shards were given back: a roll from before that says no more of them.
    given_back: BTreeMap<Shard, Mono>,
    /// A member is gone, and what it looked after is nobody's.
    is_one_gone: bool,
    /// What others told of commands, and that more was told than is remembered.
    changed: Vec<CommandId>,
    is_told_off: bool,
}

impl Membership {
    /// Makes this server a member and takes its part. Nothing is in care yet: [`Driver::resume`] must follow.
    ///
    /// # Errors
    /// When the store cannot be asked, or another server is there that shares nothing.
    pub async fn join(parts: MembershipParts) -> Result<Arc<Self>, JoinError> {
        let this = Arc::new(Self {
            parts,
            state: Mutex::default(),
            care: Notify::new(),
            beat: Notify::new(),
            taken_over: Notify::new(),
        });
        // Not to keep the membership alive by its own listener.
        let listener = Arc::downgrade(&this);
        this.parts.store.listen(Box::new(move |news| {
            if let Some(this) = listener.upgrade() {
                this.hear(news);
            }
        }));
        let mut silences = Silences::default();
        loop {
            let began = this.parts.clock.now().mono;
            let other = match this.parts.store.join(this.member()).await? {
                Joined::Yes(roll) => {
                    this.parts.holdings.extend(began.plus(LEASE));
                    this.follow(roll, began).await?;
                    this.lock().owed.clear();
                    this.parts.store.tell(News::Roll);
                    return Ok(this);
                }
                Joined::NotBeside(other) => other,
            };
            // It may have died: whoever does not beat is gone.
            let roll = this.parts.store.roll().await?;
            let now = this.parts.clock.now().mono;
            let is_alive =
                roll.members.iter().any(|it| it.id == other.id && it.beats > other.beats);
            if is_alive {
                return Err(JoinError::NotBeside(other.name));
            }
            for (id, beats) in silences.note(this.parts.id, &roll, now) {
                this.parts.store.expel(id, beats).await?;
            }
            tokio::time::sleep(BEAT_WAIT.min(SILENCE_MAX)).await;
        }
    }

    fn member(&self) -> Member {
        let MembershipParts { id, instance, name, alone, .. } = &self.parts;
        Member { id: *id, instance: *instance, name: name.clone(), alone: *alone, beats: 0 }
    }

    /// Is a member until `stopping`.
    pub async fn run(self: Arc<Self>, stopping: CancellationToken) {
        let beating = async {
            loop {
                tokio::select! {
                    () = tokio::time::sleep(BEAT_WAIT) => {}
                    () = self.beat.notified() => {}
                }
                self.round().await;
            }
        };
        tokio::select! {
            biased;
            () = stopping.cancelled() => {}
            () = beating => {}
            () = self.look_after() => {}
        }
    }

    /// Returns when this server has taken something over from another since it was asked last.
    pub async fn takes_over(&self) {
        self.taken_over.notified().await;
    }

    /// Gives everything to the others: what is under way settles first, as far as that does not take too long.
    pub async fn leave(&self) {
        let held = self.parts.holdings.held();
        self.parts.holdings.begin_to_leave(&held);
        self.settle(&held).await;
        let left = tokio::time::timeout(BEAT_PATIENCE, self.parts.store.leave(self.parts.id)).await;
        if let Ok(Ok(())) = left {
            self.drop_shards(&Shard::all().collect::<Vec<_>>());
            self.parts.store.tell(News::Roll);
        } else {
            tracing::warn!(
                "could not tell the other servers of the stop; they notice in some seconds"
            );
        }
    }

    /// One sign of life, and what follows from the answer.
    async fn round(self: &Arc<Self>) {
        let began = self.parts.clock.now().mono;
        let beat = tokio::time::timeout(BEAT_PATIENCE, self.parts.store.beat(self.parts.id)).await;
        let roll = match beat {
            Ok(Ok(Some(roll))) => roll,
            Ok(Ok(None)) => return self.join_again().await,
            Ok(Err(error)) => {
                return tracing::debug!(%error, "no sign of life could be given");
            }
            Err(_) => return tracing::debug!("a sign of life took too long"),
        };
        let was_on = self.parts.holdings.is_lease_on();
        self.parts.holdings.extend(began.plus(LEASE));
        if !was_on {
            tracing::info!("the store is there again; sending goes on");
            self.parts.driver.link_is_up();
        }
        if let Err(error) = self.follow(roll, began).await {
            tracing::debug!(%error, "could not take or give back shards");
        }
    }

    /// The others took this server for dead.
    async fn join_again(self: &Arc<Self>) {
        tracing::warn!(
            "the other servers have not heard of this one and took over what it held; joining again"
        );
        self.drop_shards(&Shard::all().collect::<Vec<_>>());
        let began = self.parts.clock.now().mono;
        match self.parts.store.join(self.member()).await {
            Ok(Joined::Yes(roll)) => {
                self.parts.holdings.extend(began.plus(LEASE));
                if let Err(error) = self.follow(roll, began).await {
                    tracing::debug!(%error, "could not take or give back shards");
                }
            }
            Ok(Joined::NotBeside(other)) => {
                tracing::error!(
                    "server {} is at work on the database in this one's place; nothing is sent from here",
                    other.name
                );
            }
            Err(error) => tracing::warn!(%error, "could not join again"),
        }
    }

    /// Does what a roll asks for that was asked for at `began`.
    async fn follow(self: &Arc<Self>, roll: Roll, began: Mono) -> Result<(), StoreError> {
        let MembershipParts { store, holdings, id: me, clock, .. } = &self.parts;
        let held_by_me: Vec<Shard> =
            roll.holders.iter().filter(|(_, id)| *id == me).map(|(shard, _)| *shard).collect();
        let known: BTreeSet<Shard> =
            holdings.held().into_iter().chain(holdings.leaving()).collect();
        let lost: Vec<Shard> =
            known.iter().copied().filter(|shard| !held_by_me.contains(shard)).collect();
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
        let (silent, members) = {
            let mut state = self.lock();
            let silent = state.silences.note(*me, &roll, clock.now().mono);
            let there: BTreeSet<ReplicaId> = roll.members.iter().map(|it| it.id).collect();
            let before = std::mem::replace(&mut state.members, there);
            state.is_one_gone |= before.iter().any(|id| !state.members.contains(id));
            (silent, state.members.len())
        };
        holdings.has_others(members > 1);
        self.hold(&gained);
        for (id, beats) in silent {
            let name = roll.members.iter().find(|it| it.id == id).map_or("", |it| it.name.as_str());
            if store.expel(id, beats).await? {
                tracing::warn!(
                    "server {name} gives no sign of life; others take over what it held"
                );
                self.beat.notify_one();
                store.tell(News::Roll);
            }
        }
        let share = Share::of(*me, &roll);
        if !share.take.is_empty() {
            gained = store.take(*me, share.take).await?;
            self.hold(&gained);
        }
        let is_leaving = !holdings.leaving().is_empty();
        if !share.release.is_empty() && !is_leaving {
            holdings.begin_to_leave(&share.release);
            let this = self.clone();
            tokio::spawn(async move { this.give_back(share.release).await });
        }
        if self.lock().is_one_gone {
            self.care.notify_one();
        }
        Ok(())
    }

    fn hold(&self, gained: &[Shard]) {
        if gained.is_empty() {
            return;
        }
        tracing::info!(shards = gained.len(), "this server holds more gateways");
        self.lock().owed.extend(gained);
        self.parts.holdings.hold(gained);
        self.care.notify_one();
    }

    fn drop_shards(&self, shards: &[Shard]) {
        self.lock().owed.retain(|shard| !shards.contains(shard));
        self.parts.holdings.let_go(shards);
        self.parts.driver.let_go(|gateway| shards.contains(&Shard::of(gateway)));
    }

    /// Gives back what another server is to hold.
    async fn give_back(self: Arc<Self>, shards: Vec<Shard>) {
        self.settle(&shards).await;
        match self.parts.store.release(self.parts.id, shards.clone()).await {
            Ok(()) => {
                tracing::info!(shards = shards.len(), "gave gateways to another server");
                let now = self.parts.clock.now().mono;
                self.lock().given_back.extend(shards.iter().map(|shard| (*shard, now)));
                self.drop_shards(&shards);
                self.parts.store.tell(News::Roll);
            }
            // Perhaps it was done all the same: the next roll tells. Until then nothing is sent.
            Err(error) => {
                tracing::warn!(%error, "could not give gateways to another server");
                self.drop_shards(&shards);
            }
        }
    }

    async fn settle(&self, shards: &[Shard]) {
        let is_of_them = |gateway: &GatewaySn| shards.contains(&Shard::of(gateway));
        let settled = async {
            while !self.parts.driver.is_settled(is_of_them) {
                tokio::time::sleep(SETTLE_LOOK_WAIT).await;
            }
        };
        if tokio::time::timeout(SETTLE_WAIT, settled).await.is_err() {
            tracing::info!("something was still under way when its gateways were given away");
        }
    }

    /// Takes into care what came to be held, what others accepted for it, and tells those who wait.
    async fn look_after(&self) {
        let mut watched_at = tokio::time::Instant::now();
        loop {
            tokio::select! {
                () = tokio::time::sleep(LOOK_WAIT) => {}
                () = self.care.notified() => {}
                () = self.parts.holdings.is_handed() => {}
            }
            if let Err(error) = self.take_care().await {
                tracing::debug!(%error, "could not look after what is held");
            }
            let changed = {
                let mut state = self.lock();
                let is_told_off = std::mem::take(&mut state.is_told_off);
                (!is_told_off).then(|| std::mem::take(&mut state.changed))
            };
            let is_time = watched_at.elapsed() >= WATCH_WAIT;
            let changed = changed.filter(|_| !is_time);
            if is_time {
                watched_at = tokio::time::Instant::now();
            }
            if let Err(error) = self.parts.driver.look_again(changed.as_deref()).await {
                tracing::debug!(%error, "could not look at commands of other servers");
            }
        }
    }

    async fn take_care(&self) -> Result<(), StoreError> {
        let (owed, is_one_gone) = {
            let mut state = self.lock();
            (std::mem::take(&mut state.owed), std::mem::take(&mut state.is_one_gone))
        };
        if !owed.is_empty() || is_one_gone {
            let missed: Vec<_> =
                owed.iter().flat_map(|shard| self.parts.missed.of(*shard)).collect();
            match self.parts.driver.resume_held(&missed).await {
                Ok(adopted) => {
                    owed.iter().for_each(|shard| self.parts.missed.forget(*shard));
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
                    state.is_one_gone |= is_one_gone;
                    return Err(error);
                }
            }
        }
        let handed = self.parts.store.handed(self.parts.id).await?;
        let mut taken = Vec::new();
        let mut failed = None;
        for one in handed {
            match self.parts.driver.take_in(one).await {
                Ok(()) => taken.push(one.id),
                // It stays where it is, and holds up no other.
                Err(error @ StoreError::Damaged(_)) => {
                    tracing::error!(command.id = %one.id, %error, "a command cannot be looked after");
                }
                Err(error) => {
                    failed = Some(error);
                    break;
                }
            }
        }
        if !taken.is_empty() {
            self.parts.store.taken_in(self.parts.id, taken).await?;
        }
        failed.map_or(Ok(()), Err)
    }

    fn hear(&self, news: News) {
        match news {
            News::Handed => self.care.notify_one(),
            News::Roll => self.beat.notify_one(),
            News::Changed(ids) => {
                {
                    let mut state = self.lock();
                    match state.changed.len() + ids.len() <= CHANGED_MAX {
                        true => state.changed.extend(ids),
                        false => state.is_told_off = true,
                    }
                }
                self.care.notify_one();
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
