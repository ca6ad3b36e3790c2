//! Reading: one transaction, one revision, however long it takes.

use std::sync::Arc;

use rusqlite::{Connection, OptionalExtension, Row, Rows, params};

use super::database::{Database, Lease, can_read};
use super::trouble::Trouble;
use crate::auth::digest::PepperCheck;
use crate::store::record::{Kind, Record, RecordId};
use crate::store::{Revision, StoreError};

/// How many records travel together.
const BATCH: usize = 1000;

/// Where the history stands.
#[derive(Clone, Copy)]
pub(super) struct Head {
    /// The last revision.
    pub(super) revision: Revision,
    /// The first revision that the audit still knows; tombstones before it may be gone.
    floor: u64,
}

/// What a pull is answered with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Answer {
    /// There is no news.
    Nothing,
    /// What came after this revision.
    Since(u64),
    /// All that lives.
    Everything,
    /// All there is, of every kind, and what was deleted.
    Rows,
}

/// The store at one revision.
pub(super) struct Snapshot {
    lease: Lease,
    /// That revision.
    pub(super) head: Head,
}

impl Snapshot {
    /// The store as it is now. Refuses what this program, with this pepper, cannot read.
    pub(super) fn open(database: &Arc<Database>) -> Result<Self, Trouble> {
        let lease = database.lease()?;
        lease.connection().execute_batch("begin")?;
        let head = head(&lease)?;
        Ok(Self { lease, head })
    }

    /// How much of it somebody needs who has what there was at `since`.
    pub(super) fn answer(&self, since: Option<Revision>) -> Result<Answer, Trouble> {
        Ok(match since {
            Some(since) if since == self.head.revision => Answer::Nothing,
            Some(since) if self.knows(since)? => Answer::Since(since.number),
            Some(_) | None => Answer::Everything,
        })
    }

    fn knows(&self, since: Revision) -> Result<bool, Trouble> {
        if since.number < self.head.floor || since.number >= self.head.revision.number {
            return Ok(false);
        }
        let mut statement = self.lease.connection().prepare_cached("select chain from audit where rev = ?1")?;
        let chain: Option<[u8; 32]> = statement.query_row([to_sql(since.number)], |row| row.get(0)).optional()?;
        Ok(chain == Some(since.chain))
    }

    /// One record, if it lives.
    pub(super) fn get(&self, id: &RecordId) -> Result<Option<Record>, Trouble> {
        let sql = "select rev, body from record where kind = ?1 and id = ?2 and body is not null";
        let mut statement = self.lease.connection().prepare_cached(sql)?;
        let found = statement.query_row(params![id.kind.label(), &*id.id], |row| {
            Ok(Record { id: id.clone(), revision: from_sql(row.get(0)?), body: row.get(1)? })
        });
        Ok(found.optional()?)
    }

    /// All that lives of some kinds.
    pub(super) fn of_kinds(&self, kinds: &[Kind]) -> Result<Vec<Record>, Trouble> {
        let sql = "select id, rev, body from record where kind = ?1 and body is not null";
        let mut statement = self.lease.connection().prepare_cached(sql)?;
        let mut found = Vec::new();
        for kind in kinds {
            let mut rows = statement.query([kind.label()])?;
            while let Some(row) = rows.next()? {
                found.push(record(*kind, row)?);
            }
        }
        self.lease.still()?;
        Ok(found)
    }

    /// Hands out the records, owners before what they own, until `take` wants no more.
    pub(super) fn stream(&self, answer: Answer, mut take: impl FnMut(Vec<Record>) -> bool) -> Result<(), Trouble> {
        let (sql, since) = match answer {
            Answer::Nothing => return Ok(()),
            // Without the hint the planner may walk all records of the kind.
            Answer::Since(since) => {
                ("select id, rev, body from record indexed by record_rev where kind = ?1 and rev > ?2", to_sql(since))
            }
            Answer::Everything => {
                ("select id, rev, body from record where kind = ?1 and rev > ?2 and body is not null order by id", 0)
            }
            Answer::Rows => ("select id, rev, body from record where kind = ?1 and rev >= ?2 order by id", i64::MIN),
        };
        let mut statement = self.lease.connection().prepare_cached(sql)?;
        let kinds: &[Kind] = if answer == Answer::Rows { &Kind::ALL } else { &Kind::REPLICATED };
        for &kind in kinds {
            let mut rows = statement.query(params![kind.label(), since])?;
            loop {
                let batch = next_batch(kind, &mut rows)?;
                let last = batch.len() < BATCH;
                // What a connection reads after its file was replaced may be anything.
                self.lease.still()?;
                if !batch.is_empty() && !take(batch) {
                    return Ok(());
                }
                if last {
                    break;
                }
            }
        }
        if answer == Answer::Everything {
            // What it has kept of the file is not read again.
            self.lease.connection().execute_batch("pragma shrink_memory")?;
        }
        Ok(())
    }

    pub(super) fn connection(&self) -> &Connection {
        self.lease.connection()
    }

    /// Fails if what was read may be of another file.
    pub(super) fn still(&self) -> Result<(), Trouble> {
        self.lease.still()
    }

    /// The error that a caller of the store gets.
    pub(super) fn explain(&self, trouble: Trouble) -> StoreError {
        self.lease.database().explain(trouble)
    }
}

/// Whether the audit keeps what each commit left. Programs of before did not, and may write beside this one.
pub(super) fn has_lists(connection: &Connection) -> rusqlite::Result<bool> {
    connection.column_exists(None::<&str>, "audit", "records")
}

/// Reads where the history stands, inside the transaction that is open.
pub(super) fn head(lease: &Lease) -> Result<Head, Trouble> {
    let mut statement =
        lease.connection().prepare_cached("select rev, chain, floor, format, pepper_check from meta")?;
    let (revision, floor, format, check) = statement.query_row([], |row| {
        let revision = Revision { number: from_sql(row.get(0)?), chain: row.get(1)? };
        Ok((revision, from_sql(row.get(2)?), row.get(3)?, row.get::<_, String>(4)?))
    })?;
    can_read(format)?;
    if PepperCheck::from_hex(&check) != Some(lease.database().check) {
        return Err(Trouble::WrongPepper);
    }
    Ok(Head { revision, floor })
}

fn next_batch(kind: Kind, rows: &mut Rows<'_>) -> Result<Vec<Record>, Trouble> {
    let mut batch = Vec::new();
    while batch.len() < BATCH
        && let Some(row) = rows.next()?
    {
        batch.push(record(kind, row)?);
    }
    Ok(batch)
}

fn record(kind: Kind, row: &Row<'_>) -> Result<Record, Trouble> {
    Ok(Record { id: RecordId { kind, id: row.get(0)? }, revision: from_sql(row.get(1)?), body: row.get(2)? })
}

/// SQLite's integers are signed; revisions count up from zero and never get near the difference.
pub(super) fn to_sql(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

pub(super) fn from_sql(number: i64) -> u64 {
    u64::try_from(number).unwrap_or(0)
}
