//! What went wrong in PostgreSQL, sorted by whom it concerns and whether it may be tried again.

use deadpool_postgres::{HookError, PoolError};
use tokio_postgres::error::SqlState;
use utmos_core::ports::StoreError;

use super::{
    cells::DAMAGED_REMEDY,
    limits::ANSWER_WAIT,
    open::{CLOSED, closed_by},
};

/// One whose log has no space ends itself, and tells nobody but that log.
const IF_IT_IS_DOWN: &str = "if it does not, look at its log: its disk may be full";

/// PostgreSQL's setting of how many locks there is room for.
const LOCKS: &str = "max_locks_per_transaction";

/// Why work on a connection failed.
#[derive(Debug)]
pub(super) enum Fault {
    /// It concerns this work alone.
    Own(StoreError),
    /// Another transaction crossed this one, which was rolled back: it may be tried again.
    Crossed(StoreError),
    /// The database cannot be reached or written now; the connection is not to be used again.
    Everyone(StoreError),
}

impl Fault {
    pub(super) fn into_error(self) -> StoreError {
        match self {
            Self::Own(error) | Self::Crossed(error) | Self::Everyone(error) => error,
        }
    }
}

impl From<StoreError> for Fault {
    fn from(error: StoreError) -> Self {
        Self::Own(error)
    }
}

impl From<tokio_postgres::Error> for Fault {
    fn from(err: tokio_postgres::Error) -> Self {
        let error = to_store_error(&err);
        let Some(code) = err.code() else { return Self::Everyone(error) };
        if is_crossing(code) {
            Self::Crossed(error)
        } else if is_everyones(code) {
            Self::Everyone(error)
        } else {
            Self::Own(error)
        }
    }
}

impl From<PoolError> for Fault {
    fn from(err: PoolError) -> Self {
        Self::Everyone(pool_error(&err))
    }
}

/// What another transaction did to this one, and would not do again.
fn is_crossing(code: &SqlState) -> bool {
    [
        SqlState::T_R_DEADLOCK_DETECTED,
        SqlState::T_R_SERIALIZATION_FAILURE,
        // A partition that is not there yet, or no more.
        SqlState::CHECK_VIOLATION,
        // A prepared statement whose tables were altered meanwhile.
        SqlState::FEATURE_NOT_SUPPORTED,
    ]
    .contains(code)
}

/// By the class of the code: connection, resources, operator's intervention, system; and what stands for "not now".
fn is_everyones(code: &SqlState) -> bool {
    let class = code.code().get(..2).unwrap_or_default();
    ["08", "53", "57", "58", "28", "3D", "XX"].contains(&class)
        || code.code() == CLOSED
        || [
            SqlState::READ_ONLY_SQL_TRANSACTION,
            SqlState::LOCK_NOT_AVAILABLE,
            SqlState::INSUFFICIENT_PRIVILEGE,
            SqlState::IDLE_IN_TRANSACTION_SESSION_TIMEOUT,
        ]
        .contains(code)
}

/// What failed, with the remedy where there is one.
pub(super) fn to_store_error(err: &tokio_postgres::Error) -> StoreError {
    let unavailable = |text: String| StoreError::Unavailable(text);
    let Some(db) = err.as_db_error() else {
        let cause = causes(err);
        if err.is_closed() {
            return unavailable(format!(
                "the connection to PostgreSQL was lost; check that it runs; {IF_IT_IS_DOWN}"
            ));
        }
        // The client asks at each connect.
        if cause.contains("does not allow writes") {
            return unavailable(read_only(&cause));
        }
        return unavailable(format!(
            "cannot reach PostgreSQL: {cause}; check its address, and that it runs; {IF_IT_IS_DOWN}"
        ));
    };
    let (code, said) = (db.code().clone(), db.message());
    let text = match code {
        SqlState::DISK_FULL => "the disk of PostgreSQL is full; free some space".to_owned(),
        // The hint names the setting in every language of PostgreSQL.
        SqlState::OUT_OF_MEMORY if db.hint().is_some_and(|hint| hint.contains(LOCKS)) => {
            out_of_locks(said)
        }
        SqlState::OUT_OF_MEMORY => format!("PostgreSQL has no memory left: {said}"),
        SqlState::TOO_MANY_CONNECTIONS => format!(
            "PostgreSQL takes no more connections ({said}); raise its max_connections or lower store.connections"
        ),
        SqlState::READ_ONLY_SQL_TRANSACTION => read_only(said),
        SqlState::INVALID_PASSWORD | SqlState::INVALID_AUTHORIZATION_SPECIFICATION => format!(
            "PostgreSQL does not let this user in ({said}); check user and password, and its pg_hba.conf"
        ),
        SqlState::INVALID_CATALOG_NAME => {
            format!("there is no such database ({said}); make it with: createdb")
        }
        SqlState::INSUFFICIENT_PRIVILEGE => {
            format!("the database user lacks a right ({said}); make it the owner of the database")
        }
        SqlState::LOCK_NOT_AVAILABLE => {
            "another transaction in PostgreSQL has been holding a lock for long".to_owned()
        }
        SqlState::QUERY_CANCELED => format!("PostgreSQL took too long: {said}"),
        SqlState::CANNOT_CONNECT_NOW => format!("PostgreSQL is starting or stopping: {said}"),
        SqlState::DATA_CORRUPTED | SqlState::INDEX_CORRUPTED => {
            return StoreError::Damaged(format!(
                "PostgreSQL found damage ({said}); {DAMAGED_REMEDY}"
            ));
        }
        SqlState::UNIQUE_VIOLATION
        | SqlState::NOT_NULL_VIOLATION
        | SqlState::FOREIGN_KEY_VIOLATION => {
            return StoreError::Damaged(format!("rows contradict each other: {said}"));
        }
        _ if code.code() == CLOSED => closed_by(said).to_owned(),
        _ => format!("PostgreSQL refused ({}): {said}", code.code()),
    };
    unavailable(text)
}

/// Each week of commands has tables of its own, and each table that a statement goes through takes a lock.
fn out_of_locks(said: &str) -> String {
    format!(
        "PostgreSQL has no room for more locks ({said}), as where it keeps the commands of many weeks: raise its {LOCKS} (256 is enough for some \
         years) and restart it, and let servers drop old weeks (store.commands_keep_days, or once: utmos store tidy --older-than DAYS)"
    )
}

fn read_only(said: &str) -> String {
    format!("PostgreSQL is read-only ({said}); name its primary server, or make it writable again")
}

/// What failed at the pool.
pub(super) fn pool_error(err: &PoolError) -> StoreError {
    match err {
        PoolError::Backend(err) | PoolError::PostCreateHook(HookError::Backend(err)) => {
            to_store_error(err)
        }
        PoolError::Timeout(_) => StoreError::Unavailable(
            "every connection to PostgreSQL is busy, or none could be made in time".to_owned(),
        ),
        PoolError::Closed => closed(),
        PoolError::NoRuntimeSpecified | PoolError::PostCreateHook(_) => {
            StoreError::Unavailable(format!("no connection to PostgreSQL: {}", causes(err)))
        }
    }
}

/// An error with everything below it.
pub(super) fn causes(err: &dyn std::error::Error) -> String {
    let mut text = err.to_string();
    let mut next = err.source();
    while let Some(cause) = next {
        let said = cause.to_string();
        if !text.contains(&said) {
            text.push_str(": ");
            text.push_str(&said);
        }
        next = cause.source();
    }
    text
}

/// The same error once more, for everybody else it concerns.
pub(super) fn again(error: &StoreError) -> StoreError {
    match error {
        StoreError::Unavailable(text) => StoreError::Unavailable(text.clone()),
        StoreError::Damaged(text) => StoreError::Damaged(text.clone()),
    }
}

/// PostgreSQL, or the way to it, says nothing.
pub(super) fn silent() -> Fault {
    Fault::Everyone(StoreError::Unavailable(format!(
        "PostgreSQL has not answered for {} s; look at pg_stat_activity, and at the network between",
        ANSWER_WAIT.as_secs()
    )))
}

pub(super) fn closed() -> StoreError {
    StoreError::Unavailable("the store is closed".to_owned())
}
