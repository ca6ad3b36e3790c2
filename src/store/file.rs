//! The store that something else writes: a file, or a folder of files, such as a mounted Secret or a checked-out repository.
//!
//! All files together are one state of the store. A state is taken whole or not at all: a file that cannot be read, a
//! record that this version does not understand, or an empty folder is an error, and never means that there are no keys.

mod content;

#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use tokio::task::spawn_blocking;

use self::content::{Content, Files, Refused};
use super::ledger::LedgerError;
use super::record::{Record, RecordId};
use super::{Commit, CommitError, Location, Pull, Records, Revision, Store, StoreError};
use crate::auth::digest::PepperCheck;
use crate::auth::grant::Timestamp;
use crate::files::{self, Watch};

/// A store in files that this program does not write.
#[derive(Debug)]
pub struct FileStore(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    path: PathBuf,
    /// What errors call it.
    name: String,
    check: PepperCheck,
    watch: Watch,
    /// Held while the files are read, so that states are numbered in the order in which they were seen.
    last: Mutex<Option<Seen>>,
}

/// The state that was read last.
#[derive(Clone, Copy, Debug)]
struct Seen {
    /// The hash of the bytes of the files: while it stays the same, nothing has to be parsed.
    bytes: [u8; 32],
    revision: Revision,
}

/// What reading the files yields.
enum Read {
    /// The bytes are those of the last time.
    Same(Revision),
    /// They had to be parsed.
    Parsed(Revision, Content),
}

impl FileStore {
    /// The store at a path. Nothing is read yet: what is wrong with it, each pull says anew.
    pub fn new(path: &Path, check: PepperCheck) -> Self {
        files::warn_of_mount_point(path);
        Self(Arc::new(Inner {
            path: path.to_owned(),
            name: Location::File(path.to_owned()).to_string(),
            check,
            watch: Watch::new(path),
            last: Mutex::default(),
        }))
    }

    /// There are files, and nothing beside them.
    pub(super) fn has_no_ledger(&self) -> LedgerError {
        LedgerError::None(format!(
            "{} is written by something else, and only that knows who changed what: look there, such as in the history of \
             the repository it comes from",
            self.0.name
        ))
    }

    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Inner) -> Result<T, Refused> + Send + 'static,
    ) -> Result<T, StoreError> {
        let inner = Arc::clone(&self.0);
        let done = spawn_blocking(move || work(&inner)).await;
        let panicked = |_| Err(Refused::Because("reading it ended in a panic; please report what the log says".into()));
        done.unwrap_or_else(panicked).map_err(|refused| match refused {
            Refused::Because(why) => StoreError::unavailable(&self.0.name, why),
            Refused::WrongPepper => StoreError::WrongPepper { store: self.0.name.clone() },
        })
    }
}

impl Store for FileStore {
    async fn pull(&self, since: Option<Revision>) -> Result<Pull, StoreError> {
        let read = self.blocking(move |inner| inner.read(since)).await?;
        let (revision, full, records) = match read {
            Read::Same(revision) => (revision, false, Vec::new()),
            Read::Parsed(revision, content) => (revision, true, content.into_records(revision.number)),
        };
        let now = Timestamp::from(SystemTime::now());
        Ok(Pull { revision, full, now, records: Records::from_vec(records) })
    }

    async fn changed(&self, _since: Option<Revision>) {
        self.0.watch.changed().await;
    }

    async fn get(&self, id: &RecordId) -> Result<(Revision, Option<Record>), StoreError> {
        let id = id.clone();
        self.blocking(move |inner| match inner.read(None)? {
            Read::Same(revision) => Ok((revision, None)),
            Read::Parsed(revision, mut content) => {
                let body = content.records.remove(&id);
                Ok((revision, body.map(|body| Record { id, revision: revision.number, body: Some(body) })))
            }
        })
        .await
    }

    async fn get_all(&self, ids: &[RecordId]) -> Result<Vec<Record>, StoreError> {
        let ids = ids.to_vec();
        self.blocking(move |inner| match inner.read(None)? {
            Read::Same(_) => Ok(Vec::new()),
            Read::Parsed(revision, mut content) => {
                let found = ids.into_iter().filter_map(|id| content.records.remove_entry(&id));
                Ok(found.map(|(id, body)| Record { id, revision: revision.number, body: Some(body) }).collect())
            }
        })
        .await
    }

    async fn commit(&self, _commit: Commit) -> Result<Revision, CommitError> {
        Err(CommitError::ReadOnly(format!(
            "{} is written by something else: print the records with `keyward key create --record` and commit them to \
             where the file comes from",
            self.0.name
        )))
    }
}

impl Inner {
    /// Reads the files, and parses them unless they are as they were at `since`.
    fn read(&self, since: Option<Revision>) -> Result<Read, Refused> {
        self.watch.about_to_read();
        // A panic leaves the last state as it was, which is still the last state that was read.
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        let files = Files::load(&self.path)?;
        let bytes = files.hash();
        let known = |seen: &Seen| since.is_some_and(|since| since.chain == seen.revision.chain);
        match *last {
            Some(seen) if seen.bytes == bytes && known(&seen) => return Ok(Read::Same(seen.revision)),
            Some(_) | None => {}
        }
        let content = files.parse(self.check)?;
        let chain = content.chain();
        let number = match *last {
            Some(seen) if seen.revision.chain == chain => seen.revision.number,
            Some(seen) => seen.revision.number + 1,
            None => 1,
        };
        let revision = Revision { number, chain };
        *last = Some(Seen { bytes, revision });
        // Other white space is other bytes, but no news.
        if since.is_some_and(|since| since.chain == chain) {
            return Ok(Read::Same(revision));
        }
        Ok(Read::Parsed(revision, content))
    }
}
