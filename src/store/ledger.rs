//! What a store keeps beside the records, and does not replicate: who did what, how often keys were used, and which nodes
//! follow it.
//!
//! Apart from [`Store`](super::Store), because files that something else writes have none of it, and because nothing that
//! happens here makes a revision.

pub mod audit;
pub mod nodes;
#[cfg(test)]
pub(crate) mod testing;
pub mod usage;
pub mod verify;

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use self::audit::{Line, Page};
use self::nodes::{Node, Report};
use self::usage::{Usage, Uses};
use super::record::{Kind, Record};
use super::{AnyStore, Records, Revision, StoreError};
use crate::auth::digest::Digest;

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

    /// All records of one revision, of every kind, and what was deleted.
    ///
    /// # Errors
    /// As for [`Ledger::head`].
    fn rows(&self) -> impl Future<Output = Result<(Revision, Records), LedgerError>> + Send;

    /// How long ago a revision was made, by the store's own clock; `None` if it does not know.
    ///
    /// # Errors
    /// As for [`Ledger::head`].
    fn age(&self, revision: u64) -> impl Future<Output = Result<Option<Duration>, LedgerError>> + Send;

    /// Adds what this node has counted. All of it or nothing; but where the answer is lost, nobody knows which.
    ///
    /// # Errors
    /// When the store cannot be written, or keeps no usage.
    fn add_usage(&self, node: &str, uses: Vec<Uses>) -> impl Future<Output = Result<(), LedgerError>> + Send;

    /// What was counted, of one key or of all, by key and value.
    ///
    /// # Errors
    /// When the store cannot be read, or keeps no usage.
    fn usage(&self, key: Option<&str>) -> impl Future<Output = Result<Vec<Usage>, LedgerError>> + Send;

    /// The same of the keys that follow an id, in their order: of so many of them at most.
    ///
    /// # Errors
    /// As for [`Ledger::usage`].
    fn usage_after(&self, key: &str, keys: usize) -> impl Future<Output = Result<Vec<Usage>, LedgerError>> + Send;

    /// Values whose last use that was counted is before a minute, in the order of their keys, after one of them.
    ///
    /// # Errors
    /// As for [`Ledger::usage`].
    fn idle_usage(
        &self,
        before: u64,
        after: Option<(Box<str>, Digest)>,
        limit: u32,
    ) -> impl Future<Output = Result<Vec<(Box<str>, Digest)>, LedgerError>> + Send;

    /// Forgets the uses of values, but for those that were used since a minute.
    ///
    /// # Errors
    /// As for [`Ledger::add_usage`].
    fn drop_usage(
        &self,
        values: Vec<(Box<str>, Digest)>,
        before: u64,
    ) -> impl Future<Output = Result<(), LedgerError>> + Send;

    /// Records of a kind that live, in the order of their ids, after one of them. For kinds that pulls do not give.
    ///
    /// # Errors
    /// When the store cannot be read, or keeps no such kinds.
    fn kept(
        &self,
        kind: Kind,
        after: &str,
        limit: u32,
    ) -> impl Future<Output = Result<Vec<Record>, LedgerError>> + Send;

    /// Says how far a node is.
    ///
    /// # Errors
    /// When the store cannot be written, or keeps no nodes.
    fn report(&self, report: Report) -> impl Future<Output = Result<(), LedgerError>> + Send;

    /// Forgets a node: it has ended, or somebody knows that it has.
    ///
    /// # Errors
    /// As for [`Ledger::report`].
    fn forget(&self, node: &str) -> impl Future<Output = Result<(), LedgerError>> + Send;

    /// All nodes that have said how far they are, by their ids.
    ///
    /// # Errors
    /// When the store cannot be read, or keeps no nodes.
    fn nodes(&self) -> impl Future<Output = Result<Vec<Node>, LedgerError>> + Send;
}

/// Asks whichever store it is; files have no ledger.
macro_rules! ask {
    ($store:expr, $method:ident($($argument:expr),*)) => {
        match $store {
            AnyStore::Sqlite(store) => store.$method($($argument),*).await,
            AnyStore::File(store) => Err(store.has_no_ledger()),
            AnyStore::Postgres(store) => store.$method($($argument),*).await,
        }
    };
}

impl Ledger for AnyStore {
    async fn head(&self) -> Result<Revision, LedgerError> {
        ask!(self, head())
    }

    async fn lines(&self, page: Page) -> Result<Vec<Line>, LedgerError> {
        ask!(self, lines(page))
    }

    async fn rows(&self) -> Result<(Revision, Records), LedgerError> {
        ask!(self, rows())
    }

    async fn age(&self, revision: u64) -> Result<Option<Duration>, LedgerError> {
        ask!(self, age(revision))
    }

    async fn add_usage(&self, node: &str, uses: Vec<Uses>) -> Result<(), LedgerError> {
        ask!(self, add_usage(node, uses))
    }

    async fn usage(&self, key: Option<&str>) -> Result<Vec<Usage>, LedgerError> {
        ask!(self, usage(key))
    }

    async fn usage_after(&self, key: &str, keys: usize) -> Result<Vec<Usage>, LedgerError> {
        ask!(self, usage_after(key, keys))
    }

    async fn idle_usage(
        &self,
        before: u64,
        after: Option<(Box<str>, Digest)>,
        limit: u32,
    ) -> Result<Vec<(Box<str>, Digest)>, LedgerError> {
        ask!(self, idle_usage(before, after, limit))
    }

    async fn drop_usage(&self, values: Vec<(Box<str>, Digest)>, before: u64) -> Result<(), LedgerError> {
        ask!(self, drop_usage(values, before))
    }

    async fn kept(&self, kind: Kind, after: &str, limit: u32) -> Result<Vec<Record>, LedgerError> {
        ask!(self, kept(kind, after, limit))
    }

    async fn report(&self, report: Report) -> Result<(), LedgerError> {
        ask!(self, report(report))
    }

    async fn forget(&self, node: &str) -> Result<(), LedgerError> {
        ask!(self, forget(node))
    }

    async fn nodes(&self) -> Result<Vec<Node>, LedgerError> {
        ask!(self, nodes())
    }
}

impl<L: Ledger> Ledger for Arc<L> {
    async fn head(&self) -> Result<Revision, LedgerError> {
        (**self).head().await
    }

    async fn lines(&self, page: Page) -> Result<Vec<Line>, LedgerError> {
        (**self).lines(page).await
    }

    async fn rows(&self) -> Result<(Revision, Records), LedgerError> {
        (**self).rows().await
    }

    async fn age(&self, revision: u64) -> Result<Option<Duration>, LedgerError> {
        (**self).age(revision).await
    }

    async fn add_usage(&self, node: &str, uses: Vec<Uses>) -> Result<(), LedgerError> {
        (**self).add_usage(node, uses).await
    }

    async fn usage(&self, key: Option<&str>) -> Result<Vec<Usage>, LedgerError> {
        (**self).usage(key).await
    }

    async fn usage_after(&self, key: &str, keys: usize) -> Result<Vec<Usage>, LedgerError> {
        (**self).usage_after(key, keys).await
    }

    async fn idle_usage(
        &self,
        before: u64,
        after: Option<(Box<str>, Digest)>,
        limit: u32,
    ) -> Result<Vec<(Box<str>, Digest)>, LedgerError> {
        (**self).idle_usage(before, after, limit).await
    }

    async fn drop_usage(&self, values: Vec<(Box<str>, Digest)>, before: u64) -> Result<(), LedgerError> {
        (**self).drop_usage(values, before).await
    }

    async fn kept(&self, kind: Kind, after: &str, limit: u32) -> Result<Vec<Record>, LedgerError> {
        (**self).kept(kind, after, limit).await
    }

    async fn report(&self, report: Report) -> Result<(), LedgerError> {
        (**self).report(report).await
    }

    async fn forget(&self, node: &str) -> Result<(), LedgerError> {
        (**self).forget(node).await
    }

    async fn nodes(&self) -> Result<Vec<Node>, LedgerError> {
        (**self).nodes().await
    }
}
