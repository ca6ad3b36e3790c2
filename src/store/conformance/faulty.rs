//! Stores that are wrong on purpose: a law that they do not fail would be no law.

use std::collections::HashMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use super::{Fixture, Put};
use crate::store::record::{Kind, Record, RecordId};
use crate::store::{Commit, CommitError, Pull, Records, Revision, Store, StoreError};

/// Mistakes that stores are known to make.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::store) enum Fault {
    /// A full pull reads its head before its records and misses what was committed in between.
    MissesLastCommit,
    /// A delta says what came, but not what went.
    LosesTombstones,
    /// Two histories are one if their numbers are.
    ComparesNumbersOnly,
    /// A commit is made piece by piece.
    CommitsPieceByPiece,
    /// A commit that returned is seen by a later pull only.
    AnswersTooEarly,
    /// Without a hint, nothing is read again.
    WaitsForHints,
    /// A record comes from a cache, its revision from the head.
    OverstatesGets,
    /// A pull has what only those who manage may read.
    GivesPrivateKinds,
    /// Of many records that are asked for, the last does not come.
    LosesTheLast,
}

/// A store with one fault, or a fixture that opens such stores.
pub(in crate::store) struct Faulty<S> {
    inner: S,
    fault: Fault,
    hinted: AtomicBool,
    cache: Mutex<HashMap<RecordId, Option<Record>>>,
}

impl<S> Faulty<S> {
    pub(in crate::store) fn new(inner: S, fault: Fault) -> Self {
        Self { inner, fault, hinted: AtomicBool::new(false), cache: Mutex::default() }
    }
}

impl<F: Fixture> Fixture for Faulty<F> {
    type Store = Faulty<F::Store>;

    fn open(&self) -> Self::Store {
        Faulty::new(self.inner.open(), self.fault)
    }

    async fn apply(&mut self, puts: &[Put]) {
        self.inner.apply(puts).await;
    }
}

impl<S: Store> Faulty<S> {
    async fn with_private(&self, pull: Pull) -> Result<Pull, StoreError> {
        let Pull { revision, full, now, records } = pull;
        let mut records = records.collect().await?;
        records.extend(self.inner.get(&RecordId::new(Kind::Password, "u1")).await?.1);
        Ok(Pull { revision, full, now, records: Records::from_vec(records) })
    }

    async fn filtered(&self, pull: Pull, keep: impl Fn(&Record) -> bool) -> Result<Pull, StoreError> {
        let Pull { revision, full, now, records } = pull;
        let mut records = records.collect().await?;
        records.retain(keep);
        Ok(Pull { revision, full, now, records: Records::from_vec(records) })
    }
}

impl<S: Store> Store for Faulty<S> {
    async fn pull(&self, since: Option<Revision>) -> Result<Pull, StoreError> {
        let pull = self.inner.pull(since).await?;
        let head = pull.revision.number;
        match (self.fault, since) {
            (Fault::MissesLastCommit, _) if pull.full => self.filtered(pull, |r| r.revision < head).await,
            (Fault::AnswersTooEarly, _) => self.filtered(pull, |r| r.revision < head || r.id.id != "k0".into()).await,
            (Fault::LosesTombstones, _) => self.filtered(pull, |r| r.body.is_some()).await,
            (Fault::ComparesNumbersOnly, Some(since)) if since.number <= head => {
                self.filtered(Pull { full: false, ..pull }, |r| r.revision > since.number).await
            }
            (Fault::GivesPrivateKinds, _) => self.with_private(pull).await,
            (Fault::WaitsForHints, Some(since)) if !self.hinted.load(Ordering::Relaxed) => {
                self.filtered(Pull { revision: since, full: false, ..pull }, |_| false).await
            }
            (
                Fault::MissesLastCommit
                | Fault::ComparesNumbersOnly
                | Fault::CommitsPieceByPiece
                | Fault::WaitsForHints
                | Fault::OverstatesGets
                | Fault::LosesTheLast,
                _,
            ) => Ok(pull),
        }
    }

    async fn changed(&self, since: Option<Revision>) {
        self.inner.changed(since).await;
        self.hinted.store(true, Ordering::Relaxed);
    }

    async fn get(&self, id: &RecordId) -> Result<(Revision, Option<Record>), StoreError> {
        let (revision, record) = self.inner.get(id).await?;
        if self.fault != Fault::OverstatesGets {
            return Ok((revision, record));
        }
        Ok((revision, self.cache.lock().unwrap().entry(id.clone()).or_insert(record).clone()))
    }

    async fn get_all(&self, ids: &[RecordId]) -> Result<Vec<Record>, StoreError> {
        let asked = if self.fault == Fault::LosesTheLast { ids.len().saturating_sub(1) } else { ids.len() };
        self.inner.get_all(&ids[..asked]).await
    }

    async fn commit(&self, commit: Commit) -> Result<Revision, CommitError> {
        if self.fault != Fault::CommitsPieceByPiece {
            return self.inner.commit(commit).await;
        }
        let mut last = self.inner.pull(None).await?.revision;
        for change in commit.changes {
            let piece = Commit { actor: commit.actor.clone(), changes: vec![change], ..commit_like(commit.action) };
            last = self.inner.commit(piece).await?;
        }
        Ok(last)
    }
}

fn commit_like(action: &'static str) -> Commit {
    Commit { actor: String::new(), action, detail: serde_json::Value::Null, changes: Vec::new() }
}
