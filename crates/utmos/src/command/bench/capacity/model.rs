//! The model: pure.

use super::costs::Costs;
use crate::command::bench::engine::Engine;

/// What a group consists of, with an engine.
pub struct Group(pub Engine);

impl Group {
    /// What people read.
    pub fn title(&self) -> &'static str {
        match self.0 {
            Engine::Embedded => "one server with its own broker and SQLite",
            Engine::Mosquitto => "one server with SQLite, and a broker",
            Engine::Postgres => "two servers, a broker and PostgreSQL",
        }
    }

    /// Servers of a group, all of which take in what docks tell.
    pub fn servers(&self) -> u32 {
        match self.0 {
            Engine::Embedded | Engine::Mosquitto => 1,
            Engine::Postgres => 2,
        }
    }

    /// Machines of a group.
    fn machines(&self) -> u64 {
        match self.0 {
            Engine::Embedded => 1,
            Engine::Mosquitto => 2,
            Engine::Postgres => 4,
        }
    }
}

/// What a fleet does.
#[derive(Debug, Clone, Copy)]
pub struct Fleet {
    /// Docks, each with its aircraft.
    pub docks: u64,
    /// Of a dock and its aircraft together.
    pub messages_per_second: f64,
    /// To a dock.
    pub commands_per_day: f64,
    /// The busiest minute over the day's mean.
    pub peak: f64,
    /// Days for which messages are kept as they came.
    pub days_kept: f64,
}

const SECONDS_OF_A_DAY: f64 = 86_400.0;

impl Fleet {
    /// Messages a second.
    pub fn messages(&self) -> f64 {
        self.count() * self.messages_per_second
    }

    /// Commands in a second of the busiest minute.
    pub fn commands_at_peak(&self) -> f64 {
        self.count() * self.commands_per_day / SECONDS_OF_A_DAY * self.peak
    }

    #[expect(clippy::cast_precision_loss, reason = "docks are counted in millions")]
    fn count(&self) -> f64 {
        self.docks as f64
    }
}

/// A machine.
#[derive(Debug, Clone, Copy)]
pub struct Machine {
    /// How many.
    pub processors: f64,
    /// Of them, what an outside broker can use.
    pub broker_threads: f64,
    /// In GB.
    pub memory_gb: f64,
    /// In GB.
    pub disk_gb: f64,
}

/// This share of a machine may be used in the busiest minute: what is above waits, and a reconnect of all docks needs room.
const USED_MAX: f64 = 0.6;
/// Days for which commands are kept.
const COMMANDS_KEPT_DAYS: f64 = 90.0;

/// A part that a fleet needs of a machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// Of each server: all of them take in all that docks tell.
    ServerProcessors,
    /// Of the broker and the database together for commands, and of the database for what docks tell.
    BesideProcessors,
    /// Of the outside broker, for what docks tell.
    BrokerThreads,
    /// Of each server.
    ServerMemory,
    /// Of each server, for what it keeps itself: commands, and what docks tell.
    ServerDisk,
    /// Of PostgreSQL's machine, for what docks tell and for commands.
    DatabaseDisk,
}

impl Part {
    /// What people read.
    pub fn title(self) -> &'static str {
        match self {
            Self::ServerProcessors => "processors of a server",
            Self::BesideProcessors => "processors of the database, and of the broker for commands",
            Self::BrokerThreads => "threads of the broker, for telemetry",
            Self::ServerMemory => "memory of a server",
            Self::ServerDisk => "disk of a server",
            Self::DatabaseDisk => "disk of PostgreSQL",
        }
    }

    /// Of its figures.
    pub fn unit(self) -> &'static str {
        match self {
            Self::ServerProcessors | Self::BesideProcessors | Self::BrokerThreads => "cores",
            Self::ServerMemory | Self::ServerDisk | Self::DatabaseDisk => "GB",
        }
    }
}

/// What is needed of a part.
#[derive(Debug, Clone, Copy)]
pub struct Need {
    /// Of what.
    pub part: Part,
    /// How much.
    pub needs: f64,
    /// How much there may be used of one machine.
    pub gives: f64,
    /// Of what is needed, what is needed without any dock.
    fixed: f64,
}

impl Need {
    /// Of what a machine gives; above 1 it is too much for one.
    pub fn share(&self) -> f64 {
        self.needs / self.gives
    }

    /// How many times as many docks as were asked for a machine can take.
    fn times(&self) -> f64 {
        let grows = self.needs - self.fixed;
        match grows > 0.0 {
            true => ((self.gives - self.fixed) / grows).max(0.0),
            false => f64::INFINITY,
        }
    }
}

/// What a fleet needs with a setup.
#[derive(Debug)]
pub struct Answer {
    /// With this.
    pub engine: Engine,
    /// If all docks were in one group.
    pub needs: [Need; 6],
    /// Docks that one group can take.
    pub docks_of_a_group: u64,
    /// Groups for all of the docks: each with its own database and broker, and a part of the tenants.
    pub groups: u64,
    /// Of all groups.
    pub machines: u64,
}

impl Answer {
    /// Works it out.
    pub fn of(engine: Engine, fleet: &Fleet, machine: &Machine, costs: &Costs) -> Self {
        let unit = costs.units.get(&engine).copied().unwrap_or_default();
        let (messages, commands) = (fleet.messages(), fleet.commands_at_peak());
        let history = messages * SECONDS_OF_A_DAY * fleet.days_kept * unit.message_bytes / 1e9;
        let stored = commands / fleet.peak.max(f64::MIN_POSITIVE)
            * SECONDS_OF_A_DAY
            * COMMANDS_KEPT_DAYS
            * costs.command_kib
            * 1024.0
            / 1e9;
        let (disk, database_disk, database_us) = match engine {
            Engine::Embedded | Engine::Mosquitto => (history + stored, 0.0, 0.0),
            // All servers take in what docks tell; one of them keeps it, in PostgreSQL.
            Engine::Postgres => (0.0, history + stored, unit.message_database_us),
        };
        let idle = unit.idle_mb / 1e3;
        let need =
            |part, needs, gives: f64, fixed| Need { part, needs, gives: gives * USED_MAX, fixed };
        let needs = [
            need(
                Part::ServerProcessors,
                (messages * unit.message_server_us + commands * unit.command_server_us) / 1e6,
                machine.processors,
                0.0,
            ),
            need(
                Part::BesideProcessors,
                (commands * unit.command_beside_us + messages * database_us) / 1e6,
                machine.processors,
                0.0,
            ),
            need(
                Part::BrokerThreads,
                messages * unit.message_broker_us * f64::from(Group(engine).servers()) / 1e6,
                machine.broker_threads,
                0.0,
            ),
            need(
                Part::ServerMemory,
                idle + fleet.count() * unit.dock_kib * 1024.0 / 1e9,
                machine.memory_gb,
                idle,
            ),
            need(Part::ServerDisk, disk, machine.disk_gb, 0.0),
            need(Part::DatabaseDisk, database_disk, machine.disk_gb, 0.0),
        ];
        let times = needs.iter().map(Need::times).fold(f64::INFINITY, f64::min);
        let docks_of_a_group = whole((fleet.count() * times).floor());
        let groups = match docks_of_a_group {
            0 => 0,
            of_a_group => fleet.docks.div_ceil(of_a_group),
        };
        let machines = groups.saturating_mul(Group(engine).machines());
        Self { engine, needs, docks_of_a_group, groups, machines }
    }

    /// What there is too little of first, as docks are added.
    pub fn first_limit(&self) -> &Need {
        let [first, rest @ ..] = &self.needs;
        rest.iter().fold(first, |least, need| match need.times() < least.times() {
            true => need,
            false => least,
        })
    }
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a number that is no count at all is as many as there can be"
)]
fn whole(number: f64) -> u64 {
    number.clamp(0.0, 1e15) as u64
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::command::bench::engine::Choice;

    const FLEET: Fleet = Fleet {
        docks: 1_000,
        messages_per_second: 1.0,
        commands_per_day: 86_400.0,
        peak: 1.0,
        days_kept: 1.0,
    };
    const MACHINE: Machine =
        Machine { processors: 10.0, broker_threads: 10.0, memory_gb: 10.0, disk_gb: 1_000.0 };

    fn costs() -> Costs {
        let mut costs = Costs { command_kib: 0.001, ..Costs::measured_before() };
        for unit in costs.units.values_mut() {
            (unit.message_server_us, unit.message_broker_us, unit.dock_kib) = (1_000.0, 1.0, 1.0);
            (unit.message_database_us, unit.message_bytes) = (10.0, 1.0);
        }
        costs
    }

    #[test]
    fn what_a_fleet_needs_is_the_sum_of_what_its_parts_cost() {
        let answer = Answer::of(Engine::Postgres, &FLEET, &MACHINE, &costs());
        // 1,000 messages of 1 ms, 10 µs of PostgreSQL's, and 1,000 commands of 76 and 203 µs a second, where six cores may be used.
        let [processors, beside, ..] = &answer.needs;
        assert!((processors.needs - 1.076).abs() < 1e-9 && (processors.gives - 6.0).abs() < 1e-9);
        assert!((beside.needs - 0.213).abs() < 1e-9);
        assert_eq!(answer.first_limit().part, Part::ServerProcessors);
        assert_eq!(answer.docks_of_a_group, 5_576);
        assert_eq!((answer.groups, answer.machines), (1, 4));
        let many =
            Answer::of(Engine::Postgres, &Fleet { docks: 10_000, ..FLEET }, &MACHINE, &costs());
        assert_eq!((many.docks_of_a_group, many.groups, many.machines), (5_576, 2, 8));
    }

    #[test]
    fn nothing_to_do_has_no_limit_and_no_room_has_no_group() {
        let idle = Fleet { messages_per_second: 0.0, commands_per_day: 0.0, ..FLEET };
        let machine = Machine { memory_gb: 1e9, ..MACHINE };
        let answer = Answer::of(Engine::Embedded, &idle, &machine, &costs());
        assert_eq!((answer.groups, answer.first_limit().part), (1, Part::ServerMemory));
        let none = Machine { processors: 0.0, ..MACHINE };
        let answer = Answer::of(Engine::Embedded, &FLEET, &none, &costs());
        assert_eq!((answer.docks_of_a_group, answer.groups), (0, 0));
    }

    proptest! {
        #[test]
        fn a_group_takes_what_it_is_said_to_take_and_little_more(
            docks in 1_u64..10_000_000, messages in 0.01_f64..10.0, commands in 0.0_f64..10_000.0, processors in 1.0_f64..128.0,
        ) {
            let fleet = Fleet { docks, messages_per_second: messages, commands_per_day: commands, ..FLEET };
            let machine = Machine { processors, ..MACHINE };
            for engine in Choice::All.engines().iter().copied() {
                let answer = Answer::of(engine, &fleet, &machine, &costs());
                let fits = |docks| {
                    let full = Answer::of(engine, &Fleet { docks, ..fleet }, &machine, &costs());
                    full.needs.iter().all(|need| need.share() <= 1.0 + 1e-9)
                };
                prop_assert!(answer.docks_of_a_group == 0 || fits(answer.docks_of_a_group));
                prop_assert!(!fits(answer.docks_of_a_group + 2));
                prop_assert!(answer.groups * answer.docks_of_a_group >= docks);
            }
        }
    }
}
