//! Where records live. Four methods, and two that a store may do better than by these, the same for a file and for a database
//! of many writers.
//!
//! Laws, checked by one suite for every store:
//! 1. A full pull at a revision holds exactly what the commits up to it left.
//! 2. A delta applied to the state at `since` gives the state of a full pull.
//! 3. A `since` that the store does not know (older than it remembers, or of another history) is answered in full.
//! 4. A commit is atomic, and once it has returned, every pull has it.
//! 5. Without [`Store::changed`] news comes later, but never not at all.
//! 6. The revision of a `get` never overstates how new the record is.
//! 7. No pull has a record of a kind that is not replicated; a `get` has.
//! 8. What is had many at a time is what pulls and gets give.

mod chain;
#[cfg(test)]
mod conformance;
pub mod file;
pub mod ledger;
mod left;
mod location;
pub mod postgres;
pub mod record;
pub mod sqlite;

use std::fmt;
use std::future::Future;
use std::sync::Arc;

use tokio::sync::mpsc;

use self::file::FileStore;
pub use self::location::{Location, NotALocation};
use self::postgres::PostgresStore;
use self::record::{Kind, Record, RecordId};
use self::sqlite::SqliteStore;
use crate::auth::digest::PepperCheck;
use crate::auth::grant::Timestamp;

/// A point in a store's history: the number orders, the chain tells which history it is. A restored backup may come to the
/// same number again, but not to the same chain.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Revision {
    /// How many commits there have been.
    pub number: u64,
    /// Head of the hash chain over all of them.
    pub chain: [u8; 32],
}

impl fmt::Debug for Revision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, ..] = self.chain;
        write!(f, "{}-{a:02x}{b:02x}{c:02x}{d:02x}", self.number)
    }
}

impl fmt::Display for Revision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

/// What a store has to say since some revision, of the kinds that are [replicated](record::Kind::replicated).
#[derive(Debug)]
pub struct Pull {
    /// The head that all of it is consistent with.
    pub revision: Revision,
    /// Whether it is everything that lives, or only what changed, tombstones included.
    pub full: bool,
    /// The store's clock.
    pub now: Timestamp,
    /// The records: owners before what they own.
    pub records: Records,
}

/// Records in batches, so that a pull of a million needs the memory of a thousand.
#[derive(Debug)]
pub struct Records(mpsc::Receiver<Result<Vec<Record>, StoreError>>);

impl Records {
    /// Records that arrive over a channel: close it after the last batch, and only then. Whatever keeps the last batch from
    /// coming must be sent as an error, or half of the records would be taken for all.
    pub fn from_channel(receiver: mpsc::Receiver<Result<Vec<Record>, StoreError>>) -> Self {
        Self(receiver)
    }

    /// Records that are all there.
    pub fn from_vec(records: Vec<Record>) -> Self {
        let (sender, receiver) = mpsc::channel(1);
        // The channel is new and has room for one.
        let _ = sender.try_send(Ok(records));
        Self(receiver)
    }

    /// The next batch; `None` after the last.
    pub async fn next(&mut self) -> Result<Option<Vec<Record>>, StoreError> {
        self.0.recv().await.transpose()
    }

    /// All that is left, in one list.
    pub async fn collect(mut self) -> Result<Vec<Record>, StoreError> {
        let mut all = Vec::new();
        while let Some(batch) = self.next().await? {
            all.extend(batch);
        }
        Ok(all)
    }
}

/// What a commit expects of a record before it changes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expect {
    /// That there is none.
    Absent,
    /// That this revision was the last to touch it.
    At(u64),
    /// Nothing.
    Any,
}

/// One record's new body; `None` deletes it.
#[derive(Clone)]
pub struct Change {
    /// Which record.
    pub id: RecordId,
    /// What must hold before.
    pub expect: Expect,
    /// What it will be.
    pub body: Option<Box<str>>,
}

impl fmt::Debug for Change {
    /// A body may be one that nobody shall read.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let what = if self.body.is_some() { "put" } else { "delete" };
        write!(f, "{what} {} ({:?})", self.id, self.expect)
    }
}

/// Changes that happen together or not at all, and what the audit will say of them.
#[derive(Clone, Debug)]
pub struct Commit {
    /// Who.
    pub actor: String,
    /// What, such as `key.create`.
    pub action: &'static str,
    /// The rest of the audit entry: what was touched, and how it was before and after. Never a secret or a digest.
    pub detail: serde_json::Value,
    /// The records.
    pub changes: Vec<Change>,
}

/// Why a store did not answer.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// It cannot be reached or read now; it may be later.
    #[error("{store}: {why}")]
    Unavailable {
        /// Which store.
        store: String,
        /// What happened, and what to do about it.
        why: String,
    },
    /// It went away for good while something was written, and nobody can know whether that was done.
    #[error("{store}: {why}")]
    Unsettled {
        /// Which store.
        store: String,
        /// What happened, and what to do about it.
        why: String,
    },
    /// Its records were made with another pepper: no key could ever match.
    #[error("{store}: its keys were made with another pepper; use the pepper file that belongs to it")]
    WrongPepper {
        /// Which store.
        store: String,
    },
}

impl StoreError {
    /// A store that cannot be reached or read now.
    pub(crate) fn unavailable(store: impl fmt::Display, why: impl Into<String>) -> Self {
        Self::Unavailable { store: store.to_string(), why: why.into() }
    }
}

/// Why a commit was not made. Nothing has changed, but for the one case in which nobody can know and the message says so: a
/// server that went away for good while it was committing.
#[derive(Debug, thiserror::Error)]
pub enum CommitError {
    /// A record is not as expected.
    #[error("{0} was created or changed meanwhile")]
    Conflict(RecordId),
    /// The store cannot be written by this program.
    #[error("{0}")]
    ReadOnly(String),
    /// The store did not answer.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// A place that keeps records and their history.
pub trait Store: Send + Sync + 'static {
    /// What changed after `since`, consistent with one revision. Everything, when the store does not know `since`.
    ///
    /// # Errors
    /// When the store cannot be read; nothing is known then, least of all that there are no keys.
    fn pull(&self, since: Option<Revision>) -> impl Future<Output = Result<Pull, StoreError>> + Send;

    /// Resolves when the store may have moved on. A hint: late, spurious, or never.
    fn changed(&self, since: Option<Revision>) -> impl Future<Output = ()> + Send;

    /// One record straight from the store, with a revision at least as old as the read; `None` if there is none or it
    /// was deleted.
    ///
    /// # Errors
    /// When the store cannot be read.
    fn get(&self, id: &RecordId) -> impl Future<Output = Result<(Revision, Option<Record>), StoreError>> + Send;

    /// Some records straight from the store: those of these that live, in any order.
    ///
    /// # Errors
    /// When the store cannot be read.
    fn get_all(&self, ids: &[RecordId]) -> impl Future<Output = Result<Vec<Record>, StoreError>> + Send {
        async move {
            let mut found = Vec::new();
            for id in ids {
                found.extend(self.get(id).await?.1);
            }
            Ok(found)
        }
    }

    /// All that lives of some of the kinds that pulls give, and the revision that it is of.
    ///
    /// # Errors
    /// When the store cannot be read.
    fn of_kinds(&self, kinds: &[Kind]) -> impl Future<Output = Result<(Revision, Vec<Record>), StoreError>> + Send {
        async move {
            let Pull { revision, mut records, .. } = self.pull(None).await?;
            let mut found = Vec::new();
            while let Some(batch) = records.next().await? {
                found.extend(batch.into_iter().filter(|record| kinds.contains(&record.id.kind)));
            }
            Ok((revision, found))
        }
    }

    /// All or nothing, together with its audit entry, if every expectation holds. A record that was deleted counts as
    /// absent. Two changes of one record in one commit happen in their order, and the second sees the first.
    ///
    /// # Errors
    /// When an expectation does not hold, or the store cannot be written.
    fn commit(&self, commit: Commit) -> impl Future<Output = Result<Revision, CommitError>> + Send;
}

/// A store that several parts of the program share.
impl<S: Store> Store for Arc<S> {
    fn pull(&self, since: Option<Revision>) -> impl Future<Output = Result<Pull, StoreError>> + Send {
        S::pull(self, since)
    }

    fn changed(&self, since: Option<Revision>) -> impl Future<Output = ()> + Send {
        S::changed(self, since)
    }

    fn get(&self, id: &RecordId) -> impl Future<Output = Result<(Revision, Option<Record>), StoreError>> + Send {
        S::get(self, id)
    }

    fn get_all(&self, ids: &[RecordId]) -> impl Future<Output = Result<Vec<Record>, StoreError>> + Send {
        S::get_all(self, ids)
    }

    fn of_kinds(&self, kinds: &[Kind]) -> impl Future<Output = Result<(Revision, Vec<Record>), StoreError>> + Send {
        S::of_kinds(self, kinds)
    }

    fn commit(&self, commit: Commit) -> impl Future<Output = Result<Revision, CommitError>> + Send {
        S::commit(self, commit)
    }
}

/// The store that a config names, whichever it is.
#[derive(Debug)]
pub enum AnyStore {
    /// The embedded database.
    Sqlite(SqliteStore),
    /// Files that something else writes.
    File(FileStore),
    /// A database that many sidecars share.
    Postgres(Box<PostgresStore>),
}

impl AnyStore {
    /// Opens a store that is there. Short blocking I/O: for the start of a program, not for a request.
    ///
    /// # Errors
    /// When an embedded database is not there, cannot be opened or belongs to another pepper. Files and servers are asked
    /// when they are pulled, not here: what is wrong with them may be put right while the program runs.
    pub fn open(location: &Location, check: PepperCheck) -> Result<Self, StoreError> {
        match location {
            Location::Sqlite(path) => SqliteStore::open(path, check).map(Self::Sqlite),
            Location::File(path) => Ok(Self::File(FileStore::new(path, check))),
            Location::Postgres(address) => Ok(Self::Postgres(Box::new(PostgresStore::new(address, check)))),
        }
    }

    /// Opens a store, or makes a new, empty one where there is none; says whether it did. Only for somebody who asks for
    /// that in so many words: whoever follows a store that was lost would follow an empty one too, and refuse everybody.
    ///
    /// # Errors
    /// As [`AnyStore::open`], and when it cannot be made.
    pub async fn open_or_make(location: &Location, check: PepperCheck) -> Result<(Self, bool), StoreError> {
        match location {
            Location::Sqlite(path) => {
                let made = !path.exists();
                Ok((Self::Sqlite(SqliteStore::open_or_create(path, check)?), made))
            }
            Location::File(_) => Ok((Self::open(location, check)?, false)),
            Location::Postgres(address) => {
                let store = PostgresStore::new(address, check);
                let made = store.prepare().await?;
                Ok((Self::Postgres(Box::new(store)), made))
            }
        }
    }

    /// Brings the tables of a database server's store up to this version. For those who write: a sidecar changes nothing in
    /// a database that others share.
    ///
    /// # Errors
    /// When there are none, or the server does not answer, or does not allow it.
    pub async fn bring_up(&self) -> Result<(), StoreError> {
        match self {
            Self::Sqlite(_) | Self::File(_) => Ok(()),
            Self::Postgres(store) => store.bring_up().await,
        }
    }
}

impl Store for AnyStore {
    async fn pull(&self, since: Option<Revision>) -> Result<Pull, StoreError> {
        match self {
            Self::Sqlite(store) => store.pull(since).await,
            Self::File(store) => store.pull(since).await,
            Self::Postgres(store) => store.pull(since).await,
        }
    }

    async fn changed(&self, since: Option<Revision>) {
        match self {
            Self::Sqlite(store) => store.changed(since).await,
            Self::File(store) => store.changed(since).await,
            Self::Postgres(store) => store.changed(since).await,
        }
    }

    async fn get(&self, id: &RecordId) -> Result<(Revision, Option<Record>), StoreError> {
        match self {
            Self::Sqlite(store) => store.get(id).await,
            Self::File(store) => store.get(id).await,
            Self::Postgres(store) => store.get(id).await,
        }
    }

    async fn get_all(&self, ids: &[RecordId]) -> Result<Vec<Record>, StoreError> {
        match self {
            Self::Sqlite(store) => store.get_all(ids).await,
            Self::File(store) => store.get_all(ids).await,
            Self::Postgres(store) => store.get_all(ids).await,
        }
    }

    async fn of_kinds(&self, kinds: &[Kind]) -> Result<(Revision, Vec<Record>), StoreError> {
        match self {
            Self::Sqlite(store) => store.of_kinds(kinds).await,
            Self::File(store) => store.of_kinds(kinds).await,
            Self::Postgres(store) => store.of_kinds(kinds).await,
        }
    }

    async fn commit(&self, commit: Commit) -> Result<Revision, CommitError> {
        match self {
            Self::Sqlite(store) => store.commit(commit).await,
            Self::File(store) => store.commit(commit).await,
            Self::Postgres(store) => store.commit(commit).await,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::auth::digest::Pepper;

    #[tokio::test]
    async fn a_store_comes_into_being_only_where_that_is_meant() {
        let folder = tempfile::TempDir::new().unwrap();
        let location = Location::parse("sqlite:keys.db", folder.path()).unwrap();
        let check = Pepper::from_hex(&"07".repeat(32)).unwrap().check();
        let error = AnyStore::open(&location, check).unwrap_err().to_string();
        assert!(error.contains("there is no such file") && error.starts_with(&location.to_string()), "{error}");
        assert!(!folder.path().join("keys.db").exists());
        for made in [true, false] {
            assert_eq!(AnyStore::open_or_make(&location, check).await.unwrap().1, made);
        }
        assert!(AnyStore::open(&location, check).is_ok());
    }

    #[test]
    fn locations_are_read_and_written_as_the_config_has_them() {
        for (text, expected) in [
            ("sqlite:./keyward.db", Ok("sqlite:/etc/keyward/keyward.db")),
            ("sqlite:keyward.db", Ok("sqlite:/etc/keyward/keyward.db")),
            (" sqlite:/var/lib/k.db ", Ok("sqlite:/var/lib/k.db")),
            ("file:keys", Ok("file:/etc/keyward/keys")),
            ("file:../keys.yaml", Ok("file:/etc/keyward/../keys.yaml")),
            ("file:a:b", Ok("file:/etc/keyward/a:b")),
            ("sqlite:", Err(NotALocation::NoPath)),
            ("postgres://user:hunter2@localhost/keys", Ok("postgres://localhost/keys")),
            ("postgresql://user:hunter2@db/keys?sslmode=require", Ok("postgres://db/keys")),
            (
                "postgres://user:hunter2@localhost",
                Err(NotALocation::Address("the database is missing; write postgres://USER@HOST/DATABASE")),
            ),
            ("nats://user:hunter2@bus", Err(NotALocation::NotYet)),
            ("keyward.db", Err(NotALocation::Unknown)),
            ("mysql://user:hunter2@db", Err(NotALocation::Unknown)),
            ("", Err(NotALocation::Unknown)),
        ] {
            let parsed = Location::parse(text, Path::new("/etc/keyward"));
            assert!(!format!("{parsed:?}").contains("hunter2"));
            assert_eq!(parsed.map(|location| location.to_string()), expected.map(str::to_owned), "{text}");
        }
    }
}
