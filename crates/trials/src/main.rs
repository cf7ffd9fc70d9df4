//! `utmos-sim-test`: runs trials, as many as one likes, and shows those that fail.
#![expect(clippy::print_stdout, reason = "what it prints is what it is for")]

mod rates;

use std::{
    fs,
    hash::{DefaultHasher, Hash, Hasher},
    num::NonZero,
    path::PathBuf,
    process::ExitCode,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    thread,
    time::Duration,
};

use anyhow::Context;
use clap::{Parser, ValueEnum};
use utmos_dji::catalogue::Catalogue;
use utmos_trials::{
    Beside, Fault, Mutation, Plan, Rare, Report, SqliteBeside, VERSION, run, run_beside,
    run_planted, set_hang_patience, shrink_alike,
};

use self::rates::Wrong;

/// After so many seeds that fail, no more are run.
const FAILURES_SHOWN_MAX: u64 = 5;

/// Runs the platform under a virtual clock against a world in which everything goes wrong.
#[derive(Debug, Parser)]
#[command(name = "utmos-sim-test", version)]
struct Args {
    /// How many seeds.
    #[arg(long, default_value_t = 1_000)]
    seeds: u64,
    /// The first of them.
    #[arg(long, default_value_t = 1)]
    first: u64,
    /// Runs only this seed, and shows what happens. With the version of the plans before it (`4:8513`, as it is printed), it is refused by
    /// a program that would make another plan of it.
    #[arg(long, value_parser = seed, conflicts_with_all = ["seeds", "first", "plan"])]
    seed: Option<u64>,
    /// Shows the plan of this seed, to be kept in a file; runs nothing.
    #[arg(long, value_parser = seed, conflicts_with_all = ["seeds", "first", "plan", "seed"])]
    plan_of: Option<u64>,
    /// Runs only the plan in this file, and shows what happens.
    #[arg(long, conflicts_with_all = ["seeds", "first"])]
    plan: Option<PathBuf>,
    /// Beside the store of the trials runs SQLite on a file, which dies with the servers and must answer the same.
    #[arg(long, conflicts_with = "mutation")]
    sqlite: bool,
    /// Passes over plans in which a server has its store to itself.
    #[arg(long)]
    several: bool,
    /// Prints of each seed how it went, as a number: runs of one program agree, however many servers there are.
    #[arg(long, conflicts_with_all = ["seed", "plan", "plan_of"])]
    fingerprints: bool,
    /// Gives every server an emergency journal, also where several share a store.
    #[arg(long)]
    every_journal: bool,
    /// Makes this wrong in the platform, so that the trials have something to find.
    #[arg(long, value_enum)]
    mutation: Option<Mutation>,
    /// Plants this fault in the platform's own code, in a debug build.
    #[arg(long, value_parser = fault, conflicts_with = "mutation")]
    planted: Option<Fault>,
    /// Tells of every fault that is put in on purpose, or of the one that is named, which of the seeds is the first that finds it, and how
    /// many of a thousand do.
    #[arg(long, conflicts_with_all = ["seed", "plan", "plan_of", "sqlite", "fingerprints", "several"])]
    rates: bool,
    /// Takes a trial for one that hangs whose own time has stood still for so many seconds.
    #[arg(long, default_value_t = 120, value_parser = clap::value_parser!(u64).range(1..))]
    hangs_after: u64,
}

impl Args {
    /// What is said again to run one of these seeds, or a plan, in the same way. A plan says itself who has a journal.
    fn again(&self, is_plan: bool) -> String {
        let mutation = self.mutation.and_then(|mutation| mutation.to_possible_value());
        let named = |flag: &str, name: &str| format!(" {flag} {name}");
        [
            (self.every_journal && !is_plan).then(|| " --every-journal".to_owned()),
            self.sqlite.then(|| " --sqlite".to_owned()),
            mutation.map(|mutation| named("--mutation", mutation.get_name())),
            self.planted.map(|fault| named("--planted", fault.name())),
        ]
        .into_iter()
        .flatten()
        .collect()
    }
}

fn seed(text: &str) -> Result<u64, String> {
    let (version, number) = match text.split_once(':') {
        Some((version, number)) => (Some(version), number),
        None => (None, text),
    };
    if let Some(version) = version.filter(|version| *version != VERSION.to_string()) {
        return Err(format!(
            "it is of version {version} of the plans, and this program makes plans of version {VERSION}, in which that seed is \
             another trial; run it with the program that printed it"
        ));
    }
    number.parse().map_err(|_| {
        format!("{number:?} is no seed; give a number, or VERSION:NUMBER as it was printed")
    })
}

fn fault(text: &str) -> Result<Fault, String> {
    let found = Fault::ALL.into_iter().find(|fault| fault.name() == text);
    found.ok_or_else(|| {
        let names: Vec<_> = Fault::ALL.iter().map(|fault| fault.name()).collect();
        format!("there is no such fault; there are {}", names.join(", "))
    })
}

fn main() -> anyhow::Result<ExitCode> {
    let args = Args::parse();
    set_hang_patience(Duration::from_secs(args.hangs_after));
    if let Some(seed) = args.plan_of {
        println!("{}", drawn(seed, &args).write());
        return Ok(ExitCode::SUCCESS);
    }
    let catalogue = Arc::new(Catalogue::embedded()?);
    let only = match (&args.seed, &args.plan) {
        (Some(seed), _) => Some(drawn(*seed, &args)),
        (None, Some(path)) => Some(read(path)?),
        (None, None) => None,
    };
    if let Some(plan) = only {
        let report = try_it(&plan, &args, &catalogue);
        report.trace.iter().for_each(|line| println!("{line}"));
        println!("{}", report.rare);
        report.violations.iter().for_each(|line| println!("VIOLATED: {line}"));
        return Ok(if report.violations.is_empty() {
            ExitCode::SUCCESS
        } else {
            ExitCode::FAILURE
        });
    }
    let threads = thread::available_parallelism().map_or(1, NonZero::get);
    if args.rates {
        let named = args.mutation.map(Wrong::Mutation).or(args.planted.map(Wrong::Planted));
        println!("| What is made wrong | first seed | of 1,000 |\n|---|---|---|");
        for wrong in named.map_or_else(Wrong::all, |named| vec![named]) {
            let seeds = (args.first, args.seeds);
            println!("{}", wrong.row(seeds, threads, |seed| drawn(seed, &args), &catalogue));
        }
        return Ok(ExitCode::SUCCESS);
    }
    let last = args.first.saturating_add(args.seeds);
    let tally = Tally { next: AtomicU64::new(args.first), ..Tally::default() };
    thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| work_through(&tally, last, &args, &catalogue));
        }
    });
    let (seeds, failed) = (tally.seeds.into_inner(), tally.failed.into_inner());
    let rare = tally.rare.into_inner().unwrap_or_else(PoisonError::into_inner);
    println!("{rare}");
    println!("{seeds} seeds, {} commands, {failed} failed", tally.commands.into_inner());
    Ok(if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// What all threads have done together.
#[derive(Debug, Default)]
struct Tally {
    next: AtomicU64,
    seeds: AtomicU64,
    commands: AtomicUsize,
    failed: AtomicU64,
    rare: Mutex<Rare>,
}

fn drawn(seed: u64, args: &Args) -> Plan {
    let plan = Plan::of(seed);
    Plan { every_journal: args.every_journal || plan.every_journal, ..plan }
}

fn try_it(plan: &Plan, args: &Args, catalogue: &Arc<Catalogue>) -> Report {
    let run_it = |beside: Option<Box<dyn Beside>>| match (args.planted, beside) {
        (Some(fault), beside) => run_planted(plan, fault, catalogue, beside),
        (None, Some(beside)) => run_beside(plan, catalogue, beside),
        (None, None) => run(plan, args.mutation, catalogue),
    };
    if !args.sqlite {
        return run_it(None);
    }
    match SqliteBeside::new() {
        Ok(beside) => run_it(Some(Box::new(beside))),
        Err(error) => Report {
            violations: vec![format!("there is no folder for SQLite: {error}")],
            trace: Vec::new(),
            commands: 0,
            rare: Rare::default(),
        },
    }
}

fn work_through(tally: &Tally, last: u64, args: &Args, catalogue: &Arc<Catalogue>) {
    loop {
        let seed = tally.next.fetch_add(1, Ordering::Relaxed);
        if seed >= last || tally.failed.load(Ordering::Relaxed) >= FAILURES_SHOWN_MAX {
            return;
        }
        let plan = drawn(seed, args);
        if args.several && plan.servers == 1 {
            continue;
        }
        let report = try_it(&plan, args, catalogue);
        tally.seeds.fetch_add(1, Ordering::Relaxed);
        tally.commands.fetch_add(report.commands, Ordering::Relaxed);
        *tally.rare.lock().unwrap_or_else(PoisonError::into_inner) += report.rare;
        if args.fingerprints {
            println!("{VERSION}:{seed} {:016x}", fingerprint(&report));
        }
        if report.violations.is_empty() {
            continue;
        }
        tally.failed.fetch_add(1, Ordering::Relaxed);
        let small = shrink_alike(&plan, |plan| try_it(plan, args, catalogue).violations);
        let small = small.write();
        println!(
            "seed {seed} fails (run it with --seed {VERSION}:{seed}{}):\n  {}\n  smallest plan that fails so (save it and run it with --plan FILE{}):\n  {small}",
            args.again(false),
            report.violations.join("\n  "),
            args.again(true),
        );
    }
}

/// The same for the same trace, in every process.
fn fingerprint(report: &Report) -> u64 {
    let mut hasher = DefaultHasher::new();
    report.trace.hash(&mut hasher);
    report.violations.hash(&mut hasher);
    hasher.finish()
}

fn read(path: &PathBuf) -> anyhow::Result<Plan> {
    let text =
        fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    Plan::read(&text).with_context(|| format!("in {}", path.display()))
}
