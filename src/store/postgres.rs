//! The store of many sidecars: a PostgreSQL database that all of them read and few write.
//!
//! A commit takes the row that counts revisions, so numbers have no gaps and are in the order of the commits; a pull is one
//! statement, so it is of one revision. Commits are told by NOTIFY, heard on a connection of its own, and nobody relies
//! on it: whoever misses one finds it at the next poll.
//!
//! Opening it does not connect: a sidecar that starts while the server is away begins as soon as it is back.

mod address;
mod ledger;
mod link;
mod listen;
mod read;
mod schema;
mod tls;
mod trouble;
mod write;

#[cfg(test)]
mod tests;

use std::fmt;
use std::sync::Arc;
use std::time::SystemTime;

use tokio::sync::mpsc;

pub use self::address::Address;
use self::address::Way;
use self::link::Pool;
use self::listen::Ear;
use self::read::Answer;
use self::schema::IfMissing;
use super::record::{Kind, Record, RecordId};
use super::{Commit, CommitError, Pull, Records, Revision, Store, StoreError};
use crate::auth::digest::PepperCheck;
use crate::auth::grant::Timestamp;

/// How many batches wait for a reader that is slower than the server.
const BATCHES_AHEAD: usize = 2;

/// A store in a PostgreSQL database.
pub struct PostgresStore {
    /// What errors call it.
    name: String,
    check: PepperCheck,
    pool: Arc<Pool>,
    /// Where notifications come from; `None` where nobody shall listen.
    listen: Option<Way>,
    ear: Ear,
}

impl fmt::Debug for PostgresStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("PostgresStore").field(&self.name).finish()
    }
}

impl PostgresStore {
    /// A store at an address. Nothing is connected yet.
    pub fn new(address: &Address, check: PepperCheck) -> Self {
        Self {
            name: address.to_string(),
            check,
            pool: Arc::new(Pool::new(address.main.clone())),
            listen: address.listen.clone(),
            ear: Ear::new(),
        }
    }

    /// Makes the tables if there are none, or brings them up to this version; says whether they were made.
    ///
    /// # Errors
    /// When the server does not answer, or does not allow it.
    pub async fn prepare(&self) -> Result<bool, StoreError> {
        schema::prepare(&self.pool, self.check, IfMissing::Make).await.map_err(|trouble| trouble.explain(&self.name))
    }

    /// Brings the tables up to this version.
    ///
    /// # Errors
    /// When there are none, or the server does not answer, or does not allow it.
    pub async fn bring_up(&self) -> Result<(), StoreError> {
        let done = schema::prepare(&self.pool, self.check, IfMissing::Refuse).await;
        done.map(|_| ()).map_err(|trouble| trouble.explain(&self.name))
    }
}

impl PostgresStore {
    /// The records of an answer, as they come.
    fn stream(&self, answer: Answer) -> Records {
        let (sender, receiver) = mpsc::channel(BATCHES_AHEAD);
        let name = self.name.clone();
        tokio::spawn(async move {
            let streamed = tokio::spawn(answer.stream(sender.clone(), name.clone())).await;
            if streamed.is_err() {
                // A channel that just closes means that this was all; a panic must not look like that.
                let why = "the work on it ended in a panic; please report what the log says";
                let _ = sender.send(Err(StoreError::unavailable(name, why))).await;
            }
        });
        Records::from_channel(receiver)
    }
}

impl Store for PostgresStore {
    async fn pull(&self, since: Option<Revision>) -> Result<Pull, StoreError> {
        let before = self.ear.before_pull();
        let answer = async { Answer::to(self.pool.lease().await?, since, self.check).await };
        let answer = answer.await.map_err(|trouble| trouble.explain(&self.name))?;
        let (revision, full) = (answer.revision, answer.full);
        self.ear.pulled(before, revision.number);
        let (now, records) = (Timestamp::from(SystemTime::now()), self.stream(answer));
        Ok(Pull { revision, full, now, records })
    }

    async fn changed(&self, since: Option<Revision>) {
        if let Some(way) = &self.listen {
            self.ear.listen(way, &self.pool, &self.name);
        }
        self.ear.after(since.map_or(0, |revision| revision.number)).await;
    }

    async fn get(&self, id: &RecordId) -> Result<(Revision, Option<Record>), StoreError> {
        let got = async { read::get(self.pool.lease().await?, id, self.check).await };
        got.await.map_err(|trouble| trouble.explain(&self.name))
    }

    async fn get_all(&self, ids: &[RecordId]) -> Result<Vec<Record>, StoreError> {
        let (replicated, others): (Vec<&RecordId>, Vec<&RecordId>) = ids.iter().partition(|id| id.kind.replicated());
        let got = async { read::get_all(self.pool.lease().await?, &replicated, self.check).await };
        let mut found = got.await.map_err(|trouble| trouble.explain(&self.name))?;
        for id in others {
            found.extend(self.get(id).await?.1);
        }
        Ok(found)
    }

    async fn of_kinds(&self, kinds: &[Kind]) -> Result<(Revision, Vec<Record>), StoreError> {
        let got = async { read::of_kinds(self.pool.lease().await?, kinds, self.check).await };
        got.await.map_err(|trouble| trouble.explain(&self.name))
    }

    async fn commit(&self, commit: Commit) -> Result<Revision, CommitError> {
        let committed = write::commit(&self.pool, commit, self.check).await;
        let revision = committed.map_err(|refusal| refusal.explain(&self.name))?;
        self.ear.tell(revision.number);
        Ok(revision)
    }
}
