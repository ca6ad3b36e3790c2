//! The database file: recognising it, and a pool of connections that notices when it was replaced.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rusqlite::config::DbConfig;
use rusqlite::{Connection, OpenFlags};

use super::log;
use super::trouble::Trouble;
use crate::auth::digest::PepperCheck;
use crate::files::stamp::{FileId, Stamp};
use crate::store::Location;

/// "Keyw": how our databases are told from those of others (`PRAGMA application_id`).
pub(super) const APPLICATION: i32 = 0x4b65_7977;

/// The version of the schema. A newer one may hold restrictions that this program would not enforce, so it is refused.
pub(super) const FORMAT: i64 = 1;

/// More connections than this are closed after use.
const IDLE: usize = 4;

/// A database file and the connections to it.
pub(super) struct Database {
    pub(super) path: PathBuf,
    /// What errors call it.
    pub(super) name: String,
    pub(super) check: PepperCheck,
    /// How long to wait for a lock.
    pub(super) patience: Duration,
    pool: Mutex<Pool>,
    turn: Mutex<()>,
}

impl fmt::Debug for Database {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Database").field(&self.name).finish()
    }
}

/// The connections.
#[derive(Default)]
struct Pool {
    /// Those that nobody uses, each with the stamp that the file had when it was used last: after a file was written over
    /// in its place, SQLite's cache is wrong and does not know it.
    idle: Vec<(Connection, Stamp)>,
    /// The files of those that are in use.
    lent: Vec<FileId>,
}

impl Database {
    pub(super) fn new(path: &Path, check: PepperCheck, patience: Duration) -> Self {
        let (path, name) = (path.to_owned(), Location::Sqlite(path.to_owned()).to_string());
        Self { path, name, check, patience, pool: Mutex::default(), turn: Mutex::default() }
    }

    /// A connection to the file that is at the path now.
    pub(super) fn lease(self: &Arc<Self>) -> Result<Lease, Trouble> {
        let stamp = Stamp::of(&self.path).map_err(|error| self.missing(&error))?;
        let idle = {
            let mut pool = self.pool();
            // Two files of one name share the memory in which SQLite keeps the index of the log. So all connections to
            // the old file are closed before the new one is opened.
            pool.idle.retain(|(_, last)| *last == stamp);
            if pool.lent.iter().any(|file| *file != stamp.id) {
                let why = "the file was replaced, and what was there before is still being read; try again";
                return Err(Trouble::Refused(why.to_owned()));
            }
            pool.lent.push(stamp.id);
            pool.idle.pop()
        };
        // From here on dropping the lease takes the file off the list.
        let mut lease = Lease { connection: None, stamp, database: Arc::clone(self) };
        lease.connection = Some(match idle {
            Some((connection, _)) => connection,
            None => self.connect()?,
        });
        lease.still()?;
        Ok(lease)
    }

    /// Waits until no other thread of this process writes. Between processes SQLite's own lock decides; but its waiters
    /// poll, and these do not have to.
    pub(super) fn turn(&self) -> MutexGuard<'_, ()> {
        // It guards no data that a panic could have left half done.
        self.turn.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn pool(&self) -> MutexGuard<'_, Pool> {
        // Its lists are whole after every step.
        self.pool.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Opens the file, but never makes it: what was deleted must not come back as a store without keys.
    fn connect(&self) -> Result<Connection, Trouble> {
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let connection = Connection::open_with_flags(&self.path, flags)?;
        // Closing it must not write a log into the file before it is known to belong there.
        connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)?;
        connection.busy_timeout(self.patience)?;
        self.recognise(&connection)?;
        log::prove(&connection)?;
        use_log(&connection)?;
        connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, false)?;
        Ok(connection)
    }

    /// Makes sure that the file is one of ours, before anything is written to it.
    fn recognise(&self, connection: &Connection) -> Result<(), Trouble> {
        let application: i32 = connection.pragma_query_value(None, "application_id", |row| row.get(0))?;
        let tables: i64 = connection.query_row("select count(*) from sqlite_schema", [], |row| row.get(0))?;
        match (application, tables) {
            (APPLICATION, _) => can_read(connection.query_row("select format from meta", [], |row| row.get(0))?),
            (_, 0) => Err(Trouble::Refused(
                "the file is empty; delete it and make a new store with `keyward init`, or put a backup in its place"
                    .to_owned(),
            )),
            (_, _) => {
                Err(Trouble::Refused("the file is an SQLite database of another program; correct the path".to_owned()))
            }
        }
    }
}

/// Has readers and the writer not wait for each other, and commits wait for the disk. The file remembers the former, but
/// some ways to make a backup do not.
pub(super) fn use_log(connection: &Connection) -> rusqlite::Result<()> {
    connection.pragma_update(None, "journal_mode", "wal")?;
    connection.pragma_update(None, "synchronous", "full")?;
    // Commits fold the log back themselves.
    connection.pragma_update(None, "wal_autocheckpoint", 0)
}

/// Refuses a schema that this version does not know.
pub(super) fn can_read(format: i64) -> Result<(), Trouble> {
    if format == FORMAT {
        return Ok(());
    }
    Err(Trouble::Refused(format!(
        "it has format {format} and this version of keyward reads format {FORMAT}; use the version that wrote it, or a \
         later one"
    )))
}

/// A connection for as long as somebody uses it.
pub(super) struct Lease {
    connection: Option<Connection>,
    /// How the file was when the connection was leased.
    stamp: Stamp,
    database: Arc<Database>,
}

impl Lease {
    pub(super) fn database(&self) -> &Database {
        &self.database
    }

    pub(super) fn connection(&self) -> &Connection {
        self.connection.as_ref().expect("a lease has its connection until it is dropped")
    }

    /// Fails if the file was replaced or deleted since the connection was leased.
    pub(super) fn still(&self) -> Result<(), Trouble> {
        match Stamp::of(&self.database.path) {
            Ok(now) if now.id == self.stamp.id => Ok(()),
            Ok(_) => Err(Trouble::Refused("the file was replaced meanwhile; try again".to_owned())),
            Err(error) => Err(self.database.missing(&error)),
        }
    }
}

impl Drop for Lease {
    /// Ends the transaction, if one is open, and gives the connection back.
    fn drop(&mut self) {
        let ended = self.connection.take().filter(|c| c.is_autocommit() || c.execute_batch("rollback").is_ok());
        let mut pool = self.database.pool();
        if let Some(at) = pool.lent.iter().position(|file| *file == self.stamp.id) {
            pool.lent.swap_remove(at);
        }
        if let Some(connection) = ended
            && pool.idle.len() < IDLE
        {
            pool.idle.push((connection, self.stamp));
        }
    }
}
