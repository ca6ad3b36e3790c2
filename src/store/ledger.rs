//! What a store keeps beside the records, and does not replicate: who did what.
//!
//! Apart from [`Store`](super::Store), because files that something else writes have none of it, and because nothing that
//! happens here makes a revision.

pub mod audit;
#[cfg(test)]
pub(crate) mod testing;
pub mod verify;

use std::future::Future;

use self::audit::{Line, Page};
use super::{AnyStore, Revision, StoreError};

/// Why a ledger did not answer.
#[derive(Debug, thiserror::Error)]
pub enum LedgerError {
    /// The store keeps none.
    #[error("{0}")]
    None(String),
    /// The store did not answer.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// What a store keeps beside the records.
pub trait Ledger: Send + Sync + 'static {
    /// Where the history stands.
    ///
    /// # Errors
    /// When the store cannot be read, or keeps no audit.
    fn head(&self) -> impl Future<Output = Result<Revision, LedgerError>> + Send;

    /// Some lines of the audit, as they are kept.
    ///
    /// # Errors
    /// As for [`Ledger::head`].
    fn lines(&self, page: Page) -> impl Future<Output = Result<Vec<Line>, LedgerError>> + Send;
}

impl Ledger for AnyStore {
    async fn head(&self) -> Result<Revision, LedgerError> {
        match self {
            Self::Sqlite(store) => store.head().await,
            Self::File(store) => Err(store.has_no_ledger()),
            Self::Postgres(store) => store.head().await,
        }
    }

    async fn lines(&self, page: Page) -> Result<Vec<Line>, LedgerError> {
        match self {
            Self::Sqlite(store) => store.lines(page).await,
            Self::File(store) => Err(store.has_no_ledger()),
            Self::Postgres(store) => store.lines(page).await,
        }
    }
}
