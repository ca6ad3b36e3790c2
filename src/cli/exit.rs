//! How a command ends: the exit codes that scripts rely on, and the one place that says which failure has which.

use std::io;
use std::process::ExitCode;

use crate::app;
use crate::config::Mistakes;
use crate::manage;
use crate::store::ledger::LedgerError;
use crate::store::record::Kind;
use crate::store::{CommitError, StoreError};

/// The exit codes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Exit {
    /// It was done.
    Ok,
    /// It failed for a reason that has no code of its own.
    Failed,
    /// The command line is wrong.
    Usage,
    /// The config is wrong.
    ConfigInvalid,
    /// What it names is not there.
    NotFound,
    /// Something is there already, or was changed meanwhile.
    Conflict,
    /// It was done, but for some rows.
    SomeRejected,
    /// The store cannot be opened, or it or the server does not answer.
    StoreUnreachable,
    /// Ctrl-C.
    Interrupted,
}

impl Exit {
    /// The number that the shell sees.
    pub(crate) const fn code(self) -> u8 {
        match self {
            Self::Ok => 0,
            Self::Failed => 1,
            Self::Usage => 2,
            Self::ConfigInvalid => 3,
            Self::NotFound => 4,
            Self::Conflict => 5,
            Self::SomeRejected => 6,
            Self::StoreUnreachable => 7,
            Self::Interrupted => 130,
        }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit.code())
    }
}

/// Why a command was not done.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    /// The command line is wrong in a way that only shows when it is carried out.
    #[error("{0}")]
    Usage(String),
    /// The config is wrong.
    #[error(transparent)]
    Config(#[from] Mistakes),
    /// What it names is not there.
    #[error("{0}")]
    NotFound(String),
    /// Something is there already, or the change is not possible any more.
    #[error("{0}")]
    Conflict(String),
    /// The store did not answer.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The server did not answer, or could not.
    #[error("{0}")]
    Unreachable(String),
    /// It cannot be started.
    #[error(transparent)]
    Start(app::Error),
    /// There are no random numbers.
    #[error("the operating system gives no random numbers: {0}")]
    Random(#[from] getrandom::Error),
    /// The output was not taken.
    #[error("the output cannot be written: {0}")]
    Output(#[source] io::Error),
    /// Anything else.
    #[error("{0}")]
    Failed(String),
}

impl From<CommitError> for Failure {
    fn from(error: CommitError) -> Self {
        match error {
            CommitError::Conflict(_) => Self::Conflict(format!("{error}; look at it and try again")),
            CommitError::ReadOnly(why) => Self::Failed(why),
            CommitError::Store(error) => Self::Store(error),
        }
    }
}

/// In the words of the command line: what to type next.
impl From<manage::Failure> for Failure {
    fn from(failure: manage::Failure) -> Self {
        match &failure {
            manage::Failure::NotFound(id) => {
                Self::NotFound(format!("{failure}; `keyward {} list` shows all", id.kind.label()))
            }
            manage::Failure::LooksLikeValue => Self::NotFound(format!("{failure}; `keyward key list` shows ids")),
            manage::Failure::Taken(id) if id.kind == Kind::Key => {
                Self::Conflict(format!("{failure}; `keyward key show {}` shows it", id.id))
            }
            manage::Failure::Taken(_) => Self::Conflict(failure.to_string()),
            manage::Failure::HasKeysBelow(..) => {
                Self::Conflict(format!("{failure}; `keyward key delete --cascade` deletes them too"))
            }
            manage::Failure::NotKept(_) => Self::Conflict(failure.to_string()),
            manage::Failure::Revoked(_) => Self::Conflict(format!("{failure}; `keyward key create` makes a new one")),
            manage::Failure::Outrun(_) => Self::Conflict(format!("{failure}; look at it and try again")),
            manage::Failure::Invalid(_) => Self::Usage(failure.to_string()),
            manage::Failure::ReadOnly(_)
            | manage::Failure::Unreadable(_)
            | manage::Failure::OutOfMemory
            | manage::Failure::Unsealable
            | manage::Failure::BadTicket(_)
            | manage::Failure::NoLedger(_)
            | manage::Failure::Random(_) => Self::Failed(failure.to_string()),
            manage::Failure::Store(_) => match failure {
                manage::Failure::Store(error) => Self::Store(error),
                other => Self::Failed(other.to_string()),
            },
        }
    }
}

impl From<LedgerError> for Failure {
    fn from(error: LedgerError) -> Self {
        match error {
            LedgerError::None(why) => Self::Failed(why),
            LedgerError::Store(error) => Self::Store(error),
        }
    }
}

impl From<app::Error> for Failure {
    fn from(error: app::Error) -> Self {
        match error {
            app::Error::Store(error) => Self::Store(error),
            app::Error::Listen { .. } | app::Error::System(_) | app::Error::Ended(_) | app::Error::Metrics(_) => {
                Self::Start(error)
            }
        }
    }
}

impl From<&Failure> for Exit {
    fn from(failure: &Failure) -> Self {
        match failure {
            Failure::Usage(_) => Self::Usage,
            Failure::Config(_) => Self::ConfigInvalid,
            Failure::NotFound(_) => Self::NotFound,
            Failure::Conflict(_) => Self::Conflict,
            Failure::Store(_) | Failure::Unreachable(_) => Self::StoreUnreachable,
            // Whoever reads the output has seen enough, as `head` has.
            Failure::Output(error) if error.kind() == io::ErrorKind::BrokenPipe => Self::Ok,
            Failure::Start(_) | Failure::Random(_) | Failure::Output(_) | Failure::Failed(_) => Self::Failed,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::record::RecordId;

    #[test]
    fn every_failure_has_its_code() {
        let unavailable = || StoreError::Unavailable { store: "sqlite:x".into(), why: "locked".into() };
        let broken = || io::Error::from(io::ErrorKind::BrokenPipe);
        for (failure, code) in [
            (Failure::Usage(String::new()), 2),
            (Failure::NotFound(String::new()), 4),
            (CommitError::Conflict(RecordId::key("k1")).into(), 5),
            (Failure::Store(unavailable()), 7),
            (CommitError::Store(unavailable()).into(), 7),
            (StoreError::WrongPepper { store: "sqlite:x".into() }.into(), 7),
            (CommitError::ReadOnly("file:x is written by something else".into()).into(), 1),
            (Failure::Output(io::Error::other("disk full")), 1),
            (Failure::Output(broken()), 0),
            (Failure::Unreachable(String::new()), 7),
            (Failure::Failed(String::new()), 1),
        ] {
            assert_eq!(Exit::from(&failure).code(), code, "{failure:?}");
        }
        assert_eq!((Exit::ConfigInvalid.code(), Exit::SomeRejected.code(), Exit::Interrupted.code()), (3, 6, 130));
    }
}
