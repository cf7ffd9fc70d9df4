//! True stories pass, and every planted lie is found.

use super::*;

const ACCEPTED: i64 = 1_000_000;
const TIMEOUT: i64 = 3_000;
const SILENCE: i64 = 5_000;
/// When the time for an answer is over.
const DUE: i64 = ACCEPTED + TIMEOUT;

fn story(status: Status, failure: Option<FailureCode>, ended_at: i64) -> Story {
    Story {
        status,
        failure,
        response_code: None,
        accepted_at: ACCEPTED,
        ended_at: Some(ended_at),
        timeout_ms: TIMEOUT,
    }
}

fn succeeded() -> Story {
    story(Status::Succeeded, None, ACCEPTED + 50)
}

fn refused(code: &str) -> Story {
    let told = story(Status::Failed, Some(FailureCode::DeviceExecutionFailed), ACCEPTED + 50);
    Story { response_code: Some(code.to_owned()), ..told }
}

fn timed_out(failure: FailureCode, ended_at: i64) -> Story {
    story(Status::TimedOut, Some(failure), ended_at)
}

/// An answer that the broker took at once.
fn answer(says: Says, at: i64) -> Answer {
    Answer { at, settled_at: at + 5, fate: Fate::Taken, says }
}

fn case<'a>(
    story: &'a Story,
    outcomes: &'a [Outcome],
    answers: &'a [Answer],
    deaths: &'a [i64],
) -> Case<'a> {
    Case {
        story,
        outcomes,
        answers,
        deaths,
        is_job: false,
        silence_ms: SILENCE,
        is_unanswered: false,
        was_cut: false,
        was_there_ms: TIMEOUT,
        was_cancelled: false,
        was_preempted: false,
        is_owed: false,
    }
}

fn reply(story: &Story, outcomes: &[Outcome], answers: &[Answer], deaths: &[i64]) -> Verdict {
    judge(&case(story, outcomes, answers, deaths))
}

fn job(story: &Story, outcomes: &[Outcome], answers: &[Answer], deaths: &[i64]) -> Verdict {
    judge(&Case { is_job: true, ..case(story, outcomes, answers, deaths) })
}

/// An answer that the broker did not take.
fn of_fate(fate: Fate, at: i64) -> Answer {
    Answer { fate, ..answer(Says::Ended, at) }
}

#[test]
fn what_names_the_docks_own_outcome_is_exact() {
    let told = [answer(Says::Ended, ACCEPTED + 40)];
    assert_eq!(reply(&succeeded(), &[Outcome::Done], &told, &[]), Verdict::Exact);
    assert_eq!(reply(&succeeded(), &[Outcome::Running], &told, &[]), Verdict::Exact);
    assert_eq!(job(&succeeded(), &[Outcome::Succeeded], &told, &[]), Verdict::Exact);
    assert_eq!(reply(&refused("514116"), &[Outcome::Refused(514_116)], &told, &[]), Verdict::Exact);
    assert_eq!(job(&refused("0"), &[Outcome::Failed(1)], &told, &[]), Verdict::Exact);
}

/// Everything for which a command may never leave.
fn with_every_reason(case: Case<'_>) -> Case<'_> {
    Case { was_cut: true, was_there_ms: 0, was_cancelled: true, was_preempted: true, ..case }
}

fn never_left() -> [Story; 6] {
    [
        story(Status::Failed, Some(FailureCode::DeviceOffline), ACCEPTED),
        story(Status::Failed, Some(FailureCode::Cancelled), ACCEPTED),
        story(Status::Failed, Some(FailureCode::PreemptedByEmergency), ACCEPTED),
        story(Status::Failed, Some(FailureCode::TransportFailed), ACCEPTED),
        timed_out(FailureCode::DeviceOffline, DUE),
        timed_out(FailureCode::ExpiredBeforeSending, DUE),
    ]
}

#[test]
fn what_never_left_is_exact_where_nothing_arrived_and_a_lie_where_it_did() {
    for end in never_left() {
        let judged =
            |outcomes: &[Outcome]| judge(&with_every_reason(case(&end, outcomes, &[], &[])));
        assert_eq!(judged(&[]), Verdict::Exact, "{end:?}");
        for outcome in [Outcome::Done, Outcome::Ignored, Outcome::Refused(1)] {
            assert_eq!(judged(&[outcome]), Verdict::Wrong(Lie::Arrived), "{end:?}");
        }
    }
}

#[test]
fn what_never_left_has_a_reason_and_it_is_its_own() {
    for end in never_left() {
        let none = case(&end, &[], &[], &[]);
        assert_eq!(judge(&none), Verdict::Wrong(Lie::NoReason), "{end:?}");
        let reasons = [
            (
                Case { was_cut: true, ..none },
                &[FailureCode::DeviceOffline, FailureCode::TransportFailed][..],
            ),
            (
                Case { deaths: &[ACCEPTED], ..none },
                &[FailureCode::DeviceOffline, FailureCode::TransportFailed],
            ),
            (Case { was_there_ms: SENT_WAIT_MS - 1, ..none }, &[FailureCode::ExpiredBeforeSending]),
            (Case { was_cancelled: true, ..none }, &[FailureCode::Cancelled]),
            (Case { was_preempted: true, ..none }, &[FailureCode::PreemptedByEmergency]),
        ];
        for (case, codes) in reasons {
            let is_one = end.failure.is_some_and(|failure| codes.contains(&failure));
            let right = if is_one { Verdict::Exact } else { Verdict::Wrong(Lie::NoReason) };
            assert_eq!(judge(&case), right, "{end:?} {codes:?}");
        }
    }
    for code in [FailureCode::DeviceOffline, FailureCode::ExpiredBeforeSending] {
        let soon = timed_out(code, DUE - EARLY_MS - 1);
        let verdict = judge(&with_every_reason(case(&soon, &[], &[], &[])));
        assert_eq!(verdict, Verdict::Wrong(Lie::TooSoon), "{code:?}");
    }
}

/// As where a server loses commands and says that they may have left.
#[test]
fn what_may_have_left_and_never_did_had_something_in_its_way() {
    for code in [FailureCode::NoResponse, FailureCode::DispatchUncertain] {
        let end = timed_out(code, DUE);
        let not_sent = Verdict::Wrong(Lie::NotSent);
        let unknown = Verdict::Unknown(Why::NothingTold);
        assert_eq!(reply(&end, &[], &[], &[]), not_sent);
        assert_eq!(reply(&end, &[], &[], &[ACCEPTED - CHANCE_MS - 1]), not_sent);
        assert_eq!(reply(&end, &[], &[], &[ACCEPTED + 10]), unknown);
        assert_eq!(judge(&Case { was_cut: true, ..case(&end, &[], &[], &[]) }), unknown);
    }
}

/// What a server cannot have heard founds nothing, even if it is true.
#[test]
fn an_answer_that_the_broker_refused_or_nobody_reads_founds_nothing() {
    for (fate, verdict) in [
        (Fate::Taken, Verdict::Exact),
        (Fate::Lost, Verdict::Exact),
        (Fate::Dropped, Verdict::Exact),
        (Fate::Refused, Verdict::Wrong(Lie::Unfounded)),
        (Fate::TooLarge, Verdict::Wrong(Lie::Unfounded)),
    ] {
        let told = [of_fate(fate, ACCEPTED + 40)];
        assert_eq!(reply(&succeeded(), &[Outcome::Done], &told, &[]), verdict, "{fate:?}");
    }
}

#[test]
fn an_end_that_the_dock_did_not_bring_about_is_a_lie() {
    let told = [answer(Says::Ended, ACCEPTED + 40)];
    for outcomes in [&[][..], &[Outcome::Refused(1)], &[Outcome::Ignored], &[Outcome::Silent]] {
        let verdict = reply(&succeeded(), outcomes, &told, &[]);
        assert_eq!(verdict, Verdict::Wrong(Lie::NotDone), "{outcomes:?}");
    }
    for outcome in [Outcome::Running, Outcome::Failed(1)] {
        assert_eq!(job(&succeeded(), &[outcome], &told, &[]), Verdict::Wrong(Lie::NotDone));
    }
    for outcomes in [&[][..], &[Outcome::Done], &[Outcome::Succeeded], &[Outcome::Running]] {
        let verdict = job(&refused("1"), outcomes, &told, &[]);
        assert_eq!(verdict, Verdict::Wrong(Lie::NotFailed), "{outcomes:?}");
    }
    let verdict = reply(&refused("514117"), &[Outcome::Refused(514_116)], &told, &[]);
    assert_eq!(verdict, Verdict::Wrong(Lie::OtherCode));
}

#[test]
fn an_end_that_no_answer_told_of_is_a_lie_even_if_it_came_to_pass() {
    let runs = [answer(Says::Runs, ACCEPTED + 40)];
    let after = [answer(Says::Ended, ACCEPTED + 50 + CHANCE_MS + 1)];
    for answers in [&[][..], &runs, &after] {
        let verdict = job(&succeeded(), &[Outcome::Succeeded], answers, &[]);
        assert_eq!(verdict, Verdict::Wrong(Lie::Unfounded), "{answers:?}");
        let verdict = reply(&refused("7"), &[Outcome::Refused(7)], answers, &[]);
        assert_eq!(verdict, Verdict::Wrong(Lie::Unfounded), "{answers:?}");
    }
    let unmatched = story(Status::UnmatchedResponse, None, ACCEPTED + 50);
    let verdict = reply(&unmatched, &[Outcome::Done], &[], &[]);
    assert_eq!(verdict, Verdict::Wrong(Lie::Unfounded));
    let unconfirmed = timed_out(FailureCode::ExecutionUnconfirmed, DUE + SILENCE);
    let verdict = job(&unconfirmed, &[Outcome::Succeeded], &[], &[]);
    assert_eq!(verdict, Verdict::Wrong(Lie::Unfounded));
}

#[test]
fn what_arrived_twice_or_never_ended_is_wrong_whatever_is_said() {
    let told = [answer(Says::Ended, ACCEPTED + 40)];
    let verdict = reply(&succeeded(), &[Outcome::Done, Outcome::Done], &told, &[]);
    assert_eq!(verdict, Verdict::Wrong(Lie::Twice));
    for status in [Status::Accepted, Status::Delivered] {
        let open = Story { ended_at: None, ..story(status, None, 0) };
        let verdict = reply(&open, &[Outcome::Done], &told, &[]);
        assert_eq!(verdict, Verdict::Wrong(Lie::Unended));
    }
    let nonsense = story(Status::Succeeded, Some(FailureCode::Cancelled), ACCEPTED + 50);
    assert_eq!(reply(&nonsense, &[Outcome::Done], &told, &[]), Verdict::Wrong(Lie::NoEnd));
}

#[test]
fn nobody_knows_what_was_not_told() {
    for code in [FailureCode::NoResponse, FailureCode::DispatchUncertain] {
        let end = timed_out(code, DUE);
        let done = [Outcome::Done];
        for (answers, deaths, why) in [
            (&[][..], &[][..], Why::NothingTold),
            (&[answer(Says::Nonsense, DUE - 2_000)], &[], Why::Unreadable),
            (&[answer(Says::Ended, DUE + 1)], &[], Why::TooLate),
            (&[answer(Says::Ended, DUE - 10)], &[], Why::TooLate),
            (&[answer(Says::Ended, DUE - 2_000)], &[DUE - 1_990], Why::DiedWithServer),
            (&[of_fate(Fate::Lost, DUE - 2_500)], &[], Why::LostOnTheWay),
            (&[of_fate(Fate::TooLarge, DUE - 2_500)], &[], Why::TooLarge),
            // Its broker may have died just then, or may have had no time to take it.
            (&[of_fate(Fate::Dropped, DUE - 2_500)], &[DUE - 3_000], Why::LostOnTheWay),
            (&[of_fate(Fate::Dropped, DUE - 2_500)], &[DUE - 1_000], Why::LostOnTheWay),
            (&[of_fate(Fate::Dropped, DUE - TAKEN_WAIT_MS + 1)], &[], Why::LostOnTheWay),
        ] {
            let verdict = reply(&end, &done, answers, deaths);
            assert_eq!(verdict, Verdict::Unknown(why), "{code:?} {answers:?}");
        }
    }
}

#[test]
fn unknown_is_a_lie_where_the_answer_was_there_in_time() {
    let heard = [answer(Says::Ended, DUE - 2_000)];
    for deaths in [&[][..], &[DUE - 2_001], &[DUE - 2_000 + 5 + CHANCE_MS + 1]] {
        let end = timed_out(FailureCode::NoResponse, DUE);
        let verdict = reply(&end, &[Outcome::Done], &heard, deaths);
        assert_eq!(verdict, Verdict::Wrong(Lie::Unheeded), "{deaths:?}");
    }
    // A job that told of itself has answered.
    let runs = [answer(Says::Runs, DUE - 2_000)];
    for code in [FailureCode::NoResponse, FailureCode::DispatchUncertain] {
        let verdict = job(&timed_out(code, DUE), &[Outcome::Succeeded], &runs, &[]);
        assert_eq!(verdict, Verdict::Wrong(Lie::Unheeded));
    }
    // The good answer came first.
    let answers = [answer(Says::Ended, DUE - 2_000), answer(Says::Nonsense, DUE - 20)];
    let unmatched = story(Status::UnmatchedResponse, None, DUE);
    let verdict = reply(&unmatched, &[Outcome::Done], &answers, &[]);
    assert_eq!(verdict, Verdict::Wrong(Lie::Unheeded));
}

/// As where one message in so many is neither confirmed nor heeded: the link ends at some time, and its answer reads as lost.
#[test]
fn unknown_is_a_lie_where_the_answer_was_lost_and_no_connection_was() {
    let dropped = [of_fate(Fate::Dropped, DUE - 2_500)];
    for answers in [dropped, [of_fate(Fate::Refused, DUE - 2_500)]] {
        for deaths in [&[][..], &[DUE - 3_501], &[DUE - 499]] {
            let end = timed_out(FailureCode::NoResponse, DUE);
            let verdict = reply(&end, &[Outcome::Done], &answers, deaths);
            assert_eq!(verdict, Verdict::Wrong(Lie::Swallowed), "{answers:?} {deaths:?}");
        }
    }
    // One that was taken too late says why nobody knows.
    let answers = [dropped[0], answer(Says::Ended, DUE - 10)];
    let verdict = reply(&timed_out(FailureCode::NoResponse, DUE), &[Outcome::Done], &answers, &[]);
    assert_eq!(verdict, Verdict::Unknown(Why::TooLate));
}

#[test]
fn a_dock_that_nothing_keeps_from_answering_has_told_something() {
    let end = timed_out(FailureCode::NoResponse, DUE);
    let owed = |outcomes: &[Outcome], answers: &[Answer], deaths: &[i64], was_cut| {
        judge(&Case { is_owed: true, was_cut, ..case(&end, outcomes, answers, deaths) })
    };
    let swallowed = Verdict::Wrong(Lie::Swallowed);
    for outcome in [Outcome::Done, Outcome::Refused(7), Outcome::Succeeded, Outcome::Failed(1)] {
        assert_eq!(owed(&[outcome], &[], &[], false), swallowed, "{outcome:?}");
    }
    let nothing_told = Verdict::Unknown(Why::NothingTold);
    for outcomes in [&[Outcome::Ignored][..], &[Outcome::Silent], &[Outcome::Running]] {
        assert_eq!(owed(outcomes, &[], &[], false), nothing_told, "{outcomes:?}");
    }
    assert_eq!(owed(&[Outcome::Done], &[], &[], true), nothing_told);
    for death in [ACCEPTED - CHANCE_MS, DUE, DUE + CHANCE_MS] {
        assert_eq!(owed(&[Outcome::Done], &[], &[death], false), nothing_told, "{death}");
    }
    for death in [ACCEPTED - CHANCE_MS - 1, DUE + CHANCE_MS + 1] {
        assert_eq!(owed(&[Outcome::Done], &[], &[death], false), swallowed, "{death}");
    }
    let nonsense = [answer(Says::Nonsense, DUE - 2_000)];
    let verdict = owed(&[Outcome::Done], &nonsense, &[], false);
    assert_eq!(verdict, Verdict::Unknown(Why::Unreadable));
}

#[test]
fn a_job_that_fell_silent_is_unknown_after_its_silence_and_not_before() {
    let runs = answer(Says::Runs, ACCEPTED + 100);
    let ended_at = ACCEPTED + 100 + SILENCE;
    let end = |at| timed_out(FailureCode::ExecutionUnconfirmed, at);
    let done = [Outcome::Succeeded];
    assert_eq!(job(&end(ended_at), &done, &[runs], &[]), Verdict::Unknown(Why::NothingTold));
    let soon = job(&end(ended_at - EARLY_MS - 1), &done, &[runs], &[]);
    assert_eq!(soon, Verdict::Wrong(Lie::TooSoon));
    let again = answer(Says::Runs, ended_at - 2_000);
    let verdict = job(&end(ended_at), &done, &[runs, again], &[]);
    assert_eq!(verdict, Verdict::Wrong(Lie::TooSoon), "its silence had not begun");
    let last = answer(Says::Ended, ended_at - 2_000);
    let verdict = job(&end(ended_at), &done, &[runs, last], &[]);
    assert_eq!(verdict, Verdict::Wrong(Lie::Unheeded));
    let killed = job(&end(ended_at), &done, &[runs, last], &[ended_at - 1_900]);
    assert_eq!(killed, Verdict::Unknown(Why::DiedWithServer));
    assert_eq!(reply(&end(ended_at), &done, &[runs], &[]), Verdict::Wrong(Lie::Unfounded));
}

#[test]
fn time_that_is_not_over_is_a_lie() {
    for code in [FailureCode::NoResponse, FailureCode::DispatchUncertain] {
        let verdict = reply(&timed_out(code, DUE - EARLY_MS - 1), &[Outcome::Done], &[], &[]);
        assert_eq!(verdict, Verdict::Wrong(Lie::TooSoon));
    }
}

#[test]
fn an_answer_that_cannot_be_its_own_leaves_it_unknown() {
    let unmatched = story(Status::UnmatchedResponse, None, ACCEPTED + 50);
    let answers = [answer(Says::Nonsense, ACCEPTED + 40), answer(Says::Ended, ACCEPTED + 900)];
    let verdict = job(&unmatched, &[Outcome::Succeeded], &answers, &[]);
    assert_eq!(verdict, Verdict::Unknown(Why::TooLate));
    let verdict = reply(&unmatched, &[Outcome::Done], &answers[..1], &[]);
    assert_eq!(verdict, Verdict::Unknown(Why::Unreadable));
}

#[test]
fn what_nothing_answers_is_delivered_where_it_arrived() {
    let delivered = story(Status::Delivered, None, ACCEPTED + 50);
    let unanswered = |outcomes, was_cut| {
        judge(&Case { is_unanswered: true, was_cut, ..case(&delivered, outcomes, &[], &[]) })
    };
    for was_cut in [false, true] {
        assert_eq!(unanswered(&[Outcome::Silent], was_cut), Verdict::Exact);
        assert_eq!(unanswered(&[Outcome::Ignored], was_cut), Verdict::Exact);
        let twice = unanswered(&[Outcome::Silent, Outcome::Silent], was_cut);
        assert_eq!(twice, Verdict::Wrong(Lie::Twice));
    }
    assert_eq!(unanswered(&[], true), Verdict::Unknown(Why::LostOnTheWay));
    assert_eq!(unanswered(&[], false), Verdict::Wrong(Lie::NotDone));
    let answered = reply(&delivered, &[Outcome::Done], &[], &[]);
    assert_eq!(answered, Verdict::Wrong(Lie::NoEnd));
}

#[test]
fn what_is_received_after_its_deadline_is_stale() {
    let told = succeeded();
    assert!(!is_stale(&told, &[]));
    assert!(!is_stale(&told, &[DUE, DUE + CHANCE_MS]));
    assert!(is_stale(&told, &[ACCEPTED, DUE + CHANCE_MS + 1]));
}

#[test]
fn the_time_an_answer_was_with_a_server_that_died_is_told() {
    let end = timed_out(FailureCode::NoResponse, DUE);
    let answers = [answer(Says::Ended, DUE - 2_000), answer(Says::Runs, DUE - 2_500)];
    assert_eq!(lost_for(&case(&end, &[], &answers, &[DUE - 1_900])), Some(95));
    assert_eq!(lost_for(&case(&end, &[], &answers, &[])), None);
}
