//! Whether the log beside a database belongs to it.
//!
//! Whoever puts a backup in place of a database whose log was not empty has SQLite read the backup through the pages of
//! that log: a mixture of two states that no integrity check finds. SQLite cannot tell, but the hash chain can: a log that
//! belongs to a file begins no later than the history in the file ends, and continues it.
//!
//! Of the file alone only one page is read for that, the one of `meta`: every commit writes it, so it has a revision that the
//! log began with or came to. The other pages may be of different ages, as long as somebody reads an older state, or until
//! the next commit if whoever folded the log was killed.

mod frames;

use std::path::Path;
use std::thread;
use std::time::Duration;

use rusqlite::config::DbConfig;
use rusqlite::{Connection, OpenFlags};

use super::read::{from_sql, to_sql};
use super::trouble::Trouble;
use crate::store::Revision;
use crate::store::chain::Link;

/// What is read here is not read at one moment, and other processes write meanwhile.
const ATTEMPTS: usize = 20;
const PAUSE: Duration = Duration::from_millis(20);

/// Refuses a database that is seen through the log of another one. To be called before anything is read or written.
pub(super) fn prove(connection: &Connection) -> Result<(), Trouble> {
    // SQLite's own name for the file: links are resolved, and that is where the log lies.
    let file = connection.path().unwrap_or_default();
    let log = format!("{file}-wal");
    let mut proof = Ok(false);
    for attempt in 0..ATTEMPTS {
        if attempt > 0 {
            thread::sleep(PAUSE);
        }
        // An empty log belongs to everybody.
        if std::fs::metadata(&log).map_or(true, |log| log.len() == 0) {
            return Ok(());
        }
        proof = belongs(connection, Path::new(&log), Path::new(file));
        if let Ok(true) = proof {
            return Ok(());
        }
    }
    proof?;
    Err(Trouble::Refused(format!(
        "the file was replaced, but {log} is the log of the file that was there before; stop all of keyward, delete {log} \
         and {file}-shm, and start again"
    )))
}

/// Whether the log has everything that led from the state of the file alone to the one that the connection sees.
fn belongs(connection: &Connection, log: &Path, file: &Path) -> rusqlite::Result<bool> {
    let root = "select rootpage from sqlite_schema where name = 'meta'";
    let meta = connection.query_row(root, [], |row| row.get(0))?;
    // In this order. All of it may move on meanwhile, and then the file has come further than where the log began, and the
    // connection sees more than the file: never less.
    let first = frames::first_revision(log, meta);
    let alone = head(&without_log(file)?)?;
    let transaction = connection.unchecked_transaction()?;
    // A backup of an earlier state has the same history. But what was folded before the log began is nowhere any more.
    let whole = match first {
        Some(first) => first <= alone.number + 1,
        None => alone == head(&transaction)?,
    };
    Ok(whole && continues(&transaction, alone)?)
}

/// Whether what the connection sees continues the history that had `reached` some revision.
fn continues(connection: &Connection, mut reached: Revision) -> rusqlite::Result<bool> {
    let mut statement =
        connection.prepare("select rev, at, entry, content, chain from audit where rev > ?1 order by rev")?;
    let mut rows = statement.query([to_sql(reached.number)])?;
    while let Some(row) = rows.next()? {
        let (number, at, entry): (u64, String, String) = (from_sql(row.get(0)?), row.get(1)?, row.get(2)?);
        let link = Link { previous: reached.chain, number, at: &at, entry: &entry, content: row.get(3)? };
        if number != reached.number + 1 || link.head() != row.get::<_, [u8; 32]>(4)? {
            return Ok(false);
        }
        reached = Revision { number, chain: link.head() };
    }
    Ok(reached == head(connection)?)
}

fn head(connection: &Connection) -> rusqlite::Result<Revision> {
    connection.query_row("select rev, chain from meta", [], |row| {
        Ok(Revision { number: from_sql(row.get(0)?), chain: row.get(1)? })
    })
}

/// Opens the file as if it were on a disc that cannot be written: without locks and without a log. Only `meta` can be
/// trusted in it.
fn without_log(path: &Path) -> rusqlite::Result<Connection> {
    let mut uri = "file:".to_owned();
    for byte in path.as_os_str().as_encoded_bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'/' | b'.' | b'_' | b'-' => uri.push(char::from(*byte)),
            other => uri.push_str(&format!("%{other:02x}")),
        }
    }
    uri.push_str("?immutable=1");
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_URI | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(uri, flags)?;
    // Its first page may count pages that are in the log alone. Only with this does SQLite take the file as long as it is.
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_WRITABLE_SCHEMA, true)?;
    Ok(connection)
}
