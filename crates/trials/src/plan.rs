//! What is to happen in a trial: drawn from a seed, or read from a file. The same plan always goes the same way.

mod file;
mod place;

use rand::{RngExt, SeedableRng, rngs::StdRng};
use serde::{Deserialize, Serialize};
use utmos_mqtt::Protocol;

pub use self::file::PlanError;

/// Rises when plans of before would mean something else, or seeds would draw others.
pub const VERSION: u32 = 7;
/// Farthest that the clock of a server is drawn from that of the store where it may work beside others, in milliseconds.
pub(crate) const CLOCK_APART_MS: i64 = 1_900;

/// How long a dock counts as there at a broker of others after it was heard, in milliseconds.
pub(crate) const WINDOW_MS: u64 = 6_000;
/// When a plan begins that gives everybody the time to come, in milliseconds.
const SETTLED_AT: u64 = 9_500;

/// A trial, whole.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Plan {
    /// Which [`VERSION`] wrote it.
    pub version: u32,
    /// Decides everything that the plan does not name: delays, where a message is lost, and who of those that are ready goes on first.
    pub seed: u64,
    /// How many docks there are.
    pub docks: u8,
    /// Whose broker it is.
    pub broker: Broker,
    /// How many servers share the store. Several only at another's broker: each has its own otherwise.
    pub servers: u8,
    /// How much room the emergency journal of each server has, in KiB.
    pub journal_kib: u16,
    /// Every server has an emergency journal; else only one that is alone.
    pub every_journal: bool,
    /// How the messages of docks fare.
    pub weather: Weather,
    /// On their way from a broker of others commands come twice, and overtake each other; else each comes once at most, in
    /// the order of its connection.
    #[serde(default, skip_serializing_if = "is_false")]
    pub commands_stray: bool,
    /// By how many milliseconds the wall clock of each server is ahead of that of the store: each stands on a machine of its own then.
    /// Where nothing is said, all of them stand on one, whose clock the store has too.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub clocks_apart: Vec<i64>,
    /// How what servers tell each other fares.
    #[serde(default, skip_serializing_if = "Tidings::is_none")]
    pub tidings: Tidings,
    /// Whether servers ask each other past the store, and how that fares.
    #[serde(default, skip_serializing_if = "Lines::is_none")]
    pub lines: Lines,
    /// What happens.
    pub happenings: Vec<Happening>,
}

/// How what servers tell each other past the tables fares. It is a hint: whatever becomes of it, each looks by itself as well.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Tidings {
    /// Nothing is ever told.
    #[default]
    None,
    /// It comes within some milliseconds.
    Prompt,
    /// It is late, overtakes other news, comes twice, or does not come.
    Stray,
}

impl Tidings {
    fn is_none(&self) -> bool {
        *self == Self::None
    }
}

/// How the lines between servers fare.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Lines {
    /// There are none.
    #[default]
    None,
    /// Each is up as long as both servers are.
    Up,
    /// They break while something is asked.
    Breaking,
}

impl Lines {
    fn is_none(&self) -> bool {
        *self == Self::None
    }
}

fn is_false(value: &bool) -> bool {
    !value
}

/// Whose broker stands between server and docks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Broker {
    /// Our own: it dies with the server and knows who is connected.
    Embedded,
    /// Another's: it lives on, and only messages tell who is there.
    Outside,
    /// The same that speaks only MQTT 3.1.1: what is published to an absent dock it confirms all the same, into the void.
    #[serde(rename = "outside_3.1.1")]
    Outside311,
}

impl Broker {
    pub(crate) fn is_outside(self) -> bool {
        match self {
            Self::Embedded => false,
            Self::Outside | Self::Outside311 => true,
        }
    }

    /// What an outside one speaks.
    pub(crate) fn protocol(self) -> Protocol {
        match self {
            Self::Embedded | Self::Outside => Protocol::V5,
            Self::Outside311 => Protocol::V311,
        }
    }
}

/// How messages of docks fare on their way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Weather {
    /// They come at once, once, and in their order.
    Clear,
    /// They are late, overtake each other, come twice, or do not come.
    Rough,
}

/// Something that happens at a time.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Happening {
    /// Milliseconds after the beginning.
    pub at: u64,
    /// What.
    pub what: What,
}

/// What can happen.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum What {
    /// A caller wants something of a dock.
    Command(Wish),
    /// A dock loses its connection.
    DockLeaves {
        /// Which.
        dock: u8,
        /// For how many milliseconds.
        wait: u64,
    },
    /// The broker goes down, where it is another's; else all docks are cut.
    BrokerFalls {
        /// For how many milliseconds.
        wait: u64,
    },
    /// The store refuses, or says so although it has written.
    StoreFails {
        /// For how many milliseconds.
        wait: u64,
        /// Of a hundred failures, how many have written all the same.
        lies: u8,
        /// It can be read meanwhile.
        reads: bool,
    },
    /// The emergency journals refuse what they are to write.
    JournalFails {
        /// For how many milliseconds.
        wait: u64,
    },
    /// Every record of the emergency journals takes so much longer.
    JournalSlows {
        /// For how many milliseconds.
        wait: u64,
        /// By how many.
        by: u64,
    },
    /// A byte of what stands in the emergency journal of a server is another one from now on.
    JournalDamaged {
        /// Which server's.
        server: u8,
        /// Where, in hundredths of what is written there.
        at: u8,
    },
    /// What the store holds of its newest emergency that has not ended can be neither read nor changed any more.
    RowDamaged,
    /// Every write takes so much longer, and so does reading all that is open.
    StoreSlows {
        /// For how many milliseconds.
        wait: u64,
        /// By how many.
        by: u64,
    },
    /// A server dies as of `kill -9`.
    ServerDies {
        /// Which.
        server: u8,
        /// For how many milliseconds.
        wait: u64,
    },
    /// A server does not reach the store any more, and all others do.
    ServerCutOff {
        /// Which.
        server: u8,
        /// For how many milliseconds.
        wait: u64,
    },
    /// A server stands still, at another's broker, and goes on.
    ServerStandsStill {
        /// Which.
        server: u8,
        /// For how many milliseconds.
        wait: u64,
    },
    /// A server does not reach the broker any more, where that is another's, and all others do.
    LinkCut {
        /// Which.
        server: u8,
        /// For how many milliseconds.
        wait: u64,
    },
    /// The machine restarts: its running time begins anew.
    MachineRestarts {
        /// For how many milliseconds.
        wait: u64,
    },
    /// Somebody sets the clock.
    ClockJumps {
        /// By so many milliseconds, either way.
        by: i64,
    },
}

/// A command, and what its dock will make of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Wish {
    /// Which dock.
    pub dock: u8,
    /// Whose aircraft it concerns: mostly the dock's own, now and then one that another has carried.
    pub aircraft: u8,
    /// What is asked for.
    pub kind: Kind,
    /// How long the caller gives it, in seconds.
    pub timeout: u8,
    /// It may wait for an absent dock.
    pub waits: bool,
    /// How many callers ask for the same under one key.
    pub copies: u8,
    /// How they do. All at once, each with a nonce of its own, where nothing is said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub copying: Option<Copying>,
    /// Asks again with the nonce of before.
    pub replays_nonce: bool,
    /// Wants it gone so many milliseconds after its acceptance.
    pub cancelled_after: Option<u64>,
    /// Asks once more under its key so many milliseconds after it was told.
    pub asks_later: Option<u64>,
    /// What the dock does.
    pub answer: Answer,
    /// How long the dock takes, in milliseconds.
    pub after: u64,
}

/// How several callers ask for the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Copying {
    /// So many milliseconds after each other.
    pub every: u64,
    /// What they have in common.
    pub same: Same,
}

/// What copies have in common.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Same {
    /// The key and the body; each is signed anew.
    Body,
    /// The key; every second one has another body.
    Key,
    /// The whole request, to the letter.
    Request,
}

impl Wish {
    pub(crate) fn is_urgent(&self) -> bool {
        matches!(self.kind, Kind::Home | Kind::Stop)
    }
}

/// What is asked for; each stands for a way in which commands complete.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// `debug_mode_open`: ends with its reply.
    Reply,
    /// `cover_open`: a job of the dock.
    Job,
    /// `fly_to_point`: a movement, one at a time.
    Flight,
    /// `return_home`: an emergency that is a movement.
    Home,
    /// `fly_to_point_stop`: an emergency.
    Stop,
    /// `stick_control`: nothing ever answers.
    Stick,
}

/// What a dock makes of a command.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Answer {
    /// Does it and says so; a job reports on its way.
    Does,
    /// Does it and says so twice.
    SaysTwice,
    /// Says so before it has acknowledged the message.
    SaysAtOnce,
    /// Refuses.
    Refuses,
    /// Does it and says nothing.
    IsSilent,
    /// Drops it and says nothing.
    Ignores,
    /// Drops it; another dock says that it has done it.
    AnotherAnswers,
    /// Drops it and says that something else is done.
    NamesAnother,
    /// Does it and answers with no result.
    SaysNothingReadable,
    /// Answers with what is no JSON.
    Babbles,
    /// Begins a job that then fails.
    FailsLater,
    /// Begins a job and falls silent.
    FallsSilent,
    /// Does it, and talks of it without end before it says so.
    Chatters,
}

impl Plan {
    /// Draws a plan.
    #[must_use]
    pub fn of(seed: u64) -> Self {
        let mut dice = StdRng::seed_from_u64(seed);
        let docks = dice.random_range(1..=3);
        let broker = if dice.random_bool(0.7) { Broker::Embedded } else { Broker::Outside };
        let is_shared = broker.is_outside() && dice.random_bool(0.4);
        // With dice of its own, so that what was drawn before there was such a broker is drawn still.
        let mut more = StdRng::seed_from_u64(!seed);
        let is_older = more.random_bool(0.3);
        let broker = if broker.is_outside() && is_older { Broker::Outside311 } else { broker };
        // It takes some seconds until everybody there has heard of everybody, and must send.
        let begins = if broker.is_outside() && more.random_bool(0.4) { SETTLED_AT } else { 0 };
        let servers = if is_shared { dice.random_range(2..=3) } else { 1 };
        let journal_kib = if dice.random_bool(0.3) { dice.random_range(12..64) } else { 256 };
        let weather = if dice.random_bool(0.7) { Weather::Clear } else { Weather::Rough };
        let end = dice.random_range(2_000..20_000);
        let commands = dice.random_range(1..=8);
        let troubles = dice.random_range(0..=5);
        let mut happenings: Vec<_> = (0..commands)
            .map(|_| Happening { at: dice.random_range(0..end), what: command(&mut dice, docks) })
            .chain(std::iter::empty())
            .collect();
        // Many at one moment, where order matters most.
        if dice.random_bool(0.3) {
            let at = dice.random_range(0..end);
            happenings.iter_mut().for_each(|one| one.at = at + one.at % 50);
        }
        for _ in 0..troubles {
            let near =
                happenings.get(dice.random_range(0..happenings.len())).map_or(0, |one| one.at);
            let at = match dice.random_bool(0.6) {
                // Most trouble comes just when something is under way.
                true => near + dice.random_range(0..60),
                false => dice.random_range(0..end),
            };
            happenings.push(Happening { at, what: trouble(&mut dice, docks, servers) });
        }
        // What emergencies have a journal for is too rare by chance.
        if dice.random_bool(0.25) {
            let at = dice.random_range(0..end);
            happenings.extend(unwell(&mut dice, at, docks, servers));
        }
        // What may be in doubt is too rare as well.
        if dice.random_bool(0.2) {
            let at = dice.random_range(0..end);
            happenings.extend(flickers(&mut dice, at, docks, servers));
        }
        happenings.iter_mut().for_each(|one| one.at += begins);
        let every_journal = is_shared && more.random_bool(0.6);
        // A connection to our own broker neither doubles nor reorders. A broker of others may.
        let commands_stray =
            broker.is_outside() && weather == Weather::Rough && more.random_bool(0.6);
        let clocks_apart = if is_shared { clocks_apart(&mut more, servers) } else { Vec::new() };
        // What is asked for once a dock's window is over is too rare by chance.
        if broker.is_outside() && more.random_bool(0.35) {
            let at = begins + more.random_range(1_000..end);
            happenings.extend(long_gone(&mut more, at, docks));
        }
        // Just when something is asked for, and mostly for longer than others wait for a sign of life.
        if broker.is_outside() && more.random_bool(if is_shared { 0.35 } else { 0.1 }) {
            let near =
                happenings.get(more.random_range(0..happenings.len())).map_or(0, |one| one.at);
            let wait = match more.random_range(0..4) {
                0 => more.random_range(50..2_500),
                _ => more.random_range(2_500..9_000),
            };
            let what = What::ServerStandsStill { server: more.random_range(0..servers), wait };
            happenings.push(Happening { at: near + more.random_range(0..30), what });
        }
        let tidings = match is_shared.then(|| more.random_range(0..10)) {
            Some(0..=4) => Tidings::Prompt,
            Some(5..=7) => Tidings::Stray,
            Some(_) | None => Tidings::None,
        };
        let lines = match is_shared.then(|| more.random_range(0..10)) {
            Some(0..=4) => Lines::Breaking,
            Some(5..=6) => Lines::Up,
            Some(_) | None => Lines::None,
        };
        happenings.sort_by_key(|one| one.at);
        Self {
            version: VERSION,
            seed,
            docks,
            broker,
            servers,
            journal_kib,
            every_journal,
            weather,
            commands_stray,
            clocks_apart,
            tidings,
            lines,
            happenings,
        }
    }
}

impl Plan {
    /// The longest that anything in it may take once everything has happened, in milliseconds: a trouble lasts, and a
    /// command that was asked for then has its time.
    pub(crate) fn longest_wait(&self) -> u64 {
        let wait = |happening: &Happening| match &happening.what {
            What::DockLeaves { wait, .. }
            | What::BrokerFalls { wait }
            | What::StoreFails { wait, .. }
            | What::JournalFails { wait }
            | What::ServerDies { wait, .. }
            | What::ServerCutOff { wait, .. }
            | What::ServerStandsStill { wait, .. }
            | What::LinkCut { wait, .. }
            | What::MachineRestarts { wait } => *wait,
            What::JournalSlows { wait, by } | What::StoreSlows { wait, by } => wait + by,
            What::Command(_)
            | What::JournalDamaged { .. }
            | What::RowDamaged
            | What::ClockJumps { .. } => 0,
        };
        let timeout = |happening: &Happening| match &happening.what {
            What::Command(wish) => u64::from(wish.timeout) * 1_000,
            What::DockLeaves { .. }
            | What::BrokerFalls { .. }
            | What::StoreFails { .. }
            | What::StoreSlows { .. }
            | What::JournalFails { .. }
            | What::JournalSlows { .. }
            | What::JournalDamaged { .. }
            | What::RowDamaged
            | What::ServerDies { .. }
            | What::ServerCutOff { .. }
            | What::ServerStandsStill { .. }
            | What::LinkCut { .. }
            | What::MachineRestarts { .. }
            | What::ClockJumps { .. } => 0,
        };
        let longest = |of: &dyn Fn(&Happening) -> u64| self.happenings.iter().map(of).max();
        longest(&wait).unwrap_or(0) + longest(&timeout).unwrap_or(0)
    }
}

/// In every second plan of several servers their clocks are apart, in every fifth of these one is too far off to work beside others.
fn clocks_apart(dice: &mut StdRng, servers: u8) -> Vec<i64> {
    if dice.random_bool(0.5) {
        return Vec::new();
    }
    let mut apart: Vec<i64> =
        (0..servers).map(|_| dice.random_range(-CLOCK_APART_MS..=CLOCK_APART_MS)).collect();
    if dice.random_bool(0.2) {
        let off = dice.random_range(2_200..60_000);
        let which = dice.random_range(0..apart.len());
        apart[which] = if dice.random_bool(0.5) { off } else { -off };
    }
    apart
}

/// A dock is gone for longer than it counts as there at a broker of others, and somebody wants something of it then.
fn long_gone(dice: &mut StdRng, at: u64, docks: u8) -> Vec<Happening> {
    let dock = dice.random_range(0..docks);
    let wait = WINDOW_MS + dice.random_range(1_500..6_000);
    let mut all = vec![Happening { at, what: What::DockLeaves { dock, wait } }];
    for _ in 0..dice.random_range(1..=3) {
        let What::Command(wish) = command(dice, docks) else { continue };
        let at = at + dice.random_range(WINDOW_MS..wait);
        all.push(Happening { at, what: What::Command(Wish { dock, aircraft: dock, ..wish }) });
    }
    all
}

/// Emergencies while the store is unwell, and perhaps somebody dies with them.
fn unwell(dice: &mut StdRng, at: u64, docks: u8, servers: u8) -> Vec<Happening> {
    let wait = dice.random_range(500..6_000);
    let what = match dice.random_range(0..3) {
        0 => What::StoreSlows { wait, by: dice.random_range(200..5_000) },
        _ => store_fails(dice, wait),
    };
    let mut all = vec![Happening { at, what }];
    for _ in 0..dice.random_range(1..=3) {
        let at = at + dice.random_range(0..wait);
        let kind = if dice.random_bool(0.5) { Kind::Home } else { Kind::Stop };
        let What::Command(wish) = command(dice, docks) else { continue };
        all.push(Happening { at, what: What::Command(Wish { kind, ..wish }) });
        let later = dice.random_range(0..600);
        let wait = dice.random_range(1..3_000);
        let server = dice.random_range(0..servers);
        let mut happens = |at, what| all.push(Happening { at, what });
        match dice.random_range(0..14) {
            0 | 1 => happens(at + later, What::ServerDies { server, wait }),
            2 | 3 => happens(at + later, What::MachineRestarts { wait }),
            4 => happens(at - at.min(later), What::JournalFails { wait }),
            5 => {
                let by = dice.random_range(5..3_000);
                happens(at - at.min(later), What::JournalSlows { wait, by });
            }
            6 | 7 => {
                let damaged = What::JournalDamaged { server, at: dice.random_range(0..=100) };
                happens(at + later, damaged);
                if dice.random_bool(0.8) {
                    happens(at + later + 1, What::ServerDies { server, wait });
                }
            }
            8 => happens(at - at.min(later / 2), What::RowDamaged),
            _ => {}
        }
    }
    all
}

/// Copies of a request, one after another, while the store is well and unwell by turns and mostly writes what it refuses.
fn flickers(dice: &mut StdRng, at: u64, docks: u8, servers: u8) -> Vec<Happening> {
    let mut all = Vec::new();
    for _ in 0..dice.random_range(2..=6) {
        let wait = dice.random_range(5..700);
        let what = match dice.random_range(0..4) {
            0 => What::StoreSlows { wait, by: dice.random_range(50..1_200) },
            1 => What::StoreFails { wait, lies: 100, reads: dice.random_bool(0.5) },
            _ => What::StoreFails {
                wait,
                lies: dice.random_range(40..=100),
                reads: dice.random_bool(0.5),
            },
        };
        all.push(Happening { at: at + dice.random_range(0..2_000), what });
    }
    for _ in 0..dice.random_range(1..=2) {
        let What::Command(wish) = command(dice, docks) else { continue };
        let kind = match dice.random_range(0..5) {
            0 => Kind::Home,
            1 => Kind::Stop,
            _ => wish.kind,
        };
        let same = match dice.random_range(0..4) {
            0 => Same::Key,
            1 => Same::Request,
            _ => Same::Body,
        };
        let copying = Some(Copying { every: dice.random_range(0..400), same });
        let asks_later = dice.random_bool(0.4).then(|| dice.random_range(0..6_000));
        let copies = dice.random_range(2..=5);
        let what = What::Command(Wish { kind, copies, copying, asks_later, ..wish });
        all.push(Happening { at: at + dice.random_range(0..2_000), what });
    }
    let also = match dice.random_range(0..10) {
        0 | 1 => Some(What::ServerDies { server: dice.random_range(0..servers), wait: 100 }),
        2 => Some(What::ClockJumps { by: 60_000 }),
        3..=5 => Some(What::JournalFails { wait: 1_500 }),
        6 => Some(What::JournalSlows { wait: 1_500, by: 900 }),
        _ => None,
    };
    let later = at + dice.random_range(0..3_000);
    all.extend(also.map(|what| Happening { at: later, what }));
    all
}

fn store_fails(dice: &mut StdRng, wait: u64) -> What {
    What::StoreFails { wait, lies: dice.random_range(0..=50), reads: dice.random_bool(0.5) }
}

fn command(dice: &mut StdRng, docks: u8) -> What {
    let kind = match dice.random_range(0..10) {
        0..=2 => Kind::Reply,
        3..=4 => Kind::Job,
        5..=6 => Kind::Flight,
        7 => Kind::Home,
        8 => Kind::Stop,
        _ => Kind::Stick,
    };
    let answer = match dice.random_range(0..24) {
        0..=8 => Answer::Does,
        9 | 10 => Answer::SaysTwice,
        11 | 12 => Answer::SaysAtOnce,
        13 | 14 => Answer::Refuses,
        15 => Answer::IsSilent,
        16 => Answer::Ignores,
        17 => Answer::AnotherAnswers,
        18 => Answer::NamesAnother,
        19 => Answer::SaysNothingReadable,
        20 => Answer::Babbles,
        21 => Answer::FailsLater,
        22 => Answer::Chatters,
        _ => Answer::FallsSilent,
    };
    let after = match dice.random_range(0..4) {
        0 => dice.random_range(0..5),
        1 | 2 => dice.random_range(0..300),
        _ => dice.random_range(0..6_000),
    };
    let dock = dice.random_range(0..docks);
    let aircraft = if dice.random_bool(0.15) { dice.random_range(0..docks) } else { dock };
    What::Command(Wish {
        dock,
        aircraft,
        kind,
        timeout: dice.random_range(1..=8),
        waits: dice.random_bool(0.5),
        copies: if dice.random_bool(0.15) { dice.random_range(2..=4) } else { 1 },
        copying: None,
        replays_nonce: dice.random_bool(0.15),
        cancelled_after: dice.random_bool(0.1).then(|| dice.random_range(0..500)),
        asks_later: dice.random_bool(0.15).then(|| dice.random_range(0..4_000)),
        answer,
        after,
    })
}

fn trouble(dice: &mut StdRng, docks: u8, servers: u8) -> What {
    let wait = match dice.random_range(0..3) {
        0 => dice.random_range(1..50),
        1 => dice.random_range(50..1_000),
        _ => dice.random_range(1_000..9_000),
    };
    if servers > 1 && dice.random_bool(0.15) {
        return What::LinkCut { server: dice.random_range(0..servers), wait };
    }
    if servers > 1 && dice.random_bool(0.3) {
        return What::ServerCutOff { server: dice.random_range(0..servers), wait };
    }
    match dice.random_range(0..16) {
        0..=3 => What::DockLeaves { dock: dice.random_range(0..docks), wait },
        4 | 5 => What::BrokerFalls { wait },
        6 | 7 => store_fails(dice, wait),
        8 => What::StoreSlows { wait, by: dice.random_range(5..800) },
        9..=12 => What::ServerDies { server: dice.random_range(0..servers), wait },
        13 => What::MachineRestarts { wait },
        _ => What::ClockJumps { by: dice.random_range(-100_000..100_000) },
    }
}
