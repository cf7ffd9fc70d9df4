//! One run of the server after another: how each begins, and how it dies.

use std::{sync::Arc, time::Duration};

use tokio_util::sync::CancellationToken;
use utmos_core::{
    ports::{Ids, Store, StoreError},
    replica::{InstanceId, ReplicaId},
};
use utmos_mqtt::Inbound;
use utmos_server::{
    directory::Directory,
    driver::{
        Driver, DriverParts, Limits,
        presence::{Knowledge, PresenceBook},
    },
    link::{Link, LinkParts},
    presence_topics::PresenceTopics,
    replicas::{Holdings, JoinError, Membership, MembershipParts, Missed},
};
use utmos_store::JournalledStore;
use uuid::Uuid;

use crate::{
    air::Air,
    journal::{self, TrialMedium},
    lines::TrialLines,
    mutation::Mutation,
    plan::{Broker, WINDOW_MS},
    still::Stillness,
    store::TrialStore,
    world::{State, World},
    wrong::{self, Wanted},
};

/// What supervises a server waits so long before it starts a new one.
const RESTART_WAIT: Duration = Duration::from_millis(100);
/// What supervises a server gives one that was refused for its clock so long.
const CLOCK_WAIT: Duration = Duration::from_secs(1);

/// Whether a run of the server still lives. What it had begun neither ends nor has an effect once it does not: a dead
/// process is one whose ports are dead.
#[derive(Debug, Clone)]
pub(crate) struct LifeLine {
    pub(crate) number: u64,
    pub(crate) server: u8,
    dead: CancellationToken,
    still: Arc<Stillness>,
}

impl LifeLine {
    pub(crate) fn new(number: u64, server: u8) -> Self {
        Self { number, server, dead: CancellationToken::new(), still: Arc::default() }
    }

    pub(crate) fn still(&self) -> &Stillness {
        &self.still
    }

    /// What it is called on timelines.
    pub(crate) fn name(&self) -> String {
        format!("life-{}", self.number)
    }

    pub(crate) fn is_dead(&self) -> bool {
        self.dead.is_cancelled()
    }

    /// Goes on at once, or when it stands still no more, or never.
    pub(crate) async fn or_never(&self) {
        self.still.is_over().await;
        if self.is_dead() {
            std::future::pending::<()>().await;
        }
    }

    /// What it answers, which leaves when it does not stand still.
    pub(crate) async fn says<T>(&self, answer: impl Future<Output = T>) -> T {
        let answer = answer.await;
        self.or_never().await;
        answer
    }

    pub(crate) async fn died(&self) {
        self.dead.cancelled().await;
    }
}

/// A running server, without its HTTP.
#[derive(Clone)]
pub(crate) struct Platform {
    pub(crate) line: LifeLine,
    pub(crate) driver: Driver,
    pub(crate) link: Arc<Link>,
    pub(crate) journal: Option<Arc<JournalledStore>>,
}

/// Starts a server, again and again until it stands.
pub(crate) async fn bring_up(world: Arc<World>, server: u8) {
    let Some(launch) = world.begin_launch(server) else { return };
    while let Some(line) = world.begin_life(server, launch) {
        let started = tokio::select! {
            biased;
            () = line.died() => return,
            started = start(&world, server, line.clone()) => started,
        };
        if let Ok(platform) = started {
            world.trace(|| format!("server {} stands", platform.line.number));
            let stands = platform.clone();
            let is_linked = {
                let mut state = world.state();
                if let Some(post) = state.posts.get_mut(usize::from(server)) {
                    post.platform = Some(platform);
                }
                world.plan.broker.is_outside() && state.is_linked(server, world.clock.elapsed())
            };
            if is_linked {
                world.tell(&stands, Inbound::LinkUp { protocol: world.plan.broker.protocol() });
            }
            return;
        }
        // What it had begun ends with it.
        line.dead.cancel();
        tokio::time::sleep(RESTART_WAIT).await;
    }
}

async fn start(world: &Arc<World>, server: u8, line: LifeLine) -> Result<Platform, StoreError> {
    let trial = Arc::new(TrialStore::open(world.clone(), line.clone()));
    let bare: Arc<dyn Store> = trial.clone();
    let journal = match world.mutation {
        Some(Mutation::NoJournal) => None,
        _ if !world.has_journals() => None,
        Some(_) | None => Some(open_journal(world, server, &line, bare.clone())?),
    };
    let store: Arc<dyn Store> = match journal.clone() {
        Some(journal) => journal,
        None => bare.clone(),
    };
    let store: Arc<dyn Store> =
        Arc::new(Wanted { world: world.clone(), line: line.clone(), store, bare });
    let directory = Arc::new(Directory::load(store.clone()).await?);
    let outlet = Arc::new(Air::new(world.clone(), line.clone()));
    let clock = world.clock_of(&line);
    let knowledge = match world.plan.broker {
        Broker::Embedded => Knowledge::OwnBroker,
        Broker::Outside | Broker::Outside311 => {
            Knowledge::Heard { window: Duration::from_millis(WINDOW_MS) }
        }
    };
    let id = ReplicaId(world.ids.random());
    let is_shared = world.plan.servers > 1;
    let lines = TrialLines::new(world.clone(), line.clone(), id);
    let holdings = match is_shared {
        true => Holdings::shared(clock.clone(), trial.clone(), lines.clone(), id),
        false => Holdings::alone(clock.clone()),
    };
    let missed = Missed::new(clock.clone());
    let driver = Driver::start(DriverParts {
        store: store.clone(),
        clock: clock.clone(),
        ids: world.ids.clone(),
        outlet: outlet.clone(),
        catalogue: world.catalogue.clone(),
        directory: directory.clone(),
        replica: line.name(),
        holdings: holdings.clone(),
        presence: PresenceBook::new(knowledge),
        limits: Limits::default(),
    });
    driver.listens();
    let mut membership = None;
    if is_shared {
        let joining = Membership::join(MembershipParts {
            store: trial,
            lines,
            holdings: holdings.clone(),
            missed: missed.clone(),
            driver: driver.clone(),
            clock: clock.clone(),
            id,
            instance: InstanceId(Uuid::from_u128(u128::from(server))),
            name: line.name(),
            alone: false,
            client_id: None,
            is_linked: {
                let world = world.clone();
                Arc::new(move || world.is_linked(server))
            },
        });
        let joined = match joining.await {
            Ok(joined) => joined,
            Err(error) => {
                driver.stop(Duration::ZERO).await;
                if matches!(error, JoinError::ClockOff(_)) {
                    world.state().rare.refused_for_clock += 1;
                    tokio::time::sleep(CLOCK_WAIT).await;
                }
                return Err(StoreError::Unavailable(error.to_string()));
            }
        };
        let (beating, line) = (joined.clone().beat(), line.clone());
        tokio::spawn(async move {
            tokio::select! {
                biased;
                () = line.died() => {}
                () = beating => {}
            }
        });
        membership = Some(joined);
    }
    if let Some(journal) = &journal {
        settle(journal.clone(), line.clone()).await?;
    }
    let found = driver.resume().await?;
    if let Some(membership) = membership {
        membership.has_resumed();
        tokio::spawn(membership.clone().run(line.dead.clone()));
        // It stands in a moment, and in no time.
        membership.listens();
    }
    world.found(found.open, found.unclear);
    let link = Link::new(LinkParts {
        outside: None,
        driver: driver.clone(),
        directory,
        catalogue: world.catalogue.clone(),
        outlet,
        store,
        clock: clock.clone(),
        ids: world.ids.clone(),
        missed: match world.mutation {
            // Kept where nobody looks.
            Some(Mutation::MissedForgotten) => Missed::new(clock.clone()),
            Some(_) | None => missed,
        },
        holdings,
        presence_topics: PresenceTopics::default(),
        // Docks of a trial ask for nothing.
        listeners: Vec::new(),
    });
    Ok(Platform { line, driver, link, journal })
}

/// The journal as the program opens it.
fn open_journal(
    world: &Arc<World>,
    server: u8,
    line: &LifeLine,
    bare: Arc<dyn Store>,
) -> Result<Arc<JournalledStore>, StoreError> {
    let medium = TrialMedium::open(world.clone(), server, line);
    let (journal, writer) = JournalledStore::on(bare, &journal::key(), Box::new(medium))
        .map_err(|error| StoreError::Unavailable(error.to_string()))?;
    tokio::spawn(journal::keep_writing(world.clone(), server, line.clone(), writer));
    let is_shared =
        world.plan.servers > 1 && world.mutation != Some(Mutation::JournalClaimsUnfenced);
    Ok(Arc::new(if is_shared { journal.shared() } else { journal }))
}

/// What is in the journal is on record before anything else happens, by a server that is a member where there are others.
async fn settle(journal: Arc<JournalledStore>, line: LifeLine) -> Result<(), StoreError> {
    wrong::settling(journal.settle()).await?;
    tokio::spawn(async move {
        tokio::select! {
            biased;
            () = line.died() => {}
            () = wrong::settling(journal.keep_settling()) => {}
        }
    });
    Ok(())
}

/// `kill -9`, or with `power_too` the end of the machine.
pub(crate) fn kill(world: &Arc<World>, server: u8, power_too: bool) {
    let (line, platform) = {
        let mut state = world.state();
        state.disk.server_died(power_too);
        let State { posts, rare, .. } = &mut *state;
        let Some(post) = posts.get_mut(usize::from(server)) else { return };
        rare.nonces_left += post.platter.nonces();
        post.launches += 1;
        (post.line.take(), post.platform.take())
    };
    let Some(line) = line else { return };
    world.trace(|| format!("server {} dies", line.number));
    line.dead.cancel();
    let now = world.clock.elapsed();
    world.state().deaths.insert(line.number, now);
    if let Some(platform) = platform {
        // Only ends the loops of what is dead already.
        tokio::spawn(async move { platform.driver.stop(Duration::ZERO).await });
    }
    if world.plan.broker == Broker::Embedded {
        world.cut_all();
    }
}
