//! Commands that the store may hold although it could not say so. Their callers were told to ask again: who does gets the
//! command going, from the store's own answer that it is there. Whoever does not has given it up, and it ends unsent.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use utmos_core::{
    command::{Command, Life, Phase, Status},
    evidence::Proof,
    id::CommandId,
    life::Input,
    method::Risk,
    ports::StoreError,
};

use super::{Inner, LaneKey};

/// Commands in doubt that are remembered, and as many emergencies beside them.
const DOUBTFUL_MAX: usize = 10_000;

/// A command as the store holds it, if it does.
struct Doubtful {
    key: LaneKey,
    command: Command,
}

/// What the store was asked to accept and has not said to hold. Pure.
#[derive(Default)]
pub(super) struct Doubts {
    /// Commands that are being accepted, and whether the store has told somebody else meanwhile that it holds them.
    in_flight: BTreeMap<CommandId, bool>,
    /// Commands whose callers were told something else. Emergencies have a room of their own.
    emergencies: BTreeMap<CommandId, Doubtful>,
    others: BTreeMap<CommandId, Doubtful>,
}

/// What becomes of a command in doubt.
enum Fate {
    /// Somebody was told meanwhile that it is there.
    GoesOn(LaneKey, Box<Command>),
    Remembered,
    NoRoom,
}

/// What is known here of a command that is handed to this server.
pub(super) enum Known {
    /// It is looked after.
    InCare,
    /// It is being accepted, or the store is being asked whether it goes on from here.
    InFlight,
    /// It is in doubt.
    Doubted,
    Nothing,
}

impl Doubts {
    /// The store is asked to accept a command.
    pub(super) fn ask(&mut self, id: CommandId) {
        self.in_flight.insert(id, false);
    }

    /// The store has said what came of it.
    pub(super) fn answered(&mut self, id: CommandId) {
        self.in_flight.remove(&id);
    }

    /// The store has not. In one step, so that whoever asks again meanwhile finds the command on one side of it or the other.
    fn doubt(&mut self, key: LaneKey, command: Command) -> Fate {
        let id = command.spec.id;
        let was_asked_again = self.in_flight.remove(&id).unwrap_or(false);
        if was_asked_again {
            return Fate::GoesOn(key, Box::new(command));
        }
        let room = if key.urgent { &mut self.emergencies } else { &mut self.others };
        if room.len() >= DOUBTFUL_MAX {
            return Fate::NoRoom;
        }
        room.insert(id, Doubtful { key, command });
        Fate::Remembered
    }

    /// Somebody was told that the store holds a command. Answers what goes on from here by that, where the command still
    /// stands `as_it_was`; one whose own caller has not heard yet goes on by that one.
    fn asked_again(&mut self, id: CommandId, as_it_was: bool) -> Option<(LaneKey, Command)> {
        if let Some(was_asked_again) = self.in_flight.get_mut(&id) {
            *was_asked_again = true;
        }
        self.remove(id).filter(|_| as_it_was).map(|doubtful| (doubtful.key, doubtful.command))
    }

    /// Nobody has asked again. Answers how the store would hold it.
    fn give_up(&mut self, id: CommandId) -> Option<Arc<Life>> {
        self.remove(id).map(|doubtful| doubtful.command.life)
    }

    /// Whether a command is being accepted here.
    pub(super) fn is_in_flight(&self, id: CommandId) -> bool {
        self.in_flight.contains_key(&id)
    }

    /// The store itself gives the command to this server: there is no doubt any more.
    pub(super) fn forget(&mut self, id: CommandId) {
        drop(self.remove(id));
    }

    fn get(&self, id: CommandId) -> Option<&Doubtful> {
        self.emergencies.get(&id).or_else(|| self.others.get(&id))
    }

    fn remove(&mut self, id: CommandId) -> Option<Doubtful> {
        self.emergencies.remove(&id).or_else(|| self.others.remove(&id))
    }
}

impl Inner {
    /// Remembers a command until its caller asks again, or its deadline passes. Where somebody has done so already, it goes
    /// on.
    pub(super) fn doubt(self: &Arc<Self>, key: LaneKey, command: Command) {
        let (id, timeout) = (command.spec.id, command.spec.timeout);
        let fate = self.lock().doubts.doubt(key, command);
        match fate {
            Fate::GoesOn(key, command) if self.goes_on_at_once(&key) => {
                self.take_on(&key, *command)
            }
            Fate::GoesOn(key, command) => {
                let inner = self.clone();
                self.tasks.spawn(async move { inner.verify(key, *command).await });
            }
            Fate::Remembered => {
                let inner = self.clone();
                self.tasks.spawn(async move { inner.find_out(id, timeout).await });
            }
            // Nearly always the store holds none of them; what it holds is looked after again at the next start.
            Fate::NoRoom => {
                tracing::error!(command.id = %id, "too many commands are in doubt to remember this one");
            }
        }
    }

    /// The store has said that it holds a command, and how it stands. If that was in doubt, it goes on from here; if its
    /// own caller has not heard yet, that one takes it on.
    pub(super) fn take_on_doubtful(self: &Arc<Self>, id: CommandId, status: Status) {
        let goes_on = {
            let mut guard = self.lock();
            let state = &mut *guard;
            let as_it_was = status == Status::Accepted && !state.homes.contains_key(&id);
            state.doubts.asked_again(id, as_it_was)
        };
        let Some((key, command)) = goes_on else { return };
        if self.goes_on_at_once(&key) {
            return self.take_on(&key, command);
        }
        // The store may have given it to another server.
        let inner = self.clone();
        self.tasks.spawn(async move { inner.verify(key, command).await });
    }

    /// What is known of a command here, all of it at one moment.
    pub(super) fn known_of(&self, id: CommandId) -> Known {
        let state = self.lock();
        if state.homes.contains_key(&id) {
            return Known::InCare;
        }
        if state.doubts.is_in_flight(id) {
            return Known::InFlight;
        }
        match state.doubts.get(id) {
            Some(_) => Known::Doubted,
            None => Known::Nothing,
        }
    }

    /// Ends a command whose caller did not ask again, if the store holds it.
    async fn find_out(self: Arc<Self>, id: CommandId, timeout: Duration) {
        let mut pause = timeout;
        loop {
            if self.is_stopping_within(pause).await || self.lock().doubts.get(id).is_none() {
                return;
            }
            match self.is_still_doubted(id).await {
                Ok(found) => {
                    if self.lock().doubts.give_up(id).is_none() {
                        return;
                    }
                    match found {
                        Some((command, true)) => {
                            self.keep_and_tell(command, vec![Input::Disowned], None);
                        }
                        Some((command, false)) if self.is_nobodys(&command) => {
                            self.take_over_doubted(command).await;
                        }
                        Some((_, false)) | None => {}
                    }
                    return;
                }
                Err(error) => tracing::debug!(command.id = %id, %error, "not known yet"),
            }
            pause = self.limits.store_retry_wait_max;
        }
    }

    /// A command that was in doubt and that the store is known to hold goes on from here, if it stands as it was to be stored
    /// here. Otherwise its holder has it, or this server has come to be that.
    async fn verify(self: Arc<Self>, key: LaneKey, command: Command) {
        let id = command.spec.id;
        // Nobody else takes it for one that nobody has, meanwhile.
        self.lock().doubts.ask(id);
        let is_ours = loop {
            match self.is_as_stored(&command).await {
                Ok(is_ours) => break is_ours,
                Err(StoreError::Damaged(what)) => {
                    tracing::error!(command.id = %id, what, "a command in doubt cannot be read");
                    break false;
                }
                Err(error) => tracing::debug!(command.id = %id, %error, "not known yet"),
            }
            // Nobody else looks after it, if it is this server's.
            if self.is_stopping_within(self.limits.store_retry_wait_max).await {
                return;
            }
        };
        if is_ours {
            self.take_on(&key, command);
        }
        self.lock().doubts.answered(id);
        if !is_ours {
            tracing::debug!(command.id = %id, "another server has this command");
            match self.store.command(id).await {
                Ok(Some(stored)) if self.is_nobodys(&stored) => {
                    self.take_over_doubted(stored).await
                }
                Ok(_) => {}
                Err(error) => tracing::debug!(command.id = %id, %error, "not known"),
            }
        }
    }

    /// Another server has stored what was in doubt here, and may have had it in care.
    async fn take_over_doubted(self: &Arc<Self>, stored: Command) {
        let id = stored.spec.id;
        if let Err(error) = self.take_over(stored, Vec::new()).await {
            tracing::error!(command.id = %id, %error, "a command in doubt cannot be looked after");
        }
    }

    async fn is_as_stored(&self, command: &Command) -> Result<bool, StoreError> {
        let id = command.spec.id;
        let stored = self.store.command(id).await?;
        if stored.is_none_or(|stored| stored.life != command.life) {
            return Ok(false);
        }
        if command.life.phase == Phase::Waiting {
            // What was handed on comes under care in the order of acceptance, behind those that were handed on before it.
            let is_handed = self.holdings.handed().await?.iter().any(|handed| handed.id == id);
            let is_ours = self.holdings.holds(&command.spec.gateway);
            return Ok(is_ours && !is_handed && !self.is_here(id));
        }
        let is_ours = |proof: &Proof| matches!(proof, Proof::SendingClaimed { replica } if *replica == self.replica);
        Ok(self.store.timeline(id).await?.iter().any(|entry| is_ours(&entry.proof)))
    }

    /// A command in doubt as the store has it, if it has, and whether that is what was to be stored from here. Should it stand otherwise
    /// by now, another server has found it.
    async fn is_still_doubted(&self, id: CommandId) -> Result<Option<(Command, bool)>, StoreError> {
        let Some(stored) = self.store.command(id).await? else { return Ok(None) };
        let known = self.lock().doubts.get(id).map(|it| (it.key.clone(), it.command.clone()));
        let Some((key, known)) = known else { return Ok(None) };
        let is_this = known.life.version == stored.life.version
            && (self.goes_on_at_once(&key) || self.is_as_stored(&known).await?);
        Ok(Some((stored, is_this)))
    }

    /// Whether a command that was begun is this server's to look after, and is not. What waits comes by being handed on.
    fn is_nobodys(&self, command: &Command) -> bool {
        command.life.needs_care()
            && command.life.phase != Phase::Waiting
            && command.spec.risk != Risk::Emergency
            && self.holdings.keeps(&command.spec.gateway)
            && matches!(self.known_of(command.spec.id), Known::Nothing)
    }

    /// Waits; answers whether the server stops meanwhile.
    pub(super) async fn is_stopping_within(&self, wait: Duration) -> bool {
        tokio::select! {
            biased;
            () = self.stopping.cancelled() => true,
            () = tokio::time::sleep(wait) => false,
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]
    use std::sync::Arc;

    use utmos_core::{
        command::{Life, Spec},
        id::{ApiId, Bid, DeviceSn, TenantId},
        method::{Channel, CompleteOn, CompletesBy, IfOffline, Risk},
        time::{BootId, Deadline, Mono, Timestamp},
    };
    use uuid::Uuid;

    use super::*;

    pub(in crate::driver) fn command(number: usize, risk: Risk) -> (LaneKey, Command) {
        let device = DeviceSn::parse("DOCK-1").unwrap();
        let at = Timestamp::from_millis(0);
        let id = |number: usize| Uuid::from_u128(u128::try_from(number).unwrap() | 7 << 76);
        let spec = Spec {
            id: CommandId::new(id(number)),
            tenant: TenantId::new(id(1)),
            accepted_for: ApiId::new("ak_1"),
            request_id: String::new(),
            idempotency_key: number.to_string(),
            fingerprint: [0; 32],
            gateway: device.clone().to_gateway(),
            device,
            aircraft: None,
            method: "return_home".to_owned(),
            channel: Channel::Services,
            completes_by: CompletesBy::Reply,
            risk,
            starts_motion: false,
            reply_without_status_is_final: true,
            if_offline: IfOffline::Wait,
            complete_on: CompleteOn::Outcome,
            bid: Bid::new(id(2)),
            job_ref: None,
            timeout: Duration::from_secs(30),
            silence_wait: Duration::from_secs(60),
            deadline: Deadline { boot: BootId([0; 16]), mono: Mono::from_millis(30_000), wall: at },
            accepted_at: at,
            payload: "{}".into(),
        };
        let key = LaneKey { gateway: spec.gateway.clone(), urgent: risk == Risk::Emergency };
        let life = Arc::new(Life::accepted(&spec));
        (key, Command { spec: Arc::new(spec), life })
    }

    pub(crate) fn command_for_tests(number: usize, risk: Risk) -> Command {
        command(number, risk).1
    }

    fn doubt(doubts: &mut Doubts, number: usize, risk: Risk) -> Fate {
        let (key, command) = command(number, risk);
        doubts.doubt(key, command)
    }

    #[test]
    fn whoever_asks_again_gets_a_command_going_once_whenever_that_is() {
        for asks_at in 0..3 {
            let mut doubts = Doubts::default();
            let (_, known) = command(7, Risk::Emergency);
            let id = known.spec.id;
            let mut gone_on = 0;
            let mut time = 0..;
            let mut ask = |doubts: &mut Doubts| {
                if time.next() == Some(asks_at) {
                    gone_on += usize::from(doubts.asked_again(id, true).is_some());
                }
            };
            doubts.ask(id);
            ask(&mut doubts);
            let fate = doubt(&mut doubts, 7, Risk::Emergency);
            ask(&mut doubts);
            ask(&mut doubts);
            gone_on += usize::from(matches!(fate, Fate::GoesOn(..)));
            assert_eq!(gone_on, 1, "{asks_at}");
            assert!(doubts.give_up(id).is_none(), "{asks_at}");
            assert!(doubts.in_flight.is_empty());
        }
    }

    #[test]
    fn too_many_commands_in_doubt_take_no_room_from_emergencies() {
        let mut doubts = Doubts::default();
        for number in 0..DOUBTFUL_MAX {
            let fate = doubt(&mut doubts, number, Risk::Ground);
            assert!(matches!(fate, Fate::Remembered));
        }
        let next = DOUBTFUL_MAX;
        assert!(matches!(doubt(&mut doubts, next, Risk::Ground), Fate::NoRoom));
        for number in next..next + DOUBTFUL_MAX {
            let fate = doubt(&mut doubts, number, Risk::Emergency);
            assert!(matches!(fate, Fate::Remembered));
        }
        let next = next + DOUBTFUL_MAX;
        assert!(matches!(doubt(&mut doubts, next, Risk::Emergency), Fate::NoRoom));
        let (_, last) = command(next - 1, Risk::Emergency);
        assert!(doubts.asked_again(last.spec.id, true).is_some());
    }

    #[test]
    fn what_stands_otherwise_by_now_does_not_go_on_from_here() {
        let mut doubts = Doubts::default();
        drop(doubt(&mut doubts, 7, Risk::Emergency));
        let (_, known) = command(7, Risk::Emergency);
        assert!(doubts.asked_again(known.spec.id, false).is_none());
        assert!(doubts.get(known.spec.id).is_none());
    }
}
