#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]
use proptest::prelude::*;
use uuid::Uuid;

use super::*;

const BOOT: BootId = BootId([1; 16]);

fn now(millis: u64) -> Now {
    Now {
        wall: Timestamp::from_millis(1_000_000 + i64::try_from(millis).unwrap()),
        mono: Mono::from_millis(millis),
    }
}

fn request(automatic_after: Option<Duration>) -> DeviceRequest {
    let reply_wait = Duration::from_secs(30);
    let gateway = GatewaySn::parse("DOCK").unwrap();
    let asked = Asked {
        id: DeviceRequestId::new(Uuid::from_u128(1)),
        tenant: TenantId::new(Uuid::from_u128(2)),
        device: gateway.to_device(),
        gateway,
        request_type: Some("some_get".to_owned()),
        tid: Some("t".to_owned()),
        bid: None,
        asked_on: AskedOn::Requests,
        repeat_key: Some([1; 16]),
        payload: "{}".into(),
        payload_is_cut: false,
        received_at: now(0).wall,
        deadline: Deadline::after(now(0), BOOT, reply_wait),
        reply_wait,
        automatic_after,
    };
    DeviceRequest::new(Arc::new(asked), RoutingDecision::AwaitingReply)
}

fn reply(source: ReplySource) -> Reply {
    Reply {
        code: "0".to_owned(),
        message: None,
        source,
        by: None,
        data: r#"{"result":0}"#.into(),
        at: now(0).wall,
    }
}

fn moved(request: &DeviceRequest, input: Input, at: u64) -> (DeviceRequest, bool) {
    match decide(request, input, now(at), BOOT) {
        Decision::Move { to, publish } => (*to, publish),
        other @ (Decision::Refuse(_) | Decision::Ignore) => panic!("{other:?}"),
    }
}

#[test]
fn an_answer_by_hand_is_saved_then_claimed_then_published() {
    let (replied, publish) = moved(&request(None), Input::Reply(reply(ReplySource::Manual)), 10);
    assert_eq!((replied.state, replied.sending), (RoutingDecision::Replied, Sending::Unsent));
    assert!(!publish && replied.needs_care());
    let (claimed, publish) = moved(&replied, Input::Turn, 20);
    assert_eq!((claimed.sending, publish), (Sending::Claimed, true));
    assert!(!claimed.needs_care(), "nobody sends it again");
    let (stayed, _) = moved(&claimed, Input::Stayed, 30);
    assert_eq!((stayed.sending, stayed.needs_care()), (Sending::Unsent, true));
    let (sent, _) = moved(&claimed, Input::Left, 30);
    assert_eq!((sent.sending, sent.sent_at), (Sending::Sent, Some(now(30).wall)));
    for input in [Input::Turn, Input::Tick, Input::Stayed, Input::Left] {
        assert_eq!(decide(&sent, input, now(40), BOOT), Decision::Ignore);
    }
}

#[test]
fn a_second_answer_and_a_late_one_are_refused() {
    let by_hand = || Input::Reply(reply(ReplySource::Manual));
    let refused = |request: &DeviceRequest, at| match decide(request, by_hand(), now(at), BOOT) {
        Decision::Refuse(why) => why,
        other @ (Decision::Move { .. } | Decision::Ignore) => panic!("{other:?}"),
    };
    let open = request(None);
    assert_eq!(refused(&open, 30_000), CannotReply::Expired);
    let (replied, _) = moved(&open, by_hand(), 29_999);
    assert_eq!(refused(&replied, 29_999), CannotReply::AlreadyReplied);
    assert_eq!(refused(&replied, 99_999), CannotReply::AlreadyReplied);
    let (expired, _) = moved(&open, Input::Tick, 30_000);
    assert_eq!(expired.state, RoutingDecision::Expired);
    assert_eq!(refused(&expired, 30_001), CannotReply::Expired);
    let unsupported = DeviceRequest { state: RoutingDecision::Unsupported, ..open };
    assert_eq!(refused(&unsupported, 1), CannotReply::Unsupported);
}

#[test]
fn an_answer_that_did_not_leave_in_time_is_given_up() {
    let (replied, _) = moved(&request(None), Input::Reply(reply(ReplySource::Manual)), 10);
    let (gone, publish) = moved(&replied, Input::Turn, 30_000);
    assert_eq!((gone.sending, gone.state), (Sending::GivenUp, RoutingDecision::Replied));
    assert!(!publish && !gone.needs_care());
}

#[test]
fn the_automatic_answer_is_due_before_the_deadline_and_loses_against_a_person() {
    let open = request(Some(Duration::from_secs(5)));
    assert_eq!(open.due(now(0), BOOT), Mono::from_millis(5_000));
    let (answered, _) = moved(&open, Input::Automatic(reply(ReplySource::Auto)), 5_000);
    assert_eq!((answered.state, answered.sending), (RoutingDecision::AutoReplied, Sending::Unsent));
    assert_eq!(answered.due(now(5_000), BOOT), Mono::from_millis(30_000));
    let (replied, _) = moved(&open, Input::Reply(reply(ReplySource::Manual)), 4_999);
    let late = decide(&replied, Input::Automatic(reply(ReplySource::Auto)), now(5_000), BOOT);
    assert_eq!(late, Decision::Ignore);
}

#[test]
fn after_a_reboot_the_wall_decides() {
    let other = BootId([2; 16]);
    let open = request(None);
    let at = |wall_ms: i64| Now {
        wall: Timestamp::from_millis(1_000_000 + wall_ms),
        mono: Mono::from_millis(7),
    };
    assert_eq!(decide(&open, Input::Tick, at(29_000), other), Decision::Ignore);
    assert!(matches!(decide(&open, Input::Tick, at(30_000), other), Decision::Move { .. }));
    assert!(
        matches!(decide(&open, Input::Tick, at(-1), other), Decision::Move { .. }),
        "a clock that was set back proves nothing"
    );
}

#[test]
fn reply_codes_become_results() {
    for (code, result) in [
        ("0", 0),
        ("OK", 0),
        ("APPROVED", 0),
        ("SUCCESS", 0),
        ("314000", 314_000),
        ("-7", -7),
        ("ok", 1),
        ("DENIED", 1),
        ("", 1),
        ("99999999999999999999", 1),
    ] {
        assert_eq!(result_of(code), result, "{code}");
    }
}

#[test]
fn rules_name_what_does_not_fit() {
    let field = |mode, after, reply| Rule::new(mode, after, reply).unwrap_err().0;
    assert_eq!(field("sometimes", None, None), "mode");
    assert_eq!(field("auto", Some(1), None), "after_seconds");
    assert_eq!(field("auto_after", None, None), "after_seconds");
    assert_eq!(field("auto_after", Some(0), None), "after_seconds");
    assert_eq!(field("auto_after", Some(30), None), "after_seconds");
    assert_eq!(field("manual", None, Some(0)), "reply_seconds");
    assert_eq!(field("manual", None, Some(3_601)), "reply_seconds");
    let rule = Rule::new("auto_after", Some(29), None).unwrap();
    assert_eq!(rule.mode, Mode::AutoAfter(Duration::from_secs(29)));
}

fn inputs() -> impl Strategy<Value = Input> {
    prop_oneof![
        Just(Input::Reply(reply(ReplySource::Manual))),
        Just(Input::Automatic(reply(ReplySource::Auto))),
        Just(Input::Tick),
        Just(Input::Turn),
        Just(Input::Left),
        Just(Input::Stayed),
        Just(Input::Gone),
    ]
}

proptest! {
    /// Under any script: an answer is published again only where the last certainly stayed, nothing is published late,
    /// the answer never changes, and every move counts the version up by one.
    #[test]
    fn it_is_answered_once_and_sent_once(
        script in prop::collection::vec((inputs(), 0_u64..20_000), 0..40),
        after in prop::option::of(1_u64..29),
    ) {
        let mut request = request(after.map(Duration::from_secs));
        let (mut at, mut may_have_left) = (0, false);
        let mut given: Option<Reply> = None;
        for (input, wait) in script {
            at += wait;
            let is_stayed = matches!(input, Input::Stayed);
            let Decision::Move { to, publish } = decide(&request, input, now(at), BOOT) else { continue };
            prop_assert_eq!(to.version, request.version.next());
            if publish {
                prop_assert!(!may_have_left && at < 30_000);
                may_have_left = true;
            } else if is_stayed {
                may_have_left = false;
            }
            if let Some(given) = &given {
                prop_assert_eq!(to.reply.as_ref(), Some(given));
            }
            given.clone_from(&to.reply);
            request = *to;
        }
    }
}
