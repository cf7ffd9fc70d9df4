//! Commands in which other servers have a part: taken over from one that is gone, let go to another, and those that
//! nobody here looks after.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use utmos_core::{
    command::{Command, Life, Phase, Status},
    id::{CommandId, GatewaySn},
    life::{Input, decide_all},
    method::Risk,
    planted::{self, Fault},
    ports::{Advance, Advanced, StoreError},
    replica::{Handed, News, ReplicaId, Shard},
    reply::Progress,
    time::Timestamp,
};

use super::{
    Driver, Inner, LaneKey, Resumed,
    doubt::Known,
    intake::{RESUME_PAGE, acceptance, found_with, may_be_preempted},
    jobs,
    lane::{Lane, Work},
    watch::WaitsFor,
};
use crate::replicas::{Missed, MissedWord, Word};

impl Driver {
    /// Takes every open command into care that is this server's and is not yet: of the gateways it holds, and the
    /// emergencies of servers that are gone. With what devices said while nobody may have listened.
    ///
    /// # Errors
    /// When the store cannot be read; then it must be tried again.
    pub async fn resume_held(&self, missed: &[MissedWord]) -> Result<Resumed, StoreError> {
        let unanswered = self.inner.unanswered(missed);
        let resumed = self.inner.resume_held(missed, &BTreeSet::new()).await?;
        self.link_is_up();
        // Emergencies of who is gone come into care when that is known, and what was heard from the gateways of its shards
        // when these are held.
        for missed in unanswered {
            if let Word::Reply(id, reply) = &missed.word {
                self.tell_now(missed.tenant, *id, Input::Reply(reply.clone()), missed.bytes);
            }
        }
        self.hear_of_jobs(missed);
        Ok(resumed)
    }

    /// Tells jobs that are in care how they go.
    pub fn hear_of_jobs(&self, missed: &[MissedWord]) {
        for missed in missed {
            if let Word::Progress(progress) = &missed.word
                && let Some(id) = self.inner.find_job(progress, Some(self.inner.heard_at(missed)))
            {
                let input = Input::Progress((**progress).clone());
                self.tell_now(missed.tenant, id, input, missed.bytes);
            }
        }
    }

    /// Puts on record what was heard of commands of other servers and these have not: answers, and how jobs ended. Whoever
    /// looks after them finds it there.
    ///
    /// # Errors
    /// When the store cannot be read or written.
    pub async fn put_on_record(&self, heard: &[MissedWord]) -> Result<(), StoreError> {
        let id_of = |missed: &MissedWord| match &missed.word {
            Word::Reply(id, _) => (!self.inner.is_here(*id)).then_some(*id),
            Word::Progress(_) => None,
        };
        let ids: BTreeSet<CommandId> = heard.iter().filter_map(id_of).collect();
        let ids: Vec<CommandId> = ids.into_iter().collect();
        for some in ids.chunks(READ_PAGE) {
            for command in self.inner.store.commands(some.to_vec()).await? {
                // One answer is enough.
                let Some(answer) = said_of(&command, heard).into_iter().next() else { continue };
                let id = command.spec.id;
                let put = self.inner.decide_elsewhere_if(id, &answer, is_unanswered).await?;
                if put.is_some_and(|(_, has_moved)| has_moved) {
                    tracing::info!(command.id = %id, "put the answer to a command of another server on record");
                }
            }
        }
        let is_end = |missed: &&MissedWord| match &missed.word {
            Word::Progress(progress) => !progress.state.is_open(),
            Word::Reply(..) => false,
        };
        self.inner.put_ends_on_record(heard.iter().filter(is_end).collect()).await
    }

    /// Looks no more after what is no emergency of these gateways: another server does. What stands at the gate does not
    /// leave.
    pub fn let_go(&self, is_theirs: impl Fn(&GatewaySn) -> bool) {
        self.inner.forget(|key, lane| match key.urgent || !is_theirs(&key.gateway) {
            true => Vec::new(),
            false => lane.ids(),
        });
    }

    /// Whether an emergency waits to be sent.
    #[must_use]
    pub fn has_emergencies_waiting(&self) -> bool {
        let state = self.inner.lock();
        state.lanes.iter().any(|(key, lane)| key.urgent && lane.waiting() > 0)
    }

    /// Looks no more after emergencies that wait, and answers which these are, with their gateways: they are for another
    /// server to send. One of which a change is being saved stays, and so do all while any is in the journal alone.
    #[must_use]
    pub fn let_emergencies_go(&self) -> Vec<(CommandId, GatewaySn)> {
        if self.inner.store.depths().unsettled > 0 {
            return Vec::new();
        }
        self.inner.forget(|key, lane| match key.urgent && !lane.is_running() {
            true => lane.in_order().collect(),
            false => Vec::new(),
        })
    }

    /// Looks after a command again that another server was to take.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub async fn take_back(&self, id: CommandId) -> Result<(), StoreError> {
        match self.inner.store.command(id).await? {
            Some(command) if command.life.needs_care() => {
                let gateway = command.spec.gateway.clone();
                self.inner.take_over(command, Vec::new()).await?;
                self.inner.give_turn(&gateway);
                Ok(())
            }
            Some(_) | None => Ok(()),
        }
    }

    /// Whether nothing is under way of these gateways that only this server knows how it ends: no acceptance that began while
    /// it kept them, no save, and no publish.
    #[must_use]
    pub fn is_settled(&self, of: impl Fn(&GatewaySn) -> bool) -> bool {
        let state = self.inner.lock();
        if state.accepting.keys().any(&of) {
            return false;
        }
        let mut lanes = state.lanes.iter().filter(|(key, _)| !key.urgent && of(&key.gateway));
        !lanes.any(|(_, lane)| lane.is_at_work())
    }

    /// Reads at once what is handed to this server, but for emergencies, which are each looked at when they are taken in. One
    /// that is left out is not there, or cannot be read.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub async fn read_handed(
        &self,
        handed: &[Handed],
    ) -> Result<BTreeMap<CommandId, Command>, StoreError> {
        let ids: Vec<_> = handed.iter().filter(|one| !one.urgent).map(|one| one.id).collect();
        // Of one alone it is told why it cannot be read.
        if ids.len() < 2 {
            return Ok(BTreeMap::new());
        }
        let read = self.inner.store.commands(ids).await?;
        Ok(read.into_iter().map(|command| (command.spec.id, command)).collect())
    }

    /// Another server accepted a command for a gateway that is ours, whose devices may have `missed` somebody to hear them;
    /// `read` is the command, where it was read just now. Answers whether it is seen to: while what is open of its gateway is
    /// not in care, or goes to another server, or one is being accepted that was to leave at once, it stays handed on. So does what comes
    /// `behind` such a one of its gateway.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub async fn take_in(
        &self,
        handed: Handed,
        read: Option<Command>,
        missed: &Missed,
        behind: &mut BTreeSet<GatewaySn>,
    ) -> Result<bool, StoreError> {
        let read = match read {
            Some(command) => Some(command),
            None => self.inner.store.command(handed.id).await?,
        };
        let Some(command) = read else { return Ok(true) };
        let gateway = command.spec.gateway.clone();
        if handed.urgent {
            self.inner.preempt(&command.spec);
            // Whoever accepted it may be gone, or was no member.
            let elsewhere = self.inner.holdings.emergencies_elsewhere().await?;
            if command.life.needs_care() && self.inner.is_to_keep(&command, &elsewhere) {
                let missed = missed.of(Shard::of(&command.spec.gateway));
                let said = said_of(&command, &missed);
                self.inner.take_over(command, said).await?;
            }
            self.inner.give_turn(&gateway);
            return Ok(true);
        }
        if !self.inner.holdings.keeps(&gateway) || behind.contains(&gateway) {
            return Ok(false);
        }
        if command.life.needs_care() {
            match self.inner.known_of(handed.id) {
                Known::InCare => {}
                // Claimed here for another server, which has not heard of it from here and knows it all the same.
                Known::InFlight if command.life.phase != Phase::Waiting => {
                    behind.insert(gateway);
                    return Ok(false);
                }
                Known::Doubted if command.life.phase != Phase::Waiting => {
                    self.inner.take_on_doubtful(handed.id, Status::Accepted);
                    behind.insert(gateway);
                    return Ok(false);
                }
                // Also where its caller has not heard of it yet: whoever accepts what is handed on does not look after it.
                Known::InFlight | Known::Doubted | Known::Nothing => {
                    self.inner.lock().doubts.forget(handed.id);
                    self.inner.take_over(command, Vec::new()).await?;
                }
            }
        }
        self.inner.give_turn(&gateway);
        // What is on its way to the store with a claim began before this one was known here. That it is still handed on tells
        // the store not to take the claim: the later one comes behind it then.
        Ok(!self.inner.lock().claiming.contains_key(&gateway))
    }

    /// Looks in the store at what other servers may have changed: tells those who wait for commands that others look after, and
    /// takes over how those stand that are looked after here. Another server ends one where it heard an answer for which it
    /// found nobody.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub async fn look_again(&self, look: Look<'_>) -> Result<(), StoreError> {
        let (watched, own) = {
            let mut state = self.inner.lock();
            let ended = match look {
                Look::Told { ended, .. } => Some(ended),
                Look::Watched | Look::All => None,
            };
            state.watchers.outdate(ended);
            let is_elsewhere = |id: &CommandId| !state.homes.contains_key(id);
            let watched: Vec<CommandId> = match look {
                Look::Watched | Look::All => state.watchers.ids().filter(is_elsewhere).collect(),
                Look::Told { changed, ended } => {
                    let of = |ids: &'_ [CommandId], what| {
                        let is_watched = |id: &CommandId| state.watchers.has(*id, what);
                        let ids = ids.iter().copied().filter(is_watched);
                        ids.filter(is_elsewhere).collect::<Vec<_>>()
                    };
                    [of(ended, WaitsFor::TheEnd), of(changed, WaitsFor::AnyChange)].concat()
                }
            };
            let own: Vec<CommandId> = match look {
                Look::Told { changed, ended } => {
                    let ids = changed.iter().chain(ended);
                    ids.filter(|id| !is_elsewhere(id)).copied().collect()
                }
                Look::Watched => state.lanes.values().flat_map(Lane::claimed_elsewhere).collect(),
                Look::All => state.homes.keys().copied().collect(),
            };
            (watched, own)
        };
        // Somebody waits for these.
        for some in watched.chunks(READ_PAGE) {
            for command in self.inner.store.commands(some.to_vec()).await? {
                self.inner.lock().watchers.tell(&Arc::new(command));
            }
        }
        for some in own.chunks(READ_PAGE) {
            for command in self.inner.store.commands(some.to_vec()).await? {
                self.inner.overtake(command).await?;
            }
        }
        Ok(())
    }
}

impl Inner {
    /// Has the other servers know that a command stands otherwise; `asker` is whom it was accepted for, if it has ended.
    pub(super) fn tell_others(&self, command: &Arc<Command>, asker: Option<ReplicaId>) {
        match command.life.phase.has_ended() {
            true => self.holdings.tell_end(command, asker),
            false => self.tell_others_of(command.spec.id, &command.life),
        }
    }

    pub(super) fn tell_others_of(&self, id: CommandId, life: &Life) {
        self.holdings.tell(|| match life.phase.has_ended() {
            true => News::Ended(vec![id]),
            false => News::Changed(vec![id]),
        });
    }
}

/// At which commands [`Driver::look_again`] looks.
#[derive(Debug, Clone, Copy)]
pub enum Look<'a> {
    /// At those of which another server told.
    Told {
        /// That it has changed them, and they go on.
        changed: &'a [CommandId],
        /// That they have ended.
        ended: &'a [CommandId],
    },
    /// At those of others that somebody waits for, and at those that another had begun to send when they were taken over.
    Watched,
    /// At all: something may have been missed.
    All,
}

/// Commands read in one go.
pub(crate) const READ_PAGE: usize = 500;

impl Inner {
    /// The first answer to each command that is in care already and has had none.
    fn unanswered<'a>(&self, missed: &'a [MissedWord]) -> Vec<&'a MissedWord> {
        let state = self.lock();
        let mut answers = BTreeMap::new();
        for word in missed {
            let Word::Reply(id, _) = &word.word else { continue };
            let lane = state.homes.get(id).and_then(|key| state.lanes.get(key));
            let command = lane.and_then(|lane| lane.command(*id));
            if command.is_some_and(|command| is_answer(word, command)) {
                answers.entry(*id).or_insert(word);
            }
        }
        answers.into_values().collect()
    }

    /// See [`Driver::resume_held`]; with these, whoever holds their gateways.
    pub(super) async fn resume_held(
        self: &Arc<Self>,
        missed: &[MissedWord],
        own: &BTreeSet<CommandId>,
    ) -> Result<Resumed, StoreError> {
        let is_found =
            |command: &Command| self.is_to_resume(command) || own.contains(&command.spec.id);
        let shards = self.holdings.not_kept();
        let mut found = self.open_commands(shards.as_ref(), is_found).await?;
        // What was handed on comes by that, also while its gateway is being taken: all that was accepted here was so before
        // anything was handed on, and all that is found was so before that. Read after the pages, for whatever is in these.
        let handed = self.holdings.handed().await?;
        let handed: BTreeSet<CommandId> =
            handed.iter().filter(|one| !one.urgent).map(|one| one.id).collect();
        found.retain(|command| {
            let id = command.spec.id;
            // What was begun already has its place.
            let waits = command.life.phase == Phase::Waiting;
            !waits || !handed.contains(&id) || own.contains(&id)
        });
        // Read last: one that was accepted since the pages were read is not taken for that of nobody.
        let elsewhere = self.holdings.emergencies_elsewhere().await?;
        found.retain(|command| self.is_to_keep(command, &elsewhere));
        match self.holdings.in_order(found.iter().map(|command| command.spec.id)).await? {
            Some(order) => {
                let place: BTreeMap<_, _> = order.into_iter().zip(0_u64..).collect();
                found
                    .sort_by_key(|command| (place.get(&command.spec.id).copied(), command.spec.id));
            }
            None => {
                let boot = self.clock.boot();
                found.sort_by_key(|command| acceptance(&command.spec, boot));
            }
        }
        let mut readable = Vec::new();
        let mut found = found.into_iter().peekable();
        while found.peek().is_some() {
            let some: Vec<Command> = found.by_ref().take(READ_PAGE).collect();
            readable.extend(self.all_found_as(some).await?);
        }
        let mut resumed = Resumed { open: 0, unclear: 0 };
        // Before whatever was accepted here meanwhile.
        let mut order = self.lock().orders_found(readable.len());
        for (mut command, found) in readable {
            if planted::is_planted(Fault::TimersIgnoredOnResume) {
                Arc::make_mut(&mut command.life).due = None;
            }
            order += 1;
            self.lock().doubts.forget(command.spec.id);
            resumed.open += 1;
            resumed.unclear += usize::from(command.life.phase == Phase::Sending);
            let said = said_of(&command, missed);
            // Before a timer can tell that nothing was said.
            self.keep_and_tell(command, found.into_iter().chain(said).collect(), Some(order));
        }
        Ok(resumed)
    }

    /// What each is told first, asked of the store at once: no gateway that was gained sends before. One that cannot be read is
    /// left out.
    async fn all_found_as(
        &self,
        commands: Vec<Command>,
    ) -> Result<Vec<(Command, Option<Input>)>, StoreError> {
        let movements = commands.iter().filter(|command| may_be_preempted(command));
        let movements: Vec<_> = movements.map(|command| Arc::clone(&command.spec)).collect();
        let emergencies = match movements.is_empty() {
            true => Ok(BTreeMap::new()),
            false => self.store.emergencies_after(&movements).await,
        };
        let mut readable = Vec::with_capacity(commands.len());
        match emergencies {
            Ok(emergencies) => {
                for command in commands {
                    let found = found_with(&command, emergencies.get(&command.spec.id).copied());
                    readable.push((command, found));
                }
            }
            // Which of them it is, each alone tells.
            Err(StoreError::Damaged(_)) => {
                for command in commands {
                    match self.found_as(&command).await {
                        Err(error @ StoreError::Damaged(_)) => {
                            tracing::error!(command.id = %command.spec.id, %error, "a command cannot be looked after");
                        }
                        found => readable.push((command, found?)),
                    }
                }
            }
            Err(error) => return Err(error),
        }
        Ok(readable)
    }

    /// Looks no more after what `which` picks of each lane; what stands at the gate of it does not leave. Answers what that
    /// was, with the gateways.
    pub(super) fn forget(
        &self,
        which: impl Fn(&LaneKey, &Lane) -> Vec<CommandId>,
    ) -> Vec<(CommandId, GatewaySn)> {
        let mut guard = self.lock();
        let state = &mut *guard;
        let mut forgotten = Vec::new();
        for (key, lane) in &mut state.lanes {
            for id in which(key, lane) {
                if let Some(due) = lane.forget(id) {
                    state.timers.unset(due.mono, id);
                }
                state.homes.remove(&id);
                forgotten.push((id, key.gateway.clone()));
            }
        }
        state.lanes.retain(|_, lane| !lane.is_idle());
        forgotten
    }

    /// Whether an open command comes under care by being found. What waits for a gateway whose commands are in care already
    /// comes by being handed on, in its order: found before that, it would have its turn before those that were.
    fn is_to_resume(&self, command: &Command) -> bool {
        let gateway = &command.spec.gateway;
        let is_handed_on = !self.holdings.is_alone()
            && command.spec.risk != Risk::Emergency
            && self.holdings.keeps(gateway);
        self.holdings.holds(gateway) && !is_handed_on
    }

    fn is_to_keep(&self, command: &Command, elsewhere: &BTreeSet<CommandId>) -> bool {
        let is_anothers =
            command.spec.risk == Risk::Emergency && elsewhere.contains(&command.spec.id);
        let id = command.spec.id;
        // One that is being accepted here comes under care by that, or by being handed over.
        !is_anothers && !self.is_here(id) && !self.lock().doubts.is_in_flight(id)
    }

    /// Whether another server holds a command's gateway, and it is no emergency, after which whoever accepted it looks.
    pub(super) fn is_anothers(&self, command: &Command) -> bool {
        command.spec.risk != Risk::Emergency && !self.holdings.holds(&command.spec.gateway)
    }

    /// Whether the sending of a command of this lane may begin here.
    pub(super) fn may_begin(&self, key: &LaneKey) -> bool {
        match key.urgent {
            true => !self.holdings.is_cut_off(),
            false => self.holdings.may_send(&key.gateway),
        }
    }

    /// Whether a command is under care.
    pub(super) fn is_here(&self, id: CommandId) -> bool {
        self.lock().homes.contains_key(&id)
    }

    /// The store says that a command is another server's to send.
    pub(super) fn leave_to_others(&self, key: &LaneKey, work: &Work) {
        let mut guard = self.lock();
        let state = &mut *guard;
        let Some(lane) = state.lanes.get_mut(key) else { return };
        lane.settled(work.bytes);
        // It may have been given back, and read anew, meanwhile.
        let is_as_it_was = |it: &Command| it.life.version == work.advance.seen;
        if !lane.command(work.id).is_some_and(is_as_it_was) {
            return;
        }
        if let Some(due) = lane.forget(work.id) {
            state.timers.unset(due.mono, work.id);
        }
        state.homes.remove(&work.id);
        tracing::info!(command.id = %work.id, gateway.sn = %key.gateway, "another server sends this command");
    }

    /// Decides about a command that is not under care here, on what the store holds of it: who was quicker counts. `None`
    /// when there is no such command; with whether the input had an effect.
    pub(super) async fn decide_elsewhere(
        self: &Arc<Self>,
        id: CommandId,
        input: &Input,
    ) -> Result<Option<(Arc<Command>, bool)>, StoreError> {
        self.decide_elsewhere_if(id, input, |_| true).await
    }

    /// The same, as long as the command still `needs` the input: several servers may have heard it.
    async fn decide_elsewhere_if(
        self: &Arc<Self>,
        id: CommandId,
        input: &Input,
        needs: impl Fn(&Command) -> bool,
    ) -> Result<Option<(Arc<Command>, bool)>, StoreError> {
        loop {
            let Some(command) = self.store.command(id).await? else { return Ok(None) };
            let mut command = self.in_this_boot(command);
            if !needs(&command) {
                return Ok(Some((Arc::new(command), false)));
            }
            let Some(folded) = decide_all(&command, [input], self.moment()) else {
                return Ok(Some((Arc::new(command), false)));
            };
            let (seen, life) = (command.life.version, folded.life.clone());
            let advance = Advance { id, seen, life, entries: folded.entries.into() };
            match self.store.advance(advance).await? {
                Advanced::Yes => {
                    command.life = folded.life;
                    let command = Arc::new(command);
                    self.lock().watchers.tell(&command);
                    self.tell_others(&command, None);
                    return Ok(Some((command, true)));
                }
                Advanced::Lost => {}
                Advanced::Elsewhere | Advanced::Preempted(_) => {
                    return Ok(Some((Arc::new(command), false)));
                }
            }
        }
    }

    /// Open commands of which this is so, oldest first: of all of them, or of those of some shards and every emergency.
    async fn open_commands(
        &self,
        shards: Option<&BTreeSet<Shard>>,
        is_it: impl Fn(&Command) -> bool,
    ) -> Result<Vec<Command>, StoreError> {
        let mut found = Vec::new();
        let mut after = None;
        loop {
            let page = match shards {
                Some(shards) => self.store.open_commands_of(shards, after, RESUME_PAGE).await?,
                None => self.store.open_commands(after, RESUME_PAGE).await?,
            };
            let Some(last) = page.last() else { return Ok(found) };
            after = Some(last.spec.id);
            found.extend(page.into_iter().filter(&is_it));
        }
    }

    /// The command in care that an event is of, which came just now or was heard `then`.
    pub(super) fn find_job(
        &self,
        progress: &Progress,
        then: Option<Timestamp>,
    ) -> Option<CommandId> {
        let state = self.lock();
        let lanes = [true, false]
            .map(|urgent| state.lanes.get(&LaneKey { gateway: progress.gateway.clone(), urgent }));
        let commands = lanes.into_iter().flatten().flat_map(Lane::commands);
        jobs::owner(commands, progress, then).map(|command| command.spec.id)
    }

    /// When a word was heard, by the clock of deadlines, which servers share.
    fn heard_at(&self, missed: &MissedWord) -> Timestamp {
        let now = self.holdings.to_tell(self.clock.now());
        let ago = i64::try_from(now.mono.since(missed.at).as_millis()).unwrap_or(i64::MAX);
        Timestamp::from_millis(now.wall.as_millis().saturating_sub(ago))
    }

    /// Puts on record how jobs of other servers ended, where these have not.
    async fn put_ends_on_record(
        self: &Arc<Self>,
        ends: Vec<&MissedWord>,
    ) -> Result<(), StoreError> {
        if ends.is_empty() || planted::is_planted(Fault::EndsOfOthersForgotten) {
            return Ok(());
        }
        let shard = |missed: &&MissedWord| match &missed.word {
            Word::Progress(progress) => Some(Shard::of(&progress.gateway)),
            Word::Reply(..) => None,
        };
        let shards: BTreeSet<Shard> = ends.iter().filter_map(shard).collect();
        let is_it = |command: &Command| !self.is_here(command.spec.id);
        let open = self.open_commands(Some(&shards), is_it).await?;
        for missed in ends {
            let Word::Progress(progress) = &missed.word else { continue };
            let of_tenant = open.iter().filter(|command| command.spec.tenant == missed.tenant);
            let then = self.heard_at(missed);
            let Some(owner) = jobs::owner(of_tenant, progress, Some(then)) else { continue };
            let (id, input) = (owner.spec.id, Input::Progress((**progress).clone()));
            let put = self
                .decide_elsewhere_if(id, &input, |command| !command.life.phase.has_ended())
                .await?;
            if put.is_some_and(|(_, has_moved)| has_moved) {
                tracing::info!(command.id = %id, "put on record how a job of another server ended");
            }
        }
        Ok(())
    }

    /// What was said of a command that another server took over before it was saved. Its holder heard it as well, if it was
    /// there by then.
    pub(super) async fn heard_for_another(self: &Arc<Self>, command: &Command, inputs: &[Input]) {
        let id = command.spec.id;
        if is_unanswered(command)
            && let Some(answer) = inputs.iter().find(|it| matches!(it, Input::Reply(_)))
            && let Err(error) = self.decide_elsewhere_if(id, answer, is_unanswered).await
        {
            tracing::error!(command.id = %id, %error, "could not keep an answer to a command of another server");
        }
    }

    /// Whether a command in doubt may go on at once: nobody else can have it.
    pub(super) fn goes_on_at_once(&self, key: &LaneKey) -> bool {
        key.urgent || self.holdings.is_alone()
    }
}

/// Whether a command may have left and has not been answered.
fn is_unanswered(command: &Command) -> bool {
    match command.life.phase {
        Phase::Sending => true,
        Phase::Delivered => command.life.response.is_none(),
        Phase::Waiting | Phase::Ended(_) => false,
    }
}

/// The answers among what was missed that this open command has not had.
fn said_of(command: &Command, missed: &[MissedWord]) -> Vec<Input> {
    let answer = |missed: &MissedWord| match &missed.word {
        Word::Reply(_, reply) if is_answer(missed, command) => Some(Input::Reply(reply.clone())),
        Word::Reply(..) | Word::Progress(_) => None,
    };
    missed.iter().filter_map(answer).collect()
}

/// Whether a word answers this open command, which has had no answer. Only its own gateway can give one: on a broker that lets
/// anybody speak for others the rest is forged.
fn is_answer(missed: &MissedWord, command: &Command) -> bool {
    let Word::Reply(id, reply) = &missed.word else { return false };
    *id == command.spec.id
        && missed.tenant == command.spec.tenant
        && reply.gateway == command.spec.gateway
        && is_unanswered(command)
}
