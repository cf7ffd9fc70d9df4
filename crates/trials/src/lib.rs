//! Trials of the platform: its driver and its link, whole, under a virtual clock and a seeded world in which links
//! break, stores fail and lie, servers and machines die, clocks jump and docks misbehave. What the platform says in
//! the end is compared with what really happened.
//!
//! Nothing of the platform is copied here: [`utmos_server`]'s driver and link run as they are, on ports of our own. A
//! process dies by its ports going dead, so that nothing it had begun has an effect any more.

mod air;
mod beside;
mod caller;
mod causes;
mod clock;
mod disk;
mod dock;
mod facts;
mod hangs;
mod journal;
mod life;
mod lines;
mod mutation;
mod news;
mod oracle;
mod order;
mod panics;
mod plan;
mod presence;
mod rare;
mod replicas;
mod shown;
mod shrink;
mod steps;
mod still;
mod store;
mod world;
mod wrong;

use std::{sync::Arc, time::Duration};

use utmos_core::planted;
use utmos_dji::catalogue::Catalogue;
use utmos_mqtt::Inbound;
use utmos_store::JournalledStore;

pub use self::{
    beside::{Beside, SqliteBeside},
    hangs::{EXIT_CODE as HANGS_EXIT_CODE, set_patience as set_hang_patience},
    mutation::Mutation,
    plan::{
        Answer, Broker, Copying, Happening, Kind, Lines, Plan, PlanError, Same, Tidings, VERSION,
        Weather, What, Wish,
    },
    rare::Rare,
    shown::{shown_by, shows},
    shrink::{kind, shrink, shrink_alike},
};
use crate::{
    beside::Twin,
    world::{Post, Trouble, World},
};
pub use utmos_core::planted::Fault;

/// A plan is given so long to come to its end when whatever it says of times is over, in milliseconds of its own time.
const PATIENCE: u64 = 90_000;

/// What came of a trial.
#[derive(Debug)]
pub struct Report {
    /// What should not have happened.
    pub violations: Vec<String>,
    /// What happened, line by line.
    pub trace: Vec<String>,
    /// How many commands were stored.
    pub commands: usize,
    /// What of the rare things came about.
    pub rare: Rare,
}

/// Runs a plan. The same plan and mutation always give the same report. A panic, whoever caught it, is a violation; a plan
/// whose time stands still ends the program, which names it.
///
/// # Panics
/// When no runtime can be made.
#[must_use]
pub fn run(plan: &Plan, mutation: Option<Mutation>, catalogue: &Arc<Catalogue>) -> Report {
    run_on(plan, mutation, catalogue, None)
}

/// The same with a real store beside the one of the trial: whatever one of them answers otherwise than the other is a
/// violation.
///
/// # Panics
/// When no runtime can be made.
#[must_use]
pub fn run_beside(plan: &Plan, catalogue: &Arc<Catalogue>, beside: Box<dyn Beside>) -> Report {
    run_on(plan, None, catalogue, Some(beside))
}

/// The same with a fault in the platform's own code, in a debug build.
///
/// # Panics
/// When no runtime can be made.
#[must_use]
pub fn run_planted(
    plan: &Plan,
    fault: Fault,
    catalogue: &Arc<Catalogue>,
    beside: Option<Box<dyn Beside>>,
) -> Report {
    let _planted = planted::plant(fault);
    run_on(plan, None, catalogue, beside)
}

fn run_on(
    plan: &Plan,
    mutation: Option<Mutation>,
    catalogue: &Arc<Catalogue>,
    beside: Option<Box<dyn Beside>>,
) -> Report {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .unwrap_or_else(|error| panic!("no runtime can be made: {error}"));
    let mut kept = None;
    let (judged, panics) = panics::overheard(|| {
        runtime.block_on(async {
            // A real store of one server knows of no others.
            let twin = beside.filter(|_| plan.servers == 1).map(Twin::new);
            let world = World::new(plan.clone(), mutation, catalogue.clone(), twin);
            kept = Some(world.clone());
            let _watch = hangs::watch(plan, world.clock.progress());
            let went_wrong = world.state().went_wrong.clone();
            let violations = tokio::select! {
                biased;
                // It ends there: what comes of it later shows nothing more.
                () = went_wrong.notified() => oracle::found_so_far(&world),
                () = play(&world) => {
                    world.state().disk.compare_all();
                    oracle::judge(&world)
                }
            };
            oracle::tell_lives(&world);
            violations
        })
    });
    let mut violations = judged.unwrap_or_default();
    violations.extend(panics);
    let (trace, commands, rare) = kept.map_or_else(Default::default, |world| {
        let commands = world.state().disk.records.len();
        let rare = world.state().all_rare();
        // Servers hold the world, and the world would hold them.
        drop(std::mem::take(&mut world.state().posts));
        (world.take_trace(), commands, rare)
    });
    // Tasks that are still there end with the runtime.
    violations.extend(panics::overheard(|| drop(runtime)).1);
    Report { violations, trace, commands, rare }
}

/// The store is well for so long, in milliseconds, before journals count as settled: some of their rounds.
const SETTLE_TIME: u64 = 4_000;

async fn play(world: &Arc<World>) {
    for dock in 0..world.plan.docks {
        tokio::spawn(dock::live(world.clone(), dock));
    }
    for server in 0..world.plan.servers {
        let stands = life::bring_up(world.clone(), server);
        match world.is_clock_off(server) {
            // Beside others it does not, until somebody sets its clock right.
            true => drop(tokio::spawn(stands)),
            false => stands.await,
        }
    }
    let mut wishes = Vec::new();
    for (number, happening) in world.plan.happenings.clone().into_iter().enumerate() {
        let wait = happening.at.saturating_sub(world.clock.elapsed());
        tokio::time::sleep(Duration::from_millis(wait)).await;
        world.give_way().await;
        if let What::Command(wish) = happening.what {
            wishes.push(tokio::spawn(caller::ask(world.clone(), number, wish)));
        } else {
            world.trace(|| format!("{:?}", happening.what));
            happen(world, happening.what);
        }
    }
    for wish in wishes {
        drop(wish.await);
    }
    // What stands in the journal of a server that may not start is put on record when it may.
    world.clock.set_right();
    let until = world.clock.elapsed() + world.plan.longest_wait() + PATIENCE;
    while world.clock.elapsed() < until && !has_settled(world) {
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
}

/// Every command has ended and nobody is looked after any more, and every emergency is on record.
fn has_settled(world: &World) -> bool {
    let state = world.state();
    // What cannot be put on record stays in a journal for good. How many those are says nothing of what is in one now, until
    // everything else had the time to be put on record.
    let damaged = state.disk.damaged();
    let now = world.clock.elapsed();
    if damaged > 0 && !state.was_well(Trouble::Store, now.saturating_sub(SETTLE_TIME), now) {
        return false;
    }
    let is_empty = |post: &Post| match &post.platform {
        Some(platform) => {
            let is_settled = |journal: &Arc<JournalledStore>| {
                journal.unsettled() <= damaged && journal.unsettled_nonces() == 0
            };
            platform.journal.as_ref().is_none_or(is_settled)
        }
        None => post.platter.is_empty(),
    };
    state.posts.iter().all(is_empty)
        && state
            .disk
            .records
            .values()
            .all(|record| record.is_damaged || !record.command.life.needs_care())
}

fn happen(world: &Arc<World>, what: What) {
    match what {
        What::Command(_) => {}
        What::DockLeaves { dock, wait } => {
            let until = world.clock.elapsed() + wait;
            if let Some(dock) = world.state().docks.get_mut(usize::from(dock)) {
                dock.away_until = until;
            }
            world.trouble(wait);
            world.cut(dock);
        }
        What::BrokerFalls { wait } => {
            world.let_broker_fall(wait);
            if world.plan.broker.is_outside() {
                tokio::spawn(broker_comes_back(world.clone(), wait));
            }
        }
        What::StoreFails { wait, lies, reads } => {
            world.let_store_fail(wait, lies, reads);
            if !reads {
                (0..world.plan.servers).for_each(|server| world.hears_again(server, wait));
            }
        }
        What::JournalFails { wait } => world.let_journal_fail(wait),
        What::JournalSlows { wait, by } => world.slow_journals_down(wait, by),
        What::JournalDamaged { server, at } => world.damage_journal(server, at),
        What::RowDamaged => world.damage_row(),
        What::StoreSlows { wait, by } => world.slow_store_down(wait, by),
        What::ServerCutOff { server, wait } => {
            world.cut_off(server, wait);
            world.hears_again(server, wait);
        }
        // With a broker of our own the docks' connections stand still as well, which nobody here would notice.
        What::ServerStandsStill { .. } if world.plan.broker == Broker::Embedded => {}
        What::ServerStandsStill { server, wait } => world.stand_still(server, wait),
        What::LinkCut { .. } if world.plan.broker == Broker::Embedded => {}
        What::LinkCut { server, wait } => {
            world.unlink(server, wait);
            tokio::spawn(link_comes_back(world.clone(), server, wait));
        }
        What::ServerDies { server, wait } => {
            world.trouble(wait);
            life::kill(world, server, false);
            tokio::spawn(server_comes_back(world.clone(), server, wait));
        }
        What::MachineRestarts { wait } => {
            world.trouble(wait);
            (0..world.plan.servers).for_each(|server| life::kill(world, server, true));
            world.cut_power();
            world.clock.reboot();
            for server in 0..world.plan.servers {
                tokio::spawn(server_comes_back(world.clone(), server, wait));
            }
        }
        What::ClockJumps { by } => {
            world.state().clock_is_set();
            world.clock.set_wall(by);
        }
    }
}

async fn server_comes_back(world: Arc<World>, server: u8, wait: u64) {
    let launches = || world.state().posts.get(usize::from(server)).map(|post| post.launches);
    let before = launches();
    tokio::time::sleep(Duration::from_millis(wait)).await;
    // Should it have died again meanwhile, that death brings it back.
    if launches() == before {
        life::bring_up(world, server).await;
    }
}

async fn link_comes_back(world: Arc<World>, server: u8, wait: u64) {
    tokio::time::sleep(Duration::from_millis(wait)).await;
    world.give_way().await;
    if world.is_linked(server) {
        world.tell_server(server, Inbound::LinkUp { protocol: world.plan.broker.protocol() });
    }
}

async fn broker_comes_back(world: Arc<World>, wait: u64) {
    tokio::time::sleep(Duration::from_millis(wait)).await;
    world.give_way().await;
    if world.state().broker_stands(world.clock.elapsed()) {
        for server in (0..world.plan.servers).filter(|server| world.is_linked(*server)) {
            world.tell_server(server, Inbound::LinkUp { protocol: world.plan.broker.protocol() });
        }
    }
}
