//! Every phase with every input. What a row does not list must be ignored.

use super::*;

/// What a decision amounts to: `-` for nothing, `= cause` for evidence, else the new phase with its causes.
fn told(decision: &Decision) -> String {
    let causes = |entries: &[Entry]| {
        entries.iter().map(|entry| cause(&entry.proof)).collect::<Vec<_>>().join(" ")
    };
    match decision {
        Decision::Ignore => "-".to_owned(),
        Decision::Record(entry) => format!("= {}", cause(&entry.proof)),
        Decision::Move { life, entries, effect } => {
            let phase = match life.phase {
                Phase::Waiting => "waiting".to_owned(),
                Phase::Sending => "sending".to_owned(),
                Phase::Delivered => "delivered".to_owned(),
                Phase::Ended(_) => {
                    let code = life.phase.failure().map(|code| format!("/{}", code.as_str()));
                    format!("{}{}", life.status().as_str(), code.unwrap_or_default())
                }
            };
            let publish = if effect.is_some() { "publish " } else { "" };
            format!("{phase} {publish}[{}]", causes(entries))
        }
    }
}

/// Every input under a name; those `at` a limit come when the command is due, the others before.
fn inputs(spec: &Spec) -> Vec<(&'static str, Input)> {
    let other_gateway = Reply { gateway: gateway("DOCK2"), ..ok(spec) };
    let other_method = Reply { method: Some("cover_close".to_owned()), ..ok(spec) };
    let running = progress(spec, JobState::Open, 40);
    let foreign = Progress { gateway: gateway("DOCK2"), ..running.clone() };
    let of_method = Progress { command_methods: vec!["cover_close".to_owned()], ..running.clone() };
    let of_job = Progress {
        bid: Some(Uuid::from_u128(9).to_string()),
        job_ref: Some("flight-2".to_owned()),
        ..running.clone()
    };
    let nameless = Progress { bid: None, ..running.clone() };
    vec![
        ("turn online", ONLINE),
        ("turn absent", Input::Turn(ABSENT)),
        ("turn never heard", Input::Turn(Presence::NeverHeard)),
        ("turn online at", ONLINE),
        ("turn absent at", Input::Turn(ABSENT)),
        ("turn never heard at", Input::Turn(Presence::NeverHeard)),
        ("tick", TICK),
        ("tick absent", Input::Tick(ABSENT)),
        ("tick at", TICK),
        ("tick absent at", Input::Tick(ABSENT)),
        ("tick never heard at", Input::Tick(Presence::NeverHeard)),
        ("confirmed", broker_confirmed()),
        ("not connected", Input::NotSent(NotSent::NotConnected)),
        ("no subscriber", Input::NotSent(NotSent::NoSubscriber)),
        ("withheld", Input::NotSent(NotSent::Withheld)),
        ("refused by broker", Input::NotSent(NotSent::Refused("quota".to_owned()))),
        ("gateway gone", Input::NotSent(NotSent::GatewayGone)),
        ("send unclear", Input::SendUnclear { reason: "cut".to_owned() }),
        ("found", Input::FoundAfterRestart),
        ("reply 0", Input::Reply(ok(spec))),
        ("reply 0 without method", Input::Reply(Reply { method: None, ..ok(spec) })),
        ("reply 0 at", Input::Reply(ok(spec))),
        ("reply open", Input::Reply(job_reply(spec, JobState::Open))),
        ("reply paused", Input::Reply(job_reply(spec, JobState::Paused))),
        ("reply done", Input::Reply(job_reply(spec, JobState::Succeeded))),
        ("reply job failed", Input::Reply(job_reply(spec, JobState::Failed))),
        ("reply refused", Input::Reply(reply(spec, Verdict::Refused))),
        ("reply unreadable", Input::Reply(reply(spec, Verdict::Unreadable))),
        ("reply of gateway 2", Input::Reply(other_gateway)),
        ("reply of method 2", Input::Reply(other_method)),
        ("progress", Input::Progress(running)),
        ("progress paused", Input::Progress(progress(spec, JobState::Paused, 40))),
        ("progress done", Input::Progress(progress(spec, JobState::Succeeded, 100))),
        ("progress failed", Input::Progress(progress(spec, JobState::Failed, 40))),
        ("progress nameless", Input::Progress(nameless)),
        ("progress of gateway 2", Input::Progress(foreign)),
        ("progress of method 2", Input::Progress(of_method)),
        ("progress of job 2", Input::Progress(of_job)),
        ("cancel", cancel()),
        ("preempt", preempt()),
        ("movement over", Input::MovementOver),
    ]
}

type Row = (&'static str, &'static str);

/// Gives the story every input; what `rows` does not list must be ignored, and every row must be met.
fn check(name: &str, story: &Story, rows: &[Row]) {
    let inputs = inputs(&story.spec);
    for (row, _) in rows {
        assert!(inputs.iter().any(|(input, _)| input == row), "{name}: no input {row}");
    }
    let limit = story.life.due.map_or(DEADLINE, |due| due.mono.as_millis());
    for (input_name, input) in inputs {
        let wanted = rows.iter().find(|(row, _)| *row == input_name).map_or("-", |row| row.1);
        let is_at_limit = input_name.ends_with(" at");
        let moved = story.clone().at(if is_at_limit { limit } else { limit.min(DEADLINE) - 1 });
        assert_eq!(told(&moved.decide(&input)), wanted, "{name} given {input_name}");
    }
}

const NEVER_SENT_OFFLINE: &str = "TIMED_OUT/DEVICE_OFFLINE [timer]";
const NEVER_SENT_EXPIRED: &str = "TIMED_OUT/EXPIRED_BEFORE_SENDING [timer]";
const STARTED: &str = "delivered [reply]";
const DONE: &str = "SUCCEEDED [reply]";
const REFUSED: &str = "FAILED/DEVICE_EXECUTION_FAILED [reply]";
const UNMATCHED: &str = "UNMATCHED_RESPONSE [reply]";
const RUNS: &str = "delivered [progress]";
const JOB_DONE: &str = "SUCCEEDED [progress]";
const JOB_FAILED: &str = "FAILED/DEVICE_EXECUTION_FAILED [progress]";

/// What waits, whatever may become of a turn.
const WAITING: &[Row] = &[
    ("turn online", "sending publish [sending_claimed]"),
    ("turn online at", NEVER_SENT_EXPIRED),
    ("turn absent at", NEVER_SENT_OFFLINE),
    ("turn never heard at", NEVER_SENT_OFFLINE),
    ("tick at", NEVER_SENT_EXPIRED),
    ("tick absent at", NEVER_SENT_OFFLINE),
    ("tick never heard at", NEVER_SENT_OFFLINE),
    ("cancel", "FAILED/CANCELLED [cancelled]"),
];

/// Answers to what was never sent: evidence, and nothing else.
const GUESSED: &[Row] = &[
    ("reply 0", "= reply"),
    ("reply 0 at", "= reply"),
    ("reply 0 without method", "= reply"),
    ("reply open", "= reply"),
    ("reply paused", "= reply"),
    ("reply done", "= reply"),
    ("reply job failed", "= reply"),
    ("reply refused", "= reply"),
    // From here on they answer something else.
    ("reply unreadable", "= reply"),
    ("reply of gateway 2", "= reply"),
    ("reply of method 2", "= reply"),
];

/// The first answer to a job that may have been sent.
const JOB_ANSWER: &[Row] = &[
    ("reply 0", STARTED),
    ("reply 0 at", STARTED),
    ("reply 0 without method", STARTED),
    ("reply open", STARTED),
    ("reply paused", STARTED),
    ("reply done", DONE),
    ("reply job failed", REFUSED),
    ("reply refused", REFUSED),
    ("reply unreadable", UNMATCHED),
    ("reply of gateway 2", UNMATCHED),
    ("reply of method 2", UNMATCHED),
];

/// The first answer to what ends with its answer.
const FINAL_ANSWER: &[Row] = &[
    ("reply 0", DONE),
    ("reply 0 at", DONE),
    ("reply 0 without method", DONE),
    ("reply open", DONE),
    ("reply paused", DONE),
    ("reply done", DONE),
    ("reply job failed", DONE),
    ("reply refused", REFUSED),
    ("reply unreadable", UNMATCHED),
    ("reply of gateway 2", UNMATCHED),
    ("reply of method 2", UNMATCHED),
];

const PROGRESS: &[Row] = &[
    ("progress", RUNS),
    ("progress nameless", RUNS),
    ("progress paused", RUNS),
    ("progress done", JOB_DONE),
    ("progress failed", JOB_FAILED),
];

/// What the sender says of a message that somebody has shown to have: evidence.
const AFTERTHOUGHTS: &[Row] = &[
    ("confirmed", "= broker_confirmed"),
    ("not connected", "= not_sent"),
    ("no subscriber", "= not_sent"),
    ("withheld", "= not_sent"),
    ("refused by broker", "= not_sent"),
    ("gateway gone", "= not_sent"),
    ("send unclear", "= send_unclear"),
];

fn rows(parts: &[&[Row]]) -> Vec<Row> {
    parts.concat()
}

#[test]
fn waiting_sends_only_on_a_turn_with_the_gateway_there_and_the_deadline_ahead() {
    let preempted: &[Row] = &[("preempt", "FAILED/PREEMPTED_BY_EMERGENCY [preempted]")];
    check("a movement", &Story::new(takeoff()), &rows(&[WAITING, GUESSED, preempted]));

    let tried: &[Row] = &[("turn never heard", "sending publish [sending_claimed]")];
    check("no movement", &Story::new(cover_open()), &rows(&[WAITING, GUESSED, tried]));

    let failing = Spec { if_offline: IfOffline::Fail, ..takeoff() };
    let fails: &[Row] = &[
        ("turn absent", "FAILED/DEVICE_OFFLINE [gateway_absent]"),
        ("turn never heard", "FAILED/DEVICE_OFFLINE [gateway_absent]"),
    ];
    check("if_offline fail", &Story::new(failing), &rows(&[WAITING, GUESSED, preempted, fails]));

    let absent: &[Row] = &[("turn absent", "FAILED/DEVICE_OFFLINE [gateway_absent]")];
    let emergency = Story::new(return_home());
    check("an emergency", &emergency, &rows(&[WAITING, GUESSED, absent, tried]));
}

#[test]
fn waiting_again_after_a_proven_non_send_still_heeds_whoever_shows_to_have_it() {
    let again = Story::sending(takeoff()).given(Input::NotSent(NotSent::NotConnected));
    assert_eq!(again.life.phase, Phase::Waiting);
    let shown: &[Row] = &[
        ("preempt", "FAILED/PREEMPTED_BY_EMERGENCY [preempted]"),
        ("confirmed", "delivered [broker_confirmed]"),
        ("progress", RUNS),
        ("progress paused", RUNS),
        ("progress done", JOB_DONE),
        ("progress failed", JOB_FAILED),
    ];
    check("waiting again", &again, &rows(&[WAITING, JOB_ANSWER, shown]));
}

#[test]
fn sending_never_publishes_and_ends_by_proof_or_as_uncertain() {
    let uncertain: &[Row] = &[
        ("tick at", "TIMED_OUT/DISPATCH_UNCERTAIN [timer]"),
        ("tick absent at", "TIMED_OUT/DISPATCH_UNCERTAIN [timer]"),
        ("tick never heard at", "TIMED_OUT/DISPATCH_UNCERTAIN [timer]"),
        ("send unclear", "= send_unclear"),
        ("found", "= found_after_restart"),
        ("refused by broker", "FAILED/TRANSPORT_FAILED [not_sent]"),
        ("gateway gone", "FAILED/TRANSPORT_FAILED [not_sent]"),
    ];
    let waits: &[Row] = &[
        ("withheld", "TIMED_OUT/EXPIRED_BEFORE_SENDING [not_sent]"),
        ("not connected", "waiting [not_sent]"),
        ("no subscriber", "waiting [not_sent]"),
        ("confirmed", "delivered [broker_confirmed]"),
    ];
    let marked: &[Row] = &[("preempt", "sending [preempted]")];
    let job = rows(&[uncertain, waits, marked, JOB_ANSWER, PROGRESS]);
    check("a movement", &Story::sending(takeoff()), &job);

    let given_up: &[Row] = &[
        ("withheld", "FAILED/PREEMPTED_BY_EMERGENCY [not_sent]"),
        ("not connected", "FAILED/PREEMPTED_BY_EMERGENCY [not_sent]"),
        ("no subscriber", "FAILED/PREEMPTED_BY_EMERGENCY [not_sent]"),
        ("confirmed", "delivered [broker_confirmed]"),
    ];
    let story = Story::sending(takeoff()).given(preempt());
    check("a preempted one", &story, &rows(&[uncertain, given_up, JOB_ANSWER, PROGRESS]));

    let failing: &[Row] = &[
        ("withheld", "TIMED_OUT/EXPIRED_BEFORE_SENDING [not_sent]"),
        ("not connected", "FAILED/DEVICE_OFFLINE [not_sent]"),
        ("no subscriber", "FAILED/DEVICE_OFFLINE [not_sent]"),
        ("confirmed", "delivered [broker_confirmed]"),
    ];
    let emergency = rows(&[uncertain, failing, FINAL_ANSWER, PROGRESS]);
    check("an emergency", &Story::sending(return_home()), &emergency);

    let last: &[Row] = &[
        ("withheld", "TIMED_OUT/EXPIRED_BEFORE_SENDING [not_sent]"),
        ("not connected", "waiting [not_sent]"),
        ("no subscriber", "waiting [not_sent]"),
        ("confirmed", "DELIVERED [broker_confirmed]"),
    ];
    let silent = rows(&[uncertain, last, marked, FINAL_ANSWER, PROGRESS]);
    check("one without answer", &Story::sending(stick_control()), &silent);
}

#[test]
fn delivered_ends_by_answer_progress_or_silence() {
    let no_response: &[Row] = &[
        ("tick at", "TIMED_OUT/NO_RESPONSE [timer]"),
        ("tick absent at", "TIMED_OUT/NO_RESPONSE [timer]"),
        ("tick never heard at", "TIMED_OUT/NO_RESPONSE [timer]"),
    ];
    let fell_silent: &[Row] = &[
        ("tick at", "TIMED_OUT/EXECUTION_UNCONFIRMED [timer]"),
        ("tick absent at", "TIMED_OUT/EXECUTION_UNCONFIRMED [timer]"),
        ("tick never heard at", "TIMED_OUT/EXECUTION_UNCONFIRMED [timer]"),
    ];
    let job = rows(&[no_response, JOB_ANSWER, PROGRESS, AFTERTHOUGHTS]);
    check("unanswered", &Story::delivered(takeoff()), &job);
    let fast = rows(&[no_response, FINAL_ANSWER, PROGRESS, AFTERTHOUGHTS]);
    check("by reply", &Story::delivered(return_home()), &fast);

    let started = rows(&[fell_silent, GUESSED, PROGRESS, AFTERTHOUGHTS]);
    check("answered", &Story::started(takeoff()), &started);
    let reporting = Story::delivered(takeoff()).progress(JobState::Open, 5);
    let unanswered = rows(&[fell_silent, JOB_ANSWER, PROGRESS, AFTERTHOUGHTS]);
    check("reporting before its answer", &reporting, &unanswered);
}

#[test]
fn ended_keeps_its_state_and_what_still_comes() {
    let filled: &[Row] = &[
        ("reply unreadable", "= reply"),
        ("reply of gateway 2", "= reply"),
        ("reply of method 2", "= reply"),
    ];
    let fills = |state: &'static str| -> Vec<Row> {
        GUESSED.iter().take(8).map(|(name, _)| (*name, state)).collect()
    };
    let goes_on = |state: &'static str| -> Vec<Row> {
        ["progress", "progress paused", "progress done", "progress failed"]
            .map(|name| (name, state))
            .to_vec()
    };

    let ticks = |state: &'static str| -> Vec<Row> {
        ["tick at", "tick absent at", "tick never heard at"].map(|name| (name, state)).to_vec()
    };
    let unanswered = Story::delivered(cover_open()).at(DEADLINE).given(TICK);
    let state = "TIMED_OUT/NO_RESPONSE [reply]";
    let late = "TIMED_OUT/NO_RESPONSE [progress]";
    let let_go = "TIMED_OUT/NO_RESPONSE []";
    let nameless: &[Row] = &[("progress nameless", late)];
    let common = rows(&[&fills(state), filled, &goes_on(late), nameless, AFTERTHOUGHTS]);
    check("timed out", &unanswered, &common);
    let over: &[Row] = &[("movement over", let_go)];
    for spec in [takeoff(), return_home()] {
        let held = Story::delivered(spec).at(DEADLINE).given(TICK);
        check("a movement timed out", &held, &rows(&[&common, &ticks(let_go), over]));
        let after = held.life.due.map_or(0, |due| due.mono.as_millis());
        check("a movement let go", &held.at(after).given(TICK), &common);
    }

    let uncertain = Story::sending(takeoff()).at(DEADLINE).given(TICK);
    let state = "TIMED_OUT/DISPATCH_UNCERTAIN [reply]";
    let late = "TIMED_OUT/DISPATCH_UNCERTAIN [progress]";
    let let_go = "TIMED_OUT/DISPATCH_UNCERTAIN []";
    let common = rows(&[&fills(state), filled, &goes_on(late), AFTERTHOUGHTS, &ticks(let_go)]);
    let freed = "TIMED_OUT/DISPATCH_UNCERTAIN [not_sent]";
    let proof = ["not connected", "no subscriber", "withheld", "refused by broker", "gateway gone"];
    let freed = proof.map(|name| (name, freed));
    let more: &[Row] = &[("progress nameless", late), ("movement over", let_go)];
    check("a movement of which nothing is known", &uncertain, &rows(&[&freed, &common, more]));

    let silent = Story::started(takeoff());
    let due = silent.mono + SILENCE;
    let late = "TIMED_OUT/EXECUTION_UNCONFIRMED [progress]";
    let let_go = "TIMED_OUT/EXECUTION_UNCONFIRMED []";
    let common = rows(&[GUESSED, &goes_on(late), AFTERTHOUGHTS, &ticks(let_go)]);
    let more: &[Row] = &[("progress nameless", late), ("movement over", let_go)];
    check("a silent flight", &silent.at(due).given(TICK), &rows(&[&common, more]));

    let cancelled = Story::new(takeoff()).given(cancel());
    let state = "FAILED/CANCELLED [reply]";
    let late = "FAILED/CANCELLED [progress]";
    check(
        "cancelled, so never sent",
        &cancelled,
        &rows(&[&fills(state), filled, &goes_on(late), AFTERTHOUGHTS]),
    );

    let done = Story::started(takeoff()).progress(JobState::Succeeded, 100);
    check("job done", &done, &rows(&[GUESSED, AFTERTHOUGHTS]));

    let on_reply = Spec { complete_on: CompleteOn::Reply, ..takeoff() };
    let running = Story::started(on_reply);
    assert_eq!(running.status(), Status::Succeeded);
    let late = "SUCCEEDED [progress]";
    let let_go: &[Row] = &[
        ("tick at", "SUCCEEDED []"),
        ("tick absent at", "SUCCEEDED []"),
        ("tick never heard at", "SUCCEEDED []"),
        ("movement over", "SUCCEEDED []"),
    ];
    let nameless: &[Row] = &[("progress nameless", late)];
    check(
        "succeeded on its reply, still running",
        &running,
        &rows(&[GUESSED, &goes_on(late), nameless, let_go, AFTERTHOUGHTS]),
    );

    let homing = Story::delivered(return_home());
    let answer = ok(&homing.spec);
    let homing = homing.reply(answer);
    check(
        "return home, still flying",
        &homing,
        &rows(&[GUESSED, &goes_on(late), nameless, let_go, AFTERTHOUGHTS]),
    );
}

#[test]
fn every_status_stands_for_its_phase() {
    for (phase, status) in [
        (Phase::Waiting, Status::Accepted),
        (Phase::Sending, Status::Accepted),
        (Phase::Delivered, Status::Delivered),
        (Phase::Ended(Outcome::Delivered), Status::Delivered),
        (Phase::Ended(Outcome::Succeeded), Status::Succeeded),
        (Phase::Ended(Outcome::Failed(FailureCode::Cancelled)), Status::Failed),
        (Phase::Ended(Outcome::TimedOut(FailureCode::NoResponse)), Status::TimedOut),
        (Phase::Ended(Outcome::Unmatched), Status::UnmatchedResponse),
    ] {
        assert_eq!(phase.status(), status);
        assert_eq!(Status::parse(status.as_str()), Some(status));
    }
    for code in FailureCode::ALL {
        assert_eq!(FailureCode::parse(code.as_str()), Some(code));
    }
}
