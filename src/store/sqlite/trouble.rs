//! What can go wrong with a database, in words that say what to do about it.

use std::io;

use rusqlite::ErrorCode;

use super::database::Database;
use crate::store::record::RecordId;
use crate::store::{CommitError, StoreError};

/// Why the database did not do what was asked.
#[derive(Debug)]
pub(super) enum Trouble {
    /// SQLite says so.
    Sql(rusqlite::Error),
    /// The records were made with another pepper.
    WrongPepper,
    /// We say so.
    Refused(String),
}

impl Trouble {
    /// A mistake of ours.
    pub(super) fn panic() -> Self {
        Self::Refused("the work on it ended in a panic; please report what the log says".to_owned())
    }
}

impl From<rusqlite::Error> for Trouble {
    fn from(error: rusqlite::Error) -> Self {
        Self::Sql(error)
    }
}

/// Why a commit was not made.
pub(super) enum Refusal {
    /// A record is not as expected.
    Conflict(RecordId),
    /// The database failed.
    Trouble(Trouble),
}

impl From<Trouble> for Refusal {
    fn from(trouble: Trouble) -> Self {
        Self::Trouble(trouble)
    }
}

impl From<rusqlite::Error> for Refusal {
    fn from(error: rusqlite::Error) -> Self {
        Self::Trouble(Trouble::Sql(error))
    }
}

impl Database {
    /// The error that a caller of the store gets.
    pub(super) fn explain(&self, trouble: Trouble) -> StoreError {
        match trouble {
            Trouble::Sql(error) => StoreError::unavailable(&self.name, self.advice(&error)),
            Trouble::WrongPepper => StoreError::WrongPepper { store: self.name.clone() },
            Trouble::Refused(why) => StoreError::unavailable(&self.name, why),
        }
    }

    /// The error that a caller of a commit gets.
    pub(super) fn explain_refusal(&self, refusal: Refusal) -> CommitError {
        match refusal {
            Refusal::Conflict(id) => CommitError::Conflict(id),
            Refusal::Trouble(Trouble::Sql(error)) if error.sqlite_error_code() == Some(ErrorCode::ReadOnly) => {
                CommitError::ReadOnly(format!("{}: {}", self.name, self.advice(&error)))
            }
            Refusal::Trouble(trouble) => CommitError::Store(self.explain(trouble)),
        }
    }

    /// What the file system says of the path.
    pub(super) fn missing(&self, error: &io::Error) -> Trouble {
        Trouble::Refused(match error.kind() {
            io::ErrorKind::NotFound => "there is no such file; `keyward init --config FILE` makes a new, empty store; \
                 where there was one, put a backup in its place"
                .to_owned(),
            _ => error.to_string(),
        })
    }

    fn advice(&self, error: &rusqlite::Error) -> String {
        let path = self.path.display();
        // The codes are SQLite's, not ours: those without advice of our own speak for themselves.
        match error.sqlite_error_code() {
            Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => format!(
                "another process has held its write lock for {} s; `fuser -v {path}` says which",
                self.patience.as_secs_f32()
            ),
            Some(ErrorCode::NotADatabase) => {
                "the file is not an SQLite database; correct the path, or put a backup in its place".to_owned()
            }
            // SQLite also says so while another process holds on to a file that was replaced: the two share the index of
            // the log.
            Some(ErrorCode::DatabaseCorrupt) => format!(
                "it cannot be read ({error}). If the file was just replaced, processes that still use the old one have to \
                 end first; otherwise it is damaged: stop all of keyward and put a backup in its place"
            ),
            Some(ErrorCode::DiskFull) => "the disk is full; nothing was changed".to_owned(),
            Some(ErrorCode::ReadOnly) => {
                "it is read-only for this process; nothing was changed. Give this user the right to write the file and \
                 its folder"
                    .to_owned()
            }
            Some(ErrorCode::CannotOpen | ErrorCode::PermissionDenied) => format!(
                "it cannot be opened ({error}); this user must be able to read and write the file and its folder"
            ),
            _ => error.to_string(),
        }
    }
}
