//! Several servers on one database: who is there, who holds what, and that nobody claims what is another's.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use utmos_core::{
    command::{Command, Life, Outcome, Phase, Spec, Status},
    evidence::{Entry, Proof},
    id::{CommandId, GatewaySn},
    method::Risk,
    ports::{
        Accepted, Advance, Advanced, CommandStore, Joined, NewCommand, RegistryStore, ReplicaStore,
    },
    replica::{Handed, InstanceId, Member, ReplicaId, Roll, Shard},
};
use utmos_store::PostgresStore;
use uuid::Uuid;

use crate::{
    given::{at, gateway, moved, new, sn, spec, takeoff, tenant, transition},
    postgres_commands::{PostgresPlace, config, whole},
    postgres_faults::{Cut, Wire},
    postgres_server::Database,
};

/// Longer than anything takes that does not hang.
const PATIENCE: Duration = Duration::from_secs(60);

/// The `number`th run of all, of this server.
pub fn member(instance: u128, number: u128) -> Member {
    Member {
        id: ReplicaId(Uuid::from_u128(0xA000 + number)),
        instance: InstanceId(Uuid::from_u128(instance)),
        name: format!("server-{instance}"),
        alone: false,
        client_id: None,
        line: None,
        beats: 0,
        fit: true,
    }
}

pub fn every_shard() -> Vec<Shard> {
    Shard::all().collect()
}

/// A gateway of this shard.
pub fn gateway_in(shard: Shard) -> GatewaySn {
    (0..).map(|number| gateway(&format!("G{number}"))).find(|it| Shard::of(it) == shard).unwrap()
}

fn shard(number: u8) -> Shard {
    Shard::from_number(number).unwrap()
}

pub async fn joined(store: &PostgresStore, member: Member) -> Roll {
    match store.join(member).await.unwrap() {
        Joined::Yes(roll) => roll,
        Joined::NotBeside(other) | Joined::SameClient(other) => panic!("{other:?}"),
    }
}

/// Two servers that are members.
async fn pair(place: &PostgresPlace) -> [(Arc<PostgresStore>, ReplicaId); 2] {
    let (one, two) = tokio::join!(place.store(), place.store());
    joined(&one, member(1, 1)).await;
    joined(&two, member(2, 2)).await;
    [(Arc::new(one), member(1, 1).id), (Arc::new(two), member(2, 2).id)]
}

fn of(gateway: GatewaySn, spec: Spec) -> Spec {
    Spec { gateway, ..spec }
}

fn emergency(millis: i64, key: &str) -> Spec {
    Spec { risk: Risk::Emergency, ..spec(millis, key) }
}

/// The change that begins its sending.
pub fn claim(command: &Command, server: &str) -> Advance {
    let life = moved(&command.life, Phase::Sending, 1);
    let proof = Proof::SendingClaimed { replica: server.to_owned() };
    let (from, to) = (Status::Accepted, Status::Accepted);
    let entries = Arc::from([Entry { at: at(1), from, to, proof }]);
    Advance { id: command.spec.id, seen: command.life.version, life, entries }
}

/// A command whose sending begins with its acceptance.
pub fn claimed(spec: Spec, server: &str) -> NewCommand {
    let unclaimed = new(spec);
    let command = Command { spec: unclaimed.spec.clone(), life: unclaimed.life.clone() };
    let Advance { life, entries, .. } = claim(&command, server);
    let entries = unclaimed.entries.into_iter().chain(entries.iter().cloned()).collect();
    NewCommand { spec: unclaimed.spec, life, entries }
}

/// Stores a command and reads it back.
async fn stored(store: &PostgresStore, new: NewCommand, answer: Accepted) -> Command {
    let id = new.spec.id;
    assert_eq!(store.accept(None, new).await.unwrap(), answer);
    store.command(id).await.unwrap().unwrap()
}

async fn until(what: &str, is_so: impl Fn() -> bool) {
    let wait = async {
        while !is_so() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(PATIENCE, wait).await.unwrap_or_else(|_| panic!("{what}"));
}

/// How many wait for a lock of this kind.
fn waiting(database: &Database, kind: &str) -> usize {
    let sql = format!(
        "SELECT count(*) FROM pg_locks l JOIN pg_stat_activity a ON a.pid = l.pid
         WHERE l.locktype = '{kind}' AND NOT l.granted AND a.datname = current_database()"
    );
    database.sql(&sql).parse().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn servers_find_each_other_and_pass_shards_on() {
    let place = PostgresPlace::new();
    let (one, two) = (place.store().await, place.store().await);
    let (first, second) = (member(1, 1), member(2, 2));
    assert_eq!(one.roll().await.unwrap(), Roll::default());
    let alone = joined(&one, first.clone()).await;
    assert_eq!((alone.members, alone.holders.len()), (vec![first.clone()], 0));
    let sql = "SELECT (extract(epoch FROM clock_timestamp()) * 1000)::bigint";
    let clock: i64 = place.database.sql(sql).parse().unwrap();
    assert!((clock - alone.at.unwrap().as_millis()).abs() < 60_000, "it is PostgreSQL's");
    assert_eq!(one.take(first.id, every_shard()).await.unwrap(), every_shard());
    assert_eq!(one.take(first.id, vec![shard(3)]).await.unwrap(), [shard(3)], "it is its own");
    let both = joined(&two, second.clone()).await;
    assert_eq!(both.members, [first.clone(), second.clone()]);
    assert_eq!(both.holders.len(), 64);
    assert!(two.take(second.id, every_shard()).await.unwrap().is_empty());

    one.release(first.id, vec![shard(9), shard(2)]).await.unwrap();
    two.release(second.id, vec![shard(5)]).await.unwrap();
    assert_eq!(
        two.take(second.id, vec![shard(2), shard(4), shard(9)]).await.unwrap(),
        [shard(2), shard(9)]
    );
    let roll = one.beat(first.id, true).await.unwrap().unwrap();
    assert_eq!(roll.members, [Member { beats: 1, ..first.clone() }, second.clone()]);
    assert_eq!(roll.holders[&shard(5)], first.id, "nobody gives back what is another's");
    let of_second: Vec<Shard> =
        roll.holders.iter().filter(|it| *it.1 == second.id).map(|it| *it.0).collect();
    assert_eq!(of_second, [shard(2), shard(9)]);
    assert_eq!(two.beat(second.id, false).await.unwrap().unwrap().members[1].beats, 1);
    let fit = |roll: Roll| roll.members.iter().map(|it| it.fit).collect::<Vec<_>>();
    assert_eq!(
        fit(one.roll().await.unwrap()),
        [true, false],
        "one sees that the other cannot send"
    );
    assert_eq!(fit(two.beat(second.id, true).await.unwrap().unwrap()), [true, true]);

    one.leave(first.id).await.unwrap();
    one.leave(first.id).await.unwrap();
    let left = two.roll().await.unwrap();
    assert_eq!((left.members.len(), left.holders.len()), (1, 2));
    assert_eq!(one.beat(first.id, true).await.unwrap(), None);
    assert!(one.take(first.id, every_shard()).await.unwrap().is_empty());
    assert_eq!(two.take(second.id, every_shard()).await.unwrap(), every_shard());
    whole(&place.database).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_that_take_the_same_free_shards_each_goes_to_one() {
    let place = PostgresPlace::new();
    let [(one, first), (two, second)] = pair(&place).await;
    for _ in 0..20 {
        let backwards = every_shard().into_iter().rev().collect();
        let (of_one, of_two) =
            tokio::join!(one.take(first, every_shard()), two.take(second, backwards));
        let (of_one, of_two) = (of_one.unwrap(), of_two.unwrap());
        assert_eq!(of_one.len() + of_two.len(), 64);
        let all: BTreeSet<Shard> = of_one.iter().chain(&of_two).copied().collect();
        assert_eq!(all.len(), 64);
        let (gone, gone_too) =
            tokio::join!(one.release(first, of_one), two.release(second, of_two));
        gone.unwrap();
        gone_too.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_gave_a_sign_of_life_meanwhile_is_not_expelled() {
    let place = PostgresPlace::new();
    let [(one, first), (two, second)] = pair(&place).await;
    one.take(first, every_shard()).await.unwrap();
    one.beat(first, true).await.unwrap();
    assert!(!two.expel(first, 0).await.unwrap());
    assert!(two.expel(first, 1).await.unwrap());
    assert!(!two.expel(first, 1).await.unwrap());
    assert_eq!(one.beat(first, true).await.unwrap(), None);
    assert!(one.take(first, every_shard()).await.unwrap().is_empty());
    assert_eq!(two.roll().await.unwrap().holders.len(), 0);
    assert_eq!(two.take(second, every_shard()).await.unwrap(), every_shard());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_next_run_of_a_server_takes_the_place_of_the_one_before() {
    let place = PostgresPlace::new();
    let [(one, first), (two, second)] = pair(&place).await;
    one.take(first, vec![shard(1), shard(7)]).await.unwrap();
    let stop = of(gateway_in(shard(7)), emergency(1, "stop"));
    let stop = stored(&one, new(stop), Accepted::New).await.spec.id;
    let waits = stored(&one, new(of(gateway_in(shard(1)), spec(2, "k"))), Accepted::New).await;
    assert_eq!(two.emergencies_elsewhere(second).await.unwrap(), [stop].into());
    assert!(one.emergencies_elsewhere(first).await.unwrap().is_empty());

    let again = place.store().await;
    let third = member(1, 3);
    // Twice, as after an answer that was lost.
    for _ in 0..2 {
        let roll = joined(&again, third.clone()).await;
        assert_eq!(roll.members.iter().map(|it| it.id).collect::<Vec<_>>(), [second, third.id]);
        assert_eq!(roll.holders, [(shard(1), third.id), (shard(7), third.id)].into());
    }
    assert_eq!(one.beat(first, true).await.unwrap(), None);
    assert_eq!(one.advance(claim(&waits, "1")).await.unwrap(), Advanced::Elsewhere);
    assert_eq!(again.advance(claim(&waits, "1 again")).await.unwrap(), Advanced::Yes);
    // Nobody else looks after what the run before accepted.
    assert!(two.emergencies_elsewhere(second).await.unwrap().is_empty());
    // A member that is none any more accepts for whoever holds the shard.
    let late = claimed(of(gateway_in(shard(1)), spec(3, "late")), "1");
    let late = stored(&one, late, Accepted::Elsewhere).await;
    let handed = again.handed(third.id).await.unwrap();
    assert_eq!(handed, [Handed { id: late.spec.id, urgent: false }]);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_works_alone_works_beside_nobody() {
    let place = PostgresPlace::new();
    let (one, two) = (place.store().await, place.store().await);
    let alone = |member: Member| Member { alone: true, ..member };
    joined(&one, alone(member(1, 1))).await;
    let refused = two.join(member(2, 2)).await.unwrap();
    assert_eq!(refused, Joined::NotBeside(alone(member(1, 1))));
    // What was refused is still a store of its own.
    assert_eq!(two.accept(None, new(spec(0, "k"))).await.unwrap(), Accepted::New);
    // Another run of the one that is there.
    joined(&two, alone(member(1, 3))).await;
    two.leave(member(1, 3).id).await.unwrap();
    joined(&one, member(1, 4)).await;
    let refused = two.join(alone(member(2, 5))).await.unwrap();
    assert_eq!(refused, Joined::NotBeside(member(1, 4)));
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_that_want_to_work_alone_at_once_one_does() {
    let place = PostgresPlace::new();
    let (one, two) = (place.store().await, place.store().await);
    let alone = |member: Member| Member { alone: true, ..member };
    let (first, second) =
        tokio::join!(one.join(alone(member(1, 1))), two.join(alone(member(2, 2))));
    let is_in = |joined: Joined| matches!(joined, Joined::Yes(_));
    assert_ne!(is_in(first.unwrap()), is_in(second.unwrap()));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_accepted_for_anothers_gateway_is_stored_unclaimed_and_handed_on() {
    let place = PostgresPlace::new();
    let [(one, first), (two, second)] = pair(&place).await;
    one.take(first, vec![shard(0)]).await.unwrap();
    two.take(second, vec![shard(1), shard(2)]).await.unwrap();

    let own = claimed(of(gateway_in(shard(0)), spec(1, "own")), "1");
    let own = stored(&one, own, Accepted::New).await;
    assert_eq!(own.life.phase, Phase::Sending);
    // One that was claimed, one that was not, one that moves, one for a shard that is free.
    let theirs = claimed(of(gateway_in(shard(1)), spec(2, "theirs")), "1");
    let given = theirs.entries[..1].to_vec();
    let theirs = stored(&one, theirs, Accepted::Elsewhere).await;
    assert_eq!(*theirs.life, Life::accepted(&theirs.spec));
    assert_eq!(one.timeline(theirs.spec.id).await.unwrap(), given);
    let waits = new(of(gateway_in(shard(2)), spec(3, "waits")));
    let waits = stored(&one, waits, Accepted::Elsewhere).await;
    let moves = claimed(of(gateway_in(shard(2)), takeoff(4, "moves")), "1");
    let moves = stored(&one, moves, Accepted::Elsewhere).await;
    let free =
        stored(&one, new(of(gateway_in(shard(3)), spec(5, "free"))), Accepted::Elsewhere).await;
    // Again under its key, and another movement beside it.
    let again = claimed(of(gateway_in(shard(2)), takeoff(4, "moves")), "1");
    let answer = one.accept(None, again).await.unwrap();
    assert!(matches!(answer, Accepted::Replayed { status: Status::Accepted, .. }), "{answer:?}");
    let beside = claimed(of(gateway_in(shard(2)), takeoff(5, "beside")), "2");
    let answer = two.accept(None, beside).await.unwrap();
    assert!(matches!(&answer, Accepted::Busy { id, .. } if *id == moves.spec.id), "{answer:?}");
    // Emergencies leave from wherever they were accepted.
    let stop = claimed(of(gateway_in(shard(1)), emergency(6, "stop")), "1");
    let stop = stored(&one, stop, Accepted::New).await;
    assert_eq!(stop.life.phase, Phase::Sending);
    let own_stop = claimed(of(gateway_in(shard(0)), emergency(7, "own stop")), "1");
    stored(&one, own_stop, Accepted::New).await;

    let handed = two.handed(second).await.unwrap();
    let expected = [(&theirs, false), (&waits, false), (&moves, false), (&stop, true)];
    let expected = expected.map(|(it, urgent)| Handed { id: it.spec.id, urgent });
    assert_eq!(handed, expected, "in the order of acceptance");
    let along = two.handed_commands(second).await.unwrap();
    let along = along.into_iter().map(|(it, command)| (it, command.map(|it| it.spec.id)));
    let ids = expected.map(|it| (it, (!it.urgent).then_some(it.id)));
    assert_eq!(along.collect::<Vec<_>>(), ids, "emergencies are looked at one by one");
    // Not by one that does not hold them, which may have believed so a moment ago.
    let taken =
        |ids: &[CommandId]| ids.iter().map(|id| Handed { id: *id, urgent: false }).collect();
    one.taken_in(first, taken(&[waits.spec.id, free.spec.id])).await.unwrap();
    assert_eq!(two.handed(second).await.unwrap(), expected);
    two.taken_in(second, taken(&[waits.spec.id, theirs.spec.id])).await.unwrap();
    assert_eq!(two.take(second, vec![shard(3)]).await.unwrap(), [shard(3)]);
    let free = Handed { id: free.spec.id, urgent: false };
    assert_eq!(two.handed(second).await.unwrap(), [expected[2], free, expected[3]]);
    // The holder's own waits behind what it has not taken in, and only there.
    let behind = claimed(of(gateway_in(shard(2)), spec(8, "behind")), "2");
    let behind = stored(&two, behind, Accepted::Elsewhere).await.spec.id;
    let past = claimed(of(gateway_in(shard(2)), emergency(8, "past")), "2");
    stored(&two, past, Accepted::New).await;
    let beside = claimed(of(gateway_in(shard(1)), spec(9, "beside")), "2");
    stored(&two, beside, Accepted::New).await;
    let behind = Handed { id: behind, urgent: false };
    assert_eq!(two.handed(second).await.unwrap(), [expected[2], free, expected[3], behind]);
    two.taken_in(second, vec![expected[2], behind]).await.unwrap();
    let next = claimed(of(gateway_in(shard(2)), spec(9, "next")), "2");
    stored(&two, next, Accepted::New).await;
    assert_eq!(two.advance(claim(&waits, "2")).await.unwrap(), Advanced::Yes);
    let by = format!("SELECT count(*) FROM commands WHERE accepted_by = '{}'", first.0);
    assert_eq!(place.database.sql(&by), "7");
    whole(&place.database).await;
}

/// One that cannot send hands on what it looked after, whoever holds the shard, and whoever comes to hold it.
#[tokio::test(flavor = "multi_thread")]
async fn emergencies_that_are_handed_over_are_nobodys_but_the_holders() {
    let place = PostgresPlace::new();
    let [(one, first), (two, second)] = pair(&place).await;
    one.take(first, vec![shard(0)]).await.unwrap();
    two.take(second, vec![shard(1)]).await.unwrap();
    let own = stored(&one, new(of(gateway_in(shard(0)), emergency(1, "own"))), Accepted::New).await;
    let stop =
        stored(&one, new(of(gateway_in(shard(1)), emergency(2, "stop"))), Accepted::New).await;
    let [own, stop] = [own.spec.id, stop.spec.id];
    let elsewhere = two.emergencies_elsewhere(second).await.unwrap();
    assert_eq!(elsewhere, BTreeSet::from([own, stop]));
    two.taken_in(second, vec![Handed { id: stop, urgent: true }]).await.unwrap();

    let unknown = CommandId::new(Uuid::from_u128(9));
    let given = vec![(stop, shard(1)), (unknown, shard(1)), (own, shard(0))];
    for _ in 0..2 {
        let mut handed = one.hand_over(given.clone()).await.unwrap();
        handed.sort_unstable();
        assert_eq!(handed, [own, stop], "done again, it is done");
        assert_eq!(two.emergencies_elsewhere(second).await.unwrap(), BTreeSet::new());
        let urgent = Handed { id: stop, urgent: true };
        assert_eq!(two.handed(second).await.unwrap(), [urgent]);
    }
    one.release(first, vec![shard(0)]).await.unwrap();
    two.take(second, vec![shard(0)]).await.unwrap();
    let both = [own, stop].map(|id| Handed { id, urgent: true });
    assert_eq!(two.handed(second).await.unwrap(), both);
    let command = two.command(own).await.unwrap().unwrap();
    assert_eq!(two.advance(claim(&command, "2")).await.unwrap(), Advanced::Yes);
    assert_eq!(one.advance(claim(&command, "1")).await.unwrap(), Advanced::Lost);
    whole(&place.database).await;
}

/// What one server stored for another that did not hear it.
#[tokio::test(flavor = "multi_thread")]
async fn a_command_that_is_on_record_is_handed_to_its_holder_as_long_as_it_is_open() {
    let place = PostgresPlace::new();
    let [(one, first), (two, second)] = pair(&place).await;
    one.take(first, vec![shard(0)]).await.unwrap();
    two.take(second, vec![shard(1)]).await.unwrap();
    let gateway = gateway_in(shard(1));
    let theirs = stored(&two, new(of(gateway.clone(), spec(1, "k1"))), Accepted::New).await;
    let id = theirs.spec.id;
    for _ in 0..2 {
        one.hand(id, shard(1)).await.unwrap();
        let handed = Handed { id, urgent: false };
        assert_eq!(two.handed(second).await.unwrap(), [handed], "done again, it is done");
    }
    // What comes next for the gateway comes behind it.
    stored(&two, new(of(gateway, spec(2, "k2"))), Accepted::Elsewhere).await;
    let all = two.handed(second).await.unwrap();
    assert_eq!(all.iter().map(|one| one.id).next(), Some(id));
    two.taken_in(second, all).await.unwrap();
    assert_eq!(two.handed(second).await.unwrap(), []);
    one.hand(CommandId::new(Uuid::from_u128(9)), shard(1)).await.unwrap();
    let end = moved(&theirs.life, Phase::Ended(Outcome::Succeeded), 2);
    let life = Arc::new(Life { due: None, ..(*end).clone() });
    let ended = Advance { life, entries: Arc::from([]), ..claim(&theirs, "2") };
    assert_eq!(two.advance(ended).await.unwrap(), Advanced::Yes);
    one.hand(id, shard(1)).await.unwrap();
    assert_eq!(two.handed(second).await.unwrap(), [], "there is nothing left to be done for it");
    whole(&place.database).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn only_the_holder_claims_and_everybody_may_do_the_rest() {
    let place = PostgresPlace::new();
    let [(one, first), (two, second)] = pair(&place).await;
    one.take(first, vec![shard(0)]).await.unwrap();
    two.take(second, vec![shard(1)]).await.unwrap();
    let waits = stored(&one, new(of(gateway_in(shard(0)), spec(1, "k1"))), Accepted::New).await;
    assert_eq!(two.advance(claim(&waits, "2")).await.unwrap(), Advanced::Elsewhere);
    assert_eq!(one.command(waits.spec.id).await.unwrap().unwrap(), waits);
    assert_eq!(one.timeline(waits.spec.id).await.unwrap().len(), 1);
    assert_eq!(one.advance(claim(&waits, "1")).await.unwrap(), Advanced::Yes);
    assert_eq!(two.advance(claim(&waits, "2")).await.unwrap(), Advanced::Lost);

    // An answer that came to the other server, and a cancellation.
    let sent = one.command(waits.spec.id).await.unwrap().unwrap();
    let ended = moved(&sent.life, Phase::Ended(Outcome::Succeeded), 9);
    let entries = Arc::from([transition(&sent.life, &ended)]);
    let reply = Advance { id: sent.spec.id, seen: sent.life.version, life: ended, entries };
    assert_eq!(two.advance(reply).await.unwrap(), Advanced::Yes);

    // An emergency is claimed by whoever looks after it.
    let stop =
        stored(&one, new(of(gateway_in(shard(1)), emergency(2, "stop"))), Accepted::New).await;
    assert_eq!(one.advance(claim(&stop, "1")).await.unwrap(), Advanced::Yes);
    // One that is not there.
    let never =
        Command { spec: spec(3, "never").into(), life: Life::accepted(&spec(3, "never")).into() };
    assert_eq!(one.advance(claim(&never, "1")).await.unwrap(), Advanced::Lost);

    // A server that nobody made a member is alone, as ever.
    let alone = place.store().await;
    let theirs =
        stored(&one, new(of(gateway_in(shard(1)), spec(4, "k4"))), Accepted::Elsewhere).await;
    assert_eq!(alone.advance(claim(&theirs, "alone")).await.unwrap(), Advanced::Yes);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_movement_is_not_claimed_once_an_emergency_of_its_aircraft_is_on_record() {
    let place = PostgresPlace::new();
    let [(one, first), (two, _)] = pair(&place).await;
    one.take(first, every_shard()).await.unwrap();
    let with = |spec: Spec, gateway: &str, aircraft: Option<&str>| Spec {
        gateway: crate::given::gateway(gateway),
        aircraft: aircraft.map(sn),
        ..spec
    };
    for (number, (movement, stop, is_in_its_way)) in (1..).zip([
        (("DOCK1", None), ("DOCK1", None), true),
        (("DOCK2", Some("A2")), ("RC2", Some("A2")), true),
        (("DOCK3", Some("A3")), ("RC3", Some("B3")), false),
        (("DOCK4", None), ("RC4", None), false),
    ]) {
        let movement = with(takeoff(number * 10, &format!("m{number}")), movement.0, movement.1);
        let movement = stored(&one, new(movement), Accepted::New).await;
        let ground = with(spec(number * 10, &format!("g{number}")), "DOCK9", None);
        let ground = stored(
            &one,
            new(Spec { gateway: movement.spec.gateway.clone(), ..ground }),
            Accepted::New,
        )
        .await;
        // Of another tenant with the same serial numbers.
        let foreign = with(emergency(number * 10, &format!("f{number}")), stop.0, stop.1);
        stored(&two, new(Spec { tenant: tenant(2), ..foreign }), Accepted::New).await;
        // Before, by the clock of the server that accepted it.
        let emergency = with(emergency(0, &format!("e{number}")), stop.0, stop.1);
        let emergency = stored(&two, new(emergency), Accepted::New).await.spec.id;
        let expected = match is_in_its_way {
            true => Advanced::Preempted(emergency),
            false => Advanced::Yes,
        };
        assert_eq!(one.advance(claim(&movement, "1")).await.unwrap(), expected, "{number}");
        assert_eq!(one.advance(claim(&ground, "1")).await.unwrap(), Advanced::Yes);
        if is_in_its_way {
            let unmoved = one.command(movement.spec.id).await.unwrap().unwrap();
            assert_eq!(unmoved, movement);
            let outcome = Phase::Ended(Outcome::Failed(
                utmos_core::command::FailureCode::PreemptedByEmergency,
            ));
            let ended = moved(&movement.life, outcome, 9);
            let entries = Arc::from([transition(&movement.life, &ended)]);
            let (id, seen) = (movement.spec.id, movement.life.version);
            let withdrawn = Advance { id, seen, life: ended, entries };
            assert_eq!(one.advance(withdrawn).await.unwrap(), Advanced::Yes);
            // One that is asked for after it goes.
            let next = Spec {
                gateway: movement.spec.gateway.clone(),
                aircraft: movement.spec.aircraft.clone(),
                ..takeoff(number * 10 + 5, &format!("n{number}"))
            };
            let next = stored(&one, new(next), Accepted::New).await;
            assert_eq!(one.advance(claim(&next, "1")).await.unwrap(), Advanced::Yes);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_takes_shards_away_waits_for_a_claim_that_is_being_written() {
    let place = PostgresPlace::new();
    let [(one, first), (two, second)] = pair(&place).await;
    one.take(first, every_shard()).await.unwrap();
    let (blocker, connection) =
        tokio_postgres::connect(&place.database.url(), tokio_postgres::NoTls).await.unwrap();
    tokio::spawn(connection);
    // Each of the ways in which a member loses shards, then one that it keeps for itself.
    let mut runs = (one.clone(), first);
    for (number, how) in (10..).zip(["release", "expel", "join", "leave"]) {
        let (store, id) = runs.clone();
        let dock = gateway_in(shard(5));
        let waits = new(of(dock.clone(), spec(number, how)));
        let waits = stored(&store, waits, Accepted::New).await;
        let next =
            stored(&store, new(of(dock, spec(number, &format!("{how} after")))), Accepted::New)
                .await;
        let hold = format!("BEGIN; SELECT FROM lives WHERE id = '{}' FOR UPDATE", waits.spec.id);
        blocker.batch_execute(&hold).await.unwrap();
        let claiming = {
            let (store, change) = (store.clone(), claim(&waits, "1"));
            tokio::spawn(async move { store.advance(change).await.unwrap() })
        };
        until("the claim waits for the row", || waiting(&place.database, "transactionid") == 1)
            .await;
        let next_run = member(1, number.unsigned_abs().into());
        let taking = {
            let (two, again, store) = (two.clone(), place.store().await, store.clone());
            let next_run = next_run.clone();
            tokio::spawn(async move {
                match how {
                    "release" => store.release(id, every_shard()).await.unwrap(),
                    "expel" => assert!(two.expel(id, 0).await.unwrap()),
                    "join" => drop(joined(&again, next_run).await),
                    _ => store.leave(id).await.unwrap(),
                }
                if how != "join" {
                    assert_eq!(two.take(second, every_shard()).await.unwrap(), every_shard());
                }
                again
            })
        };
        until("it waits for the batch", || waiting(&place.database, "advisory") == 1).await;
        assert!(!claiming.is_finished() && !taking.is_finished());
        blocker.batch_execute("ROLLBACK").await.unwrap();
        assert_eq!(claiming.await.unwrap(), Advanced::Yes, "{how}");
        let again = Arc::new(taking.await.unwrap());
        assert_eq!(store.advance(claim(&next, "1")).await.unwrap(), Advanced::Elsewhere, "{how}");
        // The next one starts with a server that holds everything.
        let id = member(1, number.unsigned_abs() as u128 + 100);
        joined(&again, id.clone()).await;
        two.release(second, every_shard()).await.unwrap();
        assert_eq!(again.take(id.id, every_shard()).await.unwrap(), every_shard());
        runs = (again, id.id);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_stands_still_in_the_middle_of_a_claim_is_expelled_and_its_claim_never_was() {
    let place = PostgresPlace::new();
    let wire = Wire::to(place.database.address()).await;
    let address = place.database.address().to_string();
    let url = place.database.url().replace(&address, &wire.address().to_string());
    let still = Arc::new(PostgresStore::open(config(&url)).await.unwrap());
    let other = place.store().await;
    let (first, second) = (member(1, 1).id, member(2, 2).id);
    joined(&still, member(1, 1)).await;
    joined(&other, member(2, 2)).await;
    still.take(first, every_shard()).await.unwrap();
    let waits = stored(&still, new(spec(1, "k")), Accepted::New).await;
    wire.cut(Cut::Stall);
    let claiming = {
        let (still, change) = (still.clone(), claim(&waits, "1"));
        tokio::spawn(async move { still.advance(change).await })
    };
    until("the commit was withheld", || wire.is_cut()).await;
    assert!(other.expel(first, 0).await.unwrap());
    assert_eq!(other.take(second, every_shard()).await.unwrap(), every_shard());
    let answer = claiming.await.unwrap();
    assert!(answer.is_err(), "{answer:?}");
    assert_eq!(other.command(waits.spec.id).await.unwrap().unwrap(), waits);
    assert_eq!(still.advance(claim(&waits, "1")).await.unwrap(), Advanced::Elsewhere);
    assert_eq!(other.advance(claim(&waits, "2")).await.unwrap(), Advanced::Yes);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sign_of_life_waits_for_no_reader() {
    let place = PostgresPlace::new();
    let mut config = config(&place.database.url());
    config.connections = 1;
    let store = Arc::new(PostgresStore::open(config).await.unwrap());
    joined(&store, member(1, 1)).await;
    let (blocker, connection) =
        tokio_postgres::connect(&place.database.url(), tokio_postgres::NoTls).await.unwrap();
    tokio::spawn(connection);
    blocker.batch_execute("BEGIN; LOCK TABLE tenants IN ACCESS EXCLUSIVE MODE").await.unwrap();
    let reading = {
        let store = store.clone();
        tokio::spawn(async move { store.tenants().await })
    };
    until("the only connection is busy", || waiting(&place.database, "relation") == 1).await;
    assert!(store.beat(member(1, 1).id, true).await.unwrap().is_some());
    assert!(!reading.is_finished());
    blocker.batch_execute("ROLLBACK").await.unwrap();
    reading.await.unwrap().unwrap();
}

#[tokio::test]
async fn what_was_handed_on_goes_with_its_week() {
    const WEEK_MS: i64 = 7 * 24 * 3_600_000;
    let place = PostgresPlace::new();
    let store = place.store().await;
    joined(&store, member(1, 1)).await;
    let old = stored(&store, new(spec(0, "old")), Accepted::Elsewhere).await;
    let young = stored(&store, new(spec(9 * WEEK_MS, "young")), Accepted::Elsewhere).await;
    let ended = moved(&old.life, Phase::Ended(Outcome::Succeeded), 9);
    let entries = Arc::from([transition(&old.life, &ended)]);
    let end = Advance { id: old.spec.id, seen: old.life.version, life: ended, entries };
    assert_eq!(store.advance(end).await.unwrap(), Advanced::Yes);
    let config = config(&place.database.url());
    let keep = Duration::from_millis(WEEK_MS.unsigned_abs());
    let tidied = PostgresStore::tidy_weeks(&config, at(9 * WEEK_MS), keep).await.unwrap();
    assert_eq!(tidied.dropped, 1);
    let id = member(1, 1).id;
    store.take(id, every_shard()).await.unwrap();
    let left: Vec<CommandId> = store.handed(id).await.unwrap().iter().map(|it| it.id).collect();
    assert_eq!(left, [young.spec.id]);
    whole(&place.database).await;
    place.database.sql("DELETE FROM shards WHERE shard = 7; INSERT INTO handed VALUES (gen_random_uuid(), 1, false)");
    let found = PostgresStore::examine(&config).await.unwrap().faults;
    let words = [
        "handed to another server that are not there: 1",
        "shards that are missing or beyond the last: 1",
    ];
    assert!(words.iter().all(|words| found.iter().any(|fault| fault.contains(words))), "{found:?}");
}
