//! The door of one connection: asks the Doorkeeper, counts, and slows down those who guess passwords.

use std::collections::BTreeMap;
use std::future::{Future, ready};
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use mqtt5::broker::router::MessageRouter;
use mqtt5::broker::{AuthProvider, AuthResult};
use mqtt5::packet::connect::ConnectPacket;
use mqtt5::protocol::v5::reason_codes::ReasonCode;
use tokio::time::Instant;

use super::places::whole_peer;
use super::session::Session;
use super::{Entry, Shared};

/// Longest user name that anybody has.
const USER_BYTES_MAX: usize = 256;
/// How much of a client id stands in the log.
const CLIENT_ID_CHARS_SHOWN: usize = 128;

type Answer<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// What the library asks about one connection.
pub(super) struct Door {
    pub(super) connection: u64,
    pub(super) shared: Arc<Shared>,
    pub(super) session: Arc<OnceLock<Arc<Session>>>,
    pub(super) router: Arc<MessageRouter>,
}

impl Door {
    fn admit(&self, connect: &ConnectPacket, peer: SocketAddr) -> Result<Arc<Session>, ReasonCode> {
        let client_id = connect.client_id.as_str();
        let Some(user) = connect.username.as_deref().filter(|user| !user.is_empty()) else {
            return Err(ReasonCode::BadUsernameOrPassword);
        };
        // Nobody's, and not worth remembering.
        if user.len() > USER_BYTES_MAX {
            return Err(ReasonCode::BadUsernameOrPassword);
        }
        self.shared.places().name(self.connection, user);
        if !self.shared.logins.may_try(peer.ip(), user) {
            return Err(ReasonCode::ConnectionRateExceeded);
        }
        let password = connect.password.as_deref();
        match self.shared.doorkeeper.authenticate(client_id, Some(user), password, Some(peer)) {
            Entry::Refused => {
                self.shared.logins.failed(peer.ip(), user);
                return Err(ReasonCode::BadUsernameOrPassword);
            }
            Entry::Granted => {}
            Entry::GrantedAlone => self.shared.dismiss_others(user, self.connection),
        }
        self.shared.logins.succeeded(peer.ip(), user);
        // Otherwise any user could throw out any other by taking its client id.
        if self.shared.table.holder(client_id).is_some_and(|holder| &*holder.user != user) {
            tracing::warn!(user, client_id, "the client id belongs to another user");
            return Err(ReasonCode::ClientIdentifierNotValid);
        }
        let receive_max = connect.properties.get_receive_maximum().unwrap_or(u16::MAX);
        let window = usize::from(receive_max.min(self.shared.library.max_outbound_inflight));
        let bytes_max = connect
            .properties
            .get_maximum_packet_size()
            .map(|max| usize::try_from(max).unwrap_or(usize::MAX));
        let session = Session::new(
            self.connection,
            user,
            client_id,
            window,
            bytes_max,
            Arc::clone(&self.router),
        );
        if !self.shared.places().admit(self.connection, &session.user, &session.client_id) {
            return Err(ReasonCode::ServerBusy);
        }
        Ok(Arc::new(session))
    }

    /// What the library answers. One who guesses too much from one address waits for it; nobody else does, so that a right
    /// password is never refused because of another user's wrong ones. Meanwhile its connection is one of the address's
    /// strangers, of which there are only so many.
    async fn answer(&self, connect: &ConnectPacket, peer: SocketAddr) -> AuthResult {
        match self.admit(connect, peer) {
            Ok(session) => {
                let user = session.user.to_string();
                if self.session.set(session).is_ok() {
                    AuthResult::success_with_user(user)
                } else {
                    AuthResult::fail(ReasonCode::ProtocolError)
                }
            }
            Err(reason) => {
                let client_id: String =
                    connect.client_id.chars().take(CLIENT_ID_CHARS_SHOWN).collect();
                tracing::info!(%peer, client_id, "mqtt login refused: {reason:?}");
                if self.shared.logins.is_guessing(peer.ip()) {
                    tokio::time::sleep(REFUSAL_WAIT).await;
                }
                AuthResult::fail(reason)
            }
        }
    }
}

impl AuthProvider for Door {
    fn authenticate<'a>(
        &'a self,
        connect: &'a ConnectPacket,
        peer: SocketAddr,
    ) -> Answer<'a, mqtt5::Result<AuthResult>> {
        Box::pin(async move { Ok(self.answer(connect, peer).await) })
    }

    fn authorize_publish<'a>(
        &'a self,
        _client_id: &str,
        user: Option<&'a str>,
        topic: &'a str,
    ) -> Answer<'a, bool> {
        // What a dismissed client still had on the way says nothing any more.
        let is_dismissed = self.session.get().is_some_and(|session| session.is_dismissed());
        let may = !is_dismissed
            && user.is_some_and(|user| self.shared.doorkeeper.may_publish(user, topic));
        Box::pin(ready(may))
    }

    fn authorize_subscribe<'a>(
        &'a self,
        _client_id: &str,
        user: Option<&'a str>,
        filter: &'a str,
    ) -> Answer<'a, bool> {
        // A shared subscription would let a client take messages away from another.
        let may = !filter.starts_with("$share/")
            && user.is_some_and(|user| self.shared.doorkeeper.may_subscribe(user, filter));
        if let (true, Some(session)) = (may, self.session.get())
            && !self.shared.table.expect(session, filter)
        {
            // The library has the same limit, and the right word for it.
            tracing::warn!(user = %session.user, "an mqtt client wants more subscriptions than it may have");
        }
        Box::pin(ready(may))
    }
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
