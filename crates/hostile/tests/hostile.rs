//! Every target on its seeds and on thousands of inputs made of them: the same on every machine, in every run.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{
    collections::BTreeSet,
    fs,
    panic::{AssertUnwindSafe, catch_unwind},
    path::PathBuf,
};

use utmos_hostile::{TARGETS, Target, mutate::Mutator, seeds};
use utmos_server::http::try_lists;
use utmos_sim::control::trying::Trying;

/// Fixes all inputs.
const SEED: u64 = 20_261_126;
/// What all seeds together may be, in bytes.
const SEEDS_BYTES_MAX: usize = 1 << 20;

/// How many inputs a target is tried on: as many as take it about a second or two in a debug build.
fn inputs(target: &Target) -> usize {
    match target.name {
        "catalogue_override" => 60,
        "trial_plan" => 400,
        "journal_file" => 600,
        "config" => 600,
        "command_body" | "emergency_journal" | "device_bodies" => 2_000,
        _ => 4_000,
    }
}

/// Tries an input. One that fails is kept in a file, to be tried again alone.
fn holds(target: &Target, input: &[u8]) {
    if catch_unwind(AssertUnwindSafe(|| (target.run)(input))).is_ok() {
        return;
    }
    let file = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("{}-failed", target.name));
    fs::write(&file, input).unwrap();
    panic!(
        "{} does not hold on {:?}\ntry it alone: cargo run -p utmos-hostile -- {} {}",
        target.name,
        String::from_utf8_lossy(input),
        target.name,
        file.display()
    );
}

fn try_all(targets: impl Iterator<Item = &'static Target>) {
    for target in targets {
        // Those of today, and whatever lies in the folder: those of before, and those that once failed.
        let made = seeds::make().unwrap().remove(target.name).unwrap_or_default();
        let seeds: BTreeSet<_> =
            made.into_values().chain(seeds::kept(target.name).unwrap()).collect();
        let seeds: Vec<_> = seeds.into_iter().collect();
        for seed in &seeds {
            holds(target, seed);
        }
        let mut mutator = Mutator::new(SEED, &seeds);
        for _ in 0..inputs(target) {
            holds(target, &mutator.next_input());
        }
    }
}

// In two halves, for machines with two processors.
#[test]
fn one_half_of_the_targets_holds_on_seeds_and_on_what_is_made_of_them() {
    try_all(TARGETS.iter().step_by(2));
}

#[test]
fn the_other_half_of_the_targets_holds_on_seeds_and_on_what_is_made_of_them() {
    try_all(TARGETS.iter().skip(1).step_by(2));
}

/// Readers with a limit of their own, and how many bytes that is.
const LIMITS: [(&str, usize); 8] = [
    ("uplink", 1 << 20),
    ("downlink", 1 << 20),
    ("command_body", 1 << 20),
    ("signed_headers", 128 << 10),
    ("canonical_query", 64 << 10),
    ("mqtt_packets", (1 << 20) + (64 << 10)),
    ("mqtt_hello", 16 << 10),
    ("sim_control", 64 << 10),
];
/// Inputs of each size.
const GROWN: usize = 3;

#[test]
fn inputs_around_the_limits_hold() {
    for (name, limit) in LIMITS {
        let target = utmos_hostile::target(name).unwrap();
        let seeds: Vec<_> = seeds::make().unwrap().remove(name).unwrap().into_values().collect();
        let mut mutator = Mutator::new(SEED, &seeds);
        for bytes in [limit / 16, limit - 1, limit, limit + 1, limit + limit / 8] {
            for _ in 0..GROWN {
                holds(&target, &mutator.grown(bytes));
            }
        }
    }
}

// Not that they are the same to the byte: what they are made of changes with the project, and old ones do no harm.
#[test]
fn every_target_has_seeds_and_each_lies_in_its_folder() {
    let made = seeds::make().unwrap();
    let targets: BTreeSet<&str> = TARGETS.iter().map(|target| target.name).collect();
    assert_eq!(made.keys().copied().collect::<BTreeSet<_>>(), targets);
    let mut total = 0;
    for (target, seeds) in made {
        assert!(!seeds.is_empty(), "{target}");
        for (name, bytes) in seeds {
            total += bytes.len();
            let path = seeds::folder(target).join(&name);
            assert!(
                path.is_file(),
                "{} is not there; run: cargo run -p utmos-hostile -- seeds",
                path.display()
            );
        }
    }
    assert!(total <= SEEDS_BYTES_MAX, "{total} bytes of seeds");
}

#[test]
fn every_target_is_described_and_no_other() {
    let manual = fs::read_to_string(seeds::root().join("fuzz/README.md")).unwrap();
    let rows = manual.lines().filter_map(|line| line.strip_prefix("| `")?.split_once(" |"));
    let described: BTreeSet<&str> =
        rows.flat_map(|(names, _)| names.split(", ")).map(|name| name.trim_matches('`')).collect();
    assert_eq!(described, TARGETS.iter().map(|target| target.name).collect());
}

// What the fuzzer is built with names packages, and one that is not there any more would go unnoticed.
#[test]
fn what_the_fuzzer_sees_into_is_there() {
    let read = |path: &str| fs::read_to_string(seeds::root().join(path)).unwrap();
    let rules: toml::Table = read("fuzz/instrumented.toml").parse().unwrap();
    let lock = read("Cargo.lock");
    let packages = rules["profile"]["dev"]["package"].as_table().unwrap();
    for name in packages.keys() {
        assert!(lock.contains(&format!("name = \"{name}\"")), "{name}");
    }
    for folder in fs::read_dir(seeds::root().join("crates")).unwrap() {
        let name = folder.unwrap().file_name().into_string().unwrap();
        let is_seen = packages.contains_key(&format!("utmos-{name}"));
        // The program itself holds no rules.
        assert!(is_seen || name == "utmos", "utmos-{name} is not instrumented");
    }
}

// A target all of whose seeds are refused would reach little.
#[test]
fn seeds_of_requests_are_taken_as_they_say() {
    let made = seeds::make().unwrap();
    let control = Trying::start().unwrap();
    for (name, status) in [
        ("docks", 200),
        ("commands", 200),
        ("add-fault", 201),
        ("add-late", 201),
        ("add-condition", 201),
        ("add-nothing", 400),
        ("no-path", 404),
        ("no-method", 405),
    ] {
        let text = String::from_utf8(made["sim_control"][name].clone()).unwrap();
        let (first, body) = text.split_once('\n').unwrap();
        let (method, target) = first.split_once(' ').unwrap();
        let (answered, body) = control.ask(method, target, body.as_bytes()).unwrap();
        assert_eq!(answered, status, "{name}: {}", String::from_utf8_lossy(&body));
    }
    for (name, is_taken) in
        [("page", true), ("device", true), ("times", true), ("far", true), ("twice", false)]
    {
        let query = String::from_utf8(made["list_queries"][name].clone()).unwrap();
        let read = try_lists::commands(Some(&query));
        assert_eq!(read.is_ok(), is_taken, "{name}: {read:?}");
    }
    for (endpoint, name) in [
        ("telemetry history", "history"),
        ("telemetry history", "piece"),
        ("track", "track"),
        ("track", "track-of"),
        ("events", "events"),
        ("alarms", "alarms"),
        ("device requests", "requests"),
        ("rules", "rule"),
        ("devices", "devices"),
        ("binding codes", "page"),
    ] {
        let query = String::from_utf8(made["list_queries"][name].clone()).unwrap();
        let (_, read) = try_lists::OTHERS.iter().find(|(known, _)| *known == endpoint).unwrap();
        assert!(read(Some(&query)).is_ok(), "{endpoint}: {name}");
    }
    for (name, is_heard) in [("connect-3", true), ("connect-5", true), ("http", false)] {
        let bytes = &made["mqtt_hello"][name];
        assert_eq!(utmos_mqtt::frames::hello(bytes, 256).is_ok(), is_heard, "{name}");
    }
}
