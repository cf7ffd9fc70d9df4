//! Two servers on one store, of which one learns late what the other knows: of its own publish, of a command's end, of a dock.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use async_trait::async_trait;
use tokio::sync::watch;
use utmos_core::{
    command::{Life, Outcome, Phase, Status, StatusVersion},
    evidence::{Entry, Proof},
    id::{CommandId, DeviceSn, GatewaySn},
    idempotency::fingerprint,
    method::{CompleteOn, IfOffline, Risk},
    ports::{Advance, Advanced, CommandStore, Store},
    replica::{Handed, Shard},
    reply::{Reply, Verdict},
    signing::{self, Caller, KeyedCredential, SignedHead, SignedParts},
    time::Clock,
};
use utmos_dji::catalogue::Catalogue;
use utmos_mqtt::{Outlet, Publish, Sent};
use utmos_server::{
    clock::SystemClock,
    directory::Directory,
    driver::{
        Cancelled, Draft, Driver, DriverParts, Limits, Look, WaitsFor,
        presence::{Knowledge, PresenceBook},
    },
    ids::SystemIds,
    replicas::{Holdings, Missed, Word},
};
use utmos_store::{MasterKey, SqliteConfig, SqliteStore};

use crate::{
    app::{PATIENCE, new_credential, put_gateway, put_tenant},
    unwell::Unwell,
};

/// Says of each message what a test says, when it says it.
struct Told {
    began: watch::Sender<usize>,
    word: watch::Sender<Option<Sent>>,
}

impl Told {
    fn new() -> Arc<Self> {
        Arc::new(Self { began: watch::Sender::new(0), word: watch::Sender::new(None) })
    }

    /// Returns once so many messages have been handed over.
    async fn until_began(&self, count: usize) {
        let mut began = self.began.subscribe();
        let began = began.wait_for(|began| *began >= count);
        tokio::time::timeout(PATIENCE, began).await.unwrap().unwrap();
    }
}

#[async_trait]
impl Outlet for Told {
    async fn publish(&self, _: Publish) -> Sent {
        self.began.send_modify(|began| *began += 1);
        let mut word = self.word.subscribe();
        word.wait_for(Option::is_some).await.unwrap().clone().unwrap()
    }
}

fn gateway() -> GatewaySn {
    DeviceSn::parse("DOCK-1").unwrap().to_gateway()
}

/// A driver that knows the gateway to be there.
async fn driver(store: Arc<dyn Store>, outlet: Arc<Told>, replica: &str) -> Driver {
    let driver = deaf_driver(store, outlet, replica).await;
    driver.presence(|book, now| (book.heard(&gateway(), now), Vec::new()));
    driver.resume().await.unwrap();
    driver
}

/// A driver that has heard of nobody.
async fn deaf_driver(store: Arc<dyn Store>, outlet: Arc<Told>, replica: &str) -> Driver {
    limited_driver(store, outlet, replica, Limits::default()).await
}

async fn limited_driver(
    store: Arc<dyn Store>,
    outlet: Arc<Told>,
    replica: &str,
    limits: Limits,
) -> Driver {
    Driver::start(DriverParts {
        store: store.clone(),
        clock: Arc::new(SystemClock::new()),
        ids: Arc::new(SystemIds::new()),
        outlet,
        catalogue: Arc::new(Catalogue::embedded().unwrap()),
        directory: Arc::new(Directory::load(store).await.unwrap()),
        replica: replica.to_owned(),
        holdings: Holdings::alone(Arc::new(SystemClock::new())),
        presence: PresenceBook::new(Knowledge::Heard { window: Duration::from_secs(3_600) }),
        limits,
    })
}

fn draft(catalogue: &Catalogue) -> Draft {
    let method = catalogue.method("debug_mode_open").unwrap();
    Draft {
        device: gateway().to_device(),
        gateway: gateway(),
        aircraft: None,
        method: method.name.clone(),
        channel: method.channel,
        completes_by: method.completes_by,
        risk: method.risk,
        starts_motion: method.starts_motion,
        reply_without_status_is_final: method.result_zero_without_status_is_final,
        if_offline: IfOffline::Wait,
        complete_on: CompleteOn::Outcome,
        job_ref: None,
        timeout: Duration::from_secs(300),
        silence_wait: Duration::from_secs(300),
        payload: "{}".into(),
        idempotency_key: "k".to_owned(),
        fingerprint: fingerprint(&serde_json::json!({}), &[]),
    }
}

async fn caller(store: &SqliteStore) -> Caller {
    let tenant = put_tenant(store, "first").await;
    put_gateway(store, tenant, "DOCK-1").await;
    let (credential, given) = new_credential(tenant, BTreeSet::new());
    let now = SystemClock::new().now().wall;
    let (timestamp, nonce) =
        (now.as_millis() / 1_000, "0123456789abcdef0123456789abcdef".to_owned());
    let parts = SignedParts { method: "POST", path: "/", query: None, body: b"{}" };
    let text = signing::string_to_sign(parts, &given.api_id, timestamp, &nonce);
    let signature = given.key.sign(text.as_bytes());
    let head = SignedHead { api_id: given.api_id, timestamp, nonce, signature };
    signing::verify(Some(&KeyedCredential::new(credential)), &head, parts, "r", None, now).unwrap()
}

struct Stored {
    _folder: tempfile::TempDir,
    store: Arc<SqliteStore>,
    unwell: Arc<Unwell>,
    caller: Caller,
}

async fn stored() -> Stored {
    let folder = tempfile::tempdir().unwrap();
    let (path, master_key) = (folder.path().join("utmos.sqlite"), MasterKey::generate().unwrap());
    let store = Arc::new(SqliteStore::open(SqliteConfig { path, master_key }).unwrap());
    let caller = caller(&store).await;
    let unwell = Arc::new(Unwell::new(store.clone()));
    Stored { _folder: folder, store, unwell, caller }
}

#[tokio::test]
async fn what_another_had_claimed_and_did_not_send_is_sent_by_whoever_took_it_over() {
    let Stored { store, caller, _folder, .. } = stored().await;
    let (ours, theirs) = (Told::new(), Told::new());
    let first = driver(store.clone(), ours.clone(), "first").await;
    let submitted = first.submit(&caller, draft(&Catalogue::embedded().unwrap()), None).await;
    let id = submitted.unwrap().id;
    ours.until_began(1).await;

    // The second takes over while nobody knows whether the message left.
    let second = driver(store.clone(), theirs.clone(), "second").await;
    assert_eq!(second.cared_for(id).unwrap().life.phase, Phase::Sending);
    second.look_again(Look::Watched).await.unwrap();
    assert_eq!(second.cared_for(id).unwrap().life.phase, Phase::Sending);

    // Only now the first says that it did not: its gate was shut, for the gateway is another's.
    let found = store.command(id).await.unwrap().unwrap();
    let at = SystemClock::new().now().wall;
    let version = StatusVersion(found.life.version.0 + 1);
    let life = Arc::new(Life { phase: Phase::Waiting, version, ..(*found.life).clone() });
    let proof = Proof::NotSent { reason: "another server sends to its gateway by now".to_owned() };
    let entry = Entry { at, from: Status::Accepted, to: Status::Accepted, proof };
    let advance = Advance { id, seen: found.life.version, life, entries: Arc::from([entry]) };
    assert_eq!(store.advance(advance).await.unwrap(), Advanced::Yes);
    second.look_again(Look::Told { changed: &[id], ended: &[] }).await.unwrap();
    theirs.until_began(1).await;
    theirs.word.send_replace(Some(Sent::Confirmed { packet_id: Some(1) }));
    until_delivered(&second, &*store, id).await;
    let timeline = store.timeline(id).await.unwrap();
    let claims = timeline.iter().filter_map(|entry| {
        if let Proof::SendingClaimed { replica } = &entry.proof {
            Some(replica.as_str())
        } else {
            None
        }
    });
    assert_eq!(claims.collect::<Vec<_>>(), ["first", "second"]);
    first.stop(Duration::ZERO).await;
    second.stop(Duration::ZERO).await;
}

#[tokio::test]
async fn gateways_are_not_given_away_while_something_is_being_accepted_for_them() {
    let Stored { store, unwell, caller, _folder } = stored().await;
    let ours = Told::new();
    ours.word.send_replace(Some(Sent::Confirmed { packet_id: Some(1) }));
    let first = driver(unwell.clone(), ours.clone(), "first").await;
    assert!(first.is_settled(|_| true));
    unwell.hold_acceptances(true);
    let submitting = {
        let first = first.clone();
        tokio::spawn(async move {
            first.submit(&caller, draft(&Catalogue::embedded().unwrap()), None).await
        })
    };
    let until = async |holds: &dyn Fn() -> bool| {
        let wait = async {
            while !holds() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(PATIENCE, wait).await.unwrap();
    };
    until(&|| !unwell.held_acceptances().is_empty()).await;
    assert!(!first.is_settled(|_| true), "it may be claimed");
    assert!(first.is_settled(|other| *other != gateway()), "others are not concerned");
    unwell.hold_acceptances(false);
    unwell.release();
    let id = submitting.await.unwrap().unwrap().id;
    until_delivered(&first, &*store, id).await;
    until(&|| first.is_settled(|_| true)).await;
    first.stop(Duration::ZERO).await;
}

#[tokio::test]
async fn what_became_of_ones_own_publish_says_nothing_of_anothers_claim() {
    let Stored { store, unwell, caller, _folder } = stored().await;
    let (ours, theirs) = (Told::new(), Told::new());
    let first = driver(unwell.clone(), ours.clone(), "first").await;
    let submitted = first.submit(&caller, draft(&Catalogue::embedded().unwrap()), None).await;
    let id = submitted.unwrap().id;
    ours.until_began(1).await;

    // It did not leave. The store writes that it waits again, says that it has not, and hangs.
    unwell.lie_and_hold();
    ours.word.send_replace(Some(Sent::NotConnected));
    unwell.until_waiting(1).await;
    let waits = store.command(id).await.unwrap().unwrap();
    assert_eq!(waits.life.phase, Phase::Waiting);

    // Another server finds it waiting, and sends it. Its word is not there yet.
    let second = driver(store.clone(), theirs.clone(), "second").await;
    theirs.until_began(1).await;
    assert_eq!(store.command(id).await.unwrap().unwrap().life.phase, Phase::Sending);

    // The first tries to save once more. What it is asked afterwards is decided after that.
    unwell.release();
    let cancelled = tokio::time::timeout(PATIENCE, first.cancel(&caller, id)).await;
    assert!(matches!(cancelled.unwrap().unwrap(), Cancelled::TooLate(_)));
    theirs.word.send_replace(Some(Sent::Confirmed { packet_id: Some(1) }));
    until_delivered(&second, &*store, id).await;
    let timeline = store.timeline(id).await.unwrap();
    let is_theirs =
        |proof: &Proof| matches!(proof, Proof::SendingClaimed { replica } if replica == "second");
    let claim = timeline.iter().position(|entry| is_theirs(&entry.proof)).unwrap();
    let after = &timeline[claim..];
    assert!(!after.iter().any(|entry| matches!(entry.proof, Proof::NotSent { .. })), "{after:?}");
    assert_eq!((*ours.began.borrow(), *theirs.began.borrow()), (1, 1), "each has sent it once");
    first.stop(Duration::ZERO).await;
    second.stop(Duration::ZERO).await;
}

/// Another server ends a command, as one does that heard an answer for which it found nobody.
async fn end_elsewhere(store: &dyn Store, id: CommandId) {
    let found = store.command(id).await.unwrap().unwrap();
    let version = StatusVersion(found.life.version.0 + 1);
    let phase = Phase::Ended(Outcome::Succeeded);
    let life = Arc::new(Life { phase, version, due: None, ..(*found.life).clone() });
    let proof = Proof::FoundAfterRestart { replica: "another".to_owned() };
    let at = SystemClock::new().now().wall;
    let entry = Entry { at, from: found.life.status(), to: Status::Succeeded, proof };
    let advance = Advance { id, seen: found.life.version, life, entries: Arc::from([entry]) };
    assert_eq!(store.advance(advance).await.unwrap(), Advanced::Yes);
}

/// How whoever asks is told that a command stands.
async fn shown(driver: &Driver, store: &dyn Store, id: CommandId) -> Phase {
    match driver.cared_for(id) {
        Some(command) => command.life.phase,
        None => store.command(id).await.unwrap().unwrap().life.phase,
    }
}

#[tokio::test]
async fn what_another_server_ended_is_shown_as_it_stands_by_whoever_looks_after_it() {
    let Stored { store, unwell, caller, _folder } = stored().await;
    let ours = Told::new();
    let first = driver(unwell.clone(), ours.clone(), "first").await;
    let catalogue = Catalogue::embedded().unwrap();
    let submit = async |key: &str| {
        let draft = Draft { idempotency_key: key.to_owned(), ..draft(&catalogue) };
        first.submit(&caller, draft, None).await.unwrap().id
    };
    let succeeded = Phase::Ended(Outcome::Succeeded);
    ours.word.send_replace(Some(Sent::Confirmed { packet_id: Some(1) }));
    let ids = [submit("a").await, submit("b").await, submit("c").await];
    for id in ids {
        until_delivered(&first, &*store, id).await;
    }
    // What its own commands do costs no read, nor what others do that nobody here asks for.
    unwell.damage(true);
    first.look_again(Look::Watched).await.unwrap();
    first
        .look_again(Look::Told { changed: &[], ended: &[CommandId::new(uuid::Uuid::from_u128(7))] })
        .await
        .unwrap();
    assert!(
        first.look_again(Look::Told { changed: &[], ended: &ids }).await.is_err(),
        "it would be seen"
    );
    unwell.damage(false);

    let mut waiting = first.watch(ids[0], WaitsFor::AnyChange);
    end_elsewhere(&*store, ids[0]).await;
    first.look_again(Look::Told { changed: &[], ended: &ids[..1] }).await.unwrap();
    assert_eq!(shown(&first, &*store, ids[0]).await, succeeded);
    let told = tokio::time::timeout(PATIENCE, waiting.next()).await.unwrap().unwrap();
    assert_eq!(told.life.phase, succeeded, "who waits is told");
    // Nobody told, for the connection was cut; that it was is known.
    end_elsewhere(&*store, ids[1]).await;
    first.look_again(Look::All).await.unwrap();
    assert_eq!(shown(&first, &*store, ids[1]).await, succeeded);

    // While its lane saves something else, it is not its turn.
    ours.word.send_replace(None);
    let busy = submit("d").await;
    ours.until_began(4).await;
    unwell.hold();
    ours.word.send_replace(Some(Sent::Confirmed { packet_id: Some(2) }));
    unwell.until_waiting(1).await;
    let mut waiting = first.watch(ids[2], WaitsFor::AnyChange);
    end_elsewhere(&*store, ids[2]).await;
    first.look_again(Look::Told { changed: &[], ended: &ids[2..] }).await.unwrap();
    unwell.release();
    let told = tokio::time::timeout(PATIENCE, waiting.next()).await.unwrap().unwrap();
    assert_eq!(told.life.phase, succeeded);
    assert_eq!(shown(&first, &*store, ids[2]).await, succeeded);
    until_delivered(&first, &*store, busy).await;
    first.stop(Duration::ZERO).await;
}

/// The store has written a claim and says that it has not, and how it stands is told before it is tried again: the claim is
/// this server's own all the same, and the command leaves.
#[tokio::test]
async fn ones_own_claim_is_not_taken_for_anothers_while_nobody_knows_whether_it_was_written() {
    let Stored { store, unwell, caller, _folder } = stored().await;
    let ours = Told::new();
    ours.word.send_replace(Some(Sent::Confirmed { packet_id: Some(1) }));
    let patient = Limits { store_retry_wait_min: Duration::from_secs(1), ..Limits::default() };
    let first = limited_driver(unwell.clone(), ours.clone(), "first", patient).await;
    // A movement waits until its gateway is heard.
    let waits = Draft { risk: Risk::Motion, ..draft(&Catalogue::embedded().unwrap()) };
    let id = first.submit(&caller, waits, None).await.unwrap().id;
    assert_eq!(store.command(id).await.unwrap().unwrap().life.phase, Phase::Waiting);
    unwell.lie_and_hold();
    first.presence(|book, now| {
        let came = book.heard(&gateway(), now);
        ((), came.then(gateway).into_iter().collect())
    });
    let written = async {
        while store.command(id).await.unwrap().unwrap().life.phase != Phase::Sending {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    tokio::time::timeout(PATIENCE, written).await.unwrap();
    first.look_again(Look::All).await.unwrap();
    unwell.until_waiting(1).await;
    unwell.release();
    ours.until_began(1).await;
    until_delivered(&first, &*store, id).await;
    first.stop(Duration::ZERO).await;
}

/// The same where it is not tried again, since its gateway is not there meanwhile: it is known that nothing has left.
#[tokio::test]
async fn ones_own_claim_that_was_not_heard_of_is_no_sending_of_another() {
    for presses in [false, true] {
        let Stored { store, unwell, caller, _folder } = stored().await;
        let ours = Told::new();
        ours.word.send_replace(Some(Sent::Confirmed { packet_id: Some(1) }));
        let patient = Limits { store_retry_wait_min: Duration::from_secs(1), ..Limits::default() };
        let first = limited_driver(unwell.clone(), ours.clone(), "first", patient).await;
        let waits = Draft { risk: Risk::Motion, ..draft(&Catalogue::embedded().unwrap()) };
        let id = first.submit(&caller, waits, None).await.unwrap().id;
        unwell.lie_and_hold();
        let is_heard = || {
            first.presence(|book, now| {
                let came = book.heard(&gateway(), now);
                ((), came.then(gateway).into_iter().collect())
            });
        };
        is_heard();
        let written = async {
            while store.command(id).await.unwrap().unwrap().life.phase != Phase::Sending {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        tokio::time::timeout(PATIENCE, written).await.unwrap();
        first.forget(&gateway().to_device());
        unwell.release();
        if presses {
            // Whoever calls it back is told that it was not sent.
            let cancelled = tokio::time::timeout(PATIENCE, first.cancel(&caller, id)).await;
            assert!(matches!(cancelled.unwrap().unwrap(), Cancelled::Yes(_)));
            assert_eq!(*ours.began.borrow(), 0);
            first.stop(Duration::ZERO).await;
            continue;
        }
        // How it stands is told before it is tried again, whether the refusal has been heard by then or not.
        first.look_again(Look::All).await.unwrap();
        let waits = async {
            while store.command(id).await.unwrap().unwrap().life.phase != Phase::Waiting {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        tokio::time::timeout(PATIENCE, waits).await.expect("it may have left, it says");
        is_heard();
        ours.until_began(1).await;
        until_delivered(&first, &*store, id).await;
        first.stop(Duration::ZERO).await;
    }
}

/// A movement that is to fail where its gateway is not there, at a server that has begun to listen a moment ago.
#[tokio::test]
async fn a_server_that_has_just_started_lets_no_movement_fail_before_its_dock_could_be_heard() {
    let Stored { store, caller, _folder, .. } = stored().await;
    let ours = Told::new();
    ours.word.send_replace(Some(Sent::Confirmed { packet_id: Some(1) }));
    let just_started = deaf_driver(store.clone(), ours.clone(), "first").await;
    just_started.listens();
    let movement = |key: &str| Draft {
        risk: Risk::Motion,
        if_offline: IfOffline::Fail,
        idempotency_key: key.to_owned(),
        ..draft(&Catalogue::embedded().unwrap())
    };
    let id = just_started.submit(&caller, movement("a"), None).await.unwrap().id;
    just_started.link_is_up();
    assert_eq!(store.command(id).await.unwrap().unwrap().life.phase, Phase::Waiting);
    just_started.presence(|book, now| {
        let came = book.heard(&gateway(), now);
        ((), came.then(gateway).into_iter().collect())
    });
    until_delivered(&just_started, &*store, id).await;
    just_started.stop(Duration::ZERO).await;

    // What another server wrote of it counts at once.
    let another = deaf_driver(store.clone(), ours.clone(), "second").await;
    another.presence(|book, now| {
        book.listens_from(now.mono);
        (book.was_heard(&gateway(), now.wall, now), Vec::new())
    });
    let id = another.submit(&caller, movement("b"), None).await.unwrap().id;
    until_delivered(&another, &*store, id).await;
    another.stop(Duration::ZERO).await;
}

/// Commands of a gateway leave in the order of acceptance, wherever each was accepted. While one that may be claimed with its
/// acceptance is on its way to the store, what another server accepted before it has to stay handed on: by that alone the store
/// knows that the claim is not to be taken, and the later one comes behind the earlier.
#[tokio::test]
async fn what_another_accepted_stays_handed_on_while_one_is_accepted_that_may_be_claimed() {
    let Stored { store, unwell, caller, _folder } = stored().await;
    let ours = Told::new();
    ours.word.send_replace(Some(Sent::Confirmed { packet_id: Some(1) }));
    let first = driver(unwell.clone(), ours.clone(), "first").await;
    let keyed = |key: &str| Draft {
        idempotency_key: key.to_owned(),
        ..draft(&Catalogue::embedded().unwrap())
    };
    // Its caller knows that it is accepted, and asks the holder for the next.
    let second = deaf_driver(store.clone(), Told::new(), "second").await;
    let earlier = second.submit(&caller, keyed("earlier"), None).await.unwrap().id;
    unwell.hold_acceptances(true);
    let submitting = {
        let (first, later) = (first.clone(), keyed("later"));
        tokio::spawn(async move { first.submit(&caller, later, None).await })
    };
    let held = async {
        while unwell.held_acceptances().is_empty() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(PATIENCE, held).await.unwrap();
    assert!(first.cared_for(earlier).is_none(), "nothing is before the later one here");

    let (handed, missed) =
        (Handed { id: earlier, urgent: false }, Missed::new(Arc::new(SystemClock::new())));
    assert!(
        !first.take_in(handed, None, &missed, &mut BTreeSet::new()).await.unwrap(),
        "it stays handed on"
    );
    assert!(first.cared_for(earlier).is_some(), "and has its turn");
    unwell.hold_acceptances(false);
    unwell.release();
    submitting.await.unwrap().unwrap();
    assert!(first.take_in(handed, None, &missed, &mut BTreeSet::new()).await.unwrap());
    first.stop(Duration::ZERO).await;
    second.stop(Duration::ZERO).await;
}

/// Emergencies of a server that is gone come into care before the shards of their gateways do, and what was heard from there counts
/// when these do: as long as nobody has answered, and nobody else speaks for the gateway.
#[tokio::test]
async fn an_answer_that_was_missed_is_told_to_a_command_that_is_in_care_already() {
    let Stored { store, caller, _folder, .. } = stored().await;
    let ours = Told::new();
    ours.word.send_replace(Some(Sent::Confirmed { packet_id: Some(1) }));
    let first = driver(store.clone(), ours.clone(), "first").await;
    let id = first.submit(&caller, draft(&Catalogue::embedded().unwrap()), None).await.unwrap().id;
    until_delivered(&first, &*store, id).await;
    let missed = |gateway: GatewaySn| {
        let missed = Missed::new(Arc::new(SystemClock::new()));
        let reply = Reply {
            gateway: gateway.clone(),
            method: Some("debug_mode_open".to_owned()),
            verdict: Verdict::Ok,
            code: Some("0".to_owned()),
            message: None,
            job: None,
            data: r#"{"result":0}"#.into(),
        };
        missed.keep(caller.tenant(), &gateway, Word::Reply(id, reply), 100);
        missed.of(Shard::of(&gateway))
    };
    let another = DeviceSn::parse("DOCK-2").unwrap().to_gateway();
    first.resume_held(&missed(another)).await.unwrap();
    let mut end = first.watch(id, WaitsFor::TheEnd);
    first.resume_held(&missed(gateway())).await.unwrap();
    let ended = tokio::time::timeout(PATIENCE, end.next()).await.unwrap().unwrap();
    assert_eq!(ended.life.phase, Phase::Ended(Outcome::Succeeded));
    first.resume_held(&missed(gateway())).await.unwrap();
    first.stop(PATIENCE).await;
    let lines = store.timeline(id).await.unwrap();
    let replies = lines.iter().filter(|line| matches!(line.proof, Proof::Reply { .. }));
    assert_eq!(replies.count(), 1, "one answer, and no other's: {lines:#?}");
}

/// A confirmation that is kept back for the device's answer is on record when the server has stopped.
#[tokio::test]
async fn what_was_confirmed_just_before_a_stop_is_on_record() {
    let Stored { store, caller, _folder, .. } = stored().await;
    let ours = Told::new();
    let first = driver(store.clone(), ours.clone(), "first").await;
    let id = first.submit(&caller, draft(&Catalogue::embedded().unwrap()), None).await.unwrap().id;
    ours.until_began(1).await;
    ours.word.send_replace(Some(Sent::Confirmed { packet_id: Some(1) }));
    // The sender has its turn, and nobody else for long.
    for _ in 0..8 {
        tokio::task::yield_now().await;
    }
    assert_eq!(first.cared_for(id).unwrap().life.phase, Phase::Sending, "or nothing is kept back");
    first.stop(PATIENCE).await;
    assert_eq!(store.command(id).await.unwrap().unwrap().life.phase, Phase::Delivered);
}

async fn until_delivered(driver: &Driver, store: &dyn Store, id: CommandId) {
    let mut changes = driver.watch(id, WaitsFor::AnyChange);
    let arriving = async {
        while store.command(id).await.unwrap().unwrap().life.phase != Phase::Delivered {
            changes.next().await.unwrap();
        }
    };
    tokio::time::timeout(PATIENCE, arriving).await.expect("it was never delivered");
}
