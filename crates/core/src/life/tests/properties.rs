//! What must hold for every command under every script of inputs, with a wall clock that jumps.

use std::sync::Arc;

use proptest::{option, prelude::*, sample::select};

use super::*;

/// One step of a script: time passes, the wall jumps, something arrives.
#[derive(Debug, Clone)]
struct Step {
    wait: u64,
    wall: i64,
    input: Input,
}

fn specs() -> impl Strategy<Value = Spec> {
    let completes_by = select(vec![
        CompletesBy::Reply,
        CompletesBy::Job,
        CompletesBy::ReplyOrJob,
        CompletesBy::DrcAck,
        CompletesBy::NoReply,
    ]);
    let risk = select(vec![
        Risk::Emergency,
        Risk::Motion,
        Risk::Ground,
        Risk::Session,
        Risk::Payload,
        Risk::Configuration,
        Risk::Read,
    ]);
    let complete_on = select(vec![CompleteOn::Outcome, CompleteOn::Reply]);
    let if_offline = select(vec![IfOffline::Wait, IfOffline::Fail]);
    let job_ref = option::of(Just("flight-1".to_owned()));
    let limits = (1..60_000_u64, 1..60_000_u64);
    (completes_by, risk, complete_on, if_offline, any::<[bool; 2]>(), job_ref, limits).prop_map(
        |(completes_by, risk, complete_on, if_offline, [moves, is_final], job_ref, limits)| {
            let timeout = Duration::from_millis(limits.0);
            Spec {
                completes_by,
                risk,
                complete_on,
                if_offline,
                starts_motion: moves,
                reply_without_status_is_final: is_final,
                job_ref,
                timeout,
                silence_wait: Duration::from_millis(limits.1),
                deadline: Deadline::after(at(ACCEPTED_AT), BOOT, timeout),
                ..takeoff()
            }
        },
    )
}

fn presences() -> impl Strategy<Value = Presence> {
    prop_oneof![4 => Just(Presence::Online), 1 => Just(ABSENT), 1 => Just(Presence::NeverHeard), 1 => Just(Presence::NotHeardYet)]
}

fn job_states() -> impl Strategy<Value = JobState> {
    select(vec![JobState::Open, JobState::Paused, JobState::Succeeded, JobState::Failed])
}

fn gateways() -> impl Strategy<Value = GatewaySn> {
    prop_oneof![6 => Just(gateway("DOCK1")), 1 => Just(gateway("DOCK2"))]
}

fn replies() -> impl Strategy<Value = Reply> {
    let method = prop_oneof![
        5 => Just(Some("takeoff_to_point".to_owned())),
        1 => Just(None),
        1 => Just(Some("cover_close".to_owned())),
    ];
    let verdict = prop_oneof![4 => Just(Verdict::Ok), 1 => Just(Verdict::Refused), 1 => Just(Verdict::Unreadable)];
    (gateways(), method, verdict, option::of(job_states())).prop_map(
        |(gateway, method, verdict, job)| Reply {
            gateway,
            method,
            job,
            ..reply(&takeoff(), verdict)
        },
    )
}

fn progresses() -> impl Strategy<Value = Progress> {
    let method = prop_oneof![5 => Just("takeoff_to_point"), 1 => Just("cover_close")];
    let bid = select(vec![None, Some(3), Some(9)]);
    let job_ref = select(vec![None, Some("flight-1"), Some("flight-2")]);
    let ids = (bid, job_ref);
    (gateways(), method, job_states(), 0..=100_u8, ids).prop_map(
        |(gateway, method, state, percent, (bid, job_ref))| Progress {
            gateway,
            command_methods: vec![method.to_owned()],
            bid: bid.map(|bid| Uuid::from_u128(bid).to_string()),
            job_ref: job_ref.map(str::to_owned),
            ..progress(&takeoff(), state, percent)
        },
    )
}

fn inputs() -> impl Strategy<Value = Input> {
    let not_sent = select(vec![
        NotSent::NotConnected,
        NotSent::NoSubscriber,
        NotSent::OutOfTurn,
        NotSent::NotBegun,
        NotSent::Withheld,
        NotSent::Refused("quota".to_owned()),
        NotSent::GatewayGone,
    ]);
    prop_oneof![
        6 => presences().prop_map(Input::Turn),
        3 => presences().prop_map(Input::Tick),
        3 => Just(broker_confirmed()),
        3 => not_sent.prop_map(Input::NotSent),
        1 => Just(Input::SendUnclear { reason: "cut".to_owned() }),
        1 => Just(Input::FoundAfterRestart),
        3 => replies().prop_map(Input::Reply),
        4 => progresses().prop_map(Input::Progress),
        1 => Just(cancel()),
        1 => Just(preempt()),
        1 => Just(Input::Disowned),
        1 => Just(Input::Aborted { api_id: "ak".into(), request_id: "r".into(), abort_command_id: "c".into() }),
        1 => Just(Input::MovementOver),
    ]
}

fn scripts() -> impl Strategy<Value = Vec<Step>> {
    let wait = prop_oneof![6 => 0..2_000_u64, 1 => 0..70_000_u64];
    let wall = prop_oneof![4 => Just(0_i64), 1 => -100_000_000..100_000_000_i64];
    let step = (wait, wall, inputs()).prop_map(|(wait, wall, input)| Step { wait, wall, input });
    prop::collection::vec(step, 0..40)
}

/// What an observer outside has seen, by rules of its own.
#[derive(Debug, Default)]
struct Seen {
    publishes: usize,
    /// Publishes of which nothing has proved that they reached nobody.
    possibly_sent: usize,
    confirmed: bool,
    answered: bool,
    success: bool,
    failure: bool,
    mismatch: bool,
    progressed: bool,
    emergency: bool,
}

fn is_from_device(reply: &Reply) -> bool {
    reply.gateway == gateway("DOCK1")
        && reply.method.as_deref().is_none_or(|method| method == "takeoff_to_point")
        && reply.verdict != Verdict::Unreadable
}

fn is_of_job(spec: &Spec, progress: &Progress) -> bool {
    let has_bid = progress.bid == Some(Uuid::from_u128(3).to_string());
    let is_other = progress.job_ref.as_deref() == Some("flight-2") && spec.job_ref.is_some();
    progress.gateway == gateway("DOCK1")
        && progress.command_methods == ["takeoff_to_point"]
        && (has_bid || !is_other)
}

impl Seen {
    /// Notes an input before it is decided; what comes before the first publish shows nothing.
    fn note(&mut self, spec: &Spec, before: &Life, input: &Input) {
        if let Input::Preempt { .. } = input {
            self.emergency |= spec.risk == Risk::Motion;
        }
        if let Input::NotSent(_) | Input::Disowned = input
            && before.phase == Phase::Sending
        {
            self.possibly_sent -= 1;
        }
        if self.publishes == 0 {
            return;
        }
        if let Input::Confirmed(_) = input {
            self.confirmed = true;
        }
        if let Input::Reply(reply) = input {
            let is_ok = reply.verdict == Verdict::Ok && reply.job != Some(JobState::Failed);
            let is_own = is_from_device(reply);
            self.answered |= is_own;
            self.mismatch |= !is_own;
            self.success |= is_own && reply.verdict == Verdict::Ok;
            self.failure |= is_own && !is_ok;
        }
        if let Input::Progress(progress) = input
            && is_of_job(spec, progress)
        {
            self.progressed = true;
            self.success |= progress.state == JobState::Succeeded;
            self.failure |= progress.state == JobState::Failed;
        }
    }

    fn published(&mut self, spec: &Spec, input: &Input, now: Now) {
        self.publishes += 1;
        self.possibly_sent += 1;
        assert!(self.possibly_sent <= 1, "possibly sent twice");
        assert!(now.mono < spec.deadline.mono, "published late");
        assert!(!self.emergency, "a movement was published after an emergency");
        let is_unknown = matches!(input, Input::Turn(presence) if presence.is_unknown());
        let is_tried = is_unknown && spec.risk != Risk::Motion;
        assert!(*input == ONLINE || is_tried, "published on {input:?}");
    }

    /// The status claims no more than what was seen.
    fn bears_out(&self, life: &Life) {
        let was_delivered = self.confirmed || self.answered || self.progressed;
        let is_borne_out = match (life.status(), life.phase.failure()) {
            (Status::Accepted, None) => true,
            (Status::Delivered, None) => was_delivered,
            (Status::Succeeded, None) => self.success,
            (Status::UnmatchedResponse, None) => self.mismatch,
            (Status::Failed, Some(FailureCode::DeviceExecutionFailed)) => self.failure,
            (Status::Failed, Some(FailureCode::PreemptedByEmergency)) => {
                self.emergency && self.possibly_sent == 0
            }
            (Status::Failed, Some(FailureCode::TransportFailed)) => {
                self.publishes > 0 && self.possibly_sent == 0
            }
            (Status::Failed, Some(FailureCode::DeviceOffline | FailureCode::Cancelled))
            | (
                Status::TimedOut,
                Some(FailureCode::DeviceOffline | FailureCode::ExpiredBeforeSending),
            ) => self.possibly_sent == 0,
            (Status::TimedOut, Some(FailureCode::DispatchUncertain)) => self.possibly_sent == 1,
            (Status::TimedOut, Some(FailureCode::NoResponse)) => was_delivered,
            (Status::TimedOut, Some(FailureCode::ExecutionUnconfirmed)) => {
                self.answered || self.progressed
            }
            _ => false,
        };
        assert!(is_borne_out, "{:?} after {self:?}", life.phase);
    }
}

/// What holds of every command that stands still.
fn is_sound(spec: &Spec, life: &Life) {
    let has_ended = life.phase.has_ended();
    assert!(has_ended || life.due.is_some(), "nobody would look at it again");
    let fails = matches!(life.status(), Status::Failed | Status::TimedOut);
    assert_eq!(life.phase.failure().is_some(), fails);
    assert!(!fails || life.failure_reason.is_some(), "no reason");
    let may_have_reason =
        fails || matches!(life.phase, Phase::Sending | Phase::Ended(Outcome::Unmatched));
    assert!(may_have_reason || life.failure_reason.is_none(), "a reason for nothing");
    assert_eq!(life.completed_at.is_some(), has_ended);
    assert!(life.status() != Status::Delivered || life.delivered_at.is_some());
    assert_eq!(life.response.is_some(), life.response_received_at.is_some());
    assert!(!life.holds_motion || (spec.starts_motion && life.due.is_some()), "holds for ever");
}

/// What one decision may do to a command and its timeline.
fn is_lawful(before: &Life, input: &Input, decision: &Decision) -> Life {
    let (after, entries) = match decision {
        Decision::Move { life, entries, .. } => {
            assert_eq!(life.version, before.version.next());
            (life.as_ref().clone(), entries.clone())
        }
        Decision::Record(entry) => (before.clone(), vec![entry.clone()]),
        Decision::Ignore => (before.clone(), Vec::new()),
    };
    chains(before, &after, &entries);
    if before.phase.has_ended() {
        assert_eq!(after.phase, before.phase, "an end was moved");
        assert_eq!(after.completed_at, before.completed_at);
        assert!(before.holds_motion || !after.holds_motion, "an end took the aircraft back");
    }
    if let Input::Reply(_) = input {
        let is_kept = entries.iter().any(|entry| cause(&entry.proof) == "reply");
        assert!(is_kept, "a reply was lost");
    }
    holds_lawfully(before, input, &after);
    let fills = before.response.is_none() && after.response.is_some();
    assert!(after.response == before.response || fills, "an answer was overwritten");
    after
}

/// A movement that may be flying holds the aircraft, and only what shows that it does not lets it go.
fn holds_lawfully(before: &Life, input: &Input, after: &Life) {
    let may_fly = |life: &Life| {
        let is_unmatched = life.phase == Phase::Ended(Outcome::Unmatched);
        is_unmatched
            || matches!(
                life.phase.failure(),
                Some(
                    FailureCode::NoResponse
                        | FailureCode::DispatchUncertain
                        | FailureCode::ExecutionUnconfirmed
                )
            )
    };
    if !before.phase.has_ended() {
        assert!(before.holds_motion == after.holds_motion || after.phase.has_ended());
        assert!(!may_fly(after) || after.holds_motion == before.holds_motion, "lost from sight");
    }
    if before.phase.has_ended() && before.holds_motion && !after.holds_motion {
        let is_over = match input {
            Input::Tick(_) | Input::MovementOver => true,
            Input::Progress(progress) => !progress.state.is_open(),
            Input::Reply(reply) => {
                may_fly(before) && before.execution.is_none() && reply.verdict == Verdict::Refused
            }
            Input::NotSent(_) => before.delivered_at.is_none() && before.response.is_none(),
            Input::Turn(_)
            | Input::Confirmed(_)
            | Input::SendUnclear { .. }
            | Input::FoundAfterRestart
            | Input::Disowned
            | Input::Cancel { .. }
            | Input::Aborted { .. }
            | Input::Preempt { .. } => false,
        };
        assert!(is_over, "let go on {input:?}");
        assert_eq!(after.due, None, "looked after for nothing");
    }
}

fn chains(before: &Life, after: &Life, entries: &[Entry]) {
    let mut status = before.status();
    for entry in entries {
        assert_eq!(entry.from, status, "a gap in the timeline");
        status = entry.to;
    }
    assert_eq!(status, after.status(), "a change without a line");
}

/// Lives through a script, and on with Ticks alone until nothing is due.
fn live(spec: &Spec, script: &[Step]) -> Life {
    let mut life = Life::accepted(spec);
    let mut seen = Seen::default();
    let mut mono = ACCEPTED_AT;
    for step in script {
        mono += step.wait;
        let wall = Timestamp::from_millis(at(mono).wall.as_millis() + step.wall);
        let now = Now { wall, mono: Mono::from_millis(mono) };
        seen.note(spec, &life, &step.input);
        let decision = decide(spec, &life, &step.input, moment(now));
        let after = is_lawful(&life, &step.input, &decision);
        if let Decision::Move { effect: Some(Effect::Publish), .. } = decision {
            seen.published(spec, &step.input, now);
        }
        is_sound(spec, &after);
        // An end was borne out when it came; what comes later does not count for it.
        if life.phase != after.phase {
            seen.bears_out(&after);
        }
        life = after;
    }
    for _ in 0..3 {
        let Some(due) = life.due else { break };
        let now = Now { wall: at(mono).wall, mono: due.mono };
        let decision = decide(spec, &life, &TICK, moment(now));
        let after = is_lawful(&life, &TICK, &decision);
        is_sound(spec, &after);
        if life.phase != after.phase {
            seen.bears_out(&after);
        }
        life = after;
    }
    assert!(!life.needs_care(), "it never ends: {life:?}");
    life
}

/// Decides one by one, turns last.
fn one_by_one(spec: &Spec, life: &Life, inputs: &[Input], now: Now) -> Option<Folded> {
    let is_turn = |input: &&Input| matches!(input, Input::Turn(_));
    let mut folded = Folded { life: Arc::new(life.clone()), entries: Vec::new(), effect: None };
    let mut meant_something = false;
    let is_tick = |input: &&Input| matches!(input, Input::Tick(_));
    let words = inputs.iter().filter(|it| !is_turn(it) && !is_tick(it));
    let ticks_and_turns = inputs.iter().filter(is_tick).chain(inputs.iter().filter(is_turn));
    for input in words.chain(ticks_and_turns) {
        let decision = decide(spec, &folded.life, input, moment(now));
        meant_something |= decision != Decision::Ignore;
        if let Decision::Move { effect: Some(effect), .. } = &decision {
            folded.effect = Some(*effect);
        }
        match decision {
            Decision::Move { life, entries, .. } => {
                folded.life = life;
                folded.entries.extend(entries);
            }
            Decision::Record(entry) => folded.entries.push(entry),
            Decision::Ignore => {}
        }
    }
    meant_something.then_some(folded)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_script_makes_a_command_break_its_rules_and_every_command_ends(
        spec in specs(),
        script in scripts(),
    ) {
        live(&spec, &script);
    }

    #[test]
    fn a_wall_clock_that_jumps_changes_no_outcome(spec in specs(), script in scripts()) {
        let steady: Vec<Step> = script.iter().map(|step| Step { wall: 0, ..step.clone() }).collect();
        prop_assert_eq!(live(&spec, &script).phase, live(&spec, &steady).phase);
    }

    #[test]
    fn a_batch_decides_as_one_by_one_with_its_ticks_and_then_its_turns_last(
        spec in specs(),
        before in prop::collection::vec(inputs(), 0..6),
        batch in prop::collection::vec(inputs(), 0..8),
    ) {
        let story = before.into_iter().fold(Story::new(spec), Story::given);
        let now = at(story.mono);
        let command = Command { spec: Arc::new(story.spec.clone()), life: story.life.clone() };
        let folded = decide_all(&command, &batch, moment(now));
        prop_assert_eq!(&folded, &one_by_one(&story.spec, &story.life, &batch, now));
        if let Some(folded) = folded {
            chains(&story.life, &folded.life, &folded.entries);
            let publishes = folded.effect.is_some();
            prop_assert!(!publishes || folded.life.phase == Phase::Sending, "published beside an end");
        }
    }
}

#[test]
fn a_life_begins_at_the_first_version() {
    assert_eq!(Life::accepted(&takeoff()).version, StatusVersion(1));
}
