//! Every limit of the store on PostgreSQL, by name. What holds for every store is in `sqlite::limits`.

use std::time::Duration;

/// How long a connection may take to be made.
pub(super) const CONNECT_WAIT: Duration = Duration::from_secs(5);
/// How long a writer waits for a connection on which it can write: made, let in, and all that it says each time prepared.
pub(super) const OPEN_WAIT: Duration = Duration::from_secs(8);
/// How long a caller waits for a connection of the pool.
pub(super) const POOL_WAIT: Duration = Duration::from_secs(5);
/// How long one statement may take.
pub(super) const STATEMENT_WAIT: Duration = Duration::from_secs(15);
/// How long a reader, or what is written rarely, waits for an answer of any kind: longer than PostgreSQL lets a statement take, so
/// that it says itself what is wrong where it can.
pub(super) const ANSWER_WAIT: Duration = Duration::from_secs(20);
/// How long a statement waits for another transaction's lock.
pub(super) const LOCK_WAIT: Duration = Duration::from_secs(6);
/// After how long PostgreSQL ends a transaction in which nothing goes on, such as that of a server that was cut off or
/// stopped: before others give up waiting for its locks.
pub(super) const IDLE_WAIT: Duration = Duration::from_secs(4);
/// After how long it counts as trouble that PostgreSQL does not answer a batch: longer than it waits for a lock.
pub(super) const SILENCE_WAIT: Duration = Duration::from_secs(8);
/// After how long PostgreSQL is asked, on another connection, whether it is at work on what a writer sent, and how often in a row it
/// says that it is not until that one's connection is given up. It is asked with each sign of life.
pub(super) const FLOW_LOOK_WAIT: Duration = Duration::from_secs(3);
pub(super) const FLOW_LOOKS: u32 = 3;
/// How long it may take, and be tried, to make a writer's connection anew while another is answered: longer than the waits between two
/// tries.
pub(super) const REOPEN_WAIT_MAX: Duration = Duration::from_secs(5);
/// How long a migration may take, and wait for its turn.
pub(super) const MIGRATION_WAIT: Duration = Duration::from_secs(600);
/// How often a transaction that another one crossed is tried again.
pub(super) const CROSSED_MAX: u32 = 5;
/// How long a writer waits before it tries to connect again: so long at first, and twice as long each time, up to so long.
pub(super) const RECONNECT_WAIT_MIN: Duration = Duration::from_millis(50);
pub(super) const RECONNECT_WAIT_MAX: Duration = Duration::from_secs(2);
/// How often a small write is tried while nothing can be written.
pub(super) const PROBE_WAIT: Duration = Duration::from_secs(1);
/// Commands that were handed to this server and are read at once.
pub(super) const HANDED_AT_ONCE: usize = 500;
/// How long after one message to other servers the next one waits, with all that is to be told by then.
pub(super) const NEWS_GATHER_WAIT: Duration = Duration::from_millis(3);
/// Ids of commands that wait to be told to other servers at most. What is more is dropped.
pub(super) const NEWS_IDS_MAX: usize = 20_000;
/// Ids in one message: PostgreSQL takes less than 8,000 bytes.
pub(super) const NEWS_IDS_PER_MESSAGE: usize = 240;
/// How long PostgreSQL may take for a message to other servers.
pub(super) const NEWS_WAIT: Duration = Duration::from_secs(5);
/// How long PostgreSQL may take to be told how often callers asked.
pub(super) const CHARGE_WAIT: Duration = Duration::from_millis(1_500);
/// How often it is looked for whether the connection on which other servers are heard is still there.
pub(super) const NEWS_LOOK_WAIT: Duration = Duration::from_secs(5);
/// Connections of the pool, where nothing else is said.
pub(super) const DEFAULT_CONNECTIONS: usize = 8;

/// A batch of so many means that many are at work, as in SQLite. Fewer than there: each batch costs PostgreSQL much more. What
/// SQLite has was not tried here.
pub(super) const GATHER_FROM: usize = 8;

/// Nonces forgotten in one write, so that nobody waits long behind it.
pub(super) const FORGET_BATCH: usize = 1000;
