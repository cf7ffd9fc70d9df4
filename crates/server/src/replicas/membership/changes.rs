//! Shards and commands on their way from one server to another. Whatever is changed in the store holds up no sign of life,
//! however long it takes.

use std::{sync::Arc, time::Duration};

use tokio::task::JoinHandle;
use utmos_core::{
    id::{CommandId, GatewaySn},
    ports::StoreError,
    replica::{News, ReplicaId, Shard},
};

use super::{Leaving, Membership, MembershipParts};

/// How long what is under way at a gateway may take to settle before its shard is given back.
const SETTLE_WAIT: Duration = Duration::from_secs(2);
const SETTLE_LOOK_WAIT: Duration = Duration::from_millis(5);
/// A change of shards that takes longer is begun anew. It holds up no sign of life, and on a database that has much to do it
/// takes its time.
const CHANGE_PATIENCE: Duration = Duration::from_secs(10);

impl Membership {
    /// Expels who has fallen silent and takes what is free, one such change at a time.
    pub(super) fn begin_change(
        self: &Arc<Self>,
        silent: Vec<(ReplicaId, u64, String)>,
        free: Vec<Shard>,
    ) -> Option<JoinHandle<()>> {
        if silent.is_empty() && free.is_empty()
            || std::mem::replace(&mut self.lock().is_changing, true)
        {
            return None;
        }
        let this = self.clone();
        Some(tokio::spawn(async move {
            if let Err(error) = this.change(silent, free).await {
                tracing::debug!(%error, "could not expel a server or take shards");
            }
            this.lock().is_changing = false;
        }))
    }

    async fn change(
        &self,
        silent: Vec<(ReplicaId, u64, String)>,
        free: Vec<Shard>,
    ) -> Result<(), StoreError> {
        let MembershipParts { store, id: me, clock, .. } = &self.parts;
        for (id, beats, name) in silent {
            if patiently(store.expel(id, beats)).await? {
                tracing::warn!(
                    "server {name} gives no sign of life; others take over what it held"
                );
                self.beat.notify_one();
                store.tell(News::Roll);
            }
        }
        if free.is_empty() {
            return Ok(());
        }
        let gained = patiently(store.take(*me, free)).await?;
        let now = clock.now().mono;
        {
            let mut state = self.lock();
            if state.leaving != Leaving::No {
                return Ok(());
            }
            state.taken.extend(gained.iter().map(|shard| (*shard, now)));
        }
        // A roll may have told of them already.
        let held = self.parts.holdings.held();
        let gained: Vec<Shard> = gained.into_iter().filter(|shard| !held.contains(shard)).collect();
        self.hold(&gained);
        Ok(())
    }

    pub(super) fn hold(&self, gained: &[Shard]) {
        if gained.is_empty() {
            return;
        }
        tracing::info!(shards = gained.len(), "this server holds more gateways");
        {
            // In one step: what is owed and does not count as held yet would be looked for in vain.
            let mut state = self.lock();
            state.owed.extend(gained);
            self.parts.holdings.begin_to_hold(gained);
        }
        self.care.notify_one();
    }

    pub(super) fn drop_shards(&self, shards: &[Shard]) {
        {
            let mut state = self.lock();
            state.owed.retain(|shard| !shards.contains(shard));
            state.from_the_start.retain(|shard| !shards.contains(shard));
        }
        self.parts.holdings.let_go(shards);
        self.parts.driver.let_go(|gateway| shards.contains(&Shard::of(gateway)));
    }

    /// Gives back what another server is to hold.
    pub(super) async fn give_back(self: Arc<Self>, shards: Vec<Shard>) {
        self.settle(&shards).await;
        match patiently(self.parts.store.release(self.parts.id, shards.clone())).await {
            Ok(()) => {
                tracing::info!(shards = shards.len(), "gave gateways to another server");
                let now = self.parts.clock.now().mono;
                self.lock().given_back.extend(shards.iter().map(|shard| (*shard, now)));
                self.drop_shards(&shards);
                self.parts.store.tell(News::Roll);
            }
            // Perhaps it was done all the same: the next roll tells. Until then nothing is sent.
            Err(error) => {
                tracing::warn!(%error, "could not give gateways to another server");
                self.drop_shards(&shards);
                self.lock().is_silent = !self.parts.store.is_written();
            }
        }
    }

    pub(super) async fn settle(&self, shards: &[Shard]) {
        let is_of_them = |gateway: &GatewaySn| shards.contains(&Shard::of(gateway));
        let settled = async {
            while !self.parts.driver.is_settled(is_of_them) {
                tokio::time::sleep(SETTLE_LOOK_WAIT).await;
            }
        };
        if tokio::time::timeout(SETTLE_WAIT, settled).await.is_err() {
            tracing::info!("something was still under way when its gateways were given away");
        }
    }

    /// See [`Membership::pass_on`].
    pub(super) fn begin_to_pass_on(self: &Arc<Self>) {
        let has_any = self.parts.holdings.is_cut_off() || !self.lock().passing.is_empty();
        let is_passing = !has_any || std::mem::replace(&mut self.lock().is_passing, true);
        if !is_passing {
            let this = self.clone();
            tokio::spawn(async move {
                this.pass_on().await;
                this.lock().is_passing = false;
            });
        }
    }

    /// Hands emergencies that wait here while the broker is not reached to the servers that hold their gateways, and gives
    /// away the gateways that are held here. What was begun is tried again until the store says that it is done.
    async fn pass_on(self: &Arc<Self>) {
        let MembershipParts { store, holdings, driver, .. } = &self.parts;
        let passing: Vec<(CommandId, Shard)> = {
            let is_cut_off = holdings.is_cut_off();
            let gone = if is_cut_off { driver.let_emergencies_go() } else { Vec::new() };
            let shard_of = |(id, gateway): (CommandId, GatewaySn)| (id, Shard::of(&gateway));
            let mut state = self.lock();
            state.passing.extend(gone.into_iter().map(shard_of));
            state.passing.iter().map(|(id, shard)| (*id, *shard)).collect()
        };
        if passing.is_empty() {
            return;
        }
        let handed = match patiently(store.hand_over(passing.clone())).await {
            Ok(handed) => handed,
            Err(error) => return tracing::debug!(%error, "could not hand emergencies on"),
        };
        self.lock().passing.clear();
        tracing::warn!(
            emergencies = handed.len(),
            "this server does not reach the broker; others send these emergencies"
        );
        let held = holdings.held();
        let is_of_them = |shard: &Shard| passing.iter().any(|(_, of)| of == shard);
        let shards: Vec<Shard> = held.into_iter().filter(is_of_them).collect();
        if !shards.is_empty() {
            holdings.begin_to_leave(&shards);
            let this = self.clone();
            tokio::spawn(async move { this.give_back(shards).await });
        }
        store.tell(News::Handed);
        for (id, _) in passing.iter().filter(|(id, _)| !handed.contains(id)) {
            // It is in the journal alone, and nobody else can know of it.
            if let Err(error) = driver.take_back(*id).await {
                tracing::error!(command.id = %id, %error, "an emergency cannot be looked after");
            }
        }
    }
}

/// A change of shards that is not waited for without end. Should it be made all the same, the next roll tells.
async fn patiently<T>(
    change: impl Future<Output = Result<T, StoreError>>,
) -> Result<T, StoreError> {
    tokio::time::timeout(CHANGE_PATIENCE, change).await.unwrap_or_else(|_| {
        Err(StoreError::Unavailable("a change of shards took too long".to_owned()))
    })
}
