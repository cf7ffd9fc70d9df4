//! How often callers may ask ([`utmos_core::allowance`]): each credential, and each tenant with all of its credentials.
//!
//! A request is let through or not by what is known in memory, under one short lock. Servers that share a store tell each
//! other afterwards, all allowances at once and never in the way of a request: a store that is slow or away refuses nobody.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU32, AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use utmos_core::{
    allowance::{Allowance, Rate, TELL_ALL_EVERY, TELL_WAIT, Untold},
    id::{ApiId, TenantId},
    ports::{AllowanceStore, Charge},
    signing::Caller,
    time::{Clock, Mono},
};

/// Longest the store may take to be told.
const STORE_PATIENCE: Duration = Duration::from_secs(2);
/// Tellings in a hurry are no closer together.
const TELL_GAP: Duration = Duration::from_millis(20);
/// One that is refused again and again is warned of so often.
const WARN_WAIT: Duration = Duration::from_secs(60);
/// Allowances that are held before it is looked for those that are whole again.
const HELD_MIN: usize = 1_024;

/// How often callers may ask; `None` = as often as they like.
#[derive(Debug, Clone, Copy, Default)]
pub struct Rates {
    /// Each credential.
    pub credential: Option<Rate>,
    /// Each tenant, with all of its credentials.
    pub tenant: Option<Rate>,
}

/// Whose allowance is used up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Whose {
    /// The credential's.
    Credential,
    /// The tenant's.
    Tenant,
}

/// There is nothing left for a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UsedUp {
    /// Of whose allowance.
    pub whose: Whose,
    /// How often they may ask.
    pub rate: Rate,
    /// When to come again.
    pub wait: Duration,
}

/// How many requests were refused.
#[derive(Debug, Default)]
pub struct Figures {
    /// Since the credential asked too often.
    pub credential: AtomicU64,
    /// Since the tenant did.
    pub tenant: AtomicU64,
}

/// What callers have left.
pub struct Allowances {
    rates: Rates,
    clock: Arc<dyn Clock>,
    book: Mutex<Book>,
    /// How many servers give of them.
    servers: AtomicU32,
    /// Something must be told.
    hurry: Notify,
    figures: Figures,
}

struct Book {
    /// Whether there may be anybody to be told.
    is_shared: bool,
    credentials: Kept<ApiId>,
    tenants: Kept<TenantId>,
}

/// Those of which something is missing.
struct Kept<K> {
    held: BTreeMap<K, Entry>,
    /// When this many are held, it is looked for those that are whole.
    look_at: usize,
}

#[derive(Default)]
struct Entry {
    allowance: Allowance,
    warned_at: Option<Mono>,
}

impl Allowances {
    /// Those of a server that gives all of them alone.
    #[must_use]
    pub fn alone(rates: Rates, clock: Arc<dyn Clock>) -> Arc<Self> {
        Self::new(rates, clock, false)
    }

    /// Those of a server that gives them together with others: [`Self::tell`] must run.
    #[must_use]
    pub fn shared(rates: Rates, clock: Arc<dyn Clock>) -> Arc<Self> {
        Self::new(rates, clock, true)
    }

    fn new(rates: Rates, clock: Arc<dyn Clock>, is_shared: bool) -> Arc<Self> {
        let book = Book { is_shared, credentials: Kept::default(), tenants: Kept::default() };
        Arc::new(Self {
            rates,
            clock,
            book: Mutex::new(book),
            servers: AtomicU32::new(1),
            hurry: Notify::new(),
            figures: Figures::default(),
        })
    }

    /// For the metrics.
    #[must_use]
    pub fn figures(&self) -> &Figures {
        &self.figures
    }

    /// Takes what one request needs.
    ///
    /// # Errors
    /// When the credential or its tenant has nothing left; then nothing is taken.
    pub fn take(&self, caller: &Caller) -> Result<(), UsedUp> {
        self.take_for(caller.api_id(), caller.tenant())
    }

    /// The same for what must not be refused.
    pub fn take_anyway(&self, caller: &Caller) {
        self.take_for_anyway(caller.api_id(), caller.tenant());
    }

    fn take_for(&self, credential: &ApiId, tenant: TenantId) -> Result<(), UsedUp> {
        let Rates { credential: own, tenant: all } = self.rates;
        if own.is_none() && all.is_none() {
            return Ok(());
        }
        let (now, servers) = (self.clock.now().mono, self.servers.load(Ordering::Relaxed));
        let mut book = self.lock();
        let used_up = own
            .and_then(|rate| {
                let wait = book.credentials.wait(credential, rate, servers, now)?;
                Some(UsedUp { whose: Whose::Credential, rate, wait })
            })
            .or_else(|| {
                let rate = all?;
                let wait = book.tenants.wait(&tenant, rate, servers, now)?;
                Some(UsedUp { whose: Whose::Tenant, rate, wait })
            });
        let Some(used_up) = used_up else {
            let is_urgent = self.take_both(&mut book, credential, tenant, now);
            drop(book);
            if is_urgent {
                self.hurry.notify_one();
            }
            return Ok(());
        };
        let is_news = match used_up.whose {
            Whose::Credential => book.credentials.is_news(credential, now),
            Whose::Tenant => book.tenants.is_news(&tenant, now),
        };
        drop(book);
        self.refused(used_up, credential, tenant, is_news);
        Err(used_up)
    }

    fn take_for_anyway(&self, credential: &ApiId, tenant: TenantId) {
        let now = self.clock.now().mono;
        let is_urgent = self.take_both(&mut self.lock(), credential, tenant, now);
        if is_urgent {
            self.hurry.notify_one();
        }
    }

    /// Answers whether the other servers must be told.
    fn take_both(&self, book: &mut Book, credential: &ApiId, tenant: TenantId, now: Mono) -> bool {
        let servers = self.servers.load(Ordering::Relaxed);
        let own = self
            .rates
            .credential
            .map(|rate| book.credentials.take(credential, rate, servers, now, book.is_shared));
        let all = self
            .rates
            .tenant
            .map(|rate| book.tenants.take(&tenant, rate, servers, now, book.is_shared));
        book.is_shared && (own == Some(Untold::Much) || all == Some(Untold::Much))
    }

    fn refused(&self, used_up: UsedUp, credential: &ApiId, tenant: TenantId, is_news: bool) {
        let figure = match used_up.whose {
            Whose::Credential => &self.figures.credential,
            Whose::Tenant => &self.figures.tenant,
        };
        figure.fetch_add(1, Ordering::Relaxed);
        if is_news {
            let who = match used_up.whose {
                Whose::Credential => credential.to_string(),
                Whose::Tenant => tenant.to_string(),
            };
            let whose = used_up.whose.as_str();
            let often = used_up.rate.per_second();
            tracing::warn!(
                "{whose} {who} asks more than {often} times a second; requests are refused with RATE_LIMITED"
            );
        }
    }

    /// Tells the servers of this store what was given, and takes over what they gave, until `stopping`. `servers` says how many
    /// they are.
    pub async fn tell(
        self: Arc<Self>,
        store: Arc<dyn AllowanceStore>,
        servers: impl Fn() -> usize + Send,
        stopping: CancellationToken,
    ) {
        self.are(servers());
        let mut rounds = 0;
        let mut is_told = true;
        loop {
            tokio::select! {
                biased;
                () = stopping.cancelled() => return,
                () = self.hurry.notified() => {}
                () = tokio::time::sleep(TELL_WAIT) => {}
            }
            match self.round(&*store, servers(), &mut rounds).await {
                Ok(true) if !is_told => {
                    is_told = true;
                    tracing::info!("servers tell each other again how often callers asked");
                }
                Err(why) if is_told => {
                    is_told = false;
                    tracing::warn!(
                        "other servers cannot be told how often callers asked, and each goes on with its even share: {why}"
                    );
                }
                Ok(_) | Err(_) => {}
            }
            tokio::select! {
                biased;
                () = stopping.cancelled() => return,
                () = tokio::time::sleep(TELL_GAP) => {}
            }
        }
    }

    /// Answers whether there was anything to tell.
    async fn round(
        &self,
        store: &dyn AllowanceStore,
        servers: usize,
        rounds: &mut u32,
    ) -> Result<bool, String> {
        self.are(servers);
        *rounds = (*rounds + 1) % TELL_ALL_EVERY;
        let at_least = if *rounds == 0 { Untold::Little } else { Untold::Some };
        self.tell_once(store, at_least).await
    }

    async fn tell_once(
        &self,
        store: &dyn AllowanceStore,
        at_least: Untold,
    ) -> Result<bool, String> {
        let Rates { credential, tenant } = self.rates;
        let asked = self.clock.now().mono;
        let (mut names, mut charges) = (Vec::new(), Vec::new());
        {
            let mut book = self.lock();
            let told = credential.map(|rate| book.credentials.tell(rate, at_least));
            for (id, charge) in told.into_iter().flatten() {
                charges.push(Charge { name: format!("c:{id}"), ..charge });
                names.push(Name::Credential(id));
            }
            let told = tenant.map(|rate| book.tenants.tell(rate, at_least));
            for (id, charge) in told.into_iter().flatten() {
                charges.push(Charge { name: format!("t:{id}"), ..charge });
                names.push(Name::Tenant(id));
            }
        }
        if charges.is_empty() {
            return Ok(false);
        }
        let answer = match tokio::time::timeout(STORE_PATIENCE, store.charge(charges)).await {
            Ok(Ok(missing)) if missing.len() == names.len() => Ok(missing),
            Ok(Ok(_)) => Err("the store did not answer for all of them".to_owned()),
            Ok(Err(error)) => Err(error.to_string()),
            Err(_) => Err(format!("no answer within {} s", STORE_PATIENCE.as_secs())),
        };
        let servers = self.servers.load(Ordering::Relaxed);
        let mut book = self.lock();
        let missing = answer.as_ref().ok();
        for (number, name) in names.iter().enumerate() {
            let missing = missing.and_then(|all| all.get(number).copied());
            let (entry, rate) = match name {
                Name::Credential(id) => (book.credentials.held.get_mut(id), credential),
                Name::Tenant(id) => (book.tenants.held.get_mut(id), tenant),
            };
            match (entry, rate, missing) {
                (Some(entry), Some(rate), Some(missing)) => {
                    entry.allowance.told(rate, servers, asked, missing);
                }
                (Some(entry), _, _) => entry.allowance.not_told(),
                (None, _, _) => {}
            }
        }
        answer.map(|_| true)
    }

    fn are(&self, servers: usize) {
        self.servers.store(u32::try_from(servers.max(1)).unwrap_or(u32::MAX), Ordering::Relaxed);
    }

    fn lock(&self) -> MutexGuard<'_, Book> {
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

enum Name {
    Credential(ApiId),
    Tenant(TenantId),
}

impl Whose {
    fn as_str(self) -> &'static str {
        match self {
            Self::Credential => "credential",
            Self::Tenant => "tenant",
        }
    }
}

impl Entry {
    fn take(&mut self, rate: Rate, servers: u32, now: Mono, is_shared: bool) -> Untold {
        self.allowance.take(rate, servers, now);
        if is_shared {
            self.allowance.leave_untold();
        }
        self.allowance.untold(rate)
    }
}

impl<K> Default for Kept<K> {
    fn default() -> Self {
        Self { held: BTreeMap::new(), look_at: HELD_MIN }
    }
}

impl<K: Ord + Clone> Kept<K> {
    fn wait(&self, key: &K, rate: Rate, servers: u32, now: Mono) -> Option<Duration> {
        self.held.get(key)?.allowance.wait(rate, servers, now)
    }

    fn take(&mut self, key: &K, rate: Rate, servers: u32, now: Mono, is_shared: bool) -> Untold {
        if let Some(entry) = self.held.get_mut(key) {
            return entry.take(rate, servers, now, is_shared);
        }
        self.make_room(now);
        self.held.entry(key.clone()).or_default().take(rate, servers, now, is_shared)
    }

    /// One that is whole is as good as one that is not there.
    fn make_room(&mut self, now: Mono) {
        if self.held.len() < self.look_at {
            return;
        }
        self.held.retain(|_, entry| !entry.allowance.is_whole(now));
        self.look_at = (self.held.len() * 2).max(HELD_MIN);
    }

    /// Whether it should be told that it was refused.
    fn is_news(&mut self, key: &K, now: Mono) -> bool {
        let Some(entry) = self.held.get_mut(key) else { return false };
        let is_news = entry.warned_at.is_none_or(|at| WARN_WAIT <= now.since(at));
        if is_news {
            entry.warned_at = Some(now);
        }
        is_news
    }

    /// What is to be told, of those of which there is so much.
    fn tell(&mut self, rate: Rate, at_least: Untold) -> Vec<(K, Charge)> {
        let due = self.held.iter_mut().filter(|(_, entry)| {
            let untold = entry.allowance.untold(rate);
            untold != Untold::Nothing && at_least <= untold
        });
        let told = due.map(|(key, entry)| {
            let given = rate.cost(entry.allowance.tell());
            (key.clone(), Charge { name: String::new(), given, most: rate.missing_max() })
        });
        told.collect()
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]
    use std::sync::atomic::AtomicBool;

    use async_trait::async_trait;
    use futures_util::FutureExt;
    use utmos_core::{
        ports::StoreError,
        time::{BootId, Now, Timestamp},
    };
    use uuid::Uuid;

    use super::*;

    struct Hand(AtomicU64);

    impl Hand {
        fn new() -> Arc<Self> {
            Arc::new(Self(AtomicU64::new(1_000_000)))
        }

        fn pass(&self, millis: u64) {
            self.0.fetch_add(millis, Ordering::SeqCst);
        }
    }

    impl Clock for Hand {
        fn now(&self) -> Now {
            let millis = self.0.load(Ordering::SeqCst);
            Now { wall: Timestamp::from_millis(0), mono: Mono::from_millis(millis) }
        }

        fn boot(&self) -> BootId {
            BootId([1; 16])
        }
    }

    /// What all servers have given, in memory.
    struct Ledger {
        clock: Arc<Hand>,
        whole_at: Mutex<BTreeMap<String, Duration>>,
        charges: AtomicU64,
        is_away: AtomicBool,
    }

    impl Ledger {
        fn new(clock: &Arc<Hand>) -> Arc<Self> {
            Arc::new(Self {
                clock: clock.clone(),
                whole_at: Mutex::default(),
                charges: AtomicU64::new(0),
                is_away: AtomicBool::new(false),
            })
        }
    }

    impl Ledger {
        fn is_away(&self) -> bool {
            self.is_away.load(Ordering::SeqCst)
        }
    }

    #[async_trait]
    impl AllowanceStore for Ledger {
        async fn charge(&self, charges: Vec<Charge>) -> Result<Vec<Duration>, StoreError> {
            if self.is_away() {
                return Err(StoreError::Unavailable("away".to_owned()));
            }
            let now = Duration::from_millis(self.clock.now().mono.as_millis());
            let mut known = self.whole_at.lock().unwrap();
            let missing = charges.into_iter().map(|charge| {
                self.charges.fetch_add(1, Ordering::SeqCst);
                let whole_at = known.entry(charge.name).or_default();
                let missing = whole_at.saturating_sub(now) + charge.given;
                *whole_at = now + missing.min(charge.most);
                missing.min(charge.most)
            });
            Ok(missing.collect())
        }
    }

    fn rates(credential: (u32, u32), tenant: (u32, u32)) -> Rates {
        Rates {
            credential: Rate::new(credential.0, credential.1),
            tenant: Rate::new(tenant.0, tenant.1),
        }
    }

    fn key(number: u32) -> ApiId {
        ApiId::new(format!("utk_{number}"))
    }

    fn tenant(number: u128) -> TenantId {
        TenantId::new(Uuid::from_u128(number))
    }

    /// How many of so many requests are let through.
    fn given(allowances: &Allowances, asked: u32, credential: u32, of: u128) -> u32 {
        let is_given = |_: &u32| allowances.take_for(&key(credential), tenant(of)).is_ok();
        u32::try_from((0..asked).filter(is_given).count()).unwrap()
    }

    #[test]
    fn a_credential_and_a_tenant_have_limits_of_their_own() {
        let clock = Hand::new();
        let all = Allowances::alone(rates((1, 4), (1, 6)), clock.clone());
        assert_eq!(given(&all, 9, 1, 1), 4);
        assert_eq!(given(&all, 9, 2, 1), 2, "the tenant's");
        assert_eq!(given(&all, 9, 3, 2), 4, "another tenant's are its own");
        let used_up = all.take_for(&key(1), tenant(1)).unwrap_err();
        assert_eq!((used_up.whose, used_up.wait), (Whose::Credential, Duration::from_secs(1)));
        let used_up = all.take_for(&key(2), tenant(1)).unwrap_err();
        assert_eq!(used_up.whose, Whose::Tenant);
        clock.pass(3_000);
        // What the tenant refused took nothing of the credential: it has two and what came since.
        assert_eq!(given(&all, 9, 2, 1), 3);
        let counted = |figure: &AtomicU64| figure.load(Ordering::SeqCst);
        assert_eq!(counted(&all.figures().credential), 5 + 5 + 1);
        assert_eq!(counted(&all.figures().tenant), 7 + 1 + 6);
    }

    #[test]
    fn without_a_limit_nobody_is_refused_and_nothing_is_kept() {
        let all = Allowances::alone(Rates::default(), Hand::new());
        assert_eq!(given(&all, 10_000, 1, 1), 10_000);
        assert!(all.lock().credentials.held.is_empty() && all.lock().tenants.held.is_empty());
    }

    #[test]
    fn what_must_not_be_refused_counts_and_passes() {
        let all = Allowances::alone(rates((1, 4), (0, 1)), Hand::new());
        for _ in 0..10 {
            all.take_for_anyway(&key(1), tenant(1));
        }
        assert_eq!(given(&all, 1, 1, 1), 0);
    }

    #[test]
    fn credentials_that_ask_no_more_are_forgotten() {
        let clock = Hand::new();
        let all = Allowances::alone(rates((1, 4), (0, 1)), clock.clone());
        for number in 0..100_000 {
            assert_eq!(given(&all, 1, number, 1), 1);
            clock.pass(1);
        }
        let held = all.lock().credentials.held.len();
        assert!(held <= 3 * HELD_MIN, "{held}: of a second some thousand are not whole");
    }

    /// Servers on one ledger, which tell it what they must when they must.
    struct Several {
        clock: Arc<Hand>,
        ledger: Arc<Ledger>,
        servers: Vec<Arc<Allowances>>,
        rounds: Vec<u32>,
        /// Milliseconds that have passed.
        passed: u64,
    }

    impl Several {
        async fn start(rates: Rates, count: usize) -> Self {
            let clock = Hand::new();
            let ledger = Ledger::new(&clock);
            let servers = (0..count).map(|_| Allowances::shared(rates, clock.clone())).collect();
            let mut several = Self { clock, ledger, servers, rounds: vec![0; count], passed: 0 };
            several.pass(250).await;
            several
        }

        /// Ten milliseconds after another pass for everybody.
        async fn pass(&mut self, millis: u64) {
            for _ in 0..millis / 10 {
                self.clock.pass(10);
                self.passed += 10;
                let is_time = self.passed.is_multiple_of(250);
                for (server, rounds) in self.servers.iter().zip(&mut self.rounds) {
                    let is_urgent = server.hurry.notified().now_or_never().is_some();
                    if is_time || is_urgent {
                        let told = server.round(&*self.ledger, self.servers.len(), rounds).await;
                        assert!(told.is_ok() || self.ledger.is_away());
                    }
                }
            }
        }
    }

    #[tokio::test]
    async fn servers_that_share_a_store_give_one_limit_together() {
        let mut several = Several::start(rates((100, 40), (0, 1)), 2).await;
        let mut sum = 0;
        // Ten seconds, as often as can be: at one, at the other, at both.
        for round in 0..1_000 {
            for (number, server) in several.servers.iter().enumerate() {
                if round / 250 == number || round >= 500 {
                    sum += given(server, 5, 1, 1);
                }
            }
            several.pass(10).await;
        }
        assert!((950..=1_000 + 40 + 2 * 11).contains(&sum), "{sum}");
    }

    #[tokio::test]
    async fn a_store_that_is_away_refuses_nobody_and_each_server_gives_its_share() {
        let mut several = Several::start(rates((100, 40), (0, 1)), 2).await;
        several.ledger.is_away.store(true, Ordering::SeqCst);
        let mut sums = [0, 0];
        for _ in 0..1_000 {
            for (sum, server) in sums.iter_mut().zip(&several.servers) {
                *sum += given(server, 5, 1, 1);
            }
            several.pass(10).await;
        }
        assert!(sums.iter().all(|sum| (490..=522).contains(sum)), "{sums:?}");
        // What could not be told is told then, and paid for: by half a minute of it no more than ten seconds.
        several.ledger.is_away.store(false, Ordering::SeqCst);
        several.pass(2_500).await;
        assert_eq!(given(&several.servers[0], 5, 1, 1), 0);
        several.pass(10_500).await;
        assert!(given(&several.servers[0], 5, 1, 1) > 0);
    }

    #[tokio::test]
    async fn what_is_asked_slowly_is_told_seldom() {
        let mut several = Several::start(rates((500, 2_000), (1_000, 4_000)), 2).await;
        for _ in 0..200 {
            assert_eq!(given(&several.servers[0], 1, 1, 1), 1);
            several.pass(100).await;
        }
        let charges = several.ledger.charges.load(Ordering::SeqCst);
        assert!((10..=40).contains(&charges), "{charges} in 20 s of two allowances, not 160");
    }
}
