//! Making a new database.
//!
//! It is made under another name and gets its own when it is whole: nobody ever sees half of one, and of several who
//! make the same one at once, the first wins and the others use what it has made.

use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::SystemTime;

use rusqlite::{Connection, TransactionBehavior, params};

use super::database::{APPLICATION, FORMAT, use_log};
use super::trouble::Trouble;
use crate::auth::digest::PepperCheck;
use crate::auth::grant::Timestamp;
use crate::store::chain::{self, Link};
use crate::store::left;
use crate::store::record::new_id;

/// `record` has no row ids: its rows lie in the order of kind and id, which is the order of a full pull.
const SCHEMA: &str = "
    create table meta (
        one integer primary key check (one = 1), rev integer not null, chain blob not null,
        floor integer not null, format integer not null, pepper_check text not null
    ) strict;
    create table record (
        kind text not null, id text not null, rev integer not null, body text, primary key (kind, id)
    ) strict, without rowid;
    create index record_rev on record (rev);
    create table audit (
        rev integer primary key, at text not null, entry text not null, content blob not null, chain blob not null,
        records text
    ) strict;
";

/// Makes a database without records at a path where there is no file.
pub(super) fn create(path: &Path, check: PepperCheck) -> Result<(), Trouble> {
    let cannot = |error: &dyn std::fmt::Display| Trouble::Refused(format!("the file cannot be made: {error}"));
    let now = Timestamp::from(SystemTime::now());
    let mut unfinished = path.as_os_str().to_owned();
    unfinished.push(format!(".new-{}", new_id(now).map_err(|error| cannot(&error))?));
    let unfinished = Path::new(&unfinished);

    // Only the owner may read it: it says who may do what. SQLite gives its log the same mode.
    OpenOptions::new().write(true).create_new(true).mode(0o600).open(unfinished).map_err(|error| cannot(&error))?;
    let made = fill(unfinished, check, now).and_then(|()| give_name(unfinished, path).map_err(|error| cannot(&error)));
    // If this fails, a file is left that nobody looks for.
    let _ = fs::remove_file(unfinished);
    made
}

fn fill(path: &Path, check: PepperCheck, now: Timestamp) -> Result<(), Trouble> {
    let mut connection = Connection::open(path)?;
    use_log(&connection)?;
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    transaction.pragma_update(None, "application_id", APPLICATION)?;
    transaction.execute_batch(SCHEMA)?;

    let (at, entry, list) = (now.to_string(), left::FIRST_ENTRY, left::NOTHING);
    let content = chain::list(list);
    let head = Link { previous: [0; 32], number: 0, at: &at, entry, content }.head();
    transaction.execute(
        "insert into meta (one, rev, chain, floor, format, pepper_check) values (1, 0, ?1, 0, ?2, ?3)",
        params![head, FORMAT, check.to_hex()],
    )?;
    transaction.execute(
        "insert into audit (rev, at, entry, content, chain, records) values (0, ?1, ?2, ?3, ?4, ?5)",
        params![at, entry, content, head, list],
    )?;
    transaction.commit()?;
    // Folds the log into the file and removes it.
    connection.close().map_err(|(_, error)| Trouble::Sql(error))
}

/// A link, unlike a rename, never takes the place of a file that somebody else has made meanwhile.
fn give_name(unfinished: &Path, path: &Path) -> io::Result<()> {
    match fs::hard_link(unfinished, path) {
        Ok(()) => {
            // So that the name survives a power cut. Where folders cannot be synchronised, nothing is lost but that.
            if let Some(folder) = path.parent() {
                let _ = File::open(folder).and_then(|folder| folder.sync_all());
            }
            Ok(())
        }
        Err(error) if error.kind() == ErrorKind::AlreadyExists => Ok(()),
        Err(error) => Err(error),
    }
}
