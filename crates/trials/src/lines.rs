//! Lines between servers, past the store: what goes over one comes once and in order, or the line breaks and what was under
//! way is lost, or comes to a server that nobody waits for any more.

use std::{collections::BTreeMap, net::SocketAddr, sync::Arc, time::Duration};

use async_trait::async_trait;
use rand::{RngExt, SeedableRng, rngs::StdRng};
use tokio::sync::oneshot;
use utmos_core::{
    command::Command,
    ports::{ASKED_WAIT_MAX, Accepted, Answer, Asked, DirectLines, LineHeard, Taken, Unheard},
    replica::{News, ReplicaId, Roll},
};

use crate::{
    life::LifeLine,
    plan::{Lines, Plan},
    world::World,
};

/// Longest that a word is under way, in milliseconds.
const WAY_WAIT_MAX: u64 = 6;
/// Whoever hears nothing for so long gives a line up, in milliseconds.
const SILENCE_MAX: u64 = 1_000;
/// Longest until a line that broke is up again, in milliseconds.
const AGAIN_WAIT_MAX: u64 = 1_500;
/// Of a hundred questions, with how many the line breaks where lines break.
const BREAK_PERCENT: u32 = 25;
/// And of these, of how many the server at the other end knows it only later.
const LATER_PERCENT: u32 = 40;
/// Of a hundred lines, how many there are not for a long time, where lines break.
const NEVER_PERCENT: u32 = 20;
/// Longest until there is one, in milliseconds.
const NEVER_WAIT_MAX: u64 = 20_000;
/// And of these, with how many the question has come by then, or comes all the same.
const COMES_PERCENT: u32 = 70;

/// Two servers, the one with the smaller number first.
type Pair = (u8, u8);

/// The lines of a trial.
pub(crate) struct Net {
    /// Of each server its run that is reached, and who hears what comes.
    ears: BTreeMap<u8, Ear>,
    broken: BTreeMap<Pair, Broken>,
    /// When the last word came, or will come, from one to another.
    last: BTreeMap<(u8, u8), u64>,
    /// Of their own, so that plans without lines go as they went.
    dice: StdRng,
}

/// How a line has fared.
#[derive(Default, Clone, Copy)]
struct Broken {
    /// How often it has broken.
    times: u64,
    /// Until when it is down.
    until: u64,
    /// Until when the server that was asked last takes it for one that is up.
    unnoticed: u64,
}

#[derive(Clone)]
struct Ear {
    line: LifeLine,
    id: ReplicaId,
    heard: Arc<dyn LineHeard>,
}

impl Net {
    pub(crate) fn new(plan: &Plan) -> Self {
        let mut dice = StdRng::seed_from_u64(plan.seed ^ 0x11e5);
        let mut broken = BTreeMap::new();
        if plan.lines == Lines::Breaking {
            for pair in (0..plan.servers).flat_map(|one| (0..one).map(move |other| (other, one))) {
                if dice.random_ratio(NEVER_PERCENT, 100) {
                    let until = dice.random_range(0..=NEVER_WAIT_MAX);
                    broken.insert(pair, Broken { until, ..Broken::default() });
                }
            }
        }
        Self { ears: BTreeMap::new(), broken, last: BTreeMap::new(), dice }
    }
}

/// The lines of one run of a server.
pub(crate) struct TrialLines {
    world: Arc<World>,
    line: LifeLine,
    id: ReplicaId,
}

/// A line as it is now.
struct Up {
    world: Arc<World>,
    from: LifeLine,
    to: Ear,
    /// How often it had broken.
    epoch: u64,
}

impl TrialLines {
    pub(crate) fn new(world: Arc<World>, line: LifeLine, id: ReplicaId) -> Arc<Self> {
        Arc::new(Self { world, line, id })
    }

    /// The line to a member, if it is up.
    fn to(&self, member: ReplicaId) -> Option<Up> {
        if self.world.plan.lines == Lines::None || self.line.is_dead() {
            return None;
        }
        let now = self.world.clock.elapsed();
        let state = self.world.state();
        let to = state.net.ears.values().find(|ear| ear.id == member)?.clone();
        let pair = pair(self.line.server, to.line.server);
        let broken = state.net.broken.get(&pair).copied().unwrap_or_default();
        let Broken { times: epoch, until, .. } = broken;
        let is_up = until <= now && !to.line.is_dead();
        drop(state);
        is_up.then(|| Up { world: self.world.clone(), from: self.line.clone(), to, epoch })
    }
}

#[async_trait]
impl DirectLines for TrialLines {
    fn address(&self) -> Option<SocketAddr> {
        None
    }

    fn follow(&self, _: ReplicaId, _: &Roll) {}

    fn listen(&self, heard: Arc<dyn LineHeard>) {
        let ear = Ear { line: self.line.clone(), id: self.id, heard };
        self.world.state().net.ears.insert(self.line.server, ear);
    }

    async fn accept(&self, holder: ReplicaId, asked: Asked) -> Result<Taken, Unheard> {
        self.line.or_never().await;
        let up = self.to(holder).ok_or(Unheard::NotAsked)?;
        self.world.state().rare.asked_directly += 1;
        let (told, answer) = oneshot::channel();
        up.ask(asked, told);
        let answered = tokio::select! {
            biased;
            answered = answer => answered.ok(),
            () = up.is_broken() => None,
            // It stands still, or is gone with its machine.
            () = tokio::time::sleep(ASKED_WAIT_MAX) => None,
        };
        self.line.or_never().await;
        if answered.is_none() {
            if up.is_silent() {
                up.breaks();
            }
            self.world.state().rare.unheard_directly += 1;
        }
        answered.ok_or(Unheard::Broken)
    }

    fn ended(&self, member: ReplicaId, command: &Arc<Command>) -> bool {
        let Some(up) = self.to(member) else { return false };
        let command = Command::clone(command);
        up.carry(move |to| to.heard.ended(command));
        true
    }

    fn tell(&self, news: &News, but: Option<ReplicaId>) -> bool {
        if self.world.plan.lines == Lines::None {
            return false;
        }
        let others: Vec<ReplicaId> = {
            let state = self.world.state();
            let others = state.net.ears.values().filter(|ear| ear.line.server != self.line.server);
            others.map(|ear| ear.id).filter(|id| Some(*id) != but).collect()
        };
        let lines: Option<Vec<Up>> = others.into_iter().map(|id| self.to(id)).collect();
        let Some(lines) = lines else { return false };
        for up in lines {
            let news = news.clone();
            up.carry(move |to| to.heard.news(news));
        }
        true
    }
}

impl Up {
    fn pair(&self) -> Pair {
        pair(self.from.server, self.to.line.server)
    }

    fn is_this(&self) -> bool {
        let state = self.world.state();
        state.net.broken.get(&self.pair()).map_or(0, |broken| broken.times) == self.epoch
    }

    /// Whether the server that was asked has not noticed that the line is down: what it says leads nowhere.
    fn is_unnoticed(&self) -> bool {
        let now = self.world.clock.elapsed();
        let state = self.world.state();
        state.net.broken.get(&self.pair()).is_some_and(|broken| now < broken.unnoticed)
    }

    /// Returns when it is known here that the line is down.
    async fn is_broken(&self) {
        while self.is_this() && !self.to.line.is_dead() {
            tokio::time::sleep(Duration::from_millis(WAY_WAIT_MAX)).await;
        }
    }

    /// Whether the server at the other end has stood still for so long that the line is given up.
    fn is_silent(&self) -> bool {
        let since = self.to.line.still().since();
        since.is_some_and(|since| since + SILENCE_MAX <= self.world.clock.elapsed())
    }

    /// The line is down, and up again some time later.
    fn breaks(&self) {
        let now = self.world.clock.elapsed();
        {
            let net = &mut self.world.state().net;
            let until = now + net.dice.random_range(1..=AGAIN_WAIT_MAX);
            let later = net.dice.random_ratio(LATER_PERCENT, 100);
            let unnoticed = if later { now + net.dice.random_range(1..=SILENCE_MAX) } else { now };
            let broken = net.broken.entry(self.pair()).or_default();
            if broken.times != self.epoch {
                return;
            }
            *broken = Broken { times: self.epoch + 1, until, unnoticed };
        }
        self.world.trace(|| format!("the line of servers {:?} breaks", self.pair()));
        // Both have missed something.
        for server in [self.from.server, self.to.line.server] {
            let ear = self.world.state().net.ears.get(&server).cloned();
            let Some(ear) = ear else { continue };
            tokio::spawn(async move {
                ear.line.or_never().await;
                ear.heard.news(News::Missed);
            });
        }
    }

    /// How long a word is under way, behind what was said before it.
    fn way(&self) -> Duration {
        let now = self.world.clock.elapsed();
        let net = &mut self.world.state().net;
        let comes = now + net.dice.random_range(0..=WAY_WAIT_MAX);
        let last = net.last.entry((self.from.server, self.to.line.server)).or_default();
        *last = comes.max(*last + 1);
        Duration::from_millis(*last - now)
    }

    /// Carries a word to the other server, unless the line breaks on its way.
    fn carry(self, word: impl FnOnce(&Ear) + Send + 'static) {
        let way = self.way();
        tokio::spawn(async move {
            tokio::time::sleep(way).await;
            if self.is_this() {
                self.to.line.or_never().await;
                word(&self.to);
            }
        });
    }

    fn back(&self, ear: Ear) -> Self {
        let (world, from) = (self.world.clone(), self.to.line.clone());
        Self { world, from, to: ear, epoch: self.epoch }
    }

    fn ask(&self, asked: Asked, told: oneshot::Sender<Taken>) {
        let breaks = self.world.plan.lines == Lines::Breaking;
        let (breaks_after, comes) = {
            let net = &mut self.world.state().net;
            let breaks = breaks && net.dice.random_ratio(BREAK_PERCENT, 100);
            let comes = !breaks || net.dice.random_ratio(COMES_PERCENT, 100);
            (breaks.then(|| net.dice.random_range(0..=4 * WAY_WAIT_MAX)), comes)
        };
        let own = self.world.state().net.ears.get(&self.from.server).cloned();
        let Some(own) = own else { return };
        let back = self.back(own);
        let way = self.way();
        let (to, from, spec) = (self.to.clone(), self.from.clone(), asked.spec.clone());
        let asker = back.to.id;
        if let Some(after) = breaks_after {
            let up = Self { world: self.world.clone(), from, to: to.clone(), epoch: self.epoch };
            tokio::spawn(async move {
                tokio::time::sleep(Duration::from_millis(after)).await;
                up.breaks();
            });
        }
        let world = self.world.clone();
        tokio::spawn(async move {
            tokio::time::sleep(way).await;
            // What stood in the buffers of a line that breaks is read all the same, or not.
            if !comes && !back.is_this() {
                return;
            }
            to.line.or_never().await;
            world.give_way().await;
            let answer: Answer = Box::new(move |taken| {
                if !back.is_this() {
                    return back.is_unnoticed();
                }
                back.carry(move |to| {
                    if let Taken::Stored(Accepted::New | Accepted::Elsewhere) = taken {
                        to.heard.accepted(&spec);
                    }
                    let _nobody_waits = told.send(taken);
                });
                true
            });
            to.heard.asked(asker, asked, answer);
        });
    }
}

fn pair(one: u8, other: u8) -> Pair {
    (one.min(other), one.max(other))
}
