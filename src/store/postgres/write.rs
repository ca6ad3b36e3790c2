//! Writing: one transaction, in which the history grows by exactly one revision.
//!
//! It begins by taking the row that counts the revisions. Whoever has it keeps it until the end is visible to all, so
//! nobody can have number n + 1 before n can be seen: numbers have no gaps, and their order is that of the commits. With
//! a sequence, a commit that takes its number early and ends late would be passed over by those who read in between.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use tokio_postgres::Client;
use tokio_postgres::types::Type;

use super::link::{self, LONG_PATIENCE, Pool, within};
use super::read::{Head, about, from_sql, table, to_sql};
use super::schema::can_write;
use super::trouble::{Refusal, Trouble};
use crate::auth::digest::PepperCheck;
use crate::auth::grant::Timestamp;
use crate::store::chain::Link;
use crate::store::left::{self, Written};
use crate::store::record::RecordId;
use crate::store::{Change, Commit, Expect, Revision};

/// A writer that stops in the middle is thrown out, so that the others wait no longer than this. What was acknowledged
/// must survive a crash, whatever the server's own setting; one that promises more than `on` stays.
const BEGIN: &str = "
    begin isolation level read committed;
    set local lock_timeout = '5s';
    set local statement_timeout = '30s';
    set local idle_in_transaction_session_timeout = '5s';
    select set_config('synchronous_commit', 'on', true) where current_setting('synchronous_commit') = 'off'";

/// The time is the server's, so that it is the same clock whoever writes, and goes on as the numbers do.
const TAKE: &str = "
    update keyward.meta set rev = rev + 1 returning rev, chain, format, pepper_check, true,
        (extract(epoch from clock_timestamp()) * 1000)::bigint";

/// One statement for each expectation. Each gives the records for which it held.
const ABSENT: &str = "
    insert into keyward.record as r (kind, id, rev, body)
    select t.kind, t.id, $1, t.body::json from unnest($2::text[], $3::text[], $4::text[]) as t (kind, id, body)
    on conflict (kind, id) do update set rev = excluded.rev, body = excluded.body where r.body is null
    returning r.kind, r.id";
const AT: &str = "
    update keyward.record r set rev = $1, body = t.body::json
    from unnest($2::text[], $3::text[], $4::text[], $5::bigint[]) as t (kind, id, body, expected)
    where r.kind = t.kind and r.id = t.id and r.rev = t.expected and r.body is not null
    returning r.kind, r.id";
const ANY: &str = "
    insert into keyward.record as r (kind, id, rev, body)
    select t.kind, t.id, $1, t.body::json from unnest($2::text[], $3::text[], $4::text[]) as t (kind, id, body)
    on conflict (kind, id) do update set rev = excluded.rev, body = excluded.body
    returning r.kind, r.id";

/// Nobody follows private records, so that nobody has to hear that one is gone.
const BURY: &str = "
    delete from keyward.private p using unnest($1::text[], $2::text[]) as t (kind, id)
    where p.kind = t.kind and p.id = t.id and p.body is null";

/// Makes a commit, or changes nothing.
pub(super) async fn commit(pool: &Arc<Pool>, mut commit: Commit, check: PepperCheck) -> Result<Revision, Refusal> {
    // In the order in which records lie in the index, a large import is written in one sweep. The sort is stable: changes
    // of one record stay in their order.
    commit.changes.sort_by(|a, b| a.id.cmp(&b.id));
    let lease = pool.lease().await?;
    let revision = match write(lease.client(), &commit, check).await {
        Ok(revision) => revision,
        Err(Refusal::Conflict(id)) => {
            within(LONG_PATIENCE, "taking back", lease.client().batch_execute("rollback")).await?;
            lease.give_back();
            return Err(Refusal::Conflict(id));
        }
        // The connection is closed, and the transaction ends with it.
        Err(refusal) => return Err(refusal),
    };
    match lease.commit().await {
        Ok(()) => lease.give_back(),
        Err(trouble) => {
            drop(lease);
            settle(pool, revision, trouble).await?;
        }
    }
    Ok(revision)
}

/// Everything up to the commit itself.
pub(super) async fn write(client: &Client, commit: &Commit, check: PepperCheck) -> Result<Revision, Refusal> {
    within(LONG_PATIENCE, "beginning", client.batch_execute(BEGIN)).await?;
    let taken = within(LONG_PATIENCE, "waiting for its write lock", client.query_typed_opt(TAKE, &[])).await?;
    let taken = taken.ok_or_else(Trouble::empty)?;
    let (head, now) = (Head::of(&taken, check)?, Timestamp::from_millis(from_sql(taken.try_get(5)?)));
    can_write(head.format)?;
    let Revision { number, chain: previous } = head.revision;
    for round in rounds(&commit.changes) {
        for replicated in [true, false] {
            let there: Vec<&Change> = round.iter().filter(|c| c.id.kind.replicated() == replicated).copied().collect();
            if let Some(first) = there.first() {
                apply(client, table(first.id.kind), &there, number).await?;
            }
        }
    }
    bury(client, &commit.changes).await?;
    Ok(Revision { number, chain: record_history(client, previous, number, (now, commit)).await? })
}

async fn bury(client: &Client, changes: &[Change]) -> Result<(), Trouble> {
    let gone = || changes.iter().filter(|change| change.body.is_none() && !change.id.kind.replicated());
    let kinds: Vec<&str> = gone().map(|change| change.id.kind.label()).collect();
    if kinds.is_empty() {
        return Ok(());
    }
    let ids: Vec<&str> = gone().map(|change| &*change.id.id).collect();
    let asked: [(&(dyn tokio_postgres::types::ToSql + Sync), Type); 2] =
        [(&kinds, Type::TEXT_ARRAY), (&ids, Type::TEXT_ARRAY)];
    within(LONG_PATIENCE, "writing records", client.query_typed(BURY, &asked)).await?;
    Ok(())
}

/// One statement can touch a record once. So: the first change of each record, then the second of each, and so on.
fn rounds(changes: &[Change]) -> Vec<Vec<&Change>> {
    let (mut rounds, mut seen) = (Vec::<Vec<&Change>>::new(), HashMap::<&RecordId, usize>::new());
    for change in changes {
        let turn = seen.entry(&change.id).or_default();
        match rounds.get_mut(*turn) {
            Some(round) => round.push(change),
            None => rounds.push(vec![change]),
        }
        *turn += 1;
    }
    rounds
}

/// Makes changes of records of one table, each of which is among them once.
async fn apply(client: &Client, table: &str, round: &[&Change], number: u64) -> Result<(), Refusal> {
    let number = to_sql(number);
    let mut held = HashSet::new();
    let groups = [(ABSENT, as_absent as fn(&Expect) -> Option<i64>), (AT, as_at), (ANY, as_any)];
    for (sql, expected) in groups {
        let chosen = || round.iter().filter_map(|change| Some((change, expected(&change.expect)?)));
        let kinds: Vec<&str> = chosen().map(|(change, _)| change.id.kind.label()).collect();
        if kinds.is_empty() {
            continue;
        }
        let ids: Vec<&str> = chosen().map(|(change, _)| &*change.id.id).collect();
        let bodies: Vec<Option<&str>> = chosen().map(|(change, _)| change.body.as_deref()).collect();
        let revisions: Vec<i64> = chosen().map(|(_, revision)| revision).collect();
        let all: [(&(dyn tokio_postgres::types::ToSql + Sync), Type); 5] = [
            (&number, Type::INT8),
            (&kinds, Type::TEXT_ARRAY),
            (&ids, Type::TEXT_ARRAY),
            (&bodies, Type::TEXT_ARRAY),
            (&revisions, Type::INT8_ARRAY),
        ];
        let used = if sql == AT { &all[..] } else { &all[..4] };
        let rows = within(LONG_PATIENCE, "writing records", client.query_typed(&about(table, sql), used)).await?;
        for row in rows {
            held.insert((row.try_get::<_, String>(0)?, row.try_get::<_, String>(1)?));
        }
    }
    match round.iter().find(|change| !held.contains(&(change.id.kind.label().to_owned(), change.id.id.to_string()))) {
        Some(change) => Err(Refusal::Conflict(change.id.clone())),
        None => Ok(()),
    }
}

fn as_absent(expect: &Expect) -> Option<i64> {
    matches!(expect, Expect::Absent).then_some(0)
}

fn as_at(expect: &Expect) -> Option<i64> {
    match expect {
        Expect::At(revision) => Some(to_sql(*revision)),
        Expect::Absent | Expect::Any => None,
    }
}

fn as_any(expect: &Expect) -> Option<i64> {
    matches!(expect, Expect::Any).then_some(0)
}

/// Writes the audit entry and the new head, and has everybody told of it; returns the head's hash. What is told is only
/// the number: it may be lost, and what a notification can hold is short.
async fn record_history(
    client: &Client,
    previous: [u8; 32],
    number: u64,
    (now, commit): (Timestamp, &Commit),
) -> Result<[u8; 32], Trouble> {
    let at = now.to_string();
    let Written { entry, list, content } = left::written(commit);
    let chain = Link { previous, number, at: &at, entry: &entry, content }.head();
    let sql = "
        with entry as (
            insert into keyward.audit (rev, at, entry, content, chain, records)
            values ($1, $2, $3::text::json, $4, $5, $6)
        ), head as (
            update keyward.meta set chain = $5
        )
        select pg_notify('keyward', $1::text)";
    let values: [(&(dyn tokio_postgres::types::ToSql + Sync), Type); 6] = [
        (&to_sql(number), Type::INT8),
        (&at, Type::TEXT),
        (&entry, Type::TEXT),
        (&content.as_slice(), Type::BYTEA),
        (&chain.as_slice(), Type::BYTEA),
        (&list, Type::TEXT),
    ];
    within(LONG_PATIENCE, "writing the audit entry", client.query_typed(sql, &values)).await?;
    Ok(chain)
}

/// The answer to a commit did not come: finds out whether it was made. Taking the row that counts waits for the end of
/// the transaction in question, should the server still be busy with it.
pub(super) async fn settle(pool: &Arc<Pool>, made: Revision, trouble: Trouble) -> Result<(), Refusal> {
    let look = async {
        let lease = pool.lease().await?;
        let client = lease.client();
        client.batch_execute(BEGIN).await?;
        client.query_typed("select from keyward.meta for update", &[]).await?;
        let sql = "select exists (select from keyward.audit where rev = $1 and chain = $2)";
        let values: [(&(dyn tokio_postgres::types::ToSql + Sync), Type); 2] =
            [(&to_sql(made.number), Type::INT8), (&made.chain.as_slice(), Type::BYTEA)];
        let found: bool = client.query_typed_one(sql, &values).await?.try_get(0)?;
        // Not a rollback: a standby that has this commit has those before it too.
        lease.commit().await?;
        lease.give_back();
        Ok(found)
    };
    Ok(link::settle(trouble, look).await?)
}
