//! Direct lines between servers, over real TCP and TLS: what is asked comes once or not at all, whoever has not the key is not
//! heard, and a line that breaks is told of and made again.

use std::{
    net::{Ipv4Addr, SocketAddr},
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::watch,
};
use utmos_core::{
    command::{Command, Life, Spec},
    id::{ApiId, Bid, CommandId, DeviceSn, TenantId},
    method::{Channel, CompleteOn, CompletesBy, IfOffline, Risk},
    ports::{Accepted, Answer, Asked, DirectLines, LineHeard, Taken, Unheard},
    replica::{InstanceId, Member, News, ReplicaId, Roll},
    time::{BootId, Deadline, Mono, Timestamp},
};
use utmos_server::replicas::{LineKey, Lines};
use uuid::Uuid;

const SECRET: [u8; 32] = [7; 32];
/// Longer than anything here takes.
const PATIENCE: Duration = Duration::from_secs(60);

#[derive(Debug, PartialEq)]
enum Word {
    Asked(CommandId),
    Accepted(CommandId),
    Ended(CommandId),
    News(News),
}

/// A server, as far as others meet it.
struct Side {
    lines: Arc<Lines>,
    ear: Arc<Ear>,
    id: ReplicaId,
}

#[derive(Default)]
struct Ear {
    words: Mutex<Vec<Word>>,
    /// What is answered at once; `None` keeps the answers back.
    says: Mutex<Option<Taken>>,
    kept: Mutex<Vec<Answer>>,
}

impl Ear {
    fn note(&self, word: Word) {
        self.words.lock().unwrap().push(word);
    }
}

impl LineHeard for Ear {
    fn asked(&self, _: ReplicaId, asked: Asked, answer: Answer) {
        self.note(Word::Asked(asked.spec.id));
        match self.says.lock().unwrap().clone() {
            Some(taken) => drop(answer(taken)),
            None => self.kept.lock().unwrap().push(answer),
        }
    }

    fn accepted(&self, spec: &Arc<Spec>) {
        self.note(Word::Accepted(spec.id));
    }

    fn ended(&self, command: Command) {
        self.note(Word::Ended(command.spec.id));
    }

    fn news(&self, news: News) {
        self.note(Word::News(news));
    }
}

impl Side {
    async fn with(number: u128, reached_at: Option<SocketAddr>, secret: [u8; 32]) -> Self {
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let lines = Lines::listen(address, reached_at, &LineKey::new(secret.into())).await.unwrap();
        let ear = Arc::new(Ear::default());
        *ear.says.lock().unwrap() = Some(Taken::Stored(Accepted::New));
        lines.listen(ear.clone());
        Self { lines, ear, id: ReplicaId(Uuid::from_u128(number)) }
    }

    async fn new(number: u128) -> Self {
        Self::with(number, None, SECRET).await
    }

    fn member(&self) -> Member {
        let instance = InstanceId(self.id.0);
        let (name, line) = (String::new(), self.lines.address());
        Member {
            id: self.id,
            instance,
            name,
            alone: false,
            client_id: None,
            line,
            beats: 0,
            fit: true,
        }
    }

    /// Learns who is there.
    fn meets(&self, all: &[&Self]) {
        let members = all.iter().map(|side| side.member()).collect();
        self.lines.follow(self.id, &Roll { members, ..Roll::default() });
    }

    async fn has(&self, lines: usize) {
        until(&format!("{lines} lines"), || self.lines.reached().0 == lines).await;
    }

    async fn hears(&self, word: Word) {
        let what = format!("{word:?}");
        until(&what, || self.ear.words.lock().unwrap().contains(&word)).await;
    }

    async fn asks(&self, other: &Self, number: u128) -> Result<Taken, Unheard> {
        self.lines.accept(other.id, Asked { nonce: None, spec: command(number).spec }).await
    }
}

async fn until(what: &str, is_so: impl Fn() -> bool) {
    let look = async {
        while !is_so() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    tokio::time::timeout(PATIENCE, look).await.unwrap_or_else(|_| panic!("never: {what}"));
}

async fn two() -> (Side, Side) {
    let (one, two) = (Side::new(1).await, Side::new(2).await);
    one.meets(&[&one, &two]);
    two.meets(&[&one, &two]);
    one.has(1).await;
    two.has(1).await;
    (one, two)
}

fn id_of(number: u128) -> CommandId {
    CommandId::new(Uuid::from_u128(number | 7 << 76))
}

fn command(number: u128) -> Command {
    let device = DeviceSn::parse("DOCK-1").unwrap();
    let at = Timestamp::from_millis(0);
    let spec = Spec {
        id: id_of(number),
        tenant: TenantId::new(Uuid::from_u128(1 | 7 << 76)),
        accepted_for: ApiId::new("ak_1"),
        request_id: "request".to_owned(),
        idempotency_key: number.to_string(),
        fingerprint: [3; 32],
        gateway: device.clone().to_gateway(),
        device,
        aircraft: None,
        method: "cover_open".to_owned(),
        channel: Channel::Services,
        completes_by: CompletesBy::Reply,
        risk: Risk::Ground,
        starts_motion: false,
        reply_without_status_is_final: true,
        if_offline: IfOffline::Wait,
        complete_on: CompleteOn::Outcome,
        bid: Bid::new(Uuid::from_u128(2 | 7 << 76)),
        job_ref: None,
        timeout: Duration::from_secs(30),
        silence_wait: Duration::from_secs(60),
        deadline: Deadline { boot: BootId([0; 16]), mono: Mono::from_millis(30_000), wall: at },
        accepted_at: at,
        payload: r#"{"a":"b"}"#.into(),
    };
    let spec = Arc::new(spec);
    Command { life: Arc::new(Life::accepted(&spec)), spec }
}

#[tokio::test]
async fn each_asks_the_other_and_hears_what_came_of_it() {
    let (one, two) = two().await;
    for (asker, other, number) in [(&one, &two, 1), (&two, &one, 2)] {
        let taken = asker.asks(other, number).await;
        assert_eq!(taken, Ok(Taken::Stored(Accepted::New)));
        other.hears(Word::Asked(id_of(number))).await;
        // Before whatever comes after it.
        assert!(asker.ear.words.lock().unwrap().contains(&Word::Accepted(id_of(number))));
    }
    // Of what was refused nothing is noted.
    *two.ear.says.lock().unwrap() = Some(Taken::Full(9));
    assert_eq!(one.asks(&two, 3).await, Ok(Taken::Full(9)));
    assert!(!one.ear.words.lock().unwrap().contains(&Word::Accepted(id_of(3))));
    let stranger = Side::new(3).await;
    assert_eq!(one.asks(&stranger, 4).await, Err(Unheard::NotAsked));
}

#[tokio::test]
async fn what_is_told_comes_in_order() {
    let (one, two) = two().await;
    let ids: Vec<u128> = (0..500).collect();
    for number in &ids {
        assert!(two.lines.ended(one.id, &Arc::new(command(*number))));
    }
    assert!(two.lines.tell(&News::Roll, None));
    one.hears(Word::News(News::Roll)).await;
    let words = std::mem::take(&mut *one.ear.words.lock().unwrap());
    let ended = words.iter().filter_map(|word| match word {
        Word::Ended(id) => Some(*id),
        Word::Asked(_) | Word::Accepted(_) | Word::News(_) => None,
    });
    assert!(ended.eq(ids.into_iter().map(id_of)));
    // Nobody is left to be told, and that is no failure.
    assert!(two.lines.tell(&News::Handed, Some(one.id)));
}

#[tokio::test]
async fn where_one_has_no_line_nobody_is_told() {
    let (one, two) = two().await;
    let silent = Member { line: None, ..Side::new(3).await.member() };
    let members = vec![one.member(), two.member(), silent];
    one.lines.follow(one.id, &Roll { members, ..Roll::default() });
    assert!(!one.lines.tell(&News::Handed, None));
    assert!(one.lines.tell(&News::Roll, Some(ReplicaId(Uuid::from_u128(3)))));
    two.hears(Word::News(News::Roll)).await;
    assert!(!two.ear.words.lock().unwrap().contains(&Word::News(News::Handed)));
}

#[tokio::test]
async fn whoever_waits_hears_that_a_line_broke_and_it_is_made_again() {
    let (one, two) = two().await;
    *two.ear.says.lock().unwrap() = None;
    let asking = one.asks(&two, 1);
    let breaking = async {
        two.hears(Word::Asked(id_of(1))).await;
        // Whoever is on no roll any more has no line.
        two.meets(&[&two]);
    };
    let (asked, ()) = tokio::join!(asking, breaking);
    assert_eq!(asked, Err(Unheard::Broken));
    two.has(0).await;
    let answer = two.ear.kept.lock().unwrap().pop().unwrap();
    assert!(!answer(Taken::Stored(Accepted::New)), "nobody hears it");
    one.hears(Word::News(News::Missed)).await;
    *two.ear.says.lock().unwrap() = Some(Taken::NotHere);
    two.meets(&[&one, &two]);
    two.has(1).await;
    one.has(1).await;
    assert_eq!(one.asks(&two, 2).await, Ok(Taken::NotHere));
}

#[tokio::test]
async fn a_line_on_which_nothing_comes_is_given_up_by_both() {
    let cable = Cable::new().await;
    let (one, two) = (Side::new(1).await, Side::with(2, Some(cable.address), SECRET).await);
    cable.leads_to(two.lines_address());
    one.meets(&[&one, &two]);
    two.meets(&[&one, &two]);
    one.has(1).await;
    two.has(1).await;
    cable.silent.send_replace(true);
    assert_eq!(one.asks(&two, 1).await, Err(Unheard::Broken));
    one.has(0).await;
    two.has(0).await;
    assert_eq!(one.asks(&two, 2).await, Err(Unheard::NotAsked));
    cable.silent.send_replace(false);
    one.has(1).await;
    assert_eq!(one.asks(&two, 3).await, Ok(Taken::Stored(Accepted::New)));
}

#[tokio::test]
async fn whoever_has_another_key_or_none_is_not_let_in() {
    let cable = Cable::new().await;
    let (one, two) = (Side::with(1, Some(cable.address), SECRET).await, Side::new(2).await);
    cable.leads_to(one.lines_address());
    // With the smaller id it is the one that begins, with a larger one the one that is begun with.
    for number in [0, 9] {
        let its = Cable::new().await;
        let other = Side::with(number, Some(its.address), [8; 32]).await;
        its.leads_to(other.lines_address());
        let tried = cable.begun.load(Ordering::SeqCst);
        for side in [&one, &other] {
            side.meets(&[&one, &other]);
        }
        // The first attempt has come to nothing by then.
        until("it is not tried again", || {
            cable.begun.load(Ordering::SeqCst) - tried + its.begun.load(Ordering::SeqCst) > 1
        })
        .await;
        assert_eq!(one.asks(&other, 1).await, Err(Unheard::NotAsked));
        assert_eq!(other.asks(&one, 1).await, Err(Unheard::NotAsked));
        assert_eq!((one.lines.reached(), other.lines.reached()), ((0, 1), (0, 1)));
        other.lines.close().await;
    }
    let mut plain = TcpStream::connect(one.lines_address()).await.unwrap();
    plain.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
    // It is told nothing but that this is no TLS.
    let mut told = Vec::new();
    drop(plain.read_to_end(&mut told).await);
    assert!(told.len() < 16, "{told:?}");
    // Whoever has it is let in.
    one.meets(&[&one, &two]);
    two.meets(&[&one, &two]);
    one.has(1).await;
    two.has(1).await;
    assert_eq!(one.asks(&two, 5).await, Ok(Taken::Stored(Accepted::New)));
}

#[tokio::test]
async fn an_address_that_has_become_anothers_leads_nowhere() {
    let cable = Cable::new().await;
    let (one, new) = (Side::new(1).await, Side::with(3, Some(cable.address), SECRET).await);
    cable.leads_to(new.lines_address());
    // The roll still has the run before it.
    let before = Member { id: ReplicaId(Uuid::from_u128(2)), ..new.member() };
    // The other begins none, having the larger id.
    new.meets(&[&one, &new]);
    let members = vec![one.member(), before.clone()];
    one.lines.follow(one.id, &Roll { members, ..Roll::default() });
    until("it is not tried again", || cable.begun.load(Ordering::SeqCst) > 1).await;
    let asked = Asked { nonce: None, spec: command(1).spec };
    assert_eq!(one.lines.accept(before.id, asked).await, Err(Unheard::NotAsked));
    one.meets(&[&one, &new]);
    one.has(1).await;
    assert_eq!(one.asks(&new, 2).await, Ok(Taken::Stored(Accepted::New)));
}

#[tokio::test]
async fn after_a_question_without_an_answer_others_go_by_the_database_for_a_while() {
    let (one, two) = two().await;
    *two.ear.says.lock().unwrap() = Some(Taken::Unclear);
    assert_eq!(one.asks(&two, 1).await, Ok(Taken::Unclear));
    *two.ear.says.lock().unwrap() = Some(Taken::Stored(Accepted::New));
    assert_eq!(one.asks(&two, 2).await, Err(Unheard::NotAsked));
    // The other way nothing was slow.
    assert_eq!(two.asks(&one, 3).await, Ok(Taken::Stored(Accepted::New)));
}

#[tokio::test]
async fn a_question_that_is_forgotten_is_answered_all_the_same() {
    let (one, two) = two().await;
    *two.ear.says.lock().unwrap() = None;
    let asking = one.asks(&two, 1);
    let forgetting = async {
        two.hears(Word::Asked(id_of(1))).await;
        two.ear.kept.lock().unwrap().clear();
    };
    let (asked, ()) = tokio::join!(asking, forgetting);
    assert_eq!(asked, Ok(Taken::Unclear));
}

#[tokio::test]
async fn a_server_that_stops_leaves_nobody_waiting() {
    let (one, two) = two().await;
    *two.ear.says.lock().unwrap() = None;
    let asking = one.asks(&two, 1);
    let stopping = async {
        two.hears(Word::Asked(id_of(1))).await;
        two.lines.close().await;
    };
    let (asked, ()) = tokio::join!(asking, stopping);
    assert_eq!(asked, Err(Unheard::Broken));
    one.has(0).await;
    one.lines.close().await;
}

impl Side {
    /// Where it listens itself.
    fn lines_address(&self) -> SocketAddr {
        self.lines.own_address()
    }
}

/// Carries bytes to where a server listens, until it is silenced.
struct Cable {
    address: SocketAddr,
    /// How often somebody began to speak.
    begun: Arc<AtomicUsize>,
    target: watch::Sender<Option<SocketAddr>>,
    silent: watch::Sender<bool>,
}

impl Cable {
    async fn new() -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let (target, silent) = (watch::Sender::new(None), watch::Sender::new(false));
        let begun = Arc::<AtomicUsize>::default();
        let (mut known, seen) = (target.subscribe(), silent.subscribe());
        let count = begun.clone();
        tokio::spawn(async move {
            let target = known.wait_for(Option::is_some).await.unwrap().unwrap();
            while let Ok((near, _)) = listener.accept().await {
                count.fetch_add(1, Ordering::SeqCst);
                let mut seen = seen.clone();
                tokio::spawn(async move {
                    let Ok(far) = TcpStream::connect(target).await else { return };
                    let ((mut near_in, mut near_out), (mut far_in, mut far_out)) =
                        (near.into_split(), far.into_split());
                    let mut both = seen.clone();
                    let there = tokio::spawn(async move {
                        carry(&mut near_in, &mut far_out, &mut seen).await;
                    });
                    carry(&mut far_in, &mut near_out, &mut both).await;
                    drop(there.await);
                });
            }
        });
        Self { address, begun, target, silent }
    }

    fn leads_to(&self, address: SocketAddr) {
        self.target.send_replace(Some(address));
    }
}

async fn carry(
    from: &mut (impl AsyncReadExt + Unpin),
    to: &mut (impl AsyncWriteExt + Unpin),
    silent: &mut watch::Receiver<bool>,
) {
    let mut bytes = [0; 4_096];
    loop {
        let Ok(read) = from.read(&mut bytes).await else { return };
        if read == 0 || silent.wait_for(|it| !it).await.is_err() {
            return;
        }
        if to.write_all(&bytes[..read]).await.is_err() {
            return;
        }
    }
}
