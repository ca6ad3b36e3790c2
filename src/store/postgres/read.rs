//! Reading: one statement, hence one snapshot and one revision, whatever is committed meanwhile.

use std::pin::Pin;

use futures_util::TryStreamExt;
use tokio::sync::mpsc;
use tokio_postgres::types::{ToSql, Type};
use tokio_postgres::{Row, RowStream};

use super::link::{LONG_PATIENCE, Lease, PATIENCE, within};
use super::schema::{WITH_PRIVATE, can_read};
use super::trouble::Trouble;
use crate::auth::digest::PepperCheck;
use crate::store::record::{Kind, Record, RecordId};
use crate::store::{Revision, StoreError};

/// How many records travel together.
const BATCH: usize = 1000;

/// Whether a revision is the head. Most polls end with it; and where it is not, a server that has just answered is given the
/// time that a large delta takes, while one that is frozen is noticed soon.
const NEWS: &str = "
    select m.rev, m.chain, m.format, m.pepper_check, m.rev = $1 and m.chain = $2, null::text
    from keyward.meta m";

/// What changed after a revision, if the history has that revision. The head comes with every row, and alone if nothing
/// did. All is sorted before the first row comes. What stands before `offset 0` is decided once and not for every record, of which there may be a million; the kinds
/// are only for the order, so that there is but one index to choose.
const DELTA: &str = "
    select m.rev, m.chain, m.format, m.pepper_check, h.has, r.kind, r.id, r.rev, r.body::text
    from keyward.meta m
    cross join lateral (
        select exists (select from keyward.audit a where a.rev = $1 and a.chain = $2 and a.rev >= m.floor) as has offset 0
    ) h
    left join lateral (
        select kind, id, rev, body from keyward.record
        where h.has and m.rev > $1 and rev > $1 offset 0
    ) r on true
    order by array_position($3, r.kind::text)";

/// All that lives.
const EVERYTHING: &str = "
    select m.rev, m.chain, m.format, m.pepper_check, true, r.kind, r.id, r.rev, r.body::text
    from keyward.meta m
    left join keyward.record r on r.body is not null
    order by array_position($1, r.kind::text)";

/// All there is, of every kind, and what was deleted. Older tables have no private kinds.
const ROWS: &str = "
    select m.rev, m.chain, m.format, m.pepper_check, true, r.kind, r.id, r.rev, r.body::text
    from keyward.meta m
    left join (
        select kind, id, rev, body from keyward.record union all select kind, id, rev, body from keyward.private
    ) r on true";
const AND_PRIVATE: &str = " union all select kind, id, rev, body from keyward.private";

const HEAD: &str = "select rev, chain, format, pepper_check, true from keyward.meta";

const ONE: &str = "
    select m.rev, m.chain, m.format, m.pepper_check, true, r.kind, r.id, r.rev, r.body::text
    from keyward.meta m
    left join keyward.record r on r.kind = $1 and r.id = $2 and r.body is not null";

/// Each is looked up by itself: asked whether it is among them, the server may read all records.
const MANY: &str = "
    select m.rev, m.chain, m.format, m.pepper_check, true, r.kind, r.id, r.rev, r.body::text
    from keyward.meta m
    left join (
        unnest($1::text[], $2::text[]) as asked (kind, id)
        cross join lateral (
            select kind, id, rev, body from keyward.record
            where kind = asked.kind and id = asked.id and body is not null offset 0
        ) r
    ) on true";

const KINDS: &str = "
    select m.rev, m.chain, m.format, m.pepper_check, true, r.kind, r.id, r.rev, r.body::text
    from keyward.meta m
    left join keyward.record r on r.kind = any($1) and r.body is not null";

/// The table of what pulls give.
const RECORDS: &str = "keyward.record";

/// The table that pulls do not touch, and that who only reads may not read.
const PRIVATE: &str = "keyward.private";

/// Where the records of a kind are.
pub(super) const fn table(kind: Kind) -> &'static str {
    if kind.replicated() { RECORDS } else { PRIVATE }
}

/// A statement about [`RECORDS`], as one about another table.
pub(super) fn about(table: &str, sql: &str) -> String {
    sql.replace(RECORDS, table)
}

/// The kinds, owners before what they own.
fn kinds() -> Vec<&'static str> {
    Kind::REPLICATED.map(Kind::label).to_vec()
}

/// An answer whose first row is there: the head, and records that are still to come.
pub(super) struct Answer {
    pub(super) revision: Revision,
    /// Everything that lives, or only what changed.
    pub(super) full: bool,
    first: Option<Record>,
    rest: Pin<Box<RowStream>>,
    lease: Lease,
}

impl Answer {
    /// Asks for what changed since a revision, or for everything.
    pub(super) async fn to(lease: Lease, since: Option<Revision>, check: PepperCheck) -> Result<Self, Trouble> {
        if let Some(since) = since {
            let (number, chain, kinds) = (to_sql(since.number), since.chain.as_slice(), kinds());
            let asked: [(&(dyn ToSql + Sync), Type); 3] =
                [(&number, Type::INT8), (&chain, Type::BYTEA), (&kinds, Type::TEXT_ARRAY)];
            for (sql, patience) in [(NEWS, PATIENCE), (DELTA, LONG_PATIENCE)] {
                let begun = within(patience, "reading what changed", begin(&lease, sql, &asked, check)).await;
                let (head, first, mut rest) = begun.inspect_err(|trouble| lease.give_up(trouble))?;
                if head.has {
                    return Ok(Self { revision: head.revision, full: false, first, rest, lease });
                }
                within(PATIENCE, "reading what changed", rest.try_next()).await?;
            }
        }
        let kinds = kinds();
        let asked: [(&(dyn ToSql + Sync), Type); 1] = [(&kinds, Type::TEXT_ARRAY)];
        let everything = begin(&lease, EVERYTHING, &asked, check);
        let begun = within(LONG_PATIENCE, "reading everything", everything).await;
        let (head, first, rest) = begun.inspect_err(|trouble| lease.give_up(trouble))?;
        Ok(Self { revision: head.revision, full: true, first, rest, lease })
    }

    /// Asks for all rows.
    pub(super) async fn rows(lease: Lease, check: PepperCheck) -> Result<Self, Trouble> {
        let format = head(&lease, check).await?.format;
        let sql = if format < WITH_PRIVATE { ROWS.replace(AND_PRIVATE, "") } else { ROWS.to_owned() };
        let begun = within(LONG_PATIENCE, "reading everything", begin(&lease, &sql, &[], check)).await;
        let (head, first, rest) = begun.inspect_err(|trouble| lease.give_up(trouble))?;
        Ok(Self { revision: head.revision, full: true, first, rest, lease })
    }

    /// Sends the records until there are no more or nobody wants them.
    pub(super) async fn stream(self, sender: mpsc::Sender<Result<Vec<Record>, StoreError>>, store: String) {
        let Self { first, mut rest, lease, .. } = self;
        let mut batch: Vec<Record> = first.into_iter().collect();
        loop {
            match within(LONG_PATIENCE, "reading records", fill(&mut rest, &mut batch)).await {
                Ok(more) => {
                    if !batch.is_empty() && sender.send(Ok(std::mem::take(&mut batch))).await.is_err() {
                        return; // nobody wants them, and the connection is in the middle of them
                    }
                    if !more {
                        break;
                    }
                }
                Err(trouble) => {
                    lease.give_up(&trouble);
                    // Whoever asked may have gone.
                    let _ = sender.send(Err(trouble.explain(&store))).await;
                    return;
                }
            }
        }
        // Before the end is heard: whoever pulls again at once finds the connection free.
        lease.give_back();
    }
}

/// One record, if it lives.
pub(super) async fn get(
    lease: Lease,
    id: &RecordId,
    check: PepperCheck,
) -> Result<(Revision, Option<Record>), Trouble> {
    let asked: [(&(dyn ToSql + Sync), Type); 2] = [(&id.kind.label(), Type::TEXT), (&&*id.id, Type::TEXT)];
    let sql = about(table(id.kind), ONE);
    let (head, found, mut rest) = within(PATIENCE, "reading a record", begin(&lease, &sql, &asked, check)).await?;
    within(PATIENCE, "reading a record", rest.try_next()).await?;
    lease.give_back();
    Ok((head.revision, found))
}

/// Where the history stands now.
pub(super) async fn head(lease: &Lease, check: PepperCheck) -> Result<Head, Trouble> {
    let row = within(PATIENCE, "reading the head", lease.client().query_typed_opt(HEAD, &[])).await?;
    Head::of(&row.ok_or_else(Trouble::empty)?, check)
}

/// Some records of kinds that pulls give: those that live.
pub(super) async fn get_all(lease: Lease, ids: &[&RecordId], check: PepperCheck) -> Result<Vec<Record>, Trouble> {
    let kinds: Vec<&str> = ids.iter().map(|id| id.kind.label()).collect();
    let ids: Vec<&str> = ids.iter().map(|id| &*id.id).collect();
    let asked: [(&(dyn ToSql + Sync), Type); 2] = [(&kinds, Type::TEXT_ARRAY), (&ids, Type::TEXT_ARRAY)];
    Ok(all(lease, MANY, &asked, check).await?.1)
}

/// All that lives of some kinds that pulls give.
pub(super) async fn of_kinds(
    lease: Lease,
    kinds: &[Kind],
    check: PepperCheck,
) -> Result<(Revision, Vec<Record>), Trouble> {
    let kinds: Vec<&str> = kinds.iter().map(|kind| kind.label()).collect();
    all(lease, KINDS, &[(&kinds, Type::TEXT_ARRAY)], check).await
}

/// Everything that a statement gives, in one list.
async fn all(
    lease: Lease,
    sql: &str,
    asked: &[(&(dyn ToSql + Sync), Type)],
    check: PepperCheck,
) -> Result<(Revision, Vec<Record>), Trouble> {
    let begun = within(LONG_PATIENCE, "reading records", begin(&lease, sql, asked, check)).await;
    let (head, first, mut rest) = begun.inspect_err(|trouble| lease.give_up(trouble))?;
    let mut found: Vec<Record> = first.into_iter().collect();
    let mut batch = Vec::new();
    while within(LONG_PATIENCE, "reading records", fill(&mut rest, &mut batch)).await? {
        found.append(&mut batch);
    }
    found.append(&mut batch);
    lease.give_back();
    Ok((head.revision, found))
}

/// Where the history stands.
pub(super) struct Head {
    pub(super) revision: Revision,
    /// The version of the tables.
    pub(super) format: i32,
    /// Whether the history has the revision that was asked for.
    has: bool,
}

impl Head {
    /// The head in a row that begins with it. Refuses what this program, with this pepper, cannot read.
    pub(super) fn of(row: &Row, check: PepperCheck) -> Result<Self, Trouble> {
        let format = row.try_get(2)?;
        can_read(format)?;
        if PepperCheck::from_hex(row.try_get(3)?) != Some(check) {
            return Err(Trouble::WrongPepper);
        }
        let chain: &[u8] = row.try_get(1)?;
        let chain =
            chain.try_into().map_err(|_| Trouble::Refused("its chain has no 32 bytes: it is damaged".to_owned()))?;
        Ok(Self { revision: Revision { number: from_sql(row.try_get(0)?), chain }, format, has: row.try_get(4)? })
    }
}

type Begun = (Head, Option<Record>, Pin<Box<RowStream>>);

/// Asks, and reads the first row.
async fn begin(
    lease: &Lease,
    sql: &str,
    asked: &[(&(dyn ToSql + Sync), Type)],
    check: PepperCheck,
) -> Result<Begun, Trouble> {
    // The statement has no name: one with a name would be lost behind a pooler.
    let asked = asked.iter().map(|(value, kind)| (*value, kind.clone()));
    let mut rows = Box::pin(lease.client().query_typed_raw(sql, asked).await?);
    let row = rows.try_next().await?.ok_or_else(Trouble::empty)?;
    Ok((Head::of(&row, check)?, record(&row)?, rows))
}

/// Fills a batch; false at the end of the rows.
async fn fill(rows: &mut Pin<Box<RowStream>>, batch: &mut Vec<Record>) -> Result<bool, Trouble> {
    while batch.len() < BATCH {
        match rows.try_next().await? {
            Some(row) => batch.extend(record(&row)?),
            None => return Ok(false),
        }
    }
    Ok(true)
}

/// The record in a row; none in that of a head alone.
fn record(row: &Row) -> Result<Option<Record>, Trouble> {
    let Some(kind) = row.try_get::<_, Option<&str>>(5)? else { return Ok(None) };
    // What a later version keeps beside, this one does not read.
    let Some(kind) = Kind::parse(kind) else { return Ok(None) };
    let id = RecordId { kind, id: row.try_get::<_, &str>(6)?.into() };
    let body = row.try_get::<_, Option<&str>>(8)?.map(Into::into);
    Ok(Some(Record { id, revision: from_sql(row.try_get(7)?), body }))
}

/// PostgreSQL's integers are signed; revisions count up from zero and never get near the difference.
pub(super) fn to_sql(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

pub(super) fn from_sql(number: i64) -> u64 {
    u64::try_from(number).unwrap_or(0)
}
