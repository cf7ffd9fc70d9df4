//! Several servers: of which one does not reach the broker, so that the others send in its place; and of which one dies.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::sync::Arc;

use utmos_dji::catalogue::Catalogue;
use utmos_trials::{
    Answer, Broker, Happening, Kind, Lines, Plan, Tidings, VERSION, Weather, What, Wish, run,
};

/// When the broker is cut off.
const CUT: u64 = 1_000;
/// What a server sends that has not reached the broker for 3 s, others send in its place.
const GIVEN_BACK: u64 = CUT + 3_000;
/// By then they have taken it over, within some signs of life.
const TAKEN_OVER: u64 = CUT + 5_000;

fn plan(seed: u64, servers: u8, cut: &[u8], at: u64, timeout: u8) -> Plan {
    let wish = |dock| Wish {
        dock,
        aircraft: dock,
        kind: Kind::Reply,
        timeout,
        waits: true,
        copies: 1,
        copying: None,
        replays_nonce: false,
        cancelled_after: None,
        asks_later: None,
        answer: Answer::Does,
        after: 1,
    };
    let cuts = cut.iter().map(|server| {
        let what = What::LinkCut { server: *server, wait: 40_000 };
        Happening { at: CUT, what }
    });
    let wishes = (0..8).map(|dock| Happening { at, what: What::Command(wish(dock)) });
    Plan {
        version: VERSION,
        seed,
        docks: 8,
        broker: Broker::Outside,
        servers,
        journal_kib: 64,
        every_journal: false,
        weather: Weather::Clear,
        commands_stray: false,
        clocks_apart: Vec::new(),
        tidings: Tidings::None,
        lines: Lines::None,
        happenings: cuts.chain(wishes).collect(),
    }
}

/// Emergencies that wait for nobody, one for each dock.
fn emergencies(seed: u64, servers: u8, cut: &[u8]) -> Plan {
    let mut plan = plan(seed, servers, cut, CUT + 500, 4);
    for happening in &mut plan.happenings {
        if let What::Command(wish) = &mut happening.what {
            (wish.kind, wish.waits) = (Kind::Stop, false);
        }
    }
    plan
}

/// When the commands were written to their docks.
fn written(plan: &Plan) -> Vec<u64> {
    let report = run(plan, None, &Arc::new(Catalogue::embedded().unwrap()));
    assert!(report.violations.is_empty(), "{:#?}", report.violations);
    let lines = report.trace.iter().filter(|line| line.contains(" is written to "));
    lines.map(|line| line.split_whitespace().next().unwrap().parse().unwrap()).collect()
}

#[test]
fn what_a_server_cut_off_from_the_broker_would_send_another_sends() {
    let mut taken_over = 0;
    for seed in 0..20 {
        let (servers, cut) = (2 + u8::try_from(seed % 2).unwrap(), u8::try_from(seed % 2).unwrap());
        let soon = written(&plan(seed, servers, &[cut], CUT + 500, 8));
        assert_eq!(soon.len(), 8, "seed {seed}: {soon:?}");
        // Some at once, by those who hold them; the others only once somebody has taken them over.
        taken_over += soon.iter().filter(|at| **at >= GIVEN_BACK).count();
        let later = written(&plan(seed, servers, &[cut], TAKEN_OVER, 4));
        assert_eq!(later.len(), 8, "seed {seed}: {later:?}");
        assert!(later.iter().all(|at| *at < TAKEN_OVER + 1_000), "seed {seed}: {later:?}");
    }
    assert!((40..120).contains(&taken_over), "of 160 commands it held {taken_over}");
}

#[test]
fn what_waits_at_a_server_that_is_cut_off_ends_in_its_time_where_nobody_reaches_the_broker() {
    for seed in 0..20 {
        let plan = plan(seed, 2, &[0, 1], CUT + 500, 4);
        let report = run(&plan, None, &Arc::new(Catalogue::embedded().unwrap()));
        // Whatever has not ended by then is one.
        assert!(report.violations.is_empty(), "{:#?}", report.violations);
        assert!(!report.trace.iter().any(|line| line.contains(" is written to ")));
    }
}

/// Whichever of them is asked, and whoever holds the dock.
#[test]
fn an_emergency_asked_of_a_server_that_is_cut_off_leaves_through_another() {
    for seed in 0..40 {
        let (servers, cut) = (2 + u8::try_from(seed % 2).unwrap(), u8::try_from(seed % 2).unwrap());
        assert_eq!(written(&emergencies(seed, servers, &[cut])).len(), 8, "seed {seed}");
    }
}

/// Every command that reached its dock ended as its dock said, unless its connection broke just then: what it says meanwhile is lost.
/// Answers how many there were.
fn all_are_known(plan: &Plan) -> usize {
    let report = run(plan, None, &Arc::new(Catalogue::embedded().unwrap()));
    assert!(report.violations.is_empty(), "seed {}: {:#?}", plan.seed, report.violations);
    // In the end the trace tells the lives of all: "40000 <at> DELIVERED SUCCEEDED …".
    let is_end = |line: &&String| {
        let words: Vec<&str> = line.split_whitespace().skip(2).take(2).collect();
        words == ["ACCEPTED", "SUCCEEDED"] || words == ["DELIVERED", "SUCCEEDED"]
    };
    let ended = report.trace.iter().filter(is_end).count();
    let reached = report.trace.iter().filter(|line| line.contains(" reaches DOCK")).count();
    let cut = report.trace.iter().filter(|line| line.ends_with(" is cut")).count();
    let known = reached.saturating_sub(cut)..=reached;
    assert!(known.contains(&ended), "seed {}: {:#?}", plan.seed, report.trace);
    ended
}

/// Whoever takes a dead server's docks over reads what is open there, and hears how jobs end meanwhile.
#[test]
fn the_end_of_a_job_that_is_told_while_another_takes_its_dock_over_counts() {
    let mut known = 0;
    for seed in 0..10 {
        let mut plan = plan(seed, 2, &[], 9_500, 30);
        for (happening, dock) in plan.happenings.iter_mut().zip(0_u64..) {
            if let What::Command(wish) = &mut happening.what {
                // One after another, while what is open is read.
                (wish.kind, wish.after) = (Kind::Job, 7_800 + dock * 100);
            }
        }
        let dies = What::ServerDies { server: 0, wait: 30_000 };
        plan.happenings.push(Happening { at: 10_500, what: dies });
        let slow = What::StoreSlows { wait: 12_000, by: 700 };
        plan.happenings.push(Happening { at: 12_500, what: slow });
        known += all_are_known(&plan);
    }
    assert!(known > 60, "{known}");
}

/// One server dies with answers that it could not save. Who takes its docks over may have been starting when they came;
/// somebody else heard them.
#[test]
fn an_answer_that_somebody_heard_counts_whoever_takes_its_dock_over() {
    let mut known = 0;
    for seed in 0..20 {
        let mut plan = plan(seed, 3, &[], 9_400, 30);
        for happening in &mut plan.happenings {
            if let What::Command(wish) = &mut happening.what {
                wish.after = 300;
            }
        }
        let mut happens = |at, what| plan.happenings.push(Happening { at, what });
        happens(9_000, What::ServerDies { server: 2, wait: 1_500 });
        happens(9_500, What::StoreSlows { wait: 1_400, by: 1_500 });
        happens(10_800, What::ServerDies { server: 1, wait: 40_000 });
        known += all_are_known(&plan);
    }
    assert!(known > 120, "{known}");
}

/// A server that gives its gateways away waits for what it has begun, and not for what comes meanwhile.
#[test]
fn gateways_change_hands_under_a_load_that_does_not_end() {
    let (begins, ends) = (3_900, 5_000);
    for seed in 0..2 {
        let mut plan = plan(seed, 2, &[0], begins, 4);
        let What::Command(wish) = plan.happenings.pop().unwrap().what else { unreachable!() };
        // At every moment something is being accepted.
        for (at, number) in (begins..ends).flat_map(|at| (0..3).map(move |number| (at, number))) {
            let dock = u8::try_from((at * 3 + number) % 8).unwrap();
            let what = What::Command(Wish { dock, aircraft: dock, ..wish.clone() });
            plan.happenings.push(Happening { at, what });
        }
        let report = run(&plan, None, &Arc::new(Catalogue::embedded().unwrap()));
        assert!(report.violations.is_empty(), "{:#?}", report.violations);
        let at = |line: &String| line.split_whitespace().next().unwrap().parse::<u64>().unwrap();
        // The server counts as one that cannot send from 4,000 on.
        let first_of = |dock: u8| {
            let name = format!(" is written to DOCK{dock}");
            let written = report.trace.iter().filter(|line| line.contains(&name)).map(at);
            written.filter(|at| *at > 4_000).min().unwrap()
        };
        let last = (0..8).map(first_of).max().unwrap();
        assert!(last < 5_500, "seed {seed}: others sent at {last}");
    }
}
