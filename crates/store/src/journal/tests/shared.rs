//! Where other servers, each with a journal of its own, work on the same store.

use utmos_core::{command::FailureCode, ports::CommandFilter};

use super::{
    medium::Platter,
    scripted::{Mood, Scripted},
    *,
};

struct Site {
    _folder: TempDir,
    bare: Arc<dyn Store>,
    scripted: Arc<Scripted>,
    store: Arc<JournalledStore>,
}

/// A server's journal, before a store that others reach as well.
fn site() -> Site {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("utmos.db");
    let bare: Arc<dyn Store> =
        Arc::new(SqliteStore::open(SqliteConfig { path, master_key: key() }).unwrap());
    let scripted = Arc::new(Scripted::new(bare.clone()));
    let (store, mut writer) =
        JournalledStore::on(scripted.clone(), &key(), Box::new(Platter::new(256 << 10))).unwrap();
    tokio::spawn(async move {
        while let Some(job) = writer.next().await {
            writer.perform(job);
        }
    });
    Site { _folder: folder, bare, scripted, store: Arc::new(store.shared()) }
}

fn claim(command: &Command, replica: &str) -> Advance {
    let mut claim = change(command, moved(&command.life, Phase::Sending, 2));
    for entry in Arc::make_mut(&mut claim.entries) {
        entry.proof = Proof::SendingClaimed { replica: replica.to_owned() };
    }
    claim
}

fn ends(command: &Command, outcome: Outcome) -> Advance {
    change(command, moved(&command.life, Phase::Ended(outcome), 5))
}

/// An emergency that is claimed as it is accepted.
fn claimed(millis: i64, key: &str) -> (NewCommand, Command) {
    let mut new = new(emergency(millis, key));
    let accepted = Command { spec: new.spec.clone(), life: new.life.clone() };
    let claim = claim(&accepted, "this");
    new.entries.extend(claim.entries.iter().cloned());
    new.life = claim.life.clone();
    (new, Command { spec: accepted.spec, life: claim.life })
}

#[tokio::test]
async fn a_sending_that_others_could_begin_as_well_is_not_begun_in_a_journal() {
    let site = site();
    // In the store alone, and in the journal alone: of either the store may have it unsent.
    let stored = command_of(emergency(0, "stored"));
    let answer = site.store.accept(None, new((*stored.spec).clone())).await.unwrap();
    assert_eq!(answer, Accepted::New);
    site.scripted.is(Mood::Stuck);
    let journalled = command_of(emergency(1, "journalled"));
    let answer = site.store.accept(None, new((*journalled.spec).clone())).await.unwrap();
    assert_eq!((answer, site.store.unsettled()), (Accepted::New, 1));
    for command in [&stored, &journalled] {
        let refused = site.store.advance(claim(command, "this")).await;
        assert!(matches!(refused, Err(StoreError::Unavailable(_))), "{refused:?}");
    }
    // What is claimed as it is accepted goes at once: whatever the store has of it bears the claim.
    let (new, at_once) = claimed(2, "at once");
    assert_eq!(site.store.accept(None, new).await.unwrap(), Accepted::New);
    let known = site.store.command(at_once.spec.id).await.unwrap().unwrap();
    assert_eq!(known.life.phase, Phase::Sending);

    site.scripted.is(Mood::Well);
    site.scripted.release();
    site.store.settle().await.unwrap();
    for command in [&stored, &journalled] {
        let answer = site.store.advance(claim(command, "this")).await.unwrap();
        assert_eq!(answer, Advanced::Yes);
    }
}

#[tokio::test]
async fn another_server_that_sends_what_waits_here_is_met_by_who_wants_to_claim_it() {
    let site = site();
    let stored = command_of(emergency(0, "stored"));
    site.store.accept(None, new((*stored.spec).clone())).await.unwrap();
    let others = site.bare.advance(claim(&stored, "other")).await.unwrap();
    assert_eq!(others, Advanced::Yes);
    assert_eq!(site.store.advance(claim(&stored, "this")).await.unwrap(), Advanced::Lost);
}

/// Both go on from the claim, and end it; both count to one version.
#[tokio::test]
async fn a_final_state_of_another_server_stays_whatever_the_journal_has() {
    let site = site();
    let (new, command) = claimed(0, "k");
    assert_eq!(site.store.accept(None, new).await.unwrap(), Accepted::New);
    site.scripted.is(Mood::Stuck);
    let delivered = change(&command, moved(&command.life, Phase::Delivered, 3));
    assert_eq!(site.store.advance(delivered.clone()).await.unwrap(), Advanced::Yes);
    let others = ends(&command, Outcome::Failed(FailureCode::DeviceExecutionFailed));
    assert_eq!(site.bare.advance(others.clone()).await.unwrap(), Advanced::Yes);
    assert_eq!(others.life.version, delivered.life.version);
    // As long as it is not on record, this server goes on from what it has done.
    let here = site.store.command(command.spec.id).await.unwrap().unwrap();
    assert_eq!(here.life, delivered.life);

    site.scripted.is(Mood::Well);
    site.scripted.release();
    assert_eq!(site.store.settle().await.unwrap(), 1);
    let here = Command { spec: command.spec.clone(), life: delivered.life.clone() };
    let late = site.store.advance(ends(&here, Outcome::Succeeded)).await.unwrap();
    assert_eq!(late, Advanced::Lost, "its version is none of theirs");
    let there = Command { spec: command.spec.clone(), life: others.life.clone() };
    let late = site.bare.advance(ends(&there, Outcome::Succeeded)).await.unwrap();
    assert_eq!(late, Advanced::Lost, "nor that of the other");
    let kept = site.store.command(command.spec.id).await.unwrap().unwrap();
    assert_eq!(kept.life.phase, others.life.phase);
    assert!(kept.life.version > delivered.life.version);
    let timeline = site.store.timeline(command.spec.id).await.unwrap();
    let last = timeline.last().unwrap();
    assert_eq!((last.from, last.to), (Status::Failed, Status::Failed), "it is evidence");
    let all = CommandFilter::default();
    let listed = site.store.commands_of(command.spec.tenant, all, None, 10).await.unwrap();
    assert_eq!(listed.len(), 1);
}

/// Found by a trial: the second copy had waited for the first as long as one waits for the store, and had no time left to read
/// the key that another server had used.
#[tokio::test]
async fn a_copy_that_waited_for_its_turn_reads_the_key_that_another_server_used() {
    let site = site();
    let store = Arc::into_inner(site.store).unwrap().reading_keys_for(Duration::from_millis(500));
    let goes = emergency(0, "k");
    assert_eq!(site.bare.accept(None, new(goes.clone())).await.unwrap(), Accepted::New);
    site.scripted.is(Mood::Stuck);
    let ask = |millis| {
        let copy = Spec { id: emergency(millis, "copy").id, ..emergency(millis, "k") };
        store.accept(None, new(copy))
    };
    let (first, second) = tokio::join!(ask(1), ask(2));
    for answer in [first.unwrap(), second.unwrap()] {
        assert!(
            matches!(answer, Accepted::Replayed { id, .. } if id == goes.id),
            "one more goes: {answer:?}"
        );
    }
}
