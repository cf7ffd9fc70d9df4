#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]
use super::*;

fn at(millis: u64) -> Now {
    Now { wall: Timestamp::from_millis(1_000_000), mono: Mono::from_millis(millis) }
}

#[test]
fn at_our_own_broker_a_gateway_is_there_while_it_is_connected_and_listens() {
    let dock = GatewaySn::parse("DOCK").unwrap();
    let mut book = PresenceBook::new(Knowledge::OwnBroker);
    assert!(matches!(book.of(&dock, at(0)), Presence::Absent { last_heard_at: None }));
    assert!(!book.joined(&dock, "c", at(0)));
    assert!(book.listens(&dock, "c", at(1)), "the edge is reported once");
    assert!(!book.heard(&dock, at(2)));
    assert_eq!(
        book.of(&dock, at(1_000_000)),
        Presence::Online,
        "silence alone does not end a connection"
    );
    book.left(&dock, "c");
    assert!(matches!(book.of(&dock, at(3)), Presence::Absent { last_heard_at: Some(_) }));
}

#[test]
fn a_connection_taken_over_listens_once_the_new_one_subscribes_and_is_gone_with_one_leave() {
    let dock = GatewaySn::parse("DOCK").unwrap();
    let mut book = PresenceBook::new(Knowledge::OwnBroker);
    book.joined(&dock, "c", at(0));
    assert!(book.listens(&dock, "c", at(0)));
    // Our broker tells of the take-over as another connect, and never of the old connection's end.
    book.joined(&dock, "c", at(1));
    assert!(
        matches!(book.of(&dock, at(1)), Presence::Absent { .. }),
        "a new session has no subscriptions"
    );
    assert!(
        book.listens(&dock, "c", at(2)),
        "that is an edge again, or nothing would wake what waits"
    );
    book.left(&dock, "c");
    assert!(matches!(book.of(&dock, at(3)), Presence::Absent { .. }));
}

#[test]
fn of_two_connections_the_one_that_listens_is_what_counts() {
    let dock = GatewaySn::parse("DOCK").unwrap();
    let mut book = PresenceBook::new(Knowledge::OwnBroker);
    let is_there = |book: &PresenceBook| book.of(&dock, at(0)) == Presence::Online;
    book.joined(&dock, "listens", at(0));
    book.listens(&dock, "listens", at(0));
    book.joined(&dock, "deaf", at(0));
    assert!(is_there(&book));
    // Its session is taken over: nobody listens until the new one does.
    book.joined(&dock, "listens", at(0));
    assert!(!is_there(&book));
    assert!(book.listens(&dock, "listens", at(0)));
    book.left(&dock, "listens");
    assert!(!is_there(&book), "the one that is left does not listen");
    assert!(book.listens(&dock, "deaf", at(0)));
    book.joined(&dock, "third", at(0));
    book.left(&dock, "third");
    assert!(is_there(&book));
    // Told after its end.
    book.left(&dock, "deaf");
    assert!(!book.listens(&dock, "deaf", at(0)) && !is_there(&book));
}

/// A server that was started a moment ago has not heard those yet that are there.
#[test]
fn that_nothing_was_heard_says_nothing_until_it_was_listened_for_long_enough() {
    let dock = GatewaySn::parse("DOCK").unwrap();
    let mut book = behind_another();
    assert_eq!(book.listens_from(Mono::from_millis(10_000)), Some(Duration::from_secs(60)));
    assert_eq!(book.of(&dock, at(10_000)), Presence::NotHeardYet);
    assert_eq!(book.of(&dock, at(70_000)), Presence::NotHeardYet);
    assert_eq!(book.of(&dock, at(70_001)), Presence::NeverHeard);
    // The link was cut meanwhile, and nobody can have been heard.
    book.listens_from(Mono::from_millis(90_000));
    assert_eq!(book.of(&dock, at(90_001)), Presence::NotHeardYet);
    assert!(book.heard(&dock, at(91_000)));
    assert!(matches!(book.of(&dock, at(151_001)), Presence::Absent { .. }));
}

#[test]
fn a_gateway_that_another_server_has_heard_counts_as_there_for_what_is_left_of_the_window() {
    let dock = GatewaySn::parse("DOCK").unwrap();
    let then = |ago: i64| Timestamp::from_millis(1_000_000 - ago);
    let mut book = behind_another();
    book.listens_from(Mono::from_millis(0));
    for out in [60_001, -1, i64::MAX] {
        book.was_heard(&dock, then(out), at(0));
        assert_eq!(book.of(&dock, at(0)), Presence::NotHeardYet, "{out}");
    }
    book.was_heard(&dock, then(20_000), at(0));
    assert_eq!(book.of(&dock, at(40_000)), Presence::Online);
    assert_eq!(book.of(&dock, at(40_001)), Presence::NotHeardYet);
    // What is told here counts more.
    book.told(&word("a", 1, Connection::Ended), at(1));
    assert_ne!(book.of(&dock, at(2)), Presence::Online);
    let mut own = PresenceBook::new(Knowledge::OwnBroker);
    own.was_heard(&dock, then(0), at(0));
    assert!(matches!(own.of(&dock, at(0)), Presence::Absent { .. }), "it would say so");
}

#[test]
fn behind_another_broker_only_messages_tell() {
    let dock = GatewaySn::parse("DOCK").unwrap();
    let mut book = PresenceBook::new(Knowledge::Heard { window: Duration::from_secs(60) });
    assert_eq!(book.of(&dock, at(0)), Presence::NeverHeard);
    assert!(book.heard(&dock, at(0)));
    assert_eq!(book.of(&dock, at(60_000)), Presence::Online);
    assert!(matches!(book.of(&dock, at(60_001)), Presence::Absent { .. }));
    assert!(book.heard(&dock, at(70_000)));
}

fn behind_another() -> PresenceBook {
    PresenceBook::new(Knowledge::Heard { window: Duration::from_secs(60) })
}

fn word(client_id: &str, began_at: impl Into<Option<i64>>, what: Connection) -> Word {
    let (gateway, began_at) = (GatewaySn::parse("DOCK").unwrap(), began_at.into());
    Word { gateway, client_id: client_id.to_owned(), began_at, what }
}

#[test]
fn what_another_broker_tells_of_sessions_ends_presence_until_the_gateway_is_heard_in_a_new_one() {
    let dock = GatewaySn::parse("DOCK").unwrap();
    let mut book = behind_another();
    let is_there = |book: &PresenceBook, at_ms| book.of(&dock, at(at_ms)) == Presence::Online;
    // That it connected is not that it listens.
    book.told(&word("a", 1, Connection::Began), at(0));
    assert_eq!(book.of(&dock, at(0)), Presence::NeverHeard);
    assert!(book.heard(&dock, at(0)));
    // A word that comes twice is no news.
    book.told(&word("a", 1, Connection::Began), at(0));
    assert!(is_there(&book, 0));
    book.told(&word("a", 1, Connection::Ended), at(1));
    assert!(!is_there(&book, 1) && book.is_over(&dock));
    // A new session under the same id begins without subscriptions, and the will of the former may come after it.
    book.told(&word("a", 5, Connection::Began), at(3));
    assert!(!is_there(&book, 3));
    assert!(!book.heard(&dock, at(4)), "that may be the will");
    assert!(book.heard(&dock, at(5)), "heard again is an edge, or nothing would wake what waits");
    // The end of the old one, told late, is no news, nor is its beginning.
    for what in [Connection::Ended, Connection::TakenOver, Connection::Began] {
        book.told(&word("a", 1, what), at(6));
        assert!(is_there(&book, 6), "{what:?}");
    }
    // With another session it is not over.
    book.told(&word("b", None, Connection::Began), at(6));
    book.told(&word("b", None, Connection::Ended), at(7));
    assert!(is_there(&book, 7));
    // An end that was lost is found out by silence.
    assert!(is_there(&book, 60_005) && !is_there(&book, 60_006));
    // While the link was cut nobody told of ends, so that one more may be the last.
    book.heard(&dock, at(70_000));
    book.told(&word("c", None, Connection::Began), at(70_001));
    book.link_was_cut();
    book.told(&word("c", None, Connection::Ended), at(70_002));
    assert!(!is_there(&book, 70_002));
}

#[test]
fn a_will_and_what_was_on_its_way_bring_nobody_back_and_who_goes_on_to_speak_is_there() {
    let dock = GatewaySn::parse("DOCK").unwrap();
    let wait = u64::try_from(UNDER_WAY_WAIT.as_millis()).unwrap();
    let mut book = behind_another();
    book.heard(&dock, at(0));
    book.told(&word("a", 1, Connection::Ended), at(10));
    let on_their_way = (11..wait + 10).step_by(100);
    assert!(on_their_way.into_iter().all(|millis| !book.heard(&dock, at(millis))));
    // A will that was held back.
    assert!(!book.heard(&dock, at(wait + 20_000)));
    assert!(matches!(book.of(&dock, at(wait + 20_000)), Presence::Absent { .. }));
    // That of another session of it, long after.
    assert!(!book.heard(&dock, at(wait + 80_001)));
    // Its beginning, told after its end, begins nothing.
    book.told(&word("a", 1, Connection::Began), at(wait + 80_002));
    assert!(matches!(book.of(&dock, at(wait + 80_002)), Presence::Absent { .. }));
    // No broker told of a new session; but nobody who is gone says that much.
    assert!(book.heard(&dock, at(wait + 81_000)));
    // It is the same where nobody had heard it before.
    let mut book = behind_another();
    book.told(&word("a", None, Connection::Ended), at(0));
    assert_eq!(book.of(&dock, at(0)), Presence::Absent { last_heard_at: None });
    assert!(!book.heard(&dock, at(1)) && !book.heard(&dock, at(wait)));
    assert!(book.heard(&dock, at(wait + 2_000)));
    // Two sessions leave two wills.
    for client_id in ["a", "b"] {
        book.told(&word(client_id, None, Connection::Ended), at(100_000));
    }
    assert!(!book.heard(&dock, at(110_000)) && !book.heard(&dock, at(111_000)));
    assert!(book.heard(&dock, at(112_000)));
}

/// One number after another, from a seed.
fn dice(seed: u64) -> impl FnMut(u64) -> u64 {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    move |below| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (state >> 33) % below
    }
}

#[test]
fn one_end_that_was_lost_holds_up_no_other_once_the_gateway_fell_silent() {
    let dock = GatewaySn::parse("DOCK").unwrap();
    for counts in [true, false] {
        let mut book = behind_another();
        let is_there = |book: &PresenceBook, at_ms| book.of(&dock, at(at_ms)) == Presence::Online;
        let began_at = |count: i64| counts.then_some(count);
        book.told(&word("a", began_at(1), Connection::Began), at(0));
        book.heard(&dock, at(10));
        // Of the end of `a` nobody tells. The next end, soon after, waits for silence.
        book.told(&word("b", began_at(2), Connection::Began), at(20_000));
        book.heard(&dock, at(21_000));
        book.told(&word("b", began_at(2), Connection::Ended), at(30_000));
        assert!(is_there(&book, 81_000) && !is_there(&book, 81_001));
        // From then on every end counts at once.
        for round in 0..3 {
            let from = 200_000 + i64::from(round) * 100_000;
            let millis = |plus: u64| u64::try_from(from).unwrap() + plus;
            book.told(&word("c", began_at(from), Connection::Began), at(millis(0)));
            assert!((1..9).any(|n| book.heard(&dock, at(millis(n)))), "{round}");
            book.told(&word("c", began_at(from), Connection::Ended), at(millis(10)));
            assert!(!is_there(&book, millis(10)), "{round}");
        }
    }
}

/// A session of a dock in the property below.
#[derive(Debug)]
struct Played {
    begins: u64,
    ends: u64,
    /// When its end was told; nobody tells where that word is lost.
    told_at: Option<u64>,
}

impl Played {
    /// Whether at `at_ms` everybody may know that it is over: from the word, or from a silence noticed after it.
    fn is_known_to_be_over(&self, at_ms: u64, silence_at: u64) -> bool {
        match self.told_at {
            Some(told_at) => told_at < at_ms,
            None => self.ends < silence_at,
        }
    }
}

/// A dock behind a broker that tells of connections, late, not of all that begin and not of all that end, several of
/// them beside each other, whose messages take seconds and whose wills take a minute: once it is told that the last
/// session has ended, it is not there; in a session that goes on it is. A word of an end that was lost counts for
/// nothing any more after a silence longer than the window.
#[test]
fn whatever_the_order_nobody_is_there_whose_end_was_told_and_whoever_is_is_found() {
    #[derive(Debug)]
    enum Came {
        Message,
        Word(Word),
    }
    let dock = GatewaySn::parse("DOCK").unwrap();
    let (mut absences, mut after_lost, mut beside, mut presences) = (0, 0, 0, 0);
    for seed in 1..=800 {
        let mut roll = dice(seed);
        let (names_begin, counts) = (roll(4) > 0, roll(3) > 0);
        let mut book = behind_another();
        let mut coming: BTreeMap<(u64, u64), Came> = BTreeMap::new();
        let mut number = 0;
        let mut put = |coming: &mut BTreeMap<(u64, u64), Came>, at_ms: u64, came: Came| {
            number += 1;
            coming.insert((at_ms, number), came);
        };
        let mut sessions: Vec<Played> = Vec::new();
        // A session that begins before the end of the former is told is another's word against its own, unless it
        // goes by another client id.
        let mut free_from = 1_000;
        for session in 0..8 {
            let before = sessions.last().filter(|_| roll(4) == 0);
            let is_beside = before.is_some();
            let begins = match before {
                Some(before) => before.begins + 1_000 + roll(before.ends - before.begins),
                None => free_from + roll(150_000),
            };
            let ends = begins + 1_000 + roll(120_000);
            let client_id = match !is_beside && roll(2) == 0 {
                true => "same".to_owned(),
                false => format!("c{session}"),
            };
            let began_at = counts.then_some(session);
            let told_at = (roll(5) > 0).then(|| ends + roll(1_500));
            if names_begin && roll(5) > 0 {
                let word = word(&client_id, began_at, Connection::Began);
                put(&mut coming, begins + roll(900), Came::Word(word));
            }
            for said in (begins..ends).step_by(2_000) {
                let latest = u64::try_from(UNDER_WAY_WAIT.as_millis()).unwrap() - 100;
                put(&mut coming, said + roll(latest), Came::Message);
            }
            if let Some(told_at) = told_at {
                let word = word(&client_id, began_at, Connection::Ended);
                put(&mut coming, told_at, Came::Word(word));
            }
            if roll(2) == 0 {
                put(&mut coming, ends + roll(59_000), Came::Message);
            }
            free_from = free_from.max(told_at.unwrap_or(ends) + 1);
            sessions.push(Played { begins, ends, told_at });
        }
        let (mut heard_at, mut silence_at) = (0, 0);
        for ((at_ms, _), came) in coming {
            // With a margin for the word of a beginning, which comes after its first message.
            if at_ms - heard_at > 62_000 {
                silence_at = at_ms;
            }
            match &came {
                Came::Message => {
                    heard_at = at_ms;
                    book.heard(&dock, at(at_ms));
                }
                Came::Word(word) => book.told(word, at(at_ms)),
            }
            let is_there = book.of(&dock, at(at_ms)) == Presence::Online;
            let begun: Vec<&Played> = sessions.iter().filter(|one| one.begins <= at_ms).collect();
            let is_over = begun.iter().all(|one| one.is_known_to_be_over(at_ms, silence_at));
            let was_told = begun.iter().filter_map(|one| one.told_at).max();
            // A silence after the last word says nothing of what comes later.
            if is_over && was_told.is_some_and(|told_at| silence_at <= told_at) {
                absences += 1;
                after_lost += usize::from(begun.iter().any(|one| one.told_at.is_none()));
                assert!(!is_there, "seed {seed}: there at {at_ms} after {came:?}: {sessions:?}");
            }
            let settled = |from: u64| from + 45_000 < at_ms;
            // Whatever was told last has been outlived by messages.
            let is_quiet = begun.iter().all(|one| {
                let told_at = one.told_at.filter(|told_at| *told_at <= at_ms);
                settled(one.begins) && told_at.is_none_or(settled)
            });
            let mut going_on = begun.iter().filter(|one| at_ms < one.ends);
            if is_quiet && going_on.next().is_some() {
                presences += 1;
                beside += usize::from(going_on.next().is_some());
                assert!(is_there, "seed {seed}: not there at {at_ms} after {came:?}: {sessions:?}");
            }
        }
    }
    assert!(absences > 1_000 && presences > 1_000, "{absences} {presences}");
    assert!(after_lost > 100 && beside > 100, "{after_lost} {beside}");
}

#[test]
fn what_is_forgotten_is_kept_until_its_last_connection_is_gone_and_no_longer() {
    let dock = GatewaySn::parse("DOCK").unwrap();
    let mut book = PresenceBook::new(Knowledge::OwnBroker);
    for client_id in ["a", "b"] {
        book.joined(&dock, client_id, at(0));
        book.listens(&dock, client_id, at(0));
    }
    book.left(&dock, "a");
    book.forget(&dock);
    assert_eq!(book.of(&dock, at(1)), Presence::Online, "it is connected still");
    book.left(&dock, "b");
    assert!(book.gateways.is_empty());
    book.left(&dock, "b");
    assert!(book.gateways.is_empty(), "what is told late brings nothing back");
    // One that comes again is kept again.
    book.joined(&dock, "a", at(2));
    book.forget(&dock);
    book.joined(&dock, "b", at(3));
    book.left(&dock, "a");
    book.left(&dock, "b");
    assert_eq!(book.gateways.len(), 1);
    book.forget(&dock);
    assert!(book.gateways.is_empty());
}

#[test]
fn sessions_whose_end_is_never_told_fill_nothing() {
    let dock = GatewaySn::parse("DOCK").unwrap();
    let mut book = PresenceBook::new(Knowledge::Heard { window: Duration::from_secs(60) });
    for number in 0..1_000 {
        let client_id = format!("c-{number}");
        let word =
            Word { gateway: dock.clone(), client_id, began_at: None, what: Connection::Began };
        book.told(&word, at(number));
    }
    assert_eq!(book.gateways[&dock].outside().unwrap().sessions.len(), SESSIONS_MAX);
}
