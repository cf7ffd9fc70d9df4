//! The door: asks the Doorkeeper who may come in, counts, and slows down those who guess passwords.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use mqtt5_protocol::packet::connect::ConnectPacket;
use mqtt5_protocol::protocol::v5::reason_codes::ReasonCode;
use tokio::time::Instant;

use super::places::whole_peer;
use super::session::Session;
use super::{Entry, Shared};
use crate::codec::{V5, V311};

/// Longest user name that anybody has.
const USER_BYTES_MAX: usize = 256;
/// Longest client id that anybody has.
const CLIENT_ID_BYTES_MAX: usize = 1024;
/// How much of a client id stands in the log.
const CLIENT_ID_CHARS_SHOWN: usize = 128;

/// Lets a client in, under the client id we assign to it where it has none, or says why not. One who guesses too much from one address waits for that; nobody else does, so that a
/// right password is never refused because of another user's wrong ones. Meanwhile its connection is one of the address's
/// strangers, of which there are only so many.
pub(super) async fn admit(
    shared: &Shared,
    connection: u64,
    connect: &ConnectPacket,
    assigned: Option<&str>,
    peer: SocketAddr,
) -> Result<Arc<Session>, ReasonCode> {
    let client_id = assigned.unwrap_or(&connect.client_id);
    let judged = || judge(shared, connection, connect, client_id, peer);
    let admitted = acceptable(connect, client_id).and_then(|()| judged());
    if let Err(reason) = &admitted {
        let client_id: String = client_id.chars().take(CLIENT_ID_CHARS_SHOWN).collect();
        tracing::info!(%peer, client_id, "mqtt login refused: {reason:?}");
        if shared.logins.is_guessing(peer.ip()) {
            tokio::time::sleep(REFUSAL_WAIT).await;
        }
    }
    admitted
}

/// Whether a CONNECT asks for what we can do.
fn acceptable(connect: &ConnectPacket, client_id: &str) -> Result<(), ReasonCode> {
    if !matches!(connect.protocol_version, V311 | V5) {
        return Err(ReasonCode::UnsupportedProtocolVersion);
    }
    let properties = &connect.properties;
    if properties.get_maximum_packet_size() == Some(0)
        || properties.get_receive_maximum() == Some(0)
    {
        return Err(ReasonCode::ProtocolError);
    }
    if properties.get_authentication_method().is_some() {
        return Err(ReasonCode::BadAuthenticationMethod);
    }
    // Only a session that ends with its connection may be nameless.
    let is_nameless = connect.client_id.is_empty();
    if client_id.is_empty()
        || client_id.len() > CLIENT_ID_BYTES_MAX
        || is_nameless && connect.protocol_version == V311 && !connect.clean_start
    {
        return Err(ReasonCode::ClientIdentifierNotValid);
    }
    if connect
        .will
        .as_ref()
        .is_some_and(|will| mqtt5_protocol::validate_topic_name(&will.topic).is_err())
    {
        return Err(ReasonCode::TopicNameInvalid);
    }
    Ok(())
}

fn judge(
    shared: &Shared,
    connection: u64,
    connect: &ConnectPacket,
    client_id: &str,
    peer: SocketAddr,
) -> Result<Arc<Session>, ReasonCode> {
    let Some(user) = connect.username.as_deref().filter(|user| !user.is_empty()) else {
        return Err(ReasonCode::BadUsernameOrPassword);
    };
    // Nobody's, and not worth remembering.
    if user.len() > USER_BYTES_MAX {
        return Err(ReasonCode::BadUsernameOrPassword);
    }
    shared.places().name(connection, user);
    if !shared.logins.may_try(peer.ip(), user) {
        return Err(ReasonCode::ConnectionRateExceeded);
    }
    let password = connect.password.as_deref();
    match shared.doorkeeper.authenticate(client_id, Some(user), password, Some(peer)) {
        Entry::Refused => {
            shared.logins.failed(peer.ip(), user);
            return Err(ReasonCode::BadUsernameOrPassword);
        }
        Entry::Granted => {}
        Entry::GrantedAlone => shared.dismiss_others(user, connection),
    }
    shared.logins.succeeded(peer.ip(), user);
    // Otherwise any user could throw out any other by taking its client id.
    if shared.table.holder(client_id).is_some_and(|holder| &*holder.user != user) {
        tracing::warn!(user, client_id, "the client id belongs to another user");
        return Err(ReasonCode::ClientIdentifierNotValid);
    }
    let receive_max = connect.properties.get_receive_maximum().unwrap_or(u16::MAX);
    let window = usize::from(receive_max.min(shared.unconfirmed_max));
    let bytes_max = connect.properties.get_maximum_packet_size();
    let bytes_max = bytes_max.map(|max| usize::try_from(max).unwrap_or(usize::MAX));
    let version = connect.protocol_version;
    let session = Session::new(connection, user, client_id, version, window, bytes_max);
    if !shared.places().admit(connection, &session.user, &session.client_id) {
        return Err(ReasonCode::ServerBusy);
    }
    Ok(Arc::new(session))
}

/// Failed logins in a row before we stop listening for a moment, for one user from one address.
const USER_FAILURES_MAX: u32 = 5;
/// Failed logins of one address and all its users before it has to wait for every further refusal. Many docks may share
/// an address, so right passwords are let in all the same: to check one costs a hash, less than to accept its connection.
const ADDRESS_FAILURES_MAX: u32 = 100;
/// Failures are forgotten after this much time without another.
const MEMORY_WAIT: Duration = Duration::from_secs(60);
/// How long nobody listens to one user. Short: a dock whose password was mended must not stay out.
const PENALTY_WAIT: Duration = Duration::from_secs(10);
/// How long a refusal takes for an address that guesses. Shorter than clients wait for it.
const REFUSAL_WAIT: Duration = Duration::from_secs(1);
/// Entries kept; beyond, the whole memory is dropped, which lets guessers go on but never locks anybody out.
const ENTRIES_MAX: usize = 20_000;

/// Recent failed logins. A success of the right user clears its own; no entry of one user or address shuts another out.
#[derive(Debug, Default)]
pub(super) struct Logins(Mutex<BTreeMap<(IpAddr, Option<String>), Failures>>);

#[derive(Debug, Clone, Copy)]
struct Failures {
    count: u32,
    last_at: Instant,
}

impl Logins {
    fn entries(&self) -> MutexGuard<'_, BTreeMap<(IpAddr, Option<String>), Failures>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn may_try(&self, address: IpAddr, user: &str) -> bool {
        let key = (whole_peer(address), Some(user.to_owned()));
        self.entries().get(&key).is_none_or(|failures| {
            failures.count < USER_FAILURES_MAX || Instant::now() >= failures.last_at + PENALTY_WAIT
        })
    }

    /// Whether so many logins of this address failed lately that it looks like guessing.
    fn is_guessing(&self, address: IpAddr) -> bool {
        self.entries().get(&(whole_peer(address), None)).is_some_and(|failures| {
            failures.count >= ADDRESS_FAILURES_MAX
                && Instant::now() < failures.last_at + MEMORY_WAIT
        })
    }

    fn failed(&self, address: IpAddr, user: &str) {
        let address = whole_peer(address);
        let now = Instant::now();
        let mut entries = self.entries();
        if entries.len() >= ENTRIES_MAX {
            entries.retain(|_, failures| now < failures.last_at + MEMORY_WAIT);
            if entries.len() >= ENTRIES_MAX {
                entries.clear();
            }
        }
        for key in [(address, Some(user.to_owned())), (address, None)] {
            let failures = entries.entry(key).or_insert(Failures { count: 0, last_at: now });
            if now >= failures.last_at + MEMORY_WAIT {
                failures.count = 0;
            }
            failures.count = failures.count.saturating_add(1);
            failures.last_at = now;
        }
    }

    fn succeeded(&self, address: IpAddr, user: &str) {
        self.entries().remove(&(whole_peer(address), Some(user.to_owned())));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HERE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);

    #[tokio::test(start_paused = true)]
    async fn five_failures_close_the_door_for_ten_seconds_to_that_user_only() {
        let logins = Logins::default();
        for _ in 0..USER_FAILURES_MAX {
            assert!(logins.may_try(HERE, "dock-1"));
            logins.failed(HERE, "dock-1");
        }
        assert!(!logins.may_try(HERE, "dock-1"));
        assert!(logins.may_try(HERE, "dock-2"));
        tokio::time::advance(PENALTY_WAIT).await;
        assert!(logins.may_try(HERE, "dock-1"));
        logins.succeeded(HERE, "dock-1");
        logins.failed(HERE, "dock-1");
        assert!(logins.may_try(HERE, "dock-1"));
    }

    #[tokio::test(start_paused = true)]
    async fn guessing_many_users_slows_the_refusals_down_and_shuts_nobody_out() {
        let logins = Logins::default();
        for guess in 0..ADDRESS_FAILURES_MAX {
            assert!(!logins.is_guessing(HERE));
            logins.failed(HERE, &format!("guess-{guess}"));
        }
        assert!(logins.is_guessing(HERE));
        assert!(logins.may_try(HERE, "another"));
        assert!(!logins.is_guessing(IpAddr::V6(std::net::Ipv6Addr::LOCALHOST)));
        tokio::time::advance(MEMORY_WAIT).await;
        assert!(!logins.is_guessing(HERE));
    }
}
