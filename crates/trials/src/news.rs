//! What servers tell each other past the tables, on its way: late, twice, out of order or never, as the plan says. Whoever may have
//! missed something is told so once it hears again, as a store tells it that has lost its connection.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use rand::{RngExt, SeedableRng, rngs::StdRng};
use utmos_core::replica::News;

use crate::{life::LifeLine, plan::Tidings, world::World};

/// Longest that what is told is under way where nothing is wrong with it, in milliseconds.
const WAY_WAIT_MAX: u64 = 12;
/// The same where it strays: until whoever should hear it has looked by itself more than once.
const STRAY_WAIT_MAX: u64 = 2_500;
/// Of a hundred that stray, how many do not come, and how many come twice.
const LOST_PERCENT: u32 = 20;
const TWICE_PERCENT: u32 = 20;
/// Longest that a connection takes until it hears again, in milliseconds.
const AGAIN_WAIT_MAX: u64 = 600;

/// Who calls itself when something is told.
type Heard = Arc<dyn Fn(News) + Send + Sync>;

/// The ways between the servers.
pub(crate) struct Ways {
    /// Of each server its run that listens.
    listeners: BTreeMap<u8, (LifeLine, Heard)>,
    /// Of their own, so that plans in which nothing is told go as they went.
    dice: StdRng,
}

impl Ways {
    pub(crate) fn new(seed: u64) -> Self {
        Self { listeners: BTreeMap::new(), dice: StdRng::seed_from_u64(seed ^ 0x7e11) }
    }

    /// How long each copy of what is told is under way.
    fn throw(&mut self, tidings: Tidings) -> Vec<u64> {
        let dice = &mut self.dice;
        match tidings {
            Tidings::None => Vec::new(),
            Tidings::Prompt => vec![dice.random_range(0..=WAY_WAIT_MAX)],
            Tidings::Stray => {
                let copies = match dice.random_range(0..100) {
                    chance if chance < LOST_PERCENT => 0,
                    chance if chance < LOST_PERCENT + TWICE_PERCENT => 2,
                    _ => 1,
                };
                (0..copies).map(|_| dice.random_range(0..=STRAY_WAIT_MAX)).collect()
            }
        }
    }
}

impl World {
    /// A run of a server begins to hear what others tell: the last that does so counts.
    pub(crate) fn listens(
        self: &Arc<Self>,
        line: &LifeLine,
        heard: Box<dyn Fn(News) + Send + Sync>,
    ) {
        if self.plan.tidings != Tidings::None {
            self.state().ways.listeners.insert(line.server, (line.clone(), heard.into()));
            self.hears_again(line.server, 0);
        }
    }

    /// A run of a server tells all others, which hear it each in its time.
    pub(crate) fn spread(self: &Arc<Self>, from: &LifeLine, news: &News) {
        for server in (0..self.plan.servers).filter(|server| *server != from.server) {
            let ways = self.state().ways.throw(self.plan.tidings);
            for way in ways {
                let (world, from, news) = (self.clone(), from.clone(), news.clone());
                tokio::spawn(async move {
                    // What cannot be told now is told when the store is reached again.
                    let is_cut = || world.cannot_be_told(from.server);
                    let wait = if is_cut() { world.cut_for(from.server) } else { 0 };
                    tokio::time::sleep(Duration::from_millis(wait + way)).await;
                    if !from.is_dead() || wait == 0 {
                        world.reach(server, news).await;
                    }
                });
            }
        }
    }

    /// A server hears something, unless it is cut off or gone: then it is told that it may have missed something once it is not.
    async fn reach(self: &Arc<Self>, server: u8, news: News) {
        self.give_way().await;
        let listener = self.state().ways.listeners.get(&server).cloned();
        let Some((line, heard)) = listener.filter(|_| !self.cannot_be_told(server)) else { return };
        line.or_never().await;
        {
            let rare = &mut self.state().rare;
            rare.told += 1;
            rare.told_off += usize::from(news == News::Missed);
        }
        self.trace(|| format!("server {} hears {news:?}", line.number));
        heard(news);
    }

    /// After `wait` a server hears again, and is told that it may have missed something.
    pub(crate) fn hears_again(self: &Arc<Self>, server: u8, wait: u64) {
        if self.plan.tidings == Tidings::None {
            return;
        }
        let again = self.state().ways.dice.random_range(0..=AGAIN_WAIT_MAX);
        let world = self.clone();
        tokio::spawn(async move {
            tokio::time::sleep(Duration::from_millis(wait + again)).await;
            world.reach(server, News::Missed).await;
        });
    }

    fn cannot_be_told(&self, server: u8) -> bool {
        self.is_cut_off(server) || self.reads_fail()
    }
}
