//! The stories behind the harder cells of the table, each told by the name of its test.

use super::*;

/// Of the last entry, where it is a reply: whether it is called late, a duplicate, and another's.
fn evidence(story: &Story) -> Option<(bool, bool, bool)> {
    let Some(Proof::Reply { late_response, duplicate, mismatch, .. }) = story.last() else {
        return None;
    };
    Some((*late_response, *duplicate, mismatch.is_some()))
}

#[test]
fn a_turn_in_the_last_millisecond_sends_and_one_at_the_deadline_does_not() {
    assert_eq!(Story::new(takeoff()).at(DEADLINE - 1).given(ONLINE).publishes, 1);
    let late = Story::new(takeoff()).at(DEADLINE).given(ONLINE);
    assert_eq!((late.publishes, late.status()), (0, Status::TimedOut));
    assert_eq!(late.failure(), Some(FailureCode::ExpiredBeforeSending));
}

#[test]
fn a_wall_clock_that_was_set_back_does_not_let_an_old_command_out() {
    let story = Story::new(takeoff());
    let now = Now { wall: Timestamp::from_millis(0), mono: Mono::from_millis(DEADLINE) };
    let decision = decide(&story.spec, &story.life, &ONLINE, moment(now));
    assert!(matches!(decision, Decision::Move { effect: None, .. }), "{decision:?}");
}

#[test]
fn a_deadline_of_another_boot_that_was_not_found_again_lets_nothing_out() {
    let story = Story::new(takeoff());
    let rebooted = Moment { boot: BootId([2; 16]), ..moment(at(5)) };
    let decision = decide(&story.spec, &story.life, &ONLINE, rebooted);
    assert!(matches!(decision, Decision::Move { effect: None, .. }), "{decision:?}");
}

#[test]
fn a_movement_that_waits_is_never_tried_on_a_gateway_nobody_has_heard_of() {
    let story = Story::new(takeoff()).given(Input::Turn(Presence::NeverHeard));
    assert_eq!((story.publishes, story.life.phase), (0, Phase::Waiting));
}

#[test]
fn where_a_gateway_could_not_be_heard_yet_a_movement_waits_for_its_first_word() {
    for if_offline in [IfOffline::Wait, IfOffline::Fail] {
        let mut story = Story::new(takeoff());
        story.spec.if_offline = if_offline;
        let story = story.given(Input::Turn(Presence::NotHeardYet));
        assert_eq!((story.publishes, story.life.phase), (0, Phase::Waiting));
        assert_eq!(story.clone().given(ONLINE).publishes, 1);
        let late = story.at(DEADLINE).given(Input::Tick(Presence::NotHeardYet));
        assert_eq!(late.status(), Status::TimedOut);
        assert_eq!(late.failure(), Some(FailureCode::DeviceOffline));
    }
}

#[test]
fn a_message_that_provably_never_left_is_sent_again_until_the_deadline_and_not_after() {
    let again = Story::sending(takeoff()).given(Input::NotSent(NotSent::NotConnected));
    assert_eq!(again.clone().given(ONLINE).publishes, 2);
    assert_eq!(again.at(DEADLINE).given(ONLINE).publishes, 1);
}

#[test]
fn a_movement_that_was_being_sent_when_an_emergency_came_is_not_sent_after_it() {
    let story = Story::sending(takeoff())
        .given(preempt())
        .given(Input::NotSent(NotSent::NotConnected))
        .given(ONLINE);
    assert_eq!((story.publishes, story.status()), (1, Status::Failed));
    assert_eq!(story.failure(), Some(FailureCode::PreemptedByEmergency));
    assert!(story.life.failure_reason.as_deref().is_some_and(|reason| reason.contains("e-1")));
}

#[test]
fn a_movement_withdrawn_at_the_gate_failed_by_the_emergency_and_one_kept_back_in_time_expired() {
    let withheld = || Input::NotSent(NotSent::Withheld);
    let withdrawn = Story::sending(takeoff()).given(preempt()).given(withheld());
    assert_eq!(withdrawn.status(), Status::Failed);
    assert_eq!(withdrawn.failure(), Some(FailureCode::PreemptedByEmergency));
    assert!(withdrawn.life.failure_reason.as_deref().is_some_and(|it| it.contains("e-1")));
    let Some(Proof::NotSent { reason }) = withdrawn.last() else { unreachable!("a proof") };
    assert!(reason.contains("e-1") && !reason.contains("deadline"), "{reason}");
    assert!(!withdrawn.life.holds_motion && !withdrawn.life.needs_care());
    let expired = Story::sending(takeoff()).given(withheld());
    assert_eq!(expired.status(), Status::TimedOut);
    assert_eq!(expired.failure(), Some(FailureCode::ExpiredBeforeSending));
    assert!(!expired.life.holds_motion && !expired.life.needs_care());
}

#[test]
fn a_preempted_movement_that_did_leave_shows_no_reason_to_have_failed() {
    let sending = Story::sending(takeoff()).given(preempt()).given(preempt());
    let marks = sending.entries.iter().filter(|entry| cause(&entry.proof) == "preempted").count();
    assert_eq!((marks, sending.status()), (1, Status::Accepted));
    let answer = ok(&sending.spec);
    for story in [
        sending.clone().given(broker_confirmed()),
        sending.clone().reply(answer),
        sending.clone().progress(JobState::Open, 1),
    ] {
        assert_eq!(
            (story.status(), story.life.failure_reason.as_deref()),
            (Status::Delivered, None)
        );
    }
    let silent = sending.at(DEADLINE).given(TICK);
    assert_eq!(silent.failure(), Some(FailureCode::DispatchUncertain));
}

#[test]
fn an_emergency_does_not_preempt_what_is_no_movement() {
    for story in [Story::new(cover_open()), Story::sending(cover_open())] {
        assert_eq!(story.decide(&preempt()), Decision::Ignore);
    }
}

#[test]
fn a_command_that_was_claimed_and_answered_all_the_same_is_not_sent_again() {
    let again = Story::sending(takeoff()).given(Input::NotSent(NotSent::NoSubscriber));
    let answer = ok(&again.spec);
    for story in [
        again.clone().reply(answer),
        again.clone().given(broker_confirmed()),
        again.clone().progress(JobState::Open, 1),
    ] {
        assert_eq!(story.given(ONLINE).publishes, 1);
    }
}

#[test]
fn an_answer_to_what_was_never_sent_is_evidence_and_nothing_else() {
    let story = Story::new(takeoff());
    let answer = ok(&story.spec);
    let story = story.reply(answer);
    assert_eq!((story.status(), story.life.response.is_none()), (Status::Accepted, true));
    assert_eq!(evidence(&story), Some((false, false, true)));
    assert_eq!(story.given(ONLINE).publishes, 1);
}

#[test]
fn an_answer_may_overtake_the_brokers_confirmation() {
    let story = Story::sending(takeoff());
    let answer = ok(&story.spec);
    let story = story.reply(answer);
    assert_eq!(story.status(), Status::Delivered);
    let seen = story.life.clone();
    let story = story.after(20).given(broker_confirmed());
    assert_eq!(story.life, seen);
    assert_eq!(story.last().map(cause).as_deref(), Some("broker_confirmed"));
}

#[test]
fn an_answer_after_the_deadline_counts_as_long_as_nobody_has_called_time() {
    let story = Story::delivered(return_home()).at(DEADLINE + 5);
    let answer = ok(&story.spec);
    assert_eq!(story.reply(answer).status(), Status::Succeeded);
}

#[test]
fn a_late_answer_is_kept_and_fills_the_response_once() {
    let story = Story::delivered(takeoff()).at(DEADLINE).given(TICK).after(500);
    let refused = reply(&story.spec, Verdict::Refused);
    let good = ok(&story.spec);
    let story = story.reply(refused);
    assert_eq!(story.failure(), Some(FailureCode::NoResponse));
    assert_eq!(evidence(&story), Some((true, false, false)));
    let filled = story.life.clone();
    assert_eq!(filled.response.as_ref().and_then(|r| r.code.as_deref()), Some("314000"));
    assert_eq!(filled.response_received_at, Some(at(DEADLINE + 500).wall));
    let story = story.reply(good);
    assert_eq!(evidence(&story), Some((true, true, false)));
    let other = Reply { gateway: gateway("DOCK2"), ..ok(&story.spec) };
    let story = story.reply(other);
    assert_eq!(evidence(&story), Some((true, false, true)));
    assert_eq!(story.life, filled);
}

#[test]
fn a_late_answer_of_another_gateway_fills_nothing() {
    let story = Story::delivered(takeoff()).at(DEADLINE).given(TICK);
    let other = Reply { gateway: gateway("DOCK2"), ..ok(&story.spec) };
    let seen = story.life.clone();
    let story = story.reply(other);
    assert_eq!(story.life, seen);
    assert_eq!(evidence(&story), Some((true, false, true)));
}

#[test]
fn a_second_answer_is_told_apart_from_an_answer_to_something_else() {
    let story = Story::started(takeoff());
    let same = ok(&story.spec);
    let other = Reply { method: Some("cover_close".to_owned()), ..same.clone() };
    assert_eq!(evidence(&story.clone().reply(same)), Some((false, true, false)));
    let story = story.reply(other);
    assert_eq!(evidence(&story), Some((false, false, true)));
    assert_eq!(story.status(), Status::Delivered);
}

#[test]
fn an_answer_that_cannot_be_this_commands_does_not_prove_delivery() {
    let unmatched = |story: Story| {
        let other = Reply { gateway: gateway("DOCK2"), ..ok(&story.spec) };
        let story = story.reply(other);
        assert_eq!(story.status(), Status::UnmatchedResponse);
        assert!(story.life.failure_reason.is_some());
        story.life.delivered_at
    };
    assert_eq!(unmatched(Story::sending(takeoff())), None);
    assert!(unmatched(Story::delivered(takeoff())).is_some());
}

#[test]
fn a_refusal_ends_the_command_with_the_devices_code_in_the_reason() {
    let story = Story::delivered(takeoff());
    let refused = Reply {
        message: Some("wayline task refused".to_owned()),
        ..reply(&story.spec, Verdict::Refused)
    };
    let story = story.reply(refused);
    assert_eq!(story.failure(), Some(FailureCode::DeviceExecutionFailed));
    assert_eq!(
        story.life.failure_reason.as_deref(),
        Some("the device answered with code 314000: wayline task refused")
    );
    assert!(!story.life.holds_motion);
}

#[test]
fn a_flight_succeeds_by_its_last_event_and_not_by_its_answer() {
    let story = Story::started(takeoff());
    assert_eq!((story.status(), story.life.completed_at), (Status::Delivered, None));
    assert!(story.life.holds_motion);
    let story = story.progress(JobState::Open, 50).progress(JobState::Succeeded, 100);
    assert_eq!((story.status(), story.life.due), (Status::Succeeded, None));
    assert!(!story.life.holds_motion);
}

#[test]
fn a_dock_job_is_final_by_a_bare_zero_unless_its_events_already_show_it_running() {
    let bare = |story: Story| {
        let answer = ok(&story.spec);
        story.reply(answer).status()
    };
    assert_eq!(bare(Story::delivered(cover_open())), Status::Succeeded);
    let running = Story::delivered(cover_open()).progress(JobState::Open, 10);
    assert_eq!(bare(running), Status::Delivered);
    let either = Spec { completes_by: CompletesBy::ReplyOrJob, ..takeoff() };
    assert_eq!(bare(Story::delivered(either.clone())), Status::Succeeded);
    assert_eq!(bare(Story::delivered(either).progress(JobState::Open, 10)), Status::Delivered);
}

#[test]
fn reply_or_job_is_a_job_only_when_the_answer_says_so() {
    let spec = Spec { completes_by: CompletesBy::ReplyOrJob, ..takeoff() };
    for (job, status) in [
        (JobState::Open, Status::Delivered),
        (JobState::Paused, Status::Delivered),
        (JobState::Succeeded, Status::Succeeded),
        (JobState::Failed, Status::Failed),
    ] {
        let answer = job_reply(&spec, job);
        assert_eq!(Story::delivered(spec.clone()).reply(answer).status(), status, "{job:?}");
    }
}

#[test]
fn an_answer_that_calls_the_job_finished_closes_what_its_events_opened() {
    for (job, word) in [(JobState::Succeeded, "ok"), (JobState::Failed, "failed")] {
        let story = Story::delivered(takeoff()).progress(JobState::Open, 90);
        let answer = job_reply(&story.spec, job);
        let story = story.reply(answer);
        let execution = story.life.execution.as_ref().map(|it| (it.state.as_str(), it.open));
        assert_eq!(execution, Some((word, false)));
        assert!(story.life.phase.has_ended() && !story.life.holds_motion);
        assert_eq!(story.life.due, None);
    }
}

#[test]
fn progress_before_the_answer_waits_for_the_longer_of_the_two_limits() {
    let short = Spec { silence_wait: Duration::from_millis(1_000), ..takeoff() };
    let story = Story::delivered(short).at(5_000).progress(JobState::Open, 5);
    assert_eq!(story.life.due.map(|due| due.mono.as_millis()), Some(DEADLINE));
    let long = Story::delivered(takeoff()).at(5_000).progress(JobState::Open, 5);
    assert_eq!(long.life.due.map(|due| due.mono.as_millis()), Some(5_000 + SILENCE));
}

#[test]
fn an_answer_after_progress_keeps_what_the_events_told() {
    let story = Story::delivered(takeoff()).progress(JobState::Open, 42);
    let answer = ok(&story.spec);
    let story = story.after(100).reply(answer);
    assert_eq!(story.status(), Status::Delivered);
    assert_eq!(story.life.execution.as_ref().and_then(|it| it.percent), Some(42));
    assert_eq!(story.life.response.as_ref().and_then(|it| it.code.as_deref()), Some("0"));
    let due = story.life.due.map(|due| due.mono.as_millis());
    assert_eq!(due, Some(story.mono + SILENCE));
}

#[test]
fn a_repeated_event_is_a_sign_of_life_and_no_line_on_the_timeline() {
    let story = Story::started(takeoff()).progress(JobState::Open, 31);
    let (lines, version) = (story.entries.len(), story.life.version);
    let story = story.after(1_000).progress(JobState::Open, 31).progress(JobState::Open, 39);
    assert_eq!(story.entries.len(), lines);
    assert_eq!(story.life.version, version.next().next());
    assert_eq!(story.life.due.map(|due| due.mono.as_millis()), Some(story.mono + SILENCE));
    assert_eq!(story.progress(JobState::Open, 40).entries.len(), lines + 1);
}

#[test]
fn paused_is_no_end_and_is_followed_by_running_again() {
    let story = Story::started(takeoff()).progress(JobState::Paused, 40);
    assert_eq!(story.status(), Status::Delivered);
    assert_eq!(story.life.execution.as_ref().map(|it| it.state.as_str()), Some("paused"));
    let story = story.progress(JobState::Open, 41).progress(JobState::Succeeded, 100);
    assert_eq!(story.status(), Status::Succeeded);
}

#[test]
fn a_job_that_falls_silent_ends_unconfirmed_with_its_answer_still_visible() {
    let story = Story::started(takeoff()).progress(JobState::Open, 40);
    let due = story.mono + SILENCE;
    let story = story.at(due - 1).given(TICK);
    assert_eq!(story.status(), Status::Delivered);
    let story = story.at(due).given(TICK);
    assert_eq!(story.failure(), Some(FailureCode::ExecutionUnconfirmed));
    assert_eq!(story.life.response.as_ref().and_then(|it| it.code.as_deref()), Some("0"));
    assert!(story.life.response_received_at.is_some());
}

#[test]
fn a_failed_job_names_step_and_code() {
    let story = Story::started(takeoff());
    let failed = Progress {
        step: Some("takeoff".to_owned()),
        code: Some("314004".to_owned()),
        message: Some("refused".to_owned()),
        ..progress(&story.spec, JobState::Failed, 15)
    };
    let story = story.given(Input::Progress(failed));
    assert_eq!(story.failure(), Some(FailureCode::DeviceExecutionFailed));
    assert_eq!(
        story.life.failure_reason.as_deref(),
        Some("the device reported failed at step takeoff, code 314004: refused")
    );
}

/// Movements that may well be flying although their command has ended, one for each way to end so.
fn lost_from_sight(spec: &Spec) -> [Story; 3] {
    let silent = Story::delivered(spec.clone()).progress(JobState::Open, 40);
    let limit = silent.mono + SILENCE;
    let lost = [
        Story::delivered(spec.clone()).at(DEADLINE).given(TICK),
        Story::sending(spec.clone()).at(DEADLINE).given(TICK),
        silent.at(limit).given(TICK),
    ];
    let ends = lost.each_ref().map(Story::failure);
    let wanted = [
        FailureCode::NoResponse,
        FailureCode::DispatchUncertain,
        FailureCode::ExecutionUnconfirmed,
    ];
    assert_eq!(ends, wanted.map(Some));
    lost
}

/// Whether it stands in the way of others, with the limit it then must have.
fn holds_until(story: &Story) -> Option<u64> {
    let due = story.life.due.map(|due| due.mono.as_millis());
    assert_eq!(story.life.holds_motion, due.is_some(), "{:?}", story.life);
    assert_eq!(story.life.needs_care(), due.is_some());
    assert_eq!(story.status(), Status::TimedOut);
    due
}

#[test]
fn a_movement_that_may_be_flying_holds_the_aircraft_until_it_is_over_or_silent() {
    for spec in [takeoff(), return_home()] {
        for story in lost_from_sight(&spec) {
            let limit = story.mono + SILENCE;
            assert_eq!(holds_until(&story), Some(limit));
            assert_eq!(holds_until(&story.clone().at(limit - 1).given(TICK)), Some(limit));
            assert_eq!(holds_until(&story.clone().given(Input::MovementOver)), None);
            assert_eq!(holds_until(&story.at(limit).given(TICK)), None);
        }
    }
}

#[test]
fn what_starts_no_movement_holds_nothing_after_a_time_out() {
    for story in lost_from_sight(&cover_open()) {
        assert_eq!(holds_until(&story), None);
    }
}

#[test]
fn a_lost_movement_that_reports_again_is_followed_to_its_end() {
    for story in lost_from_sight(&takeoff()) {
        let story = story.after(SILENCE - 1).progress(JobState::Open, 60);
        let seen = holds_until(&story);
        assert_eq!(seen, Some(story.mono + SILENCE));
        assert_eq!(story.life.execution.as_ref().and_then(|it| it.percent), Some(60));
        let paused = story.after(SILENCE - 1).progress(JobState::Paused, 60);
        assert_eq!(holds_until(&paused), Some(paused.mono + SILENCE));
        for last in [JobState::Succeeded, JobState::Failed] {
            let over = paused.clone().progress(last, 100);
            assert_eq!(holds_until(&over), None);
            assert_eq!(over.life.execution.as_ref().map(|it| it.open), Some(false));
        }
    }
}

#[test]
fn a_late_answer_says_whether_a_lost_movement_ever_began() {
    for spec in [takeoff(), return_home()] {
        let [unanswered, uncertain, silent] = lost_from_sight(&spec);
        let limit = silent.mono + SILENCE;
        let refused = reply(&spec, Verdict::Refused);
        for story in [unanswered, uncertain] {
            let limit = story.mono + SILENCE;
            let accepted = story.clone().after(500).reply(ok(&spec));
            assert_eq!(holds_until(&accepted), Some(limit + 500));
            assert_eq!(holds_until(&story.clone().reply(refused.clone())), None);
            let other = Reply { gateway: gateway("DOCK2"), ..refused.clone() };
            assert_eq!(holds_until(&story.clone().reply(other)), Some(limit));
            // What its own events show outweighs an answer that denies it.
            let reporting = story.progress(JobState::Open, 5);
            assert_eq!(holds_until(&reporting.reply(refused.clone())), Some(limit));
        }
        assert_eq!(holds_until(&silent.reply(refused)), Some(limit));
    }
}

#[test]
fn progress_after_it_was_let_go_is_shown_and_takes_nothing_back() {
    let [_, _, story] = lost_from_sight(&takeoff());
    let let_go = story.mono + SILENCE;
    let story = story.at(let_go).given(TICK).after(10).progress(JobState::Open, 60);
    assert_eq!(story.failure(), Some(FailureCode::ExecutionUnconfirmed));
    assert_eq!(story.life.execution.as_ref().and_then(|it| it.percent), Some(60));
    assert_eq!(holds_until(&story), None);
    let story = story.progress(JobState::Succeeded, 100);
    assert_eq!(story.status(), Status::TimedOut);
    assert_eq!(story.life.execution.as_ref().map(|it| it.open), Some(false));
    let again = progress(&story.spec, JobState::Succeeded, 100);
    assert_eq!(story.decide(&Input::Progress(again)), Decision::Ignore);
}

#[test]
fn what_was_never_sent_gets_no_job_from_an_event_that_does_not_name_it() {
    let story = Story::new(takeoff()).given(cancel());
    let nameless = Progress { bid: None, ..progress(&story.spec, JobState::Open, 5) };
    assert_eq!(story.decide(&Input::Progress(nameless)), Decision::Ignore);
}

#[test]
fn an_event_of_another_job_never_ends_this_one() {
    let story = Story::started(takeoff());
    let done = progress(&story.spec, JobState::Succeeded, 100);
    let other = Some(Uuid::from_u128(9).to_string());
    for foreign in [
        Progress { gateway: gateway("DOCK2"), ..done.clone() },
        Progress { command_methods: vec!["fly_to_point".to_owned()], ..done.clone() },
        Progress { bid: other.clone(), job_ref: Some("flight-2".to_owned()), ..done.clone() },
        Progress { bid: None, job_ref: Some("flight-2".to_owned()), ..done.clone() },
    ] {
        assert_eq!(story.decide(&Input::Progress(foreign)), Decision::Ignore);
    }
    for ours in [
        Progress { bid: other.clone(), job_ref: Some("flight-1".to_owned()), ..done.clone() },
        Progress { bid: other, job_ref: None, ..done.clone() },
        Progress { job_ref: Some("flight-2".to_owned()), ..done },
    ] {
        assert_eq!(story.clone().given(Input::Progress(ours)).status(), Status::Succeeded);
    }
}

#[test]
fn complete_on_reply_ends_with_the_answer_while_the_job_goes_on_beside_it() {
    let story = Story::started(Spec { complete_on: CompleteOn::Reply, ..takeoff() });
    assert_eq!(story.status(), Status::Succeeded);
    let completed_at = story.life.completed_at;
    assert!(story.life.holds_motion && story.life.needs_care());
    let story = story.after(40_000).progress(JobState::Open, 50);
    assert_eq!(story.life.due.map(|due| due.mono.as_millis()), Some(story.mono + SILENCE));
    assert!(story.life.holds_motion);
    let story = story.progress(JobState::Failed, 60);
    assert_eq!((story.status(), story.life.completed_at), (Status::Succeeded, completed_at));
    assert_eq!(story.life.execution.as_ref().map(|it| it.state.as_str()), Some("failed"));
    assert!(!story.life.holds_motion && !story.life.needs_care());
}

#[test]
fn return_home_holds_the_aircraft_after_its_answer_until_the_flight_is_over_or_silent() {
    let story = Story::delivered(return_home());
    let answer = ok(&story.spec);
    let story = story.reply(answer);
    assert_eq!(story.status(), Status::Succeeded);
    assert!(story.life.holds_motion && story.life.needs_care());
    let due = story.mono + SILENCE;
    assert!(story.clone().at(due - 1).given(TICK).life.holds_motion);
    for over in [story.clone().given(Input::MovementOver), story.at(due).given(TICK)] {
        assert_eq!((over.status(), over.life.due), (Status::Succeeded, None));
        assert!(!over.life.holds_motion && !over.life.needs_care());
    }
}

#[test]
fn an_answer_from_elsewhere_does_not_show_that_the_aircraft_is_free() {
    let story = Story::delivered(takeoff());
    let (own, elsewhere) = (reply(&story.spec, Verdict::Refused), gateway("DOCK2"));
    let story = story.reply(Reply { gateway: elsewhere.clone(), ..own.clone() });
    assert_eq!(story.status(), Status::UnmatchedResponse);
    assert!(story.life.holds_motion && story.life.needs_care());
    let again = story.clone().reply(Reply { gateway: elsewhere, ..own.clone() });
    assert!(again.life.holds_motion);
    let due = story.mono + SILENCE;
    for over in [
        story.clone().reply(own),
        story.clone().given(Input::MovementOver),
        story.at(due).given(TICK),
    ] {
        assert_eq!(over.status(), Status::UnmatchedResponse);
        assert!(!over.life.holds_motion && !over.life.needs_care());
    }
}

#[test]
fn what_stops_a_command_at_the_device_stands_on_its_timeline_whatever_its_state() {
    let aborted = Input::Aborted {
        api_id: "ak".to_owned(),
        request_id: "r".to_owned(),
        abort_command_id: "c-2".to_owned(),
    };
    for story in [Story::sending(takeoff()), Story::delivered(takeoff()), Story::started(takeoff())]
    {
        let before = story.life.clone();
        let story = story.given(aborted.clone());
        assert_eq!(story.life, before);
        let Some(Proof::Cancelled { abort_command_id, .. }) = story.last() else { panic!() };
        assert_eq!(abort_command_id.as_deref(), Some("c-2"));
    }
}

#[test]
fn a_movement_that_proves_late_not_to_have_left_holds_nothing() {
    let story = Story::sending(takeoff()).at(DEADLINE).given(TICK);
    assert_eq!(story.failure(), Some(FailureCode::DispatchUncertain));
    assert!(story.life.holds_motion);
    let freed = story.clone().given(Input::NotSent(NotSent::Withheld));
    assert!(!freed.life.holds_motion && !freed.life.needs_care());
    let answer = ok(&story.spec);
    let heard = story.reply(answer).given(Input::NotSent(NotSent::Withheld));
    assert!(heard.life.holds_motion, "somebody answered, so somebody has it");
}

#[test]
fn a_command_that_nobody_asked_for_again_after_a_refusal_ends_unsent() {
    for story in [Story::new(takeoff()), Story::sending(takeoff())] {
        let story = story.given(Input::Disowned);
        assert_eq!(story.failure(), Some(FailureCode::ExpiredBeforeSending));
        assert!(!story.life.holds_motion && !story.life.needs_care());
    }
    let delivered = Story::delivered(takeoff());
    assert_eq!(delivered.clone().given(Input::Disowned).life, delivered.life);
}

#[test]
fn a_command_behind_one_that_came_back_comes_back_too() {
    let waits = Story::sending(takeoff()).given(Input::NotSent(NotSent::OutOfTurn));
    assert_eq!((waits.life.phase, waits.clone().given(ONLINE).publishes), (Phase::Waiting, 2));
    let hasty = Story::sending(Spec { if_offline: IfOffline::Fail, ..takeoff() });
    let hasty = hasty.given(Input::NotSent(NotSent::OutOfTurn));
    assert_eq!(hasty.life.phase, Phase::Waiting, "its gateway may well be there");
    let withdrawn = Story::sending(takeoff()).given(preempt());
    let withdrawn = withdrawn.given(Input::NotSent(NotSent::OutOfTurn));
    assert_eq!(withdrawn.failure(), Some(FailureCode::PreemptedByEmergency));
}

#[test]
fn a_refused_return_home_holds_nothing() {
    let story = Story::delivered(return_home());
    let refused = reply(&story.spec, Verdict::Refused);
    let story = story.reply(refused);
    assert!(!story.life.holds_motion && !story.life.needs_care());
}

#[test]
fn a_command_that_nothing_answers_ends_with_its_confirmation() {
    let story = Story::delivered(stick_control());
    assert_eq!((story.status(), story.failure()), (Status::Delivered, None));
    assert!(story.life.completed_at.is_some() && !story.life.needs_care());
}

#[test]
fn cancel_works_only_while_nothing_can_have_left() {
    assert_eq!(Story::new(takeoff()).given(cancel()).failure(), Some(FailureCode::Cancelled));
    for story in [
        Story::sending(takeoff()),
        Story::delivered(takeoff()),
        Story::started(takeoff()),
        Story::new(takeoff()).given(cancel()),
    ] {
        assert_eq!(story.decide(&cancel()), Decision::Ignore, "{:?}", story.life.phase);
    }
}

#[test]
fn a_crash_in_the_middle_is_never_followed_by_a_second_publish() {
    let story = Story::sending(takeoff()).given(Input::FoundAfterRestart).given(ONLINE);
    assert_eq!((story.publishes, story.life.phase), (1, Phase::Sending));
    let answer = ok(&story.spec);
    assert_eq!(story.clone().reply(answer).status(), Status::Delivered);
    let silent = story.at(DEADLINE).given(TICK);
    assert_eq!(silent.failure(), Some(FailureCode::DispatchUncertain));
}

#[test]
fn proof_that_nothing_left_is_kept_even_when_it_comes_after_the_end() {
    let story = Story::sending(takeoff()).at(DEADLINE).given(TICK);
    let story = story.given(Input::NotSent(NotSent::NotConnected));
    assert_eq!(story.failure(), Some(FailureCode::DispatchUncertain));
    assert_eq!(story.last().map(cause).as_deref(), Some("not_sent"));
}

fn together(story: &Story, inputs: &[Input]) -> Option<Folded> {
    let command =
        Command { spec: std::sync::Arc::new(story.spec.clone()), life: story.life.clone() };
    decide_all(&command, inputs, moment(at(story.mono)))
}

#[test]
fn an_answer_in_the_same_batch_as_the_turn_answers_nothing() {
    let story = Story::new(return_home());
    let folded = together(&story, &[ONLINE, Input::Reply(ok(&story.spec))]);
    let folded = folded.map(|it| (it.life.phase, it.effect, it.entries.len()));
    assert_eq!(folded, Some((Phase::Sending, Some(Effect::Publish), 2)));
}

#[test]
fn a_cancellation_or_an_emergency_in_the_same_batch_as_the_turn_comes_in_time() {
    for (input, code) in
        [(cancel(), FailureCode::Cancelled), (preempt(), FailureCode::PreemptedByEmergency)]
    {
        let folded = together(&Story::new(takeoff()), &[ONLINE, input]);
        let folded = folded.map(|it| (it.life.phase.failure(), it.effect));
        assert_eq!(folded, Some((Some(code), None)));
    }
}

/// A store that could not be written has kept both waiting; when it is asked again, the time is over.
#[test]
fn what_was_told_is_not_overtaken_by_a_deadline_that_passed_before_it_could_be_saved() {
    let started = Story::started(takeoff());
    let late = started.mono + 2 * SILENCE;
    let started = started.at(late);
    let ended = Input::Progress(progress(&started.spec, JobState::Succeeded, 100));
    let folded = together(&started, &[TICK, ended]);
    assert_eq!(folded.map(|it| it.life.status()), Some(Status::Succeeded));
    let delivered = Story::delivered(return_home()).at(DEADLINE);
    let answer = Input::Reply(ok(&delivered.spec));
    let folded = together(&delivered, &[TICK, answer]);
    assert_eq!(folded.map(|it| it.life.status()), Some(Status::Succeeded));
    // With nothing heard, its time is over.
    let folded = together(&started, &[TICK]);
    let failure = folded.and_then(|it| it.life.phase.failure());
    assert_eq!(failure, Some(FailureCode::ExecutionUnconfirmed));
}

#[test]
fn a_batch_that_means_nothing_is_nothing() {
    assert_eq!(together(&Story::new(takeoff()), &[TICK, Input::MovementOver]), None);
    assert_eq!(together(&Story::new(takeoff()), &[]), None);
}

#[test]
fn mere_evidence_leaves_the_version_alone() {
    let story = Story::started(takeoff());
    let folded = together(&story, &[broker_confirmed(), Input::Reply(ok(&story.spec))]);
    let folded = folded.map(|it| (it.life, it.entries.len()));
    assert_eq!(folded, Some((story.life, 2)));
}

#[test]
fn the_longest_wait_covers_answer_and_silence() {
    let short = Spec { silence_wait: Duration::from_secs(1), ..takeoff() };
    assert_eq!(longest_wait(&short), Duration::from_millis(TIMEOUT));
    assert_eq!(longest_wait(&takeoff()), Duration::from_millis(SILENCE));
}
