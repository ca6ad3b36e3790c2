//! The embedded store: one SQLite database on a local disk, read and written by any number of processes of one machine.
//!
//! The database runs in WAL mode with `synchronous=FULL`: readers and the writer do not wait for each other, and what was
//! acknowledged survives a power cut. After every commit the log is folded back into the file, so that a copy of the file
//! is a whole backup, and putting a backup in its place by a rename finds no leftover log that belongs to another file.
//!
//! All of SQLite runs on tokio's blocking threads. Connections are leased from a small pool, so that a pull whose reader
//! takes its time holds up nobody; writers take turns.

mod beside;
mod create;
mod database;
mod ledger;
mod log;
mod read;
mod trouble;
mod write;

#[cfg(test)]
mod tests;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::spawn_blocking;

use self::beside::Beside;
use self::database::Database;
use self::read::{Answer, Snapshot};
use self::trouble::Trouble;
use super::record::{Kind, Record, RecordId};
use super::{Commit, CommitError, Pull, Records, Revision, Store, StoreError};
use crate::auth::digest::PepperCheck;
use crate::auth::grant::Timestamp;

/// How long to wait for another process that writes.
const PATIENCE: Duration = Duration::from_secs(5);

/// How many batches wait for a reader that is slower than the disk.
const BATCHES_AHEAD: usize = 2;

/// A store in an SQLite database.
#[derive(Debug)]
pub struct SqliteStore {
    database: Arc<Database>,
    /// The number of the last commit of this process: what [`Store::changed`] waits for.
    committed: Arc<watch::Sender<u64>>,
    beside: Arc<Beside>,
}

impl SqliteStore {
    /// Opens a database that is there.
    ///
    /// # Errors
    /// When it is not there, cannot be read, is not one of ours, or belongs to another pepper.
    pub fn open(path: &Path, check: PepperCheck) -> Result<Self, StoreError> {
        Self::over(Database::new(path, check, PATIENCE))
    }

    /// Opens a database; makes it, readable by nobody else, if there is none.
    ///
    /// # Errors
    /// As [`SqliteStore::open`], and when it cannot be made.
    pub fn open_or_create(path: &Path, check: PepperCheck) -> Result<Self, StoreError> {
        let database = Database::new(path, check, PATIENCE);
        if !path.exists() {
            create::create(path, check).map_err(|trouble| database.explain(trouble))?;
            tracing::warn!(path = %path.display(), "made a new, empty key store: there was none");
        }
        Self::over(database)
    }

    fn over(database: Database) -> Result<Self, StoreError> {
        let database = Arc::new(database);
        Snapshot::open(&database).map_err(|trouble| database.explain(trouble))?;
        let beside = Arc::new(Beside::new(&database.path));
        Ok(Self { database, committed: Arc::new(watch::Sender::new(0)), beside })
    }
}

impl Store for SqliteStore {
    async fn pull(&self, since: Option<Revision>) -> Result<Pull, StoreError> {
        let (database, committed) = (Arc::clone(&self.database), Arc::clone(&self.committed));
        let (reply, pulled) = oneshot::channel();
        spawn_blocking(move || match begin(&database, &committed, since) {
            Ok((pull, rest)) => {
                if reply.send(Ok(pull)).is_ok() {
                    rest.stream();
                }
            }
            Err(trouble) => {
                // Whoever asked may have gone.
                let _ = reply.send(Err(database.explain(trouble)));
            }
        });
        pulled.await.unwrap_or_else(|_| Err(self.broken()))
    }

    async fn changed(&self, since: Option<Revision>) {
        let since = since.map_or(0, |revision| revision.number);
        // The sender is a field of this store, so it is there for as long as anybody can wait here.
        let _ = self.committed.subscribe().wait_for(|number| *number > since).await;
    }

    async fn get(&self, id: &RecordId) -> Result<(Revision, Option<Record>), StoreError> {
        let id = id.clone();
        self.look(move |snapshot| Ok((snapshot.head.revision, snapshot.get(&id)?))).await
    }

    async fn get_all(&self, ids: &[RecordId]) -> Result<Vec<Record>, StoreError> {
        let ids = ids.to_vec();
        self.look(move |snapshot| {
            let found = ids.iter().filter_map(|id| snapshot.get(id).transpose()).collect();
            snapshot.still()?;
            found
        })
        .await
    }

    async fn of_kinds(&self, kinds: &[Kind]) -> Result<(Revision, Vec<Record>), StoreError> {
        let kinds = kinds.to_vec();
        self.look(move |snapshot| Ok((snapshot.head.revision, snapshot.of_kinds(&kinds)?))).await
    }

    async fn commit(&self, commit: Commit) -> Result<Revision, CommitError> {
        let (database, committed) = (Arc::clone(&self.database), Arc::clone(&self.committed));
        let write = move || {
            let revision = write::commit(&database, commit)?;
            committed.send_replace(revision.number);
            Ok(revision)
        };
        spawn_blocking(write).await.unwrap_or_else(|_| Err(self.broken().into()))
    }
}

impl SqliteStore {
    /// Looks at the store as it is now.
    async fn look<T: Send + 'static>(
        &self,
        look: impl FnOnce(&Snapshot) -> Result<T, Trouble> + Send + 'static,
    ) -> Result<T, StoreError> {
        let database = Arc::clone(&self.database);
        let looked = spawn_blocking(move || {
            let seen = Snapshot::open(&database).and_then(|snapshot| look(&snapshot));
            seen.map_err(|trouble| database.explain(trouble))
        });
        looked.await.unwrap_or_else(|_| Err(self.broken()))
    }

    /// The thread that should have answered has panicked.
    fn broken(&self) -> StoreError {
        self.database.explain(Trouble::panic())
    }
}

/// What is left of a pull once its head is known: the records, on their own connection.
struct Rest {
    snapshot: Snapshot,
    answer: Answer,
    sender: mpsc::Sender<Result<Vec<Record>, StoreError>>,
}

impl Rest {
    /// Sends the records until there are no more or nobody wants them.
    fn stream(self) {
        let Self { snapshot, answer, sender } = self;
        let stream = || snapshot.stream(answer, |batch| sender.blocking_send(Ok(batch)).is_ok());
        // A channel that just closes means that this was all; a panic must not look like that.
        let streamed = catch_unwind(AssertUnwindSafe(stream)).unwrap_or_else(|_| Err(Trouble::panic()));
        let failed = streamed.map_err(|trouble| snapshot.explain(trouble)).err();
        // Whoever hears the end may pull again at once, and finds the connection free.
        drop(snapshot);
        if let Some(error) = failed {
            let _ = sender.blocking_send(Err(error));
        }
    }
}

fn begin(
    database: &Arc<Database>,
    committed: &watch::Sender<u64>,
    since: Option<Revision>,
) -> Result<(Pull, Rest), Trouble> {
    let hinted = *committed.borrow();
    let snapshot = Snapshot::open(database)?;
    let revision = snapshot.head.revision;
    if revision.number < hinted {
        // A backup was restored: hints about the history before it would never end.
        committed
            .send_if_modified(|number| std::mem::replace(number, (*number).min(revision.number)) > revision.number);
    }
    let answer = snapshot.answer(since)?;
    let (sender, receiver) = mpsc::channel(BATCHES_AHEAD);
    let pull = Pull {
        revision,
        full: answer == Answer::Everything,
        now: Timestamp::from(SystemTime::now()),
        records: Records::from_channel(receiver),
    };
    Ok((pull, Rest { snapshot, answer, sender }))
}
