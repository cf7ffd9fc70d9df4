//! What is measured: names, units, goals and floors.

/// Everything that is measured, in the order of the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Measure {
    Sync,
    Commit1,
    Commit64,
    Mqtt1,
    Mqtt64,
    Healthz,
    Echo1,
    Echo64,
    Accept1,
    Accept64,
    Loop1,
    Loop16,
    Loop64,
    /// 64 clients at each of two servers.
    Loop128,
    Loop256,
    /// Of several servers: so many that batches are full at each of them.
    Loop512,
    Cpu,
    OwnCpu,
    CpuBeside,
    Written,
    Commits,
    PhaseAccept,
    PhaseHandOver,
    PhaseStored,
    PhaseSeen,
    Paced500,
    Paced2000,
    Emergency,
    MemoryIdle,
    MemoryDocks,
    MemoryLoad,
    Start,
    Restart,
    RestartStored,
    Telemetry,
    TelemetryCpu,
    TelemetryBroker,
    TelemetryDatabase,
    TelemetryCommandsSilent,
    TelemetryCommands,
    TelemetryRepliesSilent,
    TelemetryReplies,
    TelemetryLatest,
    TelemetryMemory,
    TelemetryDisk,
    TelemetryPaced2000,
    Reconnect,
}

/// Which figure of a measure its goals and its spread are about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Figure {
    PerSecond,
    P50,
    P99,
    Value,
}

impl Figure {
    /// Its name in the JSON.
    pub fn key(self) -> &'static str {
        match self {
            Self::PerSecond => "per_second",
            Self::P50 => "p50_ms",
            Self::P99 => "p99_ms",
            Self::Value => "value",
        }
    }
}

/// What bounds a measure, in the same run.
#[derive(Debug, Clone, Copy)]
pub enum Floor {
    /// A rate that no rate of the measure can pass.
    Rate(Measure),
    /// Times that the measure's time holds one after another.
    Times(&'static [Measure]),
}

impl Measure {
    /// All of them.
    pub const ALL: [Self; 47] = [
        Self::Sync,
        Self::Commit1,
        Self::Commit64,
        Self::Mqtt1,
        Self::Mqtt64,
        Self::Healthz,
        Self::Echo1,
        Self::Echo64,
        Self::Accept1,
        Self::Accept64,
        Self::Loop1,
        Self::Loop16,
        Self::Loop64,
        Self::Loop128,
        Self::Loop256,
        Self::Loop512,
        Self::Cpu,
        Self::OwnCpu,
        Self::CpuBeside,
        Self::Written,
        Self::Commits,
        Self::PhaseAccept,
        Self::PhaseHandOver,
        Self::PhaseStored,
        Self::PhaseSeen,
        Self::Paced500,
        Self::Paced2000,
        Self::Emergency,
        Self::MemoryIdle,
        Self::MemoryDocks,
        Self::MemoryLoad,
        Self::Start,
        Self::Restart,
        Self::RestartStored,
        Self::Telemetry,
        Self::TelemetryCpu,
        Self::TelemetryBroker,
        Self::TelemetryDatabase,
        Self::TelemetryCommandsSilent,
        Self::TelemetryCommands,
        Self::TelemetryRepliesSilent,
        Self::TelemetryReplies,
        Self::TelemetryLatest,
        Self::TelemetryMemory,
        Self::TelemetryDisk,
        Self::TelemetryPaced2000,
        Self::Reconnect,
    ];

    /// Its name in the JSON.
    pub fn key(self) -> &'static str {
        match self {
            Self::Sync => "floor_fdatasync",
            Self::Commit1 => "floor_commit",
            Self::Commit64 => "floor_commit_64",
            Self::Mqtt1 => "floor_mqtt_1",
            Self::Mqtt64 => "floor_mqtt_64",
            Self::Healthz => "floor_http_64",
            Self::Echo1 => "floor_http_signed_1",
            Self::Echo64 => "floor_http_signed_64",
            Self::Accept1 => "accept_1",
            Self::Accept64 => "accept_64",
            Self::Loop1 => "loop_1",
            Self::Loop16 => "loop_16",
            Self::Loop64 => "loop_64",
            Self::Loop128 => "loop_128",
            Self::Loop256 => "loop_256",
            Self::Loop512 => "loop_512",
            Self::Cpu => "server_cpu_per_loop_64",
            Self::OwnCpu => "bench_cpu_per_loop_64",
            Self::CpuBeside => "cpu_beside_per_loop_64",
            Self::Written => "written_per_loop_64",
            Self::Commits => "commits_per_loop_64",
            Self::PhaseAccept => "phase_accept",
            Self::PhaseHandOver => "phase_hand_over",
            Self::PhaseStored => "phase_stored",
            Self::PhaseSeen => "phase_seen",
            Self::Paced500 => "paced_500",
            Self::Paced2000 => "paced_2000",
            Self::Emergency => "emergency",
            Self::MemoryIdle => "memory_idle",
            Self::MemoryDocks => "memory_100_docks",
            Self::MemoryLoad => "memory_after_load",
            Self::Start => "start",
            Self::Restart => "restart",
            Self::RestartStored => "restart_stored_100k",
            Self::Telemetry => "telemetry",
            Self::TelemetryCpu => "telemetry_cpu",
            Self::TelemetryBroker => "telemetry_broker_cpu",
            Self::TelemetryDatabase => "telemetry_database_cpu",
            Self::TelemetryCommandsSilent => "telemetry_commands_silent",
            Self::TelemetryCommands => "telemetry_commands",
            Self::TelemetryRepliesSilent => "telemetry_replies_silent",
            Self::TelemetryReplies => "telemetry_replies",
            Self::TelemetryLatest => "telemetry_latest",
            Self::TelemetryMemory => "telemetry_memory",
            Self::TelemetryDisk => "telemetry_disk",
            Self::TelemetryPaced2000 => "telemetry_paced_2000",
            Self::Reconnect => "reconnect_10k",
        }
    }

    /// Reads a name as it stands in the JSON.
    pub fn parse(text: &str) -> Result<Self, String> {
        let found = Self::ALL.into_iter().find(|measure| measure.key() == text);
        found.ok_or_else(|| format!("is none of {}", Self::ALL.map(Self::key).join(", ")))
    }

    /// Whether it is measured without a server.
    pub fn is_floor(self) -> bool {
        matches!(
            self,
            Self::Sync
                | Self::Commit1
                | Self::Commit64
                | Self::Mqtt1
                | Self::Mqtt64
                | Self::Echo1
                | Self::Echo64
        )
    }

    /// What else has to be measured for it; itself where nothing has.
    pub fn part_of(self) -> Self {
        const OF_LOOP: [Measure; 5] =
            [Measure::Cpu, Measure::OwnCpu, Measure::CpuBeside, Measure::Written, Measure::Commits];
        const OF_TELEMETRY: [Measure; 10] = [
            Measure::TelemetryCpu,
            Measure::TelemetryBroker,
            Measure::TelemetryDatabase,
            Measure::TelemetryCommandsSilent,
            Measure::TelemetryCommands,
            Measure::TelemetryRepliesSilent,
            Measure::TelemetryReplies,
            Measure::TelemetryLatest,
            Measure::TelemetryMemory,
            Measure::TelemetryDisk,
        ];
        if OF_LOOP.contains(&self) {
            return Self::Loop64;
        }
        if OF_TELEMETRY.contains(&self) { Self::Telemetry } else { self }
    }

    /// Whether it is measured at a server that nothing else is measured at, and only when it is named.
    pub fn is_apart(self) -> bool {
        matches!(
            self,
            Self::RestartStored | Self::Telemetry | Self::TelemetryPaced2000 | Self::Reconnect
        )
    }

    /// Whether it is measured only when it is named, though at the same server as the others.
    pub fn is_extra(self) -> bool {
        self == Self::Loop512
    }

    /// What only a process of the bench's own can tell.
    pub fn is_of_own_server(self) -> bool {
        match self {
            Self::Cpu
            | Self::OwnCpu
            | Self::CpuBeside
            | Self::Written
            | Self::Commits
            | Self::MemoryIdle
            | Self::MemoryDocks
            | Self::MemoryLoad
            | Self::Start
            | Self::Restart
            | Self::RestartStored
            | Self::Telemetry
            | Self::TelemetryCpu
            | Self::TelemetryBroker
            | Self::TelemetryDatabase
            | Self::TelemetryCommandsSilent
            | Self::TelemetryCommands
            | Self::TelemetryRepliesSilent
            | Self::TelemetryReplies
            | Self::TelemetryLatest
            | Self::TelemetryMemory
            | Self::TelemetryDisk
            | Self::TelemetryPaced2000
            | Self::Reconnect => true,
            Self::Sync
            | Self::Commit1
            | Self::Commit64
            | Self::Mqtt1
            | Self::Mqtt64
            | Self::Healthz
            | Self::Echo1
            | Self::Echo64
            | Self::Accept1
            | Self::Accept64
            | Self::Loop1
            | Self::Loop16
            | Self::Loop64
            | Self::Loop128
            | Self::Loop256
            | Self::Loop512
            | Self::PhaseAccept
            | Self::PhaseHandOver
            | Self::PhaseStored
            | Self::PhaseSeen
            | Self::Paced500
            | Self::Paced2000
            | Self::Emergency => false,
        }
    }

    /// For people.
    pub fn title(self) -> &'static str {
        match self {
            Self::Sync => "floor: 4 KiB written and synced",
            Self::Commit1 => "floor: commits of a row, the same database",
            Self::Commit64 => "floor: rows in commits of 64, the same database",
            Self::Mqtt1 => "floor: MQTT QoS 1 round trip, 1 in flight",
            Self::Mqtt64 => "floor: MQTT QoS 1 round trips, 64 in flight",
            Self::Healthz => "floor: GET /healthz, 64 clients",
            Self::Echo1 => "floor: signed POST given back, 1 client",
            Self::Echo64 => "floor: signed POSTs given back, 64 clients",
            Self::Accept1 => "POST to 202, 1 client",
            Self::Accept64 => "POST to 202, 64 clients",
            Self::Loop1 => "POST to outcome, 1 client",
            Self::Loop16 => "POST to outcome, 16 clients",
            Self::Loop64 => "POST to outcome, 64 clients",
            Self::Loop128 => "POST to outcome, 128 clients",
            Self::Loop256 => "POST to outcome, 256 clients",
            Self::Loop512 => "POST to outcome, 512 clients",
            Self::Cpu => "server CPU for each loop, 64 clients",
            Self::OwnCpu => "this program's CPU for each loop (load, docks)",
            Self::CpuBeside => "CPU of broker and database beside it for each loop",
            Self::Written => "bytes written to the disk for each loop, database included",
            Self::Commits => "commits of the store for each loop",
            Self::PhaseAccept => "1 client: POST to its 202",
            Self::PhaseHandOver => "1 client: POST to bytes at the dock",
            Self::PhaseStored => {
                "1 client: a change, such as its outcome, until it is stored, mean"
            }
            Self::PhaseSeen => "1 client: bytes at the dock to outcome seen",
            Self::Paced500 => "POST to outcome, 500 a second",
            Self::Paced2000 => "POST to outcome, 2,000 a second",
            Self::Emergency => "emergency POST to bytes at the dock, under load",
            Self::MemoryIdle => "server memory, idle",
            Self::MemoryDocks => "server memory, 101 docks online",
            Self::MemoryLoad => "server memory, after the load",
            Self::Start => "first start until ready, nothing there yet",
            Self::Restart => "restart until ready",
            Self::RestartStored => "restart until ready, 100,000 commands stored and 1,000 open",
            Self::Telemetry => "osd of 1,000 docks taken in",
            Self::TelemetryCpu => "server CPU meanwhile, of one processor",
            Self::TelemetryBroker => "CPU of the broker beside it meanwhile, of one processor",
            Self::TelemetryDatabase => "CPU of the database meanwhile, of one processor",
            Self::TelemetryCommandsSilent => "POST to outcome, 100 a second, 1,000 silent docks",
            Self::TelemetryCommands => "POST to outcome, 100 a second, under their osd",
            Self::TelemetryRepliesSilent => "request of a dock to answer, 1,000 silent docks",
            Self::TelemetryReplies => "request of a dock to answer, under their osd",
            Self::TelemetryLatest => "GET of a device's latest, 1 client, under their osd",
            Self::TelemetryMemory => {
                "server memory, 10,001 docks registered, 1,000 of them telling"
            }
            Self::TelemetryDisk => "history of a device for a day, two messages a second",
            Self::TelemetryPaced2000 => "POST to outcome, 2,000 a second, under osd of 1,000 docks",
            Self::Reconnect => "10,000 docks connect again at once",
        }
    }

    /// What of it counts, and its unit.
    pub fn figure(self) -> (Figure, &'static str) {
        match self {
            Self::Accept1
            | Self::Echo1
            | Self::Loop1
            | Self::Mqtt1
            | Self::PhaseAccept
            | Self::PhaseHandOver
            | Self::PhaseSeen => (Figure::P50, "ms"),
            Self::Emergency
            | Self::Paced500
            | Self::Paced2000
            | Self::TelemetryCommandsSilent
            | Self::TelemetryCommands
            | Self::TelemetryRepliesSilent
            | Self::TelemetryReplies
            | Self::TelemetryPaced2000 => (Figure::P99, "ms"),
            Self::TelemetryLatest => (Figure::P50, "ms"),
            Self::TelemetryCpu | Self::TelemetryBroker | Self::TelemetryDatabase => {
                (Figure::Value, "%")
            }
            Self::TelemetryMemory | Self::TelemetryDisk => (Figure::Value, "MB"),
            Self::Sync
            | Self::Commit1
            | Self::Commit64
            | Self::Telemetry
            | Self::Mqtt64
            | Self::Healthz
            | Self::Echo64
            | Self::Accept64
            | Self::Loop16
            | Self::Loop64
            | Self::Loop128
            | Self::Loop256
            | Self::Loop512 => (Figure::PerSecond, "/s"),
            Self::Cpu | Self::OwnCpu | Self::CpuBeside => (Figure::Value, "µs"),
            Self::Written => (Figure::Value, "KiB"),
            Self::Commits => (Figure::Value, ""),
            Self::MemoryIdle | Self::MemoryDocks | Self::MemoryLoad => (Figure::Value, "MB"),
            Self::Start | Self::Restart | Self::RestartStored | Self::PhaseStored => {
                (Figure::Value, "ms")
            }
            Self::Reconnect => (Figure::Value, "s"),
        }
    }

    /// First stop and target, in the unit of [`Measure::figure`].
    pub fn goals(self) -> (Option<f64>, Option<f64>) {
        match self {
            Self::Accept1 => (Some(1.5), Some(0.7)),
            Self::Accept64 => (Some(5_000.0), Some(15_000.0)),
            Self::Loop1 => (Some(3.0), Some(1.2)),
            Self::Loop64 => (Some(3_000.0), Some(8_000.0)),
            Self::Loop256 => (Some(3_000.0), Some(10_000.0)),
            Self::Cpu => (Some(350.0), Some(120.0)),
            Self::Emergency => (Some(20.0), Some(10.0)),
            Self::Paced2000 | Self::TelemetryPaced2000 => (Some(50.0), Some(10.0)),
            Self::MemoryIdle => (Some(50.0), Some(40.0)),
            Self::Start => (None, Some(150.0)),
            Self::Reconnect => (Some(15.0), Some(2.0)),
            Self::RestartStored => (Some(1_000.0), Some(1_000.0)),
            Self::Telemetry => (None, Some(2_000.0)),
            Self::TelemetryReplies => (None, Some(10.0)),
            Self::TelemetryLatest => (None, Some(1.0)),
            Self::TelemetryMemory => (None, Some(200.0)),
            Self::Sync
            | Self::Commit1
            | Self::Commit64
            | Self::CpuBeside
            | Self::TelemetryCpu
            | Self::TelemetryBroker
            | Self::TelemetryDatabase
            | Self::TelemetryCommandsSilent
            | Self::TelemetryCommands
            | Self::TelemetryRepliesSilent
            | Self::TelemetryDisk
            | Self::Mqtt1
            | Self::Mqtt64
            | Self::Healthz
            | Self::Echo1
            | Self::Echo64
            | Self::Loop16
            | Self::Loop128
            | Self::Loop512
            | Self::OwnCpu
            | Self::Written
            | Self::Commits
            | Self::PhaseAccept
            | Self::PhaseHandOver
            | Self::PhaseStored
            | Self::PhaseSeen
            | Self::Paced500
            | Self::MemoryDocks
            | Self::MemoryLoad
            | Self::Restart => (None, None),
        }
    }

    /// A further goal that belongs to it: of which figure, and its bound in the unit of [`Measure::figure`].
    pub fn goal_beside(self) -> Option<(Figure, f64)> {
        let goals = [(Self::Loop1, Figure::P99, 3.0), (Self::TelemetryPaced2000, Figure::P50, 2.0)];
        let own = goals.into_iter().find(|(measure, _, _)| *measure == self);
        own.map(|(_, figure, bound)| (figure, bound))
    }

    /// How many there should be in a second, where that is fixed.
    pub fn asked_per_second(self) -> Option<f64> {
        let asked = [
            (Self::Paced500, 500.0),
            (Self::Paced2000, 2_000.0),
            (Self::TelemetryPaced2000, 2_000.0),
        ];
        asked.into_iter().find(|(measure, _)| *measure == self).map(|(_, asked)| asked)
    }

    /// The floors it is held against: of a command one commit and one MQTT round trip at least.
    pub fn floors(self) -> &'static [Floor] {
        match self {
            Self::Accept1 | Self::PhaseAccept => {
                &[Floor::Times(&[Self::Commit1]), Floor::Times(&[Self::Commit1, Self::Echo1])]
            }
            Self::Loop1 => &[Floor::Times(&[Self::Commit1, Self::Mqtt1])],
            Self::Accept64 => &[Floor::Rate(Self::Commit64), Floor::Rate(Self::Echo64)],
            Self::Loop16 | Self::Loop64 | Self::Loop128 | Self::Loop256 | Self::Loop512 => {
                &[Floor::Rate(Self::Commit64), Floor::Rate(Self::Mqtt64)]
            }
            Self::Sync
            | Self::Commit1
            | Self::Commit64
            | Self::Mqtt1
            | Self::Mqtt64
            | Self::Healthz
            | Self::Echo1
            | Self::Echo64
            | Self::Cpu
            | Self::OwnCpu
            | Self::CpuBeside
            | Self::Written
            | Self::Commits
            | Self::PhaseHandOver
            | Self::PhaseStored
            | Self::PhaseSeen
            | Self::Paced500
            | Self::Paced2000
            | Self::Emergency
            | Self::MemoryIdle
            | Self::MemoryDocks
            | Self::MemoryLoad
            | Self::Start
            | Self::Restart
            | Self::RestartStored
            | Self::Telemetry
            | Self::TelemetryCpu
            | Self::TelemetryBroker
            | Self::TelemetryDatabase
            | Self::TelemetryCommandsSilent
            | Self::TelemetryCommands
            | Self::TelemetryRepliesSilent
            | Self::TelemetryReplies
            | Self::TelemetryLatest
            | Self::TelemetryMemory
            | Self::TelemetryDisk
            | Self::TelemetryPaced2000
            | Self::Reconnect => &[],
        }
    }
}
