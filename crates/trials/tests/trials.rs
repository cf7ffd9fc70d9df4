//! The trials themselves are tried: they are the same every time, they find what is put in on purpose, and what they
//! find can be run again.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
    process::Command,
    sync::Arc,
};

use clap::ValueEnum;
use utmos_dji::catalogue::Catalogue;
use utmos_trials::{
    Beside, Broker, Fault, HANGS_EXIT_CODE, Mutation, Plan, Rare, SqliteBeside, VERSION, What,
    kind, run, run_beside, run_planted, shown_by, shows, shrink, shrink_alike,
};

/// Seeds that SQLite is tried on.
const SQLITE_SEEDS: u64 = 60;
/// Seeds whose times are stretched.
const LONG_SEEDS: u64 = 24;
/// Of so many seeds, those with several servers must go the same way in two processes.
const ONE_WAY_SEEDS: &str = "2000";
/// Most seeds that a mutation may survive.
const SEEDS_MAX: u64 = 4_000;

fn catalogue() -> Arc<Catalogue> {
    Arc::new(Catalogue::embedded().unwrap())
}

#[test]
fn nothing_that_must_hold_is_violated() {
    let catalogue = catalogue();
    let mut rare = Rare::default();
    for seed in 1..=300 {
        let report = run(&Plan::of(seed), None, &catalogue);
        assert!(report.violations.is_empty(), "seed {seed}: {:#?}", report.violations);
        rare += report.rare;
    }
    // What the trials are there for comes about, and a change of the generator that loses sight of it is noticed.
    for (what, count, floor) in [
        ("in doubt", rare.doubted, 40),
        ("emergencies in doubt", rare.doubted_emergencies, 8),
        ("in doubt, and sent when asked for again", rare.doubted_and_sent, 20),
        ("by a journal", rare.journalled, 30),
        ("nonces that a journal was left with", rare.nonces_left, 8),
        ("torn writes", rare.torn, 20),
        ("taken over", rare.taken_over, 150),
        ("taken over, and unclear", rare.taken_over_unclear, 80),
        ("waiting while the clock was set", rare.waited_over_jump, 3),
        ("identical requests", rare.identical, 40),
        ("had to be sent at another's broker", rare.due_outside, 10),
        ("had to be sent by several servers", rare.due_of_several, 3),
        ("came twice", rare.came_twice, 8),
        ("overtaken on their way", rare.overtaken, 2),
        ("emergencies seen to leave at once", rare.at_once, 100),
        ("movements withdrawn for an emergency", rare.preempted, 8),
        ("pairs that had to keep their order", rare.in_order, 300),
        ("asked for while their dock was known to be gone", rare.for_absent, 200),
        ("the same at a broker of MQTT 3.1.1", rare.for_absent_at_older, 15),
        ("tried while their dock was gone", rare.tried_absent, 60),
        ("starts refused for a clock", rare.refused_for_clock, 4),
        ("sent by another clock", rare.sent_by_other_clock, 3),
        ("heard of what others told", rare.told, 300),
        ("told that they may have missed something", rare.told_off, 60),
        ("stood still and went on", rare.stood_still, 8),
        ("asked past the store", rare.asked_directly, 60),
        ("the same, and unheard", rare.unheard_directly, 8),
        ("handed on as known", rare.handed_as_known, 12),
    ] {
        assert!(count >= floor, "{what}: {count} in 300 seeds, and not {floor}: {rare}");
    }
}

/// Each plan in the folder has found something once, which its name says. What a plan does not name comes from one stream of
/// dice, so that with any change of the platform it goes another way: so each must still find something that is made wrong,
/// of its kind, or still reach what is rare.
#[test]
fn plans_that_failed_once_do_not_fail_again_and_still_guard_something() {
    let catalogue = catalogue();
    let plans = kept("found");
    let guarded: BTreeSet<&str> = GUARDS.iter().map(|(name, _)| *name).collect();
    assert_eq!(plans.keys().map(String::as_str).collect::<BTreeSet<_>>(), guarded);
    for (name, guard) in GUARDS {
        let plan = &plans[name];
        let report = run(plan, None, &catalogue);
        assert!(report.violations.is_empty(), "{name}: {:#?}", report.violations);
        let guards = match guard {
            Guard::Finds(mutation) => {
                shows(mutation.shows(), &run(plan, Some(mutation), &catalogue).violations)
            }
            #[cfg(debug_assertions)]
            Guard::FindsPlanted(fault) => {
                shows(shown_by(fault), &run_planted(plan, fault, &catalogue, None).violations)
            }
            #[cfg(not(debug_assertions))]
            Guard::FindsPlanted(_) => true,
            Guard::Reaches(reaches) => reaches(&report.rare),
        };
        assert!(
            guards,
            "{name} guards nothing any more: find another or let it go: {}",
            report.rare
        );
    }
}

/// What a plan is kept for.
#[derive(Clone, Copy)]
enum Guard {
    Finds(Mutation),
    FindsPlanted(Fault),
    Reaches(fn(&Rare) -> bool),
}

const GUARDS: [(&str, Guard); 19] = [
    (
        "two-ways-of-getting-a-command-in-doubt-going",
        Guard::Reaches(|rare| rare.doubted_and_sent >= 1 && rare.handed_as_known >= 1),
    ),
    (
        "a-command-stored-for-another-server-that-did-not-hear-it",
        Guard::FindsPlanted(Fault::UnheardNotHanded),
    ),
    ("a-claim-taken-back-by-a-server-that-stood-still", Guard::FindsPlanted(Fault::LeaseNotAsked)),
    (
        "a-copy-by-the-journal-beside-the-one-in-the-store",
        Guard::Finds(Mutation::JournalOverFinalStates),
    ),
    (
        "a-final-state-changed-where-journal-and-store-count-to-one-version",
        Guard::Finds(Mutation::JournalVersionsMeet),
    ),
    (
        "a-copy-that-was-refused-and-written-beside-the-one-that-went",
        Guard::Reaches(|rare| rare.doubted_emergencies >= 2 && rare.doubted_and_sent >= 1),
    ),
    (
        "a-movement-whose-emergency-came-after-the-clock-was-set-back",
        Guard::Finds(Mutation::DeadlineOnTheWall),
    ),
    (
        "a-nonce-in-memory-only-while-a-slow-journal-was-emptied",
        Guard::Finds(Mutation::JournalNonceForgotten),
    ),
    (
        "a-nonce-in-memory-only-while-the-store-was-unwell",
        Guard::FindsPlanted(Fault::NonceInMemoryOnly),
    ),
    (
        "an-answer-to-an-emergency-whose-server-died-while-another-was-cut-off",
        Guard::Finds(Mutation::MissedForgotten),
    ),
    (
        "an-emergency-claimed-in-a-journal-and-by-another-server",
        Guard::Finds(Mutation::JournalClaimsUnfenced),
    ),
    (
        "an-unreadable-line-after-the-journal-was-emptied-in-part",
        Guard::Finds(Mutation::JournalForgottenOnRestart),
    ),
    ("copies-while-the-store-was-slow", Guard::Finds(Mutation::AcceptBeforeDurable)),
    ("saves-of-old-emergencies-in-the-way-of-new-ones", Guard::Finds(Mutation::JournalNotSynced)),
    (
        "saves-of-old-emergencies-in-the-way-of-new-ones-2",
        Guard::Finds(Mutation::OpenForgottenOnRestart),
    ),
    (
        "the-end-of-a-job-behind-a-deadline-that-passed-while-the-store-failed",
        Guard::Finds(Mutation::JobEventsDropped),
    ),
    (
        "written-after-it-was-given-up",
        Guard::Reaches(|rare| rare.doubted_emergencies >= 2 && rare.torn >= 10),
    ),
    ("written-after-it-was-given-up-2", Guard::Finds(Mutation::JournalOverFinalStates)),
    ("written-after-it-was-given-up-3", Guard::Finds(Mutation::JournalForgottenOnRestart)),
];

/// The plans in a folder, by the names of their files.
fn kept(folder: &str) -> BTreeMap<String, Plan> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join(folder);
    let files = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let read = |path: &Path| {
        let plan = Plan::read(&fs::read_to_string(path).unwrap());
        plan.unwrap_or_else(|why| panic!("{}: {why}", path.display()))
    };
    let name = |path: &Path| path.file_stem().unwrap().to_str().unwrap().to_owned();
    files.map(|path| (name(&path), read(&path))).collect()
}

/// The model of the store that all other trials run on, and SQLite on a file, are given and asked the same, and SQLite dies
/// with the servers.
#[test]
fn sqlite_answers_as_the_store_of_the_trials() {
    let catalogue = catalogue();
    let (commands, rare) = std::thread::scope(|scope| {
        let half = |first: u64| {
            let catalogue = catalogue.clone();
            move || {
                let (mut commands, mut rare) = (0, Rare::default());
                for seed in (first..=SQLITE_SEEDS).step_by(2) {
                    let beside = Box::new(SqliteBeside::new().unwrap());
                    let report = run_beside(&Plan::of(seed), &catalogue, beside);
                    assert!(report.violations.is_empty(), "seed {seed}: {:#?}", report.violations);
                    commands += report.commands;
                    rare += report.rare;
                }
                (commands, rare)
            }
        };
        let (one, other) = (scope.spawn(half(1)), scope.spawn(half(2)));
        let (one, other) = (one.join().unwrap(), other.join().unwrap());
        let mut rare = one.1;
        rare += other.1;
        (one.0 + other.0, rare)
    });
    assert!(commands > 100, "{commands}");
    assert!(rare.refused_beside > 20, "it refused by itself: {rare}");
    assert!(rare.at_once_beside > 2, "it had several to do at once: {rare}");
    assert!(rare.pages_torn_beside > 20, "power cuts left pages half written: {rare}");
}

/// Store and journal refuse a stop, and the store has written it. Who asks again under its key after its deadline is told of
/// that one, as of any key that was used: it is dead, says so, and nothing is sent so late.
#[test]
fn a_repeat_after_the_deadline_of_what_was_refused_and_written_finds_it_unsent() {
    let text = r#"{"version":7,"seed":7,"docks":1,"broker":"embedded","servers":1,"journal_kib":256,"every_journal":false,
        "weather":"clear","happenings":[{"at":2000,"what":{"journal_fails":{"wait":4000}}},
        {"at":2000,"what":{"store_fails":{"wait":2500,"lies":100,"reads":false}}},
        {"at":2100,"what":{"command":{"dock":0,"aircraft":0,"kind":"stop","timeout":1,"waits":true,"copies":1,
        "replays_nonce":false,"cancelled_after":null,"asks_later":null,"answer":"does","after":10}}}]}"#;
    let report = run(&Plan::read(text).unwrap(), None, &catalogue());
    assert!(report.violations.is_empty(), "{:#?}", report.violations);
    assert_eq!((report.rare.doubted_emergencies, report.rare.doubted_and_sent), (1, 0));
    let has = |what: &str| report.trace.iter().any(|line| line.contains(what));
    assert!(has("wish 2 is ") && has("ACCEPTED TIMED_OUT NotSent"), "{:#?}", report.trace);
    assert!(!has("is written to"), "{:#?}", report.trace);
}

#[test]
fn the_same_plan_goes_the_same_way() {
    let catalogue = catalogue();
    for seed in 1..=60 {
        let plan = Plan::of(seed);
        assert_eq!(plan, Plan::of(seed));
        let (one, other) = (run(&plan, None, &catalogue), run(&plan, None, &catalogue));
        assert_eq!(one.trace, other.trace, "seed {seed}");
    }
}

/// Also in another process, whose addresses and hashes are others: several servers above all, whose tasks meet most.
#[test]
fn the_same_seeds_go_the_same_way_in_another_process() {
    let fingerprints = || {
        let (code, text) = program(&["--seeds", ONE_WAY_SEEDS, "--several", "--fingerprints"]);
        assert_eq!(code, Some(0), "{text}");
        let is_one = |line: &&str| line.starts_with(&format!("{VERSION}:"));
        text.lines().filter(is_one).map(str::to_owned).collect::<BTreeSet<_>>()
    };
    let (one, other) = std::thread::scope(|scope| {
        let beside = scope.spawn(fingerprints);
        (fingerprints(), beside.join().unwrap())
    });
    assert!(one.len() > 200, "{}", one.len());
    let differ: Vec<_> = one.symmetric_difference(&other).collect();
    assert!(differ.is_empty(), "{differ:#?}");
}

#[test]
fn seeds_differ_and_between_them_everything_happens() {
    let mut seen = BTreeSet::new();
    for seed in 1..=1_000 {
        let plan = Plan::of(seed);
        for happening in plan.happenings {
            let name = format!("{:?}", happening.what);
            let name = name.split([' ', '{', '(']).next().unwrap().to_owned();
            seen.insert(match happening.what {
                What::Command(ref wish) => format!("{:?} {:?}", wish.kind, wish.answer),
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
                | What::ClockJumps { .. } => name,
            });
        }
    }
    // Six kinds of commands with thirteen answers each, and fourteen kinds of trouble.
    assert_eq!(seen.len(), 6 * 13 + 14, "{seen:#?}");
}

/// By the plan that is kept for it, where it needs what seldom comes together, else by a seed.
#[test]
fn every_mutation_is_caught() {
    let catalogue = catalogue();
    let kept = kept("caught");
    for (name, plan) in &kept {
        let report = run(plan, None, &catalogue);
        assert!(report.violations.is_empty(), "{name}: {:#?}", report.violations);
    }
    let survives = |mutation: &&Mutation| {
        let name = mutation.to_possible_value().unwrap().get_name().to_owned();
        let is_caught = |plan: &Plan| {
            shows(mutation.shows(), &run(plan, Some(**mutation), &catalogue).violations)
        };
        match kept.get(&name) {
            Some(plan) => !is_caught(plan),
            None => !(1..=SEEDS_MAX).any(|seed| is_caught(&Plan::of(seed))),
        }
    };
    // One that ends the program has a test of its own.
    let all: Vec<_> =
        Mutation::value_variants().iter().filter(|one| **one != Mutation::NeverIdle).collect();
    let (one, other) = all.split_at(all.len() / 2);
    let survivors = std::thread::scope(|scope| {
        let try_all =
            |some: &[&'static Mutation]| some.iter().copied().filter(survives).collect::<Vec<_>>();
        let beside = scope.spawn(move || try_all(other));
        let mut survivors = try_all(one);
        survivors.extend(beside.join().unwrap());
        survivors
    });
    assert!(survivors.is_empty(), "not caught: {survivors:?}");
    let of_conduct = Mutation::value_variants().iter().filter(|one| one.is_of_conduct());
    assert_eq!((Mutation::value_variants().len(), of_conduct.count()), (47, 43));
}

/// Those in the platform's own code, which only a debug build can hold.
#[test]
#[cfg_attr(not(debug_assertions), ignore = "nothing can be planted in a release")]
fn every_fault_that_is_planted_is_caught() {
    let catalogue = catalogue();
    let kept = kept("caught");
    let survives = |fault: &&Fault| {
        let is_caught = |plan: &Plan| {
            // The store of the trials compares by itself.
            let beside = (**fault == Fault::VersionNotCompared)
                .then(|| Box::new(SqliteBeside::new().unwrap()) as Box<dyn Beside>);
            shows(shown_by(**fault), &run_planted(plan, **fault, &catalogue, beside).violations)
        };
        match kept.get(&format!("planted-{}", fault.name())) {
            Some(plan) => !is_caught(plan),
            None => !(1..=SEEDS_MAX).any(|seed| is_caught(&Plan::of(seed))),
        }
    };
    let survivors: Vec<_> = Fault::ALL.iter().filter(survives).collect();
    assert!(survivors.is_empty(), "not caught: {survivors:?}");
}

/// Whoever's the broker is: one that says that nobody listens, and one that confirms what nobody gets.
#[test]
#[cfg_attr(not(debug_assertions), ignore = "nothing can be planted in a release")]
fn what_is_published_to_an_absent_dock_is_found_at_every_broker() {
    let catalogue = catalogue();
    for (fault, brokers) in [
        (
            Fault::AbsentTreatedAsOnline,
            [Broker::Embedded, Broker::Outside, Broker::Outside311].as_slice(),
        ),
        (Fault::PresenceNeverOver, &[Broker::Outside, Broker::Outside311]),
    ] {
        for broker in brokers {
            let mut plans = (1..=SEEDS_MAX).map(Plan::of).filter(|plan| plan.broker == *broker);
            let is_found = plans.any(|plan| {
                shows(shown_by(fault), &run_planted(&plan, fault, &catalogue, None).violations)
            });
            assert!(is_found, "{fault:?} at {broker:?}");
        }
    }
}

/// What is said before it is true is found, also where it comes true in the end: nothing goes wrong in these plans.
#[test]
fn what_is_said_too_soon_is_found_though_it_comes_true() {
    let catalogue = catalogue();
    let kept = kept("caught");
    for (name, mutation, said) in [
        (
            "succeeds-at-first-progress",
            Mutation::SucceedsAtFirstProgress,
            "Succeeded was said too soon",
        ),
        ("confirmed-at-the-write", Mutation::ConfirmedAtTheWrite, "Delivered was said too soon"),
    ] {
        let found = run(&kept[name], Some(mutation), &catalogue).violations;
        assert!(
            !found.is_empty() && found.iter().all(|one| one.contains(said)),
            "{name}: {found:#?}"
        );
    }
}

#[test]
fn a_plan_that_fails_is_made_smaller_and_still_fails_in_the_same_way() {
    let catalogue = catalogue();
    let mutation = Some(Mutation::UnclearFoundAsWaiting);
    let violations = |plan: &Plan| run(plan, mutation, &catalogue).violations;
    let fails = |plan: &Plan| !violations(plan).is_empty();
    let found = (1..=SEEDS_MAX).map(Plan::of).find(|plan| plan.happenings.len() > 4 && fails(plan));
    let plan = found.unwrap();
    let small = shrink_alike(&plan, violations);
    assert_eq!(kind(&violations(&small)[0]), kind(&violations(&plan)[0]));
    assert!(small.happenings.len() < plan.happenings.len(), "{small:#?}");
}

/// Whoever caught it: in a task of the driver, in what takes in a dock's answer, and where nothing catches it.
#[test]
fn a_panic_is_found_and_its_plan_is_made_smaller() {
    let catalogue = catalogue();
    for mutation in [Mutation::PanicAtAccept, Mutation::PanicAtAnswer, Mutation::PanicAtStart] {
        let is_told = |what: &String| {
            what.starts_with("it panicked at crates/trials/src/")
                && what.ends_with(": made so by the trial")
        };
        let fails =
            |plan: &Plan| run(plan, Some(mutation), &catalogue).violations.iter().any(is_told);
        let found =
            (1..=SEEDS_MAX).map(Plan::of).find(|plan| plan.happenings.len() > 4 && fails(plan));
        let plan = found.unwrap();
        let small = shrink(&plan, fails);
        assert!(fails(&small), "{mutation:?}: {small:#?}");
        assert!(small.happenings.len() < plan.happenings.len(), "{mutation:?}: {small:#?}");
    }
}

fn program(arguments: &[&str]) -> (Option<i32>, String) {
    let output =
        Command::new(env!("CARGO_BIN_EXE_utmos-sim-test")).args(arguments).output().unwrap();
    let text = [output.stdout, output.stderr].concat();
    (output.status.code(), String::from_utf8(text).unwrap())
}

/// A task that gives way for ever: the time of the trial does not pass, and nobody inside would ever say so.
#[test]
fn a_seed_that_hangs_is_named_with_its_plan() {
    let (code, text) =
        program(&["--seeds", "50", "--mutation", "never-idle", "--hangs-after", "2"]);
    assert_eq!(code, Some(HANGS_EXIT_CODE), "{text}");
    let (_, named) = text.split_once("seed ").unwrap_or_else(|| panic!("{text}"));
    let (version, seed) = named.split(' ').next().unwrap().split_once(':').unwrap();
    assert_eq!(version, VERSION.to_string());
    let seed = seed.parse().unwrap();
    assert!(named.contains(" hangs: its time has stood still at "), "{text}");
    let plan = text.lines().find_map(|line| Plan::read(line).ok());
    assert_eq!(plan, Some(Plan::of(seed)), "{text}");
}

/// As it is printed, or as a number; with the version of plans that it was drawn in, it is no other trial's.
#[test]
fn a_seed_of_another_version_is_refused() {
    for flag in ["--seed", "--plan-of"] {
        let of = |seed: String| program(&[flag, &seed]);
        let (code, text) = of(format!("{VERSION}:7"));
        assert_eq!((code, &text), (Some(0), &of("7".to_owned()).1), "{text}");
        for (seed, expected) in [
            (
                format!("{}:7", VERSION + 1),
                format!("it is of version {} of the plans", VERSION + 1),
            ),
            ("x:7".to_owned(), "it is of version x of the plans".to_owned()),
            (
                format!("{VERSION}:x"),
                "\"x\" is no seed; give a number, or VERSION:NUMBER".to_owned(),
            ),
        ] {
            let (code, text) = of(seed);
            assert!(code == Some(2) && text.contains(&expected), "{text}");
        }
    }
}

#[test]
fn what_a_seed_that_fails_is_to_be_run_with_makes_it_fail_again() {
    for flags in [
        ["--mutation", "panic-at-accept", "--every-journal"].as_slice(),
        &["--mutation", "unclear-found-as-waiting"],
        #[cfg(debug_assertions)]
        &["--planted", "version-not-compared", "--sqlite"],
    ] {
        let (code, text) = program(&[&["--seeds", "400"], flags].concat());
        assert_eq!(code, Some(1), "{text}");
        let hint = text.split_once("(run it with ").unwrap().1.split_once(')').unwrap().0;
        let again: Vec<&str> = hint.split(' ').collect();
        assert!(flags.iter().all(|flag| again.contains(flag)), "{flags:?}: {hint}");
        let (code, text) = program(&again);
        assert!(code == Some(1) && text.contains("VIOLATED: "), "{hint}: {text}");
    }
}

/// As the fuzzer makes them: callers that wait for minutes, and troubles that last for up to an hour.
#[test]
fn plans_of_long_times_come_to_their_end() {
    let catalogue = catalogue();
    for seed in 1..=LONG_SEEDS {
        let mut plan = Plan::of(seed);
        plan.happenings.truncate(4);
        for happening in &mut plan.happenings {
            match &mut happening.what {
                What::Command(wish) => wish.timeout = wish.timeout.saturating_mul(80),
                What::DockLeaves { wait, .. }
                | What::BrokerFalls { wait }
                | What::StoreFails { wait, .. }
                | What::StoreSlows { wait, .. }
                | What::JournalFails { wait }
                | What::JournalSlows { wait, .. }
                | What::ServerDies { wait, .. }
                | What::ServerCutOff { wait, .. }
                | What::ServerStandsStill { wait, .. }
                | What::LinkCut { wait, .. }
                | What::MachineRestarts { wait } => *wait = (*wait * 500).min(3_600_000),
                What::JournalDamaged { .. } | What::RowDamaged | What::ClockJumps { .. } => {}
            }
        }
        let report = run(&plan, None, &catalogue);
        assert!(report.violations.is_empty(), "{}: {:#?}", plan.write(), report.violations);
    }
}

#[test]
fn a_plan_is_run_again_from_a_file_and_one_of_another_version_says_so() {
    let folder = std::env::temp_dir().join(format!("utmos-trials-{}", std::process::id()));
    fs::create_dir_all(&folder).unwrap();
    let path = folder.join("plan.json");
    let run_it = |plan: &Plan| {
        fs::write(&path, serde_json::to_string(plan).unwrap()).unwrap();
        let output =
            Command::new(env!("CARGO_BIN_EXE_utmos-sim-test")).arg("--plan").arg(&path).output();
        let output = output.unwrap();
        let text = [output.stdout, output.stderr].concat();
        (output.status.success(), String::from_utf8(text).unwrap())
    };
    let plan = Plan::of(7);
    let (is_good, text) = run_it(&plan);
    assert!(is_good, "{text}");
    let (is_good, text) = run_it(&Plan { version: 99, ..plan });
    assert!(!is_good && text.contains("version 99"), "{text}");
    fs::remove_dir_all(&folder).unwrap();
}
