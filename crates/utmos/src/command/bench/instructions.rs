//! `utmos bench instructions`: how many instructions the server executes for a command, counted by valgrind. Unlike times
//! they hardly depend on what else the machine does, so that a growth of some per cent can be seen.

mod callgrind;

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, bail};
use serde::{Deserialize, Serialize};
use tokio::task::spawn_blocking;

use self::callgrind::{Counts, OfFunction};
use super::{
    Folder,
    child::{Place, Prepared},
    docks::Docks,
    load, parse_per_cent,
};
use crate::{exit::Exit, output};

/// Docks the commands go to.
const DOCKS: u32 = 20;
/// Commands before anything is counted.
const COMMANDS_BEFORE: u64 = 100;

/// Arguments.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Commands that are counted, one after another
    #[arg(long, value_name = "N", default_value_t = 400, value_parser = clap::value_parser!(u64).range(50..=100_000))]
    commands: u64,
    /// Compare with the figures in this file; fail when there are more by --growth-max
    #[arg(long, value_name = "FILE")]
    against: Option<PathBuf>,
    /// Most growth, in per cent
    #[arg(long, value_name = "PER CENT", default_value_t = 5.0, value_parser = parse_per_cent)]
    growth_max: f64,
    /// Write the figures to this file
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Name so many functions that execute the most instructions themselves, and so many that ask for memory most often
    #[arg(long, value_name = "N", default_value_t = 0)]
    functions: usize,
    /// Folder for the databases; what is made in it is removed
    #[arg(long, value_name = "DIR", default_value = ".")]
    data_dir: PathBuf,
}

/// What is kept in a file.
#[derive(Debug, Serialize, Deserialize)]
struct Counted {
    /// For each command, from its POST until its caller has seen its end.
    instructions_per_command: u64,
    /// Times memory was asked for meanwhile, for each command; unknown in files of earlier versions.
    #[serde(default)]
    allocations_per_command: Option<u64>,
    /// Commands that were counted.
    commands: u64,
    /// How the program was built: counts of different builds say nothing of each other.
    build: String,
    /// The processors it was built for.
    architecture: String,
}

impl Counted {
    fn new(counts: &Counts, commands: u64) -> Self {
        let build = if cfg!(debug_assertions) { "debug" } else { "release" };
        Self {
            instructions_per_command: counts.instructions / commands.max(1),
            allocations_per_command: Some(counts.allocations / commands.max(1)),
            commands,
            build: build.to_owned(),
            architecture: std::env::consts::ARCH.to_owned(),
        }
    }

    fn of(&self) -> String {
        format!("a {} build for {}", self.build, self.architecture)
    }

    /// By how much there are more instructions than before, and more allocations where these were counted, in per cent.
    fn growth(&self, before: &Self) -> (f64, Option<f64>) {
        let growth = |new: u64, old: u64| (new as f64 / old.max(1) as f64 - 1.0) * 100.0;
        let allocations = self.allocations_per_command.zip(before.allocations_per_command);
        (
            growth(self.instructions_per_command, before.instructions_per_command),
            allocations.map(|(new, old)| growth(new, old)),
        )
    }
}

/// Counts them.
pub async fn run(args: Args) -> anyhow::Result<Exit> {
    let before: Option<Counted> = args.against.as_deref().map(read).transpose()?;
    let own = Counted::new(&Counts::default(), 1).of();
    if let Some(other) = before.as_ref().map(Counted::of).filter(|other| *other != own) {
        bail!(
            "the figures to compare with are of {other}, and this is {own}; count them anew with --json"
        );
    }
    if cfg!(debug_assertions) {
        output::note("this is a debug build; only a release build is worth measuring");
    }
    let folder = Folder::make(&args.data_dir)?;
    let counts = count(folder.path(), args.commands).await?;
    let counted = Counted::new(&counts, args.commands);
    output::line(format_args!(
        "{} instructions and {} allocations for each command, from its POST until its end was seen ({} commands)",
        counted.instructions_per_command,
        counted.allocations_per_command.unwrap_or_default(),
        args.commands
    ));
    if args.functions > 0 {
        print_functions(&counts, &args);
    }
    if let Some(file) = &args.json {
        let text = format!("{}\n", serde_json::to_string_pretty(&counted)?);
        fs::write(file, text).with_context(|| format!("{} cannot be written", file.display()))?;
    }
    let Some(before) = before else { return Ok(Exit::Done) };
    let (growth, more_allocations) = counted.growth(&before);
    output::line(format_args!("{} before: {growth:+.1} %", before.instructions_per_command));
    if let Some((allocations, more)) = before.allocations_per_command.zip(more_allocations) {
        output::line(format_args!("{allocations} allocations before: {more:+.1} %"));
    }
    if growth.max(more_allocations.unwrap_or(growth)) > args.growth_max {
        output::note(format_args!("failed: more than {} % growth", args.growth_max));
        return Ok(Exit::Failure);
    }
    Ok(Exit::Done)
}

/// Who does the most, each as a share of all.
fn print_functions(counts: &Counts, args: &Args) {
    let most = |title: &str, all: u64, of: fn(&OfFunction) -> u64| {
        let functions = counts.functions.iter().map(|(name, function)| (of(function), name));
        let mut functions: Vec<_> = functions.collect();
        functions.sort_by(|one, other| other.cmp(one));
        let row = |(count, name): &(u64, &String)| {
            let each = *count as f64 / args.commands.max(1) as f64;
            let share = *count as f64 / all.max(1) as f64 * 100.0;
            [format!("{each:.1}"), format!("{share:.1} %"), (*name).clone()]
        };
        let rows: Vec<_> = functions.iter().take(args.functions).map(row).collect();
        output::line("");
        output::table([title, "SHARE", "FUNCTION"], &rows);
    };
    most("INSTRUCTIONS FOR A COMMAND", counts.instructions, |it| it.instructions);
    most("ALLOCATIONS FOR A COMMAND", counts.allocations, |it| it.allocations);
    output::line("");
}

fn read(file: &Path) -> anyhow::Result<Counted> {
    let text =
        fs::read_to_string(file).with_context(|| format!("{} cannot be read", file.display()))?;
    serde_json::from_str(&text).with_context(|| {
        format!("{} is not what utmos bench instructions --json writes", file.display())
    })
}

/// The instructions of a server while it serves so many commands.
async fn count(dir: &Path, commands: u64) -> anyhow::Result<Counts> {
    let counts = dir.join("callgrind.out");
    let mut place = Place::new(dir)?;
    place.run_under(vec![
        "valgrind".to_owned(),
        "--quiet".to_owned(),
        "--tool=callgrind".to_owned(),
        "--instr-atstart=no".to_owned(),
        format!("--callgrind-out-file={}", counts.display()),
    ]);
    let prepared = Prepared::new(&place, DOCKS).await?;
    let server = place.start().await.context("is valgrind installed?")?.server;
    let docks = Docks::start(place.mqtt, &prepared).await?;
    let site = load::Site::new(place.http, &prepared);
    let mut told = load::some(&site, COMMANDS_BEFORE).await?;
    switch("on", server.id()).await?;
    told.extend(load::some(&site, commands).await?);
    switch("off", server.id()).await?;
    let judged = docks.compare(&told);
    docks.stop().await;
    server.stop().await?;
    if judged.right < judged.all {
        let wrong = judged.all - judged.right;
        bail!("{wrong} of {} commands did not end as their dock did", judged.all);
    }
    let text = fs::read_to_string(&counts)
        .with_context(|| format!("valgrind left no {}", counts.display()))?;
    callgrind::read(&text).context("valgrind's file has no sum")
}

/// Lets valgrind count, or not.
async fn switch(how: &'static str, server: u32) -> anyhow::Result<()> {
    let control =
        move || Command::new("callgrind_control").args(["-i", how, &server.to_string()]).output();
    let told = spawn_blocking(control)
        .await?
        .context("callgrind_control, which comes with valgrind, cannot be started")?;
    if !told.status.success() {
        bail!("callgrind_control failed: {}", String::from_utf8_lossy(&told.stderr));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn growth_is_told_in_per_cent_and_builds_are_told_apart() {
        let counted = |instructions| Counted::new(&Counts { instructions, ..Counts::default() }, 1);
        let (before, now) = (counted(1_000_000), counted(1_050_000));
        assert!((now.growth(&before).0 - 5.0).abs() < 1e-9 && before.growth(&now).0 < 0.0);
        assert_eq!(before.of(), now.of());
        let elsewhere = Counted { architecture: "pdp11".to_owned(), ..counted(1) };
        assert_ne!(before.of(), elsewhere.of());
    }
}
