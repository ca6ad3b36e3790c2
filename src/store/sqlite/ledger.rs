//! The audit, as it is kept in the database.

use std::sync::Arc;

use rusqlite::Row;
use tokio::task::spawn_blocking;

use super::SqliteStore;
use super::read::{Snapshot, from_sql, to_sql};
use super::trouble::Trouble;
use crate::store::Revision;
use crate::store::ledger::audit::{Line, Order, Page};
use crate::store::ledger::{Ledger, LedgerError};

impl Ledger for SqliteStore {
    async fn head(&self) -> Result<Revision, LedgerError> {
        self.look(|snapshot| Ok(snapshot.head.revision)).await
    }

    async fn lines(&self, page: Page) -> Result<Vec<Line>, LedgerError> {
        self.look(move |snapshot| snapshot.lines(page)).await
    }
}

impl SqliteStore {
    async fn look<T: Send + 'static>(
        &self,
        look: impl FnOnce(&Snapshot) -> Result<T, Trouble> + Send + 'static,
    ) -> Result<T, LedgerError> {
        let database = Arc::clone(&self.database);
        let looked = spawn_blocking(move || {
            let seen = Snapshot::open(&database).and_then(|snapshot| look(&snapshot));
            seen.map_err(|trouble| database.explain(trouble))
        });
        Ok(looked.await.unwrap_or_else(|_| Err(self.broken()))?)
    }
}

impl Snapshot {
    fn lines(&self, page: Page) -> Result<Vec<Line>, Trouble> {
        let (sql, after) = match page.order {
            Order::OldestFirst => (
                "select rev, at, entry, content, chain from audit where rev > ?1 order by rev limit ?2",
                page.after.map_or(-1, to_sql),
            ),
            Order::NewestFirst => (
                "select rev, at, entry, content, chain from audit where rev < ?1 order by rev desc limit ?2",
                page.after.map_or(i64::MAX, to_sql),
            ),
        };
        let mut statement = self.connection().prepare_cached(sql)?;
        let lines = statement.query_map([after, page.limit.into()], line)?.collect::<rusqlite::Result<_>>()?;
        self.still()?;
        Ok(lines)
    }
}

fn line(row: &Row<'_>) -> rusqlite::Result<Line> {
    let revision = from_sql(row.get(0)?);
    Ok(Line { revision, at: row.get(1)?, entry: row.get(2)?, content: row.get(3)?, chain: row.get(4)? })
}
