//! Why a change was not made. The command line turns it into words and an exit code, the API into an envelope and a status.

use crate::store::ledger::LedgerError;
use crate::store::record::{RecordId, Unreadable};
use crate::store::{CommitError, StoreError};

/// Something that cannot be what it is given as.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mistake {
    /// The field it was given in.
    pub field: String,
    /// What is wrong, and what to write instead.
    pub why: String,
}

/// Why a change was not made.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// What it names is not there.
    #[error("no {0}")]
    NotFound(RecordId),
    /// What it names is not there, and is not repeated: it looks like a value.
    #[error("no such key, and the id looks like a value")]
    LooksLikeValue,
    /// What it would make is there already.
    #[error("{0} is there already")]
    Taken(RecordId),
    /// It was revoked, and stays as it was.
    #[error("{0} is revoked, which is final")]
    Revoked(RecordId),
    /// Somebody else was quicker.
    #[error("{0} was created or changed meanwhile")]
    Outrun(RecordId),
    /// It cannot be meant; all that is wrong with it.
    #[error("{}", .0.iter().map(|mistake| format!("{}: {}", mistake.field, mistake.why)).collect::<Vec<_>>().join("; "))]
    Invalid(Vec<Mistake>),
    /// The store cannot be written by this program.
    #[error("{0}")]
    ReadOnly(String),
    /// A record cannot be read by this version.
    #[error(transparent)]
    Unreadable(#[from] Unreadable),
    /// The store did not answer.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// It would leave keys without the key above them.
    #[error("{0} has {1} keys below it")]
    HasKeysBelow(RecordId, usize),
    /// A password cannot be worked on.
    #[error("there is not enough memory to work on a password; try again")]
    OutOfMemory,
    /// Its value is not kept.
    #[error("the value of {0} is not kept; those are that were made for a key with `recoverable`")]
    NotKept(RecordId),
    /// What was sealed does not open.
    #[error("a sealed value cannot be sealed or opened: was its record changed?")]
    Unsealable,
    /// What was handed out to be brought back is not what was brought.
    #[error("{0}")]
    BadTicket(&'static str),
    /// The store keeps no audit, no usage and no nodes.
    #[error("{0}")]
    NoLedger(String),
    /// There are no random numbers.
    #[error("the operating system gives no random numbers: {0}")]
    Random(#[from] getrandom::Error),
}

impl From<LedgerError> for Failure {
    fn from(error: LedgerError) -> Self {
        match error {
            LedgerError::None(why) => Self::NoLedger(why),
            LedgerError::Store(error) => Self::Store(error),
        }
    }
}

impl From<CommitError> for Failure {
    fn from(error: CommitError) -> Self {
        match error {
            CommitError::Conflict(id) => Self::Outrun(id),
            CommitError::ReadOnly(why) => Self::ReadOnly(why),
            CommitError::Store(error) => Self::Store(error),
        }
    }
}
