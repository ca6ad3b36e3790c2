//! The audit, as it is kept on the server.

use tokio_postgres::Row;
use tokio_postgres::types::{ToSql, Type};

use super::PostgresStore;
use super::link::{LONG_PATIENCE, PATIENCE, within};
use super::read::{Head, from_sql, to_sql};
use super::trouble::Trouble;
use crate::store::Revision;
use crate::store::ledger::audit::{Line, Order, Page};
use crate::store::ledger::{Ledger, LedgerError};

const HEAD: &str = "select rev, chain, format, pepper_check, true from keyward.meta";

const OLDEST: &str = "
    select rev, at, entry::text, content, chain from keyward.audit where rev > $1 order by rev limit $2";
const NEWEST: &str = "
    select rev, at, entry::text, content, chain from keyward.audit where rev < $1 order by rev desc limit $2";

impl Ledger for PostgresStore {
    async fn head(&self) -> Result<Revision, LedgerError> {
        let read = async {
            let lease = self.pool.lease().await?;
            let row = within(PATIENCE, "reading the head", lease.client().query_typed_opt(HEAD, &[])).await?;
            lease.give_back();
            let head = row.ok_or_else(Trouble::empty)?;
            Ok(Head::of(&head, self.check)?.revision)
        };
        self.explained(read.await)
    }

    async fn lines(&self, page: Page) -> Result<Vec<Line>, LedgerError> {
        let (sql, after) = match page.order {
            Order::OldestFirst => (OLDEST, page.after.map_or(-1, to_sql)),
            Order::NewestFirst => (NEWEST, page.after.map_or(i64::MAX, to_sql)),
        };
        let read = async {
            let lease = self.pool.lease().await?;
            let limit = i64::from(page.limit);
            let asked: [(&(dyn ToSql + Sync), Type); 2] = [(&after, Type::INT8), (&limit, Type::INT8)];
            let rows = within(LONG_PATIENCE, "reading the audit", lease.client().query_typed(sql, &asked)).await?;
            lease.give_back();
            rows.iter().map(line).collect::<Result<_, _>>().map_err(Trouble::from)
        };
        self.explained(read.await)
    }
}

impl PostgresStore {
    fn explained<T>(&self, done: Result<T, Trouble>) -> Result<T, LedgerError> {
        done.map_err(|trouble| trouble.explain(&self.name).into())
    }
}

fn line(row: &Row) -> Result<Line, tokio_postgres::Error> {
    let revision = from_sql(row.try_get(0)?);
    Ok(Line { revision, at: row.try_get(1)?, entry: row.try_get(2)?, content: row.try_get(3)?, chain: row.try_get(4)? })
}
