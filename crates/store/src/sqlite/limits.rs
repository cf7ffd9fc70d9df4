//! Every limit of the store, by name.

use std::time::Duration;

/// Lines of a command's timeline that change no state; later ones are dropped.
pub const EVIDENCE_PER_COMMAND_MAX: u32 = 256;
/// What a device said, on a timeline, in bytes of JSON; of what is longer only the beginning is kept there.
pub const EVIDENCE_BYTES_MAX: usize = 16 * 1024;
/// How much of it is kept then.
pub(crate) const EVIDENCE_HEAD_BYTES: usize = 4096;
/// Messages that belong to nothing, per tenant, and of unknown tenants together; the oldest go first.
pub const UNMATCHED_PER_TENANT_MAX: u32 = 1000;
/// Device requests on record per tenant. Beyond, the oldest go that nobody has to look after: of the gateway that has most on
/// record, where it has many, else of all.
pub const REQUESTS_PER_TENANT_MAX: u32 = 10_000;
/// So many go at once, since it takes a look at all to see which gateway that is: of it where it has twice as many, else of all.
pub(crate) const REQUESTS_TRIMMED: u32 = 64;
/// Rules for device requests per tenant.
pub const RULES_PER_TENANT_MAX: u32 = 1000;
/// Lines of a device's record about changes that leave it with its tenant; the oldest go first. The others stay.
pub const RECORDS_PER_DEVICE_MAX: u32 = 200;
/// How long a binding code is shown after its end.
pub(crate) const BINDING_CODE_KEPT: Duration = Duration::from_hours(24 * 30);

/// Writes that share one transaction, and so one sync of the disk.
pub(crate) const BATCH_MAX: usize = 256;
/// A batch of so many means that many are at work: the writer then lets company come for a moment before the next. With 8, what
/// came in that moment at 2,000 commands a second was as many again, so that one held-up batch made all that followed wait.
pub(crate) const GATHER_FROM: usize = 16;
/// That moment, and how many end it early. An emergency ends it at once.
pub(crate) const GATHER_WAIT: Duration = Duration::from_micros(1_000);
pub(crate) const GATHER_ENOUGH: usize = 64;
/// Writes that may wait for the writer; further callers wait for a place.
pub(crate) const QUEUE_MAX: usize = 4096;
/// The same for the lane of emergencies.
pub(crate) const URGENT_QUEUE_MAX: usize = 1024;
/// Emergency commands whose later changes go through the lane of emergencies as well.
pub(crate) const URGENT_COMMANDS_MAX: usize = 256;
/// Connections that read.
pub(crate) const READERS_MAX: usize = 4;
/// How long one process waits for another one's write.
pub(crate) const BUSY_WAIT: Duration = Duration::from_secs(5);
/// How long an opening process pauses before it asks again for a file that others are opening too.
pub(crate) const WAL_RETRY_PAUSE: Duration = Duration::from_millis(5);
/// Nonces that share a row. Whoever takes the database elsewhere relies on it (`src/transfer/tables.rs`).
pub(crate) const KEYS_PER_ROW_MAX: usize = 512;
/// Rows of nonces forgotten in one write, so that nobody waits long behind it; each holds those of one batch, or one from before
/// they were kept together.
pub(crate) const FORGET_BATCH: usize = 100;
/// So many commands are not sorted yet when some are.
pub(crate) const UNSORTED_MAX: i64 = 512;
/// Most that are sorted in one batch, so that nobody waits long behind it. More than [`UNSORTED_MAX`] wait where batches had
/// emergencies in them, which wait for no sorting.
pub(crate) const SORTED_AT_ONCE_MAX: i64 = 1024;
/// Fewest that are sorted in one batch, where they are spread over many devices.
pub(crate) const SORTED_AT_ONCE_MIN: i64 = 64;
/// They are where so many of so many are of different devices. With 1,000 docks some 500 commands at once took 8 ms, four
/// times a second at 2,000 commands a second.
pub(crate) const SPREAD: (i64, i64) = (7, 8);
/// Statements kept prepared per connection.
pub(crate) const STATEMENTS_MAX: usize = 64;

/// Pages in the WAL from which on they are copied to the database while writing goes on.
pub(crate) const WAL_COPY_PAGES: u32 = 1_000;
/// Pages in the WAL from which on writing stops for the rest of the copy, so that the WAL starts over.
pub(crate) const WAL_RESTART_PAGES: u32 = 4_000;
/// Quiet time after which all of the WAL is copied.
pub(crate) const WAL_IDLE_WAIT: Duration = Duration::from_secs(1);

/// Length the WAL file keeps when it starts over, in bytes; what is beyond it is given back.
pub(crate) const WAL_KEPT_BYTES: u64 = 64 * 1024 * 1024;

/// Page cache of the writer, in KiB. What is written lies close together, and SQLite goes through the whole cache at each
/// commit after a page was split (`pcache1TruncateUnsafe`, for it lends the page a number beyond the database's end): with
/// 32 MiB that was a tenth of the writer's time.
pub(crate) const WRITER_CACHE_KIB: i64 = 8 * 1024;
/// Page cache of each reader, in KiB.
pub(crate) const READER_CACHE_KIB: i64 = 2 * 1024;
