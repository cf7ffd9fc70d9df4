//! What every adapter of the store's ports has to do, whatever it keeps its rows in.
//!
//! An adapter joins with [`contract_tests!`] and an expression that makes a [`Place`]; one that keeps device requests and
//! what is known of the fleet as well, with [`full_contract_tests!`] and a [`FullPlace`] beside it. The suite itself is here,
//! in `lists`, `registry`, `requests` and `fleet`.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use async_trait::async_trait;
use utmos_core::{
    command::{Life, Outcome, Phase, Spec, Status},
    method::Risk,
    ports::{Accepted, Advance, Advanced, FleetStore, NewCommand, Nonce, RequestStore, Store},
};
use utmos_store::EVIDENCE_PER_COMMAND_MAX;

use crate::given::{
    accepted, at, change, end, evidence, gateway, moved, new, nonce, of_aircraft, record, sn, spec,
    takeoff, tenant, transition,
};

/// Where a store keeps its things. Starts out empty.
#[async_trait]
pub trait Place: Send + Sync {
    /// Opens the store there, which others may have open as well.
    async fn open(&self) -> Arc<dyn Store>;
}

/// A store with everything.
pub trait FullStore: Store + RequestStore + FleetStore {}
impl<T: Store + RequestStore + FleetStore> FullStore for T {}

/// A place of such a store.
#[async_trait]
pub trait FullPlace: Place {
    /// Opens the store there, which others may have open as well.
    async fn open_full(&self) -> Arc<dyn FullStore>;

    /// All that is kept there, for a look at what stands in it in clear.
    async fn at_rest(&self) -> Vec<u8>;
}

/// Makes a test of each case about device requests and the fleet.
#[macro_export]
macro_rules! full_contract_tests {
    ($place:expr) => {
        $crate::contract_tests!($place, requests: [
            what_was_kept_and_changed_is_read_back_whole_and_stands_nowhere_in_clear,
            a_request_with_the_key_of_another_is_that_one,
            requests_are_listed_newest_first_by_device_state_and_type_and_by_care,
            of_who_asks_most_the_oldest_that_are_done_go_and_none_that_waits,
            where_all_ask_alike_the_oldest_of_all_go,
            rules_are_set_replaced_taken_back_and_counted,
            a_task_is_found_by_its_newest_command_that_may_have_left,
        ]);
        $crate::contract_tests!($place, registry: [
            devices_come_by_serial_number_and_can_move,
            topology_adds_only_devices_that_are_new,
            a_device_that_is_removed_leaves_no_trace_but_its_commands,
            the_generation_rises_with_changes_alone_and_for_everybody,
        ]);
        $crate::contract_tests!($place, fleet: [
            a_serial_number_belongs_to_one_tenant_and_every_change_of_it_is_on_record,
            of_many_who_register_a_serial_number_at_once_one_gets_it,
            a_record_keeps_its_newest_changes_and_everything_of_whose_the_device_was,
            what_was_bound_with_a_code_counts_for_its_gateway_as_what_it_reported_does,
            a_code_lets_in_as_many_gateways_as_it_says_and_each_once,
            a_code_of_another_tenant_that_is_over_or_taken_back_binds_nothing,
            a_tenant_has_a_bounded_number_of_good_codes_and_old_ones_are_forgotten,
            a_binding_and_the_answer_it_is_for_are_stored_both_or_neither,
            of_many_who_answer_a_binding_at_once_one_does_and_what_it_says_is_so,
            sightings_are_kept_of_registered_devices_and_go_with_them,
        ]);
    };
}

/// Makes a test of each case of the suite. `$place` is an expression that makes an `impl Place`.
#[macro_export]
macro_rules! contract_tests {
    ($place:expr) => {
        $crate::contract_tests!($place, contract: [
            a_command_is_kept_as_it_was_accepted,
            a_nonce_is_good_once,
            nonces_are_forgotten_when_their_time_is_over,
            a_nonce_that_another_process_spent_after_forgetting_others_is_good_once,
            an_emergency_after_a_command_of_its_gateway_is_found,
            emergencies_after_many_commands_are_found_as_after_each,
            an_emergency_after_a_command_of_its_aircraft_is_found_through_whichever_gateway,
            what_would_become_of_a_command_is_foreseen_and_nothing_stored,
            the_same_key_and_body_is_a_replay_and_shows_how_it_stands_today,
            the_same_key_with_another_body_is_a_conflict,
            a_key_belongs_to_its_tenant,
            every_refusal_spends_the_nonce_and_a_spent_nonce_refuses_first,
            a_hundred_simultaneous_copies_make_one_command,
            one_movement_at_a_time,
            commands_that_do_not_know_their_aircraft_share_their_gateways,
            an_emergency_is_never_too_busy,
            a_change_is_kept_with_its_line,
            a_change_that_comes_second_is_lost_and_leaves_nothing,
            one_of_many_simultaneous_changes_wins,
            evidence_that_was_judged_on_an_older_state_is_lost_and_leaves_nothing,
            evidence_ends_at_its_limit_and_transitions_do_not,
            nothing_moves_what_is_not_there,
            the_newest_record_only_grows,
            whoever_stops_waiting_stops_nobody,
        ]);
        $crate::contract_tests!($place, lists: [
            open_commands_are_those_in_need_of_care_oldest_first,
            open_commands_of_some_shards_are_all_of_theirs_and_every_emergency,
            some_commands_are_read_at_once,
            a_tenants_commands_come_newest_first_in_pages,
            commands_are_filtered,
            lists_come_newest_first_however_many_commands_there_are,
            lists_by_state_hold_all_of_it_however_many_commands_there_are,
            a_page_looks_at_so_many_and_the_next_goes_on_there,
            what_ended_as_few_do_is_listed_once_and_for_its_tenant,
            a_command_is_shown_to_its_tenant_alone,
            only_the_newest_unmatched_messages_are_kept,
            unmatched_messages_come_in_pages_and_once,
        ]);
        $crate::contract_tests!($place, registry: [
            tenants_come_by_name_and_can_be_renamed,
            a_name_belongs_to_one_tenant,
            a_credential_is_kept_whole_with_its_secrets,
            credentials_come_oldest_first,
        ]);
    };
    ($place:expr, $module:ident: [$($name:ident,)*]) => {
        $(#[tokio::test]
        async fn $name() {
            let place = $place;
            $crate::$module::$name(&place).await;
        })*
    };
}

pub async fn a_command_is_kept_as_it_was_accepted(place: &dyn Place) {
    let store = place.open().await;
    let command = accepted(&store, spec(0, "k")).await;
    let other = accepted(&store, spec(0, "other")).await;
    for store in [store, place.open().await] {
        assert_eq!(store.command(command.spec.id).await.unwrap(), Some(command.clone()));
        assert_eq!(store.timeline(command.spec.id).await.unwrap(), new(spec(0, "k")).entries);
        assert_eq!(store.command(other.spec.id).await.unwrap(), Some(other.clone()));
        assert_eq!(store.command(spec(1, "none").id).await.unwrap(), None);
        assert!(store.timeline(spec(1, "none").id).await.unwrap().is_empty());
    }
}

pub async fn a_nonce_is_good_once(place: &dyn Place) {
    let (store, other) = (place.open().await, place.open().await);
    assert_eq!(store.spend_nonce(nonce(1, 100)).await.unwrap(), Nonce::Spent);
    assert_eq!(store.spend_nonce(nonce(2, 100)).await.unwrap(), Nonce::Spent);
    assert_eq!(store.spend_nonce(nonce(1, 900)).await.unwrap(), Nonce::Replayed);
    assert_eq!(other.spend_nonce(nonce(1, 100)).await.unwrap(), Nonce::Replayed);
}

pub async fn nonces_are_forgotten_when_their_time_is_over(place: &dyn Place) {
    let store = place.open().await;
    for number in 0..2500 {
        store.spend_nonce(nonce(number, 100)).await.unwrap();
    }
    store.spend_nonce(nonce(9000, 101)).await.unwrap();
    assert_eq!(store.forget_nonces(at(100)).await.unwrap(), 0, "until then it must be remembered");
    assert_eq!(store.forget_nonces(at(101)).await.unwrap(), 2500);
    assert_eq!(store.forget_nonces(at(101)).await.unwrap(), 0);
    assert_eq!(store.spend_nonce(nonce(9000, 101)).await.unwrap(), Nonce::Replayed);
    assert_eq!(store.spend_nonce(nonce(1, 900)).await.unwrap(), Nonce::Spent);
}

pub async fn a_nonce_that_another_process_spent_after_forgetting_others_is_good_once(
    place: &dyn Place,
) {
    let (store, other) = (place.open().await, place.open().await);
    assert_eq!(store.spend_nonce(nonce(1, 100)).await.unwrap(), Nonce::Spent);
    other.forget_nonces(at(101)).await.unwrap();
    assert_eq!(other.spend_nonce(nonce(2, 900)).await.unwrap(), Nonce::Spent);
    assert_eq!(store.spend_nonce(nonce(2, 900)).await.unwrap(), Nonce::Replayed);
    store.forget_nonces(at(101)).await.unwrap();
    assert_eq!(store.spend_nonce(nonce(3, 900)).await.unwrap(), Nonce::Spent);
    assert_eq!(other.spend_nonce(nonce(3, 900)).await.unwrap(), Nonce::Replayed);
}

pub async fn an_emergency_after_a_command_of_its_gateway_is_found(place: &dyn Place) {
    let store = place.open().await;
    let first = accepted(&store, spec(0, "first")).await.spec;
    let emergency = Spec { risk: Risk::Emergency, ..spec(1, "emergency") };
    let emergency = accepted(&store, emergency).await.spec;
    let last = accepted(&store, spec(2, "last")).await.spec;
    assert_eq!(store.emergency_after(&first).await.unwrap(), Some(emergency.id));
    assert_eq!(store.emergency_after(&emergency).await.unwrap(), None);
    assert_eq!(store.emergency_after(&last).await.unwrap(), None);
    let elsewhere = Spec { gateway: gateway("ELSEWHERE"), ..(*first).clone() };
    assert_eq!(store.emergency_after(&elsewhere).await.unwrap(), None);
}

pub async fn emergencies_after_many_commands_are_found_as_after_each(place: &dyn Place) {
    let store = place.open().await;
    let of = |spec: Spec, gateway_sn: &str, aircraft: Option<&str>| Spec {
        gateway: gateway(gateway_sn),
        aircraft: aircraft.map(sn),
        ..spec
    };
    let urgent = |spec: Spec| Spec { risk: Risk::Emergency, ..spec };
    let made = [
        of(spec(0, "both"), "RC", Some("A1")),
        of(spec(1, "by aircraft"), "RC2", Some("A1")),
        of(spec(2, "by gateway"), "RC", None),
        of(spec(3, "neither"), "RC3", Some("A3")),
        // The aircraft's comes first, and yet the gateway's is named.
        urgent(of(spec(4, "of aircraft"), "DOCK", Some("A1"))),
        urgent(of(spec(5, "of gateway"), "RC", None)),
        urgent(of(spec(6, "of gateway again"), "RC", Some("A1"))),
        of(spec(7, "later"), "RC", Some("A1")),
    ];
    let mut specs = Vec::new();
    for spec in made {
        specs.push(accepted(&store, spec).await.spec);
    }
    let mut each = BTreeMap::new();
    for spec in &specs {
        if let Some(emergency) = store.emergency_after(spec).await.unwrap() {
            each.insert(spec.id, emergency);
        }
    }
    let expected = [(0, 5), (1, 4), (2, 5), (4, 6), (5, 6)];
    let expected = expected.map(|(of, emergency)| (specs[of].id, specs[emergency].id));
    assert_eq!(each, BTreeMap::from(expected));
    // One that is not there has none.
    specs.push(Arc::new(of(spec(8, "not accepted"), "RC", Some("A1"))));
    assert_eq!(store.emergencies_after(&specs).await.unwrap(), each);
    assert_eq!(store.emergencies_after(&[]).await.unwrap(), BTreeMap::new());
}

pub async fn an_emergency_after_a_command_of_its_aircraft_is_found_through_whichever_gateway(
    place: &dyn Place,
) {
    let store = place.open().await;
    let of = |spec: Spec, gateway_sn: &str, aircraft: Option<&str>| Spec {
        gateway: gateway(gateway_sn),
        aircraft: aircraft.map(sn),
        ..spec
    };
    let first = accepted(&store, of(spec(0, "first"), "RC", Some("A1"))).await.spec;
    let other = accepted(&store, of(spec(1, "other"), "RC2", Some("A2"))).await.spec;
    let unnamed = accepted(&store, of(spec(2, "unnamed"), "RC3", None)).await.spec;
    let stop = Spec { risk: Risk::Emergency, ..of(spec(3, "stop"), "DOCK", Some("A1")) };
    let stop = accepted(&store, stop).await.spec;
    assert_eq!(store.emergency_after(&first).await.unwrap(), Some(stop.id));
    assert_eq!(store.emergency_after(&other).await.unwrap(), None);
    assert_eq!(store.emergency_after(&unnamed).await.unwrap(), None);
    let theirs = Spec { tenant: tenant(2), ..(*first).clone() };
    assert_eq!(store.emergency_after(&theirs).await.unwrap(), None);
    let theirs = [Arc::new(theirs)];
    assert_eq!(store.emergencies_after(&theirs).await.unwrap(), BTreeMap::new());
    assert_eq!(store.command(first.id).await.unwrap().unwrap().spec, first);
}

pub async fn what_would_become_of_a_command_is_foreseen_and_nothing_stored(place: &dyn Place) {
    let store = place.open().await;
    let wanted = || of_aircraft(takeoff(1, "k"), "A1");
    assert_eq!(store.foresee(wanted()).await.unwrap(), Accepted::New);
    assert_eq!(store.foresee(wanted()).await.unwrap(), Accepted::New, "nothing was stored");
    let made = wanted();
    assert_eq!(store.accept(None, made.clone()).await.unwrap(), Accepted::New);
    let replayed = store.foresee(wanted()).await.unwrap();
    assert!(matches!(replayed, Accepted::Replayed { id, .. } if id == made.spec.id));
    let other = NewCommand {
        spec: Arc::new(Spec { fingerprint: [9; 32], ..(*wanted().spec).clone() }),
        ..wanted()
    };
    assert_eq!(store.foresee(other).await.unwrap(), Accepted::Conflict { id: made.spec.id });
    let second = of_aircraft(takeoff(2, "l"), "A1");
    assert!(
        matches!(store.foresee(second).await.unwrap(), Accepted::Busy { id, .. } if id == made.spec.id)
    );
}

pub async fn the_same_key_and_body_is_a_replay_and_shows_how_it_stands_today(place: &dyn Place) {
    let store = place.open().await;
    let command = accepted(&store, spec(0, "k")).await;
    let id = command.spec.id;
    let copy = || {
        let mut copy = spec(5000, "k");
        copy.id = spec(5000, "x").id;
        store.accept(None, new(copy))
    };
    let replayed = |status| Accepted::Replayed { id, accepted_at: at(0), status };
    assert_eq!(copy().await.unwrap(), replayed(Status::Accepted));
    end(&store, &command, Outcome::Succeeded, 6000).await;
    assert_eq!(copy().await.unwrap(), replayed(Status::Succeeded));
    assert_eq!(store.command(spec(5000, "x").id).await.unwrap(), None);
    assert_eq!(store.timeline(id).await.unwrap().len(), 2);
}

pub async fn the_same_key_with_another_body_is_a_conflict(place: &dyn Place) {
    let store = place.open().await;
    let command = accepted(&store, spec(0, "k")).await;
    let mut other = spec(1, "k");
    other.fingerprint = [2; 32];
    let id = other.id;
    assert_eq!(
        store.accept(None, new(other)).await.unwrap(),
        Accepted::Conflict { id: command.spec.id }
    );
    assert_eq!(store.command(id).await.unwrap(), None);
    assert_eq!(store.open_commands(None, 10).await.unwrap(), [command]);
}

pub async fn a_key_belongs_to_its_tenant(place: &dyn Place) {
    let store = place.open().await;
    // A random key and one of version 7, which are looked up in different ways.
    for (millis, key) in [(0, "k"), (1, "0190a000-0000-7000-8000-000000000000")] {
        accepted(&store, spec(millis, key)).await;
        let mut other = spec(millis + 100, key);
        other.tenant = tenant(2);
        accepted(&store, other).await;
        let again = store.accept(None, new(spec(millis + 200, key))).await.unwrap();
        assert!(
            matches!(again, Accepted::Replayed { id, .. } if id == spec(millis, key).id),
            "{again:?}"
        );
    }
}

pub async fn every_refusal_spends_the_nonce_and_a_spent_nonce_refuses_first(place: &dyn Place) {
    let store = place.open().await;
    let first = takeoff(0, "first");
    assert_eq!(store.accept(Some(nonce(1, 9)), new(first.clone())).await.unwrap(), Accepted::New);
    let mut conflict = spec(1, "first");
    conflict.fingerprint = [2; 32];
    let replay = takeoff(2, "first");
    let busy = takeoff(3, "busy");
    for (number, (refused, command)) in
        (2..).zip([("conflict", conflict), ("replay", replay), ("busy", busy.clone())])
    {
        let answer = store.accept(Some(nonce(number, 9)), new(command.clone())).await.unwrap();
        assert_ne!(answer, Accepted::New, "{refused}");
        assert_eq!(
            store.spend_nonce(nonce(number, 9)).await.unwrap(),
            Nonce::Replayed,
            "{refused}"
        );
        let again = store.accept(Some(nonce(number, 9)), new(command)).await.unwrap();
        assert_eq!(again, Accepted::NonceReplayed, "{refused}");
    }
    // What was refused as busy left its key free, and what had its nonce refused stored nothing.
    let refused = store.accept(Some(nonce(1, 9)), new(spec(4, "fresh"))).await.unwrap();
    assert_eq!(refused, Accepted::NonceReplayed);
    accepted(&store, spec(5, "fresh")).await;
    let mut free = spec(6, "busy");
    free.fingerprint = [3; 32];
    accepted(&store, free).await;
}

pub async fn a_hundred_simultaneous_copies_make_one_command(place: &dyn Place) {
    let stores = [place.open().await, place.open().await];
    let copies: Vec<_> = (0..100_usize)
        .map(|number| {
            let store = stores[number % 2].clone();
            let mut copy = spec(0, "k");
            copy.id = spec(i64::try_from(number).unwrap(), "copy").id;
            let nonce = nonce(number as u128, 9);
            tokio::spawn(
                async move { (copy.id, store.accept(Some(nonce), new(copy)).await.unwrap()) },
            )
        })
        .collect();
    let (mut made, mut replayed) = (Vec::new(), Vec::new());
    for copy in copies {
        match copy.await.unwrap() {
            (id, Accepted::New) => made.push(id),
            (_, Accepted::Replayed { id, accepted_at, status }) => {
                assert_eq!((accepted_at, status), (at(0), Status::Accepted));
                replayed.push(id);
            }
            (_, other) => panic!("{other:?}"),
        }
    }
    assert_eq!(made.len(), 1);
    assert_eq!(replayed, vec![made[0]; 99]);
    let open = stores[0].open_commands(None, 10).await.unwrap();
    assert_eq!(open.iter().map(|command| command.spec.id).collect::<Vec<_>>(), made);
}

pub async fn one_movement_at_a_time(place: &dyn Place) {
    let store = place.open().await;
    let first = of_aircraft(takeoff(0, "first"), "A1");
    let command =
        utmos_core::command::Command { spec: first.spec.clone(), life: first.life.clone() };
    assert_eq!(store.accept(None, first).await.unwrap(), Accepted::New);
    let busy = Accepted::Busy { id: command.spec.id, method: "takeoff_to_point".to_owned() };
    // By whichever gateway the aircraft is reached.
    let mut second = takeoff(1, "second");
    second.gateway = gateway("RC1");
    second.device = sn("A1");
    assert_eq!(store.accept(None, of_aircraft(second.clone(), "A1")).await.unwrap(), busy);
    // Other aircraft, other tenants, and what starts no movement are free.
    assert_eq!(
        store.accept(None, of_aircraft(takeoff(2, "a2"), "A2")).await.unwrap(),
        Accepted::New
    );
    let mut foreign = takeoff(3, "foreign");
    foreign.tenant = tenant(2);
    assert_eq!(store.accept(None, of_aircraft(foreign, "A1")).await.unwrap(), Accepted::New);
    assert_eq!(
        store.accept(None, of_aircraft(spec(4, "steer"), "A1")).await.unwrap(),
        Accepted::New
    );
    // It may hold the aircraft beyond its own end, until it lets go.
    let flying = Life {
        holds_motion: true,
        due: command.life.due,
        ..(*moved(&command.life, Phase::Ended(Outcome::Succeeded), 10)).clone()
    };
    assert_eq!(store.advance(change(&command, flying.clone())).await.unwrap(), Advanced::Yes);
    assert_eq!(store.accept(None, of_aircraft(second.clone(), "A1")).await.unwrap(), busy);
    let gone =
        Life { holds_motion: false, due: None, version: flying.version.next(), ..flying.clone() };
    let let_go = Advance {
        id: command.spec.id,
        seen: flying.version,
        life: gone.into(),
        entries: Arc::from([]),
    };
    assert_eq!(store.advance(let_go).await.unwrap(), Advanced::Yes);
    assert_eq!(store.accept(None, of_aircraft(second, "A1")).await.unwrap(), Accepted::New);
}

pub async fn commands_that_do_not_know_their_aircraft_share_their_gateways(place: &dyn Place) {
    let store = place.open().await;
    let first = accepted(&store, takeoff(0, "first")).await;
    let busy = Accepted::Busy { id: first.spec.id, method: "takeoff_to_point".to_owned() };
    assert_eq!(store.accept(None, new(takeoff(1, "second"))).await.unwrap(), busy);
    // The aircraft became known only after the first had started.
    assert_eq!(store.accept(None, of_aircraft(takeoff(2, "third"), "A1")).await.unwrap(), busy);
    let mut elsewhere = takeoff(3, "elsewhere");
    elsewhere.gateway = gateway("D2");
    assert_eq!(store.accept(None, of_aircraft(elsewhere, "A2")).await.unwrap(), Accepted::New);
    let mut unknown = takeoff(4, "unknown");
    unknown.gateway = gateway("D2");
    let answer = store.accept(None, new(unknown)).await.unwrap();
    assert!(matches!(answer, Accepted::Busy { .. }), "{answer:?}");
}

pub async fn an_emergency_is_never_too_busy(place: &dyn Place) {
    let store = place.open().await;
    let flying = accepted(&store, takeoff(0, "first")).await;
    let mut home = takeoff(1, "home");
    home.risk = Risk::Emergency;
    home.method = "return_home".to_owned();
    let home = accepted(&store, home).await;
    // Both stand in the way of others then, each until it lets go itself.
    end(&store, &flying, Outcome::Succeeded, 2).await;
    let answer = store.accept(None, new(takeoff(3, "next"))).await.unwrap();
    assert_eq!(answer, Accepted::Busy { id: home.spec.id, method: "return_home".to_owned() });
    end(&store, &home, Outcome::Succeeded, 4).await;
    accepted(&store, takeoff(5, "next")).await;
}

pub async fn a_change_is_kept_with_its_line(place: &dyn Place) {
    let store = place.open().await;
    let command = accepted(&store, spec(0, "k")).await;
    let sending = moved(&command.life, Phase::Sending, 10);
    let lines = vec![transition(&command.life, &sending), evidence(Status::Accepted, "x", 11)];
    let (id, seen) = (command.spec.id, command.life.version);
    let advance = Advance { id, seen, life: sending.clone(), entries: lines.clone().into() };
    assert_eq!(store.advance(advance).await.unwrap(), Advanced::Yes);
    // Several moves decided together skip versions; a mere sign of life has no line.
    let mut delivered = moved(&sending, Phase::Delivered, 20);
    Arc::make_mut(&mut delivered).version = delivered.version.next();
    let advance =
        Advance { id, seen: sending.version, life: delivered.clone(), entries: Arc::from([]) };
    assert_eq!(store.advance(advance).await.unwrap(), Advanced::Yes);
    let kept = place.open().await.command(id).await.unwrap().unwrap();
    assert_eq!((kept.life, &*kept.spec), (delivered, &*command.spec));
    assert_eq!(store.timeline(id).await.unwrap()[1..], lines);
}

pub async fn a_change_that_comes_second_is_lost_and_leaves_nothing(place: &dyn Place) {
    let store = place.open().await;
    let command = accepted(&store, spec(0, "k")).await;
    let won = end(&store, &command, Outcome::Succeeded, 10).await;
    let late = moved(&command.life, Phase::Ended(Outcome::Unmatched), 20);
    assert_eq!(place.open().await.advance(change(&command, late)).await.unwrap(), Advanced::Lost);
    assert_eq!(store.command(command.spec.id).await.unwrap(), Some(won));
    assert_eq!(store.timeline(command.spec.id).await.unwrap().len(), 2);
    assert_eq!(store.newest_record().await.unwrap(), Some(at(10)));
}

pub async fn one_of_many_simultaneous_changes_wins(place: &dyn Place) {
    let stores = [place.open().await, place.open().await];
    let command = accepted(&stores[0], spec(0, "k")).await;
    let rivals: Vec<_> = (0..64_i64)
        .map(|number| {
            let life = moved(&command.life, Phase::Sending, number);
            let (store, advance) =
                (stores[usize::from(number % 2 == 0)].clone(), change(&command, life.clone()));
            tokio::spawn(async move { (life, store.advance(advance).await.unwrap()) })
        })
        .collect();
    let mut winners = Vec::new();
    for rival in rivals {
        if let (life, Advanced::Yes) = rival.await.unwrap() {
            winners.push(life);
        }
    }
    assert_eq!(winners.len(), 1);
    let kept = stores[0].command(command.spec.id).await.unwrap().unwrap();
    assert_eq!(kept.life, winners[0]);
    assert_eq!(stores[0].timeline(command.spec.id).await.unwrap().len(), 2);
}

pub async fn evidence_that_was_judged_on_an_older_state_is_lost_and_leaves_nothing(
    place: &dyn Place,
) {
    let store = place.open().await;
    let command = accepted(&store, spec(0, "k")).await;
    let moved_on = end(&store, &command, Outcome::Succeeded, 10).await;
    let line = evidence(Status::Accepted, "seen before it moved", 20);
    let stale = record(&command, command.life.version, vec![line.clone()]);
    assert_eq!(place.open().await.advance(stale).await.unwrap(), Advanced::Lost);
    assert_eq!(store.command(command.spec.id).await.unwrap(), Some(moved_on.clone()));
    assert_eq!(store.timeline(command.spec.id).await.unwrap().len(), 2);
    let judged_again = record(&moved_on, moved_on.life.version, vec![line.clone()]);
    assert_eq!(store.advance(judged_again).await.unwrap(), Advanced::Yes);
    assert_eq!(store.timeline(command.spec.id).await.unwrap().last(), Some(&line));
    assert_eq!(store.newest_record().await.unwrap(), Some(at(20)));
}

pub async fn evidence_ends_at_its_limit_and_transitions_do_not(place: &dyn Place) {
    let store = place.open().await;
    let command = accepted(&store, spec(0, "k")).await;
    let (id, seen) = (command.spec.id, command.life.version);
    let max = usize::try_from(EVIDENCE_PER_COMMAND_MAX).unwrap();
    for start in (0..max + 50).step_by(25) {
        let lines =
            (start..start + 25).map(|n| evidence(Status::Accepted, &n.to_string(), 1)).collect();
        assert_eq!(store.advance(record(&command, seen, lines)).await.unwrap(), Advanced::Yes);
    }
    // The line of the acceptance is one of them.
    let kept = store.timeline(id).await.unwrap();
    assert_eq!(kept.len(), max);
    assert_eq!(kept.last(), Some(&evidence(Status::Accepted, &(max - 2).to_string(), 1)));

    let life = moved(&command.life, Phase::Ended(Outcome::Succeeded), 30);
    let lines = vec![evidence(Status::Accepted, "dropped", 30), transition(&command.life, &life)];
    store
        .advance(Advance { id, seen, life: life.clone(), entries: lines.clone().into() })
        .await
        .unwrap();
    let kept = store.timeline(id).await.unwrap();
    assert_eq!((kept.len(), kept.last()), (max + 1, lines.last()));
    assert_eq!(store.command(id).await.unwrap().unwrap().life, life);
}

pub async fn nothing_moves_what_is_not_there(place: &dyn Place) {
    let store = place.open().await;
    let missing = new(spec(0, "k"));
    let command = utmos_core::command::Command { spec: missing.spec, life: missing.life };
    let life = moved(&command.life, Phase::Sending, 1);
    assert_eq!(store.advance(change(&command, life)).await.unwrap(), Advanced::Lost);
    let line = vec![evidence(Status::Accepted, "x", 1)];
    assert_eq!(
        store.advance(record(&command, command.life.version, line)).await.unwrap(),
        Advanced::Lost
    );
    assert_eq!(store.newest_record().await.unwrap(), None);
}

pub async fn the_newest_record_only_grows(place: &dyn Place) {
    let (store, other) = (place.open().await, place.open().await);
    assert_eq!(store.newest_record().await.unwrap(), None);
    let command = accepted(&store, spec(1000, "k")).await;
    assert_eq!(store.newest_record().await.unwrap(), Some(at(1000)));
    accepted(&other, spec(500, "set back")).await;
    assert_eq!(other.newest_record().await.unwrap(), Some(at(1000)));
    end(&other, &command, Outcome::Succeeded, 3000).await;
    accepted(&store, spec(2000, "between")).await;
    assert_eq!(place.open().await.newest_record().await.unwrap(), Some(at(3000)));
}

pub async fn whoever_stops_waiting_stops_nobody(place: &dyn Place) {
    let store = place.open().await;
    let tasks: Vec<_> = (0..200)
        .map(|number| {
            let store = store.clone();
            tokio::spawn(async move {
                store.accept(None, new(spec(number, &format!("k{number}")))).await
            })
        })
        .collect();
    tokio::task::yield_now().await;
    for task in &tasks {
        task.abort();
    }
    accepted(&store, spec(9000, "after")).await;
    let open = store.open_commands(None, 1000).await.unwrap();
    let ids: BTreeSet<_> = open.iter().map(|command| command.spec.id).collect();
    assert!(ids.contains(&spec(9000, "after").id));
    for id in ids {
        assert_eq!(store.timeline(id).await.unwrap().len(), 1);
    }
}
