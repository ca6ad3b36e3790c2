//! What can go wrong with a server, in words that say what to do about it. They never repeat a URL or a value.

use std::error::Error;
use std::fmt;

use tokio_postgres::error::SqlState;

use crate::store::record::RecordId;
use crate::store::{CommitError, StoreError};

/// Why the server did not do what was asked.
#[derive(Debug)]
pub(super) enum Trouble {
    /// It, or the client library, says so.
    Sql(tokio_postgres::Error),
    /// It did not answer in time; what it was doing.
    Slow(&'static str),
    /// The records were made with another pepper.
    WrongPepper,
    /// We say so.
    Refused(String),
    /// It has committed, and has not waited for the standby.
    Unconfirmed,
    /// The connection broke in the middle of a commit.
    Unsettled(Box<Trouble>),
}

impl Trouble {
    /// The tables are there, and the row that every store has is not.
    pub(super) fn empty() -> Self {
        Self::Refused("its table keyward.meta is empty; put a backup in its place".to_owned())
    }

    /// Whether the server says so with this code.
    pub(super) fn is(&self, codes: &[SqlState]) -> bool {
        match self {
            Self::Sql(error) => error.code().is_some_and(|code| codes.contains(code)),
            Self::Slow(_) | Self::WrongPepper | Self::Refused(_) | Self::Unconfirmed | Self::Unsettled(_) => false,
        }
    }

    /// The error that a caller of the store gets.
    pub(super) fn explain(self, store: &str) -> StoreError {
        match self {
            Self::WrongPepper => StoreError::WrongPepper { store: store.to_owned() },
            Self::Unsettled(_) => StoreError::Unsettled { store: store.to_owned(), why: self.to_string() },
            Self::Sql(_) | Self::Slow(_) | Self::Refused(_) | Self::Unconfirmed => {
                StoreError::unavailable(store, self.to_string())
            }
        }
    }
}

impl From<tokio_postgres::Error> for Trouble {
    fn from(error: tokio_postgres::Error) -> Self {
        Self::Sql(error)
    }
}

/// Why a commit was not made.
pub(super) enum Refusal {
    /// A record is not as expected.
    Conflict(RecordId),
    /// The server failed.
    Trouble(Trouble),
}

impl From<Trouble> for Refusal {
    fn from(trouble: Trouble) -> Self {
        Self::Trouble(trouble)
    }
}

impl From<tokio_postgres::Error> for Refusal {
    fn from(error: tokio_postgres::Error) -> Self {
        Self::Trouble(Trouble::Sql(error))
    }
}

impl Refusal {
    /// The error that a caller of a commit gets.
    pub(super) fn explain(self, store: &str) -> CommitError {
        match self {
            Self::Conflict(id) => CommitError::Conflict(id),
            Self::Trouble(trouble) if trouble.is(&[SqlState::READ_ONLY_SQL_TRANSACTION]) => {
                CommitError::ReadOnly(format!(
                    "{store}: it is a standby or set to read-only; nothing was changed. Name the primary, or several hosts and \
                 target_session_attrs=read-write"
                ))
            }
            Self::Trouble(trouble) if trouble.is(&[SqlState::INSUFFICIENT_PRIVILEGE]) => {
                CommitError::ReadOnly(format!(
                    "{store}: this user may read and not write; nothing was changed. Use one with the role keyward_writer"
                ))
            }
            Self::Trouble(trouble) => CommitError::Store(trouble.explain(store)),
        }
    }
}

/// Said of a database that is new, or not the one that was meant.
pub(super) const NO_TABLES: &str = "the database has no tables of Keyward yet; `keyward init` makes them, with --config FILE for \
     a config that is there, or --store URL, and with a user that may (deploy/postgres/roles.sql)";

impl fmt::Display for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Sql(error) => advise(error, f),
            Self::Slow(doing) => write!(f, "it did not answer in time ({doing})"),
            Self::WrongPepper => f.write_str("it belongs to another pepper"),
            Self::Refused(why) => f.write_str(why),
            Self::Unconfirmed => f.write_str("it was told not to wait for the standby, which may not have it"),
            Self::Unsettled(trouble) => write!(
                f,
                "the connection broke while the change was being made, and whether it was made is not known; look before \
                 you try again ({trouble})"
            ),
        }
    }
}

fn advise(error: &tokio_postgres::Error, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    let Some(said) = error.as_db_error() else { return cause(error, f) };
    let code = said.code();
    let advice = if [SqlState::INVALID_PASSWORD, SqlState::INVALID_AUTHORIZATION_SPECIFICATION].contains(code) {
        "it refuses the user or the password of `store`"
    } else if *code == SqlState::UNDEFINED_DATABASE {
        "the server has no such database; create it"
    } else if [SqlState::INVALID_SCHEMA_NAME, SqlState::UNDEFINED_TABLE].contains(code) {
        NO_TABLES
    } else if *code == SqlState::INSUFFICIENT_PRIVILEGE {
        "this user may not do that: `serve` needs keyward_reader, commands and the management API keyward_writer \
         (deploy/postgres/roles.sql)"
    } else if [SqlState::LOCK_NOT_AVAILABLE, SqlState::QUERY_CANCELED].contains(code) {
        "another program has held its write lock for too long; pg_stat_activity says which; nothing was changed"
    } else if *code == SqlState::TOO_MANY_CONNECTIONS {
        "the server has no connection left; raise max_connections, or put a pooler in between"
    } else if [SqlState::CANNOT_CONNECT_NOW, SqlState::ADMIN_SHUTDOWN, SqlState::CRASH_SHUTDOWN].contains(code) {
        "the server is starting or stopping"
    } else if *code == SqlState::DISK_FULL {
        "the server's disk is full"
    } else {
        // What the server says of values it may quote; of everything else it speaks for itself.
        let quotes = code.code().starts_with("22") || code.code().starts_with("23");
        return match quotes {
            true => write!(f, "the server refuses the data (SQLSTATE {})", code.code()),
            false => write!(f, "{} (SQLSTATE {})", said.message(), code.code()),
        };
    };
    f.write_str(advice)
}

/// What the library says, down to the operating system's words.
fn cause(error: &tokio_postgres::Error, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    write!(f, "{error}")?;
    let mut source = error.source();
    while let Some(error) = source {
        write!(f, ": {error}")?;
        source = error.source();
    }
    Ok(())
}
