//! The store ports of `utmos-core` on SQLite and on PostgreSQL.
//!
//! Nothing here decides anything about a command: it keeps what core decided, whole or not at all, and durable (synced
//! to the disk) before a method returns.

mod codes;
mod entry;
mod history;
mod idempotency;
mod journal;
mod key;
mod life;
mod lists;
mod postgres;
mod reply;
mod seal;
mod sqlite;
mod topology;
mod transfer;
mod urgent;

pub use history::HistoryFile;
#[doc(hidden)]
pub use journal::trying as try_journal;
pub use journal::{JournalError, JournalJob, JournalWriter, JournalledStore, Medium};
pub use key::{MasterKey, MasterKeyError};
pub use postgres::{
    Looked, PostgresConfig, PostgresHistory, PostgresOpenError, PostgresStore, PostgresUrl,
    TlsFault, TlsFiles, UrlError, WeeksKept, WeeksTidied,
};
pub use sqlite::{
    Examination, OpenError, SqliteConfig, SqliteStore, back_up, check_not_lost, examine,
    limits::{
        EVIDENCE_BYTES_MAX, EVIDENCE_PER_COMMAND_MAX, RECORDS_PER_DEVICE_MAX,
        REQUESTS_PER_TENANT_MAX, RULES_PER_TENANT_MAX, UNMATCHED_PER_TENANT_MAX,
    },
};
pub use transfer::{Export, Import, TransferError, Transferred};
