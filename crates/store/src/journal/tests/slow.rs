//! While the store is slow: copies of a request, requests that come again, and what devices say of what has ended.

use std::sync::atomic::Ordering;

use super::{
    medium::Platter,
    scripted::{Mood, Scripted},
    *,
};

/// Long enough for whatever does not hang.
const SOON: Duration = Duration::from_secs(20);

struct Slow {
    _folder: TempDir,
    scripted: Arc<Scripted>,
    platter: Platter,
    store: Arc<JournalledStore>,
}

/// A journal on a medium of its own, before a store that does as it is told.
fn slow() -> Slow {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("utmos.db");
    let store = SqliteStore::open(SqliteConfig { path, master_key: key() }).unwrap();
    let scripted = Arc::new(Scripted::new(Arc::new(store)));
    let platter = Platter::new(256 << 10);
    let (store, mut writer) =
        JournalledStore::on(scripted.clone(), &key(), Box::new(platter.clone())).unwrap();
    tokio::spawn(async move {
        while let Some(job) = writer.next().await {
            writer.perform(job);
        }
    });
    Slow { _folder: folder, scripted, platter, store: Arc::new(store) }
}

/// The store is asked for a copy, and before it answers another copy goes by the journal.
async fn copy_beside(mood: Mood) -> (Slow, Spec, Spec) {
    let slow = slow();
    slow.scripted.is(mood);
    let (goes, copy) =
        (emergency(0, "k"), Spec { id: emergency(1, "copy").id, ..emergency(1, "k") });
    let asked = {
        let (store, copy) = (slow.store.clone(), copy.clone());
        tokio::spawn(async move { store.accept(None, new(copy)).await })
    };
    slow.scripted.begun.subscribe().wait_for(|begun| *begun == 1).await.unwrap();
    journalled(&slow.store, None, goes.clone()).await;
    let answer = asked.await.unwrap().unwrap();
    assert!(matches!(answer, Accepted::Replayed { id, .. } if id == goes.id), "{answer:?}");
    (slow, goes, copy)
}

#[tokio::test]
async fn a_copy_that_the_store_may_hold_beside_the_one_that_went_is_known() {
    let (slow, goes, copy) = copy_beside(Mood::Slow).await;
    assert!(slow.store.may_hold(copy.id), "it was asked for it");
    assert!(slow.store.may_hold(goes.id) && !slow.store.may_hold(emergency(2, "other").id));
    slow.scripted.is(Mood::Well);
    slow.scripted.release();
    let found = async {
        loop {
            if let Ok(Some(command)) = slow.store.command(copy.id).await {
                return command;
            }
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(SOON, found).await.unwrap();
    assert!(slow.store.may_hold(copy.id), "it is there");
}

#[tokio::test]
async fn a_copy_that_the_store_refused_may_be_there_until_it_was_looked_for() {
    let (slow, _, copy) = copy_beside(Mood::Stuck).await;
    slow.scripted.is(Mood::Well);
    slow.scripted.release();
    let looked = async {
        while slow.store.command(copy.id).await.is_err() {
            assert!(slow.store.may_hold(copy.id), "it may have been written all the same");
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(SOON, looked).await.unwrap();
    assert!(!slow.store.may_hold(copy.id), "it is not there");
    // What the store itself has said is certain.
    assert_eq!(slow.store.settle().await.unwrap(), 1);
    let again = Spec { id: emergency(3, "again").id, ..emergency(3, "k") };
    let answer = slow.store.accept(None, new(again.clone())).await.unwrap();
    assert!(matches!(answer, Accepted::Replayed { .. }), "{answer:?}");
    assert!(!slow.store.may_hold(again.id));
}

#[tokio::test]
async fn what_was_refused_comes_back_to_who_asks_again_only_as_long_as_it_can_leave_in_time() {
    let of = |millis| Spec { id: emergency(millis, "again").id, ..emergency(millis, "k") };
    for (came, comes_back) in [(5_000, true), (28_500, false), (31_000, false)] {
        let slow = slow();
        slow.scripted.is(Mood::Slow);
        slow.platter.fails(true);
        let first = of(0);
        let refused = slow.store.accept(None, new(first.clone())).await;
        assert!(matches!(refused, Err(StoreError::Unavailable(_))), "{refused:?}");
        slow.platter.fails(false);
        let again = of(came);
        let answer = slow.store.accept(None, new(again.clone())).await.unwrap();
        let id = if let Accepted::Replayed { id, .. } = answer { id } else { again.id };
        assert_eq!(id, if comes_back { first.id } else { again.id }, "after {came} ms");
        // Whichever it is, it is the one that its key leads to.
        let third = slow.store.accept(None, new(of(came + 1))).await.unwrap();
        assert!(matches!(third, Accepted::Replayed { id: known, .. } if known == id), "{third:?}");
    }
}

/// So many copies of one request at once, each with a nonce of its own. Answers which went, and what the others were told.
async fn copies(slow: &Slow, count: i64) -> (Vec<CommandId>, Vec<Accepted>) {
    let copies = (0..count).map(|number| {
        let copy = Spec { id: emergency(number, "copy").id, ..emergency(number, "k") };
        let (store, id) = (slow.store.clone(), copy.id);
        let nonce = nonce(u128::try_from(number).unwrap(), 9);
        tokio::spawn(async move { (id, store.accept(Some(nonce), new(copy)).await.unwrap()) })
    });
    let (mut went, mut others) = (Vec::new(), Vec::new());
    for copy in copies.collect::<Vec<_>>() {
        match copy.await.unwrap() {
            (id, Accepted::New) => went.push(id),
            (_, told) => others.push(told),
        }
    }
    (went, others)
}

#[tokio::test]
async fn copies_that_come_at_once_are_one_command_whichever_way_it_goes() {
    for mood in [Mood::Well, Mood::Slow, Mood::Stuck] {
        let slow = slow();
        slow.scripted.is(mood);
        if mood == Mood::Stuck {
            // It says no at once.
            slow.scripted.release();
        }
        let (went, others) = copies(&slow, 5).await;
        let [went] = went.as_slice() else { panic!("{mood:?}: {went:?} {others:?}") };
        let is_told = |told: &Accepted| matches!(told, Accepted::Replayed { id, .. } if id == went);
        assert!(others.len() == 4 && others.iter().all(is_told), "{mood:?}: {others:?}");
        if mood != Mood::Well {
            assert_eq!(*slow.scripted.begun.borrow(), 1, "{mood:?}: the store was asked for one");
        }
        slow.scripted.is(Mood::Well);
        slow.scripted.release();
        slow.store.settle().await.unwrap();
        let again = Spec { id: emergency(9, "again").id, ..emergency(9, "k") };
        let told = slow.store.accept(None, new(again)).await.unwrap();
        assert!(is_told(&told), "{mood:?}: its key leads to the one that went: {told:?}");
        let kept = slow.store.commands_of(tenant(1), CommandFilter::default(), None, 9).await;
        assert_eq!(kept.unwrap().len(), 1, "{mood:?}");
    }
}

#[tokio::test]
async fn what_the_store_may_hold_of_a_change_is_not_gone_past_by_another() {
    let slow = slow();
    let command = command_of(emergency(0, "k"));
    let id = command.spec.id;
    slow.store.accept(None, new((*command.spec).clone())).await.unwrap();
    slow.scripted.is(Mood::Slow);
    slow.platter.fails(true);
    let gone = ended(&command);
    slow.store.advance(gone.clone()).await.unwrap_err();
    // Tried again, it would be decided otherwise by now.
    slow.platter.fails(false);
    let claim = change(&command, moved(&command.life, Phase::Sending, 7));
    assert_eq!(slow.store.advance(claim.clone()).await.unwrap(), Advanced::Lost);
    assert_eq!(slow.store.command(id).await.unwrap().unwrap().life, gone.life);
    let of = slow.store.command_of(tenant(1), id).await.unwrap().unwrap();
    assert_eq!(of.life, gone.life);
    assert_eq!(slow.store.advance(claim).await.unwrap(), Advanced::Lost);
    slow.scripted.is(Mood::Well);
    slow.store.settle().await.unwrap();
    assert_eq!(slow.scripted.inner.command(id).await.unwrap().unwrap().life, gone.life);
}

#[tokio::test]
async fn a_store_that_recovers_between_two_copies_takes_no_second_one() {
    let slow = slow();
    let of = |millis| Spec { id: emergency(millis, "copy").id, ..emergency(millis, "k") };
    let accept = |spec: Spec| {
        let store = slow.store.clone();
        tokio::spawn(async move { store.accept(None, new(spec)).await.unwrap() })
    };
    slow.scripted.is(Mood::Stuck);
    let first = accept(of(0));
    slow.scripted.begun.subscribe().wait_for(|begun| *begun == 1).await.unwrap();
    slow.scripted.is(Mood::Well);
    let second = accept(of(1));
    tokio::task::yield_now().await;
    // The first is refused, and takes the journal.
    slow.scripted.release();
    assert_eq!(first.await.unwrap(), Accepted::New);
    let told = second.await.unwrap();
    assert!(matches!(told, Accepted::Replayed { id, .. } if id == of(0).id), "{told:?}");
}

#[tokio::test]
async fn what_was_refused_and_comes_back_is_not_asked_of_the_store_beside_it() {
    let slow = slow();
    let of = |millis| Spec { id: emergency(millis, "copy").id, ..emergency(millis, "k") };
    slow.scripted.is(Mood::Slow);
    slow.platter.fails(true);
    slow.store.accept(None, new(of(0))).await.unwrap_err();
    slow.platter.fails(false);
    let told = slow.store.accept(None, new(of(1))).await.unwrap();
    assert!(matches!(told, Accepted::Replayed { id, .. } if id == of(0).id), "{told:?}");
    assert_eq!(*slow.scripted.begun.borrow(), 1);
    assert!(!slow.store.may_hold(of(1).id));
}

#[tokio::test]
async fn what_a_device_says_of_an_emergency_that_has_ended_does_not_wait_for_the_store() {
    let slow = slow();
    let command = command_of(emergency(0, "k"));
    slow.store.accept(None, new((*command.spec).clone())).await.unwrap();
    let end = ended(&command);
    assert_eq!(slow.store.advance(end.clone()).await.unwrap(), Advanced::Yes);
    let late = |store: Arc<JournalledStore>, length| {
        let end = end.clone();
        let mut said = said(&command, end.life.version, length);
        said.life = end.life.clone();
        for entry in Arc::make_mut(&mut said.entries) {
            (entry.from, entry.to) = (Status::Succeeded, Status::Succeeded);
        }
        async move { tokio::time::timeout(SOON, store.advance(said)).await.unwrap().unwrap() }
    };
    slow.scripted.is(Mood::Slow);
    for length in [10, 20] {
        assert_eq!(late(slow.store.clone(), length).await, Advanced::Yes);
    }
    assert_eq!(slow.store.unsettled(), 1);
    slow.scripted.is(Mood::Well);
    slow.scripted.release();
    assert_eq!(slow.store.settle().await.unwrap(), 1);
    assert_eq!(late(slow.store.clone(), 30).await, Advanced::Yes);

    // The next process knows it by its reading it.
    let (writes_nothing, mut writer) =
        JournalledStore::on(slow.scripted.clone(), &key(), Box::new(Platter::new(256 << 10)))
            .unwrap();
    tokio::spawn(async move {
        while let Some(job) = writer.next().await {
            writer.perform(job);
        }
    });
    let next = Arc::new(writes_nothing);
    let known = next.command_of(command.spec.tenant, command.spec.id).await.unwrap().unwrap();
    assert_eq!(next.pending().way_of(&said(&command, known.life.version, 1)), Way::Either);
    let timeline = next.timeline(command.spec.id).await.unwrap();
    assert_eq!(timeline.len(), 2 + 3, "{timeline:?}");
}

#[tokio::test]
async fn a_key_is_read_only_where_the_store_does_not_take_the_emergency_at_once() {
    let slow = slow();
    let foreseen = || slow.scripted.foreseen.load(Ordering::SeqCst);
    let of = |millis, key: &str| Spec { id: emergency(millis, "id").id, ..emergency(millis, key) };
    let stored = of(0, "k");
    slow.scripted.inner.accept(None, new(stored.clone())).await.unwrap();
    slow.scripted.is(Mood::Quick);
    for number in 1..5 {
        let spec = of(number, &format!("k{number}"));
        assert_eq!(slow.store.accept(None, new(spec)).await.unwrap(), Accepted::New);
    }
    assert_eq!(foreseen(), 0);
    // Where it takes its time, and where it says no at once.
    slow.scripted.is(Mood::Stuck);
    for (number, reads) in [(8, 1), (9, 2)] {
        let answer = slow.store.accept(None, new(of(number, "k"))).await.unwrap();
        assert!(matches!(answer, Accepted::Replayed { id, .. } if id == stored.id), "{answer:?}");
        assert_eq!(foreseen(), reads);
        slow.scripted.release();
    }
    assert_eq!(slow.store.unsettled(), 0);
}

/// Found by a trial: a copy stood before a slow journal while the first was put on record, and ended.
#[test]
fn a_copy_whose_turn_comes_late_knows_the_key_of_one_that_has_ended() {
    let mut pending = Pending::default();
    let goes = new(emergency(0, "k"));
    let (id, begun) = (goes.spec.id, goes.life.clone());
    pending.add(Record::Accept { nonce: None, new: goes });
    let last = pending.oldest(1, &BTreeSet::new()).remove(0).last;
    assert!(pending.settled(id, last));
    pending.saved(id, &moved(&begun, Phase::Ended(Outcome::Succeeded), 5));
    let copy = Spec { id: emergency(1, "copy").id, ..emergency(1, "k") };
    let known = pending.same_key(&copy);
    assert!(
        matches!(known, Some(Accepted::Replayed { id: known, .. }) if known == id),
        "{known:?}"
    );
}

/// Found by a trial: it was refused and written, had no time left, and another went; asked for again, it went as well.
#[tokio::test]
async fn what_was_refused_does_not_go_once_a_copy_of_it_went() {
    let slow = slow();
    let of = |millis| Spec { id: emergency(millis, "copy").id, ..emergency(millis, "k") };
    slow.scripted.is(Mood::Slow);
    slow.platter.fails(true);
    let refused = of(0);
    slow.store.accept(None, new(refused.clone())).await.unwrap_err();
    slow.platter.fails(false);
    // Too late for the first to leave by the journal.
    let goes = of(28_500);
    assert_eq!(slow.store.accept(None, new(goes.clone())).await.unwrap(), Accepted::New);
    // The store has written the first, and its key leads there; it has told nobody yet.
    slow.scripted.is(Mood::Well);
    let written = slow.scripted.inner.accept(None, new(refused.clone())).await.unwrap();
    assert_eq!(written, Accepted::New);
    let is_told = |told: &Accepted| matches!(told, Accepted::Replayed { id, .. } if *id == goes.id);
    for settles in [false, true] {
        if settles {
            assert_eq!(slow.store.settle().await.unwrap(), 1);
        }
        let told = slow.store.accept(None, new(of(28_600))).await.unwrap();
        assert!(is_told(&told), "{told:?}");
        let told = slow.store.foresee(new(of(28_700))).await.unwrap();
        assert!(is_told(&told), "{told:?}");
    }
    let in_store = slow.scripted.inner.foresee(new(of(28_800))).await.unwrap();
    assert!(matches!(in_store, Accepted::Replayed { id, .. } if id == refused.id), "{in_store:?}");
}
