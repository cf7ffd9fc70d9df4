//! Every limit of the store on PostgreSQL, by name. What holds for every store is in `sqlite::limits`.

use std::time::Duration;

/// How long a connection may take to be made.
pub(super) const CONNECT_WAIT: Duration = Duration::from_secs(5);
/// How long a caller waits for a connection of the pool.
pub(super) const POOL_WAIT: Duration = Duration::from_secs(5);
/// How long one statement may take.
pub(super) const STATEMENT_WAIT: Duration = Duration::from_secs(15);
/// How long a statement waits for another transaction's lock.
pub(super) const LOCK_WAIT: Duration = Duration::from_secs(5);
/// After how long the server ends a transaction in which nothing goes on: that of a server that was cut off.
pub(super) const IDLE_WAIT: Duration = Duration::from_secs(15);
/// How long a migration may take, and wait for its turn.
pub(super) const MIGRATION_WAIT: Duration = Duration::from_secs(600);
/// How often a transaction that another one crossed is tried again.
pub(super) const CROSSED_MAX: u32 = 5;
/// The longest server name and the like that goes into an error.
pub(super) const DEFAULT_CONNECTIONS: usize = 8;
