//! Where several servers on one store find each other (LIFECYCLE.md, "Replicas").

use std::collections::BTreeSet;

use async_trait::async_trait;

use super::StoreError;
use crate::{
    command::Command,
    id::CommandId,
    replica::{Handed, Member, News, ReplicaId, Roll, Shard},
};

/// What became of a server that wanted to join.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Joined {
    /// It is a member. What the run of the same instance before it held is its own, and that run is none any more.
    Yes(Roll),
    /// It works alone and others are there, or one is there that does.
    NotBeside(Member),
    /// That one is known to the broker under the same [`Member::client_id`]: they would throw each other out.
    SameClient(Member),
}

/// Servers of one store, the shards they hold, and the commands they hand to each other.
///
/// The store itself holds them to it: from [`ReplicaStore::join`] on, what a server claims is refused
/// ([`super::Advanced::Elsewhere`], [`super::Accepted::Elsewhere`]) unless it is a member that holds the shard, and no shard
/// changes hands while a claim for it is being written.
#[async_trait]
pub trait ReplicaStore: Send + Sync {
    /// Makes a server a member, and its claims and acceptances of this store known as its own. Before it, the store works as
    /// one that is alone: nothing may be claimed or accepted by a server that has yet to join. Asked again under the same id,
    /// it is a member as before.
    async fn join(&self, member: Member) -> Result<Joined, StoreError>;

    /// Gives a sign of life, with whether it can do its work, and waits for the answer no longer than it would be of use.
    /// `None` when it is no member any more.
    async fn beat(&self, id: ReplicaId, fit: bool) -> Result<Option<Roll>, StoreError>;

    /// Whether what this server writes beside its signs of life reaches the store, as far as is known: not while these are answered
    /// and that is not.
    fn is_written(&self) -> bool {
        true
    }

    /// Who is there.
    async fn roll(&self) -> Result<Roll, StoreError>;

    /// Makes a member none whose signs of life are still as many as these; its shards are free. Answers whether it was one.
    /// Whoever asks need be no member itself. Waits for what that member is writing, or until the store has given that up.
    async fn expel(&self, id: ReplicaId, beats: u64) -> Result<bool, StoreError>;

    /// Takes shards that are free. Answers which of these are its own now; none when it is no member. What was accepted for
    /// them before is open when this returns; what other servers accept meanwhile is handed on.
    async fn take(&self, id: ReplicaId, shards: Vec<Shard>) -> Result<Vec<Shard>, StoreError>;

    /// Gives shards back.
    async fn release(&self, id: ReplicaId, shards: Vec<Shard>) -> Result<(), StoreError>;

    /// Is a member no more.
    async fn leave(&self, id: ReplicaId) -> Result<(), StoreError>;

    /// Open emergencies that another member accepted: it looks after them, whoever holds their shards.
    async fn emergencies_elsewhere(&self, id: ReplicaId)
    -> Result<BTreeSet<CommandId>, StoreError>;

    /// Puts commands in the order in which the store accepted them, over all servers. Those that it does not know are left
    /// out.
    async fn in_order(&self, ids: Vec<CommandId>) -> Result<Vec<CommandId>, StoreError>;

    /// What was handed to a member for the shards that it holds, as the store knows, oldest first, and was not taken in.
    async fn handed(&self, id: ReplicaId) -> Result<Vec<Handed>, StoreError>;

    /// The same, with the commands as they are on record, where the store reads these along: not of emergencies, and not of
    /// what cannot be read.
    async fn handed_commands(
        &self,
        id: ReplicaId,
    ) -> Result<Vec<(Handed, Option<Command>)>, StoreError> {
        Ok(self.handed(id).await?.into_iter().map(|handed| (handed, None)).collect())
    }

    /// A member has taken these in. Those of shards that it does not hold any more stay handed, to whoever holds them next.
    /// When this returns, the member is not told of them again, and what it accepts does not wait for them. Where an
    /// emergency is among them, the note is on record as well; else it may be written later, or never, and who holds the
    /// shard next takes them in once more.
    async fn taken_in(&self, id: ReplicaId, taken: Vec<Handed>) -> Result<(), StoreError>;

    /// Open emergencies that a member looked after and cannot send go to whoever holds their shards: nobody counts as having
    /// accepted them any more, and they are handed on. Answers which are on record; done again, it is done.
    async fn hand_over(
        &self,
        emergencies: Vec<(CommandId, Shard)>,
    ) -> Result<Vec<CommandId>, StoreError>;

    /// Hands an open command that is on record, and no emergency, to whoever holds its shard: its caller knows of it, and it may be that
    /// nobody looks after it. Done again, it is done; of one that is not on record, nothing is.
    async fn hand(&self, id: CommandId, shard: Shard) -> Result<(), StoreError>;

    /// Tells the other servers, as soon as it can and without being waited for.
    fn tell(&self, news: News);

    /// From now on `heard` is called with what other servers tell, and must return at once. The last listener counts. A store
    /// that has no way to tell keeps silent: whoever listens must look by itself as well. After a time in which something may
    /// have been missed, and when it begins to hear, it says [`News::Missed`].
    fn listen(&self, heard: Box<dyn Fn(News) + Send + Sync>);
}
