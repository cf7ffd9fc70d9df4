//! Where servers of one store reach each other directly (LIFECYCLE.md, "Replicas": any accepts, one sends).
//!
//! A server that is asked for a command of a gateway that another holds has that one accept it: one transaction less, and no
//! row that is handed on. Nobody depends on it. Whoever gets no answer goes by the store, where the nonce of the request and
//! the id of the command say whether the other was quicker.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

use super::Accepted;
use crate::{
    command::{Command, Spec},
    replica::{News, ReplicaId, Roll},
    signing::NonceUse,
};

/// A command that another server is to accept, for a caller who has been let in.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Asked {
    /// The nonce of its request.
    pub nonce: Option<NonceUse>,
    /// The command, with the id it keeps whoever accepts it.
    pub spec: Arc<Spec>,
}

/// What the other server says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Taken {
    /// What the store answered. Where the command is stored, that server looks after it.
    Stored(Accepted),
    /// So many commands wait there for the gateway that no more are taken. Nothing was done.
    Full(usize),
    /// It is not the one that sends to this gateway now. Nothing was done.
    NotHere,
    /// The store could not say, or took so long that whoever asked may have given it up. What it may hold of the command is kept
    /// back, until it is handed on ([`ReplicaStore::hand`](super::ReplicaStore::hand)).
    Unclear,
}

/// How old a command may be, from its acceptance on, when it is said that it is stored. Later it is [`Taken::Unclear`]. Whoever asks waits
/// for [`ASKED_WAIT_MAX`], longer by more than an answer is under way and two servers read the store's clock apart.
pub const ANSWERED_AGE_MAX: Duration = Duration::from_millis(500);
/// How long whoever asks waits for an answer.
pub const ASKED_WAIT_MAX: Duration = Duration::from_secs(1);

/// Why there is no answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unheard {
    /// Nothing was asked.
    NotAsked,
    /// The line broke, or nothing has come for [`ASKED_WAIT_MAX`]: the other server may have accepted the command, or may still.
    Broken,
}

/// Tells whoever asked what came of it, and answers whether it is told: not once the line is known to be broken.
pub type Answer = Box<dyn FnOnce(Taken) -> bool + Send>;

/// The lines from one server to the others.
///
/// What goes over one line comes once, unchanged and in order, or not at all.
#[async_trait]
pub trait DirectLines: Send + Sync {
    /// Where others reach this server; `None` where they cannot.
    fn address(&self) -> Option<SocketAddr>;

    /// Takes note of who is there, and where each is reached.
    fn follow(&self, me: ReplicaId, roll: &Roll);

    /// From now on `heard` is told what comes over lines.
    fn listen(&self, heard: Arc<dyn LineHeard>);

    /// Has a member accept a command.
    async fn accept(&self, holder: ReplicaId, asked: Asked) -> Result<Taken, Unheard>;

    /// Tells a member how a command that it had accepted here has ended. Answers whether there is a line to it.
    fn ended(&self, member: ReplicaId, command: &Arc<Command>) -> bool;

    /// Tells every member but one, where there is a line to each of them. Where there is not, nobody is told.
    fn tell(&self, news: &News, but: Option<ReplicaId>) -> bool;

    /// Ends every line; none begins any more.
    async fn close(&self) {}
}

/// Who hears what comes over lines. Each returns at once.
pub trait LineHeard: Send + Sync {
    /// Another server asks for a command to be accepted.
    fn asked(&self, from: ReplicaId, asked: Asked, answer: Answer);

    /// Another server has accepted a command for this one. Told before anything else that comes over its line.
    fn accepted(&self, spec: &Arc<Spec>);

    /// How a command has ended that another server accepted for this one.
    fn ended(&self, command: Command);

    /// What other servers tell, and [`News::Missed`] whenever a line is up or broken.
    fn news(&self, news: News);
}

/// No lines: everything goes by the store.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoLines;

#[async_trait]
impl DirectLines for NoLines {
    fn address(&self) -> Option<SocketAddr> {
        None
    }

    fn follow(&self, _: ReplicaId, _: &Roll) {}

    fn listen(&self, _: Arc<dyn LineHeard>) {}

    async fn accept(&self, _: ReplicaId, _: Asked) -> Result<Taken, Unheard> {
        Err(Unheard::NotAsked)
    }

    fn ended(&self, _: ReplicaId, _: &Arc<Command>) -> bool {
        false
    }

    fn tell(&self, _: &News, _: Option<ReplicaId>) -> bool {
        false
    }
}
