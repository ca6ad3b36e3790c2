//! The audit, usage and nodes, as they are kept on the server.

use std::time::Duration;

use tokio_postgres::Row;
use tokio_postgres::types::{ToSql, Type};

use super::PostgresStore;
use super::link::{LONG_PATIENCE, PATIENCE, within};
use super::read::{self, Answer, about, from_sql, table, to_sql};
use super::schema::WITH_LISTS;
use super::trouble::Trouble;
use crate::auth::digest::Digest;
use crate::store::ledger::audit::{LARGEST_PAGE, Line, Order, Page};
use crate::store::ledger::nodes::{Node, Report};
use crate::store::ledger::usage::{Usage, Uses, time_of};
use crate::store::ledger::{Ledger, LedgerError};
use crate::store::record::{Kind, Record, RecordId};
use crate::store::{Records, Revision};

const BEGIN: &str = "
    begin isolation level read committed;
    set local synchronous_commit = off;
    set local lock_timeout = '2s';
    set local statement_timeout = '4s';
    set local idle_in_transaction_session_timeout = '5s'";

const ADD: &str = "
    insert into keyward.usage as u (key_id, secret_id, last_used, count, client, node)
    select t.key_id, t.secret_id, t.last_used, t.count, t.client, $6
    from unnest($1::text[], $2::text[], $3::bigint[], $4::bigint[], $5::text[])
        as t (key_id, secret_id, last_used, count, client)
    on conflict (key_id, secret_id) do update set
        count = u.count + excluded.count,
        last_used = greatest(u.last_used, excluded.last_used),
        node = case when excluded.last_used >= u.last_used then excluded.node else u.node end,
        client = case when excluded.last_used >= u.last_used then excluded.client else u.client end";

const USAGE: &str = "
    select key_id, secret_id, count, last_used, node, client from keyward.usage
    where $1::text is null or key_id = $1 order by key_id, secret_id";

const USAGE_AFTER: &str = "
    select key_id, secret_id, count, last_used, node, client from keyward.usage where key_id in (
        select distinct key_id from keyward.usage where key_id > $1 order by key_id limit $2
    ) order by key_id, secret_id";

const IDLE: &str = "
    select key_id, secret_id from keyward.usage
    where last_used < $1 and (key_id, secret_id) > ($2, $3) order by key_id, secret_id limit $4";

const DROP: &str = "
    delete from keyward.usage u using unnest($1::text[], $2::text[]) as t (key_id, secret_id)
    where u.key_id = t.key_id and u.secret_id = t.secret_id and u.last_used < $3";

const KEPT: &str = "
    select id, rev, body::text from keyward.record
    where kind = $1 and id > $2 and body is not null order by id limit $3";

const REPORT: &str = "
    insert into keyward.node as n (id, rev, version, max_staleness, seen_at)
    values ($1, $2, $3, $4, clock_timestamp())
    on conflict (id) do update set
        rev = excluded.rev, version = excluded.version, max_staleness = excluded.max_staleness, seen_at = excluded.seen_at";

const NODES: &str = "
    select id, rev, version, max_staleness,
        greatest(extract(epoch from clock_timestamp() - seen_at) * 1000, 0)::bigint
    from keyward.node order by id";

/// Both times are the server's: see `write.rs`.
const AGE: &str = "
    select (extract(epoch from clock_timestamp() - at::timestamptz) * 1000)::bigint from keyward.audit where rev = $1";

const OLDEST: &str = "
    select rev, at, entry::text, content, chain, null from keyward.audit where rev > $1 order by rev limit $2";
const NEWEST: &str = "
    select rev, at, entry::text, content, chain, null from keyward.audit where rev < $1 order by rev desc limit $2";

/// Lines with their lists, until these are large enough. How long one is, the server knows without reading it.
const LISTS: &str = "
    select rev, at, entry::text, content, chain, records from (
        select *, sum(coalesce(octet_length(records), 0)) over (order by rev) - coalesce(octet_length(records), 0) as before
        from (select * from keyward.audit where rev > $1 order by rev limit $2) page
    ) sized where before < $3 order by rev";

impl Ledger for PostgresStore {
    async fn head(&self) -> Result<Revision, LedgerError> {
        let read = async {
            let lease = self.pool.lease().await?;
            let head = read::head(&lease, self.check).await?;
            lease.give_back();
            Ok(head.revision)
        };
        self.explained(read.await)
    }

    async fn lines(&self, page: Page) -> Result<Vec<Line>, LedgerError> {
        let (sql, after) = match page.order {
            Order::OldestFirst => (OLDEST, page.after.map_or(-1, to_sql)),
            Order::NewestFirst => (NEWEST, page.after.map_or(i64::MAX, to_sql)),
        };
        let (limit, largest) = (i64::from(page.limit), LARGEST_PAGE as i64);
        let read = async {
            let lease = self.pool.lease().await?;
            let asked: [Value<'_>; 3] = [(&after, Type::INT8), (&limit, Type::INT8), (&largest, Type::INT8)];
            let has_lists = page.lists && read::head(&lease, self.check).await?.format >= WITH_LISTS;
            let (sql, asked) = if has_lists { (LISTS, &asked[..]) } else { (sql, &asked[..2]) };
            let rows = within(LONG_PATIENCE, "reading the audit", lease.client().query_typed(sql, asked)).await?;
            lease.give_back();
            rows.iter().map(line).collect::<Result<_, _>>().map_err(Trouble::from)
        };
        self.explained(read.await)
    }

    async fn rows(&self) -> Result<(Revision, Records), LedgerError> {
        let answer = async { Answer::rows(self.pool.lease().await?, self.check).await };
        let answer = self.explained(answer.await)?;
        Ok((answer.revision, self.stream(answer)))
    }

    async fn age(&self, revision: u64) -> Result<Option<Duration>, LedgerError> {
        let rows = self.rows(AGE, &[(&to_sql(revision), Type::INT8)]).await;
        let age = rows.and_then(|rows| rows.first().map(|row| row.try_get(0)).transpose().map_err(Trouble::from));
        Ok(self.explained(age)?.map(|millis| Duration::from_millis(from_sql(millis))))
    }

    async fn add_usage(&self, node: &str, mut uses: Vec<Uses>) -> Result<(), LedgerError> {
        // Always in the same order: two nodes that add at once do not wait for each other in a circle.
        uses.sort_unstable_by(|a, b| (&a.key, a.secret).cmp(&(&b.key, b.secret)));
        let keys: Vec<&str> = uses.iter().map(|uses| &*uses.key).collect();
        let secrets: Vec<String> = uses.iter().map(|uses| uses.secret.to_record_id()).collect();
        let minutes: Vec<i64> = uses.iter().map(|uses| uses.minute.into()).collect();
        let counts: Vec<i64> = uses.iter().map(|uses| to_sql(uses.count)).collect();
        let clients: Vec<Option<String>> =
            uses.iter().map(|uses| uses.client.map(|client| client.to_string())).collect();
        let values: [(&(dyn ToSql + Sync), Type); 6] = [
            (&keys, Type::TEXT_ARRAY),
            (&secrets, Type::TEXT_ARRAY),
            (&minutes, Type::INT8_ARRAY),
            (&counts, Type::INT8_ARRAY),
            (&clients, Type::TEXT_ARRAY),
            (&node, Type::TEXT),
        ];
        self.explained(self.note(ADD, &values).await)
    }

    async fn usage(&self, key: Option<&str>) -> Result<Vec<Usage>, LedgerError> {
        self.uses(USAGE, &[(&key, Type::TEXT)]).await
    }

    async fn usage_after(&self, key: &str, keys: usize) -> Result<Vec<Usage>, LedgerError> {
        let keys = i64::try_from(keys).unwrap_or(i64::MAX);
        self.uses(USAGE_AFTER, &[(&key, Type::TEXT), (&keys, Type::INT8)]).await
    }

    async fn idle_usage(
        &self,
        before: u64,
        after: Option<(Box<str>, Digest)>,
        limit: u32,
    ) -> Result<Vec<(Box<str>, Digest)>, LedgerError> {
        let (key, secret) = after.map_or_else(Default::default, |(key, secret)| (key, secret.to_record_id()));
        let (before, limit) = (to_sql(before), i64::from(limit));
        let asked: [Value<'_>; 4] =
            [(&before, Type::INT8), (&&*key, Type::TEXT), (&secret, Type::TEXT), (&limit, Type::INT8)];
        let value = |row: &Row| {
            let secret = Digest::from_record_id(row.try_get(1)?);
            Ok(secret.map(|secret| (row.try_get::<_, &str>(0).unwrap_or_default().into(), secret)))
        };
        let idle = self.rows(IDLE, &asked).await;
        let idle = idle.and_then(|rows| rows.iter().map(value).collect::<Result<Vec<_>, Trouble>>());
        self.explained(idle.map(|values| values.into_iter().flatten().collect()))
    }

    async fn drop_usage(&self, values: Vec<(Box<str>, Digest)>, before: u64) -> Result<(), LedgerError> {
        let keys: Vec<&str> = values.iter().map(|(key, _)| &**key).collect();
        let secrets: Vec<String> = values.iter().map(|(_, secret)| secret.to_record_id()).collect();
        let before = to_sql(before);
        let asked: [Value<'_>; 3] = [(&keys, Type::TEXT_ARRAY), (&secrets, Type::TEXT_ARRAY), (&before, Type::INT8)];
        self.explained(self.note(DROP, &asked).await)
    }

    async fn kept(&self, kind: Kind, after: &str, limit: u32) -> Result<Vec<Record>, LedgerError> {
        let (label, limit) = (kind.label(), i64::from(limit));
        let asked: [Value<'_>; 3] = [(&label, Type::TEXT), (&after, Type::TEXT), (&limit, Type::INT8)];
        let record = |row: &Row| {
            let id = RecordId { kind, id: row.try_get::<_, &str>(0)?.into() };
            let body = row.try_get::<_, Option<&str>>(2)?.map(Into::into);
            Ok(Record { id, revision: from_sql(row.try_get(1)?), body })
        };
        let kept = self.rows(&about(table(kind), KEPT), &asked).await;
        self.explained(kept.and_then(|rows| rows.iter().map(record).collect::<Result<_, Trouble>>()))
    }

    async fn report(&self, report: Report) -> Result<(), LedgerError> {
        let Report { id, revision, version, max_staleness } = report;
        let staleness = i64::try_from(max_staleness.as_millis()).unwrap_or(i64::MAX);
        let values: [(&(dyn ToSql + Sync), Type); 4] =
            [(&id, Type::TEXT), (&to_sql(revision), Type::INT8), (&version, Type::TEXT), (&staleness, Type::INT8)];
        self.explained(self.note(REPORT, &values).await)
    }

    async fn forget(&self, node: &str) -> Result<(), LedgerError> {
        self.explained(self.note("delete from keyward.node where id = $1", &[(&node, Type::TEXT)]).await)
    }

    async fn nodes(&self) -> Result<Vec<Node>, LedgerError> {
        let rows = self.rows(NODES, &[]).await;
        let nodes = rows.and_then(|rows| rows.iter().map(node).collect::<Result<_, _>>().map_err(Trouble::from));
        self.explained(nodes)
    }
}

type Value<'v> = (&'v (dyn ToSql + Sync), Type);

impl PostgresStore {
    async fn uses(&self, sql: &str, values: &[Value<'_>]) -> Result<Vec<Usage>, LedgerError> {
        let rows = self.rows(sql, values).await;
        let usage = rows.and_then(|rows| rows.iter().map(usage).collect::<Result<Vec<_>, _>>().map_err(Trouble::from));
        self.explained(usage.map(|rows| rows.into_iter().flatten().collect()))
    }

    /// Reads a few rows.
    async fn rows(&self, sql: &str, values: &[Value<'_>]) -> Result<Vec<Row>, Trouble> {
        let lease = self.pool.lease().await?;
        let rows = within(LONG_PATIENCE, "reading", lease.client().query_typed(sql, values)).await?;
        lease.give_back();
        Ok(rows)
    }

    /// Writes what is no part of the history: nobody waits for a disk or a standby, and a crash of the server may cost the
    /// last of it.
    async fn note(&self, sql: &str, values: &[Value<'_>]) -> Result<(), Trouble> {
        let lease = self.pool.lease().await?;
        let client = lease.client();
        let written = async {
            client.batch_execute(BEGIN).await?;
            client.query_typed(sql, values).await?;
            client.batch_execute("commit").await
        };
        within(PATIENCE, "noting usage", written).await?;
        lease.give_back();
        Ok(())
    }
}

impl PostgresStore {
    fn explained<T>(&self, done: Result<T, Trouble>) -> Result<T, LedgerError> {
        done.map_err(|trouble| trouble.explain(&self.name).into())
    }
}

fn line(row: &Row) -> Result<Line, tokio_postgres::Error> {
    let (revision, content, chain) = (from_sql(row.try_get(0)?), row.try_get(3)?, row.try_get(4)?);
    Ok(Line { revision, at: row.try_get(1)?, entry: row.try_get(2)?, content, chain, list: row.try_get(5)? })
}

/// One whose secret is none was written by somebody else.
fn usage(row: &Row) -> Result<Option<Usage>, tokio_postgres::Error> {
    let Some(secret) = Digest::from_record_id(row.try_get(1)?) else { return Ok(None) };
    let (key, count) = (row.try_get::<_, &str>(0)?.into(), from_sql(row.try_get(2)?));
    let last_used = time_of(from_sql(row.try_get(3)?));
    Ok(Some(Usage { key, secret, count, last_used, node: row.try_get(4)?, client: row.try_get(5)? }))
}

fn node(row: &Row) -> Result<Node, tokio_postgres::Error> {
    Ok(Node {
        id: row.try_get(0)?,
        revision: from_sql(row.try_get(1)?),
        version: row.try_get(2)?,
        max_staleness_ms: from_sql(row.try_get(3)?),
        seen_ms_ago: from_sql(row.try_get(4)?),
    })
}
