//! `utmos bench capacity`: what a fleet needs, worked out from what the bench measures of one command, one message and one
//! dock, and where the first limit is (docs/scale.md).

mod costs;
mod model;

use std::path::PathBuf;

use serde_json::json;

use self::{
    costs::Costs,
    model::{Answer, Fleet, Group, Machine},
};
use super::{engine::Choice, report::short};
use crate::{exit::Exit, output};

/// Arguments.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// How many docks, each with an aircraft
    #[arg(long, value_name = "N", default_value_t = 10_000, value_parser = clap::value_parser!(u64).range(1..=100_000_000))]
    docks: u64,
    /// Messages of a dock and its aircraft together, a second: two that tell something every two seconds are one
    #[arg(long, value_name = "N", default_value_t = 1.0, value_parser = a_number)]
    messages: f64,
    /// Commands to a dock, a day
    #[arg(long, value_name = "N", default_value_t = 100.0, value_parser = a_number)]
    commands: f64,
    /// How many times the day's mean comes in its busiest minute
    #[arg(long, value_name = "N", default_value_t = 10.0, value_parser = a_number)]
    peak: f64,
    /// Days for which all that docks tell is kept as it came
    #[arg(long, value_name = "N", default_value_t = 1.0, value_parser = a_number)]
    days: f64,
    /// Processors of each machine
    #[arg(long, value_name = "N", default_value_t = 8.0, value_parser = a_number)]
    processors: f64,
    /// Threads with which an outside broker passes messages on: Mosquitto has one
    #[arg(long, value_name = "N", default_value_t = 1.0, value_parser = a_number)]
    broker_threads: f64,
    /// Memory of each machine, in GB
    #[arg(long, value_name = "N", default_value_t = 32.0, value_parser = a_number)]
    memory: f64,
    /// Disk of each machine, in GB
    #[arg(long, value_name = "N", default_value_t = 1_000.0, value_parser = a_number)]
    disk: f64,
    /// Work with figures of a machine of yours, as `utmos bench --json` and `utmos bench growth --json` write them; can be
    /// repeated. What they lack is as in docs/scale.md
    #[arg(long, value_name = "FILE")]
    figures: Vec<PathBuf>,
    /// As JSON
    #[arg(long)]
    json: bool,
}

fn a_number(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(number) if (0.0..=1e9).contains(&number) => Ok(number),
        Ok(_) | Err(_) => Err("must be a number from 0 to 1000000000".to_owned()),
    }
}

/// Runs it.
pub fn run(args: &Args) -> anyhow::Result<Exit> {
    let mut costs = Costs::measured_before();
    for file in &args.figures {
        costs.take_from(file)?;
    }
    let fleet = Fleet {
        docks: args.docks,
        messages_per_second: args.messages,
        commands_per_day: args.commands,
        peak: args.peak,
        days_kept: args.days,
    };
    let machine = Machine {
        processors: args.processors,
        broker_threads: args.broker_threads,
        memory_gb: args.memory,
        disk_gb: args.disk,
    };
    let engines = Choice::All.engines().iter();
    let answers: Vec<_> =
        engines.map(|engine| Answer::of(*engine, &fleet, &machine, &costs)).collect();
    if args.json {
        output::line(format_args!("{:#}", to_json(&answers)));
    } else {
        print(&fleet, &answers);
    }
    Ok(Exit::Done)
}

fn print(fleet: &Fleet, answers: &[Answer]) {
    output::line(format_args!(
        "{} docks: {} messages/s, {} commands/s in the busiest minute",
        fleet.docks,
        short(fleet.messages()),
        short(fleet.commands_at_peak()),
    ));
    for answer in answers {
        output::line("");
        output::line(format_args!("{}:", Group(answer.engine).title()));
        let rows: Vec<_> = answer
            .needs
            .iter()
            .filter(|need| need.needs > 0.0)
            .map(|need| {
                [
                    need.part.title().to_owned(),
                    format!("{} {}", short(need.needs), need.part.unit()),
                    format!("{} {}", short(need.gives), need.part.unit()),
                    format!("{:.0} %", need.share() * 100.0),
                ]
            })
            .collect();
        output::table(["PART", "NEEDS", "A MACHINE GIVES", "SHARE"], &rows);
        let first = answer.first_limit();
        output::line(format_args!(
            "first limit: {}, at {} docks in one group",
            first.part.title(),
            answer.docks_of_a_group
        ));
        output::line(format_args!(
            "for {} docks: {} of such groups, {} machines",
            fleet.docks, answer.groups, answer.machines
        ));
    }
}

fn to_json(answers: &[Answer]) -> serde_json::Value {
    answers
        .iter()
        .map(|answer| {
            let needs: Vec<_> = answer
                .needs
                .iter()
                .map(|need| {
                    json!({
                        "part": need.part.title(),
                        "unit": need.part.unit(),
                        "needs": need.needs,
                        "a_machine_gives": need.gives,
                    })
                })
                .collect();
            json!({
                "engine": answer.engine.key(),
                "needs": needs,
                "first_limit": answer.first_limit().part.title(),
                "docks_of_a_group": answer.docks_of_a_group,
                "groups": answer.groups,
                "machines": answer.machines,
            })
        })
        .collect()
}
