//! The audit, as it is kept in the database, and what is kept beside it.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use rusqlite::{OptionalExtension, Row, params};
use tokio::sync::{mpsc, oneshot};
use tokio::task::spawn_blocking;

use super::beside::Beside;
use super::read::{Snapshot, from_sql, has_lists, to_sql};
use super::trouble::Trouble;
use super::{Answer, BATCHES_AHEAD, Rest, SqliteStore};
use crate::auth::digest::Digest;
use crate::auth::grant::Timestamp;
use crate::store::ledger::audit::{LARGEST_PAGE, Line, Order, Page};
use crate::store::ledger::nodes::{Node, Report};
use crate::store::ledger::usage::{Usage, Uses};
use crate::store::ledger::{Ledger, LedgerError};
use crate::store::record::{Kind, Record, RecordId};
use crate::store::{Records, Revision};

impl Ledger for SqliteStore {
    async fn head(&self) -> Result<Revision, LedgerError> {
        Ok(self.look(|snapshot| Ok(snapshot.head.revision)).await?)
    }

    async fn lines(&self, page: Page) -> Result<Vec<Line>, LedgerError> {
        Ok(self.look(move |snapshot| snapshot.lines(page)).await?)
    }

    async fn rows(&self) -> Result<(Revision, Records), LedgerError> {
        let database = Arc::clone(&self.database);
        let (reply, begun) = oneshot::channel();
        spawn_blocking(move || match Snapshot::open(&database) {
            Ok(snapshot) => {
                let (sender, receiver) = mpsc::channel(BATCHES_AHEAD);
                if reply.send(Ok((snapshot.head.revision, Records::from_channel(receiver)))).is_ok() {
                    Rest { snapshot, answer: Answer::Rows, sender }.stream();
                }
            }
            Err(trouble) => drop(reply.send(Err(database.explain(trouble)))),
        });
        Ok(begun.await.unwrap_or_else(|_| Err(self.broken()))?)
    }

    async fn age(&self, revision: u64) -> Result<Option<Duration>, LedgerError> {
        let at = self.look(move |snapshot| snapshot.time_of(revision)).await?;
        let made = at.and_then(|at| Timestamp::parse(&at));
        let now = Timestamp::from(SystemTime::now()).millis();
        Ok(made.map(|made| Duration::from_millis(now.saturating_sub(made.millis()))))
    }

    async fn add_usage(&self, node: &str, uses: Vec<Uses>) -> Result<(), LedgerError> {
        let node = node.to_owned();
        self.beside(move |beside| beside.add_usage(&node, &uses)).await
    }

    async fn usage(&self, key: Option<&str>) -> Result<Vec<Usage>, LedgerError> {
        let key = key.map(str::to_owned);
        self.beside(move |beside| beside.usage(key.as_deref())).await
    }

    async fn usage_after(&self, key: &str, keys: usize) -> Result<Vec<Usage>, LedgerError> {
        let key = key.to_owned();
        self.beside(move |beside| beside.usage_after(&key, keys)).await
    }

    async fn idle_usage(
        &self,
        before: u64,
        after: Option<(Box<str>, Digest)>,
        limit: u32,
    ) -> Result<Vec<(Box<str>, Digest)>, LedgerError> {
        self.beside(move |beside| beside.idle_usage(before, after, limit)).await
    }

    async fn drop_usage(&self, values: Vec<(Box<str>, Digest)>, before: u64) -> Result<(), LedgerError> {
        self.beside(move |beside| beside.drop_usage(&values, before)).await
    }

    async fn kept(&self, kind: Kind, after: &str, limit: u32) -> Result<Vec<Record>, LedgerError> {
        let after = after.to_owned();
        Ok(self.look(move |snapshot| snapshot.kept(kind, &after, limit)).await?)
    }

    async fn report(&self, report: Report) -> Result<(), LedgerError> {
        self.beside(move |beside| beside.report(&report)).await
    }

    async fn forget(&self, node: &str) -> Result<(), LedgerError> {
        let node = node.to_owned();
        self.beside(move |beside| beside.forget(&node)).await
    }

    async fn nodes(&self) -> Result<Vec<Node>, LedgerError> {
        self.beside(Beside::nodes).await
    }
}

impl SqliteStore {
    async fn beside<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Beside) -> Result<T, Trouble> + Send + 'static,
    ) -> Result<T, LedgerError> {
        let (database, beside) = (Arc::clone(&self.database), Arc::clone(&self.beside));
        let done = spawn_blocking(move || work(&beside).map_err(|trouble| database.explain(trouble)));
        Ok(done.await.unwrap_or_else(|_| Err(self.broken()))?)
    }
}

impl Snapshot {
    fn time_of(&self, revision: u64) -> Result<Option<String>, Trouble> {
        let mut statement = self.connection().prepare_cached("select at from audit where rev = ?1")?;
        Ok(statement.query_row([to_sql(revision)], |row| row.get(0)).optional()?)
    }

    fn kept(&self, kind: Kind, after: &str, limit: u32) -> Result<Vec<Record>, Trouble> {
        let sql = "select id, rev, body from record
                   where kind = ?1 and id > ?2 and body is not null order by id limit ?3";
        let mut statement = self.connection().prepare_cached(sql)?;
        let record = |row: &Row<'_>| {
            let id = RecordId { kind, id: row.get(0)? };
            Ok(Record { id, revision: from_sql(row.get(1)?), body: row.get(2)? })
        };
        let kept =
            statement.query_map(params![kind.label(), after, limit], record)?.collect::<rusqlite::Result<_>>()?;
        self.still()?;
        Ok(kept)
    }

    fn lines(&self, page: Page) -> Result<Vec<Line>, Trouble> {
        let (condition, after) = match page.order {
            Order::OldestFirst => ("rev > ?1 order by rev", page.after.map_or(-1, to_sql)),
            Order::NewestFirst => ("rev < ?1 order by rev desc", page.after.map_or(i64::MAX, to_sql)),
        };
        let list = if page.lists && has_lists(self.connection())? { "records" } else { "null" };
        let sql = format!("select rev, at, entry, content, chain, {list} from audit where {condition} limit ?2");
        let mut statement = self.connection().prepare_cached(&sql)?;
        let (mut lines, mut size) = (Vec::new(), 0);
        let mut found = statement.query_map([after, page.limit.into()], line)?;
        while size < LARGEST_PAGE
            && let Some(line) = found.next().transpose()?
        {
            size += line.list.as_ref().map_or(0, String::len);
            lines.push(line);
        }
        self.still()?;
        Ok(lines)
    }
}

fn line(row: &Row<'_>) -> rusqlite::Result<Line> {
    let revision = from_sql(row.get(0)?);
    Ok(Line {
        revision,
        at: row.get(1)?,
        entry: row.get(2)?,
        content: row.get(3)?,
        chain: row.get(4)?,
        list: row.get(5)?,
    })
}
