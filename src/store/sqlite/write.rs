//! Writing: one transaction, in which the history grows by exactly one revision.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use rusqlite::{CachedStatement, Connection, Transaction, TransactionBehavior, params};

use super::database::Database;
use super::read::{has_lists, head, to_sql};
use super::trouble::Refusal;
use crate::auth::grant::Timestamp;
use crate::store::chain::Link;
use crate::store::left::{self, Written};
use crate::store::{Change, Commit, CommitError, Expect, Revision};

/// Makes a commit, or changes nothing.
pub(super) fn commit(database: &Arc<Database>, commit: Commit) -> Result<Revision, CommitError> {
    try_commit(database, commit).map_err(|refusal| database.explain_refusal(refusal))
}

fn try_commit(database: &Arc<Database>, mut commit: Commit) -> Result<Revision, Refusal> {
    // In the order in which records lie in the file, a large import is written in one sweep. The sort is stable: changes
    // of one record stay in their order.
    commit.changes.sort_by(|a, b| a.id.cmp(&b.id));
    let _turn = database.turn();
    let lease = database.lease()?;
    // Unchecked, because the lease cannot lend the connection out mutably; nobody else has it.
    let transaction = Transaction::new_unchecked(lease.connection(), TransactionBehavior::Immediate)?;
    let before = head(&lease)?.revision;
    let number = before.number + 1;
    Upserts::prepare(&transaction)?.apply(&commit.changes, number)?;
    let chain = record_history(&transaction, before, &commit)?;
    // What is committed to a file that was replaced meanwhile would be lost.
    lease.still()?;
    transaction.commit()?;
    fold_log(lease.connection(), database.patience);
    Ok(Revision { number, chain })
}

/// One statement for each expectation. Each says by the number of rows that it touched whether the expectation held.
struct Upserts<'c> {
    absent: CachedStatement<'c>,
    at: CachedStatement<'c>,
    any: CachedStatement<'c>,
    bury: CachedStatement<'c>,
}

impl<'c> Upserts<'c> {
    fn prepare(connection: &'c Connection) -> Result<Self, Refusal> {
        Ok(Self {
            absent: connection.prepare_cached(
                "insert into record (kind, id, rev, body) values (?1, ?2, ?3, ?4)
                 on conflict (kind, id) do update set rev = excluded.rev, body = excluded.body where body is null",
            )?,
            at: connection.prepare_cached(
                "update record set rev = ?3, body = ?4
                 where kind = ?1 and id = ?2 and rev = ?5 and body is not null",
            )?,
            any: connection.prepare_cached(
                "insert into record (kind, id, rev, body) values (?1, ?2, ?3, ?4)
                 on conflict (kind, id) do update set rev = excluded.rev, body = excluded.body",
            )?,
            bury: connection.prepare_cached("delete from record where kind = ?1 and id = ?2 and body is null")?,
        })
    }

    fn apply(&mut self, changes: &[Change], number: u64) -> Result<(), Refusal> {
        let number = to_sql(number);
        for Change { id, expect, body } in changes {
            let (kind, key) = (id.kind.label(), &*id.id);
            let touched = match expect {
                Expect::Absent => self.absent.execute(params![kind, key, number, body])?,
                Expect::At(revision) => self.at.execute(params![kind, key, number, body, to_sql(*revision)])?,
                Expect::Any => self.any.execute(params![kind, key, number, body])?,
            };
            if touched == 0 {
                return Err(Refusal::Conflict(id.clone()));
            }
            // Nobody follows these, so that nobody has to hear that one is gone.
            if body.is_none() && !id.kind.replicated() {
                self.bury.execute(params![kind, key])?;
            }
        }
        Ok(())
    }
}

/// Writes the audit entry and the new head; returns its hash.
fn record_history(connection: &Connection, before: Revision, commit: &Commit) -> Result<[u8; 32], Refusal> {
    let number = before.number + 1;
    let at = Timestamp::from(SystemTime::now()).to_string();
    let Written { entry, list, content } = left::written(commit);
    let chain = Link { previous: before.chain, number, at: &at, entry: &entry, content }.head();
    if !has_lists(connection)? {
        connection.execute_batch("alter table audit add column records text")?;
    }
    connection
        .prepare_cached("insert into audit (rev, at, entry, content, chain, records) values (?1, ?2, ?3, ?4, ?5, ?6)")?
        .execute(params![to_sql(number), at, entry, content, chain, list])?;
    connection.prepare_cached("update meta set rev = ?1, chain = ?2")?.execute(params![to_sql(number), chain])?;
    Ok(chain)
}

/// Moves the log into the database file and empties it. What was committed is safe either way; so this waits for nobody,
/// and if a reader is in the way, the next commit tries again.
fn fold_log(connection: &Connection, patience: Duration) {
    let folded = connection
        .busy_timeout(Duration::ZERO)
        .and_then(|()| connection.query_row("pragma wal_checkpoint(truncate)", [], |row| row.get::<_, i64>(0)));
    if let Err(error) = folded.and(connection.busy_timeout(patience)) {
        tracing::debug!(%error, "the log of the key store was not folded into its file");
    }
}
