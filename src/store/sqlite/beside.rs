//! Usage and nodes: in a file of their own beside the database.
//!
//! They are written every few seconds and worth nothing after a disaster. In the database itself they would make every one
//! of its pages a page of somebody else's log, and a log that holds no commit cannot be told from that of another file (see
//! `log.rs`). Here they cost no sync of the disk, and a copy of the database is still the whole backup.

use std::fs::OpenOptions;
use std::io::ErrorKind;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use rusqlite::{Connection, OpenFlags, Params, Row, params};

use super::read::{from_sql, to_sql};
use super::trouble::Trouble;
use crate::auth::digest::Digest;
use crate::auth::grant::Timestamp;
use crate::store::ledger::nodes::{Node, Report};
use crate::store::ledger::usage::{Usage, Uses, time_of};

/// How long to wait for another process.
const PATIENCE: Duration = Duration::from_secs(2);

const SCHEMA: &str = "
    create table if not exists usage (
        key_id text not null, secret_id text not null, last_used integer not null, count integer not null,
        node text not null, client text, primary key (key_id, secret_id)
    ) strict, without rowid;
    create table if not exists node (
        id text primary key, rev integer not null, version text not null, max_staleness integer not null,
        seen_at integer not null
    ) strict;
";

const ADD: &str = "
    insert into usage as u (key_id, secret_id, last_used, count, node, client) values (?1, ?2, ?3, ?4, ?5, ?6)
    on conflict (key_id, secret_id) do update set
        count = u.count + excluded.count,
        last_used = max(u.last_used, excluded.last_used),
        node = iif(excluded.last_used >= u.last_used, excluded.node, u.node),
        client = iif(excluded.last_used >= u.last_used, excluded.client, u.client)";

/// The file, and the connection to it once somebody has needed one.
#[derive(Debug)]
pub(super) struct Beside {
    path: PathBuf,
    connection: Mutex<Option<Connection>>,
}

impl Beside {
    pub(super) fn new(database: &Path) -> Self {
        let mut path = database.as_os_str().to_owned();
        path.push("-usage");
        Self { path: path.into(), connection: Mutex::default() }
    }

    pub(super) fn add_usage(&self, node: &str, uses: &[Uses]) -> Result<(), Trouble> {
        self.write(|connection| {
            let mut add = connection.prepare_cached(ADD)?;
            for Uses { key, secret, count, minute, client } in uses {
                let client = client.map(|client| client.to_string());
                add.execute(params![key, secret.to_record_id(), minute, to_sql(*count), node, client])?;
            }
            Ok(())
        })
    }

    pub(super) fn usage(&self, key: Option<&str>) -> Result<Vec<Usage>, Trouble> {
        let sql = "select key_id, secret_id, count, last_used, node, client from usage
                   where ?1 is null or key_id = ?1 order by key_id, secret_id";
        self.read(sql, [key], usage).map(|rows| rows.into_iter().flatten().collect())
    }

    pub(super) fn usage_after(&self, key: &str, keys: usize) -> Result<Vec<Usage>, Trouble> {
        let sql = "select key_id, secret_id, count, last_used, node, client from usage where key_id in
                   (select distinct key_id from usage where key_id > ?1 order by key_id limit ?2) order by key_id, secret_id";
        let keys = i64::try_from(keys).unwrap_or(i64::MAX);
        self.read(sql, params![key, keys], usage).map(|rows| rows.into_iter().flatten().collect())
    }

    pub(super) fn idle_usage(
        &self,
        before: u64,
        after: Option<(Box<str>, Digest)>,
        limit: u32,
    ) -> Result<Vec<(Box<str>, Digest)>, Trouble> {
        let sql = "select key_id, secret_id from usage
                   where last_used < ?1 and (key_id, secret_id) > (?2, ?3) order by key_id, secret_id limit ?4";
        let (key, secret) = after.map_or_else(Default::default, |(key, secret)| (key, secret.to_record_id()));
        let value = |row: &Row<'_>| Ok((row.get(0)?, row.get::<_, String>(1)?));
        let idle = self.with(false, |connection| {
            let mut statement = connection.prepare_cached(sql)?;
            let values = params![to_sql(before), key, secret, limit];
            statement.query_map(values, value)?.collect::<rusqlite::Result<Vec<(Box<str>, String)>>>()
        })?;
        let known = |(key, secret): (Box<str>, String)| Some((key, Digest::from_record_id(&secret)?));
        Ok(idle.unwrap_or_default().into_iter().filter_map(known).collect())
    }

    pub(super) fn drop_usage(&self, values: &[(Box<str>, Digest)], before: u64) -> Result<(), Trouble> {
        self.write(|connection| {
            let sql = "delete from usage where key_id = ?1 and secret_id = ?2 and last_used < ?3";
            let mut drop = connection.prepare_cached(sql)?;
            for (key, secret) in values {
                drop.execute(params![key, secret.to_record_id(), to_sql(before)])?;
            }
            Ok(())
        })
    }

    pub(super) fn report(&self, report: &Report) -> Result<(), Trouble> {
        let Report { id, revision, version, max_staleness } = report;
        let staleness = i64::try_from(max_staleness.as_millis()).unwrap_or(i64::MAX);
        self.write(|connection| {
            let sql =
                "insert or replace into node (id, rev, version, max_staleness, seen_at) values (?1, ?2, ?3, ?4, ?5)";
            let values = params![id, to_sql(*revision), version, staleness, to_sql(now())];
            connection.prepare_cached(sql)?.execute(values).map(drop)
        })
    }

    pub(super) fn forget(&self, node: &str) -> Result<(), Trouble> {
        self.write(|connection| connection.execute("delete from node where id = ?1", [node]).map(drop))
    }

    pub(super) fn nodes(&self) -> Result<Vec<Node>, Trouble> {
        self.read("select id, rev, version, max_staleness, seen_at from node order by id", [], node)
    }

    fn write(&self, work: impl FnOnce(&Connection) -> rusqlite::Result<()>) -> Result<(), Trouble> {
        self.with(true, |connection| {
            connection.execute_batch("begin immediate")?;
            let done = work(connection).and_then(|()| connection.execute_batch("commit"));
            if done.is_err() {
                // What cannot be taken back ends with the connection.
                connection.execute_batch("rollback")?;
            }
            done
        })
        .map(drop)
    }

    fn read<T>(
        &self,
        sql: &str,
        values: impl Params,
        row: fn(&Row<'_>) -> rusqlite::Result<T>,
    ) -> Result<Vec<T>, Trouble> {
        let read = |connection: &Connection| connection.prepare(sql)?.query_map(values, row)?.collect();
        self.with(false, read).map(Option::unwrap_or_default)
    }

    /// Works on the file. Where there is none, whoever writes makes it, and whoever reads has nothing (`None`).
    fn with<T>(
        &self,
        makes: bool,
        work: impl FnOnce(&Connection) -> rusqlite::Result<T>,
    ) -> Result<Option<T>, Trouble> {
        let mut connection = self.connection.lock().unwrap_or_else(PoisonError::into_inner);
        if !self.path.exists() {
            // Somebody may have deleted it, to begin anew.
            *connection = None;
            if !makes {
                return Ok(None);
            }
        }
        let open = match connection.take() {
            Some(open) => open,
            None => self.open(makes)?,
        };
        let done = work(&open).map_err(|error| self.explain(&error))?;
        *connection = Some(open);
        Ok(Some(done))
    }

    fn open(&self, makes: bool) -> Result<Connection, Trouble> {
        if makes {
            match OpenOptions::new().write(true).create_new(true).mode(0o600).open(&self.path) {
                Err(error) if error.kind() != ErrorKind::AlreadyExists => {
                    return Err(Trouble::Refused(format!("{} cannot be made: {error}", self.path.display())));
                }
                Ok(_) | Err(_) => {}
            }
        }
        let open = || {
            let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
            let connection = Connection::open_with_flags(&self.path, flags)?;
            connection.busy_timeout(PATIENCE)?;
            connection.pragma_update(None, "journal_mode", "wal")?;
            // A power cut may cost the last seconds of it, and no more.
            connection.pragma_update(None, "synchronous", "normal")?;
            connection.execute_batch(SCHEMA)?;
            Ok(connection)
        };
        open().map_err(|error| self.explain(&error))
    }

    /// This file is not the database: the advice for that would be wrong.
    fn explain(&self, error: &rusqlite::Error) -> Trouble {
        let path = self.path.display();
        Trouble::Refused(format!(
            "{path}, where usage and nodes are kept: {error}; it may be deleted, and is made anew"
        ))
    }
}

/// One whose secret is none was written by somebody else.
fn usage(row: &Row<'_>) -> rusqlite::Result<Option<Usage>> {
    let Some(secret) = Digest::from_record_id(&row.get::<_, String>(1)?) else { return Ok(None) };
    let last_used = time_of(from_sql(row.get(3)?));
    let count = from_sql(row.get(2)?);
    Ok(Some(Usage { key: row.get(0)?, secret, count, last_used, node: row.get(4)?, client: row.get(5)? }))
}

fn node(row: &Row<'_>) -> rusqlite::Result<Node> {
    Ok(Node {
        id: row.get(0)?,
        revision: from_sql(row.get(1)?),
        version: row.get(2)?,
        max_staleness_ms: from_sql(row.get(3)?),
        seen_ms_ago: now().saturating_sub(from_sql(row.get(4)?)),
    })
}

fn now() -> u64 {
    Timestamp::from(SystemTime::now()).millis()
}
