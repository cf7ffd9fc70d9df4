//! Why a server does not become one of several.

use utmos_core::{
    ports::{Joined, StoreError},
    replica::{Member, Roll},
};

/// Why a server did not become a member.
#[derive(Debug, thiserror::Error)]
pub enum JoinError {
    /// The store cannot be asked.
    #[error("the store cannot be read or written")]
    Store(#[from] StoreError),
    /// It cannot work beside another.
    #[error(
        "server {0} is at work on this database, and servers share one only where they share an outside broker: stop it, or set mqtt.mode = \"external\" for all of them"
    )]
    NotBeside(String),
    /// They would throw each other out of the broker.
    #[error(
        "server {other} is known to the broker as {client_id:?} too, and a broker lets in only one at a time that is: give each server an mqtt.external.client_id of its own, or none, then each makes one up"
    )]
    SameClient {
        /// Its name.
        other: String,
        /// What is the same.
        client_id: String,
    },
    /// Its clock is another than that of the servers that are there.
    #[error("{0}")]
    ClockOff(String),
}

/// Who stands in the way of a server that wanted to join.
pub(super) struct Refused {
    pub(super) by: Member,
    pub(super) why: JoinError,
}

/// Whether a server was let in, and why not.
pub(super) fn let_in(joined: Joined) -> Result<Roll, Box<Refused>> {
    match joined {
        Joined::Yes(roll) => Ok(roll),
        Joined::NotBeside(by) => {
            let why = JoinError::NotBeside(by.name.clone());
            Err(Box::new(Refused { by, why }))
        }
        Joined::SameClient(by) => {
            let (other, client_id) = (by.name.clone(), by.client_id.clone().unwrap_or_default());
            Err(Box::new(Refused { by, why: JoinError::SameClient { other, client_id } }))
        }
    }
}
