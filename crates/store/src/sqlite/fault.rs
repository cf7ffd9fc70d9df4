//! What went wrong in SQLite, sorted by whom it concerns.

use rusqlite::ErrorCode;
use utmos_core::ports::StoreError;

/// The way out of damage.
pub(crate) const DAMAGED_REMEDY: &str = "look at it with: utmos store check; then restore the backup, or save what can be read (docs/recovery.md)";

/// Why a write in a batch failed.
#[derive(Debug)]
pub(crate) enum Fault {
    /// It concerns this write alone.
    Own(StoreError),
    /// The database cannot be written at all now.
    Everyone {
        error: StoreError,
        /// A fresh connection may help.
        reopen: bool,
    },
}

impl Fault {
    pub(crate) fn into_error(self) -> StoreError {
        match self {
            Self::Own(error) | Self::Everyone { error, .. } => error,
        }
    }
}

impl From<StoreError> for Fault {
    fn from(error: StoreError) -> Self {
        Self::Own(error)
    }
}

impl From<rusqlite::Error> for Fault {
    fn from(err: rusqlite::Error) -> Self {
        let reopen = match err.sqlite_error_code() {
            Some(
                ErrorCode::DiskFull
                | ErrorCode::DatabaseBusy
                | ErrorCode::DatabaseLocked
                | ErrorCode::OutOfMemory,
            ) => false,
            Some(
                ErrorCode::SystemIoFailure
                | ErrorCode::ReadOnly
                | ErrorCode::CannotOpen
                | ErrorCode::PermissionDenied
                | ErrorCode::FileLockingProtocolFailed
                | ErrorCode::NotADatabase,
            ) => true,
            _ => return Self::Own(to_store_error(&err)),
        };
        Self::Everyone { error: to_store_error(&err), reopen }
    }
}

/// What is said of a file that is damaged as a whole, and not in one row of ours.
const FILE_DAMAGED: &str = "the database file is damaged";

/// Whether an error says that the file itself is damaged.
pub(crate) fn is_of_file(error: &StoreError) -> bool {
    let (StoreError::Unavailable(text) | StoreError::Damaged(text)) = error;
    text.starts_with(FILE_DAMAGED)
}

/// Says what failed and, where there is one, the remedy.
#[expect(
    clippy::wildcard_enum_match_arm,
    reason = "the codes are SQLite's, and whatever is new among them is no better"
)]
pub(crate) fn to_store_error(err: &rusqlite::Error) -> StoreError {
    use rusqlite::Error as E;
    if let Some(code) = err.sqlite_error_code() {
        return match code {
            ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase => {
                StoreError::Damaged(format!("{FILE_DAMAGED} ({err}); {DAMAGED_REMEDY}"))
            }
            ErrorCode::ConstraintViolation => {
                StoreError::Damaged(format!("rows contradict each other: {err}"))
            }
            ErrorCode::DiskFull => {
                StoreError::Unavailable("the disk is full; free some space".to_owned())
            }
            ErrorCode::ReadOnly | ErrorCode::PermissionDenied => StoreError::Unavailable(format!(
                "the database is read-only ({err}); make it, its folder and its disk writable again"
            )),
            ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked => {
                StoreError::Unavailable("another process has been writing for long".to_owned())
            }
            _ => StoreError::Unavailable(err.to_string()),
        };
    }
    match err {
        E::FromSqlConversionFailure(..)
        | E::IntegralValueOutOfRange(..)
        | E::InvalidColumnType(..)
        | E::Utf8Error(..)
        | E::QueryReturnedNoRows => StoreError::Damaged(err.to_string()),
        _ => StoreError::Unavailable(err.to_string()),
    }
}

/// The same error once more, for everybody else it concerns.
pub(crate) fn again(error: &StoreError) -> StoreError {
    match error {
        StoreError::Unavailable(text) => StoreError::Unavailable(text.clone()),
        StoreError::Damaged(text) => StoreError::Damaged(text.clone()),
    }
}

pub(crate) fn closed() -> StoreError {
    StoreError::Unavailable("the store is closed".to_owned())
}
